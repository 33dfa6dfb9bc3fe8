"""When a request waits instead of asking somebody else: for a free place, or for a provider's time.

Waits never pass the deadline. A wait for a provider's own ``Retry-After``, or for the soonest of
several, lasts at most ``routing.failover.max_retry_after``; one for a place ``max_queue_wait``.
"""

from collections.abc import Generator, Sequence
from typing import Final

from aiproxy.middleware.answering.places import Places, Ticket
from aiproxy.middleware.answering.serving import Serving
from aiproxy.middleware.decision import Decision
from aiproxy.middleware.effects import Effect, Outcome, Wait
from aiproxy.middleware.gateway import Gateway
from aiproxy.middleware.intent import Intent
from aiproxy.middleware.routing.plan import Ranked
from aiproxy.middleware.routing.refusing import NoCandidate

#: A candidate is clearly preferred when the next one's score is at most this share of its own.
_CLEARLY: Final = 0.5
#: Strategies whose score says how much better one candidate is than another, whatever the time.
_BY_MERIT: Final = frozenset({"cost", "quality", "capability-first", "balanced"})
_FIRST_LOOK_S: Final = 0.002
#: Between two plans.
_LEAST_S: Final = 0.01
_LONGEST_LOOK_S: Final = 0.02


class Patience:
    """How long one request waits for a first candidate while nobody may be asked: until the soonest
    of them may be, ``max_retry_after`` in all."""

    __slots__ = ("_decision", "_gateway", "_until")

    def __init__(self, gateway: Gateway, decision: Decision) -> None:
        self._gateway = gateway
        self._decision = decision
        self._until: float | None = None

    def wait_after(self, refusal: NoCandidate) -> Wait:
        """The wait after which a plan may succeed.

        Raises:
            NoCandidate: the refusal, when no wait within the bounds would help.
        """
        decision, soonest = self._decision, refusal.retry_after_s
        if refusal.code != "no_healthy_provider" or soonest is None or decision.explained:
            raise refusal
        now = self._gateway.runtime.now()
        if self._until is None:
            assert decision.intent is not None
            self._until = min(
                now + self._gateway.settings.failover.max_retry_after_s,
                decision.started + decision.intent.timeout_s,
            )
        wait = max(soonest, _LEAST_S)
        if now + wait > self._until:
            raise refusal
        decision.rejected = ()
        return Wait(wait)


def is_preferred(intent: Intent, ranked: Sequence[Ranked]) -> bool:
    """Whether the first candidate is so much better than the next that a short wait is worth it."""
    if intent.strategy not in _BY_MERIT or intent.constraints.max_latency_ms is not None:
        return False
    first, second = ranked[0], ranked[1]
    return first.score > 0 and second.score <= _CLEARLY * first.score


def for_a_place(
    serving: Serving, candidates: Sequence[Ranked]
) -> Generator[Effect, Outcome, Ranked | None]:
    """Wait in the queues of providers without a free place; the first one that has one, with the
    place taken, or ``None``."""
    now = serving.now()
    queued: dict[Places, tuple[Ranked, Ticket, float]] = {}
    for ranked in candidates:
        places = ranked.model.provider.places
        if places is not None and places not in queued:
            ticket = places.queue()
            if ticket is not None:
                queued[places] = (ranked, ticket, now + places.wait_s)
    look = _FIRST_LOOK_S
    try:
        while queued:
            for places, (ranked, ticket, until) in list(queued.items()):
                if ticket.called:
                    del queued[places]
                    return ranked
                if serving.now() >= until or serving.too_late():
                    del queued[places]
                    places.leave(ticket)
            if queued:
                yield Wait(min(look, serving.time_left()))
                look = min(look * 1.5, _LONGEST_LOOK_S)
    finally:
        for places, (_, ticket, _) in queued.items():
            places.leave(ticket)
    return None


def for_the_soonest(
    serving: Serving, resting: Sequence[tuple[float, Ranked]]
) -> Generator[Effect, Outcome, Ranked | None]:
    """Wait for the first of those that named a time at which they may be asked again (seconds of
    the clock); ``None`` when that is too far off."""
    if not resting:
        return None
    at, ranked = min(resting, key=lambda row: row[0])
    wait = max(0.0, at - serving.now())
    if wait > serving.gateway.settings.failover.max_retry_after_s or wait >= serving.time_left():
        return None
    yield Wait(wait)
    return ranked
