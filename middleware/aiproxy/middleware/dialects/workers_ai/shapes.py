"""The two shapes of Workers AI answers brought to the one of chat completions."""

from collections.abc import Mapping
from typing import Any

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import Json


def unwrapped(body: Json) -> Json:
    """Return what is inside ``result``, or the body itself where nothing wraps it."""
    result = body.get("result")
    return result if isinstance(result, Mapping) else body


def fault(body: Json) -> str | None:
    """Return why a body reports a failure, in our words, or ``None``."""
    if body.get("success") is False:
        return "the body reports no success"
    if body.get("errors"):
        return "the body holds errors"
    if body.get("error"):
        return "the body holds an error object"
    return None


def said(result: Json) -> str:
    """Return the text of ``response``; structured output comes as an object there."""
    response = result.get("response")
    if isinstance(response, str):
        return response
    return "" if response is None else reading.arguments_text(response)


def calls(result: Json) -> list[dict[str, Any]]:
    """Return the ``tool_calls`` of a result in the nested form.

    Older models write ``{name, arguments}``; some streams end with a call of nulls.
    """
    found = []
    for i, call in enumerate(reading.objects(result.get("tool_calls"))):
        written = nested(call, i)
        if written is not None:
            found.append(written)
    return found


def nested(call: Json, place: int) -> dict[str, Any] | None:
    """Return a call in the nested form, ``None`` for one that says nothing."""
    inner = call.get("function")
    function = inner if isinstance(inner, Mapping) else call
    name, arguments = reading.word(function.get("name")), function.get("arguments")
    identity = reading.word(call.get("id"))
    if not identity and not name and arguments in (None, ""):
        return None
    index = call.get("index")
    written: dict[str, Any] = {
        "index": index if isinstance(index, int) and index >= 0 else place,
        "type": "function",
        "function": {"name": name, "arguments": reading.arguments_text(arguments)},
    }
    if identity:
        written["id"] = identity
    return written


def with_nested_calls(holder: Json) -> Json:
    """Return a message or delta whose calls are all in the nested form."""
    if not isinstance(holder.get("tool_calls"), list):
        return holder
    return {**holder, "tool_calls": calls(holder)}
