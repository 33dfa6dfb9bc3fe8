"""Requests checked, answers written: chat, the draft's union on /v1/responses, the genuine
Responses API, embeddings and completions."""

import json
import math
import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from right_server import Refusal

from right_router import dialects, misdrawn, misled, unfaithful
from right_router.answers import x_aiproxy
from right_router.asking import AUTO, LIMITS, Ask
from right_router.attempts import Answered
from right_router.streams import told_model

Body = dict[str, Any]
ROLES = {"system", "developer", "user", "assistant", "tool", "function"}
JSON_TYPES = {"string", "number", "integer", "boolean", "object", "array", "null"}
RANGES = {"temperature": (0, 2), "top_p": (0, 1), "frequency_penalty": (-2, 2),
          "presence_penalty": (-2, 2)}  # fmt: skip


def fault(code: str, param: str, message: str = "") -> Refusal:
    """Return the refusal of a body member."""
    return Refusal(400, code, message or f"{param}: {code}", param)


def endpoint_of(path: str, body: Mapping[str, Any], has: Any) -> str:
    """Return which shape a body on /v1/responses has.

    Raises:
        Refusal: both shapes at once, or neither.
    """
    if path != "/v1/responses":
        return {"/v1/chat/completions": "chat", "/v1/embeddings": "embeddings"}.get(
            path, "completions"
        )
    if "messages" in body and "input" in body and not has("both-shapes-ok"):
        raise fault("invalid_value", "messages", "send messages or input, not both")
    if "messages" not in body and "input" not in body:
        raise fault("missing_required_parameter", "messages")
    return "draft" if "messages" in body else "responses"


def check(endpoint: str, body: Body, has: Any) -> None:
    """Refuse a body that is not what its endpoint takes.

    Raises:
        Refusal: 400, the parameter is the path of the member at fault.
    """
    needed = {"chat": "messages", "draft": "messages", "responses": "input",
              "embeddings": "input", "completions": "prompt"}[endpoint]  # fmt: skip
    for field in (needed, "model"):
        if field not in body:
            raise fault("missing_required_parameter", field)
    if not isinstance(body["model"], str):
        raise fault("invalid_type", "model")
    if endpoint in ("chat", "draft"):
        check_messages(body["messages"], has)
    if endpoint == "embeddings":
        check_vectors(body["input"])
    check_numbers(body, has)
    check_auto(body, endpoint, has)
    check_format(body.get("response_format"), has)


def check_messages(turns: Any, has: Any) -> None:
    if not isinstance(turns, list):
        raise fault("invalid_type", "messages")
    if not turns:
        raise fault("invalid_value", "messages")
    calls: set[str] = set()
    for place, turn in enumerate(turns):
        at = f"messages[{place}]"
        if not isinstance(turn, dict):
            raise fault("invalid_type", at)
        role = turn.get("role")
        if "role" not in turn:
            raise fault("missing_required_parameter", f"{at}.role")
        if not isinstance(role, str):
            raise fault("invalid_type", f"{at}.role")
        if role not in ROLES:
            raise fault("invalid_value", f"{at}.role")
        content = turn.get("content")
        if content is None and role != "assistant":
            raise fault("missing_required_parameter", f"{at}.content")
        if content is not None and not isinstance(content, str | list):
            raise fault("invalid_type", f"{at}.content")
        calls |= {made.get("id") for made in turn.get("tool_calls") or () if isinstance(made, dict)}
        if role == "tool" and turn.get("tool_call_id") not in calls and not has("any-call-id"):
            raise fault("invalid_value", f"{at}.tool_call_id")


def check_vectors(given: Any) -> None:
    if not isinstance(given, str | list):
        raise fault("invalid_type", "input")
    if not given or (isinstance(given, list) and "" in given):
        raise fault("invalid_value", "input")


def check_numbers(body: Body, has: Any) -> None:
    if has("auto-temperature-ok") and body.get("temperature") == AUTO:
        del body["temperature"]
    for name, (least, most) in RANGES.items():
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise fault("invalid_type", name)
        if not math.isfinite(value) or not least <= value <= most:
            raise fault("invalid_value", name)
    for name in ("n", "seed", "top_logprobs"):
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise fault("invalid_type", name)
    if body.get("n") is not None and body["n"] < 1:
        raise fault("invalid_value", "n")
    for name in LIMITS:
        value = body.get(name)
        if value is None or value == AUTO:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise fault("invalid_type", name)
        if value < 1 and not has("zero-limit-ok"):
            raise fault("invalid_value", name)
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool) and not has("stream-any"):
        raise fault("invalid_type", "stream")


