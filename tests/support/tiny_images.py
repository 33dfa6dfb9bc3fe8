"""Image models made at test time: a hand-built classifier of coloured shapes, and a random CLIP."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

COLOURS = {"red": (220, 30, 30), "green": (30, 190, 40), "blue": (30, 50, 220)}
SHAPES = ("square", "cross")
LABELS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
#: What the model's preprocessor_config.json asks for.
SIDE, SHORTER = 32, 36
MEAN, STD = (0.4, 0.5, 0.45), (0.25, 0.2, 0.3)


# --- pictures with true answers ------------------------------------------------------------------


def draw(colour: str, shape: str, seed: int, size: tuple[int, int] = (96, 96)) -> Image.Image:
    """A shape of one colour, somewhere near the middle of a noisy grey page."""
    random = np.random.RandomState(seed)
    page = Image.fromarray(random.randint(95, 160, (size[1], size[0], 3)).astype(np.uint8))
    pen = ImageDraw.Draw(page)
    width, height = size
    half = int(min(size) * random.uniform(0.24, 0.30))
    x = width // 2 + random.randint(-4, 5)
    y = height // 2 + random.randint(-4, 5)
    fill = tuple(int(c + random.randint(-15, 16)) for c in COLOURS[colour])
    if shape == "square":
        pen.rectangle((x - half, y - half, x + half, y + half), fill=fill)
    else:
        arm = max(2, half // 3)
        pen.rectangle((x - half, y - arm, x + half, y + arm), fill=fill)
        pen.rectangle((x - arm, y - half, x + arm, y + half), fill=fill)
    return page


def examples(count: int, seed: int) -> Iterator[tuple[Image.Image, str]]:
    """Yield ``count`` pictures, every class in turn, with their true labels."""
    for number in range(count):
        label = LABELS[number % len(LABELS)]
        colour, shape = label.split()
        yield draw(colour, shape, seed * 100_003 + number), label


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def base64(image: Image.Image, form: str = "PNG") -> str:
    return b64encode(encoded(image, form)).decode()


# --- the classifier ------------------------------------------------------------------------------


def prepared(image: Image.Image) -> Any:
    """The picture as the model takes it, by the shortest way; (3, SIDE, SIDE)."""
    width, height = image.size
    short = min(image.size)
    size = (int(SHORTER * width / short), int(SHORTER * height / short))
    pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR), np.float32)
    top, left = (pixels.shape[0] - SIDE) // 2, (pixels.shape[1] - SIDE) // 2
    cut = pixels[top : top + SIDE, left : left + SIDE] / 255
    return ((cut - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)


def _hidden(batch: Any, filters: Any) -> Any:
    """The convolution (4 x 4, stride 4) and its ReLU, as rows."""
    count, _, side, _ = batch.shape
    cells = side // 4
    windows = batch.reshape(count, 3, cells, 4, cells, 4).transpose(0, 2, 4, 1, 3, 5)
    made = np.maximum(windows.reshape(count, cells, cells, 48) @ filters.reshape(-1, 48).T, 0)
    return made.transpose(0, 3, 1, 2).reshape(count, -1)


@cache
def train(count: int = 300) -> tuple[Any, Any]:
    """Return (filters, weights) of a small CNN: fixed filters of colours, and a last layer that is
    fitted by least squares to ``count`` pictures."""
    random = np.random.RandomState(11)
    filters = random.standard_normal((12, 3, 1, 1)) * np.ones((1, 1, 4, 4)) / 16
    batch, wanted = [], []
    for image, label in examples(count, seed=1):
        batch.append(prepared(image))
        wanted.append(LABELS.index(label))
    hidden = _hidden(np.stack(batch), filters)
    hidden = np.concatenate([hidden, np.ones((count, 1))], axis=1)
    targets = 8.0 * np.eye(len(LABELS))[wanted]
    ridge = hidden.T @ hidden + np.eye(hidden.shape[1])
    weights = np.linalg.solve(ridge, hidden.T @ targets)
    return filters.astype(np.float32), weights.astype(np.float32)


def write_classifier(folder: Path, *, batch: int | str = "batch", shares: bool = False) -> Path:
    """Write the folder of the trained classifier; with ``shares`` the graph ends in a softmax."""
    filters, weights = train()
    initial = {
        "filters": filters,
        "weights": np.ascontiguousarray(weights[:-1]),
        "bias": weights[-1],
    }
    nodes = [
        helper.make_node("Conv", ["pixel_values", "filters"], ["c"], strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "weights", "bias"], ["g"]),
        helper.make_node("Softmax" if shares else "Identity", ["g"], ["logits"]),
    ]
    _save(
        folder / "model.onnx",
        nodes,
        initial,
        {"pixel_values": (TensorProto.FLOAT, [batch, 3, SIDE, SIDE])},
        {"logits": [batch, len(LABELS)]},
    )
    _json(
        folder / "config.json",
        {
            "architectures": ["TinyForImageClassification"],
            "id2label": {str(number): label for number, label in enumerate(LABELS)},
        },
    )
    _json(folder / "preprocessor_config.json", preprocessor())
    return folder


def preprocessor() -> dict[str, Any]:
    return {
        "do_resize": True,
        "size": {"shortest_edge": SHORTER},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }


def _save(
    path: Path,
    nodes: list[Any],
    initial: Mapping[str, Any],
    inputs: Mapping[str, tuple[int, list[int | str]]],
    outputs: Mapping[str, list[int | str]],
) -> None:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in initial.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document))


# --- CLIP ----------------------------------------------------------------------------------------

CLIP_SIZE, CLIP_SCALE = 12, 21.0
CLIP_SHAPE = {"size": {"height": 16, "width": 16}, "resample": 3, "do_center_crop": False}
_EXTRA = {
    "do_resize": True, "do_rescale": True, "do_normalize": True,
    "image_mean": [0.48, 0.45, 0.4], "image_std": [0.26, 0.26, 0.27],
}  # fmt: skip


def clip_weights() -> dict[str, Any]:
    random = np.random.RandomState(5)
    return {
        "words": random.standard_normal((30, CLIP_SIZE)).astype(np.float32),
        "text_projection": random.standard_normal((CLIP_SIZE, CLIP_SIZE)).astype(np.float32),
        "image_projection": (random.standard_normal((3 * 256, CLIP_SIZE)) / 8).astype(np.float32),
        "one": np.array([1]),
        "two": np.array([2]),
        "scale": np.float32(CLIP_SCALE),
    }


def _text_nodes() -> list[Any]:
    """A tower that means the words it sees, without the padding, and projects."""
    node = helper.make_node
    return [
        node("Gather", ["words", "input_ids"], ["t1"]),
        node("Unsqueeze", ["attention_mask", "two"], ["t2"]),
        node("Cast", ["t2"], ["t3"], to=TensorProto.FLOAT),
        node("Mul", ["t1", "t3"], ["t4"]),
        node("ReduceSum", ["t4", "one"], ["t5"], keepdims=0),
        node("ReduceSum", ["t3", "one"], ["t6"], keepdims=0),
        node("Div", ["t5", "t6"], ["t7"]),
        node("Tanh", ["t7"], ["t8"]),
        node("MatMul", ["t8", "text_projection"], ["text_raw"]),
    ]


def _image_nodes() -> list[Any]:
    node = helper.make_node
    return [
        node("Flatten", ["pixel_values"], ["i1"]),
        node("Tanh", ["i1"], ["i2"]),
        node("MatMul", ["i2", "image_projection"], ["image_raw"]),
    ]


_TEXT_INPUTS: dict[str, tuple[int, list[int | str]]] = {
    "input_ids": (TensorProto.INT64, ["texts", "sequence"]),
    "attention_mask": (TensorProto.INT64, ["texts", "sequence"]),
}
_IMAGE_INPUTS: dict[str, tuple[int, list[int | str]]] = {
    "pixel_values": (TensorProto.FLOAT, ["images", 3, 16, 16])
}


def write_clip(folder: Path, *, towers: bool) -> Path:
    """Write a CLIP folder with random weights: two graphs (``towers``), or everything in one."""
    from bert_graph import tiny_tokenizer

    weights = clip_weights()
    node = helper.make_node
    if towers:
        text = [*_text_nodes(), node("Identity", ["text_raw"], ["text_embeds"])]
        image = [*_image_nodes(), node("Identity", ["image_raw"], ["image_embeds"])]
        _save(
            folder / "text_model.onnx",
            text,
            {name: weights[name] for name in ("words", "text_projection", "one", "two")},
            _TEXT_INPUTS,
            {"text_embeds": ["texts", CLIP_SIZE]},
        )
        _save(
            folder / "vision_model.onnx",
            image,
            {"image_projection": weights["image_projection"]},
            _IMAGE_INPUTS,
            {"image_embeds": ["images", CLIP_SIZE]},
        )
    else:
        nodes = [
            *_text_nodes(),
            *_image_nodes(),
            node("LpNormalization", ["text_raw"], ["text_embeds"], axis=-1, p=2),
            node("LpNormalization", ["image_raw"], ["image_embeds"], axis=-1, p=2),
            node("Transpose", ["text_embeds"], ["turned"], perm=[1, 0]),
            node("MatMul", ["image_embeds", "turned"], ["cosines"]),
            node("Mul", ["cosines", "scale"], ["logits_per_image"]),
        ]
        _save(
            folder / "model.onnx",
            nodes,
            weights,
            {**_TEXT_INPUTS, **_IMAGE_INPUTS},
            {
                "logits_per_image": ["images", "texts"],
                "text_embeds": ["texts", CLIP_SIZE],
                "image_embeds": ["images", CLIP_SIZE],
            },
        )
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"model_type": "clip", "projection_dim": CLIP_SIZE, "pad_token_id": 0}
    config["text_config"] = {"max_position_embeddings": 20}
    config["logit_scale"] = CLIP_SCALE
    _json(folder / "config.json", config)
    _json(folder / "preprocessor_config.json", {**_EXTRA, **CLIP_SHAPE})
    return folder


def clip_numpy(image: Image.Image, rows: list[tuple[int, ...]]) -> Any:
    """Return the softmax over rows of token ids for one picture."""
    w = clip_weights()
    pixels = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC), np.float64)
    pixels = (pixels / 255 - _EXTRA["image_mean"]) / _EXTRA["image_std"]
    seen = np.tanh(pixels.transpose(2, 0, 1).reshape(-1)) @ w["image_projection"]
    read = [np.tanh(w["words"][list(row)].mean(0)) @ w["text_projection"] for row in rows]
    texts = np.stack([vector / np.linalg.norm(vector) for vector in read])
    scores = CLIP_SCALE * texts @ (seen / np.linalg.norm(seen))
    grown = np.exp(scores - scores.max())
    return grown / grown.sum()
