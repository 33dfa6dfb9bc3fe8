"""Watching a stream that passes through in this dialect."""

from collections.abc import Mapping
from typing import Any

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.anthropic.usage import merge, usage_of
from aiproxy.middleware.dialects.canonical import Usage
from aiproxy.middleware.dialects.observe import CONTENT, ERROR, FINISH, TERMINAL, USAGE


class Observer:
    """What was seen of one stream so far; see ``dialects.observe``."""

    __slots__ = ("_usage", "content_seen", "error", "finished", "model")

    def __init__(self) -> None:
        self.finished = False
        self.error: Mapping[str, Any] | None = None
        self.model: str | None = None
        self.content_seen = False
        self._usage: dict[str, Any] = {}

    @property
    def usage(self) -> Usage | None:
        """The usage of the answer: reports are cumulative, the last of each count holds."""
        return usage_of(self._usage)

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> int:
        """Take one event and return its flags."""
        kind = payload.get("type") or event
        if kind == "content_block_delta":
            return self._delta(payload.get("delta"))
        if kind == "content_block_start":
            block = payload.get("content_block")
            if isinstance(block, Mapping) and (
                block.get("type") not in ("text", "thinking")
                or block.get("text")
                or block.get("thinking")
            ):
                self.content_seen = True
                return CONTENT
            return 0
        if kind == "message_delta":
            return self._ending(payload)
        if kind == "message_stop":
            self.finished = True
            return TERMINAL
        if kind == "message_start":
            return self._start(payload.get("message"))
        if kind == "error" or event == "error" or payload.get("error"):
            if self.error is None:
                error = payload.get("error")
                self.error = error if isinstance(error, Mapping) and error else payload
            return ERROR
        return 0

    def _delta(self, delta: object) -> int:
        if not isinstance(delta, Mapping):
            return 0
        kind = delta.get("type")
        if kind == "text_delta":
            said = delta.get("text")
        elif kind == "input_json_delta":
            said = delta.get("partial_json")
        elif kind == "thinking_delta":
            said = delta.get("thinking")
        else:
            said = delta.get("citation")
        if not said:
            return 0
        self.content_seen = True
        return CONTENT

    def _start(self, message: object) -> int:
        if not isinstance(message, Mapping):
            return 0
        self.model = reading.optional(message.get("model")) or self.model
        usage = message.get("usage")
        merge(self._usage, usage)
        return USAGE if usage else 0

    def _ending(self, payload: Mapping[str, Any]) -> int:
        delta, usage = payload.get("delta"), payload.get("usage")
        flags = 0
        if isinstance(usage, Mapping) and usage:
            merge(self._usage, usage)
            flags = USAGE
        if isinstance(delta, Mapping) and isinstance(delta.get("stop_reason"), str):
            self.finished = True
            flags |= FINISH
        return flags
