"""Who may serve a request, in which order, and why the others may not.

Everything about a candidate that does not change from request to request (capabilities, pool,
labels, declared quality, dialect) is decided once per kind of request and kept in a ``Slate``;
a request then pays only for what is live: cost, context, latency and health.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, NamedTuple

from aiproxy.middleware.dialects.codecs import DIVIDING, lossy, spoken
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intent import DEFAULT_OUTPUT_TOKENS, Constraints, Intent
from aiproxy.middleware.preferences import Ignored
from aiproxy.middleware.prices import Price
from aiproxy.middleware.registry import Model, Registry
from aiproxy.middleware.routing import strategies
from aiproxy.middleware.routing.refusing import Rejected, refusal, unknown_model
from aiproxy.middleware.routing.rules import Compiled
from aiproxy.middleware.routing.shortlist import SHORTEST, Shortlist
from aiproxy.middleware.settings import Settings

#: Candidates kept in order beyond the attempts that may be made, for ``alternatives``.
KEEP: Final = 16
_MOST_SLATES: Final = 512


class Ranked(NamedTuple):
    """An eligible candidate. ``cost`` is the worst case in picodollars, ``None`` when unknown."""

    model: Model
    score: float
    cost: int | None
    latency_ms: float | None
    quality: float | None


@dataclass(slots=True)
class Plan:
    """Candidates in the order they would be tried; the first is the choice."""

    ranked: tuple[Ranked, ...]
    rejected: tuple[Rejected, ...]
    strategy: str
    confidence: float
    reason: str
    eligible: int
    ignored: tuple[Ignored, ...] = ()
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slate:
    """The candidates of one kind of request, without what changes from call to call."""

    models: tuple[Model, ...]
    rejected: tuple[Rejected, ...]
    smallest_context: int | None
    shortlist: Shortlist | None
    dearest: Price | None
    longest_output: int


class Planner:
    """Plans requests against one registry."""

    def __init__(
        self, registry: Registry, settings: Settings, policies: Compiled | None = None
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._policies = policies
        self._slates: dict[tuple[Any, ...], Slate] = {}
        self._turn = 0

    def plan(self, intent: Intent, now: float) -> Plan:
        """Return the order of candidates.

        Raises:
            ProxyError: 404 unknown model, 400 context or capability, 422 nothing can ever serve
                it, 503 only health is in the way.
        """
        if not intent.selects:
            return self._fixed(intent, now)
        slate = self._slate(intent, None)
        return self._choose(intent, slate, now)

    def plan_default(self, intent: Intent, now: float) -> Plan:
        """The default provider's model, or the named one, in file order: no strategy, no policy,
        every constraint (XAI-FAIL-021)."""
        if intent.model_auto:
            models = tuple(m for m in self._registry.models if intent.needs <= m.capabilities)
        else:
            models = self._registry.named(intent.model)
        default = self._registry.default
        kept = [m for m in models if _static_fault(intent, m) is None]
        limit, slowest = intent.constraints.cost_limit, intent.constraints.max_latency_ms
        if limit is not None:
            kept = [m for m in kept if _cost_fault(intent, limit, m) is None]
        if slowest is not None and intent.binding:
            kept = [
                m for m in kept if _latency_fault(slowest, now, m, first_byte=intent.stream) is None
            ]
        kept.sort(key=lambda m: (m.provider is not default, m.provider.priority, m.order))
        if not kept:
            rejected = tuple(Rejected(m, self._why(intent, m, now)) for m in models)
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
    def _why(intent: Intent, model: Model, now: float) -> str:
        limit, slowest = intent.constraints.cost_limit, intent.constraints.max_latency_ms
        fault = _static_fault(intent, model)
        if fault is None and limit is not None:
            fault = _cost_fault(intent, limit, model)
        if fault is None and slowest is not None:
            fault = _latency_fault(slowest, now, model, first_byte=intent.stream)
        return fault or "lacks_capability"

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
            limits.quality if intent.binding else None,
            intent.task,
            intent.task_source,
            intent.needs,
            intent.features & DIVIDING,
        )
        known = models is None or models[0].name in self._registry.by_name
        slate = self._slates.get(key) if known else None
        if slate is None:
            slate = _build_slate(intent, models if models is not None else self._registry.models)
            if known:
                if len(self._slates) >= _MOST_SLATES:
                    self._slates.clear()
                self._slates[key] = slate
        return slate

    # --- the live part ---------------------------------------------------------------------------

    def _choose(self, intent: Intent, slate: Slate, now: float) -> Plan:
        rejected = slate.rejected
        models: Sequence[Model] = slate.models
        live, unmet = self._live(intent, slate, now)
        if live is not None:
            models, more = live
            rejected += tuple(more)
        if not models:
            raise refusal(intent, rejected, now)
        self._turn += 1
        policies: tuple[str, ...] = ()
        ruled = False
        if self._policies is not None and self._policies.active(intent.strategy):
            # policies have the last word: they sort, prefer and turn away what the strategy ordered
            ordered, scores = self._ordered(intent, models, now, keep=len(models))
            verdict = strategies.apply_policies(self._policies, intent, ordered, scores, now)
            policies, ruled = verdict.policies, verdict.changed
            rejected += tuple(Rejected(model, "policy_excluded") for model in verdict.rejected)
            if not verdict.models:
                raise refusal(intent, rejected, now)
            models = verdict.models
            ordered, scores = verdict.models[:KEEP], verdict.scores[:KEEP]
        else:
            weighed = models
            if models is slate.models and slate.shortlist is not None:
                weighed = slate.shortlist.of(intent, now, self._settings.weights)
            ordered, scores = self._ordered(intent, weighed, now, keep=KEEP)
        if self._registry.trouble_until > now:
            ordered, scores = _cooling_last(ordered, scores, models, now)
        first_byte, task = intent.stream, intent.task
        ranked = [
            Ranked(
                model,
                score,
                worst_cost(intent, model),
                model.latency_ms(now, first_byte=first_byte),
                model.quality_for(task),
            )
            for model, score in zip(ordered, scores, strict=True)
        ]
        if len(ranked) > 2 and self._settings.failover.chain:
            ranked[1:] = _by_chain(ranked[1:], self._settings.failover.chain)
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
            confidence=_confidence(scores) if intent.selects else 1.0,
            reason="routing_policy" if ruled else strategies.reason(intent),
            eligible=len(models),
            ignored=ignored,
            policies=policies,
        )

    def _ordered(
        self, intent: Intent, models: Sequence[Model], now: float, *, keep: int
    ) -> tuple[list[Model], list[float]]:
        """Under a latency limit, models nobody has measured come after those known to meet it
        (XAI-HDR-062), whatever the strategy."""
        order = partial(
            strategies.order,
            intent,
            now=now,
            weights=self._settings.weights,
            turn=self._turn,
            keep=keep,
            spread=self._settings.spread,
        )
        if intent.constraints.max_latency_ms is not None and intent.binding:
            known: list[Model] = []
            unknown: list[Model] = []
            for model in models:
                measured = model.latency_ms(now, first_byte=intent.stream) is not None
                (known if measured else unknown).append(model)
            if known and unknown:
                first, scores = order(known)
                rest, lower = order(unknown)
                scores = scores + [min(score, scores[-1]) / 2 for score in lower]
                return (first + rest)[:keep], scores[:keep]
        return order(models)

    def _live(
        self, intent: Intent, slate: Slate, now: float
    ) -> tuple[tuple[list[Model], list[Rejected]] | None, bool]:
        """Filter by what changes; ``None`` when nothing needed looking at."""
        limits = intent.constraints
        checks: list[Any] = []
        smallest = slate.smallest_context
        if smallest is not None and intent.prompt_tokens >= smallest:
            checks.append(partial(_context_fault, intent.prompt_tokens))
        if limits.cost_limit is not None and not _all_within(intent, limits.cost_limit, slate):
            checks.append(partial(_cost_fault, intent, limits.cost_limit))
        if limits.max_latency_ms is not None and intent.binding:
            checks.append(
                partial(_latency_fault, limits.max_latency_ms, now, first_byte=intent.stream)
            )
        if self._registry.trouble_until > now or any_open(slate.models):
            checks.append(partial(_health_fault, now))
        unmet = not intent.binding and (
            limits.quality is not None or limits.max_latency_ms is not None
        )
        if not checks:
            if unmet:
                return (_meeting_first(intent, slate.models, now), []), True
            return None, False
        kept: list[Model] = []
        dropped: list[Rejected] = []
        for model in slate.models:
            for check in checks:
                fault = check(model)
                if fault is not None:
                    dropped.append(Rejected(model, fault))
                    break
            else:
                kept.append(model)
        if unmet:
            kept = _meeting_first(intent, kept, now)
        return (kept, dropped), unmet


def _all_within(intent: Intent, limit: int, slate: Slate) -> bool:
    """Whether a request is so small that a cost limit cannot reject anybody."""
    if slate.dearest is None:
        return False
    output = slate.longest_output if intent.output_limit is None else intent.output_limit
    return slate.dearest.worst(intent.prompt_tokens, output * intent.copies, intent.copies) <= limit


def _dearest(models: Sequence[Model]) -> Price | None:
    """The largest price of each kind; ``None`` where a price is unknown."""
    prices = [m.price for m in models if m.price is not None]
    if len(prices) < len(models) or not prices:
        return None
    return Price(
        input=max(p.top.reading for p in prices),
        output=max(p.top.writing for p in prices),
        per_item=max(p.per_item for p in prices),
        per_request=max(p.per_request for p in prices),
    )


def any_open(models: Sequence[Model]) -> bool:
    """Whether a circuit among a few models is open past its time; long lists rely on the clock."""
    return len(models) <= 32 and any(
        m.track.open_until or m.provider.track.open_until for m in models
    )


def worst_cost(intent: Intent, model: Model) -> int | None:
    """Picodollars if the answer uses every token it may; ``None`` when the price is unknown."""
    price = model.price
    if price is None:
        return None
    return price.worst(intent.prompt_tokens, output_tokens(intent, model), intent.copies)


def output_tokens(intent: Intent, model: Model) -> int:
    """Output tokens a worst case counts with."""
    if "embeddings" in intent.needs:
        return 0
    limit = intent.output_limit
    if limit is None:
        limit = model.max_output_tokens or DEFAULT_OUTPUT_TOKENS
    elif model.max_output_tokens is not None:
        limit = min(limit, model.max_output_tokens)
    return limit * intent.copies


def _build_slate(intent: Intent, models: tuple[Model, ...]) -> Slate:
    kept: list[Model] = []
    dropped: list[Rejected] = []
    for model in models:
        reason = _static_fault(intent, model)
        if reason is None:
            kept.append(model)
        else:
            dropped.append(Rejected(model, reason))
    if intent.task == "multimodal" and intent.selects:
        seeing = [m for m in kept if "vision" in m.capabilities]
        if seeing:
            dropped += [Rejected(m, "lacks_capability") for m in kept if m not in seeing]
            kept = seeing
    windows = [m.context_window for m in kept if m.context_window is not None]
    losing = {
        m: lossy(intent.endpoint, m.provider.dialects, intent.features) for m in kept
    }  # losses count against a candidate: it comes after its equals
    kept.sort(key=lambda m: (losing[m], m.provider.priority, m.provider.order, m.order))
    return Slate(
        models=tuple(kept),
        rejected=tuple(dropped),
        smallest_context=min(windows, default=None),
        shortlist=Shortlist(kept, intent.task, KEEP) if len(kept) > SHORTEST else None,
        dearest=_dearest(kept),
        longest_output=max((m.max_output_tokens or DEFAULT_OUTPUT_TOKENS for m in kept), default=0),
    )


def _static_fault(intent: Intent, model: Model) -> str | None:
    limits: Constraints = intent.constraints
    provider = model.provider
    if not limits.labels <= provider.labels:
        return "lacks_security_label"
    if limits.regions and not (provider.regions and provider.regions <= limits.regions):
        return "wrong_region"
    if limits.local_only and not provider.local:
        return "not_local"
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


def _context_fault(prompt_tokens: int, model: Model) -> str | None:
    window = model.context_window
    return "context_too_small" if window is not None and prompt_tokens >= window else None


def _cost_fault(intent: Intent, limit: int, model: Model) -> str | None:
    cost = worst_cost(intent, model)
    if cost is None:
        return "price_unknown"
    return "over_cost_limit" if cost > limit else None


def _latency_fault(limit_ms: float, now: float, model: Model, *, first_byte: bool) -> str | None:
    estimate = model.latency_ms(now, first_byte=first_byte)
    return "over_max_latency" if estimate is not None and estimate > limit_ms else None


def _health_fault(now: float, model: Model) -> str | None:
    if model.track.blocked_for(now) > 0 or model.provider.track.blocked_for(now) > 0:
        return "unhealthy"
    return None


def _meets(intent: Intent, model: Model, now: float) -> bool:
    limits = intent.constraints
    if limits.quality is not None and (model.quality_for(intent.task) or 0.0) < limits.quality:
        return False
    if limits.max_latency_ms is not None:
        estimate = model.latency_ms(now, first_byte=intent.stream)
        return estimate is None or estimate <= limits.max_latency_ms
    return True


def _meeting_first(intent: Intent, models: Sequence[Model], now: float) -> list[Model]:
    """With an explicit model, quality and latency pick among its providers (XAI-SYNC-017)."""
    good = [m for m in models if _meets(intent, m, now)]
    return good or list(models)


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


def _cooling_last(
    ordered: list[Model], scores: list[float], models: Sequence[Model], now: float
) -> tuple[list[Model], list[float]]:
    def cool(model: Model) -> bool:
        return model.track.cooling(now) or model.provider.track.cooling(now)

    pairs = list(zip(ordered, scores, strict=True))
    calm = [pair for pair in pairs if not cool(pair[0])]
    if not calm:
        # the best few are all cooling: look further down before falling back on them
        seen = set(map(id, ordered))
        calm = [(m, 0.0) for m in models if id(m) not in seen and not cool(m)][:KEEP]
    rest = [pair for pair in pairs if cool(pair[0])]
    merged = calm + rest
    return [m for m, _ in merged], [s for _, s in merged]


def _by_chain(ranked: list[Ranked], chain: tuple[str, ...]) -> list[Ranked]:
    """The chain orders what comes after the first choice; providers it leaves out come last."""
    place = {name: index for index, name in enumerate(chain)}
    return sorted(ranked, key=lambda r: place.get(r.model.provider.id, len(place)))


def _confidence(scores: Sequence[float]) -> float:
    """Normalised margin of the best over the second score; 1.0 when alone (XAI-RESP-013)."""
    if len(scores) < 2:
        return 1.0
    best, second = scores[0], scores[1]
    if best <= 0:
        return 0.0
    return round(min(1.0, max(0.0, (best - second) / best)), 4)
