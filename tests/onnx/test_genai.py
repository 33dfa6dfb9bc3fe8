"""The adapter over onnxruntime-genai's Engine, held to the real library on the CPU.

What its 0.18 does, and the adapter relies on or covers, is pinned here: a new minor of the library
that behaves otherwise fails these tests and not a server.
"""

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_models
from onnx import TensorProto, helper
from tokenizers import Tokenizer

from aiproxy.reference_server.onnx import runtime
from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import ModelUnavailable, RequestRefused
from aiproxy.reference_server.onnx.folders import TextFolder, read_folder
from aiproxy.reference_server.onnx.text.genai import (
    CUDA_SCHEDULED_TOKENS,
    GenaiRunner,
    open_genai,
    plan_for,
)
from aiproxy.reference_server.onnx.text.generation import Sampling
from aiproxy.reference_server.onnx.text.runner import (
    Capacity,
    Grammar,
    GrammarKind,
    RunnerLost,
    Sequence,
)

ORACLE: dict[str, Any] = json.loads(Path(__file__).with_name("oracle.json").read_text("utf-8"))
ROWS: list[dict[str, Any]] = ORACLE["rows"]
CPU = Device()
PROMPT = tuple(ROWS[0]["prompt"])

Open = Callable[..., GenaiRunner]


def folder_of(**model: Any) -> TextFolder:
    found = read_folder(str(tiny_models.tiny_llama(**{"paged": True, **model})))
    assert isinstance(found, TextFolder)
    return found


