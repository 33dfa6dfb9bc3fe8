"""What a ``message`` object, or a stream of it, cannot show of a canonical answer."""

from collections.abc import Iterator
from typing import Final

from aiproxy.middleware.dialects import losses
from aiproxy.middleware.dialects.anthropic.citations import citation
from aiproxy.middleware.dialects.anthropic.vocabulary import DIALECT
from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
    Audio,
    AudioDelta,
    CanonicalEvent,
    CanonicalReply,
    File,
    Image,
    Json,
    Loss,
    Opaque,
    OpaqueItem,
    Part,
    Refusal,
    Text,
    TextDelta,
    ToolCall,
    ToolCallStart,
)

_ONE: Final = Loss("choices", "the Messages API tells one answer, the first")
_CUSTOM: Final = Loss("custom_tool", "a call with free text is told as one with a string")
_PROBABILITIES: Final = Loss("logprobs", "the Messages API has no logprobs")


def reply_losses(reply: CanonicalReply) -> Iterator[Loss]:
    """Yield what the ``message`` object of ``reply`` leaves out."""
    if len(reply.choices) > 1:
        yield _ONE
    choice = min(reply.choices, key=lambda c: c.index)
    for part in choice.parts:
        yield from part_losses(part, reply.source)
    if reply.source != DIALECT:
        yield from losses.members(choice.extra, "choice.", "the Messages API has no such member")
        yield from losses.members(reply.extra, "", "a message object has no such member")


def part_losses(part: Part, source: str) -> Iterator[Loss]:
    """Yield what the content blocks leave out of ``part`` of a reply from ``source``."""
    if isinstance(part, Text):
        if part.logprobs:
            yield _PROBABILITIES
        for given in part.annotations:
            yield from _uncited(given)
    elif isinstance(part, Refusal):
        if part.logprobs:
            yield _PROBABILITIES
    elif isinstance(part, Opaque):
        if part.dialect != DIALECT:
            yield Loss("item", f"the Messages API has no {part.kind} items")
    elif isinstance(part, Image | File | Audio):
        kind = type(part).__name__.lower()
        yield Loss("content_part", f"the Messages API has no {kind} parts in answers")
    elif isinstance(part, ToolCall) and source != DIALECT:
        if part.kind == "custom":
            yield _CUSTOM
        yield from losses.members(part.extra, "tool_call.", "calls have no such member here")


def event_losses(event: CanonicalEvent) -> Iterator[Loss]:
    """Yield what the frames leave out of ``event``."""
    if isinstance(event, TextDelta):
        if event.logprobs:
            yield _PROBABILITIES
    elif isinstance(event, ToolCallStart):
        if event.kind == "custom":
            yield _CUSTOM
    elif isinstance(event, AnnotationDelta):
        yield from _uncited(event.annotation)
    elif isinstance(event, AudioDelta):
        yield Loss("content_part", "the Messages API has no audio parts in answers")
    elif isinstance(event, OpaqueItem) and event.dialect != DIALECT:
        yield Loss("item", f"the Messages API has no {event.kind} items")


def other_choice() -> Loss:
    """Return the loss of an answer beside the first."""
    return _ONE


def _uncited(given: Json) -> Iterator[Loss]:
    if citation(given) is None:
        yield Loss("annotations", "the Messages API has no citations of this kind")
