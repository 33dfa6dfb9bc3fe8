"""Chat templates: the token ids transformers gives, and nothing a client writes is a marker."""

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import byte_level, sentence_pieces

from aiproxy.reference_server.onnx import ContextOverflow, ModelUnavailable, RequestRefused
from aiproxy.reference_server.onnx.bodies.chat import Abilities, read_chat
from aiproxy.reference_server.onnx.text.chat_template import (
    Conversation,
    Message,
    ToolCall,
    read_template,
)
from aiproxy.reference_server.onnx.text.templates_jinja import LARGEST_TEMPLATE, JinjaTemplate
from aiproxy.reference_server.onnx.text.tokenizing import TextTokenizer
from aiproxy.reference_server.onnx.text.tool_calls import ToolFormat

HERE = Path(__file__).parent
ORACLE = json.loads((HERE / "chat_vectors.json").read_text())
CONTEXT = 4096
MARKS = ("<|begin|>", "<|end|>", "<|turn|>")


@cache
def published(name: str) -> JinjaTemplate:
    source = (HERE / "chat_templates" / f"{name}.jinja").read_text()
    made = ORACLE["tokenizers"][name]
    tokenizer = TextTokenizer(byte_level(made["special"], made["added"]), source)
    special = {"bos_token": made["begin"], "eos_token": made["end"]}
    return JinjaTemplate(source, tokenizer, special)


def jinja(source: str, **more: Any) -> JinjaTemplate:
    return JinjaTemplate(source, TextTokenizer(byte_level(MARKS), source), **more)


def saying(text: str) -> Conversation:
    return Conversation((Message("user", text),))


@pytest.mark.parametrize(
    "vector", ORACLE["vectors"], ids=lambda v: f"{v['template']}: {v['title']}"
)
def test_a_conversation_has_the_ids_transformers_gives_it(vector: dict[str, Any]) -> None:
    task = read_chat(vector["body"], Abilities(tools=ToolFormat("hermes")))
    assert isinstance(task.prompt, Conversation)
    assert published(vector["template"]).encode(task.prompt, CONTEXT) == vector["ids"]


def test_the_oracle_is_not_empty() -> None:
    assert len(ORACLE["vectors"]) >= 30
    assert {vector["template"] for vector in ORACLE["vectors"]} == {
        "blocks",
        "headers",
        "instructions",
    }


@given(
    st.lists(st.sampled_from([*MARKS, "<|", "|>", "hello", " ", "\n", "é", "<|beg"]), max_size=8)
)
def test_a_clients_text_never_becomes_a_marker(pieces: list[str]) -> None:
    text = "".join(pieces)
    template = jinja("<|begin|>{{ messages[0].content }}<|end|>")
    tokenizer = TextTokenizer(byte_level(MARKS))
    ids = template.encode(saying(text), CONTEXT)
    marks = {tokenizer.token_id(mark) for mark in MARKS}
    assert [token for token in ids if token in marks] == [
        tokenizer.token_id("<|begin|>"),
        tokenizer.token_id("<|end|>"),
    ]
    assert tokenizer.decode(ids[1:-1]) == text


