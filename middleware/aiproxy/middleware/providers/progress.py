"""How far one call got, and which of its time limits elapses next."""

from collections.abc import Iterator
from typing import Final, Literal

from ..effects import Call, Failure, FailureKind

Phase = Literal["connecting", "waiting", "reading"]

#: What a call counts as until it has an outcome: what its driver sees of a cancelled one.
UNFINISHED: Final = Failure("reset", "the call was given up here")

_LATE: Final[dict[FailureKind, str]] = {
    "connect_timeout": "no connection in time",
    "first_byte_timeout": "no response head in time",
    "total_timeout": "no complete answer in time",
}


class Progress:
    """The limits of a call as absolute times (the clock of ``now``) and its current phase."""

    __slots__ = ("connect_at", "first_byte_at", "phase", "total_at")

    def __init__(self, call: Call, now: float) -> None:
        self.connect_at = _after(now, call.connect_s)
        self.first_byte_at = _after(now, call.first_byte_s)
        self.total_at = _after(now, call.total_s)
        self.phase: Phase = "connecting"

    def due(self) -> tuple[float | None, FailureKind]:
        """Return when the next limit elapses and what that failure is called.

        A limit on the response head that elapses before there is a connection is a connect
        timeout: nobody was there to answer.
        """
        nearest = self.total_at
        kind: FailureKind = "total_timeout"
        if self.phase == "reading":
            return nearest, kind
        if self.first_byte_at is not None and (nearest is None or self.first_byte_at <= nearest):
            nearest = self.first_byte_at
            kind = "first_byte_timeout" if self.phase == "waiting" else "connect_timeout"
        if (
            self.phase == "connecting"
            and self.connect_at is not None
            and (nearest is None or self.connect_at <= nearest)
        ):
            return self.connect_at, "connect_timeout"
        return nearest, kind

    def timed_out(self) -> Failure:
        """Return the failure of the limit that elapses next."""
        kind = self.due()[1]
        return Failure(kind, _LATE[kind])


def _after(now: float, seconds: float | None) -> float | None:
    return None if seconds is None else now + seconds


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from, outermost first, each once."""
    seen: set[int] = set()
    pending: list[BaseException] = [error]
    while pending:
        found = pending.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        wrapped = (found.__cause__, found.__context__, getattr(found, "reason", None), *found.args)
        pending.extend(inner for inner in wrapped if isinstance(inner, BaseException))
