"""The router's own image model: what colour a picture has. It takes the picture itself, as base64."""

import zlib
from base64 import b64decode
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

from right_server import Refusal

if TYPE_CHECKING:
    from right_router.serving import Exchange, RightRouter

NAME, PROVIDER = "own-colours", "own"
CAPABILITIES = ["image-classification"]
COLOURS = ("red", "green", "blue")
CREATED = 1_700_000_000
BLACK = b"IDAT" + zlib.compress(bytes(4))
_turn = count()


def capabilities(router: "RightRouter") -> list[str]:
    """Return what the model is said to take; texts, too, is as right as pictures alone."""
    return [*CAPABILITIES, "embeddings"] if router.has("colours-take-texts") else CAPABILITIES


def entry() -> dict[str, Any]:
    """Return the model's entry in GET /v1/models."""
    row = {"name": PROVIDER, "available": True, "cost_per_1k_tokens": 0.0, "avg_latency_ms": None}
    return {
        "id": NAME,
        "object": "model",
        "created": CREATED,
        "owned_by": PROVIDER,
        "providers": [row],
    }


def answer(exchange: "Exchange", given: Any) -> dict[str, Any]:
    """Return the prediction for the input of a request.

    Raises:
        Refusal: 400, it is no picture.
    """
    router = exchange.router
    rows: list[Any] = [
        {"label": name, "score": share} for name, share in shares(picture(router, given))
    ]
    rows.sort(key=lambda row: row["score"], reverse=not router.has("labels-rising"))
    if router.has("labels-change"):
        rows[0]["label"] = f"colour {next(_turn)}"
    if router.has("scores-in-percent"):
        rows = [{**row, "score": row["score"] * 100} for row in rows]
    output: Any = rows
    if router.has("labels-as-object"):
        output = {row["label"]: row["score"] for row in rows}
    return {
        "request_id": exchange.request_id,
        "model": NAME,
        "output": output,
        "metadata": {
            "provider": PROVIDER,
            "node_id": router.settings.node,
            "latency_ms": 0.1,
            "tokens": {"input": 0, "output": 0, "total": 0},
            "cost": {"amount": 0.0, "currency": "USD"},
            "routing": {
                "strategy_used": router.settings.strategy,
                "providers_tried": [PROVIDER],
                "failovers": 0,
                "reason": "explicit_model",
            },
        },
    }


def picture(router: "RightRouter", given: Any) -> bytes:
    """Return the octets of the picture that an input holds."""
    image = given.get("image") if isinstance(given, dict) else None
    if not isinstance(image, str):
        if router.has("texts-are-pictures") or router.has("colours-take-texts"):
            return BLACK
        raise Refusal(400, "unsupported_capability", "the model takes an image", "input")
    if image.startswith("http"):
        if router.has("addresses-fetched"):
            fetch(image)
        if router.has("addresses-are-pictures"):
            return BLACK
        raise Refusal(400, "unsupported_parameter", "send the image itself", "input.image")
    try:
        return b64decode(image.rpartition(",")[2], validate=True)
    except ValueError:
        raise Refusal(400, "invalid_value", "not base64", "input.image") from None


def fetch(address: str) -> None:
    with suppress(URLError, OSError, ValueError), urlopen(address, timeout=5) as found:
        found.read()


def shares(png: bytes) -> list[tuple[str, float]]:
    """Return each colour with its share of the light in an eight-bit RGB picture."""
    begin = png.find(b"IDAT") + 4
    try:
        lines = zlib.decompressobj().decompress(png[begin:])
    except zlib.error:
        raise Refusal(400, "invalid_value", "not a picture", "input.image") from None
    length = 1 + len(COLOURS) * int.from_bytes(png[16:20])
    light = [1] * len(COLOURS)
    for start in range(1, len(lines), length):
        for place in range(len(COLOURS)):
            light[place] += sum(lines[start + place : start + length - 1 : len(COLOURS)])
    return [(name, each / sum(light)) for name, each in zip(COLOURS, light, strict=True)]
