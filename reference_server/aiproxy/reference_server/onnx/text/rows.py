"""The rows of a batch: sequences that are computed together, each with its cached keys and values.

A row is filled by a *newcomer*, one at a time and a piece of the prompt at a time; it then joins the
others. Rows that joined are computed together, one token each. When a row leaves, the last one
takes its number. Three styles:

* ``SharedRows``: caches of a fixed length, which the graph writes into where they are. Rows are
  padded on the right and the graph (GroupQueryAttention) finds each row's length in the mask.
* ``PaddedRows``: the graph returns the caches, longer by the new tokens (``Concat``). Rows are
  aligned at their ends, padded on the left, masked, with positions where the graph asks for them.
* ``SingleRows``: every row alone, one after the other; what any decoder can do.

Which of them fits a graph is found by trying (``styles``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

import numpy as np

from aiproxy.reference_server.onnx.runtime import onnxruntime, providers, session_options
from aiproxy.reference_server.onnx.text.decoder import BFLOAT16, Cache, Decoder, Tokens
from aiproxy.reference_server.onnx.text.sampling import Logits


class Unfit(Exception):
    """This graph cannot be computed in this style."""


class Rows(Protocol):
    """``joined`` rows and at most one newcomer. ``copies`` is how much memory a cached token takes
    at the worst moment, as a multiple of the bytes it needs."""

    name: ClassVar[str]
    copies: ClassVar[int]

    def __init__(self, decoder: Decoder, slots: int, context: int) -> None: ...

    @property
    def joined(self) -> int: ...

    def begin(self) -> None:
        """Open the row of a newcomer."""

    def extend(self, tokens: Sequence[int]) -> None:
        """Compute these next tokens of the newcomer's prompt."""

    def join(self) -> None:
        """Let the newcomer be the last of the joined rows."""

    def abandon(self) -> None:
        """Forget the newcomer."""

    def decode(self, tokens: Sequence[int]) -> Logits:
        """Compute one token of each joined row; return the scores of the next ones."""
        ...

    def remove(self, row: int) -> None:
        """Forget a joined row; the last one takes its number."""


# --- caches of fixed length, written in place ---------------------------------------------------


class HostStore:
    """Memory of the processor for ``slots`` rows of ``context`` tokens."""

    def __init__(self, decoder: Decoder, slots: int, context: int) -> None:
        self._arrays = [
            np.zeros((slots, cache.heads, context, cache.size), cache.element.kept)
            for cache in decoder.caches
        ]

    def pointers(self, row: int) -> list[int]:
        """Return where this row begins, for each cache."""
        return [array.ctypes.data + row * array.strides[0] for array in self._arrays]

    def move(self, source: int, target: int, tokens: int) -> None:
        for array in self._arrays:
            array[target, :, :tokens] = array[source, :, :tokens]


