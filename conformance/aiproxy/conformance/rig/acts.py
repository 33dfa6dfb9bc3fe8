"""What a fake provider is told to do with one attempt, as plain data.

An ``Act`` travels as JSON to a fake provider in another process, so it holds nothing but numbers,
text and lists. Every default is the behaviour of a healthy provider.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

# Each fault and when it strikes. "after" is Act.after: content events of a stream sent before it.
FAULTS: Final[Mapping[str, str]] = {
    "reset": "the request is read, then the connection is reset without an answer",
    "close": "the request is read, then the connection is closed without an answer",
    "silence": "nothing is ever answered; the connection stays open",
    "half-head": "a status line and half a header, then the connection is closed",
    "html": "status 200 with an HTML page",
    "empty": "status 200 with an empty body",
    "not-json": "status 200 with application/json that does not parse",
    "wrong-shape": "status 200 with JSON of another shape",
    "error-in-200": "status 200 whose body is an error object",
    "short-body": "fewer bytes than Content-Length said, then the connection is closed",
    "no-length": "a right answer delimited by the end of the connection",
    "huge": "a body of more than 64 MiB",
    "bomb": "a small gzip body that unpacks to more than 256 MiB",
    "redirect": "status 307 to another host",
    "cut": "after: the connection breaks inside the transfer coding",
    "cut-clean": "after: the stream ends in good form, without finish_reason and [DONE]",
    "stall": "after: nothing more comes; the connection stays open",
    "error-event": "after: an error event, then the end of the stream",
    "garbage-event": "after: one event that does not parse, then the stream goes on",
    "no-done": "a right stream with its finish_reason and without [DONE]",
    "no-finish": "a stream with [DONE] and without a finish_reason",
    "wrong-media-type": "a right stream whose Content-Type is application/json",
    "whole-for-stream": "a whole JSON answer to a request for a stream",
    "endless": "content events without end",
    "crlf": "a right stream with CRLF line ends",
    "comments": "a right stream with comment lines between the events",
    "split": "a right stream cut into writes at every few bytes, inside characters and lines",
    "late-call": "a right stream whose tool arguments come in one piece, at the end",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One attempt's fate. Times are seconds.

    ``wait_s`` passes before the first byte; ``gap_s`` between the content events of a stream,
    which cuts the text into ``pieces``. ``text`` stands in place of the proof of origin, in which
    ``{proof}`` is filled in; ``body`` (with ``content_type``) in place of the whole body.
    ``message`` and ``code`` are those of an error object when ``status`` is 400 or more.
    ``usage`` maps the OpenAI chat names to numbers; ``None`` means counts nobody can guess, an
    empty mapping no usage at all. ``tool_calls`` are pairs of a name and its arguments.
    ``fault`` is one of ``FAULTS``.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    wait_s: float = 0.0
    gap_s: float = 0.0
    pieces: int = 4
    text: str | None = None
    finish: str | None = None
    tool_calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    usage: Mapping[str, Any] | None = None
    body: str | None = None
    content_type: str = "application/json"
    message: str = "the fake provider was told to fail"
    code: str | None = None
    fault: str = ""
    after: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a fault nobody knows: a typing error must not read as a healthy provider."""
        if self.fault and self.fault not in FAULTS:
            raise ValueError(f"no fault {self.fault!r}")

    def as_json(self) -> dict[str, Any]:
        """Return the act as plain JSON data, without what is left at its default."""
        plain = Act()
        return {k: v for k, v in asdict(self).items() if v != getattr(plain, k)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Act":
        """Return the act that ``as_json`` described.

        Raises:
            ValueError: an unknown member or fault.
        """
        unknown = set(data) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"no such member of an act: {', '.join(sorted(unknown))}")
        given = dict(data)
        for name in ("headers", "tool_calls"):
            if name in given:
                given[name] = tuple((key, value) for key, value in given[name])
        return cls(**given)


HEALTHY: Final = Act()
