"""Whether the machine stood still, and once more what failed while it did.

Many tests bound a wait in wall time. On a shared machine everything may stop for seconds, and a
test that was hit says nothing about the product. A second process, which only sleeps, on each core,
sees such a stall; the product's own blocking is none, it does not hold up another process. A ``conftest.py``
takes part by importing the four hooks.
"""

import os
import subprocess
import sys
import time
from typing import Any, Final

import pytest
from _pytest.runner import runtestprotocol

#: A sleep of 20 ms that took this much longer is a stall; waiting for a busy core stays below.
STALL_S: Final = 0.15
_WATCH: Final = f"""
import os, threading, time
parent = os.getppid()

def watch(core):
    os.sched_setaffinity(0, {{core}})  # one core may stand still while the others go on
    last = time.monotonic()
    while os.getppid() == parent:
        time.sleep(0.02)
        now = time.monotonic()
        if now - last > {STALL_S + 0.02}:
            os.write(1, b"%.3f " % (now - last))
        last = now

cores = [threading.Thread(target=watch, args=(core,)) for core in os.sched_getaffinity(0)]
for each in cores:
    each.start()
for each in cores:
    each.join()
"""
_AGAIN: Final = "ran again, for the machine stood still"


class Stalls:
    """Watches from ``start`` to ``stop``; not thread-safe."""

    def __init__(self) -> None:
        self.watch: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-I", "-S", "-c", _WATCH]
        self.watch = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.watch.stdout is not None
        os.set_blocking(self.watch.stdout.fileno(), False)

    def take(self) -> float:
        """Return how many seconds the machine, or a core of it, stood still at most since the last
        call."""
        if self.watch is None or self.watch.stdout is None:
            return 0.0
        try:
            told = os.read(self.watch.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return 0.0
        return max((float(each) for each in told.split()), default=0.0)

    def take_late(self) -> float:
        """The same, once the watching process had its turn, too."""
        time.sleep(0.1)
        return self.take()

    def stop(self) -> None:
        if self.watch is not None:
            self.watch.kill()
            self.watch.communicate()
            self.watch = None


stalls = Stalls()


def pytest_sessionstart(session: pytest.Session) -> None:
    others = not hasattr(session.config, "workerinput") and session.config.getoption(
        "numprocesses", None
    )
    if not others:
        stalls.start()


def pytest_sessionfinish() -> None:
    stalls.stop()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    stalls.take()
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if any(report.failed for report in reports) and (seconds := stalls.take_late()):
        item._initrequest()  # type: ignore[attr-defined]
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        for report in reports:
            report.user_properties.append((_AGAIN, round(seconds, 2)))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, seconds in report.user_properties if report.when == "call" else ():
                if name == _AGAIN:
                    terminalreporter.write_line(f"{report.nodeid} {name}: {seconds} s")
