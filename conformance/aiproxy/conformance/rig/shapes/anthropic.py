"""Anthropic's Messages API, and its surface for clients of OpenAI's."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiproxy.conformance.rig.fleet import Actor
from aiproxy.conformance.rig.http1 import Request
from aiproxy.conformance.rig.shapes import openai
from aiproxy.conformance.rig.shapes.requests import (
    bearer,
    between,
    count,
    flag,
    insisted,
    json_object,
    known_only,
    need,
    objects,
)
from aiproxy.conformance.rig.shapes.speech import Ask, Call, Frames, Refusal, Said, event

_FOREIGN: Final = frozenset({"chat/completions"})
_MEMBERS: Final = frozenset(
    {"model", "messages", "max_tokens", "system", "metadata", "stop_sequences", "stream",
     "temperature", "top_k", "top_p", "tools", "tool_choice", "thinking", "service_tier",
     "container", "mcp_servers", "context_management", "output_config", "output_format",
     "inference_geo", "cache_control", "diagnostics", "speed", "user_profile_id", "workspace_id"}
)  # fmt: skip
_STOP: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use",
                "content_filter": "refusal"}  # fmt: skip
_KINDS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def read(request: Request, actor: Actor) -> Ask:
    """Return what was asked; see ``speech.Dialect``."""
    if openai.meant(request, _FOREIGN):
        return openai.read(request, actor)
    path = openai.route(request)
    need(path in ("models", "messages"), f"Not Found: {request.path}", status=404)
    given = request.header("x-api-key") or bearer(request)  # the official client sends the latter
    need(given, "x-api-key header is required", status=401)
    need(given == actor.key, "invalid x-api-key", status=401)
    need(request.header("anthropic-version"), "anthropic-version: header is required")
    if path == "models":
        return Ask("anthropic-models")
    need(request.method == "POST", "Method Not Allowed", status=405)
    return _messages(json_object(request), actor)


def _messages(body: Mapping[str, Any], actor: Actor) -> Ask:
    for name in ("model", "messages", "max_tokens"):
        need(name in body, f"{name}: Field required", name)
    known_only(body, _MEMBERS, "{name}: Extra inputs are not permitted")
    need(body["model"] == actor.upstream_model, f"model: {body['model']}", status=404)
    between(body, "temperature", 0, 1)
    system = body.get("system", "")
    need(isinstance(system, str | list), "system: Input should be a valid string or list", "system")
    _turns(objects(body["messages"], "messages"))
    tools = _tools(body)
    choice = body.get("tool_choice")
    need(choice is None or isinstance(choice, dict), "tool_choice: Input should be an object")
    need(choice is None or tools, "tool_choice may only be specified while providing tools")
    kind = (choice or {}).get("type")
    need(choice is None or kind in ("auto", "any", "tool", "none"), "tool_choice: unknown type")
    wanted = insisted(tools, choice if kind == "tool" else kind, ("any",))
    limit = count(body, "max_tokens")
    return Ask("messages", body, flag(body, "stream"), limit, wanted, _form(body))


def _form(body: Mapping[str, Any]) -> Any:
    wanted = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    return wanted.get("schema") if wanted.get("type") == "json_schema" else None


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    if body.get("tools") in (None, []):
        return {}
    found = {}
    for place, tool in enumerate(objects(body["tools"], "tools")):
        need(tool.get("type") != "function", f"tools.{place}: Input tag 'function' is unknown")
        if tool.get("type", "custom") != "custom":  # run by Anthropic itself
            continue
        need(isinstance(tool.get("name"), str), f"tools.{place}.custom.name: Field required")
        schema = tool.get("input_schema")
        need(isinstance(schema, dict), f"tools.{place}.custom.input_schema: Field required")
        assert isinstance(schema, dict)
        need(schema.get("type") == "object", f"tools.{place}.custom.input_schema.type: 'object'")
        known_only(
            tool,
            {"type", "name", "description", "input_schema", "cache_control", "strict",
             "input_examples", "defer_loading", "allowed_callers", "eager_input_streaming"},
            f"tools.{place}.custom.{{name}}: Extra inputs are not permitted",
        )  # fmt: skip
        found[tool["name"]] = schema
    return found


def _turns(messages: Iterable[Mapping[str, Any]]) -> None:
    """Check roles, blocks, and that each tool use is answered at the start of the next turn."""
    waiting: set[str] = set()
    before: object = None
    for place, message in enumerate(messages):
        role, at = message.get("role"), f"messages.{place}"
        if role == "system" and before == "user":
            before = role  # the newest models take one right after a user's turn
            continue
        need(role != "system", 'messages: Unexpected role "system". The Messages API accepts a '
             "top-level `system` parameter, not \"system\" as an input message role.")  # fmt: skip
        before = role
        need(role in ("user", "assistant"), f"{at}.role: Input should be 'user' or 'assistant'")
        need(place or role == "user", 'messages: first message must use the "user" role')
        known_only(message, {"role", "content"}, f"{at}.{{name}}: Extra inputs are not permitted")
        blocks = _blocks(message.get("content"), at)
        answered = {b.get("tool_use_id") for b in blocks if b.get("type") == "tool_result"}
        need(
            waiting <= answered,
            f"{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(sorted(waiting - answered))}. Each `tool_use` block must have a "
            "corresponding `tool_result` block in the next message.",
        )
        need(
            answered <= waiting,
            f"{at}.content: unexpected `tool_use_id` found in `tool_result` blocks. Each "
            "`tool_result` block must have a corresponding `tool_use` block in the previous "
            "message.",
        )
        waiting = {b["id"] for b in blocks if b.get("type") == "tool_use"}
        need(not waiting or role == "assistant", f"{at}: `tool_use` is for the assistant only")


def _blocks(content: Any, at: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        need(content, f"{at}: all messages must have non-empty content")
        return []
    need(isinstance(content, list) and content, f"{at}.content: Field required")
    for place, block in enumerate(content):
        here = f"{at}.content.{place}"
        kind = block.get("type") if isinstance(block, dict) else None
        need(isinstance(kind, str), f"{here}.type: Field required")
        if kind == "text":
            text = block.get("text")
            need(isinstance(text, str), f"{here}.text.text: Field required")
            need(text, "messages: text content blocks must be non-empty")
        elif kind == "tool_use":
            need(isinstance(block.get("id"), str), f"{here}.tool_use.id: Field required")
            is_object = isinstance(block.get("input"), dict)
            need(is_object, f"{here}.tool_use.input: Input should be a valid dictionary")
        elif kind == "tool_result":
            need(isinstance(block.get("tool_use_id"), str), f"{here}.tool_use_id: Field required")
        else:
            need(kind not in ("image_url", "input_text", "output_text"), f"{here}: tag {kind!r}")
    return list(content)


def refused(request: Request, refusal: Refusal) -> Any:
    """Return an error object."""
    if openai.meant(request, _FOREIGN):
        return openai.refused(request, refusal)
    otherwise = "api_error" if refusal.status >= 500 else "invalid_request_error"
    kind = refusal.code or _KINDS.get(refusal.status, otherwise)
    return {"type": "error", "error": {"type": kind, "message": refusal.message}}


def whole(ask: Ask, said: Said) -> Any:
    """Return a message."""
    if ask.shape == "anthropic-models":
        row = {"type": "model", "id": said.model, "display_name": said.model}
        row["created_at"] = "2025-01-01T00:00:00Z"
        page = {"has_more": False, "first_id": said.model, "last_id": said.model}
        return {"data": [row], **page}
    if ask.shape != "messages":
        return openai.whole(ask, said)
    blocks = [{"type": "text", "text": said.text}] if said.text or not said.calls else []
    blocks += [{**_use(call), "input": call.values} for call in said.calls]
    stop = {"stop_reason": _STOP.get(said.finish or ""), "stop_sequence": None}
    return {**_message(said), "content": blocks, **stop, "usage": _usage(said), **said.extra}


def _message(said: Said) -> dict[str, Any]:
    kind = {"type": "message", "role": "assistant", "model": said.model}
    return {"id": f"msg_01{said.id}", **kind}


def _use(call: Call) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{call.id.partition('_')[2]}", "name": call.name}


def _usage(said: Said) -> dict[str, Any]:
    cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    output = said.count("completion_tokens")
    return {"input_tokens": said.count("prompt_tokens"), **cached, "output_tokens": output}


def frames(ask: Ask, said: Said) -> Frames:
    """Return the events of a streamed message, in their native order."""
    if ask.shape != "messages":
        return openai.frames(ask, said)

    def say(kind: str, **members: Any) -> str:
        return event({"type": kind, **members}, kind)

    usage = {**_usage(said), "output_tokens": 1}
    start = {**_message(said), "content": [], "stop_reason": None, "stop_sequence": None}
    opening = [say("message_start", message={**start, "usage": usage, **said.extra})]
    content: list[str] = []
    place = -1
    if said.text or not said.calls:
        place = 0
        opening += [
            say("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            say("ping"),
        ]
        for piece in said.text_pieces():
            delta = {"type": "text_delta", "text": piece}
            content.append(say("content_block_delta", index=0, delta=delta))
    for call in said.calls:
        if place >= 0:
            content.append(say("content_block_stop", index=place))
        place += 1
        block = {**_use(call), "input": {}}
        content.append(say("content_block_start", index=place, content_block=block))
        for piece in said.argument_pieces(call):
            delta = {"type": "input_json_delta", "partial_json": piece}
            content.append(say("content_block_delta", index=place, delta=delta))
    stop = {"stop_reason": _STOP.get(said.finish or ""), "stop_sequence": None}
    output = {"output_tokens": said.count("completion_tokens")}
    end = [say("message_delta", delta=stop, usage=output)] if said.finish is not None else []
    return Frames(
        opening=opening,
        content=content,
        finish=[say("content_block_stop", index=place), *end],
        done=[say("message_stop")],
        error=_failure,
        garbage='event: content_block_delta\ndata: {"type":"content_block_del\n\n',
    )


def _failure(message: str, code: str | None, after: int) -> list[str]:
    error = {"type": code or "overloaded_error", "message": message}
    return [event({"type": "error", "error": error}, "error")]


def headers(request: Request, said_id: str) -> tuple[tuple[str, str], ...]:
    """Return the fields Anthropic puts on every answer."""
    return (("request-id", f"req_{said_id}"),)
