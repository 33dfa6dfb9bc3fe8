"""A provider's event stream on its way to the client.

``PassThrough`` forwards the bytes of the client's own dialect as they arrive while an observer
reads a copy; ``Translation`` decodes one dialect and encodes another. Both hold nothing but the
frame that may turn out to be the last one, which carries ``x-aiproxy``.
"""

from collections.abc import Iterator, Mapping, Sequence
from re import compile as compile_pattern
from re import escape
from typing import Any, Final, Protocol

import orjson

from aiproxy.middleware.dialects import canonical, chat, draft, responses, sse
from aiproxy.middleware.dialects.canonical import Envelope, Usage
from aiproxy.middleware.dialects.observe import ERROR, FINISH, TERMINAL, observer
from aiproxy.middleware.members import append, patch

_DECODERS: Final[Mapping[str, Any]] = {
    "chat": chat.StreamDecoder,
    "responses": responses.StreamDecoder,
}
_ENCODERS: Final[Mapping[str, Any]] = {
    "chat": chat.StreamEncoder,
    "responses": responses.StreamEncoder,
    "draft": draft.StreamEncoder,
}
_CODECS: Final[Mapping[str, Any]] = {"chat": chat, "responses": responses}
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
    ``skipped``: events that could not be parsed.
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
    error: Mapping[str, Any] | None
    output_bytes: int
    skipped: int

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


class Renamer:
    """Gives tools their generic names back: ``"name":"browser"`` to ``"name":"web_scraper"``.

    An unescaped ``"name":"x"`` cannot occur inside a JSON string, so only members match.
    """

    def __init__(self, renames: tuple[tuple[str, str], ...]) -> None:
        self._rules = [
            (
                compile_pattern(rb'"name"\s*:\s*' + escape(orjson.dumps(old))),
                (b'"name":' + orjson.dumps(new)).replace(b"\\", b"\\\\"),
            )
            for old, new in renames
        ]

    def __call__(self, data: bytes) -> bytes:
        for pattern, name in self._rules:
            data = pattern.sub(name, data)
        return data


class PassThrough:
    """Same dialect in and out. ``model`` is the name the client is told."""

    def __init__(self, dialect: str, model: str, *, rename: Renamer | None = None) -> None:
        self._parser = sse.SSEParser()
        self._observer = observer(dialect)
        self._dialect = dialect
        self._model = model
        self._rename = rename
        self._swap: tuple[bytes, bytes, bytes] | None = None
        self._swapped: str | None = None
        self._pending: tuple[bytes, str | None] | None = None
        self._first: Mapping[str, Any] = {}
        self._sequence = -1
        self._last = b""
        self.closed = False
        self.error: Mapping[str, Any] | None = None
        self.output_bytes = 0
        self.skipped = 0

    @property
    def losses(self) -> Sequence[canonical.Loss]:
        return ()

    @property
    def content_seen(self) -> bool:
        return self._observer.content_seen

    @property
    def finished(self) -> bool:
        return self._observer.finished

    @property
    def usage(self) -> Usage | None:
        return self._observer.usage

    def feed(self, data: bytes) -> bytes:
        return self._forward(self._parser.feed(data))

    def end(self) -> bytes:
        return self._forward(self._parser.finish())

    def _forward(self, events: list[sse.SSEEvent]) -> bytes:
        out: list[bytes] = []
        for event in events:
            data = event.data
            if data is None:
                out.append(event.raw)
                continue
            if event.is_done:
                self.closed = True
                break
            try:
                payload = orjson.loads(data)
            except orjson.JSONDecodeError:
                self.skipped += 1
                continue
            if not isinstance(payload, dict):
                self.skipped += 1
                continue
            flags = self._observer.feed(payload, event.event)
            if flags & ERROR:
                self.error = self._observer.error
                break
            self.output_bytes += len(data)
            raw = self._told(payload, data, event)
            if self._pending is not None:
                out.append(sse.encode(*self._pending))
                self._pending = None
            if flags & (FINISH | TERMINAL) or self._observer.finished:
                self._pending = (data if raw is event.raw else self._last, event.event)
                if flags & TERMINAL:
                    self.closed = True
            else:
                out.append(raw)
        return b"".join(out)

    def _told(self, payload: Mapping[str, Any], data: bytes, event: sse.SSEEvent) -> bytes:
        """The frame with our model name; ``event.raw`` itself when nothing had to change."""
        if not self._first:
            self._first = payload
        if self._dialect == "responses":
            number = payload.get("sequence_number")
            self._sequence = number if isinstance(number, int) else self._sequence + 1
            response = payload.get("response")
            model = response.get("model") if isinstance(response, dict) else None
        else:
            model = payload.get("model")
        changed = data
        if isinstance(model, str) and model != self._model:
            changed = self._swap_model(payload, data, model)
        if self._rename is not None:
            changed = self._rename(changed)
        self._last = changed
        return event.raw if changed is data else sse.encode(changed, event.event)

    def _swap_model(self, payload: Mapping[str, Any], data: bytes, model: str) -> bytes:
        """Replace one ``"model":"x"`` member. Unescaped quotes cannot occur inside a JSON string,
        so the first match is a member; odd spacing falls back to re-serialising."""
        if self._swapped != model:
            name = orjson.dumps(model)
            new = b'"model":' + orjson.dumps(self._model)
            self._swap = (b'"model":' + name, b'"model": ' + name, new)
            self._swapped = model
        assert self._swap is not None
        close, spaced, new = self._swap
        if close in data:
            return data.replace(close, new, 1)
        if spaced in data:
            return data.replace(spaced, new, 1)
        if self._dialect == "responses":
            return orjson.dumps(
                {**payload, "response": {**payload["response"], "model": self._model}}
            )
        return orjson.dumps({**payload, "model": self._model})

    def drain(self) -> bytes:
        return b""

    def finish(self, extra: Mapping[str, Any]) -> bytes:
        assert self._pending is not None
        data, event = self._pending
        for name, value in extra.items():
            # The provider may be a router of this kind: its own account gives way to ours.
            taken = orjson.dumps(name) in data
            data = patch(data, {name: value}) if taken else append(data, name, value)
        return sse.encode(data, event) + b"data: [DONE]\n\n"

    def fail(self, error: Mapping[str, Any]) -> bytes:
        held = b"" if self._pending is None else sse.encode(*self._pending)
        if self._dialect != "responses":
            return held + sse.encode(orjson.dumps({"error": error}))
        number = self._sequence + 1
        response = self._first.get("response")
        failed = {
            **(response if isinstance(response, dict) else {"object": "response"}),
            "model": self._model,
            "status": "failed",
            "error": {"code": "server_error", "message": error["message"]},
        }
        frames = [
            {"type": "error", "sequence_number": number, "error": error},
            {"type": "response.failed", "sequence_number": number + 1, "response": failed},
        ]
        encoded = (sse.encode(orjson.dumps(frame), str(frame["type"])) for frame in frames)
        return b"".join(encoded) + b"data: [DONE]\n\n"


