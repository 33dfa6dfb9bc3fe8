"""Whole answers in: ``GenerateContentResponse`` objects to the canonical form."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    CanonicalReply,
    Choice,
    Json,
    MalformedReply,
    MalformedRequest,
    Part,
    Reasoning,
    Text,
    ToolCall,
)
from aiproxy.middleware.dialects.gemini.citations import Told, annotations
from aiproxy.middleware.dialects.gemini.logprobs import tokens_of
from aiproxy.middleware.dialects.gemini.parts_in import decode_part, within
from aiproxy.middleware.dialects.gemini.usage import usage_of
from aiproxy.middleware.dialects.gemini.vocabulary import (
    DIALECT,
    FAILED,
    broke_off,
    native_reason,
    told_reason,
)
from aiproxy.middleware.dialects.reading import words


def check_reply(body: object) -> str | None:
    """Return why a 200 body is no answer, in our words, or ``None`` when it is one."""
    if not isinstance(body, Mapping):
        return "the body is not a JSON object"
    if body.get("error"):
        return "the body holds an error object"
    if blocked(body) is not None:
        return None
    candidates = body.get("candidates")
    if not isinstance(candidates, list):
        return "candidates is missing"
    if not candidates:
        return "candidates is empty"
    for i, candidate in enumerate(candidates):
        if not isinstance(candidate, Mapping):
            return f"candidates[{i}] is not an object"
        native = native_reason(candidate.get("finishReason"))
        parts = content_parts(candidate)
        if broke_off(native, bool(parts)):
            return f"candidates[{i}] ended in {native if native in FAILED else 'an error'}"
        if native is None and not parts:
            return f"candidates[{i}] has no content"
    return None


def blocked(body: Mapping[str, Any]) -> str | None:
    """Return why the prompt was blocked, where there is no answer for that reason."""
    feedback = body.get("promptFeedback")
    if not isinstance(feedback, Mapping) or body.get("candidates"):
        return None
    reason = feedback.get("blockReason")
    return reason if isinstance(reason, str) and reason else None


def content_parts(candidate: Json) -> list[Any]:
    """Return the parts of a candidate as they are."""
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, Mapping) else None
    return parts if isinstance(parts, list) else []


def decode_reply(body: Mapping[str, Any]) -> CanonicalReply:
    """Return the canonical reply. A blocked prompt is an empty answer that a content filter
    ended.

    Raises:
        MalformedReply: an error object, no candidates, or one that broke off.
    """
    fault = check_reply(body)
    if fault is not None:
        raise MalformedReply(fault)
    reason = blocked(body)
    choices: tuple[Choice, ...]
    if reason is not None:
        choices = (Choice((), "content_filter", native_finish_reason=reason),)
    else:
        choices = tuple(_choice(c, i) for i, c in enumerate(body["candidates"]))
    return CanonicalReply(
        choices=choices,
        source=DIALECT,
        usage=usage_of(body.get("usageMetadata")),
        id=reading.optional(body.get("responseId")),
        model=reading.optional(body.get("modelVersion")),
        extra=reading.rest(
            body, words("candidates usageMetadata responseId modelVersion createTime")
        ),
    )


def _choice(candidate: Json, position: int) -> Choice:
    parts: list[Part] = []
    starts: dict[int, int] = {}
    length = 0
    for i, given in enumerate(content_parts(candidate)):
        if not isinstance(given, Mapping):
            raise MalformedReply(f"candidates[{position}].content.parts[{i}] is not an object")
        if not given:
            continue
        try:
            part = decode_part(given)
        except MalformedRequest as fault:
            place = f"candidates[{position}].content.parts[{i}]"
            raise MalformedReply(str(within(place, fault))) from None
        if isinstance(part, Text):
            starts[i] = length
            length += len(part.text)
        _add(parts, part)
    texts = [part for part in parts if isinstance(part, Text)]
    told = Told("".join(part.text for part in texts))
    cited = tuple(annotations(candidate, told, starts))
    tokens = tokens_of(candidate.get("logprobsResult"))
    if cited or tokens:
        _attach(parts, cited, tokens)
    native = native_reason(candidate.get("finishReason"))
    called = any(isinstance(part, ToolCall) for part in parts)
    reason = told_reason(native or "STOP", called)
    index = candidate.get("index")
    return Choice(
        tuple(parts),
        reason,
        index if isinstance(index, int) and index >= 0 else position,
        native if native is not None and native.lower() != reason else None,
        reading.rest(candidate, words("content finishReason index logprobsResult")),
    )


def _add(parts: list[Part], part: Part) -> None:
    """Add a part; text that goes on without a signature between is one part."""
    last = parts[-1] if parts else None
    if isinstance(last, Text) and isinstance(part, Text):
        if last.signature is None and part.signature is None and not (last.extra or part.extra):
            parts[-1] = replace(last, text=last.text + part.text)
            return
    elif (
        isinstance(last, Reasoning)
        and isinstance(part, Reasoning)
        and last.signature is None
        and part.signature is None
    ):
        parts[-1] = replace(last, text=last.text + part.text)
        return
    parts.append(part)


def _attach(parts: list[Part], cited: tuple[Json, ...], tokens: tuple[Json, ...]) -> None:
    """Give citations and probabilities to the text; their offsets count from its beginning."""
    for i, part in enumerate(parts):
        if isinstance(part, Text):
            parts[i] = replace(part, annotations=cited, logprobs=tokens or None)
            return
    parts.append(Text("", cited, tokens or None))