class DeviceStore:
    """Memory of a GPU. Rows are copied there by a graph of copies: onnxruntime has no call for it."""

    def __init__(self, decoder: Decoder, slots: int, context: int) -> None:
        self._device = decoder.device
        self._shapes = [(cache.heads, context, cache.size) for cache in decoder.caches]
        self._elements = [cache.element for cache in decoder.caches]
        value = onnxruntime().OrtValue.ortvalue_from_numpy
        # Zeros, not what lay there: a product with a masked place must not be NaN. Pages of zeros
        # that are only read take no memory.
        self._values = [
            value(
                np.zeros((slots, *shape), np.float32 if element.size == 4 else np.float16),
                self._device.kind,
                self._device.index,
            )
            for shape, element in zip(self._shapes, self._elements, strict=True)
        ]
        self._copies = self._open_copies()

    def pointers(self, row: int) -> list[int]:
        return [
            value.data_ptr() + row * element.size * heads * tokens * size
            for value, element, (heads, tokens, size) in zip(
                self._values, self._elements, self._shapes, strict=True
            )
        ]

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy whole rows, whatever ``tokens`` they have: they lie in one piece."""
        binding = self._copies.io_binding()
        where = (self._device.kind, self._device.index)
        rows = zip(
            self._elements, self._shapes, self.pointers(source), self.pointers(target), strict=True
        )
        for at, (element, shape, start, end) in enumerate(rows):
            # bfloat16 travels as float16: the same bytes.
            kind = 1 if element.size == 4 else 10
            binding.bind_input(f"i{at}", *where, kind, shape, start)
            binding.bind_output(f"o{at}", *where, kind, shape, end)
        self._copies.run_with_iobinding(binding)

    def _open_copies(self) -> Any:
        graph = copies_graph([1 if element.size == 4 else 10 for element in self._elements])
        return onnxruntime().InferenceSession(
            graph, session_options(), providers=list(providers(self._device))
        )


def copies_graph(kinds: Sequence[int]) -> bytes:
    """Return a serialised ONNX model that copies ``iN`` to ``oN``, of the element type ``kinds[N]``."""

    def part(field: int, content: bytes) -> bytes:
        return bytes([field << 3 | 2]) + _varint(len(content)) + content

    def value(name: str, kind: int) -> bytes:
        return part(1, name.encode()) + part(2, part(1, bytes([1 << 3, kind])))

    graph = b""
    for at, kind in enumerate(kinds):
        source, target = f"i{at}", f"o{at}"
        node = part(1, source.encode()) + part(2, target.encode()) + part(4, b"Identity")
        graph += part(1, node) + part(11, value(source, kind)) + part(12, value(target, kind))
    graph += part(2, b"copies")
    # ir_version 8, the graph, opset 17 of the standard domain.
    return b"\x08\x08" + part(7, graph) + part(8, part(1, b"") + b"\x10\x11")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class SharedRows:
    name: ClassVar[str] = "shared"
    copies: ClassVar[int] = 1

    def __init__(
        self,
        decoder: Decoder,
        slots: int,
        context: int,
        store: type[HostStore | DeviceStore] | None = None,
    ) -> None:
        """``store`` None: what the device needs."""
        if not decoder.has_mask:
            raise Unfit("without attention_mask the graph cannot know each row's length")
        if store is None:
            store = HostStore if decoder.device.kind == "cpu" else DeviceStore
        self._decoder = decoder
        self._context = context
        self._store = store(decoder, slots, context)
        self._lengths: list[int] = []
        self._newcomer: int | None = None  # its length; its row is the one after the joined
        self._bindings: dict[int, Any] = {}

    @property
    def joined(self) -> int:
        return len(self._lengths)

    def begin(self) -> None:
        self._newcomer = 0

    def extend(self, tokens: Sequence[int]) -> None:
        before = self._newcomer or 0
        after = before + len(tokens)
        binding = self._decoder.bind(
            np.array([tokens], np.int64),
            np.ones((1, after), np.int64),
            np.arange(before, after)[None],
        )
        self._bind_caches(binding, self.joined, 1)
        self._decoder.run(binding)
        self._newcomer = after

    def join(self) -> None:
        self._lengths.append(self._newcomer or 0)
        self._newcomer = None

    def abandon(self) -> None:
        self._newcomer = None

    def decode(self, tokens: Sequence[int]) -> Logits:
        rows = self.joined
        lengths = np.array(self._lengths, np.int64)
        mask = (np.arange(lengths.max() + 1) <= lengths[:, None]).astype(np.int64)
        known = self._bindings.get(rows)
        binding = self._decoder.bind(_column(tokens), mask, lengths[:, None], known)
        if known is None:
            # Rows always begin at the first, so a batch size has its addresses for good.
            self._bind_caches(binding, 0, rows)
            self._bindings[rows] = binding
        scores = self._decoder.run(binding, rows)
        self._lengths = [length + 1 for length in self._lengths]
        return scores

    def remove(self, row: int) -> None:
        last = self.joined - 1
        if row != last:
            self._store.move(last, row, self._lengths[last])
            self._lengths[row] = self._lengths[last]
        self._lengths.pop()
        if self._newcomer:
            self._store.move(last + 1, last, self._newcomer)

    def _bind_caches(self, binding: Any, first: int, rows: int) -> None:
        """Bind past and present of each cache to the same bytes, from row ``first`` on."""
        where = (self._decoder.device.kind, self._decoder.device.index)
        pointers = self._store.pointers(first)
        for cache, pointer in zip(self._decoder.caches, pointers, strict=True):
            shape = (rows, cache.heads, self._context, cache.size)
            binding.bind_input(cache.past, *where, cache.element.onnx, shape, pointer)
            binding.bind_output(cache.present, *where, cache.element.onnx, shape, pointer)


# --- caches that the graph returns --------------------------------------------------------------


@dataclass(slots=True)
class _Row:
    """Where a sequence's cache is: row ``at`` of ``caches``, its last ``length`` tokens."""

    caches: list[Any]
    at: int
    length: int


