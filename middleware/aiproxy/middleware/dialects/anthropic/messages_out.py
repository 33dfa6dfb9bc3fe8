"""Turns written as a system prompt and messages.

The grammar of this API: the system prompt stands apart; the first message is the user's; turns
alternate, so neighbours of one side are merged; the results of calls open the message after them;
a system message may come later only with some models, right behind a user's message and with an
answer, or nothing, behind itself. Where that does not hold, a later system turn is sent inside a
user message between ``<system>`` marks and declared: losing the instruction would be worse than
lowering its rank, and moving it to the front would change when it holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from aiproxy.middleware.dialects.anthropic.blocks_out import Writer
from aiproxy.middleware.dialects.anthropic.models import Family
from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Reasoning,
    Text,
    ToolResult,
    Turn,
    Untranslatable,
)

#: Said for the user where the API wants a user turn and the conversation has none.
OPENING: Final = "(start of the conversation)"
GO_ON: Final = "Please go on."
_WORDS: Final = ("text", "thinking", "redacted_thinking")


@dataclass(slots=True)
class _Message:
    role: str
    blocks: list[dict[str, Any]]
    plain: str | None = None  # the content as one string, where it was written so
    extra: dict[str, Any] = field(default_factory=dict)


def encode_turns(
    request: CanonicalRequest, family: Family, writer: Writer
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str | None]:
    """Return (messages, system blocks, the system prompt as one string where it was one).

    Raises:
        Untranslatable: a turn holds something this API cannot be told.
    """
    turns = list(request.turns)
    system: list[Turn] = []
    while turns and turns[0].role in ("system", "developer"):
        system.append(turns.pop(0))
    if not turns and system:
        # Only instructions: other APIs answer them, this one wants somebody to answer.
        turns.append(system.pop())
        writer.lose("system", "instructions alone are sent as the user's turn")
        turns[0] = Turn("user", turns[0].parts, form=turns[0].form)
    plain = request.instructions if (request.instructions or "").strip() else None
    blocks: list[dict[str, Any]] = [] if plain is None else [{"type": "text", "text": plain}]
    for turn in system:
        found = list(_system_blocks(turn, writer))
        bare = turn.form == "string" and len(found) == 1 and len(found[0]) == 2
        plain = found[0]["text"] if bare and not blocks else None
        blocks += found
    messages = _merge(turns, family, writer)
    if not messages or messages[0].role == "assistant":
        messages.insert(0, _Message("user", [], OPENING))
        writer.lose("turn", "anthropic wants a user turn first: one was added")
    _close(messages, family, writer)
    return [_written(message) for message in messages], blocks, plain


def _system_blocks(turn: Turn, writer: Writer) -> Iterator[dict[str, Any]]:
    for part in turn.parts:
        if not isinstance(part, Text) and not writer.native:
            kind = type(part).__name__.lower()
            raise Untranslatable(kind, "a system prompt of anthropic holds only text")
        block = writer.shown(part)
        if block is not None:
            yield block
    if turn.name is not None:
        writer.lose("name", "anthropic messages have no author names")


def _merge(turns: list[Turn], family: Family, writer: Writer) -> list[_Message]:
    messages: list[_Message] = []
    for i, turn in enumerate(turns):
        if turn.role in ("system", "developer"):
            message = _later_system(turns, i, messages, family, writer)
        else:
            message = _message(turn, writer)
        if not message.blocks and message.plain is None:
            continue
        last = messages[-1] if messages else None
        if last is None or last.role != message.role or message.role == "system":
            messages.append(message)
            continue
        _as_blocks(last)
        _as_blocks(message)
        last.blocks += message.blocks
        last.extra.update(message.extra)
    for message in messages:
        if message.role == "user" and len(message.blocks) > 1:
            # Stable: only results move, to where the API wants them.
            message.blocks.sort(key=lambda block: block["type"] != "tool_result")
    return messages


def _message(turn: Turn, writer: Writer) -> _Message:
    extra = dict(turn.extra) if writer.native else {}
    if turn.name is not None:
        writer.lose("name", "anthropic messages have no author names")
    if turn.role == "assistant":
        parts = list(turn.parts)
        if not writer.native and len(parts) > 1:
            # Thinking opens a turn here; elsewhere it may be kept behind what was said.
            parts.sort(key=lambda part: not isinstance(part, Reasoning))
        blocks = [block for block in map(writer.said, parts) if block is not None]
        role = "assistant"
    else:
        role, blocks = "user", []
        for part in turn.parts:
            made = writer.result(part) if isinstance(part, ToolResult) else writer.shown(part)
            if made is not None:
                blocks.append(made)
    plain = None
    if turn.form in ("string", "bare") and len(blocks) == 1:
        only = blocks[0]
        if only["type"] == "text" and len(only) == 2:
            plain, blocks = only["text"], []
    return _Message(role, blocks, plain, extra)


def _later_system(
    turns: list[Turn], at: int, messages: list[_Message], family: Family, writer: Writer
) -> _Message:
    turn = turns[at]
    blocks = list(_system_blocks(turn, writer))
    after = turns[at + 1].role if at + 1 < len(turns) else "assistant"
    in_place = bool(messages) and messages[-1].role == "user" and after == "assistant"
    if family.system_turns and (in_place or writer.native):
        if turn.form == "string" and len(blocks) == 1 and len(blocks[0]) == 2:
            return _Message("system", [], blocks[0]["text"])
        return _Message("system", blocks, None, dict(turn.extra) if writer.native else {})
    if not blocks:
        return _Message("user", [])
    writer.lose("system", "a later system message is sent inside a user turn, marked as such")
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    if len(texts) < len(blocks):
        writer.lose("content_part", "a later system message is sent with its texts only")
    said = "\n\n".join(texts)
    return _Message("user", [{"type": "text", "text": f"<system>\n{said}\n</system>"}])


def _close(messages: list[_Message], family: Family, writer: Writer) -> None:
    """See to the last turn: where it is the assistant's, it may be a text to be continued."""
    last = messages[-1]
    if last.role != "assistant":
        return
    if not family.prefill:
        if last.blocks and last.blocks[-1]["type"] not in _WORDS:
            return  # a call, or the API's own tools at work: a paused turn goes on from there
        messages.append(_Message("user", [], GO_ON))
        writer.lose("prefill", "this model continues no answer: it is asked in words to go on")
        return
    # A text to be continued must not end in blanks.
    if last.plain is not None:
        last.plain = last.plain.rstrip()
    elif last.blocks and last.blocks[-1]["type"] == "text":
        final = last.blocks[-1]
        last.blocks[-1] = {**final, "text": final["text"].rstrip()}


def _as_blocks(message: _Message) -> None:
    if message.plain is not None:
        message.blocks = [{"type": "text", "text": message.plain}]
        message.plain = None


def _written(message: _Message) -> dict[str, Any]:
    content: Any = message.blocks if message.plain is None else message.plain
    return {"role": message.role, "content": content, **message.extra}
