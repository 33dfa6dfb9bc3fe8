"""What one request asks for: ``auto`` parameters x preferences (draft section 5, rules 1 to 4).

The total order (XAI-SYNC-014): security and data class > pool and cost limit > explicit parameters
> quality and latency > strategy > hints > configuration. Constraints end up in ``Constraints`` and
are never relaxed; everything that was set aside is listed in ``Intent.ignored``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiproxy.middleware.auto.listing import chosen_name, selectable
from aiproxy.middleware.classify import GENERAL
from aiproxy.middleware.dialects import estimate, features
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.money.amounts import picodollars
from aiproxy.middleware.preferences import Ignored, Preferences
from aiproxy.middleware.registry import Registry
from aiproxy.middleware.security import trust
from aiproxy.middleware.settings import Settings, canonical_strategy

AUTO: Final = "auto"
#: Parameters that take ``auto`` in a body (draft Table 1); ``tool_choice`` keeps its usual meaning.
LIMIT_NAMES: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
#: Endpoints whose bodies are looked at as they are; all others are, or are shown as, chat.
_OWN_SHAPES: Final = frozenset({"responses", "completions", "embeddings", "classifications"})
#: Endpoints whose answer is no text, and the one capability they need.
_ANSWERS_BESIDE_TEXT: Final = {
    "embeddings": "embeddings",
    "classifications": "image-classification",
}
#: Output assumed for a cost estimate when neither the request nor the model bounds it.
DEFAULT_OUTPUT_TOKENS: Final = 1024


@dataclass(slots=True)
class Constraints:
    """What a candidate must satisfy. ``blame`` says which header or parameter set each one.

    ``budget`` is what is left to spend; like ``cost_limit`` it binds the worst case (T-25).

    ``level`` is the least security level (``trust.LEVELS``); ``classes`` are the data classes that
    the demands on labels, regions, locality and level come from.
    """

    pool: frozenset[str] | None = None
    cost_limit: int | None = None
    budget: int | None = None
    quality: float | None = None
    max_latency_ms: float | None = None
    labels: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    local_only: bool = False
    level: int = 0
    classes: tuple[str, ...] = ()
    blame: Mapping[str, str] = field(default_factory=dict)

    @property
    def spendable(self) -> int | None:
        """The smaller of the cost limit and what is left of the budget."""
        if self.cost_limit is None or self.budget is None:
            return self.cost_limit if self.budget is None else self.budget
        return min(self.cost_limit, self.budget)


@dataclass(slots=True)
class Intent:
    """One request, understood.

    ``endpoint`` is chat, responses, draft, completions, embeddings or classifications. ``mode`` is *plain* (no X-AI
    header), *assisted* (headers help) or *disabled* (the master switch is off). ``binding`` is
    false where quality and latency only pick among providers of an explicit model.
    ``needs`` are capabilities, ``features`` what the body uses beyond them. ``longest_input`` is
    set where a request has several inputs that are read one by one. ``prompt_member`` is where the
    client wrote the prompt.
    """

    endpoint: str
    mode: str
    model: str
    model_auto: bool
    autos: tuple[str, ...]
    constraints: Constraints
    binding: bool
    needs: frozenset[str]
    features: frozenset[str]
    strategy: str
    strategy_source: str
    task: str
    task_source: str
    failover: str
    stream: bool
    prompt_tokens: int
    output_limit: int | None
    copies: int
    reasoning: str | None
    tool_categories: tuple[str, ...]
    ignored: tuple[Ignored, ...]
    unknown_pool: tuple[str, ...]
    timeout_s: float
    longest_input: int | None = None
    prompt_member: str = "messages"

    @property
    def window_tokens(self) -> int:
        """Tokens a context window must be larger than: those of the prompt, or of the longest of
        several inputs; a vector leaves no room for an answer."""
        held = self.prompt_tokens if self.longest_input is None else self.longest_input
        return held if self.writes_text else held - 1

    @property
    def selects(self) -> bool:
        """Whether the router may choose among models: without a header, or with the switch off,
        ``auto`` is the default provider's default model (XAI-SYNC-002, XAI-SYNC-007)."""
        return self.model_auto and self.mode == "assisted"

    @property
    def writes_text(self) -> bool:
        """Whether the answer is text, and so has output tokens."""
        return "text-generation" in self.needs

    @property
    def ladder(self) -> bool:
        """Whether the rung of reasoning a model declares ranks it before the strategy does:
        reasoning was asked for by ``auto`` or a preference, and the router chooses the model."""
        if not self.selects:
            return False
        asked = "reasoning" in self.autos or "reasoning_effort" in self.autos
        return asked or self.reasoning is not None


@dataclass(frozen=True, slots=True)
class Native:
    """The ``routing`` member of a native predict request, validated (AIProxy section 5.2)."""

    strategy: str | None = None
    max_cost: int | None = None
    timeout_s: float | None = None


_NO_ROUTING: Final = Native()
#: Where the prompt stands, by endpoint; ``messages`` elsewhere.
_PROMPTS: Final = {
    "predict": "input",
    "responses": "input",
    "embeddings": "input",
    "completions": "prompt",
    "gemini": "contents",
}


