"""From a row of the configuration to a model: adapters, devices, reasons, loading on demand, and
what happens around the import of onnxruntime."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from bert_graph import write_tiny
from tiny_images import write_classifier, write_clip
from tiny_models import make_tiny_llama, tiny_llama

from aiproxy.middleware import load_config
from aiproxy.reference_server.configuration import load_local_models
from aiproxy.reference_server.onnx import LocalModels, ModelUnavailable
from aiproxy.reference_server.onnx.checking import one_token
from aiproxy.reference_server.onnx.condition import condition, line
from aiproxy.reference_server.onnx.devices import Device, Devices
from aiproxy.reference_server.onnx.devices.nvidia import Gpu, Survey
from aiproxy.reference_server.onnx.folders import DEMO, DEMO_FOLDER, TextFolder
from aiproxy.reference_server.onnx.loading import (
    OnDemand,
    Placement,
    adapters_of,
    load_models,
    plan,
)
from aiproxy.reference_server.onnx.local_model import Loader, LocalModel

GPU = Survey((Gpu(0, "H200", 139 * 2**30),), "580.65.06")


def with_gpu() -> Placement:
    devices = Devices(lambda: GPU, lambda index: None, lambda: None)
    return Placement(lambda: devices)


def row(path: Path | str, **keys: Any) -> dict[str, Any]:
    return {"name": "m", "path": str(path), **keys}


@pytest.fixture
def loaded() -> Iterator[Callable[..., list[LocalModel]]]:
    """Loads rows as one provider, and closes what came of them."""
    opened: list[Loader] = []

    def load(*rows: dict[str, Any], **provider: Any) -> list[LocalModel]:
        opened.extend(load_models({**provider, "models": rows}))
        return [loader.model for loader in opened]

    yield load
    for loader in opened:
        asyncio.run(loader.close())


def folder(tmp_path: Path, kind: str) -> Path:
    place = tmp_path / kind
    place.mkdir()
    if kind == "embedding":
        return write_tiny(place)
    return write_classifier(place) if kind == "image" else write_clip(place, towers=True)


@pytest.mark.parametrize(
    ("root", "adapters"),
    [
        (lambda: tiny_llama(paged=True), ("genai",)),
        (lambda: tiny_llama(paged=False), ("slots", "genai")),
        (lambda: tiny_llama(paged=False, cache="concat"), ("slots",)),
        (lambda: DEMO_FOLDER, ("slots",)),
    ],
)
def test_the_adapter_fits_the_graph(root: Callable[[], Path], adapters: tuple[str, ...]) -> None:
    made = plan(row(root()), {"device": "cpu"})
    assert made.adapters == adapters
    assert adapters_of(made.folder) == adapters


@pytest.mark.parametrize(
    ("provider", "own", "device", "process"),
    [
        ({}, {}, "cuda:0", True),
        ({"device": "cpu"}, {}, "cpu", False),
        ({"device": "cpu"}, {"device": "cuda"}, "cuda:0", True),
        ({"worker": "thread"}, {}, "cuda:0", False),
        ({"device": "cpu", "worker": "process"}, {}, "cpu", True),
    ],
)
def test_where_a_model_computes(provider: Any, own: Any, device: str, process: bool) -> None:
    """A model's own device stands before its provider's; on a GPU it has a process of its own."""
    made = plan(row(DEMO, **own), {"gpu_memory_limit": 2**30, "threads": 3, **provider}, with_gpu())
    assert (str(made.device), made.process) == (device, process)
    assert (made.device.threads, made.device.memory_limit) == (3, 2**30)


def test_the_variant_for_the_device_is_taken(tmp_path: Path) -> None:
    for name in ("cuda", "cpu"):
        make_tiny_llama(tmp_path / name, paged=name == "cuda")
    taken = [
        plan(row(tmp_path, device=device), {}, with_gpu()).folder.root.name
        for device in ("auto", "cpu")
    ]
    assert taken == ["cuda", "cpu"]


def test_a_graph_for_cuda_alone_has_a_reason_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from aiproxy.reference_server.onnx import loading

    read = loading.read_folder

    def cuda_only(*args: Any, **keys: Any) -> Any:
        found = read(*args, **keys)
        assert isinstance(found, TextFolder)
        return replace(found, cuda_only=True)

    monkeypatch.setattr(loading, "read_folder", cuda_only)
    with pytest.raises(ModelUnavailable, match="computes on CUDA alone; the configuration says"):
        plan(row(tiny_llama(paged=True), device="cpu"), {})


def test_a_text_model_is_loaded(loaded: Callable[..., list[LocalModel]]) -> None:
    """AIP-PROV-001, AIP-CFG-045."""
    [model] = loaded(row(DEMO, max_context=100), device="cpu")
    assert model.available
    assert (model.capabilities, model.context_window) == (("text-generation",), 100)
    assert model.text is not None
    assert condition(model).state == "ready"
    assert line(model) == "  * m: runs on the CPU; the configuration says cpu"


@pytest.mark.parametrize(
    ("kind", "capabilities"),
    [
        ("embedding", ["embeddings"]),
        ("image", ["image-classification"]),
        ("clip", ["embeddings", "image-classification"]),
    ],
)
def test_models_that_give_vectors_and_scores(
    loaded: Callable[..., list[LocalModel]], tmp_path: Path, kind: str, capabilities: list[str]
) -> None:
    [model] = loaded(row(folder(tmp_path, kind), capabilities=capabilities))
    assert model.reason is None
    assert (model.embedding is not None) == ("embeddings" in capabilities)
    assert (model.image is not None) == ("image-classification" in capabilities)
    assert model.text is None


def test_one_broken_model_leaves_the_others(
    loaded: Callable[..., list[LocalModel]], tmp_path: Path
) -> None:
    """AIP-CFG-049: the reason is kept and holds no path."""
    broken, good = loaded(
        row(tmp_path / "secret-place", capabilities=["text-generation", "tools"]),
        {**row(DEMO), "name": "n"},
    )
    assert (broken.available, good.available) == (False, True)
    assert broken.reason == "secret-place is missing or cannot be read"
    assert str(tmp_path) not in line(broken)
    assert condition(broken).state == "unavailable"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"runtime": "golearn"}, "the runtime golearn is not available: it is a library for Go"),
        ({"capabilities": ["embeddings"]}, "it does text-generation, not embeddings"),
        ({"path": None}, "path is not set"),
        ({"device": "cuda:7"}, "cuda:7 was asked for: "),
    ],
)
def test_rows_that_cannot_be_served(
    loaded: Callable[..., list[LocalModel]], keys: dict[str, Any], reason: str
) -> None:
    """AIP-CFG-047, AIP-PROV-002."""
    [model] = loaded({**row(DEMO), **keys})
    assert not model.available
    assert reason in (model.reason or "")


def test_pytorch_without_pytorch_is_a_reason(
    loaded: Callable[..., list[LocalModel]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AIP-CFG-046."""
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    [model] = loaded(row(DEMO, runtime="pytorch"))
    assert "pip install 'aiproxy[pytorch]'" in (model.reason or "")


