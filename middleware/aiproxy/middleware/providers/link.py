"""What the connections to one provider need: how many, and which TLS identity."""

import functools
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..registry import Provider


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files. ``ca`` replaces the system's authorities; peers are always verified."""

    ca: str | None = None
    client_cert: str | None = None
    client_key: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """``max_connections`` bounds the open connections to one endpoint; ``None`` is no bound.

    A call above the bound waits for a free connection, inside its connect time.
    """

    max_connections: int | None = None
    tls: Tls = Tls()


def links_of(providers: "Iterable[Provider]") -> dict[str, Link]:
    """The links of the providers that are reached over HTTP, by id."""
    return {
        provider.id: Link(
            max_connections=provider.max_connections,
            tls=Tls(
                ca=provider.tls.get("ca"),
                client_cert=provider.tls.get("client_cert"),
                client_key=provider.tls.get("client_key"),
            ),
        )
        for provider in providers
        if provider.transport == "http"
    }


@functools.cache
def tls_context(tls: Tls) -> ssl.SSLContext:
    """Return the verifying context of a TLS identity, made once.

    Raises:
        OSError: a file is missing or is not PEM (``ssl.SSLError`` is an ``OSError``).
    """
    context = ssl.create_default_context(cafile=tls.ca)
    context.set_alpn_protocols(["http/1.1"])
    if tls.client_cert is not None:
        context.load_cert_chain(tls.client_cert, tls.client_key)
    return context
