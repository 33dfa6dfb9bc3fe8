"""Mistral's API: OpenAI's chat with members of its own, and strict about all others."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from aiproxy.conformance.rig.fleet import Actor
from aiproxy.conformance.rig.http1 import Request
from aiproxy.conformance.rig.shapes import chat, openai
from aiproxy.conformance.rig.shapes.requests import bearer, json_object, known_only, need
from aiproxy.conformance.rig.shapes.speech import Ask, Call, Frames, Refusal, Said, event

_EXTRA: Final = "{name}: Extra inputs are not permitted"
_MEMBERS: Final = frozenset(
    {"model", "messages", "temperature", "top_p", "top_k", "min_tokens", "max_tokens", "stream",
     "stream_options", "stop", "random_seed", "metadata", "response_format", "tools",
     "tool_choice", "presence_penalty", "frequency_penalty", "repetition_penalty", "logprobs",
     "top_logprobs", "prompt_logprobs", "top_prompt_logprobs", "n", "prediction",
     "parallel_tool_calls", "prompt_mode", "safe_prompt", "reasoning_effort", "guardrails",
     "prompt_cache_key", "service_tier"}
)  # fmt: skip
_OF_ROLE: Final = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls", "prefix"},
    "tool": {"role", "content", "tool_call_id", "name"},
}
_CALL_ID: Final = re.compile(r"[A-Za-z0-9]{9}")


def read(request: Request, actor: Actor) -> Ask:
    """Return what was asked; see ``speech.Dialect``."""
    need(bearer(request) == actor.key, "Unauthorized", status=401)
    path = openai.route(request)
    if path != "chat/completions":
        need(
            path in ("embeddings", "models") or path.startswith("models/"),
            "no Route matched",
            status=404,
        )
        return openai.read(request, actor)
    need(request.method == "POST", "Method Not Allowed", status=405)
    body = json_object(request)
    for name in ("model", "messages"):
        need(name in body, f"{name}: Field required", name, 422)
    known_only(body, _MEMBERS, _EXTRA, status=422)
    options = body.get("stream_options") or {}
    known_only(options, (), "stream_options." + _EXTRA, status=422)
    if body["model"] != actor.upstream_model:
        raise Refusal(400, f"Invalid model: {body['model']}", code="1500")
    ask = chat.read(body, tuple(_OF_ROLE))
    _order(body["messages"])
    return ask


def _order(messages: Sequence[Mapping[str, Any]]) -> None:
    before = ""
    for place, message in enumerate(messages):
        role = str(message.get("role"))
        known_only(message, _OF_ROLE[role], f"messages.{place}.{role}.{_EXTRA}", status=422)
        need(before != "tool" or role != "user", "Unexpected role 'user' after role 'tool'")
        for call in message.get("tool_calls") or []:
            right = _CALL_ID.fullmatch(call["id"])
            need(right, f"Tool call id was {call['id']} but must be a-z, A-Z, 0-9, with a length "
                 "of 9.")  # fmt: skip
        before = role
    last = messages[-1]
    need(
        before in ("user", "tool") or (before == "assistant" and last.get("prefix")),
        "Expected last role User or Tool (or Assistant with prefix True) for serving but got "
        f"{before}",
    )


def refused(request: Request, refusal: Refusal) -> Any:
    """Return an error object; what the validation found lies one deeper."""
    if refusal.status == 401:
        return {"detail": "Unauthorized"}
    kind = {"1500": "invalid_model"}.get(refusal.code or "", "invalid_request_error")
    kind = "rate_limited" if refusal.status == 429 else kind
    kind = "internal_server_error" if refusal.status >= 500 else kind
    message: Any = refusal.message
    if refusal.status == 422:
        place = (refusal.param or refusal.message.partition(":")[0]).split(".")
        row = {"type": "extra_forbidden", "loc": ["body", *place], "msg": refusal.message}
        message = {"detail": [row]}
    rest = {"type": kind, "param": None, "code": refusal.code}
    return {"object": "error", "message": message, **rest}


def whole(ask: Ask, said: Said) -> Any:
    """Return a chat completion without the members only OpenAI has."""
    answer = openai.whole(ask, _own(said))
    if ask.shape == "embeddings":
        return {"id": said.id, **answer}
    if ask.shape == "chat":
        answer["id"] = said.id
        answer.pop("system_fingerprint", None)
        for choice in answer["choices"]:
            choice.pop("logprobs", None)
            message = choice["message"]
            message.pop("refusal", None)
            message.setdefault("tool_calls", None)
            message["content"] = message["content"] or ""
    return answer


def _own(said: Said) -> Said:
    """Return ``said`` with ids of tool calls of nine letters and digits."""
    calls = tuple(
        Call(f"{said.mark[:8]}{place}", call.name, call.arguments)
        for place, call in enumerate(said.calls)
    )
    return replace(said, calls=calls)


def frames(ask: Ask, said: Said) -> Frames:
    """Return the chunks: tool calls whole in one, counts in the last, unasked."""
    own = _own(said)

    def chunk(delta: dict[str, Any], finish: str | None = None, usage: Any = None) -> str:
        data: dict[str, Any] = {
            "id": said.id,
            "object": "chat.completion.chunk",
            "created": said.created,
            "model": said.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }
        if usage is not None:
            data["usage"] = dict(usage)
        return event({**data, **said.extra})

    calls = [
        {"id": c.id, "index": i, "function": {"name": c.name, "arguments": c.arguments}}
        for i, c in enumerate(own.calls)
    ]
    end: dict[str, Any] = {"content": "", "tool_calls": calls} if calls else {"content": ""}
    return Frames(
        opening=[chunk({"role": "assistant", "content": ""})],
        content=[chunk({"content": piece}) for piece in said.text_pieces()],
        finish=[chunk(end, said.finish, said.usage)] if said.finish is not None else [],
        done=["data: [DONE]\n\n"],
        error=_failure,
    )


def _failure(message: str, code: str | None, after: int) -> list[str]:
    rest = {"type": "internal_server_error", "param": None, "code": code}
    return [event({"object": "error", "message": message, **rest})]


def headers(request: Request, said_id: str) -> tuple[tuple[str, str], ...]:
    """Return the fields Mistral puts on every answer."""
    return (("mistral-correlation-id", said_id), ("x-kong-request-id", said_id))
