"""Two and more processes at one store: what each tells and what follows for the others."""

import logging
import time
from typing import Any, Self

import pytest
from upstreams import free_port

from aiproxy.middleware import Gateway
from aiproxy.middleware.config import ConfigInvalid
from aiproxy.middleware.health import Track
from aiproxy.middleware.state.sharing import Sharing
from aiproxy.middleware.state.valkey import StoreLost, Valkey

pytestmark = pytest.mark.requirement("ASC-HEALTH-002")


def config(url: str, **state: Any) -> dict[str, Any]:
    return {
        "providers": {
            name: {
                "type": "openai_compatible",
                "endpoint": f"http://127.0.0.1:9/{name}/v1",
                "models": [{"name": "m"}],
            }
            for name in ("a", "b")
        },
        "state": {"backend": "valkey", "url": url, "sync_interval": "50ms", **state},
    }


class Process:
    """What one process has of it all, turned by hand under a clock of its own."""

    def __init__(
        self, url: str, *, skew: float = 0.0, rows: dict[str, Any] | None = None, **state: Any
    ) -> None:
        self.gateway = Gateway(rows or config(url, **state), wrapped_app=False, scope="all")
        found = self.gateway.background.sharing
        assert found is not None
        self.sharing: Sharing = found
        self.skew = skew

    def now(self) -> float:
        return time.monotonic() + 1e6 + self.skew

    def track(self, provider: str = "a") -> Track:
        return self.gateway.registry.by_provider[provider][0].track

    def turn(self) -> None:
        """Take a turn at once, due or not."""
        self.sharing._due = 0.0
        self.sharing.step(self.now())

    def fails(self, times: int = 12, provider: str = "a") -> None:
        for _ in range(times):
            self.gateway.registry.failed(
                self.gateway.registry.by_provider[provider][0],
                self.now(),
                lambda: 0.5,
                None,
                whole_provider=False,
            )

    def answers(self, times: int, ms: float = 20.0, provider: str = "a") -> None:
        for _ in range(times):
            self.track(provider).succeeded(self.now(), ms, ms / 2)

    def blocked(self, provider: str = "a") -> bool:
        return self.track(provider).blocked_for(self.now()) > 0

    def cooling(self, provider: str = "a") -> bool:
        return self.track(provider).cooling(self.now())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sharing.close()


def test_one_sees_the_failures_and_the_other_ranks_the_provider_last(redis_server: Any) -> None:
    with Process(redis_server.url) as one, Process(redis_server.url) as other:
        one.fails()
        one.turn()
        other.turn()
        assert other.cooling()
        assert not other.blocked(), "one reporter alone keeps nobody out"
        assert not other.cooling("b")
        assert other.gateway.registry.trouble_until > other.now()


def test_two_reporters_keep_a_third_away(redis_server: Any) -> None:
    with (
        Process(redis_server.url) as one,
        Process(redis_server.url) as two,
        Process(redis_server.url) as third,
    ):
        for process in (one, two):
            process.fails()
            process.turn()
        third.turn()
        assert third.blocked()
        assert third.sharing.processes == 3
        two.track().open_until = two.now() - 0.001  # its pause is over: half open
        two.turn()
        third.turn()
        assert not third.blocked()
        assert third.cooling()


def test_of_many_targets_a_few_are_told_each_turn_and_all_in_the_end(redis_server: Any) -> None:
    """But what is against a target is told at once."""
    many = [{"name": f"m{n}"} for n in range(100)]
    rows = config(redis_server.url)
    rows["providers"]["a"]["models"] = many
    one, other = Process(redis_server.url, rows=rows), Process(redis_server.url, rows=rows)
    tracks = {model.name: model.track for model in other.gateway.registry.by_provider["a"]}
    for model in one.gateway.registry.by_provider["a"]:
        model.track.succeeded(one.now(), 30.0, 10.0)
    last = one.gateway.registry.by_provider["a"][-1]
    for _ in range(12):
        one.gateway.registry.failed(last, one.now(), lambda: 0.5, None, whole_provider=False)

    def known() -> int:
        one.turn()
        other.turn()
        measured = (t.latency_p95_ms(other.now(), first_byte=True) for t in tracks.values())
        return sum(ms is not None for ms in measured)

    first = known()
    assert 0 < first <= 33
    assert tracks["m99"].cooling(other.now())
    assert [known(), known(), known()][-1] == 100
    one.sharing.close()
    other.sharing.close()


def test_a_closed_circuit_is_told_too(redis_server: Any) -> None:
    with Process(redis_server.url) as one, Process(redis_server.url) as other:
        one.fails()
        one.turn()
        other.turn()
        assert other.cooling()
        one.track().open_until = one.now()
        one.answers(1)
        one.turn()
        other.turn()
        assert not other.cooling()


def test_few_failures_everywhere_add_up(redis_server: Any) -> None:
    """No process has ten calls, all together have twelve: each opens its own circuit."""
    processes = [Process(redis_server.url) for _ in range(3)]
    for process in processes:
        process.fails(4)
        assert process.track().state(process.now()) == "closed"
        process.turn()
    for process in processes:
        process.turn()
        assert process.track().state(process.now()) == "open"
        assert process.track().timeline[-1].why == "other processes saw failures too"
        process.sharing.close()


def test_who_has_measured_nothing_goes_by_what_others_measured(redis_server: Any) -> None:
    with Process(redis_server.url) as one, Process(redis_server.url) as other:
        one.answers(10, 80.0)
        one.turn()
        other.turn()
        assert other.track().latency_p95_ms(other.now(), first_byte=False) == 80.0
        other.answers(1, 10.0)
        assert other.track().latency_p95_ms(other.now(), first_byte=False) == 10.0


