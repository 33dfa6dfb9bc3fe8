"""What an ensemble of three costs beside its slowest member alone, over sockets, on both mounts.

    python benchmarks/ensembles.py [--rounds 5] [--requests 20]

The members take as long as each case says. Every round asks the slowest one alone and the ensemble
in turns, in one run against one process; medians of all requests count, and their ratio against a
target (UNI-BENCH-003 asks for less than 3). ``0,0,0`` answers at once: there the difference is what
the ensemble itself takes.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import payloads
import processes
from peers import CHAT, HERE
from tables import median, table

#: The most an ensemble may take, in times of its slowest member, where that takes 50 ms or more.
TARGET: Final = 1.2
CASES: Final = ((0, 0, 0), (50, 50, 50), (100, 200, 300))
MOUNTS: Final = ("asgi", "wsgi")
#: Milliseconds from which on a case counts: below, the ratio is of the router with itself.
_COUNTS_FROM: Final = 50

Figures = dict[str, dict[str, float]]


def main(rounds: int = 5, requests: int = 20) -> tuple[Figures, list[str]]:
    """Print the table; return the figures and what missed its target or failed."""
    found: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = processes.free_port()
        upstream = processes.start(
            [sys.executable, HERE / "fake_upstream.py", port],
            processes.LOAD_CPU,
            folder / "upstream.log",
        )
        try:
            processes.wait_for_port(port, upstream)
            for mount in MOUNTS:
                for case in CASES:
                    row = _measured(folder, mount, case, port, rounds, requests)
                    found[f"{mount} {_named(case)}"] = row
        finally:
            processes.stop(upstream)
    head = ["mount", "members, ms", "slowest alone, ms", "ensemble, ms", "ratio"]
    rows = [
        [*key.split(" ", 1), row["single"], row["ensemble"], row["ratio"]]
        for key, row in found.items()
    ]
    print(table(head, rows))
    slow = [
        f"{key}: {row['ratio']:.2f} times the slowest member, more than {TARGET:g}"
        for key, row in found.items()
        if row["slowest"] >= _COUNTS_FROM and row["ratio"] > TARGET
    ]
    return found, slow


def _named(case: Sequence[int]) -> str:
    return ",".join(map(str, case))


def _measured(
    folder: Path, mount: str, case: Sequence[int], upstream: int, rounds: int, requests: int
) -> dict[str, float]:
    port = processes.free_port()
    config = folder / f"ensemble-{port}.json"
    config.write_text(json.dumps(configuration(case, upstream)))
    gateway = processes.start(
        command(mount, port),
        processes.GATEWAY_CPU,
        folder / f"{mount}-{port}.log",
        env={"PYTHONPATH": str(HERE / "apps"), "BENCH_CONFIG": str(config)},
        cwd=folder,
    )
    slowest = case.index(max(case))
    alone, together = (
        payloads.request(f"m{slowest}", "small"),
        payloads.request("ensemble/three", "small"),
    )
    single: list[float] = []
    joint: list[float] = []
    try:
        processes.wait_for_port(port, gateway)
        line = HTTPConnection("127.0.0.1", port, timeout=30)
        for body in (alone, together) * 3:  # connections are open, code is warm
            _ask(line, body)
        for number in range(rounds):
            pairs = [(single, alone), (joint, together)]
            for _ in range(max(1, requests // rounds)):
                for into, body in pairs if number % 2 == 0 else pairs[::-1]:
                    into.append(_ask(line, body))
        line.close()
    finally:
        processes.stop(gateway)
    one, all_three = median(single), median(joint)
    return {"slowest": max(case), "single": one, "ensemble": all_three, "ratio": all_three / one}


def configuration(case: Sequence[int], upstream: int) -> dict[str, object]:
    """A provider a member, each as slow as the case says, and the ensemble of them."""
    providers = {
        f"p{place}": {
            "type": "openai_compatible",
            "endpoint": f"http://127.0.0.1:{upstream}/{delay_ms}/v1",
            "models": [{"name": f"m{place}", "model": "mock", "cost_per_1k_tokens": 0.001}],
        }
        for place, delay_ms in enumerate(case)
    }
    members = [{"model": f"m{place}"} for place in range(len(case))]
    return {
        "providers": providers,
        "routing": {"scope": "all", "ensembles": {"three": {"members": members}}},
        "observability": {"logging": {"level": "warn"}},
    }


def command(mount: str, port: int) -> list[object]:
    """How a mount is served: uvicorn, or gunicorn with threads."""
    if mount == "asgi":
        return [
            *(sys.executable, "-m", "uvicorn", "page:mounted", "--host", "127.0.0.1"),
            *("--port", port, "--log-level", "warning", "--no-access-log"),
        ]
    return [
        *(sys.executable, "-m", "gunicorn", "wsgi_page:mounted", "-b", f"127.0.0.1:{port}"),
        *("-w", 1, "-k", "gthread", "--threads", 64, "--keep-alive", 600, "--log-level", "warning"),
    ]


def _ask(line: HTTPConnection, body: bytes) -> float:
    """The milliseconds of one request; an answer that is not 200 ends the run."""
    began = time.perf_counter()
    line.request("POST", CHAT, body, {"content-type": "application/json"})
    reply = line.getresponse()
    said = reply.read()
    if reply.status != 200:
        raise RuntimeError(f"status {reply.status}: {said[:200]!r}")
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20, help="of each kind and case")
    given = parser.parse_args()
    _, missed = main(given.rounds, given.requests)
    for fault in missed:
        print(f"MISSED: {fault}", file=sys.stderr)
    sys.exit(1 if missed else 0)
