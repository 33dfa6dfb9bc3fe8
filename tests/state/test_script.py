"""The script itself, in a store that is no server and, where there is one, in a real one."""

from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest

from aiproxy.middleware.state.evidence import Report
from aiproxy.middleware.state.valkey import SCRIPT, Valkey

BAD = Report([(0, 0, 9)], 4000, [])
GOOD = Report([(0, 9, 0)], 0, [(12.5, 3.0)])


@pytest.fixture(params=["fake", "real"])
def connect(request: pytest.FixtureRequest) -> Iterator[Any]:
    """``connect()``: one process's connection."""
    opened: list[Valkey] = []
    if request.param == "real":
        url = request.getfixturevalue("redis_server").url
        server = None
    else:
        url, server = "redis://127.0.0.1:9/0", fakeredis.FakeServer()

    def open_one() -> Valkey:
        store = Valkey(url, "p:", 0.25)
        if server is not None:
            store._client = fakeredis.FakeRedis(server=server)
            store._script = store._client.register_script(SCRIPT)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


def told(news: Any) -> dict[tuple[str, str], Report]:
    return {key: report for key, (_, report) in news.reports.items()}


def test_a_process_hears_the_others_and_not_itself(connect: Any) -> None:
    one, two = connect(), connect()
    first = one.exchange("one", 0, {"a/m": BAD, "b/m": GOOD})
    assert (first.known, first.turn, told(first), first.alive) == (False, 2, {}, {"one"})
    second = two.exchange("two", 0, {"a/m": GOOD})
    assert told(second) == {("one", "a/m"): BAD, ("one", "b/m"): GOOD}
    assert second.alive == {"one", "two"}
    again = one.exchange("one", first.turn, {})
    assert (again.known, told(again)) == (True, {("two", "a/m"): GOOD})


def test_only_what_is_new_is_heard(connect: Any) -> None:
    one, two = connect(), connect()
    one.exchange("one", 0, {"a/m": BAD, "b/m": GOOD})
    after = two.exchange("two", 0, {}).turn
    assert not told(two.exchange("two", after, {}))
    one.exchange("one", 0, {"a/m": GOOD})
    assert told(two.exchange("two", after, {})) == {("one", "a/m"): GOOD}


def test_who_is_ahead_of_a_store_that_lost_everything_hears_it_all(connect: Any) -> None:
    one, two = connect(), connect()
    one.exchange("one", 0, {"a/m": BAD})
    news = two.exchange("two", 900, {})
    assert (news.turn, told(news)) == (1, {("one", "a/m"): BAD})


def test_the_silent_are_forgotten_with_all_they_said(connect: Any) -> None:
    one, two = connect(), connect()
    one.exchange("one", 0, {"a/m": BAD})
    one._client.zadd(one._keys[2], {"one": 1})
    news = two.exchange("two", 0, {})
    assert (news.alive, told(news)) == ({"two"}, {})
    assert not one._client.hkeys(one._keys[0])
    assert not one.exchange("one", 1, {}).known


def test_the_store_says_what_time_it_is(connect: Any) -> None:
    one, two = connect(), connect()
    before = one.exchange("one", 0, {"a/m": BAD}).now_ms
    at, _ = two.exchange("two", 0, {}).reports["one", "a/m"]
    assert at == before
