"""Ensembles: several providers answer one request (universal ensembleMethods, processWithEnsemble).

The sources name the methods and give no way to ask for one. The world's configuration describes each
ensemble under ``routing.ensembles`` and the suite asks for ``model: ensemble/NAME``; a target without
it declines and is recorded as lacking it. Only the fakes and the answer are believed.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiproxy.conformance.case import Case
from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import CHATS
from aiproxy.conformance.probe import Probe, declines, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Casts, Fake, World

_PREFIX: Final = "ensemble/"
_WAIT_S: Final = 0.4
_FAILS: Final = Act(status=503)
_WHITE: Final = "The swan is white."
_BLACK: Final = "Ravens are black birds."
_GREEN: Final = "Grass looks green today."
_METHODS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ensembles.most_agree": {"method": "consensus"},
    "ensembles.one_vote_each": {"method": "voting"},
    "ensembles.votes_have_weight": {"method": "weighted"},
    "ensembles.the_cheapest_good_one": {"method": "cascade"},
    "ensembles.side_by_side": {"method": "consensus"},
    "ensembles.a_quorum_is_enough": {"method": "voting", "quorum": 2},
}
_HEAVY: Final = "c"


def _ensembles(casts: Casts) -> Mapping[str, Any]:
    found = {}
    for scenario, options in _METHODS.items():
        if scenario in casts:
            cast = casts[scenario]
            members = [
                {"model": cast.model, "provider": actor.id, "weight": 3 if role == _HEAVY else 1}
                for role, actor in cast.actors.items()
            ]
            found[cast.model] = {**options, "members": members}
    return {"routing": {"ensembles": found}}


_WORLD: Final = World("ensembles", _ensembles)
_ALIKE: Final = Fake(price=0.002, quality=0.8)


def _asked(probe: Probe, says: Mapping[str, Act]) -> tuple[Case, Reply]:
    """One request to the scenario's ensemble, whose members do as they are told."""
    case = probe.case()
    for role, act in says.items():
        case.script(role, always=act)
    return case, case.chat(model=_PREFIX + case.model)


def _lacking(check_id: str, reply: Reply) -> Finding | None:
    if declines(reply):
        return say(check_id, Status.UNSUPPORTED, f"ensembles are declined: {reply.outcome}", reply)
    return None


def _majorities(me: str, probe: Probe) -> Iterator[Finding]:
    """Two against one, whoever the odd one is: luck and a favourite fail one of the three."""
    for odd in "abc":
        says = {role: Act(text=_BLACK if role == odd else _WHITE) for role in "abc"}
        case, reply = _asked(probe, says)
        lacking = _lacking(me, reply)
        if lacking is not None:
            yield lacking
            return
        yield tell(
            me, f"{case.who(odd)} says something else than the other two", reply.text == _WHITE,
            reply, expected="what the two say", found=reply.text or reply.outcome,
        )  # fmt: skip
        yield tell(
            me, "who is asked", sorted(case.tried()) == ["a", "b", "c"], reply,
            expected="all three, once", found=", ".join(case.tried()),
        )  # fmt: skip


@check(
    "UNI-ENS-001",
    level=3,
    keyword="SHOULD",
    title="a consensus ensemble returns what most of its members agree on",
    clause="universal ensembleMethods.consensus",
    depends_on=CHATS,
)
@behind(world=_WORLD, a=_ALIKE, b=_ALIKE, c=_ALIKE)
def most_agree(probe: Probe) -> Iterator[Finding]:
    yield from _majorities("UNI-ENS-001", probe)


@check(
    "UNI-ENS-002",
    level=3,
    keyword="SHOULD",
    title="a voting ensemble counts one vote for each provider",
    clause="universal ensembleMethods.voting",
    depends_on=CHATS,
)
@behind(world=_WORLD, a=_ALIKE, b=_ALIKE, c=_ALIKE)
def one_vote_each(probe: Probe) -> Iterator[Finding]:
    yield from _majorities("UNI-ENS-002", probe)


