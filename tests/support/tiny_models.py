"""Small Llamas made in a fraction of a second: random weights, true graphs, a real tokenizer.

One set of weights, three graphs of it, so that every way to run a text model can be held to the same
expected tokens (``tests/onnx/oracle.json``, written by ``scripts/local_oracle.py``):

* plain, ``cache="gqa"``: one GroupQueryAttention a layer, as onnxruntime-genai's model builder writes
  (past and present may be the same buffer, rows padded on the right);
* plain, ``cache="concat"``: standard operators only, ``position_ids`` and an attention mask over past
  and new tokens, as exports from transformers have it (rows padded on the left);
* ``paged``: standard operators over a cache in blocks, with the inputs that onnxruntime-genai's engine
  gives a continuously batched model. It runs on the CPU; copies make it slow with long contexts.

Weights come from ``numpy.random.RandomState``, whose stream numpy keeps for ever.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache as remembered
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Cache: TypeAlias = Literal["gqa", "concat"]
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# In the order of their ids, which follow the 1012 ordinary tokens.
SPECIAL: Final = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|pad|>",
    "<|python_tag|>",
    "<|eom_id|>",
    "<tool_call>",
    "</tool_call>",
    "<|reserved_0|>",
    "<|reserved_1|>",
)
VOCABULARY: Final = 1024
BEGIN, END_OF_TEXT, END_OF_TURN = 1012, 1013, 1014
PAD: Final = 1017
CONTEXT: Final = 256
# Larger than the usual 0.02: greedy paths of so small a model would otherwise repeat one token.
WEIGHT_SCALE: Final = 0.2
HIDDEN_BY_MASK: Final = -1e9

CHAT_TEMPLATE: Final = """\
{{- bos_token -}}
{%- if tools -%}
<|start_header_id|>system<|end_header_id|>

You may call these functions:
{% for tool in tools %}{{ tool | tojson }}
{% endfor -%}
<|eot_id|>
{%- endif -%}
{%- for message in messages -%}
<|start_header_id|>{{ message.role }}<|end_header_id|>

{% if message.content %}{{ message.content | trim }}{% endif -%}
{%- for call in message.tool_calls or [] -%}
<tool_call>{{ {"name": call.function.name, "arguments": call.function.arguments} | tojson }}</tool_call>
{%- endfor -%}
<|eot_id|>
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start_header_id|>assistant<|end_header_id|>

{% endif -%}
"""


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama. The default has 230 000 parameters; hidden 512, inner 1408 and 8 layers with
    8 heads, 4 of keys and values, about 24 million."""

    hidden: int = 64
    inner: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    context: int = CONTEXT
    rope_base: float = 10000.0
    eps: float = 1e-5

    @property
    def head(self) -> int:
        return self.hidden // self.heads


TINY: Final = Shape()


def weights(shape: Shape = TINY, seed: int = 7) -> dict[str, Array]:
    """Return float32 weights by the names transformers' LlamaForCausalLM has for them, matrices as
    ``[out, in]``."""
    source = np.random.RandomState(seed)

    def drawn(*size: int) -> Array:
        scale = WEIGHT_SCALE * (TINY.hidden / shape.hidden) ** 0.5
        return (source.standard_normal(size) * scale).astype(np.float32)

    ones = np.ones(shape.hidden, np.float32)
    made = {"model.embed_tokens.weight": drawn(VOCABULARY, shape.hidden)}
    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        made[at + "input_layernorm.weight"] = ones
        made[at + "self_attn.q_proj.weight"] = drawn(shape.hidden, shape.hidden)
        made[at + "self_attn.k_proj.weight"] = drawn(shape.kv_heads * shape.head, shape.hidden)
        made[at + "self_attn.v_proj.weight"] = drawn(shape.kv_heads * shape.head, shape.hidden)
        made[at + "self_attn.o_proj.weight"] = drawn(shape.hidden, shape.hidden)
        made[at + "post_attention_layernorm.weight"] = ones
        made[at + "mlp.gate_proj.weight"] = drawn(shape.inner, shape.hidden)
        made[at + "mlp.up_proj.weight"] = drawn(shape.inner, shape.hidden)
        made[at + "mlp.down_proj.weight"] = drawn(shape.hidden, shape.inner)
    made["model.norm.weight"] = ones
    made["lm_head.weight"] = drawn(VOCABULARY, shape.hidden)
    return made


