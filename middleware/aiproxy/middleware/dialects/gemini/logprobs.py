"""``logprobsResult`` and per-token objects, both ways."""

from collections.abc import Iterable, Mapping
from typing import Any

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import Json


def tokens_of(result: object) -> tuple[Json, ...]:
    """Return the per-token objects of a ``logprobsResult``; anything else has none."""
    if not isinstance(result, Mapping):
        return ()
    tops = reading.objects(result.get("topCandidates"))
    made: list[Json] = []
    for i, chosen in enumerate(reading.objects(result.get("chosenCandidates"))):
        others = reading.objects(tops[i].get("candidates")) if i < len(tops) else []
        made.append({**_token(chosen), "top_logprobs": [_token(other) for other in others]})
    return tuple(made)


def _token(candidate: Json) -> dict[str, Any]:
    token = reading.optional(candidate.get("token")) or ""
    value = candidate.get("logProbability")
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else -9999.0
    return {"token": token, "logprob": number, "bytes": list(token.encode("utf-8", "replace"))}


def logprobs_result(tokens: Iterable[Json]) -> dict[str, Any] | None:
    """Return the ``logprobsResult`` of per-token objects, ``None`` when there are none."""
    chosen: list[dict[str, Any]] = []
    tops: list[dict[str, Any]] = []
    for token in tokens:
        chosen.append(_candidate(token))
        tops.append(
            {"candidates": [_candidate(t) for t in reading.objects(token.get("top_logprobs"))]}
        )
    return {"chosenCandidates": chosen, "topCandidates": tops} if chosen else None


def _candidate(token: Json) -> dict[str, Any]:
    return {"token": token.get("token", ""), "logProbability": token.get("logprob", 0.0)}
