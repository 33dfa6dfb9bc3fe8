"""Whole answers in: what ``/run/{model}`` gave, to the canonical form."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiproxy.middleware.dialects import chat, observe, responses, usage
from aiproxy.middleware.dialects.canonical import CanonicalReply, Json, MalformedReply, Usage
from aiproxy.middleware.dialects.workers_ai.shapes import (
    calls,
    fault,
    said,
    unwrapped,
    with_nested_calls,
)
from aiproxy.middleware.dialects.workers_ai.vocabulary import DIALECT


def check_reply(body: Mapping[str, Any]) -> str | None:
    """Return why a 200 body is no answer, or ``None`` when it is one."""
    found = fault(body)
    if found is not None:
        return found
    result = unwrapped(body)
    if isinstance(result.get("choices"), list):
        return observe.check_reply("chat", result)
    if isinstance(result.get("output"), list):
        return observe.check_reply("responses", result)
    if "response" not in result and not calls(result):
        return "the result holds no response"
    return None


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply."""
    return usage.read_usage(unwrapped(body).get("usage"))


def decode_reply(body: Mapping[str, Any]) -> CanonicalReply:
    """Return the canonical reply of a ``/run`` answer in any of its shapes.

    The older shape has no finish reason: it reads as ``stop``, or ``tool_calls``.

    Raises:
        MalformedReply: errors, nothing said, or an answer that broke off.
    """
    found = check_reply(body)
    if found is not None:
        raise MalformedReply(found)
    result = unwrapped(body)
    if isinstance(result.get("output"), list) and not isinstance(result.get("choices"), list):
        return replace(responses.decode_reply(result), source=DIALECT)
    return replace(chat.decode_reply(_as_chat(result)), source=DIALECT)


def _as_chat(result: Json) -> Json:
    choices = result.get("choices")
    if isinstance(choices, list):
        return {**result, "choices": [_choice(choice) for choice in choices]}
    message = {"content": said(result) or None, "tool_calls": calls(result) or None}
    choice = {"index": 0, "message": message, "finish_reason": result.get("finish_reason")}
    return {"choices": [choice], "usage": result.get("usage")}


def _choice(choice: Any) -> Any:
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        return choice
    return {**choice, "message": with_nested_calls(message)}
