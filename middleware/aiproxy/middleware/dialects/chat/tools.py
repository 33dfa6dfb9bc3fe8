"""Tools and the choice among them, in the nested form of this dialect, both ways."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Json,
    Loss,
    Tool,
    ToolChoice,
    ToolKind,
    Untranslatable,
)
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT, is_native
from aiproxy.middleware.dialects.losses import strangers


def decode_tools(tools: object) -> tuple[Tool, ...]:
    """Return the tools of a chat ``tools`` member; ``"auto"`` and null give none."""
    if tools is None or tools == "auto":
        return ()
    found = []
    for i, item in enumerate(reading.array(tools, "tools")):
        tool = reading.mapping(item, f"tools[{i}]")
        kind = reading.word(tool.get("type"))
        inner = tool.get(kind) if isinstance(kind, str) else None
        extra = reading.rest(tool, ("type", str(kind)))
        if kind == "function":
            function = reading.mapping(inner, f"tools[{i}].function")
            found.append(_function_tool(function, f"tools[{i}].function", extra))
        elif kind == "custom" and isinstance(inner, Mapping):
            shape = inner.get("format")
            if shape is not None:
                shape = reading.mapping(shape, f"tools[{i}].custom.format")
                grammar = shape.get("grammar")
                if isinstance(grammar, Mapping):
                    shape = {"type": "grammar", **grammar}
            found.append(
                Tool(
                    reading.text(inner.get("name"), f"tools[{i}].custom.name"),
                    "custom",
                    inner.get("description"),
                    definition=shape,
                    extra=extra,
                )
            )
        else:
            found.append(Tool(str(kind), "hosted", definition=tool))
    return tuple(found)


def _function_tool(function: Json, path: str, extra: Json) -> Tool:
    return Tool(
        name=reading.text(function.get("name"), f"{path}.name"),
        description=function.get("description"),
        parameters=function.get("parameters"),
        strict=reading.flag(function, "strict"),
        extra=extra,
    )


def decode_functions(functions: object) -> Iterator[Tool]:
    """Yield the tools of the old ``functions`` member."""
    for i, item in enumerate([] if functions is None else reading.array(functions, "functions")):
        path = f"functions[{i}]"
        tool = _function_tool(reading.mapping(item, path), path, {})
        yield replace(tool, kind="legacy_function")


def decode_choice(body: Json) -> ToolChoice | None:
    """Return the choice of ``tool_choice``, or of the old ``function_call``."""
    choice, kind = body.get("tool_choice"), "function"
    if choice is None:
        choice, kind = body.get("function_call"), "legacy_function"
        if isinstance(choice, Mapping):
            return ToolChoice("tool", str(choice.get("name")), "legacy_function")
    if choice is None:
        return None
    if choice in ("auto", "none", "required"):
        return ToolChoice(choice, kind=_kind(kind))
    given = reading.mapping(choice, "tool_choice")
    kind = str(given.get("type"))
    inner = given.get(kind)
    if kind in ("function", "custom") and isinstance(inner, Mapping):
        return ToolChoice("tool", str(inner.get("name")), _kind(kind))
    if kind == "allowed_tools" and isinstance(inner, Mapping):
        allowed = tuple(_flat_allowed(t) for t in reading.objects(inner.get("tools")))
        return ToolChoice("allowed", allowed=allowed, mode_within=str(inner.get("mode", "auto")))
    return ToolChoice("hosted", kind, definition=given)


def _kind(word: str) -> ToolKind:
    kinds: dict[str, ToolKind] = {"custom": "custom", "legacy_function": "legacy_function"}
    return kinds.get(word, "function")


def _flat_allowed(tool: Json) -> Json:
    kind = str(tool.get("type"))
    inner = tool.get(kind)
    return {"type": kind, **inner} if isinstance(inner, Mapping) else tool


def encode_tools(request: CanonicalRequest, body: dict[str, Any], losses: list[Loss]) -> None:
    """Write the tools of a request and the choice among them into ``body``.

    Raises:
        Untranslatable: a tool must be chosen that cannot be offered.
    """
    tools: list[dict[str, Any]] = []
    functions: list[dict[str, Any]] = []
    native = is_native(request.source)
    for tool in request.tools:
        extra = tool.extra if native else {}
        if not native:
            strangers(losses, tool.extra, "tool_members", DIALECT)
        if tool.kind == "legacy_function":
            functions.append(_encode_function(tool))
        elif tool.kind == "function":
            tools.append({"type": "function", "function": _encode_function(tool), **extra})
        elif tool.kind == "custom":
            tools.append({"type": "custom", "custom": _encode_custom(tool), **extra})
        elif request.source == DIALECT and tool.definition is not None:
            tools.append(dict(tool.definition))
        else:
            losses.append(Loss("hosted_tool", f"chat has no hosted tool {tool.name}"))
    choice = request.tool_choice
    if tools:
        body["tools"] = tools
    if functions:
        body["functions"] = functions
    if choice is not None and choice.mode == "hosted" and request.source != DIALECT:
        raise Untranslatable("tool_choice", f"chat cannot be made to use {choice.name}")
    if request.tools and not tools and not functions:
        if choice is not None and choice.mode in ("required", "tool", "allowed"):
            raise Untranslatable("tool_choice", "no tool the model must choose from can be offered")
        return
    if choice is not None and (tools or functions or is_native(request.source)):
        _encode_choice(choice, body)
    if request.parallel_tool_calls is not None and (tools or is_native(request.source)):
        body["parallel_tool_calls"] = request.parallel_tool_calls


def _encode_function(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return function


def _encode_custom(tool: Tool) -> dict[str, Any]:
    custom: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        custom["description"] = tool.description
    shape = tool.definition
    if shape is not None:
        if shape.get("type") == "grammar":
            shape = {"type": "grammar", "grammar": {k: v for k, v in shape.items() if k != "type"}}
        custom["format"] = shape
    return custom


def _encode_choice(choice: ToolChoice, body: dict[str, Any]) -> None:
    if choice.kind == "legacy_function":
        named = choice.mode == "tool"
        body["function_call"] = {"name": choice.name} if named else choice.mode
    elif choice.mode == "tool":
        body["tool_choice"] = {"type": choice.kind, choice.kind: {"name": choice.name}}
    elif choice.mode == "allowed":
        tools = []
        for tool in choice.allowed:
            kind = str(tool.get("type"))
            inner = {k: v for k, v in tool.items() if k != "type"}
            tools.append({"type": kind, kind: inner} if inner else {"type": kind})
        inner_choice = {"mode": choice.mode_within, "tools": tools}
        body["tool_choice"] = {"type": "allowed_tools", "allowed_tools": inner_choice}
    elif choice.mode == "hosted":
        body["tool_choice"] = dict(choice.definition or {})
    else:
        body["tool_choice"] = choice.mode
