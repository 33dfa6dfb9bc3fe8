"""What a check function works with: the endpoint, seeded chance, and words for findings."""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard, TypeVar

from aiproxy.conformance.case import Case, Upstreams
from aiproxy.conformance.endpoint import CHAT, Endpoint
from aiproxy.conformance.manifest import Target
from aiproxy.conformance.reply import Reply, x_aiproxy
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.fleet import Actor, Cast

__all__ = [
    "Case", "Facts", "NotTestable", "Probe", "declines", "is_count", "refused", "say", "tell",
    "x_aiproxy",
]  # fmt: skip

T = TypeVar("T")
S = TypeVar("S")
_WORD: Final = "abcdefghijkmnpqrstuvwxyz23456789"
_MOST_THREADS: Final = 64


class NotTestable(Exception):
    """A prerequisite is missing; the text names it."""


@dataclass(slots=True)
class Facts:
    """What earlier checks of the same run learned about the target.

    ``listed`` are the model ids of GET /v1/models; ``model`` the one that answers chats and
    ``answer`` its first reply; ``limit_field`` the name under which it takes a token limit.
    """

    listed: tuple[str, ...] = ()
    model: str | None = None
    answer: Reply | None = None
    limit_field: str = "max_tokens"


@dataclass(frozen=True, slots=True)
class Behind:
    """What is behind the target in a run that controls it: this scenario's cast, and the rest.

    ``nonces`` is where nonces come from.
    """

    cast: Cast
    default: Actor
    upstreams: Upstreams
    nonces: random.Random


@dataclass(slots=True)
class Probe:
    """One scenario's view of the run.

    ``chance`` depends on the seed and the scenario's name only, so that one check alone replays
    what it did within the whole run. ``behind`` is there when the suite controls the upstreams,
    ``target`` what the target's manifest says.
    """

    endpoint: Endpoint
    facts: Facts
    chance: random.Random
    asked_model: str | None = None
    limit: int = field(default=16)
    behind: Behind | None = None
    target: Target = field(default_factory=Target)

    @property
    def _behind(self) -> Behind:
        if self.behind is None:
            raise NotTestable("needs upstreams that the suite controls")
        return self.behind

    @property
    def cast(self) -> Cast:
        """The fakes of this scenario."""
        return self._behind.cast

    @property
    def default(self) -> Actor:
        """The provider that serves what expresses no preference."""
        return self._behind.default

    @property
    def upstreams(self) -> Upstreams:
        """All fakes of this world."""
        return self._behind.upstreams

    def case(self) -> Case:
        """Return a case with a fresh nonce.

        Raises:
            NotTestable: the suite does not control the upstreams.
        """
        behind = self._behind
        nonce = f"ref-{_word(behind.nonces)}"
        return Case(
            nonce, behind.cast, self.endpoint, behind.upstreams, behind.default,
            self.facts.limit_field,
        )  # fmt: skip

    def together(self, items: int | Iterable[S], do: Callable[[Any], T]) -> list[T]:
        """Return ``do`` of each item (or of 0, 1, ... for a number), all called at once.

        Raises:
            Exception: the first one that a call raised, once all have ended.
        """
        given = list(range(items)) if isinstance(items, int) else list(items)
        with ThreadPoolExecutor(max(1, min(len(given), _MOST_THREADS))) as pool:
            return list(pool.map(do, given))

    def poll(
        self, holds: Callable[[], bool], until_s: float, every_s: float = 0.1, times: int = 1
    ) -> bool:
        """Return whether ``holds`` was true ``times`` times in a row before ``until_s`` seconds."""
        deadline, row = time.monotonic() + until_s, 0
        while True:
            row = row + 1 if holds() else 0
            if row >= times:
                return True
            if time.monotonic() + every_s > deadline:
                return False
            time.sleep(every_s)

    def word(self) -> str:
        """Return a random word of twelve letters and digits."""
        return _word(self.chance)

    def body(self, **fields: Any) -> dict[str, Any]:
        """Return a small correct chat request with ``fields`` on top; every one is different.

        Raises:
            NotTestable: no model is known that answers chats.
        """
        model = self.facts.model
        if model is None:
            raise NotTestable("no model answers chats (name one with --model)")
        return {**self.request(model, self.facts.limit_field), **fields}

    def request(self, model: str, limit_field: str) -> dict[str, Any]:
        """Return a small correct chat request for ``model``."""
        word = _word(self.behind.nonces if self.behind else self.chance)
        question = f"Reference ref-{word}. Say ok."
        return {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            limit_field: self.limit,
        }

    def chat(self, headers: Mapping[str, str] | None = None, **fields: Any) -> Reply:
        """Send that request; see ``body``."""
        return self.endpoint.post(CHAT, self.body(**fields), headers=headers)


def _word(chance: random.Random) -> str:
    return "".join(chance.choices(_WORD, k=12))


def tell(
    check: str,
    fact: str,
    holds: bool,
    at: Reply | None = None,
    *,
    expected: str = "",
    found: str = "",
    otherwise: Status = Status.FAIL,
    blocks: bool = False,
) -> Finding:
    """Return the finding that ``fact`` holds, or that it does not and what was found instead."""
    label = at.label if at is not None else ""
    if holds:
        return Finding(check, Status.PASS, fact, exchange=label)
    if not found and at is not None:
        found = at.outcome
    return Finding(check, otherwise, fact, expected, found, label, blocks)


def say(check: str, status: Status, reason: str, at: Reply | None = None) -> Finding:
    """Return a finding without an expectation, such as "unsupported"."""
    return Finding(check, status, reason, exchange=at.label if at is not None else "")


def refused(check: str, fact: str, reply: Reply, *statuses: int) -> Finding:
    """Return whether ``reply`` refuses with one of ``statuses``."""
    wanted = " or ".join(map(str, statuses))
    return tell(check, fact, reply.status in statuses, reply, expected=f"status {wanted}")


def declines(reply: Reply) -> bool:
    """Return whether ``reply`` is an honest refusal of something optional."""
    return reply.status in (400, 404, 405, 422, 501) and isinstance(reply.error.get("message"), str)


def is_count(value: object) -> TypeGuard[int]:
    """Return whether ``value`` is an integer of JSON, which ``true`` is not."""
    return isinstance(value, int) and not isinstance(value, bool)
