"""The one place that imports onnxruntime: telemetry off, one thread, quiet.

onnxruntime's Linux wheels send telemetry unless ``ORT_DISABLE_TELEMETRY`` is set before the first
import, so the variable is set when this module is imported and the import itself waits.
"""

import os
from functools import cache
from typing import Any, Final

from aiproxy.reference_server.onnx.errors import ModelUnavailable

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

FATAL: Final = 4  # onnxruntime's severity: nothing below reaches stderr


@cache
def onnxruntime() -> Any:
    """Return the onnxruntime module.

    Raises:
        ModelUnavailable: it is not installed.
    """
    try:
        import onnxruntime as runtime
    except ImportError as missing:
        raise ModelUnavailable("onnxruntime is missing; pip install 'aiproxy[onnx]'") from missing
    runtime.set_default_logger_severity(FATAL)
    return runtime


def open_session(graph: bytes) -> Any:
    """Return a CPU session of one thread for a serialised ONNX ``graph``.

    Raises:
        ModelUnavailable: onnxruntime is missing or refuses the graph.
    """
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    # A waiting worker thread must sleep: spinning would take the core from the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as refused:  # onnxruntime's exceptions share no base class of their own
        raise ModelUnavailable("the ONNX file is damaged or uses unknown operators") from refused
