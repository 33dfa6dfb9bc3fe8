"""Who of an ensemble takes part in a request, inside the limits that hold for the sum of them.

Every member passes the same filters as a request of its own: security, pool, capabilities, context,
quality, latency and health. Then money: the worst cases of all members, and of the judge, are added
up, and while they are above the cost limit the dearest member is left out, as long as a quorum
remains (UNI-ENS-006). A member's own failover stays within what is reserved for it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from aiproxy.middleware.answering.asides import aside, asked_for, intent_for
from aiproxy.middleware.answering.serving import Serving
from aiproxy.middleware.ensembles.panel import Judge, Panel, Seat
from aiproxy.middleware.ensembles.roster import Ensemble
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intent import DEFAULT_OUTPUT_TOKENS, Intent
from aiproxy.middleware.money.amounts import usd
from aiproxy.middleware.routing.plan import Plan, Ranked
from aiproxy.middleware.routing.refusing import NoCandidate, Rejected

#: Tokens a judge may take to say whom it chooses: a reasoning model thinks first.
JUDGE_TOKENS: Final = 512
#: Tokens of an answer that a judge is shown, at most.
SHOWN_TOKENS: Final = 4096
#: Tokens of what the judge is told beside the request and the answers.
_BRIEF_TOKENS: Final = 400


def convene(serving: Serving, ensemble: Ensemble) -> Panel:
    """Return the members that will be asked, each with its candidates; the record says who they
    are and why others are left out.

    Raises:
        ProxyError: the request can be served by no quorum: 400, 422, or 503 when only health is in
            the way.
    """
    seats = [Seat(member, place) for place, member in enumerate(ensemble.members)]
    panel = Panel(ensemble, seats, limit=_limit(serving.intent))
    rejected: list[Rejected] = []
    for seat in seats:
        _seat(serving, seat, rejected)
    decision = serving.decision
    decision.rejected = tuple(rejected)
    eligible = [seat for seat in seats if seat.plan is not None]
    if len(eligible) < ensemble.quorum:
        raise _too_few(panel, len(eligible))
    if _wants_judge(ensemble):
        panel.judge = _judge(serving, ensemble, eligible)
    _fit(serving, panel, eligible)
    decision.plan = _joint(serving, panel, rejected)
    return panel


def _limit(intent: Intent) -> int | None:
    """What the sum of all worst cases may be: the cost limit, or what the budget has left."""
    return intent.constraints.spendable


def _seat(serving: Serving, seat: Seat, rejected: list[Rejected]) -> None:
    """Plan one member as a request of its own."""
    member = seat.member
    providers = None if member.provider is None else (member.provider,)
    intent = intent_for(serving.intent, member.model, providers)
    try:
        plan = serving.gateway.planner.plan(intent, serving.now())
    except ProxyError as refusal:
        rows = refusal.rejected if isinstance(refusal, NoCandidate) else ()
        rejected += rows
        seat.leave_out(rows[0].reason if rows else refusal.code, refusal)
        return
    rejected += plan.rejected
    seat.plan = plan
    asked = asked_for(serving.asked, member.model)
    seat.sit(aside(serving, intent, asked, f"member-{seat.place}"))


def _too_few(panel: Panel, eligible: int) -> ProxyError:
    """Why there is no quorum: health when it would do alone, else the first reason."""
    faults = [seat.error for seat in panel.seats if seat.error is not None]
    waiting = [fault for fault in faults if fault.code == "no_healthy_provider"]
    quorum, name = panel.ensemble.quorum, panel.ensemble.name
    said = f"{name} needs {quorum} of its {len(panel.seats)} members, {eligible} may serve this"
    if eligible + len(waiting) >= quorum:
        waits = [fault.retry_after_s for fault in waiting if fault.retry_after_s is not None]
        return ProxyError(
            "no_healthy_provider",
            f"{said}; others are cooling down after failures.",
            retry_after_s=min(waits, default=None),
        )
    first = next(fault for fault in faults if fault not in waiting)
    code = "no_eligible_provider" if first.code == "model_not_found" else first.code
    return ProxyError(
        code,
        f"{said}. {first.message}",
        param=first.param,
        should_retry=first.should_retry,
    )


# --- the judge -----------------------------------------------------------------------------------


def _wants_judge(ensemble: Ensemble) -> bool:
    return ensemble.judge is not None and ensemble.method in ("best_of", "cascade")


def _judge(serving: Serving, ensemble: Ensemble, eligible: Sequence[Seat]) -> Judge:
    """Plan the judge: a side call under every constraint of the request itself."""
    assert ensemble.judge is not None
    shown = 1 if ensemble.method == "cascade" else len(eligible)
    intent = serving.intent
    prompt = intent.prompt_tokens + shown * shown_tokens(intent) + _BRIEF_TOKENS
    found = Judge(ensemble.judge)
    found.intent = replace(
        intent_for(intent, ensemble.judge),
        endpoint="chat",
        autos=(),
        needs=frozenset({"text-generation"}),
        features=frozenset(),
        prompt_tokens=prompt,
        output_limit=JUDGE_TOKENS,
        copies=1,
        reasoning=None,
        tool_categories=(),
    )
    try:
        found.plan = serving.gateway.planner.plan(found.intent, serving.now())
    except ProxyError as refusal:
        rows = refusal.rejected if isinstance(refusal, NoCandidate) else ()
        found.state, found.reason = "left_out", rows[0].reason if rows else refusal.code
    return found


def shown_tokens(intent: Intent) -> int:
    """Return how many tokens of one answer a judge is shown."""
    return min(intent.output_limit or DEFAULT_OUTPUT_TOKENS, SHOWN_TOKENS)


# --- money ---------------------------------------------------------------------------------------


def _fit(serving: Serving, panel: Panel, eligible: Sequence[Seat]) -> None:
    """Reserve the worst case of everybody within the cost limit.

    Raises:
        ProxyError: 422, the cheapest quorum is dearer than the limit.
    """
    judge = panel.judge
    calls = _judge_calls(panel, eligible)
    if panel.limit is None:
        for seat in eligible:
            assert seat.plan is not None
            seat.worst = _dearest(seat.plan)
        if judge is not None and judge.plan is not None:
            dearest = _dearest(judge.plan)
            judge.worst = None if dearest is None else calls * dearest
        return
    kept = sorted(eligible, key=lambda seat: (_cheapest(seat.plan), seat.place))
    floor = calls * _cheapest(judge.plan) if judge is not None and judge.plan is not None else 0
    least = sum(_cheapest(seat.plan) for seat in kept[: panel.ensemble.quorum])
    if judge is not None and judge.plan is not None and floor + least > panel.limit:
        judge.plan, judge.state, judge.reason = None, "left_out", "over_cost_limit"
        floor = 0
    if least > panel.limit:
        raise _too_dear(serving, panel, kept, least)
    while floor + sum(_cheapest(seat.plan) for seat in kept) > panel.limit:
        limited = panel.limit == serving.intent.constraints.cost_limit
        kept.pop().leave_out("over_cost_limit" if limited else "over_budget")
    _share_out(panel, sorted(kept, key=lambda seat: seat.place), floor, calls)


def _judge_calls(panel: Panel, eligible: Sequence[Seat]) -> int:
    """How often a judge may be asked: of a cascade's answers the last one is not judged."""
    return max(1, len(eligible) - 1) if panel.ensemble.method == "cascade" else 1


