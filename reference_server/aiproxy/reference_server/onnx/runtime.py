"""The one place that imports onnxruntime and onnxruntime-genai: telemetry off, quiet, one build.

Their Linux wheels send telemetry unless ``ORT_DISABLE_TELEMETRY`` is set before the first import,
so the variable is set when this module is imported and the imports themselves wait.

The CPU and the GPU build install into the same folder: with both, the last one installed wins and
the other is a ruin. pip sees nothing wrong with that, so it is looked for here.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from aiproxy.reference_server.onnx.errors import ModelUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from aiproxy.reference_server.onnx.devices import Device

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

FATAL: Final = 4  # onnxruntime's severity: nothing below reaches stderr
CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
#: Builds of one package that overwrite each other: for the CPU, for CUDA.
_RIVALS: Final = (
    ("onnxruntime", "onnxruntime-gpu"),
    ("onnxruntime-genai", "onnxruntime-genai-cuda"),
)


def clash() -> str | None:
    """Return what to do about a CPU and a GPU build installed together, or None if all is well."""
    for rivals in _RIVALS:
        if all(map(_installed, rivals)):
            every = " ".join(name for pair in _RIVALS for name in pair if _installed(name))
            return (
                f"{rivals[0]} and {rivals[1]} are both installed and overwrite each other; run "
                f"`pip uninstall -y {every}`, then `pip install 'aiproxy[onnx]'` (CPU) or "
                "`pip install 'aiproxy[onnx-gpu]'` (NVIDIA GPU)"
            )
    return None


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


@cache
def onnxruntime() -> Any:
    """Return the onnxruntime module.

    Raises:
        ModelUnavailable: it is not installed, or two builds of it are.
    """
    rivals = clash()
    if rivals is not None:
        raise ModelUnavailable(rivals)
    try:
        import onnxruntime as runtime
    except ImportError as missing:
        raise ModelUnavailable("onnxruntime is missing; pip install 'aiproxy[onnx]'") from missing
    runtime.set_default_logger_severity(FATAL)
    return runtime


@cache
def genai() -> Any:
    """Return the onnxruntime_genai module.

    Raises:
        ModelUnavailable: it or onnxruntime is not installed, or two builds of one are.
    """
    onnxruntime()  # first: genai loads onnxruntime's library, and this says what is wrong with it
    try:
        import onnxruntime_genai as runtime
    except ImportError as missing:
        raise ModelUnavailable(
            "onnxruntime-genai is missing; pip install 'aiproxy[onnx]'"
        ) from missing
    return runtime


def session_options(threads: int = 1) -> Any:
    """Return the options of every session here: quiet, ``threads`` (0: one for each core), and
    waiting threads that sleep."""
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    # A waiting worker thread must sleep: spinning would take the core from the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def providers(device: "Device") -> Sequence[str | tuple[str, Mapping[str, str]]]:
    """Return the execution providers, with options, that put a session on ``device``."""
    if device.kind != "cuda":
        return [CPU]
    options = {
        "device_id": str(device.index),
        # The other strategy doubles what it takes each time, and never gives it back.
        "arena_extend_strategy": "kSameAsRequested",
        # Trying every algorithm of a convolution at the first request of each size takes seconds.
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    if device.memory_limit is not None:
        options["gpu_mem_limit"] = str(device.memory_limit)
    return [(CUDA, options), CPU]


def open_session(graph: "bytes | Path", device: "Device | None" = None) -> Any:
    """Return a session of an ONNX ``graph``: serialised, or the file (with external data beside).

    Without ``device`` it computes on the CPU, in one thread.

    Raises:
        ModelUnavailable: onnxruntime is missing or refuses the graph, a file is missing, the GPU
            is out of memory or cannot be used.
    """
    runtime = onnxruntime()
    if device is not None and device.kind == "cuda":
        from aiproxy.reference_server.onnx.devices.nvidia import preload

        preload(runtime)
    wanted = [CPU] if device is None else list(providers(device))
    try:
        session = runtime.InferenceSession(
            graph if isinstance(graph, bytes) else str(graph),
            session_options(1 if device is None else device.threads),
            providers=wanted,
        )
    except Exception as refused:  # onnxruntime's exceptions share no base class of their own
        raise ModelUnavailable(refusal(refused)) from refused
    if device is not None and device.kind == "cuda" and CUDA not in session.get_providers():
        # onnxruntime would go on with the CPU, silently: the operator asked for something else.
        raise ModelUnavailable(f"onnxruntime did not take the GPU {device}; see `aiproxy devices`")
    return session


def refusal(error: Exception) -> str:
    """Return what an exception of onnxruntime means, in words that name no path."""
    text = str(error).lower()
    if "out of memory" in text or "failed to allocate memory" in text or "bad_alloc" in text:
        return "there is not enough memory to load it"
    if (
        "external data" in text
        or "model.onnx.data" in text
        or "model_path must not be empty" in text
    ):
        return "the ONNX file's external data is missing or shorter than the graph says"
    return "the ONNX file is damaged or uses unknown operators"
