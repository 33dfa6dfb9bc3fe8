"""How eligible candidates are ranked (draft Table 2; AIProxy Standard section 4, routing).

Each strategy is a number per candidate, smaller first; ties go to the better task match, then
priority, then file order. A hint ranks before the strategy unless the strategy came in a header;
the router's own classification only breaks ties.

``balanced`` gives every candidate ``weights`` . (cheapest / cost, fastest / latency, quality): a
cheaper, faster or better candidate never loses by it.
"""

from collections.abc import Callable, Sequence
from heapq import nsmallest
from typing import Any, Final

from aiproxy.middleware.intent import Intent
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.rules import CandidateFacts, Compiled, RequestFacts

_UNKNOWN: Final = float("inf")
#: Score of an unmeasured latency inside ``balanced``: neither a reward nor a verdict.
_UNMEASURED: Final = 0.5
#: What a picodollar sum is padded with, so that ratios of free models are defined.
_EPSILON: Final = 1.0


def task_match(model: Model, task: str) -> float:
    """How well a model fits a task by what its operator declared, 0..1 (XAI-HDR-030 to 034)."""
    if task == "general":
        return 0.0
    if task == "reasoning":
        if model.reasoning == "native" or "reasoning" in model.capabilities:
            return 1.0
        if model.reasoning == "enhanced":
            return 0.6
    elif task == "coding":
        if "code-generation" in model.capabilities:
            return 1.0
    elif task == "multimodal" and "vision" in model.capabilities:
        return 1.0
    if model.quality is not None and not isinstance(model.quality, float):
        return float(model.quality.get(task, 0.0))
    return 0.0


def order(
    intent: Intent,
    models: Sequence[Model],
    now: float,
    *,
    weights: tuple[float, float, float],
    turn: int,
    keep: int,
    keep_order: bool,
    spread: str | None,
) -> tuple[list[Model], list[float]]:
    """Return the best ``keep`` models in order, with a score each (larger is better, 0..1).

    ``models`` come sorted by priority and file order; with ``keep_order`` (a policy sorted them)
    they stay as they are. ``turn`` counts requests, for round robin.
    """
    if keep_order or len(models) == 1:
        chosen = list(models[:keep])
        return chosen, [1.0 / (1 + place) for place in range(len(chosen))]
    strategy = "round_robin" if intent.strategy == "round_robin" else intent.strategy
    if strategy == "round_robin":
        return _rotated(models, turn, keep)
    values = _values(strategy, intent, models, now, weights)
    key = _key(intent, models, values)
    places = nsmallest(keep, range(len(models)), key=key)
    if spread is not None:
        places = _spread_ties(places, values, models, intent, turn, spread)
    return [models[i] for i in places], [_score(strategy, values, places, i) for i in places]


def _key(
    intent: Intent, models: Sequence[Model], values: Sequence[Any]
) -> Callable[[int], tuple[Any, ...]]:
    """Ties keep the order of ``models``: ``nsmallest`` is stable."""
    if intent.task == "general":
        return lambda i: (values[i],)
    match = [-task_match(model, intent.task) for model in models]
    if intent.task_source == "hint" and intent.strategy_source != "header":
        return lambda i: (match[i], values[i])
    return lambda i: (values[i], match[i])


def _values(
    strategy: str,
    intent: Intent,
    models: Sequence[Model],
    now: float,
    weights: tuple[float, float, float],
) -> list[Any]:
    if strategy == "cost":
        return _costs(intent, models)
    if strategy == "latency":
        return _latencies(intent, models, now)
    if strategy == "quality":
        return [-(model.quality_for(intent.task) or 0.0) for model in models]
    if strategy == "capability-first":
        costs, latencies = _costs(intent, models), _latencies(intent, models, now)
        return [
            (-task_match(model, intent.task), costs[i], latencies[i])
            for i, model in enumerate(models)
        ]
    if strategy == "balanced":
        return [-score for score in _balanced(intent, models, now, weights)]
    return [(model.track.error_rate(now), model.provider.priority) for model in models]


def _costs(intent: Intent, models: Sequence[Model]) -> list[float]:
    prompt = intent.prompt_tokens
    output = 0 if "embeddings" in intent.needs else (intent.output_limit or 1024) * intent.copies
    return [
        _UNKNOWN
        if (price := model.price) is None
        else price.input * prompt + price.output * output + price.per_item
        for model in models
    ]


def _latencies(intent: Intent, models: Sequence[Model], now: float) -> list[float]:
    first_byte = intent.stream
    return [
        _UNKNOWN if (ms := model.latency_ms(now, first_byte=first_byte)) is None else ms
        for model in models
    ]


def _balanced(
    intent: Intent, models: Sequence[Model], now: float, weights: tuple[float, float, float]
) -> list[float]:
    costs, latencies = _costs(intent, models), _latencies(intent, models, now)
    cheapest, fastest = min(costs) + _EPSILON, min(latencies)
    cost_weight, latency_weight, quality_weight = weights
    total = (cost_weight + latency_weight + quality_weight) or 1.0
    found = []
    for i, model in enumerate(models):
        cost = 0.0 if costs[i] == _UNKNOWN else cheapest / (costs[i] + _EPSILON)
        latency = _UNMEASURED if latencies[i] == _UNKNOWN else fastest / max(latencies[i], 1e-9)
        quality = model.quality_for(intent.task) or 0.0
        found.append(
            (cost_weight * cost + latency_weight * latency + quality_weight * quality) / total
        )
    return found


