"""Reasoning items of a stream: their parts, and the seal that closes them."""

from abc import ABC, abstractmethod
from typing import Any

from aiproxy.middleware.dialects.canonical import Envelope, Loss, Reasoning, ReasoningDelta
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.responses.frames import OpenItem, ResponseFrames
from aiproxy.middleware.dialects.responses.items import reasoning_item
from aiproxy.middleware.dialects.responses.losses import event_losses
from aiproxy.middleware.dialects.responses.sealing import sealed_content


class ThoughtFrames(ResponseFrames, ABC):
    """The reasoning block being written; ``source`` and ``losses`` as in ``StreamEncoder``."""

    def __init__(self, envelope: Envelope, source: str | None) -> None:
        super().__init__(envelope)
        self.losses: list[Loss] = []
        self.source = source
        self._reasoning: OpenItem | None = None

    @abstractmethod
    def _end_message(self, status: str) -> None:
        """End the message being written, if there is one."""

    def _think(self, event: ReasoningDelta) -> None:
        held = self._reasoning
        if held is not None and held.number != event.item:
            self._end_reasoning()
            held = None
        if held is None:
            self._end_message("completed")
            identity = self._envelope.item_id("rs", len(self._output))
            held = self._reasoning = self._add(reasoning_item(identity, "", (), None))
            held.number = event.item
        held.origin = held.origin or event.origin or self.source
        if event.signature is not None or event.encrypted is not None:
            if held.origin is None:
                note(self.losses, event_losses(event))
            held.signature = event.signature or held.signature
            held.encrypted = event.encrypted or held.encrypted
        if not event.text:
            return
        part = event.part if event.kind == "summary" else -2
        if held.part is None or held.summary_part != part:
            self._end_thought(held)
            held.summary_part = part
            self._begin_thought(held)
        held.pieces.append(event.text)
        kind = "reasoning_text" if part == -2 else "reasoning_summary_text"
        members = {**self._thought_at(held), "delta": event.text}
        self._emit(f"response.{kind}.delta", members, {"reasoning_content": event.text})

    def _thought_at(self, held: OpenItem) -> dict[str, Any]:
        at: dict[str, Any] = {"item_id": held.item["id"], "output_index": held.index}
        if held.summary_part == -2:
            at["content_index"] = 0
        else:
            at["summary_index"] = len(held.item["summary"])
        return at

    def _begin_thought(self, held: OpenItem) -> None:
        text = held.summary_part == -2
        held.part = {"type": "reasoning_text" if text else "summary_text", "text": ""}
        kind = "content_part" if text else "reasoning_summary_part"
        self._emit(f"response.{kind}.added", {**self._thought_at(held), "part": held.part})

    def _end_thought(self, held: OpenItem) -> None:
        part = held.part
        if part is None:
            return
        text = "".join(held.pieces)
        at = self._thought_at(held)
        proper = part["type"] == "reasoning_text"
        kind = "reasoning_text" if proper else "reasoning_summary_text"
        self._emit(f"response.{kind}.done", {**at, "text": text})
        whole = {**part, "text": text}
        kind = "content_part" if proper else "reasoning_summary_part"
        self._emit(f"response.{kind}.done", {**at, "part": whole})
        self._keep_thought(held, text)

    def _keep_thought(self, held: OpenItem, text: str) -> None:
        """Move the text of the current part into the item."""
        if held.part is None:
            return
        whole = {**held.part, "text": text}
        if whole["type"] == "summary_text":
            held.item["summary"].append(whole)
        elif held.item.get("content"):
            held.item["content"][0]["text"] = held.item["content"][0]["text"] + text
        else:
            held.item["content"] = [whole]
        held.pieces.clear()
        held.part = None

    def _end_reasoning(self) -> None:
        held, self._reasoning = self._reasoning, None
        if held is None:
            return
        self._end_thought(held)
        self._seal(held)
        self._done(held)

    def _seal(self, held: OpenItem) -> None:
        content = held.item.get("content")
        text = content[0]["text"] if content else ""
        thought = Reasoning(text, signature=held.signature, encrypted=held.encrypted)
        sealed = sealed_content(thought, held.origin)
        if sealed is not None:
            held.item["encrypted_content"] = sealed
