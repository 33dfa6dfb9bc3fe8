"""Structured logs on one stream, with every known secret masked.

Application records go through structlog; the line of each request is written directly, since it
is on the request's path. Neither ever holds a prompt, a header value or a body.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import orjson
import structlog

from aiproxy.middleware.config import Config
from aiproxy.middleware.decision import Decision
from aiproxy.middleware.money import usd

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
MASK: Final = "***"
#: Things that look like credentials even when this process never knew them.
_LIKELY: Final = re.compile(r"\b(?:sk|pk|key)-[A-Za-z0-9_-]{8,}|(?i:bearer)\s+[A-Za-z0-9._~+/=-]{8,}")
_SECRET_KEYS: Final = frozenset({"api_key", "api_token", "key", "secret", "client_secret"})


def secrets_of(config: Config) -> frozenset[str]:
    """Every secret value of a configuration."""
    return frozenset(_secrets(config.values))


def _secrets(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secrets(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets(inner, name)
    elif isinstance(value, str) and len(value) >= 6 and name in _SECRET_KEYS:
        yield value


class Redactor:
    """Masks known secrets, and what looks like one, in every text of a log record."""

    def __init__(self, secrets: frozenset[str]) -> None:
        self._secrets = sorted(secrets, key=len, reverse=True)

    def __call__(
        self, logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        return {key: self.clean(value) for key, value in event.items()}

    def clean(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, MASK)
            return _LIKELY.sub(MASK, value)
        if isinstance(value, Mapping):
            return {key: self.clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean(inner) for inner in value]
        return value


def set_up(config: Config) -> Callable[[Decision], None] | None:
    """Configure logging; return the hook that writes a line for each request, if any is wanted."""
    wanted = config.values["observability"]["logging"]
    level = _LEVELS[wanted["level"]]
    stream = _open(wanted["output"])
    as_json = wanted["format"] == "json"
    redact = Redactor(secrets_of(config))
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    render: Any = (
        structlog.processors.JSONRenderer(serializer=_dumps)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    handler = logging.StreamHandler(_Text(stream))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn.error", "asyncio"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    if level > logging.INFO:
        return None
    return RequestLog(stream, as_json)


class RequestLog:
    """Writes one line for each finished request."""

    def __init__(self, stream: BinaryIO, as_json: bool) -> None:
        self._stream = stream
        self._as_json = as_json

    def __call__(self, decision: Decision) -> None:
        served = decision.served
        line: dict[str, Any] = {
            "timestamp": datetime.now(UTC),
            "level": "info",
            "event": "request",
            "request_id": decision.id,
            "endpoint": decision.endpoint,
            "status": decision.status,
            "outcome": decision.outcome,
            "key": decision.owner,
            "requested": decision.requested,
            "provider": served.model.provider.id if served else None,
            "model": served.model.upstream if served else None,
            "attempts": len(decision.attempts),
            "latency_ms": round(decision.latency_ms, 2),
            "cost_usd": None if decision.cost is None else usd(decision.cost),
            "error": decision.error["code"] if decision.error else None,
        }
        if self._as_json:
            self._stream.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        else:
            shown = " ".join(f"{k}={v!s}" for k, v in line.items() if v is not None)
            self._stream.write(_printable(shown).encode() + b"\n")
        self._stream.flush()


def _printable(text: str) -> str:
    """One line: control characters of a client's model name stay inside it."""
    return "".join(c if c.isprintable() else "\\x%02x" % ord(c) for c in text)


class _Text:
    """A text face of a byte stream, for ``logging``."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def _open(output: str) -> BinaryIO:
    if output == "stdout":
        return sys.stdout.buffer
    if output == "stderr":
        return sys.stderr.buffer
    return open(output, "ab")


def _dumps(value: Any, **_: Any) -> str:
    return orjson.dumps(value, default=str).decode()
