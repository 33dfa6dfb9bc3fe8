"""Embeddings at Cohere: ``POST /v2/embed``, the dialect ``cohere_embed``."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects.canonical import Loss, MalformedReply, Usage
from aiproxy.middleware.dialects.cohere.reply_in import usage_of
from aiproxy.middleware.dialects.embeddings.canonical import (
    EmbeddingsReply,
    EmbeddingsRequest,
    texts_only,
    unsaid,
    vectors,
)
from aiproxy.middleware.dialects.embeddings.packed import unpack

DIALECT: Final = "cohere_embed"

_MOST: Final = 96
_OWN: Final = ("truncate", "max_tokens", "priority")


def target(model: str, stream: bool) -> str:
    """Return the path below the base URL (which ends in ``/v2``)."""
    return "/embed"


def encode_request(request: EmbeddingsRequest, model: str) -> tuple[dict[str, Any], list[Loss]]:
    """Return the embed body for ``model``, and what it could not say.

    Cohere wants to know what vectors are for; who does not say keeps documents.

    Raises:
        Untranslatable: token ids, or more texts than one call takes.
    """
    texts = texts_only(request, "Cohere", _MOST)
    body: dict[str, Any] = {
        "model": model,
        "texts": list(texts),
        "input_type": request.purpose or "search_document",
        "embedding_types": ["float"],
    }
    if request.dimensions is not None:
        body["output_dimension"] = request.dimensions
    body.update({k: v for k, v in request.extra.items() if k in _OWN})
    losses = [loss for loss in unsaid(request, "Cohere") if loss.feature not in _OWN]
    return body, losses


def check_reply(body: Mapping[str, Any]) -> str | None:
    """Return why a 200 body is no answer, or ``None`` when it is one."""
    found = body.get("embeddings")
    if isinstance(found, Mapping):
        found = found.get("float") or found.get("float_") or found.get("base64")
    if not isinstance(found, list):
        if body.get("error") or isinstance(body.get("message"), str):
            return "the body holds an error"
        return "embeddings are missing"
    return None if found else "embeddings are empty"


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply: what is billed, where Cohere says so."""
    return usage_of(body.get("meta"))


def decode_reply(body: Mapping[str, Any]) -> EmbeddingsReply:
    """Return the canonical reply of an embed answer.

    Raises:
        MalformedReply: an error, no embeddings, or something that is no vector.
    """
    fault = check_reply(body)
    if fault is not None:
        raise MalformedReply(fault)
    held = body["embeddings"]
    if isinstance(held, Mapping):
        found = held.get("float") or held.get("float_")
        if not found:
            packed = held["base64"]
            if not all(isinstance(text, str) for text in packed):
                raise MalformedReply("embeddings.base64 holds something else")
            unpacked = [unpack(text, f"embeddings.base64[{i}]") for i, text in enumerate(packed)]
            return EmbeddingsReply(tuple(unpacked), DIALECT, read_usage(body))
    else:
        found = held
    return EmbeddingsReply(vectors(found, "embeddings.float"), DIALECT, read_usage(body))
