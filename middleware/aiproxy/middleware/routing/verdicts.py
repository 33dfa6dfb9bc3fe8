"""Routing policies applied to the order a strategy gave, and what rules may ask of a candidate."""

from collections.abc import Sequence
from dataclasses import dataclass

from aiproxy.middleware.intent import Intent
from aiproxy.middleware.money.amounts import usd
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.facts import CandidateFacts, RequestFacts
from aiproxy.middleware.routing.ruling import Compiled


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policies made of an order; ``places`` are into it, ``matched`` the rules that held
    (``policy[rule]``). ``changed``: another is first than before, or somebody was turned away; then
    the scores say the place only."""

    places: list[int]
    scores: list[float]
    rejected: list[Model]
    policies: tuple[str, ...]
    changed: bool
    matched: tuple[str, ...] = ()


def apply_policies(
    compiled: Compiled,
    intent: Intent,
    ordered: Sequence[Model],
    scores: Sequence[float],
    now: float,
) -> Verdict:
    """Apply the policies active under the request's strategy to the order the strategy gave."""
    request = request_facts(intent)
    reads = compiled.reads
    facts = [candidate_facts(intent, model, now, reads) for model in ordered]
    ruling = compiled.apply(intent.strategy, request, facts)
    places = list(ruling.order)
    changed = bool(ruling.rejected) or (bool(places) and places[0] != 0)
    kept = [1.0 / (1 + place) if changed else scores[i] for place, i in enumerate(ruling.order)]
    turned_away = [ordered[i] for i in ruling.rejected]
    return Verdict(places, kept, turned_away, ruling.applied, changed, ruling.matched)


def request_facts(intent: Intent) -> RequestFacts:
    """What rules may ask of a request."""
    limit = intent.constraints.cost_limit
    return RequestFacts(
        model=intent.model,
        tokens=intent.prompt_tokens,
        task=intent.task,
        stream=intent.stream,
        endpoint=intent.endpoint,
        max_cost=None if limit is None else usd(limit),
    )


def candidate_facts(
    intent: Intent, model: Model, now: float, reads: frozenset[str]
) -> CandidateFacts:
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
