"""Spreading over providers that suit equally (aiproxy §4.1 load_balancing, §2).

A fixed order, random choice and true balancing differ in what the fakes count, not in what a
target says; so only the fakes are asked.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import Any, Final

from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.choices import CHATS
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake, World
from aiproxy.conformance.sightings import POOL, only_asked

_EQUAL: Final = Fake(priority=10, price=0.002, quality=0.8)
_ROUNDS: Final = 12
_CROWD: Final = 30
_WEIGHTED: Final = 48
_HOLD_S: Final = 1.0
_HELD: Final = 3
_SETTLED_S: Final = 3.0


def _balanced(name: str, strategy: str) -> World:
    balancing: Mapping[str, Any] = {"enabled": True, "strategy": strategy}
    return World(name, {"routing": {"strategy": "availability", "load_balancing": balancing}})


_TURNS: Final = _balanced("balance-turns", "round_robin")
_LOAD: Final = _balanced("balance-load", "least_loaded")
_WEIGHTS: Final = _balanced("balance-weights", "weighted")


def _counted(roles: Iterable[str]) -> str:
    return ", ".join(f"{role or 'nobody'} {n}" for role, n in sorted(Counter(roles).items()))


def _one(probe: Probe) -> str:
    case = probe.case()
    return case.served(case.chat())


@check(
    "AIP-LB-001",
    level=3,
    keyword="MUST",
    title="round_robin spreads requests evenly over equal candidates",
    clause="aiproxy §4.1",
    depends_on=CHATS,
)
@check(
    "AIP-LB-006",
    level=3,
    keyword="MUST",
    title="all available resources that serve the model are balanced over, local ones too",
    clause="aiproxy §2",
    depends_on=CHATS,
)
@behind(
    world=_TURNS, a=_EQUAL, b=_EQUAL,
    near=Fake(priority=10, price=0.002, quality=0.8, provider={"local": True}),
)  # fmt: skip
def turns_are_even(probe: Probe) -> Iterator[Finding]:
    turns = [_one(probe) for _ in range(3 * _ROUNDS)]
    counts = Counter(turns)
    even = all(abs(counts[role] - _ROUNDS) <= 1 for role in ("a", "b", "near"))
    yield tell(
        "AIP-LB-001", f"{3 * _ROUNDS} requests, one after the other", even,
        expected=f"{_ROUNDS} each, give or take one", found=_counted(turns),
    )  # fmt: skip
    idle = [role for role in ("a", "b", "near") if not counts[role]]
    yield tell(
        "AIP-LB-006", "who gets requests", not idle,
        expected="all three", found=_counted(turns),
    )  # fmt: skip
    crowd = probe.together(_CROWD, lambda _: _one(probe))
    most = max(Counter(crowd).values())
    fair = _CROWD // 3 + ceil(0.1 * _CROWD)
    yield tell(
        "AIP-LB-001", f"{_CROWD} requests at once", "" not in crowd and most <= fair,
        expected=f"at most {fair} at one of the three", found=_counted(crowd),
    )  # fmt: skip


@check(
    "AIP-LB-002",
    level=3,
    keyword="MUST",
    title="least_loaded sends a request to whoever has the fewest in flight",
    clause="aiproxy §4.1",
    depends_on=CHATS,
)
@behind(world=_LOAD, a=_EQUAL, b=_EQUAL)
def the_least_loaded_is_next(probe: Probe) -> Iterator[Finding]:
    """Whoever is held busy is left alone; then the other way round, so that luck needs two hits."""
    me = "AIP-LB-002"
    for busy, free in (("a", "b"), ("b", "a")):
        held = [probe.case() for _ in range(_HELD)]

        def send(position: int, held: Any = held, busy: str = busy) -> list[str]:
            """The first few are held at ``busy``, which alone is in their pool; others follow."""
            if position < len(held):
                case = held[position]
                case.script(busy, always=Act(wait_s=_HOLD_S))
                case.chat({POOL: case.pool(busy)}, model="auto")
                return []
            there = probe.poll(lambda: all(case.attempts(0.0) for case in held), _SETTLED_S, 0.02)
            return [_one(probe) for _ in range(6)] if there else []

        quick = probe.together(len(held) + 1, send)[-1]
        waited = min((len(case.order()) for case in held), default=0)
        if not quick or not waited:
            yield say(me, Status.INCONCLUSIVE, f"{busy} could not be kept busy")
            continue
        yield tell(
            me, f"six requests while {_HELD} wait at {busy}", set(quick) == {free},
            expected=f"all at {free}", found=_counted(quick),
        )  # fmt: skip


@check(
    "AIP-LB-003",
    level=3,
    keyword="MUST",
    title="weighted spreads in proportion to the weights",
    clause="aiproxy §4.1",
    depends_on=CHATS,
)
@behind(
    world=_WEIGHTS,
    heavy=Fake(priority=10, price=0.002, quality=0.8, provider={"weight": 3}),
    light=Fake(priority=10, price=0.002, quality=0.8, provider={"weight": 1}),
)
def weights_decide_shares(probe: Probe) -> Iterator[Finding]:
    """A chance of one in a million is allowed for a target that draws lots."""
    me = "AIP-LB-003"
    turns = probe.together(_WEIGHTED, lambda _: _one(probe))
    heavy, light = turns.count("heavy"), turns.count("light")
    if heavy + light != _WEIGHTED:
        yield tell(me, "answers", False, expected="all from the two", found=_counted(turns))
        return
    expected = _WEIGHTED * 0.75
    squares = (heavy - expected) ** 2 / expected + (light - (_WEIGHTED - expected)) ** 2 / (
        _WEIGHTED - expected
    )
    shown = f"{_counted(turns)} (chi-square {squares:.1f}, one degree of freedom)"
    if _CHI_DOUBT < squares <= _CHI_FAIL:
        yield say(me, Status.INCONCLUSIVE, f"neither three to one nor clearly not: {shown}")
        return
    yield tell(
        me, f"{_WEIGHTED} requests, weights 3 and 1", squares <= _CHI_DOUBT,
        expected=f"about {expected:.0f} and {_WEIGHTED - expected:.0f}", found=shown,
    )  # fmt: skip


# Chi-square with one degree of freedom: exceeded by chance once in a million, and once in a
# hundred. Between the two nothing is concluded. Even shares of 48 give 16, always-first 16 too.
_CHI_FAIL: Final = 14.0
_CHI_DOUBT: Final = 6.63


@check(
    "UNI-ENS-006",
    level=3,
    keyword="MUST",
    title="nobody is asked beside the chosen provider unless the client wants an ensemble",
    clause="universal processWithEnsemble (implied)",
    depends_on=CHATS,
)
@behind(a=_EQUAL, b=_EQUAL, c=_EQUAL)
def one_request_is_one_call(probe: Probe) -> Iterator[Finding]:
    me = "UNI-ENS-006"
    for model in ("auto", probe.cast.model):
        case = probe.case()
        reply = case.chat({"X-AI-Provider-Pool": case.pool()}, model=model)
        first = case.order()[:1]
        yield only_asked(me, f"a request for {model}", case, reply, *first)
        yield tell(
            me, f"calls for one request for {model}", len(case.tried()) == 1, reply,
            expected="one", found=str(len(case.tried())),
        )  # fmt: skip


derive(
    "UNI-ROUTE-008", level=3, keyword="MUST", title="a load balancer spreads traffic",
    clause="universal providerSelection.loadBalancer", of=("AIP-LB-001",),
)  # fmt: skip
derive(
    "AIP-CHK-014", level=3, keyword="MUST", title="checklist: load balancing exists",
    clause="aiproxy §8 Phase 3", of=("AIP-LB-001", "AIP-LB-002", "AIP-LB-003", "AIP-LB-004"),
)  # fmt: skip