def copy_of(folder: Path, **changes: Any) -> TextFolder:
    """Return a model of its own in ``folder``, with ``changes`` in sections of genai_config.json."""
    shutil.copytree(tiny_models.tiny_llama(paged=True), folder)
    file = folder / "genai_config.json"
    config = json.loads(file.read_text())
    for section, values in changes.items():
        config[section] |= values
    file.write_text(json.dumps(config))
    found = read_folder(str(folder))
    assert isinstance(found, TextFolder)
    return found


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens runners and closes them at the end; ``model`` are arguments of ``tiny_llama``."""
    runners: list[GenaiRunner] = []

    def open_it(folder: TextFolder | None = None, **sizes: Any) -> GenaiRunner:
        model = {name: sizes.pop(name) for name in ("paged", "blocks") if name in sizes}
        runners.append(open_genai(folder or folder_of(**model), CPU, **sizes))
        return runners[-1]

    yield open_it
    for runner in runners:
        runner.close()


def finish(runner: GenaiRunner, most_steps: int = 600) -> dict[int, tuple[list[int], str]]:
    """Step until everything taken is over; return tokens and end by key."""
    tokens: dict[int, list[int]] = {}
    ends: dict[int, str] = {}
    for _ in range(most_steps):
        made = runner.step(0.0)
        for produced in made:
            tokens.setdefault(produced.key, []).extend(produced.tokens)
            if produced.finish is not None:
                ends[produced.key] = produced.finish
        if not made:
            break
    return {key: (tokens[key], ends[key]) for key in ends}


def alone(runner: GenaiRunner, **sequence: Any) -> list[int]:
    runner.add(Sequence(1, **{"prompt": PROMPT, "most": 12, **sequence}))
    return finish(runner)[1][0]


# --- what the library is -------------------------------------------------------------------------


def test_the_library_is_the_minor_these_tests_were_written_for() -> None:
    assert version("onnxruntime-genai").startswith("0.18.")
    library = runtime.genai()
    for name in ("create_request", "create_event_buffer", "run", "get_capabilities"):
        assert hasattr(library.Engine, name), name
    for name in ("begin_turn", "cancel_turn", "close"):
        assert hasattr(library.Request, name), name


def test_an_engine_refuses_other_threads_than_its_own() -> None:
    """Why every call of an adapter is made on one thread (AIP-PROV)."""
    library = runtime.genai()
    engine = library.Engine(library.Model(str(tiny_models.tiny_llama(paged=True))))
    said: list[str] = []

    def ask() -> None:
        try:
            engine.create_request()
        except RuntimeError as refused:
            said.append(str(refused))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert said == ["Engine operations must be called from the Engine owner thread."]


def test_a_runner_moves_to_the_thread_that_uses_it(opened: Open) -> None:
    runner = opened()
    got: list[list[int]] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: got.append(alone(runner)))
        thread.start()
        thread.join()
    got.append(alone(runner))
    assert got == [ROWS[0]["tokens"][:12]] * 3


# --- continuous batching -------------------------------------------------------------------------


def test_a_sequence_joins_at_the_next_step_and_leaves_alone(opened: Open) -> None:
    runner = opened()
    runner.add(Sequence(1, PROMPT, 20))
    first = [produced.key for _ in range(3) for produced in runner.step(0.0)]
    runner.add(Sequence(2, tuple(ROWS[1]["prompt"]), 3))
    joined = [[produced.key for produced in runner.step(0.0)] for _ in range(4)]
    assert first == [1, 1, 1]
    assert [sorted(keys) for keys in joined] == [[1, 2], [1, 2], [1, 2], [1]]


def test_a_plain_model_is_served_in_batches_of_four(opened: Open) -> None:
    """Why loading prefers the slot adapter for plain graphs: a fifth waits for all four."""
    runner = opened(paged=False)
    assert runner.capacity == Capacity(slots=4, context=256)
    assert not runner.traits.seeds
    for key in range(5):
        runner.add(Sequence(key, tuple(ROWS[key]["prompt"]), 4 + key))
    steps = [sorted(produced.key for produced in runner.step(0.0)) for _ in range(8)]
    assert [4 in keys for keys in steps] == [False] * 7 + [True]
    assert finish(runner)[4][0] == ROWS[4]["tokens"][1:8]


def test_a_dropped_sequence_says_nothing_more(opened: Open) -> None:
    for paged in (True, False):
        runner = opened(paged=paged)
        runner.add(Sequence(1, PROMPT, 30))
        runner.add(Sequence(2, tuple(ROWS[1]["prompt"]), 10))
        runner.step(0.0)
        runner.drop(1)
        runner.drop(1)
        runner.drop(77)
        over = finish(runner)
        assert over == {2: (ROWS[1]["tokens"][1:10], "length")}


def test_cancelled_and_finished_sequences_give_their_blocks_back(opened: Open) -> None:
    """Each takes all blocks there are, so one block kept would stop the next."""
    runner = opened(blocks=8)
    for turn in range(12):
        runner.add(Sequence(turn, PROMPT, 99))
        if turn % 2:
            for _ in range(turn):
                runner.step(0.0)
            runner.drop(turn)
            assert runner.step(0.0) == []
        else:
            tokens, end = finish(runner)[turn]
            assert (len(tokens), end) == (99, "length")


def test_over_admission_stands_still_until_one_is_dropped(opened: Open) -> None:
    """The library admits by prompt alone and never preempts: with 8 blocks, four sequences that grow
    to 5 blocks each stop for ever. The adapter gives nothing then; who drops the youngest saves the
    others, and their answers are what they would have been alone."""
    runner = opened(blocks=8)
    assert runner.capacity == Capacity(slots=32, context=128, blocks=8, block_tokens=16)
    for key in range(4):
        runner.add(Sequence(key, PROMPT, 45))
    tokens: dict[int, list[int]] = {key: [] for key in range(4)}

    def until_silent() -> set[int]:
        silent = 0
        while silent < 100:
            made = runner.step(0.0)
            silent = 0 if made else silent + 1
            for produced in made:
                tokens[produced.key] += produced.tokens
        return {len(tokens[key]) for key in range(4)}

    assert until_silent() == {4}  # 29 tokens of prompt and 3 of the answer fill two blocks each
    runner.drop(3)
    runner.drop(2)
    assert until_silent() == {4, 36}  # four blocks each
    runner.drop(1)
    until_silent()
    assert tokens[0] == ROWS[0]["tokens"][:45]
    assert tokens[1] == ROWS[0]["tokens"][:36]
    assert runner.step(0.0) == []


def test_the_end_token_is_no_part_of_an_answer(opened: Open) -> None:
    runner = opened()
    row = next(row for row in ROWS if row["finish"] == "stop")
    runner.add(Sequence(1, tuple(row["prompt"]), 60))
    assert finish(runner)[1] == (row["tokens"], "stop")


def test_another_end_token_can_be_configured(opened: Open) -> None:
    folder = folder_of()
    runner = opened(replace(folder, ends=(*folder.ends, ROWS[0]["tokens"][3])))
    runner.add(Sequence(1, PROMPT, 20))
    assert finish(runner)[1] == (ROWS[0]["tokens"][:3], "stop")


# --- choosing tokens -----------------------------------------------------------------------------


def test_a_seed_gives_the_same_answer_in_any_company(opened: Open) -> None:
    runner = opened()
    drawn = Sampling(temperature=1.0, seed=2**63 + 5)
    lonely = alone(runner, sampling=drawn)
    for key in range(2, 6):
        runner.add(Sequence(key, PROMPT, 9, Sampling(temperature=1.0)))
    runner.add(Sequence(1, PROMPT, 12, drawn))
    together = finish(runner)
    assert together[1][0] == lonely
    assert len({tuple(tokens) for tokens, _ in together.values()}) == 5


@pytest.mark.parametrize(
    ("sampling", "support"),
    [
        (Sampling(temperature=1.0, top_p=0.6), 112),
        (Sampling(temperature=0.5, top_p=0.6), 11),
        (Sampling(temperature=0.5, top_k=5), 5),
        (Sampling(temperature=1.0, top_k=20, top_p=0.3), None),
        (Sampling(temperature=0.5), 1024),
    ],
    ids=["nucleus", "sharper nucleus", "top_k", "both", "all"],
)
def test_draws_follow_the_distribution_that_was_asked_for(
    opened: Open, sampling: Sampling, support: int | None
) -> None:
    """First temperature, then top_k, then the smallest set of at least top_p."""
    wanted = distribution(sampling)
    if support is not None:
        assert np.count_nonzero(wanted) == support
    runner = opened(blocks=128)
    counts = np.zeros(tiny_models.VOCABULARY)
    for start in range(0, 960, 32):
        for key in range(32):
            runner.add(Sequence(key, PROMPT, 1, replace(sampling, seed=start + key)))
        for tokens, _ in finish(runner).values():
            counts[tokens[0]] += 1
    assert counts[wanted == 0].sum() == 0
    # 960 draws: three standard deviations of the likeliest one's share.
    likeliest = int(wanted.argmax())
    share = wanted[likeliest]
    assert abs(counts[likeliest] / 960 - share) < 3.5 * (share * (1 - share) / 960) ** 0.5


def distribution(sampling: Sampling) -> Any:
    session = runtime.open_session(tiny_models.tiny_llama(paged=False) / "model.onnx")
    feed: dict[str, Any] = {
        "input_ids": np.array([PROMPT]),
        "attention_mask": np.ones((1, len(PROMPT)), np.int64),
    }
    for layer in range(2):
        for part in ("key", "value"):
            feed[f"past_key_values.{layer}.{part}"] = np.zeros((1, 2, 0, 16), np.float32)
    scores = session.run(["logits"], feed)[0][0, -1].astype(np.float64) / sampling.temperature
    likely = np.exp(scores - scores.max())
    order = np.argsort(-likely)
    if sampling.top_k:
        likely[order[sampling.top_k :]] = 0
    likely /= likely.sum()
    if sampling.top_p < 1:
        kept = int((np.cumsum(likely[order]) < sampling.top_p).sum()) + 1
        likely[order[kept:]] = 0
    return likely / likely.sum()


# --- grammars ------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 99}, "of": {"enum": ["x"]}},
    "required": ["n", "of"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("paged", [True, False])
@pytest.mark.parametrize(
    ("kind", "text", "shape"),
    [
        ("regex", "[a-c]{3,5}", r"[a-c]{3,5}"),
        ("json_schema", json.dumps(SCHEMA), r'\{"n": \d\d?, "of": "x"\}'),
        ("json_object", "", r"(?s)\{.*"),
        ("lark", 'start: <|python_tag|> "hi" /[0-9]{2}/', r"<\|python_tag\|>hi\d\d"),
    ],
)
def test_an_answer_follows_its_grammar(
    opened: Open, paged: bool, kind: GrammarKind, text: str, shape: str
) -> None:
    runner = opened(paged=paged)
    said = alone(runner, most=200, grammar=Grammar(kind, text))
    written = Tokenizer.from_file(str(folder_of().tokenizer)).decode(
        said, skip_special_tokens=False
    )
    assert re.fullmatch(shape, written), written


def test_a_grammar_the_library_cannot_follow_ends_its_own_answer_alone(
    opened: Open, capfd: pytest.CaptureFixture[str]
) -> None:
    """The library refuses the second byte it chose itself and takes the step of all back, again and
    again. Of two guided sequences the right one is given up."""
    runner = opened()
    sound = Grammar("regex", "[a-z]{30}")
    runner.add(Sequence(1, PROMPT, 20))
    runner.add(Sequence(2, PROMPT, 20, grammar=Grammar("regex", "(漢|é)字x")))
    runner.add(Sequence(3, PROMPT, 60, grammar=sound))
    over: dict[int, str] = {}
    tokens: dict[int, list[int]] = {1: [], 2: [], 3: []}
    for _ in range(100):
        for produced in runner.step(0.0):
            tokens[produced.key] += produced.tokens
            if produced.finish:
                over[produced.key] = produced.finish
    assert over == {1: "length", 2: "failed", 3: "stop"}
    assert tokens[1] == ROWS[0]["tokens"][:20]
    assert tokens[3] == alone(runner, most=60, grammar=sound)
    assert capfd.readouterr().err.count("doesn't satisfy the grammar") == 3


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("regex", "(("),
        Grammar("json_schema", '{"type": 5}'),
        Grammar("json_schema", "{not json"),
        Grammar("json_schema", '{"type": "object", "x-guidance": 3}'),
        Grammar("lark", "start: nothing"),
        Grammar("lark", "start: " + "A" * 100_000),
        Grammar("lark", "start: nothing", ("tools",)),
    ],
    ids=lambda grammar: grammar.kind,
)
def test_a_bad_grammar_is_refused_and_the_others_go_on(opened: Open, grammar: Grammar) -> None:
    runner = opened()
    runner.add(Sequence(2, PROMPT, 5))
    runner.step(0.0)
    with pytest.raises(RequestRefused) as refused:
        runner.add(Sequence(1, PROMPT, 5, grammar=grammar))
    assert (refused.value.code, refused.value.param) == ("invalid_value", grammar.fields[0])
    assert finish(runner) == {2: (ROWS[0]["tokens"][1:5], "length")}


# --- faults --------------------------------------------------------------------------------------


def test_tokens_the_model_does_not_know_are_refused_before_they_end_the_run(opened: Open) -> None:
    runner = opened()
    for prompt in ((5, tiny_models.VOCABULARY), (5, -1)):
        with pytest.raises(RequestRefused, match="does not know"):
            runner.add(Sequence(1, prompt, 5))
    assert alone(runner) == ROWS[0]["tokens"][:12]


def test_a_failed_run_loses_the_engine_and_restart_brings_it_back(
    opened: Open, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The folder promises more context than its graph has angles for, so a run fails there."""
    folder = copy_of(tmp_path / "model", model={"context_length": 400}, search={"max_length": 400})
    runner = opened(replace(folder, context=400))
    runner.add(Sequence(1, (5,) * 250, 50))
    runner.add(Sequence(2, PROMPT, 50))
    with pytest.raises(RunnerLost) as lost:
        finish(runner)
    assert "failed" in lost.value.reason
    assert str(tmp_path) not in lost.value.reason
    with pytest.raises(RunnerLost):
        runner.add(Sequence(3, PROMPT, 5))
    with pytest.raises(RunnerLost):
        runner.step(0.0)
    runner.drop(2)
    runner.restart()
    assert alone(runner) == ROWS[0]["tokens"][:12]
    assert capfd.readouterr().err == ""  # the library's own log stays off the server's


