"""Cohere's Chat API, version 2, and its surface for clients of OpenAI's."""

from collections.abc import Mapping
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
    nested_tools,
    objects,
    turns,
)
from aiproxy.conformance.rig.shapes.speech import Ask, Call, Frames, Refusal, Said, event

_UNKNOWN: Final = "unknown field: parameter '{name}' is not a valid field"
_MEMBERS: Final = frozenset(
    {"stream", "model", "messages", "tools", "documents", "citation_options", "response_format",
     "safety_mode", "max_tokens", "stop_sequences", "temperature", "seed", "frequency_penalty",
     "presence_penalty", "k", "p", "logprobs", "tool_choice", "strict_tools", "thinking",
     "priority", "return_prompt", "raw_prompting"}
)  # fmt: skip
# Members of OpenAI's chat that the compatible surface refuses.
_REFUSED: Final = frozenset(
    {"stream_options", "store", "metadata", "logit_bias", "n", "modalities", "prediction",
     "audio", "service_tier", "parallel_tool_calls"}
)  # fmt: skip
_STOP: Final = {"stop": "COMPLETE", "length": "MAX_TOKENS", "tool_calls": "TOOL_CALL",
                "content_filter": "ERROR"}  # fmt: skip


def read(request: Request, actor: Actor) -> Ask:
    """Return what was asked; see ``speech.Dialect``."""
    if _foreign(request):
        ask = openai.read(request, actor)
        if ask.shape == "chat":
            known_only(ask.body, set(ask.body) - _REFUSED, _UNKNOWN)
        return ask
    given = bearer(request)
    need(given, "no api key supplied", status=401)
    need(given == actor.key, "invalid api token", status=401)
    path = request.path.rstrip("/")
    if path.endswith("/models") and request.method == "GET":
        return Ask("cohere-models")
    if not path.endswith("v2/chat") or request.method != "POST":
        raise Refusal(404, "not found")
    body = json_object(request)
    known_only(body, _MEMBERS, _UNKNOWN, status=422)
    model = body.get("model")
    need(isinstance(model, str) and model, "invalid request: model is required")
    need(model == actor.upstream_model, f"model '{model}' not found", status=404)
    return _chat(body)


def _foreign(request: Request) -> bool:
    if request.path.rstrip("/").endswith("/models"):
        return "/compatibility/" in request.path
    return openai.meant(request, ("chat/completions", "embeddings"))


def _chat(body: Mapping[str, Any]) -> Ask:
    messages = objects(body.get("messages"), "messages")
    turns(messages, ("user", "assistant", "system", "tool"))
    for message in messages:
        if message["role"] == "user":
            need(message.get("content"), "invalid request: all elements must have content")
    between(body, "temperature", 0, 2)
    between(body, "p", 0.0, 0.99)
    tools = nested_tools(body)
    choice = body.get("tool_choice")
    need(choice in (None, "REQUIRED", "NONE"), "invalid tool_choice: REQUIRED or NONE")
    wanted = body.get("response_format") or {}
    kind = wanted.get("type", "text")
    need(kind in ("text", "json_object"), "invalid response_format: type")
    form = None
    if kind == "json_object":
        form = wanted.get("json_schema") or wanted.get("schema") or {}
    limit = count(body, "max_tokens")
    forced = insisted(tools, choice, ("REQUIRED",)) if choice == "REQUIRED" else None
    return Ask("cohere", body, flag(body, "stream"), limit, forced, form)


def refused(request: Request, refusal: Refusal) -> Any:
    """Return an error object: a message, and the answer's id."""
    return {"id": "00000000-0000-4000-8000-000000000000", "message": refusal.message}


def whole(ask: Ask, said: Said) -> Any:
    """Return a chat answer, or models."""
    if ask.shape == "cohere-models":
        return {"models": [{"name": said.model, "endpoints": ["chat"]}]}
    if ask.shape != "cohere":
        return openai.whole(ask, said)
    message: dict[str, Any] = {"role": "assistant"}
    if said.calls:
        message["tool_calls"] = [_call(call, call.arguments) for call in said.calls]
        message["tool_plan"] = said.text or "I will use a tool."
    else:
        message["content"] = [{"type": "text", "text": said.text}]
    stop = _STOP.get(said.finish or "")
    return {"id": said.id, "finish_reason": stop, "message": message, **_usage(said), **said.extra}


def _call(call: Call, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": f"{call.name}_{call.id[5:]}", "type": "function", "function": function}


def _usage(said: Said) -> dict[str, Any]:
    if said.usage is None:
        return {}
    prompt, completion = said.count("prompt_tokens"), said.count("completion_tokens")
    counts = {"input_tokens": prompt, "output_tokens": completion}
    return {"usage": {"billed_units": counts, "tokens": counts}}


def frames(ask: Ask, said: Said) -> Frames:
    """Return the events of a streamed chat."""
    if ask.shape != "cohere":
        return openai.frames(ask, said)

    def say(kind: str, **members: Any) -> str:
        return event({"type": kind, **members}, kind)

    empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    opening = [say("message-start", id=said.id, delta={"message": empty})]
    if said.calls:
        content, end = _call_events(say, said), []
    else:
        first = {"message": {"content": {"type": "text", "text": ""}}}
        opening.append(say("content-start", index=0, delta=first))
        content = [
            say("content-delta", index=0, delta={"message": {"content": {"text": piece}}})
            for piece in said.text_pieces()
        ]
        end = [say("content-end", index=0)]
    stop = {"finish_reason": _STOP.get(said.finish or ""), **_usage(said)}
    return Frames(
        opening=opening,
        content=content,
        finish=[*end, say("message-end", delta=stop)] if said.finish is not None else end,
        done=["data: [DONE]\n\n"],
        error=lambda message, code, after: [
            say("message-end", delta={"finish_reason": "ERROR", "error": message})
        ],
        garbage='event: content-delta\ndata: {"type":"content-del\n\n',
    )


def _call_events(say: Any, said: Said) -> list[str]:
    found = [
        say("tool-plan-delta", delta={"message": {"tool_plan": piece}})
        for piece in said.text_pieces() or ["I will use a tool."]
    ]
    for place, call in enumerate(said.calls):
        begun = {"message": {"tool_calls": _call(call, "")}}
        found.append(say("tool-call-start", index=place, delta=begun))
        for piece in said.argument_pieces(call):
            more = {"message": {"tool_calls": {"function": {"arguments": piece}}}}
            found.append(say("tool-call-delta", index=place, delta=more))
        found.append(say("tool-call-end", index=place))
    return found


def headers(request: Request, said_id: str) -> tuple[tuple[str, str], ...]:
    """Return the fields Cohere puts on every answer."""
    return (("x-debug-trace-id", said_id), ("x-api-warning", "fake provider"))
