"""The local models of one provider by public name, with OpenAI bodies in and out.

The one class a web application needs: it loads what the configuration lists, keeps the reason of
whatever cannot run, and bridges each model's owner thread to the event loop of the caller. No
network, no request parsing beyond the body, no routing.
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiproxy.reference_server.onnx.engine import TextEngine
from aiproxy.reference_server.onnx.errors import (
    ModelNotFound,
    ModelUnavailable,
    RequestRefused,
)
from aiproxy.reference_server.onnx.generation import Event, Failed, Finished, Token
from aiproxy.reference_server.onnx.openai_chat import (
    Body,
    ChunkWriter,
    CompletionChunkWriter,
    Envelope,
    Json,
    Task,
    chat_completion,
    read_chat,
    read_completion,
    text_completion,
)

if TYPE_CHECKING:  # at run time it is imported when a model is loaded: it needs the onnx extra
    from aiproxy.reference_server.onnx.text_model import TextModel

log = logging.getLogger(__name__)

TEXT = "text-generation"
EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Running:
    """A loaded model and the engine that computes with it."""

    name: str
    text: "TextModel"
    engine: TextEngine


@dataclass(frozen=True, slots=True)
class LocalModel:
    """One configured model; ``running`` is None when it cannot run, and ``reason`` says why."""

    name: str
    capabilities: tuple[str, ...]
    context_window: int | None
    running: Running | None = None
    reason: str | None = None

    @property
    def available(self) -> bool:
        return self.running is not None


class LocalModels:
    """Registry and front of the local models. Every method may raise a ``LocalError``."""

    def __init__(
        self,
        models: tuple[LocalModel, ...],
        *,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: secrets.token_hex(12),
    ) -> None:
        self._models = {model.name: model for model in models}
        self._now = now
        self._new_id = new_id

    @classmethod
    def from_config(cls, provider: Mapping[str, Any], **hooks: Any) -> "LocalModels":
        """Load the ``models`` of a provider of type local; ``provider`` has its defaults filled in.

        ``max_concurrency`` null is one answer at a time. A model that cannot be loaded is kept with
        its reason; this never raises for it.
        """
        return cls(tuple(load_model(model, provider) for model in provider["models"]), **hooks)

    @property
    def models(self) -> tuple[LocalModel, ...]:
        """Every configured model in configuration order, unavailable ones included."""
        return tuple(self._models.values())

    async def chat(self, body: Body) -> Json | AsyncIterator[Json]:
        """Answer a chat request: a body, or with ``stream`` the chunks, without ``[DONE]``.

        Errors known before the first token are raised here, later ones by the iterator.
        """
        model = self._ready(body, TEXT)
        task = read_chat(body, model.text.sampling)
        envelope = self._envelope("chatcmpl-", model)
        if task.stream:
            writer = ChunkWriter(envelope, task.include_usage)
            return await streamed(model, task, writer)
        return chat_completion(envelope, *await whole(model, task))

    async def complete(self, body: Body) -> Json | AsyncIterator[Json]:
        """Answer a completions request, as ``chat`` does; the prompt is read as a user message."""
        model = self._ready(body, TEXT)
        task = read_completion(body, model.text.sampling)
        envelope = self._envelope("cmpl-", model)
        if task.stream:
            writer = CompletionChunkWriter(envelope, task.include_usage)
            return await streamed(model, task, writer)
        return text_completion(envelope, *await whole(model, task))

    async def embed(self, body: Body) -> Json:
        """Refuse an embeddings request: no runtime for local embedding models exists here yet."""
        model = self._ready(body, EMBEDDINGS)
        raise ModelUnavailable(f"no runtime for embeddings serves {model.name}")

    async def close(self) -> None:
        """End running answers and stop the owner threads."""
        for model in self._models.values():
            if model.running is not None:
                await asyncio.to_thread(model.running.engine.close)

    def _ready(self, body: Body, capability: str) -> Running:
        name = body.get("model")
        if not isinstance(name, str):
            raise RequestRefused("missing_required_parameter", "model must be a string", "model")
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(name, tuple(self._models))
        if capability not in model.capabilities:
            can = ", ".join(model.capabilities)
            raise RequestRefused(
                "unsupported_capability",
                f"the local model {name} does {can}, not {capability}; choose another model",
                "model",
            )
        if model.running is None:
            raise ModelUnavailable(model.reason or "it is not loaded")
        return model.running

    def _envelope(self, prefix: str, model: Running) -> Envelope:
        return Envelope(
            prefix + self._new_id(), int(self._now()), model.name, model.text.fingerprint
        )


class Reader:
    """Brings the events of one job to the event loop it is made on; submits it, may raise so."""

    def __init__(self, model: Running, task: Task) -> None:
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

        def deliver(event: Event) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, event)

        self._job = model.engine.submit(task.request, deliver)

    async def next(self) -> Token | Finished:
        """Wait for the next event; a failure is raised, being given up cancels the job."""
        try:
            event = await self._events.get()
        except asyncio.CancelledError:
            self._job.cancel()
            raise
        if isinstance(event, Failed):
            raise event.error
        return event

    def close(self) -> None:
        self._job.cancel()


async def whole(model: Running, task: Task) -> tuple[str, Finished]:
    """Return the answer's text and its end."""
    reader, texts = Reader(model, task), []
    event = await reader.next()
    while isinstance(event, Token):
        texts.append(event.text)
        event = await reader.next()
    return "".join(texts), event


