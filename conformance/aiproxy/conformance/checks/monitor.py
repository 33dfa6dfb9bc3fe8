"""Looking after providers apart from clients' requests (draft §12, Fig 18)."""

from collections.abc import Iterator
from typing import Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import CHATS
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake, World
from aiproxy.conformance.sightings import POOL

_INTERVAL_S: Final = 0.5
_FAILURES: Final = 8
_LOOKS: Final = 2
# Without a look in three intervals there is no monitor; a slow machine is given some more.
_WATCHED_S: Final = 3 * _LOOKS * _INTERVAL_S + 2.0
_WATCHED: Final = World(
    "watched",
    {
        "routing": {
            "strategy": "availability",
            "failover": {"same_provider_retries": 0},
            "load_balancing": {"health_aware": True, "unhealthy_threshold": 0.5},
            "health": {
                "window": "30s", "min_samples": 5,
                "probe_after": f"{_INTERVAL_S * 1000:g}ms", "probe_max": f"{_INTERVAL_S * 1000:g}ms",
            },
        }
    },
)  # fmt: skip


@check(
    "XAI-FAIL-015",
    level=3,
    keyword="MUST",
    title="a failing provider is looked after while no client asks for anything",
    clause="draft §12 Fig 18",
    depends_on=CHATS,
)
@behind(world=_WATCHED, ill=Fake(priority=1), well=Fake(priority=2))
def failing_providers_are_looked_after(probe: Probe) -> Iterator[Finding]:
    """After the last request of a client, whatever still reaches the provider is the monitor's."""
    me, ill = "XAI-FAIL-015", probe.cast["ill"].id
    probe.upstreams.habit(ill, Act(status=500))
    asked = 0
    for _ in range(_FAILURES):
        case = probe.case()
        case.chat({POOL: case.pool("ill")})
        asked += "ill" in case.order()
    if not asked:
        yield say(me, Status.INCONCLUSIVE, "the failing provider was asked for nothing")
        return
    before = len(probe.upstreams.everything())

    def looks() -> int:
        seen = probe.upstreams.everything()[before:]
        return sum(attempt.provider == ill and not attempt.nonce for attempt in seen)

    probe.poll(lambda: looks() >= _LOOKS, _WATCHED_S)
    found = looks()
    probe.upstreams.habit(ill, None)
    yield tell(
        me, f"an idle target with a failing provider, interval {_INTERVAL_S:g} s",
        found >= _LOOKS, expected=f"{_LOOKS} looks at it within {_WATCHED_S:g} s",
        found=f"{found}",
    )  # fmt: skip
