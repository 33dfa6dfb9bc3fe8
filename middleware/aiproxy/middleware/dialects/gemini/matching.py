"""Calls that wait for their results, found by key or by name in the order they were made."""

from collections import deque
from typing import Generic, TypeVar

K = TypeVar("K", str, int)


class OpenCalls(Generic[K]):
    """Calls by a key of the caller's. Every step takes constant time, however long the
    conversation is."""

    __slots__ = ("_names", "_waiting")

    def __init__(self) -> None:
        self._waiting: set[K] = set()
        self._names: dict[str, deque[K]] = {}

    def add(self, key: K, name: str) -> None:
        """Take a call."""
        self._waiting.add(key)
        self._names.setdefault(name, deque()).append(key)

    def answer(self, key: K) -> None:
        """Take the result of the call with ``key``."""
        self._waiting.discard(key)

    def first(self, name: str) -> K | None:
        """Return the first open call of ``name`` and take its result, ``None`` without one."""
        keys = self._names.get(name)
        while keys:
            key = keys.popleft()
            if key in self._waiting:
                self._waiting.discard(key)
                return key
        return None
