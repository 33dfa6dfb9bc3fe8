"""The known kinds of providers, read from ``providers.yaml`` beside this module.

``presets()`` gives each kind by its name, which is what ``providers.<id>.type`` of a configuration
may be. The catalogue holds facts about a provider's public surface and nothing about an operator's
account; models and prices are the configuration's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit, urlunsplit

__all__ = ["Preset", "presets"]

_FILE: Final = Path(__file__).parent / "providers.yaml"
_VERSION_SEGMENT: Final = re.compile(r"v[0-9]+[a-z0-9]*")
_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Preset:
    """One kind of provider.

    ``base_url`` is ``None`` for kinds that have no fixed address; ``path`` is where their API
    usually lies below the operator's URL. ``auth_header`` is lower case; with ``auth_scheme`` empty
    the bare credential is sent. ``environment`` maps a credential to its usual variables.
    """

    name: str
    title: str
    transport: Literal["http", "local", "app", "mesh"]
    base_url: str | None
    path: str
    auth_header: str
    auth_scheme: str
    credential: str
    required: tuple[str, ...]
    environment: Mapping[str, tuple[str, ...]]
    dialects: tuple[str, ...]
    local: bool
    free: bool
    probe: str | None
    quirks: frozenset[str]
    starter_models: tuple[str, ...]

    def url(self, endpoint: str | None, credentials: Mapping[str, Any]) -> str:
        """Return the base URL to call, without a trailing slash.

        ``endpoint`` is the operator's URL, with or without the version segment of the documented
        one: the part of the documented path that it lacks is added, unless it ends in a version
        segment of its own. ``{name}`` is filled from ``credentials``, URL-escaped (AIP-CFG-054).

        Raises:
            ValueError: the kind has no address of its own and ``endpoint`` is ``None``, or a
                credential the address needs is missing.
        """
        chosen = endpoint or self.base_url
        if chosen is None:
            raise ValueError(f"providers of type {self.name} need an endpoint")
        parts = urlsplit(chosen)
        path = parts.path if endpoint is None else _completed(parts.path, self.path)
        filled = _PLACEHOLDER.sub(lambda found: self._escaped(found[1], credentials), path)
        return urlunsplit((parts.scheme, parts.netloc, filled.rstrip("/"), parts.query, ""))

    def authorization(self, credentials: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the header that authenticates a call, or nothing when no credential is set."""
        secret = credentials.get(self.credential)
        if not secret:
            return None
        return self.auth_header, f"{self.auth_scheme} {secret}".lstrip()

    def _escaped(self, name: str, credentials: Mapping[str, Any]) -> str:
        value = credentials.get(name)
        if not value:
            raise ValueError(f"the address of providers of type {self.name} needs {name}")
        return quote(str(value), safe="")


@cache
def presets() -> Mapping[str, Preset]:
    """Return every known kind of provider by name, in the order of the file."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    rows: dict[str, dict[str, Any]] = yaml.load(_FILE.read_bytes(), Loader=loader)  # noqa: S506
    return MappingProxyType({name: _preset(name, row) for name, row in rows.items()})


def _preset(name: str, row: Mapping[str, Any]) -> Preset:
    auth = row.get("auth", {})
    base = row.get("base_url")
    return Preset(
        name=name,
        title=row["title"],
        transport=row.get("transport", "http"),
        base_url=base,
        path=row.get("path") or (urlsplit(base).path if base else ""),
        auth_header=auth.get("header", "authorization"),
        auth_scheme=auth.get("scheme", "Bearer"),
        credential=row.get("credential", "api_key"),
        required=tuple(row.get("required", ())),
        environment=MappingProxyType(
            {key: tuple(names) for key, names in row.get("environment", {}).items()}
        ),
        dialects=tuple(row["dialects"]),
        local=row.get("local", False),
        free=row.get("free", False),
        probe=row.get("probe"),
        quirks=frozenset(row.get("quirks", ())),
        starter_models=tuple(row.get("starter_models", ())),
    )


def _completed(path: str, documented: str) -> str:
    """Return ``path`` with what it lacks of ``documented``."""
    given = [part for part in path.split("/") if part]
    wanted = [part for part in documented.split("/") if part]
    for length in range(min(len(given), len(wanted)), 0, -1):
        if all(map(_same, given[-length:], wanted[:length])):
            return "/" + "/".join(given + wanted[length:])
    if given and _VERSION_SEGMENT.fullmatch(given[-1]):
        return path
    return "/" + "/".join(given + wanted)


def _same(given: str, wanted: str) -> bool:
    return given == wanted or bool(_PLACEHOLDER.fullmatch(wanted))
