"""One run: a gateway of the scenario's configuration, its providers and its clients, on one clock."""

import gc
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from time import perf_counter
from typing import Any, Final

from aiproxy.middleware import Gateway
from aiproxy.middleware.decision import Decision
from aiproxy.middleware.effects import Reply
from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.gateway import Runtime
from aiproxy.middleware.intake.front import Front
from aiproxy.middleware.intake.ingress import Route
from aiproxy.middleware.money.amounts import usd
from aiproxy.reference_server.simulate.breakers import Watch
from aiproxy.reference_server.simulate.clock import Clock
from aiproxy.reference_server.simulate.driving import Course
from aiproxy.reference_server.simulate.expectations import checks_of
from aiproxy.reference_server.simulate.loading import load
from aiproxy.reference_server.simulate.looking import Looks
from aiproxy.reference_server.simulate.result import Result, Row, Spent, measure
from aiproxy.reference_server.simulate.scenario import Scenario
from aiproxy.reference_server.simulate.traffic import Request, Traffic
from aiproxy.reference_server.simulate.world import Client, World

#: What the monotonic clock says at the start: some figures of health take 0 for "never".
ZERO: Final = 1000.0
#: Steps of the clock a request may take before something is taken to ask for ever.
_STEPS_EACH: Final = 2000
_STEPS_MORE: Final = 1_000_000
#: New objects between two collections.
_COLLECT_AFTER: Final = 50_000


def simulate(
    scenario: "Scenario | str | os.PathLike[str] | Mapping[str, Any]",
    *,
    config: "str | os.PathLike[str] | Mapping[str, Any] | None" = None,
    seed: int | None = None,
    keep: int = 1000,
) -> Result:
    """Run a scenario and return what came of it.

    ``scenario`` is a ``Scenario``, or what one is loaded from. ``config`` stands in the place of the
    scenario's configuration. ``keep`` bounds ``Result.decisions``.

    Raises:
        ConfigInvalid: a bad scenario or configuration.
        Stuck: the run would never end.
    """
    if not isinstance(scenario, Scenario):
        scenario = load(scenario, config=config, seed=seed)
    elif config is not None:
        raise TypeError("config goes with a file or a mapping, not with a Scenario")
    elif seed is not None:
        scenario = replace(scenario, seed=seed)
    return _Run(scenario, keep).result()


class _Asked:
    """One request on its way, seen from its client."""

    __slots__ = ("_over", "_run", "at", "begun", "course", "exchange", "first", "left", "request")

    def __init__(self, run: "_Run", request: Request, over: Callable[[], None]) -> None:
        self._run = run
        self._over = over
        self.request = request
        self.at = run.clock.now
        self.first: float | None = None
        self.begun: int | None = None
        self.left = False
        self.course: Course | None = None
        self.exchange: Exchange | None = None

    def started(self, status: int) -> None:
        self.begun = status

    def sent(self, data: bytes) -> None:
        if self.first is None and not data.startswith(b":"):
            self.first = self._run.clock.now

    def leave(self, _: Any) -> None:
        """The client's patience is over."""
        course = self.course
        if course is not None and course.ending.state == "running":
            self.left = True
            course.stop()

    def over(self, course: Course) -> None:
        self._run.ended(self, course)
        self._over()


