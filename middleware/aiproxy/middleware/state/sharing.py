"""Tells other processes what this one saw of providers, and lets it know what they saw.

Runs on the background thread, never on the path of a request. Without the store every process goes
by what it sees itself: what it heard runs out within seconds, the loss is logged once and shown in
the status documents, and the store is asked again until it is back.
"""

from collections.abc import Callable, Mapping
from logging import getLogger
from math import inf
from secrets import token_hex
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from aiproxy.middleware.health import Track
from aiproxy.middleware.state.evidence import Report, judge, pooled, report_of, seen_in, seen_of
from aiproxy.middleware.state.valkey import News, StoreLost
from aiproxy.middleware.watching.windows import Estimate

if TYPE_CHECKING:
    from aiproxy.middleware.registry import Registry

log = getLogger("aiproxy")

#: Failures and circuits are told at the next turn, mere answers as seldom as this, and so many
#: targets a turn: with hundreds of them a turn must not hold up the requests of this process.
_CALM_S: Final = 2.0
_MOST_CALM: Final = 32
#: What others say holds so many turns, and at least so long, after the last one.
_LEASE_TURNS: Final = 6
_LEASE_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 5.0
_NOTHING: Final = Estimate()


class Store(Protocol):
    """Where reports are kept."""

    name: ClassVar[str]

    def exchange(self, process: str, after: int, told: Mapping[str, Report]) -> News:
        """Tell and hear; raises ``StoreLost``."""
        ...

    def close(self) -> None: ...

    def forget(self) -> None: ...


class _Told:
    """What the others know of one target of ours."""

    __slots__ = ("answers", "at", "failures", "open_until")

    def __init__(self) -> None:
        self.answers = self.failures = 0
        self.open_until = 0.0
        self.at = -inf

    def urgent(self, track: Track) -> bool:
        """Whether something against the target, or in favour of it again, is new."""
        failures = track.counts.total_failures
        return failures != self.failures or track.open_until != self.open_until

    def stale(self, track: Track, now: float) -> bool:
        """Whether mere answers are new, and old enough to be told."""
        answers = track.counts.total_answers
        return answers != self.answers and not 0 <= now - self.at < _CALM_S

    def note(self, track: Track, now: float) -> None:
        self.answers, self.failures = track.counts.total_answers, track.counts.total_failures
        self.open_until, self.at = track.open_until, now


