"""Stores of every kind, and a clock that stands still until it is told."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from databases import postgres_server, redis_server

from aiproxy.middleware.conversations.sql import SqlStore
from aiproxy.middleware.conversations.stores import Change, MemoryStore
from aiproxy.middleware.conversations.valkey import ValkeyStore

STORES = ["memory", "sqlite", "postgresql", "valkey"]


class Clock:
    """Unix time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    with redis_server() as port:
        yield port


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=STORES)
def make_store(request: pytest.FixtureRequest, tmp_path: Any, clock: Clock) -> Iterator[Any]:
    """``make_store(ttl_s=, most=)`` gives an empty store of each kind; ``again=True`` another one
    of the same rows, as another process has it."""
    kind, made = request.param, []
    name = uuid4().hex

    def make(*, ttl_s: float = 3600.0, most: int = 1000, again: bool = False) -> Any:
        store: Any
        if kind == "memory":
            store = made[0] if again else MemoryStore(ttl_s=ttl_s, most=most, clock=clock)
        elif kind == "valkey":
            url = f"redis://127.0.0.1:{request.getfixturevalue('redis_port')}/0"
            prefix = name if again else name + uuid4().hex[: 0 if not made else 4]
            store = ValkeyStore(url, prefix=f"{prefix}:", ttl_s=ttl_s, most=most)
        elif kind == "sqlite":
            file = tmp_path / f"{0 if again else len(made)}.db"
            store = SqlStore(f"sqlite:///{file}", ttl_s=ttl_s, most=most, clock=clock)
        else:
            store = SqlStore(
                request.getfixturevalue("postgres_url"), ttl_s=ttl_s, most=most, clock=clock
            )
            if not again:
                _empty(store)
        made.append(store)
        return store

    make.kind = kind  # type: ignore[attr-defined]
    yield make
    for store in made:
        store.close()


def _empty(store: SqlStore) -> None:
    from aiproxy.middleware.conversations.sql import _ROWS

    store.put([Change(("", "x"), 0, None)])  # makes the tables
    with store._engine.begin() as link:
        link.execute(_ROWS.delete())


@pytest.fixture
def any_store(make_store: Any) -> Any:
    return make_store()
