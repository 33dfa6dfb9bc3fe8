"""The OpenAI Responses API."""

from collections.abc import Mapping
from itertools import count as numbers
from typing import Any, Final

from aiproxy.conformance.rig.shapes.requests import between, count, flag, insisted, need, objects
from aiproxy.conformance.rig.shapes.speech import Ask, Call, Frames, Refusal, Said, event

_FOREIGN: Final = ("messages", "max_tokens", "max_completion_tokens", "response_format", "n")
_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


def read(body: Mapping[str, Any]) -> Ask:
    """Return what a Responses request asks.

    Raises:
        Refusal: it is malformed, or uses the names of chat.
    """
    for name in _FOREIGN:
        if name in body:
            raise Refusal(400, f"unknown parameter: '{name}'", code="unknown_parameter", param=name)
    given = body.get("input")
    if not isinstance(given, str):
        for place, item in enumerate(objects(given, "input")):
            known = isinstance(item.get("type", "message"), str)
            need(known, f"input[{place}].type must be a string", f"input[{place}].type")
    tools = _tools(body)
    between(body, "temperature", 0, 2)
    between(body, "top_p", 0, 1)
    choice = body.get("tool_choice")
    limit = count(body, "max_output_tokens")
    stream = flag(body, "stream")
    return Ask(
        "responses", body, stream, limit, insisted(tools, choice, ("required",)), _form(body)
    )


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    if body.get("tools") in (None, []):
        return {}
    found = {}
    for place, tool in enumerate(objects(body["tools"], "tools")):
        need(isinstance(tool.get("type"), str), f"missing tools[{place}].type", f"tools[{place}]")
        if tool["type"] == "function":
            named = isinstance(tool.get("name"), str)
            need(named, f"missing required parameter: tools[{place}].name", f"tools[{place}].name")
            found[tool["name"]] = tool.get("parameters") or {}
    return found


def _form(body: Mapping[str, Any]) -> Any:
    text = body.get("text") or {}
    need(isinstance(text, dict), "text must be an object", "text")
    wanted = text.get("format") or {}
    need(isinstance(wanted, dict), "text.format must be an object", "text.format")
    if wanted.get("type") == "json_schema":
        named = isinstance(wanted.get("name"), str) and isinstance(wanted.get("schema"), dict)
        need(named, "missing required parameter: text.format.name", "text.format.name")
        return wanted["schema"]
    return {} if wanted.get("type") == "json_object" else None


def whole(ask: Ask, said: Said) -> dict[str, Any]:
    """Return a Response object with all its members."""
    reason = _INCOMPLETE.get(said.finish or "")
    items = [_message(said, said.text)] if said.text or not said.calls else []
    items += [_call_item(said, call, call.arguments) for call in said.calls]
    return {
        **_object(ask, said),
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "completed_at": None if reason else said.created + 1,
        "output": items,
        "usage": _usage(said),
        **said.extra,
    }


