"""A decoder model in a folder, and one answer of it in the making.

A folder holds ``model.onnx`` (inputs ``input_ids``, ``attention_mask``, ``past_key_values.N.key`` and
``.value``; outputs ``logits`` and ``present.N.*``, as onnxruntime-genai names them), ``tokenizer.json``
and ``config.json`` with ``context_window``, ``eos_token_id`` and ``chat`` (see ``chat_template``).
``SHA256SUMS`` is checked when it is there. A model is immutable and may be shared by threads; an
``Answer`` belongs to one.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from aiproxy.reference_server.onnx.chat_template import ChatTemplate, read_template
from aiproxy.reference_server.onnx.detokenising import Detokeniser, StopScanner
from aiproxy.reference_server.onnx.errors import ModelUnavailable
from aiproxy.reference_server.onnx.generation import (
    FinishReason,
    GenerationRequest,
    Sampling,
    Token,
    Usage,
)
from aiproxy.reference_server.onnx.runtime import onnxruntime, open_session
from aiproxy.reference_server.onnx.sampling import Sampler

DEMO: Final = "builtin:demo"
DEMO_FOLDER: Final = Path(__file__).parent / "demo"
GRAPH: Final = "model.onnx"


@dataclass(frozen=True, slots=True)
class TextModel:
    """A loaded model. ``sampling`` holds what counts when a request says nothing."""

    name: str
    capabilities: tuple[str, ...]
    context_window: int
    fingerprint: str
    sampling: Sampling
    tokenizer: Any
    template: ChatTemplate
    ends: frozenset[int]
    forbidden: tuple[int, ...]
    session: Any
    cache: tuple[tuple[str, tuple[int, int, int, int]], ...]

    @classmethod
    def load(
        cls, path: str, *, tokenizer: str | None = None, context: int | None = None
    ) -> "TextModel":
        """Return the model of a folder, of a bare ``.onnx`` file with the rest beside it, or
        ``builtin:demo``. ``tokenizer`` is another place of tokenizer.json, ``context`` a smaller
        window than the model's own.

        Raises:
            ModelUnavailable: something is missing, damaged or not installed.
        """
        place = DEMO_FOLDER if path == DEMO else Path(path)
        folder, graph = (place.parent, place.name) if place.suffix == ".onnx" else (place, GRAPH)
        verify_sums(folder)
        content = read_bytes(folder / graph)
        described = read_description(folder)
        reader = read_tokenizer(Path(tokenizer) if tokenizer else folder / "tokenizer.json")
        return _assemble(content, described, reader, context)

    def start(self, request: GenerationRequest) -> "Answer":
        """Return the answer to ``request``, nothing computed yet.

        Raises:
            ContextOverflow: the last message does not fit.
        """
        return Answer(self, request, self.template.encode(request.messages, self.context_window))

    def generate(self, request: GenerationRequest) -> Iterator[Token]:
        """Yield the answer token by token, on the calling thread."""
        answer = self.start(request)
        while answer.finish is None:
            text = answer.step()
            if text:
                yield Token(text)


class Answer:
    """One answer: ``step`` computes one token; ``finish`` is set when there is no more."""

    def __init__(self, model: TextModel, request: GenerationRequest, prompt: Sequence[int]) -> None:
        room = model.context_window - len(prompt)
        self.finish: FinishReason | None = None
        self._model = model
        self._prompt_tokens = self._length = len(prompt)
        self._made = 0
        self._most = room if request.max_tokens is None else min(request.max_tokens, room)
        self._next = np.array([prompt], dtype=np.int64)
        self._sampler = Sampler(request.sampling, model.forbidden)
        self._detokeniser = Detokeniser(model.tokenizer.decode)
        self._scanner = StopScanner(request.stop)
        value = onnxruntime().OrtValue.ortvalue_from_numpy
        self._value = value
        self._cache = {name: value(np.zeros(shape, np.float32)) for name, shape in model.cache}

    @property
    def usage(self) -> Usage:
        return Usage(self._prompt_tokens, self._made)

    def step(self) -> str:
        """Compute one token; return the text that became certain, often none."""
        token = self._sampler.choose(self._forward())
        if token in self._model.ends:
            return self._end("stop")
        self._made += 1
        self._length += 1
        self._next = np.array([[token]], dtype=np.int64)
        text = self._scanner.push(self._detokeniser.push(token))
        if self._scanner.stopped:
            self.finish = "stop"
        elif self._made >= self._most:
            text += self._end("length")
        return text

    def _end(self, reason: FinishReason) -> str:
        self.finish = reason
        return self._scanner.flush()

    def _forward(self) -> Any:
        """Run the graph over the tokens not yet seen; keep the caches; return the last logits."""
        mask = np.ones((1, self._length), dtype=np.int64)
        feeds = {"input_ids": self._value(self._next), "attention_mask": self._value(mask)}
        wanted = ["logits", *(present(name) for name in self._cache)]
        logits, *caches = self._model.session.run_with_ort_values(wanted, feeds | self._cache)
        self._cache = dict(zip(self._cache, caches, strict=True))
        return logits.numpy()[0, -1]


def present(name: str) -> str:
    return name.replace("past_key_values", "present")


def _assemble(
    content: bytes, described: Mapping[str, Any], reader: Any, context: int | None
) -> TextModel:
    session = open_session(content)
    cache = cache_shapes(session)
    try:
        ends = described["eos_token_id"]
        window = int(described["context_window"])
        return TextModel(
            name=str(described.get("name", "local")),
            capabilities=tuple(described.get("capabilities", ("text-generation",))),
            context_window=min(window, context) if context else window,
            fingerprint="fp_" + hashlib.sha256(content).hexdigest()[:12],
            sampling=Sampling(**described.get("generation", {})),
            tokenizer=reader,
            template=read_template(described["chat"], reader),
            ends=frozenset(ends if isinstance(ends, list) else [ends]),
            forbidden=tuple(described.get("suppress_tokens", ())),
            session=session,
            cache=cache,
        )
    except (KeyError, TypeError, ValueError) as wrong:
        raise ModelUnavailable(f"config.json does not describe a text model ({wrong})") from wrong


def cache_shapes(session: Any) -> tuple[tuple[str, tuple[int, int, int, int]], ...]:
    """Return the graph's cache inputs with their empty shapes ``(1, heads, 0, width)``."""
    inputs = {found.name: found.shape for found in session.get_inputs()}
    caches = {name: shape for name, shape in inputs.items() if name.startswith("past_key_values.")}
    others = set(inputs) - set(caches)
    if not caches or others != {"input_ids", "attention_mask"}:
        raise ModelUnavailable("the ONNX file is not a decoder with a key-value cache")
    if not all(isinstance(size, int) for shape in caches.values() for size in (shape[1], shape[3])):
        raise ModelUnavailable("the ONNX file does not say the sizes of its key-value cache")
    return tuple((name, (1, int(shape[1]), 0, int(shape[3]))) for name, shape in caches.items())


