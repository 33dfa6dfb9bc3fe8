"""From a model's row in the configuration to a model that answers: where, by which adapter, when.

Nothing here raises for a model that cannot run: it is kept with its reason, the others serve. A
model with ``load: on_demand`` is read and placed at the start, loaded by its first request and given
back after ``unload_after`` without one.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from aiproxy.reference_server.onnx.adapters import open_adapter
from aiproxy.reference_server.onnx.devices import AUTO, CUDA, Device, Devices, devices, sized
from aiproxy.reference_server.onnx.errors import ModelUnavailable
from aiproxy.reference_server.onnx.folders import (
    ModelFolder,
    TextFolder,
    VectorFolder,
    capabilities_of,
    read_folder,
)
from aiproxy.reference_server.onnx.local_model import (
    EMBEDDINGS,
    IMAGES,
    TEXT,
    Loaded,
    Loader,
    LocalModel,
    RunningText,
)

if TYPE_CHECKING:
    from aiproxy.reference_server.onnx.vectors.session import SessionFactory

log = logging.getLogger(__name__)

Row: TypeAlias = Mapping[str, Any]
Adapter: TypeAlias = Literal["slots", "genai", "vectors"]

#: The capabilities an adapter serves; other words of a row are the operator's and stay.
SERVED: Final = (TEXT, EMBEDDINGS, IMAGES)
#: Seconds before a model that could not be loaded on demand is tried again.
RETRY_S: Final = 30.0
#: Least seconds between a request for a model and unloading it: it must have time to begin.
_SETTLED_S: Final = 1.0
#: Seconds an input may wait where the provider's row does not say.
_USUAL_WAIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a row names and where it would compute; nothing is loaded yet."""

    folder: ModelFolder
    device: Device
    adapters: tuple[Adapter, ...]  # tried in turn
    process: bool
    capabilities: tuple[str, ...]


class Placement:
    """Spreads models over the GPUs: each new one goes where the fewest bytes are planned."""

    def __init__(self, found: Callable[[], Devices] = devices) -> None:
        self._found = found
        self._lock = threading.Lock()
        self._planned: dict[int, int] = {}

    def peek(self, wanted: str) -> Device:
        """As ``place``, for a model whose size is not known; nothing is planned for it."""
        with self._lock:
            return self._found().choose(wanted, self._planned)

    def place(self, wanted: str, size: int) -> Device:
        """Return the device for a model of ``size`` bytes.

        Raises:
            ModelUnavailable: a GPU was asked for by name and cannot take it.
        """
        with self._lock:
            device = self._found().choose(wanted, self._planned, size)
            if device.kind == CUDA:
                self._planned[device.index] = self._planned.get(device.index, 0) + size
        return device


#: The GPUs are this machine's, whatever number of providers share them.
PLACEMENT: Final = Placement()


def load_models(provider: Row) -> tuple[Loader, ...]:
    """Return a loader for each of the provider's models, in order; never raises for a model."""
    return tuple(load_model(row, provider) for row in provider["models"])


def load_model(row: Row, provider: Row, placement: Placement = PLACEMENT) -> Loader:
    """Return the loader of one row; see the module."""
    name = row["name"]
    try:
        made = plan(row, provider, placement)
        if row.get("load") == "on_demand":
            return OnDemand(
                LocalModel(name, made.capabilities, context_of(made.folder), device=made.device),
                lambda: load(made, row, provider),
                unload_after_s=row.get("unload_after"),
            )
        return Loaded(load(made, row, provider))
    except ModelUnavailable as unavailable:
        return Loaded(without(row, unavailable))
    except Exception as fault:
        # A file nobody has thought of must not keep the other models, or the server, from starting.
        log.exception("local model %s could not be loaded", name)
        return Loaded(without(row, ModelUnavailable(f"loading it failed ({type(fault).__name__})")))


def without(row: Row, unavailable: ModelUnavailable) -> LocalModel:
    """Return the model of a row that cannot run, with the reason; the log has the cause."""
    log.warning(
        "local model %s is unavailable: %s (%r)",
        row["name"],
        unavailable.reason,
        unavailable.__cause__,
    )
    capabilities = tuple(row.get("capabilities") or (TEXT,))
    return LocalModel(
        row["name"], capabilities, row.get("context_window"), reason=unavailable.reason
    )