def weights_digest(shape: Shape = TINY, seed: int = 7) -> str:
    """Return the SHA-256 of all weights in order: what a stored expectation belongs to."""
    digest = hashlib.sha256()
    for name, value in weights(shape, seed).items():
        digest.update(name.encode() + value.tobytes())
    return digest.hexdigest()


def make_tiny_llama(
    folder: Path,
    *,
    paged: bool,
    seed: int = 7,
    blocks: int = 64,
    block_tokens: int = 16,
    max_batch: int = 32,
    cache: Cache = "gqa",
    shape: Shape = TINY,
) -> Path:
    """Write a model folder into ``folder`` and return it.

    ``blocks``, ``block_tokens`` and ``max_batch`` are for ``paged``, which ``cache`` says nothing of.
    Paged and GQA folders have a ``genai_config.json``; a concat folder has none, as an export from
    transformers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(shape, weights(shape, seed))
    graph = writer.paged(block_tokens) if paged else writer.plain(cache)
    (folder / "model.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    files: dict[str, object] = {
        "config.json": llama_config(shape),
        "generation_config.json": {
            "bos_token_id": BEGIN,
            "eos_token_id": [END_OF_TEXT, END_OF_TURN],
            "pad_token_id": PAD,
            "do_sample": False,
        },
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIAL[0],
            "eos_token": SPECIAL[2],
            "pad_token": SPECIAL[5],
            "model_max_length": shape.context,
            "clean_up_tokenization_spaces": False,
        },
    }
    if paged or cache == "gqa":
        batching = None
        if paged:
            batching = {
                "block_size": block_tokens,
                "num_blocks": blocks,
                "max_batch_size": max_batch,
            }
        files["genai_config.json"] = genai_config(shape, batching)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


_KEPT: Final[list[tempfile.TemporaryDirectory[str]]] = []


@remembered
def tiny_llama(
    *,
    paged: bool,
    cache: Cache = "gqa",
    blocks: int = 64,
    block_tokens: int = 16,
    max_batch: int = 32,
    seed: int = 7,
) -> Path:
    """Return a model folder that is made once a process and removed at its end; leave it as it is."""
    kept = tempfile.TemporaryDirectory(prefix="tiny-llama-")
    _KEPT.append(kept)
    return make_tiny_llama(
        Path(kept.name) / "model",
        paged=paged,
        cache=cache,
        blocks=blocks,
        block_tokens=block_tokens,
        max_batch=max_batch,
        seed=seed,
    )


def llama_config(shape: Shape) -> dict[str, object]:
    """Return config.json as transformers' LlamaConfig reads it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.rope_base,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": BEGIN,
        "eos_token_id": [END_OF_TEXT, END_OF_TURN],
        "pad_token_id": PAD,
    }


def genai_config(shape: Shape, batching: Mapping[str, int] | None) -> dict[str, object]:
    """Return genai_config.json; with ``batching`` (block size, blocks, batch) of a paged graph."""
    inputs = {
        "input_ids": "input_ids",
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    }
    if batching is None:
        inputs["attention_mask"] = "attention_mask"
    else:
        names = (
            "block_table",
            "cumulative_sequence_lengths",
            "past_sequence_lengths",
            "attention_metadata",
        )
        inputs |= {name: name for name in names}
    config: dict[str, object] = {
        "model": {
            "type": "llama",
            "bos_token_id": BEGIN,
            "eos_token_id": [END_OF_TEXT, END_OF_TURN],
            "pad_token_id": PAD,
            "vocab_size": VOCABULARY,
            "context_length": shape.context,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": "model.onnx",
                "head_size": shape.head,
                "hidden_size": shape.hidden,
                "num_attention_heads": shape.heads,
                "num_hidden_layers": shape.layers,
                "num_key_value_heads": shape.kv_heads,
                "inputs": inputs,
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": shape.context,
            "min_length": 0,
            "past_present_share_buffer": True,
            "repetition_penalty": 1.0,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
        },
    }
    if batching is not None:
        config["engine"] = {"dynamic_batching": dict(batching)}
    return config


