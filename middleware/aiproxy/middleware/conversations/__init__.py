"""Conversations and workflows: ids, history that is kept, branches and merges (draft §10, §13).

``shapes`` knows turns in the dialects of clients, ``record`` what a conversation is made of,
``ledger`` what happens to one, ``stores`` (with ``valkey`` and ``sql``) where they are kept,
``watching`` reads the answer a client is sent; ``desk`` and ``turns`` are what an exchange deals
with.
"""

from collections.abc import Callable

from aiproxy.middleware.config import Config, ConfigInvalid, Problem
from aiproxy.middleware.conversations.desk import Conversations
from aiproxy.middleware.conversations.ledger import Ledger
from aiproxy.middleware.conversations.stores import MemoryStore, Store
from aiproxy.middleware.conversations.turns import Turn


def build_conversations(
    config: Config,
    *,
    guarded: bool,
    new_id: Callable[[], str],
    now: Callable[[], float],
    wall: Callable[[], float],
) -> Conversations:
    """Return what section ``conversations`` asks for; nothing is connected yet.

    ``now`` is monotonic and ``wall`` Unix time. ``guarded``: see ``Conversations``.

    Raises:
        ConfigInvalid: the package of the store is not installed.
    """
    values = config.values
    section = values["conversations"]
    ledger = None
    if section["enabled"]:
        ledger = Ledger(_store(config, wall), most_bytes=section["max_size"], clock=wall)
    return Conversations(
        ledger,
        new_id=new_id,
        generate=section["generate_ids"],
        guarded=guarded,
        timeout_s=values["routing"]["timeout"],
        now=now,
        wall=wall,
    )


def _store(config: Config, wall: Callable[[], float]) -> Store:
    section, state = config.values["conversations"], config.values["state"]
    ttl_s, most = section["ttl"], section["max_conversations"]
    kind = section["store"] or state["backend"]
    if kind == "memory":
        return MemoryStore(ttl_s=ttl_s, most=most, clock=wall)
    try:
        if kind == "valkey":
            from aiproxy.middleware.conversations.valkey import ValkeyStore

            return ValkeyStore(state["url"], prefix=state["prefix"], ttl_s=ttl_s, most=most)
        from aiproxy.middleware.conversations.sql import SqlStore

        return SqlStore(section["url"], ttl_s=ttl_s, most=most, clock=wall)
    except ModuleNotFoundError as fault:
        found = (
            f"found {kind} without the package {fault.name}, expected pip install 'aiproxy[{kind}]'"
        )
        raise ConfigInvalid([Problem(config.file, 0, 0, "conversations.store", found)]) from None


__all__ = ["Conversations", "Turn", "build_conversations"]