def test_a_fault_nobody_has_thought_of_is_a_reason_too(
    loaded: Callable[..., list[LocalModel]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiproxy.reference_server.onnx import loading

    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("/secret-place")

    monkeypatch.setattr(loading, "read_folder", fail)
    [model] = loaded(row(DEMO))
    assert model.reason == "loading it failed (ZeroDivisionError)"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (MemoryError(), "there is not enough memory to load it"),
        (ImportError(name="llguidance"), "llguidance is missing; pip install 'aiproxy[onnx]'"),
    ],
)
def test_memory_and_packages_that_are_missing(
    loaded: Callable[..., list[LocalModel]],
    monkeypatch: pytest.MonkeyPatch,
    fault: BaseException,
    reason: str,
) -> None:
    from aiproxy.reference_server.onnx import loading

    def fail(*_: Any, **__: Any) -> Any:
        raise fault

    monkeypatch.setattr(loading, "open_text", fail)
    [model] = loaded(row(DEMO))
    assert model.reason == reason


def test_operators_that_do_not_exist(
    loaded: Callable[..., list[LocalModel]], tmp_path: Path
) -> None:
    """A graph that reads well and does not load."""
    shutil.copytree(DEMO_FOLDER, tmp_path / "model")
    (tmp_path / "model" / "SHA256SUMS").unlink()
    graph = tmp_path / "model" / "model.onnx"
    graph.write_bytes(graph.read_bytes().replace(b"GroupQueryAttention", b"GroupQueryAttentioX"))
    [model] = loaded(row(tmp_path / "model"))
    assert model.reason == "the ONNX file is damaged or uses unknown operators"


def test_the_router_is_told_what_the_files_say(tmp_path: Path) -> None:
    """A model that cannot run is not offered; capabilities and context come from the folder."""
    models = [
        {"name": "text", "path": DEMO},
        {"name": "words", "path": str(folder(tmp_path, "embedding")),
         "capabilities": ["embeddings"]},
        {"name": "gone", "path": str(tmp_path / "nowhere")},
    ]  # fmt: skip
    config = load_config({"providers": {"local": {"type": "local", "models": models}}})
    local, usable = load_local_models(config)
    rows = usable.values["providers"]["local"]["models"]
    assert [(r["name"], r["context_window"], r["capabilities"]) for r in rows] == [
        ("text", 512, ["text-generation"]),
        ("words", 24, ["embeddings"]),
    ]
    assert [model.name for model in local.models] == ["text", "words", "gone"]
    asyncio.run(local.close())


