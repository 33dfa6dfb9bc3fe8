"""The ledger of costs: a row an attempt and the totals of each day, in SQLite (AIP-BUDGET-001, 002).

Rows are written behind by a thread of their own, many in one transaction, so that no request waits
for a disk. Rows and totals change together: the sum of a day's rows is its total. A process that
dies without its shutdown loses what was not written yet: the rows of the last ``WRITE_EVERY_S``
seconds at most, and the attempts that were in flight.
"""

import contextlib
import os
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator
from logging import getLogger
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Final, NamedTuple

try:
    import fcntl
except ImportError:  # no such locks on this platform: nobody else is kept from the file
    fcntl = None  # type: ignore[assignment]

log = getLogger("aiproxy")

#: Seconds a row waits for others to be written with it.
WRITE_EVERY_S: Final = 0.05
#: Rows kept while the file cannot be written; the amounts of older ones still reach the totals.
MOST_WAITING: Final = 50_000
_RETRY_S: Final = 1.0
_BUSY_S: Final = 5.0
_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, day TEXT NOT NULL, request TEXT NOT NULL,
    key TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, outcome TEXT NOT NULL,
    input_tokens INTEGER, output_tokens INTEGER, estimated INTEGER NOT NULL, cost INTEGER
);
CREATE INDEX attempts_day ON attempts (day);
CREATE TABLE spent (
    day TEXT NOT NULL, key TEXT NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (day, key)
) WITHOUT ROWID;
"""
_INSERT: Final = """
INSERT INTO attempts (at, day, request, key, provider, model, outcome, input_tokens,
                      output_tokens, estimated, cost) VALUES (?,?,?,?,?,?,?,?,?,?,?)
"""
_ADD: Final = """
INSERT INTO spent (day, key, amount) VALUES (?,?,?)
ON CONFLICT (day, key) DO UPDATE SET amount = amount + excluded.amount
"""
_GROUPS: Final = ("day", "key", "provider", "model")


class LedgerUnusable(Exception):
    """The file cannot serve as a ledger, or not to this process; the message says why."""


class Row(NamedTuple):
    """One attempt. ``at`` is Unix time, ``day`` its budget's UTC date, ``key`` the name of the
    client key or empty; ``cost`` in picodollars, ``None`` when unknown."""

    at: float
    day: str
    request: str
    key: str
    provider: str
    model: str
    outcome: str
    input_tokens: int | None
    output_tokens: int | None
    estimated: bool
    cost: int | None


def default_path(env: Any = os.environ) -> Path:
    """Where the ledger is kept when ``budget.cost_db`` says nothing: the user's data directory."""
    base = env.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "aiproxy" / "costs.db"


def path_of(url: str | None) -> Path:
    """The file of a ``sqlite:///`` URL (four slashes: absolute)."""
    return default_path() if url is None else Path(url.removeprefix("sqlite:///"))


