"""Checks above level 1 that a URL alone can falsify; none of them proves a level."""

from collections.abc import Iterator

from aiproxy.conformance.checks import check
from aiproxy.conformance.probe import Probe, refused
from aiproxy.conformance.results import Finding


@check(
    "XAI-STREAM-018",
    level=2,
    keyword="MUST",
    title="stream must be a boolean",
    clause="draft §8",
    depends_on=("AIP-API-001",),
)
def stream_is_a_boolean(probe: Probe) -> Iterator[Finding]:
    yield refused("XAI-STREAM-018", 'stream: "yes"', probe.chat(stream="yes"), 400)
