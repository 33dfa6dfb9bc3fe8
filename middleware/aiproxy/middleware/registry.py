"""Providers, models, capabilities and prices, built once from a configuration.

A ``Model`` is one model at one provider; the same public name at several providers gives several.
All objects are immutable but for ``track``, the condition learned from traffic.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from aiproxy.middleware.answering.places import Places
from aiproxy.middleware.config import Config, ConfigInvalid, Problem
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.effects import Headers
from aiproxy.middleware.health import Thresholds, Track
from aiproxy.middleware.money.amounts import per_token, picodollars
from aiproxy.middleware.money.prices import Known, Price, known_price
from aiproxy.middleware.security.trust import LEVELS, Attestation
from aiproxy.spec.catalog import Continuation, Preset, Rules, join, presets

#: Path below a provider's base URL for each wire dialect.
DIALECT_PATHS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "chat": "/chat/completions",
        "responses": "/responses",
        "completions": "/completions",
        "embeddings": "/embeddings",
        "classifications": "/images/classifications",
    }
)
#: Spoken to the wrapped application and to local models only, whatever is configured.
_INSIDE: Final = frozenset({"classifications"})
#: What a model can do when its entry does not say.
DEFAULT_CAPABILITIES: Final = frozenset({"text-generation"})
#: What a provider without a model list is taken to do: whatever its clients ask of it.
ANY_CAPABILITY: Final = frozenset(
    {
        "text-generation",
        "vision",
        "code-generation",
        "embeddings",
        "image-classification",
        "reasoning",
    }
)
#: A capability that includes another: a vision model also writes text.
_IMPLIES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "vision": frozenset({"text-generation"}),
        "code-generation": frozenset({"text-generation"}),
        "reasoning": frozenset({"text-generation"}),
    }
)


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds; see the configuration reference, ``providers.<id>.timeouts``."""

    connect: float
    first_byte: float
    first_token: float
    idle: float
    total: float


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a provider: ``urls`` has a base URL for each dialect spoken there, without a
    trailing slash. ``fixed`` are the targets that are the same for every model. ``track`` is set
    where the provider has several endpoints: what is known of this one."""

    urls: Mapping[str, str]
    region: str | None = None
    weight: float = 1.0
    fixed: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    track: Track | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        whole = {
            dialect: join(self.urls[dialect], path)
            for dialect, path in DIALECT_PATHS.items()
            if dialect in self.urls and "{model}" not in self.urls[dialect]
        }
        object.__setattr__(self, "fixed", MappingProxyType(whole))

    def target(self, dialect: str, model: str, *, stream: bool) -> str:
        """Return where a request of a dialect goes; ``model`` is the provider's name for it."""
        found = self.fixed.get(dialect)
        if found is not None:
            return found
        path = DIALECT_PATHS.get(dialect)
        if path is None:
            path = codec(dialect).target(model, stream)
        return join(self.urls[dialect], path, model)


