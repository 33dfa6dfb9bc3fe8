"""The frames of a Responses stream: numbering, lifecycle, and items that begin and end."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from aiproxy.middleware.dialects.canonical import Envelope, FinishReason, ToolKind
from aiproxy.middleware.dialects.responses.response import response_object


@dataclass(slots=True)
class OpenItem:
    """An output item being written."""

    index: int
    item: dict[str, Any]
    kind: ToolKind = "function"
    number: int = 0  # of the reasoning block
    part: dict[str, Any] | None = None
    pieces: list[str] = field(default_factory=list)
    summary_part: int = -1
    signature: str | None = None
    encrypted: str | None = None
    origin: str | None = None


class ResponseFrames:
    """Numbers frames and keeps the output items that were begun, in order.

    ``_told`` and ``_mirror`` are what a union stream adds; see draft.py.
    """

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._sequence = 0
        self._frames: list[bytes] = []
        self._begun = False
        self._output: list[dict[str, Any]] = []

    def _told(self, response: dict[str, Any], reason: FinishReason | None) -> dict[str, Any]:
        """Return the response as a lifecycle event tells it."""
        return response

    def _mirror(
        self, payload: dict[str, Any], delta: dict[str, Any] | None, finish: FinishReason | None
    ) -> None:
        """Add members to a frame just before it is written."""

    def _emit(
        self,
        kind: str,
        members: dict[str, Any],
        delta: dict[str, Any] | None = None,
        finish: FinishReason | None = None,
    ) -> None:
        payload = {"type": kind, "sequence_number": self._sequence, **members}
        self._mirror(payload, delta, finish)
        self._sequence += 1
        self._frames.append(
            b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(payload) + b"\n\n"
        )

    def _flush(self) -> bytes:
        frames = b"".join(self._frames)
        self._frames.clear()
        return frames

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        response = response_object(self._envelope, "in_progress", [])
        told = self._told(response, None)
        self._emit("response.created", {"response": told}, {"role": "assistant"})
        self._emit("response.in_progress", {"response": told})

    def _add(self, item: dict[str, Any], delta: dict[str, Any] | None = None) -> OpenItem:
        index = len(self._output)
        self._output.append(item)
        members = {"output_index": index, "item": item}
        self._emit("response.output_item.added", members, delta)
        return OpenItem(index, item)

    def _done(self, held: OpenItem) -> None:
        members = {"output_index": held.index, "item": held.item}
        self._emit("response.output_item.done", members)
