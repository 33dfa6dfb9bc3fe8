"""Tool calls read from what models write, whole and in pieces, and the grammars that force them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import byte_level

from aiproxy.reference_server.onnx import ModelUnavailable
from aiproxy.reference_server.onnx.text.runner import Grammar
from aiproxy.reference_server.onnx.text.tokenizing import TextTokenizer
from aiproxy.reference_server.onnx.text.tool_calls import (
    Called,
    CallReader,
    Tool,
    ToolFormat,
    ToolUse,
    calls_or_json,
    checked_calls,
    detected,
    forced_calls,
    tool_format_of,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOLS = (Tool("f", SCHEMA, strict=True), Tool("get.time"))
HERMES = ToolFormat("hermes")
LLAMA = ToolFormat("llama3")
MISTRAL = ToolFormat("mistral")
F = Called("f", '{"a": 1}')


def read(written: ToolFormat, *pieces: str, most: int | None = None) -> list[str | Called]:
    """Return what a reader makes of an answer in pieces, neighbouring texts joined."""
    reader = CallReader(ToolUse(written, TOOLS, most))
    items = [item for piece in pieces for item in reader.push(piece)] + reader.finish()
    joined: list[str | Called] = []
    for item in items:
        if isinstance(item, str) and joined and isinstance(joined[-1], str):
            joined[-1] += item
        else:
            joined.append(item)
    return joined


def hermes(*calls: str) -> str:
    return "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls)


CALL = '{"name": "f", "arguments": {"a": 1}}'
ANSWERS: list[tuple[ToolFormat, str, list[str | Called]]] = [
    (HERMES, "Just text. ", ["Just text. "]),
    (HERMES, hermes(CALL), [F]),
    (HERMES, f"Let me see.\n\n{hermes(CALL, CALL)}\n", ["Let me see.", F, F]),
    (HERMES, f"{hermes(CALL)}\nDone.", [F, "\nDone."]),
    (HERMES, f"<tool_call>{CALL}", [F]),
    (HERMES, f"<tool_call>{CALL}</tool_", [F]),
    (HERMES, f"<tool_call>{CALL} and", [F, " and"]),
    (
        HERMES,
        hermes('{"name": "f", "arguments": {"a": "</tool_call>\\"}{"}}'),
        [Called("f", '{"a": "</tool_call>\\"}{"}')],
    ),
    (HERMES, hermes('{"name": "f"}'), [Called("f", "{}")]),
    (HERMES, hermes('{"name": "f", "arguments": "{\\"a\\": 1}"}'), [F]),
    (
        HERMES,
        hermes('{"name": "get.time", "arguments": {"ü": "日本"}}'),
        [Called("get.time", '{"ü": "日本"}')],
    ),
    (HERMES, "<tool_call>\nf(1)\n</tool_call>", ["<tool_call>\nf(1)\n</tool_call>"]),
    (HERMES, "a <tool_call> b " + hermes(CALL), ["a <tool_call> b", F]),
    (HERMES, hermes('{"name": "g", "arguments": {}}'), [hermes('{"name": "g", "arguments": {}}')]),
    (HERMES, hermes('{"name": "f", "arguments": 5}'), [hermes('{"name": "f", "arguments": 5}')]),
    *(
        (written, text, [text])
        for name in ('{"a": 1}', '["x"]', "5", "null")
        for written, text in (
            (HERMES, hermes(f'{{"name": {name}, "arguments": {{}}}}')),
            (LLAMA, f'{{"name": {name}, "parameters": {{}}}}'),
            (MISTRAL, f'[TOOL_CALLS] [{{"name": {name}}}]'),
        )
    ),
    (HERMES, hermes('{"name": "f", }'), [hermes('{"name": "f", }')]),
    (
        HERMES,
        hermes('{"name": "f", "arguments": {"a": NaN}}'),
        [hermes('{"name": "f", "arguments": {"a": NaN}}')],
    ),
    (
        HERMES,
        hermes('{"name": "f", "arguments": {"a": "\\ud800"}}'),
        [hermes('{"name": "f", "arguments": {"a": "\\ud800"}}')],
    ),
    (HERMES, '<tool_call>\n{"name": "f", "argu', ['<tool_call>\n{"name": "f", "argu']),
    (HERMES, "<tool_call>", ["<tool_call>"]),
    (HERMES, "1 <tool 2 < 3 <<tool_call", ["1 <tool 2 < 3 <<tool_call"]),
    (LLAMA, '{"name": "f", "parameters": {"a": 1}}', [F]),
    (LLAMA, ' \n{"name": "f", "arguments": {"a": 1}}', [F]),
    (LLAMA, f"<|python_tag|>{CALL}", [F]),
    (LLAMA, f"Well. <|python_tag|>{CALL}; {CALL}", ["Well.", F, F]),
    (LLAMA, f"{CALL};{CALL}\n{CALL}", [F, F, F]),
    (LLAMA, f"{CALL} and text {CALL}", [F, f" and text {CALL}"]),
    (LLAMA, '{"name": "Bob", "age": 5}', ['{"name": "Bob", "age": 5}']),
    (LLAMA, '{"answer": {"a": 1}} {"b": 2}', ['{"answer": {"a": 1}} {"b": 2}']),
    (LLAMA, "<|python_tag|>print(1)", ["<|python_tag|>print(1)"]),
    (LLAMA, "  text {", ["  text {"]),
    (LLAMA, "  ", ["  "]),
    (LLAMA, "<|python", ["<|python"]),
    (LLAMA, '{"name": ', ['{"name": ']),
    (MISTRAL, f"[TOOL_CALLS] [{CALL}]", [F]),
    (MISTRAL, f"Hm.[TOOL_CALLS][{CALL}, {CALL}]", ["Hm.", F, F]),
    (MISTRAL, '[TOOL_CALLS]f[ARGS]{"a": 1}', [F]),
    (MISTRAL, '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]f{"a": 1}', [F, F]),
    (MISTRAL, "[TOOL_CALLS] [5]", ["[TOOL_CALLS] [5]"]),
    (MISTRAL, "[TOOL_CALLS] []", ["[TOOL_CALLS] []"]),
    (MISTRAL, f"[TOOL_CALLS] [{CALL}", [f"[TOOL_CALLS] [{CALL}"]),
    (MISTRAL, "[TOOL_CALLS]f[AR", ["[TOOL_CALLS]f[AR"]),
    (MISTRAL, "[TOOL_CALLS]f", ["[TOOL_CALLS]f"]),
    (MISTRAL, "[TOOL_CALLS]f x", ["[TOOL_CALLS]f x"]),
    (MISTRAL, "[TOOL_CALLS]!", ["[TOOL_CALLS]!"]),
]


@pytest.mark.parametrize(("written", "answer", "expected"), ANSWERS)
def test_an_answer_is_read_the_same_whole_and_by_the_character(
    written: ToolFormat, answer: str, expected: list[str | Called]
) -> None:
    assert read(written, answer) == expected
    assert read(written, *answer) == expected


@given(
    st.sampled_from([HERMES, LLAMA, MISTRAL]),
    st.lists(
        st.sampled_from(
            [
                "<tool_call>",
                "</tool_call>",
                "<|python_tag|>",
                "[TOOL_CALLS]",
                "[ARGS]",
                CALL,
                "[",
                "]",
                ", ",
                ";",
                " ",
                "\n",
                "{",
                "}",
                '"',
                "\\",
                "f",
                "text",
                '{"a": 1}',
                "<",
            ]
        ),
        max_size=8,
    ),
    st.data(),
)
def test_where_an_answer_is_cut_changes_nothing(
    written: ToolFormat, parts: list[str], data: st.DataObject
) -> None:
    answer = "".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(answer)), max_size=6)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    whole = read(written, answer)
    assert read(written, *pieces) == whole
    if not any(isinstance(item, Called) for item in whole):
        assert "".join(map(str, whole)) == answer


def test_text_before_a_call_goes_on_at_once() -> None:
    reader = CallReader(ToolUse(HERMES, TOOLS))
    assert reader.push("Let me") == ["Let me"]
    assert reader.push(" see. <tool") == [" see."]
    assert reader.push("_call>" + CALL[:10]) == []
    assert reader.push(CALL[10:] + "</tool_call>") == [F]


def test_more_calls_than_allowed_are_left_out() -> None:
    assert read(HERMES, hermes(CALL, CALL, CALL), most=1) == [F]
    assert read(MISTRAL, f"[TOOL_CALLS] [{CALL}, {CALL}]", most=1) == [F]


def test_a_long_call_token_by_token_takes_time_in_proportion() -> None:
    call = json.dumps({"name": "f", "arguments": {"a": 'x"\\{' * 40_000}})
    pieces = [call[at : at + 4] for at in range(0, len(call), 4)]
    found = read(HERMES, "<tool_call>", *pieces, "</tool_call>")
    assert [type(item) for item in found] == [Called]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("<tool_call>\n{...}\n</tool_call>", "hermes"),
        ("<tool_call><function=name>", None),
        ("... <|python_tag|> ...", "llama3"),
        ('role ipython ... "parameters": ', "llama3"),
        ("[TOOL_CALLS] [", "mistral"),
        ("{{ messages }}", None),
    ],
)
def test_the_format_shows_in_the_template(template: str, name: str | None) -> None:
    assert detected(template) == name


def test_a_format_can_be_named_and_a_wrong_name_is_found_at_load() -> None:
    tokenizer = TextTokenizer(byte_level(["<s>", "[TOOL_CALLS]"]))
    made = tool_format_of("[TOOL_CALLS] [ARGS]", "auto", tokenizer)
    assert made == ToolFormat(
        "mistral", (("[TOOL_CALLS]", tokenizer.token_id("[TOOL_CALLS]") or 0),), True
    )
    assert tool_format_of("[TOOL_CALLS]", "none", tokenizer) is None
    hermes_format = tool_format_of("[TOOL_CALLS]", "hermes", tokenizer)
    assert hermes_format is not None
    assert hermes_format.name == "hermes"
    with pytest.raises(ModelUnavailable, match="not one of hermes, llama3, mistral"):
        tool_format_of("", "gpt", tokenizer)


class Checker:
    """llguidance over a byte-level tokenizer: says whether a grammar takes an answer."""

    MARKS = ("<|end|>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>")

    def __init__(self) -> None:
        self.guidance = pytest.importorskip("llguidance")
        content = byte_level(self.MARKS)
        self.ours = TextTokenizer(content)
        self.end = self.ours.token_id("<|end|>")
        self.wrapped = self.guidance.LLTokenizer(content, eos_token=self.end)

    def takes(self, grammar: Grammar, answer: str) -> bool:
        made = self.guidance.LLMatcher.grammar_from_lark(grammar.text)
        assert not self.guidance.LLMatcher.validate_grammar(made, self.wrapped)
        matcher = self.guidance.LLMatcher(self.wrapped, made)
        ids = self.ours.encode(answer)
        return bool(matcher.consume_tokens([*ids, self.end]) and not matcher.is_error())

    def format(self, name: str, **more: Any) -> ToolFormat:
        made = tool_format_of("", name, self.ours)
        assert made is not None
        return ToolFormat(made.name, made.special, **more)


@pytest.fixture(scope="module")
def checker() -> Checker:
    return Checker()


WRITTEN = {
    "hermes": (
        ['<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'],
        '<tool_call>\n{"name": "f", "arguments": {"a": "x"}}\n</tool_call>',
        "\n",
    ),
    "llama3": (
        ['{"name": "f", "parameters": {"a": 1}}'],
        '{"name": "f", "parameters": {"a": "x"}}',
        "; ",
    ),
    "mistral": (
        ['[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]'],
        '[TOOL_CALLS] [{"name": "f", "arguments": {"b": 1}}]',
        None,
    ),
}


@pytest.mark.parametrize("name", list(WRITTEN))
@pytest.mark.parametrize("marked", [True, False])
def test_a_forced_call_is_one_the_reader_reads(checker: Checker, name: str, marked: bool) -> None:
    written = checker.format(name) if marked else ToolFormat(checker.format(name).name)
    use = ToolUse(written, TOOLS)
    (good,), bad, between = WRITTEN[name]
    grammar = forced_calls(use, TOOLS)
    if marked:
        # To the tokenizer of this test the markers are special, so only then it writes them.
        assert checker.takes(grammar, good)
        if between is not None:
            assert checker.takes(grammar, good + between + good)
    assert not checker.takes(grammar, bad)
    assert not checker.takes(grammar, "I would rather talk.")
    assert not checker.takes(grammar, "")
    assert read(written, good) == [F]


@pytest.mark.parametrize("name", list(WRITTEN))
def test_one_call_only_where_calls_are_not_to_be_parallel(checker: Checker, name: str) -> None:
    use = ToolUse(checker.format(name), TOOLS, most=1)
    (good,), _, between = WRITTEN[name]
    grammar = forced_calls(use, TOOLS[:1])
    assert checker.takes(grammar, good)
    twice = good + (between or "") + good
    assert not checker.takes(grammar, twice)


def test_mistrals_newer_form_is_forced_too(checker: Checker) -> None:
    use = ToolUse(checker.format("mistral", by_name=True), TOOLS)
    good = '[TOOL_CALLS]f[ARGS]{"a": 1}'
    assert checker.takes(forced_calls(use, TOOLS), good + good)
    assert read(use.format, good, good) == [F, F]


def test_calls_or_an_answer_in_json(checker: Checker) -> None:
    use = ToolUse(checker.format("hermes"), TOOLS)
    grammar = calls_or_json(use, SCHEMA)
    assert checker.takes(grammar, '{"a": 5}')
    assert checker.takes(grammar, hermes(CALL))
    assert not checker.takes(grammar, '{"b": 5}')


@pytest.mark.parametrize("given", [{"whitespace_flexible": True}, 5, None])
def test_white_space_in_json_is_fixed_whatever_a_schema_says(checker: Checker, given: Any) -> None:
    schema = SCHEMA if given is None else {**SCHEMA, "x-guidance": given}
    before = json.dumps(schema)
    written = checker.format("llama3")
    loose = '{"name": "f", "parameters": {\n\n  "a": 1}}'
    for strict in (True, False):
        tool = Tool("f", schema, strict)
        use = ToolUse(written, (tool,))
        for grammar in (forced_calls(use, (tool,)), calls_or_json(use, schema)):
            assert checker.takes(grammar, '{"name": "f", "parameters": {"a": 1}}')
            assert not checker.takes(grammar, loose)
            assert not checker.takes(grammar, '{\n\n"a": 1}')
    assert json.dumps(schema) == before


def test_grammars_made_of_tools_name_them() -> None:
    use = ToolUse(ToolFormat("hermes", ((HERMES.opening, 7),)), TOOLS)
    checked = checked_calls(use)
    assert checked is not None
    assert (checked.fields, forced_calls(use, TOOLS).fields) == (("tools",), ("tools",))
    assert calls_or_json(use, SCHEMA).fields == ("response_format", "tools")


def test_strict_functions_are_checked_in_free_text_where_a_marker_opens_calls(
    checker: Checker,
) -> None:
    grammar = checked_calls(ToolUse(checker.format("hermes"), TOOLS))
    assert grammar is not None
    assert checker.takes(grammar, "No need of a call.\n<tool> is text")
    assert checker.takes(grammar, "Well.\n" + hermes(CALL))
    assert not checker.takes(grammar, hermes('{"name": "f", "arguments": {"a": "x"}}'))
    assert checked_calls(ToolUse(HERMES, TOOLS)) is None
    assert checked_calls(ToolUse(checker.format("hermes"), TOOLS[1:])) is None


def test_a_function_that_is_not_strict_may_use_words_the_compiler_has_not(checker: Checker) -> None:
    odd = Tool(
        "f", {"type": "object", "properties": {"a": {"type": "integer"}}, "if": {}, "then": {}}
    )
    use = ToolUse(checker.format("hermes"), (odd,))
    assert checker.takes(forced_calls(use, (odd,)), hermes(CALL))
