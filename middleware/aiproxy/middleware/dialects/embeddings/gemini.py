"""Embeddings at Google: ``models/{model}:batchEmbedContents``, the dialect ``gemini_embed``."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from aiproxy.middleware.dialects.canonical import Loss, MalformedReply, Usage
from aiproxy.middleware.dialects.embeddings.canonical import (
    EmbeddingsReply,
    EmbeddingsRequest,
    texts_only,
    unsaid,
    vector,
)

DIALECT: Final = "gemini_embed"

_MOST: Final = 100
_TASKS: Final[Mapping[str, str]] = {
    "search_document": "RETRIEVAL_DOCUMENT",
    "search_query": "RETRIEVAL_QUERY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}


def target(model: str, stream: bool) -> str:
    """Return the path below the base URL (which ends in ``/v1beta``)."""
    return f"/models/{quote(_bare(model), safe='')}:batchEmbedContents"


def encode_request(request: EmbeddingsRequest, model: str) -> tuple[dict[str, Any], list[Loss]]:
    """Return the batch body for ``model``, one request a text, and what it could not say.

    Raises:
        Untranslatable: token ids, or more texts than one call takes.
    """
    one: dict[str, Any] = {"model": f"models/{_bare(model)}"}
    if request.purpose is not None:
        one["taskType"] = _TASKS[request.purpose]
    if request.dimensions is not None:
        one["outputDimensionality"] = request.dimensions
    requests = [
        {**one, "content": {"parts": [{"text": text}]}}
        for text in texts_only(request, "Gemini", _MOST)
    ]
    return {"requests": requests}, list(unsaid(request, "Gemini"))


def check_reply(body: Mapping[str, Any]) -> str | None:
    """Return why a 200 body is no answer, or ``None`` when it is one."""
    if body.get("error"):
        return "the body holds an error object"
    found = body.get("embeddings")
    if not isinstance(found, list):
        return "embeddings are missing"
    return None if found else "embeddings are empty"


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply; older models report none."""
    held = body.get("usageMetadata")
    count = held.get("promptTokenCount") if isinstance(held, Mapping) else None
    return Usage(count) if isinstance(count, int) and count >= 0 else None


def decode_reply(body: Mapping[str, Any]) -> EmbeddingsReply:
    """Return the canonical reply of a batch answer.

    Raises:
        MalformedReply: an error, no embeddings, or something that is no vector.
    """
    fault = check_reply(body)
    if fault is not None:
        raise MalformedReply(fault)
    found = []
    for i, item in enumerate(body["embeddings"]):
        if not isinstance(item, Mapping):
            raise MalformedReply(f"embeddings[{i}] is not an object")
        found.append(vector(item.get("values"), f"embeddings[{i}].values"))
    return EmbeddingsReply(tuple(found), DIALECT, read_usage(body))


def _bare(model: str) -> str:
    return model.removeprefix("models/")
