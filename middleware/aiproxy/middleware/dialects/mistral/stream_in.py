"""Streams in: Mistral chunks, whose content may be a list, to canonical events."""

from collections.abc import Mapping
from typing import Any

from aiproxy.middleware.dialects import chat, reading
from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
    CanonicalEvent,
    Opaque,
    OpaqueItem,
    Reasoning,
    ReasoningDelta,
    StreamStart,
    Text,
    TextDelta,
)
from aiproxy.middleware.dialects.mistral.chunks_in import citation, decode_chunks


class StreamDecoder:
    """Chat chunks in, canonical events out; content lists become text, thinking and citations."""

    __slots__ = ("_chat", "_lengths")

    def __init__(self) -> None:
        self._chat = chat.StreamDecoder()
        self._lengths: dict[int, int] = {}  # characters of text so far, by choice

    @property
    def complete(self) -> bool:
        """True once every choice that began has its finish reason."""
        return self._chat.complete

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> list[CanonicalEvent]:
        """Return the events of one chunk. Nothing follows a ``StreamError``."""
        if self._chat.failed:
            return []
        if payload.get("object") == "error" and not payload.get("error"):
            return self._chat.feed({"error": payload}, event)
        if payload.get("error") or event == "error":
            return self._chat.feed(payload, event)
        found: list[CanonicalEvent] = []
        choices = payload.get("choices")
        if isinstance(choices, list):
            plain = [self._plain(choice, i, found) for i, choice in enumerate(choices)]
            if found:
                payload = {**payload, "choices": plain}
        events = self._chat.feed(payload, event)
        for told in events:
            if isinstance(told, TextDelta):
                self._lengths[told.choice] = self._lengths.get(told.choice, 0) + len(told.text)
        if not found:
            return events
        # What was said comes before the calls and the failure of the same chunk, after the start.
        head = 1 if events and isinstance(events[0], StreamStart) else 0
        return [*events[:head], *found, *events[head:]]

    def finish(self) -> list[CanonicalEvent]:
        """Return the closing events.

        Raises:
            StreamCut: a choice has no finish reason, or none ever began.
        """
        return self._chat.finish()

    def _plain(self, choice: Any, place: int, found: list[CanonicalEvent]) -> Any:
        """Return a choice without its list of chunks, whose events are added to ``found``."""
        delta = choice.get("delta") if isinstance(choice, Mapping) else None
        if not isinstance(delta, Mapping) or not isinstance(delta.get("content"), list):
            return choice
        number = choice.get("index")
        number = number if isinstance(number, int) and number >= 0 else place
        length = self._lengths.get(number, 0)
        probabilities = choice.get("logprobs")
        tokens = None
        if isinstance(probabilities, Mapping):
            tokens = reading.logprobs(probabilities.get("content"))
        for part in decode_chunks(delta["content"]):
            if isinstance(part, tuple):
                found += [AnnotationDelta(citation(i, length), number) for i in part]
            elif isinstance(part, Text):
                length += len(part.text)
                found.append(TextDelta(part.text, number, tokens or ()))
                tokens = None
            elif isinstance(part, Reasoning):
                found.append(ReasoningDelta(part.text, number, signature=part.signature))
            elif isinstance(part, Opaque):
                found.append(OpaqueItem(part.dialect, part.kind, part.value, number))
        self._lengths[number] = length
        return {**choice, "delta": {**delta, "content": None}}
