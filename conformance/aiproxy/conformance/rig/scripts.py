"""What each fake was told to do, by nonce; safe to use from any thread."""

import threading
from collections.abc import Sequence

from aiproxy.conformance.rig.acts import HEALTHY, Act


class Scripts:
    """The n-th attempt for a nonce at a provider gets the n-th act of its script."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._acts: dict[tuple[str, str], list[Act]] = {}
        self._always: dict[tuple[str, str], Act] = {}
        self._habits: dict[str, Act] = {}
        self._nonces: set[str] = set()

    def set(self, nonce: str, provider: str, acts: Sequence[Act], always: Act | None) -> None:
        """Replace the script of ``nonce`` at ``provider``; its attempts count from one again."""
        with self._lock:
            self._nonces.add(nonce)
            self._acts[nonce, provider] = list(acts)
            if always is None:
                self._always.pop((nonce, provider), None)
            else:
                self._always[nonce, provider] = always

    def set_habit(self, provider: str, act: Act | None) -> None:
        """Set what ``provider`` does where no script says otherwise."""
        with self._lock:
            self._habits[provider] = act or HEALTHY

    def next(self, nonce: str, provider: str) -> Act:
        """Return the act of the attempt that has just arrived."""
        with self._lock:
            acts = self._acts.get((nonce, provider))
            if acts:
                return acts.pop(0)
            habit = self._habits.get(provider, HEALTHY)
            return self._always.get((nonce, provider), habit)

    def knows(self, nonce: str) -> bool:
        """Return whether any script is for ``nonce``."""
        with self._lock:
            return nonce in self._nonces
