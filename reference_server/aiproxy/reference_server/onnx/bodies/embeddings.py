"""Embeddings in OpenAI's words: a body in, a list of vectors out."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiproxy.reference_server.onnx.errors import RequestRefused

if TYPE_CHECKING:  # at run time a model brings numpy with it: an extra
    from aiproxy.reference_server.onnx.vectors.embedding import EmbeddingModel, Tokens
    from aiproxy.reference_server.onnx.vectors.images import ClipModel
    from aiproxy.reference_server.onnx.vectors.session import Array

Json: TypeAlias = dict[str, Any]

#: Inputs of one call at most, as at OpenAI.
MOST_INPUTS: Final = 2048


@dataclass(frozen=True, slots=True)
class EmbeddingTask:
    """A request, understood. One of ``texts`` and ``tokens`` is empty."""

    texts: tuple[str, ...]
    tokens: "tuple[Tokens, ...]"
    packed: bool
    dimensions: int | None


async def embed(model: "EmbeddingModel | ClipModel", body: Mapping[str, Any]) -> Json:
    """Answer an embeddings request; unknown members are left alone.

    Raises:
        RequestRefused: 400 for a body this model cannot answer.
        LocalError: busy, failed or closed.
    """
    task = read_embeddings(body, model.dimensions)
    rows: Sequence[Tokens] = task.tokens or await model.tokens(task.texts)
    model.check(rows, "input")
    vectors = await model.embed(rows, dimensions=task.dimensions)
    tokens = sum(map(len, rows))
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": place, "embedding": vector}
            for place, vector in enumerate(_packed(vectors) if task.packed else vectors.tolist())
        ],
        "model": body.get("model") or model.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def read_embeddings(body: Mapping[str, Any], size: int) -> EmbeddingTask:
    """Return what an embeddings body asks of a model whose vectors have ``size`` numbers.

    Raises:
        RequestRefused: a member has the wrong type or a value out of range.
    """
    form = body.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise RequestRefused(
            "invalid_value", "encoding_format must be float or base64", "encoding_format"
        )
    texts, tokens = _inputs(body.get("input"))
    return EmbeddingTask(texts, tokens, form == "base64", _dimensions(body, size))


def _dimensions(body: Mapping[str, Any], size: int) -> int | None:
    found = body.get("dimensions")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int):
        raise RequestRefused("invalid_type", "dimensions must be an integer", "dimensions")
    if not 1 <= found <= size:
        raise RequestRefused(
            "invalid_value", f"dimensions must be 1 to {size} for this model", "dimensions"
        )
    return found


def _inputs(given: object) -> "tuple[tuple[str, ...], tuple[Tokens, ...]]":
    """The texts, or the lists of token ids, of an input in any of its four forms."""
    if given is None:
        raise RequestRefused("missing_required_parameter", "input is missing", "input")
    if isinstance(given, str):
        return (_text(given, "input"),), ()
    if not isinstance(given, list):
        raise RequestRefused("invalid_type", "input must be a string or an array", "input")
    if not given:
        raise RequestRefused("invalid_value", "input is empty", "input")
    if len(given) > MOST_INPUTS and not _is_id(given[0]):
        raise RequestRefused(
            "invalid_value", f"input has {len(given)} entries; at most {MOST_INPUTS}", "input"
        )
    if isinstance(given[0], str):
        return tuple(_text(item, f"input[{i}]") for i, item in enumerate(given)), ()
    if isinstance(given[0], list):
        return (), tuple(_ids(item, f"input[{i}]") for i, item in enumerate(given))
    return (), (_ids(given, "input"),)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise RequestRefused("invalid_type", f"{where} must be a string", where)
    if not value:
        raise RequestRefused("invalid_value", f"{where} is empty", where)
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        raise RequestRefused("invalid_value", f"{where} is no valid Unicode", where) from None
    return value


def _ids(value: object, where: str) -> "Tokens":
    if not isinstance(value, list) or not all(map(_is_id, value)):
        raise RequestRefused("invalid_type", f"{where} must be an array of token ids", where)
    return tuple(value)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _packed(vectors: "Array") -> list[str]:
    """Each vector as base64 of little-endian 32-bit floats."""
    return [b64encode(row.astype("<f4").tobytes()).decode("ascii") for row in vectors]
