"""How a provider behaves: times, faults and when they happen, how much it takes on at once.

Nothing here knows a clock: the moment (seconds since the start of the run) is an argument, so the
same script drives the simulator and a fake provider behind a real socket.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from random import Random
from typing import Final

from aiproxy.reference_server.simulate.spreads import Spread, fixed

DEFAULT_LATENCY: Final = fixed(0.5)
DEFAULT_PER_TOKEN: Final = fixed(0.0)
DEFAULT_OUTPUT: Final = fixed(100)
#: How long a refused connection, or an unknown host, takes to show.
_AT_ONCE_S: Final = 0.001
_QUICK: Final = frozenset({"refused", "dns", "tls"})


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of the run, in seconds since its start; the end is not part of it."""

    start: float = 0.0
    end: float = inf

    def holds(self, moment: float) -> bool:
        return self.start <= moment < self.end

    def scaled(self, factor: float) -> "Window":
        return Window(self.start * factor, self.end * factor)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One row of ``errors``: an HTTP ``status``, or a ``fault`` of the connection or the answer."""

    window: Window
    rate: float = 1.0
    status: int | None = None
    fault: str | None = None
    retry_after_s: float | None = None
    code: str | None = None
    message: str | None = None
    after: float = 0.5
    latency: Spread | None = None


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one call meets. Times in seconds: ``latency_s`` to the end of a whole answer,
    ``first_token_s`` and ``per_token_s`` of a stream."""

    latency_s: float
    first_token_s: float
    per_token_s: float
    output_tokens: int
    text: str | None = None
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """How one provider, or one model of it, behaves; see the scenario's schema."""

    latency: Spread = DEFAULT_LATENCY
    first_token: Spread | None = None
    per_token: Spread = DEFAULT_PER_TOKEN
    output_tokens: Spread = DEFAULT_OUTPUT
    text: str | None = None
    troubles: tuple[Trouble, ...] = ()
    slow: tuple[tuple[Window, float], ...] = ()
    max_in_flight: int | None = None
    when_full: str = "queue"
    max_queue: int | None = None
    models: Mapping[str, "Script"] = field(default_factory=dict)

    def behave(self, moment: float, random: Random) -> Behaviour:
        """Return what a call that is begun at ``moment`` meets."""
        factor = 1.0
        for window, more in self.slow:
            if window.holds(moment):
                factor *= more
        latency = self.latency.draw(random) * factor
        trouble = self._trouble(moment, random)
        if trouble is not None:
            if trouble.latency is not None:
                latency = trouble.latency.draw(random) * factor
            elif trouble.fault in _QUICK:
                latency = _AT_ONCE_S
        first = latency if self.first_token is None else self.first_token.draw(random) * factor
        return Behaviour(
            latency_s=latency,
            first_token_s=first,
            per_token_s=self.per_token.draw(random) * factor,
            output_tokens=max(1, int(self.output_tokens.draw(random))),
            text=self.text,
            trouble=trouble,
        )

    def _trouble(self, moment: float, random: Random) -> Trouble | None:
        for trouble in self.troubles:
            if trouble.window.holds(moment) and (
                trouble.rate >= 1 or random.random() < trouble.rate
            ):
                return trouble
        return None

    def scaled(self, factor: float) -> "Script":
        """Return the script with every time multiplied by ``factor``."""
        return replace(
            self,
            latency=self.latency.scaled(factor),
            first_token=None if self.first_token is None else self.first_token.scaled(factor),
            per_token=self.per_token.scaled(factor),
            troubles=tuple(_scaled(trouble, factor) for trouble in self.troubles),
            slow=tuple((window.scaled(factor), more) for window, more in self.slow),
            models={name: script.scaled(factor) for name, script in self.models.items()},
        )


def _scaled(trouble: Trouble, factor: float) -> Trouble:
    wait = trouble.retry_after_s
    return replace(
        trouble,
        window=trouble.window.scaled(factor),
        retry_after_s=None if wait is None else wait * factor,
        latency=None if trouble.latency is None else trouble.latency.scaled(factor),
    )
