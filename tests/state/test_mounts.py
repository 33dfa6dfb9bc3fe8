"""A mount shares health from its first request on, whichever kind it is."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from mounts import model
from upstreams import Script

from aiproxy.middleware import Gateway

pytestmark = pytest.mark.requirement("ASC-HEALTH-002")

COST = {"x-ai-routing-strategy": "cost"}


def rows(fakes: Any, url: str) -> dict[str, Any]:
    cheap, dear = model("m-a", cost_per_1k_tokens=0.001), model("m-b", cost_per_1k_tokens=0.01)
    return fakes.config(
        {"a": [cheap], "b": [dear]},
        routing={
            "failover": {"same_provider_retries": 0},
            "health": {"min_samples": 5, "probe_after": "20s"},
        },
        state={"backend": "valkey", "url": url, "sync_interval": "100ms"},
    )


def within_a_second(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 1.0
    while not condition():
        assert time.monotonic() < deadline, "they did not agree within a second"
        time.sleep(0.01)


@pytest.fixture
def other(fakes: Any, redis_server: Any) -> Any:
    """Another process, as far as the store can tell."""
    gateway = Gateway(rows(fakes, redis_server.url), wrapped_app=False, scope="all")
    gateway.background.begin()
    yield gateway
    gateway.background.close()


def test_what_a_mount_sees_others_know(
    mount: Any, fakes: Any, other: Gateway, redis_server: Any
) -> None:
    served = mount(rows(fakes, redis_server.url))
    fakes.a.script = Script(status=500)
    for _ in range(6):
        served.chat({**COST, "x-ai-provider-pool": "a"})
    theirs = other.registry.by_provider["a"][0].track
    within_a_second(lambda: theirs.cooling(time.monotonic()))
    assert theirs.blocked_for(time.monotonic()) == 0.0


def test_what_others_see_a_mount_goes_by(
    mount: Any, fakes: Any, other: Gateway, redis_server: Any
) -> None:
    served = mount(rows(fakes, redis_server.url))
    assert served.chat(COST).provider == "a"
    found = other.registry.by_provider["a"][0]
    for _ in range(6):
        other.registry.failed(found, time.monotonic(), lambda: 0.5, None, whole_provider=False)
    within_a_second(lambda: served.chat(COST).provider == "b")
    got = served.chat(COST)
    assert len(served.record(got)["attempts"]) == 1
    assert served.chat({**COST, "x-ai-provider-pool": "a"}).provider == "a"
