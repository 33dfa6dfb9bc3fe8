"""Running the server: binding, workers, readiness on stderr, drain, exit codes.

SIGTERM stops accepting, lets requests and streams finish for ``server.drain_timeout``, then exits
with 0. A bad configuration exits with 2 before anything is bound.
"""

import gc
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson
import uvicorn

from aiproxy.middleware import AIProxyMiddleware, ConfigInvalid, load_config
from aiproxy.middleware.config import Config, insecure_public_bind
from aiproxy.reference_server import logs
from aiproxy.reference_server.app import BASE, create_app
from aiproxy.reference_server.embedded import Found, discover

_WORKER: Final = "AIPROXY_WORKER"


class StartRefused(Exception):
    """The configuration is sound but must not be served like this; the message says what to do."""


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
        StartRefused: serving it would be unsafe.
    """
    config, found = prepare(path, host=host, port=port)
    refuse_unsafe(config)
    unenforced = not_enforced(config)
    if unenforced and not allow_unenforced:
        raise StartRefused(
            "this release does not enforce " + "; ".join(unenforced) + ". Take the settings out, "
            "or start with --allow-unenforced to run without them"
        )
    on_decision = logs.set_up(config)
    for problem in config.warnings:
        _say(f"warning: {problem}")
    for text in unenforced:
        _say(f"warning: not enforced by this release: {text}")
    for line in found:
        _say(f"  {'*' if line.used else '-'} {line.name}: {line.detail}")
    count = workers or config.values["server"]["workers"]
    bind_host, bind_port = split_address(config.values["server"]["listen_addr"])
    if count > 1:
        return _serve_workers(path, host, port, count, config)
    app = create_app(config, on_decision=on_decision)
    sock = bind(bind_host, bind_port)
    tune_collector()
    return _run(app, sock, config)


def prepare(
    path: str | None, *, host: str | None = None, port: int | None = None
) -> tuple[Config, Sequence[Found]]:
    """The configuration to serve, command-line address applied, and what discovery found."""
    found: Sequence[Found] = ()
    if path is None:
        config, found = discover()
    else:
        config = load_config(path, base=BASE)
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
    found = []
    budget = values["budget"]
    if budget["enabled"] and (budget["daily_limit"] is not None or budget["monthly_limit"]):
        found.append("budget.daily_limit and budget.monthly_limit")
    if values["security"]["rate_limiting"]["enabled"]:
        found.append("security.rate_limiting")
    auth = values["security"]["auth"]
    if auth["enabled"] and auth["type"] != "api_key":
        found.append(f"security.auth.type {auth['type']}")
    if values["node"]["mesh"]["enabled"]:
        found.append("node.mesh")
    if any(key.get("rate_limit") for key in auth["api_keys"]):
        found.append("security.auth.api_keys[].rate_limit")
    if values["state"]["backend"] != "memory":
        found.append("state.backend valkey")
    if values["conversations"]["enabled"]:
        found.append("conversations")
    if values["cache"]["enabled"]:
        found.append("cache")
    return found


def split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, or ``StartRefused`` saying what is in the way."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise StartRefused(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port with --port"
        ) from None
    sock.listen(2048)
    sock.set_inheritable(True)
    return sock


def tune_collector() -> None:
    """Start-up objects live for ever: keep the collector from walking them on the request path."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            _say(f"listening on http://{shown}:{port}")


def _run(app: AIProxyMiddleware, sock: socket.socket, config: Config) -> int:
    # uvicorn raises a caught signal again once it has drained; that must not end us by signal.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    server = _Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            interface="asgi3",
            lifespan="on",
            http="httptools",
            loop="uvloop",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=2048,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, int(config.values["server"]["drain_timeout"])),
        )
    )
    server.run(sockets=[sock])
    return 0 if server.started else 1


# --- several workers -----------------------------------------------------------------------------


def _serve_workers(
    path: str | None, host: str | None, port: int | None, count: int, config: Config
) -> int:
    """``count`` processes on one socket; one that dies is started again."""
    bind_host, bind_port = split_address(config.values["server"]["listen_addr"])
    sock = bind(bind_host, bind_port)
    settings = {"path": path, "host": host, "port": port}
    os.environ[_WORKER] = orjson.dumps(settings).decode()
    stopping = False

    def stop(*_: Any) -> None:
        nonlocal stopping
        stopping = True
        for pid in children:
            os.kill(pid, signal.SIGTERM)

    children: set[int] = set()
    for _ in range(count):
        children.add(_fork(sock))
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while children:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            break
        except InterruptedError:
            continue
        children.discard(pid)
        if not stopping:
            code = os.waitstatus_to_exitcode(status)
            _say(f"worker {pid} ended with {code}; starting another")
            children.add(_fork(sock))
    sock.close()
    return 0


def _fork(sock: socket.socket) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        settings: Mapping[str, Any] = orjson.loads(os.environ[_WORKER])
        config, _ = prepare(settings["path"], host=settings["host"], port=settings["port"])
        app = create_app(config, on_decision=logs.set_up(config))
        tune_collector()
        code = _run(app, sock, config)
    except ConfigInvalid as fault:
        _say(str(fault))
        code = 2
    finally:
        os._exit(code)
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
