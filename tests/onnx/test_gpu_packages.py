"""The GPU builds of onnxruntime and onnxruntime-genai, the very packages of ``aiproxy[onnx-gpu]``,
on a machine that may have no GPU: they find that out, say why, and compute on the CPU."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_llama

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = ROOT / ".venvs" / "onnx-gpu"


@pytest.fixture(scope="module")
def aiproxy() -> str:
    if not (HOME / "complete").exists():
        if os.environ.get("AIPROXY_REQUIRE_SERVICES"):
            pytest.fail("python scripts/gpu_venv.py makes the environment this needs")
        pytest.skip("python scripts/gpu_venv.py makes the environment this needs")
    return str(HOME / "bin" / "aiproxy")


def check(aiproxy: str, path: str | Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [aiproxy, "models", "check", str(path), "--json", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    said: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if said["serves"] else 1)
    return said


@pytest.mark.slow
@pytest.mark.parametrize("paged", [True, False])
def test_models_run_with_the_gpu_builds(aiproxy: str, paged: bool) -> None:
    """AIP-PROV-002: no GPU, or one that does not work, is told with the reason."""
    said = check(aiproxy, tiny_llama(paged=paged), "--device", "auto" if not paged else "cpu")
    assert (said["serves"], said["problem"]) == (True, None)
    assert said["adapter"] == ("genai" if paged else "slots")
    if said["device"] == "cpu":
        assert said["device_reason"]


@pytest.mark.slow
def test_a_forced_gpu_is_not_bent_to_the_cpu(aiproxy: str) -> None:
    said = check(aiproxy, "builtin:demo", "--device", "cuda")
    if said["serves"]:
        assert said["device"].startswith("cuda:")
    else:
        assert said["problem"].startswith("cuda was asked for: ")


@pytest.mark.slow
def test_a_trial_without_cudas_libraries_names_the_one_that_is_missing(aiproxy: str) -> None:
    """The real message of the real loader; with the libraries it fails for another reason."""
    code = (
        "from aiproxy.reference_server.onnx.devices import trial as t; print(t.try_in_process(0))"
    )
    python = str(Path(aiproxy).parent / "python")
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    problem = done.stdout.strip()
    if problem == "None":
        pytest.skip("this machine has a working GPU")
    assert problem.startswith("lib") or "driver" in problem or "CUDA" in problem
    assert "/" not in problem
