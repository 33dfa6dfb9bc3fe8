"""One contract for every store: rows change on condition, expire, and stay bounded (T-35)."""

import threading
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiproxy.middleware.conversations.sql import _VERSIONS, SqlStore
from aiproxy.middleware.conversations.stores import Change, MemoryStore, Row, StoreDown
from aiproxy.middleware.conversations.valkey import ValkeyStore

A, B, C = ("o", "a"), ("o", "b"), ("p", "a")


def test_what_is_put_is_got(any_store: Any) -> None:
    assert any_store.get([A, B]) == [None, None]
    assert any_store.put([Change(A, 0, b"head", b"turns"), Change(B, 0, b"\x00\xff", b"")])
    assert any_store.get([B, A, C]) == [Row(1, b"\x00\xff", b""), Row(1, b"head", b"turns"), None]
    assert any_store.put([Change(A, 1, b"new")])
    assert any_store.get([A]) == [Row(2, b"new", b"turns")]
    assert any_store.put([Change(A, 2, None)])
    assert any_store.get([A]) == [None]


def test_changes_are_made_all_or_none(any_store: Any) -> None:
    assert any_store.put([Change(A, 0, b"1", b"")])
    for stale in (0, 2):
        assert not any_store.put([Change(B, 0, b"other", b""), Change(A, stale, b"2")])
    assert not any_store.put([Change(B, 1, b"other", b"")])
    assert not any_store.put([Change(B, 1, None)])
    assert any_store.get([A, B]) == [Row(1, b"1", b""), None]


def test_a_row_is_found_by_the_name_it_was_made_with(any_store: Any) -> None:
    any_store.put([Change(A, 0, b"", b"", name="n"), Change(C, 0, b"", b"", name="n")])
    any_store.put([Change(B, 0, b"", b"", name="m")])
    assert any_store.named("o", "n") == ["a"]
    assert any_store.named("p", "n") == ["a"]
    assert any_store.named("o", "m") == ["b"]
    assert any_store.named("o", "none") == []


def test_only_so_many_rows_are_kept_and_the_stalest_go_first(make_store: Any, clock: Any) -> None:
    """XAI-WF-016."""
    store = make_store(most=3)
    keys = [("o", f"row-{n}") for n in range(6)]
    for key in keys[:3]:
        clock.now += 1
        store.put([Change(key, 0, b"", b"")])
        _let_time_pass(make_store.kind)
    clock.now += 1
    store.put([Change(keys[0], 1, b"again")])
    _let_time_pass(make_store.kind)
    for key in keys[3:5]:
        clock.now += 1
        store.put([Change(key, 0, b"", b"")])
        _let_time_pass(make_store.kind)
    alive = [key for key, row in zip(keys, store.get(keys), strict=True) if row is not None]
    assert alive == [keys[0], keys[3], keys[4]]


def _let_time_pass(kind: str) -> None:
    """Valkey goes by its own clock, in milliseconds."""
    if kind == "valkey":
        threading.Event().wait(0.003)


def test_a_row_is_over_some_time_after_its_last_change(make_store: Any, clock: Any) -> None:
    """XAI-FAIL-025."""
    store = make_store(ttl_s=0.3)
    store.put([Change(A, 0, b"1", b"t")])

    def later(seconds: float) -> None:
        clock.now += seconds
        if make_store.kind == "valkey":
            threading.Event().wait(seconds)

    later(0.2)
    assert store.put([Change(A, 1, b"2")])
    later(0.2)
    assert store.get([A]) == [Row(2, b"2", b"t")]
    later(0.3)
    assert store.get([A]) == [None]
    assert not store.put([Change(A, 2, b"3")])
    assert store.put([Change(A, 0, b"anew", b"")])
    assert store.get([A]) == [Row(1, b"anew", b"")]


