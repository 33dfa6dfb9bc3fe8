"""Fake providers that run elsewhere, as one world of a run sees them."""

from collections.abc import Iterable, Mapping

from aiproxy.conformance.rig.fleet import Actor
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.rig.remote import RemoteUpstreams


class AttachedUpstreams(RemoteUpstreams):
    """Those behind a control port, without what reached providers of other worlds and runs."""

    def __init__(self, control_url: str, token: str) -> None:
        super().__init__(control_url, token)
        self._own: set[str] = set()

    def open(
        self, actors: Iterable[Actor], ports: Mapping[str, int] | None = None
    ) -> dict[str, Actor]:
        """Open actors there; one of the same id is closed first."""
        opened = super().open(actors, ports)
        self._own |= set(opened)
        return opened

    def everything(self) -> tuple[Attempt, ...]:
        """Return all that arrived at the actors that were opened from here, in order."""
        return tuple(one for one in super().everything() if one.provider in self._own)
