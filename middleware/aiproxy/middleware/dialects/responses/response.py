"""The Response object: 31 members, those of the request echoed."""

from collections.abc import Mapping
from typing import Any

from aiproxy.middleware.dialects.canonical import (
    Envelope,
    FinishReason,
    Json,
    MalformedRequest,
    Tool,
    Usage,
)
from aiproxy.middleware.dialects.responses.tools import (
    decode_choice,
    decode_tools,
    encode_choice,
    encode_tool,
)
from aiproxy.middleware.dialects.usage import responses_usage


def response_object(
    envelope: Envelope,
    status: str,
    output: list[dict[str, Any]],
    usage: Usage | None = None,
    reason: FinishReason | None = None,
    error: Json | None = None,
) -> dict[str, Any]:
    """Return a Response object with its 31 members; request members are echoed in this shape."""
    request = envelope.request
    incomplete = None
    if status == "incomplete":
        incomplete = {
            "reason": "content_filter" if reason == "content_filter" else "max_output_tokens"
        }
    return {
        "id": envelope.id,
        "object": "response",
        "created_at": envelope.created,
        "completed_at": envelope.ended() if status == "completed" else None,
        "status": status,
        "incomplete_details": incomplete,
        "model": envelope.model,
        "previous_response_id": _given(request, "previous_response_id", str),
        "instructions": _given(request, "instructions", str, list),
        "output": output,
        "error": error,
        "tools": [_echo_tool(tool) for tool in _echo_tools(request)],
        "tool_choice": _echo_choice(request.get("tool_choice")),
        "truncation": _given(request, "truncation", str) or "disabled",
        "parallel_tool_calls": request.get("parallel_tool_calls") is not False,
        "text": _echo_text(request),
        "top_p": _figure(request, "top_p", 1.0),
        "presence_penalty": _figure(request, "presence_penalty", 0.0),
        "frequency_penalty": _figure(request, "frequency_penalty", 0.0),
        "top_logprobs": _given(request, "top_logprobs", int) or 0,
        "temperature": _figure(request, "temperature", 1.0),
        "reasoning": _echo_reasoning(request),
        "usage": None if usage is None else responses_usage(usage),
        "max_output_tokens": _given(request, "max_output_tokens", int)
        or _given(request, "max_completion_tokens", int),
        "max_tool_calls": _given(request, "max_tool_calls", int),
        # Nothing is kept behind an answer made from another dialect, whatever was asked.
        "store": False,
        "background": False,
        "service_tier": _given(request, "service_tier", str) or "default",
        "metadata": _given(request, "metadata", dict) or {},
        "safety_identifier": _given(request, "safety_identifier", str),
        "prompt_cache_key": _given(request, "prompt_cache_key", str),
    }


def _given(request: Json, name: str, *types: type) -> Any:
    value = request.get(name)
    return value if isinstance(value, types) and not isinstance(value, bool) else None


def _figure(request: Json, name: str, default: float) -> float:
    value = _given(request, name, int, float)
    return default if value is None else value


def _echo_tools(request: Json) -> tuple[Tool, ...]:
    try:
        return decode_tools(request.get("tools"))
    except MalformedRequest:
        return ()


def _echo_tool(tool: Tool) -> dict[str, Any]:
    if tool.kind != "function":
        return encode_tool(tool)
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def _echo_choice(choice: object) -> Any:
    try:
        decoded = decode_choice(choice)
    except MalformedRequest:
        decoded = None
    return "auto" if decoded is None else encode_choice(decoded)


def _echo_text(request: Json) -> dict[str, Any]:
    text = request.get("text")
    shape = dict(text) if isinstance(text, Mapping) else {}
    nested = request.get("response_format")
    if "format" not in shape and isinstance(nested, Mapping):
        inner = nested.get("json_schema")
        if isinstance(inner, Mapping):
            shape["format"] = {"type": "json_schema", "name": "answer", "schema": {}, **inner}
        elif nested.get("type") in ("text", "json_object"):
            shape["format"] = {"type": nested["type"]}
    if not isinstance(shape.get("format"), Mapping):
        shape["format"] = {"type": "text"}
    return shape


def _echo_reasoning(request: Json) -> dict[str, Any]:
    given = request.get("reasoning")
    given = given if isinstance(given, Mapping) else {}
    effort = given.get("effort") or request.get("reasoning_effort")
    return {"effort": effort, "summary": given.get("summary")}
