"""Streams in: ``GenerateContentResponse`` chunks to canonical events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
    Audio,
    AudioDelta,
    CanonicalEvent,
    Finish,
    Json,
    MalformedRequest,
    Opaque,
    OpaqueItem,
    Part,
    Reasoning,
    ReasoningDelta,
    StreamError,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageEvent,
)
from aiproxy.middleware.dialects.choices_in import ChoicesIn
from aiproxy.middleware.dialects.gemini.citations import Told, annotations
from aiproxy.middleware.dialects.gemini.errors import stream_error
from aiproxy.middleware.dialects.gemini.logprobs import tokens_of
from aiproxy.middleware.dialects.gemini.parts_in import decode_part
from aiproxy.middleware.dialects.gemini.reply_in import blocked, content_parts
from aiproxy.middleware.dialects.gemini.usage import COUNTS, usage_of
from aiproxy.middleware.dialects.gemini.vocabulary import (
    DIALECT,
    broke_off,
    native_reason,
    told_reason,
)


@dataclass(slots=True)
class _Progress:
    """What is known of one candidate of a stream."""

    native: str | None = None
    said: bool = False
    calls: int = 0
    thoughts: int = -1
    thinking: bool = False
    told: Told = field(default_factory=Told)
    cited: int = 0


class StreamDecoder(ChoicesIn[_Progress]):
    """``GenerateContentResponse`` chunks in, canonical events out.

    Function calls arrive whole and are told whole. Finish reasons are held until ``finish``: the
    call and the stop may come in chunks of their own, in either order. Usage is cumulative.
    """

    __slots__ = ("_usage",)

    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, Any] = {}

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> list[CanonicalEvent]:
        """Return the events of one chunk. Nothing follows a ``StreamError``."""
        if self._failed:
            return []
        error = payload.get("error")
        if error or event == "error":
            self._failed = True
            return [stream_error(error or payload)]
        events = self._begun(payload, "responseId", "modelVersion")
        usage = payload.get("usageMetadata")
        if isinstance(usage, Mapping):
            # A later report may leave out what an earlier one said.
            for name in COUNTS & usage.keys():
                self._usage[name] = usage[name]
        candidates = payload.get("candidates")
        if isinstance(candidates, list):
            for position, candidate in enumerate(candidates):
                if isinstance(candidate, Mapping) and not self._failed:
                    self._candidate(candidate, position, events)
        reason = blocked(payload)
        if reason is not None:
            progress = self._choices.setdefault(0, _Progress())
            progress.native = progress.native or f"blocked:{reason}"
        return events

    def finish(self) -> list[CanonicalEvent]:
        """Return the closing events.

        Raises:
            StreamCut: a candidate has no finish reason, or none ever began.
        """
        if not self._whole():
            return []
        events: list[CanonicalEvent] = []
        for number, progress in sorted(self._choices.items()):
            native = progress.native or ""
            if native.startswith("blocked:"):
                events.append(Finish("content_filter", number, native.removeprefix("blocked:")))
                continue
            reason = told_reason(native, progress.calls > 0)
            events.append(Finish(reason, number, native if native.lower() != reason else None))
        usage = usage_of(self._usage)
        if usage is not None:
            events.append(UsageEvent(usage))
        return events

    def _candidate(self, candidate: Json, position: int, events: list[CanonicalEvent]) -> None:
        number = candidate.get("index")
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            number = position
        progress = self._choices.get(number)
        if progress is None:
            progress = self._choices[number] = _Progress()
        tokens = None
        if "logprobsResult" in candidate:
            tokens = tokens_of(candidate["logprobsResult"])
        for given in content_parts(candidate):
            if not isinstance(given, Mapping) or not given:
                continue
            try:
                part = decode_part(given)
            except MalformedRequest:
                continue  # one part nobody can read does not break an answer
            progress.said = True
            if isinstance(part, Text) and tokens:
                events.append(_text(part, number, progress, tokens))
                tokens = None
            else:
                _told(part, given, number, progress, events)
        if tokens:
            events.append(TextDelta("", number, tokens))
        if "groundingMetadata" in candidate or "citationMetadata" in candidate:
            # Reports repeat what they said before.
            found = annotations(candidate, progress.told)
            events += [AnnotationDelta(a, number) for a in found[progress.cited :]]
            progress.cited = max(progress.cited, len(found))
        native = native_reason(candidate.get("finishReason"))
        if native is None:
            return
        if broke_off(native, progress.said):
            self._failed = True
            events.append(StreamError(native, "the upstream ended the answer in an error"))
        elif progress.native is None or told_reason(progress.native, False) == "stop":
            progress.native = native


def _text(part: Text, number: int, progress: _Progress, tokens: tuple[Json, ...]) -> TextDelta:
    progress.thinking = False
    progress.told.add(part.text)
    origin = None if part.signature is None else DIALECT
    return TextDelta(part.text, number, tokens, part.signature, origin)


def _told(
    part: Part, given: Json, number: int, progress: _Progress, events: list[CanonicalEvent]
) -> None:
    if isinstance(part, Text):
        if part.text or part.signature is not None:
            events.append(_text(part, number, progress, ()))
        return
    if isinstance(part, Reasoning):
        # What has a signature is a thought of its own.
        if not progress.thinking or part.signature is not None:
            progress.thinking = True
            progress.thoughts += 1
        events.append(
            ReasoningDelta(
                part.text,
                number,
                item=progress.thoughts,
                signature=part.signature,
                origin=DIALECT,
            )
        )
        if part.signature is not None:
            progress.thinking = False
        return
    progress.thinking = False
    if isinstance(part, ToolCall):
        index = progress.calls
        progress.calls += 1
        events.append(
            ToolCallStart(
                index,
                part.id,
                part.name,
                choice=number,
                signature=part.signature,
                origin=None if part.signature is None else DIALECT,
            )
        )
        events.append(ToolCallDelta(index, part.arguments, number))
        events.append(ToolCallEnd(index, number))
    elif isinstance(part, Audio):
        events.append(AudioDelta(part.data, choice=number))
    elif isinstance(part, Opaque):
        events.append(OpaqueItem(DIALECT, part.kind, part.value, number))
    else:  # an image or a file: no event exists for its bytes
        events.append(OpaqueItem(DIALECT, type(part).__name__.lower(), given, number))
