"""Streams in: Cohere v2 chat events to canonical events."""

from collections.abc import Mapping
from typing import Any

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
    CanonicalEvent,
    Finish,
    Json,
    OpaqueItem,
    ReasoningDelta,
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
from aiproxy.middleware.dialects.cohere.citations import annotations, of_answer
from aiproxy.middleware.dialects.cohere.reply_in import failed, logprobs, native_word, usage_of
from aiproxy.middleware.dialects.cohere.vocabulary import DIALECT
from aiproxy.middleware.dialects.finish import finish_reason


class StreamDecoder:
    """Typed events in, canonical events out. ``message-end`` ends an answer."""

    __slots__ = (
        "_calls",
        "_failed",
        "_native",
        "_places",
        "_started",
        "_thought",
        "_thoughts",
        "_usage",
    )

    def __init__(self) -> None:
        self._started = False
        self._failed = False
        self._native: str | None = None
        self._usage: Usage | None = None
        self._calls = 0
        self._places: dict[int, int] = {}  # Cohere's index of a call -> ours
        self._thought: object = None  # the reasoning block we are in: an index, or the plan
        self._thoughts = 0

    @property
    def complete(self) -> bool:
        """True once ``message-end`` gave its reason."""
        return self._native is not None and not self._failed

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> list[CanonicalEvent]:
        """Return the events of one frame. Nothing follows a ``StreamError``."""
        if self._failed:
            return []
        kind = reading.word(payload.get("type")) or event
        if kind == "content-delta":  # nearly every frame
            return self._begun(payload, self._content(payload))
        if kind == "message-end":
            return self._begun(payload, self._ended(payload))
        message = _message(payload)
        events: list[CanonicalEvent] = []
        if kind == "content-start":
            events = self._content(payload)
        elif kind == "tool-plan-delta":
            plan = reading.word(message.get("tool_plan"))
            if plan:
                events.append(ReasoningDelta(plan, item=self._item("plan")))
        elif kind == "tool-call-start":
            self._call(payload, message, events)
        elif kind == "tool-call-delta":
            self._arguments(payload, message, events)
        elif kind == "tool-call-end":
            place = self._places.get(_index(payload))
            if place is not None:
                events.append(ToolCallEnd(place))
        elif kind == "citation-start":
            _cite(message, events)
        elif kind == "error" or payload.get("error") or isinstance(payload.get("message"), str):
            return [self._fail(payload.get("error") or payload)]
        return self._begun(payload, events)

    def finish(self) -> list[CanonicalEvent]:
        """Return the closing events.

        Raises:
            StreamCut: there was no ``message-end``.
        """
        if self._failed:
            return []
        if self._native is None:
            raise StreamCut()
        reason = finish_reason(self._native, self._calls > 0) or "stop"
        events: list[CanonicalEvent] = [Finish(reason, 0, native_word(self._native, reason))]
        if self._usage is not None:
            events.append(UsageEvent(self._usage))
        return events

    def _begun(self, payload: Json, events: list[CanonicalEvent]) -> list[CanonicalEvent]:
        if not self._started and not self._failed:
            self._started = True
            events.insert(0, StreamStart(reading.optional(payload.get("id"))))
        return events

    def _content(self, payload: Json) -> list[CanonicalEvent]:
        content = _message(payload).get("content")
        if not isinstance(content, Mapping):
            return []
        events: list[CanonicalEvent] = []
        thinking, text = content.get("thinking"), content.get("text")
        if isinstance(thinking, str) and thinking:
            events.append(ReasoningDelta(thinking, item=self._item(_index(payload))))
        if isinstance(text, str) and text:
            tokens = payload.get("logprobs")
            events.append(TextDelta(text, 0, logprobs(tokens) if tokens else ()))
        return events

    def _item(self, block: object) -> int:
        """Return the number of a reasoning block; another block than the last is a new one."""
        if block != self._thought:
            self._thought = block
            self._thoughts += 1
        return self._thoughts - 1

    def _call(self, payload: Json, message: Json, events: list[CanonicalEvent]) -> None:
        given = message.get("tool_calls")
        for call in [given] if isinstance(given, Mapping) else reading.objects(given):
            function = call.get("function")
            function = function if isinstance(function, Mapping) else {}
            place = self._places[_index(payload)] = self._calls
            self._calls += 1
            identity, name = reading.word(call.get("id")), reading.word(function.get("name"))
            events.append(ToolCallStart(place, identity, name))
            arguments = reading.arguments_text(function.get("arguments"))
            if arguments:
                events.append(ToolCallDelta(place, arguments))

    def _arguments(self, payload: Json, message: Json, events: list[CanonicalEvent]) -> None:
        call = message.get("tool_calls")
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not self._calls:
            return
        arguments = reading.arguments_text(function.get("arguments"))
        if arguments:
            place = self._places.get(_index(payload), self._calls - 1)
            events.append(ToolCallDelta(place, arguments))

    def _ended(self, payload: Json) -> list[CanonicalEvent]:
        delta = payload.get("delta")
        delta = delta if isinstance(delta, Mapping) else {}
        usage = usage_of(delta.get("usage"))
        self._usage = usage or self._usage
        native = reading.word(delta.get("finish_reason"))
        if failed(native) or delta.get("error"):
            return [self._fail(delta.get("error"), native)]
        self._native = native or "COMPLETE"
        return []

    def _fail(self, error: object, native: str | None = None) -> StreamError:
        self._failed = True
        message = error.get("message") if isinstance(error, Mapping) else error
        return StreamError(native or None, str(message or "the upstream ended the answer"))


def _message(payload: Json) -> Json:
    delta = payload.get("delta")
    message = delta.get("message") if isinstance(delta, Mapping) else None
    return message if isinstance(message, Mapping) else {}


def _index(payload: Json) -> int:
    index = payload.get("index")
    return index if isinstance(index, int) else 0


def _cite(message: Json, events: list[CanonicalEvent]) -> None:
    given = message.get("citations")
    for citation in [given] if isinstance(given, Mapping) else reading.objects(given):
        if of_answer(citation):
            events += [AnnotationDelta(annotation) for annotation in annotations(citation)]
        else:
            events.append(OpaqueItem(DIALECT, "citation", citation))
