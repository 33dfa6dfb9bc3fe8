"""X-AI-Routing-Strategy: what is optimised among those that may serve (draft §6, Table 2).

First in priority, cheapest, fastest and best are four different fakes, and a fifth is second best
in everything. Taking the winner out of the pool moves the right answer to another one.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import CHATS, ask, bad_header, choose, picks
from aiproxy.conformance.pacing import paced
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import HINT, STRATEGY, served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_FIELD: Final[dict[str, Any]] = {
    "first": Fake(priority=1, price=0.05, quality=0.5),
    "cheap": Fake(priority=60, price=0.0005, quality=0.4),
    "fast": Fake(priority=70, price=0.04, quality=0.45),
    "best": Fake(priority=80, price=0.045, quality=0.98),
    "even": Fake(priority=90, price=0.0006, quality=0.95),
}
_WAITS_S: Final = {"first": 0.6, "cheap": 0.6, "best": 0.6, "even": 0.2, "fast": 0.01}
_ALL: Final = tuple(_FIELD)


# Requirement, strategy, who is missing from the pool, who is right.
Row = tuple[str, str, tuple[str, ...], str]
_BY_LATENCY: Final[tuple[Row, ...]] = (
    ("XAI-HDR-024", "latency", (), "fast"),
    ("XAI-HDR-024", "latency", ("fast",), "even"),
    ("XAI-HDR-027", "balanced", (), "even"),
    ("XAI-HDR-027", "balanced", ("cheap", "fast", "even"), "best"),
    ("XAI-HDR-029", "latency_optimized", (), "fast"),
)
_BY_DECLARATION: Final[tuple[Row, ...]] = (
    ("XAI-HDR-023", "cost", (), "cheap"),
    ("XAI-HDR-023", "cost", ("cheap",), "even"),
    ("XAI-HDR-023", "cost", ("cheap", "even"), "fast"),
    ("XAI-HDR-025", "quality", (), "best"),
    ("XAI-HDR-025", "quality", ("best",), "even"),
    ("XAI-HDR-025", "quality", ("best", "even"), "first"),
    ("XAI-HDR-025", "quality", ("best", "even", "first"), "fast"),
    ("XAI-HDR-029", "cost_optimized", (), "cheap"),
)


@check(
    "XAI-HDR-023",
    level=3,
    keyword="MUST",
    title="strategy cost: the cheapest eligible provider",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-024",
    level=3,
    keyword="MUST",
    title="strategy latency: the fastest eligible provider",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-025",
    level=3,
    keyword="MUST",
    title="strategy quality: the highest declared quality",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-027",
    level=3,
    keyword="MUST",
    title="strategy balanced weighs cost, latency and quality together",
    clause="draft Fig 6",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-029",
    level=3,
    keyword="SHOULD",
    title="the configuration's strategy names are aliases in the header",
    clause="draft §6 + aiproxy §4.1",
    depends_on=CHATS,
)
@behind(**_FIELD)
def each_strategy_has_its_own_winner(probe: Probe) -> Iterator[Finding]:
    pace = paced(probe, _WAITS_S)
    if pace.steady:
        yield from _won(pace.case, _BY_LATENCY)
    else:
        for me in ("XAI-HDR-024", "XAI-HDR-027"):
            yield say(me, Status.INCONCLUSIVE, pace.reason)
    # From here on nobody waits: what was measured so far may be diluted.
    yield from _won(probe.case(), _BY_DECLARATION)
    for alias in ("availability", "round_robin"):
        _, reply = choose(probe, ("even", "fast"), {STRATEGY: alias})
        yield tell("XAI-HDR-029", alias, reply.status == 200, reply, expected="status 200")


def _won(case: "Case", rows: tuple[Row, ...]) -> Iterator[Finding]:
    for me, strategy, missing, right in rows:
        pool = tuple(role for role in _ALL if role not in missing)
        reply = ask(case, pool, {STRATEGY: strategy})
        without = f" without {' and '.join(missing)}" if missing else ""
        yield served(me, f"{strategy}{without}", case, reply, right)


@check(
    "XAI-HDR-026",
    level=3,
    keyword="MUST",
    title="strategy capability-first: fit before cost and latency",
    clause="draft §6, Table 2, Fig 1",
    depends_on=CHATS,
)
@behind(
    plain=Fake(priority=1, price=0.0005, model={"latency_prior": "50ms"}),
    thinks=Fake(
        priority=9, price=0.03, capabilities=("text-generation", "reasoning"),
        model={"reasoning": "native", "latency_prior": "900ms"},
    ),
    codes=Fake(
        priority=5, price=0.01, capabilities=("text-generation", "code-generation"),
        model={"latency_prior": "400ms"},
    ),
)  # fmt: skip
def capability_comes_first(probe: Probe) -> Iterator[Finding]:
    """Nobody here is made for creative work, so there the cheap and fast one is right."""
    me, pool = "XAI-HDR-026", ("plain", "thinks", "codes")
    for hint, right in (("reasoning", "thinks"), ("coding", "codes"), ("creative", "plain")):
        headers = {STRATEGY: "capability-first", HINT: hint}
        yield picks(me, probe, f"the task is {hint}", pool, right, headers)


@check(
    "XAI-HDR-028",
    level=3,
    keyword="MUST",
    title="an unknown strategy is refused",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@behind(a=Fake(priority=1, price=0.01), b=Fake(priority=2, price=0.001))
def unknown_strategies_are_refused(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-028"
    for value in ("cheapest", "cost,latency", probe.word()):
        case, reply = choose(probe, ("a", "b"), {STRATEGY: value})
        yield from bad_header(me, STRATEGY, value, case, reply)
    yield picks(me, probe, "a known one", ("a", "b"), "b", {STRATEGY: "Cost"})
