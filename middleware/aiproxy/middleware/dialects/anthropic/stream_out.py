"""Streams out: canonical events to Messages events.

Exactly one content block is open at a time. What belongs behind it waits in order: a text or
thought is closed by whatever follows it; a call by its end, or, once something follows, as soon as
its arguments are one whole JSON text. So calls one after the other stream as they come, and calls
whose deltas interleave are put one behind the other.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.anthropic.citations import citation
from aiproxy.middleware.dialects.anthropic.errors import encode_error_frame
from aiproxy.middleware.dialects.anthropic.finish import write_reason
from aiproxy.middleware.dialects.anthropic.losses import event_losses, other_choice
from aiproxy.middleware.dialects.anthropic.reply_out import hidden_block, message_id
from aiproxy.middleware.dialects.anthropic.usage import write_usage
from aiproxy.middleware.dialects.anthropic.vocabulary import DIALECT
from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
    CanonicalEvent,
    Envelope,
    Finish,
    Loss,
    OpaqueItem,
    PartEnd,
    ReasoningDelta,
    RefusalDelta,
    StreamCut,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
    UsageEvent,
)
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.seals import seal_call, seal_text, seal_thought

#: What waits behind an open block, and the thoughts that are still to be sealed, in characters.
_MOST_HELD: Final = 4 << 20
#: Arguments of the open call that are kept to see whether they are whole.
_MOST_SEEN: Final = 64 << 10
_UNKNOWN: Final = Loss("reasoning", "opaque reasoning of an unknown origin")


@dataclass(slots=True)
class _Block:
    """A content block: its first form and the deltas that wait until it opens. ``key`` tells what
    continues it; ``whole``: nothing more will come; ``seen``: the text so far of what needs it."""

    kind: str
    key: int
    opening: dict[str, Any]
    waiting: list[dict[str, Any]] = field(default_factory=list)
    whole: bool = False
    seen: list[str] | None = None
    size: int = 0
    custom: bool = False
    part: int = 0
    origin: str | None = None
    signature: str | None = None
    encrypted: str | None = None


class StreamEncoder:
    """Canonical events in, ``event:``/``data:`` frames out. There is no ``[DONE]``.

    ``losses`` gathers what the frames cannot show. ``source``: the dialect of the upstream, for
    opaque data whose event does not say its origin; without either it is a loss.
    """

    __slots__ = (
        "_blocks",
        "_calls",
        "_envelope",
        "_finish",
        "_frames",
        "_held",
        "_index",
        "_open",
        "_refused",
        "_started",
        "_usage",
        "losses",
        "source",
    )

    def __init__(self, envelope: Envelope, source: str | None = None) -> None:
        self.losses: list[Loss] = []
        self.source = source
        self._envelope = envelope
        self._blocks: deque[_Block] = deque()  # the first is open, if ``_open``
        self._calls: dict[int, _Block] = {}
        self._open = False
        self._index = 0
        self._held = 0
        self._started = False
        self._refused = False
        self._finish: Finish | None = None
        self._usage: Usage | None = None
        self._frames: list[bytes] = []

    def encode(self, event: CanonicalEvent) -> bytes:
        """Return the frames of one event, possibly none.

        Raises:
            StreamCut: more would have to be held than is.
        """
        if getattr(event, "choice", 0):
            note(self.losses, (other_choice(),))
            return b""
        match event:
            case TextDelta(text):
                if event.logprobs:
                    note(self.losses, event_losses(event))
                if text:
                    self._more("text", 0, {"type": "text_delta", "text": text})
                if event.signature is not None:
                    self._sign(event.signature, event.origin)
            case ToolCallDelta(index, arguments):
                self._arguments(index, arguments)
            case ReasoningDelta():
                self._think(event)
            case ToolCallStart():
                self._call(event)
            case ToolCallEnd(index):
                block = self._calls.get(index)
                if block is not None:
                    block.whole = True
            case RefusalDelta(text):
                self._refused = True
                if text:
                    self._more("text", 1, {"type": "text_delta", "text": text})
            case AnnotationDelta(annotation):
                note(self.losses, event_losses(event))
                cited = citation(annotation)
                if cited is not None:
                    self._more("text", 0, {"type": "citations_delta", "citation": cited})
            case OpaqueItem(dialect, _, value):
                if dialect == DIALECT:
                    self._add(_Block("item", 0, dict(value), whole=True))
                note(self.losses, event_losses(event))
            case PartEnd():
                if self._blocks and self._blocks[-1].kind == "text":
                    self._blocks[-1].whole = True
            case Finish():
                self._finish = event
            case UsageEvent(usage):
                self._usage = usage
            case _:
                note(self.losses, event_losses(event))
        if self._blocks:
            self._write()
        return self._taken()

    def finish(self, extra: Mapping[str, Any] | None = None) -> bytes:
        """Return what still waits, ``message_delta`` and ``message_stop``; ``extra`` becomes
        members of the latter.

        Raises:
            StreamCut: no ``Finish`` was encoded; an ending is never made up.
        """
        if self._finish is None:
            raise StreamCut()
        self._begin()
        for block in self._blocks:
            block.whole = True
        self._write()
        reason = write_reason(
            self._finish.reason, self._finish.native, self._finish.stop_sequence, self._refused
        )
        delta = {"stop_reason": reason, "stop_sequence": self._finish.stop_sequence}
        usage = write_usage(self._usage)
        self._frame("message_delta", {"delta": delta, "usage": usage})
        self._frame("message_stop", dict(extra or {}))
        return self._taken()

    def fail(self, error: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> bytes:
        """Return the ``error`` event that ends a broken stream."""
        body = {**encode_error_frame(error), **(extra or {})}
        return b"event: error\ndata: " + orjson.dumps(body) + b"\n\n"

    # --- events ---

    def _think(self, event: ReasoningDelta) -> None:
        key = event.item
        origin = event.origin or self.source
        if event.text:
            block = self._thought(key)
            words = event.text
            if block is not None and event.kind == "summary" and block.part != event.part:
                words = f"\n\n{words}"  # paragraphs of a summary are set apart
            self._more("thinking", key, {"type": "thinking_delta", "thinking": words})
            block = self._blocks[-1]
            block.part = event.part
            block.origin = origin
            if origin != DIALECT and block.seen is not None:
                block.seen.append(words)
                self._hold(len(words))
        if event.signature is None and event.encrypted is None:
            return
        if origin is None:
            note(self.losses, (_UNKNOWN,))
        elif origin == DIALECT:
            if event.signature is not None:
                seal = {"type": "signature_delta", "signature": event.signature}
                self._more("thinking", key, seal)
                self._blocks[-1].origin = origin
            if event.encrypted is not None:
                self._hide(event.encrypted)
        else:
            block = self._thought(key)
            if block is None:
                self._hide(seal_thought(origin, "", event.signature, event.encrypted))
            else:  # sealed together with the text, once that is whole
                block.signature = event.signature or block.signature
                block.encrypted = event.encrypted or block.encrypted

    def _thought(self, key: int) -> _Block | None:
        last = self._blocks[-1] if self._blocks else None
        goes_on = last is not None and last.kind == "thinking" and last.key == key
        return last if goes_on else None

    def _sign(self, signature: str, origin: str | None) -> None:
        origin = origin or self.source
        if origin is None:
            note(self.losses, (_UNKNOWN,))
        else:
            self._hide(seal_text(origin, signature))

    def _hide(self, data: str) -> None:
        self._add(_Block("item", 0, hidden_block(data), whole=True))

    def _seal(self, block: _Block) -> None:
        """Write the seal of another dialect's thoughts as they end."""
        if block.kind != "thinking" or block.origin in (None, DIALECT) or block.seen is None:
            return
        text = "".join(block.seen)
        self._held -= len(text)
        seal = seal_thought(str(block.origin), text, block.signature, block.encrypted)
        delta = {"type": "signature_delta", "signature": seal}
        self._frame("content_block_delta", {"index": self._index, "delta": delta})

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > _MOST_HELD:
            raise StreamCut("more of the answer is held than may be")

    def _call(self, event: ToolCallStart) -> None:
        if event.index in self._calls:
            return
        identity = event.id or self._envelope.call_id(event.index)
        note(self.losses, event_losses(event))
        if event.signature is not None:
            origin = event.origin or self.source
            if origin is None:
                note(self.losses, (_UNKNOWN,))
            else:
                self._hide(seal_call(origin, identity, event.signature))
        opening = {
            "type": "tool_use",
            "id": identity,
            "name": event.name,
            "input": {},
        }
        block = _Block("call", event.index, opening, seen=[], custom=event.kind == "custom")
        if block.custom:
            block.waiting.append(_json('{"input":"'))
        self._calls[event.index] = block
        self._add(block)

    def _arguments(self, index: int, arguments: str) -> None:
        block = self._calls.get(index)
        if block is None or not arguments or block.seen is None:
            return
        if block.custom:
            arguments = orjson.dumps(arguments).decode()[1:-1]
        elif block.size <= _MOST_SEEN:
            block.size += len(arguments)
            block.seen.append(arguments)
        if not (self._open and self._blocks[0] is block):
            self._hold(len(arguments))
        block.waiting.append(_json(arguments))

    # --- blocks ---

    def _more(self, kind: str, key: int, delta: dict[str, Any]) -> None:
        """Continue the last block when it is of this kind and key, else begin one behind it."""
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.kind != kind or last.key != key or last.whole:
            text = {"type": "text", "text": ""}
            thought = {"type": "thinking", "thinking": "", "signature": ""}
            last = _Block(kind, key, text if kind == "text" else thought, seen=[])
            self._add(last)
        elif len(self._blocks) > 1:
            self._hold(len(delta.get("text") or delta.get("thinking") or ""))
        last.waiting.append(delta)

    def _add(self, block: _Block) -> None:
        if self._blocks and self._blocks[-1].kind != "call":
            self._blocks[-1].whole = True
        self._blocks.append(block)

    def _write(self) -> None:
        """Write what can be written: the open block, and those behind it as it closes."""
        blocks = self._blocks
        while blocks:
            block = blocks[0]
            if not self._open:
                self._begin()
                self._open = True
                self._frame(
                    "content_block_start", {"index": self._index, "content_block": block.opening}
                )
            for delta in block.waiting:
                self._frame("content_block_delta", {"index": self._index, "delta": delta})
            block.waiting.clear()
            if not (block.whole or (len(blocks) > 1 and self._is_done(block))):
                break
            self._close(block)

    def _close(self, block: _Block) -> None:
        self._seal(block)
        if block.custom:
            delta = {"index": self._index, "delta": _json('"}')}
            self._frame("content_block_delta", delta)
        block.seen = None
        self._frame("content_block_stop", {"index": self._index})
        self._blocks.popleft()
        self._open = False
        self._index += 1

    @staticmethod
    def _is_done(block: _Block) -> bool:
        """Tell whether nothing can continue a call that something stands behind."""
        if block.custom or not block.seen or block.size > _MOST_SEEN:
            return False
        # Cheap first: most pieces do not end an object.
        return block.seen[-1].rstrip().endswith("}") and reading.is_whole_json("".join(block.seen))

    # --- frames ---

    def _begin(self) -> None:
        if self._started:
            return
        self._started = True
        message: dict[str, Any] = {
            "id": message_id(self._envelope),
            "type": "message",
            "role": "assistant",
            "model": self._envelope.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        self._frame("message_start", {"message": message})

    def _frame(self, kind: str, members: dict[str, Any]) -> None:
        body = orjson.dumps({"type": kind, **members})
        self._frames.append(b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n")

    def _taken(self) -> bytes:
        if not self._frames:
            return b""
        wire = b"".join(self._frames)
        self._frames.clear()
        return wire


def _json(piece: str) -> dict[str, Any]:
    return {"type": "input_json_delta", "partial_json": piece}