class _Run:
    """The parts of one run, and what is gathered while it goes on."""

    def __init__(self, scenario: Scenario, keep: int) -> None:
        self.scenario = scenario
        self.clock = clock = Clock()
        chance = {
            part: Random(f"{scenario.seed} {part}")  # noqa: S311 - chance, not secrets
            for part in ("traffic", "world", "jitter")
        }
        self._ids = 0
        runtime = Runtime(
            now=lambda: ZERO + clock.now,
            wall=self._wall,
            new_id=self._new_id,
            jitter=chance["jitter"].random,
        )
        self._background = 0
        self._background_cost = 0
        self._beside: set[Course] = set()
        self.gateway = gateway = Gateway(
            scenario.config,
            wrapped_app=False,
            scope="all",
            runtime=runtime,
            on_decision=self._decision,
            allow_unenforced=True,
            ledger=False,
        )
        if not scenario.signs_in:
            gateway.settings = replace(gateway.settings, keys=None)
        self._front = Front(gateway)
        self._routes: dict[str, Route] = {}
        self.world = World(clock, gateway.registry, scenario.scripts, chance["world"], self._wall)
        self._traffic = Traffic(scenario, clock, chance["traffic"], self)
        self._watch = Watch(gateway.registry, ZERO)
        self._looks = Looks(gateway, self.world, ZERO)
        self._rows: list[Row] = []
        self._kept: deque[Decision] = deque(maxlen=keep)
        self._open: dict[int, _Asked] = {}
        self._spent: dict[str, list[int]] = {name: [0, 0, 0, 0] for name in self.world.calls}
        self._asked = 0
        self._cut = False
        self._last = 0.0

    # --- the runtime's other half ----------------------------------------------------------------

    def _wall(self) -> float:
        now = self.clock.now
        jumps = self.scenario.clock_jumps
        return (
            self.scenario.start + now + (sum(by for at, by in jumps if at <= now) if jumps else 0)
        )

    def _new_id(self) -> str:
        self._ids += 1
        return f"{self._ids:032x}"

    def _decision(self, decision: Decision) -> None:
        """Count what any request did, a client's or one beside it."""
        self._watch.look(decision.calls)
        for attempt in decision.calls:
            spent = self._spent[attempt.model.provider.id]
            spent[0] += 1
            spent[1] += attempt.outcome != "ok"
            spent[2] += attempt is decision.served and decision.mirror is None
            spent[3] += attempt.cost or 0
        if decision.mirror is not None:
            self._background += 1
            self._background_cost += sum(attempt.cost or 0 for attempt in decision.calls)

    # --- requests --------------------------------------------------------------------------------

    def ask(self, request: Request, over: Callable[[], None]) -> bool:
        """Take a request in; ``False`` when it was one too many."""
        if self._asked >= self.scenario.max_requests:
            self._cut = True
            return False
        self._asked += 1
        asked = _Asked(self, request, over)
        inbound = self._front.inbound(
            self._route(request.path), request.headers, request.query, request.body
        )
        exchange = Exchange(self.gateway, inbound)
        asked.exchange = exchange
        course = Course(self.world, exchange.run(), request.client, asked.over, asked)
        asked.course = course
        self._open[id(asked)] = asked
        if request.patience_s is not None:
            self.clock.after(request.patience_s, asked.leave)
        self.clock.at(self.clock.now, course.begin)
        return True

    def _route(self, path: str) -> Route:
        found = self._routes.get(path)
        if found is None:
            route = self._front.route(path)
            if route is None or route.counting:
                raise ValueError(f"{path} is not served by this configuration")
            found = self._routes[path] = route
        return found

    def ended(self, asked: _Asked, course: Course) -> None:
        """Note how a request ended."""
        self._open.pop(id(asked), None)
        exchange, ending = asked.exchange, course.ending
        assert exchange is not None
        decision = exchange.decision
        for flow in exchange.mirrored:
            self._begin_beside(flow)
        self._last = now = self.clock.now
        value = ending.value
        status = asked.begun or (value.status if isinstance(value, Reply) else 0)
        outcome = decision.outcome
        error = None if decision.error is None else str(decision.error.get("code"))
        if ending.state == "stopped" and outcome != "ok":
            outcome = "aborted" if asked.left else "unfinished"
        elif ending.state == "raised":
            outcome, error = "failed", "internal_error"
        served = decision.served if outcome == "ok" else None
        model = None if served is None else served.model
        self._rows.append(
            Row(
                name=asked.request.template.name,
                at_s=asked.at,
                latency_ms=(now - asked.at) * 1000,
                first_token_ms=None if asked.first is None else (asked.first - asked.at) * 1000,
                status=status,
                outcome=outcome,
                provider=None if model is None else model.provider.id,
                model=None if model is None else f"{model.provider.id}/{model.upstream}",
                calls=tuple(attempt.model.provider.id for attempt in decision.calls),
                costs=tuple(attempt.cost or 0 for attempt in decision.calls),
                failed_over=decision.failed_over,
                error=error,
            )
        )
        self._kept.append(decision)

    def _begin_beside(self, flow: Generator[Any, Any, None]) -> None:
        """Begin a request that nobody waits for."""
        course = Course(self.world, flow, Client(), self._beside.discard)
        self._beside.add(course)
        self.clock.at(self.clock.now, course.begin)

    # --- the whole -------------------------------------------------------------------------------

    def result(self) -> Result:
        """Let the clock run to the end and add up."""
        scenario, clock = self.scenario, self.clock
        begun = perf_counter()
        most = _STEPS_MORE + _STEPS_EACH * scenario.max_requests
        self._traffic.begin()
        self._looks.begin()
        with _rarely_collected():
            clock.run(scenario.duration_s, most)
            clock.run(scenario.duration_s + scenario.drain_s, most)
        for asked in list(self._open.values()):
            if asked.course is not None:
                asked.course.stop()
        for course in list(self._beside):
            course.stop()
        self.gateway.conversations.close()
        self._watch.look_everywhere()
        breakers = self._watch.transitions()
        rows = sorted(self._rows, key=lambda row: row.at_s)
        measures = measure(rows)
        most_busy = self.world.most_busy
        providers = [
            Spent(name, calls, failed, served, usd(cost), most_busy[name])
            for name, (calls, failed, served, cost) in self._spent.items()
        ]
        return Result(
            scenario=scenario,
            rows=rows,
            measures=measures,
            providers=providers,
            breakers=breakers,
            checks=checks_of(scenario.expect, rows, measures, breakers),
            decisions=tuple(self._kept),
            ended_s=self._last,
            cut=self._cut,
            background=self._background,
            background_cost_usd=usd(self._background_cost),
            run_s=perf_counter() - begun,
        )


@contextmanager
def _rarely_collected() -> Iterator[None]:
    """Keep the garbage collector from walking everything that a run keeps again and again."""
    usual = gc.get_threshold()
    gc.set_threshold(max(usual[0], _COLLECT_AFTER), *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
