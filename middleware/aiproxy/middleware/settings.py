"""The part of a configuration that every request reads, as frozen values built once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final

from aiproxy.middleware.config import Config
from aiproxy.middleware.money.amounts import picodollars
from aiproxy.middleware.routing import plugins
from aiproxy.middleware.security.trust import LEVELS, Demands, strictest
from aiproxy.middleware.tasks import classifier
from aiproxy.spec import HEADERS

#: Served when ``server.endpoints`` does not say otherwise: path -> endpoint kind.
ENDPOINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "/v1/chat/completions": "chat",
        "/v1/responses": "responses",
        "/v1/completions": "completions",
        "/v1/embeddings": "embeddings",
        "/v1/messages": "anthropic",
        "/v1/messages/count_tokens": "anthropic",
        "/aiproxy/predict": "predict",
    }
)
#: Served too: the folder whose paths name the model and what to do with it (Google's form), and
#: where Google's client looks for it from its version 3 on.
MODEL_FOLDER: Final = "/v1beta/models"
NEWER_FOLDER: Final = "/v1/models"


def canonical_strategy(name: str) -> str:
    """The canonical name of a strategy in any spelling of the alias table, or of a plug-in.

    Raises:
        KeyError: unknown.
    """
    field = HEADERS["X-AI-Routing-Strategy"]
    folded = name.lower()
    for value in field.values:
        if value.lower() == folded:
            return value
    for alias, value in field.aliases.items():
        if alias.lower() == folded:
            return value
    plugin = plugins.canonical(name)
    if plugin is None:
        raise KeyError(name)
    return plugin


@dataclass(frozen=True, slots=True)
class Failover:
    """Section ``routing.failover``. Times in seconds; ``max_retries`` counts attempts beyond the
    first over the whole chain."""

    enabled: bool
    max_retries: int
    retry_delay_s: float
    same_provider_retries: int
    max_retry_after_s: float
    mid_stream: str
    chain: tuple[str, ...]
    model_fallbacks: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Hedging:
    """Section ``routing.hedging``, when it is on. ``after_s`` is ``None`` where what was measured
    of the first candidate decides; ``share`` is 0..1."""

    after_s: float | None
    share: float


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A client key; only its digest is kept."""

    name: str
    digest: bytes
    scopes: frozenset[str]
    models: frozenset[str] | None
    data_class: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Request-time settings. Durations in seconds, sizes in bytes, money in picodollars.

    ``unknown_class`` is what a data class that is not among ``classes`` demands, ``None`` where it
    is refused. ``classify`` tells the task of a body that says none.
    """

    node: str
    scope: str
    strategy: str
    weights: tuple[float, float, float]
    timeout_s: float
    max_cost: int | None
    strict_translation: bool
    repair_attempts: int
    auto_without_headers: bool
    lenient: bool
    keepalive_s: float | None
    failover: Failover
    hedging: Hedging | None
    spread: str | None
    transparency: str
    body_metadata: bool
    track_costs: bool
    max_request_bytes: int
    request_field_bytes: int
    response_field_bytes: int
    response_total_bytes: int
    endpoints: Mapping[str, str]
    model_folders: tuple[str, ...]
    disabled_paths: frozenset[str]
    classes: Mapping[str, Demands]
    unknown_class: Demands | None
    segregation: bool
    classify: Callable[[Mapping[str, Any]], str]
    keys: tuple[ApiKey, ...] | None


def build_settings(config: Config, *, scope: str | None = None) -> Settings:
    """Return the settings of a configuration; ``scope`` overrides ``routing.scope``."""
    values = config.values
    routing = values["routing"]
    limits = values["server"]["header_limits"]
    balancing = routing["load_balancing"]
    served, folders, disabled = _endpoints(values["server"]["endpoints"])
    cap = routing["max_cost"]
    weights = routing["weights"]
    classes, unknown = _classes(values["security"])
    return Settings(
        node=values["node"]["id"],
        scope=scope or routing["scope"],
        strategy=canonical_strategy(routing["strategy"]),
        weights=(float(weights["cost"]), float(weights["latency"]), float(weights["quality"])),
        timeout_s=routing["timeout"],
        max_cost=None if cap is None else picodollars(cap),
        strict_translation=routing["strict_translation"],
        repair_attempts=routing["repair_attempts"],
        auto_without_headers=routing["auto_without_headers"] == "select",
        lenient=routing["header_validation"] == "lenient",
        keepalive_s=routing["stream_keepalive"],
        failover=_failover(routing["failover"]),
        hedging=_hedging(routing["hedging"]),
        spread=balancing["strategy"] if balancing["enabled"] else None,
        transparency=values["transparency"],
        body_metadata=values["transparency_body"],
        track_costs=values["budget"]["track_costs"],
        max_request_bytes=values["server"]["max_request_size"],
        request_field_bytes=limits["request_field"],
        response_field_bytes=limits["response_field"],
        response_total_bytes=limits["response_total"],
        endpoints=served,
        model_folders=folders,
        disabled_paths=disabled,
        classes=classes,
        unknown_class=unknown,
        segregation=values["security"]["segregation"]["enabled"],
        classify=classifier(config),
        keys=_keys(values["security"]["auth"]),
    )


def _classes(security: Mapping[str, Any]) -> tuple[Mapping[str, Demands], Demands | None]:
    """The data classes, and what an unknown one demands; without any class it is refused."""
    classes = {
        name: Demands(
            labels=frozenset(row["labels"]),
            regions=frozenset(row["regions"]),
            local_only=row["local_only"],
            level=0 if row["min_level"] is None else LEVELS[row["min_level"]],
        )
        for name, row in security["classes"].items()
    }
    refused = security["unknown_class"] == "refuse" or not classes
    return classes, None if refused else strictest(classes)


def _hedging(row: Mapping[str, Any]) -> Hedging | None:
    return Hedging(row["after"], row["max_percent"] / 100) if row["enabled"] else None


def _failover(row: Mapping[str, Any]) -> Failover:
    return Failover(
        enabled=row["enabled"],
        max_retries=row["max_retries"],
        retry_delay_s=row["retry_delay"],
        same_provider_retries=row["same_provider_retries"],
        max_retry_after_s=row["max_retry_after"],
        mid_stream=row["mid_stream"],
        chain=tuple(row["fallback_chain"]),
        model_fallbacks={k: tuple(v) for k, v in row["model_fallbacks"].items()},
    )


def _endpoints(
    rows: list[Mapping[str, Any]] | None,
) -> tuple[Mapping[str, str], tuple[str, ...], frozenset[str]]:
    """The served paths by kind, the model folders (ending in a slash), and what is switched off.

    A given list is exhaustive; what it leaves out or switches off is answered with 404.
    """
    if rows is None:
        return ENDPOINTS, _folders(MODEL_FOLDER), frozenset()
    on = {row["path"] for row in rows if row["enabled"]}
    # The draft's own endpoint is missing from the Standard's sample list; it is on unless named.
    named = {row["path"] for row in rows}
    if "/v1/responses" not in named and "/v1/chat/completions" in on:
        on.add("/v1/responses")
    served: dict[str, str] = {}
    folders: list[str] = []
    for row in rows:
        path = row["path"]
        if path not in on:
            continue
        kind = _kind(path, row["protocol"])
        if kind == "gemini":
            folders += _folders(path.rstrip("/"))
        elif kind is not None:
            served[path] = kind
        if kind == "anthropic" and not path.endswith(_COUNTING) and path + _COUNTING not in named:
            served[path + _COUNTING] = kind
    if "/v1/responses" in on:
        served["/v1/responses"] = "responses"
    known = {*ENDPOINTS, MODEL_FOLDER}
    off = known - served.keys() - {folder[:-1] for folder in folders}
    return served, tuple(folders), frozenset(off)


#: What counts the tokens of a request instead of answering it, below the path that answers.
_COUNTING: Final = "/count_tokens"
#: Protocols of one kind of path only.
_PROTOCOLS: Final[Mapping[str, str]] = {
    "native": "predict",
    "anthropic": "anthropic",
    "google": "gemini",
}


def _folders(path: str) -> tuple[str, ...]:
    """A folder and, beside the older one, the newer one."""
    if not path.endswith(MODEL_FOLDER):
        return (path + "/",)
    return (path + "/", path.removesuffix(MODEL_FOLDER) + NEWER_FOLDER + "/")


def _kind(path: str, protocol: str) -> str | None:
    kind = ENDPOINTS.get(path) or _PROTOCOLS.get(protocol)
    if kind is not None:
        return kind
    if path.rstrip("/").endswith(MODEL_FOLDER):
        return "gemini"
    return next((k for p, k in ENDPOINTS.items() if path.endswith(p[3:])), None)


def _keys(auth: Mapping[str, Any]) -> tuple[ApiKey, ...] | None:
    enabled = auth["enabled"]
    if enabled is None:
        enabled = bool(auth["api_keys"])
    if not enabled:
        return None
    return tuple(
        ApiKey(
            name=row["name"],
            digest=sha256(row["key"].encode()).digest(),
            scopes=frozenset(row["scopes"]),
            models=None if row.get("models") is None else frozenset(row["models"]),
            data_class=row.get("data_classification"),
        )
        for row in auth["api_keys"]
    )
