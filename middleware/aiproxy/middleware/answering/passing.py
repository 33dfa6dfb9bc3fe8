"""A provider's event stream that stays in its dialect.

The bytes are forwarded as they arrive while an observer reads a copy. Only the frame that may turn
out to be the last one is held: it carries ``x-aiproxy``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from aiproxy.middleware.auto.telling import Renamer
from aiproxy.middleware.dialects import canonical, sse
from aiproxy.middleware.dialects.canonical import Usage
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.dialects.observe import ERROR, FINISH, TERMINAL, observer
from aiproxy.middleware.intake.members import append, patch


@dataclass(frozen=True, slots=True)
class _Frames:
    """How the frames of a dialect are built. ``inside`` is the member whose object holds the model
    name (the frame itself when empty), ``model`` the name's own member. ``done``: a good stream
    ends with ``[DONE]``. ``failure`` names the event that reports a failure, ``last`` the one that
    ends every good stream, also where a provider leaves it out."""

    inside: str = ""
    model: str = "model"
    done: bool = True
    failure: str | None = None
    last: str | None = None


_FRAMES: Final[Mapping[str, _Frames]] = {
    "anthropic": _Frames("message", done=False, failure="error", last="message_stop"),
    "gemini": _Frames(model="modelVersion", done=False),
    "responses": _Frames("response"),
}
_PLAIN: Final = _Frames()
#: Dialects whose clients expect the error object of OpenAI in a frame of its own.
_OPENAI: Final = frozenset({"chat", "completions", "embeddings"})


def _writable(value: Any) -> bool:
    """Whether a value that was read can be written again: it may be nested too deeply."""
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


class PassThrough:
    """Same dialect in and out. ``model`` is the name the client is told."""

    def __init__(self, dialect: str, model: str, *, rename: Renamer | None = None) -> None:
        self._parser = sse.parser_for(dialect)
        self._observer = observer(dialect)
        self._dialect = dialect
        self._frames = _FRAMES.get(dialect, _PLAIN)
        self._model = model
        self._rename = rename
        self._swap: tuple[bytes, bytes, bytes] | None = None
        self._swapped: str | None = None
        self._pending: tuple[bytes, str | None, bytes] | None = None  # data, event, whole frame
        self._first: Mapping[str, Any] = {}
        self._sequence = -1
        self._last = b""
        self.begun = False
        self.closed = False
        self.error: Mapping[str, Any] | canonical.StreamError | None = None
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
                # Google's own client knows no comments and fails at one; a blank line it skips.
                out.append(b"\n" if self._dialect == "gemini" else event.raw)
                continue
            if event.is_done:
                self.closed = True
                break
            payload = sse.read_object(data)
            if payload is None:
                self.skipped += 1
                continue
            flags = self._observer.feed(payload, event.event)
            if flags & ERROR:
                self.error = self._observer.error
                break
            self.output_bytes += len(data)
            raw = self._told(payload, data, event)
            if self._pending is not None:
                out.append(self._pending[2])
                self._pending = None
            if flags & (FINISH | TERMINAL) or self._observer.finished:
                self._pending = (data if raw is event.raw else self._last, event.event, raw)
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
        frames = self._frames
        if frames.inside:
            holder = payload.get(frames.inside)
            model = holder.get(frames.model) if isinstance(holder, dict) else None
        else:
            model = payload.get(frames.model)
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
        frames = self._frames
        if self._swapped != model:
            name, member = orjson.dumps(model), orjson.dumps(frames.model) + b":"
            new = member + orjson.dumps(self._model)
            self._swap = (member + name, member + b" " + name, new)
            self._swapped = model
        assert self._swap is not None
        close, spaced, new = self._swap
        if close in data:
            return data.replace(close, new, 1)
        if spaced in data:
            return data.replace(spaced, new, 1)
        if frames.inside:
            holder = {**payload[frames.inside], frames.model: self._model}
            return orjson.dumps({**payload, frames.inside: holder})
        return orjson.dumps({**payload, frames.model: self._model})

    def drain(self) -> bytes:
        return b""

    def finish(self, extra: Mapping[str, Any]) -> bytes:
        assert self._pending is not None
        data, event, whole = self._pending
        last, held = self._frames.last, b""
        if last is not None and orjson.loads(data).get("type") != last:
            data, event, held = orjson.dumps({"type": last}), last, whole
        for name, value in extra.items():
            # The provider may be a router of this kind: its own account gives way to ours.
            taken = orjson.dumps(name) in data
            data = patch(data, {name: value}) if taken else append(data, name, value)
        end = sse.DONE_FRAME if self._frames.done else b""
        return held + sse.encode(data, event) + end

    def fail(self, error: Mapping[str, Any]) -> bytes:
        held = b"" if self._pending is None else self._pending[2]
        if self._dialect in _OPENAI:
            return held + sse.encode(orjson.dumps({"error": error}))
        if self._dialect != "responses":
            told = codec(self._dialect).encode_error(502, error)
            return held + sse.encode(orjson.dumps(told), self._frames.failure)
        number = self._sequence + 1
        response = self._first.get("response")
        begun = response if isinstance(response, dict) and _writable(response) else None
        failed = {
            **(begun or {"object": "response"}),
            "model": self._model,
            "status": "failed",
            "error": {"code": "server_error", "message": error["message"]},
        }
        frames = [
            {"type": "error", "sequence_number": number, "error": error},
            {"type": "response.failed", "sequence_number": number + 1, "response": failed},
        ]
        encoded = (sse.encode(orjson.dumps(frame), str(frame["type"])) for frame in frames)
        return b"".join(encoded) + sse.DONE_FRAME
