"""Candidates are asked one after the other until one holds (XAI-FAIL-005 to 017).

Which retry goes where depends on the fault: at once at the same provider, after its own
``Retry-After``, at the next candidate, at models with a larger window, or nowhere. Attempts, time
and cost are bounded over the whole chain.
"""

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from logging import getLogger
from typing import Final

from aiproxy.middleware.answering import asking, hedging, outcome, refusals, streaming, waiting
from aiproxy.middleware.answering.asking import Barred, Begun, Busy
from aiproxy.middleware.answering.outcome import Fault, Rejection
from aiproxy.middleware.answering.resuming import Delivered, Interrupted
from aiproxy.middleware.answering.serving import Serving, Steps
from aiproxy.middleware.auto import answer_check
from aiproxy.middleware.auto.answer_check import Misfit
from aiproxy.middleware.decision import Decision
from aiproxy.middleware.dialects.canonical import Loss, Untranslatable
from aiproxy.middleware.dialects.usage import added
from aiproxy.middleware.effects import Effect, Outcome, Reply, Send, Wait
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.money.budgets import OverBudget
from aiproxy.middleware.money.spending import Envelope, exposure
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.plan import Plan, Ranked
from aiproxy.middleware.routing.refusing import Rejected

log = getLogger("aiproxy")

#: Reasons for which a provider's own ``Retry-After`` is worth waiting for.
_PASSES: Final = frozenset({"rate_limited", "overloaded"})

Served = Generator[Effect, Outcome, Reply | None]


@dataclass(slots=True)
class _Chain:
    """Where the chain stands: who is left, how many attempts are, and how often each provider was
    asked again. ``soonest_s`` is the least time any of the failed asked to be given. ``unsealed`` is
    the model that could not read the opaque data of earlier turns: it is asked without. ``mend`` is
    the answer of ``mending`` that did not have the shape it was asked for in words, ``mended`` how
    often it was asked again for that. ``busy`` are those whose providers had no free place,
    ``resting`` those that named a time at which they may be asked again (seconds of the clock).
    ``placed`` has its place already. ``delivered`` is what the client has of an answer that broke
    off."""

    ranked: list[Ranked]
    left: int
    envelope: Envelope
    again: dict[str, int] = field(default_factory=dict)
    last: Fault | None = None
    soonest_s: float | None = None
    unsealed: Model | None = None
    mend: Misfit | None = None
    mending: Model | None = None
    mended: int = 0
    busy: list[Ranked] = field(default_factory=list)
    resting: list[tuple[float, Ranked]] = field(default_factory=list)
    placed: Ranked | None = None
    delivered: Delivered | None = None

    def note(self, fault: Fault) -> None:
        self.left -= 1
        self.last = fault
        wait = fault.retry_after_s
        if wait is not None and (self.soonest_s is None or wait < self.soonest_s):
            self.soonest_s = wait

    def drop(self, ranked: Ranked, fault: Fault, now: float) -> None:
        """Leave a candidate, and those its fault speaks of as well."""
        model = ranked.model
        self.ranked = [r for r in self.ranked if r is not ranked]
        wait = fault.retry_after_s
        if wait is not None and fault.reason in _PASSES:
            self.resting.append((now + wait, ranked))
        if fault.whole_provider or fault.reason == "timeout":
            self.ranked = [r for r in self.ranked if r.model.provider is not model.provider]
        if fault.retry == "larger":
            window = model.context_window or 0
            self.ranked = [r for r in self.ranked if (r.model.context_window or 0) > window]


def attempt_all(serving: Serving, plan: Plan) -> Served:
    """Return the reply of the first candidate that gives one; ``None`` when it was streamed.

    Raises:
        ProxyError: nobody did.
    """
    settings = serving.gateway.settings.failover
    single = serving.intent.failover in ("none", "manual")
    chain = _Chain(
        list(plan.ranked),
        1 if single else 1 + settings.max_retries,
        Envelope(serving.intent.constraints.cost_limit),
    )
    try:
        return (yield from _walk(serving, chain))
    except ProxyError as error:
        if chain.delivered is None:
            raise chain.envelope.explain(error) from None
    except Exception:
        if chain.delivered is None:
            raise
        log.exception("request %s failed while it was carried on", serving.decision.id)
    # The client has the beginning of an answer, and nobody carries it on.
    broken = chain.delivered
    yield Send(broken.recorder.fail(streaming.interruption(serving, broken.fault)))
    return None