def understand(
    endpoint: str,
    body: Mapping[str, Any],
    preferences: Preferences,
    settings: Settings,
    registry: Registry,
    native: Native | None = None,
    *,
    key_class: str | None = None,
    tagged: Sequence[tuple[str, str]] = (),
) -> Intent:
    """Return the intent of a validated body under its preferences, and those of a ``native``
    predict request.

    ``body`` is in OpenAI's shape; of a foreign ingress it is the chat view of the client's own.

    ``key_class`` is the data class of everything that comes with the caller's key, ``tagged`` those
    of messages and parts, each with where it stands; they hold beside the one a header names.

    Raises:
        ProxyError: 422 for an unknown security label, data class or an unusable pool; 404 for a
            model nobody serves; 400 for a tool choice that nobody here can make.
    """
    routing = native or _NO_ROUTING
    model = body["model"]
    asked_auto = model == AUTO
    autos = _autos(body, asked_auto)
    mode = "plain"
    if preferences.active:
        mode = "disabled" if preferences.disabled else "assisted"
    elif asked_auto and settings.auto_without_headers:
        mode = "assisted"
    ignored = list(preferences.ignored)
    selects = asked_auto and mode == "assisted"
    if mode == "disabled":
        ignored += [Ignored(name, "multi_provider_disabled") for name in _set_aside(preferences)]
    elif mode == "assisted" and not asked_auto:
        ignored += _unused_beside_explicit_model(preferences, autos)
    classes = [*tagged]
    if preferences.data_class is not None:
        classes.insert(0, (preferences.data_class, trust.DATA_CLASS))
    if key_class is not None:
        classes.append((key_class, trust.KEY))
    constraints, unknown = _constraints(preferences, settings, registry, mode, routing, classes)
    strategy, source = _strategy(preferences, settings, routing, selects)
    if "tools" in autos and isinstance(body.get("tool_choice"), Mapping):
        _check_choice(body, preferences, registry, constraints.pool, mode)
    task, task_source = _task(preferences, body, selects, settings)
    dialect = endpoint if endpoint in _OWN_SHAPES else "chat"
    wanted = features.needs(dialect, body)
    return Intent(
        endpoint=endpoint,
        mode=mode,
        model=model,
        model_auto=asked_auto,
        autos=autos,
        constraints=constraints,
        binding=asked_auto,
        needs=_capabilities(endpoint, wanted),
        features=wanted,
        strategy=strategy,
        strategy_source=source,
        task=task,
        task_source=task_source,
        failover=_failover(preferences, settings, mode),
        stream=body.get("stream") is True,
        prompt_tokens=estimate.prompt_tokens(dialect, body),
        output_limit=_output_limit(body),
        copies=body.get("n") or 1,
        reasoning=preferences.reasoning if mode == "assisted" else None,
        tool_categories=preferences.tool_categories if mode == "assisted" else (),
        ignored=tuple(ignored),
        unknown_pool=unknown,
        timeout_s=min(settings.timeout_s, routing.timeout_s or settings.timeout_s),
        longest_input=estimate.longest_input(body) if endpoint == "embeddings" else None,
        prompt_member=_PROMPTS.get(endpoint if native is None else "predict", "messages"),
    )


def _autos(body: Mapping[str, Any], model_auto: bool) -> tuple[str, ...]:
    found = ["model"] if model_auto else []
    found += [
        name
        for name in ("tools", "reasoning", "reasoning_effort", *LIMIT_NAMES)
        if body.get(name) == AUTO
    ]
    if body.get("response_format") in (AUTO, "provider-adaptive"):
        found.append("response_format")
    return tuple(found)


def _set_aside(preferences: Preferences) -> list[str]:
    """Headers that the master switch turns off. Security is never among them (XAI-SYNC-004)."""
    held = {
        "X-AI-Provider-Pool": preferences.pool,
        "X-AI-Routing-Strategy": preferences.strategy,
        "X-AI-Task-Hint": preferences.task,
        "X-AI-Tool-Categories": preferences.tool_categories,
        "X-AI-Reasoning-Preference": preferences.reasoning,
        "X-AI-Quality-Threshold": preferences.quality,
        "X-AI-Max-Latency": preferences.max_latency_ms,
        "X-AI-Cost-Limit": preferences.cost_limit,
        "X-AI-Failover-Policy": preferences.failover,
        "X-AI-Conversation-ID": preferences.conversation_id,
        "X-AI-Parent-Conversation": preferences.parent_conversation,
        "X-AI-Workflow-Branch": preferences.workflow_branch,
        "X-AI-Merge-Branches": preferences.merge_branches,
    }
    return [name for name, value in held.items() if value not in (None, ())]


