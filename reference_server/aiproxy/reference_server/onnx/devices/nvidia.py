"""What NVIDIA's driver says of its GPUs, and where pip put CUDA's libraries."""

import contextlib
import io
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aiproxy.reference_server.onnx.devices import Device

#: The oldest major version of NVIDIA's driver that runs CUDA 13, which onnxruntime is built for.
OLDEST_DRIVER: Final = 580


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU the driver knows. ``index`` is CUDA's number for it in this process."""

    index: int
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What the driver says: GPUs, its version, and why there are none (a sentence)."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    reason: str | None = None


def ask_driver() -> Survey:
    """Return what NVML knows, in CUDA's numbers."""
    try:
        import pynvml  # pyright: ignore[reportMissingImports] - an extra
    except ImportError:
        return Survey(reason="nvidia-ml-py is missing, which finds GPUs; pip install nvidia-ml-py")
    try:
        pynvml.nvmlInit()
    except Exception as refused:  # noqa: BLE001 - NVMLError; OSError from a broken driver
        return Survey(reason=_no_driver(refused))
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        found = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
        identities = [_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in found]
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = tuple(
            Gpu(
                number,
                _text(pynvml.nvmlDeviceGetName(found[at])),
                int(pynvml.nvmlDeviceGetMemoryInfo(found[at]).total),
            )
            for number, at in enumerate(visible(hidden, identities))
        )
    except Exception as refused:  # noqa: BLE001 - whatever it is, there is no GPU for us
        return Survey(reason=f"the driver does not answer ({type(refused).__name__})")
    finally:
        with contextlib.suppress(Exception):
            pynvml.nvmlShutdown()
    if not gpus and found and hidden is not None:
        return Survey((), driver, "CUDA_VISIBLE_DEVICES hides every GPU")
    return Survey(gpus, driver, None if gpus else "the driver lists no GPU")


def visible(setting: str | None, identities: list[str]) -> list[int]:
    """Return which of the driver's GPUs CUDA shows, in CUDA's order.

    ``setting`` is CUDA_VISIBLE_DEVICES: numbers or (the beginning of) UUIDs; the first that names
    no GPU ends the list, as CUDA itself has it. Numbers count as the driver does because
    ``preload`` sets CUDA_DEVICE_ORDER so.
    """
    if setting is None:
        return list(range(len(identities)))
    shown: list[int] = []
    for word in (word.strip() for word in setting.split(",")):
        at = None
        if word.isdecimal():
            at = int(word) if int(word) < len(identities) else None
        elif word:
            at = next((n for n, name in enumerate(identities) if name.startswith(word)), None)
        if at is None or at in shown:
            break
        shown.append(at)
    return shown


def _no_driver(refused: Exception) -> str:
    if "LibraryNotFound" in type(refused).__name__ or isinstance(refused, OSError):
        return "no NVIDIA driver is installed (its library NVML is not found)"
    return f"the NVIDIA driver is not running ({type(refused).__name__})"


def _text(value: Any) -> str:
    """NVML's binding gives bytes in some versions and text in others."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def driver_hint(survey: Survey | None) -> str:
    driver = None if survey is None else survey.driver
    major = (driver or "").partition(".")[0]
    if not major.isdecimal() or int(major) >= OLDEST_DRIVER:
        return ""
    return f"; the driver is {driver}, and CUDA 13 needs {OLDEST_DRIVER} or newer"


_preloaded = False


def preload(ort: Any) -> None:
    """Load CUDA's libraries where pip put them, once; call it only where there is a GPU.

    onnxruntime looks for them on the system's path alone otherwise. Those of LD_LIBRARY_PATH need
    nothing of this, and a folder without them is no error here: the trial tells.
    """
    global _preloaded
    if _preloaded:
        return
    _preloaded = True
    # NVML's order; otherwise CUDA puts the fastest first, and its numbers are other GPUs.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    # It prints what it does not find.
    with contextlib.redirect_stdout(io.StringIO()):
        for cuda, cudnn in library_folders():
            ort.preload_dlls(cudnn=False, directory=str(cuda))
            if cudnn is not None:
                ort.preload_dlls(cuda=False, directory=str(cudnn))
        ort.preload_dlls()


def library_folders() -> list[tuple[Path, Path | None]]:
    """Return the folders of NVIDIA's wheels on the module path: CUDA's and, with it, cuDNN's."""
    found: list[tuple[Path, Path | None]] = []
    for place in dict.fromkeys(sys.path):
        cuda, cudnn = (Path(place or ".") / "nvidia" / part / "lib" for part in ("cu13", "cudnn"))
        if cuda.is_dir():
            found.append((cuda, cudnn if cudnn.is_dir() else None))
    return found


def worker_environment(device: "Device") -> Mapping[str, str]:
    """Return the environment of a process that sees ``device`` alone, as its GPU 0.

    It may set what cannot be set once a process runs: where the loader looks for libraries.
    """
    wanted = dict(os.environ)
    if device.kind != "cuda":
        return {**wanted, "CUDA_VISIBLE_DEVICES": ""}
    shown = [word.strip() for word in wanted.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    wanted["CUDA_VISIBLE_DEVICES"] = shown[device.index] if any(shown) else str(device.index)
    wanted.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    folders = [str(place) for pair in library_folders() for place in pair if place is not None]
    paths = [*filter(None, [wanted.get("LD_LIBRARY_PATH")]), *folders]
    if paths:
        wanted["LD_LIBRARY_PATH"] = os.pathsep.join(paths)
    return wanted
