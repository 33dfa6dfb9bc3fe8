"""Health that several processes share (``state``).

``memory`` is the tracks themselves: there is nobody to tell. ``valkey`` is a Valkey or Redis server
through which processes tell each other, every ``sync_interval``, what they saw; ``sharing`` does
that from the background thread, ``evidence`` decides what another process's word is worth.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from aiproxy.middleware.config import Config, ConfigInvalid, Problem
from aiproxy.middleware.state.sharing import Sharing

if TYPE_CHECKING:
    from aiproxy.middleware.registry import Registry

__all__ = ["Sharing", "open_sharing"]


def open_sharing(
    config: Config, registry: "Registry", jitter: Callable[[], float]
) -> Sharing | None:
    """What shares health with other processes; ``None`` for ``state.backend: memory``. Nothing is
    connected yet.

    Raises:
        ConfigInvalid: the store's client is not installed.
    """
    values: Mapping[str, Any] = config.values["state"]
    if values["backend"] == "memory":
        return None
    if find_spec("redis") is None:
        found = (
            "found valkey without its client, expected the redis package "
            "(pip install 'aiproxy[valkey]')"
        )
        raise ConfigInvalid([Problem(config.file, 0, 0, "state.backend", found)])
    from aiproxy.middleware.state.valkey import Valkey

    store = Valkey(values["url"], values["prefix"], values["sync_interval"])
    return Sharing(store, registry, values["sync_interval"], jitter)
