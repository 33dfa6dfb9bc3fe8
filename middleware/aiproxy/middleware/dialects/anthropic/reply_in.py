"""Whole answers in: ``message`` objects to the canonical form."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.anthropic.blocks_in import decode_block
from aiproxy.middleware.dialects.anthropic.citations import annotation
from aiproxy.middleware.dialects.anthropic.finish import DECLINED, read_reason
from aiproxy.middleware.dialects.anthropic.tools import text_of_custom
from aiproxy.middleware.dialects.anthropic.usage import usage_details, usage_of
from aiproxy.middleware.dialects.anthropic.vocabulary import ANSWER_TOOL, DIALECT, json_text
from aiproxy.middleware.dialects.canonical import (
    CanonicalReply,
    Choice,
    Json,
    MalformedReply,
    MalformedRequest,
    Part,
    Refusal,
    Text,
    ToolCall,
    ToolKind,
)
from aiproxy.middleware.dialects.finish import is_failure
from aiproxy.middleware.dialects.reading import words

_READ: Final = words("id type role model content stop_reason stop_sequence stop_details usage")
_TEXT: Final = words("type text citations")
_TIERS: Final = {"standard": "default", "priority": "priority"}
_NO_KINDS: Final[Mapping[str, ToolKind]] = {}


def check_reply(body: Mapping[str, Any]) -> str | None:
    """Return why a 200 body is no answer, in our words; ``None`` when it is one.

    An answer may be empty: the model ends its turn without a word now and then.
    """
    if body.get("error") or body.get("type") == "error":
        return "the body holds an error object"
    content = body.get("content")
    if not isinstance(content, list):
        return "content is missing"
    for i, block in enumerate(content):
        if not isinstance(block, Mapping):
            return f"content[{i}] is not an object"
    reason = body.get("stop_reason")
    if is_failure(reason):
        return "the answer ended in an error"
    if not content and not isinstance(reason, str):
        return "content is empty"
    return None


def decode_reply(
    body: Mapping[str, Any], kinds: Mapping[str, ToolKind] = _NO_KINDS
) -> CanonicalReply:
    """Return the canonical reply of a ``message`` object.

    Text blocks that follow one another are one part: the API cuts a text at every citation.
    ``kinds`` (see ``tools.tool_kinds``) tells which calls are of custom or legacy tools.

    Raises:
        MalformedReply: an error object, or no content.
    """
    fault = check_reply(body)
    if fault is not None:
        raise MalformedReply(fault)
    try:
        parts = _parts(body["content"], kinds)
    except MalformedRequest as error:
        raise MalformedReply(str(error)) from None
    native = body.get("stop_reason")
    called = any(isinstance(part, ToolCall) for part in parts)
    reason = read_reason(native, called)
    extra: dict[str, Any] = {}
    details = body.get("stop_details")
    if native == "refusal":
        words = declined(details, bool(parts))
        if words:
            parts.append(Refusal(words))
    if isinstance(details, Mapping):
        extra["stop_details"] = details
    usage = body.get("usage")
    tier = reading.word(usage.get("service_tier")) if isinstance(usage, Mapping) else ""
    choice = Choice(
        tuple(parts),
        reason,
        native_finish_reason=native if isinstance(native, str) and native != reason else None,
        extra=extra,
        stop_sequence=reading.optional(body.get("stop_sequence")),
    )
    return CanonicalReply(
        (choice,),
        DIALECT,
        usage_of(usage),
        reading.optional(body.get("id")),
        reading.optional(body.get("model")),
        service_tier=_TIERS.get(tier),
        extra={**reading.rest(body, _READ), **usage_details(usage)},
    )


def _parts(content: list[Json], kinds: Mapping[str, ToolKind]) -> list[Part]:
    parts: list[Part] = []
    texts: list[str] = []  # of the text part that is not ended yet
    cited: list[Json] = []
    extra: dict[str, Any] = {}
    length = 0
    for i, block in enumerate(content):
        if block.get("type") == "text":
            said = reading.text(block.get("text"), f"content[{i}].text")
            start, length = length, length + len(said)
            texts.append(said)
            if len(block) > 2:
                for citation in reading.objects(block.get("citations")):
                    cited.append(annotation(citation, start, length))
                extra.update(reading.rest(block, _TEXT))
            continue
        if block.get("type") == "tool_use" and block.get("name") == ANSWER_TOOL:
            texts.append(json_text(block.get("input")))
            length += len(texts[-1])
            continue
        if length:
            parts.append(Text("".join(texts), tuple(cited), extra=extra))
        texts, cited, extra, length = [], [], {}, 0
        part = decode_block(block, f"content[{i}]")
        if kinds and isinstance(part, ToolCall) and part.name in kinds:
            kind = kinds[part.name]
            arguments = part.arguments
            if kind == "custom":
                arguments = text_of_custom(block.get("input"))
            part = replace(part, kind=kind, arguments=arguments)
        parts.append(part)
    if length:
        parts.append(Text("".join(texts), tuple(cited), extra=extra))
    return parts


def declined(details: object, said: bool) -> str:
    """Return what a refusal says: the API's explanation, or a sentence of ours where the answer
    said nothing at all."""
    if isinstance(details, Mapping):
        words = details.get("explanation")
        if isinstance(words, str) and words:
            return words
    return "" if said else DECLINED
