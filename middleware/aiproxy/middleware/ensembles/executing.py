"""Members asked side by side, and what came of each (UNI-ENS-005, UNI-ENS-007).

One that fails, or whose answer is no vote, is left out while a quorum of answers remains; who is late
is stopped, and so is everybody when no quorum can be reached any more.
"""

from collections.abc import Generator, Sequence
from logging import getLogger
from typing import Any, Final

import orjson

from aiproxy.middleware.answering.attempts import attempt_all
from aiproxy.middleware.answering.serving import Steps
from aiproxy.middleware.dialects.canonical import MalformedRequest
from aiproxy.middleware.effects import Effect, Ending, Fork, Outcome, Reply, Wait
from aiproxy.middleware.ensembles import answers
from aiproxy.middleware.ensembles.answers import Shape
from aiproxy.middleware.ensembles.joint import Joint
from aiproxy.middleware.ensembles.panel import Panel, Seat
from aiproxy.middleware.errors import ProxyError

log = getLogger("aiproxy")

#: Why a member was stopped that was not late: its answer could not have counted any more.
_NO_QUORUM: Final = "no_quorum"


def ask(joint: Joint, panel: Panel, seats: Sequence[Seat], *, quorum: int = 0) -> Steps:
    """Ask members side by side until all are done, time is up, or a quorum is out of reach."""
    branches: list[Generator[Any, Any, Any]] = [member(joint, seat) for seat in seats]
    limit = panel.ensemble.timeout_s
    if limit is not None and limit < joint.time_left():
        branches.append(_timer(limit))

    def enough(endings: Sequence[Ending]) -> bool:
        mine = endings[: len(seats)]
        if len(endings) > len(mine) and endings[-1].state == "done":
            return True
        running = sum(ending.state == "running" for ending in mine)
        good = sum(ending.state == "done" and ending.value is True for ending in mine)
        return not running or good + running < quorum

    endings = yield Fork(branches, enough)
    assert isinstance(endings, list)
    in_time = len(endings) == len(seats) or endings[-1].state != "done"
    for seat, ending in zip(seats, endings, strict=False):
        if ending.state == "stopped":
            _stopped(seat, in_time=in_time)
        elif ending.state == "raised":
            _broken(joint, seat, ending.fault)


def _timer(seconds: float) -> Generator[Effect, Outcome, None]:
    yield Wait(seconds)


def member(joint: Joint, seat: Seat) -> Generator[Effect, Outcome, bool]:
    """Ask one member; whether it answered is the branch's value."""
    assert seat.serving is not None
    assert seat.plan is not None
    seat.started_ms = joint.elapsed_ms()
    seat.serving.decision.plan = seat.plan
    try:
        reply = yield from attempt_all(seat.serving, seat.plan)
    except ProxyError as fault:
        seat.state, seat.error, seat.reason = "failed", fault, fault.code
        return False
    else:
        seat.reply, seat.served = reply, seat.serving.decision.served
        return True
    finally:
        seat.latency_ms = joint.elapsed_ms() - seat.started_ms
        for attempt in seat.attempts:
            attempt.role = "member"


def _stopped(seat: Seat, *, in_time: bool) -> None:
    """Note that a member was not waited for any more: time was up, or there was no quorum left."""
    seat.state, seat.reason = "late", _NO_QUORUM if in_time else "deadline_passed"
    for attempt in seat.attempts:
        if attempt.outcome == "running":
            attempt.outcome, attempt.error = "aborted", None if in_time else "timeout"


def _broken(joint: Joint, seat: Seat, fault: Exception | None) -> None:
    if isinstance(fault, MalformedRequest):
        raise fault  # the client's own, whichever member met it
    # A bug, not an outcome: the others may still answer.
    log.error("request %s: a member of its ensemble failed", joint.decision.id, exc_info=fault)
    seat.state, seat.reason = "failed", "internal_error"


def read(joint: Joint, seat: Seat, shape: Shape | None) -> None:
    """Validate an answer: one that is no vote leaves its member out."""
    if not isinstance(seat.reply, Reply):
        return
    given = answers.read(joint.intent.endpoint, orjson.loads(seat.reply.body), shape)
    seat.given, seat.quality = given, given.quality
    if given.fault is None:
        seat.state = "ok"
    else:
        seat.state, seat.reason = "invalid", given.fault


def shortfall(panel: Panel) -> ProxyError:
    """Why there is no quorum of answers, by what the members that failed were told."""
    name, quorum, count = panel.ensemble.name, panel.ensemble.quorum, len(panel.answered)
    lost = [s for s in panel.asked if s.state != "ok" and s.reason != _NO_QUORUM]
    faults = [seat.error for seat in lost if seat.error is not None]
    first = faults[0] if faults else None
    if first is not None and not count and len(faults) == len(lost):
        alike = all((fault.status, fault.code) == (first.status, first.code) for fault in faults)
        if alike and first.status < 500:
            return first  # everybody says the same of the request
    why: dict[str, int] = {}
    for seat in lost:
        reason = "upstream_timeout" if seat.state == "late" else seat.reason or seat.state
        why[reason] = why.get(reason, 0) + 1
    listed = ", ".join(f"{reason} {number}" for reason, number in sorted(why.items()))
    message = f"{name} needs {quorum} answers and got {count} ({listed})."
    waits = [fault.retry_after_s for fault in faults if fault.retry_after_s is not None]
    if why.keys() <= {"upstream_timeout"}:
        return ProxyError("upstream_timeout", message, should_retry=False)
    if why.keys() <= {"provider_overloaded", "rate_limit_exceeded", "no_healthy_provider"}:
        soonest = min(waits, default=None)
        retry = None if soonest is not None else False
        return ProxyError("provider_overloaded", message, retry_after_s=soonest, should_retry=retry)
    return ProxyError("all_providers_failed", message, should_retry=False)
