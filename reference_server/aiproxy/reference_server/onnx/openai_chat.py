"""Between OpenAI bodies and the engine: ``/v1/chat/completions`` and ``/v1/completions``.

Pure functions. Requests come in as parsed JSON objects; what a local model cannot honour is refused
with the field's name, never dropped, unless leaving it out changes nothing. Fields nobody here knows
are ignored, as OpenAI's own servers ignore ``metadata`` or ``user``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from aiproxy.reference_server.onnx.errors import LocalError, RequestRefused
from aiproxy.reference_server.onnx.generation import (
    Finished,
    GenerationRequest,
    Message,
    Sampling,
    Usage,
)

Body = Mapping[str, Any]
Json = dict[str, Any]

MOST_STOPS: Final = 4
#: Field, the code of its refusal, and the values that ask for nothing and so pass.
REFUSED: Final[tuple[tuple[str, str, Callable[[Any], bool]], ...]] = (
    ("tools", "unsupported_capability", lambda value: not value),
    ("functions", "unsupported_capability", lambda value: not value),
    ("audio", "unsupported_capability", lambda value: not value),
    ("modalities", "unsupported_capability", lambda value: value == ["text"]),
    ("web_search_options", "unsupported_capability", lambda value: not value),
    ("logprobs", "unsupported_parameter", lambda value: value is False),
    ("top_logprobs", "unsupported_parameter", lambda value: value == 0),
    ("logit_bias", "unsupported_parameter", lambda value: not value),
    ("n", "unsupported_parameter", lambda value: value == 1 and value is not True),
    ("best_of", "unsupported_parameter", lambda value: value == 1 and value is not True),
    ("echo", "unsupported_parameter", lambda value: value is False),
    ("suffix", "unsupported_parameter", lambda value: not value),
)
#: Number fields of ``Sampling``: smallest and largest value, and whether it must be whole.
NUMBERS: Final[Mapping[str, tuple[float, float, bool]]] = {
    "temperature": (0, 2, False),
    "top_p": (0, 1, False),
    "top_k": (0, 2**31, True),
    "presence_penalty": (-2, 2, False),
    "frequency_penalty": (-2, 2, False),
}


@dataclass(frozen=True, slots=True)
class Task:
    """A request as the engine takes it, and how its answer is to be sent."""

    request: GenerationRequest
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every body of one answer carries: its id, creation time (Unix seconds), public model."""

    id: str
    created: int
    model: str
    fingerprint: str


def read_chat(body: Body, usual: Sampling) -> Task:
    """Return the task of a chat request; ``usual`` is what counts for absent sampling fields.

    Raises:
        RequestRefused: a field is wrong, or asks for what a local text model cannot do.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise refused("messages", "a non-empty list of messages", body)
    read = tuple(read_message(message, f"messages[{at}]") for at, message in enumerate(messages))
    if not any(message.role == "user" for message in read):
        raise RequestRefused("invalid_value", "messages holds no user message; add one", "messages")
    return _task(body, read, usual, limits=("max_completion_tokens", "max_tokens"))


def read_completion(body: Body, usual: Sampling) -> Task:
    """Return the task of a completions request; its one prompt is read as a user message.

    Raises:
        RequestRefused: as ``read_chat``.
    """
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise refused("prompt", "one string", body)
    return _task(body, (Message("user", prompt),), usual, limits=("max_tokens",))


def read_message(message: object, path: str) -> Message:
    """Return one message; ``developer`` counts as system, list content must be text parts."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestRefused("invalid_type", f"{path} is no message object with a role", path)
    role, content = message["role"], message.get("content")
    match role:
        case "user" | "assistant" | "system":
            pass
        case "developer":
            role = "system"
        case _:
            raise RequestRefused(
                "unsupported_capability",
                f"{path}.role is not one this model knows: system, developer, user, assistant",
                f"{path}.role",
            )
    if content is None and role == "assistant":
        return Message(role, "")
    if isinstance(content, str):
        return Message(role, content)
    if not isinstance(content, list):
        raise RequestRefused(
            "invalid_type", f"{path}.content is neither text nor a list", f"{path}.content"
        )
    parts = [read_part(part, f"{path}.content[{at}]") for at, part in enumerate(content)]
    return Message(role, "".join(parts))


def read_part(part: object, path: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str):
        raise RequestRefused("invalid_type", f"{path} is no content part with a type", path)
    if kind not in ("text", "refusal"):
        raise RequestRefused(
            "unsupported_capability", f"{path} is not text; this model reads text only", path
        )
    text = part.get(kind)
    if not isinstance(text, str):
        raise RequestRefused("invalid_type", f"{path}.{kind} is not a string", f"{path}.{kind}")
    return text


