"""A graph that is run as a whole: the seam between the batchers and what computes.

``open_graph`` runs it in this process; a worker process or another runtime may stand in with the
same members.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import LocalError, ModelUnavailable
from aiproxy.reference_server.onnx.folders.graphs import Value

Array: TypeAlias = npt.NDArray[Any]
Feeds: TypeAlias = Mapping[str, Array]

#: numpy's name of the element types a graph may ask for.
ELEMENTS: Final[Mapping[str, str]] = {
    "float": "float32",
    "float16": "float16",
    "double": "float64",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
}


class Session(Protocol):
    """``inputs`` and ``outputs`` by name. ``lost`` says why nothing computes now, or None. ``run``
    blocks, is called by one thread at a time, and gives the outputs asked for; ``close`` may be
    called twice."""

    @property
    def inputs(self) -> Mapping[str, Value]: ...

    @property
    def outputs(self) -> Mapping[str, Value]: ...

    @property
    def lost(self) -> str | None: ...

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> Mapping[str, Array]:
        """Compute.

        Raises:
            LocalError: but for ComputationFailed: what computes is gone; another try would end the
                same.
            Exception: this call failed.
        """
        ...

    def close(self) -> None: ...


SessionFactory: TypeAlias = Callable[[Path, Device], Session]


class ComputationFailed(LocalError):
    """The runtime failed while it computed; the cause is in the log."""

    def __init__(self) -> None:
        super().__init__("the local model failed while it was computing; see the server log")


class OnnxSession:
    """A session of onnxruntime."""

    lost: str | None = None

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = {node.name: _value(node) for node in session.get_inputs()}
        self.outputs = {node.name: _value(node) for node in session.get_outputs()}

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> Mapping[str, Array]:
        session = self._session
        if session is None:
            raise ModelUnavailable("it is unloaded")
        return dict(zip(outputs, session.run(list(outputs), dict(feeds)), strict=True))

    def close(self) -> None:
        self._session = None


def _value(node: Any) -> Value:
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    return Value(node.name, kind, None if node.shape is None else tuple(node.shape))


def open_graph(path: Path, device: Device) -> Session:
    """Return a session of the ONNX file at ``path``; ``pytorch.open_graph`` opens either kind.

    Raises:
        ModelUnavailable: it cannot be loaded.
    """
    from aiproxy.reference_server.onnx import runtime

    return OnnxSession(runtime.open_session(path, device))


def as_element(array: Array, value: Value) -> Array:
    """Return ``array`` with the element type of a graph's input."""
    return array.astype(np.dtype(ELEMENTS.get(value.type, "float32")), copy=False)


def fixed(value: Value, axis: int) -> int | None:
    """Return the size a graph fixes for an axis of ``value``, None where any will do."""
    shape = value.shape
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) and size > 0 else None
