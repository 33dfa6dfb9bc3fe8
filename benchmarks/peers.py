"""What can be measured: how each gateway is started and how a request is addressed to it.

Names: *direct*, *nginx*, *raw* (our bare aiohttp proxy), *page* (a tiny ASGI application), *page+mw*
(the same inside the middleware), *asgi*, *wsgi*, *server*, *server+headers*, *litellm*, *portkey*,
and any other OpenAI-compatible gateway given as ``name=command``.
"""

import json
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import configurations
import payloads
import processes
from upstreams import Upstreams, nginx_frame

HERE = Path(__file__).parent
Headers = Sequence[tuple[str, str]]
CHAT = "/v1/chat/completions"


@dataclass
class Peer:
    """A gateway. ``command`` is empty for the direct line; functions take a kind of request."""

    name: str
    command: list[object] = field(default_factory=list)
    port: int = 0
    env: dict[str, str] = field(default_factory=dict)
    url: Callable[[str], str] = lambda kind: ""
    headers: Callable[[str], Headers] = lambda kind: ()
    model: Callable[[str], str] = payloads.model
    kinds: frozenset[str] = frozenset(payloads.KINDS)
    process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path) -> None:
        if self.command:
            log = folder / f"{self.name}.log"
            self.process = processes.start(
                self.command, processes.GATEWAY_CPU, log, env=self.env, cwd=folder
            )
            processes.wait_for_port(self.port, self.process)

    def stop(self) -> None:
        if self.process is not None:
            processes.stop(self.process)
            self.process = None

    def cpu_s(self) -> float:
        return processes.cpu_s(self.process.pid) if self.process is not None else 0.0

    def rss_mib(self) -> float:
        return processes.rss_mib(self.process.pid) if self.process is not None else 0.0


class Missing(Exception):
    """A peer cannot be started here; the message says what it needs."""


def make(name: str, folder: Path, up: Upstreams, programs: dict[str, str]) -> Peer:
    """The peer ``name``. ``programs`` are commands by name: litellm, portkey, or any other.

    Raises:
        Missing: its program is not here.
    """
    port = processes.free_port()
    maker = _MAKERS.get(name)
    if maker is not None:
        peer = maker(name, port, folder, up, programs)
    elif name in programs:
        peer = _command(name, port, folder, up, programs[name])
    else:
        raise Missing(f"unknown peer; give --peer {name}='command with {{port}} {{routes}}'")
    return peer


def _at(port: int) -> Callable[[str], str]:
    return lambda kind: f"http://127.0.0.1:{port}{CHAT}"


def _direct(name: str, port: int, folder: Path, up: Upstreams, _: dict[str, str]) -> Peer:
    return Peer(name, url=lambda kind: up.base[payloads.targets(kind)[-1]] + "/chat/completions")


def _nginx(name: str, port: int, folder: Path, up: Upstreams, _: dict[str, str]) -> Peer:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise Missing("nginx is not installed")
    http = "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_intercept_errors on;\n"
    servers = {url.split("/")[2] for url in up.base.values()}
    tags = {server: f"u{number}" for number, server in enumerate(sorted(servers))}
    for server, tag in tags.items():
        http += (
            f"upstream {tag} {{ server {server} max_fails=0; keepalive 512; "
            "keepalive_requests 1000000000; }\n"
        )
    http += f"server {{ listen 127.0.0.1:{port} backlog=4096;\n"

    def place(base: str) -> str:
        _, _, server, path = base.split("/", 3)
        return f"http://{tags[server]}/{path}/chat/completions"

    for kind in payloads.KINDS:
        first, *rest = (up.base[target] for target in payloads.targets(kind))
        buffering = "proxy_buffering off; " if kind in payloads.STREAMED else ""
        http += f"location = /{kind} {{ {buffering}proxy_pass {place(first)}; "
        if rest:
            path = "/" + rest[0].split("/", 3)[3] + "/chat/completions"
            tag = tags[rest[0].split("/")[2]]
            http += f"error_page 500 502 = @{kind}; }} location @{kind} {{ rewrite ^ {path} break; "
            http += f"proxy_pass http://{tag}; "
        http += "}\n"
    config = folder / "nginx-gateway.conf"
    config.write_text(nginx_frame(folder, "gateway", http + "}"))
    return Peer(
        name,
        [program, "-c", config, "-p", folder],
        port,
        url=lambda kind: f"http://127.0.0.1:{port}/{kind}",
    )


def _uvicorn(target: str, port: int) -> list[object]:
    return [
        *(sys.executable, "-m", "uvicorn", target, "--port", port, "--loop", "uvloop"),
        *("--http", "httptools", "--no-access-log", "--log-level", "warning"),
        *("--lifespan", "off", "--no-server-header", "--no-date-header", "--backlog", 2048),
    ]


def _raw(name: str, port: int, folder: Path, up: Upstreams, _: dict[str, str]) -> Peer:
    env = {"PYTHONPATH": str(HERE / "apps"), "BENCH_ROUTES": str(routes_file(folder, up))}
    return Peer(name, _uvicorn("raw_proxy:app", port), port, env, _at(port))


