"""The decoder as an ONNX graph: int8 weights, grouped-query attention with a key-value cache.

Weights are stored as int8 with one scale per output (per row of the embedding) and turned back into
floats by ``Cast`` and ``Mul`` on constants, which onnxruntime folds while it loads the file: small on
disk, exact float32 arithmetic at run time, the same result whatever else runs beside it.

Names follow onnxruntime-genai: ``input_ids``, ``attention_mask``, ``past_key_values.N.key|value`` in,
``logits`` (of the last position only), ``present.N.key|value`` out.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from demo_model.network import Decoder, Shape, rotary_tables

Array = np.ndarray


def quantised(weight: Array, axis: int) -> tuple[Array, Array]:
    """Return int8 values and float scales; one scale for each index of the other axis."""
    scale = np.maximum(np.abs(weight).max(axis=axis, keepdims=True), 1e-8) / 127.0
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale.astype(np.float32)


class GraphWriter:
    """Collects nodes and constants; every method returns the name of what it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Array) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(
        self,
        kind: str,
        inputs: list[str],
        name: str,
        outputs: list[str] | None = None,
        domain: str = "",
        **attributes: object,
    ) -> str:
        outputs = outputs or [name]
        self.nodes.append(
            helper.make_node(
                kind, inputs, outputs, name=f"{name}/{kind}", domain=domain, **attributes
            )
        )
        return outputs[0]

    def weight(self, name: str, matrix: Array) -> str:
        """Store ``matrix [in, out]`` as int8, one scale an output column."""
        values, scale = quantised(matrix, axis=0)
        plain = self.node(
            "Cast", [self.constant(f"{name}.int8", values)], f"{name}.cast", to=TensorProto.FLOAT
        )
        return self.node("Mul", [plain, self.constant(f"{name}.scale", scale)], f"{name}.float")

    def norm(self, x: str, weight: Array, name: str, eps: float) -> str:
        return self.node(
            "SimplifiedLayerNormalization",
            [x, self.constant(f"{name}.weight", weight)],
            name,
            axis=-1,
            epsilon=eps,
            stash_type=1,
        )


def write_graph(model: Decoder, path: Path) -> None:
    """Write ``model`` to ``path``."""
    shape, state = (
        model.shape,
        {name: value.detach().numpy() for name, value in model.state_dict().items()},
    )
    graph = GraphWriter()
    lengths, total = attention_lengths(graph)
    cos, sin = (
        graph.constant(name, table.numpy())
        for name, table in zip(("cos", "sin"), rotary_tables(shape), strict=True)
    )
    rows, scales = quantised(state["embedding.weight"], axis=1)
    table, scale = graph.constant("embedding.int8", rows), graph.constant("embedding.scale", scales)
    picked = graph.node(
        "Cast",
        [graph.node("Gather", [table, "input_ids"], "embedding.rows")],
        "embedding.cast",
        to=TensorProto.FLOAT,
    )
    x = graph.node(
        "Mul", [picked, graph.node("Gather", [scale, "input_ids"], "embedding.scales")], "embedded"
    )
    for index in range(shape.layers):
        x = write_block(graph, shape, state, index, x, [lengths, total, cos, sin])
    last = graph.node(
        "Slice",
        [
            x,
            *(
                graph.constant(f"last.{n}", np.array([v], np.int64))
                for n, v in (("start", -1), ("end", 2**31), ("axis", 1))
            ),
        ],
        "last",
    )
    last = graph.norm(last, state["last.weight"], "last.norm", shape.eps)
    whole = graph.node(
        "Mul", [graph.node("Cast", [table], "head.cast", to=TensorProto.FLOAT), scale], "head.float"
    )
    graph.node(
        "MatMul", [last, graph.node("Transpose", [whole], "head.turned", perm=[1, 0])], "logits"
    )
    save(graph, shape, path)


def attention_lengths(graph: GraphWriter) -> tuple[str, str]:
    """Return each row's last index as int32 and the padded total length as an int32 scalar."""
    one = graph.constant("one", np.array([1], np.int64))
    counted = graph.node("ReduceSum", ["attention_mask", one], "lengths.sum", keepdims=0)
    lengths = graph.node(
        "Cast", [graph.node("Sub", [counted, one], "lengths.last")], "lengths", to=TensorProto.INT32
    )
    size = graph.node("Shape", ["attention_mask"], "total.shape", start=1, end=2)
    scalar = graph.node("Squeeze", [size], "total.scalar")
    return lengths, graph.node("Cast", [scalar], "total", to=TensorProto.INT32)


def write_block(
    graph: GraphWriter, shape: Shape, state: dict[str, Array], index: int, x: str, shared: list[str]
) -> str:
    prefix = f"blocks.{index}"

    def linear(source: str, name: str) -> str:
        weight = graph.weight(
            f"{prefix}.{name}", np.ascontiguousarray(state[f"{prefix}.{name}.weight"].T)
        )
        return graph.node("MatMul", [source, weight], f"{prefix}.{name}.out")

    y = graph.norm(
        x, state[f"{prefix}.before_attention.weight"], f"{prefix}.before_attention", shape.eps
    )
    past = [f"past_key_values.{index}.{part}" for part in ("key", "value")]
    mixed = graph.node(
        "GroupQueryAttention",
        [linear(y, "query"), linear(y, "key"), linear(y, "value"), *past, *shared],
        f"{prefix}.attention",
        outputs=[f"{prefix}.attention", f"present.{index}.key", f"present.{index}.value"],
        domain="com.microsoft",
        num_heads=shape.heads,
        kv_num_heads=shape.kv_heads,
        do_rotary=1,
        rotary_interleaved=0,
    )
    x = graph.node("Add", [x, linear(mixed, "out")], f"{prefix}.after_attention")
    y = graph.norm(x, state[f"{prefix}.before_inner.weight"], f"{prefix}.before_inner", shape.eps)
    gate = linear(y, "gate")
    silu = graph.node(
        "Mul", [gate, graph.node("Sigmoid", [gate], f"{prefix}.sigmoid")], f"{prefix}.silu"
    )
    inner = graph.node("Mul", [silu, linear(y, "up")], f"{prefix}.inner")
    return graph.node("Add", [x, linear(inner, "down")], f"{prefix}.after_inner")


def save(graph: GraphWriter, shape: Shape, path: Path) -> None:
    def cache(name: str, length: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(
            name, TensorProto.FLOAT, ["batch", shape.kv_heads, length, shape.head]
        )

    parts = [f"{index}.{part}" for index in range(shape.layers) for part in ("key", "value")]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]),
        *(cache(f"past_key_values.{part}", "past") for part in parts),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1, shape.vocab]),
        *(cache(f"present.{part}", "total") for part in parts),
    ]
    made = helper.make_graph(graph.nodes, "aiproxy-demo", inputs, outputs, graph.constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, opset_imports=opsets, producer_name="aiproxy", ir_version=9)
    path.write_bytes(model.SerializeToString(deterministic=True))
