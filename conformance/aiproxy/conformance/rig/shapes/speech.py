"""The words all dialects share: what was asked, what is said, and the frames of a stream."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiproxy.conformance.rig.fleet import Actor
from aiproxy.conformance.rig.http1 import Request


class Refusal(Exception):
    """A provider's no to a request, before any model was asked.

    ``code`` is the machine-readable word, ``param`` the member at fault.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as its provider understands it.

    ``shape`` is the kind of answer wanted; ``limit`` the most tokens it may have; ``tool`` the
    function the client insists on (name, schema of its arguments); ``form`` the JSON Schema the
    text must follow, ``{}`` for any JSON object.
    """

    shape: str
    body: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    limit: int | None = None
    tool: tuple[str, Any] | None = None
    form: Any = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool. ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str

    @property
    def values(self) -> Any:
        """The arguments as a JSON value."""
        return json.loads(self.arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the model says, before a dialect gives it a shape.

    ``id`` are hexadecimal digits for ids, ``mark`` those of the proof. ``finish`` is the word of
    OpenAI chat, ``None`` leaves it out; ``usage`` maps its names, ``None`` for no usage at all.
    ``pieces`` is how many events carry the text, and one call's arguments unless ``late``.
    ``vector`` makes the embedding of an input from its place and size.
    """

    id: str
    mark: str
    model: str
    created: int
    text: str
    calls: tuple[Call, ...]
    finish: str | None
    usage: Mapping[str, Any] | None
    pieces: int
    late: bool
    extra: Mapping[str, Any]
    vector: Callable[[int, int], list[float]]

    def count(self, name: str) -> int:
        """Return a count of the usage, 0 when there is none."""
        value = (self.usage or {}).get(name, 0)
        return value if isinstance(value, int) else 0

    def text_pieces(self) -> list[str]:
        """Return the text in the pieces a stream sends."""
        return cut(self.text, self.pieces)

    def argument_pieces(self, call: Call) -> list[str]:
        """Return a call's arguments in the pieces a stream sends."""
        return [call.arguments] if self.late else cut(call.arguments, self.pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """A stream in parts, each a list of frames with ``\\n`` line ends.

    ``content`` are the events that carry something new to the reader; ``opening`` comes before
    them, ``finish`` says why it ended, ``usage`` what it cost, ``done`` that nothing follows.
    ``counted`` tells whether the token counts are in it at all.
    ``error`` makes the frames of a failure out of a message, a code and the number of content
    events before it; ``garbage`` is an event that does not parse.
    """

    opening: list[str]
    content: list[str]
    finish: list[str]
    usage: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    error: Callable[[str, str | None, int], list[str]]
    garbage: str = 'data: {"choices":[{"delta":{"content":"brok\n\n'
    media_type: str = "text/event-stream"
    counted: bool = True


class Dialect(Protocol):
    """What a module below ``shapes`` offers."""

    def read(self, request: Request, actor: Actor) -> Ask:
        """Return what was asked.

        Raises:
            Refusal: the provider would not serve this request.
        """
        ...

    def refused(self, request: Request, refusal: Refusal) -> Any:
        """Return the body of an error answer to ``request``."""

    def whole(self, ask: Ask, said: Said) -> Any:
        """Return the body of an answer that is no stream."""

    def frames(self, ask: Ask, said: Said) -> Frames:
        """Return the stream."""
        ...

    def headers(self, request: Request, said_id: str) -> tuple[tuple[str, str], ...]:
        """Return the fields this provider puts on every answer."""
        ...


def cut(text: str, pieces: int) -> list[str]:
    """Return ``text`` in at most ``pieces`` parts of about the same length; none when empty."""
    size = max(1, -(-len(text) // max(1, pieces)))
    return [text[start : start + size] for start in range(0, len(text), size)]


def packed(value: Any) -> str:
    """Return ``value`` as compact JSON text, characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def event(data: Any, name: str = "") -> str:
    """Return one server-sent event; text goes as it is, all else as JSON."""
    shown = data if isinstance(data, str) else packed(data)
    return f"event: {name}\ndata: {shown}\n\n" if name else f"data: {shown}\n\n"


def instance(schema: Any, proof: str) -> Any:
    """Return a small value that satisfies a plain JSON Schema, with ``proof`` as its text."""
    if not isinstance(schema, dict):
        return {"answer": proof}
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema or not schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    match str(kind).lower():
        case "object":
            members = schema.get("properties") or {"answer": {"type": "string"}}
            return {name: instance(inner, proof) for name, inner in members.items()}
        case "array":
            return [instance(schema.get("items", {"type": "string"}), proof)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
    return proof
