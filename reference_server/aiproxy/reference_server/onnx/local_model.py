"""One configured local model: its parts, and how a model that is loaded on demand gets ready."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:  # the parts need packages of an extra; naming them does not
    from aiproxy.reference_server.onnx.devices import Device
    from aiproxy.reference_server.onnx.text.engine import TextEngine
    from aiproxy.reference_server.onnx.text.text_model import TextModel

TEXT: Final = "text-generation"
EMBEDDINGS: Final = "embeddings"
IMAGES: Final = "image-classification"


@dataclass(frozen=True, slots=True)
class RunningText:
    """A text model's tokenizer and template, and the engine that computes with its weights."""

    model: "TextModel"
    engine: "TextEngine"

    @property
    def lost(self) -> str | None:
        """Why it computes nothing now, or None."""
        return self.engine.state.lost

    def close(self) -> None:
        """End running answers and give the weights back; may wait some seconds."""
        self.engine.close()


@dataclass(frozen=True, slots=True)
class LocalModel:
    """One configured model. A part it has not is None; ``reason`` says why one is missing. No part
    and no reason: it is loaded when it is first asked. Every part has ``lost``, why it computes
    nothing now, or None, and a ``close()`` that may block."""

    name: str
    capabilities: tuple[str, ...]
    context_window: int | None
    text: RunningText | None = None
    embedding: Any | None = None
    image: Any | None = None
    reason: str | None = None
    device: "Device | None" = None

    @property
    def available(self) -> bool:
        return self.reason is None or any(True for _ in self.parts())

    def parts(self) -> Iterator[Any]:
        """Yield the parts that are loaded, each once."""
        seen: list[Any] = []
        for part in (self.text, self.embedding, self.image):
            if part is not None and not any(part is other for other in seen):
                seen.append(part)
                yield part

    def close(self) -> None:
        """Close every part; may wait some seconds."""
        for part in self.parts():
            part.close()


class Loader(Protocol):
    """A configured model that may not be loaded yet: on demand, unloaded when idle, or fixed."""

    @property
    def model(self) -> LocalModel:
        """What is known now. One that waits for its first request counts as available."""
        ...

    async def ready(self, capability: str) -> LocalModel:
        """Return the model with the part for ``capability`` loaded; it stays so while it is ``kept``
        or computes.

        Raises:
            ModelUnavailable: it cannot be loaded.
        """
        ...

    def kept(self) -> AbstractContextManager[None]:
        """Return what one enters for a call that needs the model: it is not unloaded meanwhile."""
        ...

    async def close(self) -> None: ...


class Loaded:
    """The loader of a model that was loaded, or failed to, at the start."""

    def __init__(self, model: LocalModel) -> None:
        self._model = model

    @property
    def model(self) -> LocalModel:
        return self._model

    async def ready(self, capability: str) -> LocalModel:
        return self._model

    def kept(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def close(self) -> None:
        await asyncio.to_thread(self._model.close)
