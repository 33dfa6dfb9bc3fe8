"""What a member answered, in the form in which answers are compared, and whether it counts.

The validator of an ensemble (UNI-ENS-010): an answer that is empty, or has not the shape the client
asked for, is no vote.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from aiproxy.middleware.auto.answer_check import MOST_TEXT, unfenced
from aiproxy.middleware.auto.answer_schema import AnswerSchema, compiled
from aiproxy.middleware.auto.shapes import shape_of
from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Choice,
    MalformedReply,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)
from aiproxy.middleware.dialects.codecs import decode_reply
from aiproxy.middleware.ensembles.likeness import (
    Form,
    calls_form,
    json_form,
    refusal_form,
    text_form,
)

#: How much an answer is worth by itself: whole, cut short, or none at all.
WHOLE: Final = 1.0
CUT: Final = 0.5
NONE: Final = 0.0
_DECLINED: Final = "content_filter"


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape the client asked for; no ``schema`` where any JSON will do, or it cannot be
    checked here."""

    kind: str
    schema: AnswerSchema | None


@dataclass(frozen=True, slots=True)
class Given:
    """An answer that was understood. ``text`` is what a person would read of it; ``quality`` is
    what it is worth by itself (0..1); ``fault`` says why it does not count."""

    form: Form
    text: str
    quality: float
    fault: str | None = None


def wanted_shape(request: CanonicalRequest) -> Shape | None:
    """Return the shape that answers have to have, ``None`` where any text will do."""
    wanted = shape_of(request)
    if wanted is None:
        return None
    schema = None if wanted.schema is None else compiled(wanted.schema)
    return Shape(wanted.kind, schema)


def read(endpoint: str, body: Mapping[str, Any], shape: Shape | None) -> Given:
    """Return the answer a document holds; ``body`` is in the dialect of the client's endpoint."""
    try:
        return judged(decode_reply(endpoint, body, {}).choices[0], shape)
    except (MalformedReply, RecursionError, IndexError):  # such as one that nests too deeply
        return Given(refusal_form(), "", NONE, "unreadable")


def judged(choice: Choice, shape: Shape | None) -> Given:
    """Return an answer with what it is worth."""
    text = "".join(part.text for part in choice.parts if isinstance(part, Text))
    calls = [part for part in choice.parts if isinstance(part, ToolCall)]
    if choice.finish_reason == _DECLINED or (
        any(isinstance(part, Refusal) for part in choice.parts) and not (text or calls)
    ):
        said = "".join(part.text for part in choice.parts if isinstance(part, Refusal))
        return Given(refusal_form(), said or text, NONE)
    quality = CUT if choice.finish_reason == "length" else WHOLE
    if calls:
        made = [(call.name, _arguments(call.arguments)) for call in calls]
        return Given(calls_form(made), text or _told(calls), quality)
    if not text.strip():
        more = [part for part in choice.parts if not isinstance(part, Reasoning | Text | Refusal)]
        return Given(text_form(""), "", NONE, None if more else "empty")
    if shape is None and len(text) > MOST_TEXT:
        return Given(text_form(text), text, quality)
    value = _json(text)
    if shape is None:
        structured = isinstance(value, dict | list)
        return Given(json_form(value) if structured else text_form(text), text, quality)
    fault = _shape_fault(value, shape)
    plain = value is _NO_JSON or len(text) > MOST_TEXT
    form = text_form(text) if plain else json_form(value)
    return Given(form, text, NONE if fault else quality, fault)


def _shape_fault(value: Any, shape: Shape) -> str | None:
    if value is _NO_JSON:
        return "not_json"
    if shape.kind == "json_object" and not isinstance(value, dict):
        return "not_json"
    if shape.schema is not None and shape.schema.fault(value) is not None:
        return "breaks_schema"
    return None


_NO_JSON: Final = object()


def _json(text: str) -> Any:
    """The JSON value of a text that is one, fenced or not."""
    try:
        return orjson.loads(unfenced(text))
    except orjson.JSONDecodeError:
        return _NO_JSON


def _arguments(raw: str) -> Any:
    """Arguments as a JSON value; those of a tool that takes free text as that text."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.strip()


def _told(calls: list[ToolCall]) -> str:
    return "\n".join(f"{call.name}({call.arguments})" for call in calls)
