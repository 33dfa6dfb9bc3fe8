"""Streams in: ``chat.completion.chunk`` objects to canonical events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
    AudioDelta,
    CanonicalEvent,
    Finish,
    Json,
    ReasoningDelta,
    RefusalDelta,
    StreamCut,
    StreamError,
    StreamStart,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolKind,
    Usage,
    UsageEvent,
)
from aiproxy.middleware.dialects.chat.annotations import flat_annotation
from aiproxy.middleware.dialects.finish import finish_reason, is_failure
from aiproxy.middleware.dialects.usage import read_usage


@dataclass(slots=True)
class _Call:
    index: int
    id: str
    key: int | None
    name: str = ""
    kind: ToolKind = "function"
    started: bool = False
    held: str = ""  # arguments that came before the name
    seen: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Progress:
    """What is known of one choice of a stream."""

    native: str | None = None
    calls: list[_Call] = field(default_factory=list)
    by_key: dict[int, _Call] = field(default_factory=dict)
    by_id: dict[str, _Call] = field(default_factory=dict)


class StreamDecoder:
    """``chat.completion.chunk`` objects in, canonical events out.

    Which call a tool delta belongs to is decided by its id first and its index second, because
    servers send index 0 for every call, -1, or none. Finish reasons are held until ``finish``:
    a call may follow the stop in a chunk of its own.
    """

    __slots__ = ("_choices", "_failed", "_started", "_usage")

    def __init__(self) -> None:
        self._choices: dict[int, _Progress] = {}
        self._usage: Usage | None = None
        self._started = False
        self._failed = False

    @property
    def complete(self) -> bool:
        """True once every choice that began has its finish reason."""
        return bool(self._choices) and all(p.native for p in self._choices.values())

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> list[CanonicalEvent]:
        """Return the events of one chunk. Nothing follows a ``StreamError``."""
        if self._failed:
            return []
        error = payload.get("error")
        if error or event == "error":
            self._failed = True
            return [stream_error(error if error else payload)]
        events: list[CanonicalEvent] = []
        if not self._started:
            self._started = True
            model, identity = payload.get("model"), payload.get("id")
            events.append(StreamStart(reading.optional(identity), reading.optional(model)))
        usage = payload.get("usage")
        if usage is not None:
            self._usage = reading.merge_usage(self._usage, read_usage(usage))
        choices = payload.get("choices")
        if isinstance(choices, list):
            for position, choice in enumerate(choices):
                if isinstance(choice, Mapping):
                    self._choice(choice, position, events)
        return events

    def finish(self) -> list[CanonicalEvent]:
        """Return the closing events.

        Raises:
            StreamCut: a choice has no finish reason, or none ever began.
        """
        if self._failed:
            return []
        if not self.complete:
            raise StreamCut()
        events: list[CanonicalEvent] = []
        for number, progress in sorted(self._choices.items()):
            for call in progress.calls:
                self._announce(call, number, events)
            legacy = bool(progress.calls) and progress.calls[0].kind == "legacy_function"
            reason = finish_reason(progress.native, bool(progress.calls), legacy) or "stop"
            if reason in ("tool_calls", "function_call"):
                events += [ToolCallEnd(call.index, number) for call in progress.calls]
            native = progress.native if progress.native != reason else None
            events.append(Finish(reason, number, native))
        if self._usage is not None:
            events.append(UsageEvent(self._usage))
        return events

    def _choice(self, choice: Json, position: int, events: list[CanonicalEvent]) -> None:
        number = choice.get("index")
        number = number if isinstance(number, int) and number >= 0 else position
        progress = self._choices.get(number)
        if progress is None:
            progress = self._choices[number] = _Progress()
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            delta = choice.get("message")  # a whole message in a stream: some gateways do that
        if isinstance(delta, Mapping):
            self._delta(delta, choice, number, progress, events)
        native = choice.get("finish_reason")
        if isinstance(native, str) and native:
            if is_failure(native):
                self._failed = True
                events.append(StreamError(native, "the upstream ended the answer in an error"))
            elif progress.native is None or finish_reason(progress.native, False) == "stop":
                progress.native = native

    def _delta(
        self,
        delta: Json,
        choice: Json,
        number: int,
        progress: _Progress,
        events: list[CanonicalEvent],
    ) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            events.append(ReasoningDelta(thought, number))
        content = delta.get("content")
        if isinstance(content, list):
            content = "".join(
                p["text"] for p in content if isinstance(p, Mapping) and type(p.get("text")) is str
            )
        if isinstance(content, str) and content:
            probabilities = choice.get("logprobs")
            tokens = None
            if isinstance(probabilities, Mapping):
                tokens = reading.logprobs(probabilities.get("content"))
            events.append(TextDelta(content, number, tokens or ()))
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            events.append(RefusalDelta(refusal, number))
        audio = delta.get("audio")
        if isinstance(audio, Mapping):
            events.append(
                AudioDelta(
                    audio.get("data"),
                    audio.get("transcript"),
                    audio.get("id"),
                    audio.get("expires_at"),
                    number,
                )
            )
        for annotation in reading.objects(delta.get("annotations")):
            if isinstance(annotation, Mapping):
                events.append(AnnotationDelta(flat_annotation(annotation), number))
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            for call in calls:
                if isinstance(call, Mapping):
                    self._tool(call, number, progress, events)
        legacy = delta.get("function_call")
        if isinstance(legacy, Mapping):
            wrapped = {"index": 0, "function": legacy}
            self._tool(wrapped, number, progress, events, "legacy_function")

    def _tool(
        self,
        delta: Json,
        number: int,
        progress: _Progress,
        events: list[CanonicalEvent],
        kind: ToolKind = "function",
    ) -> None:
        inner = delta.get("function")
        if delta.get("type") == "custom" or (inner is None and "custom" in delta):
            kind, inner = "custom", delta.get("custom")
        inner = inner if isinstance(inner, Mapping) else {}
        name = inner.get("name")
        name = name if isinstance(name, str) else ""
        given = inner.get("arguments") if kind != "custom" else inner.get("input")
        arguments = reading.arguments_text(given)
        call = self._which(delta, name, kind, progress)
        if name and not call.name:
            call.name = name
        if call.name:
            self._announce(call, number, events)
        if not arguments:
            return
        call.seen.append(arguments)
        if call.started:
            events.append(ToolCallDelta(call.index, arguments, number))
        else:
            call.held += arguments

    @staticmethod
    def _which(delta: Json, name: str, kind: ToolKind, progress: _Progress) -> _Call:
        """Return the call a delta belongs to, a new one when it belongs to none."""
        identity = delta.get("id")
        identity = identity if isinstance(identity, str) else ""
        key = delta.get("index")
        key = key if isinstance(key, int) and not isinstance(key, bool) and key >= 0 else None
        at_key = progress.by_key.get(key) if key is not None else None
        if identity:
            known = progress.by_id.get(identity)
            if known is not None:
                return known
            if at_key is not None and not at_key.id and not at_key.started:
                at_key.id = identity
                progress.by_id[identity] = at_key
                return at_key
        else:
            current = at_key
            if current is None and key is None and progress.calls:
                current = progress.calls[-1]
            if current is not None and _continues(current, name):
                return current
        call = _Call(len(progress.calls), identity, key, kind=kind)
        progress.calls.append(call)
        if key is not None:
            progress.by_key[key] = call
        if identity:
            progress.by_id[identity] = call
        return call

    @staticmethod
    def _announce(call: _Call, number: int, events: list[CanonicalEvent]) -> None:
        if call.started:
            return
        call.started = True
        events.append(ToolCallStart(call.index, call.id, call.name, call.kind, number))
        if call.held:
            events.append(ToolCallDelta(call.index, call.held, number))
            call.held = ""


def _continues(call: _Call, name: str) -> bool:
    """Tell whether a delta without an id, naming ``name``, goes on with ``call``."""
    if not name or not call.name:
        return True
    if name != call.name:
        return False
    # The same name again: a server that repeats it in every chunk, or a second call. It is a
    # second call once the first one's arguments are whole.
    return not (call.seen and reading.is_whole_json("".join(call.seen)))


def stream_error(error: object) -> StreamError:
    """Return the failure an upstream reported in a stream, in whichever shape."""
    if not isinstance(error, Mapping):
        return StreamError(None, str(error))
    inner = error.get("error")
    if isinstance(inner, Mapping):
        error = inner
    code, status = error.get("code"), error.get("status")
    if isinstance(code, int):  # several gateways put the HTTP status there
        code, status = None, code
    return StreamError(
        reading.optional(code),
        str(error.get("message") or ""),
        reading.optional(error.get("type")),
        status if isinstance(status, int) else None,
    )
