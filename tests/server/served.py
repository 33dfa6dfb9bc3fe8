"""``aiproxy serve`` as a real process, and the upstreams it is given."""

import base64
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mounts import Client
from upstreams import Script, Seen, Upstream

COMMANDS = Path(sys.executable).parent
AIPROXY = str(COMMANDS / "aiproxy")
#: Starting takes about a second; a busy machine gets its time.
START_S = 60.0


KEYS = {"anna": "anna-key-canary-0001", "ben": "ben-key-canary-00002"}
ANNA = {"authorization": f"Bearer {KEYS['anna']}"}
BEN = {"authorization": f"Bearer {KEYS['ben']}"}


@dataclass
class Served(Client):
    """A running server. ``out`` and ``err`` are the files its two streams go to."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log so far: each line is one JSON object."""
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def line_of(self, request_id: str) -> dict[str, Any]:
        """The one log line of a request, which is written before its answer is over or soon after."""
        found = until(lambda: [x for x in self.lines if x.get("request_id") == request_id])
        assert len(found) == 1, f"{request_id}: {found}"
        return found[0]

    def stop(self, number: int = signal.SIGTERM, within: float = 20.0) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(within)


def until(condition: Callable[[], Any], within_s: float = 10.0) -> Any:
    """Wait for something another process does; return what ``condition`` then gives."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
    return found


def environment(**more: str) -> dict[str, str]:
    """This process's environment without anybody's keys or proxies."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith(("_API_KEY", "_API_TOKEN", "_PROXY", "_ACCOUNT_ID"))
    }
    return {**kept, **more}


def write_config(folder: Path, config: Mapping[str, Any]) -> Path:
    file = folder / "aiproxy.json"
    file.write_text(json.dumps(config))
    return file


@contextmanager
def serve(
    folder: Path,
    config: Mapping[str, Any] | Path | None = None,
    *options: str,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = (AIPROXY, "serve"),
) -> Iterator[Served]:
    """A server on a free port until the block ends; returns once ``/readyz`` is 200."""
    folder.mkdir(parents=True, exist_ok=True)
    given: list[str] = []
    if config is not None:
        file = config if isinstance(config, Path) else write_config(folder, config)
        given = ["--config", str(file)]
    out, err = folder / "out", folder / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, "--port", "0", *given, *options],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment(**(env or {})),
            cwd=folder,
        )
    try:
        server = Served(_port(process, err), process, out, err)
        _wait_ready(server)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        if process.poll() is None:
            process.kill()
            process.wait(10)


def _port(process: subprocess.Popen[bytes], err: Path) -> int:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in err.read_text().splitlines():
            if line.startswith("listening on http://"):
                return int(line.rpartition(":")[2])
        time.sleep(0.02)
    raise AssertionError(f"the server did not start: {err.read_text()}")


def _wait_ready(server: Served) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.get("/readyz").status == 200:
            return
        time.sleep(0.02)
    raise AssertionError(f"the server is not ready: {server.err.read_text()}")


def run(
    *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, cwd: Any = None
) -> Any:
    """Run ``aiproxy`` to its end; texts in ``stdout`` and ``stderr``."""
    done = subprocess.run(
        [AIPROXY, *arguments],
        input=stdin,
        capture_output=True,
        env=environment(**(env or {})),
        cwd=cwd,
        timeout=60,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


class EmbeddingUpstream(Upstream):
    """An upstream that gives vectors in the encoding it is asked for."""

    def _reply(self, seen: Seen, script: Script) -> dict[str, Any]:
        reply = super()._reply(seen, script)
        if seen.body.get("encoding_format") == "base64":
            for row in reply["data"]:
                packed = struct.pack("<3f", *row["embedding"])
                row["embedding"] = base64.b64encode(packed).decode()
        return reply


def provider(
    upstream: Upstream, *models: Mapping[str, Any] | str, **members: Any
) -> dict[str, Any]:
    """A configuration entry for an upstream; a model may be given by its name."""
    rows = [{"name": row} if isinstance(row, str) else dict(row) for row in models]
    return {"type": "openai_compatible", "endpoint": upstream.url, "models": rows, **members}


@dataclass
class Pair:
    """A server in front of two upstreams; ``b`` speaks the Responses API too."""

    server: Served
    a: Upstream
    b: Upstream

    def reset(self) -> None:
        for upstream in (self.a, self.b):
            upstream.script = Script()
            upstream.queue.clear()
            upstream.seen.clear()


def pair_config(a: Upstream, b: Upstream, **members: Any) -> dict[str, Any]:
    """Both serve ``shared``; ``a`` is preferred, cheaper and of lower quality."""
    embed = {"name": "vectors", "capabilities": ["embeddings"], "cost_per_1k_tokens": 0.0001}
    cheap = {"name": "shared", "cost_per_1k_tokens": 0.001, "quality": 0.6}
    dear = {"name": "shared", "model": "shared-at-b", "cost_per_1k_tokens": 0.01, "quality": 0.9}
    big = {"name": "only-b", "price": {"input": 0.002, "output": 0.008}, "quality": 0.95}
    return {
        "node": {"id": "node-under-test"},
        "routing": {"failover": {"same_provider_retries": 0}},
        "providers": {
            "a": provider(a, cheap, "only-a", embed, priority=1),
            "b": provider(b, dear, big, priority=2, dialects=["chat", "responses"]),
        },
        **members,
    }