#: Where the wrapped application and the models of this process are spoken to.
_IN_PROCESS: Final = Endpoint(dict.fromkeys(DIALECT_PATHS, "/v1"))


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """How one provider is reached and what its operator vouches for.

    ``headers``, by dialect, hold the provider's own credentials: they are for its endpoints alone
    and are kept out of the repr. ``quirks`` are its small differences from chat, ``error_words`` what its own
    error codes mean in ours, ``limit_headers`` the names of those that tell its rate limits.
    """

    id: str
    type: str
    transport: str
    priority: int
    order: int
    weight: float
    dialects: frozenset[str]
    endpoints: tuple[Endpoint, ...]
    limits: TimeLimits
    local: bool
    free: bool = False
    labels: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    level: int = 0
    attestations: tuple[Attestation, ...] = ()
    region: str | None = None
    aliases: tuple[str, ...] = ()
    open_ended: bool = False
    relay_headers: frozenset[str] = frozenset()
    max_connections: int | None = None
    max_concurrency: int | None = None
    balancing: str = "round_robin"
    tls: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Headers] = field(default_factory=dict, repr=False)
    quirks: Rules = field(default_factory=Rules, repr=False)
    error_words: Mapping[str, str] = field(default_factory=dict, repr=False)
    limit_headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    track: Track = field(default_factory=Track, repr=False)
    places: Places | None = field(default=None, repr=False)

    @property
    def endpoint_tracks(self) -> tuple[Track, ...]:
        """What is known of each endpoint, in their order; empty where there is only one."""
        return tuple(e.track for e in self.endpoints if e.track is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One model at one provider.

    ``name`` is public, ``upstream`` is what the provider calls it. ``price`` is ``None`` when
    unknown; ``price_source`` says whose figure it is: ``operator``, or the data and its version.
    ``quality`` is 0..1, or by task, or ``None`` when nobody vouched for any.
    ``response_formats`` are the shapes of an answer it can be held to, ``None`` when nobody said.
    ``continues`` is how it is asked to go on where a partial assistant turn ends, ``None`` when it
    is not known to.
    """

    name: str
    upstream: str
    provider: Provider
    capabilities: frozenset[str]
    order: int
    price: Price | None = None
    price_source: str | None = None
    cost_per_1k: float | None = None
    quality: float | Mapping[str, float] | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    reasoning: str = "none"
    tools: Mapping[str, Any] = field(default_factory=dict)
    response_formats: frozenset[str] | None = None
    latency_prior_ms: float | None = None
    owned_by: str = "aiproxy"
    continues: Continuation | None = None
    track: Track = field(default_factory=Track, repr=False)

    def quality_for(self, task: str) -> float | None:
        """Declared quality for a task: its own entry, else ``general``, else the mean."""
        declared = self.quality
        # a tuple of types: a union would be made anew each time
        if declared is None or isinstance(declared, (float, int)):
            return declared
        if task in declared:
            return declared[task]
        if "general" in declared:
            return declared["general"]
        return sum(declared.values()) / len(declared) if declared else None

    def latency_ms(self, now: float, *, first_byte: bool) -> float | None:
        """The estimate used for limits and ranking: measured p95, else the configured prior."""
        measured = self.track.latency_p95_ms(now, first_byte=first_byte)
        return measured if measured is not None else self.latency_prior_ms


class Registry:
    """All enabled providers and their models.

    ``default`` is ``routing.default_provider``, else the wrapped application, else the enabled
    provider of best priority; ties go by file order.
    """

    def __init__(
        self, providers: Iterable[Provider], models: Iterable[Model], default: str
    ) -> None:
        self.providers: Mapping[str, Provider] = {p.id: p for p in providers}
        self.models: tuple[Model, ...] = tuple(models)
        self.default: Provider = self.providers[default]
        by_name: dict[str, list[Model]] = {}
        for model in self.models:
            by_name.setdefault(model.name, []).append(model)
        self.by_name: Mapping[str, tuple[Model, ...]] = {k: tuple(v) for k, v in by_name.items()}
        by_provider: dict[str, list[Model]] = {p: [] for p in self.providers}
        for model in self.models:
            by_provider[model.provider.id].append(model)
        self.by_provider: Mapping[str, tuple[Model, ...]] = {
            k: tuple(v) for k, v in by_provider.items()
        }
        self.labels = frozenset(label for p in self.providers.values() for label in p.labels)
        #: other names a client may use for a provider on input -> registry id (XAI-HDR-017)
        self.aliases: Mapping[str, str] = {
            alias: p.id for p in self.providers.values() for alias in p.aliases
        }
        #: no target is blocked or cooling after this time (monotonic seconds)
        self.trouble_until = 0.0
        #: called after a failure, from the request it befell: quick, and raises nothing
        self.on_failure: Callable[[Model], None] | None = None

    def named(self, name: str) -> tuple[Model, ...]:
        """The models of that public name; a provider without a model list serves any name that
        nobody else lists."""
        found = self.by_name.get(name)
        if found is not None:
            return found
        return tuple(
            Model(
                name=name,
                upstream=name,
                provider=provider,
                capabilities=ANY_CAPABILITY,
                order=len(self.models),
                price=Price(0, 0),
                cost_per_1k=0.0,
                track=provider.track,
            )
            for provider in self.providers.values()
            if provider.open_ended
        )

    def failed(
        self,
        model: Model,
        now: float,
        jitter: Callable[[], float],
        retry: float | None,
        *,
        whole_provider: bool,
    ) -> None:
        """Note a failed call; a connection or credential fault counts for the whole provider."""
        tracks = (model.track, model.provider.track) if whole_provider else (model.track,)
        for track in tracks:
            track.failed(now, jitter, retry_after_s=retry)
            self.note_trouble(track)
        if self.on_failure is not None:
            self.on_failure(model)

    def note_trouble(self, track: Track) -> None:
        """A target is blocked, or ranked last, for a while."""
        self.trouble_until = max(
            self.trouble_until,
            track.cooling_until,
            track.blocked_until,
            track.open_until,
            track.slow_until,
            track.doubted_until,
        )

    def default_model(self, needs: frozenset[str]) -> Model | None:
        """The first model the default provider lists that can do all that is needed."""
        for model in self.by_provider[self.default.id]:
            if needs <= model.capabilities:
                return model
        return None


def build(config: Config, *, wrapped_app: bool) -> Registry:
    """Return the registry of a configuration.

    With ``wrapped_app`` and no provider of type ``app`` or ``local``, a provider ``app`` for the
    application itself is added; it serves any model name nobody else lists.

    Raises:
        ConfigInvalid: nobody is left to ask.
    """
    values = config.values
    thresholds = Thresholds(
        enabled=values["routing"]["load_balancing"]["health_aware"],
        error_rate=float(values["routing"]["load_balancing"]["unhealthy_threshold"]),
        window_s=values["routing"]["health"]["window"],
        min_samples=values["routing"]["health"]["min_samples"],
        probe_after_s=values["routing"]["health"]["probe_after"],
        probe_max_s=values["routing"]["health"]["probe_max"],
    )
    providers: list[Provider] = []
    models: list[Model] = []
    known = presets()
    for order, (name, entry) in enumerate(values["providers"].items()):
        if not entry["enabled"]:
            continue
        kind = entry.get("type") or name
        limits = replace(thresholds, degraded_ms=_milliseconds(entry["degraded_latency"]))
        provider = _provider(name, kind, entry, known[kind], order, limits)
        providers.append(provider)
        own = _own_address(entry, known[kind])
        for row in entry["models"]:
            models.append(
                _model(row, provider, len(models), kind, known[kind], limits, own_address=own)
            )
    if wrapped_app and not any(p.transport == "app" for p in providers):
        providers.append(_application(len(providers), thresholds))
    if not providers:
        found = "found no provider that can be used, expected at least one under providers"
        raise ConfigInvalid([Problem(config.file, 0, 0, "providers", found)])
    return Registry(providers, models, _default(values, providers))


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000.0


def _default(values: Mapping[str, Any], providers: list[Provider]) -> str:
    chosen: str | None = values["routing"].get("default_provider")
    if chosen:
        return chosen
    for provider in providers:
        if provider.type == "app":
            return provider.id
    return min(providers, key=lambda p: (p.priority, p.order)).id


def _application(order: int, thresholds: Thresholds) -> Provider:
    return Provider(
        id="app",
        type="app",
        transport="app",
        priority=0,
        order=order,
        weight=1.0,
        dialects=frozenset(DIALECT_PATHS),
        endpoints=(_IN_PROCESS,),
        limits=TimeLimits(10.0, 600.0, 600.0, 600.0, 600.0),
        local=True,
        open_ended=True,
        track=Track(thresholds),
    )


def _provider(
    name: str,
    kind: str,
    entry: Mapping[str, Any],
    preset: Preset,
    order: int,
    thresholds: Thresholds,
) -> Provider:
    in_process = kind in ("app", "local")
    limits = entry["timeouts"]
    security = entry.get("security") or {}
    return Provider(
        id=name,
        type=kind,
        transport="app" if in_process else "http",
        priority=entry["priority"],
        order=order,
        weight=float(entry["weight"]),
        dialects=frozenset(entry.get("dialects") or preset.dialects)
        | (_INSIDE if in_process else frozenset()),
        endpoints=(_IN_PROCESS,) if in_process else _endpoints(entry, preset, thresholds),
        limits=TimeLimits(
            connect=limits["connect"],
            first_byte=limits["first_byte"],
            first_token=limits["first_token"],
            idle=limits["idle"],
            total=limits["total"],
        ),
        local=in_process or _either(entry.get("local"), preset.local),
        free=in_process or preset.free,
        labels=frozenset(row["label"] for row in security.get("labels") or ()),
        regions=frozenset(security.get("regions") or ()),
        level=LEVELS.get(security.get("level") or "", 0),
        attestations=tuple(
            Attestation(row["label"], row.get("evidence"), row.get("date"))
            for row in security.get("labels") or ()
        ),
        region=entry.get("region"),
        aliases=tuple(entry.get("aliases") or ()),
        open_ended=kind == "app" and not entry["models"],
        relay_headers=frozenset(name.lower() for name in entry.get("relay_headers") or ()),
        max_connections=entry.get("max_connections"),
        max_concurrency=entry.get("max_concurrency"),
        balancing=entry.get("load_balancing") or "round_robin",
        tls=MappingProxyType(dict(entry.get("tls") or {})),
        headers={}
        if in_process
        else {
            dialect: _headers(entry, preset, dialect)
            for dialect in entry.get("dialects") or preset.dialects
        },
        quirks=preset.quirks,
        error_words=preset.error_map,
        limit_headers=preset.rate_limit_headers,
        track=Track(thresholds),
        places=_places(kind, entry),
    )


def _places(kind: str, entry: Mapping[str, Any]) -> Places | None:
    """The places of a provider whose calls are bounded here; local models bound their own."""
    most = entry.get("max_concurrency")
    if most is None or kind == "local":
        return None
    return Places(most, entry["max_queue"], entry["max_queue_wait"])


def _continues(row: Mapping[str, Any], preset: Preset) -> Continuation | None:
    """How a model is asked to go on with a partial turn, by its operator's word or the catalogue's."""
    stated = row.get("continues")
    if stated is None:
        return preset.continues
    return (preset.continues or Continuation()) if stated else None


def _either(stated: bool | None, usual: bool) -> bool:
    return usual if stated is None else stated


def _endpoints(
    entry: Mapping[str, Any], preset: Preset, thresholds: Thresholds
) -> tuple[Endpoint, ...]:
    credentials = entry.get("credentials") or {}
    rows = entry["endpoints"] or [{"url": entry.get("endpoint")}]
    version = entry.get("api_version")
    return tuple(
        Endpoint(
            {
                dialect: preset.url(row["url"], credentials, dialect, api_version=version)
                for dialect in entry.get("dialects") or preset.dialects
            },
            row.get("region"),
            float(row.get("weight") or 1),
            track=Track(thresholds) if len(rows) > 1 else None,
        )
        for row in rows
    )


def _headers(entry: Mapping[str, Any], preset: Preset, dialect: str) -> Headers:
    """What is sent with every request in a dialect; an operator's own fixed headers stand."""
    found = [(name.lower(), str(value)) for name, value in entry["headers"].items()]
    named = {name for name, _ in found}
    found += [row for row in preset.constant_headers if row[0] not in named]
    credentials = entry.get("credentials") or {}
    authorization = preset.authorization(credentials, dialect)
    if authorization is not None:
        found.append(authorization)
    for name, header in (
        ("organization", "openai-organization"),
        ("project", "openai-project"),
    ):
        if credentials.get(name):
            found.append((header, str(credentials[name])))
    return tuple(found)


def _own_address(entry: Mapping[str, Any], preset: Preset) -> bool:
    """Whether a provider is called where its kind is at home: a proxy or a local server at another
    address has prices of its own. Kinds without an address of their own are wherever it is said."""
    if preset.base_url is None:
        return True
    home = urlsplit(preset.base_url).hostname
    rows = entry["endpoints"] or [{"url": entry.get("endpoint")}]
    return all(row["url"] is None or urlsplit(row["url"]).hostname == home for row in rows)


def _model(
    row: Mapping[str, Any],
    provider: Provider,
    order: int,
    kind: str,
    preset: Preset,
    thresholds: Thresholds,
    *,
    own_address: bool,
) -> Model:
    declared = frozenset(row.get("capabilities") or DEFAULT_CAPABILITIES)
    capabilities = declared.union(*(_IMPLIES.get(word, frozenset()) for word in declared))
    quality = row.get("quality")
    prior = row.get("latency_prior")
    upstream = row.get("model") or row.get(f"{kind}_model") or row["name"]
    price, source = _price(row, provider, capabilities), "operator"
    known: Known | None = None
    if price is None and own_address and not _priced(row):
        known = known_price(kind, upstream, writes_text="text-generation" in capabilities)
    if known is not None:
        price, source = known.price, known.provenance
    return Model(
        name=row["name"],
        upstream=upstream,
        provider=provider,
        capabilities=capabilities,
        order=order,
        price=price,
        price_source=None if price is None else source,
        cost_per_1k=_blended(row, provider),
        quality=_quality(quality),
        context_window=row.get("context_window")
        or row.get("max_context")
        or (None if known is None else known.context_window),
        max_output_tokens=row.get("max_output_tokens"),
        reasoning=row.get("reasoning") or "none",
        tools=MappingProxyType(dict(row.get("tools") or {})),
        response_formats=None
        if row.get("response_formats") is None
        else frozenset(row["response_formats"]),
        latency_prior_ms=prior * 1000.0 if prior is not None else None,
        owned_by=row.get("owned_by") or provider.id,
        continues=_continues(row, preset),
        track=Track(thresholds),
    )


def _quality(declared: Any) -> float | Mapping[str, float] | None:
    if isinstance(declared, Mapping):
        return MappingProxyType({k: float(v) for k, v in declared.items()})
    return None if declared is None else float(declared)


def _priced(row: Mapping[str, Any]) -> bool:
    """Whether an operator says anything of a model's price: then nobody else's figure counts."""
    said = (row.get("cost_per_1k_tokens"), row.get("cost_per_generation"))
    return any(value is not None for value in (*said, *(row.get("price") or {}).values()))


def _price(
    row: Mapping[str, Any], provider: Provider, capabilities: frozenset[str]
) -> Price | None:
    split = row.get("price") or {}
    blended = row.get("cost_per_1k_tokens")
    item = row.get("cost_per_generation")
    if item is None:
        item = split.get("per_image")
    both = split.get("input") is not None or split.get("output") is not None
    if blended is None and not both and item is None:
        # Running a model on one's own machine costs nothing a request could be charged for.
        return Price(0, 0) if provider.free else None
    given = {half: split.get(half) for half in ("input", "output")}
    # Half a price is no price: what is not said must not count as free under a cost limit.
    # An embedding writes no text, so its input price says it all.
    half = given["input"] is None or (given["output"] is None and "text-generation" in capabilities)
    if blended is None and both and half and not provider.free:
        return None
    fallback = blended if blended is not None else 0
    return Price(
        input=per_token(fallback if given["input"] is None else given["input"]),
        output=per_token(fallback if given["output"] is None else given["output"]),
        per_item=picodollars(item) if item is not None else 0,
        cache_read=None if split.get("cache_read") is None else per_token(split["cache_read"]),
        cache_write=None if split.get("cache_write") is None else per_token(split["cache_write"]),
    )


def _blended(row: Mapping[str, Any], provider: Provider) -> float | None:
    blended = row.get("cost_per_1k_tokens")
    if blended is not None:
        return float(blended)
    split = row.get("price") or {}
    halves = [Decimal(str(split[k])) for k in ("input", "output") if split.get(k) is not None]
    if halves:
        return float(sum(halves, Decimal(0)) / len(halves))
    return 0.0 if provider.free else None
