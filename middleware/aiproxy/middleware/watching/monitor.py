"""Looks after providers apart from clients' requests (draft 12, Fig 18; XAI-FAIL-015).

A look is a GET of the provider's list of models with its own credentials: it costs nothing and
carries no content. Whoever has no such address is only connected to. Providers with an open circuit
are looked at, first a little before their circuit would let a request through, then ever more seldom
up to ``probe_max`` (ASC-HEALTH-003); with ``routing.health.monitor.interval`` those that nobody asked
for so long, too.

What a look may conclude. *Down* (no connection): an open circuit stays open until the next look, so
that no client waits for nobody; a healthy provider is ranked last until a look reaches it. *Ill* (no
answer in time, a server error): nothing, the circuit's own clock goes on. *Up* (any other answer,
401 and 404 included): after a look that found it down or ill an open circuit may be probed at once;
else nothing. Only the request of a client closes a circuit: that a provider lists its models does
not say that it can answer.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from aiproxy.middleware.effects import Answer, Call, Failure
from aiproxy.middleware.health import Track
from aiproxy.middleware.providers.link import Link, tls_context
from aiproxy.middleware.providers.sync import SyncTransports
from aiproxy.middleware.registry import Endpoint, Provider, Registry
from aiproxy.spec.catalog import join

if TYPE_CHECKING:
    from aiproxy.middleware.gateway import Gateway

Verdict: TypeAlias = Literal["up", "ill", "down"]

_LISTING: Final = "/models"
_MOST_BYTES: Final = 4 * 1024 * 1024
_DOWN: Final = frozenset({"connect_refused", "dns_failure", "tls_failure", "connect_timeout"})
#: A look comes this much before the circuit's own pause is over: it decides whether it is.
_EARLY: Final = (0.75, 0.15)
#: How much longer than the time to the next look a circuit is held open.
_MARGIN_S: Final = 0.5
#: Looks at the same time.
_MOST_LOOKS: Final = 16


@dataclass(frozen=True, slots=True)
class Look:
    """One look; ``at`` in seconds of the runtime's clock. ``why``: a status or a kind of failure."""

    at: float
    verdict: Verdict
    why: str
    took_ms: float


@dataclass(slots=True)
class _Watch:
    """When a provider is looked at next. ``held``: for being down it is ranked last."""

    provider: Provider
    tracks: tuple[Track, ...]
    pause_s: float = 0.0
    due: float | None = None
    last: Look | None = None
    answered: int = -1
    held: bool = False
    looking: bool = False

    def troubled(self) -> bool:
        return self.held or any(track.open_until for track in self.tracks)


