"""The wrapped WSGI application as a provider.

It runs in the thread of the client's request, as its own database connections and thread-local
state expect. So nothing can interrupt it: time limits are looked at between the parts that it
yields, and a soft read of its stream waits for the next part.
"""

import io
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes

from ..effects import Answer, Call, Failure, Headers
from .bodies import BodyTooLarge, opens_stream
from .progress import UNFINISHED, Progress

Environ: TypeAlias = dict[str, Any]
App: TypeAlias = Callable[..., Iterable[bytes]]

_log = logging.getLogger(__name__)

#: Describe the client's request line or its socket, or cache its parsed form.
_CLIENTS_OWN: Final = frozenset(
    {
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "RAW_URI",
        "REQUEST_URI",
        "gunicorn.socket",
        "werkzeug.request",
        "werkzeug.socket",
    }
)


class WsgiAppTransport:
    """Performs calls of transport ``app`` for one client request; ``environ`` is the client's."""

    def __init__(self, app: App, environ: Environ) -> None:
        self._app = app
        self._environ = environ

    def call(self, call: Call) -> Answer | Failure:
        """Ask the application once; ``Call.target`` is a path, percent-encoded as on the wire."""
        progress = Progress(call, time.monotonic())
        progress.phase = "reading"
        run = _Run(progress)
        outcome: Answer | Failure = UNFINISHED
        try:
            outcome = _answer(run, self._app, _environ(self._environ, call), call)
        finally:
            if not isinstance(outcome, Answer) or outcome.stream is None:
                run.close()
        return outcome


def _answer(run: "_Run", app: App, environ: Environ, call: Call) -> Answer | Failure:
    run.begin(app, environ)
    first = run.take()
    if isinstance(first, Failure):
        return first
    if run.head is None:
        return Failure("app_error", "the application did not call start_response")
    status, headers = run.head
    if opens_stream(call, status, headers):
        return Answer(status, headers, stream=_AppStream(run, first))
    try:
        body = _whole(run, first, call.max_body_bytes)
    except BodyTooLarge:
        return Failure("too_large", f"the body is above {call.max_body_bytes} bytes")
    return body if isinstance(body, Failure) else Answer(status, headers, body)


def _whole(run: "_Run", data: bytes | Failure, limit: int) -> bytes | Failure:
    blocks: list[bytes] = []
    size = 0
    while data:
        if isinstance(data, Failure):
            return data
        blocks.append(data)
        size += len(data)
        if size > limit:
            raise BodyTooLarge
        data = run.take()
    return b"".join(blocks)


class _AppStream:
    """An event stream of the application; implements ``sync.SyncStream``."""

    __slots__ = ("_first", "_outcome", "_run")

    def __init__(self, run: "_Run", first: bytes) -> None:
        self._run = run
        self._first: bytes | None = first
        self._outcome: bytes | Failure | None = None

    def read_any(self) -> bytes | Failure:
        """Return the next part that the application yields, ``b""`` at the end."""
        return self.read(None, False)

    def read(self, timeout_s: float | None, soft: bool) -> bytes | Failure:
        """Return the next part; the application cannot be interrupted, so no limit holds."""
        if self._outcome is not None:
            return self._outcome
        if self._first is not None:
            data: bytes | Failure = self._first
            self._first = None
        else:
            data = self._run.take()
        if not data or isinstance(data, Failure):
            self._outcome = data
            self._run.close()
        return data

    def close(self) -> None:
        if self._outcome is None:
            self._outcome = Failure("reset", "the stream was closed here")
            self._run.close()


class _Run:
    """One run of the application: its head, the parts it gave and its ``close``."""

    __slots__ = ("_iterator", "_progress", "_result", "_started", "_written", "head")

    def __init__(self, progress: Progress) -> None:
        self.head: tuple[int, Headers] | None = None
        self._progress = progress
        self._result: Iterable[bytes] | None = None
        self._iterator: Iterator[bytes] | None = None
        self._written: list[bytes] = []
        self._started = False  # the first part was handed on: the head stands

    def begin(self, app: App, environ: Environ) -> None:
        """Call the application; what it raises is told by ``take``."""
        try:
            self._result = app(environ, self._start_response)
            self._iterator = iter(self._result)
        except Exception as error:  # noqa: BLE001 - the wrapped application's own
            self._iterator = _raising(error)

    def take(self) -> bytes | Failure:
        """Return the next part that is not empty, ``b""`` at the end."""
        if self._written:
            data, self._written = b"".join(self._written), []
            self._started = True
            return data
        if self._started and self._late():
            return self._progress.timed_out()
        try:
            for data in self._iterator or ():
                if self._written:
                    self._written.append(data)
                    data, self._written = b"".join(self._written), []
                if data:
                    self._started = True
                    return data
                if self._late():
                    return self._progress.timed_out()
        except Exception as error:  # noqa: BLE001 - the wrapped application's own
            _log.exception("the wrapped application raised")
            return Failure("app_error", type(error).__name__)
        data, self._written = b"".join(self._written), []
        return data

    def close(self) -> None:
        """Call the result's ``close``, once."""
        result, self._result, self._iterator = self._result, None, None
        close = getattr(result, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception:  # noqa: BLE001 - the wrapped application's own
            _log.exception("the wrapped application raised in close()")

    def _late(self) -> bool:
        due = self._progress.total_at
        return due is not None and time.monotonic() > due

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        if exc_info:
            try:
                if self._started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through the traceback
        elif self.head is not None:
            raise RuntimeError("start_response was called twice without exc_info")
        self.head = (
            int(status.split(None, 1)[0]),
            tuple((name.lower(), value) for name, value in headers),
        )
        return self._written.append


def _raising(error: Exception) -> Iterator[bytes]:
    raise error
    yield b""


def _environ(client: Environ, call: Call) -> Environ:
    """Return the client's environment under the call's method, path, headers and body."""
    environ = {
        key: value
        for key, value in client.items()
        if not key.startswith("HTTP_") and key not in _CLIENTS_OWN
    }
    environ |= {
        "REQUEST_METHOD": call.method,
        "PATH_INFO": unquote_to_bytes(call.target).decode("latin-1"),
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(call.body)),
        "wsgi.input": io.BytesIO(call.body),
    }
    environ.setdefault("wsgi.errors", sys.stderr)
    for name, value in call.headers:
        _add(environ, name.upper().replace("-", "_"), value)
    return environ


def _add(environ: Environ, name: str, value: str) -> None:
    if name == "CONTENT_TYPE":
        environ[name] = value
    elif name != "CONTENT_LENGTH":
        key = f"HTTP_{name}"
        joint = "; " if name == "COOKIE" else ","
        environ[key] = f"{environ[key]}{joint}{value}" if key in environ else value