@pytest.mark.parametrize("skew", [-9e5, 3e9])
def test_a_process_with_a_wrong_clock_is_understood(redis_server: Any, skew: float) -> None:
    """Ages are told, and the store's clock says how old the telling is."""
    with Process(redis_server.url, skew=skew) as wrong, Process(redis_server.url) as right:
        wrong.fails()
        wrong.turn()
        right.turn()
        assert right.cooling()
        assert 0 < right.track().doubted_until - right.now() <= 5.6
        right.fails(provider="b")
        right.turn()
        wrong.turn()
        assert wrong.cooling("b")


def test_a_process_that_died_vanishes(redis_server: Any) -> None:
    with Process(redis_server.url) as one, Process(redis_server.url) as other:
        one.fails()
        one.turn()
        other.turn()
        assert other.cooling()
        client = redis_server.client()
        alive = [key for key in client.keys("*") if key.endswith(b":alive")]
        client.zadd(alive[0], {one.sharing.process: 1})  # last heard of long ago
        other.turn()
        assert not other.cooling()
        assert other.sharing.processes == 1
        assert not list(client.hkeys(alive[0].replace(b":alive", b":reports")))
        one.turn()  # it lives after all, is told so, and tells everything again
        one.turn()
        other.turn()
        assert other.cooling()
        client.close()


def test_nothing_outlives_the_processes_for_long(redis_server: Any) -> None:
    with Process(redis_server.url, prefix="mine:") as one:
        one.fails()
        one.turn()
        client = redis_server.client()
        keys = client.keys("*")
        assert len(keys) == 4
        assert all(key.startswith(b"mine:") and 0 < client.ttl(key) <= 600 for key in keys)
        client.close()


def test_prefixes_are_apart(redis_server: Any) -> None:
    with (
        Process(redis_server.url, prefix="x:") as one,
        Process(redis_server.url, prefix="y:") as other,
    ):
        one.fails()
        one.turn()
        other.turn()
        assert not other.cooling()


def test_a_lost_store_leaves_what_is_seen_here_and_comes_back(
    own_redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with Process(own_redis.url) as one, Process(own_redis.url) as other:
        one.fails()
        one.turn()
        other.turn()
        assert other.cooling()
        own_redis.kill()
        with caplog.at_level(logging.WARNING, logger="aiproxy"):
            for _ in range(3):
                other.turn()
        assert [r.message.count("does not answer") for r in caplog.records] == [1]
        assert other.sharing.status() == {"backend": "valkey", "connected": False, "processes": 1}
        assert not other.track().cooling(other.now() + 5), "what was heard runs out"
        own_redis.start()
        one.track().open_until = one.now() + 5.0
        one.turn()
        other.turn()
        assert other.sharing.status()["connected"]
        assert other.cooling(), "everything was told anew to the empty store"


def test_a_store_that_hangs_is_lost_within_its_patience(own_redis: Any) -> None:
    with Process(own_redis.url) as one:
        one.turn()
        own_redis.freeze()
        began = time.monotonic()
        one.turn()
        assert one.sharing.connected is False
        assert time.monotonic() - began < 2.5
        own_redis.thaw()
        one.turn()
        one.turn()
        assert one.sharing.connected


def test_a_store_that_forgot_its_scripts_and_data_is_told_anew(redis_server: Any) -> None:
    with Process(redis_server.url) as one, Process(redis_server.url) as other:
        for process in (one, other):
            process.turn()
        one.fails()
        one.turn()
        client = redis_server.client()
        client.flushall()
        client.script_flush()
        client.close()
        for _ in range(2):
            one.turn()
            other.turn()
        assert other.cooling()


def test_rubbish_in_the_store_is_passed_over(redis_server: Any) -> None:
    with Process(redis_server.url) as one, Process(redis_server.url) as other:
        one.fails()
        one.turn()
        client = redis_server.client()
        tag = "aiproxy:{health}:"
        client.zadd(tag + "alive", {"evil": time.time() * 1000 + 5000})
        for n, value in enumerate([b"", b"x y", b"12 {", b"12 [[],1e99,[]]", b"nan [[],1,[]]"]):
            client.hset(tag + "reports", f"evil a/m{n}", value)
            client.hset(tag + "reports", "evil a/m", value)
            client.zadd(tag + "changes", {f"evil a/m{n}": 1000 + n, "evil a/m": 2000})
        client.set(tag + "turn", 3000)
        client.close()
        other.turn()
        assert other.cooling()
        assert not other.blocked()


def test_the_password_of_the_store_is_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    secret = "hunter2-canary"
    url = f"redis://user:{secret}@127.0.0.1:{free_port()}/0"
    with Process(url) as one, caplog.at_level(logging.DEBUG):
        one.turn()
        assert one.sharing.connected is False
        assert secret not in caplog.text
        assert secret not in str(one.sharing.status())


def test_a_failed_exchange_names_no_address() -> None:
    store = Valkey("redis://127.0.0.1:9/0", "p:", 0.25)
    with pytest.raises(StoreLost) as caught:
        store.exchange("me", 0, {})
    assert "127" not in str(caught.value)


def test_valkey_needs_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiproxy.middleware.state.find_spec", lambda _: None)
    with pytest.raises(ConfigInvalid, match=r"aiproxy\[valkey\]"):
        Gateway(config("redis://127.0.0.1:9/0"), wrapped_app=False)


def test_memory_has_nobody_to_tell() -> None:
    rows = {**config("redis://127.0.0.1:9/0"), "state": {"backend": "memory"}}
    assert Gateway(rows, wrapped_app=False).background.sharing is None


def test_valkey_urls_are_understood(redis_server: Any) -> None:
    with Process(redis_server.url.replace("redis:", "valkey:")) as one:
        one.turn()
        assert one.sharing.connected