@dataclass(slots=True)
class Monitor:
    """Whom to look at and when; ``look`` does it, ``conclude`` says what follows. Times in seconds."""

    registry: Registry
    links: Mapping[str, Link]
    probe_after_s: float
    probe_max_s: float
    timeout_s: float
    enabled: bool
    interval_s: float | None
    jitter: Callable[[], float]
    _watches: dict[str, _Watch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for provider in self.registry.providers.values():
            if provider.transport == "http":
                models = self.registry.by_provider[provider.id]
                tracks = (provider.track, *(model.track for model in models))
                self._watches[provider.id] = _Watch(provider, tracks)

    @property
    def always(self) -> bool:
        """Whether it has something to do while all is well."""
        return self.enabled and self.interval_s is not None

    def last(self, provider: Provider) -> Look | None:
        """The last look at a provider."""
        watch = self._watches.get(provider.id)
        return None if watch is None else watch.last

    def due(self, now: float) -> list[Provider]:
        """Whom to look at now; each must be concluded before it is named again."""
        if not self.enabled:
            return []
        found: list[Provider] = []
        free = _MOST_LOOKS - sum(watch.looking for watch in self._watches.values())
        for watch in self._watches.values():
            if not watch.looking and self._is_due(watch, now) and len(found) < free:
                watch.looking = True
                found.append(watch.provider)
        return found

    def forget_looks(self) -> None:
        """After a fork: whoever was looking is not in this process."""
        for watch in self._watches.values():
            watch.looking = False

    def _is_due(self, watch: _Watch, now: float) -> bool:
        if not watch.troubled():
            return self._idle(watch, now)
        if watch.due is None or not watch.pause_s:
            watch.pause_s = self.probe_after_s
            watch.due = now + self._early(watch.pause_s)
        elif watch.due - now > self.probe_max_s:
            watch.due = now + self.probe_max_s  # the clock went back
        return now >= watch.due

    def _idle(self, watch: _Watch, now: float) -> bool:
        """Whether nobody has asked a healthy provider for the interval."""
        watch.pause_s = 0.0
        if self.interval_s is None:
            watch.due = None
            return False
        answered = sum(track.counts.total_answers for track in watch.tracks)
        fresh = answered != watch.answered
        watch.answered = answered
        if fresh or watch.due is None or watch.due - now > self.interval_s:
            watch.due = now + self.interval_s
        return now >= watch.due

    def _early(self, pause_s: float) -> float:
        least, spread = _EARLY
        return pause_s * (least + spread * self.jitter())

    def next_in(self, now: float) -> float | None:
        """Seconds until somebody is due; ``None`` when there is nobody to wait for."""
        if not self.enabled:
            return None
        looking = sum(watch.looking for watch in self._watches.values())
        waits = [] if not looking else [self.timeout_s]  # the end of a look is told at once
        if looking < _MOST_LOOKS:
            waits += [
                max(0.0, watch.due - now)
                for watch in self._watches.values()
                if watch.due is not None and not watch.looking
            ]
        return min(waits, default=None)

    def conclude(self, provider: Provider, look: Look) -> None:
        """Apply what a look found, and say when the next one is due."""
        watch = self._watches[provider.id]
        before, watch.last = watch.last, look
        now = look.at
        troubled = watch.troubled()
        if troubled:
            watch.pause_s = min(self.probe_max_s, max(self.probe_after_s, watch.pause_s * 2))
            watch.due = now + self._early(watch.pause_s)
        elif look.verdict == "down":
            watch.pause_s = self.probe_after_s
            watch.due = now + self._early(watch.pause_s)
        elif self.interval_s is not None:
            watch.due = now + self.interval_s
        if look.verdict == "down":
            self._hold(watch, now)
        elif look.verdict == "up":
            self._release(watch, now, recovered=before is not None and before.verdict != "up")
        watch.looking = False

    def give_up(self, provider: Provider) -> None:
        """A look came to nothing: the next one is due as after any other."""
        watch = self._watches[provider.id]
        watch.due, watch.looking = None, False

    def _hold(self, watch: _Watch, now: float) -> None:
        assert watch.due is not None
        until = watch.due + self.timeout_s + _MARGIN_S
        opened = [track for track in watch.tracks if track.open_until]
        for track in opened:
            track.postpone(now, until)
        if not opened:
            watch.held = True
            watch.provider.track.cooling_until = until
        for track in opened or (watch.provider.track,):
            self.registry.note_trouble(track)

    def _release(self, watch: _Watch, now: float, *, recovered: bool) -> None:
        if watch.held:
            watch.held = False
            watch.provider.track.cooling_until = 0.0
        if recovered:
            for track in watch.tracks:
                track.admit(now)

    # --- looking ---------------------------------------------------------------------------------

    def look(self, provider: Provider, now: Callable[[], float] = monotonic) -> Look:
        """Look at a provider: the best that any of its endpoints shows."""
        began = now()
        found: tuple[Verdict, str] = ("down", "no_endpoint")
        for endpoint in provider.endpoints:
            verdict, why = self._look_at(provider, endpoint)
            if verdict == "up" or found[0] == "down":
                found = verdict, why
            if verdict == "up":
                break
        ended = now()
        return Look(ended, found[0], found[1], max(0.0, ended - began) * 1000)

    def _look_at(self, provider: Provider, endpoint: Endpoint) -> tuple[Verdict, str]:
        dialect, url = next(iter(endpoint.urls.items()))
        link = self.links.get(provider.id, Link())
        if "{model}" in url:
            return _connect(url, link, self.timeout_s)
        call = Call(
            transport="http",
            provider=provider.id,
            target=join(url, _LISTING),
            headers=(
                ("accept", "application/json"),
                ("user-agent", "aiproxy"),
                *provider.headers.get(dialect, ()),
            ),
            body=b"",
            method="GET",
            connect_s=min(self.timeout_s, provider.limits.connect),
            total_s=self.timeout_s,
            max_body_bytes=_MOST_BYTES,
        )
        transports = SyncTransports({provider.id: link})
        try:
            return judge(transports.call(call))
        finally:
            transports.close()


def judge(outcome: Answer | Failure) -> tuple[Verdict, str]:
    """What the outcome of a look says of a provider, and its status or kind of failure."""
    if isinstance(outcome, Answer):
        return ("ill" if outcome.status >= 500 else "up"), str(outcome.status)
    if outcome.kind == "too_large":
        return "up", outcome.kind  # a long list is an answer
    return ("down" if outcome.kind in _DOWN else "ill"), outcome.kind


def _connect(url: str, link: Link, timeout_s: float) -> tuple[Verdict, str]:
    """Connect, with TLS where the provider has it, and send nothing."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout_s) as opened:
            if parts.scheme == "https":
                context = tls_context(link.tls)
                with context.wrap_socket(opened, server_hostname=parts.hostname):
                    pass
    except TimeoutError:
        return "down", "connect_timeout"
    except OSError:
        return "down", "connect_refused"
    return "up", "connected"


def build_monitor(gateway: "Gateway", links: Mapping[str, Link]) -> Monitor:
    """The monitor of ``routing.health.monitor``."""
    health = gateway.config.values["routing"]["health"]
    row = health["monitor"]
    return Monitor(
        registry=gateway.registry,
        links=links,
        probe_after_s=health["probe_after"],
        probe_max_s=health["probe_max"],
        timeout_s=row["timeout"],
        enabled=row["enabled"],
        interval_s=row["interval"],
        jitter=gateway.runtime.jitter,
    )