async def streamed(model: Running, task: Task, writer: ChunkWriter) -> "ChunkStream":
    """Return the answer's chunks once its first event is there.

    So a refusal is raised here, ahead of the response head.
    """
    reader = Reader(model, task)
    return ChunkStream(await reader.next(), reader, writer)


class ChunkStream(AsyncIterator[Json]):
    """The chunks of a streamed answer; ``aclose`` before the end cancels the job."""

    def __init__(self, first: Token | Finished, reader: Reader, writer: ChunkWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._over = False
        self._ready = deque(writer.opening())
        self._take(first)

    async def __anext__(self) -> Json:
        if not self._ready:
            if self._over:
                raise StopAsyncIteration
            self._take(await self._reader.next())
        return self._ready.popleft()

    async def aclose(self) -> None:
        self._over = True
        self._ready.clear()
        self._reader.close()

    def _take(self, event: Token | Finished) -> None:
        if isinstance(event, Finished):
            self._over = True
            self._ready.extend(self._writer.closing(event))
        else:
            self._ready.append(self._writer.piece(event.text))


def load_model(model: Mapping[str, Any], provider: Mapping[str, Any]) -> LocalModel:
    """Return the model of one entry of ``models``, running or with the reason why not."""
    name, capabilities = model["name"], tuple(model.get("capabilities") or (TEXT,))
    try:
        text = load_text(model, capabilities)
    except ModelUnavailable as unavailable:
        cause = unavailable.__cause__
        log.warning("local model %s is unavailable: %s (%r)", name, unavailable.reason, cause)
        window = model.get("context_window")
        return LocalModel(name, capabilities, window, reason=unavailable.reason)
    limits = {
        "max_queue": provider.get("max_queue"),
        "max_queue_wait_s": provider.get("max_queue_wait"),
        "max_concurrency": provider.get("max_concurrency"),
    }
    engine = TextEngine(text, **{key: value for key, value in limits.items() if value is not None})
    return LocalModel(name, capabilities, text.context_window, Running(name, text, engine))


def load_text(model: Mapping[str, Any], capabilities: tuple[str, ...]) -> "TextModel":
    """Return the ``TextModel`` of one entry of ``models``.

    Raises:
        ModelUnavailable: it needs what this runtime has not, or its files are not in order.
    """
    runtime = model.get("runtime") or "onnx"
    if runtime != "onnx":
        raise ModelUnavailable(f"the runtime {runtime} is not available; use onnx")
    if TEXT not in capabilities:
        raise ModelUnavailable(f"only {TEXT} models can run here so far")
    if model.get("chat_template"):
        raise ModelUnavailable("chat_template is not supported; describe chat in config.json")
    if not model.get("path"):
        raise ModelUnavailable("path is not set; give a folder, an .onnx file or builtin:demo")
    try:
        from aiproxy.reference_server.onnx.text_model import TextModel
    except ImportError as missing:
        raise ModelUnavailable("numpy is missing; pip install 'aiproxy[onnx]'") from missing
    windows = [model[key] for key in ("max_context", "context_window") if model.get(key)]
    return TextModel.load(
        model["path"],
        tokenizer=model.get("tokenizer"),
        context=min(windows, default=None),
    )
