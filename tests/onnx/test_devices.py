"""Which device is found, with NVIDIA's driver and onnxruntime's GPU build played by fakes."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from aiproxy.reference_server.onnx import ModelUnavailable, runtime
from aiproxy.reference_server.onnx.devices import (
    Device,
    Devices,
    choose,
    nvidia,
    sized,
    usual_threads,
)
from aiproxy.reference_server.onnx.devices import trial as device_trial
from aiproxy.reference_server.onnx.devices.nvidia import Gpu, Survey
from aiproxy.reference_server.onnx.loading import Placement

GIB = 2**30
TWO = Survey((Gpu(0, "H200", 139 * GIB), Gpu(1, "L4", 24 * GIB)), "580.65.06")


class LibraryNotFound(Exception):
    """Named as NVML's error is when the driver's library is not there."""


class DriverNotLoaded(Exception):
    """Named as NVML's error is when the library is there and the driver is not."""


def fake_nvml(count: int = 2, *, error: Exception | None = None, text: type = str) -> Any:
    """A pynvml for ``count`` GPUs; ``error`` is raised when it is initialised."""
    nvml: Any = types.ModuleType("pynvml")

    def init() -> None:
        if error is not None:
            raise error

    def words(said: str) -> Any:
        return said if text is str else said.encode()

    nvml.nvmlInit = init
    nvml.nvmlShutdown = lambda: None
    nvml.nvmlSystemGetDriverVersion = lambda: words("580.65.06")
    nvml.nvmlDeviceGetCount = lambda: count
    nvml.nvmlDeviceGetHandleByIndex = lambda index: index
    nvml.nvmlDeviceGetName = lambda index: words(f"GPU number {index}")
    nvml.nvmlDeviceGetUUID = lambda index: words(f"GPU-{index}abc")
    nvml.nvmlDeviceGetMemoryInfo = lambda index: types.SimpleNamespace(total=(index + 1) * GIB)
    return nvml


def play(monkeypatch: pytest.MonkeyPatch, nvml: Any, shown: str | None = None) -> Survey:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    return nvidia.ask_driver()


@pytest.mark.parametrize("text", [str, bytes])
def test_the_driver_tells_names_memory_and_its_version(
    monkeypatch: pytest.MonkeyPatch, text: type
) -> None:
    gpus = (Gpu(0, "GPU number 0", GIB), Gpu(1, "GPU number 1", 2 * GIB))
    assert play(monkeypatch, fake_nvml(text=text)) == Survey(gpus, "580.65.06", None)


@pytest.mark.parametrize(
    ("nvml", "reason"),
    [
        (None, "nvidia-ml-py is missing"),
        (fake_nvml(error=LibraryNotFound()), "no NVIDIA driver is installed"),
        (fake_nvml(error=OSError()), "no NVIDIA driver is installed"),
        (fake_nvml(error=DriverNotLoaded()), "the NVIDIA driver is not running (DriverNotLoaded)"),
        (fake_nvml(0), "the driver lists no GPU"),
    ],
)
def test_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, nvml: Any, reason: str) -> None:
    survey = play(monkeypatch, nvml)
    assert survey.gpus == ()
    assert reason in (survey.reason or "")


def test_a_driver_that_fails_after_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = fake_nvml()
    nvml.nvmlDeviceGetUUID = None
    assert play(monkeypatch, nvml).reason == "the driver does not answer (TypeError)"


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        (None, [0, 1, 2]),
        ("1", [1]),
        ("2, 0", [2, 0]),
        ("", []),
        ("-1", []),
        ("0,7,1", [0]),
        ("1,1", [1]),
        ("GPU-2", [2]),
    ],
)
def test_cuda_visible_devices_renumbers(setting: str | None, shown: list[int]) -> None:
    assert nvidia.visible(setting, ["GPU-0abc", "GPU-1abc", "GPU-2abc"]) == shown


def test_hidden_gpus_are_told_apart_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert play(monkeypatch, fake_nvml(), "").reason == "CUDA_VISIBLE_DEVICES hides every GPU"
    assert play(monkeypatch, fake_nvml(), "1").gpus == (Gpu(0, "GPU number 1", 2 * GIB),)


def found(
    survey: Survey = TWO,
    trial: Callable[[int], str | None] = lambda index: None,
    build: str | None = None,
) -> Devices:
    return Devices(lambda: survey, trial, lambda: build)


