"""Traffic among a provider's endpoints, and among providers that nothing else tells apart."""

import threading
import time
from collections import Counter
from typing import Any

import pytest
from mounts import model

req = pytest.mark.requirement
ON = {"X-AI-Multi-Provider": "enabled"}


@pytest.fixture
def regional(mount: Any, fakes: Any) -> Any:
    """One provider ``p`` at the addresses of a, b and c; ``z`` stands behind it."""

    def build(kind: str, names: str = "abc", weights: Any = None, **routing: Any) -> Any:
        config = fakes.config({"p": {"models": [model("m")]}, "z": {"models": [model("m")]}})
        del config["providers"]["p"]["endpoint"]
        config["providers"]["p"] |= {
            "priority": 1,
            "load_balancing": kind,
            "endpoints": [
                {
                    "url": getattr(fakes, name).url,
                    "region": f"region-{name}",
                    "weight": (weights or {}).get(name, 1),
                }
                for name in names
            ],
        }
        config["providers"]["z"]["priority"] = 2
        config["routing"] = {"scope": "all", "default_provider": "p", **routing}
        return mount(config)

    return build


def where(mount: Any, got: Any) -> list[str]:
    return [row["endpoint"] for row in mount.record(got)["attempts"]]


@req("ASC-LB-001", "ASC-LB-002")
def test_endpoints_take_turns_by_weight(regional: Any, fakes: Any) -> None:
    mount = regional("round_robin", weights={"a": 1, "b": 2, "c": 1})
    for _ in range(8):
        assert mount.chat(model="m").status == 200
    assert {name: len(getattr(fakes, name).seen) for name in "abc"} == {"a": 2, "b": 4, "c": 2}


@req("ASC-LB-003")
def test_least_connections_leaves_a_busy_endpoint_alone(regional: Any, fakes: Any) -> None:
    mount = regional("least_connections", "ab")
    release = threading.Event()
    fakes.a.script.released = fakes.b.script.released = release
    held = threading.Thread(target=lambda: mount.chat(model="m"))
    held.start()
    deadline = time.monotonic() + 5
    while not (fakes.a.seen or fakes.b.seen):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    busy, free = (fakes.a, fakes.b) if fakes.a.seen else (fakes.b, fakes.a)
    free.script.released = None
    for _ in range(4):
        assert mount.chat(model="m").status == 200
    assert (len(busy.seen), len(free.seen)) == (1, 4)
    release.set()
    held.join()


@req("ASC-LB-004")
def test_faster_endpoints_get_more_in_proportion(regional: Any, fakes: Any) -> None:
    """Medians of 20 and 60 ms: three of four calls go to the faster one."""
    mount = regional("latency_weighted", "ab")
    here = mount.gateway.registry.providers["p"].endpoints
    now = mount.gateway.runtime.now()
    for endpoint, ms in zip(here, (20.0, 60.0), strict=True):
        for slow in (ms, ms, ms * 40):  # the median, not the mean
            endpoint.track.succeeded(now, slow, slow)
    picked = Counter(
        mount.gateway.endpoints.next(mount.gateway.registry.providers["p"]).region
        for _ in range(400)
    )
    assert picked == {"region-a": 300, "region-b": 100}
    fakes.a.script.delay_s = 0.15
    fakes.b.script.delay_s = 0.01
    for _ in range(30):
        assert mount.chat(model="m").status == 200
    assert len(fakes.b.seen) > len(fakes.a.seen)


@req("ASC-LB-001")
@pytest.mark.parametrize("kind", ["round_robin", "least_connections", "latency_weighted"])
@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_failed_endpoint_fails_over_to_its_sibling(
    regional: Any, fakes: Any, kind: str, status: int
) -> None:
    """The sibling answers; the endpoint is left out afterwards, and the provider is not."""
    mount = regional(kind, "ab")
    fakes.a.script.status = status
    if status == 429:  # without it the pause may be over before the six are
        fakes.a.script.headers = {"retry-after": "30"}
    asked = [mount.chat(model="m") for _ in range(6)]
    assert {got.status for got in asked} == {200}
    assert len(fakes.a.seen) == 1
    assert len(fakes.b.seen) == 6
    assert fakes.z.seen == []
    tried = next(where(mount, got) for got in asked if len(where(mount, got)) > 1)
    assert tried == ["region-a", "region-b"]
    provider = mount.gateway.registry.providers["p"]
    now = mount.gateway.runtime.now()
    assert not provider.track.cooling(now)
    assert not mount.gateway.registry.named("m")[0].track.cooling(now)
    assert provider.endpoints[0].track.cooling(now)


