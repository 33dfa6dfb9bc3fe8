"""Answers in a shape: what a provider holds itself, and what it is only asked for.

A provider whose dialect and model know the asked shape gets it as it is. Any other one is asked in
words, with the nearest shape it knows, and its answer is held to the schema before the client gets
it as conforming (XAI-AUTO-007, XAI-AUTO-024).
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from aiproxy.middleware.dialects.canonical import CanonicalRequest, Json, Loss, ResponseFormat, Turn
from aiproxy.middleware.dialects.canonical import Text as TextPart
from aiproxy.middleware.registry import Model

#: The shapes that bind an answer, from the most to the least.
SHAPES: Final = ("json_schema", "json_object")
_MARK: Final = "[aiproxy: answer format]"
_BARE: Final = (
    f"{_MARK} Answer with one JSON object and nothing else: no text before or after it, no code "
    "fence."
)
_SCHEMA: Final = (
    f"{_MARK} Answer with one JSON value and nothing else: no text before or after it, no code "
    "fence. It has to satisfy this JSON Schema:\n"
)


def shape_of(request: CanonicalRequest) -> ResponseFormat | None:
    """Return the shape an answer has to have, ``None`` where any text will do."""
    wanted = request.response_format
    return wanted if wanted is not None and wanted.kind in SHAPES else None


def known_shape(model: Model, kind: str) -> str | None:
    """Return the most binding shape up to ``kind`` that a model takes by its operator's word;
    without a word every one is taken to be."""
    if model.response_formats is None:
        return kind
    place = SHAPES.index(kind)
    return next((shape for shape in SHAPES[place:] if shape in model.response_formats), None)


def sent_shape(body: Mapping[str, Any]) -> str | None:
    """Return the shape an encoded body asks its provider for, in whatever dialect."""
    config = body.get("generationConfig")
    if isinstance(config, Mapping):
        if any(config.get(name) for name in ("responseJsonSchema", "responseSchema")):
            return "json_schema"
        return "json_object" if config.get("responseMimeType") == "application/json" else None
    for holder, name in (("text", "format"), ("output_config", "format")):
        inner = body.get(holder)
        if isinstance(inner, Mapping) and isinstance(inner.get(name), Mapping):
            return _kind(inner[name])
    for name in ("response_format", "output_format"):
        if isinstance(body.get(name), Mapping):
            return _kind(body[name])
    return None


def _kind(shape: Json) -> str | None:
    if shape.get("schema") or shape.get("json_schema"):
        return "json_schema"
    kind = shape.get("type")
    return kind if kind in SHAPES else None


def instruction(wanted: ResponseFormat) -> str:
    """Return the words that ask for a shape."""
    if wanted.kind == "json_schema" and wanted.schema is not None:
        return _SCHEMA + orjson.dumps(wanted.schema).decode()
    return _BARE


def turn(text: str) -> Turn:
    """Return a marked turn of ours; the client's own text is never edited."""
    return Turn("system", (TextPart(text),), form="string")


def loss(wanted: ResponseFormat, sent: str | None) -> Loss:
    """Return what is declared of an adapted shape."""
    how = f"asked for as {sent} and in words" if sent else "asked for in words"
    return Loss(
        "response_format", f"{wanted.kind} is {how}; the answer is checked before it counts"
    )
