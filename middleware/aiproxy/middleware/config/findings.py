"""Collects what the checks of a configuration find, and the small readings they share."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from aiproxy.middleware.config.nodes import Node, Path


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a check found at ``path``. ``offset`` counts characters into the text there."""

    path: Path
    message: str
    warning: bool = False
    offset: int = 0


@dataclass(slots=True)
class Findings:
    """What the checks found so far. ``lenient`` turns some refusals into warnings."""

    root: Node
    lenient: bool = False
    found: list[Finding] = field(default_factory=list)

    def refuse(self, path: Path, message: str) -> None:
        """Add a reason not to use the configuration."""
        self.found.append(Finding(path, message))

    def warn(self, path: Path, message: str) -> None:
        """Add something the operator should know."""
        self.found.append(Finding(path, message, warning=True))

    def doubt(self, path: Path, message: str) -> None:
        """Add a reason that only strict loading refuses for."""
        self.found.append(Finding(path, message, warning=self.lenient))

    def given(self, path: Path) -> bool:
        """Return whether the operator wrote something at ``path``."""
        return self.root.at(path) is not None

    def unique(self, path: Path, items: Iterable[tuple[int, str]], key: str, what: str) -> None:
        """Refuse the second of equal ``items`` (index and word); the word itself is not shown."""
        first: dict[str, int] = {}
        for index, word in items:
            if word in first:
                self.refuse(
                    (*path, index, key) if key else (*path, index),
                    f"found {what} a second time (first at [{first[word]}]), expected it once",
                )
            first.setdefault(word, index)


def parse_url(text: str, schemes: tuple[str, ...]) -> SplitResult | None:
    """Return ``text`` taken apart, or nothing when it is not an absolute URL of ``schemes``."""
    try:
        parts = urlsplit(text)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        return None
    good = parts.scheme in schemes and bool(parts.hostname) and port_ok
    return parts if good and not any(char.isspace() for char in text) else None


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine: localhost, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def split_address(text: str) -> tuple[str, int]:
    """Return host, without brackets, and port of ``host:port``."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def address_fault(text: str) -> str | None:
    """Return what is wrong with ``host:port`` beyond its form."""
    host, port = split_address(text)
    if not 1 <= port <= 65535:
        return "found a port out of range, expected one from 1 to 65535"
    if ":" in host or host.replace(".", "").isdigit():
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return "found an IP address that does not exist, expected host:port"
    return None
