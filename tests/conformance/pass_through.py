"""A gateway that knows nothing: each request goes to the provider that has its model.

``with PassThrough(config)`` serves in this process, ``python pass_through.py CONFIG PORT`` in one
of its own. Defects: ``dies-after=N`` requests, ``port-only`` (listens and never answers).
"""

import json
import os
import signal
import sys
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import yaml


class PassThrough(ThreadingHTTPServer):
    """Serves until the ``with`` block ends."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, config: dict[str, Any], port: int = 0, *defects: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.providers = list(config["providers"].values())
        self.default = config["providers"][config["routing"]["default_provider"]]
        self.dies_after = next((int(d[11:]) for d in defects if d.startswith("dies-after=")), 0)
        self.numbers = count(1)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 20
    server: PassThrough

    def log_message(self, *words: object) -> None:
        """Silence."""

    def do_POST(self) -> None:
        if next(self.server.numbers) == self.server.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        length = self.headers.get("Content-Length")
        if length is None or not length.isdecimal():
            return self.refuse(411, "a length is needed")
        body = self.rfile.read(int(length))
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            return self.refuse(400, "not JSON")
        wanted = data.get("model") if isinstance(data, dict) else None
        if not isinstance(wanted, str):
            return self.refuse(400, "a model is needed")
        for provider in self.server.providers:
            for model in provider["models"]:
                if model["name"] == wanted:
                    data["model"] = model["model"]
                    return self.forward(provider, json.dumps(data).encode())
        return self.refuse(404, f"no model {wanted!r}")

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self.refuse(404, "no such path")
        models = {model["name"] for p in self.server.providers for model in p["models"]}
        entries = [
            {"id": name, "object": "model", "created": 1700000000, "owned_by": "x"}
            for name in sorted(models)
        ]
        return self.answer(200, {"object": "list", "data": entries})

    def forward(self, provider: dict[str, Any], body: bytes) -> None:
        at = urlsplit(provider["endpoint"])
        there = HTTPConnection(at.hostname or "", at.port, timeout=10)
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {provider['credentials']['api_key']}",
        }
        try:
            there.request("POST", at.path + self.path.removeprefix("/v1"), body, headers)
            answer = there.getresponse()
            content = answer.read()
        except OSError as fault:
            return self.refuse(502, str(fault))
        finally:
            there.close()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, status: int, message: str) -> None:
        self.close_connection = True
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        self.answer(status, {"error": error})

    def answer(self, status: int, data: dict[str, Any]) -> None:
        content = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    path, port, *defects = sys.argv[1:]
    PassThrough(yaml.safe_load(Path(path).read_text()), int(port), *defects).serve_forever()
