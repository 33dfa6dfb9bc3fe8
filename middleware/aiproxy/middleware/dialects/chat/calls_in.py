"""The tool calls of one choice of a stream, put together from their deltas."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    CanonicalEvent,
    Json,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolKind,
)
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT
from aiproxy.middleware.dialects.seals import google_signature, unseal


@dataclass(slots=True)
class _Call:
    index: int
    id: str
    key: int | None
    name: str = ""
    kind: ToolKind = "function"
    started: bool = False
    held: str = ""  # arguments that came before the name
    seen: list[str] = field(default_factory=list)
    signature: str | None = None
    origin: str | None = None

    def sign(self, given: object) -> None:
        """Take the signature a delta has."""
        seal = unseal(given)
        if seal is not None:
            self.signature, self.origin = seal.signature, seal.origin
        elif isinstance(given, str):
            self.signature, self.origin = given, DIALECT


class CallsIn:
    """Which call a delta belongs to is decided by its id first and its index second, because
    servers send index 0 for every call, -1, or none."""

    __slots__ = ("_by_id", "_by_key", "_choice", "calls")

    def __init__(self, choice: int) -> None:
        self.calls: list[_Call] = []
        self._choice = choice
        self._by_key: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}

    @property
    def legacy(self) -> bool:
        """True for the call of the old ``function_call`` member."""
        return bool(self.calls) and self.calls[0].kind == "legacy_function"

    def announce(self, events: list[CanonicalEvent]) -> None:
        """Begin the calls that never got a name."""
        for call in self.calls:
            _announce(call, self._choice, events)

    def ended(self) -> list[CanonicalEvent]:
        """Return the end of each call."""
        return [ToolCallEnd(call.index, self._choice) for call in self.calls]

    def take(self, delta: Json, events: list[CanonicalEvent], kind: ToolKind = "function") -> None:
        """Read one entry of ``tool_calls``."""
        inner = delta.get("function")
        if delta.get("type") == "custom" or (inner is None and "custom" in delta):
            kind, inner = "custom", delta.get("custom")
        inner = inner if isinstance(inner, (dict, Mapping)) else {}
        name = inner.get("name")
        name = name if isinstance(name, str) else ""
        given = inner.get("arguments") if kind != "custom" else inner.get("input")
        arguments = reading.arguments_text(given)
        call = self._which(delta, name, kind)
        if name and not call.name:
            call.name = name
        if "extra_content" in delta:
            call.sign(google_signature(delta))
        if call.name:
            _announce(call, self._choice, events)
        if not arguments:
            return
        call.seen.append(arguments)
        if call.started:
            events.append(ToolCallDelta(call.index, arguments, self._choice))
        else:
            call.held += arguments

    def _which(self, delta: Json, name: str, kind: ToolKind) -> _Call:
        """Return the call a delta belongs to, a new one when it belongs to none."""
        identity = delta.get("id")
        identity = identity if isinstance(identity, str) else ""
        key = delta.get("index")
        key = key if isinstance(key, int) and not isinstance(key, bool) and key >= 0 else None
        at_key = self._by_key.get(key) if key is not None else None
        if identity:
            known = self._by_id.get(identity)
            if known is not None:
                return known
            if at_key is not None and not at_key.id and not at_key.started:
                at_key.id = identity
                self._by_id[identity] = at_key
                return at_key
        else:
            current = at_key
            if current is None and key is None and self.calls:
                current = self.calls[-1]
            if current is not None and _continues(current, name):
                return current
        call = _Call(len(self.calls), identity, key, kind=kind)
        self.calls.append(call)
        if key is not None:
            self._by_key[key] = call
        if identity:
            self._by_id[identity] = call
        return call


def _announce(call: _Call, number: int, events: list[CanonicalEvent]) -> None:
    if call.started:
        return
    call.started = True
    events.append(
        ToolCallStart(
            call.index, call.id, call.name, call.kind, number, call.signature, call.origin
        )
    )
    if call.held:
        events.append(ToolCallDelta(call.index, call.held, number))
        call.held = ""


def _continues(call: _Call, name: str) -> bool:
    """Tell whether a delta without an id, naming ``name``, goes on with ``call``."""
    if not name or not call.name:
        return True
    if name != call.name:
        return False
    # The same name again: a server that repeats it in every chunk, or a second call. It is a
    # second call once the first one's arguments are whole.
    return not (call.seen and reading.is_whole_json("".join(call.seen)))
