"""The providers of a benchmark: nginx for whole answers where it is installed, ours for streams."""

import shutil
import subprocess
import sys
from pathlib import Path

import payloads
import processes

HERE = Path(__file__).parent


class Upstreams:
    """``base[name]`` is the base URL, with /v1, of small, large, bad, sse, paced and dead."""

    def __init__(self, folder: Path, *, use_nginx: bool = True) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        try:
            self._start_all(folder, use_nginx)
        except Exception:
            self.stop()
            raise

    def _start_all(self, folder: Path, use_nginx: bool) -> None:
        port = processes.free_port()
        self._start([sys.executable, HERE / "fake_upstream.py", port], folder, port)
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        self.name = "python"
        fast = port
        if use_nginx and nginx:
            fast = processes.free_port()
            self.name = "nginx"
            self._start([nginx, "-c", _nginx_file(folder, fast), "-p", folder], folder, fast)
        # nothing listens here: a connection is refused
        ports = {"sse": port, "paced": port, "dead": processes.free_port()}
        self.base = {
            name: f"http://127.0.0.1:{ports.get(name, fast)}/{name}/v1"
            for name in ("small", "large", "bad", "sse", "paced", "dead")
        }

    def _start(self, argv: list[object], folder: Path, port: int) -> None:
        process = processes.start(argv, processes.LOAD_CPU, folder / f"upstream-{port}.log")
        self._running.append(process)
        processes.wait_for_port(port, process)

    def routes(self) -> dict[str, list[str]]:
        """Model name -> base URLs in the order they are asked."""
        return {
            payloads.model(kind): [self.base[name] for name in payloads.targets(kind)]
            for kind in payloads.KINDS
        }

    def stop(self) -> None:
        for process in self._running:
            processes.stop(process)


def _nginx_file(folder: Path, port: int) -> Path:
    locations = "".join(
        f"location /{kind}/ {{ default_type application/json; "
        f"{_nginx_return(payloads.answer(kind).decode())} }}\n"
        for kind in ("small", "large")
    )
    path = folder / "nginx-upstream.conf"
    path.write_text(
        nginx_frame(
            folder,
            "upstream",
            f"server {{ listen 127.0.0.1:{port} backlog=4096;\n{locations}"
            "location /bad/ { default_type application/json; "
            'return 500 \'{"error":{"message":"broken on purpose","code":null}}\'; } }',
        )
    )
    return path


def _nginx_return(text: str) -> str:
    """nginx takes at most 4096 octets a parameter, so a long text comes in parts."""
    parts = [text[at : at + 3000] for at in range(0, len(text), 3000)]
    assigned = "".join(f"set $part{i} '{part}'; " for i, part in enumerate(parts))
    return assigned + 'return 200 "' + "".join(f"${{part{i}}}" for i in range(len(parts))) + '";'


def nginx_frame(folder: Path, name: str, http: str) -> str:
    """A whole nginx configuration: one worker in the foreground, no access log."""
    return (
        f"daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.err;\n"
        "events { worker_connections 8192; }\n"
        "http { access_log off; keepalive_requests 1000000000; client_max_body_size 10m; "
        f"client_body_buffer_size 64k; client_body_temp_path {folder}/{name}-body; "
        f"proxy_temp_path {folder}/{name}-proxy; fastcgi_temp_path {folder}/{name}-fcgi; "
        f"uwsgi_temp_path {folder}/{name}-uwsgi; scgi_temp_path {folder}/{name}-scgi;\n"
        f"{http} }}\n"
    )
