"""What a Gemini answer cannot show of a canonical one."""

from collections.abc import Iterator

from aiproxy.middleware.dialects import losses
from aiproxy.middleware.dialects.canonical import (
    CanonicalEvent,
    CanonicalReply,
    Finish,
    Loss,
    Opaque,
    OpaqueItem,
    Part,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    TextDelta,
    ToolCall,
    ToolCallStart,
    ToolResult,
    UsageEvent,
)
from aiproxy.middleware.dialects.gemini.vocabulary import DIALECT

REFUSAL = Loss("refusal", "gemini tells a refusal as ordinary text")
ANNOTATIONS = Loss("annotations", "gemini has no citations but those of a URL")
BAD_CALL = Loss("tool_call", "the arguments of a call are no JSON object")
CUT_CALL = Loss("tool_call", "a call was cut short inside its arguments")
STOP = Loss("stop_sequence", "gemini does not tell which stop sequence was hit")
WRITTEN = Loss("usage.cache_write", "gemini does not count tokens written to a cache")
FREE_CALL = Loss("tool_call", "a call with free-form input is told as one with an input text")


def reply_losses(reply: CanonicalReply) -> Iterator[Loss]:
    """Yield what a ``GenerateContentResponse`` of ``reply`` leaves out."""
    own = reply.source == DIALECT
    if reply.usage is not None and reply.usage.cache_write:
        yield WRITTEN
    for choice in reply.choices:
        if choice.stop_sequence is not None:
            yield STOP
        for part in choice.parts:
            yield from part_losses(part, reply.source)
        if not own:
            yield from losses.members(choice.extra, "choice.", "gemini has no such member")
    if not own:
        yield from losses.members(reply.extra, "", "a gemini answer has no such member")


def part_losses(part: Part, source: str) -> Iterator[Loss]:
    """Yield what the parts of an answer leave out of ``part`` of a reply from ``source``."""
    if isinstance(part, Refusal):
        yield REFUSAL
    elif isinstance(part, ToolCall):
        if part.kind == "custom":
            yield FREE_CALL
        if source != DIALECT:
            yield from losses.members(part.extra, "tool_call.", "gemini calls have no such member")
    elif isinstance(part, Opaque):
        if part.dialect != DIALECT:
            yield Loss("content_part", f"gemini has no {part.kind} parts")
    elif isinstance(part, ToolResult):
        yield Loss("content_part", "a gemini answer has no tool results")


def event_losses(event: CanonicalEvent) -> Iterator[Loss]:
    """Yield what the chunks of a stream leave out of ``event``, whose opaque data is of no known
    origin; of a known one it travels in a seal."""
    if isinstance(event, RefusalDelta):
        yield REFUSAL
    elif isinstance(event, Finish):
        if event.stop_sequence is not None:
            yield STOP
    elif isinstance(event, UsageEvent):
        if event.usage.cache_write:
            yield WRITTEN
    elif isinstance(event, OpaqueItem):
        if event.dialect != DIALECT:
            yield Loss("content_part", f"gemini has no {event.kind} parts")
    elif isinstance(event, ToolCallStart) and event.kind == "custom":
        yield FREE_CALL
    if isinstance(event, ReasoningDelta) and event.origin is None:
        yield from losses.sealed(event)
    elif isinstance(event, TextDelta | ToolCallStart) and event.origin is None:
        yield from losses.signed(event)
