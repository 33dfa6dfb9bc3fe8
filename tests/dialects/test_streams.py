"""A streamed answer, put together again, is the answer that would have come whole.

For every pair of dialects, from upstreams with the usual bad habits.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiproxy.middleware.dialects import (
    Envelope,
    Finish,
    StreamCut,
    StreamError,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
    UsageEvent,
    chat,
    draft,
    responses,
)

Kit = dict[str, Callable[..., Any]]
MODULES: dict[str, Any] = {"chat": chat, "responses": responses, "draft": draft}
MODEST = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass(frozen=True)
class Said:
    """An answer, independent of any dialect."""

    thought: str
    text: str
    refusal: str
    calls: tuple[tuple[str, str, str], ...]
    cut: bool

    @property
    def chat_reason(self) -> str:
        return "length" if self.cut else "tool_calls" if self.calls else "stop"


words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30)
calls = st.lists(
    st.tuples(
        st.sampled_from(["get_weather", "look_up"]), st.dictionaries(words, words, max_size=2)
    ),
    max_size=3,
)


@st.composite
def answers(draw: st.DrawFn) -> Said:
    refused = draw(st.booleans())
    text = draw(words)
    numbered = draw(calls)
    return Said(
        thought=draw(words),
        text="" if refused else text,
        refusal=text if refused else "",
        calls=tuple(
            (f"call_{i}", name, orjson.dumps(arguments).decode())
            for i, (name, arguments) in enumerate(numbered)
        ),
        cut=draw(st.booleans()),
    )


def pieces(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 7,
    "total_tokens": 27,
    "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
USAGE_ITEMS = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 5},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 27,
}


# --- upstreams that speak chat -------------------------------------------------------------------


def chat_body(said: Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None}
    message["refusal"] = said.refusal or None
    if said.thought:
        message["reasoning_content"] = said.thought
    if said.calls:
        message["tool_calls"] = [
            {"id": i, "type": "function", "function": {"name": n, "arguments": a}}
            for i, n, a in said.calls
        ]
    choice = {"index": 0, "message": message, "finish_reason": said.chat_reason}
    return {"id": "chatcmpl-9", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [choice], "usage": USAGE}  # fmt: skip


def chat_chunks(said: Said, size: int, index: str, stop: str) -> list[dict[str, Any]]:
    """``index``: how calls are numbered (right, zero, minus, none). ``stop``: which finish reason
    an upstream reports after calls (own, stop)."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": p} for p in pieces(said.thought, size)]
    deltas += [{"content": p} for p in pieces(said.text, size)]
    deltas += [{"refusal": p} for p in pieces(said.refusal, size)]
    for i, (identity, name, arguments) in enumerate(said.calls):
        number = {"right": {"index": i}, "zero": {"index": 0}, "minus": {"index": -1}, "none": {}}[
            index
        ]
        head = {"id": identity, "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [{**number, **head}]})
        for part in pieces(arguments, size):
            deltas.append({"tool_calls": [{**number, "function": {"arguments": part}}]})
    base = {"id": "chatcmpl-9", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [{**base, "choices": [{"index": 0, "delta": d, "finish_reason": ""}]} for d in deltas]
    reason = "stop" if stop == "stop" and not said.cut else said.chat_reason
    last = {"index": 0, "delta": {}, "finish_reason": reason}
    chunks.append({**base, "choices": [last], "usage": {**USAGE, "completion_tokens": 1}})
    chunks.append({**base, "choices": [], "usage": USAGE})
    return chunks


# --- upstreams that speak Responses --------------------------------------------------------------


def output_items(said: Said) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    state = "incomplete" if said.cut else "completed"
    if said.thought:
        summary = [{"type": "summary_text", "text": said.thought}]
        items.append({"type": "reasoning", "id": "rs_1", "summary": summary})
    if said.text:
        part = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
        items.append({"type": "message", "id": "msg_1", "role": "assistant", "content": [part]})
    if said.refusal:
        part = {"type": "refusal", "refusal": said.refusal}
        items.append({"type": "message", "id": "msg_1", "role": "assistant", "content": [part]})
    for identity, name, arguments in said.calls:
        items.append({"type": "function_call", "id": f"fc_{identity}", "call_id": identity,
                      "name": name, "arguments": arguments})  # fmt: skip
    for i, item in enumerate(items):
        if item["type"] != "reasoning":
            item["status"] = state if i == len(items) - 1 else "completed"
    return items


def response_body(said: Said) -> dict[str, Any]:
    details = {"reason": "max_output_tokens"} if said.cut else None
    return {"id": "resp_up", "object": "response", "created_at": 1, "model": "m", "error": None,
            "status": "incomplete" if said.cut else "completed", "incomplete_details": details,
            "output": output_items(said), "usage": USAGE_ITEMS}  # fmt: skip


def response_events(said: Said, size: int, mode: str) -> list[dict[str, Any]]:
    """``mode``: full, done (no deltas), terminal (nothing but the end), bare (no indexes)."""
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "resp_up", "model": "m", "output": []}}
    ]
    for i, item in enumerate(output_items(said)):
        if mode == "terminal":
            break
        at: dict[str, Any] = {"item_id": item["id"]}
        if mode != "bare":
            at["output_index"] = i
        where = {k: v for k, v in at.items() if k == "output_index"}
        empty = {**item, "status": "in_progress"}
        for name in ("content", "summary"):
            if name in empty:
                empty[name] = []
        if "arguments" in empty:
            empty["arguments"] = ""
        events.append({"type": "response.output_item.added", **where, "item": empty})
        stem, text, key, more = {
            "reasoning": ("reasoning_summary_text", said.thought, "text", {"summary_index": 0}),
            "function_call": (
                "function_call_arguments",
                item.get("arguments", ""),
                "arguments",
                {},
            ),
            "message": ("output_text", said.text, "text", {"content_index": 0}),
        }[item["type"]]
        if item["type"] == "message" and said.refusal:
            stem, text, key = "refusal", said.refusal, "refusal"
        if mode != "done":
            for part in pieces(text, size):
                events.append({"type": f"response.{stem}.delta", **at, **more, "delta": part})
        events.append({"type": f"response.{stem}.done", **at, **more, key: text})
        events.append({"type": "response.output_item.done", **where, "item": item})
    body = response_body(said)
    events.append({"type": f"response.{body['status']}", "response": body})
    return [{**event, "sequence_number": n} for n, event in enumerate(events)]


