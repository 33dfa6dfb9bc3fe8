"""The local models of one provider by public name, with OpenAI bodies in and out.

The one class a web application needs: it loads what the configuration lists, keeps the reason of
whatever cannot run, and bridges each model's owner thread to the event loop of the caller. No
network, no request parsing beyond the body, no routing.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aiproxy.reference_server.onnx.bodies.answers import (
    ChatChoice,
    Choice,
    Envelope,
    Json,
    TextChoice,
    body_of,
    total,
    usage_object,
    whole_body,
)
from aiproxy.reference_server.onnx.bodies.chat import (
    Abilities,
    Body,
    Task,
    read_chat,
    read_completion,
)
from aiproxy.reference_server.onnx.errors import (
    ModelNotFound,
    ModelUnavailable,
    RequestRefused,
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
from aiproxy.reference_server.onnx.text.bridge import Reader, bridge
from aiproxy.reference_server.onnx.text.generation import Finished, Token

if TYPE_CHECKING:  # at run time it is imported when a model is loaded: it needs the onnx extra
    from aiproxy.reference_server.onnx.text.text_model import TextModel

#: Characters of a prompt from which on reading it would hold up the event loop.
LONG_PROMPT: Final = 20_000


class LocalModels:
    """Registry and front of the local models. Every method may raise a ``LocalError``."""

    def __init__(
        self,
        models: Sequence[LocalModel | Loader],
        *,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: secrets.token_hex(12),
    ) -> None:
        loaders = [Loaded(model) if isinstance(model, LocalModel) else model for model in models]
        self._loaders: dict[str, Loader] = {loader.model.name: loader for loader in loaders}
        self._now = now
        self._new_id = new_id

    @classmethod
    def from_config(cls, provider: Mapping[str, Any], **hooks: Any) -> "LocalModels":
        """Load the ``models`` of a provider of type local; ``provider`` has its defaults filled in.

        A model that cannot be loaded is kept with its reason; this never raises for it.
        """
        from aiproxy.reference_server.onnx.loading import load_models

        return cls(load_models(provider), **hooks)

    @property
    def models(self) -> tuple[LocalModel, ...]:
        """Every configured model in configuration order, unavailable ones included."""
        return tuple(loader.model for loader in self._loaders.values())

    @property
    def loaders(self) -> tuple[Loader, ...]:
        """What brings each model, in configuration order."""
        return tuple(self._loaders.values())

    async def chat(self, body: Body) -> Json | AsyncIterator[Json]:
        """Answer a chat request: a body, or with ``stream`` the chunks, without ``[DONE]``.

        Errors known before the first token are raised here, later ones by the iterator.
        """
        async with self._text(body) as model:
            task = read_chat(body, abilities(model))
            spell = spelling(model, task)
            choices = [
                ChatChoice(at, task.tools, spell, self._new_id) for at in range(task.choices)
            ]
            return await self._answer(model, task, choices, "chatcmpl-", "chat.completion")

    async def complete(self, body: Body) -> Json | AsyncIterator[Json]:
        """Answer a completions request, as ``chat`` does. A model with a declarative template reads
        the prompt as a user message, any other takes it as it is."""
        async with self._text(body) as model:
            task = read_completion(body, abilities(model))
            spell = spelling(model, task)
            choices = [TextChoice(at, spell) for at in range(task.choices)]
            return await self._answer(model, task, choices, "cmpl-", "text_completion")

    async def embed(self, body: Body) -> Json:
        """Answer an embeddings request."""
        from aiproxy.reference_server.onnx.bodies.embeddings import embed

        async with self._ready(body, EMBEDDINGS) as model:
            if model.embedding is None:
                raise ModelUnavailable(model.reason or "it is not loaded")
            answer: Json = await embed(model.embedding, body)
            return answer

    async def classify(self, body: Body) -> Json:
        """Answer a classification of an image."""
        from aiproxy.reference_server.onnx.bodies.predicting import classify

        async with self._ready(body, IMAGES) as model:
            if model.image is None:
                raise ModelUnavailable(model.reason or "it is not loaded")
            answer: Json = await classify(model.image, body)
            return answer

    async def close(self) -> None:
        """End running answers and stop what computes."""
        await asyncio.gather(*(loader.close() for loader in self._loaders.values()))

    @asynccontextmanager
    async def _text(self, body: Body) -> AsyncIterator[RunningText]:
        async with self._ready(body, TEXT) as model:
            if model.text is None:
                raise ModelUnavailable(model.reason or "it is not loaded")
            yield model.text

    @asynccontextmanager
    async def _ready(self, body: Body, capability: str) -> AsyncIterator[LocalModel]:
        """Yield the model ``body`` names, loaded for ``capability`` until this is left."""
        name = body.get("model")
        if not isinstance(name, str):
            raise RequestRefused("missing_required_parameter", "model must be a string", "model")
        loader = self._loaders.get(name)
        if loader is None:
            raise ModelNotFound(name, tuple(self._loaders))
        able = loader.model.capabilities
        if capability not in able:
            raise RequestRefused(
                "unsupported_capability",
                f"the local model {name} does {', '.join(able)}, not {capability}; "
                "choose another model",
                "model",
            )
        with loader.kept():
            yield await loader.ready(capability)

    async def _answer(
        self,
        model: RunningText,
        task: Task,
        choices: Sequence[Choice],
        prefix: str,
        kind: str,
    ) -> Json | AsyncIterator[Json]:
        fingerprint, name = model.model.fingerprint, model.model.name
        envelope = Envelope(prefix + self._new_id(), int(self._now()), name, fingerprint)
        model.engine.refuse_if_full()  # before a long prompt is read
        prompt = await prompted(model.model, task)
        requests = list(task.requests(prompt))
        reader = bridge().submit(model.engine, requests)
        if task.stream:
            chunk = kind if kind == "text_completion" else kind + ".chunk"
            stream = ChunkStream(reader, choices, envelope, chunk, task.include_usage)
            await stream.begin()
            return stream
        ends: list[Finished] = []
        for choice, tokens, end in zip(choices, *await reader.whole(), strict=True):
            logprobs = [row for token in tokens for row in token.logprobs]
            choice.take("".join(token.text for token in tokens), logprobs)
            choice.end(end.reason)
            ends.append(end)
        return whole_body(envelope, kind, choices, ends)


def abilities(model: RunningText) -> Abilities:
    text = model.model
    return Abilities(
        sampling=text.sampling,
        traits=model.engine.runner.traits,
        tools=text.tool_format,
        vocabulary=text.tokenizer.vocabulary,
        raw=not text.declared,
    )


def spelling(model: RunningText, task: Task) -> Callable[[int], bytes] | None:
    """Return what spells tokens, when the answer has to."""
    return None if task.request.top_logprobs is None else model.model.tokenizer.token_bytes


async def prompted(model: "TextModel", task: Task) -> tuple[int, ...]:
    """Return the prompt's token ids; a long one is read in a thread.

    Raises:
        ContextOverflow: it does not fit.
        RequestRefused: the model's template does not take it.
    """
    prompt = task.prompt
    if isinstance(prompt, tuple):
        return prompt
    if isinstance(prompt, str):
        if len(prompt) < LONG_PROMPT:
            return model.raw_prompt(prompt)
        return await asyncio.to_thread(model.raw_prompt, prompt)
    if prompt.characters < LONG_PROMPT:
        return model.chat_prompt(prompt)
    return await asyncio.to_thread(model.chat_prompt, prompt)


class ChunkStream(AsyncIterator[Json]):
    """The chunks of a streamed answer; ``aclose`` before the end cancels what computes.

    Tokens that wait when the client is ready for more make one chunk together, so one who reads
    slowly costs a chunk each time it reads and not one a token.
    """

    def __init__(
        self,
        reader: Reader,
        choices: Sequence[Choice],
        envelope: Envelope,
        kind: str,
        include_usage: bool,
    ) -> None:
        self._reader = reader
        self._choices = choices
        self._include_usage = include_usage
        self._head = body_of(envelope, kind, [])
        self._ends: list[Finished] = []
        self._over = False
        self._ready: deque[Json] = deque()
        for choice in choices:
            self._tell(choice.opening())

    async def begin(self) -> None:
        """Wait for the first event, so that a refusal is raised ahead of the response head. Whatever
        is raised, nothing is computed any more."""
        try:
            self._take(await self._reader.next())
        except BaseException:
            await self.aclose()
            raise

    async def __anext__(self) -> Json:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            self._take(await self._reader.next())
        return self._ready.popleft()

    async def aclose(self) -> None:
        self._over = True
        self._ready.clear()
        self._reader.close()

    def _take(self, events: Sequence[tuple[int, Token | Finished]]) -> None:
        waiting: dict[int, list[Token]] = {}
        for index, event in events:
            if isinstance(event, Token):
                waiting.setdefault(index, []).append(event)
                continue
            self._merge(index, waiting.pop(index, []))
            self._tell(self._choices[index].end(event.reason))
            self._ends.append(event)
        for index, tokens in waiting.items():
            self._merge(index, tokens)
        self._over = len(self._ends) == len(self._choices)
        if self._over and self._include_usage:
            self._ready.append({**self._head, "usage": usage_object(total(self._ends))})

    def _merge(self, index: int, tokens: Sequence[Token]) -> None:
        if tokens:
            text = "".join(token.text for token in tokens)
            logprobs = [row for token in tokens for row in token.logprobs]
            self._tell(self._choices[index].take(text, logprobs))

    def _tell(self, choices: Sequence[Json]) -> None:
        for choice in choices:
            chunk = {**self._head, "choices": [choice]}
            if self._include_usage:
                chunk["usage"] = None
            self._ready.append(chunk)