def plan(row: Row, provider: Row, placement: Placement = PLACEMENT) -> Plan:
    """Read what ``row`` names and choose its device and adapters.

    Raises:
        ModelUnavailable: it cannot run here; the reason says why.
    """
    runtime = row.get("runtime") or "onnx"
    check_runtime(runtime)
    if not row.get("path"):
        raise ModelUnavailable("path is not set; give a folder, an .onnx file or builtin:demo")
    wanted = row.get("device") or provider.get("device") or AUTO
    windows = [row[key] for key in ("max_context", "context_window") if row.get(key)]

    def read(device: str) -> ModelFolder:
        return read_folder(
            row["path"],
            tokenizer=row.get("tokenizer"),
            chat_template=row.get("chat_template"),
            context=min(windows, default=None),
            labels=row.get("labels") or (),
            device=device,
        )

    first = placement.peek(wanted)
    folder = read(first.kind)
    device = placement.place(wanted, folder.bytes)
    if device.kind != first.kind:
        folder = read(device.kind)
    if isinstance(folder, TextFolder) and folder.cuda_only and device.kind != CUDA:
        raise ModelUnavailable(f"its graph computes on CUDA alone; {device.reason}")
    if isinstance(folder, VectorFolder) and folder.runtime != runtime:
        raise ModelUnavailable(
            f"it is of the runtime {folder.runtime} and configured as {runtime}; set runtime"
        )
    capabilities = agreed(row.get("capabilities") or (TEXT,), folder)
    device = sized(device, provider.get("threads"), provider.get("gpu_memory_limit"), folder.bytes)
    worker = provider.get("worker") or AUTO
    process = worker == "process" or (worker == AUTO and device.kind == CUDA)
    return Plan(folder, device, adapters_of(folder), process, capabilities)


def check_runtime(runtime: str) -> None:
    """Refuse what cannot run here.

    Raises:
        ModelUnavailable: golearn, a library of another language, or PyTorch is not installed.
    """
    if runtime == "golearn":
        raise ModelUnavailable(
            "the runtime golearn is not available: it is a library for Go programs; use onnx"
        )
    if runtime == "pytorch":
        from importlib.util import find_spec

        if find_spec("torch") is None:
            raise ModelUnavailable(
                "the runtime pytorch is not available: PyTorch is missing; "
                "pip install 'aiproxy[pytorch]', or use onnx"
            )


def agreed(asked: Sequence[str], folder: ModelFolder) -> tuple[str, ...]:
    """Return the capabilities of a row that its model has.

    Raises:
        ModelUnavailable: it has none of them.
    """
    able = capabilities_of(folder)
    if not set(able) & set(SERVED):
        raise ModelUnavailable(f"it does {' and '.join(able)}, which is not served here")
    kept = tuple(word for word in asked if word in able or word not in SERVED)
    if not any(word in able for word in kept):
        raise ModelUnavailable(
            f"it does {' and '.join(able)}, not {' or '.join(asked)}; set its capabilities"
        )
    return kept


def adapters_of(folder: ModelFolder) -> tuple[Adapter, ...]:
    """Return what can run a folder, the better first."""
    if isinstance(folder, VectorFolder):
        return ("vectors",)
    if folder.paged:
        return ("genai",)
    # The engine's own path for such graphs is a fixed batch of 4 whose latecomers wait for all.
    return ("slots", "genai") if folder.kind == "genai" else ("slots",)


def context_of(folder: ModelFolder) -> int | None:
    return folder.context if isinstance(folder, TextFolder) else folder.max_length


def load(made: Plan, row: Row, provider: Row) -> LocalModel:
    """Load what was planned; when this returns, a first token or vector has been computed.

    Raises:
        ModelUnavailable: it cannot be loaded.
    """
    began = time.monotonic()
    try:
        model = _load(made, row, provider)
    except MemoryError as full:
        raise ModelUnavailable("there is not enough memory to load it") from full
    except ImportError as missing:
        raise ModelUnavailable(
            f"{missing.name or 'a package'} is missing; pip install 'aiproxy[onnx]'"
        ) from missing
    log.info(
        "local model %s runs on %s (%s), loaded in %.1f s",
        row["name"],
        made.device,
        made.device.reason or made.device.name,
        time.monotonic() - began,
    )
    return model


