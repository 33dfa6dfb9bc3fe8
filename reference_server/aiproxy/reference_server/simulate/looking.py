"""The health monitor's looks at providers, on the virtual clock.

The monitor decides whom to look at and what follows, as on a real server; here a look is a call to
the simulated provider. ``middleware.background`` is the same with threads.
"""

from typing import Final

from aiproxy.middleware import Gateway
from aiproxy.middleware.effects import Answer, Call, Failure
from aiproxy.middleware.registry import Model, Provider
from aiproxy.middleware.watching.monitor import Look, judge
from aiproxy.reference_server.simulate.clock import Timer
from aiproxy.reference_server.simulate.world import World

#: No two steps closer together than this: a monitor that is always due must not stop the clock.
_LEAST_S: Final = 0.001


class Looks:
    """Performs what the monitor of a gateway wants. ``zero`` is the start of the run on the clock
    the gateway is told."""

    def __init__(self, gateway: Gateway, world: World, zero: float) -> None:
        self._monitor = gateway.background.monitor
        self._registry = gateway.registry
        self._world = world
        self._zero = zero
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Be ready for trouble; start what does not wait for it."""
        if not self._monitor.enabled:
            return
        self._registry.on_failure = self._failed
        if self._monitor.always:
            self._in(0.0)

    def _failed(self, model: Model) -> None:
        if model.track.open_until or model.provider.track.open_until:
            self._in(0.0)

    def _in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._world.clock.after(seconds, self._step)

    def _step(self, _: object = None) -> None:
        self._timer = None
        now = self._zero + self._world.clock.now
        for provider in self._monitor.due(now):
            self._look(provider)
        wait = self._monitor.next_in(now)
        if wait is not None:
            self._in(max(wait, _LEAST_S))

    def _look(self, provider: Provider) -> None:
        begun = self._world.clock.now
        call = Call(
            transport="http",
            provider=provider.id,
            target="/models",
            headers=(),
            body=b"",
            method="GET",
            connect_s=min(self._monitor.timeout_s, provider.limits.connect),
            total_s=self._monitor.timeout_s,
        )

        def seen(outcome: Answer | Failure) -> None:
            now = self._world.clock.now
            verdict, why = judge(outcome)
            self._monitor.conclude(
                provider, Look(self._zero + now, verdict, why, (now - begun) * 1000)
            )
            self._in(0.0)

        self._world.look(call, seen)