def _walk(serving: Serving, chain: _Chain) -> Served:
    first = True
    while chain.left > 0:
        if not chain.ranked and not (yield from _refill(serving, chain)):
            break
        ranked = chain.ranked[0]
        if serving.too_late():
            _unplace(chain)
            raise refusals.timed_out(serving)
        if not chain.envelope.fits(ranked):
            _unplace(chain)
            _leave(serving, chain, ranked, "over_cost_limit")
            continue
        mend = chain.mend if chain.mending is ranked.model else None
        placed, chain.placed = chain.placed is ranked, None
        begun: Begun | None = None
        try:
            if first and chain.left > 1 and not placed and hedging.is_on(serving):
                first = False
                begun = yield from _hedged(serving, chain, ranked)
                if begun is None:
                    continue
            else:
                begun = yield from asking.ask(
                    serving,
                    ranked,
                    unsealed=chain.unsealed is ranked.model,
                    mend=mend,
                    delivered=chain.delivered,
                    placed=placed,
                )
            return (yield from asking.tell(begun))
        except Rejection as rejection:
            fault = rejection.fault
            if mend is not None:
                fault = answer_check.unmended(fault)
            chain.mend = rejection if isinstance(rejection, Misfit) else None
            if begun is not None:
                ranked = begun.attempt.ranked
            if isinstance(rejection, Interrupted):
                _interrupt(serving, chain, rejection)
                yield from _after(serving, chain, ranked, fault, again=False)
            else:
                yield from _after(serving, chain, ranked, fault)
        except (Untranslatable, Barred, Busy, OverBudget) as why:
            _pass_over(serving, chain, ranked, why)
    if chain.last is None and chain.busy:
        raise refusals.crowded()
    raise refusals.exhausted(serving, chain.last, chain.soonest_s)


def _hedged(
    serving: Serving, chain: _Chain, ranked: Ranked
) -> Generator[Effect, Outcome, Begun | None]:
    """Ask the first candidate, and another one beside it when it is slow; ``None`` when both gave
    no answer, which the chain then knows.

    Raises:
        Rejection, Untranslatable, Barred, Busy, OverBudget: only the first was asked, and failed.
        ProxyError: the request itself is at fault.
    """
    envelope, second = chain.envelope, None
    after = hedging.delay(serving, ranked)
    if after is not None:
        second = hedging.other(serving, ranked, chain.ranked[1:], envelope.spent, envelope.limit)
    if after is None or second is None:
        return (yield from asking.ask(serving, ranked))
    found = yield from hedging.race(serving, ranked, second, after)
    if found.begun is not None:
        lost = second if found.begun.attempt.ranked is ranked else ranked
        if any(
            row.ranked is lost and row.outcome == "aborted" for row in serving.decision.attempts
        ):
            envelope.spent += lost.cost or 0
            chain.left -= 1
            chain.ranked = [r for r in chain.ranked if r is not lost]
    if found.begun is None and len(found.failed) == 1 and found.failed[0][0] is ranked:
        raise found.failed[0][1]
    for candidate, why in found.failed:
        if not isinstance(why, Rejection):
            _pass_over(serving, chain, candidate, why)
        elif found.begun is None:
            yield from _after(serving, chain, candidate, why.fault, again=False)
        else:
            _count(serving, chain, candidate, why.fault)
            chain.drop(candidate, why.fault, serving.now())
    return found.begun


def _after(
    serving: Serving, chain: _Chain, ranked: Ranked, fault: Fault, *, again: bool = True
) -> Steps:
    """Go on after a failed attempt; ``again``: the same candidate may be asked again.

    Raises:
        ProxyError: nobody is to be asked after this fault.
    """
    _count(serving, chain, ranked, fault)
    if fault.retry == "never":
        raise outcome.client_error(fault, serving.intent.prompt_member)
    if again and (yield from _again(serving, chain, ranked, fault)):
        return
    chain.drop(ranked, fault, serving.now())


def _count(serving: Serving, chain: _Chain, ranked: Ranked, fault: Fault) -> None:
    chain.note(fault)
    attempts = serving.decision.attempts
    attempt = next(one for one in reversed(attempts) if one.ranked is ranked)
    chain.envelope.spent += exposure(attempt, fault)


