"""A local embedding model: texts to vectors.

The tokenizer is used without the truncation and padding a tokenizer.json may hold (published ones
cut at 128 tokens and pad to as many): lengths come from the model's configuration, a text that is
too long is refused, and a batch is padded to its longest.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import LocalError, ModelUnavailable, RequestRefused
from aiproxy.reference_server.onnx.folders.graphs import Value
from aiproxy.reference_server.onnx.vectors.batching import MAX_BATCH_TOKENS, Batcher
from aiproxy.reference_server.onnx.vectors.session import (
    Array,
    ComputationFailed,
    Session,
    SessionFactory,
    as_element,
    fixed,
    open_graph,
)

if TYPE_CHECKING:
    from aiproxy.reference_server.onnx.folders import VectorFolder

Pooling: TypeAlias = Literal["mean", "cls", "last", "none"]
Tokens: TypeAlias = tuple[int, ...]

#: Where nothing says how long an input may be; what BERT and its relatives take.
_USUAL_LENGTH: Final = 512
_CPU_BATCH: Final = 4  # of like length: 1.7 times the texts a second of one at a time
_GPU_BATCH: Final = 32
#: Outputs that are whole vectors already, and those with a vector for each token, by preference.
_POOLED: Final = ("sentence_embedding", "text_embeds", "embeddings", "embedding")
_BY_TOKEN: Final = ("last_hidden_state", "token_embeddings", "hidden_states")
#: The model's inputs this server knows how to fill, beside the token ids.
_MASK: Final = "attention_mask"
_TYPES: Final = "token_type_ids"
_POSITIONS: Final = "position_ids"
_IDS: Final = "input_ids"
_KNOWN: Final = frozenset({_IDS, _MASK, _TYPES, _POSITIONS})
#: Below so many characters of text the thread's start costs more than tokenizing.
_INLINE_CHARACTERS: Final = 4000
_TINY: Final = 1e-12


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which output is read, and how it becomes one vector a text."""

    output: str
    pooling: Pooling


class TokenEncoder:
    """A graph that takes token ids: rows of different lengths in, one vector each out.

    ``beside`` are further inputs of the graph that get the same value in every batch.
    """

    def __init__(
        self,
        session: Session,
        *,
        pad: int,
        pooling: str | None,
        beside: Mapping[str, Array] | None = None,
        outputs: Sequence[str] = (*_POOLED, *_BY_TOKEN),
    ) -> None:
        self._session = session
        self._pad = pad
        self._beside = dict(beside or {})
        inputs = session.inputs
        _check_inputs(inputs, self._beside)
        self._ids = inputs[_IDS]
        #: sizes the graph insists on
        self.rows = fixed(self._ids, 0)
        self.columns = fixed(self._ids, 1)
        self._plan = _plan(session.outputs, pooling, outputs)

    @property
    def pooling(self) -> Pooling:
        return self._plan.pooling

    @property
    def lost(self) -> str | None:
        return self._session.lost

    def encode(self, rows: Sequence[Tokens]) -> list[Array]:
        """Return a float32 vector for each row of token ids, none of them empty.

        Raises:
            ComputationFailed: a vector holds something that is no number.
            ModelUnavailable: the output is none this server can read.
        """
        feeds, mask = self._feeds(rows)
        found = self._session.run(feeds, [self._plan.output])[self._plan.output]
        states = np.asarray(found, dtype=np.float32)
        vectors = _pool(states, mask, self._plan)[: len(rows)]
        if not np.isfinite(vectors).all():
            raise ComputationFailed
        return list(vectors)

    def feeds(self, rows: Sequence[Tokens]) -> dict[str, Array]:
        """Return what the graph is given for rows of token ids."""
        return self._feeds(rows)[0]

    def _feeds(self, rows: Sequence[Tokens]) -> tuple[dict[str, Array], Array]:
        height = self.rows or len(rows)
        width = self.columns or max(map(len, rows))
        ids = np.full((height, width), self._pad, dtype=np.int64)
        mask = np.zeros((height, width), dtype=np.int64)
        for number in range(height):
            row = rows[min(number, len(rows) - 1)]  # a fixed batch is filled with the last row
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        feeds = {_IDS: ids, _MASK: mask, _TYPES: np.zeros_like(ids)}
        feeds[_POSITIONS] = np.broadcast_to(np.arange(width, dtype=np.int64), ids.shape)
        inputs = self._session.inputs
        given = {n: as_element(v, inputs[n]) for n, v in feeds.items() if n in inputs}
        return {**given, **self._beside}, mask

    def close(self) -> None:
        self._session.close()


