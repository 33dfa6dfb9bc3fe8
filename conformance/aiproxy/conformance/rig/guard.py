"""Keeps the suite's own faults from being blamed on a target.

Every kind of healthy answer is held against our schemas the first time it is made.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from aiproxy.conformance.rig.shapes.speech import Ask
from aiproxy.spec import checker

_WHOLE: Final = {
    "chat": ("upstream/chat", "responses/chat"),
    "responses": ("upstream/response", "responses/response"),
    "embeddings": ("upstream/embeddings", "responses/embeddings"),
    "completions": ("upstream/completion", "responses/completion"),
    "models": ("responses/models",),
    "model": ("responses/model",),
}
_EVENTS: Final = {
    "chat": "events/chat-chunk",
    "responses": "events/response-event",
    "completions": "events/completion-chunk",
}


class HarnessFault(Exception):
    """The suite itself went wrong; says nothing about a target."""


def warm() -> None:
    """Compile the schemas now, so that no answer is late because of it."""
    for name in {*_EVENTS.values(), *(name for names in _WHOLE.values() for name in names)}:
        checker(name)


class Guard:
    """Checks each kind of answer once."""

    def __init__(self) -> None:
        self._seen: set[object] = set()

    def whole(self, dialect: str, ask: Ask, answer: Any) -> None:
        """Check a whole answer.

        Raises:
            HarnessFault: it breaks a schema.
        """
        if self._new(dialect, ask, "whole"):
            for name in _WHOLE.get(ask.shape, ()):
                self._check(name, json.loads(json.dumps(answer)))

    def stream(self, dialect: str, ask: Ask, frames: Iterable[str]) -> None:
        """Check the events of a stream.

        Raises:
            HarnessFault: one of them breaks a schema.
        """
        name = _EVENTS.get(ask.shape)
        if name is None or not self._new(dialect, ask, "stream"):
            return
        for frame in frames:
            data = frame.rpartition("data: ")[2].strip()
            if data != "[DONE]":
                self._check(name, json.loads(data))

    def _new(self, *parts: Any) -> bool:
        dialect, ask, form = parts
        key = (dialect, ask.shape, form, ask.tool is None, ask.form is None)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _check(self, name: str, document: Any) -> None:
        fault = checker(name).first_fault(document)
        if fault is not None:
            raise HarnessFault(f"our own {name} is wrong at {fault.path!r}: {fault.message}")
