"""Chat answers as server-sent events (draft §8)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from aiproxy.conformance.checks import check
from aiproxy.conformance.probe import Probe, tell
from aiproxy.conformance.results import Finding

LEGAL_FINISH: Final = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


@dataclass(frozen=True, slots=True)
class EventStream:
    """A finished event stream: its data fields in order, and what is wrong with its text."""

    data: tuple[str, ...]
    fault: str

    @property
    def done(self) -> bool:
        """Whether the last event is the end mark."""
        return bool(self.data) and self.data[-1].strip() == "[DONE]"


def read_stream(body: bytes) -> EventStream:
    """Return the events of ``body``; comments and unknown fields are skipped, any line ending."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as fault:
        return EventStream((), f"not UTF-8 at byte {fault.start}")
    events: list[str] = []
    held: list[str] = []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line and held:
            events.append("\n".join(held))
            held = []
        elif line.startswith("data:"):
            held.append(line[5:].removeprefix(" "))
    return EventStream(tuple(events), "an event without its empty line" if held else "")


@check(
    "XAI-STREAM-006",
    level=1,
    keyword="MUST",
    title="chat streams are chat.completion.chunk events with deltas, ended by [DONE]",
    clause="draft §8",
    depends_on=("AIP-API-001",),
)
def a_chat_streams(probe: Probe) -> Iterator[Finding]:
    me = "XAI-STREAM-006"
    reply = probe.chat(stream=True)
    streams = reply.status == 200 and reply.media_type == "text/event-stream"
    yield tell(
        me, "the answer to stream: true", streams, reply, expected="200 with text/event-stream",
        found=f"{reply.status} with {reply.media_type or 'no media type'}",
    )  # fmt: skip
    if not streams:
        return
    cut = reply.answer.incomplete
    yield tell(me, "the stream ends", not cut, reply, expected="an end", found=cut)
    stream = read_stream(reply.body)
    yield tell(me, "framing", not stream.fault, reply, expected="whole events", found=stream.fault)
    last = stream.data[-1][:60] if stream.data else "no event"
    yield tell(me, "the last event", stream.done, reply, expected="[DONE]", found=last)
    chunks, fault = _chunks(stream)
    yield tell(me, "each event", not fault, reply, expected="a chunk", found=fault)
    if fault:
        return
    ids = {str(chunk.get("id")) for chunk in chunks}
    yield tell(
        me,
        "one id",
        len(ids) == 1,
        reply,
        expected="the same in each chunk",
        found=f"{len(ids)} ids",
    )
    reasons = [choice.get("finish_reason") for chunk in chunks for choice in chunk["choices"]]
    ended = any(reason in LEGAL_FINISH for reason in reasons)
    yield tell(
        me,
        "finish_reason",
        ended,
        reply,
        expected="one in the last choice",
        found=repr(reasons[-3:]),
    )


def _chunks(stream: EventStream) -> tuple[list[dict[str, Any]], str]:
    """Return the parsed chunks and what is wrong with the first bad one."""
    chunks: list[dict[str, Any]] = []
    for data in stream.data:
        if data.strip() == "[DONE]":
            continue
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            return chunks, f"not JSON: {data[:60]}"
        fault = _wrong_with(chunk)
        if fault:
            return chunks, fault
        chunks.append(chunk)
    return chunks, "" if chunks else "no chunk at all"


def _wrong_with(chunk: Any) -> str:
    if not isinstance(chunk, dict):
        return f"not an object: {chunk!r}"[:80]
    if "error" in chunk:
        return f"an error: {chunk['error']!r}"[:120]
    if chunk.get("object") != "chat.completion.chunk":
        return f"object {chunk.get('object')!r}"
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return f"choices {choices!r}"[:80]
    for choice in choices:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(delta, dict):
            return "a choice without delta"
        content = delta.get("content")
        if content is not None and not isinstance(content, str):
            return f"delta.content {content!r}"[:80]
    return ""
