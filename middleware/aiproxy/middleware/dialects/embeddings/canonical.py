"""What is embedded and what comes of it, between all embeddings dialects."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from aiproxy.middleware.dialects.canonical import (
    Json,
    Loss,
    MalformedReply,
    Untranslatable,
    Usage,
)

#: What a client means to do with the vectors; OpenAI has no such word, its clients may write it.
PURPOSES: Final = frozenset({"search_document", "search_query", "classification", "clustering"})


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """Texts to embed, or lists of token ids in ``tokens`` (one of the two is empty).

    ``plain`` says that the input was one text, not a list. ``purpose`` is one of ``PURPOSES``,
    ``dimensions`` the wanted length of a vector, ``encoding_format`` is float or base64.
    """

    model: str
    texts: tuple[str, ...]
    source: str
    tokens: tuple[tuple[int, ...], ...] = ()
    plain: bool = False
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] | None = None
    purpose: str | None = None
    user: str | None = None
    extra: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EmbeddingsReply:
    """One vector for each input, in the order of the inputs."""

    vectors: tuple[Sequence[float], ...]
    source: str
    usage: Usage | None = None
    model: str | None = None
    extra: Json = field(default_factory=dict)


def texts_only(request: EmbeddingsRequest, api: str, most: int) -> tuple[str, ...]:
    """Return the texts for an API that takes no token ids and at most ``most`` texts a call.

    Raises:
        Untranslatable: token ids, or too many texts.
    """
    if request.tokens:
        raise Untranslatable("input", "token ids mean nothing to another model")
    if len(request.texts) > most:
        raise Untranslatable("input", f"{api} embeds at most {most} texts a request")
    return request.texts


def unsaid(request: EmbeddingsRequest, api: str) -> Iterator[Loss]:
    """Yield the members of a request that ``api`` has no parameter for."""
    if request.user is not None:
        yield Loss("user", f"{api} has no such parameter")
    for name in request.extra:
        yield Loss(name, f"{api} has no such parameter")


def vector(value: object, path: str) -> Sequence[float]:
    """Return a vector or raise ``MalformedReply`` naming ``path``."""
    if not isinstance(value, list) or not value:
        raise MalformedReply(f"{path} is not a list of numbers")
    kinds = set(map(type, value))
    if not kinds <= {float, int}:
        raise MalformedReply(f"{path} is not a list of numbers")
    return value


def vectors(values: object, path: str) -> tuple[Sequence[float], ...]:
    """Return the vectors of a list or raise ``MalformedReply`` naming ``path``."""
    if not isinstance(values, list) or not values:
        raise MalformedReply(f"{path} is missing or empty")
    return tuple(vector(value, f"{path}[{i}]") for i, value in enumerate(values))
