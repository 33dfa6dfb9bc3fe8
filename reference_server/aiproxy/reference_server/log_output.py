"""Where log lines go and how they look: JSON or ``key=value`` text, secrets masked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Final

import orjson

MASK: Final = "***"
#: Things that look like credentials even when this process never knew them.
_LIKELY: Final = re.compile(
    r"\b(?:sk|pk|key)-[A-Za-z0-9_-]{8,}|(?i:bearer)\s+[A-Za-z0-9._~+/=-]{8,}"
)


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
    return text if plain else orjson.dumps(encodable(text)).decode()


def encodable(text: str) -> str:
    """``text`` without what UTF-8 cannot hold: lone surrogates are spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()