def _load(made: Plan, row: Row, provider: Row) -> LocalModel:
    name, folder = row["name"], made.folder
    model = LocalModel(name, made.capabilities, context_of(folder), device=made.device)
    if isinstance(folder, TextFolder):
        return replace(model, text=open_text(folder, made, row, provider))
    part = open_vectors(folder, made, row, provider)
    return replace(
        model,
        embedding=part if EMBEDDINGS in made.capabilities else None,
        image=part if IMAGES in made.capabilities else None,
    )


def open_vectors(folder: VectorFolder, made: Plan, row: Row, provider: Row) -> Any:
    """Return the model of a folder that gives vectors or scores."""
    from aiproxy.reference_server.onnx.vectors.embedding import open_embedding
    from aiproxy.reference_server.onnx.vectors.images import open_image

    options: dict[str, Any] = {
        "max_batch": row.get("max_batch"),
        "max_wait_s": provider.get("max_queue_wait") or _USUAL_WAIT_S,
        "session_factory": session_factory(made),
    }
    if folder.kind == "embedding":
        return open_embedding(
            folder,
            made.device,
            pooling=row.get("default_pooling"),
            normalize=row.get("normalize"),
            max_batch_tokens=row.get("max_batch_tokens"),
            **options,
        )
    return open_image(folder, made.device, labels=row.get("labels") or (), **options)


def session_factory(made: Plan) -> "SessionFactory":
    """Return what opens a folder's graphs: here, or all of them in one process of their own."""
    if made.process:
        from aiproxy.reference_server.onnx.worker.graph_process import GraphProcess

        return GraphProcess
    from aiproxy.reference_server.onnx.vectors import pytorch

    return pytorch.open_graph


def open_text(folder: TextFolder, made: Plan, row: Row, provider: Row) -> RunningText:
    """Return a text model ready to answer."""
    from aiproxy.reference_server.onnx.text.engine import TextEngine
    from aiproxy.reference_server.onnx.text.text_model import read_text_model

    text = read_text_model(folder, name=row["name"], tool_format=row.get("tool_format") or "auto")
    runner = open_runner(folder, made, row, provider)
    limits = {
        "max_queue": provider.get("max_queue"),
        "max_queue_wait_s": provider.get("max_queue_wait"),
        "max_concurrency": provider.get("max_concurrency"),
    }
    given = {key: value for key, value in limits.items() if value is not None}
    return RunningText(text, TextEngine(runner, text.decode, **given))


def open_runner(folder: TextFolder, made: Plan, row: Row, provider: Row) -> Any:
    """Return the first of the plan's adapters that takes the folder.

    Raises:
        ModelUnavailable: none does; the reason is the first one's.
    """
    refused: list[ModelUnavailable] = []
    for adapter in made.adapters:
        try:
            return _open_runner(adapter, folder, made, row, provider)
        except ModelUnavailable as unavailable:
            refused.append(unavailable)
    raise refused[0]


def _open_runner(adapter: Adapter, folder: TextFolder, made: Plan, row: Row, provider: Row) -> Any:
    sizes: dict[str, Any] = {
        "slots": provider.get("max_concurrency"),
        "context": folder.context,
        "cache_tokens": row.get("kv_cache_tokens"),
    }
    if made.process:
        from aiproxy.reference_server.onnx.worker.messages import WorkerSpec
        from aiproxy.reference_server.onnx.worker.parent import WorkerRunner

        return WorkerRunner(WorkerSpec(adapter, made.device, folder, **sizes))
    return open_adapter(adapter, folder, made.device, **sizes)


def busy(model: LocalModel) -> bool:
    """Whether anything of a model computes or waits."""
    return any(any(_load_of(part)) for part in model.parts())


def _load_of(part: Any) -> tuple[int, int]:
    """What a part computes and what waits for it; some keep that in their scheduler."""
    for keeper in ("engine", "batcher"):
        if hasattr(part, keeper):
            part = getattr(part, keeper)
    load: tuple[int, int] = part.load
    return load


