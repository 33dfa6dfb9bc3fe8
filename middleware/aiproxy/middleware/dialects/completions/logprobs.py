"""Log probabilities: parallel lists here, one object a token in the canonical form."""

from collections.abc import Mapping, Sequence
from typing import Any

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import Json


def decode(value: object) -> tuple[Json, ...]:
    """Return the per-token objects of a ``logprobs`` member; the first of an echo has none."""
    if not isinstance(value, Mapping):
        return ()
    tokens, numbers = _list(value, "tokens"), _list(value, "token_logprobs")
    rivals = _list(value, "top_logprobs")
    found = []
    for i, token in enumerate(tokens):
        number = numbers[i] if i < len(numbers) else None
        if not isinstance(token, str) or not isinstance(number, int | float):
            continue
        top = rivals[i] if i < len(rivals) and isinstance(rivals[i], Mapping) else {}
        found.append(
            {
                **_one(token, number),
                "top_logprobs": [_one(t, n) for t, n in top.items() if isinstance(n, int | float)],
            }
        )
    return tuple(found)


def encode(tokens: Sequence[Json], offset: int = 0) -> dict[str, Any] | None:
    """Return the parallel lists of ``tokens``; ``offset`` counts the characters before them."""
    if not tokens:
        return None
    names: list[str] = []
    numbers: list[Any] = []
    rivals: list[dict[str, Any]] = []
    offsets: list[int] = []
    for token in tokens:
        name = reading.word(token.get("token"))
        names.append(name)
        numbers.append(token.get("logprob"))
        top = reading.objects(token.get("top_logprobs"))
        rivals.append({reading.word(t.get("token")): t.get("logprob") for t in top})
        offsets.append(offset)
        offset += len(name)
    return {
        "tokens": names,
        "token_logprobs": numbers,
        "top_logprobs": rivals if any(rivals) else None,
        "text_offset": offsets,
    }


def _one(token: str, number: float) -> dict[str, Any]:
    return {
        "token": token,
        "logprob": number,
        "bytes": list(token.encode("utf-8", "surrogatepass")),
    }


def _list(value: Json, name: str) -> list[Any]:
    found = value.get(name)
    return found if isinstance(found, list) else []
