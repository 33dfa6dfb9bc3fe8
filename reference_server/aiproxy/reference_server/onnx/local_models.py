"""The local models of one provider by public name, with OpenAI bodies in and out.

The one class a web application needs: it loads what the configuration lists, keeps the reason of
whatever cannot run, and bridges each model's owner thread to the event loop of the caller. No
network, no request parsing beyond the body, no routing.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiproxy.reference_server.onnx.engine import TextEngine
from aiproxy.reference_server.onnx.errors import (
    ModelNotFound,
    ModelUnavailable,
    RequestRefused,
)
from aiproxy.reference_server.onnx.generation import Event, Failed, Finished
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

log = logging.getLogger(__name__)

TEXT = "text-generation"
EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class LocalModel:
    """One configured model; without an engine it cannot run and ``reason`` says why."""

    name: str
    capabilities: tuple[str, ...]
    context_window: int | None = None
    reason: str | None = None
    text: Any = None  # a text_model.TextModel, not imported here: it needs the onnx extra
    engine: TextEngine | None = None

    @property
    def available(self) -> bool:
        return self.engine is not None


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
            return await self._stream(model, task, writer)
        return chat_completion(envelope, *await self._whole(model, task))

    async def complete(self, body: Body) -> Json | AsyncIterator[Json]:
        """Answer a completions request, as ``chat`` does; the prompt is read as a user message."""
        model = self._ready(body, TEXT)
        task = read_completion(body, model.text.sampling)
        envelope = self._envelope("cmpl-", model)
        if task.stream:
            writer = CompletionChunkWriter(envelope, task.include_usage)
            return await self._stream(model, task, writer)
        return text_completion(envelope, *await self._whole(model, task))

    async def embed(self, body: Body) -> Json:
        """Refuse an embeddings request: no runtime for local embedding models exists here yet."""
        model = self._ready(body, EMBEDDINGS)
        raise ModelUnavailable(f"no runtime for embeddings serves {model.name}")

    async def close(self) -> None:
        """End running answers and stop the owner threads."""
        for model in self._models.values():
            if model.engine is not None:
                await asyncio.to_thread(model.engine.close)

    def _ready(self, body: Body, capability: str) -> LocalModel:
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
        if model.reason is not None:
            raise ModelUnavailable(model.reason)
        return model

    def _envelope(self, prefix: str, model: LocalModel) -> Envelope:
        return Envelope(
            prefix + self._new_id(), int(self._now()), model.name, model.text.fingerprint
        )

    async def _whole(self, model: LocalModel, task: Task) -> tuple[str, Finished]:
        texts = []
        async for event in events(model, task):
            if isinstance(event, Finished):
                return "".join(texts), event
            texts.append(event.text)
        raise AssertionError("an answer ended without saying so")

    async def _stream(
        self, model: LocalModel, task: Task, writer: ChunkWriter
    ) -> AsyncIterator[Json]:
        source = events(model, task)
        # Waiting for the first event keeps refusals ahead of the response head.
        first = await anext(source)
        return _chunks(first, source, writer)


async def _chunks(first: Any, source: Any, writer: ChunkWriter) -> AsyncIterator[Json]:
    try:
        for chunk in writer.opening():
            yield chunk
        event = first
        while not isinstance(event, Finished):
            yield writer.piece(event.text)
            event = await anext(source)
        for chunk in writer.closing(event):
            yield chunk
    finally:
        await source.aclose()


async def events(model: LocalModel, task: Task) -> Any:
    """Submit ``task``; yield its tokens, then its end; leaving early cancels the job.

    Raises:
        LocalError: it was refused, or failed on the way.
    """
    assert model.engine is not None  # noqa: S101 - told apart by _ready
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Event] = asyncio.Queue()

    def deliver(event: Event) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, event)

    job = model.engine.submit(task.request, deliver)
    try:
        while True:
            event = await queue.get()
            if isinstance(event, Failed):
                raise event.error
            yield event
            if isinstance(event, Finished):
                return
    finally:
        job.cancel()


def load_model(model: Mapping[str, Any], provider: Mapping[str, Any]) -> LocalModel:
    """Return the model of one entry of ``models``, running or with the reason why not."""
    name, capabilities = model["name"], tuple(model.get("capabilities") or (TEXT,))
    try:
        text = load_text(model, capabilities)
    except ModelUnavailable as unavailable:
        cause = unavailable.__cause__
        log.warning("local model %s is unavailable: %s (%r)", name, unavailable.reason, cause)
        return LocalModel(name, capabilities, model.get("context_window"), unavailable.reason)
    limits = {
        "max_queue": provider.get("max_queue"),
        "max_queue_wait_s": provider.get("max_queue_wait"),
        "max_concurrency": provider.get("max_concurrency"),
    }
    engine = TextEngine(text, **{key: value for key, value in limits.items() if value is not None})
    return LocalModel(name, capabilities, text.context_window, None, text, engine)


def load_text(model: Mapping[str, Any], capabilities: tuple[str, ...]) -> Any:
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