def test_markers_in_names_arguments_and_function_descriptions_are_text_too() -> None:
    body = {
        "messages": [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "<|end|>",
                        "type": "function",
                        "function": {"name": "<|end|>", "arguments": '{"<|end|>": ["<|end|>"]}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "<|end|>", "content": "<|end|>", "name": "<|end|>"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": "<|end|>"}}],
    }
    task = read_chat(body, Abilities(tools=ToolFormat("hermes")))
    assert isinstance(task.prompt, Conversation)
    template = jinja("{{ messages | tojson }}{{ tools | tojson }}<|end|>")
    ids = template.encode(task.prompt, CONTEXT)
    tokenizer = TextTokenizer(byte_level(MARKS))
    assert ids.count(tokenizer.token_id("<|end|>") or 0) == 1
    assert tokenizer.decode(ids).count("<|end|>") == 8


def test_only_the_model_itself_may_write_markers_that_are_not_special() -> None:
    source = "{% for m in messages %}{{ m.content.split('</think>')[-1] }};{% endfor %}"
    tokenizer = TextTokenizer(byte_level(MARKS, ["</think>"]), source)
    template = JinjaTemplate(source, tokenizer)
    told = Conversation((Message("user", "a</think>b"), Message("assistant", "c</think>d")))
    assert tokenizer.decode(template.encode(told, CONTEXT)) == "a</think>b;d;"


def test_white_space_that_is_a_token_is_no_marker() -> None:
    source = "{{ messages[0].content }}\n\n<end>"
    tokenizer = TextTokenizer(byte_level(MARKS, ["\n\n", "<end>", "end"]), source)
    assert set(tokenizer.markers) == {*MARKS, "<end>"}
    ids = JinjaTemplate(source, tokenizer).encode(saying("<end>\n\nx"), CONTEXT)
    assert ids[-2:] == [tokenizer.token_id("\n\n"), tokenizer.token_id("<end>")]
    assert ids.count(tokenizer.token_id("\n\n") or 0) == 2
    assert ids.count(tokenizer.token_id("<end>") or 0) == 1


def test_a_space_is_not_added_between_pieces_of_one_text() -> None:
    """Splitting at a marker must not make the rest look like the beginning of a text."""
    tokenizer = TextTokenizer(sentence_pieces(["<s>", "</s>"]))
    template = JinjaTemplate("{{ messages[0].content }}</s>hi", tokenizer)
    plain = template.encode(saying("hi"), CONTEXT)
    guarded = template.encode(saying("hi</s>"), CONTEXT)
    assert plain[-1] == guarded[-1] == tokenizer.token_id("hi")
    assert plain[0] == guarded[0] == tokenizer.token_id("\u2581hi")
    assert guarded.count(tokenizer.token_id("</s>") or 0) == 1


def test_white_space_that_a_marker_swallows_is_gone_when_a_client_spells_one_too() -> None:
    described = json.loads(byte_level(MARKS))
    described["added_tokens"][1] |= {"lstrip": True, "rstrip": True}
    tokenizer = TextTokenizer(json.dumps(described))
    template = JinjaTemplate("{{ messages[0].content }}  <|end|>  x", tokenizer)
    end, x = tokenizer.token_id("<|end|>"), tokenizer.token_id("x")
    assert template.encode(saying("h"), CONTEXT)[-2:] == [end, x]
    ids = template.encode(saying("<|turn|>"), CONTEXT)
    assert ids[-3:] == [tokenizer.token_id(">"), end, x]


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    ("arguments", "tool", "param"),
    [
        ('{"a": "\\ud800"}', "{}", "messages"),
        ('{"\\udfff": 1}', "{}", "messages"),
        ("{}", '{"description": "\\ud800"}', "messages"),
        (deep(700), "{}", "messages"),
        ("{}", deep(700), "tools"),
    ],
)
def test_values_no_prompt_can_hold_are_refused(arguments: str, tool: str, param: str) -> None:
    called = Message("assistant", "", (ToolCall("c", "f", arguments),))
    told = Conversation((Message("user", "x"), called), (json.loads(tool),))
    with pytest.raises(RequestRefused) as refusal:
        jinja("{{ messages | tojson }}{{ tools | tojson }}").encode(told, CONTEXT)
    assert (refusal.value.status, refusal.value.param) == (400, param)


def test_a_templates_own_complaint_reaches_the_client() -> None:
    template = jinja("{{ raise_exception('Roles must alternate, ' ~ messages[0].role) }}")
    with pytest.raises(RequestRefused, match=r"^Roles must alternate, user$") as refusal:
        template.encode(saying("x"), CONTEXT)
    assert (refusal.value.code, refusal.value.param) == ("invalid_value", "messages")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[7].content }}",
        "{{ messages[0].content + 1 }}",
        "{{ 1 // 0 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ messages[0].content.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% set ns = namespace(_x=1) %}{% set ns._x = 2 %}",
    ],
)
def test_what_else_fails_in_a_template_is_a_refusal_without_details(source: str) -> None:
    with pytest.raises(RequestRefused, match="cannot take these messages") as refusal:
        jinja(source).encode(saying("x"), CONTEXT)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10**9 }}",
        "{{ [1] * 10**9 }}",
        "{{ 2 ** 999999999 }}",
        "{{ '%999999999d' % 1 }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% set n = namespace(x='xx') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='xx') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    ],
)
def test_a_template_cannot_make_endless_values(source: str) -> None:
    with pytest.raises((RequestRefused, ModelUnavailable)):
        jinja(source).encode(saying("x"), CONTEXT)


