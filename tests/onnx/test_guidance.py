"""Grammars as masks over the tokens that may come next."""

import builtins
import json
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from aiproxy.reference_server.onnx.errors import RequestRefused
from aiproxy.reference_server.onnx.folders import DEMO_FOLDER
from aiproxy.reference_server.onnx.text import guidance
from aiproxy.reference_server.onnx.text.guidance import KEPT, LONGEST, Grammars, Guide
from aiproxy.reference_server.onnx.text.runner import Grammar

TOKENIZER = DEMO_FOLDER / "tokenizer.json"
END = 4
VOCABULARY = 2560


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TOKENIZER, VOCABULARY, (END,))


def spelled(tokens: list[int]) -> str:
    text: str = Tokenizer.from_file(str(TOKENIZER)).decode(tokens, skip_special_tokens=False)
    return text


def test_only_tokens_that_fit_are_allowed_and_the_end_only_when_complete(
    grammars: Grammars,
) -> None:
    guide = grammars.start(Grammar("regex", "[ab]c?"))
    allowed = guide.allowed().nonzero()[0].tolist()
    assert {spelled([token]) for token in allowed} <= {"a", "b", "ac", "bc"}
    assert not guide.allowed()[END]
    assert guide.accept(next(token for token in allowed if spelled([token]) == "a")) is None
    assert guide.allowed()[END]
    assert not guide.complete
    last = next(token for token in guide.allowed().nonzero()[0].tolist() if token != END)
    assert guide.accept(last) is None
    assert guide.complete


def test_a_token_that_does_not_fit_is_a_fault_and_then_nothing_is_allowed(
    grammars: Grammars,
) -> None:
    guide = grammars.start(Grammar("regex", "a"))
    assert guide.accept(END) is not None
    assert not guide.allowed().any()


def test_two_answers_in_one_grammar_do_not_touch_each_other(grammars: Grammars) -> None:
    grammar = Grammar("regex", "ab")
    first, second = grammars.start(grammar), grammars.start(grammar)
    before = second.allowed()
    first.accept(int(first.allowed().nonzero()[0][0]))
    assert (second.allowed() == before).all()


def test_forced_text_is_spelled_exactly_whatever_the_tokenizer_does_to_questions(
    tmp_path: Path,
) -> None:
    """The demo's tokenizer folds case and drops signs; others cut and pad."""
    described = json.loads(TOKENIZER.read_text())
    assert described["normalizer"] is not None
    described["truncation"] = {
        "direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    fresh = Grammars(tmp_path / "tokenizer.json", VOCABULARY, (END,))
    guide, said = fresh.start(Grammar("regex", r"\{\"Name\": \"[a-z]{2}\"\}")), []
    while not guide.complete:
        said.append(int(guide.allowed().nonzero()[0][0]))
        assert guide.accept(said[-1]) is None
    assert re.fullmatch(r"\{\"Name\": \"[a-z]{2}\"\}", spelled(said))


def test_a_lark_grammar_names_special_tokens(grammars: Grammars) -> None:
    guide = grammars.start(Grammar("lark", 'start: <|user|> "a"'))
    assert [spelled([int(at)]) for at in guide.allowed().nonzero()[0]] == ["<|user|>"]


def test_scores_wider_than_the_tokenizer_are_masked_too() -> None:
    mask = Grammars(TOKENIZER, VOCABULARY + 40, (END,)).start(Grammar("json_object")).allowed()
    assert mask.shape == (VOCABULARY + 40,)
    assert not mask[VOCABULARY:].any()


@pytest.mark.parametrize("bits", [8, 16, 24])
def test_a_mask_is_as_wide_as_the_scores_and_made_once(bits: int) -> None:
    class Matcher:
        mask = bytes(np.packbits(np.arange(bits * 4096) % 3 == 0, bitorder="little"))

        def compute_bitmask(self) -> bytes:
            return self.mask

        def is_error(self) -> bool:
            return False

    wide = 16 * 4096 + 5
    guide = Guide(Matcher(), wide)  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        mask = guide.allowed()
        assert tracemalloc.get_traced_memory()[1] < 1.5 * wide
    finally:
        tracemalloc.stop()
    assert (mask.dtype, mask.shape) == (np.bool_, (wide,))
    places = np.arange(wide)
    assert (mask == ((places % 3 == 0) & (places < bits * 4096))).all()


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("json_schema", ""),
        Grammar("json_schema", "no JSON"),
        Grammar("json_schema", "[]"),
        Grammar("json_schema", '{"type": "no such type"}'),
        Grammar("json_schema", '{"$ref": "https://example.com/schema.json"}'),
        Grammar("json_schema", '{"not": {}}'),
        Grammar("json_schema", '{"items":' * 5000 + "{}" + "}" * 5000),
        Grammar("regex", "(("),
        Grammar("regex", "(" * 30_000 + "a" + ")" * 30_000),
        Grammar("lark", "start: nothing"),
        Grammar("lark", "start: <|no such marker|>"),
        Grammar("lark", "start: " + "(" * 30_000 + '"a"' + ")" * 30_000),
        Grammar("lark", ""),
        Grammar("regex", "a" * (LONGEST + 1)),
    ],
    ids=lambda grammar: f"{grammar.kind}-{grammar.text[:20]}",
)
def test_a_wrong_grammar_is_refused_and_names_the_field(
    grammars: Grammars, grammar: Grammar
) -> None:
    with pytest.raises(RequestRefused) as refused:
        grammars.start(grammar)
    assert (refused.value.status, refused.value.param) == (400, "response_format")
    assert "response_format" in refused.value.message
    assert len(refused.value.message) < 400


