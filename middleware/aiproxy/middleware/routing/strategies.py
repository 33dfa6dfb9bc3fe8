"""How eligible candidates are ranked (draft Table 2; AIProxy Standard section 4, routing).

Each strategy is a number per candidate, smaller first; ties go to the better task match, then
priority, then file order. A hint ranks before the strategy unless the strategy came in a header;
the router's own classification only breaks ties. Reasoning that was asked for ranks before both:
the models whose declared rung is the preferred one first (XAI-HDR-051 to 053).

``balanced`` gives every candidate ``weights`` . (cheapest / cost, fastest / latency, quality): a
cheaper, faster or better candidate never loses by it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any, Final

from aiproxy.middleware.intent import DEFAULT_OUTPUT_TOKENS, Intent
from aiproxy.middleware.money import usd
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.rules import CandidateFacts, Compiled, RequestFacts

_UNKNOWN: Final = float("inf")
#: Score of an unmeasured latency inside ``balanced``: neither a reward nor a verdict.
_UNMEASURED: Final = 0.5
#: Rungs of reasoning in the order they are wanted, by preference (XAI-REASON-001 to 004).
_LADDERS: Final = {
    None: ("native", "enhanced", "none"),
    "native": ("native", "enhanced", "none"),
    "enhanced": ("enhanced", "native", "none"),
    "simulated": ("none", "enhanced", "native"),
}
#: How much more the wanted rung or task weighs in a score than the strategy's own number.
_LEAD: Final = 3.0
#: What a picodollar sum is padded with, so that ratios of free models are defined.
EPSILON: Final = 1.0


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
    if model.quality is not None and not isinstance(model.quality, int | float):
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
    spread: str | None,
) -> tuple[list[Model], list[float]]:
    """Return the best ``keep`` models in order, with a score each (larger is better, 0..1).

    ``models`` come sorted by priority and file order. ``turn`` counts requests, for round robin.
    """
    if len(models) == 1:
        return list(models), [1.0]
    strategy = intent.strategy
    if strategy == "round_robin":
        return _rotated(models, _top_rung(intent, models), turn, keep)
    values = values_of(strategy, intent, models, now, weights)
    key = sort_key(intent, models, values)
    places = best_places(len(models), key, keep)
    if spread is not None:
        places = _spread_ties(places, values, models, intent, turn, spread)
    return [models[i] for i in places], _scores(strategy, intent, models, values, places)


def best_places(count: int, key: Callable[[int], tuple[Any, ...]], keep: int) -> list[int]:
    """The best ``keep`` of ``count`` places; ties keep their order."""
    if count <= 4 * keep:
        return sorted(range(count), key=key)[:keep]
    return nsmallest(keep, range(count), key=key)


def sort_key(
    intent: Intent, models: Sequence[Model], values: Sequence[Any]
) -> Callable[[int], tuple[Any, ...]]:
    """What ``best_places`` sorts by; ties keep the order of ``models``."""
    leads = leads_of(intent, models)
    if intent.task == "general":
        if leads is None:
            return lambda i: (values[i],)
        return lambda i: (-leads[i], values[i])
    match = [-task_match(model, intent.task) for model in models]
    if leads is None:
        return lambda i: (values[i], match[i])
    return lambda i: (-leads[i], values[i], match[i])


def rung(intent: Intent, model: Model) -> float:
    """How near a model's declared reasoning is to what is wanted, 1 to 0."""
    return 1.0 - 0.5 * _LADDERS[intent.reasoning].index(model.reasoning)


def leads_of(intent: Intent, models: Sequence[Model]) -> list[float] | None:
    """What ranks before the strategy, larger first: the rung of reasoning, then a hint's task;
    ``None`` when neither was asked for."""
    hinted = intent.task_source == "hint" and intent.strategy_source != "header"
    if intent.ladder:
        # rungs are 0.5 apart and a task match adds less than that
        return [
            rung(intent, m) + (0.4 * task_match(m, intent.task) if hinted else 0.0) for m in models
        ]
    return [task_match(m, intent.task) for m in models] if hinted else None


