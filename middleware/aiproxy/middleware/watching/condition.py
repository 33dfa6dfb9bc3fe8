"""The condition of a provider, a model or an endpoint as figures for people and programs
(ASC-HEALTH-001). Worked out when somebody asks, never for a request."""

from collections.abc import Sequence
from typing import Any

from aiproxy.middleware.gateway import Gateway
from aiproxy.middleware.health import State, Track
from aiproxy.middleware.registry import Provider
from aiproxy.middleware.watching.monitor import Look
from aiproxy.middleware.watching.windows import percentiles

#: The worst state of several circuits is the first of these that any of them has.
_WORST: tuple[State, ...] = ("open", "half_open", "closed")
#: Steps of the circuits that are told, the newest.
_TOLD = 16


def provider_condition(gateway: Gateway, provider: Provider) -> dict[str, Any]:
    """What the calls of a provider add up to, with its models and, where it has several, its
    endpoints. Times are milliseconds, ``ago_s`` seconds before now, rates per second."""
    now = gateway.runtime.now()
    models = gateway.registry.by_provider[provider.id]
    # calls are counted for the model; a provider without a model list counts them itself
    tracks = [model.track for model in models] or [provider.track]
    every = tracks if provider.track in tracks else [*tracks, provider.track]
    found = figures(tracks, now)
    found["circuit"] = _worst(every, now)
    found["status"] = _status(every, now)
    limit = provider.max_concurrency or provider.max_connections
    found["saturation"] = None if limit is None else round(found["in_flight"] / limit, 3)
    found["last_look"] = _look(gateway.background.monitor.last(provider), now)
    found["transitions"] = _transitions(
        [("", provider.track), *((model.name, model.track) for model in models)], now
    )
    found["models"] = {
        model.name: {**figures([model.track], now), "circuit": model.track.state(now)}
        for model in models
    }
    endpoints = provider.endpoint_tracks
    if endpoints:
        found["endpoints"] = [
            {"region": endpoint.region, **figures([track], now)}
            for endpoint, track in zip(provider.endpoints, endpoints, strict=True)
        ]
    return found


def figures(tracks: Sequence[Track], now: float) -> dict[str, Any]:
    """Counts and rates of the window, percentiles of the last answers."""
    for track in tracks:
        track.counts.turn(now)
    answers = sum(track.counts.answers for track in tracks)
    failures = sum(track.counts.failures for track in tracks)
    samples = answers + failures
    pairs = [track.latencies.recent(now) for track in tracks]
    return {
        "requests": samples,
        "error_rate": round(failures / samples, 4) if samples else None,
        "latency_ms": _spread([ms for totals, _ in pairs for ms in totals]),
        "first_byte_ms": _spread([ms for _, firsts in pairs for ms in firsts]),
        "in_flight": sum(track.in_flight for track in tracks),
        "answers_per_s": round(
            sum(t.counts.answers / t.counts.span_s(now) for t in tracks if t.counts.answers), 3
        ),
        "tokens_per_s": round(
            sum(t.counts.tokens / t.counts.span_s(now) for t in tracks if t.counts.tokens), 3
        ),
    }


def _spread(samples: list[float]) -> dict[str, float | None]:
    found = percentiles(samples)
    if found is None:
        return {"p50": None, "p95": None, "p99": None}
    return {name: round(value, 3) for name, value in found._asdict().items()}


def _worst(tracks: Sequence[Track], now: float) -> State:
    states = {track.state(now) for track in tracks}
    return next(state for state in _WORST if state in states)


def _status(tracks: Sequence[Track], now: float) -> str:
    """One word: ``unhealthy`` when it may not be asked at all, ``degraded`` when part of it may not,
    or it is ranked last."""
    blocked = [track.blocked_for(now) > 0 for track in tracks]
    if blocked[-1] or all(blocked):
        return "unhealthy"
    if any(blocked) or any(track.cooling(now) for track in tracks):
        return "degraded"
    return "healthy"


def _look(look: Look | None, now: float) -> dict[str, Any] | None:
    if look is None:
        return None
    return {
        "ago_s": round(max(0.0, now - look.at), 3),
        "verdict": look.verdict,
        "why": look.why,
        "took_ms": round(look.took_ms, 3),
    }


def _transitions(tracks: Sequence[tuple[str, Track]], now: float) -> list[dict[str, Any]]:
    steps = [(step.at, name, step) for name, track in tracks for step in track.timeline]
    steps.sort(key=lambda row: row[:2])
    return [
        {
            "ago_s": round(max(0.0, now - at), 3),
            "model": name or None,
            "from": step.before,
            "to": step.after,
            "why": step.why,
        }
        for at, name, step in steps[-_TOLD:]
    ]
