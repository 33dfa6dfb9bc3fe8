"""Ports that nobody else takes: below those of the suite's own targets and of the system."""

import random
import socket
from contextlib import ExitStack

_RUN = 400
_LOW, _HIGH = 2_000, 9_800


def free_base() -> int:
    """Return the first of a run of ports that are free just now."""
    for _ in range(100):
        base = random.randrange(_LOW, _HIGH - _RUN)
        if _all_free(base):
            return base
    raise RuntimeError("no run of free ports")


def _all_free(base: int) -> bool:
    with ExitStack() as stack:
        for port in range(base, base + _RUN):
            sock = stack.enter_context(socket.socket())
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