def _top_rung(intent: Intent, models: Sequence[Model]) -> Sequence[Model]:
    """The models on the best rung there is, for a strategy that knows no better and worse."""
    if not intent.ladder:
        return models
    best = max(rung(intent, model) for model in models)
    return [model for model in models if rung(intent, model) == best]


def values_of(
    strategy: str,
    intent: Intent,
    models: Sequence[Model],
    now: float,
    weights: tuple[float, float, float],
) -> list[Any]:
    if strategy == "cost":
        return _costs(intent, models)
    if strategy == "latency":
        return latencies_of(intent, models, now)
    if strategy == "quality":
        return [-(model.quality_for(intent.task) or 0.0) for model in models]
    if strategy == "capability-first":
        costs, latencies = _costs(intent, models), latencies_of(intent, models, now)
        return [
            (-task_match(model, intent.task), costs[i], latencies[i])
            for i, model in enumerate(models)
        ]
    if strategy == "balanced":
        return [-score for score in _balanced(intent, models, now, weights)]
    return [(model.track.error_rate(now), model.provider.priority) for model in models]


def _costs(intent: Intent, models: Sequence[Model]) -> list[float]:
    return list(map(usual_cost(intent), models))


def usual_cost(intent: Intent) -> Callable[[Model], float]:
    """Cost of an answer of usual length, so that a model is not dearer for being able to say more."""
    prompt, copies = intent.prompt_tokens, intent.copies
    output = 0 if "embeddings" in intent.needs else intent.output_limit or DEFAULT_OUTPUT_TOKENS

    def cost(model: Model) -> float:
        if model.price is None:
            return _UNKNOWN
        answer = min(output, model.max_output_tokens or output)
        return model.price.worst(prompt, answer * copies, copies)

    return cost


def latencies_of(intent: Intent, models: Sequence[Model], now: float) -> list[float]:
    first_byte = intent.stream
    return [
        _UNKNOWN if (ms := model.latency_ms(now, first_byte=first_byte)) is None else ms
        for model in models
    ]


def _balanced(
    intent: Intent, models: Sequence[Model], now: float, weights: tuple[float, float, float]
) -> list[float]:
    costs, latencies = _costs(intent, models), latencies_of(intent, models, now)
    cheapest, fastest = min(costs) + EPSILON, min(latencies)
    cost_weight, latency_weight, quality_weight = weights
    total = (cost_weight + latency_weight + quality_weight) or 1.0
    found = []
    for i, model in enumerate(models):
        cost = 0.0 if costs[i] == _UNKNOWN else cheapest / (costs[i] + EPSILON)
        latency = speed(fastest, latencies[i])
        quality = model.quality_for(intent.task) or 0.0
        found.append(
            (cost_weight * cost + latency_weight * latency + quality_weight * quality) / total
        )
    return found


def speed(fastest: float, latency: float) -> float:
    """A latency as a share of the best one, 0..1."""
    return _UNMEASURED if latency == _UNKNOWN else fastest / max(latency, 1e-9)


def _scores(
    strategy: str,
    intent: Intent,
    models: Sequence[Model],
    values: Sequence[Any],
    places: Sequence[int],
) -> list[float]:
    """Scores of the chosen places, 0..1 and never rising along the order."""
    best = min(values[i] for i in places)
    scores = [_score(strategy, values[i], best) for i in places]
    leads = leads_of(intent, [models[i] for i in places])
    if leads is None or leads[0] == leads[-1]:
        return scores
    found: list[float] = []
    for lead, score in zip(leads, scores, strict=True):
        mixed = (_LEAD * lead / leads[0] + score) / (_LEAD + 1.0)
        found.append(min(mixed, found[-1]) if found else mixed)
    return found


