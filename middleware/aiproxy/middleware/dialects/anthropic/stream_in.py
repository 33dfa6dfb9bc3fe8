"""Streams in: Messages events to canonical events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.anthropic.citations import annotation
from aiproxy.middleware.dialects.anthropic.errors import stream_error
from aiproxy.middleware.dialects.anthropic.finish import read_reason
from aiproxy.middleware.dialects.anthropic.reply_in import declined
from aiproxy.middleware.dialects.anthropic.tools import text_of_custom
from aiproxy.middleware.dialects.anthropic.usage import merge, usage_of
from aiproxy.middleware.dialects.anthropic.vocabulary import ANSWER_TOOL, DIALECT, json_text
from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
    CanonicalEvent,
    Finish,
    Json,
    OpaqueItem,
    PartEnd,
    ReasoningDelta,
    RefusalDelta,
    StreamCut,
    StreamError,
    StreamStart,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolKind,
    UsageEvent,
)
from aiproxy.middleware.dialects.finish import is_failure

#: Tool input that is put together here (of the API's own tools, of custom tools), in characters.
_MOST_INPUT: Final = 4 << 20
#: Blocks that are open at a time; a block too many ends the oldest.
_MOST_OPEN: Final = 64
#: Citations of one block that wait for its end.
_MOST_CITED: Final = 256
_NO_KINDS: Final[Mapping[str, ToolKind]] = {}


@dataclass(slots=True)
class _Block:
    """An open content block. ``call`` is the index of its call; ``held`` the input of a call that
    is told at its end; ``start`` the length of the text part before it."""

    kind: str
    value: Json
    call: int = -1
    tool: str = ""
    told: bool = False
    held: list[str] | None = None
    size: int = 0
    cited: list[Json] = field(default_factory=list)
    start: int = 0
    item: int = 0


class StreamDecoder:
    """Messages events in, canonical events out.

    Text blocks that follow one another are one part. Counts of ``message_delta`` are cumulative.
    ``kinds``: see ``reply_in.decode_reply``. Events of unknown types, ``ping`` among them, say
    nothing.
    """

    __slots__ = (
        "_blocks",
        "_calls",
        "_ended_call",
        "_held",
        "_kinds",
        "_length",
        "_native",
        "_part_open",
        "_refusal",
        "_said",
        "_sequence",
        "_stopped",
        "_terminal",
        "_thoughts",
        "_usage",
    )

    def __init__(self, kinds: Mapping[str, ToolKind] = _NO_KINDS) -> None:
        self._kinds = kinds
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._thoughts = 0
        self._length = 0  # of the open text part
        self._part_open = False
        self._ended_call = -1  # a call whose end is told once it is clear that it was not cut
        self._held = 0
        self._native: str | None = None
        self._sequence: str | None = None
        self._refusal: str | None = None
        self._usage: dict[str, Any] = {}
        self._said = False
        self._stopped = False
        self._terminal = False

    @property
    def complete(self) -> bool:
        """True once a stop reason or ``message_stop`` was seen."""
        return self._native is not None or self._terminal

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> list[CanonicalEvent]:
        """Return the events of one frame. Nothing follows a ``StreamError``."""
        if self._stopped:
            return []
        kind = payload.get("type") or event
        if kind == "content_block_delta":
            delta = payload.get("delta")
            return self._delta(payload, delta) if isinstance(delta, Mapping) else []
        if kind == "content_block_start":
            block = payload.get("content_block")
            return self._begin(payload, block) if isinstance(block, Mapping) else []
        if kind == "content_block_stop":
            return self._end(payload)
        if kind == "message_delta":
            return self._ending(payload)
        if kind == "message_start":
            return self._start(payload.get("message"))
        if kind == "message_stop":
            self._terminal = True
        elif kind == "error" or event == "error" or payload.get("error"):
            self._stopped = True
            return [stream_error(payload)]
        return []

    def finish(self) -> list[CanonicalEvent]:
        """Return the closing events.

        Raises:
            StreamCut: neither a stop reason nor ``message_stop`` was seen.
        """
        if self._stopped:
            return []
        if not self.complete:
            raise StreamCut()
        events: list[CanonicalEvent] = []
        for place in list(self._blocks):
            events += self._end({"index": place})
        reason = read_reason(self._native, self._calls > 0)
        if reason != "length":
            self._tell_call_end(events)
        if self._refusal:
            events.append(RefusalDelta(self._refusal))
        native = self._native if self._native != reason else None
        events.append(Finish(reason, 0, native, self._sequence))
        usage = usage_of(self._usage)
        if usage is not None:
            events.append(UsageEvent(usage))
        return events

    def _start(self, message: object) -> list[CanonicalEvent]:
        if not isinstance(message, Mapping):
            return [StreamStart()]
        merge(self._usage, message.get("usage"))
        identity, model = message.get("id"), message.get("model")
        return [StreamStart(reading.optional(identity), reading.optional(model))]

    def _begin(self, payload: Json, value: Json) -> list[CanonicalEvent]:
        events: list[CanonicalEvent] = []
        self._tell_call_end(events)
        kind = reading.word(value.get("type"))
        if len(self._blocks) >= _MOST_OPEN:
            events += self._end({"index": next(iter(self._blocks))})
        block = _Block(kind, value)
        self._blocks[_place(payload)] = block
        self._said = self._said or kind != "text"
        if kind == "text":
            self._say(reading.word(value.get("text")), block, events)
            block.cited += reading.objects(value.get("citations"))[:_MOST_CITED]
            return events
        if kind == "tool_use" and value.get("name") == ANSWER_TOOL:
            block.kind = "answer"
            return events
        self._end_part(events)
        if kind == "tool_use":
            self._begin_call(block, events)
        elif kind == "thinking":
            block.item = self._thoughts
            self._thoughts += 1
            words, seal = value.get("thinking"), value.get("signature")
            if isinstance(words, str) and words:
                events.append(ReasoningDelta(words, item=block.item, origin=DIALECT))
            if isinstance(seal, str) and seal:
                events.append(_sealed(block, seal))
        elif kind == "redacted_thinking":
            data = reading.word(value.get("data"))
            events.append(ReasoningDelta("", item=self._thoughts, encrypted=data, origin=DIALECT))
            self._thoughts += 1
        else:
            block.held = []
        return events

    def _begin_call(self, block: _Block, events: list[CanonicalEvent]) -> None:
        value = block.value
        block.tool = reading.word(value.get("name"))
        block.call = self._calls
        self._calls += 1
        kind = self._kinds.get(block.tool, "function") if self._kinds else "function"
        if kind == "custom":
            block.held = []
        events.append(ToolCallStart(block.call, reading.word(value.get("id")), block.tool, kind))

    def _delta(self, payload: Json, delta: Json) -> list[CanonicalEvent]:
        kind = delta.get("type")
        block = self._blocks.get(_place(payload))
        events: list[CanonicalEvent] = []
        if kind == "text_delta":
            words = delta.get("text")
            if isinstance(words, str) and words:
                if block is None:  # a server that opens no blocks
                    block = self._blocks[_place(payload)] = _Block("text", {})
                self._say(words, block, events)
        elif kind == "input_json_delta":
            piece = delta.get("partial_json")
            if block is not None and isinstance(piece, str) and piece:
                self._input(piece, block, events)
        elif kind == "thinking_delta":
            words = delta.get("thinking")
            if isinstance(words, str) and words:
                item = 0 if block is None else block.item
                events.append(ReasoningDelta(words, item=item, origin=DIALECT))
        elif kind == "signature_delta":
            seal = delta.get("signature")
            if isinstance(seal, str) and seal:
                events.append(_sealed(block, seal))
        elif kind == "citations_delta":
            cited = delta.get("citation")
            if isinstance(cited, Mapping) and block is not None:
                block.cited.append(cited)
                if len(block.cited) > _MOST_CITED:
                    self._cite(block, events)
        elif block is not None and block.held is not None and block.call < 0:
            self._grow(delta, block, events)
        return events

    def _say(self, words: str, block: _Block, events: list[CanonicalEvent]) -> None:
        if not block.told:
            block.told = True
            block.start = self._length
        if words:
            self._part_open = self._said = True
            self._length += len(words)
            events.append(TextDelta(words))

    def _cite(self, block: _Block, events: list[CanonicalEvent]) -> None:
        """Tell the citations of a text, which may come before its words."""
        start = block.start if block.told else self._length
        for cited in block.cited:
            events.append(AnnotationDelta(annotation(cited, start, self._length)))
        block.cited.clear()

    def _end_part(self, events: list[CanonicalEvent]) -> None:
        if self._part_open:
            self._part_open = False
            events.append(PartEnd())
        self._length = 0

    def _input(self, piece: str, block: _Block, events: list[CanonicalEvent]) -> None:
        if block.kind == "answer":
            self._say(piece, block, events)
        elif block.held is not None:
            self._hold(len(piece), block, events)
            if not self._stopped:
                block.held.append(piece)
        elif block.call >= 0:
            block.told = True
            events.append(ToolCallDelta(block.call, piece))

    def _grow(self, delta: Json, block: _Block, events: list[CanonicalEvent]) -> None:
        """Take a delta of a kind that is not known into a block that is not known either."""
        value = dict(block.value)
        for name, more in delta.items():
            if name == "type":
                continue
            before = value.get(name)
            both = isinstance(before, str) and isinstance(more, str)
            value[name] = f"{before}{more}" if both else more
            self._hold(len(more) if isinstance(more, str) else 64, block, events)
        block.value = value

    def _hold(self, size: int, block: _Block, events: list[CanonicalEvent]) -> None:
        block.size += size
        self._held += size
        if self._held > _MOST_INPUT and not self._stopped:
            self._stopped = True
            events.append(StreamError(None, "the input of a tool is too long", None, 502))

    def _end(self, payload: Json) -> list[CanonicalEvent]:
        block = self._blocks.pop(_place(payload), None)
        events: list[CanonicalEvent] = []
        if block is None:
            return events
        self._held -= block.size
        if block.cited:
            self._cite(block, events)
        given = block.value.get("input")
        if block.kind == "answer":
            if not block.told:
                self._say(json_text(given if isinstance(given, Mapping) else {}), block, events)
        elif block.call >= 0:
            if block.held is not None:
                words = text_of_custom(_loaded(block.held, given))
                if words:
                    events.append(ToolCallDelta(block.call, words))
            elif not block.told:  # a call without input, or one whose input came at its start
                events.append(ToolCallDelta(block.call, json_text(given or {})))
            self._ended_call = block.call
        elif block.held is not None:
            value = block.value
            if block.held:
                value = {**value, "input": _loaded(block.held, given)}
            events.append(OpaqueItem(DIALECT, block.kind, value))
        return events

    def _tell_call_end(self, events: list[CanonicalEvent]) -> None:
        if self._ended_call >= 0:
            events.append(ToolCallEnd(self._ended_call))
            self._ended_call = -1

    def _ending(self, payload: Json) -> list[CanonicalEvent]:
        merge(self._usage, payload.get("usage"))
        delta = payload.get("delta")
        if not isinstance(delta, Mapping):
            return []
        native = delta.get("stop_reason")
        if isinstance(native, str) and native:
            if is_failure(native):
                self._stopped = True
                return [StreamError(native, "the upstream ended the answer in an error")]
            self._native = native
            if native == "refusal":
                self._refusal = declined(delta.get("stop_details"), self._said)
        sequence = delta.get("stop_sequence")
        if isinstance(sequence, str):
            self._sequence = sequence
        return []


def _place(payload: Json) -> int:
    place = payload.get("index")
    return place if type(place) is int else 0


def _sealed(block: _Block | None, seal: str) -> ReasoningDelta:
    item = 0 if block is None else block.item
    return ReasoningDelta("", item=item, signature=seal, origin=DIALECT)


def _loaded(pieces: list[str], given: object) -> object:
    """Return the input that ``pieces`` are the JSON of; what was there before when they are not."""
    try:
        return orjson.loads("".join(pieces)) if pieces else given
    except orjson.JSONDecodeError:
        return given
