"""Running the server: binding, readiness on stderr, drain, exit codes.

SIGTERM stops accepting, lets requests and streams finish for ``server.drain_timeout``, then exits
with 0. Whether a configuration may be served at all is decided before, in ``starting``.
"""

import gc
import signal
import socket
import sys
from typing import Any

import uvicorn

from aiproxy.middleware.asgi import App
from aiproxy.middleware.config import Config
from aiproxy.reference_server import logs
from aiproxy.reference_server.app import create_app
from aiproxy.reference_server.ending import Ending
from aiproxy.reference_server.http1 import protocol
from aiproxy.reference_server.onnx.condition import line
from aiproxy.reference_server.starting import (
    CannotListen,
    Start,
    StartRefused,
    claim_ledger,
    refuse_shared_gpu,
    refuse_shared_limits,
    refuse_split_conversations,
    split_address,
)
from aiproxy.reference_server.workers import Workers


def serve(start: Start, *, workers: int | None = None) -> int:
    """Run the server until it is told to stop; return the exit code.

    Raises:
        StartRefused: the log or the ledger cannot be written, or there are limits and several
            workers; nobody was served.
        CannotListen: the address cannot be bound.
    """
    config = start.config
    count = workers or config.values["server"]["workers"]
    refuse_shared_limits(config, count)
    refuse_split_conversations(config, count)
    refuse_shared_gpu(config, count)
    try:
        log = logs.set_up(config)
    except OSError as fault:
        output = config.values["observability"]["logging"]["output"]
        raise StartRefused(
            f"observability.logging.output: cannot write {output}: {fault.strerror}"
        ) from None
    sock = bind(*split_address(config.values["server"]["listen_addr"]))
    for note in start.notes:
        _say(note)

    def work(first: bool = True) -> int:
        app = create_app(config, on_decision=log.on_decision, allow_unenforced=True)
        claim_ledger(app.gateway.budget)
        if first:
            for model in app.local.models:
                _say(line(model))
        tune_collector()
        return _run(log.wrap(Ending(app)), sock, config, announce=first)

    with sock:
        return Workers(count, work).run() if count > 1 else work()


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet, so that nobody is kept waiting while models load.

    Raises:
        CannotListen: saying what is in the way.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except (OSError, UnicodeError) as error:
        raise CannotListen(f"cannot listen on {host}:{port}: {_reason(error)}") from None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise CannotListen(
            f"cannot listen on {host}:{port}: {_reason(error)}; choose another port with --port"
        ) from None
    return sock


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "not an address"


def tune_collector() -> None:
    """Start-up objects live for ever: keep the collector from walking them on the request path."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class _Uvicorn(uvicorn.Server):
    """Says where it listens once it does."""

    announce = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.announce and sockets:
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            _say(f"listening on http://{shown}:{port}")


def _run(app: App, sock: socket.socket, config: Config, *, announce: bool) -> int:
    limits = config.values["server"]
    options: dict[str, Any] = {
        "interface": "asgi3",
        "lifespan": "on",
        "http": protocol(limits["read_timeout"], limits["write_timeout"]),
        "loop": "uvloop",
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "backlog": 2048,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": limits["drain_timeout"],
    }
    server = _Uvicorn(uvicorn.Config(app, **options))
    server.announce = announce

    def stop(*_: Any) -> None:
        server.should_exit = True

    # uvicorn's own handlers stand from its start-up to its end, and then raise what they caught
    # again: neither that nor a signal that comes before them may be lost or end us by signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(sockets=[sock])
    return 0 if server.started else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
