"""Fake peers of a mesh: fakes whose dialect is ``peer``, named in ``node.mesh`` of a configuration.

A peer is an actor like any other: scripted, logged, proved by the text of its answers.
"""

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from aiproxy.conformance.launching import free_port
from aiproxy.conformance.rig.fleet import Actor

PEER: Final = "peer"
# Where the mesh listener of a target was put, by the port of its API.
_LISTENERS: Final[dict[int, str]] = {}


def is_peer(actor: Actor) -> bool:
    """Return whether an actor is another node and no provider."""
    return actor.fake.dialect == PEER


def mesh_of(actors: Iterable[Actor], port: int) -> dict[str, Any]:
    """Return ``node.mesh`` for a target whose API is on ``port``; empty without peers.

    Its listener is put on a free port; see ``listener_of``.
    """
    peers = [_entry(actor) for actor in actors if is_peer(actor)]
    if not peers:
        return {}
    _LISTENERS[port] = f"127.0.0.1:{free_port()}"
    return {"enabled": True, "listen_addr": _LISTENERS[port], "peers": peers}


def listener_of(url: str) -> str:
    """Return host and port of the mesh listener of the target at ``url``; empty when unknown."""
    return _LISTENERS.get(urlsplit(url).port or 0, "")


def address(actor: Actor) -> str:
    """Return host and port of an actor."""
    return urlsplit(actor.endpoint).netloc


def _entry(actor: Actor) -> dict[str, Any]:
    return {"id": actor.id, "addr": address(actor), "priority": actor.fake.priority}
