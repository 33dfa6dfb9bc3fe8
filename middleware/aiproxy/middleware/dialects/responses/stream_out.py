"""Streams out: canonical events to typed Responses frames."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
    AudioDelta,
    CanonicalEvent,
    Envelope,
    Finish,
    Json,
    OpaqueItem,
    PartEnd,
    ReasoningDelta,
    RefusalDelta,
    StreamCut,
    StreamError,
    StreamStart,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
    UsageEvent,
)
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.responses.frames import OpenItem
from aiproxy.middleware.dialects.responses.items import (
    call_item,
    id_prefix,
    message_item,
    output_text,
    token_list,
)
from aiproxy.middleware.dialects.responses.losses import event_losses
from aiproxy.middleware.dialects.responses.response import response_object
from aiproxy.middleware.dialects.responses.sealing import marker_item
from aiproxy.middleware.dialects.responses.thoughts_out import ThoughtFrames
from aiproxy.middleware.dialects.seals import seal_call, seal_text
from aiproxy.middleware.dialects.sse import DONE_FRAME

#: Codes the error member of a Response object may hold; others become ``server_error``.
_ERROR_CODES: Final = frozenset({"server_error", "rate_limit_exceeded", "invalid_prompt"})


class StreamEncoder(ThoughtFrames):
    """Canonical events in, typed Responses frames out.

    Sequence numbers start at 0 and step by 1; the response id, item ids and output indexes never
    change; every item that begins also ends, in the terminal response as in the stream.
    ``losses`` gathers what the frames cannot show. ``source``: the dialect of the upstream, for
    opaque data whose event does not say its origin; without either it is a loss.
    """

    def __init__(self, envelope: Envelope, source: str | None = None) -> None:
        super().__init__(envelope, source)
        self._message: OpenItem | None = None
        self._calls: dict[int, OpenItem] = {}
        self._ending: Finish | None = None
        self._usage: Usage | None = None

    def encode(self, event: CanonicalEvent) -> bytes:
        """Return the frames of one event, possibly none. Other choices than 0 are left out."""
        if isinstance(event, UsageEvent):
            self._usage = event.usage
            return b""
        if isinstance(event, StreamStart | StreamError):
            return b""
        if event.choice != 0 or isinstance(event, OpaqueItem):
            note(self.losses, event_losses(event))
            return b""
        if isinstance(event, Finish):
            self._ending = event
            if event.stop_sequence is not None:
                note(self.losses, event_losses(event))
            return b""
        if isinstance(event, PartEnd):
            if self._message is not None:
                self._end_part(self._message)
            return self._flush()
        self._begin()
        if isinstance(event, TextDelta):
            if event.text or event.signature is None:
                self._say("output_text", event.text, event.logprobs)
            if event.signature is not None:
                self._sign(event, event.signature)
        elif isinstance(event, RefusalDelta):
            self._say("refusal", event.text, ())
        elif isinstance(event, ReasoningDelta):
            self._think(event)
        elif isinstance(event, ToolCallStart):
            self._start_call(event)
        elif isinstance(event, ToolCallDelta):
            self._argue(event)
        elif isinstance(event, ToolCallEnd):
            call = self._calls.pop(event.index, None)
            if call is not None:
                self._end_call(call, "completed")
        elif isinstance(event, AnnotationDelta):
            self._annotate(event.annotation)
        elif isinstance(event, AudioDelta):
            note(self.losses, event_losses(event))
            if event.transcript:
                self._say("output_text", event.transcript, ())
        return self._flush()

    def finish(self, extra: Mapping[str, Any] | None = None) -> bytes:
        """Close what is open, then the terminal event with the whole response, then ``[DONE]``.

        ``extra`` is merged into the terminal frame, which is the last JSON frame.

        Raises:
            StreamCut: no ``Finish`` was encoded; an ending is never made up.
        """
        if self._ending is None:
            raise StreamCut()
        reason = self._ending.reason
        self._begin()
        status = "incomplete" if reason in ("length", "content_filter") else "completed"
        self._close(status)
        response = response_object(self._envelope, status, self._output, self._usage, reason)
        self._emit(
            f"response.{status}",
            {"response": self._told(response, reason), **(extra or {})},
            finish=reason,
        )
        return self._flush() + DONE_FRAME

    def fail(self, error: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> bytes:
        """Return a nested ``error`` event, ``response.failed`` and ``[DONE]``."""
        inner = error.get("error")
        inner = inner if isinstance(inner, Mapping) else error
        self._begin()
        self._emit("error", {"error": dict(inner)})
        code = inner.get("code")
        told = {
            "code": code if code in _ERROR_CODES else "server_error",
            "message": str(inner.get("message") or "the answer broke off"),
        }
        for item in self._open():
            self._settle(item, "incomplete")
        response = response_object(self._envelope, "failed", self._output, self._usage, error=told)
        self._emit("response.failed", {"response": self._told(response, None), **(extra or {})})
        return self._flush() + DONE_FRAME

    def _open(self) -> list[OpenItem]:
        held = [self._message, self._reasoning, *self._calls.values()]
        return sorted((item for item in held if item is not None), key=lambda item: item.index)

    def _close(self, status: str) -> None:
        """End every open item; the last one of a cut answer is the incomplete one."""
        for item in self._open():
            last = item.index == len(self._output) - 1
            state = status if last else "completed"
            if item is self._message:
                self._end_message(state)
            elif item is self._reasoning:
                self._end_reasoning()
            else:
                self._end_call(item, state)
        if status == "incomplete" and self._output and "status" in self._output[-1]:
            self._output[-1]["status"] = status
        self._calls.clear()

    def _settle(self, held: OpenItem, status: str) -> None:
        """Write what an open item holds so far into it, without events."""
        text = "".join(held.pieces)
        if held is self._message and held.part is not None:
            held.part["refusal" if held.part["type"] == "refusal" else "text"] = text
        elif held is self._reasoning:
            self._keep_thought(held, text)
            self._seal(held)
        elif held is not self._message:
            held.item["input" if held.kind == "custom" else "arguments"] = text
        if "status" in held.item:
            held.item["status"] = status

    # Messages.

    def _say(self, kind: str, text: str, logprobs: tuple[Json, ...]) -> None:
        self._end_reasoning()
        held = self._message
        if held is not None and held.index != len(self._output) - 1:
            self._end_message("completed")
            held = None
        if held is None:
            identity = self._envelope.item_id("msg", len(self._output))
            held = self._message = self._add(message_item(identity, [], "in_progress"))
        if held.part is not None and held.part["type"] != kind:
            self._end_part(held)
        if held.part is None:
            refused = kind == "refusal"
            part: dict[str, Any] = (
                {"type": "refusal", "refusal": ""} if refused else output_text("")
            )
            self._emit("response.content_part.added", {**self._at(held, 1), "part": part})
            held.part = part
            held.item["content"].append(part)
        held.pieces.append(text)
        members = {**self._at(held), "delta": text}
        if kind == "refusal":
            self._emit("response.refusal.delta", members, {"refusal": text})
            return
        members["logprobs"] = token_list(logprobs)
        held.part["logprobs"] += members["logprobs"]
        self._emit("response.output_text.delta", members, {"content": text})

    def _at(self, held: OpenItem, ahead: int = 0) -> dict[str, Any]:
        """Return the members that name the current part of a message."""
        return {
            "item_id": held.item["id"],
            "output_index": held.index,
            "content_index": len(held.item["content"]) - 1 + ahead,
        }

    def _annotate(self, annotation: Json) -> None:
        held = self._message
        if held is None or held.part is None or held.part["type"] != "output_text":
            self._say("output_text", "", ())
            held = self._message
        if held is not None and held.part is not None:
            index = len(held.part["annotations"])
            held.part["annotations"].append(annotation)
            members = {**self._at(held), "annotation_index": index, "annotation": annotation}
            self._emit("response.output_text.annotation.added", members)

    def _end_part(self, held: OpenItem) -> None:
        part = held.part
        if part is None:
            return
        text = "".join(held.pieces)
        held.pieces.clear()
        held.part = None
        at = self._at(held)
        if part["type"] == "refusal":
            part["refusal"] = text
            self._emit("response.refusal.done", {**at, "refusal": text})
        else:
            part["text"] = text
            done = {**at, "text": text, "logprobs": part["logprobs"]}
            self._emit("response.output_text.done", done)
        self._emit("response.content_part.done", {**at, "part": part})

    def _end_message(self, status: str) -> None:
        held, self._message = self._message, None
        if held is None:
            return
        self._end_part(held)
        held.item["status"] = status
        self._done(held)

    # Signatures of texts and calls have items of their own.

    def _sign(self, event: TextDelta | ToolCallStart, signature: str, call_id: str = "") -> None:
        origin = event.origin or self.source
        if origin is None:
            note(self.losses, event_losses(event))
            return
        self._end_reasoning()
        self._end_message("completed")
        seal = (
            seal_call(origin, call_id, signature)
            if isinstance(event, ToolCallStart)
            else seal_text(origin, signature)
        )
        identity = self._envelope.item_id("rs", len(self._output))
        self._done(self._add(marker_item(identity, seal)))

    # Calls. Several may be open at once: parallel calls can be interleaved.

    def _start_call(self, event: ToolCallStart) -> None:
        self._end_reasoning()
        self._end_message("completed")
        call_id = event.id or self._envelope.call_id(event.index)
        if event.signature is not None:
            self._sign(event, event.signature, call_id)
        identity = self._envelope.item_id(id_prefix(event.kind), len(self._output))
        item = call_item(identity, call_id, event.name, "", event.kind, "in_progress")
        inner = {"name": event.name, "arguments": ""}
        if event.kind == "custom":
            inner = {"name": event.name, "input": ""}
        kind = "custom" if event.kind == "custom" else "function"
        call = {"index": event.index, "id": call_id, "type": kind, kind: inner}
        held = self._add(item, {"tool_calls": [call]})
        held.kind = event.kind
        self._calls[event.index] = held

    def _argue(self, event: ToolCallDelta) -> None:
        held = self._calls.get(event.index)
        if held is None or not event.arguments:
            return
        held.pieces.append(event.arguments)
        custom = held.kind == "custom"
        stem = "custom_tool_call_input" if custom else "function_call_arguments"
        inner = {"input" if custom else "arguments": event.arguments}
        call = {"index": event.index, "custom" if custom else "function": inner}
        members = {
            "item_id": held.item["id"],
            "output_index": held.index,
            "delta": event.arguments,
        }
        self._emit(f"response.{stem}.delta", members, {"tool_calls": [call]})

    def _end_call(self, held: OpenItem, status: str) -> None:
        text = "".join(held.pieces)
        held.item["status"] = status
        at = {"item_id": held.item["id"], "output_index": held.index}
        if held.kind == "custom":
            held.item["input"] = text
            self._emit("response.custom_tool_call_input.done", {**at, "input": text})
        else:
            held.item["arguments"] = text
            done = {**at, "name": held.item["name"], "arguments": text}
            self._emit("response.function_call_arguments.done", done)
        self._done(held)
