"""The known kinds of providers, read from ``providers.yaml`` beside this module.

``presets()`` gives each kind by its name, which is what ``providers.<id>.type`` of a configuration
may be. The catalogue holds facts about a provider's public surface and nothing about an operator's
account; models are the configuration's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from aiproxy.spec.catalog.addresses import PLACEHOLDER, climb, join, place
from aiproxy.spec.catalog.rules import Rules, rules

__all__ = ["Continuation", "Preset", "Rules", "Surface", "join", "presets"]

_FILE: Final = Path(__file__).parent / "providers.yaml"
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Surface:
    """Where one dialect of a provider is: ``path`` is relative to the documented base and may
    climb. ``auth_header`` and ``auth_scheme`` are ``None`` where the provider's usual ones hold."""

    path: str
    auth_header: str | None = None
    auth_scheme: str | None = None


@dataclass(frozen=True, slots=True)
class Continuation:
    """How a partial assistant turn at the end of a request is asked to be gone on with: members that
    are added to that message and to the body. Empty where the turn says it all."""

    message: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preset:
    """One kind of provider.

    ``base_url`` is ``None`` for kinds that have no fixed address; ``path`` is where their API
    usually lies below the operator's URL. ``dialects`` are on unless a configuration names others,
    the preferred one first. Header names are lower case; with ``auth_scheme`` empty the bare
    credential is sent. ``environment`` maps a credential to its usual variables.
    ``rate_limit_headers`` has the keys ``limit``, ``remaining`` and ``reset``; ``error_map`` gives
    our word for the provider's own; ``prices`` is its name in the price data. ``continues`` is set
    where its models are known to go on where a partial assistant turn ends.
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
    quirks: Rules
    starter_models: tuple[str, ...]
    surfaces: Mapping[str, Surface] = field(default_factory=dict)
    constant_headers: tuple[tuple[str, str], ...] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    rate_limit_headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    error_map: Mapping[str, str] = field(default_factory=dict)
    prices: str | None = None
    continues: Continuation | None = None
    pinned: bool = False

    @property
    def also(self) -> tuple[str, ...]:
        """Dialects it speaks that are off until a configuration names them."""
        return tuple(name for name in self.surfaces if name not in self.dialects)

    def url(
        self,
        endpoint: str | None,
        credentials: Mapping[str, Any],
        dialect: str | None = None,
        *,
        api_version: str | None = None,
    ) -> str:
        """Return the base URL to call in ``dialect``, without a trailing slash.

        ``dialect`` defaults to the preferred one. ``endpoint`` is the operator's URL, with or
        without the version segment of the documented one, or the documented URL of any one of the
        surfaces: what it lacks is added, unless it ends in a version segment of its own.
        ``{name}`` is filled from ``credentials``, URL-escaped (AIP-CFG-054); ``{model}`` stays for
        ``join``. A query is kept, and the usual parameters are added to it.

        Raises:
            ValueError: the kind has no address of its own and ``endpoint`` is ``None``, or a
                credential the address needs is missing.
        """
        chosen = endpoint or self.base_url
        if chosen is None:
            raise ValueError(f"providers of type {self.name} need an endpoint")
        parts = urlsplit(chosen)
        wanted = self._surface(dialect).path
        if endpoint is None:
            path = climb(self.path, wanted)
        else:
            others = [surface.path for surface in self.surfaces.values()]
            path = place(parts.path, self.path, wanted, others, pinned=self.pinned)
        filled = PLACEHOLDER.sub(lambda found: self._escaped(found, credentials), path)
        query = self._queried(parts.query, api_version)
        return urlunsplit((parts.scheme, parts.netloc, filled.rstrip("/"), query, ""))

    def authorization(
        self, credentials: Mapping[str, Any], dialect: str | None = None
    ) -> tuple[str, str] | None:
        """Return the header that authenticates a call, or nothing when no credential is set."""
        secret = credentials.get(self.credential)
        if not secret:
            return None
        surface = self._surface(dialect)
        if surface.auth_header is None:
            return self.auth_header, f"{self.auth_scheme} {secret}".lstrip()
        return surface.auth_header, f"{surface.auth_scheme or ''} {secret}".lstrip()

    def _surface(self, dialect: str | None) -> Surface:
        return self.surfaces.get(dialect or self.dialects[0], _HERE)

    def _queried(self, given: str, api_version: str | None) -> str:
        usual = dict(self.query)
        if api_version:
            usual["api-version"] = api_version
        there = {pair.partition("=")[0] for pair in given.split("&")}
        added = urlencode({name: value for name, value in usual.items() if name not in there})
        return "&".join(part for part in (given, added) if part)

    def _escaped(self, found: Any, credentials: Mapping[str, Any]) -> str:
        name = found[1]
        if name == "model":
            return str(found[0])
        value = credentials.get(name)
        if not value:
            raise ValueError(f"the address of providers of type {self.name} needs {name}")
        return quote(str(value), safe="")


_HERE: Final = Surface("")


@cache
def presets() -> Mapping[str, Preset]:
    """Return every known kind of provider by name, in the order of the file."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    rows: dict[str, dict[str, Any]] = yaml.load(_FILE.read_bytes(), Loader=loader)  # noqa: S506
    return MappingProxyType({name: _preset(name, row) for name, row in rows.items()})


def _preset(name: str, row: Mapping[str, Any]) -> Preset:
    auth = row.get("auth", _NOTHING)
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
        environment=_tuples(row.get("environment", _NOTHING)),
        dialects=tuple(row["dialects"]),
        local=row.get("local", False),
        free=row.get("free", False),
        probe=row.get("probe"),
        quirks=rules(row.get("quirks", _NOTHING)),
        starter_models=tuple(row.get("starter_models", ())),
        surfaces=MappingProxyType(
            {dialect: _read_surface(value) for dialect, value in row.get("surfaces", {}).items()}
        ),
        constant_headers=tuple(row.get("constant_headers", _NOTHING).items()),
        query=MappingProxyType(dict(row.get("query", _NOTHING))),
        rate_limit_headers=_tuples(row.get("rate_limit_headers", _NOTHING)),
        error_map=MappingProxyType(dict(row.get("error_map", _NOTHING))),
        prices=row.get("prices"),
        continues=_continuation(row.get("continues")),
        pinned=row.get("pinned", False),
    )


def _continuation(row: Mapping[str, Any] | None) -> Continuation | None:
    if row is None:
        return None
    return Continuation(
        MappingProxyType(dict(row.get("message", _NOTHING))),
        MappingProxyType(dict(row.get("body", _NOTHING))),
    )


def _read_surface(value: str | Mapping[str, Any]) -> Surface:
    if isinstance(value, str):
        return Surface(value)
    auth = value.get("auth", _NOTHING)
    return Surface(value.get("path", ""), auth.get("header"), auth.get("scheme"))


def _tuples(value: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({key: tuple(names) for key, names in value.items()})