def _object(ask: Ask, said: Said) -> dict[str, Any]:
    """Return the object as it is before anything was produced."""
    body = ask.body
    return {
        "id": f"resp_{said.id}",
        "object": "response",
        "created_at": said.created,
        "completed_at": None,
        "status": "in_progress",
        "incomplete_details": None,
        "model": said.model,
        "previous_response_id": body.get("previous_response_id"),
        "instructions": body.get("instructions"),
        "output": [],
        "error": None,
        "tools": [_echoed(tool) for tool in body.get("tools") or []],
        "tool_choice": body.get("tool_choice", "auto"),
        "truncation": body.get("truncation") or "disabled",
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "text": {"format": {"type": "text"}, **(body.get("text") or {})},
        "top_p": _or(body.get("top_p"), 1.0),
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "top_logprobs": 0,
        "temperature": _or(body.get("temperature"), 1.0),
        "reasoning": body.get("reasoning"),
        "usage": None,
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "store": _or(body.get("store"), True),
        "background": False,
        "service_tier": "default",
        "metadata": body.get("metadata") or {},
        "safety_identifier": body.get("safety_identifier"),
        "prompt_cache_key": body.get("prompt_cache_key"),
    }


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _echoed(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        return dict(tool)
    return {"description": None, "parameters": {}, "strict": True, **tool}


def _usage(said: Said) -> dict[str, Any] | None:
    if said.usage is None:
        return None
    details = said.usage.get("prompt_tokens_details") or {}
    return {
        "input_tokens": said.count("prompt_tokens"),
        "input_tokens_details": {
            "cached_tokens": details.get("cached_tokens", 0),
            "cache_write_tokens": 0,
        },
        "output_tokens": said.count("completion_tokens"),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": said.count("total_tokens"),
    }


def _message(said: Said, text: str | None, status: str = "completed") -> dict[str, Any]:
    content = [] if text is None else [_part(text)]
    return {
        "id": f"msg_{said.id}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call_item(said: Said, call: Call, arguments: str, status: str = "completed") -> dict[str, Any]:
    return {
        "id": f"fc_{call.id.partition('_')[2]}",
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments,
        "status": status,
    }


def frames(ask: Ask, said: Said) -> Frames:
    """Return the events of a streamed Response. There is no ``[DONE]`` in this API."""
    number = numbers()

    def say(kind: str, **members: Any) -> str:
        return event({"type": kind, "sequence_number": next(number), **members}, kind)

    before = {**_object(ask, said), **said.extra}
    opening = [
        say("response.created", response=before),
        say("response.in_progress", response=before),
    ]
    items = 1 if said.text or not said.calls else 0
    content = _text_events(say, said, opening) if items else []
    finish = _text_end(say, said) if items and not said.calls else []
    if items and said.calls:
        content += _text_end(say, said)
    for place, call in enumerate(said.calls, items):
        content += _call_events(say, said, call, place)
    after = whole(ask, said)
    terminal = [say(f"response.{after['status']}", response=after)]

    def failure(message: str, code: str | None, after: int) -> list[str]:
        lost = len(opening) + min(after, len(content))
        error = {"code": code or "server_error", "message": message}
        failed = {**before, "status": "failed", "error": error}
        return [
            event({"type": "error", "sequence_number": lost, **error, "param": None}, "error"),
            event(
                {"type": "response.failed", "sequence_number": lost + 1, "response": failed},
                "response.failed",
            ),
        ]

    return Frames(
        opening=opening,
        content=content,
        finish=[*finish, *terminal] if said.finish is not None else [],
        error=failure,
        garbage='event: response.output_text.delta\ndata: {"type":"response.output_text.del\n\n',
    )


def _text_events(say: Any, said: Said, opening: list[str]) -> list[str]:
    item = _message(said, None, "in_progress")
    opening.append(say("response.output_item.added", output_index=0, item=item))
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    opening.append(say("response.content_part.added", **at, part=_part("")))
    return [
        say("response.output_text.delta", **at, delta=piece, logprobs=[])
        for piece in said.text_pieces()
    ]


def _text_end(say: Any, said: Said) -> list[str]:
    item = _message(said, said.text)
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    return [
        say("response.output_text.done", **at, text=said.text, logprobs=[]),
        say("response.content_part.done", **at, part=_part(said.text)),
        say("response.output_item.done", output_index=0, item=item),
    ]


def _call_events(say: Any, said: Said, call: Call, place: int) -> list[str]:
    begun = _call_item(said, call, "", "in_progress")
    item = _call_item(said, call, call.arguments)
    at = {"item_id": item["id"], "output_index": place}
    kind = "response.function_call_arguments"
    return [
        say("response.output_item.added", output_index=place, item=begun),
        *(say(f"{kind}.delta", **at, delta=piece) for piece in said.argument_pieces(call)),
        say(f"{kind}.done", **at, name=call.name, arguments=call.arguments),
        say("response.output_item.done", output_index=place, item=item),
    ]