# --- the property --------------------------------------------------------------------------------


def whole(target: str, body: dict[str, Any], source: str, envelope: Envelope) -> dict[str, Any]:
    reply = MODULES[source].decode_reply(body)
    encoded: dict[str, Any] = MODULES[target].encode_reply(reply, envelope)
    return encoded


def check(
    kit: Kit, envelope: Envelope, source: str, body: dict[str, Any], chunks: list[dict[str, Any]]
) -> None:
    events = kit["decode"](source, chunks)
    for target in ("chat", "responses", "draft"):
        wire = kit["frames"](kit["encode"](target, events, envelope))
        expected = whole(target, body, source, envelope)
        if target == "chat":
            assert kit["assemble_chat"](wire) == kit["flatten_chat"](expected)
        else:
            told = wire[-1]["response"]
            for choice in told.get("choices", ()):
                # The chunks' own word may be another one than the whole answer's.
                choice.pop("native_finish_reason", None)
            assert told == {**expected, "usage": told["usage"]}
            assert told["usage"] == expected["usage"]
            assert [f["sequence_number"] for f in wire] == list(range(len(wire)))
        if target == "draft":
            assert kit["assemble_chat"](wire) == kit["flatten_chat"](expected)
            assert {f["object"] for f in wire} == {"response.chunk"}
            assert {f["id"] for f in wire} == {envelope.id}


