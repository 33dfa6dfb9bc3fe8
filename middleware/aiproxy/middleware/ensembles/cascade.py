"""Members asked one after the other, the cheapest first, until an answer is good enough
(UNI-ENS-004).

How good an answer is: the judge's score where there is a judge, else 1 for one that is whole, 0.5 for
one that was cut short, 0 for one that declines. It is good enough from ``agreement`` on, or when it
says what an earlier one said.
"""

from collections.abc import Generator

from aiproxy.middleware.answering.serving import Steps
from aiproxy.middleware.effects import Effect, Outcome
from aiproxy.middleware.ensembles import judging, voting
from aiproxy.middleware.ensembles.answers import Shape
from aiproxy.middleware.ensembles.executing import ask, read, shortfall
from aiproxy.middleware.ensembles.joint import Joint
from aiproxy.middleware.ensembles.likeness import likeness
from aiproxy.middleware.ensembles.panel import Panel, Seat
from aiproxy.middleware.ensembles.voting import Verdict

#: However low the threshold: answers with nothing in common do not agree.
_LEAST_LIKENESS = 0.01


def cascade(joint: Joint, panel: Panel, shape: Shape | None) -> Generator[Effect, Outcome, Verdict]:
    """Return the verdict on the answers up to the first that is good enough.

    Raises:
        ProxyError: there is no quorum of answers.
    """
    ensemble = panel.ensemble
    seats = sorted(
        (seat for seat in panel.seats if seat.state == "planned"),
        key=lambda seat: (seat.worst is None, seat.worst or 0, seat.place),
    )
    good: Seat | None = None
    for number, seat in enumerate(seats):
        if joint.too_late():
            break
        yield from ask(joint, panel, [seat])
        read(joint, seat, shape)
        if seat.state != "ok":
            continue
        last = number == len(seats) - 1
        yield from _score(joint, panel, seat, last=last)
        if good is None and _good_enough(panel, seat):
            good = seat
        if good is not None and len(panel.answered) >= ensemble.quorum:
            break
    for seat in seats:
        if seat.state == "planned":
            seat.state = "not_asked"
    voters = panel.answered
    if len(voters) < ensemble.quorum:
        raise shortfall(panel)
    asked_last = {id(seat): number for number, seat in enumerate(seats)}
    best = good or max(voters, key=lambda seat: (seat.score or 0.0, asked_last[id(seat)]))
    votes = [seat.vote() for seat in voters]
    return voting.chosen(votes, voters.index(best), ensemble.agreement)


def _score(joint: Joint, panel: Panel, seat: Seat, *, last: bool) -> Steps:
    """Say how good an answer is. A judge is not asked about the last one: nobody comes after it."""
    assert seat.given is not None
    seat.score = seat.given.quality
    judge = panel.judge
    if judge is None or not judge.usable or last or seat.score < 1 or joint.too_late():
        return
    found = yield from judging.score(joint, judge, seat.given.text)
    if found is None:
        panel.fallback = "self_checks"
    else:
        seat.score = found


def _good_enough(panel: Panel, seat: Seat) -> bool:
    assert seat.given is not None
    threshold = panel.ensemble.agreement
    if (seat.score or 0.0) >= threshold and seat.score:
        return True
    return seat.given.quality > 0 and any(
        other.given is not None
        and other.given.quality > 0
        and likeness(seat.given.form, other.given.form) >= max(threshold, _LEAST_LIKENESS)
        for other in panel.answered
        if other is not seat
    )
