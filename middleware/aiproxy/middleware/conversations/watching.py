"""What a client is sent, read along: the answer of a stream, once it is whole.

A turn is kept as the client got it, whoever served it and however often the provider changed in
between; so it is read from the frames on their way out and not from any provider's.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from aiproxy.middleware.conversations import shapes
from aiproxy.middleware.dialects import canonical, sse
from aiproxy.middleware.dialects.canonical import (
    AudioDelta,
    CanonicalReply,
    Choice,
    Envelope,
    Finish,
    FinishReason,
    OpaqueItem,
    Part,
    PartEnd,
    Reasoning,
    ReasoningDelta,
    RefusalDelta,
    StreamError,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
)
from aiproxy.middleware.dialects.codecs import Decoder, codec

_NOBODY: Final = Envelope(id="kept", created=0, model="kept")


class Folded:
    """The first choice of a stream, put together from its events."""

    def __init__(self) -> None:
        self._parts: list[Part | _Call | _Thought | list[str]] = []
        self._calls: dict[int, _Call] = {}
        self._thoughts: dict[int, _Thought] = {}
        self._open: list[str] | None = None
        self._refusing = False
        self._signatures: dict[int, tuple[str, str | None]] = {}
        self.finish: FinishReason | None = None

    def add(self, event: canonical.CanonicalEvent) -> None:
        """Take the next event."""
        if getattr(event, "choice", 0) != 0:
            return
        if isinstance(event, TextDelta):
            self._say(event.text, refusing=False)
            if event.signature is not None:
                self._signatures[len(self._parts) - 1] = (event.signature, event.origin)
                self._open = None
        elif isinstance(event, RefusalDelta):
            self._say(event.text, refusing=True)
        elif isinstance(event, PartEnd):
            self._open = None
        elif isinstance(event, ReasoningDelta):
            self._think(event)
        elif isinstance(event, ToolCallStart):
            self._open = None
            self._calls[event.index] = call = _Call(event)
            self._parts.append(call)
        elif isinstance(event, ToolCallDelta):
            if event.index in self._calls:
                self._calls[event.index].arguments.append(event.arguments)
        elif isinstance(event, OpaqueItem):
            self._open = None
            self._parts.append(canonical.Opaque(event.dialect, event.kind, event.value))
        elif isinstance(event, AudioDelta):
            self._hear(event)
        elif isinstance(event, Finish):
            self.finish = event.reason

    def parts(self) -> tuple[Part, ...]:
        """Return the parts of the choice."""
        found: list[Part] = []
        for place, part in enumerate(self._parts):
            if isinstance(part, _Call | _Thought):
                found.append(part.part())
            elif isinstance(part, list):
                kind, text = part[0], "".join(part[1:])
                if kind == "refusal":
                    found.append(canonical.Refusal(text))
                    continue
                signature, origin = self._signatures.get(place, (None, None))
                found.append(canonical.Text(text, signature=signature, origin=origin))
            else:
                found.append(part)
        return tuple(found)

    def _say(self, text: str, *, refusing: bool) -> None:
        if self._open is None or self._refusing is not refusing:
            self._open = ["refusal" if refusing else "text"]
            self._refusing = refusing
            self._parts.append(self._open)
        self._open.append(text)

    def _think(self, event: ReasoningDelta) -> None:
        self._open = None
        thought = self._thoughts.get(event.item)
        if thought is None:
            thought = self._thoughts[event.item] = _Thought()
            self._parts.append(thought)
        thought.add(event)

    def _hear(self, event: AudioDelta) -> None:
        last = self._parts[-1] if self._parts else None
        if not isinstance(last, canonical.Audio):
            last = canonical.Audio()
            self._parts.append(last)
        self._parts[-1] = canonical.Audio(
            data=(last.data or "") + (event.data or "") or None,
            id=event.id or last.id,
            transcript=(last.transcript or "") + (event.transcript or "") or None,
        )


class _Call:
    def __init__(self, start: ToolCallStart) -> None:
        self._start = start
        self.arguments: list[str] = []

    def part(self) -> ToolCall:
        start = self._start
        return ToolCall(
            start.id,
            start.name,
            "".join(self.arguments),
            start.kind,
            signature=start.signature,
            origin=start.origin,
        )


@dataclass(slots=True)
class _Thought:
    text: list[str] = field(default_factory=list)
    summary: dict[int, list[str]] = field(default_factory=dict)
    signature: str | None = None
    encrypted: str | None = None
    origin: str | None = None

    def add(self, event: ReasoningDelta) -> None:
        if event.kind == "summary" and event.text:
            self.summary.setdefault(event.part, []).append(event.text)
        elif event.kind == "text":
            self.text.append(event.text)
        self.signature = event.signature or self.signature
        self.encrypted = event.encrypted or self.encrypted
        self.origin = event.origin or self.origin

    def part(self) -> Reasoning:
        return Reasoning(
            text="".join(self.text),
            summary=tuple("".join(pieces) for _, pieces in sorted(self.summary.items())),
            signature=self.signature,
            encrypted=self.encrypted,
            origin=self.origin,
        )


class Watcher:
    """Reads the stream of one client dialect. ``whole``: its answer is complete; ``lost``: it was
    not an answer, or could not be read."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._parser = sse.parser_for(endpoint)
        self._decoder: Decoder = codec(endpoint).StreamDecoder()
        self._folded = Folded()
        self._response: dict[str, Any] | None = None
        self.lost = False

    @property
    def whole(self) -> bool:
        return not self.lost and bool(self._decoder.complete)

    def feed(self, data: bytes) -> None:
        """Take bytes as the client gets them."""
        if self.lost:
            return
        try:
            for event in self._parser.feed(data):
                self._take(event)
        except (ValueError, TypeError, RecursionError):
            self.lost = True

    def _take(self, event: sse.SSEEvent) -> None:
        if event.data is None or event.is_done:
            return
        payload = orjson.loads(event.data)
        if not isinstance(payload, dict):
            return
        if payload.get("type") in ("response.completed", "response.incomplete"):
            self._response = payload.get("response")
        for found in self._decoder.feed(payload, event.event):
            if isinstance(found, StreamError):
                self.lost = True
                return
            self._folded.add(found)

    def answer(self) -> list[shapes.Message]:
        """Return the whole answer as its client would send it back; empty where it could not.

        Once: the decoder is finished by it.
        """
        try:
            if self._endpoint == "responses" and self._response is not None:
                return shapes.answer_of("responses", self._response)
            for event in self._decoder.finish():
                self._folded.add(event)
            parts = self._folded.parts()
            source = "responses" if self._endpoint == "draft" else self._endpoint
            reply = CanonicalReply((Choice(parts, self._folded.finish or "stop"),), source)
            dialect = shapes.KEPT_AS[self._endpoint]
            document = codec(dialect).encode_reply(reply, _NOBODY, [])
        except (ValueError, TypeError, RecursionError):
            return []
        return shapes.answer_of(dialect, document)
