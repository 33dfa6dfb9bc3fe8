"""Streams out: canonical events to ``chat.completion.chunk`` frames."""

from collections.abc import Mapping
from typing import Any

import orjson

from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
    AudioDelta,
    CanonicalEvent,
    Envelope,
    Finish,
    FinishReason,
    Json,
    Loss,
    OpaqueItem,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    ToolKind,
    Usage,
    UsageEvent,
)
from aiproxy.middleware.dialects.chat.annotations import is_told, nested_annotation
from aiproxy.middleware.dialects.chat.closing import closing_frames, error_frame
from aiproxy.middleware.dialects.chat.losses import event_losses
from aiproxy.middleware.dialects.chat.reply_out import endings
from aiproxy.middleware.dialects.chat.thoughts import Block, encode_thought, own_details
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT, is_native
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.seals import seal_call, seal_text, with_google


class StreamEncoder:
    """Canonical events in, ``chat.completion.chunk`` frames out.

    Finish chunks are held until ``finish`` so that the last JSON frame can carry more; citations
    are held too and told in one chunk: SDKs that add lists up can read no second one.
    ``losses`` gathers what chunks cannot show. ``source``: the dialect of the upstream, for opaque
    data whose event does not say its origin; without either it is a loss.
    """

    __slots__ = (
        "_annotations",
        "_blocks",
        "_details",
        "_envelope",
        "_finishes",
        "_head",
        "_kinds",
        "_roles",
        "_tail",
        "_thoughts",
        "_usage",
        "losses",
        "source",
    )

    def __init__(self, envelope: Envelope, source: str | None = None) -> None:
        self.losses: list[Loss] = []
        self.source = source
        self._envelope = envelope
        self._usage: Usage | None = None
        self._finishes: dict[int, Finish] = {}
        self._annotations: dict[int, list[Json]] = {}
        self._blocks: dict[int, Block] = {}
        self._details: dict[int, int] = {}
        self._kinds: dict[tuple[int, int], ToolKind] = {}
        self._roles: set[int] = set()
        self._thoughts: dict[int, tuple[int, str, int]] = {}
        head = {
            "id": envelope.id,
            "object": "chat.completion.chunk",
            "created": envelope.created,
            "model": envelope.model,
        }
        self._head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":'
        self._tail = b',"usage":null}\n\n' if envelope.include_usage else b"}\n\n"

    def encode(self, event: CanonicalEvent) -> bytes:
        """Return the frames of one event, possibly none."""
        match event:
            case TextDelta(text, choice, logprobs):
                tokens = {"content": list(logprobs), "refusal": None} if logprobs else None
                delta: dict[str, Any] = {"content": text}
                if event.signature is not None:
                    delta |= self._signature(event, event.signature)
                return self._frame(choice, delta, tokens)
            case ReasoningDelta():
                delta = self._thoughts_of(event)
                if delta:
                    return self._frame(event.choice, delta)
            case RefusalDelta(text, choice):
                return self._frame(choice, {"refusal": text})
            case ToolCallStart():
                return self._frame(event.choice, self._call(event))
            case ToolCallDelta(index, arguments, choice):
                return self._frame(choice, self._arguments(index, arguments, choice))
            case AnnotationDelta(annotation, choice):
                if is_told(annotation, self.source):
                    self._annotations.setdefault(choice, []).append(nested_annotation(annotation))
                else:
                    note(self.losses, event_losses(event))
            case AudioDelta():
                pairs = {
                    "id": event.id,
                    "data": event.data,
                    "transcript": event.transcript,
                    "expires_at": event.expires_at,
                }
                held = {k: v for k, v in pairs.items() if v is not None}
                return self._frame(event.choice, {"audio": held})
            case Finish():
                self._finishes[event.choice] = event
            case UsageEvent(usage):
                self._usage = usage
            case OpaqueItem():
                note(self.losses, event_losses(event))
            case _:
                pass
        return b""

    def finish(self, extra: Mapping[str, Any] | None = None) -> bytes:
        """Return the finish chunks, the usage chunk when asked for, and ``[DONE]``.

        ``extra`` is merged into the last JSON frame.

        Raises:
            StreamCut: no ``Finish`` was encoded; an ending is never made up.
        """
        cited = [
            self._frame(choice, {"annotations": found})
            for choice, found in sorted(self._annotations.items())
            if self._finishes
        ]
        ends = closing_frames(
            self._finishes,
            lambda choice, ending: self._frame(choice, {}, None, ending),
            head=self._head,
            usage=self._usage,
            usage_asked=self._envelope.include_usage,
            extra=extra,
        )
        return b"".join((*cited, *ends))

    def fail(self, error: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> bytes:
        """Return the error frame that ends a broken stream; no ``[DONE]`` follows it."""
        return error_frame(error, extra)

    def _frame(
        self,
        choice: int,
        delta: dict[str, Any],
        logprobs: Json | None = None,
        ending: Finish | None = None,
    ) -> bytes:
        if choice not in self._roles:
            self._roles.add(choice)
            delta = {"role": "assistant", **delta}
            if "content" not in delta:
                delta["content"] = None
        reason: FinishReason | None = None if ending is None else ending.reason
        item = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        if ending is not None and self.source == DIALECT:
            item |= endings(ending.native, ending.stop_sequence)
        elif ending is not None:
            note(self.losses, event_losses(ending))
        return self._head + orjson.dumps([item]) + self._tail

    def _thoughts_of(self, event: ReasoningDelta) -> dict[str, Any]:
        """Return the delta of reasoning; opaque data goes with the whole text it belongs to."""
        choice = event.choice
        block = self._blocks.get(choice)
        if block is None or block.item != event.item:
            block = self._blocks[choice] = Block(event.item)
        delta: dict[str, Any] = {}
        if event.text:
            block.add(event)
            delta["reasoning_content"] = self._thought(event)
        if event.signature is None and event.encrypted is None:
            return delta
        origin = event.origin or self.source
        if origin is None:
            note(self.losses, event_losses(event))
            return delta
        place = self._details.get(choice, 0)
        thought = block.closed(event)
        if is_native(origin):
            details: list[Any] = list(own_details(thought))
        else:
            details = [encode_thought(thought, origin, place)]
        self._details[choice] = place + len(details)
        return {**delta, "reasoning_details": details}

    def _signature(self, event: TextDelta | ToolCallStart, signature: str) -> dict[str, Any]:
        """Return the member with a signature, sealed unless it is this dialect's own."""
        origin = event.origin or self.source
        if origin is None:
            note(self.losses, event_losses(event))
            return {}
        if is_native(origin):
            return with_google(signature)
        if isinstance(event, ToolCallStart):
            return with_google(seal_call(origin, "", signature))
        return with_google(seal_text(origin, signature))

    def _thought(self, event: ReasoningDelta) -> str:
        here = (event.item, event.kind, event.part)
        before = self._thoughts.get(event.choice)
        self._thoughts[event.choice] = here
        return event.text if before in (None, here) else "\n\n" + event.text

    def _call(self, event: ToolCallStart) -> dict[str, Any]:
        self._kinds[event.choice, event.index] = event.kind
        if event.kind == "legacy_function":
            return {"function_call": {"name": event.name, "arguments": ""}}
        identity = event.id or self._envelope.call_id(event.index, event.choice)
        call: dict[str, Any] = {"index": event.index, "id": identity, "type": event.kind}
        argument = "input" if event.kind == "custom" else "arguments"
        call[event.kind] = {"name": event.name, argument: ""}
        if event.signature is not None:
            call |= self._signature(event, event.signature)
        return {"tool_calls": [call]}

    def _arguments(self, index: int, arguments: str, choice: int) -> dict[str, Any]:
        kind = self._kinds.get((choice, index), "function")
        if kind == "legacy_function":
            return {"function_call": {"arguments": arguments}}
        inner = {"input" if kind == "custom" else "arguments": arguments}
        return {"tool_calls": [{"index": index, kind: inner}]}
