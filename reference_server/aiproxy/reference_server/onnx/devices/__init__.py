"""Which device computes, found by trying it and not by asking a library what it was built for.

Three questions in turn: does the driver know a GPU (NVML), is the installed onnxruntime a build for
it, and does a model of one node run on it and nowhere else.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock
from typing import Final

from aiproxy.reference_server.onnx import runtime as packages
from aiproxy.reference_server.onnx.devices.nvidia import Gpu, Survey, ask_driver, driver_hint
from aiproxy.reference_server.onnx.errors import ModelUnavailable

AUTO, CPU, CUDA = "auto", "cpu", "cuda"
_WANTED: Final = re.compile(r"cuda:([0-9]{1,2})")


@dataclass(frozen=True, slots=True)
class Device:
    """``kind`` is ``cpu`` or ``cuda``; ``index`` the GPU's number as CUDA counts in this process.

    ``name`` is the hardware's own name, ``reason`` a sentence why this device and no other,
    ``memory_bytes`` what the GPU has. ``threads`` are the processor threads a model may use (0: one
    a core), ``memory_limit`` the bytes of GPU memory it may allot beside its weights.
    """

    kind: str = "cpu"
    index: int = 0
    name: str = "CPU"
    reason: str = ""
    memory_bytes: int | None = None
    threads: int = 1
    memory_limit: int | None = None

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


class Devices:
    """The devices of this machine; each question is asked once. Safe for threads."""

    def __init__(
        self,
        survey: Callable[[], Survey] | None = None,
        trial: Callable[[int], str | None] | None = None,
        build: Callable[[], str | None] | None = None,
    ) -> None:
        self._look = survey or ask_driver
        self._try = trial or try_in_process
        self._build = build or unfit_build
        self._lock = Lock()
        self._survey: Survey | None = None
        self._tried: dict[int, str | None] = {}

    def survey(self) -> Survey:
        with self._lock:
            if self._survey is None:
                self._survey = self._look()
            return self._survey

    def choose(
        self, wanted: str = AUTO, planned: Mapping[int, int] | None = None, size: int = 0
    ) -> Device:
        """Return the device for ``wanted``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

        Of several GPUs the one with the most memory left; ``planned`` are the bytes already given
        away on each, ``size`` those of the model.

        Raises:
            ModelUnavailable: a GPU was asked for by name and does not work; never for ``auto``.
        """
        if wanted == CPU:
            return Device(reason="the configuration says cpu")
        numbered = _WANTED.fullmatch(wanted)
        if numbered is None and wanted not in (AUTO, CUDA):
            raise ModelUnavailable(f"the device {wanted!r} is not known; use auto, cpu or cuda:N")
        problem = self._no_gpu()
        if problem is None:
            gpus = self.survey().gpus
            asked = [gpu for gpu in gpus if numbered is None or gpu.index == int(numbered[1])]
            if not asked:
                numbers = ", ".join(f"cuda:{gpu.index}" for gpu in gpus)
                problem = f"there is no {wanted}; this machine has {numbers}"
            left = {gpu: gpu.memory_bytes - (planned or {}).get(gpu.index, 0) for gpu in asked}
            for gpu in sorted(asked, key=lambda gpu: -left[gpu]):
                problem = self._trial(gpu) or _too_large(gpu, size)
                if problem is None:
                    return Device(CUDA, gpu.index, gpu.name, "a trial on it ran", gpu.memory_bytes)
        if wanted == AUTO:
            return Device(reason=problem or "")
        raise ModelUnavailable(f"{wanted} was asked for: {problem}")

    def _no_gpu(self) -> str | None:
        survey = self.survey()
        build = self._build()
        if survey.gpus and build is not None:
            return f"{survey.gpus[0].name} is here, but {build}"
        if build is not None:
            return build
        return None if survey.gpus else survey.reason or "the driver lists no GPU"

    def _trial(self, gpu: Gpu) -> str | None:
        with self._lock:
            if gpu.index not in self._tried:
                self._tried[gpu.index] = self._try(gpu.index)
            problem = self._tried[gpu.index]
        if problem is None:
            return None
        return f"the trial on {gpu.name} failed: {problem}{driver_hint(self._survey)}"


def _too_large(gpu: Gpu, size: int) -> str | None:
    """More weights than memory cannot work; whether less does, loading tells."""
    if size <= gpu.memory_bytes:
        return None
    return f"its {size / 2**30:.1f} GiB of weights are more than {gpu.name} has"


@cache
def devices() -> Devices:
    """The devices of this machine, for everybody in this process."""
    return Devices()


def choose(wanted: str = AUTO) -> Device:
    """As ``Devices.choose``, on this machine."""
    return devices().choose(wanted)


def sized(device: Device, threads: int | None, memory_limit: int | None, size: int) -> Device:
    """Return ``device`` with the threads and memory of a model of ``size`` bytes."""
    if threads is None:
        threads = 1 if device.kind == CUDA or size < SMALL else usual_threads()
    return replace(device, threads=threads, memory_limit=memory_limit)


#: Bytes below which more than one thread waits longer for the others than it saves.
SMALL: Final = 64 * 1024 * 1024


def usual_threads() -> int:
    """Half of the cores this process may use: the event loop and other models need theirs."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


def try_in_process(index: int) -> str | None:
    """As ``device_trial.try_in_process``."""
    from aiproxy.reference_server.onnx.devices import trial as device_trial

    return device_trial.try_in_process(index)


def unfit_build() -> str | None:
    """Return why the installed onnxruntime can use no GPU at all, or None."""
    if packages.CUDA in packages.onnxruntime().get_available_providers():
        return None
    return "the CPU build of onnxruntime is installed; for a GPU: aiproxy[onnx-gpu]"
