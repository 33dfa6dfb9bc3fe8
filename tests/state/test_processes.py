"""Two real servers on one store (ASC-HEALTH-002): what one sees, the other goes by within a second;
and a store that is killed under load costs no request."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Served, provider, serve, until
from upstreams import Script, Upstream

pytestmark = pytest.mark.requirement("ASC-HEALTH-002", "ASC-HEALTH-001", "XAI-FAIL-015")

AUTO = {"x-ai-routing-strategy": "cost"}
WITHIN_S = 1.0


@pytest.fixture
def pair() -> Iterator[tuple[Upstream, Upstream]]:
    with Upstream("cheap") as cheap, Upstream("dear") as dear:
        yield cheap, dear


def config(cheap: Upstream, dear: Upstream, url: str) -> dict[str, Any]:
    return {
        "providers": {
            "cheap": provider(cheap, {"name": "m", "cost_per_1k_tokens": 0.001}, priority=1),
            "dear": provider(dear, {"name": "m", "cost_per_1k_tokens": 0.01}, priority=2),
        },
        "routing": {
            "failover": {"same_provider_retries": 0},
            "health": {"min_samples": 5, "probe_after": "20s", "probe_max": "20s"},
        },
        "state": {"backend": "valkey", "url": url},
    }


def ask(server: Served, **pool: str) -> str:
    """Who served a request that names no model."""
    headers = {**AUTO, **({"x-ai-provider-pool": pool["pool"]} if pool else {})}
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
    got = server.post("/v1/chat/completions", body, headers)
    assert got.status in (200, 502, 503), got.body
    return got.provider or "" if got.status == 200 else ""


def health(server: Served, name: str) -> dict[str, Any]:
    rows = server.get("/v1/providers").json["data"]
    found: dict[str, Any] = next(row["health"] for row in rows if row["id"] == name)
    return found


def test_one_sees_the_failures_and_the_other_avoids_the_provider_within_a_second(
    redis_server: Any, pair: tuple[Upstream, Upstream], tmp_path: Path
) -> None:
    cheap, dear = pair
    rows = config(cheap, dear, redis_server.url)
    with serve(tmp_path / "one", rows) as one, serve(tmp_path / "two", rows) as two:
        until(lambda: two.get("/v1/providers").json["state"]["processes"] == 2)
        assert [ask(one), ask(two)] == ["cheap", "cheap"]
        cheap.script = Script(status=500)
        for _ in range(8):
            ask(one, pool="cheap")
        saw = time.monotonic()
        assert health(one, "cheap")["circuit"] == "open"
        until(lambda: health(two, "cheap")["status"] == "degraded", within_s=WITHIN_S)
        assert time.monotonic() - saw < WITHIN_S
        before = len(cheap.seen)
        assert [ask(two) for _ in range(5)] == ["dear"] * 5
        assert not [seen for seen in cheap.seen[before:] if seen.path.endswith("/completions")]
        cheap.script = Script()
        assert ask(two, pool="cheap") == "cheap", "one word keeps nobody out"


def test_a_killed_store_loses_no_request_and_is_told_of(
    own_redis: Any, pair: tuple[Upstream, Upstream], tmp_path: Path
) -> None:
    cheap, dear = pair
    rows = config(cheap, dear, own_redis.url)
    with serve(tmp_path / "one", rows) as one:
        until(lambda: one.get("/readyz").json.get("state_store") == "connected")
        stop = threading.Event()
        served: list[tuple[str, float]] = []

        def load() -> None:
            while not stop.is_set():
                began = time.monotonic()
                served.append((ask(one), time.monotonic() - began))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(0.3)
            own_redis.kill()
            until(lambda: one.get("/readyz").json["state_store"] == "lost")
            time.sleep(0.5)
            own_redis.start()
            until(lambda: one.get("/readyz").json["state_store"] == "connected", within_s=15)
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
        assert len(served) > 50
        assert {name for name, _ in served} == {"cheap"}
        assert max(seconds for _, seconds in served) < 2.0
        told = [x["event"] for x in one.lines if "state store" in x.get("event", "")]
        assert [("does not answer" in x, "answers again" in x) for x in told] == [
            (True, False), (False, True),
        ]  # fmt: skip


def test_the_state_document_says_what_the_server_knows(
    redis_server: Any, pair: tuple[Upstream, Upstream], tmp_path: Path
) -> None:
    cheap, dear = pair
    cheap.script = Script(delay_s=0.05)
    rows = config(cheap, dear, redis_server.url)
    rows["providers"]["cheap"]["max_connections"] = 4
    with serve(tmp_path / "one", rows) as one:
        for _ in range(6):
            assert ask(one) == "cheap"
        found = health(one, "cheap")
        assert (found["requests"], found["error_rate"], found["circuit"]) == (6, 0.0, "closed")
        assert 50 <= found["latency_ms"]["p50"] <= found["latency_ms"]["p99"] < 2000
        assert found["tokens_per_s"] > 0
        assert (found["in_flight"], found["saturation"]) == (0, 0.0)
        cheap.script = Script(delay_s=1.5)
        threads = [threading.Thread(target=ask, args=(one,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: health(one, "cheap")["saturation"] == 1.0)
        for thread in threads:
            thread.join(20)
        cheap.script = Script(status=400)
        ask_raw = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        one.post("/v1/chat/completions", ask_raw, {})
        assert health(one, "cheap")["error_rate"] == 0.0, "the client's own fault counts for nobody"
        text = one.get("/v1/providers").body.decode()
        assert str(redis_server.port) not in text
