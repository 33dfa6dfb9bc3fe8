"""Where conversations are kept: what every store can do, and the one in this process.

A store knows rows, not conversations: two byte strings under (owner, id), a version, and a name to
be found by. Rows live ``ttl_s`` after their last change, and of more than ``most`` rows the ones
that were changed longest ago go first. What a row means is in ``ledger``.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol, TypeAlias

#: Whose it is (empty where keys are off) and the id of the conversation.
Key: TypeAlias = tuple[str, str]


class StoreDown(OSError):
    """The store did not answer. The message names no host, path or credential."""


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation as a store has it. ``version`` counts its changes from 1."""

    version: int
    head: bytes
    turns: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """A row to be written if it still has the ``version`` that was read; 0: if there is none.

    ``turns`` of ``None`` stay as they are; ``head`` of ``None`` deletes the row. ``name`` is what
    ``Store.named`` finds the row by, given when it is made.
    """

    key: Key
    version: int
    head: bytes | None
    turns: bytes | None = None
    name: str | None = None


class Store(Protocol):
    """``kind``: as ``conversations.store`` has it. ``blocking``: to be asked on a thread of its own.
    Every method may raise ``StoreDown``."""

    kind: str
    blocking: bool

    def get(self, keys: Sequence[Key]) -> list[Row | None]:
        """The rows that live, in the order of the keys."""
        ...

    def put(self, changes: Sequence[Change]) -> bool:
        """Make all the changes and return true; or none, where one found another version."""
        ...

    def named(self, owner: str, name: str) -> list[str]:
        """Ids of an owner's rows that were made with a name; some may be gone by now."""
        ...

    def close(self) -> None:
        """Let go of connections; the store may be asked again afterwards."""
        ...


@dataclass(slots=True)
class _Held:
    row: Row
    until: float
    name: str | None


class MemoryStore:
    """Rows in this process. ``clock`` is Unix time in seconds."""

    kind = "memory"
    blocking = False

    def __init__(self, *, ttl_s: float, most: int, clock: Callable[[], float]) -> None:
        self._ttl_s, self._most, self._clock = ttl_s, most, clock
        self._rows: OrderedDict[Key, _Held] = OrderedDict()  # changed longest ago first
        self._names: dict[Key, set[str]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, keys: Sequence[Key]) -> list[Row | None]:
        now = self._clock()
        with self._lock:
            return [self._alive(key, now) for key in keys]

    def put(self, changes: Sequence[Change]) -> bool:
        now = self._clock()
        with self._lock:
            for change in changes:
                row = self._alive(change.key, now)
                if (0 if row is None else row.version) != change.version:
                    return False
            for change in changes:
                self._make(change, now)
            self._let_go(now)
            return True

    def named(self, owner: str, name: str) -> list[str]:
        with self._lock:
            return sorted(self._names.get((owner, name), ()))

    def close(self) -> None:
        pass

    def _alive(self, key: Key, now: float) -> Row | None:
        held = self._rows.get(key)
        return None if held is None or held.until <= now else held.row

    def _make(self, change: Change, now: float) -> None:
        before = self._rows.get(change.key)
        if change.version == 0 and before is not None:
            self._drop(change.key)  # it is over
            before = None
        if change.head is None:
            self._drop(change.key)
            return
        name = change.name if before is None else before.name
        turns = change.turns
        if turns is None:
            turns = b"" if before is None else before.row.turns
        row = Row(change.version + 1, change.head, turns)
        self._rows[change.key] = _Held(row, now + self._ttl_s, name)
        self._rows.move_to_end(change.key)
        if name is not None:
            self._names.setdefault((change.key[0], name), set()).add(change.key[1])

    def _let_go(self, now: float) -> None:
        while self._rows:
            key, held = next(iter(self._rows.items()))
            if held.until > now and len(self._rows) <= self._most:
                return
            self._drop(key)

    def _drop(self, key: Key) -> None:
        held = self._rows.pop(key, None)
        if held is None or held.name is None:
            return
        place = (key[0], held.name)
        ids = self._names[place]
        ids.discard(key[1])
        if not ids:
            del self._names[place]