class _Returned:
    """What the styles have in common whose graph returns the caches."""

    def __init__(self, decoder: Decoder, slots: int, context: int) -> None:
        self._decoder = decoder
        self._rows: list[_Row] = []
        self._newcomer: _Row | None = None

    @property
    def joined(self) -> int:
        return len(self._rows)

    def begin(self) -> None:
        self._newcomer = _Row(self._decoder.zeros(1, 0), 0, 0)

    def extend(self, tokens: Sequence[int]) -> None:
        row = self._newcomer
        assert row is not None, "begin comes before extend"
        self._run_single(row, tokens, scored=False)

    def join(self) -> None:
        assert self._newcomer is not None, "begin comes before join"
        self._rows.append(self._newcomer)
        self._newcomer = None

    def abandon(self) -> None:
        self._newcomer = None

    def remove(self, row: int) -> None:
        last = self._rows.pop()
        if row < len(self._rows):
            self._rows[row] = last

    def _run_single(self, row: _Row, tokens: Sequence[int], *, scored: bool) -> Logits:
        after = row.length + len(tokens)
        positions = np.arange(row.length, after)[None]
        ids = np.array([tokens], np.int64)
        scores, row.caches = self._run(
            ids, np.ones((1, after), np.int64), positions, row.caches, scored=scored
        )
        row.length = after
        return scores

    def _run(
        self, ids: Tokens, mask: Tokens, positions: Tokens, caches: list[Any], *, scored: bool
    ) -> tuple[Logits, list[Any]]:
        decoder = self._decoder
        binding = decoder.bind(ids, mask, positions)
        for cache, past in zip(decoder.caches, caches, strict=True):
            binding.bind_ortvalue_input(cache.past, past)
            binding.bind_output(cache.present, decoder.device.kind, decoder.device.index)
        scores = decoder.run(binding, len(ids) if scored else None)
        # Outputs come in the order they were bound: the caches, then the scores.
        return scores, list(binding.get_outputs())[: len(caches)]


class SingleRows(_Returned):
    name: ClassVar[str] = "single"
    copies: ClassVar[int] = 1

    def decode(self, tokens: Sequence[int]) -> Logits:
        # Each run overwrites the scores of the one before.
        scores = [
            self._run_single(row, [token], scored=True).copy()
            for row, token in zip(self._rows, tokens, strict=True)
        ]
        return np.concatenate(scores)


class PaddedRows(_Returned):
    """Rows that joined or left only change a list; the batch is put together anew before the next
    step, in one copy. On a GPU that copy goes through the processor's memory."""

    name: ClassVar[str] = "padded"
    copies: ClassVar[int] = 3  # past, present, and the batch that is being put together

    def __init__(self, decoder: Decoder, slots: int, context: int) -> None:
        if any(cache.element.onnx == BFLOAT16 for cache in decoder.caches):
            raise Unfit("numpy cannot put caches of bfloat16 together")
        super().__init__(decoder, slots, context)

    def decode(self, tokens: Sequence[int]) -> Logits:
        batch = self._batch()
        lengths = np.array([row.length for row in self._rows], np.int64)
        width = batch[0].shape()[2]
        mask = (np.arange(width + 1) >= width - lengths[:, None]).astype(np.int64)
        scores, presents = self._run(_column(tokens), mask, lengths[:, None], batch, scored=True)
        self._rows = [_Row(presents, at, row.length + 1) for at, row in enumerate(self._rows)]
        return scores

    def _batch(self) -> list[Any]:
        """Return the caches of the joined rows in their order, aligned at their ends."""
        rows = self._rows
        first = rows[0].caches
        width = max(row.length for row in rows)
        whole = all(row.caches is first and row.at == at for at, row in enumerate(rows))
        if whole and list(first[0].shape())[::2] == [len(rows), width]:
            return first
        return [
            self._put_together(at, cache, width) for at, cache in enumerate(self._decoder.caches)
        ]

    def _put_together(self, number: int, cache: Cache, width: int) -> Any:
        shape = (len(self._rows), cache.heads, width, cache.size)
        batch = np.zeros(shape, cache.element.kept)
        read: dict[int, Any] = {}  # from the device once, not for every row
        for place, row in enumerate(self._rows):
            if row.length:
                if id(row.caches) not in read:
                    read[id(row.caches)] = row.caches[number].numpy()
                source = read[id(row.caches)]
                batch[place, :, width - row.length :] = source[row.at, :, -row.length :]
        device = self._decoder.device
        return onnxruntime().OrtValue.ortvalue_from_numpy(batch, device.kind, device.index)


def _column(tokens: Sequence[int]) -> Tokens:
    return np.array(tokens, np.int64)[:, None]


STYLES: Final[tuple[type[Rows], ...]] = (SharedRows, PaddedRows, SingleRows)
