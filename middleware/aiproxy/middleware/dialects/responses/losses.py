"""What a Response object, or a stream of it, cannot show of a canonical answer."""

from collections.abc import Iterator

from aiproxy.middleware.dialects import losses
from aiproxy.middleware.dialects.canonical import (
    Audio,
    AudioDelta,
    CanonicalEvent,
    CanonicalReply,
    File,
    Finish,
    Image,
    Loss,
    Opaque,
    OpaqueItem,
    Part,
    ReasoningDelta,
    Refusal,
    StreamError,
    StreamStart,
    TextDelta,
    ToolCall,
    ToolCallStart,
    UsageEvent,
)
from aiproxy.middleware.dialects.responses.vocabulary import DIALECT

_ONE_CHOICE = Loss("choices", "the Responses API tells one answer, the first")
STOP = Loss("stop_sequence", "the Responses API does not tell which stop sequence was hit")
_SOUND = Loss("audio", "the Responses API tells only the transcript of a spoken answer")


def reply_losses(reply: CanonicalReply) -> Iterator[Loss]:
    """Yield what the Response object of ``reply`` leaves out."""
    choice = min(reply.choices, key=lambda c: c.index)
    if len(reply.choices) > 1:
        yield _ONE_CHOICE
    for part in choice.parts:
        yield from part_losses(part)
    if choice.stop_sequence is not None:
        yield STOP
    yield from losses.members(choice.extra, "choice.", "the Responses API has no such member")
    yield from losses.members(reply.extra, "", "a Response object has no such member")


def part_losses(part: Part) -> Iterator[Loss]:
    """Yield what the output items leave out of ``part``."""
    if isinstance(part, Opaque):
        if part.dialect != DIALECT:
            yield Loss("content_part", f"the Responses API has no {part.kind} parts")
    elif isinstance(part, Image | File):
        kind = type(part).__name__.lower()
        yield Loss("content_part", f"the Responses API has no {kind} parts in answers")
    elif isinstance(part, Audio):
        if part.data or part.id:
            yield _SOUND
    elif isinstance(part, Refusal):
        if part.logprobs:
            yield Loss("refusal.logprobs", "the Responses API has no logprobs of refusals")
    elif isinstance(part, ToolCall):
        yield from losses.members(
            losses.beside_signature(part), "tool_call.", "call items have no such member"
        )


def event_losses(event: CanonicalEvent) -> Iterator[Loss]:
    """Yield what the frames of a stream leave out of ``event``, whose opaque data is of no known
    origin."""
    if isinstance(event, StreamStart | StreamError | UsageEvent):
        return
    if event.choice != 0:
        yield _ONE_CHOICE
    elif isinstance(event, Finish):
        if event.stop_sequence is not None:
            yield STOP
    elif isinstance(event, OpaqueItem):
        yield Loss("item", f"a translated stream does not carry {event.kind} items")
    elif isinstance(event, AudioDelta):
        if event.data or event.id:
            yield _SOUND
    elif isinstance(event, ReasoningDelta):
        yield from losses.sealed(event)
    elif isinstance(event, TextDelta | ToolCallStart):
        yield from losses.signed(event)
