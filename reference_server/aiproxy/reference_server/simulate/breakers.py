"""Circuits over the run: what opened, was probed and closed again, and when."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiproxy.middleware.decision import Attempt
from aiproxy.middleware.health import Track
from aiproxy.middleware.registry import Registry


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a circuit, ``at_s`` since the start of the run. ``name`` is a provider, or
    ``provider/model``; states are *closed*, *open* and *half_open*."""

    at_s: float
    name: str
    before: str
    after: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "at_s": round(self.at_s, 6),
            "name": self.name,
            "from": self.before,
            "to": self.after,
            "why": self.why,
        }


class Watch:
    """Gathers the steps of all circuits of a registry; a track itself keeps only its last ones.

    ``zero`` is the start of the run on the clock the tracks are told.
    """

    def __init__(self, registry: Registry, zero: float) -> None:
        self._zero = zero
        self._names: dict[Track, str] = {}
        for model in registry.models:
            self._names[model.track] = f"{model.provider.id}/{model.upstream}"
        for provider in registry.providers.values():
            self._names[provider.track] = provider.id
        self._last: dict[Track, object] = {}
        self._found: list[Transition] = []

    def look(self, attempts: Iterable[Attempt]) -> None:
        """Note what is new in the tracks that some attempts have touched."""
        for attempt in attempts:
            model = attempt.model
            self._take(model.track)
            if model.provider.track is not model.track:
                self._take(model.provider.track)

    def look_everywhere(self) -> None:
        for track in self._names:
            self._take(track)

    def transitions(self) -> tuple[Transition, ...]:
        """Return every step so far in the order of time."""
        return tuple(sorted(self._found, key=lambda one: one.at_s))

    def _take(self, track: Track) -> None:
        timeline = track.timeline
        if not timeline or timeline[-1] is self._last.get(track):
            return
        last = self._last.get(track)
        new = list(timeline)
        for index, one in enumerate(timeline):
            if one is last:
                new = new[index + 1 :]
                break
        self._last[track] = timeline[-1]
        name = self._names.get(track, "?")
        self._found += [
            Transition(one.at - self._zero, name, one.before, one.after, one.why) for one in new
        ]


def of(transitions: Iterable[Transition], name: str) -> list[Transition]:
    """Return the steps of a ``provider/model``, or of a provider with all its models."""
    return [one for one in transitions if one.name == name or one.name.startswith(f"{name}/")]


def opened(transitions: Iterable[Transition], name: str) -> bool:
    return any(one.after == "open" for one in of(transitions, name))


def closed_at_last(transitions: Iterable[Transition], name: str) -> bool:
    """Whether a circuit opened, and each one that did was closed again at the end."""
    last = {one.name: one.after for one in of(transitions, name)}
    return bool(last) and set(last.values()) == {"closed"}