def test_restart_that_cannot_load_raises_again(opened: Open, tmp_path: Path) -> None:
    runner = opened(copy_of(tmp_path / "model"))
    (tmp_path / "model" / "model.onnx").write_bytes(b"gone")
    for _ in range(2):
        with pytest.raises(RunnerLost):
            runner.restart()
        with pytest.raises(RunnerLost):
            runner.add(Sequence(1, PROMPT, 5))


def test_a_closed_runner_computes_nothing(opened: Open) -> None:
    runner = opened()
    runner.add(Sequence(1, PROMPT, 5))
    runner.close()
    runner.close()
    with pytest.raises(RunnerLost):
        runner.step(0.0)


# --- opening -------------------------------------------------------------------------------------


def test_the_cache_is_what_was_asked_for(opened: Open) -> None:
    asked = opened(cache_tokens=100, slots=3)
    assert asked.capacity == Capacity(slots=3, context=112, blocks=7, block_tokens=16)
    shorter = opened(context=64)
    assert shorter.capacity == Capacity(slots=32, context=64, blocks=64, block_tokens=16)
    shorter.add(Sequence(1, PROMPT, 35))
    assert len(finish(shorter)[1][0]) == 35


def test_a_cache_that_would_be_a_share_of_free_memory_is_pinned(
    opened: Open, tmp_path: Path
) -> None:
    """A share depends on what else is loaded; admission needs a number of blocks."""
    engine = {"block_size": 16, "max_batch_size": 8, "gpu_utilization_factor": 0.6}
    runner = opened(copy_of(tmp_path / "model", engine={"dynamic_batching": engine}))
    assert runner.capacity == Capacity(slots=8, context=256, blocks=128, block_tokens=16)
    assert alone(runner) == ROWS[0]["tokens"][:12]


