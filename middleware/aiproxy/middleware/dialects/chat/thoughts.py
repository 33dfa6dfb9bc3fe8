"""Earlier thoughts as messages carry them: ``reasoning_details`` and Google's ``extra_content``.

Details whose ``format`` is a dialect of ours are thoughts that were translated for a client; they
become reasoning of that origin again. All other details are a chat upstream's own: they stay
together as they came, as the ``encrypted`` data of one reasoning part (JSON of the list).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import Json, Reasoning, ReasoningDelta
from aiproxy.middleware.dialects.seals import ORIGINS


def decode_thoughts(message: Json) -> tuple[list[Reasoning], list[Json]]:
    """Return the translated thoughts of a message, and the details that are an upstream's own."""
    thoughts: list[Reasoning] = []
    own: list[Json] = []
    for detail in reading.objects(message.get("reasoning_details")):
        origin = reading.word(detail.get("format"))
        if origin not in ORIGINS:
            own.append(detail)
            continue
        summary = detail.get("summary")
        thoughts.append(
            Reasoning(
                text=reading.word(detail.get("text")),
                summary=tuple(s for s in summary if isinstance(s, str))
                if isinstance(summary, list)
                else (),
                signature=reading.optional(detail.get("signature")),
                encrypted=reading.optional(detail.get("data")),
                id=reading.optional(detail.get("id")),
                origin=origin,
            )
        )
    return thoughts, own


def encode_thought(part: Reasoning, origin: str, index: int) -> dict[str, Any]:
    """Return the detail of a thought that another dialect made opaque."""
    sealed = part.encrypted is not None
    detail: dict[str, Any] = {"type": "reasoning.encrypted" if sealed else "reasoning.text"}
    if part.text:
        detail["text"] = part.text
    if part.summary:
        detail["summary"] = list(part.summary)
    if part.signature is not None:
        detail["signature"] = part.signature
    if sealed:
        detail["data"] = part.encrypted
    if part.id is not None:
        detail["id"] = part.id
    return {**detail, "format": origin, "index": index}


def own_details(part: Reasoning) -> Iterator[Json]:
    """Yield the details of a thought that an upstream of this dialect made."""
    if part.signature is not None:
        yield {"type": "reasoning.text", "text": part.text, "signature": part.signature}
    if part.encrypted is None:
        return
    try:
        details = orjson.loads(part.encrypted)
    except orjson.JSONDecodeError:
        details = None
    if isinstance(details, list):
        yield from reading.objects(details)
    else:
        yield {"type": "reasoning.encrypted", "data": part.encrypted}


def packed(details: list[Json]) -> str | None:
    """Return details as the ``encrypted`` data of a reasoning part."""
    return orjson.dumps(details).decode() if details else None


@dataclass(slots=True)
class Block:
    """A reasoning block of a stream on its way out: what a detail has to repeat of it."""

    item: int
    text: list[str] = field(default_factory=list)
    summary: dict[int, str] = field(default_factory=dict)

    def add(self, event: ReasoningDelta) -> None:
        """Take the text of an event."""
        if event.kind == "text":
            self.text.append(event.text)
        else:
            self.summary[event.part] = self.summary.get(event.part, "") + event.text

    def closed(self, event: ReasoningDelta) -> Reasoning:
        """Return the whole block, with the opaque data of ``event``."""
        summary = tuple(text for _, text in sorted(self.summary.items()) if text)
        return Reasoning("".join(self.text), summary, event.signature, event.encrypted)


class DetailsIn:
    """Puts the ``reasoning_details`` of a stream together: fragments with one index and type are
    one detail; what has no index is a detail of its own."""

    __slots__ = ("_by_key", "_details")

    def __init__(self) -> None:
        self._details: list[dict[str, Any]] = []
        self._by_key: dict[tuple[int, str], dict[str, Any]] = {}

    def add(self, fragments: object) -> None:
        """Take the details of one chunk."""
        for fragment in reading.objects(fragments):
            index = fragment.get("index")
            if not isinstance(index, int):
                self._details.append(dict(fragment))
                continue
            key = (index, reading.word(fragment.get("type")))
            held = self._by_key.get(key)
            if held is None:
                held = self._by_key[key] = {}
                self._details.append(held)
            _merge(held, fragment)

    def take(self) -> str | None:
        """Return the details so far as ``encrypted`` data, and forget them."""
        found = packed(list(self._details))
        self._details.clear()
        self._by_key.clear()
        return found


def _merge(held: dict[str, Any], fragment: Mapping[str, Any]) -> None:
    for name, value in fragment.items():
        before = held.get(name)
        if name in ("text", "summary", "data") and isinstance(before, str):
            held[name] = before + value if isinstance(value, str) else before
        elif value is not None or name not in held:
            held[name] = value
