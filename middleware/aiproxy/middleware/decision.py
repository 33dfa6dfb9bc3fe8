"""The decision record of one request: what was asked, who was considered, what was tried.

One record feeds everything: response headers and ``x-aiproxy`` are projections of it
(``disclosure``), ``explain`` and ``GET /v1/routing/decisions/{request_id}`` print it, logs carry
its summary. It is filled while the exchange runs and turned into the ``decision`` schema's shape
only when somebody reads it. It never holds prompt text, credentials, hosts or paths.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from aiproxy.middleware.dialects.canonical import Loss, Usage
from aiproxy.middleware.health import Track
from aiproxy.middleware.intent import Intent
from aiproxy.middleware.money.amounts import usd
from aiproxy.middleware.preferences import Ignored, Preferences
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.plan import Plan, Ranked
from aiproxy.middleware.routing.predictions import estimates, explanation, predicted
from aiproxy.middleware.routing.refusing import Rejected
from aiproxy.middleware.security.trust import LEVEL_NAMES, evidence
from aiproxy.middleware.workflow import Workflow

if TYPE_CHECKING:
    from aiproxy.middleware.ensembles.panel import Panel
    from aiproxy.middleware.security.segregation import Segregation


@dataclass(slots=True)
class Attempt:
    """One call of one provider. Times in milliseconds since the request arrived. ``estimated``: the
    usage is our own reckoning, not the provider's word. ``track`` is the
    endpoint's, where the provider has several. ``role`` is what it was made for where it was not for
    the client's answer alone: *member* or *judge* of an ensemble, *mirror*, *segment* of a request
    that was split by data class."""

    ranked: Ranked
    endpoint: str
    started_ms: float
    latency_ms: float = 0.0
    outcome: str = "running"
    status: int | None = None
    error: str | None = None
    usage: Usage | None = None
    cost: int | None = None
    track: Track | None = None
    role: str | None = None
    estimated: bool = False

    @property
    def model(self) -> Model:
        return self.ranked.model

    def as_dict(self) -> dict[str, Any]:
        model = self.model
        return {
            "provider": model.provider.id,
            "model": model.upstream,
            "endpoint": self.endpoint,
            "outcome": self.outcome,
            "status": self.status,
            "error": self.error,
            "started_ms": round(self.started_ms, 3),
            "latency_ms": round(self.latency_ms, 3),
            "usage": None
            if self.usage is None
            else {**usage_dict(self.usage), **({"estimated": True} if self.estimated else {})},
            "cost_usd": None if self.cost is None else usd(self.cost),
            "price_source": model.price_source,
            **({} if self.role is None else {"role": self.role}),
        }


@dataclass(slots=True)
class Decision:
    """Filled step by step; every field is meaningful at any moment. ``explained``: nobody is asked;
    ``tracked``: the answer names its cost.
    The first ``unsaid`` of the ``losses`` are of what was asked, the others of the answer.
    ``mirrors`` are the ids of the decisions its mirrors get; ``mirror`` is, in one of those, the
    mirror's name and the id of the request it repeats."""

    id: str
    started: float
    created: int
    endpoint: str
    node: str
    owner: str | None = None
    requested: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    preferences: Preferences | None = None
    intent: Intent | None = None
    plan: Plan | None = None
    rejected: tuple[Rejected, ...] = ()
    attempts: list[Attempt] = field(default_factory=list)
    served: Attempt | None = None
    failover_ms: float = 0.0
    auto: dict[str, dict[str, Any]] = field(default_factory=dict)
    reasoning: dict[str, Any] | None = None
    tools: dict[str, Any] | None = None
    losses: list[Loss] = field(default_factory=list)
    unsaid: int = 0
    skipped_events: int = 0
    ignored: list[Ignored] = field(default_factory=list)
    usage: Usage | None = None
    usage_estimated: bool = False
    resumed: list[dict[str, Any]] = field(default_factory=list)
    cost: int | None = None
    latency_ms: float = 0.0
    status: int | None = None
    error: dict[str, Any] | None = None
    outcome: str = "running"
    truncated: bool = False
    conversation: str | None = None
    step: str | None = None
    workflow: Workflow | None = None
    over_limit: bool = False
    explained: bool = False
    tracked: bool = True
    ensemble: "Panel | None" = None
    mirrors: list[str] = field(default_factory=list)
    mirror: tuple[str, str] | None = None
    segregation: "Segregation | None" = None

    @property
    def told_cost(self) -> float | None:
        """What the answer cost, in US dollars, as its reader is told."""
        return None if self.cost is None or not self.tracked else usd(self.cost)

    @property
    def failed_over(self) -> bool:
        """Whether another provider or model than the first attempted one served."""
        if self.served is None or self.ensemble is not None:
            return False  # members of an ensemble do not stand in for each other
        return self.served.model is not self.attempts[0].model

    @property
    def spent(self) -> int:
        """What all attempts are known to have cost, in picodollars."""
        return sum(attempt.cost or 0 for attempt in self.calls)

    @property
    def calls(self) -> list[Attempt]:
        """Every call, those for the parts of a request that was split among them."""
        return (
            self.attempts if self.segregation is None else self.segregation.attempts + self.attempts
        )

    def failover_reason(self) -> str | None:
        """What made the first attempt fail, when another one served."""
        return self.attempts[0].error if self.failed_over else None

    def record(self) -> dict[str, Any]:
        """The record in the shape of the ``decision`` schema."""
        intent, plan = self.intent, self.plan
        estimated = {"estimated": True} if self.usage_estimated else {}
        return {
            "id": self.id,
            "created": self.created,
            "node": self.node,
            "requested": {
                "endpoint": self.endpoint,
                "model": self.requested,
                "stream": bool(intent and intent.stream),
                "headers": dict(self.headers),
            },
            "mode": intent.mode if intent else None,
            "auto": self.auto,
            "task": intent.task if intent else None,
            "task_basis": None if intent is None else _TASK_BASIS[intent.task_source],
            "strategy": intent.strategy if intent else None,
            "strategy_source": intent.strategy_source if intent else None,
            "constraints": _constraints(intent, self.preferences),
            "selected": self._selected(),
            "canary": plan.canary if plan else None,
            "predicted": predicted(plan, intent) if plan and intent and not self.ensemble else None,
            "explanation": explanation(plan, intent, self.started + self.latency_ms / 1000)
            if plan and intent
            else None,
            "candidates": _candidates(
                plan.ranked if plan else (),
                plan.rejected if plan else self.rejected,
                intent,
                plan.slow if plan else frozenset(),
                self.started + self.latency_ms / 1000,
            ),
            "attempts": [attempt.as_dict() for attempt in self.calls],
            "failover": {
                "occurred": self.failed_over,
                "reason": self.failover_reason(),
                "time_ms": round(self.failover_ms, 3) if self.failed_over else None,
            },
            "reasoning": self.reasoning,
            "tools": self.tools,
            "security": self._security(),
            "losses": [{"feature": x.feature, "detail": x.detail} for x in self.losses],
            "skipped_events": self.skipped_events,
            "resumed": self.resumed,
            "ignored": [_ignored(x) for x in self.ignored],
            "usage": None if self.usage is None else {**usage_dict(self.usage), **estimated},
            "cost_usd": None if self.cost is None else usd(self.cost),
            "total_cost_usd": usd(self.spent),
            "cost_limit_exceeded": self.over_limit,
            "latency_ms": round(self.latency_ms, 3),
            "outcome": self.outcome,
            "conversation_id": self.conversation,
            "workflow": self._workflow(),
            "policies": list(plan.policies) if plan else [],
            "error": self.error,
            "truncated": self.truncated,
            **self._beside(),
        }

    def _beside(self) -> dict[str, Any]:
        """What few requests have: an ensemble, mirrors, or being a mirror."""
        found: dict[str, Any] = {}
        if self.ensemble is not None:
            found["ensemble"] = self.ensemble.record()
        if self.segregation is not None:
            found["segregation"] = self.segregation.record()
        if self.mirrors:
            found["mirrors"] = list(self.mirrors)
        if self.mirror is not None:
            found["mirror"] = {"name": self.mirror[0], "of": self.mirror[1]}
        return found

    def _selected(self) -> dict[str, Any] | None:
        if self.plan is None or not (self.served or self.plan.ranked):
            return None
        choice = self.served.ranked if self.served is not None else self.plan.ranked[0]
        return {
            "provider": choice.model.provider.id,
            "model": choice.model.upstream,
            "confidence": self.plan.confidence,
            "reason": "failover" if self.failed_over else self.plan.reason,
        }

    def _workflow(self) -> dict[str, Any] | None:
        if self.workflow is None:
            return None
        return {**self.workflow.as_dict(), "context_preserved": self.context_preserved}

    @property
    def context_preserved(self) -> bool:
        """Whether whoever served was told all that was said before: nothing of the history was let
        go of, and nothing in it could not be said in the provider's dialect (XAI-FAIL-013)."""
        if self.workflow is not None and self.workflow.trimmed:
            return False
        return _CONTENT.isdisjoint(loss.feature for loss in self.losses[: self.unsaid])

    def _security(self) -> dict[str, Any] | None:
        intent = self.intent
        if intent is None or self.preferences is None:
            return None
        chosen = self.served.model.provider if self.served is not None else None
        return evidence(intent.constraints, chosen, self.preferences.data_class)