def _page(name: str, port: int, folder: Path, up: Upstreams, _: dict[str, str]) -> Peer:
    config = configurations.aiproxy(folder, up.base, port, scope="opt_in", level="warn")
    env = {"PYTHONPATH": str(HERE / "apps"), "BENCH_CONFIG": str(config)}
    attribute = "mounted" if name == "page+mw" else "bare"
    return Peer(
        name, _uvicorn(f"page:{attribute}", port), port, env, _at(port), kinds=frozenset({"page"})
    )


def _asgi(name: str, port: int, folder: Path, up: Upstreams, _: dict[str, str]) -> Peer:
    config = configurations.aiproxy(folder, up.base, port, scope="opt_in", level="warn")
    env = {"PYTHONPATH": str(HERE / "apps"), "BENCH_CONFIG": str(config)}
    enabled = (("X-AI-Multi-Provider", "enabled"),)
    return Peer(
        name, _uvicorn("page:mounted", port), port, env, _at(port), headers=lambda kind: enabled
    )


def _wsgi(name: str, port: int, folder: Path, up: Upstreams, _: dict[str, str]) -> Peer:
    config = configurations.aiproxy(folder, up.base, port, scope="opt_in", level="warn")
    env = {"PYTHONPATH": str(HERE / "apps"), "BENCH_CONFIG": str(config)}
    command = [
        *(sys.executable, "-m", "gunicorn", "wsgi_page:mounted", "-b", f"127.0.0.1:{port}"),
        *("-w", 1, "-k", "gthread", "--threads", 64, "--keep-alive", 600, "--log-level", "warning"),
    ]
    enabled = (("X-AI-Multi-Provider", "enabled"),)
    return Peer(name, command, port, env, _at(port), headers=lambda kind: enabled)


def _server(name: str, port: int, folder: Path, up: Upstreams, _: dict[str, str]) -> Peer:
    level = "info" if name == "server+log" else "warn"
    config = configurations.aiproxy(folder, up.base, port, scope="all", level=level)
    program = Path(sys.executable).parent / "aiproxy"
    if not program.exists():
        raise Missing("the aiproxy command is not installed beside this Python")
    command = [program, "serve", "--config", config, "--port", port]
    if name != "server+headers":
        return Peer(name, command, port, url=_at(port))
    return Peer(
        name,
        command,
        port,
        url=_at(port),
        headers=lambda kind: payloads.X_AI,
        model=lambda kind: "auto",
        kinds=frozenset({"small"}),
    )


def _litellm(name: str, port: int, folder: Path, up: Upstreams, programs: dict[str, str]) -> Peer:
    program = programs.get(name) or shutil.which("litellm")
    if program is None:
        raise Missing("give --peer litellm=/path/to/litellm")
    # It insists on a key of its own and checks it.
    key = "sk-" + secrets.token_hex(24)
    config = configurations.litellm(folder, up.routes())
    command = [*shlex.split(program), "--config", config, "--host", "127.0.0.1", "--port", port]
    env = {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_TELEMETRY": "False",
        "NO_DOCS": "True",
        "DISABLE_ADMIN_UI": "True",
    }
    bearer = (("Authorization", f"Bearer {key}"),)
    return Peer(
        name, [*command, "--num_workers", 1], port, env, _at(port), headers=lambda kind: bearer
    )


def _portkey(name: str, port: int, folder: Path, up: Upstreams, programs: dict[str, str]) -> Peer:
    program = programs.get(name)
    if program is None:
        raise Missing("give --peer portkey='node /path/@portkey-ai/gateway/build/start-server.js'")
    return Peer(
        name,
        [*shlex.split(program), f"--port={port}", "--headless"],
        port,
        {"NODE_ENV": "production"},
        _at(port),
        headers=lambda kind: configurations.portkey_headers(
            [up.base[target] for target in payloads.targets(kind)]
        ),
    )


def _command(name: str, port: int, folder: Path, up: Upstreams, template: str) -> Peer:
    routes = routes_file(folder, up)
    filled = template.replace("{port}", str(port)).replace("{routes}", str(routes))
    return Peer(name, ["sh", "-c", "exec " + filled], port, url=_at(port))


def routes_file(folder: Path, up: Upstreams) -> Path:
    """Model -> base URLs, for peers that read it."""
    path = folder / "routes.json"
    path.write_text(json.dumps(up.routes()))
    return path


_MAKERS: dict[str, Callable[[str, int, Path, Upstreams, dict[str, str]], Peer]] = {
    "direct": _direct,
    "nginx": _nginx,
    "raw": _raw,
    "page": _page,
    "page+mw": _page,
    "asgi": _asgi,
    "wsgi": _wsgi,
    "server": _server,
    "server+log": _server,
    "server+headers": _server,
    "litellm": _litellm,
    "portkey": _portkey,
}
