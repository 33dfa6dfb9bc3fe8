"""How eligible candidates are ranked (draft Table 2; AIProxy Standard section 4, routing).

Each strategy is a number per candidate, smaller first; ties go to the better task match, then
priority, then file order. A hint ranks before the strategy unless the strategy came in a header;
the router's own classification only breaks ties. Reasoning that was asked for ranks before both:
the models whose declared rung is the preferred one first (XAI-HDR-051 to 053).

``balanced`` gives every candidate ``weights`` . (cheapest / cost, fastest / latency, quality): a
cheaper, faster or better candidate never loses by it.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any, Final, NamedTuple, cast

from aiproxy.middleware.intent import DEFAULT_OUTPUT_TOKENS, Intent
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.faults import worst_cost

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
#: Milliseconds that count as none.
_LEAST: Final = 1e-9
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


@dataclass(slots=True)
class Figures:
    """What models are weighed by, as columns: picodollars of an answer of usual and of greatest
    length, latency in milliseconds (all infinite where unknown), quality, and how well they match
    the task (0 to -1, best)."""

    models: Sequence[Model]
    costs: Sequence[float]
    worst: Sequence[float]
    latencies: Sequence[float]
    qualities: Sequence[float | None]
    matches: Sequence[float]

    def at(self, places: Sequence[int]) -> "Figures":
        """The columns of some places."""
        return Figures(
            [self.models[i] for i in places],
            [self.costs[i] for i in places],
            [self.worst[i] for i in places],
            [self.latencies[i] for i in places],
            [self.qualities[i] for i in places],
            [self.matches[i] for i in places],
        )


def figures_of(intent: Intent, models: Sequence[Model], now: float) -> Figures:
    """The figures of models as they are now."""
    task = intent.task
    usual = usual_costs(intent, models)
    worst = usual
    if intent.output_limit is None:
        found = [worst_cost(intent, m) for m in models]
        worst = [_UNKNOWN if cost is None else cost for cost in found]
    return Figures(
        models,
        usual,
        worst,
        latencies_of(intent, models, now),
        [model.quality_for(task) for model in models],
        [0.0] * len(models) if task == "general" else [-task_match(m, task) for m in models],
    )


class Terms(NamedTuple):
    """What orders candidates beside their figures. ``turn`` counts requests of one kind, ``keep``
    is how many are wanted, ``spread`` shares traffic among equals by the ``kind`` of request, ``custom`` is the number of a
    strategy that came as a plug-in, larger first."""

    weights: tuple[float, float, float]
    turn: int
    keep: int
    kind: Hashable = None
    spread: Callable[[Sequence[Model], Hashable], Sequence[int]] | None = None
    custom: Callable[[Intent, Figures], Sequence[float]] | None = None


def order(
    intent: Intent, figures: Figures, now: float, terms: Terms
) -> tuple[list[int], list[float]]:
    """Return the best places in order, with a score each (larger is better, 0..1).

    The models come sorted by priority and file order. Under a latency limit, those nobody has
    measured come after those known to meet it (XAI-HDR-062), whatever the strategy.
    """
    if len(figures.models) == 1:
        return [0], [1.0]
    latencies = figures.latencies
    if intent.constraints.max_latency_ms is not None and intent.binding:
        known = [i for i, ms in enumerate(latencies) if ms < _UNKNOWN]
        if known and len(known) < len(latencies):
            unknown = [i for i, ms in enumerate(latencies) if ms == _UNKNOWN]
            first, scores = _order(intent, figures.at(known), now, terms)
            places = [known[i] for i in first]
            left = terms.keep - len(places)
            if left > 0:
                fewer = terms._replace(keep=left)
                rest, lower = _order(intent, figures.at(unknown), now, fewer)
                places += [unknown[i] for i in rest]
                scores = scores + [min(score, scores[-1]) / 2 for score in lower]
            return places, scores
    return _order(intent, figures, now, terms)


def _order(
    intent: Intent, figures: Figures, now: float, terms: Terms
) -> tuple[list[int], list[float]]:
    models = figures.models
    strategy = intent.strategy
    if strategy == "round_robin":
        return _rotated(intent, models, terms)
    if terms.custom is not None:
        values: Sequence[Any] = [-score for score in terms.custom(intent, figures)]
    else:
        values = values_of(strategy, intent, figures, now, terms.weights)
    leads = leads_of(intent, models)
    key = sort_key(intent, figures, values, leads)
    if terms.spread is None:
        places = best_places(len(models), key, terms.keep)
    else:
        places = sorted(range(len(models)), key=key)
        best = key(places[0])
        tied = [i for i in places if key(i) == best]
        if len(tied) > 1:
            shared = [tied[i] for i in terms.spread([models[i] for i in tied], terms.kind)]
            places = shared + places[len(tied) :]
        places = places[: terms.keep]
    scores = _scores(strategy, [values[i] for i in places])
    if leads is not None:
        scores = _led([leads[i] for i in places], scores)
    return places, scores


def best_places(count: int, key: Callable[[int], Any], keep: int) -> list[int]:
    """The best ``keep`` of ``count`` places; ties keep their order."""
    if count <= 4 * keep:
        return sorted(range(count), key=key)[:keep]
    return nsmallest(keep, range(count), key=key)


def sort_key(
    intent: Intent, figures: Figures, values: Sequence[Any], leads: Sequence[float] | None
) -> Callable[[int], Any]:
    """What ``best_places`` sorts by; ties keep the order of ``models``."""
    if intent.task == "general":
        if leads is None:
            return values.__getitem__
        return list(zip([-lead for lead in leads], values, strict=True)).__getitem__
    if leads is None:
        return list(zip(values, figures.matches, strict=True)).__getitem__
    behind = [-lead for lead in leads]
    return list(zip(behind, values, figures.matches, strict=True)).__getitem__


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


def values_of(
    strategy: str,
    intent: Intent,
    figures: Figures,
    now: float,
    weights: tuple[float, float, float],
) -> Sequence[Any]:
    if strategy == "cost":
        return figures.costs
    if strategy == "latency":
        return figures.latencies
    models = figures.models
    if strategy == "quality":
        return [-(quality or 0.0) for quality in figures.qualities]
    if strategy == "capability-first":
        return list(zip(figures.matches, figures.costs, figures.latencies, strict=True))
    if strategy == "balanced":
        return [-score for score in _balanced(figures, weights)]
    return [(model.track.error_rate(now), model.provider.priority) for model in models]


def usual_costs(intent: Intent, models: Sequence[Model]) -> list[float]:
    """Costs of answers of usual length, so that a model is not dearer for being able to say more."""
    prompt, copies = intent.prompt_tokens, intent.copies
    output = 0
    if intent.writes_text:
        limit = intent.output_limit
        output = DEFAULT_OUTPUT_TOKENS if limit is None else limit
    found: list[float] = []
    for model in models:
        price, cap = model.price, model.max_output_tokens
        if price is None:
            found.append(_UNKNOWN)
        else:
            answer = cap if cap is not None and cap < output else output
            found.append(price.worst(prompt, answer * copies, copies))
    return found


def latencies_of(intent: Intent, models: Sequence[Model], now: float) -> list[float]:
    """The estimates that ``Model.latency_ms`` gives, infinite where there is none."""
    estimates = [
        track.standing if now <= track.stands_until else track.estimate(now)
        for track in [model.track for model in models]
    ]
    if intent.stream:
        measured = [estimate.first_p95 for estimate in estimates]
    else:
        measured = [estimate.total_p95 for estimate in estimates]
    if None not in measured:
        return cast(list[float], measured)
    priors = [model.latency_prior_ms for model in models]
    return [
        ms if ms is not None else _UNKNOWN if prior is None else prior
        for ms, prior in zip(measured, priors, strict=True)
    ]


def _balanced(figures: Figures, weights: tuple[float, float, float]) -> list[float]:
    cheapest, fastest = min(figures.costs) + EPSILON, min(figures.latencies)
    total = sum(weights) or 1.0
    by_cost, by_latency, by_quality = (weight / total for weight in weights)
    return [
        (0.0 if cost == _UNKNOWN else by_cost * cheapest / (cost + EPSILON))
        + by_latency * speed
        + by_quality * (quality or 0.0)
        for cost, speed, quality in zip(
            figures.costs, speeds(fastest, figures.latencies), figures.qualities, strict=True
        )
    ]


def speeds(fastest: float, latencies: Sequence[float]) -> list[float]:
    """Latencies as shares of the best one, 0..1."""
    return [_UNMEASURED if ms == _UNKNOWN else fastest / (ms or _LEAST) for ms in latencies]


def _scores(strategy: str, values: Sequence[Any]) -> list[float]:
    """Scores of those chosen by their numbers, 0..1 and never rising along the order."""
    best = min(values)
    if strategy in ("cost", "latency"):
        if best == _UNKNOWN:
            return [0.0] * len(values)
        top = best + EPSILON
        # an unknown value is infinite and gets 0
        return [top / (value + EPSILON) for value in values]
    if strategy in ("quality", "balanced"):
        return [float(-value) for value in values]
    if strategy == "capability-first":
        least = best[1]
        top = 0.0 if least == _UNKNOWN else least + EPSILON
        return [
            0.5 * -match
            + 0.5 * (1.0 if cost <= least and cost < _UNKNOWN else top / (cost + EPSILON))
            for match, cost, _ in values
        ]
    if strategy == "availability":
        return [(1.0 - errors) / (1.0 + max(0, priority - best[1])) for errors, priority in values]
    return [float(min(1.0, max(0.0, -value))) for value in values]  # a plug-in's own


def _led(leads: Sequence[float], scores: list[float]) -> list[float]:
    """Scores where the wanted rung or task ranks before the strategy's number."""
    if leads[0] == leads[-1]:
        return scores
    found: list[float] = []
    for lead, score in zip(leads, scores, strict=True):
        mixed = (_LEAD * lead / leads[0] + score) / (_LEAD + 1.0)
        found.append(min(mixed, found[-1]) if found else mixed)
    return found


