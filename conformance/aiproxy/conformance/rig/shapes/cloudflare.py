"""Cloudflare Workers AI: models run by name, and the surface for clients of OpenAI's."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from aiproxy.conformance.rig.fleet import Actor
from aiproxy.conformance.rig.http1 import Request
from aiproxy.conformance.rig.shapes import openai
from aiproxy.conformance.rig.shapes.requests import (
    bearer,
    between,
    count,
    flag,
    json_object,
    need,
    objects,
)
from aiproxy.conformance.rig.shapes.speech import Ask, Frames, Refusal, Said, event

_RUN: Final = re.compile(r"accounts/([^/]+)/ai/run/(.+)$")
_FOREIGN: Final = frozenset({"chat/completions", "embeddings", "responses"})
_BAD_INPUT, _NO_MODEL, _NO_ENTRY = "5006", "5007", "10000"


def read(request: Request, actor: Actor) -> Ask:
    """Return what was asked; see ``speech.Dialect``."""
    if bearer(request) != actor.key:
        raise Refusal(401, "Authentication error", code=_NO_ENTRY)
    if openai.meant(request, _FOREIGN):
        return openai.read(request, actor)
    path = request.path
    run = _RUN.search(unquote(path))
    if run is None or request.method != "POST":
        raise Refusal(404, f"Could not route to {path}, perhaps your object identifier is invalid?",
                      code="7003")  # fmt: skip
    if run[2] != actor.upstream_model:
        raise Refusal(400, f"AiError: No such model {run[2]} or task", code=_NO_MODEL)
    body = json_object(request)
    _messages(body)
    between(body, "temperature", 0, 5)
    wanted = body.get("response_format") or {}
    form = None
    if wanted.get("type") == "json_schema":
        form = wanted.get("json_schema") or {}
    elif wanted.get("type") == "json_object":
        form = {}
    return Ask("workers-ai", body, flag(body, "stream"), count(body, "max_tokens"), None, form)


def _messages(body: Mapping[str, Any]) -> None:
    """Refuse anything but plain texts: lists of parts and null are type mismatches here."""
    if isinstance(body.get("prompt"), str) and body["prompt"]:
        return
    wrong = "AiError: Bad input: Error: oneOf at '/' not met, 0 matches: required properties at '/'"
    need(isinstance(body.get("messages"), list) and body["messages"], f"{wrong} are 'messages'")
    for place, message in enumerate(objects(body["messages"], "messages")):
        at = f"/messages/{place}"
        need(isinstance(message.get("role"), str), f"{wrong} are '{at}/role'")
        text = isinstance(message.get("content"), str)
        need(text, f"AiError: Bad input: Error: Type mismatch of '{at}/content', 'string' wanted")


def refused(request: Request, refusal: Refusal) -> Any:
    """Return an envelope with an error."""
    code = refusal.code or (_BAD_INPUT if refusal.status == 400 else "3040")
    row = {"code": int(code) if code.isdecimal() else code, "message": refusal.message}
    return {"result": None, "success": False, "errors": [row], "messages": []}


def whole(ask: Ask, said: Said) -> Any:
    """Return the envelope with the text."""
    if ask.shape != "workers-ai":
        return openai.whole(ask, said)
    result: dict[str, Any] = {"response": said.text}
    if said.calls:
        result = {"response": None, "tool_calls": _calls(said)}
    if said.usage is not None:
        result["usage"] = dict(said.usage)
    return {"result": {**result, **said.extra}, "success": True, "errors": [], "messages": []}


def _calls(said: Said) -> list[dict[str, Any]]:
    return [{"name": call.name, "arguments": call.values} for call in said.calls]


def frames(ask: Ask, said: Said) -> Frames:
    """Return the events of a streamed run; counts come in the last before the end."""
    if ask.shape != "workers-ai":
        return openai.frames(ask, said)
    last: dict[str, Any] = {"response": ""}
    if said.calls:
        last["tool_calls"] = _calls(said)
    if said.usage is not None:
        last["usage"] = dict(said.usage)
    return Frames(
        opening=[],
        content=[event({"response": piece, "p": "abcdefghij"}) for piece in said.text_pieces()],
        finish=[event({**last, **said.extra})],
        done=["data: [DONE]\n\n"],
        error=lambda message, code, after: [
            event({"errors": [{"code": code or 3040, "message": message}], "success": False})
        ],
        garbage='data: {"response":"brok\n\n',
    )


def headers(request: Request, said_id: str) -> tuple[tuple[str, str], ...]:
    """Return the fields Cloudflare puts on every answer."""
    return (("cf-ray", f"{said_id[:16]}-AMS"), ("cf-ai-neurons", "1.5"), ("server", "cloudflare"))
