"""What may be written down about an exchange: bounded text with every secret masked."""

import html
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

MASK: Final = "[redacted]"
_SECRET_FIELDS: Final = frozenset(
    {
        "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key",
        "x-goog-api-key", "x-auth-token", "x-auth-key", "x-amz-security-token",
    }
)  # fmt: skip
_KEY_SHAPED: Final = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"
    r"|\bAIza[A-Za-z0-9_-]{30,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}"
    r"|\bhf_[A-Za-z0-9]{20,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+"
    r"|(?<=Bearer )[A-Za-z0-9._~+/-]{16,}"
)
# Fewer characters than this are no secret, and masking them would blacken half a report.
_SHORTEST: Final = 4


@dataclass(frozen=True, slots=True)
class Redactor:
    """Masks the given secrets and whatever looks like one; keeps at most ``most`` characters.

    A secret is also masked as it stands inside JSON, a URL or HTML.
    """

    secrets: tuple[str, ...] = ()
    most: int = 4096
    _needles: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _starts: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare every spelling, longest first: one secret may be the start of another."""
        given = [secret for secret in self.secrets if len(secret) >= _SHORTEST]
        spelled = {spelling for secret in given for spelling in _spellings(secret)}
        needles = tuple(sorted(spelled, key=lambda needle: (-len(needle), needle)))
        object.__setattr__(self, "_needles", needles)
        object.__setattr__(self, "_starts", frozenset(n[:_SHORTEST] for n in needles))

    def text(self, raw: bytes | str) -> str:
        """Return ``raw`` as text fit for a report."""
        text, whole = raw, True
        if isinstance(text, bytes):
            whole = len(text) <= self.most * 4
            text = text[: self.most * 4].decode("utf-8", "replace")
        text = self.mask(text) if whole else self.mask(self._without_stump(text))
        if len(text) > self.most or not whole:
            return f"{text[: self.most]}… ({len(raw)} in all)"
        return text

    def mask(self, text: str) -> str:
        """Return ``text``, of any length, with what is secret masked."""
        if any(start in text for start in self._starts):
            for needle in self._needles:
                text = text.replace(needle, MASK)
        return _KEY_SHAPED.sub(MASK, text)

    def head(self, first: str, headers: Iterable[tuple[str, str]]) -> str:
        """Return a request or response head with its secret fields masked."""
        lines = [first]
        lines += [
            f"{name}: {MASK if name.lower() in _SECRET_FIELDS else value}"
            for name, value in headers
        ]
        return self.text("\n".join(lines))

    def _without_stump(self, text: str) -> str:
        """Return ``text``, which was cut off, without the beginning of a secret at its end."""
        for needle in self._needles:
            for length in range(min(len(needle) - 1, len(text)), _SHORTEST - 1, -1):
                if text.endswith(needle[:length]):
                    return text[:-length]
        return text


def _spellings(secret: str) -> Iterable[str]:
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield quote(secret, safe="", errors="replace")
    yield html.escape(secret)


def public_url(url: str) -> str:
    """Return ``url`` without user information, query and fragment."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    netloc = f"{host}:{parts.port}" if parts.port else host
    return urlunsplit((parts.scheme, netloc, parts.path, "", ""))