def _check_inputs(inputs: Mapping[str, Value], beside: Mapping[str, Array]) -> None:
    if _IDS not in inputs:
        raise ModelUnavailable(f"an embedding model takes {_IDS}; this graph has no such input")
    unknown = sorted(inputs.keys() - _KNOWN - beside.keys())
    if unknown:
        raise ModelUnavailable(
            f"the graph wants {unknown[0]}, which an embedding model is not given; expected "
            f"{', '.join(sorted(_KNOWN))}"
        )


def _plan(outputs: Mapping[str, Value], pooling: str | None, preferred: Sequence[str]) -> _Plan:
    """Choose the output: pooled by the graph where it does, unless a pooling is asked for."""
    names = [name for name in preferred if name in outputs] or list(outputs)

    def first(*ranks: int) -> str | None:
        for name in names:
            shape = outputs[name].shape
            if shape is not None and len(shape) in ranks:
                return name
        return None

    pooled, by_token = first(2), first(3)
    if pooling in ("mean", "cls", "last") and by_token is not None:
        return _Plan(by_token, pooling)  # type: ignore[arg-type]
    if pooled is not None:
        return _Plan(pooled, "none")
    if by_token is not None and pooling is None:
        return _Plan(by_token, "mean")
    if by_token is None and names and outputs[names[0]].shape is None:
        # The graph says nothing of shapes: the trial run tells.
        return _Plan(names[0], pooling or "none")  # type: ignore[arg-type]
    raise ModelUnavailable("no output of the graph is a vector for each text or for each token")


def _pool(states: Array, mask: Array, plan: _Plan) -> Array:
    """Return (texts, size); ``states`` is that already or (texts, tokens, size), padded right."""
    expected = 2 if plan.pooling == "none" else 3
    if states.ndim != expected or states.shape[0] != mask.shape[0]:
        raise ModelUnavailable(
            f"the graph's output {plan.output} has {states.ndim} dimensions, expected {expected}"
        )
    if plan.pooling == "none":
        return states
    if states.shape[1] != mask.shape[1]:
        raise ModelUnavailable(
            f"the graph's output {plan.output} has not one vector for each token"
        )
    if plan.pooling == "cls":
        return states[:, 0]
    if plan.pooling == "last":
        return np.asarray(states[np.arange(len(states)), mask.sum(axis=1) - 1])
    weights = mask[:, :, None].astype(np.float32)
    return np.asarray((states * weights).sum(axis=1) / weights.sum(axis=1))


def unit(vectors: Array) -> Array:
    """Return vectors of length 1 in the same direction; a zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, _TINY), dtype=np.float32)


class Tokenizer:
    """A tokenizer.json without its truncation and padding. What a client writes is text:
    ``[SEP]`` in it does not become the marker."""

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer as Reader
        except ImportError as missing:
            raise ModelUnavailable(
                "tokenizers is missing; pip install 'aiproxy[onnx]'"
            ) from missing
        try:
            self._reader = Reader.from_file(str(path))
        except Exception as damaged:  # the library raises plain Exception
            raise ModelUnavailable(f"{path.name} is missing or damaged") from damaged
        self._reader.no_truncation()
        self._reader.no_padding()
        self._reader.encode_special_tokens = True
        #: one more than the largest token id
        self.size: int = 1 + max(self._reader.get_vocab(with_added_tokens=True).values(), default=0)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the token ids of each text, with the model's own first and last tokens."""
        if len(texts) == 1:  # a batch would start a pool of threads, which a fork does not survive
            return [tuple(self._reader.encode(texts[0]).ids)]
        return [tuple(row.ids) for row in self._reader.encode_batch(list(texts))]


