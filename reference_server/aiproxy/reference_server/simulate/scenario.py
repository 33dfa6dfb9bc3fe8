"""A scenario as the simulator runs it: frozen values, made from a file or a mapping by ``load``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from aiproxy.middleware.config import Config
from aiproxy.reference_server.simulate.scripts import Script
from aiproxy.reference_server.simulate.spreads import Spread

HELLO: Final[Mapping[str, Any]] = {
    "model": "auto",
    "messages": [{"role": "user", "content": "Hello"}],
}


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of traffic of ``for_s`` seconds: open with ``rate`` a second (changing evenly to
    ``ramp_to``), or closed with ``clients``."""

    for_s: float
    rate: float | None = None
    ramp_to: float | None = None
    arrivals: str = "poisson"
    clients: int | None = None
    think: Spread | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of request. ``stream`` is the share that asks for a stream, ``None``: as the body
    says. ``headers`` have lower-case names."""

    name: str
    body: Mapping[str, Any] = field(default_factory=lambda: HELLO)
    weight: float = 1.0
    path: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()
    signed: bool = False
    prompt_tokens: Spread | None = None
    output_tokens: Spread | None = None
    stream: float | None = None
    turns: Spread | None = None
    pause: Spread | None = None
    patience: Spread | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything of one run. Times are seconds; ``start`` is Unix time. ``expect`` is the filled
    section of that name."""

    name: str
    config: Config
    phases: Sequence[Phase]
    templates: Sequence[Template]
    scripts: Mapping[str, Script] = field(default_factory=dict)
    expect: Mapping[str, Any] = field(default_factory=dict)
    description: str | None = None
    seed: int = 1
    start: float = 1_767_603_600.0
    clock_jumps: Sequence[tuple[float, float]] = ()
    duration_s: float = 60.0
    drain_s: float = 900.0
    max_requests: int = 100_000

    @property
    def signs_in(self) -> bool:
        """Whether clients send keys; otherwise nobody is asked for one."""
        return any(template.signed for template in self.templates)

    def scaled(self, factor: float) -> "Scenario":
        """Return the scenario with every time of traffic and providers multiplied by ``factor``
        (rates divided by it), and so with the same requests. The configuration stays as it is, and
        so do expectations."""

        def times(spread: Spread | None) -> Spread | None:
            return None if spread is None else spread.scaled(factor)

        return replace(
            self,
            phases=[
                replace(
                    phase,
                    for_s=phase.for_s * factor,
                    rate=None if phase.rate is None else phase.rate / factor,
                    ramp_to=None if phase.ramp_to is None else phase.ramp_to / factor,
                    think=times(phase.think),
                )
                for phase in self.phases
            ],
            templates=[
                replace(template, pause=times(template.pause), patience=times(template.patience))
                for template in self.templates
            ],
            scripts={name: script.scaled(factor) for name, script in self.scripts.items()},
            clock_jumps=[(at * factor, by) for at, by in self.clock_jumps],
            duration_s=self.duration_s * factor,
        )
