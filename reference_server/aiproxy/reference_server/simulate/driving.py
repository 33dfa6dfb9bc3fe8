"""Performs the effects of exchanges in virtual time: the simulator's twin of the two mounts.

No thread and no event loop: an exchange is taken one step further when what it waits for has come
to pass on the clock. Deterministic; no two generators are ever inside their own code at once.
"""

from collections.abc import Callable, Generator
from typing import Any, Protocol

from aiproxy.middleware.effects import (
    Answer,
    Call,
    Close,
    Consult,
    Effect,
    Ending,
    Failure,
    Fork,
    Outcome,
    Read,
    Send,
    Start,
    Told,
    Wait,
)
from aiproxy.reference_server.simulate.clock import Clock, Timer
from aiproxy.reference_server.simulate.world import Client, Pending, Stream, World


class Listener(Protocol):
    """The client's end of a streamed answer."""

    def started(self, status: int) -> None: ...
    def sent(self, data: bytes) -> None: ...


class Course:
    """One generator on its way through virtual time.

    ``over`` is called once with the ending: *done* with the value, *raised* with the fault, or
    *stopped*. ``begin`` takes the first step; ``stop`` closes the generator with all it has open.
    """

    __slots__ = (
        "_branches",
        "_clock",
        "_flow",
        "_fork",
        "_listener",
        "_opened",
        "_over",
        "_timer",
        "_waits_for",
        "_world",
        "client",
        "ending",
    )

    def __init__(
        self,
        world: World,
        flow: Generator[Any, Any, Any],
        client: Client,
        over: Callable[["Course"], None],
        listener: Listener | None = None,
        ending: Ending | None = None,
    ) -> None:
        self._world = world
        self._clock: Clock = world.clock
        self._flow = flow
        self._over = over
        self._listener = listener
        self._opened: list[Stream] = []
        self._timer: Timer | None = None
        self._waits_for: Pending | None = None
        self._fork: Fork | None = None
        self._branches: list[Course] = []
        self.client = client
        self.ending = Ending() if ending is None else ending

    def begin(self, _: Any = None) -> None:
        self._advance(None)

    def stop(self) -> None:
        """Close the generator: whoever waited for it has left."""
        if self.ending.state != "running":
            return
        self.ending.state = "stopped"
        self._let_go()
        self._flow.close()
        self._close_all()
        self._over(self)

    # --- steps -----------------------------------------------------------------------------------

    def _advance(self, outcome: Outcome) -> None:
        """Take steps until one has to wait."""
        if self.ending.state != "running":
            return
        self._timer = None
        self._waits_for = None
        send = self._flow.send
        try:
            while True:
                effect: Effect = send(outcome)
                waits, outcome = self._perform(effect)
                if waits:
                    return
        except StopIteration as stop:
            self.ending.state, self.ending.value = "done", stop.value
        except Exception as fault:  # noqa: BLE001 - whoever started it looks at the ending
            self.ending.state, self.ending.fault = "raised", fault
            self._close_all()
        self._over(self)
        self._close_all()  # what whoever forked did not take over

    def _perform(self, effect: Effect) -> tuple[bool, Outcome]:
        """Return whether the outcome comes later, or the outcome."""
        kind = type(effect)
        if kind is Read:
            return self._read(effect)  # type: ignore[arg-type]
        if kind is Send:
            if self._listener is not None:
                self._listener.sent(effect.data)  # type: ignore[union-attr]
        elif kind is Call:
            self._waits_for = self._world.call(effect, self.client, self._answered)  # type: ignore[arg-type]
            return True, None
        elif kind is Start:
            if self._listener is not None:
                self._listener.started(effect.status)  # type: ignore[union-attr]
        elif kind is Close:
            self._give_up(effect.stream)  # type: ignore[union-attr]
        else:
            return self._perform_rare(effect)
        return False, None

    def _perform_rare(self, effect: Effect) -> tuple[bool, Outcome]:
        if isinstance(effect, Wait):
            self._timer = self._clock.after(max(0.0, effect.seconds), self._advance)
            return True, None
        if isinstance(effect, Consult):
            try:
                return False, Told(effect.ask())
            except OSError as error:
                return False, Failure("store_unavailable", type(error).__name__)
        if isinstance(effect, Fork):
            self._begin_branches(effect)
            return True, None
        raise TypeError(f"the simulator performs no {type(effect).__name__}")

    def _answered(self, outcome: Answer | Failure) -> None:
        if isinstance(outcome, Answer) and isinstance(outcome.stream, Stream):
            self._opened.append(outcome.stream)
        self._advance(outcome)

    def _read(self, effect: Read) -> tuple[bool, Outcome]:
        stream = effect.stream
        assert isinstance(stream, Stream)
        if stream.closed:
            return False, b""
        now, due = self._clock.now, stream.due()
        if due is not None and due <= now:
            return False, stream.take()
        if effect.timeout_s is not None and (due is None or now + effect.timeout_s < due):
            nothing = None if effect.soft else Failure("idle_timeout")
            self._timer = self._clock.after(max(0.0, effect.timeout_s), self._advance, nothing)
        elif due is not None:
            self._timer = self._clock.at(due, self._take, stream)
        return True, None

    def _take(self, stream: Stream) -> None:
        self._advance(stream.take())

    # --- branches --------------------------------------------------------------------------------

    def _begin_branches(self, fork: Fork) -> None:
        self._fork = fork
        self._branches = [
            Course(self._world, flow, self.client, self._branch_over, ending=ending)
            for flow, ending in zip(fork.branches, fork.endings, strict=True)
        ]
        for branch in self._branches:
            self._clock.at(self._clock.now, branch.begin)
        if not self._branches:
            self._timer = self._clock.at(self._clock.now, self._joined)

    def _branch_over(self, branch: "Course") -> None:
        fork = self._fork
        if fork is None or branch.ending.state == "stopped":
            return
        self._opened += branch._opened
        branch._opened = []
        endings = fork.endings
        if fork.enough(endings) or all(ending.state != "running" for ending in endings):
            self._joined()

    def _joined(self, _: Any = None) -> None:
        """Stop what still runs and hand the endings over."""
        fork, branches = self._fork, self._branches
        assert fork is not None
        self._fork, self._branches = None, []
        for branch in branches:
            branch.stop()
        self._advance(fork.endings)

    # --- leaving ---------------------------------------------------------------------------------

    def _give_up(self, stream: object) -> None:
        assert isinstance(stream, Stream)
        stream.close()
        self._opened = [one for one in self._opened if one is not stream]

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._waits_for is not None:
            self._waits_for.cancel()
        branches, self._branches, self._fork = self._branches, [], None
        for branch in branches:
            branch.stop()

    def _close_all(self) -> None:
        for stream in self._opened:
            stream.close()
        self._opened = []