class EmbeddingModel:
    """``embed`` texts, or token ids as they are, from an event loop."""

    capabilities: Final = ("embeddings",)

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        encoder: TokenEncoder,
        *,
        max_length: int,
        normalize: bool,
        max_batch: int,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        max_wait_s: float = 10.0,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.max_length = min(max_length, encoder.columns or max_length)
        self.normalize = normalize
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._on_close = encoder.close if on_close is None else on_close
        self.dimensions = self._try_out()
        self.batcher: Batcher[Tokens, Array] = Batcher(
            encoder.encode,
            len if encoder.columns is None else lambda _: self.max_length,
            max_batch=encoder.rows or max_batch,
            max_batch_tokens=max_batch_tokens,
            max_wait_s=max_wait_s,
            name="embeddings",
        )

    @property
    def pooling(self) -> Pooling:
        return self._encoder.pooling

    @property
    def load(self) -> tuple[int, int]:
        """How many inputs are being computed and how many wait."""
        return self.batcher.load

    @property
    def lost(self) -> str | None:
        """Why it computes nothing now, or None."""
        return self._encoder.lost

    @property
    def vocabulary(self) -> int:
        """One more than the largest token id."""
        return self._tokenizer.size

    def _try_out(self) -> int:
        """Compute one vector, so that the first request finds everything warm; return its size."""
        try:
            [row] = self._tokenizer.encode(["a"])
            [vector] = self._encoder.encode([row[: self.max_length] or (0,)])
        except LocalError:
            raise
        except Exception as refused:
            raise ModelUnavailable("the graph cannot compute a first vector") from refused
        try:
            self._encoder.encode([(self.vocabulary - 1,)])
        except Exception as refused:
            raise ModelUnavailable(
                f"the graph does not know the tokenizer's token {self.vocabulary - 1}; they belong "
                "to different models"
            ) from refused
        return int(vector.shape[-1])

    async def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the token ids of texts; many are tokenized beside the event loop."""
        if sum(map(len, texts)) <= _INLINE_CHARACTERS:
            return self._tokenizer.encode(texts)
        return await asyncio.to_thread(self._tokenizer.encode, texts)

    def check(self, rows: Sequence[Tokens], param: str) -> None:
        """Refuse rows this model cannot read. ``param`` names their place in the body.

        Raises:
            RequestRefused: 400 for one that is empty, too long, or of another vocabulary.
        """
        for place, row in enumerate(rows):
            where = f"{param}[{place}]" if len(rows) > 1 else param
            if not row:
                raise RequestRefused("invalid_value", "an input has no tokens to embed", where)
            if len(row) > self.max_length:
                raise RequestRefused(
                    "context_length_exceeded",
                    f"an input has {len(row)} tokens; this model takes {self.max_length}; "
                    "shorten it or embed its parts",
                    where,
                )
            if not 0 <= min(row) <= max(row) < self.vocabulary:
                raise RequestRefused(
                    "invalid_value",
                    f"this model's token ids are 0 to {self.vocabulary - 1}",
                    where,
                )

    async def embed(self, rows: Sequence[Tokens], *, dimensions: int | None = None) -> Array:
        """Return float32 (rows, dimensions); checked rows of token ids in.

        Vectors shortened to ``dimensions`` are brought to length 1 again, where the model's are.

        Raises:
            LocalError: busy, failed or closed.
        """
        vectors = np.stack(await self.batcher.map(rows))[:, :dimensions]
        return unit(vectors) if self.normalize else vectors

    def close(self) -> None:
        """End what waits and give the weights back; may be called twice."""
        self.batcher.close()
        self._on_close()


def open_embedding(
    folder: "VectorFolder",
    device: Device,
    *,
    pooling: str | None = None,
    normalize: bool | None = None,
    max_batch: int | None = None,
    max_batch_tokens: int | None = None,
    max_wait_s: float = 10.0,
    session_factory: SessionFactory = open_graph,
) -> EmbeddingModel:
    """Load the embedding model of ``folder`` on ``device`` and compute a first vector.

    What is None is as the folder says: ``normalize`` is then True where nothing says anything, and
    ``max_batch`` 1 on the CPU, 32 on a GPU.

    Raises:
        ModelUnavailable: with the reason.
    """
    if folder.tokenizer is None:
        raise ModelUnavailable("an embedding model needs a tokenizer.json")
    tokenizer = Tokenizer(folder.tokenizer)
    graph = folder.graphs.get("model") or folder.graphs.get("text")
    if graph is None:
        raise ModelUnavailable("the folder has no graph that takes text")
    session = session_factory(graph, device)
    try:
        encoder = TokenEncoder(session, pad=folder.pad, pooling=pooling or folder.pooling)
        return EmbeddingModel(
            folder.name,
            tokenizer,
            encoder,
            max_length=folder.max_length or _USUAL_LENGTH,
            normalize=next((v for v in (normalize, folder.normalize) if v is not None), True),
            max_batch=max_batch or batch_for(device),
            max_batch_tokens=max_batch_tokens or MAX_BATCH_TOKENS,
            max_wait_s=max_wait_s,
        )
    except BaseException:
        session.close()
        raise


def batch_for(device: Device) -> int:
    """The inputs computed together where nobody says how many."""
    return _CPU_BATCH if device.kind == "cpu" else _GPU_BATCH