def test_a_gpu_is_used_when_a_trial_on_it_ran() -> None:
    """AIP-PROV-002: the GPU with the most memory left, or the one asked for by number."""
    devices = found()
    assert str(devices.choose("auto")) == "cuda:0"
    assert devices.choose("cuda").name == "H200"
    assert devices.choose("cuda:1") == Device("cuda", 1, "L4", "a trial on it ran", 24 * GIB)
    assert str(devices.choose("auto", {0: 130 * GIB})) == "cuda:1"


def test_the_cpu_by_name_asks_nobody() -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("asked")

    device = Devices(never, never, never).choose("cpu")
    assert (str(device), device.reason) == ("cpu", "the configuration says cpu")


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        (found(Survey(reason="no driver")), "no driver"),
        (found(Survey(reason="no driver"), build="a CPU build"), "a CPU build"),
        (found(build="the CPU build is installed"), "H200 is here, but the CPU build is installed"),
        (found(trial=lambda index: "no"), "the trial on L4 failed: no"),
    ],
)
def test_the_cpu_otherwise_and_forced_cuda_is_an_error(devices: Devices, reason: str) -> None:
    """AIP-PROV-002: the choice says why; without a working GPU ``cuda`` is refused, not bent."""
    chosen = devices.choose("auto")
    assert (chosen.kind, chosen.reason) == ("cpu", reason)
    with pytest.raises(ModelUnavailable) as refused:
        devices.choose("cuda")
    assert refused.value.reason == f"cuda was asked for: {reason}"


def test_a_number_that_is_not_there_and_a_word_that_is_none() -> None:
    with pytest.raises(
        ModelUnavailable, match=r"there is no cuda:5; this machine has cuda:0, cuda:1"
    ):
        found().choose("cuda:5")
    with pytest.raises(ModelUnavailable, match="use auto, cpu or cuda:N"):
        found().choose("tpu")


def test_one_broken_gpu_leaves_the_others() -> None:
    devices = found(trial=lambda index: "fault" if index == 0 else None)
    assert str(devices.choose("auto")) == "cuda:1"


def test_an_old_driver_is_named_where_the_trial_failed() -> None:
    old = Survey(TWO.gpus, "535.54.03")
    reason = found(old, lambda index: "it broke").choose("auto").reason
    assert reason.endswith("it broke; the driver is 535.54.03, and CUDA 13 needs 580 or newer")


def test_more_weights_than_memory_stay_on_the_cpu() -> None:
    device = found().choose("cuda:0", size=20 * GIB)
    assert str(device) == "cuda:0"
    chosen = found().choose("auto", size=200 * GIB)
    assert chosen.reason == "its 200.0 GiB of weights are more than L4 has"


def test_everything_is_asked_once() -> None:
    asked: list[object] = []

    def look() -> Survey:
        asked.append("survey")
        return TWO

    def trial(index: int) -> None:
        asked.append(index)

    devices = Devices(look, trial, lambda: None)
    for wanted in ("auto", "cuda:0", "cuda:1", "auto"):
        devices.choose(wanted)
    assert asked == ["survey", 0, 1]


def test_models_are_spread_over_the_gpus() -> None:
    same = Survey((Gpu(0, "A", 80 * GIB), Gpu(1, "B", 80 * GIB)), "580.1")
    devices = found(same)
    placement = Placement(lambda: devices)
    placed = [str(placement.place("auto", size * GIB)) for size in (16, 8, 4, 8)]
    assert placed == ["cuda:0", "cuda:1", "cuda:1", "cuda:1"]


def test_threads_and_memory_of_a_model() -> None:
    cpu, gpu = Device(), Device("cuda", 1)
    assert sized(cpu, None, None, 1000).threads == 1
    assert sized(cpu, None, None, 10 * GIB).threads == usual_threads() >= 1
    assert sized(cpu, 3, None, 1).threads == 3
    assert sized(gpu, None, GIB, 10 * GIB).threads == 1
    options: Any = runtime.providers(sized(gpu, None, GIB, 1))[0]
    assert options[0] == "CUDAExecutionProvider"
    assert options[1] == {
        "device_id": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "gpu_mem_limit": str(GIB),
    }


