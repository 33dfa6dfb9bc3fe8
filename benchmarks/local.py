"""Text from a local model on the CPU: what batching gains, and what the server takes beside it.

    python benchmarks/local.py [--rounds 3] [--tokens 64] [--streams 16] [--size small|medium]
        [--worker thread|process]

A random-weight Llama is made on the spot. Every round measures, interleaved: the adapter by itself
(``apps/local_raw.py``), streams through the server one after another, and many at once. Tokens a
second are what the server's own usage says. While many stream, a task on the server's event loop
notes how late it is called. Nothing is pinned: the model, the loop and the load share the machine's
CPUs as they would outside.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Final

import processes
from peers import HERE
from streaming import streamed
from tables import median, table

sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from tiny_models import Shape, make_tiny_llama

#: Targets: many streams over one after another; the server over the adapter; event loop lateness.
GAIN: Final = 4.0
SHARE: Final = 0.9
LAG_MS: Final = 5.0
SIZES: Final = {
    "small": Shape(hidden=256, inner=704, layers=4, heads=4, kv_heads=2),
    "medium": Shape(hidden=512, inner=1408, layers=8, heads=8, kv_heads=4),
}

Figures = dict[str, float]


def main(
    rounds: int = 3,
    tokens: int = 64,
    streams: int = 16,
    size: str = "medium",
    worker: str = "thread",
) -> tuple[dict[str, Figures], list[str]]:
    """Print the table; return the figures and what missed its target or failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_tiny_llama(folder / "model", paged=False, shape=SIZES[size])
        found = asyncio.run(_measured(folder, model, rounds, tokens, streams, worker))
    print(table(["figure", "value"], [[key, value] for key, value in found.items()]))
    missed = []
    if found["many over one"] < GAIN:
        missed.append(f"{streams} streams give {found['many over one']:.2f} x, less than {GAIN:g}")
    if found["server over adapter"] < SHARE:
        missed.append(f"the server reaches {found['server over adapter']:.2f} of the adapter")
    if found["loop p99, ms"] > LAG_MS:
        missed.append(f"event loop p99 {found['loop p99, ms']:.1f} ms, more than {LAG_MS:g}")
    return {"local": found}, missed


async def _measured(
    folder: Path, model: Path, rounds: int, tokens: int, streams: int, worker: str
) -> Figures:
    port = processes.free_port()
    config = folder / "local.json"
    config.write_text(json.dumps(configuration(model, streams, worker)))
    server = serve(config, port, folder / "server.log")
    one: list[float] = []
    many: list[float] = []
    first: list[float] = []
    raw: list[Figures] = []
    lags: list[Figures] = []
    try:
        await asyncio.to_thread(processes.wait_for_port, port, server)
        await streamed(port, "llama", streams, 1, 4)
        for _ in range(rounds):
            one.append((await streamed(port, "llama", 1, 2, tokens)).speed)
            raw.append(await asyncio.to_thread(adapter, model, streams, tokens))
            lag(port)
            together = await streamed(port, "llama", streams, 2, tokens)
            many.append(together.speed)
            first.append(together.first(0.99))
            lags.append(lag(port))
    except Exception:
        print((folder / "server.log").read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        processes.stop(server)
    return {
        "one, tokens/s": median(one),
        "many, tokens/s": median(many),
        "many over one": median(a / b for a, b in zip(many, one, strict=True)),
        "adapter one, tokens/s": median(row["alone"] for row in raw),
        "adapter many, tokens/s": median(row["together"] for row in raw),
        "server over adapter": median(
            a / row["together"] for a, row in zip(many, raw, strict=True)
        ),
        "first text p99, ms": median(first),
        "loop p50, ms": median(row["p50"] for row in lags),
        "loop p99, ms": median(row["p99"] for row in lags),
        "loop worst, ms": max(row["worst"] for row in lags),
    }


def serve(config: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, HERE / "apps" / "local_server.py", config, str(port)]
    with log.open("ab") as out:
        return subprocess.Popen(argv, stdout=out, stderr=out)


def configuration(model: Path, streams: int, worker: str) -> dict[str, object]:
    """One local provider; the decisions' own log is off, as in the other benchmarks."""
    row = {"name": "llama", "path": str(model)}
    return {
        "providers": {
            "local": {
                "type": "local",
                "max_concurrency": streams,
                "models": [row],
                "worker": worker,
            }
        },
        "observability": {"logging": {"level": "warn"}},
    }


def adapter(model: Path, streams: int, tokens: int) -> Figures:
    """What the adapter reaches in a process of its own."""
    argv = [HERE / "apps" / "local_raw.py", model, streams, 256, tokens]
    out = subprocess.run(
        [sys.executable, *map(str, argv)], check=True, capture_output=True, text=True, timeout=600
    )
    figures: Figures = json.loads(out.stdout)
    return figures


def lag(port: int) -> Figures:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/lag") as reply:
        figures: Figures = json.load(reply)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--size", choices=list(SIZES), default="medium")
    parser.add_argument("--worker", choices=["thread", "process"], default="thread")
    wanted = parser.parse_args()
    _, faults = main(wanted.rounds, wanted.tokens, wanted.streams, wanted.size, wanted.worker)
    for fault in faults:
        print(f"MISSED: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)
