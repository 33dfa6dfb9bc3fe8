"""A decision told to the client: X-AI response headers and the ``x-aiproxy`` member.

Header values are one line of ASCII; JSON is compact. A field stays within ``response_field`` octets
and all of them within ``response_total``: the lowest-ranked alternatives go first and
``"truncated": true`` says so (XAI-RESP-001 to 003).
"""

from collections.abc import Mapping
from json import dumps
from typing import Any

import orjson

from aiproxy.middleware.answering.cascade import cascade
from aiproxy.middleware.auto.listing import listed_tools
from aiproxy.middleware.decision import Decision
from aiproxy.middleware.intent import LIMIT_NAMES
from aiproxy.middleware.money.amounts import usd
from aiproxy.middleware.settings import Settings
from aiproxy.middleware.workflow import Workflow


def metadata(decision: Decision, settings: Settings) -> dict[str, Any] | None:
    """The ``x-aiproxy`` object (AIProxy Standard 5.1), or ``None`` when switched off."""
    served = decision.served
    if served is None or settings.transparency == "none" or not settings.body_metadata:
        return None
    found: dict[str, Any] = {
        "provider": served.model.provider.id,
        "node": decision.node,
        "cost": decision.told_cost,
        "latency_ms": round(decision.latency_ms, 2),
    }
    if decision.resumed:
        found["resumed"] = True
    if settings.transparency == "minimal":
        return found
    found["model"] = served.model.upstream
    found["request_id"] = decision.id
    found["attempts"] = len(decision.calls)
    if decision.segregation is not None and decision.told_cost is not None:
        found["cost"] = usd(decision.spent)
    if decision.usage_estimated:
        found["estimated"] = True
    if decision.failed_over:
        found["failover"] = True
        found["failover_reason"] = decision.failover_reason()
    if decision.losses:
        found["losses"] = [{"feature": x.feature, "detail": x.detail} for x in decision.losses]
    if decision.over_limit:
        found["cost_limit_exceeded"] = True
    if decision.ensemble is not None:
        found["ensemble"] = decision.ensemble.compact()
    return found


def response_headers(decision: Decision, settings: Settings) -> list[tuple[str, str]]:
    """The X-AI headers of a response, lower-case names; empty when the request sent none."""
    intent = decision.intent
    if intent is None or intent.mode != "assisted" or settings.transparency == "none":
        return []
    found: list[tuple[str, str]] = []
    served = decision.served
    if served is not None:
        found.append(("x-ai-provider-used", served.model.provider.id))
        if intent.model_auto or served.model.upstream != intent.model:
            found.append(("x-ai-model-mapped", _ascii(served.model.upstream)))
        if decision.failed_over:
            found.append(("x-ai-failover-occurred", "true"))
    if decision.conversation is not None:
        found.append(("x-ai-conversation-id", decision.conversation))
    if decision.step is not None:
        found.append(("x-ai-workflow-step", decision.step))
    if settings.transparency == "minimal" or decision.plan is None:
        return found
    if intent.selects:
        found.append(("x-ai-selection-confidence", _decimal(decision.plan.confidence)))
    room = settings.response_total_bytes - sum(len(n) + len(v) + 4 for n, v in found)
    fields = _json_fields(decision)
    fitted, whole = _fit_all(fields, settings.response_field_bytes, room)
    if not whole or decision.plan.eligible > len(decision.plan.ranked):
        decision.truncated = True
        # a list cannot carry the mark itself: the first field carries it for all
        name, selection = fields[0]
        fields[0] = (name, {**selection, "truncated": True})
        fitted, _ = _fit_all(fields, settings.response_field_bytes, room)
    return found + fitted


def _fit_all(
    fields: list[tuple[str, Any]], each: int, room: int
) -> tuple[list[tuple[str, str]], bool]:
    """The fields as text within ``each`` and ``room`` octets, and whether nothing was left out."""
    found: list[tuple[str, str]] = []
    whole = True
    for name, value in fields:
        text, all_there = _fit(value, min(each, room - len(name) - 4))
        whole = whole and all_there
        if text is not None:
            found.append((name, text))
            room -= len(name) + len(text) + 4
    return found, whole


