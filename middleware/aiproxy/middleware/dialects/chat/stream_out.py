"""Streams out: canonical events to ``chat.completion.chunk`` frames."""

from collections.abc import Mapping
from typing import Any

import orjson

from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
    AudioDelta,
    CanonicalEvent,
    Envelope,
    Finish,
    FinishReason,
    Json,
    Loss,
    OpaqueItem,
    ReasoningDelta,
    RefusalDelta,
    StreamCut,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    ToolKind,
    Usage,
    UsageEvent,
)
from aiproxy.middleware.dialects.chat.annotations import nested_annotation
from aiproxy.middleware.dialects.chat.losses import event_losses
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.sse import DONE_FRAME
from aiproxy.middleware.dialects.usage import chat_usage


class StreamEncoder:
    """Canonical events in, ``chat.completion.chunk`` frames out.

    Finish chunks are held until ``finish`` so that the last JSON frame can carry more.
    ``losses`` gathers what chunks cannot show.
    """

    __slots__ = (
        "_envelope",
        "_finishes",
        "_head",
        "_kinds",
        "_roles",
        "_tail",
        "_thoughts",
        "_usage",
        "losses",
    )

    def __init__(self, envelope: Envelope) -> None:
        self.losses: list[Loss] = []
        self._envelope = envelope
        self._usage: Usage | None = None
        self._finishes: dict[int, FinishReason] = {}
        self._kinds: dict[tuple[int, int], ToolKind] = {}
        self._roles: set[int] = set()
        self._thoughts: dict[int, tuple[int, str, int]] = {}
        head = {
            "id": envelope.id,
            "object": "chat.completion.chunk",
            "created": envelope.created,
            "model": envelope.model,
        }
        self._head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":'
        self._tail = b',"usage":null}\n\n' if envelope.include_usage else b"}\n\n"

    def encode(self, event: CanonicalEvent) -> bytes:
        """Return the frames of one event, possibly none."""
        match event:
            case TextDelta(text, choice, logprobs):
                tokens = {"content": list(logprobs), "refusal": None} if logprobs else None
                return self._frame(choice, {"content": text}, tokens)
            case ReasoningDelta():
                note(self.losses, event_losses(event))
                if event.text:
                    return self._frame(event.choice, {"reasoning_content": self._thought(event)})
            case RefusalDelta(text, choice):
                return self._frame(choice, {"refusal": text})
            case ToolCallStart():
                return self._frame(event.choice, self._call(event))
            case ToolCallDelta(index, arguments, choice):
                return self._frame(choice, self._arguments(index, arguments, choice))
            case AnnotationDelta(annotation, choice):
                return self._frame(choice, {"annotations": [nested_annotation(annotation)]})
            case AudioDelta():
                pairs = {
                    "id": event.id,
                    "data": event.data,
                    "transcript": event.transcript,
                    "expires_at": event.expires_at,
                }
                held = {k: v for k, v in pairs.items() if v is not None}
                return self._frame(event.choice, {"audio": held})
            case Finish(reason, choice):
                self._finishes[choice] = reason
            case UsageEvent(usage):
                self._usage = usage
            case OpaqueItem():
                note(self.losses, event_losses(event))
            case _:
                pass
        return b""

    def finish(self, extra: Mapping[str, Any] | None = None) -> bytes:
        """Return the finish chunks, the usage chunk when asked for, and ``[DONE]``.

        ``extra`` is merged into the last JSON frame.

        Raises:
            StreamCut: no ``Finish`` was encoded; an ending is never made up.
        """
        if not self._finishes:
            raise StreamCut()
        more = b"" if not extra else b"," + orjson.dumps(extra)[1:-1]
        frames = []
        usage_asked = self._envelope.include_usage
        last = max(self._finishes)
        for choice, reason in sorted(self._finishes.items()):
            frame = self._frame(choice, {}, None, reason)
            if more and not usage_asked and choice == last:
                frame = frame[:-3] + more + b"}\n\n"
            frames.append(frame)
        if usage_asked:
            usage = None if self._usage is None else chat_usage(self._usage)
            frames.append(self._head + b'[],"usage":' + orjson.dumps(usage) + more + b"}\n\n")
        return b"".join((*frames, DONE_FRAME))

    def fail(self, error: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> bytes:
        """Return the error frame that ends a broken stream; no ``[DONE]`` follows it."""
        inner = error.get("error")
        body = {"error": inner if isinstance(inner, Mapping) else dict(error), **(extra or {})}
        return b"data: " + orjson.dumps(body) + b"\n\n"

    def _frame(
        self,
        choice: int,
        delta: dict[str, Any],
        logprobs: Json | None = None,
        reason: FinishReason | None = None,
    ) -> bytes:
        if choice not in self._roles:
            self._roles.add(choice)
            delta = {"role": "assistant", **delta}
            if "content" not in delta:
                delta["content"] = None
        item = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._head + orjson.dumps([item]) + self._tail

    def _thought(self, event: ReasoningDelta) -> str:
        here = (event.item, event.kind, event.part)
        before = self._thoughts.get(event.choice)
        self._thoughts[event.choice] = here
        return event.text if before in (None, here) else "\n\n" + event.text

    def _call(self, event: ToolCallStart) -> dict[str, Any]:
        self._kinds[event.choice, event.index] = event.kind
        if event.kind == "legacy_function":
            return {"function_call": {"name": event.name, "arguments": ""}}
        identity = event.id or self._envelope.call_id(event.index, event.choice)
        call: dict[str, Any] = {"index": event.index, "id": identity, "type": event.kind}
        argument = "input" if event.kind == "custom" else "arguments"
        call[event.kind] = {"name": event.name, argument: ""}
        return {"tool_calls": [call]}

    def _arguments(self, index: int, arguments: str, choice: int) -> dict[str, Any]:
        kind = self._kinds.get((choice, index), "function")
        if kind == "legacy_function":
            return {"function_call": {"arguments": arguments}}
        inner = {"input" if kind == "custom" else "arguments": arguments}
        return {"tool_calls": [{"index": index, kind: inner}]}
