"""Fake providers for tests of a gateway of one's own.

def test_my_gateway_moves_on(aiproxy_upstreams, start_my_gateway):
    fakes = aiproxy_upstreams(a=Fake(), b=Fake())
    gateway = start_my_gateway([fakes["a"].endpoint, fakes["b"].endpoint], ...)
    case = fakes.case()
    case.script("a", Act(status=503))
    reply = gateway.chat(f"Say ok. {case.nonce}")
    assert case.origin(reply) == "b"
    assert case.order() == ("a", "b")
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Actor, Cast, Fake, Fleet, cast
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.rig.upstreams import Upstreams

_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
_SETTLE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class FakeCase:
    """One request's view of the fakes. Put ``nonce`` into the text of its prompt."""

    fakes: "Fakes"
    nonce: str

    def script(self, role: str, *acts: Act, always: Act | None = None) -> None:
        """Say what the attempts of this request at ``role`` get, one act each."""
        self.fakes.upstreams.script(self.nonce, self.fakes[role].id, acts, always)

    def proof(self, role: str) -> str:
        """Return the text with which ``role`` answers this request when it is healthy."""
        return self.fakes.upstreams.proof(self.nonce, self.fakes[role].id)

    def origin(self, text: str) -> str:
        """Return the role that made ``text`` for this request, or nothing."""
        ids = {actor.id: role for role, actor in self.fakes.actors.items()}
        return ids.get(self.fakes.upstreams.origin(text, self.nonce, ids), "")

    def attempts(self) -> tuple[Attempt, ...]:
        """Return what the fakes saw of this request, once they are done with it."""
        self.fakes.upstreams.wait_idle(self.nonce, _SETTLE_S)
        return self.fakes.upstreams.attempts(self.nonce)

    def order(self) -> tuple[str, ...]:
        """Return the roles in the order of first contact."""
        return tuple(dict.fromkeys(attempt.role for attempt in self.attempts()))


@dataclass(frozen=True, slots=True)
class Fakes:
    """Fake providers by role: ``fakes["a"].endpoint``, ``.key``, ``.upstream_model``."""

    upstreams: Upstreams
    cast: Cast
    actors: dict[str, Actor] = field(default_factory=dict)

    def __getitem__(self, role: str) -> Actor:
        return self.actors[role]

    def case(self) -> FakeCase:
        """Return a case with a nonce of its own."""
        nonce = "".join(random.choices(_LETTERS, k=12))  # noqa: S311 (not for secrets)
        return FakeCase(self, f"ref-{nonce}")


def opened_fakes() -> Iterator[Callable[..., Fakes]]:
    """Yield a function that opens fakes by role; afterwards all of them are closed."""
    with ExitStack() as stack:

        def build(**fakes: Fake) -> Fakes:
            upstreams = stack.enter_context(Upstreams())
            seed = random.randrange(2**32)  # noqa: S311 (not for secrets)
            chosen = cast(Fleet(fakes), "fixture", seed)
            found = upstreams.open(chosen.actors.values())
            return Fakes(upstreams, chosen, {a.role: a for a in found.values()})

        yield build
