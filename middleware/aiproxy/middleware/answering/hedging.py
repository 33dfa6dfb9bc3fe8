"""A second provider is asked when the first one is slow; the first good answer counts.

Both attempts are in the record and both are paid for, so a hedge has to fit every limit beside the
first attempt: it comes from the same plan, the worst cases of both are within the cost limit, and
``max_percent`` bounds how many requests of the last minute were hedged. The slower one is closed at
once. A stream races for its first content; from there on only the winner is read.

A request with an ``Idempotency-Key`` is never hedged: its client asked for it to be carried out
once, and two providers do not know of one another's keys.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiproxy.middleware.answering import asking
from aiproxy.middleware.answering.asking import Begun, Rival
from aiproxy.middleware.answering.outcome import Rejection
from aiproxy.middleware.answering.serving import Serving, Steps
from aiproxy.middleware.dialects.canonical import MalformedRequest, Untranslatable
from aiproxy.middleware.effects import Close, Effect, Ending, Fork, Outcome, Wait
from aiproxy.middleware.money.budgets import OverBudget
from aiproxy.middleware.routing.plan import Ranked

#: What a candidate that gives no answer raises; anything else is a bug.
_EXPECTED: Final = (
    Rejection,
    Untranslatable,
    OverBudget,
    asking.Barred,
    asking.Busy,
    MalformedRequest,
)


@dataclass(slots=True)
class Race:
    """What a race came to: the answer of ``begun``, if any, and why the others gave none."""

    begun: Begun | None = None
    failed: list[tuple[Ranked, Exception]] = field(default_factory=list)


def is_on(serving: Serving) -> bool:
    """Whether this request may be hedged at all."""
    return serving.gateway.hedges is not None and not serving.beside


def delay(serving: Serving, ranked: Ranked) -> float | None:
    """Seconds to wait for ``ranked`` before somebody else is asked too; ``None``: do not hedge."""
    hedging, hedges = serving.gateway.settings.hedging, serving.gateway.hedges
    if hedging is None or hedges is None or not hedges.request(serving.now()):
        return None
    if serving.inbound.header("idempotency-key") is not None:
        return None
    after = hedging.after_s
    if after is None:
        usual = ranked.model.track.latency_p95_ms(serving.now(), first_byte=serving.intent.stream)
        after = None if usual is None else usual / 1000
    return after if after is not None and after < serving.time_left() else None


def other(
    serving: Serving, first: Ranked, rest: Sequence[Ranked], spent: int, limit: int | None
) -> Ranked | None:
    """The next candidate at another provider that is well, and fits the cost limit with the first."""
    now = serving.now()
    for ranked in rest:
        provider = ranked.model.provider
        if provider is first.model.provider:
            continue
        tracks = (ranked.model.track, provider.track)
        if any(track.cooling(now) or track.blocked_for(now) > 0 for track in tracks):
            continue
        if limit is None or spent + (first.cost or 0) + (ranked.cost or 0) <= limit:
            return ranked
    return None


def race(
    serving: Serving, first: Ranked, second: Ranked, after_s: float
) -> Generator[Effect, Outcome, Race]:
    """Ask ``first``, and ``second`` as well once ``after_s`` have passed without an answer."""
    rival = Rival()
    began: list[bool] = []

    def hedge() -> Generator[Effect, Outcome, Begun | None]:
        yield Wait(after_s)
        hedges = serving.gateway.hedges
        if serving.too_late() or hedges is None or not hedges.take(serving.now()):
            return None
        began.append(True)
        found: Begun = yield from asking.ask(serving, second, rival=rival, keyless=True)
        return found

    def enough(endings: Sequence[Ending]) -> bool:
        one, two = endings
        if one.value is not None or two.value is not None or _final(one) or _final(two):
            rival.over = True
        return rival.over or (one.state == "raised" and not began)

    fork = Fork([asking.ask(serving, first, rival=rival), hedge()], enough)
    try:
        yield fork
    except GeneratorExit:
        for ending in fork.endings:
            if isinstance(ending.value, Begun):
                ending.value.lose()
        raise
    found: Race = yield from _settled((first, second), fork.endings)
    return found


def _final(ending: Ending) -> bool:
    """Whether a branch says that nobody is to be asked: a content filter is not routed around."""
    return isinstance(ending.fault, Rejection) and ending.fault.fault.retry == "never"


def _settled(ranked: tuple[Ranked, Ranked], endings: Sequence[Ending]) -> Steps:
    found = Race()
    for candidate, ending in zip(ranked, endings, strict=True):
        if ending.state == "raised":
            fault = ending.fault
            assert fault is not None
            if not isinstance(fault, _EXPECTED):
                raise fault  # a bug of ours
            found.failed.append((candidate, fault))
        elif isinstance(ending.value, Begun):
            if found.begun is None:
                found.begun = ending.value
            else:  # both at the same moment
                ending.value.lose()
                if ending.value.answer.stream is not None:
                    yield Close(ending.value.answer.stream)
    return found