def test_explaining_loads_nothing() -> None:
    models = [{"name": "text", "path": DEMO}]
    config = load_config({"providers": {"local": {"type": "local", "models": models}}})
    local, usable = load_local_models(config, load=False)
    assert [condition(model).state for model in local.models] == ["idle"]
    assert usable.values["providers"]["local"]["models"][0]["context_window"] == 512


def test_models_in_processes_of_their_own(
    loaded: Callable[..., list[LocalModel]], tmp_path: Path
) -> None:
    """A text model and an embedder; each process ends with its model."""
    words = row(folder(tmp_path, "embedding"), capabilities=["embeddings"])
    text, embedder = loaded(row(DEMO), words, device="cpu", worker="process", max_concurrency=2)
    assert [text.reason, embedder.reason] == [None, None]
    assert text.text is not None
    assert text.text.engine.runner.capacity.slots == 2
    pid = text.text.engine.runner.pid  # type: ignore[attr-defined]
    assert pid != os.getpid()
    assert one_token(text) == "one token"
    [vector] = asyncio.run(embedder.embedding.embed([(5, 6)]))
    assert vector.shape == (16,)
    text.close()
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists())


class Part:
    """A loaded part, and how busy it is."""

    def __init__(self) -> None:
        self.load = (0, 0)
        self.lost: str | None = None
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class Opening:
    """Opens models as told: slowly, or with an error; counts."""

    def __init__(self) -> None:
        self.count = 0
        self.error: BaseException | None = None
        self.go = threading.Event()
        self.go.set()
        self.parts: list[Part] = []

    def __call__(self) -> LocalModel:
        self.go.wait(10)
        self.count += 1
        if self.error is not None:
            raise self.error
        self.parts.append(Part())
        return LocalModel("m", ("embeddings",), 9, embedding=self.parts[-1])


KNOWN = LocalModel("m", ("embeddings",), 9, device=Device())