def usage_dict(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "total_tokens": usage.total,
        "cached_tokens": usage.cached,
        "reasoning_tokens": usage.reasoning,
    }


def _ignored(row: Ignored) -> dict[str, str]:
    kind = "header" if row.name.lower().startswith("x-ai-") else "parameter"
    return {kind: row.name, "why": row.why}


def _constraints(intent: Intent | None, preferences: Preferences | None) -> dict[str, Any]:
    if intent is None:
        return {}
    limits = intent.constraints
    return {
        "pool": None if limits.pool is None else sorted(limits.pool),
        "unknown_pool": list(intent.unknown_pool),
        "cost_limit_usd": None if limits.cost_limit is None else usd(limits.cost_limit),
        "quality_threshold": limits.quality,
        "max_latency_ms": limits.max_latency_ms,
        "security": sorted(limits.labels),
        "data_class": preferences.data_class if preferences else None,
        "regions": sorted(limits.regions),
        "local_only": limits.local_only,
        "min_level": LEVEL_NAMES[limits.level],
        "classes": list(limits.classes),
        "failover_policy": intent.failover,
        "capabilities": sorted(intent.needs),
    }


def _candidates(
    ranked: tuple[Ranked, ...],
    rejected: Sequence[Rejected],
    intent: Intent | None,
    slow: frozenset[Model],
    now: float,
) -> list[dict[str, Any]]:
    """Everybody considered; estimates of those who were turned away are as of ``now``."""
    task = intent.task if intent else "general"
    found = [
        {
            "provider": row.model.provider.id,
            "model": row.model.upstream,
            "eligible": True,
            "reason": None if place == 0 else ("too_slow" if row.model in slow else "lower_score"),
            "score": round(row.score, 6),
            "cost_usd": None if row.cost is None else usd(row.cost),
            "latency_ms": row.latency_ms,
            "quality": row.quality,
        }
        for place, row in enumerate(ranked)
    ]
    found += [
        {
            "provider": out.model.provider.id,
            "model": out.model.upstream,
            "eligible": False,
            "reason": out.reason,
            "detail": out.detail,
            "score": None,
            **estimates(out.model, intent, now),
            "quality": out.model.quality_for(task),
        }
        for out in rejected
    ]
    return found


#: Losses of what was said, and not of how the answer is to be made.
_CONTENT: Final = frozenset(
    {
        "annotations",
        "audio",
        "content_part",
        "custom_tool",
        "item",
        "reasoning",
        "refusal",
        "system",
        "tool_call",
        "tool_calls",
        "tool_result",
    }
)
_TASK_BASIS: Final = {"hint": "hint", "classified": "classified", "none": "default"}
_KEPT: Final = 1000


class DecisionLog:
    """The last decisions by caller and request id, bounded; safe under threads.

    A client may choose its request ids: one caller's never replaces another's.
    """

    def __init__(self, keep: int = _KEPT) -> None:
        self._keep = keep
        self._rows: OrderedDict[tuple[str | None, str], Decision] = OrderedDict()
        self._lock = Lock()

    def add(self, decision: Decision) -> None:
        key = (decision.owner, decision.id)
        with self._lock:
            self._rows[key] = decision
            if len(self._rows) > self._keep:
                self._rows.popitem(last=False)

    def get(self, request_id: str, owner: str | None) -> Decision | None:
        """The decision, or ``None`` when unknown or another caller's."""
        return self._rows.get((owner, request_id))