class Sharing:
    """``connected`` is ``None`` before the first turn; ``processes`` counts this one too."""

    def __init__(
        self,
        store: Store,
        registry: "Registry",
        interval_s: float,
        jitter: Callable[[], float],
    ) -> None:
        self.connected: bool | None = None
        self.processes = 1
        self._store = store
        self._registry = registry
        self._interval_s = interval_s
        self._jitter = jitter
        self._lease_s = max(_LEASE_S, _LEASE_TURNS * interval_s)
        self._tracks: dict[str, Track] = {}
        for provider in registry.providers.values():
            self._tracks[provider.id + "/"] = provider.track
        for model in registry.models:
            self._tracks.setdefault(f"{model.provider.id}/{model.name}", model.track)
        self._names = list(self._tracks)
        self._place = 0
        self._begin()

    def _begin(self) -> None:
        self._turn = Lock()
        self.process = token_hex(8)
        self._due = -inf
        self._pause_s = self._interval_s
        self._forget()
        self._affected: set[str] = set()

    def _forget(self) -> None:
        """Tell everything anew, and hear everything anew."""
        self._after = 0
        self._told = {target: _Told() for target in self._tracks}
        self._heard: dict[str, dict[str, tuple[int, Report]]] = {}

    def step(self, now: float) -> float:
        """Take a turn when one is due, or when a circuit has changed; return the seconds to the next."""
        with self._turn:
            return self._step(now)

    def _step(self, now: float) -> float:
        wait = self._due - now
        if 0 < wait <= _LONGEST_PAUSE_S and not (self.connected and self._urgent()):
            return wait
        told = self._tell(now)
        try:
            news = self._store.exchange(self.process, self._after, told)
        except StoreLost as loss:
            self._lost(loss)
            self._due = now + self._pause_s
            return self._pause_s
        self._back()
        again = self._after > 0 and (not news.known or news.turn < self._after)
        if again:
            # the store lost what it had, or took us for dead: next turn it is told everything
            self._forget()
        else:
            self._after = news.turn
            self._hear(news)
            self._apply(news, now)
        pause = 0.0 if again else self._interval_s
        self._due = now + pause
        return pause

    def _tell(self, now: float) -> dict[str, Report]:
        """What is new here; of mere answers a few each turn, one target after the other."""
        told: dict[str, Report] = {}
        names = self._names
        start, calm = self._place % len(names), 0
        for place in range(start, start + len(names)):
            target = names[place % len(names)]
            track, state = self._tracks[target], self._told[target]
            if not state.urgent(track):
                if calm == _MOST_CALM or not state.stale(track, now):
                    continue
                calm += 1
                self._place = place + 1
            state.note(track, now)
            told[target] = report_of(track, now)
        return told

    def status(self) -> dict[str, Any]:
        """What the status documents say; no address."""
        return {
            "backend": self._store.name,
            "connected": bool(self.connected),
            "processes": self.processes if self.connected else 1,
        }

    def close(self) -> None:
        """Give the connection back; a later step makes another."""
        with self._turn:
            self._store.close()

    def forked(self) -> None:
        """A child is a process of its own."""
        self._store.forget()
        self._begin()

    def _urgent(self) -> bool:
        return any(
            self._tracks[target].open_until != state.open_until
            for target, state in self._told.items()
        )

    def _lost(self, loss: StoreLost) -> None:
        if self.connected is not False:
            log.warning(
                "the state store does not answer (%s): health is what this process sees itself",
                loss,
            )
            self._pause_s = self._interval_s
        else:
            self._pause_s = min(_LONGEST_PAUSE_S, self._pause_s * 2)
        self.connected = False
        self._forget()

    def _back(self) -> None:
        if self.connected is False:
            log.warning("the state store answers again: health is shared")
        self.connected = True

    def _hear(self, news: News) -> None:
        for (process, target), told in news.reports.items():
            if target in self._tracks and process != self.process:
                self._heard.setdefault(target, {})[process] = told
        self.processes = len(news.alive)
        for target, reports in list(self._heard.items()):
            for process in [name for name in reports if name not in news.alive]:
                del reports[process]
            if not reports:
                del self._heard[target]

    def _apply(self, news: News, now: float) -> None:
        fresh = {target for _, target in news.reports}
        affected: set[str] = set()
        for target, reports in self._heard.items():
            if any(report.bad for _, report in reports.values()):
                affected.add(target)
            elif target not in fresh and target not in self._affected:
                self._tracks[target].keep_told(now, self._lease_s)
                continue
            self._apply_to(self._tracks[target], reports, news.now_ms, now)
        for target in self._affected - self._heard.keys():
            self._apply_to(self._tracks[target], {}, news.now_ms, now)
        self._affected = affected

    def _apply_to(
        self, track: Track, reports: Mapping[str, tuple[int, Report]], store_ms: int, now: float
    ) -> None:
        limits = track.thresholds
        ages = [(report, max(0.0, (store_ms - at) / 1000)) for at, report in reports.values()]
        others = [seen_in(report, age, limits.window_s) for report, age in ages]
        verdict = judge(seen_of(track, now), others, limits)
        told = _NOTHING
        if not track.latencies.taken:
            told = pooled([report for report, age in ages if age < limits.window_s])
        track.hear(
            now,
            doubted_for=min(verdict.doubted_s, self._lease_s) if limits.enabled else 0.0,
            shunned_for=min(verdict.shunned_s, self._lease_s) if limits.enabled else 0.0,
            told=told,
            lease_s=self._lease_s,
        )
        if verdict.trips:
            track.trip(now, self._jitter, "other processes saw failures too")
        if verdict.doubted_s or verdict.trips:
            self._registry.note_trouble(track)
