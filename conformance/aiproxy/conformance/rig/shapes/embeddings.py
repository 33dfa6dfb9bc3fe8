"""OpenAI embeddings."""

import base64
import struct
from collections.abc import Mapping
from typing import Any, Final

from aiproxy.conformance.rig.shapes.requests import count, need
from aiproxy.conformance.rig.shapes.speech import Ask, Said

SIZE: Final = 16  # numbers in a vector, unless the request says otherwise


def read(body: Mapping[str, Any]) -> Ask:
    """Return what an embedding request asks.

    Raises:
        Refusal: it is malformed.
    """
    given = body.get("input")
    right = isinstance(given, str | list) and len(given) > 0
    need(right, "input must be a non-empty string or array", "input")
    count(body, "dimensions")
    known = body.get("encoding_format", "float") in ("float", "base64")
    need(known, "encoding_format must be float or base64", "encoding_format")
    return Ask("embeddings", body)


def whole(ask: Ask, said: Said) -> dict[str, Any]:
    """Return the vectors, in the encoding asked for."""
    packed = ask.body.get("encoding_format") == "base64"
    size = ask.body.get("dimensions") or SIZE
    rows = [
        {"object": "embedding", "index": place, "embedding": _encoded(vector, packed)}
        for place in range(inputs(ask.body.get("input")))
        for vector in (said.vector(place, size),)
    ]
    answer: dict[str, Any] = {"object": "list", "data": rows, "model": said.model}
    if said.usage is not None:
        prompt = said.count("prompt_tokens")
        answer["usage"] = {"prompt_tokens": prompt, "total_tokens": prompt}
    return {**answer, **said.extra}


def inputs(given: Any) -> int:
    """Return how many inputs there are: a string is one, and so is a list of token numbers."""
    return len(given) if isinstance(given, list) and not isinstance(given[0], int) else 1


def _encoded(vector: list[float], packed: bool) -> Any:
    if not packed:
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
