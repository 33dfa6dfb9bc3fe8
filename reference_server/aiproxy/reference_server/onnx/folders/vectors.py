"""The facts of models that give vectors or scores: sentence embedders, classifiers, CLIP."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aiproxy.reference_server.onnx.errors import ModelUnavailable
from aiproxy.reference_server.onnx.folders import VectorFolder, VectorKind
from aiproxy.reference_server.onnx.folders.files import (
    TokenizerFacts,
    find_tokenizer,
    fingerprint,
    int_or_none,
    read_json_if_any,
)
from aiproxy.reference_server.onnx.folders.graphs import Graph, Size

#: Outputs with a vector for each token, and outputs with one for each text, in order of choice.
TOKEN_VECTORS: Final = ("last_hidden_state", "token_embeddings", "hidden_states")
TEXT_VECTORS: Final = ("sentence_embedding", "text_embeds", "embeddings", "pooler_output")
#: Largest length a tokenizer_config.json means; some say 10^30 for "none".
_LONGEST: Final = 1_000_000


def kind_of(graphs: Mapping[str, Graph]) -> VectorKind | None:
    """Return what the graphs of a folder are, by their inputs and outputs; None: nothing known."""
    if "text" in graphs and "image" in graphs:
        return "clip"
    graph = graphs["model"]
    texts, images = "input_ids" in graph.inputs, "pixel_values" in graph.inputs
    if texts and images:
        return "clip"
    if images or _takes_images(graph):
        return "image-classification" if _rank(graph, _scores(graph)) == 2 else None
    if not texts:
        return None
    if any(name in graph.outputs for name in (*TOKEN_VECTORS, *TEXT_VECTORS)):
        return "embedding"
    if "logits" in graph.outputs:
        return "text-classification" if _rank(graph, "logits") == 2 else None
    only = next(iter(graph.outputs))
    return "embedding" if _rank(graph, only) in (2, 3) else None


def read_vectors(
    root: Path,
    kind: VectorKind,
    paths: Mapping[str, Path],
    graphs: Mapping[str, Graph],
    *,
    tokenizer: str | None,
    context: int | None,
    labels: Sequence[str],
) -> VectorFolder:
    """Return the facts of the ``graphs`` at ``paths``, of the files in ``root``.

    Raises:
        ModelUnavailable: something they need is missing or damaged.
    """
    config = read_json_if_any(root / "config.json")
    prepared = read_json_if_any(root / "preprocessor_config.json") or None
    if kind in ("image-classification", "clip") and prepared is None:
        raise ModelUnavailable(
            "preprocessor_config.json is missing, which says how images are brought into shape"
        )
    known = tuple(labels) or _labels(config)
    if kind == "image-classification":
        _check_labels(known, graphs["model"])
    words = None if kind == "image-classification" else find_tokenizer(root, tokenizer)
    if words is not None:
        TokenizerFacts(words)
    first = graphs.get("text") or graphs["model"]
    return VectorFolder(
        kind=kind,
        root=root,
        graphs=dict(paths),
        fingerprint=fingerprint(list(paths.values())),
        name=root.name,
        tokenizer=words,
        max_length=None if words is None else _max_length(root, config, context),
        dimensions=_dimensions(first, config) if kind in ("embedding", "clip") else None,
        pad=int_or_none(config.get("pad_token_id")) or 0,
        pooling=_pooling(root, first) if kind == "embedding" else None,
        normalize=_normalize(root) if kind == "embedding" else None,
        labels=known,
        preprocessor=prepared,
        bytes=sum(graph.bytes for graph in graphs.values()),
    )


def _takes_images(graph: Graph) -> bool:
    """Whether the only input is a batch of three or one planes of numbers."""
    shapes = [value.shape for value in graph.inputs.values()]
    return len(shapes) == 1 and shapes[0] is not None and len(shapes[0]) == 4


def _scores(graph: Graph) -> str:
    return "logits" if "logits" in graph.outputs else next(iter(graph.outputs))


def _rank(graph: Graph, output: str) -> int | None:
    shape = graph.outputs[output].shape
    return None if shape is None else len(shape)


def _last(graph: Graph, output: str) -> Size:
    shape = graph.outputs[output].shape
    return shape[-1] if shape else None


def _check_labels(labels: tuple[str, ...], graph: Graph) -> None:
    classes = _last(graph, _scores(graph))
    if labels and isinstance(classes, int) and len(labels) != classes:
        raise ModelUnavailable(
            f"there are {len(labels)} labels for the {classes} classes of the graph"
        )


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return ``id2label`` of config.json in the order of its numbers."""
    said = config.get("id2label")
    if not isinstance(said, dict):
        return ()
    try:
        numbered = {int(number): str(label) for number, label in said.items()}
    except ValueError as wrong:
        raise ModelUnavailable("config.json: id2label has a key that is no number") from wrong
    if sorted(numbered) != list(range(len(numbered))):
        raise ModelUnavailable("config.json: id2label leaves a class out")
    return tuple(numbered[number] for number in range(len(numbered)))


