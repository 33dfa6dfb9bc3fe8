"""Who served the last turn of a conversation, so that the next one goes there first.

Providers keep what they have read of a conversation for a while, and a user notices when another
model goes on with it. What is kept is who it was, never what was said (``routing.affinity``).
"""

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any

from aiproxy.middleware.intent import Intent
from aiproxy.middleware.registry import Model


class Affinity:
    """The last ``most`` conversations by caller and id; each is forgotten ``ttl_s`` seconds after
    its last turn. Safe under threads; each process has its own."""

    def __init__(self, ttl_s: float, most: int) -> None:
        self._ttl_s = ttl_s
        self._most = most
        self._served: OrderedDict[tuple[str | None, str], tuple[Model, float]] = OrderedDict()
        self._lock = Lock()

    def remember(self, owner: str | None, conversation: str, model: Model, now: float) -> None:
        key = (owner, conversation)
        with self._lock:
            self._served[key] = model, now
            self._served.move_to_end(key)
            while len(self._served) > self._most:
                self._served.popitem(last=False)

    def last(self, owner: str | None, conversation: str, now: float) -> Model | None:
        """Who served the last turn of one's own conversation."""
        key = (owner, conversation)
        with self._lock:
            found = self._served.get(key)
            if found is None:
                return None
            model, at = found
            if now - at > self._ttl_s:
                del self._served[key]
                return None
            return model

    def __len__(self) -> int:
        return len(self._served)


def applies(intent: Intent, model: Model) -> bool:
    """Whether a turn may follow its conversation: it says nothing itself of whom it wants
    (strategy, task, reasoning), or names a model that is the remembered one."""
    if intent.mode != "assisted":
        return False
    if not intent.model_auto:
        return model.name == intent.model
    own = intent.strategy_source != "config" or intent.task_source == "hint" or intent.ladder
    return not own


def build_affinity(section: Mapping[str, Any]) -> Affinity | None:
    """The memory that ``routing.affinity`` asks for; ``None`` when it is off."""
    if not section["enabled"]:
        return None
    return Affinity(float(section["ttl"]), section["max_entries"])
