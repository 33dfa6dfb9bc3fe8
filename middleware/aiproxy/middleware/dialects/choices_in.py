"""What stream decoders of answers in numbered choices share (Chat Completions, Gemini)."""

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import CanonicalEvent, StreamCut, StreamStart


class Choice(Protocol):
    """One choice so far. ``native`` is its finish reason, empty or ``None`` until it came."""

    native: str | None


C = TypeVar("C", bound=Choice)


class ChoicesIn(Generic[C]):
    """The choices of a stream by number; whether it began, and whether it failed."""

    __slots__ = ("_choices", "_failed", "_started")

    def __init__(self) -> None:
        self._choices: dict[int, C] = {}
        self._started = False
        self._failed = False

    @property
    def complete(self) -> bool:
        """True once every choice that began has its finish reason; never after an error."""
        ended = bool(self._choices) and all(choice.native for choice in self._choices.values())
        return ended and not self._failed

    @property
    def failed(self) -> bool:
        """True once an error was told: nothing follows it."""
        return self._failed

    def _begun(self, payload: Mapping[str, Any], identity: str, model: str) -> list[CanonicalEvent]:
        """Return the start of the stream, once; ``identity`` and ``model`` name the members."""
        if self._started:
            return []
        self._started = True
        told = reading.optional(payload.get(identity)), reading.optional(payload.get(model))
        return [StreamStart(*told)]

    def _whole(self) -> bool:
        """Return whether there is an ending to tell: not after a failure.

        Raises:
            StreamCut: a choice has no finish reason, or none ever began.
        """
        if self._failed:
            return False
        if not self.complete:
            raise StreamCut()
        return True
