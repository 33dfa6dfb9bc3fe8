"""What was expected of a choice, and why it was made (UNI-ROUTE-016, 017; XAI-PERF-003, 006).

Worked out when a record is read; how likely it was to succeed alone is asked while the choice is
made, because its outcome would change it.
"""

from itertools import islice
from typing import Any, Final

from aiproxy.middleware.intent import Intent
from aiproxy.middleware.money.amounts import usd
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.plan import Plan, worst_cost
from aiproxy.middleware.routing.strategies import usual_costs

_UNSURE: Final = 0.8

_FACTORS: Final = {
    "cost": ("cost",),
    "latency": ("latency",),
    "quality": ("quality",),
    "capability-first": ("task_match", "cost", "latency"),
    "balanced": ("cost", "latency", "quality"),
    "availability": ("error_rate", "priority"),
    "round_robin": ("turn",),
}


def predicted(plan: Plan, intent: Intent) -> dict[str, Any] | None:
    """What was expected of the first choice; cost is of an answer of usual length."""
    if not plan.ranked:
        return None
    first = plan.ranked[0]
    cost = usual_costs(intent, (first.model,))[0]
    return {
        "latency_ms": first.latency_ms,
        "cost_usd": None if first.model.price is None else usd(int(cost)),
        "quality": first.quality,
        "success": plan.success,
    }


def explanation(plan: Plan, intent: Intent, now: float) -> dict[str, Any] | None:
    """Why the first choice was made, what it gave up, and what may go wrong; ``now`` is when the
    request ended."""
    if not plan.ranked:
        return None
    return {
        "primary_factors": _factors(plan, intent),
        "trade_offs": _trade_offs(plan, intent, now),
        "alternatives": max(0, plan.eligible - 1),
        "risk": _risk(plan),
    }


def _factors(plan: Plan, intent: Intent) -> list[str]:
    """What decided, most important first."""
    if plan.reason in ("canary", "conversation_affinity", "routing_policy", "default_provider"):
        found = [plan.reason]
    elif plan.reason == "ensemble":
        return [plan.reason]
    else:
        found = [] if intent.selects else ["explicit_model"]
    limits = intent.constraints
    for name, given in (
        ("security", limits.labels or limits.regions or limits.local_only or limits.level),
        ("pool", limits.pool),
        ("cost_limit", limits.spendable),
        ("quality_threshold", limits.quality),
        ("max_latency", limits.max_latency_ms),
        ("reasoning", intent.ladder),
        ("task_hint", intent.task_source == "hint" and intent.strategy_source != "header"),
    ):
        if given is not None and given is not False and given != frozenset() and given != 0:
            found.append(name)
    return found + list(_FACTORS.get(intent.strategy, (intent.strategy,)))


def _trade_offs(plan: Plan, intent: Intent, now: float) -> dict[str, Any]:
    """The fastest, the best and the cheapest of all candidates, where somebody else was chosen, and
    why each was not."""
    chosen = plan.ranked[0].model
    rows = [
        _row(r.model, _why(plan, r.model), r.latency_ms, r.cost, r.quality) for r in plan.ranked
    ]
    for out in islice(plan.rejected, _MOST_ROWS):
        if out.reason in _WEIGHED:
            estimate = estimated_ms(out.model, intent, now)
            cost = worst_cost(intent, out.model)
            rows.append(
                _row(out.model, out.reason, estimate, cost, out.model.quality_for(intent.task))
            )
    found: dict[str, Any] = {}
    for name, figure, sign in (
        ("fastest", "latency_ms", 1),
        ("highest_quality", "quality", -1),
        ("cheapest", "cost_usd", 1),
    ):
        known = [row for row in rows if row[figure] is not None]
        if not known:
            continue
        best = min(known, key=lambda row: sign * row[figure])
        ours = rows[0][figure]
        if best is not rows[0] and (ours is None or best[figure] != ours):
            found[name] = best
    assert rows[0]["model"] == chosen.upstream
    return found


def estimates(model: Model, intent: Intent | None, now: float) -> dict[str, float | None]:
    """What a model that was turned away would have cost at worst, and how long it takes."""
    cost = None if intent is None else worst_cost(intent, model)
    return {
        "cost_usd": None if cost is None else usd(cost),
        "latency_ms": None if intent is None else estimated_ms(model, intent, now),
    }


def estimated_ms(model: Model, intent: Intent, now: float) -> float | None:
    """The latency estimate of a model that was not chosen; nothing is kept of the look."""
    estimate = model.track.latencies.estimate(now)
    found = estimate.first_p95 if intent.stream else estimate.total_p95
    return model.latency_prior_ms if found is None else found


def _row(
    model: Model, rejected: str | None, ms: float | None, cost: int | None, quality: float | None
) -> dict[str, Any]:
    return {
        "provider": model.provider.id,
        "model": model.upstream,
        "latency_ms": ms,
        "cost_usd": None if cost is None else usd(cost),
        "quality": quality,
        "rejected": rejected,
    }


def _why(plan: Plan, model: Model) -> str | None:
    if model is plan.ranked[0].model:
        return None
    return "too_slow" if model in plan.slow else "lower_score"


def _risk(plan: Plan) -> dict[str, Any]:
    """*high*: calls are likely to fail and nobody stands by; *medium*: either; else *low*."""
    reasons = []
    if plan.success < _UNSURE:
        reasons.append("error_rate")
    if plan.eligible < 2:
        reasons.append("no_alternative")
    if plan.ranked[0].latency_ms is None:
        reasons.append("latency_unmeasured")
    if plan.ranked[0].cost is None:
        reasons.append("price_unknown")
    grave = sum(reason in ("error_rate", "no_alternative") for reason in reasons)
    return {"level": ("low", "medium", "high")[grave], "reasons": reasons}


#: Rejections of those who could have served, but for a limit of this request.
_WEIGHED: Final = frozenset(
    {
        "over_cost_limit",
        "over_budget",
        "over_max_latency",
        "below_quality_threshold",
        "unhealthy",
        "policy_excluded",
        "price_unknown",
        "quality_unknown",
        "not_in_pool",
    }
)
#: Rejected candidates that are looked at for a record.
_MOST_ROWS: Final = 256