def until(true: Callable[[], bool], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def test_a_model_on_demand_is_loaded_once_by_its_first_requests() -> None:
    """Callers that come while it loads wait for the same loading; the event loop goes on."""
    opening = Opening()
    opening.go.clear()
    loader = OnDemand(KNOWN, opening)
    assert condition(loader.model).state == "idle"
    assert "when first asked" in line(loader.model)

    async def ask() -> list[LocalModel]:
        asked = [asyncio.create_task(loader.ready("embeddings")) for _ in range(5)]
        ticks = 0
        while not any(task.done() for task in asked):
            await asyncio.sleep(0.001)
            ticks += 1
            if ticks == 10:
                asked[0].cancel()
                opening.go.set()
        return await asyncio.gather(*asked[1:])

    models = asyncio.run(ask())
    assert opening.count == 1
    assert all(model is models[0] for model in models)
    assert condition(loader.model).state == "ready"
    asyncio.run(loader.close())
    assert opening.parts[0].closed.is_set()


def test_an_idle_model_is_given_back_and_loaded_again() -> None:
    opening = Opening()
    loader = OnDemand(KNOWN, opening, unload_after_s=0.01)  # a second at least, whatever is asked
    asyncio.run(loader.ready("embeddings"))
    opening.parts[0].load = (1, 0)
    time.sleep(1.5)
    assert not opening.parts[0].closed.is_set()
    opening.parts[0].load = (0, 0)
    assert opening.parts[0].closed.wait(5)
    assert condition(loader.model).state == "idle"
    asyncio.run(loader.ready("embeddings"))
    assert opening.count == 2
    asyncio.run(loader.close())


def test_a_model_that_cannot_be_loaded_on_demand_is_tried_again_later() -> None:
    opening, now = Opening(), [100.0]
    opening.error = ModelUnavailable("the disk is gone")
    loader = OnDemand(KNOWN, opening, clock=lambda: now[0])

    def refused() -> str:
        with pytest.raises(ModelUnavailable) as unavailable:
            asyncio.run(loader.ready("embeddings"))
        return unavailable.value.reason

    assert [refused(), refused()] == ["the disk is gone"] * 2
    assert (opening.count, condition(loader.model).state) == (1, "unavailable")
    now[0] += 31
    assert condition(loader.model).state == "idle"
    opening.error = ValueError("odd")
    assert refused() == "loading it failed (ValueError)"
    now[0] += 31
    opening.error = None
    asyncio.run(loader.ready("embeddings"))
    assert condition(loader.model).state == "ready"
    asyncio.run(loader.close())


def test_a_server_that_ends_while_a_model_loads_gives_it_back() -> None:
    opening = Opening()
    opening.go.clear()
    loader = OnDemand(KNOWN, opening, unload_after_s=5)

    async def leave() -> None:
        asked = asyncio.create_task(loader.ready("embeddings"))
        await asyncio.sleep(0.05)
        await loader.close()
        opening.go.set()
        await asked

    asyncio.run(leave())
    assert opening.parts[0].closed.wait(5)
    with pytest.raises(ModelUnavailable, match="shutting down"):
        asyncio.run(loader.ready("embeddings"))


def test_a_model_whose_thread_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opening, now = Opening(), [100.0]
    loader = OnDemand(KNOWN, opening, clock=lambda: now[0])

    def full(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", full)
        with pytest.raises(ModelUnavailable, match="RuntimeError"):
            asyncio.run(loader.ready("embeddings"))
    now[0] += 31
    asyncio.run(asyncio.wait_for(loader.ready("embeddings"), 5))
    asyncio.run(loader.close())


def test_whoever_waits_for_a_model_is_told_of_any_end_of_its_loading() -> None:
    opening = Opening()
    opening.error = SystemExit(3)
    loader = OnDemand(KNOWN, opening)
    with pytest.raises(ModelUnavailable, match="SystemExit"):
        asyncio.run(asyncio.wait_for(loader.ready("embeddings"), 5))


def test_a_server_that_ends_just_when_a_model_is_loaded_gives_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``close`` comes while the loading is being told to those who wait for it."""
    from aiproxy.reference_server.onnx import loading

    class Told(Future[LocalModel]):
        def set_result(self, result: LocalModel) -> None:
            closing.start()
            closing.join(0.1)
            super().set_result(result)

    opening = Opening()
    monkeypatch.setattr(loading, "Future", Told)
    loader = OnDemand(KNOWN, opening)
    closing = threading.Thread(target=lambda: asyncio.run(loader.close()))
    asyncio.run(loader.ready("embeddings"))
    closing.join(5)
    assert opening.parts[0].closed.wait(1)


def test_a_model_is_not_unloaded_while_a_call_reads_its_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tokenizing and decoding come before anything computes or waits."""
    from aiproxy.reference_server.onnx import loading
    from aiproxy.reference_server.onnx.bodies import embeddings

    monkeypatch.setattr(loading, "_SETTLED_S", 0.02)
    opening = Opening()
    loader = OnDemand(KNOWN, opening, unload_after_s=0.01)
    open_while_read = []

    async def slowly(model: Part, body: Any) -> Any:
        await asyncio.sleep(0.15)
        open_while_read.append(not model.closed.is_set())
        return {}

    monkeypatch.setattr(embeddings, "embed", slowly)
    asyncio.run(LocalModels([loader]).embed({"model": "m", "input": "a"}))
    assert open_while_read == [True]
    assert opening.parts[0].closed.wait(5)
    asyncio.run(loader.close())


def test_a_real_model_on_demand() -> None:
    [loader] = load_models({"models": [row(DEMO, load="on_demand")]})
    assert (loader.model.text, loader.model.context_window) == (None, 512)
    model = asyncio.run(loader.ready("text-generation"))
    assert model.text is not None
    asyncio.run(loader.close())


def run_python(code: str, home: Path) -> str:
    """Run ``code`` with an empty home folder and without a telemetry variable; return its output."""
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_telemetry_is_off_before_either_runtime_is_imported(tmp_path: Path) -> None:
    """The variable stands when the first import begins, and nothing is left in the home folder."""
    code = f"""
import asyncio, os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("onnxruntime", "onnxruntime_genai"):
            print(name, os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
from aiproxy.reference_server.onnx import LocalModels
paths = {{"plain": "builtin:demo", "paged": {str(tiny_llama(paged=True))!r}}}
rows = [{{"name": name, "path": path}} for name, path in paths.items()]
models = LocalModels.from_config({{"models": rows}})
print([model.reason for model in models.models])
asyncio.run(models.close())
"""
    assert run_python(code, tmp_path) == ("onnxruntime 1\nonnxruntime_genai 1\n[None, None]\n")
    assert list(tmp_path.rglob("*")) == []


def test_importing_the_package_loads_no_runtime_and_its_absence_is_a_reason(tmp_path: Path) -> None:
    """AIP-CFG-045: a missing onnxruntime gives a clear error."""
    code = """
import logging, sys
logging.disable()
from aiproxy.reference_server.onnx import LocalModels
import aiproxy.reference_server.onnx.loading
print(sorted({"onnxruntime", "onnxruntime_genai", "numpy", "tokenizers"} & set(sys.modules)))
sys.modules["onnxruntime"] = None
models = LocalModels.from_config({"models": [{"name": "demo", "path": "builtin:demo"}]})
print(models.models[0].reason)
"""
    imported, reason = run_python(code, tmp_path).splitlines()
    assert imported == "[]"
    assert reason == "onnxruntime is missing; pip install 'aiproxy[onnx]'"
