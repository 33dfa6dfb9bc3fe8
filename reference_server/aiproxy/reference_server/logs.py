"""Logs: one record a line, as JSON or text, with every known secret masked.

The line of each request is written directly, since it is on the request's path; other records come
through ``logging``. Neither ever holds a prompt, a header value, a query or a body; of an exception
only its type and where it was raised, because messages quote what they complain about.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from traceback import extract_tb
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

import orjson

from aiproxy.middleware.asgi import App, Message, Receive, Scope, Sender
from aiproxy.middleware.config import Config
from aiproxy.middleware.config.shape import Shape, config_shape
from aiproxy.middleware.decision import Decision
from aiproxy.middleware.money import usd

MASK: Final = "***"
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
#: Things that look like credentials even when this process never knew them.
_LIKELY: Final = re.compile(
    r"\b(?:sk|pk|key)-[A-Za-z0-9_-]{8,}|(?i:bearer)\s+[A-Za-z0-9._~+/=-]{8,}"
)
#: A shorter secret is too common a word to be masked wherever it occurs.
_SHORTEST: Final = 6
_LONGEST_PATH: Final = 200
_PROBES: Final = frozenset({"/healthz", "/readyz"})


def secrets_of(config: Config) -> frozenset[str]:
    """Every value the configuration schema marks as secret; of a URL, its password."""
    return frozenset(s for s in _secrets(config_shape(), config.values) if len(s) >= _SHORTEST)


def _secrets(shape: Shape | None, value: Any) -> Iterator[str]:
    if shape is None:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secrets(shape.child(key), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets(shape.items, inner)
    elif isinstance(value, str) and shape.secret == "url":  # noqa: S105 - a schema annotation
        yield urlsplit(value).password or ""
    elif isinstance(value, str) and shape.secret:
        yield value


class Redactor:
    """Masks known secrets, and what looks like one, in a text."""

    def __init__(self, secrets: frozenset[str]) -> None:
        longest_first = sorted(secrets, key=len, reverse=True)
        known = "|".join(map(re.escape, longest_first))
        self._known = re.compile(known) if known else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _LIKELY.sub(MASK, text)


@dataclass(slots=True)
class Output:
    """Where lines go, and how they look. A line that cannot be written is dropped: logging never
    fails a request."""

    stream: BinaryIO
    as_json: bool
    redact: Redactor

    def write(self, line: Mapping[str, Any]) -> None:
        try:
            self.stream.write(_json_line(line) if self.as_json else _text_line(line))
            self.stream.flush()
        except (OSError, ValueError):
            pass


def _json_line(line: Mapping[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _text_line(line: Mapping[str, Any]) -> bytes:
    """``key=value`` pairs; a value with spaces or control characters is quoted, so that a client's
    model name cannot look like other fields or another line."""
    words = [f"{key}={_word(value)}" for key, value in line.items() if value is not None]
    return " ".join(words).encode() + b"\n"


def _word(value: Any) -> str:
    text = value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else str(value)
    plain = text.isprintable() and not any(c in ' "=' for c in text)
    return text if plain else orjson.dumps(_encodable(text)).decode()


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class Handler(logging.Handler):
    """Writes the records of ``logging`` to an ``Output``."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):
            text = f"unreadable record of {record.pathname}:{record.lineno}"
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "event": self._output.redact(_encodable(text.strip())),
            "logger": record.name,
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = _raised(record.exc_info[1])
        self._output.write(line)


def _raised(error: BaseException) -> list[str]:
    """Types and places of an exception and what caused it, innermost frame last; no messages."""
    told: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(told) < 50:
        told.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        frames = extract_tb(cause.__traceback__)
        told += [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return told


@dataclass(frozen=True, slots=True)
class Logs:
    """What ``set_up`` gives: the hook for finished decisions, and a wrapper for the other requests."""

    on_decision: Callable[[Decision], None]
    wrap: Callable[[App], App]


def set_up(config: Config) -> Logs:
    """Send all records of this process to what ``observability.logging`` names.

    Raises:
        OSError: the output file cannot be opened.
    """
    wanted = config.values["observability"]["logging"]
    level = _LEVELS[wanted["level"]]
    redact = Redactor(secrets_of(config))
    output = Output(_open(wanted["output"]), wanted["format"] == "json", redact)
    root = logging.getLogger()
    root.handlers[:] = [Handler(output)]
    root.setLevel(level)
    for noisy in ("uvicorn.error", "asyncio"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    requests = RequestLog(output, level)
    return Logs(requests, requests.wrap)


def _open(output: str) -> BinaryIO:
    if output == "stdout":
        return sys.stdout.buffer
    if output == "stderr":
        return sys.stderr.buffer
    return open(output, "ab")


class RequestLog:
    """Writes one line for each request: of an inference request what was decided, of any other
    (refused early, model list, health) what it was answered with."""

    def __init__(self, output: Output, level: int) -> None:
        self._output = output
        self._level = level
        self._decided: set[str] = set()

    def __call__(self, decision: Decision) -> None:
        self._decided.add(decision.id)
        level = logging.ERROR if (decision.status or 0) >= 500 else logging.INFO
        if level < self._level:
            return
        served = decision.served
        requested = decision.requested
        self._output.write(
            {
                "timestamp": datetime.now(UTC),
                "level": _name(level),
                "event": "request",
                "request_id": self._output.redact(decision.id),
                "endpoint": decision.endpoint,
                "status": decision.status,
                "outcome": decision.outcome,
                "key": decision.owner,
                "requested": requested and self._output.redact(_encodable(requested)),
                "provider": served.model.provider.id if served else None,
                "model": served.model.upstream if served else None,
                "attempts": len(decision.attempts),
                "latency_ms": round(decision.latency_ms, 2),
                "cost_usd": None if decision.cost is None else usd(decision.cost),
                "error": decision.error["code"] if decision.error else None,
            }
        )

    def wrap(self, app: App) -> App:
        """Return ``app`` with a line for the requests that no decision tells of."""

        async def logged(scope: Scope, receive: Receive, send: Sender) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            began = monotonic()
            head: Message = {}

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    head.update(message)
                await send(message)

            try:
                await app(scope, receive, watched)
            finally:
                identity = _request_id(head)
                if identity in self._decided:
                    self._decided.discard(identity)
                else:
                    self._answered(scope, head, identity, monotonic() - began)

        return logged

    def _answered(self, scope: Scope, head: Message, identity: str, took_s: float) -> None:
        path, status = scope["path"], head.get("status")
        level = logging.DEBUG if path in _PROBES else logging.INFO
        if (status or 500) >= 500 and path not in _PROBES:
            level = logging.ERROR
        if level < self._level:
            return
        self._output.write(
            {
                "timestamp": datetime.now(UTC),
                "level": _name(level),
                "event": "request",
                "request_id": self._output.redact(identity),
                "method": scope["method"],
                "endpoint": self._output.redact(_encodable(path[:_LONGEST_PATH])),
                "status": status,
                "latency_ms": round(took_s * 1000, 2),
            }
        )


def _request_id(head: Message) -> str:
    for name, value in head.get("headers", ()):
        if name == b"x-request-id":
            return str(value, "latin-1")
    return ""


def _name(level: int) -> str:
    return logging.getLevelName(level).lower()