def _score(strategy: str, values: Sequence[Any], places: Sequence[int], i: int) -> float:
    """A strategy's number turned into 0..1, best candidate first; feeds the confidence."""
    value, best = values[i], values[places[0]]
    if strategy in ("cost", "latency"):
        if value == _UNKNOWN:
            return 0.0
        return min(1.0, (best + _EPSILON) / (value + _EPSILON))
    if strategy in ("quality", "balanced"):
        return float(-value)
    if strategy == "capability-first":
        match, cost, _ = value
        best_cost = best[1]
        cheap = 0.0 if cost == _UNKNOWN else (best_cost + _EPSILON) / (cost + _EPSILON)
        return float(0.5 * -match + 0.5 * min(1.0, cheap))
    errors, priority = value
    return float((1.0 - errors) / (1.0 + max(0, priority - best[1])))


def _rotated(models: Sequence[Model], turn: int, keep: int) -> tuple[list[Model], list[float]]:
    """Providers take turns; within a provider the best model serves."""
    firsts: dict[str, Model] = {}
    for model in models:
        firsts.setdefault(model.provider.id, model)
    ring = list(firsts.values())
    start = turn % len(ring)
    chosen = ring[start:] + ring[:start]
    taken = set(map(id, chosen))
    chosen += [m for m in models if id(m) not in taken]
    chosen = chosen[:keep]
    return chosen, [1.0] * len(chosen)


def _spread_ties(
    places: list[int],
    values: Sequence[Any],
    models: Sequence[Model],
    intent: Intent,
    turn: int,
    spread: str,
) -> list[int]:
    """Share traffic among candidates the strategy cannot tell apart (load_balancing)."""
    best = values[places[0]]
    matched = task_match(models[places[0]], intent.task)
    tied = [
        i for i in places if values[i] == best and task_match(models[i], intent.task) == matched
    ]
    if len(tied) < 2:
        return places
    if spread == "least_loaded":
        tied.sort(key=lambda i: models[i].track.in_flight / models[i].provider.weight)
    elif spread == "weighted":
        tied = _weighted_turn(tied, models, turn)
    else:
        start = turn % len(tied)
        tied = tied[start:] + tied[:start]
    chosen = set(tied)
    return tied + [i for i in places if i not in chosen]


def _weighted_turn(tied: list[int], models: Sequence[Model], turn: int) -> list[int]:
    """Smooth weighted round robin, computed for one turn: shares are exact over a full cycle."""
    weights = [models[i].provider.weight for i in tied]
    total = sum(weights)
    # the golden-ratio sequence visits every point of the unit interval evenly
    point = (turn * 0.6180339887498949) % 1.0 * total
    for place, weight in enumerate(weights):
        if point < weight:
            return [tied[place], *tied[:place], *tied[place + 1 :]]
        point -= weight
    return tied


def reason(intent: Intent, policies: tuple[str, ...]) -> str:
    """The registered code that says why the first candidate is first."""
    if policies:
        return "routing_policy"
    if intent.mode == "disabled":
        return "default_provider"
    if not intent.model_auto:
        return "explicit_model"
    if not intent.selects:
        return "default_provider"
    if intent.task_source == "hint" and intent.strategy_source != "header":
        return "best_capability_match"
    return {
        "cost": "lowest_cost",
        "latency": "lowest_latency",
        "quality": "highest_quality",
        "capability-first": "best_capability_match",
        "balanced": "best_balance",
        "availability": "best_availability",
        "round_robin": "next_in_turn",
    }[intent.strategy]


def apply_policies(
    compiled: Compiled, intent: Intent, models: Sequence[Model], now: float
) -> tuple[list[Model], list[tuple[Model, str]], tuple[str, ...]]:
    """Return the models in the policies' order, who was turned away by which, and who acted."""
    ruling = compiled.apply(
        intent.strategy,
        RequestFacts(
            model=intent.model,
            tokens=intent.prompt_tokens,
            task=intent.task,
            stream=intent.stream,
            endpoint=intent.endpoint,
        ),
        [_facts(intent, model, now) for model in models],
    )
    rejected = [(models[i], name) for i, name in ruling.rejected.items()]
    return [models[i] for i in ruling.order], rejected, ruling.applied


def _facts(intent: Intent, model: Model, now: float) -> CandidateFacts:
    provider = model.provider
    return CandidateFacts(
        id=provider.id,
        type=provider.type,
        model=model.name,
        priority=provider.priority,
        cost_per_1k_tokens=model.cost_per_1k,
        latency_ms=model.latency_ms(now, first_byte=intent.stream),
        error_rate=model.track.error_rate(now),
        quality=model.quality_for(intent.task),
        region=next(iter(sorted(provider.regions)), None),
        weight=provider.weight,
        load=float(model.track.in_flight),
    )
