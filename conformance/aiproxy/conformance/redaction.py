"""What may be written down about an exchange: bounded text with every secret masked."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

MASK: Final = "[redacted]"
_SECRET_FIELDS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key"}
)
_KEY_SHAPED: Final = re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}")


@dataclass(frozen=True, slots=True)
class Redactor:
    """Masks the given secrets and whatever looks like one; keeps at most ``most`` characters."""

    secrets: tuple[str, ...] = ()
    most: int = 4096

    def text(self, raw: bytes | str) -> str:
        """Return ``raw`` as text fit for a report."""
        text = raw if isinstance(raw, str) else raw[: self.most * 4].decode("utf-8", "replace")
        for secret in self.secrets:
            text = text.replace(secret, MASK)
        text = _KEY_SHAPED.sub(MASK, text)
        if len(text) > self.most:
            return f"{text[: self.most]}… ({len(raw)} in all)"
        return text

    def head(self, first: str, headers: Iterable[tuple[str, str]]) -> str:
        """Return a request or response head with its secret fields masked."""
        lines = [first]
        lines += [
            f"{name}: {MASK if name.lower() in _SECRET_FIELDS else value}"
            for name, value in headers
        ]
        return self.text("\n".join(lines))


def public_url(url: str) -> str:
    """Return ``url`` without user information, query and fragment."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    netloc = f"{host}:{parts.port}" if parts.port else host
    return urlunsplit((parts.scheme, netloc, parts.path, "", ""))