class OnDemand:
    """The loader of a model that its first request loads. Safe for threads and several event loops.

    ``known`` is what is told of it while it is not loaded, ``open_model`` loads it.
    """

    def __init__(
        self,
        known: LocalModel,
        open_model: Callable[[], LocalModel],
        *,
        unload_after_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known = known
        self._open = open_model
        self._keep_s = None if unload_after_s is None else max(unload_after_s, _SETTLED_S)
        self._clock = clock
        self._lock = threading.Lock()
        # Held while memory is taken or given back: both at once may need the memory of two.
        self._moving = threading.Lock()
        self._loading: Future[LocalModel] | None = None
        self._asked = 0.0
        self._calls = 0
        self._failed: tuple[float, str] | None = None
        self._timer: threading.Timer | None = None
        self._closed = False

    @property
    def model(self) -> LocalModel:
        with self._lock:
            loading, failed = self._loading, self._failed
        if loading is not None and loading.done() and loading.exception() is None:
            return loading.result()
        if failed is not None and self._clock() - failed[0] < RETRY_S:
            return replace(self._known, reason=failed[1])
        return self._known

    @contextmanager
    def kept(self) -> Iterator[None]:
        """As ``Loader.kept``."""
        with self._lock:
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1

    async def ready(self, capability: str) -> LocalModel:
        """As ``Loader.ready``; callers that come while it is loading wait for the same loading."""
        return await asyncio.shield(asyncio.wrap_future(self._begin()))

    def _begin(self) -> "Future[LocalModel]":
        with self._lock:
            self._asked = self._clock()
            if self._closed:
                raise ModelUnavailable("the server is shutting down")
            if self._loading is not None:
                return self._loading
            if self._failed is not None and self._clock() - self._failed[0] < RETRY_S:
                raise ModelUnavailable(self._failed[1])
            loading = self._loading = Future()
        try:
            threading.Thread(
                target=self._load, args=(loading,), name=f"load {self._known.name}", daemon=True
            ).start()
        except RuntimeError as fault:
            self._refuse(loading, fault)
        return loading

    def _load(self, loading: "Future[LocalModel]") -> None:
        try:
            with self._moving:
                model = self._open()
        except BaseException as fault:  # noqa: BLE001 - whoever waits would wait for ever
            self._refuse(loading, fault)
            return
        with self._lock:  # close() finds it loaded, or is found here
            self._failed = None
            unwanted = self._closed
            loading.set_result(model)
        if unwanted:
            model.close()
        else:
            self._watch(self._keep_s)

    def _refuse(self, loading: "Future[LocalModel]", fault: BaseException) -> None:
        name = self._known.name
        if isinstance(fault, ModelUnavailable):
            refusal = fault
        else:
            log.error("local model %s could not be loaded", name, exc_info=fault)
            refusal = ModelUnavailable(f"loading it failed ({type(fault).__name__})")
        log.warning("local model %s is unavailable: %s", name, refusal.reason)
        with self._lock:
            self._loading, self._failed = None, (self._clock(), refusal.reason)
        loading.set_exception(refusal)

    def _watch(self, delay_s: float | None) -> None:
        if delay_s is None:
            return
        with self._lock:
            if self._closed:
                return
            self._timer = threading.Timer(delay_s, self._unload_if_idle)
            self._timer.daemon = True
            self._timer.start()

    def _unload_if_idle(self) -> None:
        assert self._keep_s is not None
        with self._moving:
            with self._lock:
                loading = self._loading
                if loading is None or self._closed:
                    return
                model = loading.result()
                left = self._asked + self._keep_s - self._clock()
                idle = left <= 0 and not self._calls and not busy(model)
                if idle:
                    self._loading = None
            if idle:
                log.info("local model %s is unloaded: nobody asked for it", self._known.name)
                model.close()
                return
        self._watch(max(left, _SETTLED_S))

    async def close(self) -> None:
        """Give the model back; one that is still loading goes as soon as it is there."""
        with self._lock:
            self._closed = True
            loading, self._loading = self._loading, None
            if self._timer is not None:
                self._timer.cancel()
        if loading is not None and loading.done() and loading.exception() is None:
            await asyncio.to_thread(loading.result().close)
