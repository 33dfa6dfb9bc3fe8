"""How an event stream ended, in any of the shapes a target may stream.

A stream is complete when it named a reason to finish; the end mark alone says nothing. A client
that got an error object knows that the answer is broken.
"""

from collections.abc import Iterator
from typing import Any, Final

from aiproxy.conformance.reply import Reply

LEGAL_FINISH: Final = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_TERMINAL: Final = ("response.completed", "response.incomplete")


def finish_of(reply: Reply) -> str:
    """Return why the stream says it ended, or nothing.

    That is the last ``finish_reason`` of a choice, or the name of the Responses API's last event.
    """
    found = ""
    for body in _bodies(reply):
        for choice in _objects(body.get("choices")):
            found = choice.get("finish_reason") or found
        if body.get("type") in _TERMINAL:
            found = found or body["type"]
    return found if isinstance(found, str) else repr(found)


def error_of(reply: Reply) -> dict[str, Any]:
    """Return the error object of the last event that is no end mark; empty when it has none."""
    last = next((e for e in reversed(reply.events) if not e.done), None)
    body = last.json if last is not None else None
    if not isinstance(body, dict):
        return {}
    for holder in (body, body.get("response")):
        error = holder.get("error") if isinstance(holder, dict) else None
        if isinstance(error, dict):
            return error
    return body if body.get("type") == "error" else {}


def done(reply: Reply) -> bool:
    """Return whether the last event is the end mark."""
    return bool(reply.events) and reply.events[-1].done


def usages(reply: Reply) -> list[dict[str, Any]]:
    """Return the usage objects of the events, in order."""
    return [body["usage"] for body in _bodies(reply) if isinstance(body.get("usage"), dict)]


def shown(reply: Reply) -> str:
    """Return the end of a stream, for a finding."""
    if not reply.events:
        return f"{reply.outcome} ({reply.answer.incomplete or 'no events'})"
    last = " | ".join(event.data[:90] for event in reply.events[-2:])
    return f"…{last} ({reply.answer.incomplete or 'end'})"


def _bodies(reply: Reply) -> Iterator[dict[str, Any]]:
    yield from (event.json for event in reply.events if isinstance(event.json, dict))


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
