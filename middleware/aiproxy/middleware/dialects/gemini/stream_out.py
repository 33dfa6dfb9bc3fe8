"""Streams out: canonical events to ``GenerateContentResponse`` chunks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

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
    Reasoning,
    ReasoningDelta,
    RefusalDelta,
    StreamCut,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
    UsageEvent,
)
from aiproxy.middleware.dialects.gemini.citations import Told, grounding_metadata
from aiproxy.middleware.dialects.gemini.errors import encode_error
from aiproxy.middleware.dialects.gemini.logprobs import logprobs_result
from aiproxy.middleware.dialects.gemini.losses import (
    ANNOTATIONS,
    BAD_CALL,
    CUT_CALL,
    FREE_CALL,
    event_losses,
)
from aiproxy.middleware.dialects.gemini.reply_out import arguments_object
from aiproxy.middleware.dialects.gemini.sealing import signature_of
from aiproxy.middleware.dialects.gemini.usage import usage_metadata
from aiproxy.middleware.dialects.gemini.vocabulary import (
    DIALECT,
    FOREIGN_SIGNATURE,
    their_reason,
)
from aiproxy.middleware.dialects.losses import note

#: Characters that are held at once: a call is told whole, a seal is of a whole thought.
MAX_HELD: Final = 8 << 20


@dataclass(slots=True)
class _Call:
    start: ToolCallStart
    pieces: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Told:
    """What was told of one candidate."""

    told: Told = field(default_factory=Told)
    cited: list[Json] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    called: bool = False
    bad: bool = False
    thought: tuple[int, str, int] | None = None
    thoughts: list[str] = field(default_factory=list)
    reason: FinishReason | None = None
    native: str | None = None


class StreamEncoder:
    """Canonical events in, data-only frames out.

    Text leaves as it comes. A call is held until its arguments are whole, and at most
    ``MAX_HELD`` characters of them. Finish reasons, citations and usage are in the last frame.
    ``losses`` gathers what the chunks cannot show. ``source``: the dialect of the upstream, for
    opaque data whose event does not say its origin; without either it is a loss.
    """

    __slots__ = ("_choices", "_envelope", "_held", "_tail", "_usage", "losses", "source")

    def __init__(self, envelope: Envelope, source: str | None = None) -> None:
        self.losses: list[Loss] = []
        self.source = source
        self._envelope = envelope
        self._choices: dict[int, _Told] = {}
        self._held = 0
        self._usage: Usage | None = None
        tail = {"modelVersion": envelope.model, "responseId": envelope.id}
        self._tail = b"," + orjson.dumps(tail)[1:] + b"\n\n"

    def encode(self, event: CanonicalEvent) -> bytes:
        """Return the frames of one event, possibly none.

        Raises:
            StreamCut: more than ``MAX_HELD`` characters of arguments or of a thought are held.
        """
        match event:
            case TextDelta(text, choice):
                told = self._choice(choice)
                told.told.add(text)
                if told.thoughts:
                    self._forget(told)
                part: dict[str, Any] = {"text": text}
                if event.signature is not None:
                    origin = self._origin(event)
                    if origin is not None:
                        made = Text("", signature=event.signature)
                        part["thoughtSignature"] = signature_of(made, origin)
                if not text and len(part) == 1 and not event.logprobs:
                    return b""
                tokens = logprobs_result(event.logprobs) if event.logprobs else None
                return self._frame(choice, [part], tokens)
            case ReasoningDelta(_, choice):
                return self._thought(event)
            case RefusalDelta(text, choice):
                note(self.losses, event_losses(event))
                self._choice(choice).told.add(text)
                return self._frame(choice, [{"text": text}]) if text else b""
            case ToolCallStart():
                if event.kind == "custom":
                    note(self.losses, [FREE_CALL])
                self._choice(event.choice).calls[event.index] = _Call(event)
            case ToolCallDelta(index, arguments, choice):
                self._more(index, arguments, choice)
            case ToolCallEnd(index, choice):
                return self._call(index, choice)
            case AnnotationDelta(annotation, choice):
                self._choice(choice).cited.append(annotation)
            case AudioDelta():
                return self._audio(event)
            case OpaqueItem():
                note(self.losses, event_losses(event))
                if event.dialect == DIALECT:
                    return self._frame(event.choice, [dict(event.value)])
            case Finish(reason, choice, native):
                note(self.losses, event_losses(event))
                told = self._choice(choice)
                told.reason, told.native = reason, native
                return b"".join(self._call(i, choice) for i in list(told.calls))
            case UsageEvent(usage):
                note(self.losses, event_losses(event))
                self._usage = usage
            case _:
                pass
        return b""

    def finish(self, extra: Mapping[str, Any] | None = None) -> bytes:
        """Return the last frame: finish reasons, citations, usage and ``extra``.

        Raises:
            StreamCut: no ``Finish`` was encoded; an ending is never made up.
        """
        if not any(told.reason for told in self._choices.values()):
            raise StreamCut()
        candidates = [
            self._ended(number, told)
            for number, told in sorted(self._choices.items())
            if told.reason is not None
        ]
        body: dict[str, Any] = {"candidates": candidates}
        if self._usage is not None:
            body["usageMetadata"] = usage_metadata(self._usage)
        if extra:
            body.update(extra)
        return b"data: " + orjson.dumps(body)[:-1] + self._tail

    def fail(self, error: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> bytes:
        """Return the error frame that ends a broken stream. ``error`` is an OpenAI error, its
        HTTP status in ``status`` where it has one (502 where not)."""
        status = error.get("status")
        known = isinstance(status, int) and not isinstance(status, bool)
        body = encode_error(status if known and status is not None else 502, error)
        return b"data: " + orjson.dumps({**body, **(extra or {})}) + b"\n\n"

    def _choice(self, number: int) -> _Told:
        told = self._choices.get(number)
        if told is None:
            told = self._choices[number] = _Told()
        return told

    def _frame(
        self, choice: int, parts: list[dict[str, Any]], tokens: dict[str, Any] | None = None
    ) -> bytes:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": choice}
        if tokens is not None:
            candidate["logprobsResult"] = tokens
        return b'data: {"candidates":' + orjson.dumps([candidate]) + self._tail

    def _origin(self, event: TextDelta | ReasoningDelta | ToolCallStart) -> str | None:
        """Return whose opaque data an event has; that of nobody known is lost."""
        origin = event.origin or self.source
        if origin is None:
            note(self.losses, event_losses(event))
        return origin

    def _thought(self, event: ReasoningDelta) -> bytes:
        told = self._choice(event.choice)
        here = (event.item, event.kind, event.part)
        text = event.text
        if told.thought is not None and told.thought[0] != event.item:
            self._forget(told)
        elif text and told.thoughts and told.thought != here:
            text = "\n\n" + text
        told.thought = here
        if text:
            self._hold(len(text))
            told.thoughts.append(text)
        part: dict[str, Any] = {"text": text, "thought": True}
        if event.signature is not None or event.encrypted is not None:
            origin = self._origin(event)
            if origin is not None:
                thought = Reasoning("", signature=event.signature, encrypted=event.encrypted)
                signature = signature_of(thought, origin, "".join(told.thoughts))
                if signature is not None:
                    part["thoughtSignature"] = signature
            self._forget(told)
        return self._frame(event.choice, [part]) if text or len(part) > 2 else b""

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > MAX_HELD:
            raise StreamCut("more is held than may be")

    def _forget(self, told: _Told) -> None:
        self._held -= sum(map(len, told.thoughts))
        told.thoughts.clear()

    def _more(self, index: int, arguments: str, choice: int) -> None:
        call = self._choice(choice).calls.get(index)
        if call is None:
            return
        self._hold(len(arguments))
        call.pieces.append(arguments)

    def _call(self, index: int, choice: int) -> bytes:
        """Return the frame of a call whose arguments are whole."""
        told = self._choice(choice)
        call = told.calls.pop(index, None)
        if call is None:
            return b""
        written = "".join(call.pieces)
        self._held -= len(written)
        arguments = arguments_object(written, call.start.kind == "custom")
        if arguments is None:
            cut = told.reason == "length"
            note(self.losses, [CUT_CALL if cut else BAD_CALL])
            told.bad = told.bad or not cut
            return b""
        identity = call.start.id or self._envelope.call_id(index, choice)
        part: dict[str, Any] = {
            "functionCall": {"id": identity, "name": call.start.name, "args": arguments}
        }
        origin = None if call.start.signature is None else self._origin(call.start)
        if origin is not None:
            made = ToolCall(identity, call.start.name, "", signature=call.start.signature)
            part["thoughtSignature"] = signature_of(made, origin, identity=identity)
        elif not told.called:
            part["thoughtSignature"] = FOREIGN_SIGNATURE
        told.called = True
        return self._frame(choice, [part])

    def _audio(self, event: AudioDelta) -> bytes:
        if event.data:
            # Streamed sound of OpenAI's models is raw.
            inner = {"mimeType": "audio/pcm;rate=24000", "data": event.data}
            return self._frame(event.choice, [{"inlineData": inner}])
        if event.transcript:
            return self._frame(event.choice, [{"text": event.transcript}])
        return b""

    def _ended(self, number: int, told: _Told) -> dict[str, Any]:
        native = "MALFORMED_FUNCTION_CALL" if told.bad else told.native
        candidate: dict[str, Any] = {
            "content": {"role": "model", "parts": []},
            "finishReason": their_reason(told.reason or "stop", native),
            "index": number,
        }
        if told.cited:
            grounding, whole = grounding_metadata(told.cited, told.told)
            if grounding is not None:
                candidate["groundingMetadata"] = grounding
            if not whole:
                note(self.losses, [ANNOTATIONS])
        return candidate
