"""BERT as an ONNX graph of standard operators, from the weights of a checkpoint; and the same in numpy.

``write_tiny`` makes a folder of 30 kB with random weights; ``write_minilm`` one from a downloaded
all-MiniLM-L6-v2 (scripts/test_models.py).
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Weights = Mapping[str, Any]
EPSILON = 1e-12


class _Graph:
    """Nodes and initializers in the making; values are names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initial: dict[str, Any] = {}

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, name: str | None = None) -> str:
        name = name or f"constant_{len(self.initial)}"
        self.initial[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def linear(self, x: str, weights: Weights, name: str) -> str:
        weight = self.constant(np.ascontiguousarray(weights[f"{name}.weight"].T), f"{name}.weight")
        return self.op("Add", self.op("MatMul", x, weight), self.constant(weights[f"{name}.bias"]))

    def norm(self, x: str, weights: Weights, name: str) -> str:
        scale = self.constant(weights[f"{name}.weight"], f"{name}.weight")
        bias = self.constant(weights[f"{name}.bias"], f"{name}.bias")
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=EPSILON)


def layers(weights: Weights) -> int:
    return 1 + max(int(n.split(".")[2]) for n in weights if n.startswith("encoder.layer."))


def build_bert(
    weights: Weights,
    heads: int,
    *,
    pooled: bool = False,
    rows: int | str = "batch",
    columns: int | str = "sequence",
) -> Any:
    """Return the model: ``last_hidden_state`` of each token, or with ``pooled`` their masked mean
    of length 1 as ``sentence_embedding``. ``rows`` and ``columns`` as numbers are fixed sizes."""
    g = _Graph()
    size = weights["embeddings.word_embeddings.weight"].shape[1]
    width = size // heads
    words = g.constant(weights["embeddings.word_embeddings.weight"], "words")
    places = g.constant(weights["embeddings.position_embeddings.weight"], "places")
    kinds = g.constant(weights["embeddings.token_type_embeddings.weight"], "kinds")
    length = g.op("Gather", g.op("Shape", "input_ids"), g.constant(np.int64(1)), axis=0)
    positions = g.op("Range", g.constant(np.int64(0)), length, g.constant(np.int64(1)))
    x = g.op("Gather", words, "input_ids")
    x = g.op("Add", x, g.op("Gather", kinds, "token_type_ids"))
    x = g.op("Add", x, g.op("Gather", places, positions))
    x = g.norm(x, weights, "embeddings.LayerNorm")
    seen = g.op("Unsqueeze", "attention_mask", g.constant(np.array([1, 2])))
    closed = g.op("Equal", seen, g.constant(np.int64(0)))
    least = np.float32(np.finfo(np.float32).min)
    bias = g.op("Where", closed, g.constant(least), g.constant(np.float32(0)))
    split = g.constant(np.array([0, 0, heads, width]))
    merged = g.constant(np.array([0, 0, size]))
    scale = g.constant(np.float32(width**-0.5))
    for number in range(layers(weights)):
        at = f"encoder.layer.{number}"

        def head(part: str, x: str, order: list[int], at: str = at) -> str:
            found = g.linear(x, weights, f"{at}.attention.self.{part}")
            return g.op("Transpose", g.op("Reshape", found, split), perm=order)

        query, key = head("query", x, [0, 2, 1, 3]), head("key", x, [0, 2, 3, 1])
        scores = g.op("Add", g.op("Mul", g.op("MatMul", query, key), scale), bias)
        mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), head("value", x, [0, 2, 1, 3]))
        mixed = g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), merged)
        mixed = g.linear(mixed, weights, f"{at}.attention.output.dense")
        x = g.norm(g.op("Add", mixed, x), weights, f"{at}.attention.output.LayerNorm")
        wide = g.op("Gelu", g.linear(x, weights, f"{at}.intermediate.dense"))
        narrow = g.linear(wide, weights, f"{at}.output.dense")
        x = g.norm(g.op("Add", narrow, x), weights, f"{at}.output.LayerNorm")
    shape: list[int | str] = [rows, columns, size]
    name = "last_hidden_state"
    if pooled:
        mask = g.op("Unsqueeze", "attention_mask", g.constant(np.array([2])))
        mask = g.op("Cast", mask, to=TensorProto.FLOAT)
        one = g.constant(np.array([1]))
        total = g.op("ReduceSum", g.op("Mul", x, mask), one, keepdims=0)
        x = g.op("Div", total, g.op("ReduceSum", mask, one, keepdims=0))
        x = g.op("LpNormalization", x, axis=-1, p=2)
        name, shape = "sentence_embedding", [rows, size]
    g.nodes.append(helper.make_node("Identity", [x], [name]))
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64, [rows, columns])
        for n in ("input_ids", "attention_mask", "token_type_ids")
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
    graph = helper.make_graph(g.nodes, "bert", inputs, outputs, list(g.initial.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def bert_numpy(weights: Weights, heads: int, ids: Sequence[int]) -> Any:
    """Return (tokens, size): the last hidden states of one text, alone and without padding."""
    from math import erf

    w = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}

    def linear(x: Any, name: str) -> Any:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][list(ids)]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    tokens, size = x.shape
    for number in range(layers(weights)):
        at = f"encoder.layer.{number}"
        parts = [
            linear(x, f"{at}.attention.self.{part}").reshape(tokens, heads, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        ]
        scores = parts[0] @ parts[1].transpose(0, 2, 1) * (size // heads) ** -0.5
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ parts[2]
        mixed = linear(
            mixed.transpose(1, 0, 2).reshape(tokens, size), f"{at}.attention.output.dense"
        )
        x = norm(mixed + x, f"{at}.attention.output.LayerNorm")
        wide = linear(x, f"{at}.intermediate.dense")
        wide = wide * (1 + np.vectorize(erf)(wide / np.sqrt(2))) / 2
        x = norm(linear(wide, f"{at}.output.dense") + x, f"{at}.output.LayerNorm")
    return x


# --- folders -------------------------------------------------------------------------------------

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]
TINY_HEADS = 2
TINY_LENGTH = 24


def tiny_weights(seed: int = 3, size: int = 16, count: int = 2, places: int = 32) -> Weights:
    """Random weights of a BERT under its usual names, for the vocabulary ``WORDS``."""
    draw = np.random.RandomState(seed)
    found: dict[str, Any] = {}

    def put(name: str, *shape: int, spread: float = 0.3) -> None:
        found[name] = (draw.standard_normal(shape) * spread).astype(np.float32)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = (1 + draw.standard_normal(size) * 0.1).astype(np.float32)
        put(f"{name}.bias", size)

    def linear(name: str, wide: int, narrow: int) -> None:
        put(f"{name}.weight", wide, narrow)
        put(f"{name}.bias", wide)

    put("embeddings.word_embeddings.weight", len(WORDS), size, spread=1.0)
    put("embeddings.position_embeddings.weight", places, size)
    put("embeddings.token_type_embeddings.weight", 2, size)
    norm("embeddings.LayerNorm")
    for number in range(count):
        at = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            linear(f"{at}.attention.self.{part}", size, size)
        linear(f"{at}.attention.output.dense", size, size)
        norm(f"{at}.attention.output.LayerNorm")
        linear(f"{at}.intermediate.dense", 4 * size, size)
        linear(f"{at}.output.dense", size, 4 * size)
        norm(f"{at}.output.LayerNorm")
    return found


def tiny_tokenizer() -> Any:
    """A tokenizer of single letters, with the truncation and padding that published ones hold."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split("", "isolated")]
    )
    made.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_truncation(6)
    made.enable_padding(length=6, pad_token="[PAD]")
    return made


def write_tiny(
    folder: Path, *, pooling: str = "mean", normalize: bool = True, **shape: Any
) -> Path:
    """Write a model folder in the layout of sentence-transformers."""
    weights = tiny_weights()
    onnx.save(build_bert(weights, TINY_HEADS, **shape), folder / "model.onnx")
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": 16,
        "num_attention_heads": TINY_HEADS,
        "max_position_embeddings": 32,
        "pad_token_id": 0,
        "vocab_size": len(WORDS),
    }
    _write(folder / "config.json", config)
    _write_sentence(folder, TINY_LENGTH, 16, pooling, normalize)
    return folder


def _write_sentence(folder: Path, length: int, size: int, pooling: str, normalize: bool) -> None:
    prefix = "sentence_transformers.models."
    modules = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    rows = [
        {"idx": i, "name": str(i), "path": "" if not i else f"{i}_{kind}", "type": prefix + kind}
        for i, kind in enumerate(modules)
    ]
    _write(folder / "modules.json", rows)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    (folder / "1_Pooling").mkdir(exist_ok=True)
    chosen = {
        "word_embedding_dimension": size,
        "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_mean_tokens": pooling == "mean",
        "pooling_mode_lasttoken": pooling == "last",
    }
    _write(folder / "1_Pooling" / "config.json", chosen)


def _write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document))


def write_minilm(source: Path, folder: Path) -> Path:
    """Write a model folder from the unpacked checkpoint at ``source``."""
    from safetensors.numpy import load_file

    loaded = load_file(source / "model.safetensors")
    weights = {name.removeprefix("bert."): value for name, value in loaded.items()}
    onnx.save(build_bert(weights, 12), folder / "model.onnx")
    for name in ("config.json", "tokenizer.json", "modules.json", "sentence_bert_config.json"):
        shutil.copy(source / name, folder / name)
    shutil.copytree(source / "1_Pooling", folder / "1_Pooling", dirs_exist_ok=True)
    return folder
