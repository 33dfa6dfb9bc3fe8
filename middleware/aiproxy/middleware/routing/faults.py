"""Why a candidate may not serve a request: what is settled by its kind, and what is asked anew."""

from typing import Final

from aiproxy.middleware.dialects.codecs import spoken
from aiproxy.middleware.intent import DEFAULT_OUTPUT_TOKENS, Intent
from aiproxy.middleware.registry import Model
from aiproxy.middleware.security import trust

#: A model nobody has asked yet is taken to answer 19 of 20 calls, as if five had been made.
_PRIOR_CALLS: Final = 5.0
_PRIOR_ANSWERS: Final = 4.75


def worst_cost(intent: Intent, model: Model) -> int | None:
    """Picodollars if the answer uses every token it may; ``None`` when the price is unknown."""
    price = model.price
    if price is None:
        return None
    return price.worst(intent.prompt_tokens, output_tokens(intent, model), intent.copies)


def output_tokens(intent: Intent, model: Model) -> int:
    """Output tokens a worst case counts with."""
    if not intent.writes_text:
        return 0
    limit = intent.output_limit
    if limit is None:
        limit = model.max_output_tokens or DEFAULT_OUTPUT_TOKENS
    elif model.max_output_tokens is not None:
        limit = min(limit, model.max_output_tokens)
    return limit * intent.copies


def static_fault(intent: Intent, model: Model) -> str | None:
    """What keeps a model from every request of this kind."""
    limits, provider = intent.constraints, model.provider
    barred = trust.fault(limits, provider)
    if barred is not None:
        return barred
    if limits.pool is not None and provider.id not in limits.pool:
        return "not_in_pool"
    if not intent.needs <= model.capabilities:
        return "lacks_capability"
    if spoken(intent.endpoint, provider.dialects) is None:
        return "cannot_express"
    if limits.quality is not None and intent.binding:
        quality = model.quality_for(intent.task)
        if quality is None:
            return "quality_unknown"
        if quality < limits.quality:
            return "below_quality_threshold"
    return None


def context_fault(tokens: int, model: Model) -> str | None:
    window = model.context_window
    return "context_too_small" if window is not None and tokens >= window else None


def cost_fault(intent: Intent, cost: int | None) -> str | None:
    """What a worst case in picodollars (``None``: unknown) is too much for."""
    limit, budget = intent.constraints.cost_limit, intent.constraints.budget
    if cost is None:
        return "price_unknown"
    if limit is not None and cost > limit:
        return "over_cost_limit"
    return "over_budget" if budget is not None and cost > budget else None


def latency_fault(limit_ms: float, now: float, model: Model, *, first_byte: bool) -> str | None:
    estimate = model.latency_ms(now, first_byte=first_byte)
    return "over_max_latency" if estimate is not None and estimate > limit_ms else None


def health_fault(now: float, model: Model) -> str | None:
    if model.track.blocked_for(now) > 0 or model.provider.track.blocked_for(now) > 0:
        return "unhealthy"
    return None


def live_fault(intent: Intent, model: Model, now: float) -> str | None:
    """What keeps a model from this very request, of all that changes from call to call."""
    limits = intent.constraints
    fault = context_fault(intent.window_tokens, model)
    if fault is None and limits.spendable is not None:
        fault = cost_fault(intent, worst_cost(intent, model))
    if fault is None and limits.max_latency_ms is not None and intent.binding:
        fault = latency_fault(limits.max_latency_ms, now, model, first_byte=intent.stream)
    return fault or health_fault(now, model)


def cooling(model: Model, now: float) -> bool:
    """Whether a model failed so lately that others go first."""
    return model.track.cooling(now) or model.provider.track.cooling(now)


def success(model: Model) -> float:
    """How likely a call is to be answered, 0..1: the answers of the window, with a small prior."""
    counts = model.track.counts
    calls = counts.answers + counts.failures
    return round((counts.answers + _PRIOR_ANSWERS) / (calls + _PRIOR_CALLS), 4)
