"""Tools for APIs that know functions and nothing else, and the ids that pair calls with results."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Json,
    Loss,
    Tool,
    ToolCall,
    ToolKind,
    ToolResult,
    Untranslatable,
)
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.reading import word

Mode = Literal["auto", "none", "required"]

_EMPTY: Final[Json] = {"type": "object", "properties": {}}
_UNMEETABLE: Final = "no tool the model must choose from can be offered"


@dataclass(frozen=True, slots=True)
class Offer:
    """The functions to offer and what the model must do with them.

    ``name`` is the one that must be called, where the request names one.
    """

    tools: tuple[Tool, ...]
    mode: Mode | None = None
    name: str | None = None

    def only(self) -> "Offer":
        """Return the offer without its name: for APIs that can require a call but not whose."""
        if self.name is None:
            return self
        return Offer(tuple(t for t in self.tools if t.name == self.name), "required")


def offer(request: CanonicalRequest, api: str, losses: list[Loss]) -> Offer:
    """Return what of the tools of a request can be offered to ``api``, a name for people.

    A choice among allowed tools leaves the others out: to the model it is the same.

    Raises:
        Untranslatable: a tool must be called that cannot be offered.
    """
    tools = [t for t in request.tools if t.kind in ("function", "legacy_function")]
    for tool in request.tools:
        if tool.kind == "hosted":
            note(losses, [Loss("hosted_tool", f"{api} has no hosted tool {tool.name}")])
        elif tool.kind == "custom":
            note(losses, [Loss("custom_tool", f"{api} has no tools with free text input")])
    choice = request.tool_choice
    if choice is None:
        return Offer(tuple(tools))
    if choice.mode == "hosted":
        raise Untranslatable("tool_choice", f"{api} cannot be made to use {choice.name}")
    if choice.mode == "tool":
        if all(tool.name != choice.name for tool in tools):
            raise Untranslatable("tool_choice", _UNMEETABLE)
        return Offer(tuple(tools), "required", choice.name)
    mode: Mode
    if choice.mode == "allowed":
        names = {word(tool.get("name")) for tool in choice.allowed}
        tools = [tool for tool in tools if tool.name in names]
        mode = "required" if choice.mode_within == "required" else "auto"
    else:
        mode = choice.mode
    if mode == "required" and not tools:
        raise Untranslatable("tool_choice", _UNMEETABLE)
    return Offer(tuple(tools), mode if tools else None)


def tool_kinds(request: CanonicalRequest) -> dict[str, ToolKind]:
    """Return the kinds of the tools of a request that are no plain functions, by name."""
    kinds: dict[str, ToolKind] = {}
    for tool in request.tools:
        if tool.kind == "custom" or tool.kind == "legacy_function":
            kinds[tool.name] = tool.kind
    return kinds


def nested(tool: Tool) -> dict[str, Any]:
    """Return ``{type: function, function: {name, description?, parameters}}``."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.parameters if tool.parameters is not None else _EMPTY
    return {"type": "function", "function": function}


def nested_call(call: ToolCall, identity: str) -> dict[str, Any]:
    """Return ``{id, type: function, function: {name, arguments}}``; no arguments are ``{}``."""
    inner = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": identity, "type": "function", "function": inner}


class CallIds:
    """Ids for the calls of a conversation, also for those that came without.

    Old single function calls, and calls of some servers, have none: the result of such a call is
    the next one that names its function, or simply the next one.
    """

    __slots__ = ("_made", "_open")

    def __init__(self) -> None:
        self._made = 0
        self._open: list[tuple[str, str]] = []

    def of_call(self, call: ToolCall) -> str:
        """Return the id to write for ``call``."""
        if call.id:
            return call.id
        identity = f"call_{self._made}"
        self._made += 1
        self._open.append((call.name, identity))
        return identity

    def of_result(self, result: ToolResult) -> str:
        """Return the id to write for ``result``."""
        if result.call_id:
            return result.call_id
        for place, (name, identity) in enumerate(self._open):
            if result.name is None or name == result.name:
                del self._open[place]
                return identity
        return f"call_{self._made}"


def lose_members(holders: Iterable[Tool], api: str) -> Iterator[Loss]:
    """Yield the members of tools that only the client's dialect knows."""
    for tool in holders:
        for name, value in tool.extra.items():
            if value not in (None, "", [], {}):
                yield Loss(name, f"{api} has no such member of tools")
