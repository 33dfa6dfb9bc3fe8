"""What a chat answer cannot show of a canonical one."""

from collections.abc import Iterator

from aiproxy.middleware.dialects import losses
from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
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
    Text,
    TextDelta,
    ToolCall,
    ToolCallStart,
)
from aiproxy.middleware.dialects.chat.annotations import is_told
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT

_CITED = Loss("annotations", "a chat answer cites web pages only")
_STOP = Loss("stop_sequence", "a chat choice does not tell which stop sequence was hit")


def reply_losses(reply: CanonicalReply) -> Iterator[Loss]:
    """Yield what a ``chat.completion`` object of ``reply`` leaves out."""
    for choice in reply.choices:
        for part in choice.parts:
            yield from part_losses(part, reply.source)
        if reply.source != DIALECT:
            if choice.stop_sequence is not None:
                yield _STOP
            yield from losses.members(choice.extra, "choice.", "a chat choice has no such member")
    if reply.source != DIALECT:
        yield from losses.members(reply.extra, "", "a chat answer has no such member")


def part_losses(part: Part, source: str) -> Iterator[Loss]:
    """Yield what a chat message leaves out of ``part`` of a reply from ``source``."""
    if isinstance(part, Opaque):
        yield _opaque(part)
    elif isinstance(part, Image | File):
        yield Loss("content_part", f"a chat answer has no {type(part).__name__.lower()} parts")
    elif isinstance(part, ToolCall) and source != DIALECT:
        yield from losses.members(part.extra, "tool_call.", "chat calls have no such member")
    elif isinstance(part, Text) and not all(is_told(a, source) for a in part.annotations):
        yield _CITED


def event_losses(event: CanonicalEvent) -> Iterator[Loss]:
    """Yield what chat chunks leave out of ``event``, whose opaque data is of no known origin."""
    if isinstance(event, OpaqueItem):
        yield _opaque(event)
    elif isinstance(event, Finish):
        if event.stop_sequence is not None:
            yield _STOP
    elif isinstance(event, AnnotationDelta):
        yield _CITED
    elif isinstance(event, ReasoningDelta):
        yield from losses.sealed(event)
    elif isinstance(event, TextDelta | ToolCallStart):
        yield from losses.signed(event)


def _opaque(part: Opaque | OpaqueItem) -> Loss:
    if part.dialect == "responses":
        return Loss("item", f"chat has no {part.kind} items")
    return Loss("content_part", f"a chat answer has no {part.kind} parts")