def _score(strategy: str, value: Any, best: Any) -> float:
    """A strategy's number turned into 0..1; ``best`` is the best among the candidates."""
    if strategy in ("cost", "latency"):
        if value == _UNKNOWN:
            return 0.0
        return float(min(1.0, (best + EPSILON) / (value + EPSILON)))
    if strategy in ("quality", "balanced"):
        return float(-value)
    if strategy == "capability-first":
        match, cost, _ = value
        best_cost = best[1]
        cheap = 0.0 if cost == _UNKNOWN else (best_cost + EPSILON) / (cost + EPSILON)
        return float(0.5 * -match + 0.5 * min(1.0, cheap))
    errors, priority = value
    return float((1.0 - errors) / (1.0 + max(0, priority - best[1])))


def _rotated(
    models: Sequence[Model], first: Sequence[Model], turn: int, keep: int
) -> tuple[list[Model], list[float]]:
    """Providers of ``first`` take turns; within a provider its best model serves. The others
    follow in their own order."""
    firsts: dict[str, Model] = {}
    for model in first:
        firsts.setdefault(model.provider.id, model)
    ring = list(firsts.values())
    start = turn % len(ring)
    chosen = ring[start:] + ring[:start]
    taken = set(map(id, chosen))
    chosen += [m for m in first if id(m) not in taken]
    if len(first) < len(models):
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
    key = sort_key(intent, models, values)
    best = key(places[0])
    tied = [i for i in places if key(i) == best]
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


def reason(intent: Intent) -> str:
    """The registered code that says why the first candidate is first."""
    if intent.mode == "disabled":
        return "default_provider"
    if not intent.model_auto:
        return "explicit_model"
    if not intent.selects:
        return "default_provider"
    hinted = intent.task_source == "hint" and intent.strategy_source != "header"
    if hinted or intent.ladder:
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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policies made of an order. ``changed``: another is first than before, or somebody
    was turned away; then the scores say the place only."""

    models: list[Model]
    scores: list[float]
    rejected: list[Model]
    policies: tuple[str, ...]
    changed: bool


def apply_policies(
    compiled: Compiled,
    intent: Intent,
    ordered: Sequence[Model],
    scores: Sequence[float],
    now: float,
) -> Verdict:
    """Apply the policies active under the request's strategy to the order the strategy gave."""
    limit = intent.constraints.cost_limit
    request = RequestFacts(
        model=intent.model,
        tokens=intent.prompt_tokens,
        task=intent.task,
        stream=intent.stream,
        endpoint=intent.endpoint,
        max_cost=None if limit is None else usd(limit),
    )
    reads = compiled.reads
    facts = [_facts(intent, model, now, reads) for model in ordered]
    ruling = compiled.apply(intent.strategy, request, facts)
    models = [ordered[i] for i in ruling.order]
    changed = bool(ruling.rejected) or (bool(models) and models[0] is not ordered[0])
    kept = [1.0 / (1 + place) if changed else scores[i] for place, i in enumerate(ruling.order)]
    turned_away = [ordered[i] for i in ruling.rejected]
    return Verdict(models, kept, turned_away, ruling.applied, changed)


def _facts(intent: Intent, model: Model, now: float, reads: frozenset[str]) -> CandidateFacts:
    """What rules may ask of a candidate; a figure no rule reads is not worked out."""
    provider = model.provider
    latency = "provider.latency_ms" in reads
    return CandidateFacts(
        id=provider.id,
        type=provider.type,
        model=model.name,
        priority=provider.priority,
        cost_per_1k_tokens=model.cost_per_1k,
        latency_ms=model.latency_ms(now, first_byte=intent.stream) if latency else None,
        error_rate=model.track.error_rate(now) if "provider.error_rate" in reads else 0.0,
        quality=model.quality_for(intent.task),
        region=provider.region or next(iter(sorted(provider.regions)), None),
        weight=provider.weight,
        load=float(model.track.in_flight),
    )