def test_a_template_that_writes_without_end_is_stopped() -> None:
    source = "{% for i in range(90000) %}{{ messages[0].content }}{% endfor %}"
    with pytest.raises(ContextOverflow):
        jinja(source).encode(saying("x" * 100), CONTEXT)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for %}", "does not compile"),
        ("{{ x | nosuchfilter }}", "does not compile"),
        ("x" * (LARGEST_TEMPLATE + 1), "more than"),
    ],
)
def test_a_template_that_is_none_is_found_at_load(source: str, reason: str) -> None:
    with pytest.raises(ModelUnavailable, match=reason):
        jinja(source)


def test_a_huge_text_is_refused_without_being_rendered() -> None:
    with pytest.raises(ContextOverflow) as overflow:
        jinja("{{ raise_exception('rendered') }}").encode(saying("x" * 10**7), CONTEXT)
    assert overflow.value.asked > CONTEXT


def test_templates_may_ask_for_the_date() -> None:
    template = jinja("{{ strftime_now('%d %b %Y') }}", now=lambda: datetime(2026, 11, 21))
    assert template.render(saying("x"), CONTEXT) == "21 Nov 2026"


def test_ids_of_calls_are_shortened_for_templates_that_insist() -> None:
    body = ORACLE["vectors"][-1]["body"] | {
        "messages": [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "call_0123456789abcdef",
                        "type": "function",
                        "function": {"name": "f", "arguments": "not json"},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_0123456789abcdef", "content": "y"},
        ]
    }
    task = read_chat(body, Abilities(tools=ToolFormat("mistral")))
    assert isinstance(task.prompt, Conversation)
    source = "{{ messages[1].tool_calls[0].id }} {{ messages[2].tool_call_id }}"
    made, answered = jinja(source, short_ids=True).render(task.prompt, CONTEXT).split(" ")
    assert made == answered
    assert len(made) == 9


def test_a_declared_template_keeps_the_last_turns_that_fit() -> None:
    tokenizer = TextTokenizer(byte_level(MARKS))
    template = read_template(
        {"begin": "<|begin|>", "roles": {"user": "<|turn|>"}, "answer": "<|end|>"}, tokenizer
    )
    told = Conversation(tuple(Message("user", text) for text in ("x" * 9, "yy", "<|end|>")))
    assert tokenizer.decode(template.encode(told, 16), show_special=True) == (
        "<|begin|><|turn|>yy<|turn|><|end|><|end|>"
    )
    with pytest.raises(ContextOverflow):
        template.encode(told, 8)


@pytest.mark.parametrize(
    "chat",
    [{}, {"roles": {"user": "<|none|>"}}, {"roles": []}, {"roles": {"user": None}}],
)
def test_a_declared_template_that_is_none_is_found_at_load(chat: dict[str, Any]) -> None:
    with pytest.raises(ModelUnavailable, match="chat"):
        read_template(chat, TextTokenizer(byte_level(MARKS)))


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"added_tokens": [{}]}'])
def test_a_damaged_tokenizer_is_found_at_load(content: str) -> None:
    with pytest.raises(ModelUnavailable, match=r"tokenizer\.json is damaged"):
        TextTokenizer(content)


@pytest.mark.parametrize("text", ["h", " ", "é", "🙂", "<|end|>", "\n"])
def test_the_bytes_of_a_texts_tokens_are_the_texts(text: str) -> None:
    for tokenizer in (TextTokenizer(byte_level(MARKS)), TextTokenizer(sentence_pieces(MARKS))):
        ids = tokenizer.encode("h" + text)
        assert b"".join(map(tokenizer.token_bytes, ids)).decode().lstrip() == ("h" + text).lstrip()
    assert tokenizer.token_bytes(10**6) == b""
