"""A decoder graph with a key-value cache: its inputs and outputs, and how they are bound.

Inputs are ``input_ids [rows, tokens]``, if the graph has them ``attention_mask [rows, past + tokens]``
and ``position_ids [rows, tokens]``, and for each layer ``past_key_values.N.key`` and ``.value``
``[rows, heads, past, size]``; outputs ``logits`` (of every position or the last alone) and
``present.N.*``. That is what onnxruntime-genai's builder and Hugging Face's exporters write.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import ModelUnavailable
from aiproxy.reference_server.onnx.folders import TextFolder
from aiproxy.reference_server.onnx.runtime import onnxruntime
from aiproxy.reference_server.onnx.text.sampling import Logits

Tokens: TypeAlias = NDArray[np.int64]

#: Outputs that hold what the next run takes as ``past_key_values.``.
_PRESENTS: Final = ("present.", "present_key_values.")
_PAST: Final = "past_key_values."
_WHOLE: Final[dict[str, np.dtype[Any]]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
}


@dataclass(frozen=True, slots=True)
class Element:
    """A type of numbers: ONNX's number for it, and the numpy type its bytes are kept in."""

    onnx: int
    kept: np.dtype[Any]

    @property
    def size(self) -> int:
        return self.kept.itemsize


BFLOAT16: Final = 16
#: numpy has no bfloat16: its bytes are kept as they are.
_ELEMENTS: Final = {
    "tensor(float)": Element(1, np.dtype(np.float32)),
    "tensor(float16)": Element(10, np.dtype(np.float16)),
    "tensor(bfloat16)": Element(BFLOAT16, np.dtype(np.uint16)),
}


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys or values of one layer, ``[rows, heads, tokens, size]``."""

    past: str
    present: str
    heads: int
    size: int
    element: Element

    @property
    def token_bytes(self) -> int:
        return self.heads * self.size * self.element.size


class Decoder:
    """An open session with what is known of it. For one thread."""

    def __init__(self, session: Any, folder: TextFolder, device: Device) -> None:
        """Raises:
        ModelUnavailable: the graph is no decoder with a cache, or of a kind not known here.
        """
        self.session = session
        self.device = device
        inputs = {found.name: found for found in session.get_inputs()}
        outputs = {found.name: found for found in session.get_outputs()}
        if "input_ids" not in inputs or "logits" not in outputs:
            raise ModelUnavailable("the ONNX file is not a decoder with input_ids and logits")
        self._types = {
            name: _whole(inputs.pop(name))
            for name in ("input_ids", "attention_mask", "position_ids")
            if name in inputs
        }
        # Newer exports ask how many of the last positions need scores.
        self._keeps = _whole(inputs.pop("num_logits_to_keep")) if _one_kept(inputs) else None
        # Exports of two graphs in one ask which of them: without a past, or with one.
        self._asks_branch = inputs.pop("use_cache_branch", None) is not None
        self.caches = tuple(
            _cache(inputs.pop(name), outputs, folder)
            for name in list(inputs)
            if name.startswith(_PAST)
        )
        if not self.caches:
            raise ModelUnavailable("the ONNX file is not a decoder with a key-value cache")
        if inputs:
            raise ModelUnavailable(
                f"the ONNX file has inputs not known here: {', '.join(sorted(inputs))}"
            )
        scores = outputs["logits"]
        self._scored = _element(scores)
        self._rank = len(scores.shape)
        self.vocabulary = self._count_scores(scores.shape[-1])
        self._scores = np.zeros((1, self.vocabulary), self._scored.kept)

    @property
    def has_mask(self) -> bool:
        return "attention_mask" in self._types

    @property
    def token_bytes(self) -> int:
        """Bytes of cache a token takes, all layers together."""
        return sum(cache.token_bytes for cache in self.caches)

    def bind(self, ids: Tokens, mask: Tokens, positions: Tokens, binding: Any = None) -> Any:
        """Return a binding, a new one or ``binding`` once more, with these inputs."""
        binding = binding or self.session.io_binding()
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        for name, kind in self._types.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(given[name], kind))
        if self._keeps is not None:
            binding.bind_cpu_input("num_logits_to_keep", np.array(1, self._keeps))
        if self._asks_branch:
            binding.bind_cpu_input("use_cache_branch", np.array([mask.shape[1] > ids.shape[1]]))
        return binding

    def run(self, binding: Any, rows: int | None = None) -> Logits:
        """Run; return the scores ``[rows, vocabulary]`` of one new token a row, or, without
        ``rows``, an empty array. They are overwritten by the next run."""
        if rows is None:
            self.session.run_with_iobinding(binding)
            return np.empty((0, self.vocabulary), np.float32)
        if len(self._scores) < rows:
            self._scores = np.zeros((rows, self.vocabulary), self._scored.kept)
        shape = (rows, self.vocabulary) if self._rank == 2 else (rows, 1, self.vocabulary)
        pointer = self._scores.ctypes.data
        binding.bind_output("logits", "cpu", 0, self._scored.onnx, shape, pointer)
        self.session.run_with_iobinding(binding)
        return self._as_float32(self._scores[:rows])

    def zeros(self, rows: int, tokens: int) -> list[Any]:
        """Return empty caches on the device, for ``tokens`` 0 of no bytes at all."""
        make = onnxruntime().OrtValue.ortvalue_from_shape_and_type
        where = (self.device.kind, self.device.index)
        return [
            make((rows, cache.heads, tokens, cache.size), cache.element.onnx, *where)
            for cache in self.caches
        ]

    def _as_float32(self, scores: NDArray[Any]) -> Logits:
        if self._scored.onnx == BFLOAT16:
            return (scores.astype(np.uint32) << 16).view(np.float32)
        return scores.astype(np.float32, copy=False)

    def _count_scores(self, said: Any) -> int:
        """Return the width of a row of scores; where the graph does not say it, by a run."""
        if isinstance(said, int):
            return said
        one = np.ones((1, 1), np.int64)
        binding = self.bind(one, one, one - 1)
        for cache, empty in zip(self.caches, self.zeros(1, 0), strict=True):
            binding.bind_ortvalue_input(cache.past, empty)
        binding.bind_output("logits", "cpu")
        self.session.run_with_iobinding(binding)
        return int(binding.get_outputs()[0].shape()[-1])


def _whole(value: Any) -> np.dtype[Any]:
    if value.type not in _WHOLE:
        raise ModelUnavailable(f"the ONNX file's input {value.name} is not of whole numbers")
    return _WHOLE[value.type]


def _one_kept(inputs: dict[str, Any]) -> bool:
    return "num_logits_to_keep" in inputs and not inputs["num_logits_to_keep"].shape


def _element(value: Any) -> Element:
    if value.type not in _ELEMENTS:
        raise ModelUnavailable(
            f"the ONNX file's {value.name} is {value.type}; float, float16 and bfloat16 are known"
        )
    return _ELEMENTS[value.type]


def _cache(past: Any, outputs: dict[str, Any], folder: TextFolder) -> Cache:
    rest = past.name.removeprefix(_PAST)
    present = next((start + rest for start in _PRESENTS if start + rest in outputs), None)
    if present is None or len(past.shape) != 4:
        raise ModelUnavailable(f"the ONNX file has no usable cache for {past.name}")
    heads = past.shape[1] if isinstance(past.shape[1], int) else folder.heads
    size = past.shape[3] if isinstance(past.shape[3], int) else folder.head_size
    if not heads or not size:
        raise ModelUnavailable(
            "neither the ONNX file nor its configuration says the sizes of the key-value cache "
            "(num_key_value_heads, head_dim)"
        )
    return Cache(past.name, present, heads, size, _element(past))