@check(
    "UNI-ENS-003",
    level=3,
    keyword="SHOULD",
    title="a weighted ensemble counts votes by weight",
    clause="universal ensembleMethods.weighted",
    depends_on=CHATS,
)
@behind(world=_WORLD, a=_ALIKE, b=_ALIKE, c=_ALIKE)
def votes_have_weight(probe: Probe) -> Iterator[Finding]:
    """One member weighs three: it outvotes the two others."""
    me = "UNI-ENS-003"
    says = {role: Act(text=_GREEN if role == _HEAVY else _WHITE) for role in "abc"}
    _, reply = _asked(probe, says)
    yield _lacking(me, reply) or tell(
        me, "weights 1, 1 and 3, the heavy one against the others", reply.text == _GREEN, reply,
        expected="what the heavy one says", found=reply.text or reply.outcome,
    )  # fmt: skip


@check(
    "UNI-ENS-004",
    level=3,
    keyword="SHOULD",
    title="a cascade asks the cheaper provider first and stops when it is good enough",
    clause="universal ensembleMethods.cascade",
    depends_on=CHATS,
)
@behind(world=_WORLD, dear=Fake(price=0.02, quality=0.8), cheap=Fake(price=0.001, quality=0.8))
def the_cheapest_good_one(probe: Probe) -> Iterator[Finding]:
    me = "UNI-ENS-004"
    case, reply = _asked(probe, {})
    lacking = _lacking(me, reply)
    if lacking is not None:
        yield lacking
        return
    yield tell(
        me, "the cheap one answers well", case.tried() == ("cheap",), reply,
        expected="nobody else is asked", found=", ".join(case.tried()) or reply.outcome,
    )  # fmt: skip
    case, reply = _asked(probe, {"cheap": _FAILS})
    yield tell(
        me, "the cheap one fails", case.served(reply) == "dear", reply,
        expected="the dear one answers", found=reply.outcome,
    )  # fmt: skip


@check(
    "UNI-ENS-005",
    level=3,
    keyword="SHOULD",
    title="the members of an ensemble run in parallel",
    clause="universal processWithEnsemble",
    depends_on=CHATS,
)
@check(
    "UNI-BENCH-003",
    level=3,
    keyword="SHOULD",
    title="an ensemble of three takes less than three times a single request",
    clause="universal Benchmarks: Ensemble Processing",
    depends_on=CHATS,
)
@behind(world=_WORLD, a=_ALIKE, b=_ALIKE, c=_ALIKE)
def side_by_side(probe: Probe) -> Iterator[Finding]:
    """All members have the request before the first of them has answered."""
    rows = ("UNI-ENS-005", "UNI-BENCH-003")
    case, reply = _asked(probe, dict.fromkeys("abc", Act(wait_s=_WAIT_S, text=_WHITE)))
    for me in rows:
        lacking = _lacking(me, reply)
        if lacking is not None:
            yield lacking
            continue
        attempts = case.attempts(4 * _WAIT_S)
        began = [attempt.at for attempt in attempts]
        ended = [a.answered_at for a in attempts if a.answered_at is not None]
        together = len(began) == 3 and len(ended) == 3 and max(began) < min(ended)
        took = max(ended) - min(began) if began and ended else 0.0
        holds = together if me == rows[0] else together or 0 < took < 3 * _WAIT_S
        yield tell(
            me, f"three members that take {_WAIT_S:g} s each", holds, reply,
            expected="all are asked before the first answers",
            found=f"{len(began)} asked, the last answer after {took:.2f} s",
        )  # fmt: skip


@check(
    "UNI-ENS-007",
    level=3,
    keyword="SHOULD",
    title="a member's failure does not fail the ensemble while a quorum remains",
    clause="universal processWithEnsemble (implied)",
    depends_on=CHATS,
)
@behind(world=_WORLD, a=_ALIKE, b=_ALIKE, c=_ALIKE)
def a_quorum_is_enough(probe: Probe) -> Iterator[Finding]:
    """With a quorum of two: one of three may fail, and two may not."""
    me = "UNI-ENS-007"
    white = Act(text=_WHITE)
    for down in "abc":
        says = {role: _FAILS if role == down else white for role in "abc"}
        case, reply = _asked(probe, says)
        lacking = _lacking(me, reply)
        if lacking is not None:
            yield lacking
            return
        yield tell(
            me, f"only {case.who(down)} fails", reply.text == _WHITE, reply,
            expected="the answer of the others", found=reply.outcome,
        )  # fmt: skip
    _, reply = _asked(probe, {"a": _FAILS, "b": _FAILS, "c": white})
    yield tell(me, "two of three fail", reply.status >= 500, reply, expected="an error, status 5xx")
