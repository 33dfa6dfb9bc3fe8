"""Reading requests as strictly as the providers do: small checks that raise a ``Refusal``."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aiproxy.conformance.rig.http1 import Request
from aiproxy.conformance.rig.shapes.speech import Refusal

OPENAI_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def bearer(request: Request) -> str:
    """Return the token of the Authorization field, empty when there is none."""
    scheme, _, token = request.header("authorization").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def json_object(request: Request) -> dict[str, Any]:
    """Return the body.

    Raises:
        Refusal: it is no JSON object, or is not declared as JSON.
    """
    if "json" not in request.header("content-type").lower():
        raise Refusal(415, "the Content-Type must be application/json")
    try:
        value = json.loads(request.body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refusal(400, "could not parse the JSON body of the request") from None
    if not isinstance(value, dict):
        raise Refusal(400, "the body must be a JSON object")
    return value


def need(holds: object, message: str, param: str | None = None, status: int = 400) -> None:
    """Refuse unless ``holds``."""
    if not holds:
        raise Refusal(status, message, param=param)


def known_only(
    given: Mapping[str, Any], names: Collection[str], words: str, *, status: int = 400
) -> None:
    """Refuse a member that is none of ``names``; ``words`` has a place for its ``{name}``."""
    for name in given:
        need(name in names, words.format(name=name), name, status)


def model_of(body: Mapping[str, Any], known: str) -> str:
    """Return the model asked for.

    Raises:
        Refusal: 400 without a name, 404 for any but ``known``.
    """
    name = body.get("model")
    need(isinstance(name, str) and name, "you must provide a model parameter", "model")
    if name != known:
        raise Refusal(
            404, "the model does not exist or you have no access", code="model_not_found",
            param="model",
        )  # fmt: skip
    return known


def flag(body: Mapping[str, Any], name: str) -> bool:
    """Return an optional boolean member."""
    value = body.get(name)
    need(value is None or isinstance(value, bool), f"{name} must be a boolean", name)
    return bool(value)


def count(body: Mapping[str, Any], *names: str) -> int | None:
    """Return the first given of some members that are positive integers."""
    found = None
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        right = isinstance(value, int) and not isinstance(value, bool) and value > 0
        need(right, f"{name} must be a positive integer", name)
        found = value if found is None else found
    return found


def between(body: Mapping[str, Any], name: str, least: float, most: float) -> None:
    """Refuse a number outside its range."""
    value = body.get(name)
    if value is not None:
        right = isinstance(value, int | float) and not isinstance(value, bool)
        need(right and least <= value <= most, f"{name} must be from {least} to {most}", name)


def objects(value: Any, name: str) -> list[dict[str, Any]]:
    """Return a list that must be there, hold something, and hold objects only."""
    need(isinstance(value, list) and value, f"{name} must be a non-empty array", name)
    for place, one in enumerate(value):
        need(isinstance(one, dict), f"{name}[{place}] must be an object", f"{name}[{place}]")
    return list(value)


def function_of(tool: Mapping[str, Any], at: str) -> dict[str, Any]:
    """Return the function of a nested tool definition (OpenAI chat, Mistral, Cohere)."""
    need(tool.get("type") == "function", f"{at}.type must be 'function'", f"{at}.type")
    function = tool.get("function")
    right = isinstance(function, dict) and isinstance(function.get("name"), str)
    need(right, f"missing required parameter: {at}.function.name", f"{at}.function.name")
    assert isinstance(function, dict)
    parameters = function.get("parameters", {})
    need(isinstance(parameters, dict), f"{at}.function.parameters must be an object", at)
    return function


def nested_tools(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schemas of the tools' arguments by name, of nested tool definitions."""
    if body.get("tools") is None:
        return {}
    tools = objects(body["tools"], "tools")
    functions = [function_of(tool, f"tools[{place}]") for place, tool in enumerate(tools)]
    return {function["name"]: function.get("parameters", {}) for function in functions}


def insisted(tools: Mapping[str, Any], choice: Any, words: Sequence[str]) -> tuple[str, Any] | None:
    """Return the tool a client insists on: any for one of ``words``, else the one it names."""
    name = choice
    if isinstance(choice, dict):
        function = choice.get("function", choice)
        name = function.get("name") if isinstance(function, dict) else None
    elif choice in words:
        name = next(iter(tools), None)
    else:
        return None
    need(name in tools, "tool_choice names no tool of this request", "tool_choice")
    return str(name), tools[str(name)]


def turns(messages: Sequence[Mapping[str, Any]], roles: Sequence[str]) -> None:
    """Check chat messages: roles, contents, and that each tool call is answered in its place."""
    waiting: set[str] = set()
    for place, message in enumerate(messages):
        at, role = f"messages[{place}]", message.get("role")
        need(role in roles, f"{at}.role is none of {', '.join(roles)}", f"{at}.role")
        if role == "tool":
            known = message.get("tool_call_id")
            need(known in waiting, f"{at}: no preceding tool call has this tool_call_id", at)
            waiting.discard(str(known))
        else:
            need(not waiting, "a tool call is not followed by its tool message", at)
        calls = message.get("tool_calls") if role == "assistant" else None
        waiting |= _call_ids(calls, at)
        _content(message, at, optional=bool(calls) or role == "assistant")
    need(not waiting, "a tool call is not followed by its tool message", "messages")


def _call_ids(calls: Any, at: str) -> set[str]:
    if calls is None:
        return set()
    found = set()
    for call in objects(calls, f"{at}.tool_calls"):
        function = call.get("function")
        right = isinstance(function, dict) and isinstance(function.get("arguments"), str)
        need(right, "the arguments of a tool call must be a string", f"{at}.tool_calls")
        need(isinstance(call.get("id"), str), "a tool call needs an id", f"{at}.tool_calls")
        found.add(call["id"])
    return found


def _content(message: Mapping[str, Any], at: str, *, optional: bool) -> None:
    content = message.get("content")
    if content is None:
        need(optional, f"{at}.content must not be null", f"{at}.content")
        return
    if isinstance(content, str):
        return
    for part in objects(content, f"{at}.content"):
        need(isinstance(part.get("type"), str), f"{at}.content: a part needs a type", at)