@MODEST
@given(
    said=answers(),
    size=st.integers(1, 12),
    index=st.sampled_from(["right", "zero", "minus", "none"]),
    stop=st.sampled_from(["own", "stop"]),
)
def test_chat_streams_give_what_whole_chat_answers_give(
    kit: Kit, envelope: Envelope, said: Said, size: int, index: str, stop: str
) -> None:
    check(kit, envelope, "chat", chat_body(said), chat_chunks(said, size, index, stop))


@MODEST
@given(
    said=answers(),
    size=st.integers(1, 12),
    mode=st.sampled_from(["full", "done", "terminal", "bare"]),
)
def test_responses_streams_give_what_whole_responses_give(
    kit: Kit, envelope: Envelope, said: Said, size: int, mode: str
) -> None:
    check(kit, envelope, "responses", response_body(said), response_events(said, size, mode))


@MODEST
@given(said=answers(), size=st.integers(1, 9))
def test_our_own_union_streams_decode_to_the_same_events(
    kit: Kit, envelope: Envelope, said: Said, size: int
) -> None:
    events = kit["decode"]("chat", chat_chunks(said, size, "right", "own"))
    union = kit["frames"](kit["encode"]("draft", events, envelope))
    again = kit["frames"](kit["encode"]("chat", kit["decode"]("draft", union), envelope))
    assert kit["assemble_chat"](again) == kit["flatten_chat"](chat_body(said))


# --- the shape of what we send -------------------------------------------------------------------

EVENTS = [
    TextDelta("Hel"),
    TextDelta("lo"),
    ToolCallStart(0, "call_a", "f"),
    ToolCallStart(1, "", "g"),
    ToolCallDelta(1, "{}"),
    ToolCallDelta(0, '{"x":1}'),
    ToolCallEnd(0),
    ToolCallEnd(1),
    Finish("tool_calls"),
    UsageEvent(Usage(3, 4)),
]


def test_a_responses_stream_has_the_documented_order(kit: Kit, envelope: Envelope) -> None:
    wire = kit["encode"]("responses", EVENTS, envelope)
    events = kit["parse"](wire)
    assert [e.event for e in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
        None,
    ]
    assert wire.endswith(b"data: [DONE]\n\n")
    payloads = kit["frames"](wire)
    assert all(p["type"] == e.event for p, e in zip(payloads, events, strict=False))
    added = [p["item"] for p in payloads if p["type"] == "response.output_item.added"]
    assert [(i.get("name"), i["id"]) for i in added] == [
        (None, "msg_0123abcd_0"),
        ("f", "fc_0123abcd_1"),
        ("g", "fc_0123abcd_2"),
    ]
    assert added[2]["call_id"] == "call_0123abcd_1"


def test_the_same_envelope_gives_the_same_bytes(kit: Kit, envelope: Envelope) -> None:
    for dialect in ("chat", "responses", "draft"):
        assert kit["encode"](dialect, EVENTS, envelope) == kit["encode"](dialect, EVENTS, envelope)


@pytest.mark.parametrize("asked", [True, False])
def test_extra_is_on_the_last_json_frame_only(kit: Kit, envelope: Envelope, asked: bool) -> None:
    extra = {"x-aiproxy": {"provider": "a"}}
    for dialect in ("chat", "responses", "draft"):
        given = replace(envelope, include_usage=asked)
        payloads = kit["frames"](kit["encode"](dialect, EVENTS, given, extra))
        assert [p.get("x-aiproxy") for p in payloads] == [None] * (len(payloads) - 1) + [
            {"provider": "a"}
        ]


def test_usage_is_null_on_every_chunk_but_the_last_when_asked_for(
    kit: Kit, envelope: Envelope
) -> None:
    payloads = kit["frames"](kit["encode"]("chat", EVENTS, replace(envelope, include_usage=True)))
    assert [p["usage"] for p in payloads[:-1]] == [None] * (len(payloads) - 1)
    assert payloads[-1]["choices"] == []
    assert payloads[-1]["usage"]["total_tokens"] == 7
    without = kit["frames"](kit["encode"]("chat", EVENTS, envelope))
    assert all("usage" not in p for p in without)


