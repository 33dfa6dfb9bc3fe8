"""OpenAI chat completions, and the dialects that copy them."""

from collections.abc import Mapping, Sequence
from typing import Any

from aiproxy.conformance.rig.shapes.requests import (
    OPENAI_ROLES,
    between,
    count,
    flag,
    insisted,
    need,
    nested_tools,
    objects,
    turns,
)
from aiproxy.conformance.rig.shapes.speech import Ask, Frames, Said, event


def read(body: Mapping[str, Any], roles: Sequence[str] = OPENAI_ROLES) -> Ask:
    """Return what a chat request asks; the model was looked at before.

    Raises:
        Refusal: it is malformed.
    """
    turns(objects(body.get("messages"), "messages"), roles)
    tools = nested_tools(body)
    between(body, "temperature", 0, 2)
    between(body, "top_p", 0, 1)
    limit = count(body, "max_completion_tokens", "max_tokens")
    count(body, "n")
    stream = flag(body, "stream")
    options = body.get("stream_options")
    need(options is None or stream, "stream_options needs stream: true", "stream_options")
    need(options is None or isinstance(options, dict), "stream_options: object", "stream_options")
    choice = body.get("tool_choice")
    need(choice is None or tools, "tool_choice is only allowed with tools", "tool_choice")
    return Ask(
        "chat", body, stream, limit, insisted(tools, choice, ("required", "any")), _form(body)
    )


def _form(body: Mapping[str, Any]) -> Any:
    wanted = body.get("response_format")
    if wanted is None:
        return None
    need(isinstance(wanted, dict), "response_format must be an object", "response_format")
    match wanted.get("type"):
        case "text":
            return None
        case "json_object":
            return {}
        case "json_schema":
            inner = wanted.get("json_schema")
            right = isinstance(inner, dict) and isinstance(inner.get("name"), str)
            need(right, "response_format.json_schema.name is missing", "response_format")
            return inner.get("schema", {}) if isinstance(inner, dict) else {}
    need(False, "response_format.type is unknown", "response_format.type")
    return None


def whole(ask: Ask, said: Said) -> dict[str, Any]:
    """Return a chat completion."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": said.text or (None if said.calls else ""),
        "refusal": None,
    }
    if said.calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in said.calls
        ]
    answer: dict[str, Any] = {
        "id": f"chatcmpl-{said.id}",
        "object": "chat.completion",
        "created": said.created,
        "model": said.model,
        "choices": [
            {
                "index": index,
                "message": message,
                "logprobs": _chances(ask, [said.text]),
                "finish_reason": said.finish,
            }
            for index in range(choices(ask))
        ],
        "system_fingerprint": f"fp_{said.id[:10]}",
    }
    if said.usage is not None:
        answer["usage"] = dict(said.usage)
    return {**answer, **said.extra}


def frames(ask: Ask, said: Said) -> Frames:
    """Return the chunks of a streamed chat completion."""
    options = ask.body.get("stream_options") or {}
    counted = bool(options.get("include_usage"))

    def chunk(choices: list[dict[str, Any]], usage: Mapping[str, Any] | None = None) -> str:
        data: dict[str, Any] = {
            "id": f"chatcmpl-{said.id}",
            "object": "chat.completion.chunk",
            "created": said.created,
            "model": said.model,
            "system_fingerprint": f"fp_{said.id[:10]}",
            "choices": choices,
        }
        if counted:
            data["usage"] = usage
        return event({**data, **said.extra})

    def every(delta: dict[str, Any], finish: str | None = None) -> list[str]:
        rest = {"logprobs": _chances(ask, [delta.get("content")]), "finish_reason": finish}
        return [chunk([{"index": i, "delta": delta, **rest}]) for i in range(choices(ask))]

    content: list[str] = []
    for piece in said.text_pieces():
        content += every({"content": piece})
    for delta in _call_deltas(said):
        content += every({"tool_calls": [delta]})
    opening: dict[str, Any] = {"role": "assistant", "content": None if said.calls else ""}
    return Frames(
        opening=every({**opening, "refusal": None}),
        content=content,
        finish=every({}, said.finish) if said.finish is not None else [],
        usage=[chunk([], said.usage)] if counted and said.usage is not None else [],
        done=["data: [DONE]\n\n"],
        error=failure,
        counted=counted,
    )


def failure(message: str, code: str | None, after: int = 0) -> list[str]:
    """Return the event of an error inside a stream."""
    kind = {"type": "server_error", "param": None, "code": code}
    return [event({"error": {"message": message, **kind}})]


def choices(ask: Ask) -> int:
    """Return how many alternatives were asked for, at most eight of them."""
    return min(8, ask.body.get("n") or 1)


def _call_deltas(said: Said) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = []
    for index, call in enumerate(said.calls):
        function = {"name": call.name, "arguments": ""}
        deltas.append({"index": index, "id": call.id, "type": "function", "function": function})
        deltas += [
            {"index": index, "function": {"arguments": piece}}
            for piece in said.argument_pieces(call)
        ]
    return deltas


def _chances(ask: Ask, tokens: list[Any]) -> Any:
    """Return the log probabilities, when asked for and there is text."""
    shown = [token for token in tokens if token]
    if not ask.body.get("logprobs") or not shown:
        return None
    rows = [
        {"token": token, "logprob": -0.25, "bytes": list(token.encode()), "top_logprobs": []}
        for token in shown
    ]
    return {"content": rows, "refusal": None}
