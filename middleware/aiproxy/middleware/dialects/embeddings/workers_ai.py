"""Embeddings at Cloudflare: ``/run/{model}``, the dialect ``workers_ai_embed``."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from aiproxy.middleware.dialects import usage
from aiproxy.middleware.dialects.canonical import Loss, MalformedReply, Untranslatable, Usage
from aiproxy.middleware.dialects.embeddings.canonical import (
    EmbeddingsReply,
    EmbeddingsRequest,
    texts_only,
    unsaid,
    vectors,
)
from aiproxy.middleware.dialects.workers_ai.shapes import fault, unwrapped

DIALECT: Final = "workers_ai_embed"

_MOST: Final = 100


def target(model: str, stream: bool) -> str:
    """Return the path below the account's ``/ai``; ``@`` and ``/`` of a model's name stay."""
    return "/run/" + quote(model, safe="@/")


def encode_request(request: EmbeddingsRequest, model: str) -> tuple[dict[str, Any], list[Loss]]:
    """Return the body for ``model``, which the path names, and what it could not say.

    Raises:
        Untranslatable: token ids, more texts than one call takes, or a length of vectors:
            vectors of another length fit no index made for these.
    """
    if request.dimensions is not None:
        raise Untranslatable("dimensions", "Workers AI gives vectors of one length a model")
    losses = list(unsaid(request, "Workers AI"))
    if request.purpose is not None:
        losses.append(Loss("input_type", "Workers AI has no such parameter"))
    return {"text": list(texts_only(request, "Workers AI", _MOST))}, losses


def check_reply(body: Mapping[str, Any]) -> str | None:
    """Return why a 200 body is no answer, or ``None`` when it is one."""
    found = fault(body)
    if found is not None:
        return found
    data = unwrapped(body).get("data")
    if not isinstance(data, list):
        return "data is missing"
    return None if data else "data is empty"


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply; most models report none."""
    return usage.read_usage(unwrapped(body).get("usage"))


def decode_reply(body: Mapping[str, Any]) -> EmbeddingsReply:
    """Return the canonical reply of a ``/run`` answer.

    Raises:
        MalformedReply: errors, no data, or something that is no vector.
    """
    found = check_reply(body)
    if found is not None:
        raise MalformedReply(found)
    data = unwrapped(body)["data"]
    return EmbeddingsReply(vectors(data, "data"), DIALECT, read_usage(body))
