"""X-AI-Quality-Threshold: the least declared quality that will do (draft §6, Table 2)."""

from collections.abc import Iterator
from typing import Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import CHATS, bad_header, choose, no_candidate
from aiproxy.conformance.probe import Probe, tell
from aiproxy.conformance.results import Finding
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import QUALITY, STRATEGY, only_asked, served

_GOOD: Final = ("0", "0.0", "0.85", "1", "1.0")
_BAD: Final = ("-0.1", "1.01", "NaN", "inf", "0,9", "high", "9e-1", "0x1")


@check(
    "XAI-HDR-056",
    level=3,
    keyword="MUST",
    title="X-AI-Quality-Threshold is a decimal from 0.0 to 1.0",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@behind(a=Fake(quality=1.0))
def thresholds_are_decimals(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-056"
    for value in _GOOD:
        _, reply = choose(probe, ("a",), {QUALITY: value})
        yield tell(me, f"{QUALITY}: {value}", reply.status == 200, reply, expected="status 200")
    for value in _BAD:
        case, reply = choose(probe, ("a",), {QUALITY: value})
        yield from bad_header(me, QUALITY, value, case, reply)


@check(
    "XAI-HDR-057",
    level=3,
    keyword="MUST",
    title="models below the threshold are never selected",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-058",
    level=3,
    keyword="MUST",
    title="a model without a declared quality meets no threshold above zero",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-059",
    level=3,
    keyword="MUST",
    title="a threshold that nobody reaches is refused",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@behind(
    poor=Fake(priority=1, price=0.002, quality=0.72),
    good=Fake(priority=9, price=0.02, quality=0.92),
    unrated=Fake(priority=2, price=0.0005),
)
def the_threshold_binds(probe: Probe) -> Iterator[Finding]:
    """Cost decides among those that reach the threshold, and favours the worse in every case."""
    rated = ("poor", "good")
    for me, pool, threshold, right in (
        ("XAI-HDR-057", rated, "0.85", "good"),
        ("XAI-HDR-057", rated, "0.92", "good"),
        ("XAI-HDR-057", rated, "0.72", "poor"),
        ("XAI-HDR-057", rated, "0.5", "poor"),
        ("XAI-HDR-058", (*rated, "unrated"), "0.1", "poor"),
        ("XAI-HDR-058", ("unrated",), "0.0", "unrated"),
    ):
        case, reply = choose(probe, pool, {QUALITY: threshold, STRATEGY: "cost"})
        fact = f"{QUALITY}: {threshold} among {' and '.join(pool)}"
        yield served(me, fact, case, reply, right)
        yield only_asked(me, f"who was asked: {fact}", case, reply, right)
    case, reply = choose(probe, ("unrated",), {QUALITY: "0.1"})
    yield from no_candidate("XAI-HDR-058", "0.1, nobody rated", case, reply, QUALITY)
    for pool, threshold in ((rated, "0.99"), (("poor",), "0.73")):
        case, reply = choose(probe, pool, {QUALITY: threshold})
        fact = f"{threshold} among {' and '.join(pool)}"
        yield from no_candidate("XAI-HDR-059", fact, case, reply, QUALITY)