def test_the_first_delta_of_each_choice_carries_the_role(kit: Kit, envelope: Envelope) -> None:
    events = [
        TextDelta("a", 0),
        TextDelta("b", 1),
        TextDelta("c", 0),
        Finish("stop", 0),
        Finish("stop", 1),
    ]
    payloads = kit["frames"](kit["encode"]("chat", events, envelope))
    assert [p["choices"][0]["delta"].get("role") for p in payloads] == [
        "assistant",
        "assistant",
        None,
        None,
        None,
    ]


@pytest.mark.parametrize("dialect", ["chat", "responses", "draft"])
def test_an_encoder_never_makes_up_an_ending(dialect: str, envelope: Envelope) -> None:
    encoder = MODULES[dialect].StreamEncoder(envelope)
    encoder.encode(TextDelta("half"))
    with pytest.raises(StreamCut):
        encoder.finish()


def test_a_broken_chat_stream_ends_with_an_error_and_no_done(kit: Kit, envelope: Envelope) -> None:
    encoder = chat.StreamEncoder(envelope)
    error = {"message": "m", "type": "upstream_error", "param": None, "code": "stream_interrupted"}
    wire = encoder.encode(TextDelta("half")) + encoder.fail(error)
    assert kit["frames"](wire)[-1] == {"error": error}
    assert b"[DONE]" not in wire
    assert encoder.fail({"error": error}) == encoder.fail(error)


@pytest.mark.parametrize("dialect", ["responses", "draft"])
def test_a_broken_responses_stream_ends_with_error_failed_done(
    dialect: str, kit: Kit, envelope: Envelope
) -> None:
    encoder = MODULES[dialect].StreamEncoder(envelope)
    error = {"message": "m", "type": "upstream_error", "param": None, "code": "stream_interrupted"}
    wire = encoder.encode(TextDelta("half")) + encoder.fail(error)
    payloads = kit["frames"](wire)
    assert [p["type"] for p in payloads[-2:]] == ["error", "response.failed"]
    assert payloads[-2]["error"] == error
    failed = payloads[-1]["response"]
    assert failed["status"] == "failed"
    assert failed["error"] == {"code": "server_error", "message": "m"}
    assert failed["output"][0]["content"][0]["text"] == "half"
    assert wire.endswith(b"data: [DONE]\n\n")


# --- what upstreams do wrong ---------------------------------------------------------------------


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def call(index: int | None, **members: Any) -> dict[str, Any]:
    number = {} if index is None else {"index": index}
    return {"tool_calls": [{**number, **members}]}


@pytest.mark.parametrize("dialect", ["chat", "responses", "draft"])
def test_a_stream_without_an_ending_is_a_cut(dialect: str, kit: Kit, envelope: Envelope) -> None:
    wire = kit["frames"](kit["encode"](dialect, [TextDelta("a"), Finish("stop")], envelope))
    for end in range(len(wire)):
        decoder = MODULES[dialect].StreamDecoder()
        for payload in wire[:end]:
            decoder.feed(payload, None)
        assert not decoder.complete
        with pytest.raises(StreamCut):
            decoder.finish()


def test_an_empty_finish_reason_is_none() -> None:
    decoder = chat.StreamDecoder()
    decoder.feed(chunk({"content": "a"}, ""))
    with pytest.raises(StreamCut):
        decoder.finish()


