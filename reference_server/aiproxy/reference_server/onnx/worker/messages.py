"""What a worker process and its parent say to each other: msgpack, each message behind its length."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.folders import TextFolder
from aiproxy.reference_server.onnx.text.runner import Capacity, Produced, Sequence, Traits

_LENGTH: Final = 4  # bytes, big endian


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker opens, and where. Sizes are as ``open_slots`` and ``open_genai`` take them.

    ``adapter`` is ``slots``, ``genai``, or a function ``module:name`` that gets this and returns a
    runner. A worker that takes longer than ``start_timeout_s`` to open, or says nothing for
    ``silent_s`` while it should compute, is killed; None: as the device needs.
    """

    adapter: str
    device: Device
    folder: TextFolder | None = None
    slots: int | None = None
    context: int | None = None
    cache_tokens: int | None = None
    start_timeout_s: float = 300.0
    silent_s: float | None = None

    @property
    def name(self) -> str:
        """What the log calls it."""
        return self.adapter if self.folder is None else self.folder.name


class Open(msgspec.Struct, tag=True, frozen=True):
    """The first message to a worker."""

    spec: WorkerSpec


class Add(msgspec.Struct, tag=True, frozen=True):
    sequence: Sequence


class Drop(msgspec.Struct, tag=True, frozen=True):
    key: int


class Opened(msgspec.Struct, tag=True, frozen=True):
    """The first message from a worker."""

    capacity: Capacity
    traits: Traits


class Unfit(msgspec.Struct, tag=True, frozen=True):
    """The first message from a worker that cannot open its model; ``reason`` names no path."""

    reason: str


class Stepped(msgspec.Struct, tag=True, frozen=True):
    """``steps`` since the start; sent when they gave something, and now and then when not."""

    steps: int
    produced: tuple[Produced, ...] = ()


class Refused(msgspec.Struct, tag=True, frozen=True):
    """A sequence that was not taken: the fields of a ``RequestRefused``."""

    key: int
    code: str
    message: str
    param: str | None


class Lost(msgspec.Struct, tag=True, frozen=True):
    """The last message from a worker that can compute nothing any more."""

    reason: str


ToWorker: TypeAlias = Open | Add | Drop
FromWorker: TypeAlias = Opened | Unfit | Stepped | Refused | Lost


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} cannot be sent to a worker")


def _typed(wanted: type, value: Any) -> Any:
    if wanted is Path:
        return Path(value)
    raise NotImplementedError(f"{wanted.__name__} cannot be read from a message")


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=_plain)
_to_worker: Final = msgspec.msgpack.Decoder(ToWorker, dec_hook=_typed)
_from_worker: Final[msgspec.msgpack.Decoder[FromWorker]] = msgspec.msgpack.Decoder(FromWorker)


def pack(message: ToWorker | FromWorker) -> bytes:
    """Return the bytes of a message.

    Raises:
        OverflowError: a number has more than 64 bits.
    """
    content = _encoder.encode(message)
    return len(content).to_bytes(_LENGTH, "big") + content


def read_to_worker(content: bytes) -> ToWorker:
    found: ToWorker = _to_worker.decode(content)
    return found


def read_from_worker(content: bytes) -> FromWorker:
    return _from_worker.decode(content)


class Frames:
    """Cuts what a socket gives into messages."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the content of each message that is whole now."""
        held = self._held
        held += data
        at = 0
        while len(held) - at >= _LENGTH:
            begin = at + _LENGTH
            end = begin + int.from_bytes(held[at:begin], "big")
            if end > len(held):
                break
            yield bytes(held[begin:end])
            at = end
        del held[:at]
