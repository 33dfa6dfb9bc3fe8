"""Every wire dialect by name: the module that speaks it, and where it is spoken.

Modules are imported when first asked for: a process that only speaks chat loads nothing else.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Final, Protocol

from aiproxy.middleware.dialects.canonical import (
    CanonicalEvent,
    CanonicalReply,
    CanonicalRequest,
    Envelope,
    Loss,
    ToolKind,
    Usage,
)


class Decoder(Protocol):
    """Reads one upstream stream: payloads in, canonical events out."""

    @property
    def complete(self) -> bool: ...
    def feed(
        self, payload: Mapping[str, Any], event: str | None = None
    ) -> list[CanonicalEvent]: ...
    def finish(self) -> list[CanonicalEvent]: ...


class Encoder(Protocol):
    """Writes one client stream: canonical events in, frames out."""

    losses: list[Loss]

    def encode(self, event: CanonicalEvent) -> bytes: ...
    def finish(self, extra: Mapping[str, Any] | None = None) -> bytes: ...
    def fail(self, error: Mapping[str, Any]) -> bytes: ...


class Egress(Protocol):
    """A dialect providers are spoken to in."""

    DIALECT: str
    StreamDecoder: Callable[[], Decoder]

    def target(self, model: str, stream: bool) -> str:
        """Return the path, and query if any, below a provider's base URL."""
        ...

    def encode_request(
        self, request: CanonicalRequest, model: str
    ) -> tuple[dict[str, Any], list[Loss]]: ...
    def check_reply(self, body: Mapping[str, Any]) -> str | None: ...
    def read_usage(self, body: Mapping[str, Any]) -> Usage | None: ...
    def decode_reply(self, body: Mapping[str, Any]) -> CanonicalReply: ...


class Ingress(Protocol):
    """A dialect clients speak to us."""

    DIALECT: str
    StreamEncoder: Callable[[Envelope], Encoder]

    def decode_request(self, body: Mapping[str, Any]) -> CanonicalRequest: ...
    def encode_reply(
        self, reply: CanonicalReply, envelope: Envelope, losses: list[Loss]
    ) -> dict[str, Any]: ...


_MODULES: Final[Mapping[str, str]] = {
    "anthropic": "anthropic",
    "chat": "chat",
    "classifications": "classifications",
    "cohere": "cohere",
    "cohere_embed": "embeddings.cohere",
    "completions": "completions",
    "draft": "draft",
    "embeddings": "embeddings",
    "gemini": "gemini",
    "gemini_embed": "embeddings.gemini",
    "mistral": "mistral",
    "responses": "responses",
    "workers_ai": "workers_ai",
    "workers_ai_embed": "embeddings.workers_ai",
}

#: Dialects a provider may be reached in, in the order in which they are preferred when a request
#: has to be translated: what loses least first.
EGRESS: Final = (
    "chat",
    "responses",
    "anthropic",
    "gemini",
    "mistral",
    "cohere",
    "workers_ai",
)
#: What an endpoint's requests may be carried in, its own dialect first.
SPOKEN_FOR: Final[Mapping[str, tuple[str, ...]]] = {
    "chat": EGRESS,
    "draft": EGRESS,
    "responses": ("responses", *(d for d in EGRESS if d != "responses")),
    "anthropic": ("anthropic", *(d for d in EGRESS if d != "anthropic")),
    "gemini": ("gemini", *(d for d in EGRESS if d != "gemini")),
    "completions": ("completions", *EGRESS),
    "embeddings": ("embeddings", "cohere_embed", "gemini_embed", "workers_ai_embed"),
    "classifications": ("classifications",),
}

#: Needs (see ``features``) that a dialect loses or cannot carry, whoever speaks it.
_WEAK: Final[Mapping[str, frozenset[str]]] = {
    "chat": frozenset({"hosted_tools", "stateful"}),
    "responses": frozenset({"n_gt_1", "audio"}),
    "anthropic": frozenset({"audio", "hosted_tools", "logprobs", "n_gt_1", "stateful"}),
    "gemini": frozenset({"hosted_tools", "stateful"}),
    "mistral": frozenset({"hosted_tools", "logprobs", "stateful"}),
    "cohere": frozenset({"audio", "files", "hosted_tools", "n_gt_1", "stateful"}),
    "workers_ai": frozenset({"audio", "files", "hosted_tools", "logprobs", "n_gt_1", "stateful"}),
}
#: Needs that are carried better by some dialects than by others.
DIVIDING: Final = frozenset[str]().union(*_WEAK.values())


def spoken(endpoint: str, dialects: Collection[str]) -> str | None:
    """Return which of a provider's ``dialects`` carries the requests of an endpoint best, ``None``
    when none does."""
    for dialect in SPOKEN_FOR[endpoint]:
        if dialect in dialects:
            return dialect
    return None


def lossy(endpoint: str, dialects: Collection[str], needs: frozenset[str]) -> int:
    """Return how many of the ``needs`` of a request a provider's dialect would lose: such a
    candidate comes after its equals."""
    dialect = spoken(endpoint, dialects)
    if dialect is None or dialect == endpoint:
        return 0
    return len(needs & _WEAK.get(dialect, frozenset()))


@cache
def codec(name: str) -> Any:
    """Return the module of a dialect (``Egress``, ``Ingress`` or both).

    Raises:
        KeyError: no such dialect, or one that has no canonical form.
    """
    return import_module(f"aiproxy.middleware.dialects.{_MODULES[name]}")


def stream_decoder(name: str, kinds: Mapping[str, ToolKind]) -> Decoder:
    """Return a fresh decoder of upstream streams; ``kinds`` are those of the request's tools that
    are no plain functions, by name, for dialects that call them all alike."""
    found: Decoder = codec(name).StreamDecoder(*_kinds_for(name, kinds))
    return found


def decode_reply(
    name: str, body: Mapping[str, Any], kinds: Mapping[str, ToolKind]
) -> CanonicalReply:
    """Return a whole upstream reply; ``kinds`` as in ``stream_decoder``.

    Raises:
        MalformedReply: it cannot be read.
    """
    found: CanonicalReply = codec(name).decode_reply(body, *_kinds_for(name, kinds))
    return found


def _kinds_for(name: str, kinds: Mapping[str, ToolKind]) -> tuple[Mapping[str, ToolKind], ...]:
    return (kinds,) if kinds and name == "anthropic" else ()


def names() -> Iterator[str]:
    """Yield every dialect that has a canonical form."""
    yield from _MODULES