def test_nobody_overwrites_what_somebody_else_wrote(make_store: Any) -> None:
    """XAI-FAIL-026: of many who read the same version, one writes."""
    first = make_store()
    first.put([Change(A, 0, b"0", b"")])
    stores = [make_store(again=True) for _ in range(4)]

    def count(store: Any) -> None:
        done = 0
        while done < 10:
            (row,) = store.get([A])
            if store.put([Change(A, row.version, b"%d" % (int(row.head) + 1))]):
                done += 1

    threads = [threading.Thread(target=count, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (row,) = first.get([A])
    assert (row.head, row.version) == (b"40", 41)


def test_a_row_is_made_once(make_store: Any) -> None:
    """Also where none of them found the tables: all make them at the same time."""
    make_store()
    assert _made_by_all([make_store(again=True) for _ in range(6)]) == [False] * 5 + [True]


def test_many_make_the_tables_of_one_file(tmp_path: Any, clock: Any) -> None:
    for number in range(40):
        url = f"sqlite:///{tmp_path / str(number)}.db"
        stores = [SqlStore(url, ttl_s=60.0, most=9, clock=clock) for _ in range(8)]
        assert _made_by_all(stores) == [False] * 7 + [True]
        for store in stores:
            store.close()


def _made_by_all(stores: list[Any]) -> list[bool | str]:
    """What each of them says when all make the same row at the same time."""
    made: list[bool | str] = []
    together = threading.Barrier(len(stores))

    def make(store: Any, number: int) -> None:
        together.wait(60)
        try:
            made.append(store.put([Change(A, 0, b"%d" % number, b"")]))
        except StoreDown as fault:
            made.append(str(fault))

    threads = [threading.Thread(target=make, args=(store, n)) for n, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return sorted(made, key=str)


KEYS = st.sampled_from([A, B, C, ("p", "b")])
CHANGES = st.builds(
    Change,
    KEYS,
    st.integers(0, 3),
    st.one_of(st.none(), st.binary(max_size=5)),
    st.one_of(st.none(), st.binary(max_size=5)),
    st.sampled_from([None, "n", "m"]),
)
STEPS = st.lists(st.lists(CHANGES, min_size=1, max_size=2, unique_by=lambda c: c.key), max_size=12)


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_every_store_does_what_the_one_in_memory_does(
    make_store: Any, clock: Any, steps: list[list[Change]]
) -> None:
    model = MemoryStore(ttl_s=3600, most=1000, clock=clock)
    keys = [A, B, C, ("p", "b")]
    with closing(make_store()) as store:
        for changes in steps:
            assert store.put(changes) == model.put(changes)
            assert store.get(keys) == model.get(keys)
            for owner in "op":
                for name in "nm":
                    seen = store.named(owner, name)
                    found = [one for one in seen if store.get([(owner, one)])[0]]
                    assert set(model.named(owner, name)) <= set(found)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1/0",
        "postgresql://u:secret@127.0.0.1:1/d",
    ],
)
def test_a_store_that_is_down_says_so_and_nothing_else(url: str, clock: Any) -> None:
    store: Any
    if url.startswith("redis"):
        store = ValkeyStore(url, prefix="x:", ttl_s=1, most=1)
    else:
        store = SqlStore(url, ttl_s=1, most=1, clock=clock)
    for ask in (
        lambda: store.get([A]),
        lambda: store.put([Change(A, 0, b"", b"")]),
        lambda: store.named("o", "n"),
    ):
        with pytest.raises(StoreDown) as found:
            ask()
        assert "secret" not in str(found.value)
        assert "127.0.0.1" not in str(found.value)


def test_a_database_of_another_version_is_not_guessed_at(tmp_path: Any, clock: Any) -> None:
    url = f"sqlite:///{tmp_path}/v.db"
    store = SqlStore(url, ttl_s=1, most=1, clock=clock)
    assert store.put([Change(A, 0, b"", b"")])
    with store._engine.begin() as link:
        link.execute(_VERSIONS.update().values(version=7))
    with pytest.raises(StoreDown, match="version 7"):
        SqlStore(url, ttl_s=1, most=1, clock=clock).get([A])


def test_reading_makes_no_tables_and_no_file(tmp_path: Any, clock: Any) -> None:
    """An explanation reads; it must leave nothing behind."""
    store = SqlStore(f"sqlite:///{tmp_path}/none.db", ttl_s=1, most=1, clock=clock)
    assert store.get([A, B]) == [None, None]
    assert store.named("o", "n") == []
    assert list(tmp_path.iterdir()) == []
    nowhere = SqlStore("sqlite:////nowhere/at/all.db", ttl_s=1, most=1, clock=clock)
    with pytest.raises(StoreDown, match="OperationalError"):
        nowhere.put([Change(A, 0, b"", b"")])