def check_auto(body: Body, endpoint: str, has: Any) -> None:
    """Check the members that take ``auto`` beside their own type."""
    tools = body.get("tools")
    if tools is not None and tools != AUTO and not isinstance(tools, list) and not has("tools-any"):
        raise fault("invalid_type", "tools")
    choice = body.get("tool_choice")
    if tools == AUTO and isinstance(choice, dict) and not has("any-tool-choice"):
        raise fault("invalid_value", "tool_choice", "an auto tool cannot be named")
    reasoning = body.get("reasoning")
    if reasoning is not None and reasoning != AUTO and not isinstance(reasoning, dict):
        if not has("reasoning-any"):
            raise fault("invalid_type", "reasoning")
        del body["reasoning"]


def check_format(wanted: Any, has: Any) -> None:
    if wanted is None or wanted in (AUTO, "provider-adaptive"):
        return
    if not isinstance(wanted, dict):
        raise fault("invalid_type", "response_format")
    if wanted.get("type") == "json_schema" and not has("any-schema"):
        told = wanted.get("json_schema")
        if not isinstance(told, dict) or not legal_schema(told.get("schema", {})):
            raise fault("invalid_value", "response_format")


def legal_schema(schema: Any) -> bool:
    """Return whether the types a JSON Schema names exist, as deep as it goes."""
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, dict):
        return False
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or not set(map(str, kinds)) <= JSON_TYPES:
        return False
    properties = schema.get("properties", {})
    inner = list(properties.values()) if isinstance(properties, dict) else [None]
    inner += [schema["items"]] if "items" in schema else []
    return all(legal_schema(one) for one in inner)


# --- answers --------------------------------------------------------------------------------------


def answer(ask: Ask, found: Answered) -> Body:
    """Return the body of a whole answer."""
    body = {name: value for name, value in found.body.items() if name != "x-aiproxy"}
    if found.kind == "chat":
        body.setdefault("id", f"chatcmpl-{uuid4().hex}")
        body["object"] = "chat.completion"
        body.setdefault("created", int(time.time()))
        if "usage" not in body and not ask.has("usage-omitted"):
            body["usage"] = dict(found.attempt.usage or {})
    body["model"] = told_model(ask)
    if ask.endpoint == "embeddings" and ask.has("vectors-reversed"):
        body["data"] = body["data"][::-1]
    if ask.has(f"{found.attempt.model.provider.type}-field-left"):
        body["vendor_field"] = 1
    if ask.endpoint == "draft":
        body = union(ask, body)
    elif ask.endpoint == "responses" and found.kind == "chat":
        body = from_chat(ask, body)
    if ask.has("vendor-field"):
        body["vendor_field"] = 1
    body = misdrawn.answer(ask, unfaithful.answer(ask, misled.answer(ask, body)))
    if not ask.has("no-x-aiproxy") and ask.settings.raw.get("transparency_body", True):
        body["x-aiproxy"] = x_aiproxy(ask)
    return body


def items_of(message: Mapping[str, Any]) -> list[Body]:
    """Return the output items of a chat message."""
    found: list[Body] = []
    if message.get("content"):
        part = {
            "type": "output_text",
            "text": message["content"],
            "annotations": [],
            "logprobs": [],
        }
        found.append(
            {"id": f"msg_{uuid4().hex}", "type": "message", "status": "completed",
             "role": "assistant", "content": [part]}
        )  # fmt: skip
    for made in message.get("tool_calls") or ():
        found.append(
            {"id": f"fc_{uuid4().hex}", "type": "function_call", "status": "completed",
             "call_id": made["id"], "name": made["function"]["name"],
             "arguments": made["function"]["arguments"]}
        )  # fmt: skip
    return found


