"""What a check function works with: the endpoint, seeded chance, and words for findings."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from aiproxy.conformance.endpoint import CHAT, Endpoint, Reply
from aiproxy.conformance.results import Finding, Status


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


@dataclass(slots=True)
class Probe:
    """One scenario's view of the run.

    ``chance`` depends on the seed and the scenario's name only, so that one check alone replays
    what it did within the whole run.
    """

    endpoint: Endpoint
    facts: Facts
    chance: random.Random
    asked_model: str | None = None
    limit: int = field(default=16)

    def word(self) -> str:
        """Return a random word of twelve letters and digits."""
        return "".join(self.chance.choices("abcdefghijkmnpqrstuvwxyz23456789", k=12))

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
        question = f"Reference {self.word()}. Say ok."
        return {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            limit_field: self.limit,
        }

    def chat(self, headers: Mapping[str, str] | None = None, **fields: Any) -> Reply:
        """Send that request; see ``body``."""
        return self.endpoint.post(CHAT, self.body(**fields), headers=headers)


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
