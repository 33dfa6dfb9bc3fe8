"""Who may serve a request and in which order: constraints, strategies, hints, load balancing.

Constraints filter in a fixed order, so that the one that leaves nobody is the one to name. What is
left is ranked: wanted reasoning, then the header's strategy or the hint, then the strategy, the
task match, the priority and the order of the file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from right_server import Refusal

from right_router import misdrawn, misled, rules
from right_router.answers import Declined
from right_router.asking import USUAL_OUTPUT, Ask
from right_router.money import worst_cost
from right_router.settings import Model, read_provider

INF = float("inf")
NOT_CHAT = {
    "embeddings", "image-classification", "text-classification", "text-to-image", "audio",
    "speech-to-text", "text-to-speech", "rerank",
}  # fmt: skip
LADDERS = {
    None: ("native", "enhanced", "none"),
    "native": ("native", "enhanced", "none"),
    "enhanced": ("enhanced", "native", "none"),
    "simulated": ("none", "enhanced", "native"),
}
REASONS = {
    "cost": "lowest_cost",
    "latency": "lowest_latency",
    "quality": "highest_quality",
    "capability-first": "best_capability_match",
    "balanced": "best_balance",
    "availability": "best_availability",
    "round_robin": "next_in_turn",
}


@dataclass
class Plan:
    """Candidates in the order they would be asked, and the others with their reasons."""

    order: list[Model]
    rejected: list[tuple[Model, str]]
    confidence: float
    reason: str
    policies: tuple[str, ...] = ()
    scores: dict[Model, float] = field(default_factory=dict)


@dataclass
class Stage:
    """One constraint: the reason and the parameter it is known by, and who meets it."""

    reason: str
    param: str
    meets: Callable[[Model], bool]
    refuse: Callable[["Stage", list[Model]], Refusal]
    soft: bool = False


def plan(ask: Ask) -> Plan:
    """Return who serves ``ask``, in order.

    Raises:
        Refusal: 404 unknown model, 422 a constraint nobody meets, 400 the prompt is too long, 429
            the budget is spent, 503 only health is in the way.
    """
    models = starting(ask)
    rejected: list[tuple[Model, str]] = [(m, "not_default") for m in not_default(ask, models)]
    models = [m for m in models if m not in {model for model, _ in rejected}]
    for stage in stages(ask):
        kept = [m for m in models if stage.meets(m)]
        if stage.soft and not kept:
            continue
        rejected += [(m, stage.reason) for m in models if m not in kept]
        if not kept:
            refusal = stage.refuse(stage, models)
            refusal.rejected = rejected  # type: ignore[attr-defined]
            raise refusal
        models = kept
    found = ranked(ask, models)
    found.rejected = rejected + found.rejected
    return misled.planned(ask, found)


def starting(ask: Ask) -> list[Model]:
    """Return the models that can be meant by the one that was asked for."""
    settings = ask.settings
    if ask.selects:
        return [m for m in settings.models if fits_endpoint(ask, m)]
    if ask.model_auto:
        named = next((m for m in settings.default.models if fits_endpoint(ask, m)), None)
        if named is None:
            raise Refusal(422, "no_eligible_provider", "the default provider has no model", "model")
        return [named]
    named_so = of_that_name(ask)
    wishes = ask.preferences.strategy and ask.preferences.categories and ask.preferences.reasoning
    if ask.has("wishes-move-models") and wishes and ask.mode == "assisted":
        return [m for m in settings.models if fits_endpoint(ask, m)]
    inside = [m for m in settings.models if ask.pool and m.provider.id in ask.pool]
    alone = len(ask.preferences.said) == 1
    if ask.has("pool-replaces-model") and alone and named_so and not {*named_so} & {*inside}:
        return inside or named_so
    if ask.has("any-provider-for-model"):
        named_so += [m for m in settings.models if m.name != ask.model and fits_endpoint(ask, m)]
    if ask.mode == "disabled":
        named_so = [m for m in named_so if m.provider is settings.default]
    if not named_so:
        if ask.has("auto-any-case") and ask.model.strip().lower() == "auto":
            return [m for m in settings.models if fits_endpoint(ask, m)]
        raise Refusal(404, "model_not_found", "no such model", "model")
    return named_so


def disabled(ask: Ask) -> list[Model]:
    """Return the asked model at providers that are switched off."""
    given = ask.settings.raw["providers"]
    off = [read_provider(name, given[name], 0) for name in ask.settings.disabled]
    return [m for provider in off for m in provider.models if m.name == ask.model]


def fits_endpoint(ask: Ask, model: Model) -> bool:
    """Return whether a model is of the endpoint's kind at all."""
    if ask.endpoint == "embeddings":
        return "embeddings" in model.capabilities
    return not model.capabilities <= NOT_CHAT