def _task(
    body: Body, messages: tuple[Message, ...], usual: Sampling, limits: tuple[str, ...]
) -> Task:
    for name, code, harmless in REFUSED:
        value = body.get(name)
        if value is not None and not harmless(value):
            raise RequestRefused(code, f"{name} is not supported by local models", name)
    _check_format(body.get("response_format"))
    request = GenerationRequest(
        messages=messages,
        max_tokens=_max_tokens(body, limits),
        stop=_stops(body),
        sampling=_sampling(body, usual),
    )
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        raise refused("stream", "true or false", body)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise refused("stream_options", "an object", body)
    return Task(request, stream, stream and options.get("include_usage") is True)


def _check_format(wanted: object) -> None:
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    if kind not in (None, "text", "auto", "provider-adaptive"):
        raise RequestRefused(
            "unsupported_capability",
            "response_format other than text is not supported by local models",
            "response_format",
        )


def _max_tokens(body: Body, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise refused(name, "a whole number above 0", body)
        return value
    return None


def _stops(body: Body) -> tuple[str, ...]:
    value = body.get("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if (
        not isinstance(stops, list)
        or len(stops) > MOST_STOPS
        or not all(isinstance(stop, str) and stop for stop in stops)
    ):
        raise refused("stop", f"a string or a list of at most {MOST_STOPS} non-empty strings", body)
    return tuple(stops)


def _sampling(body: Body, usual: Sampling) -> Sampling:
    given: dict[str, Any] = {}
    for name, (least, most, whole) in NUMBERS.items():
        value = body.get(name)
        if value is None:
            continue
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
            raise refused(name, f"a {'whole ' if whole else ''}number from {least} to {most}", body)
        given[name] = value
    seed = body.get("seed")
    if seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, int) or abs(seed) >= 2**63:
            raise refused("seed", "a 64-bit whole number", body)
        given["seed"] = seed % 2**64  # the random source takes no negative numbers
    return replace(usual, **given)


def refused(name: str, expected: str, body: Body) -> RequestRefused:
    """Return the refusal of field ``name``: absent, of the wrong type, or of a wrong value."""
    if body.get(name) is None:
        return RequestRefused("missing_required_parameter", f"{name} must be {expected}", name)
    found = type(body[name]).__name__
    return RequestRefused("invalid_value", f"{name} must be {expected}; found {found}", name)


def usage_object(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def chat_completion(envelope: Envelope, text: str, end: Finished) -> Json:
    """Return the ``chat.completion`` body of a whole answer."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": end.reason}
    return _body(envelope, "chat.completion", [choice]) | {"usage": usage_object(end.usage)}


def text_completion(envelope: Envelope, text: str, end: Finished) -> Json:
    """Return the ``text_completion`` body of a whole answer."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": end.reason}
    return _body(envelope, "text_completion", [choice]) | {"usage": usage_object(end.usage)}


class ChunkWriter:
    """The chunks of one streamed chat answer; with usage asked for, every other chunk has a null."""

    kind = "chat.completion.chunk"

    def __init__(self, envelope: Envelope, include_usage: bool) -> None:
        self._envelope = envelope
        self._include_usage = include_usage

    def opening(self) -> list[Json]:
        """Return what precedes the first text: the role, and no content."""
        return [self._chunk(self._choice({"role": "assistant", "content": ""}, None))]

    def piece(self, text: str) -> Json:
        return self._chunk(self._choice({"content": text}, None))

    def closing(self, end: Finished) -> list[Json]:
        """Return the finish reason, then the usage when it was asked for."""
        chunks = [self._chunk(self._choice({}, end.reason))]
        if self._include_usage:
            usage = {"usage": usage_object(end.usage)}
            chunks.append(_body(self._envelope, self.kind, []) | usage)
        return chunks

    def _choice(self, delta: Json, reason: str | None) -> Json:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}

    def _chunk(self, choice: Json) -> Json:
        chunk = _body(self._envelope, self.kind, [choice])
        return chunk | {"usage": None} if self._include_usage else chunk


class CompletionChunkWriter(ChunkWriter):
    """The chunks of a streamed completion: text choices, nothing before the first text."""

    kind = "text_completion"

    def opening(self) -> list[Json]:
        return []

    def _choice(self, delta: Json, reason: str | None) -> Json:
        text = delta.get("content", "")
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


def error_object(error: LocalError) -> Json:
    """Return the OpenAI error body of ``error``."""
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def _body(envelope: Envelope, kind: str, choices: list[Json]) -> Json:
    return {
        "id": envelope.id,
        "object": kind,
        "created": envelope.created,
        "model": envelope.model,
        "system_fingerprint": envelope.fingerprint,
        "choices": choices,
    }
