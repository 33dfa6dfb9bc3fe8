"""A world made real: fake providers on their sockets, a configuration, and the target on it."""

import random
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from aiproxy.conformance.case import DEFAULT, Upstreams
from aiproxy.conformance.checks import Scenario
from aiproxy.conformance.endpoint import Allowance, BudgetSpent, Endpoint
from aiproxy.conformance.launching import Launcher, NotLaunched, free_port, launched, started
from aiproxy.conformance.options import Options
from aiproxy.conformance.planning import AS_IT_IS, every_scenario
from aiproxy.conformance.probe import Behind, Facts
from aiproxy.conformance.rig.fleet import Actor, Cast, Casts, Fleet, World, cast
from aiproxy.conformance.rig.guard import HarnessFault
from aiproxy.conformance.rig.rendering import (
    FOLDER,
    Headers,
    Renderer,
    Unrenderable,
    headers_of,
    renderer,
)
from aiproxy.conformance.scoring import ATTACHED, OBSERVE

# How long a target that answers no more may take to end.
_ENDING_S: Final = 0.5
_FILES: Final = {"portkey": "portkey.json"}


class NotStaged(Exception):
    """A world could not be set up; the text says why.

    ``missing`` means that nobody tried: the run was not given what this world needs; ``untold``
    that the target has no configuration for it.
    """

    def __init__(self, reason: str, *, missing: bool = False, untold: bool = False) -> None:
        super().__init__(reason)
        self.missing, self.untold = missing, untold


@dataclass(slots=True)
class Stage:
    """One world, ready for its scenarios.

    ``end`` says how the target ended, if it did, and ``gone`` that it was found to have ended.
    ``configured_by`` makes the header fields of a target that has no file of providers.
    """

    world: World
    endpoint: Endpoint
    facts: Facts = field(default_factory=Facts)
    casts: Casts = field(default_factory=dict)
    default: Actor | None = None
    upstreams: Upstreams | None = None
    end: Callable[[], str] = str
    closing: ExitStack = field(default_factory=ExitStack)
    salt: str = ""
    gone: str = ""
    configured_by: Headers | None = None

    @property
    def asked_model(self) -> str | None:
        """The model that this world is known to serve."""
        return self.default.model if self.default is not None else None

    def configure(self, scenario: str = "") -> None:
        """Let requests carry what configures the target for ``scenario``, if it takes that there.

        Raises:
            Unrenderable: the target cannot be told what this world needs.
        """
        if self.configured_by is None or self.default is None:
            return
        own = self.cast_of(scenario)
        self.endpoint.configuring = self.configured_by(self.world, own, self.default)

    def cast_of(self, scenario: str) -> Cast:
        """Return the cast of ``scenario``, which may be empty."""
        model = self.default.model if self.default is not None else ""
        return self.casts.get(scenario) or Cast(scenario, model, {})

    def behind(self, scenario: Scenario, seed: int) -> Behind | None:
        """Return what ``scenario`` has behind the target, if we control that."""
        if self.upstreams is None or self.default is None:
            return None
        own = self.cast_of(scenario.name)
        nonces = random.Random(f"{seed}:nonces:{scenario.name}:{self.salt}")  # noqa: S311
        return Behind(own, self.default, self.upstreams, nonces)

    def close(self) -> None:
        """Stop the target and the fakes; their log stays readable."""
        self.endpoint.close()
        self.closing.close()


