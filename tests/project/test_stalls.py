"""A test that failed while the machine stood still runs once more; any other failure stays."""

import os
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).resolve().parents[1] / "support"

CONFTEST = """
from stalls import (
    pytest_runtest_protocol, pytest_sessionfinish, pytest_sessionstart, pytest_terminal_summary,
)
"""
TESTS = """
import os, signal, time
from pathlib import Path
from stalls import stalls

def stand_still():
    time.sleep(0.1)
    os.kill(stalls.watch.pid, signal.SIGSTOP)
    time.sleep(0.4)
    os.kill(stalls.watch.pid, signal.SIGCONT)
    time.sleep(0.5)  # each core has told of it by then

def once(name):
    seen = Path(__file__).with_name(name).exists()
    Path(__file__).with_name(name).touch()
    return not seen

def test_hit_by_a_stall():
    stand_still()
    assert not once("hit")

def test_hit_and_wrong():
    stand_still()
    assert False

def test_wrong_once():
    assert not once("wrong")

def test_blocking_is_no_stall():
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        pass
    assert not once("blocking")
"""


def test_only_what_a_stall_hit_runs_again(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = ran.stdout
    assert "3 failed, 1 passed" in said, said
    for name in ("hit_and_wrong", "wrong_once", "blocking_is_no_stall"):
        assert f"FAILED test_some.py::test_{name} " in said, said
    assert "test_hit_by_a_stall ran again, for the machine stood still: 0.4" in said
    assert "test_wrong_once ran again" not in said
