"""Which task a request is about: the published words and shapes, and the bundled model."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(Path(__file__).parent)]

from handwritten import LATER, PROMPTS
from mounts import model as facts
from task_prompts import CLASSES, prompts

from aiproxy.middleware.classify import WORDS, classify
from aiproxy.middleware.config import ConfigInvalid, load_config
from aiproxy.middleware.tasks import classifier, model

req = pytest.mark.requirement
CARD = Path(model.__file__).with_name("model_card.md").read_text()
MODEL = {"routing": {"task_classifier": {"type": "model"}}}
HINT = "X-AI-Task-Hint"
ON = {"X-AI-Multi-Provider": "enabled"}


def asked(text, **more):
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **more}


def by_hand(rows):
    return [(task, text) for task, texts in rows.items() for text in texts]


SETS = {
    "2000 generated": list(prompts("held-out", 2000)),
    f"{len(by_hand(PROMPTS))} written by hand ": by_hand(PROMPTS),
    f"{len(by_hand(LATER))} written by hand, later": by_hand(LATER),
}


@pytest.fixture(scope="module")
def bundled():
    return model.load(min_confidence=0.5)


@req("XAI-AUTO-010")
@pytest.mark.parametrize("name", ["words", "model"])
@pytest.mark.parametrize("kind", SETS)
def test_the_model_card_states_the_measured_shares(bundled, kind, name):
    """The sets are those nothing was trained on."""
    tell = classify if name == "words" else bundled.classify
    rows = SETS[kind]
    share = sum(tell(asked(text)) == task for task, text in rows) / len(rows)
    [line] = [x for x in CARD.splitlines() if x.startswith(f"| {kind}") and f"| {name} |" in x]
    assert float(line.split("|")[-2]) == pytest.approx(share, abs=0.0005)


def test_at_least_150_prompts_were_written_by_hand():
    every = [text for _, text in by_hand(PROMPTS) + by_hand(LATER)]
    assert len(set(every)) == len(every) >= 150
    assert set(PROMPTS) == set(LATER) == set(CLASSES) == {*WORDS, "general"}


def test_the_prompts_are_the_same_for_the_same_seed_and_the_splits_share_none():
    first, again = list(prompts("train", 500)), list(prompts("train", 500))
    assert first == again
    assert first != list(prompts("train", 500, seed=1))
    held_out = {text for _, text in prompts("held-out", 3000)}
    assert held_out.isdisjoint(text for _, text in prompts("train", 6000))


TRACE = 'It broke:\nTraceback (most recent call last):\n  File "a.py", line 1, in <module>\n'
JAVA = "please help\n  at com.shop.Cart.total(Cart.java:88)\n  at com.shop.Main.run(Main.java:9)"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
LETTERS = "abcdefghij"
DOCUMENT = "Please read.\n" + " ".join(
    f"{a}{b}{c}um told {c}{a}{b}or" for a in LETTERS for b in LETTERS for c in LETTERS
)
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


@req("XAI-AUTO-010")
@pytest.mark.parametrize(
    ("content", "more", "task"),
    [
        ("Have a look\n```\nx = 1\n```", {}, "coding"),
        (TRACE, {}, "coding"),
        (JAVA, {}, "coding"),
        ("@@ -1,4 +1,6 @@ what happened", {}, "coding"),
        ("Here:\n```text\nnine, ten\n```", {}, "general"),
        ([{"type": "text", "text": "fix this code"}, IMAGE], {}, "multimodal"),
        ("\\int_0^1 x dx", {}, "reasoning"),
        ("x + 2 = 9", {}, "reasoning"),
        ("∀n: 2 | n(n+1)", {}, "reasoning"),
        ("Lea has 4 pears and eats 2. How many are left?", {}, "reasoning"),
        (DOCUMENT, {}, "analytical"),
        ("a" * 20_000, {}, "general"),
        ("Berlin has three airports", {"response_format": SCHEMA}, "analytical"),
        ("Berlin has three airports", {}, "general"),
    ],
)
def test_shapes_speak_for_a_task(content, more, task):
    assert classify(asked(content, **more)) == task
    again = {"model": "auto", "input": [{"role": "user", "content": content}], **more}
    assert classify(again) == task


def test_the_model_sees_pictures_and_has_no_opinion_on_nothing(bundled):
    assert bundled.classify(asked([{"type": "text", "text": "fix"}, IMAGE])) == "multimodal"
    for nothing in ("", "   ", [], None):
        assert bundled.classify(asked(nothing)) == "general"
    unsure = model.load(min_confidence=1.0)
    assert {unsure.classify(asked(text)) for _, text in by_hand(LATER)} == {"general"}


@req("XAI-AUTO-010")
@pytest.mark.parametrize("kind", ["words", "model"])
def test_a_classified_task_picks_the_model_and_a_hint_wins(mount, fakes, kind):
    served = mount(
        fakes.config(
            {
                "a": {"models": [facts("m-a", quality={"coding": 0.9, "creative": 0.1})]},
                "b": {"models": [facts("m-b", quality={"coding": 0.1, "creative": 0.9})]},
            },
            routing={"strategy": "quality", "task_classifier": {"type": kind}},
        )
    )
    rows = [{"role": "user", "content": "Refactor this Python function: def f(x): return x"}]
    got = served.chat(ON, messages=rows)
    assert (got.provider, got.selection["criteria"]) == ("a", "coding")
    record = served.record(got)
    assert (record["task"], record["task_basis"]) == ("coding", "classified")
    got = served.chat({HINT: "creative"}, messages=rows)
    assert (got.provider, served.record(got)["task_basis"]) == ("b", "hint")


def test_without_onnxruntime_the_configuration_names_the_extra(tmp_path, monkeypatch):
    place = tmp_path / "aiproxy.yaml"
    place.write_text("routing:\n  task_classifier:\n    type: model\n")
    config = load_config(place)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigInvalid) as caught:
        classifier(config)
    told = str(caught.value)
    assert f"{place}:3" in told
    assert "routing.task_classifier.type" in told
    assert "aiproxy[onnx]" in told


def test_a_damaged_model_is_refused(monkeypatch):
    monkeypatch.setattr(model, "DIGEST", "0" * 64)
    with pytest.raises(ConfigInvalid, match="undamaged"):
        classifier(load_config(MODEL))


def test_telemetry_is_off_before_onnxruntime_is_imported():
    """In a process of its own: what is imported here may have set it."""
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    code = (
        "import os, sys\n"
        "from aiproxy.middleware.tasks import model\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
        "model.load(min_confidence=0.5)\n"
        "assert 'onnxruntime' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


def test_words_alone_need_no_onnxruntime_and_no_numpy():
    code = (
        "import sys\n"
        "from aiproxy.middleware.config import load_config\n"
        "from aiproxy.middleware.tasks import classifier\n"
        "tell = classifier(load_config({}))\n"
        "assert tell({'input': 'write a poem'}) == 'creative'\n"
        "assert not {'onnxruntime', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_usual_prompt_takes_less_than_a_millisecond(bundled):
    bodies = [asked(text) for _, text in by_hand(LATER)]
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        for body in bodies:
            bundled.classify(body)
        best = min(best, (time.perf_counter() - began) / len(bodies))
    assert best < 0.001


@pytest.mark.parametrize(
    "inside", ["3f9dr7c1", "a1pdf9e", "nonce-77b0tl5d", "0x1def9sql2", "q_dr_9"]
)
def test_letters_inside_an_id_are_no_words(inside):
    """Two requests that differ in an id are about the same task."""
    assert classify(asked(f"Say hello to {inside}, please.")) == "general"


@pytest.mark.parametrize(
    "said", ["pd.read_csv(file_path) fails with parse_dates", "optimise select_orders query_plan"]
)
def test_names_in_snake_case_are_read_word_by_word(said):
    assert classify(asked(said)) == "coding"


def test_a_version_behind_a_word_leaves_it_a_word():
    assert classify(asked("Which changes of python3 matter most?")) == "coding"