@pytest.mark.parametrize(
    ("native", "ours"),
    [("end_turn", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("odd", "stop")],
)
def test_native_finish_reasons_are_mapped_and_kept_beside(native: str, ours: str) -> None:
    decoder = chat.StreamDecoder()
    decoder.feed(chunk({"content": "a"}, native))
    assert decoder.finish() == [Finish(ours, 0, native)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "overloaded", "code": 529}},
        {"choices": [], "error": {"message": "overloaded", "code": 529}},
        {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]},
    ],
)
def test_an_error_inside_a_200_stream_is_seen(payload: dict[str, Any]) -> None:
    decoder = chat.StreamDecoder()
    events = decoder.feed(payload)
    assert isinstance(events[-1], StreamError)
    assert decoder.feed(chunk({"content": "late"}, "stop")) == []
    assert decoder.finish() == []


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "error", "code": "server_error", "message": "m", "param": None},
        {
            "type": "error",
            "error": {"type": "server_error", "code": "server_error", "message": "m"},
        },
        {
            "type": "response.failed",
            "response": {"error": {"code": "server_error", "message": "m"}},
        },
        {"error": {"code": "server_error", "message": "m"}},
    ],
)
def test_responses_errors_are_seen_in_every_shape(payload: dict[str, Any]) -> None:
    (error,) = responses.StreamDecoder().feed(payload)
    assert isinstance(error, StreamError)
    assert (error.code, error.message) == ("server_error", "m")


def test_arguments_as_an_object_become_a_string() -> None:
    decoder = chat.StreamDecoder()
    events = decoder.feed(chunk(call(0, id="a", function={"name": "f", "arguments": {"x": 1}})))
    assert events[1:] == [ToolCallStart(0, "a", "f"), ToolCallDelta(0, '{"x":1}')]


def test_parallel_calls_without_ids_at_index_zero_stay_apart() -> None:
    decoder = chat.StreamDecoder()
    events = decoder.feed(chunk(call(0, function={"name": "f", "arguments": {"x": 1}})))
    events += decoder.feed(chunk(call(0, function={"name": "f", "arguments": {"x": 2}})))
    starts = [e for e in events if isinstance(e, ToolCallStart)]
    assert [(s.index, s.name) for s in starts] == [(0, "f"), (1, "f")]


def test_interleaved_parallel_calls_keep_their_arguments(kit: Kit) -> None:
    chunks = [
        chunk(call(0, id="a", function={"name": "f", "arguments": ""})),
        chunk(call(1, id="b", function={"name": "g", "arguments": ""})),
        chunk(call(1, function={"arguments": "{}"})),
        chunk(call(0, function={"arguments": "[]"})),
        chunk({}, "tool_calls"),
    ]
    events = kit["decode"]("chat", chunks)
    assert [e for e in events if isinstance(e, ToolCallDelta)] == [
        ToolCallDelta(1, "{}"),
        ToolCallDelta(0, "[]"),
    ]


def test_a_repeated_id_and_name_is_one_call(kit: Kit) -> None:
    chunks = [
        chunk(call(0, id="a", function={"name": "f", "arguments": part})) for part in ("{", "}")
    ]
    events = kit["decode"]("chat", [*chunks, chunk({}, "tool_calls")])
    assert sum(isinstance(e, ToolCallStart) for e in events) == 1


def test_a_stop_before_its_call_still_ends_in_tool_calls(kit: Kit) -> None:
    chunks = [
        chunk({"content": "a"}, "stop"),
        chunk(call(0, id="a", function={"name": "f", "arguments": "{}"})),
    ]
    assert kit["decode"]("chat", chunks)[-1] == Finish("tool_calls", 0, "stop")


def test_a_name_that_comes_late_is_waited_for() -> None:
    decoder = chat.StreamDecoder()
    early = decoder.feed(chunk(call(0, id="a", function={"arguments": "{"})))
    late = decoder.feed(chunk(call(0, function={"name": "f", "arguments": "}"})))
    assert not any(isinstance(e, ToolCallStart) for e in early)
    assert late == [ToolCallStart(0, "a", "f"), ToolCallDelta(0, "{"), ToolCallDelta(0, "}")]


