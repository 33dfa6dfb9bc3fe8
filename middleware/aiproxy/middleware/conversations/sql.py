"""Conversations in SQLite or PostgreSQL.

The schema has a version of its own, in a table beside: it is made when the store is first asked,
and a database of another version is refused rather than guessed at.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

from aiproxy.middleware.conversations.stores import Change, Key, Row, StoreDown

VERSION: Final = 1
_COMPONENT: Final = "conversations"
_BUSY_S: Final = 5
#: Names the lock of PostgreSQL under which the tables are made.
_MAKING: Final = 0x61697078
#: Rows let go of in one change, so that no change waits for a long one.
_AT_ONCE: Final = 100

_METADATA: Final = sa.MetaData()
_VERSIONS: Final = sa.Table(
    "aiproxy_schema",
    _METADATA,
    sa.Column("component", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)
_ROWS: Final = sa.Table(
    "aiproxy_conversations",
    _METADATA,
    sa.Column("owner", sa.String(256), primary_key=True),
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("head", sa.LargeBinary, nullable=False),
    sa.Column("turns", sa.LargeBinary, nullable=False),
    sa.Column("name", sa.String(64)),
    sa.Column("changed", sa.Double, nullable=False, index=True),
    sa.Column("until", sa.Double, nullable=False, index=True),
    sa.Index("ix_aiproxy_conversations_name", "owner", "name"),
)


class SqlStore:
    """Rows in the database at ``url``. ``clock`` is Unix time in seconds."""

    kind = "sql"
    blocking = True

    def __init__(self, url: str, *, ttl_s: float, most: int, clock: Callable[[], float]) -> None:
        """Nothing is connected yet.

        Raises:
            ModuleNotFoundError: the driver of the database is not installed.
        """
        if url.startswith("postgresql://"):
            url = "postgresql+psycopg://" + url.removeprefix("postgresql://")
        options: dict[str, Any] = {"pool_pre_ping": True}
        if url.startswith("sqlite:"):
            options = {"connect_args": {"timeout": _BUSY_S}}
        else:
            options["connect_args"] = {"connect_timeout": _BUSY_S}
        self._engine = sa.create_engine(url, **options)
        if url.startswith("sqlite:"):
            event.listen(self._engine, "connect", _tuned)
            event.listen(self._engine, "begin", _begun)
        #: The same database, for those who change it.
        self._writing = self._engine.execution_options(aiproxy_writes=True)
        self._ttl_s, self._most, self._clock = ttl_s, most, clock
        self._ready = False
        self._lock = Lock()

    def get(self, keys: Sequence[Key]) -> list[Row | None]:
        now = self._clock()
        wanted = sa.or_(*(self._is(key) for key in keys))
        columns = (_ROWS.c.owner, _ROWS.c.id, _ROWS.c.version, _ROWS.c.head, _ROWS.c.turns)
        try:
            if not self._there():
                return [None for _ in keys]
            with self._engine.connect() as link:
                found = link.execute(sa.select(*columns).where(wanted, _ROWS.c.until > now))
                rows = {
                    (owner, name): Row(version, bytes(head), bytes(turns))
                    for owner, name, version, head, turns in found
                }
        except SQLAlchemyError as fault:
            raise StoreDown(type(fault).__name__) from None
        return [rows.get(key) for key in keys]

    def put(self, changes: Sequence[Change]) -> bool:
        now = self._clock()
        try:
            self._prepare()
            with self._writing.connect() as link, link.begin() as transaction:
                # In one order for all, so that two of them never wait for each other.
                for change in sorted(changes, key=lambda change: change.key):
                    if not self._make(link, change, now):
                        transaction.rollback()
                        return False
                if any(change.version == 0 for change in changes):
                    self._let_go(link, now)
            return True
        except IntegrityError:
            return False  # somebody else made the same row
        except OperationalError as fault:
            if getattr(fault.orig, "sqlstate", None) in ("40001", "40P01"):
                return False  # the database chose us to give way
            raise StoreDown(type(fault).__name__) from None
        except SQLAlchemyError as fault:
            raise StoreDown(type(fault).__name__) from None

    def named(self, owner: str, name: str) -> list[str]:
        asked = sa.select(_ROWS.c.id).where(
            _ROWS.c.owner == owner, _ROWS.c.name == name, _ROWS.c.until > self._clock()
        )
        try:
            if not self._there():
                return []
            with self._engine.connect() as link:
                return sorted(link.execute(asked).scalars())
        except SQLAlchemyError as fault:
            raise StoreDown(type(fault).__name__) from None

    def close(self) -> None:
        self._engine.dispose()

    def _is(self, key: Key) -> sa.ColumnElement[bool]:
        return sa.and_(_ROWS.c.owner == key[0], _ROWS.c.id == key[1])

    def _make(self, link: sa.Connection, change: Change, now: float) -> bool:
        """Make one change; false where the row has another version."""
        times = {"changed": now, "until": now + self._ttl_s}
        if change.version == 0:
            link.execute(_ROWS.delete().where(self._is(change.key), _ROWS.c.until <= now))
            if change.head is None:
                return (
                    link.execute(sa.select(_ROWS.c.id).where(self._is(change.key))).first() is None
                )
            owner, name = change.key
            link.execute(
                _ROWS.insert().values(
                    owner=owner, id=name, version=1, head=change.head, turns=change.turns or b"",
                    name=change.name, **times,
                )
            )  # fmt: skip
            return True
        same = (self._is(change.key), _ROWS.c.version == change.version, _ROWS.c.until > now)
        if change.head is None:
            return link.execute(_ROWS.delete().where(*same)).rowcount == 1
        new: dict[str, Any] = {"version": change.version + 1, "head": change.head, **times}
        if change.turns is not None:
            new["turns"] = change.turns
        return link.execute(_ROWS.update().where(*same).values(**new)).rowcount == 1

    def _let_go(self, link: sa.Connection, now: float) -> None:
        link.execute(_ROWS.delete().where(_ROWS.c.until <= now))
        over = (
            sa.select(_ROWS.c.owner, _ROWS.c.id)
            .order_by(_ROWS.c.changed.desc())
            .offset(self._most)
            .limit(_AT_ONCE)
        )
        for owner, name in link.execute(over).all():
            link.execute(_ROWS.delete().where(self._is((owner, name))))

    def _there(self) -> bool:
        """Whether there are tables, of our version; reading makes none, and no file either."""
        if self._ready:
            return True
        url = self._engine.url
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
            return False
        if not sa.inspect(self._engine).has_table(_ROWS.name):
            return False
        asked = sa.select(_VERSIONS.c.version).where(_VERSIONS.c.component == _COMPONENT)
        with self._engine.connect() as link:
            found = link.execute(asked).scalar()
        if found is None:
            return False  # they are being made
        if found != VERSION:
            raise StoreDown(f"the database has version {found} of these tables, not {VERSION}")
        self._ready = True
        return True

    def _prepare(self) -> None:
        """Make the tables where there are none, one process at a time."""
        if self._there():
            return
        with self._lock, self._writing.begin() as link:
            if link.dialect.name == "postgresql":
                link.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING)))
            _METADATA.create_all(link)
            known = sa.select(_VERSIONS.c.version).where(_VERSIONS.c.component == _COMPONENT)
            if link.execute(known).first() is None:
                link.execute(_VERSIONS.insert().values(component=_COMPONENT, version=VERSION))
        self._there()


def _tuned(connection: Any, _: Any) -> None:
    """Readers do not wait for a writer, and a change need not be on the disk before it counts: a
    power cut may lose the last ones, never the file."""
    connection.isolation_level = None  # transactions begin where we say so: `_begun`
    cursor = connection.cursor()
    # Who switches waits for nobody; the file stays as it is switched, whoever did it.
    with suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _begun(link: sa.Connection) -> None:
    """Who will change something says so at once and waits for its turn; a reader that becomes a
    writer would be refused instead of waiting."""
    writes = link.get_execution_options().get("aiproxy_writes")
    link.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
