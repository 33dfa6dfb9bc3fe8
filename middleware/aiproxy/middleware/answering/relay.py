"""A provider's event stream on its way to the client, from one dialect to another.

``Translation`` decodes one dialect and encodes another, ``Document`` tells a whole reply as a
stream; what stays in its dialect is in ``passing``. Nothing is held but the frame that may turn out
to be the last one, which carries ``x-aiproxy``.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Protocol

from aiproxy.middleware.auto.telling import Teller
from aiproxy.middleware.dialects import canonical, sse
from aiproxy.middleware.dialects.canonical import Envelope, Usage
from aiproxy.middleware.dialects.codecs import codec, decode_reply, stream_decoder

_NO_KINDS: Final[Mapping[str, canonical.ToolKind]] = MappingProxyType({})
_CONTENT: Final = (
    canonical.TextDelta,
    canonical.RefusalDelta,
    canonical.ReasoningDelta,
    canonical.AudioDelta,
    canonical.ToolCallStart,
)


class Relay(Protocol):
    """One stream between a provider and the client.

    ``content_seen``: something a client would show was decoded (the commit point). ``finished``: a
    finish reason or terminal event was seen. ``closed``: the upstream said it is done, no need to
    read on. ``error``: the upstream reported a failure inside its stream; its text is not ours.
    ``skipped``: events that could not be parsed. ``begun``: the provider speaks, though nothing of
    it is for the client yet.
    """

    @property
    def content_seen(self) -> bool: ...
    @property
    def finished(self) -> bool: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def losses(self) -> Sequence[canonical.Loss]: ...

    closed: bool
    error: Mapping[str, Any] | canonical.StreamError | None
    output_bytes: int
    skipped: int
    begun: bool

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they arrived; return what the client gets now."""
        ...

    def end(self) -> bytes:
        """The upstream closed its stream."""
        ...

    def drain(self) -> bytes:
        """Once the answer is complete: what its decoder still held. ``usage`` is final after it."""
        ...

    def finish(self, extra: Mapping[str, Any]) -> bytes:
        """The frames that end a complete answer; ``extra`` joins the last JSON frame."""
        ...

    def fail(self, error: Mapping[str, Any]) -> bytes:
        """The frames that end a broken answer; ``error`` is the inner error object."""
        ...