def _again(
    serving: Serving, chain: _Chain, ranked: Ranked, fault: Fault
) -> Generator[Effect, Outcome, bool]:
    """Whether the failed candidate is asked again, after a wait where it needs one."""
    settings = serving.gateway.settings.failover
    model = ranked.model
    provider = model.provider.id
    others = len(chain.ranked) > 1
    if fault.retry == "unsealed" and chain.unsealed is not model:
        chain.unsealed = model
        chain.left = max(1, chain.left)  # it is the same answer once more, and once only
        return True
    if fault.retry == "repair":
        if chain.mending is not model:
            chain.mending, chain.mended = model, 0
        if chain.mended < serving.gateway.settings.repair_attempts:
            chain.mended += 1
            chain.left += 1  # it is no failover: nobody else is asked for it
            return True
    # The last attempt is kept for somebody else where there is somebody else.
    if fault.of_endpoint and fault.reason != "timeout" and chain.left > (1 if others else 0):
        failed = serving.failed_tracks(model.provider)
        if failed and serving.gateway.endpoints.another(model.provider, failed):
            return True
    if fault.retry == "same" and chain.left > (1 if others else 0):
        asked_again = chain.again.get(provider, 0)
        if asked_again < settings.same_provider_retries:
            chain.again[provider] = asked_again + 1
            if asked_again:
                yield Wait(min(settings.retry_delay_s, serving.time_left()))
            return True
    wait = fault.retry_after_s
    if (
        wait is not None
        and chain.left > 0
        and fault.reason in _PASSES
        and wait <= settings.max_retry_after_s
        and wait < serving.time_left()
        and (
            waiting.is_preferred(serving.intent, chain.ranked)
            if others
            else not (chain.resting or chain.busy)  # of whom one may be asked sooner
        )
    ):
        yield Wait(wait)
        return True
    return False


def _refill(serving: Serving, chain: _Chain) -> Generator[Effect, Outcome, bool]:
    """Wait for somebody who may be asked in a while; whether there is one now."""
    if chain.busy:
        found = yield from waiting.for_a_place(serving, chain.busy)
        if found is None:
            return False
        chain.busy.remove(found)
        chain.placed = found
        _take_back(serving.decision, found)
    else:
        found = yield from waiting.for_the_soonest(serving, chain.resting)
        if found is None:
            return False
        chain.resting = [row for row in chain.resting if row[1] is not found]
    chain.ranked = [found]
    return True


def _unplace(chain: _Chain) -> None:
    """Give back a place that was waited for and is of no use."""
    if chain.placed is not None:
        places, chain.placed = chain.placed.model.provider.places, None
        assert places is not None
        places.release()


def _interrupt(serving: Serving, chain: _Chain, rejection: Interrupted) -> None:
    attempt = serving.decision.attempts[-1]
    assert attempt.usage is not None
    before = chain.delivered
    chain.delivered = Delivered(
        rejection.recorder,
        attempt,
        rejection.fault,
        attempt.usage if before is None else added(before.usage, attempt.usage),
        len(rejection.recorder.text),
    )


def _pass_over(serving: Serving, chain: _Chain, ranked: Ranked, why: Exception) -> None:
    """Leave a candidate that was not asked."""
    if isinstance(why, Busy):
        chain.busy.append(ranked)
        _leave(serving, chain, ranked, "capacity_exceeded")
        if serving.intent.failover in ("none", "manual"):
            chain.ranked.clear()  # it is waited for: nobody else may stand in
    elif isinstance(why, Barred):
        _leave(serving, chain, ranked, "unhealthy")
    elif isinstance(why, OverBudget):
        serving.refused_cost = min(why.worst, serving.refused_cost or why.worst)
        _leave(serving, chain, ranked, "over_budget")
    elif isinstance(why, Untranslatable):
        _leave(serving, chain, ranked, "cannot_express")
        serving.decision.losses = [Loss(why.feature, why.detail)]
    else:
        raise why


def _leave(serving: Serving, chain: _Chain, ranked: Ranked, reason: str) -> None:
    """Note that a candidate was not asked, and why."""
    chain.ranked = [r for r in chain.ranked if r is not ranked]
    decision = serving.decision
    plan = decision.plan
    assert plan is not None
    rest = tuple(r for r in plan.ranked if r is not ranked)
    rejected = (*plan.rejected, Rejected(ranked.model, reason))
    decision.plan = replace(plan, ranked=rest, rejected=rejected)


def _take_back(decision: Decision, ranked: Ranked) -> None:
    """A candidate that was passed over is asked after all."""
    plan = decision.plan
    assert plan is not None
    rejected = tuple(r for r in plan.rejected if r.model is not ranked.model)
    decision.plan = replace(plan, ranked=(ranked, *plan.ranked), rejected=rejected)
