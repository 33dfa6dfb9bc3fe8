"""Tools and the choice among them, out."""

import re
from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Json,
    Loss,
    Tool,
    ToolChoice,
    Untranslatable,
)
from aiproxy.middleware.dialects.gemini.schemas import schema_out
from aiproxy.middleware.dialects.gemini.vocabulary import DIALECT, HOSTED
from aiproxy.middleware.dialects.losses import note, strangers

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_CALLING: Final = "toolConfig.functionCallingConfig"
#: Asks for arguments in pieces, which are told in a form nobody else has.
_PIECES: Final = "streamFunctionCallArguments"


def encode_tools(request: CanonicalRequest, body: dict[str, Any], losses: list[Loss]) -> bool:
    """Write the tools of a request and the choice among them into ``body``; tell whether
    functions may be called.

    Raises:
        Untranslatable: a tool must be chosen that cannot be offered, or is not expressible.
    """
    choice = request.tool_choice
    functions: list[Json] = []
    hosted: list[dict[str, Any]] = []
    for tool in request.tools:
        if tool.kind in ("function", "legacy_function"):
            functions.append(_declaration(tool, request.source, losses))
        elif tool.kind == "hosted" and _is_known(tool, request.source):
            hosted.append(dict(tool.definition or {}))
        elif tool.kind == "hosted":
            note(losses, [Loss("hosted_tool", f"gemini has no hosted tool {tool.name[:64]}")])
        else:
            note(losses, [Loss("custom_tool", "gemini has no tools with free-form input")])
    tools = [*hosted, *([{"functionDeclarations": functions}] if functions else [])]
    if tools:
        body["tools"] = tools
    names = {str(function.get("name")) for function in functions}
    if choice is not None and choice.mode in ("required", "tool", "allowed", "hosted"):
        _check(choice, names, bool(tools))
    config: dict[str, Any] = {}
    if request.source == DIALECT:
        for name, value in request.extra.items():
            head, dot, member = name.partition(".")
            if head == "toolConfig" and dot and name != _CALLING:
                config[member] = value
    calling = _calling(choice, request, losses) if functions else {}
    if calling:
        config["functionCallingConfig"] = calling
    if config:
        body["toolConfig"] = config
    if request.parallel_tool_calls is False and functions:
        losses.append(Loss("parallel_tool_calls", "gemini may always call several tools at once"))
    return bool(functions) and not (choice is not None and choice.mode == "none")


def _is_known(tool: Tool, source: str) -> bool:
    if tool.definition is None:
        return False
    return source == DIALECT or (len(tool.definition) == 1 and tool.definition.keys() <= HOSTED)


def _declaration(tool: Tool, source: str, losses: list[Loss]) -> Json:
    if source == DIALECT and tool.definition is not None:
        return tool.definition
    if not _NAME.fullmatch(tool.name):
        raise Untranslatable("tools", "gemini does not take a function of this name")
    made: dict[str, Any] = {"name": tool.name}
    if tool.description:
        made["description"] = tool.description
    if tool.strict is True:
        note(losses, [Loss("strict", "gemini does not promise arguments that meet the schema")])
    strangers(losses, tool.extra, "tool_members", DIALECT)
    schema = tool.parameters
    if schema is not None and not isinstance(schema, Mapping):
        raise Untranslatable("tools", "the parameters of a tool are no object")
    if schema and (schema.get("properties") or schema.keys() - {"type", "properties", "$schema"}):
        # Arguments are always an object, whether or not the schema says so.
        plain, shape, lost = schema_out(
            schema if "type" in schema else {"type": "object", **schema}
        )
        note(losses, lost)
        if shape.get("properties") or shape.keys() - {"type", "properties", "additionalProperties"}:
            made["parametersJsonSchema" if plain else "parameters"] = shape
    return made


def _check(choice: ToolChoice, names: set[str], offered: bool) -> None:
    if choice.mode == "hosted":
        raise Untranslatable("tool_choice", "gemini cannot be made to use a hosted tool")
    if choice.mode == "tool" and choice.name not in names:
        raise Untranslatable("tool_choice", "the tool the model must use cannot be offered")
    if choice.mode == "allowed":
        if not any(str(tool.get("name")) in names for tool in choice.allowed):
            raise Untranslatable("tool_choice", "none of the allowed tools can be offered")
    elif not offered or not names:
        raise Untranslatable("tool_choice", "no tool the model must choose from can be offered")


def _calling(
    choice: ToolChoice | None, request: CanonicalRequest, losses: list[Loss]
) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if choice is None:
        pass
    elif choice.mode == "allowed":
        # A set of names without a duty to call is what VALIDATED is for.
        made["mode"] = "ANY" if choice.mode_within == "required" else "VALIDATED"
        made["allowedFunctionNames"] = _allowed(choice, request, losses)
    elif choice.mode == "tool":
        made["mode"] = "ANY"
        made["allowedFunctionNames"] = [choice.name]
    else:
        made["mode"] = {"none": "NONE", "required": "ANY"}.get(choice.mode, "AUTO")
    more = request.extra.get(_CALLING) if request.source == DIALECT else None
    if isinstance(more, dict):
        made.update(more)
        if made.pop(_PIECES, None):
            losses.append(Loss(f"{_CALLING}.{_PIECES}", "arguments are told whole"))
    return made


def _allowed(choice: ToolChoice, request: CanonicalRequest, losses: list[Loss]) -> list[str]:
    offered = {t.name for t in request.tools if t.kind in ("function", "legacy_function")}
    names = [str(tool.get("name")) for tool in choice.allowed]
    if any(name not in offered for name in names):
        losses.append(Loss("tool_choice", "some of the allowed tools cannot be offered"))
    return [name for name in names if name in offered]