class Stager:
    """Sets up the worlds of one run. Worlds may be set up by another thread than uses them."""

    def __init__(
        self, url: str, options: Options, seed: int, allowance: Allowance, prefix: str = ""
    ) -> None:
        self._url, self._options, self._seed = url, options, seed
        self._allowance, self._prefix = allowance, prefix
        self._mode = options.resolved_mode
        self.cancelled = threading.Event()

    def stage(self, world: World, scenarios: Sequence[Scenario]) -> Stage:
        """Return ``world`` with what ``scenarios`` need.

        Raises:
            NotStaged: the target did not start or does not answer. HarnessFault: our own doing.
        """
        with ExitStack() as stack:
            if self._mode == OBSERVE:
                found = self._as_it_is(stack)
            else:
                found = self._controlled(world, scenarios, stack)
            stack.callback(found.endpoint.close)
            try:
                fault = found.endpoint.fault()
            except BudgetSpent as spent:
                raise NotStaged(str(spent), missing=True) from None
            if fault:
                raise NotStaged(found.end() or fault)
            found.closing = stack.pop_all()
        return found

    def _as_it_is(self, stack: ExitStack) -> Stage:
        url = self._url
        if not url:
            try:
                url = stack.enter_context(
                    launched(
                        self._options.launch,
                        ready_s=self._options.ready_s,
                        cancelled=self.cancelled,
                    )
                )
            except NotLaunched as fault:
                raise NotStaged(str(fault)) from None
        return Stage(AS_IT_IS, self._endpoint(url, AS_IT_IS))

    def _controlled(self, world: World, scenarios: Sequence[Scenario], stack: ExitStack) -> Stage:
        options = self._options
        fixed = options.worlds.get(world.name, "")
        if not self.starts and not fixed:
            raise NotStaged(f"no target was named for world {world.name}", missing=True)
        own = every_scenario(world, self._mode) if not self.starts else scenarios
        casts, default = casts_of(world, own, self._seed)
        upstreams = self._upstreams(stack)
        casts, default = self._opened(upstreams, casts, default)
        end: Callable[[], str] = str
        if self.starts:
            fixed, end = self._start(world, casts, default, stack)
        stack.callback(upstreams.close_all)  # before the target stops: nothing to wait for then
        stage = Stage(world, self._endpoint(fixed, world), Facts(), casts, default, upstreams, end)
        stage.facts.model = default.model
        stage.salt = secrets.token_hex(4) if self._mode == ATTACHED else ""
        stage.configured_by = headers_of(options.config_for)
        try:
            stage.configure()
        except Unrenderable as missing:
            raise NotStaged(str(missing), untold=True) from None
        return stage

    @property
    def starts(self) -> bool:
        """Whether we start the target ourselves."""
        return self._options.launcher is not None or bool(self._options.launch)

    def _upstreams(self, stack: ExitStack) -> Upstreams:
        if self._options.control:
            from aiproxy.conformance.attached import AttachedUpstreams

            return stack.enter_context(
                AttachedUpstreams(self._options.control, self._options.control_token)
            )
        from aiproxy.conformance.rig.upstreams import Upstreams as Local

        return stack.enter_context(Local())

    def _opened(self, upstreams: Upstreams, casts: Casts, default: Actor) -> tuple[Casts, Actor]:
        ports = self._options.ports
        every = [default, *(a for one in casts.values() for a in one.actors.values())]
        if not self.starts and not self._options.control:
            strange = [actor.id for actor in every if actor.id not in ports]
            if strange:
                raise NotStaged(
                    "the target's configuration was made for another seed or suite: "
                    "repeat aiproxy conformance init",
                    missing=True,
                )
        try:
            return opened(upstreams, casts, default, ports)
        except OSError as fault:
            raise NotStaged(f"the fake providers cannot listen: {fault.strerror}") from None
        except HarnessFault as fault:
            if not self._options.control:
                raise
            raise NotStaged(str(fault)) from None

    def _start(
        self, world: World, casts: Casts, default: Actor, stack: ExitStack
    ) -> tuple[str, Callable[[], str]]:
        options = self._options
        render: Renderer = renderer(options.config_for)
        port = free_port()
        try:
            text = render(world, casts, default, port)
        except Unrenderable as missing:
            raise NotStaged(str(missing), untold=True) from None
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="aiproxy-conformance-"))
        config = Path(folder) / file_name(options.config_for)
        config.write_text(text.replace(FOLDER, folder), encoding="utf-8")
        try:
            if options.launcher is not None:
                return self._launched_by_caller(options.launcher, config, port, stack), str
            target = stack.enter_context(
                started(
                    options.launch, config, port,
                    world=world.name, ready_s=options.ready_s, cancelled=self.cancelled,
                )
            )  # fmt: skip
        except NotLaunched as fault:
            raise NotStaged(str(fault)) from None
        return target.url, partial(target.end, _ENDING_S)

    def _launched_by_caller(
        self, launcher: Launcher, config: Path, port: int, stack: ExitStack
    ) -> str:
        try:
            return stack.enter_context(launcher(config, port))
        except NotLaunched:
            raise
        except Exception as fault:  # whatever keeps the caller's target from starting
            raise NotStaged(f"{type(fault).__name__}: {fault}") from fault

    def _endpoint(self, url: str, world: World) -> Endpoint:
        options = self._options
        return Endpoint(
            url,
            api_key=world.api_key or options.api_key,
            timeout_s=options.timeout_s,
            prefix=self._prefix,
            allowance=self._allowance,
            headers=options.headers,
            secrets=options.secrets,
        )


def casts_of(world: World, scenarios: Iterable[Scenario], seed: int) -> tuple[Casts, Actor]:
    """Return the casts of ``scenarios`` by name, and the default provider of ``world``."""
    casts = {s.name: cast(s.fleet, s.name, seed) for s in scenarios if s.fleet is not None}
    default = cast(Fleet({DEFAULT: world.default}, world), f"world:{world.name}", seed)[DEFAULT]
    return casts, default


def opened(
    upstreams: Upstreams, casts: Casts, default: Actor, ports: Mapping[str, int]
) -> tuple[Casts, Actor]:
    """Return the actors with the endpoints that their sockets got; ``ports`` are wanted ones.

    Raises:
        OSError: a wanted port is taken.
    """
    every = [default, *(a for one in casts.values() for a in one.actors.values())]
    found = upstreams.open(every, ports or None)
    real = {
        name: replace(one, actors={role: found[a.id] for role, a in one.actors.items()})
        for name, one in casts.items()
    }
    return real, found[default.id]


def file_name(config_for: str) -> str:
    """Return the name that a rendered configuration gets; some targets look at its ending."""
    if "/" in config_for or "." in config_for:
        return Path(config_for.replace("{world}", "target")).name
    return _FILES.get(config_for, f"{config_for}.yaml")
