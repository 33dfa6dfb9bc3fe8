"""A foreign request as Chat Completions says it, for whatever looks at a body before it is sent.

Preferences, task, needs, estimates and rules read one shape only. What is sent upstream is never
made from this view but from the client's own body.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import chat
from aiproxy.middleware.dialects.canonical import (
    Audio,
    CanonicalRequest,
    File,
    Image,
    Part,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    Untranslatable,
)
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.intent import AUTO

#: What Chat Completions calls the parameters that may be left to the router.
_NAMES: Final[Mapping[str, str]] = {
    "model": "model",
    "tools": "tools",
    "max_tokens": "max_completion_tokens",
    "reasoning": "reasoning",
    "response_format": "response_format",
}


def read(endpoint: str, original: Mapping[str, Any]) -> tuple[dict[str, Any], CanonicalRequest]:
    """Return the view of a body in the dialect ``endpoint``, and the canonical form it is made of.

    Raises:
        MalformedRequest: the body cannot be read; the path at fault is the client's own.
    """
    request: CanonicalRequest = codec(endpoint).decode_request(original)
    return chat_view(request, str(original["model"])), request


def chat_view(request: CanonicalRequest, model: str) -> dict[str, Any]:
    """Return the view of a request for ``model``, which may be ``auto``; it has messages."""
    try:
        body, _ = chat.encode_request(request, model)
    except Untranslatable:
        body = _outline(request)
    for name in request.auto:
        if name in _NAMES:
            body[_NAMES[name]] = AUTO
    choice = request.tool_choice
    if "tools" in request.auto and choice is not None and choice.mode == "tool":
        body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    body["model"] = model
    return body


def _outline(request: CanonicalRequest) -> dict[str, Any]:
    """The view of a request that Chat Completions cannot express: enough to count and to judge."""
    messages: list[dict[str, Any]] = []
    if request.instructions is not None:
        messages.append({"role": "system", "content": request.instructions})
    messages += [_message(turn) for turn in request.turns]
    body: dict[str, Any] = {"messages": messages}
    if request.tools:
        body["tools"] = [
            {"type": tool.name}
            if tool.kind == "hosted"
            else {
                "type": "function",
                "function": {"name": tool.name, "parameters": dict(tool.parameters or {})},
            }
            for tool in request.tools
        ]
    shape = request.response_format
    if shape is not None and shape.kind == "json_schema":
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": shape.schema}}
    if request.sampling.max_tokens is not None:
        body["max_completion_tokens"] = request.sampling.max_tokens
    if request.sampling.n is not None:
        body["n"] = request.sampling.n
    if request.reasoning_effort is not None:
        body["reasoning_effort"] = request.reasoning_effort
    if request.stream:
        body["stream"] = True
    return body


def _message(turn: Turn) -> dict[str, Any]:
    return {"role": turn.role, "content": [row for part in turn.parts for row in _parts(part)]}


def _parts(part: Part) -> list[dict[str, Any]]:
    if isinstance(part, Text):
        return [{"type": "text", "text": part.text}]
    if isinstance(part, Image):
        return [{"type": "image_url", "image_url": {"url": part.url or "", "detail": part.detail}}]
    if isinstance(part, File):
        return [{"type": "file", "file": {}}]
    if isinstance(part, Audio):
        return [{"type": "input_audio", "input_audio": {}}]
    if isinstance(part, ToolCall):
        return [{"type": "text", "text": part.arguments}]
    if isinstance(part, ToolResult):
        return [row for inner in part.parts for row in _parts(inner)]
    return []