def test_what_a_gpu_is_told() -> None:
    """Device, limits, and no more tokens in a run than upstream's issue 2583 allows."""
    device = Device("cuda", 1, "GPU", "", 16 * 2**30, memory_limit=2**30)
    folder = folder_of()
    plan = plan_for(folder, device, None, None, None, device.memory_limit)
    assert plan.options == {"device_id": "1", "gpu_mem_limit": str(2**30)}
    batching = plan.overlay["engine"]["dynamic_batching"]
    assert batching["max_scheduled_tokens"] == CUDA_SCHEDULED_TOKENS == 1024
    assert plan.capacity == Capacity(slots=32, context=256, blocks=64, block_tokens=16)


def test_the_cache_of_a_gpu_fits_beside_the_weights(tmp_path: Path) -> None:
    engine = {"dynamic_batching": {"block_size": 16, "max_batch_size": 200}}
    folder = copy_of(tmp_path / "model", engine=engine)
    block_bytes = 16 * 2 * 2 * 2 * 16 * 4  # tokens, key and value, layers, heads, size, float32
    small = Device("cuda", memory_bytes=folder.bytes + 1000 * block_bytes)
    assert plan_for(folder, small, None, None, None, None).capacity.blocks == 600
    none = Device("cuda", memory_bytes=folder.bytes)
    with pytest.raises(ModelUnavailable, match="no memory for its key-value cache"):
        plan_for(folder, none, None, None, None, None)


