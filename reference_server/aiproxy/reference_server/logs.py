"""Logs: one record a line, as JSON or text, with every known secret masked.

The line of each request is written directly, since it is on the request's path; other records come
through ``logging``. Neither ever holds a prompt, a header value, a query or a body; of an exception
only its type and where it was raised, because messages quote what they complain about.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from traceback import extract_tb
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from aiproxy.middleware.asgi import App
from aiproxy.middleware.config import Config
from aiproxy.middleware.config.shape import Shape, config_shape
from aiproxy.middleware.decision import Decision
from aiproxy.reference_server.log_output import Output, Redactor, encodable
from aiproxy.reference_server.request_log import RequestLog

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
#: A shorter secret is too common a word to be masked wherever it occurs.
_SHORTEST: Final = 6


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
            "event": self._output.redact(encodable(text.strip())),
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