def response_object(
    ask: Ask, name: str, status: str, output: list[Body], usage: Mapping[str, Any] | None
) -> Body:
    """Return a Response object with all of its 31 members."""
    asked = ask.body
    told = None
    if usage:
        told = {
            "input_tokens": usage.get("prompt_tokens", 0),
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage.get("completion_tokens", 0),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.get("total_tokens", 0),
        }
    limit = next((v for n in LIMITS if isinstance(v := asked.get(n), int)), None)
    tools = asked.get("tools")
    reasoning = asked.get("reasoning")
    text = asked.get("text") if isinstance(asked.get("text"), dict) else None
    return {
        "id": name, "object": "response", "created_at": ask.created,
        "completed_at": int(time.time()) if status == "completed" else None,
        "status": status, "model": told_model(ask), "output": output, "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": asked.get("instructions"), "metadata": asked.get("metadata") or {},
        "previous_response_id": None, "truncation": asked.get("truncation") or "disabled",
        "text": text or {"format": {"type": "text"}},
        "reasoning": reasoning if isinstance(reasoning, dict) else None,
        "tools": tools if isinstance(tools, list) else [],
        "tool_choice": asked.get("tool_choice") or "auto",
        "parallel_tool_calls": asked.get("parallel_tool_calls", True),
        "temperature": asked.get("temperature", 1.0), "top_p": asked.get("top_p", 1.0),
        "presence_penalty": asked.get("presence_penalty", 0.0),
        "frequency_penalty": asked.get("frequency_penalty", 0.0),
        "top_logprobs": asked.get("top_logprobs", 0), "usage": told,
        "max_output_tokens": limit, "max_tool_calls": asked.get("max_tool_calls"),
        "store": False, "background": False, "service_tier": "default",
        "safety_identifier": None, "prompt_cache_key": None,
    }  # fmt: skip


def from_chat(ask: Ask, body: Body) -> Body:
    """Return a Response object made of a chat completion."""
    choice = body["choices"][0]
    status = "incomplete" if choice.get("finish_reason") == "length" else "completed"
    name = f"resp_{uuid4().hex}"
    return response_object(ask, name, status, items_of(choice["message"]), body.get("usage"))


def union(ask: Ask, body: Body) -> Body:
    """Return the draft's answer: a Response object that has choices and both usages too."""
    if ask.has("draft-is-chat"):
        return body
    found = from_chat(ask, body)
    found["created"], found["choices"] = found["created_at"], body["choices"]
    if ask.has("draft-no-choices"):
        del found["choices"]
    if found["usage"] is not None:
        found["usage"] = {**(body.get("usage") or {}), **found["usage"]}
    return found


def chat_from_responses(body: Body) -> Body:
    """Return a Responses request in the words of chat."""
    turns: list[Body] = []
    if body.get("instructions"):
        turns.append({"role": "system", "content": body["instructions"]})
    given = body["input"]
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        kind = item.get("type", "message")
        if kind == "function_call":
            made = dialects.call(item["call_id"], item["name"], item["arguments"])
            turns.append({"role": "assistant", "content": None, "tool_calls": [made]})
        elif kind == "function_call_output":
            content = (
                item["output"] if isinstance(item["output"], str) else json.dumps(item["output"])
            )
            turns.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
        elif kind == "message":
            content = item["content"]
            if isinstance(content, list):
                content = [chat_part(part) for part in content]
            turns.append({"role": item["role"], "content": content})
    kept = ("model", "stream", "temperature", "top_p", "tool_choice", "parallel_tool_calls",
            "metadata", "user", "reasoning", "stream_options", "tools")  # fmt: skip
    found = {name: body[name] for name in kept if name in body}
    found["messages"] = turns
    limit = body.get("max_output_tokens")
    if limit is not None:
        found["max_completion_tokens"] = limit
    if isinstance(found.get("tools"), list):
        found["tools"] = [
            {"type": "function", "function": {k: v for k, v in t.items() if k != "type"}}
            for t in found["tools"]
        ]
    wanted = (body.get("text") or {}).get("format") or {}
    if wanted.get("type") == "json_schema":
        inner = {k: v for k, v in wanted.items() if k != "type"}
        found["response_format"] = {"type": "json_schema", "json_schema": inner}
    elif wanted.get("type") == "json_object":
        found["response_format"] = wanted
    return found


def chat_part(part: Body) -> Body:
    if part.get("type") == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url", "")}}
    return {"type": "text", "text": part.get("text", "")}
