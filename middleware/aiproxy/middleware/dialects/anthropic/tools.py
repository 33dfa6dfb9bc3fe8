"""Tools and the choice among them, both ways.

Custom tools (free text in, no schema) travel as functions with one ``input`` string; ``tool_kinds``
tells a reply decoder which calls to turn back.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.anthropic.models import Family
from aiproxy.middleware.dialects.anthropic.schema import closed, object_schema
from aiproxy.middleware.dialects.anthropic.vocabulary import DIALECT, json_text
from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Loss,
    MalformedRequest,
    Tool,
    ToolChoice,
    Untranslatable,
)
from aiproxy.middleware.dialects.reading import words

_TOOL: Final = words("name description input_schema strict type")
_CHOICES: Final[dict[str, Any]] = {"auto": "auto", "any": "required", "none": "none"}
_TEXT_INPUT: Final = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
#: The API's own tools carry the date of their version: nobody else's type looks like it.
_DATED: Final = re.compile(r"[a-z_0-9]+_20\d{6}")


# --- in ------------------------------------------------------------------------------------------


def decode_tools(tools: object) -> tuple[Tool, ...]:
    """Return the tools of a ``tools`` member; ``"auto"`` and null give none."""
    if tools is None or tools == "auto":
        return ()
    found = []
    for i, item in enumerate(reading.array(tools, "tools")):
        tool, path = reading.mapping(item, f"tools[{i}]"), f"tools[{i}]"
        kind = tool.get("type")
        if kind not in (None, "custom"):
            name = tool.get("name")
            found.append(
                Tool(name if isinstance(name, str) else str(kind), "hosted", definition=tool)
            )
            continue
        schema = tool.get("input_schema")
        description = tool.get("description")
        found.append(
            Tool(
                reading.text(tool.get("name"), f"{path}.name"),
                description=None
                if description is None
                else reading.text(description, f"{path}.description"),
                parameters=None
                if schema is None
                else reading.mapping(schema, f"{path}.input_schema"),
                strict=reading.flag(tool, "strict"),
                extra=reading.rest(tool, _TOOL),
            )
        )
    return tuple(found)


def decode_choice(value: object) -> tuple[ToolChoice | None, bool | None]:
    """Return the choice of ``tool_choice`` and whether calls may be parallel (``None``: unsaid)."""
    if value is None:
        return None, None
    if isinstance(value, str):  # not of this API, but of many who are used to others
        value = {"type": {"required": "any"}.get(value, value)}
    given = reading.mapping(value, "tool_choice")
    alone = reading.flag(given, "disable_parallel_tool_use")
    parallel = False if alone else None
    kind = reading.word(given.get("type"))
    if kind in _CHOICES:
        return ToolChoice(_CHOICES[kind]), parallel
    if kind == "tool":
        return ToolChoice("tool", reading.text(given.get("name"), "tool_choice.name")), parallel
    raise MalformedRequest("tool_choice.type", "another word", "one of auto, any, tool, none")


# --- out -----------------------------------------------------------------------------------------


def encode_tools(
    request: CanonicalRequest, family: Family, body: dict[str, Any], losses: list[Loss]
) -> str | None:
    """Write ``tools`` and ``tool_choice``; return a sentence for the system prompt where a call is
    wanted that this model cannot be made to make.

    Raises:
        Untranslatable: a tool must be chosen that cannot be offered.
    """
    choice = request.tool_choice
    tools = [t for t in (_encode(tool, request, family, losses) for tool in request.tools) if t]
    wanted = _wanted(choice)
    if wanted is not None:
        tools = [tool for tool in tools if tool.get("name") in wanted]
    if not tools:
        if choice is not None and (
            choice.mode in ("required", "tool", "hosted")
            or (choice.mode == "allowed" and choice.mode_within == "required")
        ):
            raise Untranslatable("tool_choice", "no tool the model must choose from can be offered")
        return None
    written, sentence = _encode_choice(choice, tools, request.source, family, losses)
    body["tools"] = tools
    if request.parallel_tool_calls is False and (written or {}).get("type") != "none":
        written = {**(written or {"type": "auto"}), "disable_parallel_tool_use": True}
    if written is not None:
        body["tool_choice"] = written
    return sentence


def _wanted(choice: ToolChoice | None) -> set[str] | None:
    if choice is None or choice.mode != "allowed":
        return None
    return {reading.word(tool.get("name") or tool.get("type")) for tool in choice.allowed}


def _encode(
    tool: Tool, request: CanonicalRequest, family: Family, losses: list[Loss]
) -> dict[str, Any] | None:
    native = request.source == DIALECT
    if tool.kind == "hosted":
        kind = reading.word((tool.definition or {}).get("type"))
        if tool.definition is not None and (native or _DATED.fullmatch(kind)):
            return dict(tool.definition)
        losses.append(Loss("hosted_tool", f"anthropic has no hosted tool {tool.name}"))
        return None
    written: dict[str, Any] = {"name": tool.name}
    description = reading.optional(tool.description)
    if tool.kind == "custom":
        written["input_schema"] = _TEXT_INPUT
        losses.append(Loss("custom_tool", "a tool that takes free text is sent as a function"))
        if (tool.definition or {}).get("type") == "grammar":
            losses.append(Loss("custom_tool", "the grammar of a custom tool is told, not enforced"))
            rule = json_text(dict(tool.definition or {}))
            description = f"{description or ''}\n\nThe input must follow this grammar: {rule}"
    elif tool.parameters is not None and not isinstance(tool.parameters, Mapping):
        raise Untranslatable("tool", "the parameters of a tool are no object")
    else:
        written["input_schema"] = (
            tool.parameters
            if native and tool.parameters is not None
            else object_schema(tool.parameters)
        )
    if description is not None:
        written["description"] = description.strip() if tool.kind == "custom" else description
    if tool.strict is not None and (native or tool.strict):
        _encode_strict(tool, native, family, written, losses)
    for name, value in tool.extra.items():
        if native or name == "cache_control":
            written[name] = value
        else:
            losses.append(Loss(f"tool.{name}", "anthropic tools have no such member"))
    return written


def _encode_strict(
    tool: Tool, native: bool, family: Family, written: dict[str, Any], losses: list[Loss]
) -> None:
    if native:
        written["strict"] = tool.strict
        return
    if not family.schema:
        losses.append(Loss("strict", "this model does not hold a call to its schema"))
        return
    shape, told = closed(written["input_schema"])
    if shape is None:
        losses.append(Loss("strict", "anthropic cannot enforce a schema like this tool's"))
        return
    written["input_schema"], written["strict"] = shape, True
    if told:
        losses.append(Loss("strict", f"told but not enforced: {', '.join(sorted(told))}"))


def _encode_choice(
    choice: ToolChoice | None,
    tools: list[dict[str, Any]],
    source: str,
    family: Family,
    losses: list[Loss],
) -> tuple[dict[str, Any] | None, str | None]:
    if choice is None:
        return None, None
    mode = choice.mode_within if choice.mode == "allowed" else choice.mode
    if mode in ("auto", "none"):
        return {"type": mode}, None
    if mode == "required":
        if family.forced != "never":
            return {"type": "any"}, None
        losses.append(Loss("tool_choice", "this model can be asked for a call, not forced"))
        return {"type": "auto"}, "Answer by calling one of the tools, not with text."
    name = choice.name
    if mode == "hosted" and source != DIALECT:
        name = reading.word((choice.definition or {}).get("name") or choice.name)
    if name not in {tool.get("name") for tool in tools}:
        raise Untranslatable("tool_choice", "the tool the model must use cannot be offered")
    if family.forced != "never":
        return {"type": "tool", "name": name}, None
    losses.append(Loss("tool_choice", "this model can be asked for a call, not forced"))
    tools[:] = [tool for tool in tools if tool.get("name") == name]
    return {"type": "auto"}, f"Answer by calling the tool {name}, not with text."


def text_of_custom(arguments: object) -> str:
    """Return the free text of a custom tool's call from its ``input`` object."""
    if isinstance(arguments, Mapping):
        value = arguments.get("input")
        return value if isinstance(value, str) else json_text(dict(arguments))
    return reading.word(arguments)