def verify_sums(folder: Path) -> None:
    """Compare the folder's files with its SHA256SUMS, if there is one.

    Raises:
        ModelUnavailable: a listed file is missing or differs.
    """
    listed = folder / "SHA256SUMS"
    if not listed.is_file():
        return
    for line in read_bytes(listed).decode("utf-8", "replace").splitlines():
        wanted, _, name = line.partition("  ")
        if hashlib.sha256(read_bytes(folder / name)).hexdigest() != wanted:
            raise ModelUnavailable(f"{name} differs from its recorded hash; install it again")


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as missing:
        raise ModelUnavailable(f"{path.name} is missing or cannot be read") from missing


def read_description(folder: Path) -> Mapping[str, Any]:
    try:
        described = json.loads(read_bytes(folder / "config.json"))
    except ValueError as wrong:
        raise ModelUnavailable("config.json is not JSON") from wrong
    if not isinstance(described, dict):
        raise ModelUnavailable("config.json is not an object")
    return described


def read_tokenizer(path: Path) -> Any:
    content = read_bytes(path)
    try:
        from tokenizers import Tokenizer
    except ImportError as missing:
        raise ModelUnavailable("tokenizers is missing; pip install 'aiproxy[onnx]'") from missing
    try:
        reader = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as damaged:  # tokenizers raises bare Exception
        raise ModelUnavailable("tokenizer.json is damaged") from damaged
    # Whatever a client writes is text: "<|end|>" in a message must not become the marker.
    reader.encode_special_tokens = True
    reader.no_truncation()
    reader.no_padding()
    return reader