@pytest.mark.parametrize("text", ["start: nothing", "start: " + "A" * LONGEST])
def test_a_wrong_grammar_made_of_tools_names_them(grammars: Grammars, text: str) -> None:
    with pytest.raises(RequestRefused, match="the grammar of tools ") as refused:
        grammars.start(Grammar("lark", text, ("tools",)))
    assert refused.value.param == "tools"


def hostile() -> list[Grammar]:
    """Small texts that ask for much."""
    many = {f"p{at}": {"type": "string", "pattern": "^(a|b){1,50}c+$"} for at in range(1000)}
    doubling = "\n".join(f"r{at}: r{at + 1} r{at + 1}" for at in range(40))
    return [
        Grammar("regex", "((a{0,1000}){0,1000}){0,1000}"),
        Grammar("regex", "(a|b|ab)*" * 800),
        Grammar("json_schema", json.dumps({"type": "object", "properties": many})),
        Grammar("json_schema", json.dumps({"enum": [f"x{at}" for at in range(9000)]})),
        Grammar("json_schema", '{"type":"array","minItems":1000000,"items":{"type":"object"}}'),
        Grammar("lark", f'start: r0\n{doubling}\nr40: "a" | "b" r0'),
    ]


@pytest.mark.parametrize("grammar", hostile(), ids=lambda grammar: grammar.text[:20])
def test_a_hostile_grammar_is_refused_or_cheap(grammars: Grammars, grammar: Grammar) -> None:
    """Bad input: the thread that computes is not held up for long."""
    began = time.thread_time()
    try:
        guide = grammars.start(grammar)
        for _ in range(3):
            allowed = guide.allowed().nonzero()[0]
            if not len(allowed):
                break
            guide.accept(int(allowed[-1]))
    except RequestRefused as refused:
        assert refused.param == "response_format"
    assert time.thread_time() - began < 1.5


def test_few_compiled_grammars_are_kept_and_the_used_ones_longest(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    compile_one = guidance.Grammars._compile

    def counted(self: Grammars, grammar: Grammar) -> Any:
        compiled.append(grammar.text)
        return compile_one(self, grammar)

    monkeypatch.setattr(guidance.Grammars, "_compile", counted)
    fresh = Grammars(TOKENIZER, VOCABULARY, (END,))
    for at in range(KEPT):
        fresh.start(Grammar("regex", f"x{at}"))
    fresh.start(Grammar("regex", "x0"))
    fresh.start(Grammar("regex", "one more"))
    fresh.start(Grammar("regex", "x0"))
    assert len(compiled) == KEPT + 1
    fresh.start(Grammar("regex", "x1"))
    assert compiled[-1] == "x1"


def test_a_damaged_tokenizer_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"\w"):
        Grammars(tmp_path / "tokenizer.json", 10, (END,))


def test_without_the_package_there_are_no_grammars(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "llguidance":
            raise ImportError(name)
        return found(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError):
        Grammars(TOKENIZER, VOCABULARY, (END,))
