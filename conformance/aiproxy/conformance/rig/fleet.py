"""What a scenario needs behind the target, as data: its fakes, and the world they live in.

A scenario declares a ``Fleet``; the suite merges the fleets of a world into one configuration of
the target, so that one start of the target serves many scenarios. No two scenarios share a
provider or a public model name: what one of them breaks (a breaker, a cool-down, a latency
estimate) cannot reach another.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz"
_DIGITS: Final = "23456789"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fake:
    """One provider a scenario wants, in the words of the Standard's configuration (section 4).

    ``dialect`` is what it speaks (``openai``, ``anthropic``, ``google``, ``cohere``, ``mistral``,
    ``cloudflare``), which also chooses the configured ``type``; ``peer`` makes it another node of
    the target's mesh and no provider. ``reach`` is ``open``, or how it
    cannot be reached: ``refused``, ``bad-tls``, ``no-such-host``. ``price`` is
    ``cost_per_1k_tokens`` in USD, ``None`` leaves it unknown. ``alone`` gives it a public model
    name of its own in place of the fleet's common one. ``provider`` and ``model`` are laid over
    the rendered entries last.
    """

    priority: int = 100
    price: float | None = 0.002
    quality: float | Mapping[str, float] | None = None
    capabilities: tuple[str, ...] = ("text-generation",)
    dialect: str = "openai"
    reach: str = "open"
    alone: bool = False
    provider: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Actor:
    """A fake with its names of this run.

    ``id`` is the registry id, ``model`` the public model name, ``upstream_model`` the name the
    fake itself knows (and nobody else), ``key`` its credential, ``endpoint`` its base URL.
    """

    role: str
    fake: Fake
    id: str
    model: str
    upstream_model: str
    key: str
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Cast:
    """The actors of one scenario by role. ``model`` is the public name they have in common."""

    scenario: str
    model: str
    actors: Mapping[str, Actor]

    def __getitem__(self, role: str) -> Actor:
        return self.actors[role]

    def pool(self, *roles: str) -> str:
        """Return the value of X-AI-Provider-Pool that names ``roles``; all of them by default."""
        return ",".join(self.actors[role].id for role in roles or self.actors)


Casts = Mapping[str, Cast]


@dataclass(frozen=True, slots=True)
class World:
    """One configuration of the target.

    ``config`` is laid over the rendered configuration (mappings merge, all else replaces); as a
    function it gets the casts by scenario name, for what names providers or models. ``default``
    is the provider that serves requests which express no preference. ``api_key`` is what the
    suite's own requests carry in this world.
    """

    name: str
    config: Mapping[str, Any] | Callable[[Casts], Mapping[str, Any]] = field(default_factory=dict)
    default: Fake = Fake(priority=50)
    api_key: str | None = None


# The level 1 checks run here: one provider, nothing else.
PLAIN: Final = World("plain")
# Where a scenario lives that asks for nothing special.
BASE: Final = World("base", {"routing": {"strategy": "availability"}})


@dataclass(frozen=True, slots=True)
class Fleet:
    """What one scenario needs: fakes by role, in a world.

    ``shuffled`` puts the fakes into the configuration in an order of chance, so that the order of
    the file tells a router nothing.
    """

    fakes: Mapping[str, Fake] = field(default_factory=dict)
    world: World = BASE
    shuffled: bool = True


def cast(fleet: Fleet, scenario: str, seed: int) -> Cast:
    """Return the actors of ``scenario``; they depend on the seed and the scenario's name only."""
    chance = random.Random(f"{seed}:cast:{scenario}")  # noqa: S311 (not for secrets)
    common = f"model-{_word(chance)}"
    roles = list(fleet.fakes)
    if fleet.shuffled:
        chance.shuffle(roles)
    actors = {
        role: Actor(
            role,
            fleet.fakes[role],
            f"{_word(chance)}",
            f"model-{_word(chance)}" if fleet.fakes[role].alone else common,
            f"up-{_word(chance)}",
            f"sk-fake-{_word(chance, 24)}",
        )
        for role in roles
    }
    return Cast(scenario, common, actors)


def _word(chance: random.Random, length: int = 9) -> str:
    return chance.choice(_LETTERS) + "".join(chance.choices(_LETTERS + _DIGITS, k=length - 1))
