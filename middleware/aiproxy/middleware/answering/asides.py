"""Requests that are made beside the client's own, of the same prompt: the members of an ensemble,
and mirrors.

They are served by the same machinery as any request, under the same constraints, never as a stream,
and each into a record of its own; whoever makes them says what becomes of that.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final

from aiproxy.middleware.answering.serving import Asked, Serving
from aiproxy.middleware.decision import Decision
from aiproxy.middleware.effects import Headers
from aiproxy.middleware.intake.members import patch
from aiproxy.middleware.intent import AUTO, Intent

#: A whole answer is asked for, however the client wants its own.
_STREAMING: Final = frozenset({"stream", "stream_options"})
#: What keeps a provider from doing one thing twice must not keep it from doing two things.
_IDEMPOTENCY: Final = "idempotency-key"


def intent_for(
    intent: Intent, model: str, providers: Collection[str] | None = None, **more: Any
) -> Intent:
    """Return the intent of asking for another model, of those ``providers`` alone if given.

    Nothing relaxes: the client's pool holds too, and quality and latency bind for a model that the
    client did not name.
    """
    limits = intent.constraints
    if providers is not None:
        named = frozenset(providers)
        limits = replace(limits, pool=named if limits.pool is None else named & limits.pool)
    auto = model == AUTO
    return replace(
        intent,
        model=model,
        model_auto=auto,
        autos=tuple(name for name in intent.autos if auto or name != "model"),
        constraints=limits,
        binding=True,
        stream=False,
        ignored=(),
        **more,
    )


def asked_for(asked: Asked, model: str) -> Asked:
    """Return the client's body as a request for a whole answer of another model."""
    body = {name: value for name, value in asked.body.items() if name not in _STREAMING}
    body["model"] = model
    raw, original, decoded = asked.raw, asked.original, asked.decoded
    if asked.endpoint != "gemini":  # whose path says both
        raw = patch(raw, {"model": model}, remove=_STREAMING)
    if original is not None:
        original = {**original, "model": model, "stream": False}
    if decoded is not None:
        decoded = replace(decoded, model=model, stream=False, include_usage=False)
    return replace(asked, body=body, raw=raw, native=None, original=original, decoded=decoded)


def aside(serving: Serving, intent: Intent, asked: Asked, mark: str) -> Serving:
    """Return the serving of a request beside another one, with an empty record of its own.

    ``mark`` is short and tells it from the others of the same request."""
    held = serving.decision
    decision = Decision(
        id=held.id,
        started=held.started,
        created=held.created,
        endpoint=held.endpoint,
        node=held.node,
        owner=held.owner,
        requested=intent.model,
        headers=held.headers,
        preferences=held.preferences,
        intent=intent,
        conversation=held.conversation,
    )
    inbound = replace(serving.inbound, headers=_marked(serving.inbound.headers, mark))
    return Serving(
        gateway=serving.gateway,
        inbound=inbound,
        decision=decision,
        intent=intent,
        asked=asked,
        deadline=serving.deadline,
        beside=True,
    )


def _marked(headers: Headers, mark: str) -> Headers:
    if not any(name == _IDEMPOTENCY for name, _ in headers):
        return headers
    return tuple(
        (name, f"{value}-{mark}") if name == _IDEMPOTENCY else (name, value)
        for name, value in headers
    )
