"""Whole answers out: the canonical form to Response objects."""

from typing import Any

from aiproxy.middleware.dialects.canonical import (
    Audio,
    CanonicalReply,
    Envelope,
    Json,
    Loss,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.responses.items import (
    call_item,
    id_prefix,
    message_item,
    output_text,
    reasoning_item,
)
from aiproxy.middleware.dialects.responses.losses import reply_losses
from aiproxy.middleware.dialects.responses.response import response_object
from aiproxy.middleware.dialects.responses.sealing import marker_item, sealed_content
from aiproxy.middleware.dialects.responses.vocabulary import DIALECT
from aiproxy.middleware.dialects.seals import seal_call, seal_text


def encode_reply(
    reply: CanonicalReply, envelope: Envelope, losses: list[Loss] | None = None
) -> dict[str, Any]:
    """Return the Response object of a reply; only its first choice can be told.

    ``losses``, when given, receives what the object cannot show. ``usage`` is null when it is
    not known.
    """
    if losses is not None:
        note(losses, reply_losses(reply))
    choice = min(reply.choices, key=lambda c: c.index)
    items = _Items(envelope, reply.source)
    for part in choice.parts:
        items.add(part)
    reason = choice.finish_reason
    status = "incomplete" if reason in ("length", "content_filter") else "completed"
    output = items.output
    if status == "incomplete" and output and "status" in output[-1]:
        output[-1]["status"] = "incomplete"
    body = response_object(envelope, status, output, reply.usage, reason)
    if reply.service_tier is not None:
        body["service_tier"] = reply.service_tier
    return body


def encode_error(status: int, error: Json) -> dict[str, Any]:
    """Return the body of a refusal; ``error`` has message, type, param and code."""
    return {"error": dict(error)}


class _Items:
    """Collects parts into output items; adjoining text and refusals share a message."""

    def __init__(self, envelope: Envelope, source: str) -> None:
        self._source = source
        self.output: list[dict[str, Any]] = []
        self._envelope = envelope
        self._calls = 0

    def add(self, part: Part) -> None:
        if isinstance(part, Text):
            if part.text or part.annotations:
                self._say(output_text(part.text, part.annotations, part.logprobs or ()))
            if part.signature is not None:
                self._mark(seal_text(part.origin or self._source, part.signature))
        elif isinstance(part, Refusal):
            self._say({"type": "refusal", "refusal": part.text})
        elif isinstance(part, Audio):
            if part.transcript:
                self._say(output_text(part.transcript))
        elif isinstance(part, Reasoning):
            sealed = sealed_content(part, part.origin or self._source)
            self.output.append(reasoning_item(self._next(), part.text, part.summary, sealed))
        elif isinstance(part, ToolCall):
            identity = part.id or self._envelope.call_id(self._calls)
            self._calls += 1
            if part.signature is not None:
                self._mark(seal_call(part.origin or self._source, identity, part.signature))
            self.output.append(
                call_item(
                    self._envelope.item_id(id_prefix(part.kind), len(self.output)),
                    identity,
                    part.name,
                    part.arguments,
                    part.kind,
                    "completed",
                )
            )
        elif isinstance(part, Opaque) and part.dialect == DIALECT:
            self.output.append(dict(part.value))

    def _next(self) -> str:
        return self._envelope.item_id("rs", len(self.output))

    def _mark(self, seal: str) -> None:
        self.output.append(marker_item(self._next(), seal))

    def _say(self, content: dict[str, Any]) -> None:
        last = self.output[-1] if self.output else None
        if last is None or last.get("type") != "message":
            identity = self._envelope.item_id("msg", len(self.output))
            last = message_item(identity, [], "completed")
            self.output.append(last)
        last["content"].append(content)
