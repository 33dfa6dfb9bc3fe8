"""Reads YAML into located nodes, without ever constructing an object.

Scalars follow the YAML 1.2 core schema: only ``true`` and ``false`` are booleans, so ``no`` and
``on`` stay text (and are refused where a boolean is due); dates stay text. Duplicate keys, tags
other than the plain ones and endless aliases are refused (AIP-CFG-005). The tree is built from
parser events with a stack of our own, so deep nesting costs neither recursion nor time.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from aiproxy.middleware.config.nodes import (
    DEEPEST,
    MOST_NODES,
    NO_KEYS,
    Node,
    Scalar,
    Unreadable,
    number_fault,
)

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,40}")
_PREFIXED: Final = re.compile(r"0o[0-7]{1,40}|0x[0-9A-Fa-f]{1,40}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")
)


@dataclass(slots=True)
class _Open:
    """A collection whose end is not seen; ``key`` waits for its value unless ``wants_key``."""

    node: Node
    anchor: str | None
    wants_key: bool = False
    key: str = ""
    mark: tuple[int, int] = (0, 0)
    merges: list[Node] = field(default_factory=list)
    size: int = 1


def read_yaml(text: str) -> Node:
    """Return the single document of ``text``; an empty one is an empty map.

    Raises:
        Unreadable: not YAML, or YAML this reader refuses.
    """
    parser = _LOADER(text)
    try:
        return _document(parser)
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        reason = fault.problem or fault.context or "a fault"
        raise Unreadable(f"found {reason}, expected YAML", line, column) from None
    except yaml.YAMLError as fault:  # a character YAML does not allow
        position = getattr(fault, "position", 0)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 0
        raise Unreadable("found a character YAML does not allow, expected text", line, 1) from None
    finally:
        parser.dispose()


def _document(parser: Any) -> Node:
    """Return the root of the event stream of ``parser``; one step an event."""
    builder = _Builder()
    next_event = parser.get_event
    event = next_event()
    while not isinstance(event, yaml.StreamEndEvent):
        mark = event.start_mark
        place = (mark.line + 1, mark.column + 1)
        if isinstance(event, yaml.ScalarEvent):
            builder.scalar(event, place)
        elif isinstance(event, yaml.CollectionStartEvent):
            builder.open(event, place)
        elif isinstance(event, yaml.CollectionEndEvent):
            builder.close(place)
        elif isinstance(event, yaml.AliasEvent):
            builder.alias(str(event.anchor), place)
        elif isinstance(event, yaml.DocumentStartEvent) and builder.root is not None:
            raise Unreadable("found a second document, expected one", *place)
        event = next_event()
    if builder.root is None or builder.root.value is None:
        return Node({}, 1, 1)
    return builder.root


class _Builder:
    """The tree so far: open collections on a stack, anchors with the size of what they name."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._total = 0

    def scalar(self, event: Any, place: tuple[int, int]) -> None:
        stack = self._stack
        if stack and stack[-1].wants_key:
            _open_key(stack[-1], event, place)
            return
        node = Node(_scalar(event, place), *place, NO_KEYS)
        if event.anchor:
            self._anchors[event.anchor] = (node, 1)
        self._put(node, 1, 1, place)

    def open(self, event: Any, place: tuple[int, int]) -> None:
        _check_tag(event.tag, place)
        if len(self._stack) >= DEEPEST:
            raise Unreadable(f"found more than {DEEPEST} levels, expected fewer", *place)
        if self._stack and self._stack[-1].wants_key:
            raise Unreadable("found a list or mapping as a key, expected text", *place)
        if isinstance(event, yaml.MappingStartEvent):
            self._stack.append(_Open(Node({}, *place, {}), event.anchor, wants_key=True))
        else:
            self._stack.append(_Open(Node([], *place, NO_KEYS), event.anchor))

    def close(self, place: tuple[int, int]) -> None:
        closed = self._stack.pop()
        if closed.merges:
            _merge(closed)
        if closed.anchor:
            self._anchors[closed.anchor] = (closed.node, closed.size)
        self._put(closed.node, closed.size, 1, place)

    def alias(self, anchor: str, place: tuple[int, int]) -> None:
        if anchor not in self._anchors:
            raise Unreadable("found an alias inside its own anchor, expected a tree", *place)
        if self._stack and self._stack[-1].wants_key:
            raise Unreadable("found an alias as a key, expected text", *place)
        node, size = self._anchors[anchor]
        self._put(node, size, size, place)

    def _put(self, node: Node, size: int, added: int, place: tuple[int, int]) -> None:
        """Attach ``node`` of ``size`` values, of which ``added`` were not counted before."""
        self._total += added
        if self._total > MOST_NODES:
            raise Unreadable(f"found more than {MOST_NODES} values, expected fewer", *place)
        if self._stack:
            _attach(self._stack[-1], node, size, place)
        else:
            self.root = node


def _open_key(owner: _Open, event: yaml.ScalarEvent, place: tuple[int, int]) -> None:
    if event.tag is not None:
        _check_tag(event.tag, place)
    key = event.value
    if key in owner.node.keys:
        first = owner.node.keys[key][0]
        raise Unreadable(f"found the key a second time (first in line {first})", *place, key=key)
    owner.key, owner.mark, owner.wants_key = key, place, False
    if not event.style and key == "<<":
        return
    owner.node.keys[key] = place


def _attach(owner: _Open, node: Node, size: int, place: tuple[int, int]) -> None:
    owner.size += size
    inner = owner.node.value
    if isinstance(inner, list):
        inner.append(node)
    elif isinstance(inner, dict):
        owner.wants_key = True
        if owner.key == "<<" and "<<" not in owner.node.keys:
            given = node.value if isinstance(node.value, list) else [node]
            if not all(isinstance(part.value, dict) for part in given):
                raise Unreadable("found << without a mapping, expected its alias", *owner.mark)
            owner.merges.extend(given)
        else:
            inner[owner.key] = node


def _merge(closed: _Open) -> None:
    """Add the keys of ``<<`` mappings that the mapping does not give itself."""
    inner = closed.node.value
    if not isinstance(inner, dict):
        return
    for part in closed.merges:
        if isinstance(part.value, dict):
            for key, node in part.value.items():
                if key not in inner:
                    inner[key] = node
                    closed.node.keys[key] = part.keys.get(key, (node.line, node.column))


def _check_tag(tag: str | None, place: tuple[int, int]) -> None:
    if tag is not None and tag != "!" and tag not in _TAGS:
        raise Unreadable("found a YAML tag, expected plain values (tags are refused)", *place)


def _scalar(event: Any, place: tuple[int, int]) -> Scalar:
    tag, text = event.tag, str(event.value)
    if tag is not None:
        _check_tag(tag, place)
    if event.style or tag == "!" or (tag is not None and tag.endswith(":str")):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _NOT_FINITE.fullmatch(text):
        raise Unreadable("found a number that is not finite, expected an ordinary one", *place)
    if _INTEGER.fullmatch(text):
        value: int | float = int(text)
    elif _PREFIXED.fullmatch(text):
        value = int(text, 0)
    elif _FLOAT.fullmatch(text):
        value = float(text)
    else:
        return text
    fault = number_fault(value)
    if fault:
        raise Unreadable(fault, *place)
    return value