def _json_fields(decision: Decision) -> list[tuple[str, Any]]:
    """JSON-valued fields, most important first."""
    fields: list[tuple[str, Any]] = [("x-ai-auto-selection", _auto_selection(decision))]
    if decision.auto:
        fields.append(("x-ai-auto-decisions", auto_decisions(decision)))
    if decision.tools is not None:
        mapping = {**_tool_mapping(decision), **_tool_candidates(decision)}
        fields.append(("x-ai-tool-mapping", mapping))
    assert decision.plan is not None
    others = [
        {
            "provider": ranked.model.provider.id,
            "model": ranked.model.upstream,
            "reason": _why_not(decision, ranked.model),
        }
        for ranked in decision.plan.ranked
        if decision.served is None or ranked.model is not decision.served.model
    ]
    fields.append(("x-ai-alternatives-considered", others))
    return fields


def _why_not(decision: Decision, model: Any) -> str:
    for attempt in decision.attempts:
        if attempt.model is model:
            return attempt.error or "lower_score"
    plan = decision.plan
    return "too_slow" if plan is not None and model in plan.slow else "lower_score"


def _auto_selection(decision: Decision) -> dict[str, Any]:
    intent, plan = decision.intent, decision.plan
    assert intent is not None
    assert plan is not None
    found: dict[str, Any] = {
        "criteria": intent.task if intent.selects else "explicit_model",
        "strategy": intent.strategy,
        "confidence": plan.confidence,
    }
    if decision.segregation is not None:
        found |= {"strategy": "segregation", **decision.segregation.record()}
    served = decision.served
    chosen = served.ranked if served is not None else next(iter(plan.ranked), None)
    if intent.model_auto and chosen is not None:
        found["model_selection"] = {
            "requested": intent.model,
            "criteria": intent.task,
            "selected": chosen.model.upstream,
            "reason": "failover" if decision.failed_over else plan.reason,
        }
    if served is not None and intent.constraints.max_latency_ms is not None:
        found["latency_achieved_ms"] = round(served.latency_ms, 1)
    if decision.reasoning is not None:
        found["reasoning_capability"] = decision.reasoning["capability"]
        if decision.reasoning["technique"] is not None:
            found["fallback_strategy"] = {
                "native_reasoning_available": any(
                    row.model.reasoning == "native" for row in plan.ranked
                ),
                "prompt_enhancement": decision.reasoning["technique"],
            }
    if decision.failed_over:
        found["failover_reason"] = decision.failover_reason()
        found["failover_time_ms"] = round(decision.failover_ms, 1)
        found["context_preserved"] = decision.context_preserved
        found["conversation_continuity"] = "maintained"
    if decision.workflow is not None:
        found |= _workflow(decision, decision.workflow)
    if len(decision.attempts) > 1:
        found |= cascade(decision)
    if len(decision.attempts) > 1 or (served is None and decision.attempts):
        found["attempts"] = [
            {
                "provider": attempt.model.provider.id,
                "outcome": attempt.error or ("ok" if attempt is served else attempt.outcome),
            }
            for attempt in decision.attempts
        ]
    if decision.ignored:
        found["ignored_headers"] = [x.name for x in decision.ignored if x.name[:5] == "X-AI-"]
    security = intent.constraints.labels
    if security:
        found["security_compliance"] = dict.fromkeys(sorted(security), "attested")
    rejected = [
        {"provider": row.model.provider.id, "reason": row.reason}
        if row.detail is None
        else {"provider": row.model.provider.id, "reason": row.reason, "detail": row.detail}
        for row in _by_provider(plan)
    ]
    rejected += [{"provider": name, "reason": "unknown_provider"} for name in intent.unknown_pool]
    if rejected:
        found["alternatives_rejected"] = rejected
    return found


def _workflow(decision: Decision, workflow: Workflow) -> dict[str, Any]:
    """What became of the conversation, where there is something to say (XAI-WF-013, FAIL-013)."""
    found: dict[str, Any] = {}
    if decision.failed_over or workflow.continuity != "maintained":
        found["context_preserved"] = decision.context_preserved
        found["conversation_continuity"] = workflow.continuity
    if workflow.merged and decision.served is not None:
        found["branches_merged"] = list(workflow.merged)
        found["context_integration"] = workflow.integration
        found["workflow_completion"] = "success"
    return found


