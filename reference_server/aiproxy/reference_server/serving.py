"""Running the server: binding, readiness on stderr, drain, exit codes.

SIGTERM stops accepting, lets requests and streams finish for ``server.drain_timeout``, then exits
with 0. A bad configuration exits with 2 before anything is bound.
"""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import uvicorn

from aiproxy.middleware.asgi import App, Message, Receive, Scope, Sender
from aiproxy.middleware.config import Config, insecure_public_bind
from aiproxy.middleware.errors import ProxyError
from aiproxy.reference_server import logs
from aiproxy.reference_server.app import create_app
from aiproxy.reference_server.configuration import read_config
from aiproxy.reference_server.embedded import Found, discover
from aiproxy.reference_server.http1 import protocol
from aiproxy.reference_server.workers import Workers


class StartRefused(Exception):
    """The configuration is sound but must not be served like this; the message says what to do."""


class CannotListen(Exception):
    """The address is taken or not ours."""


def serve(
    path: str | None,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    allow_unenforced: bool = False,
) -> int:
    """Run the server until it is told to stop; return the exit code.

    Raises:
        ConfigInvalid: the file is bad; nothing was bound.
        StartRefused: serving it would be unsafe; nothing was bound.
        CannotListen: the address cannot be bound.
    """
    config, found = prepare(path, host=host, port=port)
    refuse_unsafe(config)
    unenforced = not_enforced(config)
    if unenforced and not allow_unenforced:
        raise StartRefused(
            "this release does not enforce " + "; ".join(unenforced) + ". Take the settings out, "
            "or start with --allow-unenforced to run without them"
        )
    try:
        log = logs.set_up(config)
    except OSError as fault:
        output = config.values["observability"]["logging"]["output"]
        raise StartRefused(
            f"observability.logging.output: cannot write {output}: {fault.strerror}"
        ) from None
    sock = bind(*split_address(config.values["server"]["listen_addr"]))
    for problem in config.warnings:
        _say(f"warning: {problem}")
    for text in unenforced:
        _say(f"warning: not enforced by this release: {text}")
    for text in not_offered(config):
        _say(f"warning: not part of this release, and left out: {text}")
    for line in found:
        _say(f"  {'*' if line.used else '-'} {line.name}: {line.detail}")

    def work(first: bool = True) -> int:
        app = create_app(config, on_decision=log.on_decision)
        tune_collector()
        return _run(log.wrap(_Ending(app)), sock, config, announce=first)

    count = workers or config.values["server"]["workers"]
    with sock:
        return Workers(count, work).run() if count > 1 else work()


def prepare(
    path: str | None, *, host: str | None = None, port: int | None = None
) -> tuple[Config, Sequence[Found]]:
    """The configuration to serve, command-line address applied, and what discovery found."""
    found: Sequence[Found] = ()
    if path is None:
        config, found = discover()
    else:
        config = read_config(path)
    if host is None and port is None:
        return config, found
    bound_host, bound_port = split_address(config.values["server"]["listen_addr"])
    chosen = host or bound_host
    shown = f"[{chosen}]" if ":" in chosen else chosen
    server = {
        **config.values["server"],
        "listen_addr": f"{shown}:{bound_port if port is None else port}",
    }
    return replace(config, values={**config.values, "server": server}), found


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


def not_enforced(config: Config) -> list[str]:
    """Protections the configuration asks for that this release does not give."""
    values = config.values
    budget, security, auth = values["budget"], values["security"], values["security"]["auth"]
    limited = budget["daily_limit"] is not None or budget["monthly_limit"] is not None
    asked = {
        "budget.daily_limit and budget.monthly_limit": budget["enabled"] and limited,
        "security.rate_limiting": security["rate_limiting"]["enabled"],
        f"security.auth.type {auth['type']}": auth["enabled"] and auth["type"] != "api_key",
        "security.auth.api_keys[].rate_limit": any(k.get("rate_limit") for k in auth["api_keys"]),
        "node.mesh": values["node"]["mesh"]["enabled"],
        "state.backend valkey": values["state"]["backend"] != "memory",
        "conversations": values["conversations"]["enabled"],
        "cache": values["cache"]["enabled"],
    }
    return [name for name, wanted in asked.items() if wanted]


def not_offered(config: Config) -> list[str]:
    """Conveniences the configuration switches on that this release lacks; nobody is less safe."""
    values = config.values
    asked = {
        "observability.metrics": values["observability"]["metrics"]["enabled"],
        "observability.tracing": values["observability"]["tracing"]["enabled"],
        "security.cors": values["security"]["cors"]["enabled"],
    }
    return [name for name, wanted in asked.items() if wanted]


def split_address(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of ``host:port``."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


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


class _Ending:
    """Answers for requests that are cut off because the drain time is over.

    uvicorn cancels them: one that has no answer yet gets 503, a begun one ends without its last
    chunk, which every client can tell from a whole answer.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Sender) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            if not started:
                await _unavailable(send)


async def _unavailable(send: Sender) -> None:
    error = ProxyError("provider_overloaded", "The server is shutting down.", retry_after_s=1)
    body = error.encode()
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("connection", "close"),
        *error.response_headers(),
    ]
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }
    )
    await send({"type": "http.response.body", "body": body})


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
    # uvicorn raises a caught signal again once it has drained; that must not end us by signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
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
    server.run(sockets=[sock])
    return 0 if server.started else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