def test_the_trials_graph_is_a_sound_model_of_one_product() -> None:
    model = onnx.load_from_string(device_trial.GRAPH)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    session = runtime.open_session(device_trial.GRAPH)
    np = pytest.importorskip("numpy")
    product = session.run(None, {"x": np.array([[1, 2], [3, 4]], np.float32)})[0]
    assert product.tolist() == [[7.0, 10.0], [15.0, 22.0]]


def test_a_real_trial_without_a_gpu_says_so_and_harms_nothing() -> None:
    """The real process: on a machine without CUDA it fails with a sentence and without a path."""
    problem = device_trial.try_in_process(0)
    if problem is None:
        pytest.skip("this machine has a working GPU")
    assert "/" not in problem.replace("'", "")
    assert problem == "onnxruntime could not set up CUDA on it" or "install CUDA 13" in problem


MISSING = (
    "[E:onnxruntime] Failed to load library /x/y/libonnxruntime_providers_cuda.so with error: "
    "libcublasLt.so.13: cannot open shared object file: No such file or directory"
)


@pytest.mark.parametrize(
    ("code", "output", "noise", "problem"),
    [
        (0, '{"problem": null}\n', "", None),
        (0, 'noise\n{"problem": null}\n', "warnings", None),
        (0, '{"problem": "no"}\n', "", "no"),
        (0, '{"problem": "no"}\n', MISSING, "libcublasLt.so.13 is not found; install CUDA 13's"),
        (1, "", "CUDA driver version is insufficient for CUDA runtime version", "older than CUDA"),
        (-11, "", "", "its process ended with -11"),
        (0, "", "", "its process ended with 0"),
        (1, "[]", "", "its process ended with 1"),
    ],
)
def test_how_a_trial_is_read(code: int, output: str, noise: str, problem: str | None) -> None:
    read = device_trial.read_trial(code, output, noise)
    assert (read is None) == (problem is None)
    assert (problem or "") in (read or "")


def test_a_trial_that_hangs_or_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: Any, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("trial", 60)

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(device_trial.subprocess, "run", hang)
    assert device_trial.try_in_process(0) == "it gave no answer for 60 s"
    monkeypatch.setattr(device_trial.subprocess, "run", refuse)
    assert device_trial.try_in_process(0) == "it could not be started (Cannot allocate memory)"


def test_cudas_libraries_are_looked_for_where_pip_put_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    class Runtime:
        @staticmethod
        def preload_dlls(**given: Any) -> None:
            print("Failed to load something")
            asked.append(given)

    for part in ("cu13", "cudnn"):
        (tmp_path / "nvidia" / part / "lib").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(nvidia, "_preloaded", False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    nvidia.preload(Runtime)
    nvidia.preload(Runtime)
    lib = str(tmp_path / "nvidia" / "{}" / "lib")
    assert asked == [
        {"cudnn": False, "directory": lib.format("cu13")},
        {"cuda": False, "directory": lib.format("cudnn")},
        {},
    ]
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("setting", "index", "shown"), [(None, 1, "1"), ("3,5", 1, "5"), ("GPU-1", 0, "GPU-1")]
)
def test_a_worker_sees_its_gpu_alone(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, index: int, shown: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if setting is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert nvidia.worker_environment(Device("cuda", index))["CUDA_VISIBLE_DEVICES"] == shown
    assert nvidia.worker_environment(Device())["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    "pair", [("onnxruntime", "onnxruntime-gpu"), ("onnxruntime-genai", "onnxruntime-genai-cuda")]
)
def test_two_builds_of_one_package_are_refused_with_what_to_run(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    """In a process of its own, where both are installed as far as the metadata say."""
    for name in pair:
        folder = tmp_path / f"{name.replace('-', '_')}-9.9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    code = """
import json, logging
logging.disable()
from aiproxy.reference_server.onnx import LocalModels
rows = [{"name": n, "path": "builtin:demo", "device": d} for n, d in (("a", "auto"), ("b", "cpu"))]
print(json.dumps([m.reason for m in LocalModels.from_config({"models": rows}).models]))
"""
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    for reason in json.loads(done.stdout):
        assert f"{pair[0]} and {pair[1]} are both installed and overwrite each other" in reason
        assert "pip uninstall -y" in reason
        assert "pip install 'aiproxy[onnx]'" in reason


def test_this_machine_gives_a_device_with_a_reason() -> None:
    device = choose("auto")
    assert device.kind in ("cpu", "cuda")
    assert device.reason
