"""The worlds of one run, in order: the present one, the next one being set up, those before."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from aiproxy.conformance.endpoint import Allowance, Exchange, base_url
from aiproxy.conformance.launching import launch_words
from aiproxy.conformance.options import Options
from aiproxy.conformance.planning import Plan
from aiproxy.conformance.report import WorldRun
from aiproxy.conformance.rig.fleet import World
from aiproxy.conformance.rig.guard import HarnessFault
from aiproxy.conformance.rig.rendering import renderer
from aiproxy.conformance.staging import NotStaged, Stage, Stager


class Worlds:
    """Sets worlds up when they are entered, or before; takes the one down that was left.

    ``expected`` are the names of the worlds that will be entered, in order; ``dead`` says why the
    first one could not be set up, after which no other is tried.
    """

    def __init__(self, url: str, options: Options, seed: int, plan: Plan, prefix: str = "") -> None:
        """Prepare without starting anything.

        Raises:
            UnusableUrl: ``url`` is none. UnusableCommand: the launch command cannot be read.
            ValueError: no such form of configuration.
        """
        if url:
            url = base_url(url)
        else:
            _ready_to_start(options)
        self.allowance = Allowance(options.most_requests, options.limit_s)
        self.expected: list[str] = []
        self.dead = ""
        self._plan = plan
        self._stager = Stager(url, options, seed, self.allowance, prefix)
        self._url = url
        self._present: Stage | None = None
        self._stages: list[Stage] = []
        self._faults: dict[str, NotStaged | HarnessFault] = {}
        self._runs: dict[str, WorldRun] = {}
        self._ahead: dict[str, Future[Stage]] = {}
        self._starter = ThreadPoolExecutor(1, "aiproxy-conformance-start")
        self._stopper = ThreadPoolExecutor(2, "aiproxy-conformance-stop")

    @property
    def url(self) -> str:
        """The URL of the target, in its first world when there are several."""
        return self._url or (self._stages[0].endpoint.url if self._stages else "")

    def enter(self, world: World) -> Stage:
        """Return ``world``, set up; the one before is left for good.

        Raises:
            NotStaged: it could not be set up. HarnessFault: by our own fault.
        """
        if self._present is not None and self._present.world is world:
            return self._present
        if world.name in self._faults:
            raise self._faults[world.name]
        if self.dead:
            raise NotStaged(self.dead)
        if self.allowance.end:
            raise NotStaged(self.allowance.end, missing=True)
        self._leave()
        try:
            found = self._set_up(world)
        except (NotStaged, HarnessFault) as fault:
            self._faults[world.name] = fault
            self._note(world.name, fault=str(fault))
            if isinstance(fault, NotStaged) and not self._stages and not fault.missing:
                self.dead = str(fault)
            raise
        self._take(found)
        self._prepare_next(world.name)
        return found

    def renew(self, world: World) -> bool:
        """Let the next to enter ``world`` find a target that has seen nothing; return whether that
        is so: only what the run starts itself can be started again."""
        if not self._stager.starts or self.allowance.end:
            return False
        if self._present is not None and self._present.world is world:
            try:
                fresh = self._set_up(world)
            except (NotStaged, HarnessFault):
                return False
            self._leave()
            self._take(fresh)
        self._note(
            world.name, repeated=self._runs.get(world.name, WorldRun(world.name)).repeated + 1
        )
        return True

    def count(self, world: str, requests: int, seconds: float) -> None:
        """Note that a scenario was run in ``world``."""
        known = self._runs.get(world, WorldRun(world))
        self._note(
            world,
            scenarios=known.scenarios + 1,
            requests=known.requests + requests,
            seconds=round(known.seconds + seconds, 3),
        )

    def runs(self) -> tuple[WorldRun, ...]:
        """Return what became of each world so far; a run without worlds has none."""
        return tuple(run for name, run in self._runs.items() if name)

    def exchanges(self) -> tuple[Exchange, ...]:
        """Return the requests of all worlds."""
        return tuple(one for stage in self._stages for one in stage.endpoint.exchanges)

    def close(self) -> None:
        """Take down everything, also what is still being set up."""
        self._stager.cancelled.set()
        self._leave()
        for future in self._ahead.values():
            if not future.cancel():
                self._stopper.submit(_take_down, future)
        self._ahead.clear()
        self._starter.shutdown()
        self._stopper.shutdown()

    def _set_up(self, world: World) -> Stage:
        try:
            return self._setting_up(world).result()
        except (NotStaged, HarnessFault):
            raise
        except Exception as bug:
            raise HarnessFault(f"{type(bug).__name__}: {bug}") from bug

    def _setting_up(self, world: World) -> Future[Stage]:
        ahead = self._ahead.pop(world.name, None)
        scenarios = self._plan.scenarios[world.name]
        return ahead or self._starter.submit(self._stager.stage, world, scenarios)

    def _prepare_next(self, name: str) -> None:
        """Begin to set up the world expected after ``name``, unless that is done already."""
        later = (
            self.expected[len(self.expected) - self.expected[::-1].index(name) :]
            if name in self.expected
            else []
        )
        upcoming = next((n for n in later if n not in self._faults), None)
        if upcoming is not None and upcoming not in self._ahead:
            self._ahead[upcoming] = self._setting_up(self._plan.worlds[upcoming])

    def _take(self, stage: Stage) -> None:
        if self._stages:  # what the target calls a token limit was learnt in the first world
            stage.facts.limit_field = self._stages[0].facts.limit_field
        self._stages.append(stage)
        self._present = stage

    def _leave(self) -> None:
        if self._present is not None:
            self._stopper.submit(self._present.close)
            self._present = None

    def _note(self, name: str, **facts: object) -> None:
        known = self._runs.get(name, WorldRun(name))
        self._runs[name] = replace(known, **facts)  # type: ignore[arg-type]


def _take_down(future: "Future[Stage]") -> None:
    if future.exception() is None:
        future.result().close()


def _ready_to_start(options: Options) -> None:
    if options.launch:
        launch_words(options.launch)
    renderer(options.config_for)
    for url in options.worlds.values():
        base_url(url)
