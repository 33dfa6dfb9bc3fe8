"""A text model from its folder: tokenizer, template and tool format found, damage told."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_tokenizers import byte_level

from aiproxy.reference_server.onnx import (
    ContextOverflow,
    ModelUnavailable,
    RequestRefused,
    Sampling,
)
from aiproxy.reference_server.onnx.folders import TextFolder
from aiproxy.reference_server.onnx.text.chat_template import Conversation, Message
from aiproxy.reference_server.onnx.text.text_model import read_text_model
from aiproxy.reference_server.onnx.text.tool_calls import ToolFormat

MARKS = ("<|begin|>", "<|end|>", "[TOOL_CALLS]")
HELLO = Conversation((Message("user", "hello"),))


@pytest.fixture
def folder(tmp_path: Path) -> TextFolder:
    """A base model: no template of any kind."""
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(byte_level(MARKS))
    return TextFolder(
        kind="decoder",
        root=tmp_path,
        graph=tmp_path / "model.onnx",
        tokenizer=tokenizer,
        context=32,
        ends=(1,),
        fingerprint="fp_1",
        name="small",
        special={"bos_token": "<|begin|>"},
        sampling=Sampling(temperature=0.5),
    )


def test_a_base_model_takes_raw_prompts_only(folder: TextFolder) -> None:
    model = read_text_model(folder)
    begin, hello = (model.tokenizer.token_id(text) for text in ("<|begin|>", "hello"))
    assert model.raw_prompt("hello") == (begin, hello)
    assert (model.name, model.context, model.fingerprint) == ("small", 32, "fp_1")
    assert model.sampling == Sampling(temperature=0.5)
    with pytest.raises(RequestRefused, match="no chat template"):
        model.chat_prompt(HELLO)


@pytest.mark.parametrize("text", ["x" * 31, "x" * 10_000])
def test_a_raw_prompt_that_fills_the_context_is_refused(folder: TextFolder, text: str) -> None:
    with pytest.raises(ContextOverflow) as overflow:
        read_text_model(folder).raw_prompt(text)
    assert (overflow.value.limit, overflow.value.param) == (32, "prompt")
    assert overflow.value.asked >= 32


def test_a_jinja_template_may_name_the_special_tokens(folder: TextFolder) -> None:
    model = read_text_model(
        replace(folder, template="{{ bos_token }}{{ messages[0].content }}"), name="public"
    )
    begin, hello = (model.tokenizer.token_id(text) for text in ("<|begin|>", "hello"))
    assert model.chat_prompt(HELLO) == (begin, hello)
    assert (model.name, model.tool_format) == ("public", None)


def test_a_template_that_writes_nothing_is_a_refusal(folder: TextFolder) -> None:
    with pytest.raises(RequestRefused, match="no token to go on from"):
        read_text_model(replace(folder, template="{# nothing #}")).chat_prompt(HELLO)


def test_a_chat_that_fills_the_context_is_refused(folder: TextFolder) -> None:
    with pytest.raises(ContextOverflow) as overflow:
        read_text_model(replace(folder, template="{{ 'x' * 32 }}")).chat_prompt(HELLO)
    assert (overflow.value.asked, overflow.value.param) == (32, "messages")


def test_tools_need_a_template_that_tells_of_them_in_a_known_format(folder: TextFolder) -> None:
    told = replace(folder, template="{{ tools }} [TOOL_CALLS] [")
    marker = read_text_model(told).tokenizer.token_id("[TOOL_CALLS]") or 0
    assert read_text_model(told).tool_format == ToolFormat("mistral", (("[TOOL_CALLS]", marker),))
    assert read_text_model(told, tool_format="none").tool_format is None
    hermes = read_text_model(told, tool_format="hermes").tool_format
    assert hermes is not None
    assert hermes.name == "hermes"
    assert read_text_model(replace(folder, template="[TOOL_CALLS] [")).tool_format is None
    assert read_text_model(replace(folder, template="{{ tools }}")).tool_format is None
    with pytest.raises(ModelUnavailable, match="tool_format gpt"):
        read_text_model(told, tool_format="gpt")


def test_mistrals_short_ids_reach_its_template(folder: TextFolder) -> None:
    template = "{{ tools }} [TOOL_CALLS] [{{ messages[0].tool_call_id | length }}"
    model = read_text_model(replace(folder, template=template))
    prompt = model.chat_prompt(Conversation((Message("tool", "x", (), "call_0123456789ab"),)))
    assert model.decode(prompt).endswith("[9")


def test_jinja2_is_only_missed_where_a_template_needs_it(
    folder: TextFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "aiproxy.reference_server.onnx.text.templates_jinja"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    read_text_model(folder)
    with pytest.raises(ModelUnavailable, match="jinja2 is missing"):
        read_text_model(replace(folder, template="x"))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", json.dumps([]).encode()])
def test_a_damaged_tokenizer_is_told_without_a_path(folder: TextFolder, content: bytes) -> None:
    folder.tokenizer.write_bytes(content)
    with pytest.raises(ModelUnavailable, match=r"tokenizer\.json is damaged") as unavailable:
        read_text_model(folder)
    assert str(folder.root) not in str(unavailable.value)


def test_a_missing_tokenizer_is_told(folder: TextFolder) -> None:
    folder.tokenizer.unlink()
    with pytest.raises(ModelUnavailable, match=r"tokenizer\.json is missing"):
        read_text_model(folder)