class Ledger:
    """One file. Safe under threads; the file is touched by ``totals``, ``claim`` and the writer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: deque[Row] = deque()
        self._folded: dict[tuple[str, str], int] = {}
        self._changed = Condition()
        self._writer: Thread | None = None
        self._writing = False
        self._closing = False
        self._lock_file: int | None = None

    # --- at start --------------------------------------------------------------------------------

    def totals(self, since: str) -> list[tuple[str, str, int]]:
        """What was spent: (day, key, picodollars) from the day ``since`` on.

        Raises:
            LedgerUnusable: the file is no ledger of ours, or cannot be read.
        """
        if not self.path.exists():
            return []
        with _unusable(self.path), contextlib.closing(_connect(self.path)) as database:
            if not _known(database, self.path):
                return []
            return list(
                database.execute("SELECT day, key, amount FROM spent WHERE day >= ?", (since,))
            )

    def claim(self) -> None:
        """Make the file if it is not there, and keep other processes from spending by it.

        Raises:
            LedgerUnusable: it cannot be written, or another process has it.
        """
        if self._lock_file is not None:
            return
        with _unusable(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock_file = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if fcntl is not None:
                    fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.closing(_connect(self.path)) as database:
                    _prepare(database, self.path)
            except BlockingIOError:
                os.close(lock_file)
                raise LedgerUnusable(
                    f"{self.path} is another process's ledger: two that keep the same limits would "
                    "each spend the whole of them"
                ) from None
            except BaseException:
                os.close(lock_file)
                raise
        self._lock_file = lock_file

    # --- while serving ---------------------------------------------------------------------------

    def put(self, row: Row) -> None:
        """Have a row written soon."""
        with self._changed:
            self._waiting.append(row)
            if len(self._waiting) > MOST_WAITING:
                oldest = self._waiting.popleft()
                where = (oldest.day, oldest.key)
                self._folded[where] = self._folded.get(where, 0) + (oldest.cost or 0)
            if self._writer is None:
                self._closing = False
                self._writer = Thread(target=self._write, daemon=True, name="aiproxy-ledger")
                self._writer.start()
            elif len(self._waiting) == 1:
                self._changed.notify_all()

    def flush(self, within_s: float = 5.0) -> bool:
        """Wait until everything put so far is written; return whether it is."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._waiting or self._folded or self._writing), within_s
            )

    def close(self) -> None:
        """Write what waits, end the thread and give the file to others. ``put`` opens it again."""
        with self._changed:
            self._closing = True
            writer = self._writer
            self._changed.notify_all()
        if writer is not None:
            writer.join(_BUSY_S + 1)
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def forked(self) -> None:
        """In a child process: forget what the parent writes, and its claim."""
        self._changed = Condition()
        self._waiting.clear()
        self._folded.clear()
        self._writer, self._writing, self._closing = None, False, False
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    # --- the writer ------------------------------------------------------------------------------

    def _write(self) -> None:
        database: sqlite3.Connection | None = None
        failing = False
        while True:
            rows, folded = self._take()
            if not (rows or folded):
                if database is not None:
                    database.close()
                return
            try:
                if database is None:
                    database = _open(self.path)
                _store(database, rows, folded)
                failing = False
            except (sqlite3.Error, OSError, LedgerUnusable) as fault:
                if not failing:
                    log.error("the ledger %s cannot be written: %s", self.path, fault)
                failing = True
                self._put_back(rows, folded)
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                if failing:
                    if self._closing:
                        log.error("the ledger misses %d attempts", len(self._waiting))
                        self._writer = None
                        return
                    self._changed.wait(_RETRY_S)

    def _take(self) -> tuple[list[Row], dict[tuple[str, str], int]]:
        """Everything that waits, once there is some; nothing when the ledger is closed."""
        with self._changed:
            while not (self._waiting or self._folded):
                if self._closing:
                    self._writer = None
                    return [], {}
                self._changed.wait()
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, WRITE_EVERY_S)
            rows, folded = list(self._waiting), dict(self._folded)
            self._waiting.clear()
            self._folded.clear()
            self._writing = True
            return rows, folded

    def _put_back(self, rows: list[Row], folded: dict[tuple[str, str], int]) -> None:
        with self._changed:
            self._waiting.extendleft(reversed(rows))
            for where, amount in folded.items():
                self._folded[where] = self._folded.get(where, 0) + amount


def report(path: Path, by: Iterable[str] = _GROUPS, since: str = "") -> list[dict[str, Any]]:
    """What was spent, grouped: a row has the names of ``by`` (of day, key, provider, model), then
    ``attempts``, ``input_tokens``, ``output_tokens``, ``unpriced`` (attempts of unknown cost) and
    ``cost`` in picodollars.

    Raises:
        LedgerUnusable: the file is no ledger of ours, or there is none.
    """
    names = [name for name in _GROUPS if name in set(by)]
    if not path.exists():
        raise LedgerUnusable(f"{path}: nothing was recorded there")
    grouped = ", ".join(names)
    query = (
        f"SELECT {grouped + ', ' if names else ''}count(*) AS attempts, "  # noqa: S608 - our names
        "total(input_tokens), total(output_tokens), count(*) - count(cost), "
        "coalesce(sum(cost), 0) FROM attempts WHERE day >= ? "
        f"{'GROUP BY ' + grouped + ' ORDER BY ' + grouped if names else ''}"
    )
    columns = (*names, "attempts", "input_tokens", "output_tokens", "unpriced", "cost")
    with _unusable(path), contextlib.closing(_connect(path)) as database:
        if not _known(database, path):
            return []
        return [
            {
                name: int(value) if isinstance(value, float) else value
                for name, value in zip(columns, row, strict=True)
            }
            for row in database.execute(query, (since,))
        ]


@contextlib.contextmanager
def _unusable(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as fault:
        told = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
        raise LedgerUnusable(f"{path} cannot be used as a ledger of costs: {told}") from None


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)


def _known(database: sqlite3.Connection, path: Path) -> bool:
    """Whether there are tables, and ours."""
    [(version,)] = database.execute("PRAGMA user_version")
    [(tables,)] = database.execute("SELECT count(*) FROM sqlite_master")
    if version == _VERSION:
        return True
    if version or tables:
        raise LedgerUnusable(f"{path} is a database of something else, or of another release")
    return False


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    if _known(database, path):
        return
    database.execute("PRAGMA journal_mode = WAL")
    with _transaction(database):
        if not _known(database, path):  # another process may have been first
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {_VERSION}")


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = _connect(path)
    try:
        _prepare(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _store(
    database: sqlite3.Connection, rows: list[Row], folded: dict[tuple[str, str], int]
) -> None:
    amounts = dict(folded)
    for row in rows:
        if row.cost:
            where = (row.day, row.key)
            amounts[where] = amounts.get(where, 0) + row.cost
    with _transaction(database):
        database.executemany(_INSERT, rows)
        database.executemany(_ADD, [(*where, amount) for where, amount in amounts.items()])


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
