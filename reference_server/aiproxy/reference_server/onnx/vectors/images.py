"""Local image models: classifiers with classes of their own, and CLIP, which takes any labels."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import (
    EngineClosed,
    LocalBusy,
    LocalError,
    ModelUnavailable,
    RequestRefused,
)
from aiproxy.reference_server.onnx.folders.files import read_json_if_any
from aiproxy.reference_server.onnx.folders.graphs import Value
from aiproxy.reference_server.onnx.vectors.batching import Batcher
from aiproxy.reference_server.onnx.vectors.embedding import (
    EmbeddingModel,
    TokenEncoder,
    Tokenizer,
    Tokens,
    batch_for,
    unit,
)
from aiproxy.reference_server.onnx.vectors.pictures import (
    Recipe,
    check_pillow,
    prepare,
    read_recipe,
)
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

#: One image and its number of labels, best first: (label, score 0..1).
Ranking = list[tuple[str, float]]

_TOP: Final = 5
#: Images decoded at once, each in up to 750 MB, and those that wait for it.
_DECODERS: Final = 2
_MOST_DECODING: Final = 64
_CLIP_LENGTH: Final = 77
#: What a trained CLIP multiplies cosines with, where its graphs do not tell.
_CLIP_SCALE: Final = 100.0
_KEPT_LABELS: Final = 4096
_IMAGE_OUTPUTS: Final = ("image_embeds", "image_embeddings", "pooler_output")
_TEXT_OUTPUTS: Final = ("text_embeds", "text_embeddings", "pooler_output")


class ImageEncoder:
    """A graph that takes images: prepared ones in, one row of numbers each out."""

    def __init__(
        self,
        session: Session,
        recipe: Recipe,
        *,
        output: str | None = None,
        beside: Mapping[str, Array] | None = None,
    ) -> None:
        self._session = session
        self._beside = dict(beside or {})
        self._input = _image_input(session.inputs, self._beside)
        self.output = output or _scores_of(session.outputs)
        self.rows = fixed(self._input, 0)
        #: whether colours are the last axis, as TensorFlow's exports have it
        self._last = fixed(self._input, 3) == 3 and fixed(self._input, 1) != 3
        height, width = (1, 2) if self._last else (2, 3)
        size = (fixed(self._input, height), fixed(self._input, width))
        self.size = _agreed_size(size, recipe)

    @property
    def lost(self) -> str | None:
        return self._session.lost

    def encode(self, images: Sequence[Array]) -> list[Array]:
        """Return a float32 row for each (3, height, width) image.

        Raises:
            ComputationFailed: a row holds something that is no number.
        """
        found: list[Array | None] = [None] * len(images)
        shapes: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(images):
            shapes.setdefault(image.shape, []).append(place)
        for places in shapes.values():
            rows = self._run([images[place] for place in places])
            for place, row in zip(places, rows, strict=True):
                found[place] = row
        return [row for row in found if row is not None]

    def _run(self, images: Sequence[Array]) -> Array:
        missing = (self.rows or len(images)) - len(images)
        batch = np.stack([*images, *([images[-1]] * max(0, missing))])
        if self._last:
            batch = batch.transpose(0, 2, 3, 1)
        feeds = {self._input.name: np.ascontiguousarray(as_element(batch, self._input))}
        made = self._session.run({**feeds, **self._beside}, [self.output])[self.output]
        rows = np.asarray(made, dtype=np.float32)
        if rows.ndim < 2 or rows.shape[0] != len(batch):
            raise ModelUnavailable(f"the graph's output {self.output} has no row for each image")
        rows = rows.reshape(len(batch), -1)[: len(images)]
        if not np.isfinite(rows).all():
            raise ComputationFailed
        return rows

    def sample(self) -> Array:
        """A prepared image of the right size, for a trial run."""
        return _ramp(*(self.size or (64, 64)))

    def close(self) -> None:
        self._session.close()


def _ramp(height: int, width: int) -> Array:
    """A picture that is not the same everywhere: nothing in a graph is zero then."""
    ramp = np.linspace(-1, 1, 3 * height * width, dtype=np.float32)
    return ramp.reshape(3, height, width)


def _image_input(inputs: Mapping[str, Value], beside: Mapping[str, Array]) -> Value:
    left = [value for name, value in inputs.items() if name not in beside]
    if len(left) != 1:
        names = ", ".join(sorted(value.name for value in left)) or "nothing"
        raise ModelUnavailable(f"an image model takes one input; this graph takes {names}")
    if left[0].shape is not None and len(left[0].shape) != 4:
        raise ModelUnavailable(f"the graph's input {left[0].name} is no batch of images")
    return left[0]


def _scores_of(outputs: Mapping[str, Value]) -> str:
    return "logits" if "logits" in outputs else next(iter(outputs))


def _agreed_size(size: tuple[int | None, int | None], recipe: Recipe) -> tuple[int, int] | None:
    """Return the size every image is prepared to, None where it differs from image to image."""
    made = recipe.result
    for place, wanted in enumerate(size):
        if wanted is not None and (made is None or made[place] != wanted):
            found = "of any size" if made is None else f"of {made[0]} x {made[1]}"
            raise ModelUnavailable(
                f"preprocessor_config.json makes images {found}; the graph takes "
                f"{' x '.join(str(s or 'any') for s in size)}"
            )
    return made


class _Images:
    """Encoded images to rows: decoding on threads of its own, computing in batches. Computing an
    image begins within ``max_wait_s`` or not at all."""

    def __init__(
        self, encoder: ImageEncoder, recipe: Recipe, *, max_batch: int, max_wait_s: float, name: str
    ) -> None:
        self.encoder = encoder
        self._recipe = recipe
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix=name)
        self._decoding = 0
        self._max_wait_s = max_wait_s
        self._closed = False
        self._lock = threading.Lock()
        self.batcher: Batcher[Array, Array] = Batcher(
            encoder.encode,
            lambda image: int(image.shape[1] * image.shape[2]),
            max_batch=encoder.rows or max_batch,
            max_batch_tokens=1 << 62,  # images of one size: their number is bound enough
            max_wait_s=max_wait_s,
            name=name,
        )

    @property
    def load(self) -> tuple[int, int]:
        running, waiting = self.batcher.load
        return running, waiting + self._decoding

    async def row(self, data: bytes) -> Array:
        """Return the row of one encoded image.

        Raises:
            RequestRefused: 400 for one that cannot be read.
            LocalError: busy, failed or closed.
        """
        loop = asyncio.get_running_loop()
        late = loop.time() + self._max_wait_s
        with self._lock:
            if self._decoding >= _MOST_DECODING:
                raise LocalBusy(_DECODERS, self._decoding)
            self._decoding += 1
        try:
            try:
                decoding = self._decoders.submit(self._decode, data)
            except RuntimeError as shut:
                raise EngineClosed from shut
            async with asyncio.timeout_at(late):
                image = await asyncio.wrap_future(decoding)
        except TimeoutError:
            raise LocalBusy(_DECODERS, self._decoding) from None
        finally:
            with self._lock:
                self._decoding -= 1
        [row] = await self.batcher.map([image], max_wait_s=late - loop.time())
        return row

    def _decode(self, data: bytes) -> Array:
        if self._closed:
            raise EngineClosed
        return prepare(data, self._recipe)

    def close(self) -> None:
        # What waits is not cancelled: its callers would take that for a cancellation of their own.
        self._closed = True
        self._decoders.shutdown(wait=False)
        self.batcher.close()
        self.encoder.close()


class Classifier:
    """An image model with a fixed list of classes."""

    capabilities: Final = ("image-classification",)

    def __init__(self, name: str, images: _Images, labels: Sequence[str]) -> None:
        self.name = name
        self._images = images
        first = _tried(images.encoder)
        count = len(first)
        if labels and len(labels) != count:
            raise ModelUnavailable(
                f"there are {len(labels)} labels for the {count} classes of the graph"
            )
        self.labels = tuple(labels) or tuple(f"LABEL_{number}" for number in range(count))
        # Scores that are shares already stay; a softmax of them would be nearly the same for all.
        self._shares = bool(count > 1 and (first >= 0).all() and abs(first.sum() - 1) < 1e-3)

    @property
    def load(self) -> tuple[int, int]:
        """How many images are being computed and how many wait."""
        return self._images.load

    @property
    def lost(self) -> str | None:
        """Why it computes nothing now, or None."""
        return self._images.encoder.lost

    async def classify(
        self, data: bytes, labels: Sequence[str] | None, top_k: int | None
    ) -> Ranking:
        """Return the best classes of an encoded image, 5 unless ``top_k`` says otherwise.

        Raises:
            RequestRefused: 400 for an image that cannot be read, or labels, which this model has.
            LocalError: busy, failed or closed.
        """
        if labels is not None:
            raise RequestRefused(
                "unsupported_parameter",
                "this model has its own labels; leave labels out, or ask a CLIP model",
                "input.labels",
            )
        row = await self._images.row(data)
        shares = row if self._shares else softmax(row)
        return ranked(self.labels, shares, _TOP if top_k is None else top_k)

    def close(self) -> None:
        """End what waits and give the weights back; may be called twice."""
        self._images.close()


class ClipModel:
    """A model that lays texts and images in one space; also an embedding model of its texts.

    ``labels`` are those of requests that name none. A label is compared as it stands: "a photo of a
    cat" usually does better than "cat". The vectors of labels are kept.
    """

    capabilities: Final = ("embeddings", "image-classification")

    def __init__(
        self, name: str, text: EmbeddingModel, images: _Images, labels: Sequence[str], scale: float
    ) -> None:
        self.name = name
        self.text = text
        self.labels = tuple(labels)
        self._images = images
        self._scale = scale
        size = len(_tried(images.encoder))
        if size != text.dimensions:
            raise ModelUnavailable(
                f"its images become {size} numbers and its texts {text.dimensions}"
            )
        self._kept: OrderedDict[str, Array] = OrderedDict()
        self._lock = threading.Lock()

    # As an embedding model.

    @property
    def dimensions(self) -> int:
        return self.text.dimensions

    async def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        return await self.text.tokens(texts)

    def check(self, rows: Sequence[Tokens], param: str) -> None:
        self.text.check(rows, param)

    async def embed(self, rows: Sequence[Tokens], *, dimensions: int | None = None) -> Array:
        return await self.text.embed(rows, dimensions=dimensions)

    # As a classifier.

    @property
    def load(self) -> tuple[int, int]:
        """How many inputs are being computed and how many wait."""
        pairs = zip(self._images.load, self.text.batcher.load, strict=True)
        running, waiting = map(sum, pairs)
        return running, waiting

    @property
    def lost(self) -> str | None:
        """Why it computes nothing now, or None."""
        return self.text.lost or self._images.encoder.lost

    async def classify(
        self, data: bytes, labels: Sequence[str] | None, top_k: int | None
    ) -> Ranking:
        """Return the labels by how well they fit an encoded image; all of them without ``top_k``.

        Raises:
            RequestRefused: 400 for an image that cannot be read, labels too long, or none at all.
            LocalError: busy, failed or closed.
        """
        given = self.labels if labels is None else tuple(dict.fromkeys(labels))
        if not given:
            raise RequestRefused(
                "missing_required_parameter",
                "this model chooses among labels: send them, or set the model's labels",
                "input.labels",
            )
        texts = await self._label_vectors(given)
        image = unit((await self._images.row(data))[None])[0]
        return ranked(given, softmax(self._scale * (texts @ image)), top_k or len(given))

    async def _label_vectors(self, labels: Sequence[str]) -> Array:
        with self._lock:
            found = {label: self._kept[label] for label in labels if label in self._kept}
        missing = [label for label in labels if label not in found]
        if missing:
            rows = await self.text.tokens(missing)
            self.text.check(rows, "input.labels")
            vectors = unit(await self.text.embed(rows))
            found.update(zip(missing, vectors, strict=True))
        with self._lock:
            for label in labels:
                self._kept[label] = found[label]
                self._kept.move_to_end(label)
            while len(self._kept) > _KEPT_LABELS:
                self._kept.popitem(last=False)
        return np.stack([found[label] for label in labels])

    def close(self) -> None:
        """End what waits and give the weights back; may be called twice."""
        self.text.close()
        self._images.close()


def softmax(scores: Array) -> Array:
    """Return shares that sum to 1."""
    grown = np.exp(scores.astype(np.float64) - scores.max())
    return np.asarray(grown / grown.sum())


def ranked(labels: Sequence[str], shares: Array, most: int) -> Ranking:
    """Return the ``most`` best labels, best first; equals in the order of the labels."""
    order = np.argsort(-shares, kind="stable")[:most]
    return [(labels[int(place)], float(shares[place])) for place in order]


def _tried(encoder: ImageEncoder) -> Array:
    """Return the row of a first image, so that the first request finds everything warm."""
    try:
        return encoder.encode([encoder.sample()])[0]
    except LocalError:
        raise
    except Exception as refused:
        raise ModelUnavailable("the graph cannot compute a first image") from refused


# --- opening -------------------------------------------------------------------------------------


def open_image(
    folder: "VectorFolder",
    device: Device,
    *,
    labels: Sequence[str] = (),
    max_batch: int | None = None,
    max_wait_s: float = 10.0,
    session_factory: SessionFactory = open_graph,
) -> Classifier | ClipModel:
    """Load the image model of ``folder`` on ``device`` and compute a first image.

    ``labels`` stand before the folder's. ``max_batch`` None is 4 on the CPU and 32 on a GPU.

    Raises:
        ModelUnavailable: with the reason.
    """
    check_pillow()
    if folder.preprocessor is None:
        raise ModelUnavailable(
            "preprocessor_config.json is missing, which says how images are brought into shape"
        )
    recipe = read_recipe(folder.preprocessor)
    names = tuple(labels) or folder.labels
    sessions: list[Session] = []

    def opened(role: str) -> Session:
        sessions.append(session_factory(folder.graphs[role], device))
        return sessions[-1]

    def images(encoder: ImageEncoder) -> _Images:
        most = max_batch or batch_for(device)
        return _Images(encoder, recipe, max_batch=most, max_wait_s=max_wait_s, name="images")

    try:
        if folder.kind != "clip":
            return Classifier(folder.name, images(ImageEncoder(opened("model"), recipe)), names)
        most = max_batch or batch_for(device)
        texts: dict[str, Any] = {"max_batch": most, "max_wait_s": max_wait_s}
        if "text" in folder.graphs:
            return _two_graphs(
                folder, opened("text"), opened("image"), recipe, images, names, texts
            )
        return _one_graph(folder, opened("model"), recipe, images, names, texts)
    except BaseException:
        for session in sessions:
            session.close()
        raise


def _two_graphs(
    folder: "VectorFolder",
    text: Session,
    image: Session,
    recipe: Recipe,
    images: Any,
    labels: Sequence[str],
    options: Mapping[str, Any],
) -> ClipModel:
    words = _first(text.outputs, _TEXT_OUTPUTS)
    encoder = TokenEncoder(text, pad=folder.pad, pooling="none", outputs=(words,))
    picture = ImageEncoder(image, recipe, output=_first(image.outputs, _IMAGE_OUTPUTS))
    config = read_json_if_any(folder.root / "config.json")
    if str(config.get("model_type")).startswith("siglip"):
        raise ModelUnavailable("SigLIP and its relatives are not served; use a CLIP")
    said = config.get("logit_scale")
    scale = float(said) if isinstance(said, int | float) and said > 0 else _CLIP_SCALE
    model = _text_model(folder, encoder, options)
    return ClipModel(folder.name, model, images(picture), labels, scale)


def _first(outputs: Mapping[str, Value], preferred: Sequence[str]) -> str:
    return next((name for name in preferred if name in outputs), next(iter(outputs)))


def _text_model(
    folder: "VectorFolder", encoder: TokenEncoder, options: Mapping[str, Any]
) -> EmbeddingModel:
    if folder.tokenizer is None:
        raise ModelUnavailable("a CLIP model needs a tokenizer.json")
    return EmbeddingModel(
        folder.name,
        Tokenizer(folder.tokenizer),
        encoder,
        max_length=folder.max_length or _CLIP_LENGTH,
        normalize=True,
        **options,
    )


def _one_graph(
    folder: "VectorFolder",
    session: Session,
    recipe: Recipe,
    images: Any,
    labels: Sequence[str],
    options: Mapping[str, Any],
) -> ClipModel:
    """Both halves in one graph: each is run with one small input for the other, and the factor
    between cosines and scores is read off a first pair."""
    missing = [
        n for n in ("logits_per_image", "text_embeds", "image_embeds") if n not in session.outputs
    ]
    if missing:
        raise ModelUnavailable(f"a CLIP graph gives {missing[0]}; this one does not")
    shared = _Shared(session)
    pixels = session.inputs["pixel_values"]
    height, width = _agreed_size((fixed(pixels, 2), fixed(pixels, 3)), recipe) or (64, 64)
    blank = as_element(np.stack([_ramp(height, width)] * (fixed(pixels, 0) or 1)), pixels)
    encoder = TokenEncoder(
        shared,
        pad=folder.pad,
        pooling="none",
        beside={"pixel_values": blank},
        outputs=("text_embeds",),
    )
    model = _text_model(folder, encoder, options)
    word = encoder.feeds([(0,)])
    picture = ImageEncoder(
        shared,
        recipe,
        output="image_embeds",
        beside={name: value for name, value in word.items() if name != "pixel_values"},
    )
    return ClipModel(folder.name, model, images(picture), labels, _scale_of(session, encoder))


def _scale_of(session: Session, encoder: TokenEncoder) -> float:
    """Return the factor between the cosines and the scores of a graph, read off two pairs."""
    names = ("logits_per_image", "text_embeds", "image_embeds")
    cosines, scores = [], []
    for token in (0, 1):
        made = session.run(encoder.feeds([(token,)]), names)
        logits, text, image = (np.asarray(made[name], dtype=np.float64) for name in names)
        cosines.append(float(unit(image)[0] @ unit(text)[0]))
        scores.append(float(logits.reshape(-1)[0]))
    scale = float(np.dot(scores, cosines) / max(np.dot(cosines, cosines), 1e-12))
    if scale <= 0 or not np.allclose(scores, np.multiply(scale, cosines), rtol=0.02, atol=0.02):
        raise ModelUnavailable(
            "its scores are not its cosines times a factor, as those of a CLIP are; SigLIP and its "
            "relatives are not served"
        )
    return scale


class _Shared:
    """A session two batchers run: one at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self.inputs, self.outputs = session.inputs, session.outputs

    @property
    def lost(self) -> str | None:
        return self._session.lost

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> Mapping[str, Array]:
        with self._lock:
            return self._session.run(feeds, outputs)

    def close(self) -> None:
        self._session.close()
