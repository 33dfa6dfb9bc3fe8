"""Whole answers out: the canonical form to ``GenerateContentResponse`` objects."""

from collections.abc import Mapping
from typing import Any

import orjson

from aiproxy.middleware.dialects.canonical import (
    Audio,
    CanonicalReply,
    Choice,
    Envelope,
    File,
    Image,
    Json,
    Loss,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Untranslatable,
)
from aiproxy.middleware.dialects.gemini.citations import Told, grounding_metadata
from aiproxy.middleware.dialects.gemini.logprobs import logprobs_result
from aiproxy.middleware.dialects.gemini.losses import ANNOTATIONS, BAD_CALL, CUT_CALL, reply_losses
from aiproxy.middleware.dialects.gemini.parts_out import encode_part
from aiproxy.middleware.dialects.gemini.sealing import signature_of
from aiproxy.middleware.dialects.gemini.turns_out import sign_reply
from aiproxy.middleware.dialects.gemini.usage import usage_metadata
from aiproxy.middleware.dialects.gemini.vocabulary import DIALECT, their_reason
from aiproxy.middleware.dialects.losses import note


def encode_reply(
    reply: CanonicalReply, envelope: Envelope, losses: list[Loss] | None = None
) -> dict[str, Any]:
    """Return a ``GenerateContentResponse``; candidates are renumbered from 0.

    ``losses``, when given, receives what the object cannot show. A call whose arguments are no
    JSON object is left out, and its answer ends as Google ends such answers.
    """
    lost = losses if losses is not None else []
    note(lost, reply_losses(reply))
    ordered = sorted(reply.choices, key=lambda choice: choice.index)
    body: dict[str, Any] = {
        "candidates": [_candidate(c, i, reply, envelope, lost) for i, c in enumerate(ordered)],
        "modelVersion": envelope.model,
        "responseId": envelope.id,
    }
    if reply.usage is not None:
        body["usageMetadata"] = usage_metadata(reply.usage)
    if reply.source == DIALECT:
        for name, value in reply.extra.items():
            body.setdefault(name, value)
    return body


def _candidate(
    choice: Choice, index: int, reply: CanonicalReply, envelope: Envelope, losses: list[Loss]
) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    bad = False
    calls = 0
    for part in choice.parts:
        if isinstance(part, ToolCall):
            made = call_part(part, part.id or envelope.call_id(calls, index), reply.source)
            calls += 1
            if made is None:
                short = choice.finish_reason == "length"
                note(losses, [CUT_CALL if short else BAD_CALL])
                bad = bad or not short
                continue
        else:
            made = said_part(part, reply.source)
        if made is not None:
            parts.append(made)
    if reply.source != DIALECT:
        sign_reply(parts)
    reason = "MALFORMED_FUNCTION_CALL" if bad else None
    candidate: dict[str, Any] = {
        "content": {"role": "model", "parts": parts},
        "finishReason": reason or their_reason(choice.finish_reason, choice.native_finish_reason),
        "index": index,
    }
    own = choice.extra if reply.source == DIALECT else {}
    texts = [part for part in choice.parts if isinstance(part, Text)]
    cited = [a for part in texts for a in part.annotations]
    if cited and not {"groundingMetadata", "citationMetadata"} & own.keys():
        grounding, whole = grounding_metadata(cited, Told("".join(t.text for t in texts)))
        if grounding is not None:
            candidate["groundingMetadata"] = grounding
        if not whole:
            note(losses, [ANNOTATIONS])
    tokens = logprobs_result(token for part in texts for token in part.logprobs or ())
    if tokens is not None:
        candidate["logprobsResult"] = tokens
    return {**own, **candidate}


def said_part(part: Part, source: str) -> dict[str, Any] | None:
    """Return a part of an answer from ``source`` that is no call, ``None`` when there is nothing
    to show."""
    if isinstance(part, Text):
        made = _signed({"text": part.text}, part, source)
        return made if part.text or "thoughtSignature" in made else None
    if isinstance(part, Reasoning):
        text = "\n\n".join(piece for piece in (*part.summary, part.text) if piece)
        made = _signed({"text": text, "thought": True}, part, source)
        return made if text or "thoughtSignature" in made else None
    if isinstance(part, Refusal):
        return {"text": part.text} if part.text else None
    if isinstance(part, Image | File | Audio):
        try:
            return encode_part(part, source, [])
        except Untranslatable:
            return _linked(part)
    return encode_part(part, source, [])


def _linked(part: Image | File | Audio) -> dict[str, Any] | None:
    """Return a medium that is only known by where it is."""
    uri = None if isinstance(part, Audio) else part.url
    return None if uri is None else {"fileData": {"fileUri": uri}}


def _signed(made: dict[str, Any], part: Text | Reasoning | ToolCall, source: str) -> dict[str, Any]:
    identity = str(made["functionCall"]["id"]) if "functionCall" in made else ""
    text = str(made.get("text", ""))
    signature = signature_of(part, part.origin or source, text, identity)
    if signature is not None:
        made["thoughtSignature"] = signature
    return made


def call_part(part: ToolCall, identity: str, source: str) -> dict[str, Any] | None:
    """Return the part of a call, ``None`` when its arguments are no JSON object."""
    arguments = arguments_object(part.arguments, part.kind == "custom")
    if arguments is None:
        return None
    call = {"id": identity, "name": part.name, "args": arguments}
    return _signed({"functionCall": call}, part, source)


def arguments_object(text: str, free: bool) -> Json | None:
    """Return arguments as an object; ``free`` text becomes its ``input``."""
    if free:
        return {"input": text}
    if not text.strip():
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, Mapping) else None
