"""Reading along: what counts as content, as an end, as a failure."""

from collections.abc import Callable
from typing import Any

import pytest

from aiproxy.middleware.dialects import Envelope, Finish, TextDelta, Usage, UsageEvent
from aiproxy.middleware.dialects.observe import (
    CONTENT,
    ERROR,
    FINISH,
    TERMINAL,
    USAGE,
    check_reply,
    observer,
    reply_usage,
)
from aiproxy.middleware.dialects.usage import chat_usage, read_usage, responses_usage, union_usage

Kit = dict[str, Callable[..., Any]]


def chunk(delta: object, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        **more,
    }


@pytest.mark.parametrize(
    ("payload", "flags"),
    [
        (chunk({"role": "assistant", "content": ""}), 0),
        (chunk({"role": "assistant", "content": None}), 0),
        (chunk({"content": "a"}), CONTENT),
        (chunk({"refusal": "a"}), CONTENT),
        (chunk({"reasoning_content": "a"}), CONTENT),
        (chunk({"reasoning": "a"}), CONTENT),
        (chunk({"tool_calls": [{"index": 0}]}), CONTENT),
        (chunk({"function_call": {"name": "f"}}), CONTENT),
        (chunk({"audio": {"id": "a"}}), CONTENT),
        (chunk({"content": "a"}, "stop"), CONTENT | FINISH),
        (chunk({}, ""), 0),
        (chunk({}, "stop"), FINISH),
        (chunk({}, "error"), ERROR),
        (chunk(None), 0),
        ({"choices": []}, 0),
        ({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}, USAGE),
        ({"choices": [], "usage": None}, 0),
        ({"choices": [], "error": {"message": "m"}}, ERROR),
        ({"choices": "odd", "usage": "odd", "model": 3}, 0),
        ({"choices": [None, 3, {"delta": "odd", "index": "x"}]}, 0),
        ({}, 0),
    ],
)
def test_chat_chunks(payload: dict[str, Any], flags: int) -> None:
    watch = observer("chat")
    assert watch.feed(payload) == flags
    assert watch.content_seen == bool(flags & CONTENT)
    assert watch.finished == bool(flags & FINISH)
    assert (watch.error is not None) == bool(flags & ERROR)


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **more}


MESSAGE = {"type": "message", "content": []}
CALL = {"type": "function_call", "name": "f", "arguments": ""}


@pytest.mark.parametrize(
    ("payload", "flags"),
    [
        (event("created", response={"model": "m"}), 0),
        (event("in_progress", response={}), 0),
        (event("output_item.added", item=MESSAGE), 0),
        (event("output_item.added", item={"type": "reasoning", "summary": []}), 0),
        (event("output_item.added", item=CALL), CONTENT),
        (event("output_item.added", item={"type": "web_search_call"}), CONTENT),
        (event("content_part.added", part={"type": "output_text", "text": ""}), 0),
        (event("output_text.delta", delta=""), 0),
        (event("output_text.delta", delta="a"), CONTENT),
        (event("refusal.delta", delta="a"), CONTENT),
        (event("reasoning_summary_text.delta", delta="a"), CONTENT),
        (event("function_call_arguments.delta", delta="{"), CONTENT),
        (event("output_text.done", text="a"), CONTENT),
        (event("completed", response={"output": []}), TERMINAL | FINISH),
        (event("incomplete", response={"output": [CALL]}), TERMINAL | FINISH | CONTENT),
        (event("failed", response={"error": {"code": "x"}}), TERMINAL | ERROR),
        (event("failed", response=None), TERMINAL | ERROR),
        ({"type": "error", "error": {"message": "m"}}, ERROR),
        ({"type": "error", "message": "m", "code": "x"}, ERROR),
        ({"error": {"message": "m"}}, ERROR),
        ({"type": "aiproxy:route"}, 0),
        ({}, 0),
    ],
)
def test_responses_events(payload: dict[str, Any], flags: int) -> None:
    watch = observer("responses")
    assert watch.feed(payload) == flags
    assert watch.content_seen == bool(flags & CONTENT)
    assert watch.finished == bool(flags & FINISH)
    assert (watch.error is not None) == bool(flags & ERROR)


def test_an_error_event_without_an_error_member_is_one() -> None:
    for dialect in ("chat", "responses", "completions"):
        watch = observer(dialect)
        assert watch.feed({"message": "overloaded"}, "error") == ERROR
        assert watch.error == {"message": "overloaded"}