@remembered
def tokenizer_json() -> dict[str, Any]:
    """Return tokenizer.json: byte-level BPE of 256 bytes, stored merges and special tokens."""
    listed = Path(__file__).with_name("tiny_merges.txt").read_text(encoding="utf-8")
    merges = [line.split(" ") for line in listed.splitlines()]
    ordinary = [*sorted(_byte_letters()), *(left + right for left, right in merges)]
    marks = {mark: len(ordinary) + index for index, mark in enumerate(SPECIAL)}
    bos = {"SpecialToken": {"id": SPECIAL[0], "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": mark,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for mark, number in marks.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, first],
            "pair": [bos, first, second],
            "special_tokens": {
                SPECIAL[0]: {"id": SPECIAL[0], "ids": [BEGIN], "tokens": [SPECIAL[0]]}
            },
        },
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(ordinary)},
            "merges": merges,
        },
    }


def _byte_letters() -> list[str]:
    """Return the printable letter byte-level BPE writes for each of the 256 bytes: a byte that
    prints is itself, the others are counted up from 256."""
    prints = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in prints)
    return [*map(chr, prints), *(chr(256 + index) for index, _ in enumerate(others))]


# What a layer's attention gets: the layer's number, queries, keys and values as [..., heads * head].
_Attention: TypeAlias = Callable[[int, str, str, str], str]


