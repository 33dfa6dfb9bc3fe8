"""A machine that stands still is noticed; one that works is not."""

import sys
import time

from aiproxy.conformance.pulse import Pulse


def test_a_standstill_is_told_once() -> None:
    pulse = Pulse()
    pulse.start()
    pulse.start()
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.5)  # this thread keeps the interpreter to itself, as a stall would
    try:
        until = time.monotonic() + 0.25
        while time.monotonic() < until:
            pass
    finally:
        sys.setswitchinterval(usual)
    time.sleep(0.1)
    assert 0.15 < pulse.take() < 5
    pulse.stop()
    pulse.stop()
    assert pulse.take() < 5


def test_sleep_is_none() -> None:
    found = []
    for _ in range(5):  # the machine may stand still in one of them
        pulse = Pulse()
        pulse.start()
        time.sleep(0.1)
        found.append(pulse.take())
        pulse.stop()
    assert min(found) == 0.0