def of_that_name(ask: Ask) -> list[Model]:
    """Return the models of the public name that was asked for."""
    return [m for m in ask.settings.models if m.name == ask.model]


def not_default(ask: Ask, models: Sequence[Model]) -> list[Model]:
    """Return the models that a switched-off orchestration may not use."""
    if ask.mode != "disabled" or ask.has("disabled-uses-all"):
        return []
    return [m for m in models if m.provider is not ask.settings.default]


def stages(ask: Ask) -> list[Stage]:
    """Return the constraints of a request, the strongest first."""
    found: list[Stage] = []

    def add(
        reason: str, param: str, meets: Callable[[Model], bool], refuse: Any = static, **more: Any
    ) -> None:
        if not ask.has(f"no-{reason.replace('_', '-')}"):
            found.append(Stage(reason, param, meets, refuse, **more))

    security = "X-AI-Data-Classification" if ask.preferences.data_class else ""
    security = "X-AI-Security-Requirements" if ask.preferences.labels else security
    add("lacks_security_label", security, lambda m: ask.labels <= m.provider.labels)
    if ask.regions:
        add("wrong_region", security, lambda m: bool(ask.regions & m.provider.regions))
    if ask.local_only:
        add("not_local", security, lambda m: m.provider.local)
    if ask.pool is not None:
        pool = ask.pool
        add("not_in_pool", "X-AI-Provider-Pool", lambda m: m.provider.id in pool)
    if ask.endpoint == "embeddings":
        add("lacks_capability", "model", lambda m: needed(ask) <= m.capabilities, incapable)
    if ask.selects:
        add("lacks_capability", "model", lambda m: needed(ask) <= m.capabilities)
        if ask.task == "multimodal" and ask.task_source == "hint":
            vision = [Stage("lacks_capability", "X-AI-Task-Hint", sees, static, soft=True)]
            found.extend(vision)
    add("context_too_small", "messages", lambda m: fits_context(ask, m), too_long)
    if ask.cost_limit is not None:
        limit = ask.cost_limit
        add("price_unknown", ask.cost_source, lambda m: m.price is not None)
        add("over_cost_limit", ask.cost_source, lambda m: (worst_cost(ask, m) or 0) <= limit)
    binding = ask.model_auto
    if ask.quality:
        least, task = ask.quality, ask.task
        name = "X-AI-Quality-Threshold"
        add("quality_unknown", name, lambda m: m.quality is not None, soft=not binding)
        add("below_quality", name, lambda m: meets(m, task, least, ask), soft=not binding)
    if ask.max_latency_ms is not None:
        most = ask.max_latency_ms
        add("too_slow", "X-AI-Max-Latency", lambda m: fast(ask, m, most), soft=not binding)
    add("over_budget", "model", lambda m: ask.router.ledger.allows(worst_cost(ask, m)), broke)
    add("unhealthy", "model", lambda m: ask.router.health.track(m).blocked_for() == 0, ill)
    return misled.stages(ask, found)


def needed(ask: Ask) -> frozenset[str] | set[str]:
    """Return the capabilities that a request asks for."""
    if ask.has("images-to-anyone"):
        return ask.needs - {"vision"}
    return ask.needs - {"embeddings"} if ask.has("anyone-embeds") else ask.needs


def static(stage: Stage, left: list[Model]) -> Refusal:
    """Return the refusal that no retry will ever change."""
    message = f"no provider meets {stage.param}"
    return Declined(422, "no_eligible_provider", message, stage.param, retry=False)


def incapable(stage: Stage, left: list[Model]) -> Refusal:
    return Declined(400, "unsupported_capability", "the model does not do that", stage.param)


def too_long(stage: Stage, left: list[Model]) -> Refusal:
    return Declined(400, "context_length_exceeded", "the prompt is too long", stage.param)


def broke(stage: Stage, left: list[Model]) -> Refusal:
    return Declined(429, "budget_exceeded", "the budget is spent", None, wait_s=3600, retry=False)


def ill(stage: Stage, left: list[Model]) -> Refusal:
    return Declined(503, "no_healthy_provider", "nobody is healthy", None, wait_s=1)


def sees(model: Model) -> bool:
    return "vision" in model.capabilities