def _by_provider(plan: Any) -> list[Any]:
    """One row per provider and reason: the header has no room for every model."""
    seen: dict[tuple[str, str], Any] = {}
    for row in plan.rejected:
        seen.setdefault((row.model.provider.id, row.reason), row)
    return list(seen.values())


def auto_decisions(decision: Decision) -> dict[str, Any]:
    """One entry for each parameter that was ``auto`` (XAI-RESP-010)."""
    found: dict[str, Any] = {}
    for name, entry in decision.auto.items():
        if name == "model":
            found["model_selection"] = {
                "requested": entry["requested"],
                "selected": entry["resolved"],
                "reason": entry["basis"],
            }
        elif name == "tools":
            found["tool_mapping"] = _tool_mapping(decision)
        elif name in LIMIT_NAMES:
            found["token_optimization"] = {
                "requested": entry["requested"],
                "calculated": entry["resolved"],
                "basis": entry["basis"],
            }
        elif name == "response_format":
            found["response_format"] = entry
        elif decision.reasoning is not None:
            found["reasoning"] = {
                "requested": entry["requested"],
                "capability": decision.reasoning["capability"],
            }
            if decision.reasoning["technique"] is not None:
                found["reasoning"]["technique"] = decision.reasoning["technique"]
    return found


def _tool_mapping(decision: Decision) -> dict[str, Any]:
    tools = decision.tools
    assert tools is not None
    return {
        "requested": tools["requested"],
        "selected_tools": tools["selected"],
        "unmapped": tools["unmapped"],
    }


def _tool_candidates(decision: Decision) -> dict[str, Any]:
    """Which categories there are, and which tools each provider has for them (XAI-TOOL-015)."""
    plan = decision.plan
    assert plan is not None
    offered: dict[str, dict[str, None]] = {}
    categories: set[str] = set()
    models = [row.model for row in plan.ranked] + [row.model for row in plan.rejected]
    for model in models:
        for tool in listed_tools(model):
            categories.add(tool.category)
            offered.setdefault(model.provider.id, {})[tool.name] = None
    return {
        "available_categories": sorted(categories),
        "provider_tools": {name: list(names) for name, names in offered.items()},
    }


def _fit(value: Any, limit: int) -> tuple[str | None, bool]:
    """The value as one line of at most ``limit`` octets, shortened from its lists' ends; and
    whether it is all there."""
    text = encode_header(value)
    if len(text) <= limit:
        return text, True
    if isinstance(value, list):
        return _shorter_list(value, limit), False
    return _shorter_object(value, limit), False


def _shorter_list(rows: list[Any], limit: int) -> str | None:
    while rows:
        rows = rows[: len(rows) // 2]
        text = encode_header(rows)
        if len(text) <= limit:
            return text
    return None


def _shorter_object(value: Mapping[str, Any], limit: int) -> str | None:
    shorter: dict[str, Any] = {**value, "truncated": True}
    for key in ("provider_tools", "available_categories", "failover_cascade"):
        if shorter.pop(key, None) is not None:
            text = encode_header(shorter)
            if len(text) <= limit:
                return text
    for key in ("alternatives_rejected", "selected_tools", "attempts", "ignored_headers"):
        rows = shorter.get(key)
        while rows:
            rows = rows[: len(rows) // 2]
            shorter[key] = rows
            text = encode_header(shorter)
            if len(text) <= limit:
                return text
        shorter.pop(key, None)
    text = encode_header(shorter)
    return text if len(text) <= limit else None


def encode_header(value: Any) -> str:
    """Compact JSON in ASCII."""
    raw = orjson.dumps(value)
    if raw.isascii():
        return raw.decode("ascii")
    return dumps(orjson.loads(raw), separators=(",", ":"), ensure_ascii=True)


def _ascii(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return text.encode("unicode_escape").decode("ascii")


def _decimal(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if value not in (0.0, 1.0) else f"{value:.1f}"
