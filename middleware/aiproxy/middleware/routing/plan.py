"""Who may serve a request, in which order, and why the others may not.

Everything about a candidate that does not change from request to request (capabilities, pool,
labels, declared quality, dialect) is decided once per kind of request and kept in a ``Slate``;
a request then pays only for what is live: cost, context, latency and health.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from aiproxy.middleware.dialects.codecs import DIVIDING
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intent import Intent
from aiproxy.middleware.preferences import Ignored
from aiproxy.middleware.registry import Model, Registry
from aiproxy.middleware.routing import plugins, strategies
from aiproxy.middleware.routing.balancing import spreader
from aiproxy.middleware.routing.board import Board
from aiproxy.middleware.routing.faults import (
    cooling,
    cost_fault,
    latency_fault,
    live_fault,
    output_tokens,
    static_fault,
    success,
    worst_cost,
)
from aiproxy.middleware.routing.planned import (
    Plan,
    Ranked,
    by_chain,
    cheapest,
    confidence,
    rows,
)
from aiproxy.middleware.routing.refusing import Rejected, Rejections, refusal, unknown_model
from aiproxy.middleware.routing.rules import Compiled
from aiproxy.middleware.routing.slate import Slate, build_slate
from aiproxy.middleware.routing.strategies import Figures, Terms
from aiproxy.middleware.routing.verdicts import apply_policies
from aiproxy.middleware.routing.walking import Check
from aiproxy.middleware.settings import Settings

__all__ = ["KEEP", "Plan", "Planner", "Ranked", "cheapest", "output_tokens", "worst_cost"]

#: Candidates kept in order beyond the attempts that may be made, for ``alternatives``.
KEEP: Final = 16
_MOST_SLATES: Final = 512
#: Candidates kept in all slates together, or in some slates of everybody.
_MOST_PLACES: Final = 1 << 14
_WHOLE_SLATES: Final = 8


class _Narrowed(NamedTuple):
    """Figures of the models to order, how many may serve as far as known, and who may not."""

    figures: Figures
    eligible: int
    rejected: Sequence[Rejected]


class Planner:
    """Plans requests against one registry."""

    def __init__(
        self, registry: Registry, settings: Settings, policies: Compiled | None = None
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._policies = policies
        self._slates: dict[tuple[Any, ...], Slate] = {}
        self._places = 0
        self._most_places = max(_MOST_PLACES, _WHOLE_SLATES * len(registry.models))
        self._spread = spreader(settings.spread)

    def plan(self, intent: Intent, now: float) -> Plan:
        """Return the order of candidates.

        Raises:
            ProxyError: 404 unknown model, 400 context or capability, 422 nothing can ever serve
                it, 503 only health is in the way.
        """
        if not intent.selects:
            return self._fixed(intent, now)
        return self._choose(intent, self._slate(intent, None), now)

    def among(self, intent: Intent, models: Sequence[Model], now: float) -> tuple[Ranked, ...]:
        """The order of some models for a request, inside every constraint and policy; nobody where
        none of them may serve."""
        fit = [m for m in models if static_fault(intent, m) is None]
        if not fit:
            return ()
        slate = build_slate(intent, fit, KEEP)
        try:
            return self._choose(intent, slate, now).ranked
        except ProxyError:
            return ()

    def plan_default(self, intent: Intent, now: float) -> Plan:
        """The default provider's model, or the named one, in file order: no strategy, no policy,
        every constraint (XAI-FAIL-021)."""
        if intent.model_auto:
            models = tuple(m for m in self._registry.models if intent.needs <= m.capabilities)
        else:
            models = self._registry.named(intent.model)
        default = self._registry.default
        kept = [m for m in models if self._protected(intent, m, now) is None]
        kept.sort(key=lambda m: (m.provider is not default, m.provider.priority, m.order))
        if not kept:
            faults = [(m, self._protected(intent, m, now)) for m in models]
            rejected = tuple(Rejected(m, fault or "lacks_capability") for m, fault in faults)
            raise refusal(intent, rejected, now)
        return Plan(
            ranked=tuple(
                Ranked(m, 0.0, worst_cost(intent, m), None, m.quality_for(intent.task))
                for m in kept[:KEEP]
            ),
            rejected=(),
            strategy=intent.strategy,
            confidence=0.0,
            reason="default_provider",
            eligible=len(kept),
        )

    @staticmethod
    def _protected(intent: Intent, model: Model, now: float) -> str | None:
        """What keeps a model from a request whatever else is left aside."""
        slowest = intent.constraints.max_latency_ms
        fault = static_fault(intent, model)
        if fault is None and intent.constraints.spendable is not None:
            fault = cost_fault(intent, worst_cost(intent, model))
        if fault is None and slowest is not None and intent.binding:
            fault = latency_fault(slowest, now, model, first_byte=intent.stream)
        return fault

    # --- an explicit model, or the default one ---------------------------------------------------

    def _fixed(self, intent: Intent, now: float) -> Plan:
        registry = self._registry
        if intent.model_auto:
            default = registry.default_model(intent.needs)
            if default is None:
                raise ProxyError(
                    "no_eligible_provider",
                    f"The default provider {registry.default.id!r} lists no model for this "
                    "endpoint; name a model, or send X-AI-Multi-Provider: enabled.",
                    param="model",
                    should_retry=False,
                )
            models: tuple[Model, ...] = (default,)
            if intent.mode == "plain":
                models += tuple(m for m in registry.named(default.name) if m is not default)
        else:
            models = registry.named(intent.model)
            if not models:
                raise unknown_model()
            if intent.mode == "disabled":
                models = tuple(m for m in models if m.provider is registry.default)
                if not models:
                    raise unknown_model()
        slate = self._slate(intent, models)
        plan = self._choose(intent, slate, now)
        if intent.model_auto and not plan.policies and plan.ranked[0].model is not models[0]:
            # without a header the default provider is asked first (XAI-SYNC-007)
            first = [r for r in plan.ranked if r.model is models[0]]
            rest = [r for r in plan.ranked if r.model is not models[0]]
            plan = replace(plan, ranked=tuple(first + rest))
        return plan

    # --- the unchanging part ---------------------------------------------------------------------

    def _slate(self, intent: Intent, models: tuple[Model, ...] | None) -> Slate:
        limits = intent.constraints
        key = (
            intent.endpoint,
            intent.model if models is not None else None,
            intent.mode if models is not None else None,
            limits.pool,
            limits.labels,
            limits.regions,
            limits.local_only,
            limits.level,
            limits.quality if intent.binding else None,
            intent.task,
            intent.task_source,
            intent.needs,
            intent.features & DIVIDING if intent.features else intent.features,
        )
        known = models is None or models[0].name in self._registry.by_name
        slate = self._slates.get(key) if known else None
        if slate is None:
            rows = models if models is not None else self._registry.models
            slate = build_slate(intent, rows, KEEP)
            if known:
                self._places += len(slate.models)
                if len(self._slates) >= _MOST_SLATES or self._places > self._most_places:
                    self._slates.clear()
                    self._places = len(slate.models)
                self._slates[key] = slate
        return slate

    # --- the live part ---------------------------------------------------------------------------

    def _choose(self, intent: Intent, slate: Slate, now: float) -> Plan:
        settings = self._settings
        slate.turns += 1
        ruling = self._policies is not None and bool(self._policies.active(intent.strategy))
        custom = plugins.numbers(intent.strategy, now)
        keep = len(slate.models) if ruling else KEEP
        terms = Terms(settings.weights, slate.turns - 1, keep, id(slate), self._spread, custom)
        unmet = _only_preferred(intent)
        if slate.board is None or ruling or unmet or custom is not None:
            narrowed = self._weigh_all(intent, slate, now)
        else:
            narrowed = self._weigh_some(intent, slate.board, slate, now)
        figures, eligible, rejected = narrowed
        if not figures.models:
            raise refusal(intent, tuple(rejected), now)
        places, scores = strategies.order(intent, figures, now, terms)
        policies: tuple[str, ...] = ()
        changed = False
        rules: tuple[str, ...] = ()
        if ruling:
            # policies have the last word: they sort, prefer and turn away what the strategy ordered
            assert self._policies is not None
            ordered = [figures.models[i] for i in places]
            verdict = apply_policies(self._policies, intent, ordered, scores, now)
            policies, changed = verdict.policies, verdict.changed
            rules = verdict.matched if changed else ()
            rejected = [*rejected, *(Rejected(m, "policy_excluded") for m in verdict.rejected)]
            if not verdict.places:
                raise refusal(intent, tuple(rejected), now)
            eligible = len(verdict.places)
            places = [places[i] for i in verdict.places[:KEEP]]
            scores = verdict.scores[:KEEP]
        ranked = rows(intent, figures, places, scores)
        slow: frozenset[Model] = frozenset()
        if self._registry.trouble_until > now:
            ranked = self._cooling_last(intent, slate, figures, ranked, now)
            slow = frozenset(row.model for row in ranked if _degraded(row.model, now))
        if len(ranked) > 2 and settings.failover.chain:
            ranked[1:] = by_chain(ranked[1:], settings.failover.chain)
        ignored = _unmet_preferences(intent, ranked[0]) if unmet else ()
        if (
            intent.task == "multimodal"
            and intent.task_source == "hint"
            and "vision" not in ranked[0].model.capabilities
        ):
            # a text request is served without; one with an image needs vision and got this far
            # only if somebody has it (XAI-HDR-034)
            ignored += (Ignored("X-AI-Task-Hint", "no_multimodal_model"),)
        return Plan(
            ranked=tuple(ranked),
            rejected=rejected,
            strategy=intent.strategy,
            confidence=confidence(scores) if intent.selects else 1.0,
            reason="routing_policy" if changed else strategies.reason(intent),
            eligible=eligible,
            ignored=ignored,
            policies=policies,
            slow=slow,
            rules=rules,
            success=success(ranked[0].model),
        )

    def _weigh_some(self, intent: Intent, board: Board, slate: Slate, now: float) -> _Narrowed:
        """A long slate: the few that can be among the best, by the board."""
        limits = intent.constraints
        timed = limits.max_latency_ms is not None and intent.binding
        checks: list[Check] = []
        if slate.smallest_context is not None and intent.window_tokens >= slate.smallest_context:
            checks.append(board.context(intent.window_tokens))
        limit = limits.spendable
        if limit is not None and not slate.within(intent, limit):
            checks.append(board.cost(intent, limit))
        if limits.max_latency_ms is not None and timed:
            slow = board.latency(intent, limits.max_latency_ms, now)
            if slow is not None:
                checks.append(slow)
        if self._registry.trouble_until > now:
            health = board.health(now)
            if health is not None:
                checks.append(health)
        picked = board.pick(
            intent,
            now,
            self._settings.weights,
            checks,
            timed=timed,
            spread=self._spread is not None,
        )
        if not checks:
            return _Narrowed(picked.figures, len(slate.models), slate.rejected)
        rejected = Rejections(slate.rejected, lambda: board.rejected(checks))
        return _Narrowed(picked.figures, len(picked.figures.models) + picked.more, rejected)

    def _weigh_all(self, intent: Intent, slate: Slate, now: float) -> _Narrowed:
        limits = intent.constraints
        limit = limits.spendable
        models: Sequence[Model] = slate.models
        rejected: Sequence[Rejected] = slate.rejected
        smallest = slate.smallest_context
        if (
            (smallest is not None and intent.window_tokens >= smallest)
            or (limit is not None and not slate.within(intent, limit))
            or limits.max_latency_ms is not None
            or self._registry.trouble_until > now
            or any_open(models)
        ):
            faults = [live_fault(intent, model, now) for model in models]
            dropped = [
                Rejected(model, fault)
                for model, fault in zip(models, faults, strict=True)
                if fault is not None
            ]
            if dropped:
                models = [m for m, fault in zip(models, faults, strict=True) if fault is None]
                rejected = (*slate.rejected, *dropped)
        if _only_preferred(intent):
            models = _meeting_first(intent, models, now)
        return _Narrowed(strategies.figures_of(intent, models, now), len(models), rejected)

    def _cooling_last(
        self, intent: Intent, slate: Slate, figures: Figures, ranked: list[Ranked], now: float
    ) -> list[Ranked]:
        calm = [row for row in ranked if not cooling(row.model, now)]
        if not calm:
            # the best few are all cooling: look further down before falling back on them
            seen = {row.model for row in ranked}
            others = [m for m in figures.models if m not in seen and not cooling(m, now)]
            if slate.board is not None and len(figures.models) < len(slate.models):
                others = [
                    m
                    for m in slate.models
                    if m not in seen and not cooling(m, now) and live_fault(intent, m, now) is None
                ]
            found = strategies.figures_of(intent, others[:KEEP], now)
            calm = rows(intent, found, range(len(found.models)), [0.0] * len(found.models))
        return calm + [row for row in ranked if cooling(row.model, now)]


def _degraded(model: Model, now: float) -> bool:
    return model.track.degraded(now) or model.provider.track.degraded(now)


def any_open(models: Sequence[Model]) -> bool:
    """Whether a circuit among a few models is open past its time; long lists rely on the clock."""
    return len(models) <= 32 and any(
        m.track.open_until or m.provider.track.open_until for m in models
    )


def _only_preferred(intent: Intent) -> bool:
    """Whether quality and latency only pick among the providers of an explicit model."""
    limits = intent.constraints
    return not intent.binding and (limits.quality is not None or limits.max_latency_ms is not None)


def _meets(intent: Intent, model: Model, now: float) -> bool:
    limits = intent.constraints
    if limits.quality is not None and (model.quality_for(intent.task) or 0.0) < limits.quality:
        return False
    if limits.max_latency_ms is not None:
        estimate = model.latency_ms(now, first_byte=intent.stream)
        return estimate is None or estimate <= limits.max_latency_ms
    return True


def _meeting_first(intent: Intent, models: Sequence[Model], now: float) -> Sequence[Model]:
    """With an explicit model, quality and latency pick among its providers (XAI-SYNC-017)."""
    good = [m for m in models if _meets(intent, m, now)]
    return good or models


def _unmet_preferences(intent: Intent, choice: Ranked) -> tuple[Ignored, ...]:
    limits = intent.constraints
    found = []
    if limits.quality is not None and (choice.quality or 0.0) < limits.quality:
        found.append(Ignored("X-AI-Quality-Threshold", "explicit_model"))
    if (
        limits.max_latency_ms is not None
        and choice.latency_ms is not None
        and choice.latency_ms > limits.max_latency_ms
    ):
        found.append(Ignored("X-AI-Max-Latency", "explicit_model"))
    return tuple(found)
