"""Tools and the choice among them, in."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import Json, MalformedRequest, Tool, ToolChoice
from aiproxy.middleware.dialects.gemini.schemas import schema_in
from aiproxy.middleware.dialects.gemini.vocabulary import camel

_CALLING: Final = "toolConfig.functionCallingConfig"


def decode_tools(value: object) -> tuple[Tool, ...]:
    """Return the tools of a ``tools`` member; ``"auto"`` and null give none.

    A function keeps its declaration in ``definition``, with what only Google understands.
    """
    if value is None or value == "auto":
        return ()
    found: list[Tool] = []
    for i, item in enumerate(_listed(value, "tools")):
        tool = camel(reading.mapping(item, f"tools[{i}]"))
        for name, inner in tool.items():
            if name == "functionDeclarations":
                found += _functions(inner, f"tools[{i}].{name}")
            elif inner is not None:
                found.append(Tool(name, "hosted", definition={name: inner}))
    return tuple(found)


def _listed(value: object, path: str) -> Sequence[Any]:
    """Return a list; Google's API takes its only element in its place."""
    return [value] if isinstance(value, Mapping) else reading.array(value, path)


def _functions(value: object, path: str) -> Iterator[Tool]:
    for i, item in enumerate([] if value is None else _listed(value, path)):
        declaration = camel(reading.mapping(item, f"{path}[{i}]"))
        parameters = declaration.get("parametersJsonSchema")
        if parameters is not None:
            parameters = reading.mapping(parameters, f"{path}[{i}].parametersJsonSchema")
        elif declaration.get("parameters") is not None:
            given = reading.mapping(declaration["parameters"], f"{path}[{i}].parameters")
            parameters = schema_in(given)
        yield Tool(
            reading.text(declaration.get("name"), f"{path}[{i}].name"),
            description=reading.optional(declaration.get("description")),
            parameters=parameters,
            definition=declaration,
        )


def decode_choice(value: object, extra: dict[str, Any]) -> ToolChoice | None:
    """Return the choice of ``toolConfig``; its other members go to ``extra``."""
    if value is None:
        return None
    config = camel(reading.mapping(value, "toolConfig"))
    for name, other in reading.rest(config, ("functionCallingConfig",)).items():
        extra[f"toolConfig.{name}"] = other
    if config.get("functionCallingConfig") is None:
        return None
    calling = camel(reading.mapping(config["functionCallingConfig"], _CALLING))
    mode = reading.text(calling.get("mode", "AUTO"), f"{_CALLING}.mode").upper()
    given = calling.get("allowedFunctionNames")
    path = f"{_CALLING}.allowedFunctionNames"
    names = [] if given is None else reading.array(given, path)
    allowed: tuple[Json, ...] = tuple(
        {"type": "function", "name": reading.text(name, f"{path}[{i}]")}
        for i, name in enumerate(names)
    )
    more = reading.rest(calling, ("mode", "allowedFunctionNames"))
    if mode == "VALIDATED" and not allowed:
        more["mode"] = mode
    if more:
        extra[_CALLING] = more
    if mode == "NONE":
        return ToolChoice("none")
    if mode == "ANY":
        if len(allowed) == 1:
            return ToolChoice("tool", allowed[0]["name"])
        if allowed:
            return ToolChoice("allowed", allowed=allowed, mode_within="required")
        return ToolChoice("required")
    if mode in ("AUTO", "VALIDATED", "MODE_UNSPECIFIED"):
        if allowed:
            return ToolChoice("allowed", allowed=allowed, mode_within="auto")
        return ToolChoice("auto")
    raise MalformedRequest(f"{_CALLING}.mode", "another word", "AUTO, ANY, NONE or VALIDATED")
