"""Tools and the choice among them, in the flat form of this dialect, both ways."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Loss,
    Tool,
    ToolChoice,
    Untranslatable,
)
from aiproxy.middleware.dialects.chat import decode_tools as decode_nested_tools
from aiproxy.middleware.dialects.losses import strangers
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.responses.vocabulary import DIALECT

#: Requests whose hosted tools are those of this API.
_OWN: Final = frozenset({DIALECT, "draft"})


def decode_tools(tools: object) -> tuple[Tool, ...]:
    """Return the tools of a Responses ``tools`` member; ``"auto"`` and null give none.

    Function tools are flat here; the nested chat form is understood as well, because the
    draft's examples use it on this route.
    """
    if tools is None or tools == "auto":
        return ()
    found: list[Tool] = []
    for i, item in enumerate(reading.array(tools, "tools")):
        tool = reading.mapping(item, f"tools[{i}]")
        kind = reading.word(tool.get("type"))
        if kind in ("function", "custom") and isinstance(tool.get(kind), Mapping):
            found += decode_nested_tools([tool])
        elif kind == "function":
            found.append(
                Tool(
                    reading.text(tool.get("name"), f"tools[{i}].name"),
                    "function",
                    tool.get("description"),
                    tool.get("parameters"),
                    reading.flag(tool, "strict"),
                    extra=reading.rest(tool, words("type name description parameters strict")),
                )
            )
        elif kind == "custom":
            shape = tool.get("format")
            if shape is not None:
                shape = reading.mapping(shape, f"tools[{i}].format")
            found.append(
                Tool(
                    reading.text(tool.get("name"), f"tools[{i}].name"),
                    "custom",
                    tool.get("description"),
                    definition=shape,
                    extra=reading.rest(tool, words("type name description format")),
                )
            )
        else:
            found.append(Tool(str(kind), "hosted", definition=tool))
    return tuple(found)


def decode_choice(choice: object) -> ToolChoice | None:
    """Return the choice of a ``tool_choice`` member."""
    if choice is None:
        return None
    if choice == "auto":
        return ToolChoice("auto")
    if choice == "none":
        return ToolChoice("none")
    if choice == "required":
        return ToolChoice("required")
    given = reading.mapping(choice, "tool_choice")
    kind = str(given.get("type"))
    if kind in ("function", "custom"):
        inner = given.get(kind)
        holder = inner if isinstance(inner, Mapping) else given
        return ToolChoice(
            "tool", str(holder.get("name")), "custom" if kind == "custom" else "function"
        )
    if kind == "allowed_tools":
        tools = tuple(t for t in reading.objects(given.get("tools")) if isinstance(t, Mapping))
        return ToolChoice("allowed", allowed=tools, mode_within=str(given.get("mode", "auto")))
    return ToolChoice("hosted", kind, definition=given)


def encode_tools(request: CanonicalRequest, body: dict[str, Any], losses: list[Loss]) -> None:
    """Write the tools of a request and the choice among them into ``body``.

    Raises:
        Untranslatable: a tool must be chosen that cannot be offered.
    """
    native = request.source == DIALECT
    tools: list[dict[str, Any]] = []
    for tool in request.tools:
        if tool.kind != "hosted":
            if not native:
                strangers(losses, tool.extra, "tool_members", DIALECT)
            tools.append(encode_tool(tool, native))
        elif tool.definition is not None and request.source in _OWN:
            tools.append(dict(tool.definition))
        else:
            losses.append(Loss("hosted_tool", f"{tool.name} is not known to the Responses API"))
    if tools:
        body["tools"] = tools
    choice = request.tool_choice
    if choice is not None and choice.mode == "hosted" and request.source not in _OWN:
        raise Untranslatable(
            "tool_choice", f"the Responses API cannot be made to use {choice.name}"
        )
    if choice is not None and (tools or native):
        body["tool_choice"] = encode_choice(choice)
    elif choice is not None and request.tools and choice.mode in ("required", "tool", "allowed"):
        raise Untranslatable("tool_choice", "no tool the model must choose from can be offered")
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls


def encode_tool(tool: Tool, whole: bool = True) -> dict[str, Any]:
    """Return a tool in the flat form; ``whole`` keeps members only its dialect knows.

    ``strict`` is always written for functions: this API takes a missing one for true, chat
    takes it for false.
    """
    extra = dict(tool.extra) if whole else {}
    if tool.kind == "hosted":
        return dict(tool.definition or {"type": tool.name})
    flat: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        flat["description"] = tool.description
    if tool.kind == "custom":
        if tool.definition is not None:
            flat["format"] = tool.definition
        return {"type": "custom", **flat, **extra}
    flat["parameters"] = tool.parameters
    if tool.strict is not None:
        flat["strict"] = tool.strict
    elif not whole:
        flat["strict"] = False
    if tool.parameters is None and not whole:
        flat["parameters"] = {"type": "object", "properties": {}}
    return {"type": "function", **flat, **extra}


def encode_choice(choice: ToolChoice) -> Any:
    """Return a ``tool_choice`` in the flat form."""
    if choice.mode == "tool":
        kind = "custom" if choice.kind == "custom" else "function"
        return {"type": kind, "name": choice.name}
    if choice.mode == "allowed":
        allowed = [dict(tool) for tool in choice.allowed]
        return {"type": "allowed_tools", "mode": choice.mode_within, "tools": allowed}
    if choice.mode == "hosted":
        return dict(choice.definition or {"type": choice.name})
    return choice.mode
