"""What goes before the order of a plan: a canary's share, and a conversation's last provider.

Both only move to the front who meets every constraint of the request and passes its policies; the
plan's own order follows behind, as their failover.
"""

from dataclasses import replace

from aiproxy.middleware.decision import Decision
from aiproxy.middleware.gateway import Gateway
from aiproxy.middleware.intake.admission import may_use
from aiproxy.middleware.intent import Intent
from aiproxy.middleware.routing.affinity import applies
from aiproxy.middleware.routing.faults import cooling, success
from aiproxy.middleware.routing.plan import Plan, Ranked


def steered(gateway: Gateway, decision: Decision, intent: Intent, plan: Plan, now: float) -> Plan:
    """The plan with those in front whom a canary or the conversation wants there."""
    if intent.mode == "disabled":
        return plan  # one provider, whatever else is configured (XAI-SYNC-002)
    if gateway.canaries:
        led = _by_canary(gateway, decision, intent, plan, now)
        if led is not None:
            return led
    if gateway.affinity is not None and decision.conversation is not None:
        return _by_affinity(gateway, decision, intent, plan, now)
    return plan


def _by_canary(
    gateway: Gateway, decision: Decision, intent: Intent, plan: Plan, now: float
) -> Plan | None:
    """``None``: the request is in no share, or nobody who gets it may serve it."""
    for canary in gateway.canaries:
        if not canary.takes(
            intent.model,
            owner=decision.owner,
            conversation=decision.conversation,
            request=decision.id,
        ):
            continue
        models = canary.models(intent, gateway.registry)
        asked = intent
        if canary.to is not None and not intent.model_auto and canary.to != intent.model:
            if not may_use(gateway, decision.owner, canary.to):
                return None
            # a model of our choosing: quality and latency bind for it
            asked = replace(intent, model=canary.to, binding=True)
        rows = gateway.planner.among(asked, models, now)
        if not rows:
            return None
        led = _led(plan, rows, "canary", intent)
        led.canary = canary.name
        return led
    return None


def _by_affinity(
    gateway: Gateway, decision: Decision, intent: Intent, plan: Plan, now: float
) -> Plan:
    affinity, conversation = gateway.affinity, decision.conversation
    assert affinity is not None
    assert conversation is not None
    model = affinity.last(decision.owner, conversation, now)
    if model is None or plan.reason == "routing_policy" or not applies(intent, model):
        return plan
    if cooling(model, now):
        return plan
    rows = tuple(row for row in plan.ranked if row.model is model)
    if not rows and plan.eligible > len(plan.ranked):
        rows = gateway.planner.among(intent, (model,), now)
    return _led(plan, rows, "conversation_affinity", intent) if rows else plan


def _led(plan: Plan, rows: tuple[Ranked, ...], reason: str, intent: Intent) -> Plan:
    """The plan with ``rows`` in front. Its confidence says what scores say of that: nothing, where
    the first is not the best."""
    ahead = {row.model for row in rows}
    known = {row.model: row for row in plan.ranked}
    ranked = (
        *(known.get(row.model, row) for row in rows),
        *(row for row in plan.ranked if row.model not in ahead),
    )
    same = bool(plan.ranked) and ranked[0] is plan.ranked[0]
    return replace(
        plan,
        ranked=ranked,
        rejected=tuple(row for row in plan.rejected if row.model not in ahead)
        if reason == "canary"
        else plan.rejected,
        eligible=max(plan.eligible, len(ranked)),
        reason=reason,
        success=success(ranked[0].model),
        confidence=plan.confidence if same or not intent.selects else 0.0,
    )
