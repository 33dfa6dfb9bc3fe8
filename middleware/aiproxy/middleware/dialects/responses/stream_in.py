"""Streams in: typed Responses events to canonical events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aiproxy.middleware.dialects import reading
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
    StreamStart,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageEvent,
)
from aiproxy.middleware.dialects.chat import stream_error
from aiproxy.middleware.dialects.responses.reply_in import ending_reason
from aiproxy.middleware.dialects.responses.sealing import part_texts
from aiproxy.middleware.dialects.responses.vocabulary import CALLS, DIALECT
from aiproxy.middleware.dialects.seals import Seal, unseal
from aiproxy.middleware.dialects.usage import read_usage

#: Exactly one of these ends a stream.
_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})

#: Delta event -> (member of the item, field naming the part, event of the whole, its text).
_TEXTS: Final[dict[str, tuple[str, str, str]]] = {
    "response.output_text": ("output_text", "content_index", "text"),
    "response.refusal": ("refusal", "content_index", "refusal"),
    "response.reasoning_text": ("reasoning_text", "content_index", "text"),
    "response.reasoning_summary_text": ("summary_text", "summary_index", "text"),
    "response.function_call_arguments": ("arguments", "", "arguments"),
    "response.custom_tool_call_input": ("arguments", "", "input"),
}


@dataclass(slots=True)
class _Seen:
    """What has been told of one output item. ``told`` maps (member, index) to its text so far."""

    kind: str = ""
    call: int | None = None
    item: int = 0
    told: dict[tuple[str, int], str] = field(default_factory=dict)
    ended: set[tuple[str, int]] = field(default_factory=set)
    whole: set[tuple[str, int]] = field(default_factory=set)  # a delta after that is late
    held: str = ""  # arguments that came before their item
    annotations: int = 0
    encrypted: bool = False
    done: bool = False

    def is_whole(self, member: str, index: int) -> bool:
        """Tell whether a delta of the member comes too late."""
        key = (member, index)
        return key in self.whole or (self.done and bool(self.told.get(key)))


class StreamDecoder:
    """Typed Responses events in, canonical events out.

    Each ``done`` event, each finished item and the terminal response are compared with what the
    deltas told, and the missing rest is delivered: some servers stream only the ends.
    """

    __slots__ = ("_by_id", "_calls", "_final", "_items", "_reasonings", "_seals", "_stopped")

    def __init__(self) -> None:
        self._items: dict[int, _Seen] = {}
        self._by_id: dict[str, int] = {}
        self._calls = 0
        self._reasonings = 0
        self._seals: dict[str, Seal] = {}
        self._final: list[CanonicalEvent] | None = None
        self._stopped = False

    @property
    def complete(self) -> bool:
        """True once the terminal event was seen."""
        return self._final is not None

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> list[CanonicalEvent]:
        """Return the events of one frame. Nothing follows a ``StreamError``."""
        if self._stopped or self._final is not None:
            return []
        kind = payload.get("type")
        if not isinstance(kind, str):
            kind = event or ""
        events: list[CanonicalEvent] = []
        stem, _, ending = kind.rpartition(".")
        if kind == "error" or (payload.get("error") and not kind.startswith("response.")):
            self._stopped = True
            error = payload.get("error")
            events.append(stream_error(error if isinstance(error, Mapping) else payload))
        elif ending in ("delta", "done") and stem in _TEXTS:
            self._text(payload, stem, ending == "done", events)
        elif kind in ("response.output_item.added", "response.output_item.done"):
            item = payload.get("item")
            if isinstance(item, Mapping):
                place = self._place(payload, item)
                self._item(item, place, ending == "done", events)
        elif kind == "response.output_text.annotation.added":
            annotation = payload.get("annotation")
            if isinstance(annotation, Mapping):
                self._seen(payload).annotations += 1
                events.append(AnnotationDelta(annotation))
        elif kind == "response.content_part.done":
            self._part_done(payload, events)
        elif kind == "response.created":
            response = payload.get("response")
            response = response if isinstance(response, Mapping) else {}
            events.append(
                StreamStart(
                    reading.optional(response.get("id")), reading.optional(response.get("model"))
                )
            )
        elif kind in _TERMINAL:
            response = payload.get("response")
            self._end(kind, response if isinstance(response, Mapping) else {}, events)
        return events

    def finish(self) -> list[CanonicalEvent]:
        """Return the closing events.

        Raises:
            StreamCut: no terminal event was seen.
        """
        if self._stopped:
            return []
        if self._final is None:
            raise StreamCut("the stream ended without a terminal event")
        return self._final

    def _place(self, payload: Json, item: Json | None = None) -> int:
        """Return the output index a frame speaks of; servers may omit it or change item ids."""
        index = payload.get("output_index")
        identity = payload.get("item_id") if item is None else item.get("id")
        if isinstance(index, int) and index >= 0:
            if isinstance(identity, str):
                self._by_id.setdefault(identity, index)
            return index
        if isinstance(identity, str):
            return self._by_id.setdefault(identity, len(self._items))
        return max(self._items, default=0)

    def _seen(self, payload: Json) -> _Seen:
        return self._items.setdefault(self._place(payload), _Seen())

    def _text(self, payload: Json, stem: str, done: bool, events: list[CanonicalEvent]) -> None:
        member, part_field, whole = _TEXTS[stem]
        index = payload.get(part_field, 0) if part_field else 0
        index = index if isinstance(index, int) else 0
        seen = self._seen(payload)
        value = payload.get(whole if done else "delta")
        if not isinstance(value, str):
            return
        if member == "arguments" and seen.call is None:
            # Arguments before their item: the name may come with the done event or the item.
            name = payload.get("name")
            if not (done and isinstance(name, str)):
                if not done:
                    seen.held += value
                return
            kind = "custom_tool_call" if stem.endswith("input") else "function_call"
            identity = payload.get("call_id")
            self._start_call({"type": kind, "name": name, "call_id": identity}, seen, events)
        logprobs = reading.logprobs(payload.get("logprobs")) or ()
        if done:
            self._complete(seen, member, index, value, logprobs, events)
            seen.whole.add((member, index))
        elif value and not seen.is_whole(member, index):
            self._tell(seen, member, index, value, logprobs, events)

    def _tell(
        self,
        seen: _Seen,
        member: str,
        index: int,
        value: str,
        logprobs: tuple[Json, ...],
        events: list[CanonicalEvent],
    ) -> None:
        key = (member, index)
        seen.told[key] = seen.told.get(key, "") + value
        if member == "output_text":
            events.append(TextDelta(value, 0, logprobs))
        elif member == "refusal":
            events.append(RefusalDelta(value))
        elif member == "arguments":
            if seen.call is not None:
                events.append(ToolCallDelta(seen.call, value))
        else:
            if not seen.kind:
                self._start_reasoning(seen)
            kind: Literal["text", "summary"] = "summary" if member == "summary_text" else "text"
            part = index if kind == "summary" else 0
            events.append(ReasoningDelta(value, 0, kind, seen.item, part))

    def _complete(
        self,
        seen: _Seen,
        member: str,
        index: int,
        value: str,
        logprobs: tuple[Json, ...],
        events: list[CanonicalEvent],
    ) -> None:
        """Deliver what the deltas left out of a member that is now whole."""
        told = seen.told.get((member, index), "")
        if len(value) > len(told) and value.startswith(told):
            self._tell(seen, member, index, value[len(told) :], () if told else logprobs, events)

    def _part_done(self, payload: Json, events: list[CanonicalEvent]) -> None:
        part, index = payload.get("part"), payload.get("content_index", 0)
        if isinstance(part, Mapping) and isinstance(index, int):
            self._content(part, index, self._seen(payload), events)

    def _content(self, part: Json, index: int, seen: _Seen, events: list[CanonicalEvent]) -> None:
        kind = str(part.get("type"))
        member = "output_text" if kind == "text" else kind
        if member not in ("output_text", "refusal", "reasoning_text"):
            if (member, index) not in seen.ended:
                seen.ended.add((member, index))
                events.append(OpaqueItem(DIALECT, reading.word(part.get("type")), part))
            return
        value = part.get("refusal" if kind == "refusal" else "text")
        if isinstance(value, str):
            logprobs = reading.logprobs(part.get("logprobs")) or ()
            self._complete(seen, member, index, value, logprobs, events)
        if member == "reasoning_text":
            return
        annotations = part.get("annotations")
        if isinstance(annotations, list) and (member, index) not in seen.ended:
            for annotation in annotations[seen.annotations :]:
                if isinstance(annotation, Mapping):
                    events.append(AnnotationDelta(annotation))
        if (member, index) not in seen.ended:
            seen.ended.add((member, index))
            seen.annotations = 0
            events.append(PartEnd())

    def _item(self, item: Json, place: int, done: bool, events: list[CanonicalEvent]) -> None:
        seen = self._items.setdefault(place, _Seen())
        if seen.done:
            return
        seen.done = done
        kind = str(item.get("type"))
        if kind in CALLS:
            if seen.call is None:
                self._start_call(item, seen, events)
            value = reading.arguments_text(item.get(CALLS[kind][1]))
            if done or value:
                self._complete(seen, "arguments", 0, value, (), events)
            if done and item.get("status") != "incomplete" and seen.call is not None:
                events.append(ToolCallEnd(seen.call))
        elif kind == "reasoning":
            if not seen.kind:
                self._start_reasoning(seen)
            if done:
                self._thought(item, seen, events)
        elif kind == "message":
            seen.kind = kind
            content = item.get("content")
            if done and isinstance(content, list):
                for index, part in enumerate(content):
                    if isinstance(part, Mapping):
                        self._content(part, index, seen, events)
        elif done:
            events.append(OpaqueItem(DIALECT, reading.word(item.get("type")), item))

    def _thought(self, item: Json, seen: _Seen, events: list[CanonicalEvent]) -> None:
        for index, text in enumerate(part_texts(item.get("summary"))):
            self._complete(seen, "summary_text", index, text, (), events)
        for index, text in enumerate(part_texts(item.get("content"))):
            self._complete(seen, "reasoning_text", index, text, (), events)
        encrypted = item.get("encrypted_content")
        if isinstance(encrypted, str) and not seen.encrypted:
            seen.encrypted = True
            self._sealed(encrypted, seen, events)

    def _sealed(self, encrypted: str, seen: _Seen, events: list[CanonicalEvent]) -> None:
        seal = unseal(encrypted) or Seal(DIALECT, encrypted=encrypted)
        signature, origin = seal.signature, seal.origin
        if seal.call is not None:
            self._seals[seal.call] = seal
        elif seal.said:
            events.append(TextDelta("", signature=signature, origin=origin))
        else:
            thought = ReasoningDelta(
                "", 0, "summary", seen.item, 0, signature, seal.encrypted, origin
            )
            events.append(thought)

    def _start_reasoning(self, seen: _Seen) -> None:
        seen.kind = "reasoning"
        seen.item = self._reasonings
        self._reasonings += 1

    def _start_call(self, item: Json, seen: _Seen, events: list[CanonicalEvent]) -> None:
        seen.kind = str(item.get("type"))
        seen.call = self._calls
        self._calls += 1
        identity = reading.word(item.get("call_id"))
        seal = self._seals.get(identity)
        events.append(
            ToolCallStart(
                seen.call,
                identity,
                reading.word(item.get("name")),
                "custom" if seen.kind == "custom_tool_call" else "function",
                0,
                None if seal is None else seal.signature,
                None if seal is None else seal.origin,
            )
        )
        if seen.held:
            self._tell(seen, "arguments", 0, seen.held, (), events)

    def _end(self, kind: str, response: Json, events: list[CanonicalEvent]) -> None:
        if kind == "response.failed":
            self._stopped = True
            events.append(stream_error(response.get("error") or {}))
            return
        output = response.get("output")
        for position, item in enumerate(output if isinstance(output, list) else []):
            if isinstance(item, Mapping):
                identity = item.get("id")
                known = self._by_id.get(identity) if isinstance(identity, str) else None
                self._item(item, position if known is None else known, True, events)
        status = {"status": "incomplete"} if kind == "response.incomplete" else {}
        reason = ending_reason({**response, **status}, self._calls > 0)
        self._final = [Finish(reason)]
        usage = read_usage(response.get("usage"))
        if usage is not None:
            self._final.append(UsageEvent(usage))
