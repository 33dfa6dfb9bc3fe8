"""The rendered configuration as values: providers with their models, routing, budget, security."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
SIZES = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "KB": 1000, "MB": 10**6, "GB": 10**9, "B": 1}
DIALECTS = {
    "anthropic": "anthropic",
    "google": "google",
    "gemini": "google",
    "cohere": "cohere",
    "mistral": "mistral",
    "cloudflare": "cloudflare",
    "mesh_peer": "peer",
}
LOCAL_TYPES = {"local", "app", "ollama", "lmstudio", "localai", "vllm"}
STRATEGIES = {
    "cost": ("cost_optimized", "cost-optimized", "costoptimized"),
    "latency": (
        "latency_optimized", "latency-optimized", "latencyoptimized",
        "performanceoptimized", "performance_optimized", "performance-optimized",
    ),
    "quality": ("quality_optimized", "quality-optimized", "qualityoptimized"),
    "capability-first": ("capability_first", "capabilityfirst"),
    "balanced": (),
    "availability": (),
    "round_robin": ("round-robin", "roundrobin"),
}  # fmt: skip


def seconds(text: str | None, default: float) -> float:
    """Return a duration such as ``250ms`` in seconds."""
    if text is None:
        return default
    number = text.rstrip("msh")
    return float(number) * UNITS[text[len(number) :]]


def octets(text: str | None, default: int) -> int:
    """Return a size such as ``2KiB`` in octets."""
    if text is None:
        return default
    number = text.rstrip("KMGiB")
    return int(float(number) * SIZES[text[len(number) :]])


def canonical(strategy: str) -> str | None:
    """Return the one spelling of a strategy, or nothing for an unknown one."""
    folded = strategy.lower()
    for name, others in STRATEGIES.items():
        if folded == name or folded in others:
            return name
    return None


def usd(value: Any) -> Decimal | None:
    """Return an amount exactly as it was written."""
    return None if value is None else Decimal(str(value))


@dataclass(eq=False)
class Model:
    """One model of one provider. ``price`` is USD per 1k tokens (input, output), None unknown."""

    name: str
    upstream: str
    provider: "Provider"
    order: int
    capabilities: frozenset[str]
    price: tuple[Decimal, Decimal] | None
    listed_price: Decimal | None
    quality: float | Mapping[str, float] | None
    context: int | None
    output: int | None
    reasoning: str
    tools: Mapping[str, str]
    prior_ms: float | None

    def quality_for(self, task: str) -> float | None:
        """Return the declared quality for a task: the map's own, then ``general``, then the mean."""
        if self.quality is None or isinstance(self.quality, int | float):
            return self.quality
        scores = dict(self.quality)
        mean = sum(scores.values()) / len(scores) if scores else None
        return scores.get(task, scores.get("general", mean))


@dataclass(eq=False)
class Provider:
    """One provider and how it is reached. Times are seconds."""

    id: str
    type: str
    order: int
    raw: Mapping[str, Any]
    priority: int
    weight: float
    dialect: str
    base: str
    local: bool
    timeouts: Mapping[str, float]
    models: list[Model] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The credential: an API key, or Cloudflare's token."""
        held = self.raw.get("credentials") or {}
        return held.get("api_key") or held.get("api_token") or ""

    @property
    def labels(self) -> frozenset[str]:
        """What the operator attests."""
        rows = (self.raw.get("security") or {}).get("labels") or ()
        return frozenset(row if isinstance(row, str) else row["label"] for row in rows)

    @property
    def regions(self) -> frozenset[str]:
        """Where the operator says data is processed."""
        return frozenset((self.raw.get("security") or {}).get("regions") or ())


