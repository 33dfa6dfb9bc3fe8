"""Watching a Gemini stream, or a whole answer, that passes through as it is."""

from collections.abc import Mapping
from typing import Any

from aiproxy.middleware.dialects.canonical import Usage
from aiproxy.middleware.dialects.gemini.reply_in import blocked, content_parts
from aiproxy.middleware.dialects.gemini.usage import COUNTS, usage_of
from aiproxy.middleware.dialects.gemini.vocabulary import broke_off, native_reason
from aiproxy.middleware.dialects.observe import CONTENT, ERROR, FINISH, USAGE


class Observer:
    """What was seen of one stream so far; see ``observe.Observer``."""

    __slots__ = ("_ended", "_seen", "_usage", "content_seen", "error", "finished", "model")

    def __init__(self) -> None:
        self.finished = False
        self.error: Mapping[str, Any] | None = None
        self.model: str | None = None
        self.content_seen = False
        self._usage: dict[str, Any] = {}
        self._seen: set[int] = set()
        self._ended: set[int] = set()

    @property
    def usage(self) -> Usage | None:
        """The last usage reported; it is cumulative, so the last is the whole."""
        return usage_of(self._usage)

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> int:
        """Take one ``GenerateContentResponse`` and return its flags."""
        error = payload.get("error")
        if error or event == "error":
            return self._failed(error if isinstance(error, Mapping) else payload)
        flags = 0
        if self.model is None:
            model = payload.get("modelVersion")
            if isinstance(model, str):
                self.model = model
        usage = payload.get("usageMetadata")
        if isinstance(usage, Mapping) and usage:
            for name in COUNTS & usage.keys():
                self._usage[name] = usage[name]
            flags = USAGE
        candidates = payload.get("candidates")
        for position, candidate in enumerate(candidates if isinstance(candidates, list) else ()):
            if isinstance(candidate, Mapping):
                flags |= self._candidate(candidate, position)
        if blocked(payload) is not None:
            self._seen.add(0)
            self._ended.add(0)
            flags |= FINISH
        if self._ended:
            self.finished = self._seen == self._ended
        return flags

    def _candidate(self, candidate: Mapping[str, Any], position: int) -> int:
        flags = 0
        index = candidate.get("index")
        index = index if isinstance(index, int) and index >= 0 else position
        self._seen.add(index)
        parts = content_parts(candidate)
        if any(_says(part) for part in parts):
            self.content_seen = True
            flags = CONTENT
        native = native_reason(candidate.get("finishReason"))
        if native is None:
            return flags
        if broke_off(native, bool(parts) or self.content_seen):
            message = "the answer ended in an error"
            return flags | self._failed({"code": native, "message": message})
        self._ended.add(index)
        return flags | FINISH

    def _failed(self, error: Mapping[str, Any]) -> int:
        if self.error is None:
            self.error = error
        return ERROR


def _says(part: Any) -> bool:
    """Tell whether a part holds something a client would show or act on."""
    if not isinstance(part, Mapping):
        return False
    if "text" in part:
        return bool(part["text"])
    return any(name not in ("thought", "thoughtSignature") for name in part)
