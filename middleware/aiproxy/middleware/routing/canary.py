"""Shares of traffic that go to a new model or provider first (ASC-RULE-005, T-89).

Who is in a share is decided by a hash, never by chance: the same conversation, key or request is on
the same side every time and in every process, and a share that grows keeps whom it had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from aiproxy.middleware.intent import Intent
from aiproxy.middleware.registry import Model, Registry
from aiproxy.middleware.routing.globs import Glob, compile_glob

_POINTS: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Canary:
    """One entry of ``routing.canaries``. ``to`` and ``provider`` name who gets the share."""

    name: str
    asks: Glob = field(repr=False)
    provider: str | None
    to: str | None
    percent: float
    sticky: str
    seed: str

    def takes(
        self, model: str, *, owner: str | None, conversation: str | None, request: str
    ) -> bool:
        """Whether a request for a public model name is in the share; exact at 0 and 100 percent.

        Conversations belong to the caller's key: the same id of somebody else is another one.
        """
        if not self.asks(model):
            return False
        if self.percent <= 0 or self.percent >= 100:
            return self.percent >= 100
        if self.sticky == "key" and owner is not None:
            unit = f"key\0{owner}"
        elif self.sticky != "request" and conversation is not None:
            unit = f"conversation\0{owner or ''}\0{conversation}"
        else:
            unit = f"request\0{request}"
        return point(self.seed, unit) * 100 < self.percent

    def models(self, intent: Intent, registry: Registry) -> tuple[Model, ...]:
        """Who gets the share, whether or not they may serve this request."""
        name = self.to if self.to is not None else None if intent.model_auto else intent.model
        found = registry.models if name is None else registry.named(name)
        if self.provider is None:
            return found
        return tuple(model for model in found if model.provider.id == self.provider)


def point(seed: str, unit: str) -> float:
    """Where a unit of traffic stands on the line from 0 to 1, under a seed."""
    digest = blake2b(f"{seed}\0{unit}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / _POINTS


def build_canaries(rows: Sequence[Mapping[str, Any]]) -> tuple[Canary, ...]:
    """The canaries of a configuration, in its order: the first that takes a request has it."""
    return tuple(
        Canary(
            name=row["name"],
            asks=compile_glob(row["model"]),
            provider=row["provider"],
            to=row["to"],
            percent=float(row["percent"]),
            sticky=row["sticky"],
            seed=row["name"] if row["seed"] is None else row["seed"],
        )
        for row in rows
    )
