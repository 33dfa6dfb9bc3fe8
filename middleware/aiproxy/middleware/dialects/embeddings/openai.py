"""The OpenAI shape of embeddings, both ways."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from aiproxy.middleware.dialects import observe, reading, usage
from aiproxy.middleware.dialects.canonical import (
    Envelope,
    Json,
    Loss,
    MalformedReply,
    MalformedRequest,
    Usage,
)
from aiproxy.middleware.dialects.embeddings.canonical import (
    PURPOSES,
    EmbeddingsReply,
    EmbeddingsRequest,
    vector,
)
from aiproxy.middleware.dialects.embeddings.packed import pack, unpack
from aiproxy.middleware.dialects.losses import members, note
from aiproxy.middleware.dialects.reading import words

DIALECT: Final = "embeddings"

_READ: Final = words("model input encoding_format dimensions user")


def decode_request(body: Mapping[str, Any]) -> EmbeddingsRequest:
    """Return the canonical request of an embeddings body.

    Raises:
        MalformedRequest: a member has a type this dialect cannot mean.
    """
    texts, tokens, plain = _input(body)
    form = reading.string(body, "encoding_format")
    if form not in (None, "float", "base64"):
        raise MalformedRequest("encoding_format", "another word", "float or base64")
    encoding: Literal["float", "base64"] | None = "float" if form == "float" else None
    extra = reading.rest(body, _READ)
    purpose = extra.get("input_type")
    if isinstance(purpose, str) and purpose in PURPOSES:
        del extra["input_type"]
    else:
        purpose = None
    return EmbeddingsRequest(
        model=reading.text(body.get("model"), "model"),
        texts=texts,
        source=DIALECT,
        tokens=tokens,
        plain=plain,
        dimensions=reading.integer(body, "dimensions"),
        encoding_format="base64" if form == "base64" else encoding,
        purpose=purpose,
        user=reading.string(body, "user"),
        extra=extra,
    )


def _input(body: Json) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...], bool]:
    given = body.get("input")
    if isinstance(given, str):
        return (given,), (), True
    if not isinstance(given, list) or not given:
        found = "an empty array" if isinstance(given, list) else reading.kind_of(given)
        raise MalformedRequest("input", found, "a string or an array")
    if isinstance(given[0], str):
        return tuple(reading.text(x, f"input[{i}]") for i, x in enumerate(given)), (), False
    if isinstance(given[0], list):
        return (), tuple(_tokens(x, f"input[{i}]") for i, x in enumerate(given)), False
    return (), (_tokens(given, "input"),), True


def _tokens(value: object, path: str) -> tuple[int, ...]:
    ids = reading.array(value, path)
    for i, number in enumerate(ids):
        if not isinstance(number, int) or isinstance(number, bool):
            raise MalformedRequest(f"{path}[{i}]", reading.kind_of(number), "a token id")
    return tuple(ids)


def target(model: str, stream: bool) -> str:
    """Return the path below the base URL."""
    return "/embeddings"


def encode_request(request: EmbeddingsRequest, model: str) -> tuple[dict[str, Any], list[Loss]]:
    """Return the embeddings body for ``model``; nothing is lost."""
    given: Any = list(request.texts) or [list(ids) for ids in request.tokens]
    body: dict[str, Any] = {"model": model, "input": given[0] if request.plain else given}
    for name, value in (
        ("encoding_format", request.encoding_format),
        ("dimensions", request.dimensions),
        ("user", request.user),
        ("input_type", request.purpose),
    ):
        if value is not None:
            body[name] = value
    body.update(request.extra)
    return body, []


def check_reply(body: Mapping[str, Any]) -> str | None:
    """Return why a 200 body is no answer, or ``None`` when it is one."""
    return observe.check_reply(DIALECT, body)


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply."""
    return usage.read_usage(body.get("usage"))


def decode_reply(body: Mapping[str, Any]) -> EmbeddingsReply:
    """Return the canonical reply of a list of embeddings, put in the order of their indices.

    Raises:
        MalformedReply: an error object, no data, or something that is no vector.
    """
    fault = check_reply(body)
    if fault is not None:
        raise MalformedReply(fault)
    placed: list[tuple[int, Sequence[float]]] = []
    for i, item in enumerate(body["data"]):
        path = f"data[{i}].embedding"
        value = item["embedding"]
        found = unpack(value, path) if isinstance(value, str) else vector(value, path)
        index = item.get("index")
        placed.append((index if isinstance(index, int) else i, found))
    placed.sort(key=lambda pair: pair[0])
    return EmbeddingsReply(
        tuple(found for _, found in placed),
        DIALECT,
        read_usage(body),
        reading.optional(body.get("model")),
        reading.rest(body, words("object data model usage")),
    )


def encode_reply(
    reply: EmbeddingsReply, envelope: Envelope, losses: list[Loss] | None = None
) -> dict[str, Any]:
    """Return the list object, vectors as the client asked: numbers, or base64.

    Raises:
        MalformedReply: a number of a vector has no place in the form asked for.
    """
    if losses is not None and reply.source != DIALECT:
        note(losses, members(reply.extra, "", "a list of embeddings has no such member"))
    packed = envelope.request.get("encoding_format") == "base64"
    body: dict[str, Any] = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": pack(found) if packed else list(found)}
            for i, found in enumerate(reply.vectors)
        ],
        "model": envelope.model,
    }
    if reply.usage is not None:
        body["usage"] = {
            "prompt_tokens": reply.usage.input,
            "total_tokens": reply.usage.total,
        }
    if reply.source == DIALECT:
        for name, value in reply.extra.items():
            body.setdefault(name, value)
    return body


def encode_error(status: int, error: Json) -> dict[str, Any]:
    """Return the error body; it is the one of every OpenAI dialect."""
    return {"error": dict(error)}
