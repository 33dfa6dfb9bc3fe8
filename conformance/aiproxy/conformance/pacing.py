"""Teaching a target how fast each fake is, with margins wide enough to hold.

A target can only know latencies that it measured. Every role gets a scripted wait and is asked
often enough; what comes on top of the wait at the client is lateness, which varies with the
machine. The gap between two waits must be at least five times the standard deviation of that, and
twice the worst of it, since a target may go by its slowest call. Else the waits are stretched, and
at last nothing is concluded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import pstdev
from typing import TYPE_CHECKING, Final

from aiproxy.conformance.choices import ask
from aiproxy.conformance.probe import NotTestable, Probe
from aiproxy.conformance.rig.acts import Act

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

CALLS: Final = 10
MARGIN: Final = 5.0
_WORST_MARGIN: Final = 2.0
_STRETCHES: Final = (1.0, 2.0, 4.0)
# What waits less is called one at a time, so that nothing disturbs its measurement.
_QUICK_S: Final = 0.1


@dataclass(frozen=True)
class Pace:
    """The waits as scripted, the case under whose nonce they hold, and the lateness met.

    Times are seconds; ``noise_s`` is a standard deviation. ``steady`` is false when the machine is
    too noisy to tell the waits apart.
    """

    case: "Case"
    waits: Mapping[str, float]
    noise_s: float
    worst_s: float
    steady: bool

    @property
    def reason(self) -> str:
        """Why nothing can be concluded."""
        noise, worst = self.noise_s * 1000, self.worst_s * 1000
        return f"the machine is too noisy: {noise:.0f} ms beside the waits, {worst:.0f} at worst"


def paced(probe: Probe, waits: Mapping[str, float]) -> Pace:
    """Script ``waits`` (seconds by role) and call each role ``CALLS`` times; return how it went.

    Raises:
        NotTestable: a fake that only waits was not answered for.
    """
    case = probe.case()
    steps = sorted(set(waits.values()))
    gap = min(after - before for before, after in pairwise(steps))
    pace = Pace(case, waits, 0.0, 0.0, steady=False)
    for stretch in _STRETCHES:
        stretched = {role: wait * stretch for role, wait in waits.items()}
        late = _teach(probe, case, stretched)
        noise, worst = pstdev(late), max(late)
        steady = gap * stretch >= max(MARGIN * noise, _WORST_MARGIN * worst)
        pace = Pace(case, stretched, noise, worst, steady)
        if steady:
            break
    return pace


def _teach(probe: Probe, case: "Case", waits: Mapping[str, float]) -> list[float]:
    """Call every role, the slowest first; return the lateness of each call but of the slowest."""
    slowest, late = max(waits.values()), list[float]()
    for wait in sorted(set(waits.values()), reverse=True):
        roles = [role for role in waits if waits[role] == wait]
        for role in roles:
            case.script(role, always=Act(wait_s=wait))
        calls = [role for role in roles for _ in range(CALLS)]
        at_once = len(calls) if wait == slowest else 1 if wait < _QUICK_S else 2
        for start in range(0, len(calls), at_once):
            taken = probe.together(calls[start : start + at_once], lambda r: _call(case, r))
            late += [seconds - wait for seconds in taken if wait < slowest]
    return late


def _call(case: "Case", role: str) -> float:
    reply = ask(case, (role,))
    if reply.status != 200:
        raise NotTestable(f"{case.who(role)} alone in the pool, and healthy: {reply.outcome}")
    return reply.answer.seconds
