"""What came back for one request, read in the ways that checks need."""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from aiproxy.conformance.sse import Event, read_events
from aiproxy.conformance.transport import Answer


class Reply:
    """An answer, with its body read as JSON, as events and as text when asked for.

    ``label`` names the recorded exchange.
    """

    def __init__(self, answer: Answer, label: str) -> None:
        self.answer, self.label = answer, label
        self.status, self.body, self.headers = answer.status, answer.body, answer.headers

    def header(self, name: str) -> str | None:
        """Return the first field ``name``, or nothing."""
        return self.answer.header(name.lower())

    @property
    def media_type(self) -> str:
        """The media type without parameters, in lower case."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    @property
    def head_at(self) -> float:
        """Seconds from sending the request to the answer's head."""
        return self.answer.head_at

    @cached_property
    def _parsed(self) -> tuple[Any, str]:
        if self.answer.incomplete:
            return None, self.answer.incomplete
        return strict_json(self.body)

    @property
    def json(self) -> Any:
        """The body as JSON, or ``None`` when it is not."""
        return self._parsed[0]

    @property
    def json_fault(self) -> str:
        """Why the body is not JSON text, or an empty string."""
        return self._parsed[1]

    @property
    def object(self) -> Mapping[str, Any]:
        """The body as a JSON object; empty when it is anything else."""
        return self.json if isinstance(self.json, dict) else {}

    @property
    def error(self) -> Mapping[str, Any]:
        """The ``error`` object of the body; empty when there is none."""
        error = self.object.get("error")
        return error if isinstance(error, dict) else {}

    @cached_property
    def _stream(self) -> tuple[tuple[Event, ...], str]:
        if self.media_type != "text/event-stream":
            return (), f"not an event stream: {self.media_type or 'no media type'}"
        return read_events(self.answer.pieces())

    @property
    def events(self) -> tuple[Event, ...]:
        """The server-sent events of the body, in order; none when it is no event stream."""
        return self._stream[0]

    @property
    def stream_fault(self) -> str:
        """What is wrong with the framing of the events, or an empty string."""
        return self._stream[1]

    @cached_property
    def text(self) -> str:
        """The assistant's text, whatever shape and however many pieces it came in."""
        if self.media_type == "text/event-stream":
            return "".join(map(_delta, self.events))
        return "".join(_texts(self.object))

    @property
    def outcome(self) -> str:
        """Status and the start of the body, for a finding."""
        shown = self.body[:120].decode("utf-8", "replace").replace("\n", " ")
        return f"{self.status} {shown}".strip()


def x_aiproxy(reply: Reply) -> Mapping[str, Any]:
    """Return the object ``x-aiproxy`` of the body, or of the last event that has one."""
    for body in (reply.object, *(event.json for event in reversed(reply.events))):
        for holder in (body, body.get("response") if isinstance(body, dict) else None):
            found = holder.get("x-aiproxy") if isinstance(holder, dict) else None
            if isinstance(found, dict):
                return found
    return {}


def strict_json(body: bytes) -> tuple[Any, str]:
    """Return the JSON value of ``body`` and why there is none (empty when there is)."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as fault:
        return None, f"not UTF-8 at byte {fault.start}"
    except UnicodeEncodeError:
        return None, "a lone surrogate inside a string"
    except RecursionError:
        return None, "nested too deeply"
    except ValueError as fault:
        return None, f"not JSON ({fault})"
    return value, ""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _texts(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a whole answer: the first of its shapes that has any.

    Known are ``choices`` (chat and the older completions), ``output`` (Responses) and the fields
    a native prediction may use.
    """
    choice = next(iter(_objects(body.get("choices"))), None)
    if choice is not None:
        message = choice.get("message")
        yield _content(message.get("content") if isinstance(message, dict) else choice.get("text"))
        return
    if isinstance(body.get("output"), list):
        for item in _objects(body["output"]):
            if item.get("type", "message") == "message":
                yield _content(item.get("content"))
        return
    for name in ("output", "output_text", "text", "content", "result", "prediction"):
        value = body.get(name)
        if isinstance(value, dict):
            yield from _texts(value)
        elif value is not None:
            yield _content(value)
        if value is not None:
            return


def _delta(event: Event) -> str:
    """Return the text that one event of a stream adds."""
    body = event.json
    if not isinstance(body, dict):
        return ""
    whole = body.get("delta")
    if body.get("type") == "response.output_text.delta" and isinstance(whole, str):
        return whole
    choice = next(iter(_objects(body.get("choices"))), {})
    delta = choice.get("delta")
    return _content(delta.get("content") if isinstance(delta, dict) else choice.get("text"))


def _content(value: object) -> str:
    """Return the text of a message's content: text, or a list of parts with text."""
    if isinstance(value, str):
        return value
    parts = (part.get("text") for part in _objects(value))
    return "".join(text for text in parts if isinstance(text, str))


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