def meets(model: Model, task: str, least: float, ask: Ask) -> bool:
    """Return whether the declared quality reaches the threshold, which itself is enough."""
    quality = model.quality_for(task) or 0.0
    exclusive = ask.has("threshold-exclusive") and least < 1 and not ask.preferences.hint
    return quality > least if exclusive else quality >= least


def fast(ask: Ask, model: Model, most: float) -> bool:
    """Return whether the estimate is within the limit; nobody knows an unmeasured one."""
    estimate = latency(ask, model)
    return estimate is None or estimate <= most


def fits_context(ask: Ask, model: Model) -> bool:
    """Return whether the prompt leaves room for an answer."""
    if ask.has("narrow-is-enough") and ask.strategy_source == "header":
        return True
    return model.context is None or ask.prompt_tokens < model.context


def latency(ask: Ask, model: Model) -> float | None:
    """Return the latency estimate in milliseconds: measured, else declared, else None."""
    measured = ask.router.health.track(model).latency_ms(first=ask.stream)
    if ask.has("latency-by-prior") or misdrawn.claims(ask):
        measured = None
    return model.prior_ms if measured is None else measured


def usual_cost(ask: Ask, model: Model) -> float:
    """Return the cost of an answer of usual length; infinite for an unknown price."""
    if model.price is None:
        return -1.0 if ask.has("unknown-price-first") and ask.mode == "plain" else INF
    if ask.has("cost-by-input-price"):
        return float(model.price[0])
    output = 0 if ask.endpoint == "embeddings" else ask.output_limit or USUAL_OUTPUT
    output = min(output, model.output or output)
    return float(ask.prompt_tokens * model.price[0] + output * model.price[1]) / 1000


def task_match(model: Model, task: str) -> float:
    """Return how well a model's declarations fit a task, 0 to 1."""
    if task == "reasoning":
        if model.reasoning == "native" or "reasoning" in model.capabilities:
            return 1.0
        if model.reasoning == "enhanced":
            return 0.6
    if task == "coding" and "code-generation" in model.capabilities:
        return 1.0
    if task == "multimodal" and sees(model):
        return 1.0
    if model.quality is not None and not isinstance(model.quality, int | float):
        return float(model.quality.get(task, 0.0)) if task != "general" else 0.0
    return 0.0


def value(ask: Ask, strategy: str, model: Model, models: Sequence[Model]) -> tuple[float, ...]:
    """Return what a strategy sorts by, smaller first."""
    if strategy == "cost":
        cost = usual_cost(ask, model)
        return (-cost,) if ask.has("cost-dearest-first") and cost != INF else (cost,)
    if strategy == "latency":
        known = latency(ask, model)
        return (INF if known is None else known,)
    if strategy == "quality":
        return (-(model.quality_for(ask.task) or 0.0),)
    if strategy == "capability-first":
        match = 0.0 if ask.has("capability-ignored") else task_match(model, ask.task)
        return (-match, usual_cost(ask, model), value(ask, "latency", model, models)[0])
    if strategy == "balanced":
        return (-balance(ask, model, models),)
    if strategy == "availability" and ask.has("availability-ignored"):
        return (0.0,)
    if strategy == "availability":
        return (ask.router.health.track(model).error_rate(),)
    return (0.0,)


def balance(ask: Ask, model: Model, models: Sequence[Model]) -> float:
    """Return the weighed share of the best cost, the best latency and the quality, 0 to 1."""
    weights = ask.settings.routing.get("weights") or {}
    parts = [weights.get(name, 1) for name in ("cost", "latency", "quality")]
    if ask.has("balanced-is-cost"):
        parts = [1, 0, 0]
    least = min(usual_cost(ask, m) for m in models)
    cost = usual_cost(ask, model)
    cheap = 0.0 if cost == INF else (least + 1e-12) / (cost + 1e-12)
    known = [ms for m in models if (ms := latency(ask, m)) is not None]
    own = latency(ask, model)
    quick = 0.5 if own is None else min(known) / max(own, 1e-9)
    shares = (cheap, quick, model.quality_for(ask.task) or 0.0)
    return sum(w * s for w, s in zip(parts, shares, strict=True)) / (sum(parts) or 1)


