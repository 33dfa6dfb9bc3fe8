"""Processes of a benchmark: started pinned to one CPU, measured through /proc, ended by their id.

Linux only. CPU time is user plus system time of the whole process tree, in ticks of 10 ms.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CPUS = sorted(os.sched_getaffinity(0))
#: The gateway has a CPU of its own; upstream and load share another, so that they disturb nobody.
GATEWAY_CPU = int(os.environ.get("BENCH_GATEWAY_CPU", _CPUS[0]))
LOAD_CPU = int(os.environ.get("BENCH_LOAD_CPU", _CPUS[1 % len(_CPUS)]))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(
    argv: Sequence[object],
    cpu: int,
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` pinned to ``cpu``, output to ``log``."""
    given = {**os.environ, **(env or {})}
    given.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package starts from bytecode
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            env=given,
            cwd=cwd,
        )
    os.sched_setaffinity(process.pid, {cpu})  # what it starts later inherits this
    return process


def run(argv: Sequence[str], cpu: int, timeout_s: float) -> str:
    """Run ``argv`` to its end pinned to ``cpu``; return what it printed.

    Raises:
        RuntimeError: it failed, or took longer.
    """
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        os.sched_setaffinity(process.pid, {cpu})
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RuntimeError(f"{argv[0]} took longer than {timeout_s:g} s") from None
    if process.returncode:
        raise RuntimeError(f"{argv[0]} failed: {err[-400:]}")
    return out


def wait_for_port(
    port: int, process: subprocess.Popen[bytes] | None = None, timeout_s: float = 120
) -> None:
    """Return once 127.0.0.1:``port`` accepts; raise when the process ended or time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            time.sleep(0.01)
    raise TimeoutError(f"nothing listens on port {port} after {timeout_s:g} s")


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found, rest = [], [pid]
    while rest:
        one = rest.pop()
        found.append(one)
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                rest += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def rss_mib(pid: int) -> float:
    total = 0
    for one in tree(pid):
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except OSError:
            continue
    return total * _PAGE / 2**20


def cpu_s(pid: int) -> float:
    total = 0
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            continue
    return total / _TICK


def stop(process: subprocess.Popen[bytes]) -> None:
    """End exactly what ``start`` began: TERM, then KILL for what is left."""
    members = tree(process.pid)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in members:
            try:
                os.kill(pid, sign)
            except OSError:
                continue
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
        members = [pid for pid in members if Path(f"/proc/{pid}").exists()]
        if not members:
            return
