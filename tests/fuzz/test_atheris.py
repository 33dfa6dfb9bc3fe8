"""Coverage-guided fuzzing for a few seconds a dialect, where atheris can be had."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fuzz_atheris.py"


@pytest.mark.exhaustive
def test_no_input_breaks_a_decoder() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--seconds", "8"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode == 3:
        pytest.skip(done.stdout.strip() + "; run scripts/fuzz_atheris.py where it can be had")
    assert done.returncode == 0, done.stdout[-6000:]
