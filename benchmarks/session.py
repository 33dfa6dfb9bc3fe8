"""A run: upstreams and peers up, each checked with real requests, then measured and taken down."""

import json
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import payloads
import peers
import processes
from upstreams import Upstreams

HERE = Path(__file__).parent
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Broken(Exception):
    """A peer did not answer, or answered wrongly."""


class Session:
    """``failed`` names the peers that were asked for and do not work, with the reason."""

    def __init__(self, folder: Path, *, programs: dict[str, str], plain: bool = False) -> None:
        self.folder = folder
        #: how long a peer may take from its start to its first good answer
        self.patience_s = 10.0 if plain else 60.0
        self.programs = programs
        self.up = Upstreams(folder, use_nginx=not plain)
        self.wrk = None if plain else shutil.which("wrk")
        self.peers: list[peers.Peer] = []
        self.failed: dict[str, str] = {}
        self.startup_s: dict[str, float] = {}
        self._jobs = 0

    @property
    def load(self) -> str:
        return "wrk" if self.wrk else "load.py"

    def add(self, name: str, kinds: Sequence[str]) -> peers.Peer | None:
        """Start a peer and check one request of each kind it takes; note it when it fails."""
        try:
            peer = peers.make(name, self.folder, self.up, self.programs)
        except peers.Missing as missing:
            _say(f"left out: {name}: {missing}")
            return None
        try:
            self.startup_s[name] = self.start(peer, kinds)
            for kind in kinds:
                if kind in peer.kinds:
                    self.check(peer, kind)
        except (Broken, OSError, RuntimeError) as error:
            self.failed[name] = str(error)
            _say(f"failed: {name}: {error}")
            peer.stop()
            return None
        except BaseException:
            peer.stop()
            raise
        self.peers.append(peer)
        _say(f"ready: {name} after {self.startup_s[name]:.2f} s, {peer.rss_mib():.0f} MiB")
        return peer

    def start(self, peer: peers.Peer, kinds: Sequence[str]) -> float:
        """Seconds from the start of the process to its first good answer."""
        kind = next((k for k in kinds if k in peer.kinds), next(iter(sorted(peer.kinds))))
        began = time.monotonic()
        peer.start(self.folder)
        while True:
            try:
                self.check(peer, kind)
                return time.monotonic() - began
            except (Broken, OSError):
                ended = peer.process is not None and peer.process.poll() is not None
                if ended or time.monotonic() - began > self.patience_s:
                    raise
                time.sleep(0.02)

    def body(self, peer: peers.Peer, kind: str) -> Path | None:
        if kind == "page":
            return None
        name = peer.model(kind)
        path = self.folder / f"{kind}-{name}.json"
        if not path.exists():
            path.write_bytes(payloads.request(name, kind))
        return path

    def check(self, peer: peers.Peer, kind: str) -> bytes:
        """One request, and its answer looked at."""
        body = self.body(peer, kind)
        request = urllib.request.Request(
            peer.url(kind),
            body.read_bytes() if body else None,
            {"Content-Type": "application/json", **dict(peer.headers(kind))},
        )
        try:
            with _OPENER.open(request, timeout=30) as reply:
                answer: bytes = reply.read()
        except urllib.error.HTTPError as error:
            raise Broken(f"{kind}: status {error.code}: {error.read()[:300]!r}") from None
        wanted = b"ok" if kind == "page" else b"choices"
        if wanted not in answer or (kind in payloads.STREAMED and answer.count(b"data: ") < 90):
            raise Broken(f"{kind}: not the answer asked for: {answer[:300]!r}")
        return answer

    def answers(
        self, peer: peers.Peer, kind: str, connections: int, seconds: float
    ) -> dict[str, float]:
        """req/s, p50, p99 (ms), bad, and CPU (us a request) of one run of whole answers."""
        body = self.body(peer, kind)
        before = peer.cpu_s()
        if self.wrk:
            argv = [self.wrk, "-t1", f"-c{connections}", f"-d{max(1, int(seconds))}s"]
            argv += ["--timeout", "20s", "-s", str(HERE / "wrk.lua")]
            for name, value in peer.headers(kind):
                argv += ["-H", f"{name}: {value}"]
            argv += [peer.url(kind), "--", *([str(body)] if body else [])]
        else:
            argv = self._job(peer, kind, connections=connections, seconds=seconds)
        found = _run(argv, seconds + 60)
        found["cpu"] = (peer.cpu_s() - before) / max(found["requests"], 1) * 1e6
        return found

    def streams(self, peer: peers.Peer, kind: str, connections: int, each: int) -> dict[str, float]:
        """ttfb, ttfb_p99, gap_p99 (ms), events_s, bad, and CPU (us an event) of one run."""
        before = peer.cpu_s()
        argv = self._job(peer, kind, connections=connections, streams=each, events=payloads.EVENTS)
        found = _run(argv, 120)
        found["cpu"] = (peer.cpu_s() - before) / max(found["events"], 1) * 1e6
        return found

    def _job(self, peer: peers.Peer, kind: str, **more: Any) -> list[str]:
        self._jobs += 1
        body = self.body(peer, kind)
        job = {
            "url": peer.url(kind),
            "method": "POST" if body else "GET",
            "headers": list(peer.headers(kind)),
            "body": str(body) if body else None,
            **more,
        }
        path = self.folder / f"job-{self._jobs}.json"
        path.write_text(json.dumps(job))
        return [sys.executable, str(HERE / "load.py"), str(path)]

    def close(self) -> None:
        for peer in self.peers:
            peer.stop()
        self.up.stop()


@contextmanager
def session(
    names: Sequence[str],
    kinds: Sequence[str],
    *,
    programs: dict[str, str] | None = None,
    plain: bool = False,
) -> Iterator[Session]:
    """Everything up and checked. ``plain`` uses neither nginx nor wrk."""
    with tempfile.TemporaryDirectory(prefix="aiproxy-bench-") as folder:
        found = Session(Path(folder), programs=programs or {}, plain=plain)
        try:
            for name in names:
                found.add(name, kinds)
            yield found
        finally:
            found.close()


def _run(argv: Sequence[str], timeout_s: float) -> dict[str, float]:
    try:
        printed = processes.run(argv, processes.LOAD_CPU, timeout_s)
    except RuntimeError as error:
        raise Broken(f"the load generator: {error}") from None
    found: dict[str, float] = json.loads(printed.strip().splitlines()[-1])
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
