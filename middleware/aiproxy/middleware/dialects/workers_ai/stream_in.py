"""Streams in: the frames of ``/run/{model}``, in either shape, to canonical events."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiproxy.middleware.dialects import chat
from aiproxy.middleware.dialects.canonical import CanonicalEvent, Finish, Json
from aiproxy.middleware.dialects.workers_ai.shapes import (
    calls,
    fault,
    said,
    unwrapped,
    with_nested_calls,
)


class StreamDecoder:
    """Frames in, canonical events out.

    Frames of the older shape (``{"response": "...", "p": "..."}``) name no finish reason. What
    ends them is a frame without text that has the usage, or lacks the padding ``p`` of the others,
    or ``[DONE]``, of which ``done`` is told.
    """

    __slots__ = ("_chat", "_ended", "_failed", "_named", "_native", "_said")

    def __init__(self) -> None:
        self._chat = chat.StreamDecoder()
        self._native = False  # frames of the older shape were seen
        self._named = False  # frames of the other shape were seen, which name a reason
        self._said = False
        self._ended = False
        self._failed = False

    @property
    def complete(self) -> bool:
        """True once a finish reason or the closing frame was seen."""
        failed = self._failed or self._chat.failed
        return not failed and (self._chat.complete or self._unnamed())

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> list[CanonicalEvent]:
        """Return the events of one frame. Nothing follows a ``StreamError``."""
        if self._failed:
            return []
        found = fault(payload)
        if found is not None or event == "error":
            self._failed = True
            return self._chat.feed({"error": _error(payload)}, event)
        result = unwrapped(payload)
        choices = result.get("choices")
        if isinstance(choices, list) and choices:
            self._named = True
            return self._chat.feed({**result, "choices": [_choice(c) for c in choices]}, event)
        usage = result.get("usage")
        if "response" not in result and "tool_calls" not in result:
            self._ended = self._ended or bool(self._native and usage)
            return self._chat.feed({"usage": usage}, event)
        text = said(result)
        self._native = True
        called = calls(result)
        self._said = self._said or bool(text or called)
        last = bool(usage) or (self._said and "p" not in result)
        self._ended = result is not payload or (last and not text)
        delta = {"content": text, "tool_calls": called}
        choice = {"index": 0, "delta": delta, "finish_reason": result.get("finish_reason")}
        return self._chat.feed({"choices": [choice], "usage": usage}, event)

    def done(self) -> None:
        """Note that ``[DONE]`` came: of frames without a finish reason it is the only end."""
        self._ended = True

    def finish(self) -> list[CanonicalEvent]:
        """Return the closing events.

        Raises:
            StreamCut: the end of the answer was not seen.
        """
        if not self._unnamed():
            return self._chat.finish()
        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
        events = self._chat.feed({"choices": [choice]}) + self._chat.finish()
        return [replace(e, native=None) if isinstance(e, Finish) else e for e in events]

    def _unnamed(self) -> bool:
        """Tell whether the answer ended without a finish reason, as the older shape does."""
        return self._native and self._ended and not (self._named or self._chat.complete)


def _choice(choice: Any) -> Any:
    if not isinstance(choice, Mapping):
        return choice
    nested = {
        name: with_nested_calls(choice[name])
        for name in ("delta", "message")
        if isinstance(choice.get(name), Mapping)
    }
    return {**choice, **nested}


def _error(payload: Json) -> Any:
    """Return the failure a frame reports; Cloudflare lists ``{code, message}``."""
    errors = payload.get("errors")
    if isinstance(errors, list) and errors:
        first = errors[0]
        if isinstance(first, Mapping):
            code = first.get("code")
            known = {"code": str(code)} if isinstance(code, int | str) else {}
            return {**known, "message": str(first.get("message") or "")}
        return {"message": str(first)}
    return payload.get("error") or {"message": "the upstream reported a failure"}
