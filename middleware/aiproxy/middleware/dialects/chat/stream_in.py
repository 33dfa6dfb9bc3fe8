"""Streams in: ``chat.completion.chunk`` objects to canonical events."""

from collections.abc import Mapping
from dataclasses import dataclass
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
    StreamError,
    TextDelta,
    Usage,
    UsageEvent,
)
from aiproxy.middleware.dialects.chat.annotations import flat_annotation
from aiproxy.middleware.dialects.chat.calls_in import CallsIn
from aiproxy.middleware.dialects.chat.reply_in import stop_sequence
from aiproxy.middleware.dialects.chat.thoughts import DetailsIn
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT
from aiproxy.middleware.dialects.choices_in import ChoicesIn
from aiproxy.middleware.dialects.finish import finish_reason, is_failure
from aiproxy.middleware.dialects.usage import read_usage


@dataclass(slots=True)
class _Progress:
    """What is known of one choice of a stream."""

    calls: CallsIn
    native: str | None = None
    details: DetailsIn | None = None
    block: int = 0
    told: str | None = None  # the upstream's upstream's word for the ending
    stop: str | None = None


class StreamDecoder(ChoicesIn[_Progress]):
    """``chat.completion.chunk`` objects in, canonical events out.

    Finish reasons are held until ``finish``: a call may follow the stop in a chunk of its own.
    """

    __slots__ = ("_usage",)

    def __init__(self) -> None:
        super().__init__()
        self._usage: Usage | None = None

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> list[CanonicalEvent]:
        """Return the events of one chunk. Nothing follows a ``StreamError``."""
        if self._failed:
            return []
        error = payload.get("error")
        if error or event == "error":
            self._failed = True
            return [stream_error(error if error else payload)]
        events = self._begun(payload, "id", "model")
        usage = payload.get("usage")
        if usage is not None:
            self._usage = reading.merge_usage(self._usage, read_usage(usage))
        choices = payload.get("choices")
        if isinstance(choices, list):
            for position, choice in enumerate(choices):
                if isinstance(choice, (dict, Mapping)) and not self._failed:
                    self._choice(choice, position, events)
        return events

    def finish(self) -> list[CanonicalEvent]:
        """Return the closing events.

        Raises:
            StreamCut: a choice has no finish reason, or none ever began.
        """
        if not self._whole():
            return []
        events: list[CanonicalEvent] = []
        for number, progress in sorted(self._choices.items()):
            if progress.details is not None:
                _hand_over(progress, number, events)
            calls = progress.calls
            calls.announce(events)
            reason = finish_reason(progress.native, bool(calls.calls), calls.legacy) or "stop"
            if reason in ("tool_calls", "function_call"):
                events += calls.ended()
            native = progress.native if progress.native != reason else progress.told
            events.append(Finish(reason, number, native, progress.stop))
        if self._usage is not None:
            events.append(UsageEvent(self._usage))
        return events

    def _choice(self, choice: Json, position: int, events: list[CanonicalEvent]) -> None:
        number = choice.get("index")
        number = number if isinstance(number, int) and number >= 0 else position
        progress = self._choices.get(number)
        if progress is None:
            progress = self._choices[number] = _Progress(CallsIn(number))
        delta = choice.get("delta")
        if not isinstance(delta, (dict, Mapping)):
            delta = choice.get("message")  # a whole message in a stream: some gateways do that
        if isinstance(delta, (dict, Mapping)):
            self._delta(delta, choice, number, progress, events)
        native = choice.get("finish_reason")
        if isinstance(native, str) and native:
            if is_failure(native):
                self._failed = True
                events.append(StreamError(native, "the upstream ended the answer in an error"))
            elif progress.native is None or finish_reason(progress.native, False) == "stop":
                progress.native = native
                progress.told = reading.optional(choice.get("native_finish_reason"))
                progress.stop = stop_sequence(choice)

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
            events.append(ReasoningDelta(thought, number, item=progress.block, origin=DIALECT))
        content = delta.get("content")
        if "reasoning_details" in delta:
            progress.details = progress.details or DetailsIn()
            progress.details.add(delta["reasoning_details"])
        if progress.details is not None and (content or delta.get("tool_calls")):
            _hand_over(progress, number, events)
        if isinstance(content, list):
            content = "".join(
                p["text"]
                for p in content
                if isinstance(p, (dict, Mapping)) and type(p.get("text")) is str
            )
        if isinstance(content, str) and content:
            probabilities = choice.get("logprobs")
            tokens = None
            if isinstance(probabilities, (dict, Mapping)):
                tokens = reading.logprobs(probabilities.get("content"))
            events.append(TextDelta(content, number, tokens or ()))
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            events.append(RefusalDelta(refusal, number))
        audio = delta.get("audio")
        if isinstance(audio, (dict, Mapping)):
            events.append(
                AudioDelta(
                    reading.optional(audio.get("data")),
                    reading.optional(audio.get("transcript")),
                    reading.optional(audio.get("id")),
                    expires if isinstance(expires := audio.get("expires_at"), int) else None,
                    number,
                )
            )
        for annotation in reading.objects(delta.get("annotations")):
            if isinstance(annotation, (dict, Mapping)):
                events.append(AnnotationDelta(flat_annotation(annotation), number))
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            for call in calls:
                if isinstance(call, (dict, Mapping)):
                    progress.calls.take(call, events)
        legacy = delta.get("function_call")
        if isinstance(legacy, (dict, Mapping)):
            wrapped = {"index": 0, "function": legacy}
            progress.calls.take(wrapped, events, "legacy_function")


def _hand_over(progress: _Progress, number: int, events: list[CanonicalEvent]) -> None:
    """Tell the details so far: they end a block of thoughts."""
    details = progress.details.take() if progress.details is not None else None
    if details is not None:
        events.append(
            ReasoningDelta("", number, item=progress.block, encrypted=details, origin=DIALECT)
        )
        progress.block += 1


def stream_error(error: object) -> StreamError:
    """Return the failure an upstream reported in a stream, in whichever shape."""
    if not isinstance(error, (dict, Mapping)):
        return StreamError(None, str(error))
    inner = error.get("error")
    if isinstance(inner, (dict, Mapping)):
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