def test_every_choice_has_to_finish() -> None:
    watch = observer("chat")
    watch.feed(
        {
            "choices": [
                {"index": 0, "delta": {"content": "a"}},
                {"index": 1, "delta": {"content": "b"}},
            ]
        }
    )
    watch.feed({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    assert not watch.finished
    watch.feed({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]})
    assert watch.finished


def test_completions_chunks() -> None:
    watch = observer("completions")
    assert watch.feed({"choices": [{"index": 0, "text": "", "finish_reason": None}]}) == 0
    assert watch.feed({"choices": [{"index": 0, "text": "a", "finish_reason": None}]}) == CONTENT
    assert watch.feed({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}) == FINISH
    assert watch.finished


def test_an_embeddings_body_is_its_own_stream() -> None:
    watch = observer("embeddings")
    body = {
        "model": "e",
        "data": [{"embedding": [0.1]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    assert watch.feed(body) == CONTENT | FINISH | TERMINAL | USAGE
    assert (watch.model, watch.usage) == ("e", Usage(3, 0))


@pytest.mark.parametrize("dialect", ["chat", "responses", "draft"])
def test_our_own_streams_are_watched_as_complete(dialect: str, kit: Kit) -> None:
    given = Envelope("resp_1", 1, "public", include_usage=True)
    events = [TextDelta("a"), Finish("stop"), UsageEvent(Usage(2, 1))]
    watch = observer("chat" if dialect == "chat" else "responses")
    for frame in kit["frames"](kit["encode"](dialect, events, given)):
        watch.feed(frame)
    assert (watch.finished, watch.content_seen, watch.error) == (True, True, None)
    assert (watch.model, watch.usage) == ("public", Usage(2, 1))


MESSAGE_CHOICE = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("dialect", "body", "reason"),
    [
        ("chat", {"choices": [MESSAGE_CHOICE]}, None),
        ("chat", [], "the body is not a JSON object"),
        ("chat", {"error": {"message": "m"}}, "the body holds an error object"),
        (
            "chat",
            {"error": {"message": "m"}, "choices": [MESSAGE_CHOICE]},
            "the body holds an error object",
        ),
        ("chat", {"error": None, "choices": [MESSAGE_CHOICE]}, None),
        ("chat", {}, "choices is missing"),
        ("chat", {"choices": []}, "choices is empty"),
        ("chat", {"choices": [3]}, "choices[0] is not an object"),
        ("chat", {"choices": [{}]}, "choices[0].message is missing"),
        ("chat", {"choices": [{"message": "a"}]}, "choices[0].message is not an object"),
        (
            "chat",
            {"choices": [{"message": {}, "finish_reason": "error"}]},
            "choices[0] ended in an error",
        ),
        ("completions", {"choices": [{"text": ""}]}, None),
        ("completions", {"choices": [{}]}, "choices[0].text is missing"),
        ("embeddings", {"data": [{"embedding": "AAAA"}]}, None),
        ("embeddings", {"data": []}, "data is empty"),
        ("responses", {"status": "completed", "output": [MESSAGE]}, None),
        ("responses", {"status": "queued"}, None),
        ("responses", {"status": "failed"}, "the response is failed"),
        ("responses", {"status": "completed"}, "output is missing"),
        ("responses", {"status": "completed", "output": []}, "output is empty"),
        ("responses", {"status": "incomplete", "output": []}, None),
        ("responses", {"output": [3]}, "output[0] is not an object"),
    ],
)
def test_broken_bodies_are_explained(dialect: str, body: object, reason: str | None) -> None:
    assert check_reply(dialect, body) == reason


@pytest.mark.parametrize(
    ("value", "usage"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}, Usage(5, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 999}, Usage(5, 2)),
        ({"prompt_tokens": 5.0, "completion_tokens": 2}, Usage(5, 2)),
        ({"input_tokens": 5, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 3}}, Usage(5, 2, 3)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_cache_hit_tokens": 3}, Usage(5, 2, 3)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "cached_tokens": 3}, Usage(5, 2, 3)),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "cache_read_input_tokens": 3,
             "cache_creation_input_tokens": 1},
            Usage(5, 2, 3, 1),
        ),
        # Reasoning left out of the completion count but in the total.
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 10,
             "completion_tokens_details": {"reasoning_tokens": 3}},
            Usage(5, 5, 0, 0, 3),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9,
             "completion_tokens_details": {"reasoning_tokens": 3}},
            Usage(5, 4, 0, 0, 3),
        ),
        ({"prompt_tokens": -1, "completion_tokens": True}, None),
        ({}, None),
        (None, None),
        ("7", None),
    ],
)  # fmt: skip
def test_usage_is_read_in_every_spelling(value: object, usage: Usage | None) -> None:
    assert read_usage(value) == usage
    assert reply_usage("chat", {"usage": value}) == usage


def test_usage_round_trips_in_every_spelling() -> None:
    usage = Usage(20, 7, 5, 1, 2)
    assert usage.total == 27
    assert Usage(20, 7, total=3).total == 27
    for write in (chat_usage, responses_usage, union_usage):
        assert read_usage(write(usage)) == usage
