"""What a router made of a request: the bodies as the fake providers received them.

Shapes are those of the OpenAI chat, Responses and Anthropic APIs.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiproxy.conformance.claims import LIMITS

_AUTOS: Final = ("model", "tools", "reasoning", "reasoning_effort", "response_format", *LIMITS)


def tool_names(body: Any) -> tuple[str, ...]:
    """Return the names of the tools in a request body; a hosted tool's is its type."""
    tools = body.get("tools") if isinstance(body, dict) else None
    return tuple(map(_tool_name, tools)) if isinstance(tools, list) else ()


def _tool_name(tool: Any) -> str:
    if not isinstance(tool, dict):
        return str(tool)
    function = tool.get("function")
    inner = function.get("name") if isinstance(function, dict) else None
    return str(inner or tool.get("name") or tool.get("type"))


def left_auto(body: Any) -> tuple[str, ...]:
    """Return the members that still say auto, which no provider understands."""
    if not isinstance(body, dict):
        return ("the whole body",)
    return tuple(name for name in _AUTOS if body.get(name) in ("auto", "provider-adaptive"))


def token_limit(body: Any) -> object:
    """Return the token limit of a request body, or nothing."""
    found = (body.get(name) for name in LIMITS) if isinstance(body, dict) else ()
    return next((value for value in found if value is not None), None)


def reasons(body: Any) -> bool:
    """Return whether a request body asks the provider's own reasoning of it."""
    names = ("reasoning", "reasoning_effort", "thinking")
    return isinstance(body, dict) and any(body.get(name) not in (None, "auto") for name in names)


def turns(body: Any) -> list[tuple[str, str]]:
    """Return (role, text) of each turn; a system text that stands apart comes first."""
    if not isinstance(body, dict):
        return []
    found = [("system", text) for text in _texts(body.get("system", body.get("instructions")))]
    listed = body.get("messages", body.get("input"))
    if isinstance(listed, str):
        return [*found, ("user", listed)]
    for turn in listed if isinstance(listed, list) else ():
        if isinstance(turn, dict):
            texts = "".join(_texts(turn.get("content")))
            found.append((str(turn.get("role", turn.get("type"))), texts))
    return found


@dataclass(frozen=True, slots=True)
class Use:
    """A tool call in the history of a request."""

    call: object
    name: object
    arguments: object


@dataclass(frozen=True, slots=True)
class Result:
    """A tool's result in the history of a request."""

    call: object
    text: str


def exchanged(body: Any) -> tuple[list[Use], list[Result]]:
    """Return the tool calls and the results in the messages of a chat or Anthropic request."""
    uses: list[Use] = []
    results: list[Result] = []
    messages = body.get("messages") if isinstance(body, dict) else None
    for turn in _objects(messages):
        for call in _objects(turn.get("tool_calls")):
            function = call.get("function") or {}
            uses.append(Use(call.get("id"), function.get("name"), _json(function.get("arguments"))))
        if turn.get("role") == "tool":
            results.append(Result(turn.get("tool_call_id"), json.dumps(turn.get("content"))))
        for block in _objects(turn.get("content")):
            if block.get("type") == "tool_use":
                uses.append(Use(block.get("id"), block.get("name"), block.get("input")))
            elif block.get("type") == "tool_result":
                results.append(Result(block.get("tool_use_id"), json.dumps(block.get("content"))))
    return uses, results


def _json(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]


def additions(messages: Sequence[Mapping[str, Any]], body: Any) -> tuple[str, ...] | None:
    """Return the texts a router added to the client's ``messages``.

    ``None`` when a text of the client's is gone, altered or out of order: then it was no addition.
    A system text may have moved into a field of its own, and may have been added to.
    """
    left = turns(body)
    added: list[str] = []
    for message in messages:
        said = "".join(_texts(message.get("content")))
        place = next((i for i, (_, text) in enumerate(left) if said in text), None)
        if place is None:
            return None
        added += [text for _, text in left[:place]]
        rest = left[place][1].replace(said, "", 1).strip()
        added += [rest] if rest else []
        left = left[place + 1 :]
    return tuple(added + [text for _, text in left])