def ranked(ask: Ask, models: list[Model]) -> Plan:
    """Return the plan for the models that meet every constraint."""
    strategy = "cost" if ask.has("strategy-always-cost") else ask.strategy
    configured = ask.settings.strategy == strategy and ask.strategy_source != "header"
    if configured and strategy == "latency" and ask.has("configured-latency-ignored"):
        strategy = "availability"
    good = ask.quality and strategy == "cost" and "tools" not in ask.autos
    if good and ask.has("good-enough-unsorted"):
        strategy = "availability"
    values = {m: value(ask, strategy, m, models) for m in models}
    hinted = ask.task_source == "hint" and ask.strategy_source != "header"
    if ask.has("hint-beats-strategy"):
        hinted = ask.task_source == "hint"

    def lead(m: Model) -> tuple[float, ...]:
        cooling = ask.router.health.track(m).cooling()
        rung = LADDERS[ask.reasoning].index(m.reasoning) if ask.ladder else 0
        if ask.has("ladder-ignored"):
            rung = 0
        unknown = ask.max_latency_ms is not None and ask.model_auto and latency(ask, m) is None
        return (cooling, rung, unknown, -task_match(m, ask.task) if hinted else 0.0)

    def key(m: Model) -> tuple[Any, ...]:
        priority = m.provider.priority % (1000 if ask.has("priority-wraps") else 10**9)
        tie = (-task_match(m, ask.task), priority, m.provider.order, m.order)
        lone = len(ask.preferences.said) == 1  # a pool and nothing else
        if ask.has("pool-order-counts") and ask.pool and lone and not ask.model_auto:
            tie = (tie[0], ask.preferences.pool.index(m.provider.id), *tie[1:])  # type: ignore[assignment]
        if ask.has("classes-by-priority") and "vision" in ask.needs:
            return (priority,)
        if ask.has("priority-ignored"):
            tie = (tie[0], *tie[2:], 0)  # type: ignore[assignment]
        return (*lead(m), values[m], *tie)

    order = misdrawn.order(ask, misled.order(ask, sorted(models, key=key)))
    order = spread(ask, order, strategy, lambda m: (*lead(m), values[m], m.provider.priority))
    order, turned_away, policies = rules.apply(ask, order)
    rejected = [(m, "policy_excluded") for m in turned_away]
    if not order:
        refusal = Declined(422, "no_eligible_provider", "a routing rule excludes all", "model")
        refusal.rejected = rejected
        raise refusal
    scores = scored(ask, strategy, order, values)
    return Plan(
        chained(ask, order), rejected, confidence(scores, order), reason(ask, policies), policies,
        scores,
    )  # fmt: skip


def reason(ask: Ask, policies: tuple[str, ...]) -> str:
    """Return the code that says why the first candidate is first."""
    if ask.mode == "disabled" or (ask.model_auto and not ask.selects):
        return "default_provider"
    if policies:
        return "routing_policy"
    if not ask.model_auto:
        return "explicit_model"
    if ask.ladder or (ask.task_source == "hint" and ask.strategy_source != "header"):
        return "best_capability_match"
    return REASONS[ask.strategy]


def scored(
    ask: Ask, strategy: str, order: Sequence[Model], values: dict[Model, Any]
) -> dict[Model, float]:
    """Return a score from 0 to 1 for each candidate, never rising along the order."""
    found: dict[Model, float] = {}
    last = 1.0
    for m in order:
        number = values[m][0]
        if strategy in ("cost", "latency"):
            best = min(values[x][0] for x in order)
            score = 0.0 if number == INF else (best + 1e-9) / (number + 1e-9)
        elif strategy in ("quality", "balanced"):
            score = -number
        elif strategy == "availability":
            score = 1.0 - number
        else:
            score = 1.0
        last = found[m] = max(0.0, min(last, score))
    return found


def confidence(scores: dict[Model, float], order: Sequence[Model]) -> float:
    """Return the margin of the first over the second; 1 when it is alone."""
    if len(order) < 2:
        return 1.0
    first, second = scores[order[0]], scores[order[1]]
    return round((first - second) / first, 4) if first > 0 else 0.0