def _max_length(root: Path, config: Mapping[str, Any], context: int | None) -> int:
    """Return the tokens a text may have: the smallest of what the files and the operator say."""
    settings = read_json_if_any(root / "tokenizer_config.json")
    sentence = read_json_if_any(root / "sentence_bert_config.json")
    nested = config.get("text_config")
    position = (nested if isinstance(nested, dict) else config).get("max_position_embeddings")
    said = [
        int_or_none(sentence.get("max_seq_length")),
        int_or_none(settings.get("model_max_length")),
        _positions(int_or_none(position), config),
        context,
    ]
    sizes = [size for size in said if size is not None and 0 < size < _LONGEST]
    if not sizes:
        raise ModelUnavailable("nothing says how many tokens it takes; set max_context")
    return min(sizes)


def _positions(said: int | None, config: Mapping[str, Any]) -> int | None:
    """RoBERTa's kind counts positions from behind the padding token's number."""
    shifted = config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet")
    return said - 2 if said is not None and shifted else said


def _dimensions(graph: Graph, config: Mapping[str, Any]) -> int | None:
    names = [name for name in (*TEXT_VECTORS, *TOKEN_VECTORS) if name in graph.outputs]
    size = _last(graph, names[0] if names else next(iter(graph.outputs)))
    if isinstance(size, int):
        return size
    return int_or_none(config.get("projection_dim")) or int_or_none(config.get("hidden_size"))


def _pooling(root: Path, graph: Graph) -> str | None:
    """Return how token vectors become one: ``none`` where the graph itself does it."""
    tokens = [name for name in TOKEN_VECTORS if name in graph.outputs]
    if not tokens and _rank(graph, next(iter(graph.outputs))) == 2:
        return "none"
    if not tokens and any(name in graph.outputs for name in TEXT_VECTORS):
        return "none"
    said = read_json_if_any(_module(root, "Pooling") / "config.json")
    ways = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_lasttoken": "last",
    }
    on = [key for key, value in said.items() if key.startswith("pooling_mode_") and value is True]
    if not on:
        return None
    if len(on) > 1 or on[0] not in ways:
        raise ModelUnavailable(
            f"it pools by {' and '.join(on)}; only mean, cls and last are served"
        )
    return ways[on[0]]


def _module(root: Path, kind: str) -> Path:
    """Return the folder of a sentence-transformers module."""
    for row in _modules(root):
        if row["type"].rsplit(".", 1)[-1] == kind:
            return root / row["path"]
    return root / f"1_{kind}"


def _modules(root: Path) -> list[dict[str, str]]:
    import json

    path = root / "modules.json"
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_bytes())
        return [{"type": str(row["type"]), "path": str(row.get("path", ""))} for row in rows]
    except (ValueError, TypeError, KeyError, OSError, AttributeError) as wrong:
        raise ModelUnavailable("modules.json is damaged") from wrong


def _normalize(root: Path) -> bool | None:
    """Return whether a Normalize module follows; modules that compute more are refused."""
    kinds = [row["type"].rsplit(".", 1)[-1] for row in _modules(root)]
    unknown = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if unknown:
        raise ModelUnavailable(
            f"modules.json has a {unknown[0]} layer, which is not served; export the whole "
            "pipeline to one ONNX file"
        )
    return "Normalize" in kinds if kinds else None