def test_cumulative_usage_is_told_once_and_last(kit: Kit) -> None:
    chunks = [
        {**chunk({"content": "a"}), "usage": {"prompt_tokens": 3, "completion_tokens": 1}},
        {**chunk({}, "stop"), "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    ]
    events = kit["decode"]("chat", chunks)
    assert [e for e in events if isinstance(e, UsageEvent)] == [UsageEvent(Usage(3, 2))]
    assert isinstance(events[-1], UsageEvent)


def test_arguments_only_in_the_done_event_survive(kit: Kit) -> None:
    item = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": ""}
    at = {"output_index": 0, "item_id": "fc"}
    done = {"type": "response.function_call_arguments.done", **at, "arguments": '{"x":1}'}
    events = kit["decode"](
        "responses",
        [
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            done,
            {"type": "response.completed", "response": {"status": "completed", "output": [item]}},
        ],
    )
    assert ToolCallDelta(0, '{"x":1}') in events
    assert events[-1] == Finish("tool_calls")


def test_arguments_that_come_before_their_item_survive(kit: Kit) -> None:
    at = {"output_index": 0, "item_id": "fc"}
    item = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": "{}"}
    events = kit["decode"](
        "responses",
        [
            {"type": "response.function_call_arguments.delta", **at, "delta": "{"},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": {"output": [item]}},
        ],
    )
    arguments = "".join(e.arguments for e in events if isinstance(e, ToolCallDelta))
    assert arguments == "{}"


def test_changing_item_ids_do_not_repeat_text(kit: Kit) -> None:
    part = {"type": "output_text", "text": "hello", "annotations": []}
    item = {"type": "message", "id": "b", "role": "assistant", "content": [part]}
    where = {"output_index": 0, "content_index": 0}
    delta = {"type": "response.output_text.delta", "item_id": "a", **where, "delta": "hello"}
    events = kit["decode"](
        "responses",
        [
            delta,
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": {"output": [{**item, "id": "c"}]}},
        ],
    )
    assert [e for e in events if isinstance(e, TextDelta)] == [TextDelta("hello")]


def test_encrypted_reasoning_reaches_the_client(kit: Kit, envelope: Envelope) -> None:
    item = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "opaque"}
    events = kit["decode"](
        "responses",
        [
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": {"output": [item]}},
        ],
    )
    response = kit["frames"](kit["encode"]("responses", events, envelope))[-1]["response"]
    assert [i["encrypted_content"] for i in response["output"]] == ["opaque"]


def test_logprobs_are_carried_both_ways(kit: Kit, envelope: Envelope) -> None:
    token = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}
    upstream = {
        "choices": [
            {
                "index": 0,
                "delta": {"content": "a"},
                "logprobs": {"content": [token]},
                "finish_reason": "stop",
            }
        ]
    }
    events = kit["decode"]("chat", [upstream])
    wire = kit["frames"](kit["encode"]("responses", events, envelope))
    assert wire[-1]["response"]["output"][0]["content"][0]["logprobs"] == [token]
    back = kit["frames"](kit["encode"]("chat", kit["decode"]("responses", wire), envelope))
    assert back[0]["choices"][0]["logprobs"]["content"] == [token]


@given(said=answers(), cut=st.integers(0, 3000), step=st.integers(1, 50))
@MODEST
def test_cut_bytes_anywhere_give_the_same_events(
    kit: Kit, envelope: Envelope, said: Said, cut: int, step: int
) -> None:
    from aiproxy.middleware.dialects.sse import SSEParser

    events = kit["decode"]("chat", chat_chunks(said, 5, "right", "own"))
    for dialect in ("chat", "responses", "draft"):
        wire = kit["encode"](dialect, events, envelope)
        parser = SSEParser()
        start = cut % len(wire)
        got = parser.feed(wire[:start])
        for i in range(start, len(wire), step):
            got += parser.feed(wire[i : i + step])
        got += parser.finish()
        payloads = [orjson.loads(e.data or b"") for e in got if not e.is_done]
        assert kit["decode"](dialect, payloads) == kit["decode"](dialect, kit["frames"](wire))