class Translation:
    """From the provider's dialect to the client's, event by event; ``teller`` changes what the
    client is shown on the way. ``kinds``: see ``Outgoing``. With ``encoder`` the client's stream is
    written by that one, and ``envelope`` is of no use."""

    def __init__(
        self,
        upstream: str,
        client: str,
        envelope: Envelope | None,
        *,
        teller: Teller | None = None,
        kinds: Mapping[str, canonical.ToolKind] = _NO_KINDS,
        encoder: Any = None,
    ) -> None:
        self._parser = sse.parser_for(upstream)
        self._decoder = stream_decoder(upstream, kinds)
        if encoder is None:
            encoder = codec(client).StreamEncoder(envelope)
            if hasattr(encoder, "source"):
                encoder.source = upstream
        self._encoder = encoder
        self._teller = teller
        self.begun = False
        self.content_seen = False
        self.usage: Usage | None = None
        self.closed = False
        self.error: Mapping[str, Any] | canonical.StreamError | None = None
        self.output_bytes = 0
        self.skipped = 0

    @property
    def losses(self) -> Sequence[canonical.Loss]:
        """What the client's dialect could not show of the answer so far."""
        found: Sequence[canonical.Loss] = self._encoder.losses
        return found

    @property
    def finished(self) -> bool:
        return bool(self._decoder.complete)

    def feed(self, data: bytes) -> bytes:
        return self._translate(self._parser.feed(data))

    def end(self) -> bytes:
        return self._translate(self._parser.finish())

    def _translate(self, events: list[sse.SSEEvent]) -> bytes:
        out: list[bytes] = []
        for event in events:
            data = event.data
            if data is None:
                continue
            if event.is_done:
                self.closed = True
                done = getattr(self._decoder, "done", None)
                if done is not None:  # a dialect whose only end this may be
                    done()
                break
            payload = sse.read_object(data)
            if payload is None:
                self.skipped += 1
                continue
            self.output_bytes += len(data)
            out.append(self._encode(self._decoder.feed(payload, event.event)))
            if self.error is not None:
                break
        return b"".join(out)

    def _encode(self, events: list[canonical.CanonicalEvent]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if isinstance(event, canonical.StreamError):
                self.error = event
                break
            if isinstance(event, canonical.UsageEvent):
                self.usage = event.usage
                event = self._shown(event)
            elif isinstance(event, _CONTENT):
                self.content_seen = True
            if self._teller is None:
                out.append(self._encoder.encode(event))
            else:
                out += map(self._encoder.encode, self._teller.event(event))
        return b"".join(out)

    def _shown(self, event: canonical.UsageEvent) -> canonical.UsageEvent:
        """The usage that the client is told."""
        return event

    def drain(self) -> bytes:
        return self._encode(self._decoder.finish())

    def finish(self, extra: Mapping[str, Any]) -> bytes:
        return bytes(self._encoder.finish(extra))

    def fail(self, error: Mapping[str, Any]) -> bytes:
        return bytes(self._encoder.fail(error))


class Document(Translation):
    """A whole reply told as a stream. ``frames`` is all but its end.

    Raises ``MalformedReply`` for a document that cannot be read and ``KeyError`` for a dialect that
    has no canonical form.
    """

    def __init__(
        self,
        upstream: str,
        client: str,
        body: Mapping[str, Any],
        envelope: Envelope,
        *,
        teller: Teller | None = None,
        kinds: Mapping[str, canonical.ToolKind] = _NO_KINDS,
    ) -> None:
        reply = decode_reply(upstream, body, kinds)
        super().__init__(upstream, client, envelope)
        if teller is not None:
            reply = teller.reply(reply)
        self.frames = self._encode(list(_told(reply)))

    @property
    def finished(self) -> bool:
        return True

    def drain(self) -> bytes:
        return b""


def _told(reply: canonical.CanonicalReply) -> Iterator[canonical.CanonicalEvent]:
    """The events of a stream that would have given this reply."""
    yield canonical.StreamStart(reply.id, reply.model)
    for choice in reply.choices:
        calls = 0
        for number, part in enumerate(choice.parts):
            if isinstance(part, canonical.ToolCall):
                yield from _call_told(part, calls, choice.index, part.origin or reply.source)
                calls += 1
            else:
                yield from _part_told(part, number, choice.index, reply.source)
        native, stop = choice.native_finish_reason, choice.stop_sequence
        yield canonical.Finish(choice.finish_reason, choice.index, native, stop)
    if reply.usage is not None:
        yield canonical.UsageEvent(reply.usage)


def _part_told(
    part: canonical.Part, number: int, choice: int, source: str
) -> Iterator[canonical.CanonicalEvent]:
    if isinstance(part, canonical.Text):
        origin = part.origin or source
        yield canonical.TextDelta(part.text, choice, part.logprobs or (), part.signature, origin)
        for annotation in part.annotations:
            yield canonical.AnnotationDelta(annotation, choice)
        yield canonical.PartEnd(choice)
    elif isinstance(part, canonical.Refusal):
        yield canonical.RefusalDelta(part.text, choice)
        yield canonical.PartEnd(choice)
    elif isinstance(part, canonical.Reasoning):
        for place, summary in enumerate(part.summary):
            yield canonical.ReasoningDelta(summary, choice, "summary", number, place)
        if part.text:
            yield canonical.ReasoningDelta(part.text, choice, "text", number)
        if part.signature is not None or part.encrypted is not None:
            origin = part.origin or source
            yield canonical.ReasoningDelta(
                "", choice, "text", number, 0, part.signature, part.encrypted, origin
            )
    elif isinstance(part, canonical.Image | canonical.File):
        yield _medium(part, choice, source)
    elif isinstance(part, canonical.Opaque):
        yield canonical.OpaqueItem(part.dialect, part.kind, part.value, choice)
    elif isinstance(part, canonical.Audio):
        yield canonical.AudioDelta(part.data, part.transcript, part.id, None, choice)


def _medium(
    part: canonical.Image | canonical.File, choice: int, source: str
) -> canonical.OpaqueItem:
    """An image or a file as the one dialect that streams them has it; the others declare it."""
    from aiproxy.middleware.dialects.gemini.reply_out import said_part

    return canonical.OpaqueItem(
        "gemini", type(part).__name__.lower(), said_part(part, source) or {}, choice
    )


def _call_told(
    call: canonical.ToolCall, index: int, choice: int, origin: str
) -> Iterator[canonical.CanonicalEvent]:
    yield canonical.ToolCallStart(
        index, call.id, call.name, call.kind, choice, call.signature, origin
    )
    yield canonical.ToolCallDelta(index, call.arguments, choice)
    yield canonical.ToolCallEnd(index, choice)
