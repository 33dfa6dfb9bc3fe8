"""Several processes on one socket; one that dies is started again.

The parent holds the socket and the children, nothing else. It passes SIGTERM and SIGINT on and
waits; children that find their parent gone stop by themselves, so the port is never held by
orphans.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from logging import getLogger
from typing import Any, Final, NoReturn

log = getLogger("aiproxy")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: A worker that lived less than this many seconds failed at start-up ...
_QUICK_S: Final = 2.0
#: ... and after so many of those in a row there is no point in another.
_MOST_QUICK: Final = 5


class Workers:
    """``count`` children that each run ``work(first)`` and exit with what it returns; ``first``
    tells one of them that it is the one to say where the server listens."""

    def __init__(self, count: int, work: Callable[[bool], int]) -> None:
        self._count = count
        self._work = work
        self._born: dict[int, float] = {}
        self._stopping = False
        self._alive = os.pipe()

    def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        for number in _SIGNALS:
            signal.signal(number, self._stop)
        for index in range(self._count):
            self._start(first=index == 0)
        quick = 0
        while self._born:
            pid, status = os.wait()
            lived_s = time.monotonic() - self._born.pop(pid, 0.0)
            if self._stopping:
                continue
            code = os.waitstatus_to_exitcode(status)
            quick = quick + 1 if lived_s < _QUICK_S else 0
            if quick >= _MOST_QUICK:
                log.error("worker %d ended with %d at start-up, as those before it", pid, code)
                self._stop()
                quick = -sys.maxsize
            else:
                log.error("worker %d ended with %d; starting another", pid, code)
                self._start(first=False)
        return 1 if quick < 0 else 0

    def _stop(self, *_: Any) -> None:
        self._stopping = True
        for pid in tuple(self._born):
            os.kill(pid, signal.SIGTERM)  # not waited for yet, so the id is still theirs

    def _start(self, *, first: bool) -> None:
        # No signal may come between the fork and the child's own handlers, or the parent's book.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            if self._stopping:
                return
            pid = os.fork()
            if pid == 0:
                self._child(first)
            self._born[pid] = time.monotonic()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _child(self, first: bool) -> NoReturn:
        code = 1
        try:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(self._alive[1])
            threading.Thread(target=_stop_with_parent, args=(self._alive[0],), daemon=True).start()
            code = self._work(first)
        except Exception:
            log.exception("a worker failed")
        finally:
            os._exit(code)


def _stop_with_parent(alive: int) -> None:
    """Wait for the parent's end of the pipe to close, which only its death does."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)
