"""What a cascade tells of itself (draft Fig 19): each attempt with what became of it, and how the
quality of the answer compares with the best that could have been had.

``target`` is the declared quality of the best candidate, ``achieved`` that of the one that served;
nothing is done to an answer to make up for the difference, so ``mitigation`` is *none*.
"""

from typing import Any, Final

from aiproxy.middleware.decision import Attempt, Decision

_ORDINALS: Final = (
    "primary",
    "secondary",
    "tertiary",
    "quaternary",
    "quinary",
    "senary",
    "septenary",
    "octonary",
)
#: The figure's words for what went wrong; other failures are called what they are called elsewhere.
_DECISIONS: Final = {
    "timeout": "too_slow",
    "outpaced": "too_slow",
    "overloaded": "capacity_exceeded",
    "rate_limited": "capacity_exceeded",
    "local_gpu_busy": "capacity_exceeded",
}
_STATUSES: Final = {"too_slow": "degraded", "capacity_exceeded": "overloaded"}


def cascade(decision: Decision) -> dict[str, Any]:
    """``failover_cascade`` and ``quality_adjustment`` of a request that cascaded; nothing for others
    (XAI-FAIL-017, 019)."""
    intent, attempts = decision.intent, decision.attempts
    if intent is None or intent.failover != "cascading" or len(attempts) < 2:
        return {}
    rows = {
        f"{ordinal}_{'selection' if attempt is decision.served else 'attempt'}": _row(
            decision, attempt
        )
        for ordinal, attempt in zip(_ORDINALS, attempts, strict=False)
    }
    target, achieved = _qualities(decision)
    found: dict[str, Any] = {"failover_cascade": rows}
    if target is not None and achieved is not None:
        adjustment = {"target": target, "achieved": achieved, "mitigation": "none"}
        found["quality_adjustment"] = adjustment
    return found


def _qualities(decision: Decision) -> tuple[float | None, float | None]:
    plan, served = decision.plan, decision.served
    known = [attempt.ranked.quality for attempt in decision.attempts]
    known += [row.quality for row in (plan.ranked if plan is not None else ())]
    best = max((quality for quality in known if quality is not None), default=None)
    return best, None if served is None else served.ranked.quality


def _row(decision: Decision, attempt: Attempt) -> dict[str, Any]:
    found: dict[str, Any] = {"provider": attempt.model.provider.id}
    if attempt is decision.served:
        target, achieved = _qualities(decision)
        lower = target is not None and achieved is not None and achieved < target
        status = "available"
        word = "selected_with_quality_adjustment" if lower else "failover"
    else:
        error = attempt.error or "failed"
        word = _DECISIONS.get(error, error)
        status = _STATUSES.get(word, "failed")
    found["status"] = status
    if attempt.ranked.quality is not None:
        found["quality_estimate"] = attempt.ranked.quality
    found["response_time_ms"] = round(attempt.latency_ms, 1)
    found["decision"] = word
    return found