def paged_attention(folder: Path) -> TextFolder:
    """A folder as the model builder writes it for CUDA: half floats and a PagedAttention."""
    copy_of(folder)
    half, whole = TensorProto.FLOAT16, TensorProto.INT32
    rows = ["num_tokens", 64], ["num_tokens", 32], ["num_tokens", 32]
    cache = ["num_blocks", 16, 2, 16]
    taken = [
        helper.make_tensor_value_info(name, half, shape)
        for name, shape in zip(("query", "key", "value"), rows, strict=True)
    ]
    past = [
        helper.make_tensor_value_info(f"past_key_values.0.{part}", half, cache)
        for part in ("key", "value")
    ]
    sizes = [
        helper.make_tensor_value_info(name, whole, shape)
        for name, shape in (
            ("cumulative_sequence_lengths", ["more"]),
            ("past_sequence_lengths", ["batch_size"]),
            ("block_table", ["batch_size", "blocks"]),
        )
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["num_tokens"])
    made = ["logits", "present.0.key", "present.0.value"]
    node = helper.make_node(
        "PagedAttention",
        [value.name for value in (*taken, *past, *sizes)],
        made,
        domain="com.microsoft",
        num_heads=4,
        kv_num_heads=2,
    )
    given = [
        helper.make_tensor_value_info(name, half, shape)
        for name, shape in zip(made, (["num_tokens", 1024], cache, cache), strict=True)
    ]
    graph = helper.make_graph([node], "cuda", [ids, *taken, *past, *sizes], given)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "model.onnx")
    found = read_folder(str(folder))
    assert isinstance(found, TextFolder)
    return found


def test_a_folder_for_cuda_is_refused_on_the_cpu(tmp_path: Path) -> None:
    folder = paged_attention(tmp_path / "cuda")
    assert folder.cuda_only
    # Known from the graph, and, were it not, from the library's refusal.
    for known in (True, False):
        with pytest.raises(ModelUnavailable, match="CUDA only") as refused:
            open_genai(replace(folder, cuda_only=known), CPU)
        assert str(tmp_path) not in refused.value.message


def no_config(root: Path) -> None:
    (root / "genai_config.json").unlink()


def list_config(root: Path) -> None:
    (root / "genai_config.json").write_text("[]")


def unknown_field(root: Path) -> None:
    config = json.loads((root / "genai_config.json").read_text())
    config["model"]["no_such_field"] = 1
    (root / "genai_config.json").write_text(json.dumps(config))


def cut_graph(root: Path) -> None:
    graph = (root / "model.onnx").read_bytes()
    (root / "model.onnx").write_bytes(graph[: len(graph) // 2])


def no_cache(root: Path) -> None:
    config = json.loads((root / "genai_config.json").read_text())
    config["engine"]["dynamic_batching"]["num_blocks"] = 0
    (root / "genai_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "damage", [no_config, list_config, unknown_field, cut_graph, no_cache], ids=lambda f: f.__name__
)
def test_a_damaged_folder_is_unavailable_and_no_path_is_told(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = copy_of(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(ModelUnavailable) as refused:
        open_genai(folder, CPU)
    assert str(tmp_path) not in refused.value.message
    assert "/" not in refused.value.reason