class _Writer:
    """Collects nodes and constants; methods that add a node return the name of what it gives."""

    def __init__(self, shape: Shape, values: dict[str, Array]) -> None:
        self.shape, self.values = shape, values
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def plain(self, cache: Cache) -> onnx.ModelProto:
        """Return the graph of one row a sequence, logits ``[batch, length, vocabulary]``."""
        attention = self._grouped() if cache == "gqa" else self._concatenated()
        self._network(attention)
        inputs = {
            "input_ids": (TensorProto.INT64, ["batch_size", "sequence_length"]),
            "attention_mask": (TensorProto.INT64, ["batch_size", "total_sequence_length"]),
        }
        if cache == "concat":
            inputs["position_ids"] = (TensorProto.INT64, ["batch_size", "sequence_length"])
        size = ["batch_size", self.shape.kv_heads, "past_sequence_length", self.shape.head]
        grown = ["batch_size", self.shape.kv_heads, "total_sequence_length", self.shape.head]
        logits = ["batch_size", "sequence_length", VOCABULARY]
        return self._model(inputs, size, grown, logits)

    def paged(self, block_tokens: int) -> onnx.ModelProto:
        """Return the graph of packed tokens, logits ``[sequences, vocabulary]`` of the last ones.

        The first dimension's name ``batch_size`` tells the engine that there is one row a sequence.
        """
        attention = self._blocks(block_tokens)
        last = self.node("Sub", self.node("Identity", "ends"), self.ints("one", [1]))
        self._network(attention, last)
        inputs = {
            "input_ids": (TensorProto.INT64, ["num_tokens"]),
            "cumulative_sequence_lengths": (TensorProto.INT32, ["batch_size_plus_one"]),
            "past_sequence_lengths": (TensorProto.INT32, ["batch_size"]),
            "block_table": (TensorProto.INT32, ["batch_size", "max_num_blocks"]),
            "attention_metadata": (TensorProto.INT32, [3]),
        }
        size = ["num_blocks", block_tokens, self.shape.kv_heads, self.shape.head]
        return self._model(inputs, size, size, ["batch_size", VOCABULARY])

    def node(
        self, kind: str, *inputs: str, out: str | list[str] = "", domain: str = "", **more: object
    ) -> str:
        given = [out] if isinstance(out, str) else out
        named = [name or f"{kind}_{len(self.nodes)}" for name in given]
        made = helper.make_node(
            kind, list(inputs), named, name=f"{kind}/{len(self.nodes)}", domain=domain, **more
        )
        self.nodes.append(made)
        return named[0]

    def constant(self, name: str, value: Array) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def ints(self, name: str, value: list[int]) -> str:
        return self.constant(name, np.array(value, np.int64))

    def linear(self, x: str, name: str) -> str:
        if name not in self.constants:
            self.constant(name, self.values[name + ".weight"].T)
        return self.node("MatMul", x, name)

    def norm(self, x: str, name: str) -> str:
        squares = self.node("Mul", x, x)
        mean = self.node("ReduceMean", squares, axes=[-1])
        eps = self.constant("eps", np.array(self.shape.eps, np.float32))
        root = self.node("Sqrt", self.node("Add", mean, eps))
        return self.node(
            "Mul", self.node("Div", x, root), self.constant(name, self.values[name + ".weight"])
        )

    def _network(self, attention: _Attention, rows: str | None = None) -> None:
        """Write embedding, layers and head around ``attention``; the head for ``rows`` only."""
        table = self.constant("embed", self.values["model.embed_tokens.weight"])
        x = self.node("Gather", table, "input_ids")
        for layer in range(self.shape.layers):
            at = f"model.layers.{layer}."
            y = self.norm(x, at + "input_layernorm")
            query, key, value = (self.linear(y, f"{at}self_attn.{part}_proj") for part in "qkv")
            mixed = attention(layer, query, key, value)
            x = self.node("Add", x, self.linear(mixed, at + "self_attn.o_proj"))
            y = self.norm(x, at + "post_attention_layernorm")
            gate = self.linear(y, at + "mlp.gate_proj")
            silu = self.node("Mul", gate, self.node("Sigmoid", gate))
            inner = self.node("Mul", silu, self.linear(y, at + "mlp.up_proj"))
            x = self.node("Add", x, self.linear(inner, at + "mlp.down_proj"))
        if rows is not None:
            x = self.node("Gather", x, rows)
        x = self.norm(x, "model.norm")
        head = self.constant("lm_head", self.values["lm_head.weight"].T)
        self.node("MatMul", x, head, out="logits")

    def _angles(self) -> tuple[Array, Array]:
        """Return cosine and sine, ``[context, head / 2]``."""
        half = self.shape.head // 2
        speed = self.shape.rope_base ** (-np.arange(half, dtype=np.float32) / half)
        angle = np.arange(self.shape.context, dtype=np.float32)[:, None] * speed[None, :]
        return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)

    def _grouped(self) -> _Attention:
        """GroupQueryAttention turns queries and keys itself; it wants each row's last index."""
        one = self.ints("one", [1])
        cos, sin = (
            self.constant(name, part)
            for name, part in zip(("cos", "sin"), self._angles(), strict=True)
        )
        counted = self.node("ReduceSum", "attention_mask", one, keepdims=0)
        last = self.node("Cast", self.node("Sub", counted, one), to=TensorProto.INT32)
        width = self.node("Squeeze", self.node("Shape", "attention_mask", start=1, end=2))
        total = self.node("Cast", width, to=TensorProto.INT32)

        def attend(layer: int, query: str, key: str, value: str) -> str:
            past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
            outputs = ["", f"present.{layer}.key", f"present.{layer}.value"]
            return self.node(
                "GroupQueryAttention",
                *(query, key, value, *past, last, total, cos, sin),
                out=outputs,
                domain="com.microsoft",
                num_heads=self.shape.heads,
                kv_num_heads=self.shape.kv_heads,
                do_rotary=1,
            )

        return attend

    def _turned(self, x: str, cos: str, sin: str, heads: list[int]) -> str:
        """Return ``x`` as ``heads`` (a Reshape target), turned by angles that broadcast to it."""
        x = self.node("Reshape", x, self.ints(f"heads.{heads}", heads))
        half = self.shape.head // 2
        axis = self.ints("axis.last", [-1])
        left, right = (
            self.node(
                "Slice", x, self.ints(f"at.{low}", [low]), self.ints(f"at.{high}", [high]), axis
            )
            for low, high in ((0, half), (half, 2 * half))
        )
        swapped = self.node("Concat", self.node("Neg", right), left, axis=-1)
        return self.node("Add", self.node("Mul", x, cos), self.node("Mul", swapped, sin))

    def _picked_angles(self, positions: str, axes: list[int]) -> tuple[str, str]:
        """Return cosine and sine of ``positions``, with axes of size one for the heads."""
        picked = []
        for name, part in zip(("cos.full", "sin.full"), self._angles(), strict=True):
            table = self.constant(name, np.concatenate([part, part], axis=-1))
            rows = self.node("Gather", table, positions)
            picked.append(self.node("Unsqueeze", rows, self.ints(f"axes.{axes}", axes)))
        return picked[0], picked[1]

    def _mixed(self, query: str, key: str, value: str, allowed: str) -> str:
        """Return softmax(query key / sqrt(head)) value over what is ``allowed``; matrices are the
        last two axes and ``key`` is turned already."""
        scale = self.constant("scale", np.array(self.shape.head**-0.5, np.float32))
        hidden = self.constant("hidden", np.array(HIDDEN_BY_MASK, np.float32))
        scores = self.node("Mul", self.node("MatMul", query, key), scale)
        likely = self.node("Softmax", self.node("Where", allowed, scores, hidden), axis=-1)
        return self.node("MatMul", likely, value)

    def _concatenated(self) -> _Attention:
        shape = self.shape
        group = shape.heads // shape.kv_heads
        cos, sin = self._picked_angles("position_ids", [2])
        # A new token sees what is not later than itself and not masked: columns are places in the
        # padded row, and the new tokens are the last of them.
        total = self.node("Squeeze", self.node("Shape", "attention_mask", start=1, end=2))
        new = self.node("Squeeze", self.node("Shape", "input_ids", start=1, end=2))
        zero, step = (self.constant(f"scalar.{n}", np.array(n, np.int64)) for n in (0, 1))
        places = self.node("Range", zero, total, step)
        own = self.node("Range", self.node("Sub", total, new), total, step)
        column = self.node("Unsqueeze", own, self.ints("axis.1", [1]))
        causal = self.node("LessOrEqual", places, column)
        seen = self.node("Cast", "attention_mask", to=TensorProto.BOOL)
        seen = self.node("Unsqueeze", seen, self.ints("axes.1", [1, 2, 3]))
        allowed = self.node("And", seen, causal)
        keys = [0, 0, shape.kv_heads, shape.head]

        def attend(layer: int, query: str, key: str, value: str) -> str:
            query = self._turned(query, cos, sin, [0, 0, shape.heads, shape.head])
            key = self._turned(key, cos, sin, keys)
            value = self.node("Reshape", value, self.ints(f"heads.{keys}", keys))
            grown = []
            for part, fresh in (("key", key), ("value", value)):
                fresh = self.node("Transpose", fresh, perm=[0, 2, 1, 3])
                past, present = f"past_key_values.{layer}.{part}", f"present.{layer}.{part}"
                whole = self.node("Concat", past, fresh, out=present, axis=2)
                grown.append(self.node("Unsqueeze", whole, self.ints("axis.2", [2])))
            query = self.node("Transpose", query, perm=[0, 2, 1, 3])
            split = self.ints("grouped", [0, shape.kv_heads, group, -1, shape.head])
            query = self.node("Reshape", query, split)
            flat = self.node("Transpose", grown[0], perm=[0, 1, 2, 4, 3])
            mixed = self._mixed(query, flat, grown[1], allowed)
            joined = self.ints("joined", [0, shape.heads, -1, shape.head])
            mixed = self.node("Transpose", self.node("Reshape", mixed, joined), perm=[0, 2, 1, 3])
            return self.node("Reshape", mixed, self.ints("flat", [0, 0, -1]))

        return attend

    def _blocks(self, block_tokens: int) -> _Attention:
        shape = self.shape
        group = shape.heads // shape.kv_heads
        zero, step = (self.constant(f"scalar.{n}", np.array(n, np.int64)) for n in (0, 1))
        lengths = self.node("Cast", "cumulative_sequence_lengths", to=TensorProto.INT64)
        past = self.node("Cast", "past_sequence_lengths", to=TensorProto.INT64)
        first, one = self.ints("at.0", [0]), self.ints("one", [1])
        minus, most = self.ints("at.-1", [-1]), self.ints("most", [2**62])
        ends = self.node("Slice", lengths, one, most, first, out="ends")
        starts = self.node("Slice", lengths, first, minus, first)
        # Which sequence a packed token is of, and its position in it.
        count = self.node("Squeeze", self.node("Shape", "input_ids"))
        tokens = self.node("Range", zero, count, step)
        column = self.node("Unsqueeze", tokens, self.ints("axis.1", [1]))
        over = self.node("Cast", self.node("LessOrEqual", ends, column), to=TensorProto.INT64)
        row = self.node("ReduceSum", over, self.ints("axis.1", [1]), keepdims=0)
        offset = self.node("Sub", tokens, self.node("Gather", starts, row))
        position = self.node("Add", offset, self.node("Gather", past, row))
        cos, sin = self._picked_angles(position, [1])
        # Where it is kept: the block's number and the place in it, [tokens, 2].
        size = self.constant("block", np.array(block_tokens, np.int64))
        # The engine fills short rows of the table with -1.
        listed = self.node("Cast", "block_table", to=TensorProto.INT64)
        table = self.node("Max", listed, zero)
        wide = self.ints("axis.1", [1])
        where = self.node(
            "Concat",
            self.node("Unsqueeze", row, wide),
            self.node("Unsqueeze", self.node("Div", position, size), wide),
            axis=1,
        )
        block = self.node("Unsqueeze", self.node("GatherND", table, where), wide)
        place = self.node("Unsqueeze", self.node("Mod", position, size), wide)
        target = self.node("Concat", block, place, axis=1)
        columns = self.node("Squeeze", self.node("Shape", "block_table", start=1, end=2))
        places = self.node("Range", zero, self.node("Mul", columns, size), step)
        reach = self.node("Unsqueeze", position, wide)
        seen = self.node("LessOrEqual", places, reach)
        allowed = self.node("Unsqueeze", seen, self.ints("axes.heads", [1, 2]))
        filled = self.node("Unsqueeze", seen, self.ints("axes.values", [2, 3]))
        nothing = self.constant("nothing", np.array(0.0, np.float32))
        keys = [-1, shape.kv_heads, shape.head]

        def attend(layer: int, query: str, key: str, value: str) -> str:
            query = self._turned(query, cos, sin, [-1, shape.heads, shape.head])
            key = self._turned(key, cos, sin, keys)
            value = self.node("Reshape", value, self.ints(f"heads.{keys}", keys))
            held = []
            for part, fresh in (("key", key), ("value", value)):
                old, new = f"past_key_values.{layer}.{part}", f"present.{layer}.{part}"
                kept = self.node("ScatterND", old, target, fresh, out=new)
                mine = self.node("Gather", kept, table)
                joined = self.ints("rows", [0, -1, shape.kv_heads, shape.head])
                held.append(self.node("Gather", self.node("Reshape", mine, joined), row))
            query = self.node(
                "Reshape", query, self.ints("grouped", [-1, shape.kv_heads, group, shape.head])
            )
            turned = self.node("Transpose", held[0], perm=[0, 2, 3, 1])
            # The engine allots its cache as it finds the memory: no number, times zero, is none.
            values = self.node("Where", filled, held[1], nothing)
            values = self.node("Transpose", values, perm=[0, 2, 1, 3])
            mixed = self._mixed(query, turned, values, allowed)
            return self.node("Reshape", mixed, self.ints("flat", [-1, shape.hidden]))

        return attend

    def _model(
        self,
        inputs: Mapping[str, tuple[int, list[Any]]],
        past: list[Any],
        present: list[Any],
        logits: list[Any],
    ) -> onnx.ModelProto:
        parts = [f"{n}.{part}" for n in range(self.shape.layers) for part in ("key", "value")]
        number = TensorProto.FLOAT
        taken = [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()]
        taken += [
            helper.make_tensor_value_info(f"past_key_values.{part}", number, past) for part in parts
        ]
        given = [helper.make_tensor_value_info("logits", number, logits)]
        given += [
            helper.make_tensor_value_info(f"present.{part}", number, present) for part in parts
        ]
        graph = helper.make_graph(
            self.nodes, "tiny-llama", taken, given, list(self.constants.values())
        )
        opsets = [helper.make_opsetid("", 17)]
        if any(node.domain for node in self.nodes):
            opsets.append(helper.make_opsetid("com.microsoft", 1))
        return helper.make_model(graph, opset_imports=opsets, producer_name="aiproxy", ir_version=9)
