"""Whole answers in: Mistral chat completions to the canonical form."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiproxy.middleware.dialects import chat, observe, usage
from aiproxy.middleware.dialects.canonical import (
    CanonicalReply,
    Json,
    Part,
    Text,
    ToolCall,
    Usage,
)
from aiproxy.middleware.dialects.mistral.chunks_in import citation, decode_chunks
from aiproxy.middleware.dialects.mistral.vocabulary import DIALECT


def check_reply(body: Mapping[str, Any]) -> str | None:
    """Return why a 200 body is no answer, or ``None`` when it is one."""
    if body.get("object") == "error":
        return "the body is an error object"
    return observe.check_reply("chat", body)


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply."""
    return usage.read_usage(body.get("usage"))


def decode_reply(body: Mapping[str, Any]) -> CanonicalReply:
    """Return the canonical reply of a chat completion, chunks read as what they say.

    Raises:
        MalformedReply: an error object, no choices, or a choice that broke off.
    """
    chunked: dict[int, list[Part]] = {}
    plain = dict(body)
    choices = body.get("choices")
    if isinstance(choices, list):
        plain["choices"] = [_plain(choice, i, chunked) for i, choice in enumerate(choices)]
    reply = chat.decode_reply(plain)
    told = [
        replace(choice, parts=(*chunked[i], *choice.parts)) if i in chunked else choice
        for i, choice in enumerate(reply.choices)
    ]
    return replace(reply, choices=tuple(told), source=DIALECT)


def _plain(choice: Any, place: int, chunked: dict[int, list[Part]]) -> Any:
    """Return a choice without its list of chunks, which is put aside as parts."""
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), list):
        return choice
    probabilities = choice.get("logprobs")
    tokens = probabilities.get("content") if isinstance(probabilities, Mapping) else None
    chunked[place] = _parts(message["content"], tokens)
    return {**choice, "message": {**message, "content": None}}


def _parts(chunks: object, tokens: object) -> list[Part]:
    parts: list[Part] = []
    text, cited = "", list[Json]()
    for part in decode_chunks(chunks):
        if isinstance(part, tuple):
            cited += [citation(identity, len(text)) for identity in part]
        elif isinstance(part, Text):
            text += part.text
        else:
            assert not isinstance(part, ToolCall)
            parts.append(part)
    if text or cited:
        held = [t for t in tokens if isinstance(t, Mapping)] if isinstance(tokens, list) else None
        parts.append(Text(text, tuple(cited), tuple(held) if held else None))
    return parts
