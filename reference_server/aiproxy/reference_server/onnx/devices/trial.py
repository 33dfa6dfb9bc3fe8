"""One small product on a GPU and nowhere else, in a process of its own.

A GPU that faults or a driver that hangs takes nothing else with it there, and the server itself
holds no GPU memory and can still fork.
"""

import json
import re
import subprocess
import sys
from typing import Final

from aiproxy.reference_server.onnx import runtime
from aiproxy.reference_server.onnx.devices import CUDA, Device
from aiproxy.reference_server.onnx.devices.nvidia import preload
from aiproxy.reference_server.onnx.errors import ModelUnavailable

#: Seconds a trial may take; the first use of a GPU after boot alone can take ten.
LONGEST_S: Final = 60.0
_MISSING: Final = re.compile(r"(lib[\w.+-]+): cannot open shared object file")
#: One MatMul of a 2x2 matrix with itself, opset 17: enough to need cuBLAS.
GRAPH: Final = (
    b'\x08\x08:D\n\x11\n\x01x\n\x01x\x12\x01y"\x06MatMul\x12\x05trialZ\x13\n\x01x\x12\x0e\n\x0c'
    b"\x08\x01\x12\x08\n\x02\x08\x02\n\x02\x08\x02b\x13\n\x01y\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02"
    b"\x08\x02\n\x02\x08\x02B\x04\n\x00\x10\x11"
)


def try_in_process(index: int) -> str | None:
    """Run the trial on GPU ``index`` in a process of its own; return why it failed, or None."""
    # Not this process's own arguments: a server's command line must not start a second server.
    module = "aiproxy.reference_server.onnx.devices.trial"
    command = [sys.executable, "-P", "-m", module, str(index)]
    try:
        done = subprocess.run(  # noqa: S603 - our own module and a number
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"it gave no answer for {LONGEST_S:g} s"
    except OSError as refused:
        return f"it could not be started ({refused.strerror})"
    return read_trial(done.returncode, done.stdout, done.stderr)


def read_trial(code: int, output: str, noise: str) -> str | None:
    """Return why a trial failed that ended with ``code``, printed ``output`` and, on stderr, what
    the libraries said of themselves; or None."""
    missing = _MISSING.search(noise)
    try:
        said = json.loads(output.strip().rsplit("\n", 1)[-1])
    except ValueError:
        said = None
    if code == 0 and said == {"problem": None}:
        return None
    if missing is not None:
        return (
            f"{missing[1]} is not found; install CUDA 13's libraries with "
            "`pip install 'aiproxy[onnx-gpu]'` or name their folder in LD_LIBRARY_PATH"
        )
    if "driver version is insufficient" in noise:
        return "the driver is older than CUDA 13"
    if isinstance(said, dict) and isinstance(said.get("problem"), str):
        return str(said["problem"])
    return f"its process ended with {code}"


def trial(index: int) -> str | None:
    """Compute one product on GPU ``index`` and nowhere else; return why that failed, or None."""
    import numpy as np

    try:
        ort = runtime.onnxruntime()
        ort.set_default_logger_severity(3)  # errors: they name the library that is missing
        preload(ort)
        options = runtime.session_options()
        options.log_severity_level = 3
        # Without this a session that finds no GPU quietly computes on the CPU.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        wanted = runtime.providers(Device(CUDA, index))[:1]
        session = ort.InferenceSession(GRAPH, options, providers=wanted)
        found = session.run(None, {"x": np.array([[1, 2], [3, 4]], dtype=np.float32)})[0]
    except ModelUnavailable as missing:
        return missing.reason
    except Exception as refused:  # noqa: BLE001 - onnxruntime's share no base class
        return _short(refused)
    if found.tolist() != [[7.0, 10.0], [15.0, 22.0]]:
        return "it computed a wrong product"
    return None


def _short(error: Exception) -> str:
    """Return the sense of an exception of onnxruntime in one line, without source places."""
    text = re.sub(r"\S*/\S+", "", str(error).splitlines()[0] if str(error) else "")
    if "fallback to CPU EP has been explicitly disabled" in text:
        return "onnxruntime could not set up CUDA on it"
    return f"{type(error).__name__}: {' '.join(text.split())[:200]}"


if __name__ == "__main__":
    print(json.dumps({"problem": trial(int(sys.argv[1]))}))