class Settings:
    """What the router is told. ``raw`` is the whole mapping, for what is read in one place only."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.node = (raw.get("node") or {}).get("id") or "aiproxy"
        self.routing: Mapping[str, Any] = raw.get("routing") or {}
        self.failover: Mapping[str, Any] = self.routing.get("failover") or {}
        self.balancing: Mapping[str, Any] = self.routing.get("load_balancing") or {}
        self.health: Mapping[str, Any] = self.routing.get("health") or {}
        self.security: Mapping[str, Any] = raw.get("security") or {}
        self.budget: Mapping[str, Any] = raw.get("budget") or {}
        self.strategy = canonical(self.routing.get("strategy") or "cost") or "cost"
        self.timeout_s = seconds(self.routing.get("timeout"), 600.0)
        self.max_cost = usd(self.routing.get("max_cost"))
        limits = (raw.get("server") or {}).get("header_limits") or {}
        self.request_field = octets(limits.get("request_field"), 2048)
        self.response_field = octets(limits.get("response_field"), 2048)
        self.response_total = octets(limits.get("response_total"), 3072)
        self.max_body = octets((raw.get("server") or {}).get("max_request_size"), 10_000_000)
        given = (raw.get("providers") or {}).items()
        self.disabled = {name for name, entry in given if entry.get("enabled") is False}
        self.providers = {
            name: read_provider(name, entry, place)
            for place, (name, entry) in enumerate(given)
            if name not in self.disabled
        }
        self.models = [model for p in self.providers.values() for model in p.models]
        self.aliases = {
            alias: name for name, p in self.providers.items() for alias in p.raw.get("aliases", ())
        }

    @property
    def default(self) -> Provider:
        """The provider of requests that express no preference."""
        named = self.routing.get("default_provider")
        if named in self.providers:
            return self.providers[named]
        return min(self.providers.values(), key=lambda p: (p.priority, p.order))


def read_provider(name: str, raw: Mapping[str, Any], place: int) -> Provider:
    """Return one entry of ``providers``."""
    kind = raw.get("type") or name
    told = raw.get("timeouts") or {}
    timeouts = {
        phase: seconds(told.get(phase), default)
        for phase, default in (
            ("connect", 5.0), ("first_byte", 120.0), ("first_token", 60.0),
            ("idle", 60.0), ("total", 600.0),
        )
    }  # fmt: skip
    local = raw.get("local")
    provider = Provider(
        id=name,
        type=kind,
        order=place,
        raw=raw,
        priority=raw.get("priority", 100),
        weight=raw.get("weight", 1),
        dialect=DIALECTS.get(kind, "openai"),
        base=base_url(raw),
        local=kind in LOCAL_TYPES if local is None else local,
        timeouts=timeouts,
    )
    for entry in raw.get("models") or ():
        provider.models.append(read_model(entry, provider, len(provider.models)))
    return provider


def base_url(raw: Mapping[str, Any]) -> str:
    """Return the endpoint without its version segment."""
    endpoints = raw.get("endpoints") or ({"url": raw.get("endpoint") or ""},)
    url = str(endpoints[0]["url"]).rstrip("/")
    path = urlsplit(url).path
    for version in ("/v1beta", "/openai/v1", "/v1", "/v2"):
        if path.endswith(version):
            return url[: -len(version)]
    return url


def read_model(raw: Mapping[str, Any], provider: Provider, place: int) -> Model:
    """Return one model of a provider."""
    blended = usd(raw.get("cost_per_1k_tokens"))
    if blended is None and provider.local:
        blended = Decimal(0)
    parts = raw.get("price") or {}
    sides = [usd(parts.get(side)) for side in ("input", "output")]
    sides = [blended if side is None else side for side in sides]
    price = None if None in sides else (sides[0], sides[1])
    prior = raw.get("latency_prior")
    return Model(
        name=raw["name"],
        upstream=raw.get("model") or raw.get(f"{provider.type}_model") or raw["name"],
        provider=provider,
        order=place,
        capabilities=frozenset(raw.get("capabilities") or ("text-generation",)),
        price=price,  # type: ignore[arg-type]
        listed_price=blended if blended is not None else sides[0],
        quality=raw.get("quality"),
        context=raw.get("context_window"),
        output=raw.get("max_output_tokens"),
        reasoning=raw.get("reasoning") or "none",
        tools=raw.get("tools") or {},
        prior_ms=None if prior is None else seconds(prior, 0.0) * 1000,
    )