@req("ASC-LB-001")
def test_a_dead_endpoint_does_not_take_its_provider_along(regional: Any, fakes: Any) -> None:
    """A refused connection speaks of one address while another of them works."""
    mount = regional("round_robin", "ab")
    fakes.a.stop()
    try:
        for _ in range(4):
            assert mount.chat(model="m").status == 200
    finally:
        fakes.a.start()
    assert (len(fakes.b.seen), fakes.z.seen) == (4, [])


@req("ASC-LB-001", "XAI-FAIL-005")
def test_when_all_endpoints_fail_somebody_else_is_asked(regional: Any, fakes: Any) -> None:
    mount = regional("round_robin", "ab")
    fakes.a.script.status = fakes.b.script.status = 503
    got = mount.chat(model="m")
    assert got.json["x-aiproxy"]["provider"] == "z"
    assert (len(fakes.a.seen), len(fakes.b.seen)) == (1, 1)
    provider = mount.gateway.registry.providers["p"]
    assert mount.gateway.registry.named("m")[0].track.cooling(mount.gateway.runtime.now())
    assert provider.id == "p"


# --- among providers -----------------------------------------------------------------------------


def equals(fakes: Any, mount: Any, kind: str, **weights: float) -> Any:
    config = fakes.config(
        {name: {"weight": w, "models": [model(f"m-{name}")]} for name, w in weights.items()},
        routing={
            "strategy": "cost",
            "load_balancing": {"enabled": True, "strategy": kind},
        },
    )
    return mount(config)


@req("AIP-LB-001")
def test_round_robin_is_even_for_every_kind_of_request(mount: Any, fakes: Any) -> None:
    """Requests of two kinds that alternate do not take one another's turns."""
    served = equals(fakes, mount, "round_robin", a=1, b=1)
    short, long = Counter[Any](), Counter[Any]()
    for _ in range(6):
        short[served.chat(ON).provider] += 1
        long[served.chat({**ON, "X-AI-Quality-Threshold": "0.1"}).provider] += 1
    assert short == {"a": 3, "b": 3}
    assert long == {"a": 3, "b": 3}


@req("AIP-LB-003")
def test_weights_are_exact(mount: Any, fakes: Any) -> None:
    """Over as many requests as the weights add up to, everybody gets its share and no more."""
    served = equals(fakes, mount, "weighted", a=5, b=2, c=1)
    for _ in range(2):
        got = Counter(served.chat(ON).provider for _ in range(8))
        assert got == {"a": 5, "b": 2, "c": 1}


@req("AIP-LB-002")
def test_least_loaded_goes_where_nothing_is_on_its_way(mount: Any, fakes: Any) -> None:
    served = equals(fakes, mount, "least_loaded", a=1, b=1)
    release = fakes.a.script.released = threading.Event()
    held = threading.Thread(target=lambda: served.chat(ON))
    held.start()
    deadline = time.monotonic() + 5
    while not fakes.a.seen:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert [served.chat(ON).provider for _ in range(3)] == ["b", "b", "b"]
    release.set()
    held.join()


@req("AIP-LB-007")
def test_only_equals_share(mount: Any, fakes: Any) -> None:
    config = fakes.config(
        {
            "a": {"models": [model("m-a", cost_per_1k_tokens=0.001)]},
            "b": {"models": [model("m-b", cost_per_1k_tokens=0.001)]},
            "c": {"models": [model("m-c", cost_per_1k_tokens=0.002)]},
        },
        routing={
            "strategy": "cost",
            "load_balancing": {"enabled": True, "strategy": "round_robin"},
        },
    )
    served = mount(config)
    got = Counter(served.chat(ON).provider for _ in range(6))
    assert got == {"a": 3, "b": 3}