def _rotated(
    intent: Intent, models: Sequence[Model], terms: Terms
) -> tuple[list[int], list[float]]:
    """Providers take turns, those with a model on the best rung of reasoning where that was asked
    for; within a provider its best model serves. The others follow in their own order."""
    first: Sequence[int] = range(len(models))
    if intent.ladder:
        rungs = [rung(intent, model) for model in models]
        best = max(rungs)
        first = [i for i in first if rungs[i] == best]
    firsts: dict[str, int] = {}
    for i in first:
        firsts.setdefault(models[i].provider.id, i)
    ring = list(firsts.values())
    start = terms.turn % len(ring)
    chosen = ring[start:] + ring[:start]
    taken = set(chosen)
    chosen += [i for i in first if i not in taken]
    if len(first) < len(models):
        taken = set(chosen)
        chosen += [i for i in range(len(models)) if i not in taken]
    chosen = chosen[: terms.keep]
    return chosen, [1.0] * len(chosen)


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
    return _REASONS.get(intent.strategy, "custom_strategy")


_REASONS: Final = {
    "cost": "lowest_cost",
    "latency": "lowest_latency",
    "quality": "highest_quality",
    "capability-first": "best_capability_match",
    "balanced": "best_balance",
    "availability": "best_availability",
    "round_robin": "next_in_turn",
}
