"""What an ONNX file says of its inputs, outputs, operators and external data.

A reader of the few protobuf fields needed, so that looking at a folder loads no weights and needs no
package. Tensor contents are skipped by their length, never read.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias

from aiproxy.reference_server.onnx.errors import ModelUnavailable

Bytes: TypeAlias = memoryview
#: A size, the name of one that is known at run time only, or None where nothing is said.
Size: TypeAlias = int | str | None

TYPES: Final[Mapping[int, str]] = {
    1: "float",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "double",
    16: "bfloat16",
}


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output. ``shape`` None: nothing says even how many dimensions there are."""

    name: str
    type: str
    shape: tuple[Size, ...] | None


@dataclass(frozen=True, slots=True)
class Graph:
    """``external`` maps each file beside the graph that holds weights to the bytes it must have;
    ``bytes`` is the graph file and those together. ``inputs`` leave initializers out."""

    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]
    operators: frozenset[str]
    external: Mapping[str, int]
    bytes: int


class _Damaged(Exception):
    """The bytes are no such message, or end too early."""


def read_graph(path: Path) -> Graph:
    """Return what the ONNX file at ``path`` says of itself; its external data is there, whole.

    Raises:
        ModelUnavailable: it or its external data is missing, or it is no ONNX file.
    """
    try:
        with path.open("rb") as file:
            # Closed with the last view of it: an error's traceback may hold one a while longer.
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        graph = _model(content, len(content))
    except OSError as missing:
        raise ModelUnavailable(f"{path.name} is missing or cannot be read") from missing
    except (_Damaged, ValueError) as damaged:  # an empty file cannot be mapped: ValueError
        raise ModelUnavailable(f"{path.name} is damaged or no ONNX file") from damaged
    for name, size in graph.external.items():
        _check_external(path, name, size)
    return graph


def _check_external(path: Path, name: str, size: int) -> None:
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts:
        raise ModelUnavailable(f"{path.name} names weights outside its folder")
    try:
        found = (path.parent / place).stat().st_size
    except OSError as missing:
        raise ModelUnavailable(f"{place.name}, the weights of {path.name}, is missing") from missing
    if found < size:
        raise ModelUnavailable(
            f"{place.name}, the weights of {path.name}, is cut off: {found} of {size} bytes"
        )


def _model(content: Bytes, size: int) -> Graph:
    found = [value for field, value in _fields(content) if field == 7]
    if not found or isinstance(found[-1], int):
        raise _Damaged
    inputs: dict[str, Value] = {}
    outputs: dict[str, Value] = {}
    initial: set[str] = set()
    operators: set[str] = set()
    external: dict[str, int] = {}
    for field, value in _fields(found[-1]):
        if isinstance(value, int):
            continue
        if field == 1:
            operators.add(_operator(value))
        elif field == 5:
            initial.add(_tensor(value, external))
        elif field in (11, 12):
            seen = _value(value)
            (inputs if field == 11 else outputs)[seen.name] = seen
    if not outputs:
        raise _Damaged
    return Graph(
        inputs={name: value for name, value in inputs.items() if name not in initial},
        outputs=outputs,
        operators=frozenset(operators),
        external=external,
        bytes=size + sum(external.values()),
    )


def _operator(node: Bytes) -> str:
    return next((_text(value) for field, value in _fields(node) if field == 4), "")


def _tensor(tensor: Bytes, external: dict[str, int]) -> str:
    """Return the name of an initializer; enter the file that holds it, if another does."""
    name = ""
    entries: dict[str, str] = {}
    for field, value in _fields(tensor):
        if field == 8:
            name = _text(value)
        elif field == 13 and not isinstance(value, int):
            pair = {key: _text(text) for key, text in _fields(value)}
            entries[pair.get(1, "")] = pair.get(2, "")
    if "location" in entries:
        try:
            end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        except ValueError:
            raise _Damaged from None
        file = entries["location"]
        external[file] = max(external.get(file, 0), end)
    return name


def _value(info: Bytes) -> Value:
    name, kind, shape = "", "", None
    for field, value in _fields(info):
        if field == 1:
            name = _text(value)
        elif field == 2 and not isinstance(value, int):
            for part, tensor in _fields(value):
                if part == 1 and not isinstance(tensor, int):
                    kind, shape = _tensor_type(tensor)
    return Value(name, kind, shape)


def _tensor_type(tensor: Bytes) -> tuple[str, tuple[Size, ...] | None]:
    kind, shape = "", None
    for field, value in _fields(tensor):
        if field == 1 and isinstance(value, int):
            kind = TYPES.get(value, "other")
        elif field == 2 and not isinstance(value, int):
            shape = tuple(_size(part) for number, part in _fields(value) if number == 1)
    return kind, shape


def _size(dimension: Bytes | int) -> Size:
    size: Size = None
    if not isinstance(dimension, int):
        for field, value in _fields(dimension):
            if field == 1 and isinstance(value, int):
                size = value
            elif field == 2:
                size = _text(value)
    return size


def _text(value: Bytes | int) -> str:
    if isinstance(value, int):
        raise _Damaged
    return bytes(value).decode("utf-8", "replace")


def _fields(message: Bytes) -> Iterator[tuple[int, Bytes | int]]:
    """Yield the fields of a protobuf message: numbers, or a view of what has a length."""
    at, end = 0, len(message)
    while at < end:
        key, at = _number(message, at, end)
        kind = key & 7
        if kind == 0:
            number, at = _number(message, at, end)
            yield key >> 3, number
            continue
        if kind == 2:
            size, at = _number(message, at, end)
        elif kind == 1 or kind == 5:
            size = 8 if kind == 1 else 4
        else:
            raise _Damaged
        if at + size > end:
            raise _Damaged
        yield key >> 3, message[at : at + size]
        at += size


def _number(message: Bytes, at: int, end: int) -> tuple[int, int]:
    number = shift = 0
    while at < end and shift < 70:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise _Damaged
