"""What the fake providers saw: one entry an attempt, readable from any thread."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request as it reached a fake, and what became of it.

    Times are seconds of ``time.monotonic()``: ``at`` the first byte of the request, ``answered_at``
    the first byte of the answer, ``finished_at`` the end of it as the script meant it,
    ``closed_at`` when the connection ended before that: by the client when ``gone``, else by the
    fake, which was shut. Header names are in lower case, a
    repeated field's values are joined by a comma; ``body`` holds at most 16 MiB. ``usage`` is what
    was reported, under the OpenAI chat names. ``number`` counts from 1 for this nonce at this
    provider. ``connection`` numbers the TCP connections of the run.
    """

    role: str
    provider: str
    nonce: str
    number: int
    at: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    connection: int = 0
    answered_at: float | None = None
    finished_at: float | None = None
    closed_at: float | None = None
    gone: bool = False
    status: int | None = None
    usage: Mapping[str, Any] | None = None
    fault: str = ""

    @property
    def json(self) -> Any:
        """The body as a JSON value, or ``None``."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def open(self) -> bool:
        """Whether it is still being answered."""
        return self.finished_at is None and self.closed_at is None

    def as_json(self) -> dict[str, Any]:
        """Return the attempt as JSON data; the body as Latin-1 text, one character a byte."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**data, "body": self.body.decode("latin-1"), "headers": dict(self.headers)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Attempt":
        """Return the attempt that ``as_json`` described."""
        return cls(**{**data, "body": data["body"].encode("latin-1")})


class Log:
    """All attempts of a run, in order of arrival."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._all: list[Attempt] = []
        self._of: dict[str, list[int]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def enter(self, **given: Any) -> tuple[int, int]:
        """Note an attempt; return its place in the log and its number at this provider."""
        with self._changed:
            pair = (given["nonce"], given["provider"])
            number = self._counts[pair] = self._counts.get(pair, 0) + 1
            self._all.append(Attempt(number=number, **given))
            place = len(self._all) - 1
            self._of.setdefault(given["nonce"], []).append(place)
            return place, number

    def change(self, place: int, **facts: Any) -> None:
        """Add what became known about the attempt at ``place``."""
        with self._changed:
            self._all[place] = replace(self._all[place], **facts)
            self._changed.notify_all()

    def attempts(self, nonce: str) -> tuple[Attempt, ...]:
        """Return the attempts that carried ``nonce``."""
        with self._changed:
            return tuple(self._all[place] for place in self._of.get(nonce, ()))

    def everything(self) -> tuple[Attempt, ...]:
        """Return all attempts."""
        with self._changed:
            return tuple(self._all)

    def wait_idle(self, nonce: str, timeout_s: float) -> bool:
        """Return whether, within ``timeout_s``, no attempt of ``nonce`` was being answered."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while any(self._all[place].open for place in self._of.get(nonce, ())):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True
