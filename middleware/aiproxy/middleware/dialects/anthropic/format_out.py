"""The shape of the answer, by the strongest means the model has.

1. ``output_config.format``: the schema is enforced.
2. A tool whose input is the answer and whose call is demanded (``ANSWER_TOOL``): decoders turn its
   call back into text. Where the client offers tools too, any of them may be called.
3. Words in the system prompt: declared.
"""

from typing import Any, Final

from aiproxy.middleware.dialects.anthropic.models import Family
from aiproxy.middleware.dialects.anthropic.schema import closed, is_object, object_schema
from aiproxy.middleware.dialects.anthropic.vocabulary import ANSWER_TOOL, DIALECT, json_text
from aiproxy.middleware.dialects.canonical import CanonicalRequest, Json, Loss, ResponseFormat

_WORDS: Final = "Answer with one JSON value and nothing else: no other words and no code fence."
_ABOUT: Final = "Give the final answer by calling this tool; its input is the answer."


def encode_format(
    request: CanonicalRequest,
    family: Family,
    thinks: bool,
    body: dict[str, Any],
    losses: list[Loss],
) -> str | None:
    """Write the shape of the answer; return a sentence for the system prompt where that is all
    that can be done. Tools and their choice are written before."""
    wanted = request.response_format
    if wanted is None or wanted.kind in ("text", "auto"):
        return None
    if wanted.kind == "other":
        losses.append(Loss("response_format", "anthropic knows no such format"))
        return None
    schema = wanted.schema
    if schema is not None and wanted.kind == "json_schema" and family.schema:
        shape, told = (schema, set[str]()) if request.source == DIALECT else closed(schema)
        if shape is not None:
            if wanted.description is not None and "description" not in shape:
                shape = {**shape, "description": wanted.description}
            config = body.setdefault("output_config", {})
            config["format"] = {"type": "json_schema", "schema": shape}
            if told:
                words = ", ".join(sorted(told))
                losses.append(Loss("response_format", f"told but not enforced: {words}"))
            return None
    if _can_call(request, family, thinks, schema):
        _answer_by_call(wanted, schema, body)
        if wanted.strict or (request.source == DIALECT and schema is not None):
            losses.append(Loss("response_format", "the schema is asked for, not enforced"))
        return None
    losses.append(Loss("response_format", "JSON is asked for in words, not enforced"))
    if schema is None:
        return _WORDS
    return f"{_WORDS} It must match this JSON Schema: {json_text(dict(schema))}"


def _can_call(request: CanonicalRequest, family: Family, thinks: bool, schema: Json | None) -> bool:
    if schema is not None and not is_object(schema):
        return False
    if family.forced == "never":
        return False
    if family.forced == "unthinking" and thinks:
        return False
    choice = request.tool_choice
    # A call of the client's tools is wanted now: the answer comes in a later turn.
    return choice is None or choice.mode in ("auto", "none")


def _answer_by_call(wanted: ResponseFormat, schema: Json | None, body: dict[str, Any]) -> None:
    about = _ABOUT if wanted.description is None else f"{_ABOUT} {wanted.description}"
    shape = object_schema(schema) if schema else {"type": "object", "additionalProperties": True}
    tool = {"name": ANSWER_TOOL, "description": about, "input_schema": shape}
    given = body.get("tools", [])
    body["tools"] = [*given, tool]
    refused = body.get("tool_choice", {}).get("type") == "none"
    if given and not refused:
        body["tool_choice"] = {**body.get("tool_choice", {}), "type": "any"}
    else:
        body["tool_choice"] = {"type": "tool", "name": ANSWER_TOOL}
