"""Other models that an operator lets stand in for a named one (``model_fallbacks``)."""

from dataclasses import replace
from typing import Final

from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.gateway import Gateway
from aiproxy.middleware.intake.admission import may_use
from aiproxy.middleware.intent import Intent
from aiproxy.middleware.routing.plan import Plan

#: Why a model may be stood in for: nobody healthy serves it, or the budget does not cover it.
_STOOD_IN_FOR: Final = ("no_healthy_provider", "budget_exceeded")


def with_fallbacks(gateway: Gateway, intent: Intent, owner: str | None, now: float) -> Plan:
    """The plan of an intent, with the candidates of its fallback models behind its own.

    Nothing relaxes for a fallback: quality and latency, which only pick among the providers of a
    model the client named, bind for one that we name; a key limited to some models stays so.

    Raises:
        ProxyError: as ``Planner.plan``; a model that nobody can serve now may be stood in for.
    """
    named = () if intent.model_auto else gateway.settings.failover.model_fallbacks.get(intent.model)
    if not named or intent.failover == "none":
        return gateway.planner.plan(intent, now)
    plan: Plan | None = None
    refusal: ProxyError | None = None
    try:
        plan = gateway.planner.plan(intent, now)
    except ProxyError as error:
        if error.code not in _STOOD_IN_FOR:
            raise
        refusal = error
    for name in named:
        if not may_use(gateway, owner, name):
            continue
        try:
            more = gateway.planner.plan(replace(intent, model=name, binding=True), now)
        except ProxyError:
            continue
        plan = more if plan is None else _behind(plan, more)
    if plan is None:
        assert refusal is not None
        raise refusal
    return plan


def _behind(plan: Plan, more: Plan) -> Plan:
    known = {ranked.model for ranked in plan.ranked}
    return replace(
        plan,
        ranked=plan.ranked + tuple(r for r in more.ranked if r.model not in known),
        rejected=(*plan.rejected, *more.rejected),
        eligible=plan.eligible + more.eligible,
    )