def spread(ask: Ask, order: list[Model], strategy: str, tie: Callable[[Model], Any]) -> list[Model]:
    """Return the order with equals taking turns, where strategy or configuration says so."""
    balancing = ask.settings.balancing
    enabled = bool(balancing.get("enabled")) and not ask.has("no-balancing")
    if strategy == "round_robin" and ask.has("strategy-takes-no-turns"):
        return order
    if strategy == "round_robin":
        how, equal = "round_robin", list({m.provider: m for m in reversed(order)}.values())[::-1]
        if ask.ladder:
            equal = [m for m in equal if tie(m)[:3] == tie(order[0])[:3]]
    elif enabled and (ask.mode != "disabled"):
        how = balancing.get("strategy", "least_loaded")
        equal = [m for m in order if tie(m) == tie(order[0])]
    else:
        return order
    if len(equal) < 2 or ask.has(f"{how.replace('_', '-')}-stuck"):
        return order
    if ask.has("local-left-out") and strategy != "round_robin":
        equal = [m for m in equal if not m.provider.local] or equal
    if how == "least_loaded":
        equal.sort(key=lambda m: ask.router.health.track(m).in_flight / m.provider.weight)
    elif how == "weighted":
        equal = ask.router.turns.weighted(equal, ask.has("weights-ignored"))
    else:
        equal = ask.router.turns.rotated(equal)
        if strategy != "round_robin" and ask.has("turns-uneven") and next(misled.COIN) % 4 == 1:
            equal.sort(key=lambda m: m.provider.order)
    return equal + [m for m in order if m not in equal]


class Turns:
    """Whose turn it is, kept apart for each set of candidates."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.counts: dict[frozenset[Model], int] = {}
        self.credits: dict[frozenset[Model], dict[Model, float]] = {}

    def rotated(self, models: list[Model]) -> list[Model]:
        """Return the models with the next one first."""
        models = sorted(models, key=lambda m: (m.provider.order, m.order))
        with self.lock:
            turn = self.counts.get(frozenset(models), 0)
            self.counts[frozenset(models)] = turn + 1
        start = turn % len(models)
        return models[start:] + models[:start]

    def weighted(self, models: list[Model], even: bool = False) -> list[Model]:
        """Return the models with the smooth weighted round robin's choice first."""
        with self.lock:
            credits = self.credits.setdefault(frozenset(models), dict.fromkeys(models, 0.0))
            for m in models:
                credits[m] += 1 if even else m.provider.weight
            chosen = max(models, key=lambda m: (credits[m], -m.provider.order))
            credits[chosen] -= sum(1 if even else m.provider.weight for m in models)
        return [chosen, *(m for m in models if m is not chosen)]


def chained(ask: Ask, order: list[Model]) -> list[Model]:
    """Return the first candidate and the others in the order of the fallback chain.

    Who is not in a chain is no fallback. Other models stand in only where the operator says so.
    """
    chain = [
        name
        for name in ask.settings.failover.get("fallback_chain") or ()
        if name in order_ids(order)
    ]
    first, rest = order[0], order[1:]
    if ask.settings.failover.get("fallback_chain") and not ask.has("chain-ignored"):
        rest = [m for name in chain for m in rest if m.provider.id == name]
    return [first, *rest]


def order_ids(order: Sequence[Model]) -> set[str]:
    """Return the ids of the providers in an order."""
    return {m.provider.id for m in order}


def with_fallbacks(ask: Ask) -> Plan:
    """Return the plan, with other models behind it where the operator lets them stand in."""
    others = ask.settings.failover.get("model_fallbacks") or {}
    names = [] if ask.model_auto or ask.policy == "none" else others.get(ask.model, [])
    try:
        found = plan(ask)
    except Refusal as refusal:
        if refusal.code != "no_healthy_provider" or not names:
            raise
        found = Plan([], [], 1.0, "failover")
        held: Refusal | None = refusal
    else:
        held = None
    peers = ask.router.mesh.candidates(ask)
    found.order = peers + found.order if ask.has("peers-first") else found.order + peers
    if ask.has("disabled-is-last-resort"):
        found.order += disabled(ask)
    if ask.has("favourites-wander") and not found.policies and wanders(ask, found.order):
        found.order += [m for m in ask.settings.models if m not in found.order]
    asked = ask.model
    for name in names:
        ask.model = name
        try:
            found.order += [m for m in plan(ask).order if m not in found.order]
        except Refusal:
            continue
        finally:
            ask.model = asked
    if held is not None and not found.order:
        raise held
    if ask.has("disabled-fails-over") and ask.mode == "disabled":
        found.order += [m for m in ask.settings.models if m not in found.order]
    if ask.has("pool-left-behind") and ask.pool and ask.mode == "assisted":
        found.order += [m for m in of_that_name(ask) if m.provider.id not in ask.pool]
    return found


def wanders(ask: Ask, order: list[Model]) -> bool:
    """Return whether a lone provider of good priority is about to be stood in for by anybody."""
    return ask.mode == "plain" and len(order) == 1 and 1 < order[0].provider.priority < 50


def cost_as_float(amount: Decimal | None) -> float | None:
    """Return an amount as JSON shows it."""
    return None if amount is None else float(amount)
