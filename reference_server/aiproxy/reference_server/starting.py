"""What to serve, and whether it may be served: everything before a socket is opened.

Light to import, so that a bad configuration is told at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aiproxy.middleware.config import Config, insecure_public_bind
from aiproxy.middleware.config.unenforced import (
    has_limits,
    unenforced_protections,
    unserved_features,
)
from aiproxy.middleware.money.ledger import LedgerUnusable
from aiproxy.reference_server.configuration import read_config
from aiproxy.reference_server.embedded import Found, discover

if TYPE_CHECKING:
    from aiproxy.middleware.money.budgets import Budget


class StartRefused(Exception):
    """The configuration is sound but must not be served like this; the message says what to do."""


class CannotListen(Exception):
    """The address is taken or not ours."""


@dataclass(frozen=True, slots=True)
class Start:
    """A configuration that may be served, and what to tell the operator first."""

    config: Config
    notes: tuple[str, ...]


def prepare(
    path: str | None,
    *,
    host: str | None = None,
    port: int | None = None,
    allow_unenforced: bool = False,
) -> Start:
    """Return what ``aiproxy serve`` serves; ``host`` and ``port`` replace the configured ones.

    Raises:
        ConfigInvalid: the file is bad.
        StartRefused: serving it would be unsafe.
    """
    found: Sequence[Found] = ()
    if path is None:
        config, found = discover()
    else:
        config = read_config(path)
    config = _at(config, host, port)
    refuse_unsafe(config)
    unenforced = unenforced_protections(config.values)
    if unenforced and not allow_unenforced:
        raise StartRefused(
            "this release does not enforce " + "; ".join(unenforced) + ". Take the settings out, "
            "or start with --allow-unenforced to run without them"
        )
    return Start(
        config,
        (
            *(f"warning: {problem}" for problem in config.warnings),
            *(f"warning: not enforced by this release: {name}" for name in unenforced),
            *(
                f"warning: not part of this release, and left out: {name}"
                for name in unserved_features(config.values)
            ),
            *(f"  {'*' if line.used else '-'} {line.name}: {line.detail}" for line in found),
        ),
    )


def _at(config: Config, host: str | None, port: int | None) -> Config:
    if host is None and port is None:
        return config
    bound_host, bound_port = split_address(config.values["server"]["listen_addr"])
    chosen = host or bound_host
    shown = f"[{chosen}]" if ":" in chosen else chosen
    address = f"{shown}:{bound_port if port is None else port}"
    server = {**config.values["server"], "listen_addr": address}
    return replace(config, values={**config.values, "server": server})


def refuse_unsafe(config: Config) -> None:
    """An open relay is refused unless it is asked for by name (AIP-SECURITY-020).

    Raises:
        StartRefused: public address, paid provider, no authentication.
    """
    if config.values["server"]["allow_insecure_public_bind"]:
        return
    reason = insecure_public_bind(config.values)
    if reason is not None:
        raise StartRefused(f"server.listen_addr: {reason}")


def refuse_shared_limits(config: Config, workers: int) -> None:
    """Limits are kept by one process: several would each spend the whole of them.

    Raises:
        StartRefused: there are limits and more than one worker.
    """
    if workers > 1 and has_limits(config.values):
        raise StartRefused(
            f"found spending limits with {workers} workers, which would each spend the whole of "
            "them: set server.workers: 1 (or --workers 1), or take budget.daily_limit, "
            "budget.monthly_limit and those of security.auth.api_keys[] out"
        )


def refuse_split_conversations(config: Config, workers: int) -> None:
    """Conversations in memory belong to one process: others would not find them.

    Raises:
        StartRefused: they are kept there, and there is more than one worker.
    """
    section = config.values["conversations"]
    store = section["store"] or config.values["state"]["backend"]
    if workers > 1 and section["enabled"] and store == "memory":
        raise StartRefused(
            f"found conversations in memory with {workers} workers, which would not find each "
            "other's: set conversations.store to valkey or sql, or server.workers: 1"
        )


def refuse_shared_gpu(config: Config, workers: int) -> None:
    """Each process would load every model into the same GPU memory.

    Raises:
        StartRefused: a local model would run on a GPU, and there is more than one worker.
    """
    if workers < 2:
        return
    for provider in config.values["providers"].values():
        if not provider["enabled"] or provider["type"] != "local":
            continue
        for model in provider["models"]:
            wanted = model["device"] or provider["device"]
            if wanted != "cpu" and _on_gpu(wanted):
                raise StartRefused(
                    f"found {workers} workers and the model {model['name']} on a GPU, which each "
                    "of them would load: set server.workers: 1 (or --workers 1), or device: cpu"
                )


def _on_gpu(wanted: str) -> bool:
    """Whether a model that may be put on ``wanted`` lands on a GPU of this machine."""
    from aiproxy.reference_server.onnx.devices import choose
    from aiproxy.reference_server.onnx.errors import ModelUnavailable

    try:
        return choose(wanted).kind == "cuda"
    except ModelUnavailable:
        return False  # it is unavailable in each of them


def claim_ledger(budget: "Budget | None") -> None:
    """Be the one process that spends by the ledger.

    Raises:
        StartRefused: another process is, or the ledger cannot be written.
    """
    if budget is None:
        return
    try:
        budget.claim()
    except LedgerUnusable as fault:
        raise StartRefused(f"budget.cost_db: {fault}") from None


def split_address(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of ``host:port``."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