def _share_out(panel: Panel, kept: Sequence[Seat], floor: int, calls: int) -> None:
    """Give what is left above the cheapest candidates to the members in order, so that each may
    have the first of its own that fits, and the rest to their failover in equal parts."""
    assert panel.limit is not None
    slack = panel.limit - floor - sum(_cheapest(seat.plan) for seat in kept)
    bases: list[int] = []
    for seat in kept:
        assert seat.plan is not None
        least = _cheapest(seat.plan)
        base = next(_price(row) for row in seat.plan.ranked if _price(row) <= least + slack)
        slack -= base - least
        bases.append(base)
    share = slack // len(kept)
    for seat, base in zip(kept, bases, strict=True):
        assert seat.plan is not None
        seat.plan = _within(seat.plan, base + share)
        seat.worst = _dearest(seat.plan)
        if seat.serving is not None:  # what it does by itself, hedges too, stays within that
            seat.serving.intent = _held_to(seat.serving.intent, base + share)
    judge = panel.judge
    if judge is not None and judge.plan is not None:
        judge.plan = _within(judge.plan, floor // calls)
        judge.worst = floor
        assert judge.intent is not None
        judge.intent = _held_to(judge.intent, floor // calls)


def _within(plan: Plan, most: int) -> Plan:
    ranked = tuple(row for row in plan.ranked if _price(row) <= most)
    return replace(plan, ranked=ranked, eligible=len(ranked))


def _held_to(intent: Intent, most: int) -> Intent:
    return replace(intent, constraints=replace(intent.constraints, cost_limit=most))


def _price(row: Ranked) -> int:
    # Under a limit nobody without a known price is a candidate.
    return row.cost or 0


def _cheapest(plan: Plan | None) -> int:
    assert plan is not None
    return min(_price(row) for row in plan.ranked)


def _dearest(plan: Plan) -> int | None:
    costs = [row.cost for row in plan.ranked if row.cost is not None]
    return max(costs) if len(costs) == len(plan.ranked) else None


def _too_dear(serving: Serving, panel: Panel, kept: Sequence[Seat], least: int) -> ProxyError:
    quorum, name = panel.ensemble.quorum, panel.ensemble.name
    sums = "the worst cases of its cheapest members are above the cost limit"
    if serving.gateway.settings.transparency == "full" and panel.limit is not None:
        costs = [_cheapest(seat.plan) for seat in kept[:quorum]]
        added = " + ".join(f"{usd(cost):g}" for cost in costs)
        sums = (
            f"the worst cases of its {quorum} cheapest come to {added} = {usd(least):g} USD, "
            f"above the limit of {usd(panel.limit):g} USD"
        )
    limits, budget = serving.intent.constraints, serving.gateway.budget
    by_budget = budget is not None and panel.limit != limits.cost_limit
    for seat in kept:
        seat.leave_out("over_budget" if by_budget else "over_cost_limit")
    if budget is not None and by_budget:
        return budget.exceeded(serving.decision.owner, least)
    return ProxyError(
        "no_eligible_provider",
        f"{name} needs {quorum} answers, and {sums}; nothing was sent upstream.",
        param=limits.blame.get("cost_limit"),
        should_retry=False,
    )


# --- the record ----------------------------------------------------------------------------------


def _joint(serving: Serving, panel: Panel, rejected: Sequence[Rejected]) -> Plan:
    """The plan the record shows: every member's choice, then their other candidates."""
    plans = [s.plan for s in panel.seats if s.plan is not None and s.state != "left_out"]
    rows: dict[int, Ranked] = {}
    for row in (*(plan.ranked[0] for plan in plans), *(r for p in plans for r in p.ranked)):
        rows.setdefault(id(row.model), row)
    known = {id(row.model) for row in rows.values()}
    turned: dict[int, Rejected] = {}
    for seat in panel.seats:
        if seat.reason in ("over_cost_limit", "over_budget") and seat.plan is not None:
            for row in seat.plan.ranked:
                turned.setdefault(id(row.model), Rejected(row.model, seat.reason))
    for out in rejected:
        turned.setdefault(id(out.model), out)
    policies = dict.fromkeys(name for plan in plans for name in plan.policies)
    return Plan(
        ranked=tuple(rows.values()),
        rejected=tuple(out for key, out in turned.items() if key not in known),
        strategy=serving.intent.strategy,
        confidence=0.0,
        reason="ensemble",
        eligible=len(rows),
        policies=tuple(policies),
    )