def _unused_beside_explicit_model(
    preferences: Preferences, autos: tuple[str, ...]
) -> list[Ignored]:
    """Rule 1: an explicit parameter stands, headers meant for its choice are ignored."""
    found = []
    if preferences.task is not None:
        found.append(Ignored("X-AI-Task-Hint", "explicit_model"))
    if preferences.strategy is not None:
        found.append(Ignored("X-AI-Routing-Strategy", "explicit_model"))
    if preferences.tool_categories and "tools" not in autos:
        found.append(Ignored("X-AI-Tool-Categories", "tools_not_auto"))
    if preferences.reasoning is not None and not {"reasoning", "reasoning_effort"} & set(autos):
        found.append(Ignored("X-AI-Reasoning-Preference", "reasoning_not_auto"))
    return found


def _constraints(
    preferences: Preferences,
    settings: Settings,
    registry: Registry,
    mode: str,
    native: Native,
    classes: Sequence[tuple[str, str]],
) -> tuple[Constraints, tuple[str, ...]]:
    blame: dict[str, str] = {}
    demands = trust.NOTHING
    if classes or preferences.security:
        demands = trust.demands_of(preferences.security, classes, settings, registry.labels, blame)
    pool: frozenset[str] | None = None
    unknown: tuple[str, ...] = ()
    limit, quality, latency = settings.max_cost, None, None
    if limit is not None:
        blame["cost_limit"] = "routing.max_cost"
    if native.max_cost is not None and (limit is None or native.max_cost < limit):
        limit = native.max_cost
        blame["cost_limit"] = "routing.max_cost"
    if mode != "disabled":
        if preferences.pool is not None:
            pool, unknown = _pool(preferences.pool, registry)
            blame["pool"] = "X-AI-Provider-Pool"
        if preferences.cost_limit is not None:
            asked = picodollars(preferences.cost_limit)
            if limit is None or asked <= limit:
                limit = asked
                blame["cost_limit"] = "X-AI-Cost-Limit"
        quality, latency = preferences.quality, preferences.max_latency_ms
        blame["quality"] = "X-AI-Quality-Threshold"
        blame["max_latency_ms"] = "X-AI-Max-Latency"
    found = Constraints(
        pool=pool,
        cost_limit=limit,
        quality=quality if quality else None,
        max_latency_ms=latency,
        labels=demands.labels,
        regions=demands.regions,
        local_only=demands.local_only,
        level=demands.level,
        classes=tuple(dict.fromkeys(name for name, _ in classes)),
        blame=blame,
    )
    return found, unknown


def _pool(named: tuple[str, ...], registry: Registry) -> tuple[frozenset[str], tuple[str, ...]]:
    known = frozenset(
        registry.aliases.get(name, name)
        for name in named
        if name in registry.providers or name in registry.aliases
    )
    if not known:
        raise ProxyError(
            "no_eligible_provider",
            "X-AI-Provider-Pool names no provider known here; GET /v1/models lists them.",
            param="X-AI-Provider-Pool",
            should_retry=False,
        )
    return known, tuple(
        name for name in named if name not in registry.providers and name not in registry.aliases
    )


def _check_choice(
    body: Mapping[str, Any],
    preferences: Preferences,
    registry: Registry,
    pool: frozenset[str] | None,
    mode: str,
) -> None:
    """Refuse a ``tool_choice`` beside ``tools: "auto"`` that names no listed tool (XAI-TOOL-014)."""
    name = chosen_name(body["tool_choice"])
    if name is None:
        return
    models = registry.models if body["model"] == AUTO else registry.named(body["model"])
    if pool is not None:
        models = tuple(model for model in models if model.provider.id in pool)
    if not models:
        return  # nobody serves it at all
    categories = preferences.tool_categories
    if mode != "assisted" or name not in selectable(models, categories):
        raise ProxyError(
            "invalid_value",
            "tool_choice names a tool that is not among those tools: auto may be resolved to.",
            param="tool_choice",
        )


def _strategy(
    preferences: Preferences, settings: Settings, native: Native, selects: bool
) -> tuple[str, str]:
    if selects and preferences.strategy is not None:
        return preferences.strategy, "header"
    if native.strategy is not None:
        return canonical_strategy(native.strategy), "body"
    return settings.strategy, "config"


def _task(
    preferences: Preferences, body: Mapping[str, Any], selects: bool, settings: Settings
) -> tuple[str, str]:
    if not selects:
        return GENERAL, "none"
    if preferences.task is not None:
        return preferences.task, "hint"
    return settings.classify(body), "classified"


def _capabilities(endpoint: str, wanted: frozenset[str]) -> frozenset[str]:
    if endpoint in _ANSWERS_BESIDE_TEXT:
        return frozenset({_ANSWERS_BESIDE_TEXT[endpoint]})
    needs = {"text-generation"}
    if "vision" in wanted:
        needs.add("vision")
    return frozenset(needs)


def _failover(preferences: Preferences, settings: Settings, mode: str) -> str:
    if mode == "disabled":
        return "none"
    if preferences.failover is not None:
        return preferences.failover
    return "automatic" if settings.failover.enabled else "none"


def _output_limit(body: Mapping[str, Any]) -> int | None:
    for name in LIMIT_NAMES:
        value = body.get(name)
        if isinstance(value, int):
            return value
    return None
