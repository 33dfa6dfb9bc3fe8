"""What both transports call the ways in which a connection fails. Texts of exceptions stay out: they
carry URLs and bytes of the peer."""

import logging
import ssl
from typing import Final, TypeAlias

from ..effects import Failure
from .progress import Phase

_log = logging.getLogger(__name__)

#: An exception and what it was raised from, outermost first.
Chain: TypeAlias = tuple[BaseException, ...]
Kinds: TypeAlias = "type[BaseException] | tuple[type[BaseException], ...]"

UNSENDABLE: Final = Failure("protocol_error", "the request cannot be written as HTTP/1.1")
CUT: Final = Failure("reset", "the connection broke inside the body")
SHORT: Final = Failure("protocol_error", "the body is shorter than its content-length")


def holds(chain: Chain, kinds: Kinds) -> bool:
    """Whether any of these kinds is in the chain."""
    return any(isinstance(error, kinds) for error in chain)


def connect_failure(
    chain: Chain, *, unverified: Kinds = (), tls: Kinds = (), late: Kinds = (), refused: Kinds = ()
) -> Failure:
    """Name a failure before there was a connection; the library's own kinds come beside Python's."""
    if holds(chain, ssl.SSLCertVerificationError) or holds(chain, unverified):
        return Failure("tls_failure", "the certificate does not verify")
    if holds(chain, ssl.SSLError) or holds(chain, tls):
        return Failure("tls_failure", "the TLS handshake failed")
    if holds(chain, late):
        return Failure("connect_timeout", "no connection in time")
    if holds(chain, OSError) or holds(chain, refused):
        return Failure("connect_refused", "no connection")
    if holds(chain, ValueError):
        return UNSENDABLE
    return unexpected(chain[0], "connecting")


def broken(chain: Chain, phase: Phase, *, heard: bool) -> Failure:
    """Name the end of a connection; ``heard``: something of an answer had come."""
    if phase == "reading":
        return CUT
    if heard:
        return Failure("reset", "the connection broke inside the response head")
    if holds(chain, ssl.SSLError):
        return Failure("tls_failure", "TLS failed after the handshake")
    return Failure("connect_refused", "the connection closed before an answer")


def unexpected(error: BaseException, doing: str) -> Failure:
    """Name what no rule knows; the log has the rest."""
    _log.error("unexpected %s while %s", type(error).__name__, doing, exc_info=error)
    return Failure("protocol_error", f"unexpected {type(error).__name__}")
