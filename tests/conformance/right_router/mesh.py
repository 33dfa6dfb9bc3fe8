"""Other nodes: status, heartbeats, forwarding, hop limits. Later levels fill this."""

from typing import TYPE_CHECKING, Any

from right_server import Refusal

if TYPE_CHECKING:
    from right_router.serving import Exchange


def status(exchange: "Exchange") -> dict[str, Any]:
    """Return what GET /aiproxy/mesh/status says.

    Raises:
        Refusal: there is no mesh.
    """
    raise Refusal(501, "not_implemented", "no mesh here")


def receive(exchange: "Exchange") -> None:
    """Take a message of a peer."""
    raise Refusal(404, "not_found", "no mesh here")
