"""The two cheap readings of a request body: how long it is and what it needs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxy.middleware.dialects.estimate import prompt_tokens
from aiproxy.middleware.dialects.features import NEEDS, needs

IMAGE = {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}
LOW = {"type": "input_image", "image_url": "https://e.org/a.png", "detail": "low"}


def chat(content: object, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


@pytest.mark.parametrize(
    ("dialect", "body", "tokens"),
    [
        ("chat", chat("x" * 40), 10 + 4 + 3),
        ("chat", chat("x" * 41), 11 + 4 + 3),
        ("chat", chat("日本語です"), 4 + 4 + 3),
        ("chat", chat([{"type": "text", "text": "x" * 8}, IMAGE]), 2 + 765 + 4 + 3),
        ("chat", chat(None), 7),
        ("responses", {"input": "x" * 40}, 17),
        ("responses", {"input": [{"role": "user", "content": [LOW]}]}, 85 + 4 + 3),
        ("responses", {"input": "", "instructions": "x" * 8}, 2 + 4 + 4 + 3),
        (
            "chat",
            chat("x" * 4, tools=[{"type": "function", "function": {"name": "f"}}]),
            1 + 4 + 3 + 8 + 12,
        ),
        ("chat", chat("", tools="auto"), 7),
        ("embeddings", {"input": ["x" * 4, "x" * 4]}, 2),
        ("embeddings", {"input": [1, 2, 3]}, 3),
        ("embeddings", {"input": [[1, 2], [3]]}, 3),
        ("completions", {"prompt": "x" * 8}, 2 + 3),
        ("embeddings", {}, 1),
        ("chat", {"messages": [3, None, {"content": 7}]}, 3 * 4 + 3),
    ],
)
def test_the_published_formula(dialect: str, body: dict[str, Any], tokens: int) -> None:
    assert prompt_tokens(dialect, body) == tokens


@given(first=st.text(max_size=50), second=st.text(max_size=50))
def test_more_text_is_never_fewer_tokens(first: str, second: str) -> None:
    assert prompt_tokens("chat", chat(first + second)) >= prompt_tokens("chat", chat(first))


def test_tool_calls_and_results_count() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "abcd", "arguments": "x" * 40}}
    turns = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "x" * 8}]
    assert prompt_tokens("chat", {"messages": turns}) == 1 + 10 + 2 + 4 + 8 + 3


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("dialect", "body", "words"),
    [
        ("chat", chat("hi"), set()),
        ("chat", chat("hi", stream=True), {"streaming"}),
        ("chat", chat([IMAGE]), {"vision"}),
        ("responses", {"input": [{"role": "user", "content": [LOW]}]}, {"vision"}),
        ("responses", {"input": [{"type": "function_call_output", "output": [LOW]}]}, {"vision"}),
        ("chat", chat([{"type": "input_audio"}]), {"audio"}),
        ("chat", chat([{"type": "file"}]), {"files"}),
        ("chat", chat("hi", modalities=["text", "audio"]), {"audio"}),
        ("chat", chat("hi", tools=[TOOL], stream=True), {"tools", "streaming"}),
        ("chat", chat("hi", tools="auto", n=1, logprobs=False), set()),
        ("chat", chat("hi", functions=[{"name": "f"}]), {"tools"}),
        ("responses", {"input": "a", "tools": [{"type": "web_search"}]}, {"hosted_tools"}),
        ("chat", chat("hi", response_format={"type": "json_schema"}), {"json_schema"}),
        ("draft", chat("hi", response_format={"json_schema": {}}), {"json_schema"}),
        ("chat", chat("hi", response_format={"type": "json_object"}), {"json_mode"}),
        ("chat", chat("hi", response_format={"type": "text"}), set()),
        ("draft", chat("hi", response_format="provider-adaptive"), set()),
        ("responses", {"input": "a", "text": {"format": {"type": "json_schema"}}}, {"json_schema"}),
        ("chat", chat("hi", logprobs=True), {"logprobs"}),
        ("responses", {"input": "a", "include": ["message.output_text.logprobs"]}, {"logprobs"}),
        ("completions", {"prompt": "a", "logprobs": 0}, {"logprobs"}),
        ("completions", {"prompt": "a"}, set()),
        ("chat", chat("hi", n=2), {"n_gt_1"}),
        ("chat", chat("hi", reasoning_effort="high"), {"reasoning"}),
        ("draft", chat("hi", reasoning="auto"), set()),
        ("responses", {"input": "a", "reasoning": {"effort": "none"}}, set()),
        ("responses", {"input": "a", "previous_response_id": "r"}, {"stateful"}),
        ("responses", {"input": [{"type": "item_reference", "id": "i"}]}, {"stateful"}),
        ("embeddings", {"input": "a"}, {"embeddings"}),
        ("chat", {"messages": [3, {"content": [None]}], "tools": 3}, set()),
    ],
)
def test_what_a_request_needs(dialect: str, body: dict[str, Any], words: set[str]) -> None:
    found = needs(dialect, body)
    assert found == words
    assert found <= NEEDS