class Translation:
    """From the provider's dialect to the client's, event by event."""

    def __init__(
        self, upstream: str, client: str, envelope: Envelope, *, rename: Renamer | None = None
    ) -> None:
        self._parser = sse.SSEParser()
        self._decoder = _DECODERS[upstream]()
        self._encoder = _ENCODERS[client](envelope)
        self._rename = rename
        self.content_seen = False
        self.usage: Usage | None = None
        self.closed = False
        self.error: Mapping[str, Any] | None = None
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
                break
            try:
                payload = orjson.loads(data)
            except orjson.JSONDecodeError:
                self.skipped += 1
                continue
            if not isinstance(payload, dict):
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
                self.error = {"code": event.code, "type": event.type, "message": event.message}
                break
            if isinstance(event, canonical.UsageEvent):
                self.usage = event.usage
            elif isinstance(event, _CONTENT):
                self.content_seen = True
            out.append(self._encoder.encode(event))
        encoded = b"".join(out)
        return self._rename(encoded) if self._rename is not None else encoded

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
        rename: Renamer | None = None,
    ) -> None:
        reply = _CODECS[upstream].decode_reply(body)
        super().__init__(upstream, client, envelope, rename=rename)
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
                yield from _call_told(part, calls, choice.index)
                calls += 1
            else:
                yield from _part_told(part, number, choice.index)
        yield canonical.Finish(choice.finish_reason, choice.index, choice.native_finish_reason)
    if reply.usage is not None:
        yield canonical.UsageEvent(reply.usage)


def _part_told(
    part: canonical.Part, number: int, choice: int
) -> Iterator[canonical.CanonicalEvent]:
    if isinstance(part, canonical.Text):
        yield canonical.TextDelta(part.text, choice, part.logprobs or ())
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
    elif isinstance(part, canonical.Opaque):
        yield canonical.OpaqueItem(part.dialect, part.kind, part.value, choice)
    elif isinstance(part, canonical.Audio):
        yield canonical.AudioDelta(part.data, part.transcript, part.id, None, choice)


def _call_told(
    call: canonical.ToolCall, index: int, choice: int
) -> Iterator[canonical.CanonicalEvent]:
    yield canonical.ToolCallStart(index, call.id, call.name, call.kind, choice)
    yield canonical.ToolCallDelta(index, call.arguments, choice)
    yield canonical.ToolCallEnd(index, choice)
