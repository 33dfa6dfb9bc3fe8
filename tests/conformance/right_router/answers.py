"""What the client is told besides the answer: X-AI response headers, x-aiproxy, errors, records.

JSON values are one line of compact ASCII; a field and all fields together stay within their
bounds, and what was left out is marked.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from right_server import Refusal

from right_router import misdrawn

if TYPE_CHECKING:
    from right_router.asking import Ask
    from right_router.attempts import Attempt
    from right_router.settings import Model

TYPES = {401: "invalid_request_error", 403: "permission_error", 409: "conflict_error",
         429: "rate_limit_error"}  # fmt: skip


class Declined(Refusal):
    """A refusal that may say when to come again, and whether it is worth it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        *,
        wait_s: float | None = None,
        retry: bool | None = None,
    ) -> None:
        super().__init__(status, code, message, param)
        self.wait_s, self.retry = wait_s, retry

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The header fields that go with it."""
        found = []
        if self.wait_s is not None:
            found.append(("Retry-After", str(max(1, round(self.wait_s)))))
        if self.retry is False:
            found.append(("x-should-retry", "false"))
        return found


def error_body(refusal: Refusal) -> dict[str, Any]:
    """Return the OpenAI error object of a refusal."""
    kind = TYPES.get(refusal.status, "invalid_request_error")
    if refusal.status >= 500:
        kind = "server_error" if refusal.status in (500, 501) else "upstream_error"
    if refusal.code == "budget_exceeded":
        kind = "insufficient_quota"
    return {
        "error": {
            "message": refusal.message,
            "type": kind,
            "param": refusal.param,
            "code": refusal.code,
        }
    }


def failed_over(ask: "Ask") -> bool:
    """Return whether another provider than the first one asked has served."""
    if ask.served is None or not ask.attempts:
        return False
    first = ask.attempts[0].model.provider
    return ask.served.model.provider is not first


def failover_reason(ask: "Ask") -> str | None:
    """Return why the first attempt gave nothing, when another one served."""
    if not failed_over(ask):
        return None
    reason = ask.attempts[0].error
    if ask.has("reason-always-timeout") and reason != "local_gpu_busy":
        return "timeout"
    return reason


def failover_ms(ask: "Ask") -> float:
    """Return how long it took until the provider that served was asked."""
    if ask.has("failover-took-no-time"):
        return 0.0
    served = ask.served or ask.attempts[-1]
    return round((served.started - ask.attempts[0].started) * 1000, 1)


def x_aiproxy(ask: "Ask") -> dict[str, Any]:
    """Return the x-aiproxy object of an answer (AIProxy section 5.1)."""
    served = ask.served
    assert served is not None
    found: dict[str, Any] = {
        "provider": served.model.provider.id,
        "node": ask.settings.node,
        "cost": None if served.cost is None else float(served.cost),
        "latency_ms": ask.elapsed_ms(),
        "model": served.model.upstream,
        "request_id": ask.id,
        "attempts": len(ask.attempts),
        "failover": failed_over(ask),
    }
    if ask.has("x-aiproxy-first-provider"):
        found["provider"] = ask.attempts[0].model.provider.id
    if ask.has("cost-rounded") and found["cost"] is not None:
        found["cost"] = round(found["cost"], 3)
    if ask.has("cost-null") or (
        ask.has("cost-null-on-responses") and ask.endpoint in ("responses", "draft")
    ):
        found["cost"] = None
    if ask.has("cost-in-cents") and ask.cost_source == "X-AI-Cost-Limit" and found["cost"]:
        found["cost"] *= 100
    if ask.has("latency-constant"):
        found["latency_ms"] = 42.0
    if ask.has("node-missing"):
        del found["node"]
    if failed_over(ask):
        found["failover_reason"] = failover_reason(ask)
    if served.estimated:
        found["estimated"] = True
    if ask.losses:
        found["losses"] = ask.losses
    if ask.ignored:
        found["ignored"] = [{"header": name, "why": why} for name, why in ask.ignored]
    limit = ask.cost_limit
    if limit is not None and served.cost is not None and served.cost > limit:
        found["cost_limit_exceeded"] = True
    return found


def headers(ask: "Ask") -> list[tuple[str, str]]:
    """Return the X-AI response headers; none where the client sent none of its own."""
    active = ask.mode == "assisted" and ask.preferences.active
    if ask.has("headers-always"):
        active = True
    if ask.has("headers-when-disabled") and ask.mode == "disabled":
        active = True
    transparency = ask.settings.raw.get("transparency") or "full"
    if not active or transparency == "none" or ask.has("no-decision-headers"):
        return []
    found: list[tuple[str, str]] = []
    served = ask.served
    if served is not None:
        found += identity(ask, served)
    if ask.conversation is not None and not ask.has("no-conversation-id"):
        later = ask.preferences.conversation and ask.has("conversation-id-changes")
        name = f"conv-{uuid4().hex}" if later else ask.conversation
        found.append(("X-AI-Conversation-ID", name))
    if ask.step is not None:
        found.append(("X-AI-Workflow-Step", ask.step))
    if transparency == "minimal" or ask.plan is None:
        return found
    if ask.selects:
        sure = ask.plan.confidence
        text = f"{round(sure * 100)}%" if ask.has("confidence-percent") else decimal(sure)
        found.append(("X-AI-Selection-Confidence", text))
    return misdrawn.headers(ask, fitted(ask, found, json_fields(ask)))


def identity(ask: "Ask", served: "Attempt") -> list[tuple[str, str]]:
    """Return who served, under which name, and whether somebody else was asked first."""
    model = served.model
    used, mapped = model.provider.id, model.upstream
    if ask.has("used-is-first-tried"):
        used = ask.attempts[0].model.provider.id
    if ask.has("used-is-alias"):
        used = f"provider-{used}"
    if ask.has("pool-of-one-alias") and len(ask.pool or ()) == 1 and not ask.model_auto:
        used = f"provider-{used}"
    if ask.has("mapped-is-public-name"):
        mapped = model.name
    if ask.has("header-liar"):
        used = ask.plan.order[0].provider.id if ask.plan else used
        mapped = ask.plan.order[0].upstream if ask.plan else mapped
    found = [("X-AI-Provider-Used", used), ("X-AI-Model-Mapped", mapped)]
    if ask.has("no-provider-used"):
        del found[0]
    if ask.has("no-model-mapped"):
        del found[-1]
    occurred = failed_over(ask) != ask.has("failover-unreported")
    if (failed_over(ask) and occurred) or ask.has("failover-always-true"):
        found.append(("X-AI-Failover-Occurred", "true"))
    return found


def json_fields(ask: "Ask") -> list[tuple[str, Any]]:
    """Return the JSON headers, the most important first."""
    assert ask.plan is not None
    found: list[tuple[str, Any]] = [("X-AI-Auto-Selection", auto_selection(ask))]
    if ask.auto_decisions and ask.mode == "assisted":
        found.append(("X-AI-Auto-Decisions", ask.auto_decisions))
    if ask.tool_mapping is not None and not ask.has("no-tool-mapping"):
        found.append(("X-AI-Tool-Mapping", ask.tool_mapping))
    others = [
        {"provider": m.provider.id, "model": m.upstream, "reason": why_not(ask, m)}
        for m in ask.plan.order
        if ask.served is None or m is not ask.served.model
    ]
    found.append(("X-AI-Alternatives-Considered", others))
    return found


def why_not(ask: "Ask", model: "Model") -> str:
    """Return why a candidate did not serve."""
    for made in ask.attempts:
        if made.model is model and made.error:
            return made.error
    return "lower_score"


def auto_selection(ask: "Ask") -> dict[str, Any]:
    """Return how the choice was made, in the keys of the figures."""
    assert ask.plan is not None
    plan = ask.plan
    found: dict[str, Any] = {
        "criteria": ask.task if ask.selects else "explicit_model",
        "strategy": ask.strategy,
        "confidence": plan.confidence,
        "reason": "failover" if failed_over(ask) else plan.reason,
    }
    served = ask.served
    if served is not None and ask.model_auto:
        found["model_selection"] = {
            "requested": ask.model,
            "criteria": ask.task,
            "selected": served.model.upstream,
            "reason": found["reason"],
        }
    if served is not None:
        found["latency_achieved_ms"] = 1 if ask.has("latency-invented") else served.latency_ms
    found.update(reasoning_told(ask))
    if failed_over(ask):
        found["failover_reason"] = failover_reason(ask)
        found["failover_time_ms"] = failover_ms(ask)
        found["context_preserved"] = True
        found["conversation_continuity"] = "maintained"
    if len(ask.attempts) > 1 or (ask.attempts and served is None):
        found["attempts"] = [attempt_told(made) for made in ask.attempts]
    if failed_over(ask) and ask.policy == "cascading":
        found["failover_cascade"] = cascade(ask)
        found.update(quality_told(ask))
    names = [name for name, _ in ask.ignored if name.startswith("X-AI-")]
    if names and not ask.has("ignored-unreported"):
        found["ignored_headers"] = names
    if ask.merged and not ask.has("merge-unreported"):
        found["branches_merged"] = list(ask.merged)
        found |= {"context_integration": "complete", "workflow_completion": "success"}
    if ask.labels:
        found["security_compliance"] = dict.fromkeys(sorted(ask.labels), "attested")
    away = rejected(ask)
    if away and not ask.has("rejected-unreported"):
        found["alternatives_rejected"] = away
    return found


def reasoning_told(ask: "Ask") -> dict[str, Any]:
    """Return how reasoning was delivered, in the keys of Figs 1 and 2."""
    achieved = ask.reasoning_achieved
    if achieved is None or ask.has("reasoning-unreported"):
        return {}
    found: dict[str, Any] = {"reasoning_capability": achieved["capability"]}
    if achieved["capability"] != "native":
        found["fallback_strategy"] = {"native_reasoning_available": native_left(ask)}
    if achieved["technique"]:
        found.setdefault("fallback_strategy", {})
        found["fallback_strategy"]["prompt_enhancement"] = "added_reasoning_structure"
        found["fallback_strategy"]["selected_approach"] = achieved["technique"]
        found["reasoning_simulation"] = {"technique": achieved["technique"]}
    return found


def native_left(ask: "Ask") -> bool:
    """Return whether a candidate reasons natively."""
    return any(m.reasoning == "native" for m in ask.plan.order) if ask.plan else False


def attempt_told(made: "Attempt") -> dict[str, Any]:
    """Return one attempt as the headers tell it."""
    return {
        "provider": made.model.provider.id,
        "model": made.model.upstream,
        "outcome": made.error or made.outcome,
        "status": made.status,
        "latency_ms": made.latency_ms,
    }


def cascade(ask: "Ask") -> dict[str, Any]:
    """Return the attempts in the keys of Fig 19."""
    found: dict[str, Any] = {}
    words = ("primary", "secondary", "tertiary")
    for place, made in enumerate(ask.attempts):
        ordinal = words[place] if place < len(words) else f"attempt_{place + 1}"
        last = made is ask.served
        row: dict[str, Any] = {
            "provider": made.model.provider.id,
            "model": made.model.upstream,
            "status": "available" if last else (made.error or "failed"),
            "decision": "selected_with_quality_adjustment" if last else (made.error or "failed"),
            "response_time_ms": made.latency_ms,
        }
        quality = made.model.quality_for(ask.task)
        if quality is not None:
            row["quality_estimate"] = quality
        found[f"{ordinal}_{'selection' if last else 'attempt'}"] = row
    return found


def quality_told(ask: "Ask") -> dict[str, Any]:
    """Return the quality given up on the way, where it is declared."""
    known = (
        [q for m in ask.plan.order if (q := m.quality_for(ask.task)) is not None]
        if ask.plan
        else []
    )
    achieved = ask.served.model.quality_for(ask.task) if ask.served else None
    if not known or achieved is None:
        return {}
    return {"quality_adjustment": {"target": max(known), "achieved": achieved}}


def rejected(ask: "Ask") -> list[dict[str, Any]]:
    """Return who was turned away and why, one row a provider and reason."""
    assert ask.plan is not None
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for model, reason in ask.plan.rejected:
        row: dict[str, Any] = {"provider": model.provider.id, "reason": reason}
        if reason == "too_slow":
            row["latency_ms"] = ask.router.health.track(model).latency_ms(first=ask.stream)
        rows.setdefault((model.provider.id, reason), row)
    if ask.pool is not None:
        # whoever was not named is no alternative
        rows = {key: row for key, row in rows.items() if key[1] != "not_in_pool"}
    unknown = getattr(ask, "unknown_pool", ())
    told = [{"provider": name, "reason": "unknown_provider"} for name in unknown]
    return told + list(rows.values())


def compact(value: Any, ask: "Ask") -> str:
    """Return a JSON value for a header."""
    if ask.has("headers-pretty"):
        return json.dumps(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=not ask.has("headers-not-ascii"))


def fitted(
    ask: "Ask", found: list[tuple[str, str]], fields: list[tuple[str, Any]]
) -> list[tuple[str, str]]:
    """Return all fields within their bounds, the lowest ranked rows left out first."""
    each, room = ask.settings.response_field, ask.settings.response_total
    if ask.has("headers-unbounded"):
        each = room = 1_000_000
    room -= sum(len(name) + len(value) + 4 for name, value in found)
    told = dict(fields)
    lists = ("alternatives_rejected", "attempts", "ignored_headers")
    while too_large(ask, told, each, room):
        if not ask.has("truncation-unmarked"):
            told["X-AI-Auto-Selection"]["truncated"] = True
        others = told.get("X-AI-Alternatives-Considered")
        longest = max(lists, key=lambda name: len(told["X-AI-Auto-Selection"].get(name, ())))
        rows = told["X-AI-Auto-Selection"].get(longest) or []
        if others and len(others) >= len(rows):
            told["X-AI-Alternatives-Considered"] = others[: len(others) // 2]
        elif rows:
            told["X-AI-Auto-Selection"][longest] = rows[: len(rows) // 2]
        else:
            told.pop(next(reversed(told)))
    return found + [(name, compact(value, ask)) for name, value in told.items()]


def too_large(ask: "Ask", told: Mapping[str, Any], each: int, room: int) -> bool:
    """Return whether a field, or all of them together, exceed their bounds."""
    sizes = [(name, len(compact(value, ask))) for name, value in told.items()]
    return any(size > each for _, size in sizes) or sum(s + len(n) + 4 for n, s in sizes) > room


def decimal(number: float) -> str:
    """Return a share as a plain decimal."""
    return f"{number:.4f}".rstrip("0").rstrip(".") or "0"


def record(ask: "Ask") -> dict[str, Any]:
    """Return the decision record of a request."""
    plan, served = ask.plan, ask.served
    found = {
        "id": ask.id,
        "created": ask.created,
        "requested": {
            "endpoint": ask.endpoint,
            "model": ask.model,
            "stream": ask.stream,
            "headers": dict(ask.preferences.said),
            "routing": dict(ask.native) or None,
        },
        "task": ask.task,
        "strategy": ask.strategy,
        "strategy_source": ask.strategy_source,
        "mode": ask.mode,
        "constraints": constraints(ask),
        "selected": None if plan is None or not plan.order else selected(ask),
        "candidates": [] if plan is None else candidates_told(ask),
        "attempts": attempts_told(ask),
        "failover": {
            "occurred": failed_over(ask),
            "reason": failover_reason(ask),
            "time_ms": failover_ms(ask) if failed_over(ask) else None,
        },
        "reasoning": ask.reasoning_achieved,
        "losses": ask.losses,
        "ignored": [{"header": name, "why": why} for name, why in ask.ignored],
        "usage": dict(served.usage or {}) if served else None,
        "cost_usd": None if served is None or served.cost is None else float(served.cost),
        "latency_ms": ask.elapsed_ms(),
        "node": ask.settings.node,
        "error": ask.error,
    }
    return misdrawn.record(ask, found)


def attempts_told(ask: "Ask") -> list[dict[str, Any]]:
    """Return the attempts in the order they were made."""
    found = [attempt_record(ask, made) for made in ask.attempts]
    return found[::-1] if ask.has("attempts-told-backwards") else found


def constraints(ask: "Ask") -> dict[str, Any]:
    return {
        "pool": None if ask.pool is None else sorted(ask.pool),
        "cost_limit_usd": None if ask.cost_limit is None else float(ask.cost_limit),
        "quality_threshold": ask.quality,
        "max_latency_ms": ask.max_latency_ms,
        "security": sorted(ask.labels),
        "data_class": ask.preferences.data_class,
        "failover_policy": ask.policy,
        "capabilities": sorted(ask.needs),
        "unknown_pool": list(getattr(ask, "unknown_pool", ())),
    }


def selected(ask: "Ask") -> dict[str, Any]:
    assert ask.plan is not None
    model = ask.served.model if ask.served else ask.plan.order[0]
    return {
        "provider": model.provider.id,
        "model": model.upstream,
        "confidence": ask.plan.confidence,
        "reason": "failover" if failed_over(ask) else ask.plan.reason,
    }


def candidates_told(ask: "Ask") -> list[dict[str, Any]]:
    assert ask.plan is not None
    rows = [(m, True, None) for m in ask.plan.order]
    rows += [(m, False, reason) for m, reason in ask.plan.rejected]  # type: ignore[misc]
    return [
        {
            "provider": m.provider.id,
            "model": m.upstream,
            "eligible": eligible,
            "reason": "not_eligible" if reason and ask.has("one-reason-for-all") else reason,
            "score": round(ask.plan.scores.get(m, 0.0), 6) if eligible else None,
            "quality": m.quality_for(ask.task),
        }
        for m, eligible, reason in rows
    ]


def attempt_record(ask: "Ask", made: "Attempt") -> dict[str, Any]:
    return {
        **attempt_told(made),
        "outcome": made.outcome,
        "error": made.error,
        "started_ms": round((made.started - ask.started) * 1000, 3),
        "usage": dict(made.usage) if made.usage else None,
        "cost_usd": None if made.cost is None else float(made.cost),
    }
