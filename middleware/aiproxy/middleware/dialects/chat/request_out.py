"""Request bodies out: the canonical form to Chat Completions, with what was lost."""

from typing import Any, Final

from aiproxy.middleware.dialects import openai_limits
from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Loss,
    Part,
    ResponseFormat,
    Sampling,
    ToolResult,
    Turn,
    Untranslatable,
)
from aiproxy.middleware.dialects.chat.messages_out import encode_turn, shown_by_tools
from aiproxy.middleware.dialects.chat.tools import encode_tools
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT, SHARED, is_native
from aiproxy.middleware.dialects.reading import words

_RESPONSES_ONLY: Final = words(
    "background context_management conversation include max_tool_calls "
    "previous_response_id prompt truncation"
)

_HARMLESS: Final[dict[str, tuple[Any, ...]]] = {
    "truncation": ("disabled",),
    "background": (False,),
    # What is sealed goes to every client, asked for or not.
    "include": ([], (), ["reasoning.encrypted_content"]),
}


def target(model: str, stream: bool) -> str:
    """Return the path below a provider's base URL."""
    return "/chat/completions"


def encode_request(request: CanonicalRequest, model: str) -> tuple[dict[str, Any], list[Loss]]:
    """Return the Chat Completions body for ``model``, and what it could not say.

    Raises:
        Untranslatable: without the part that cannot be said the request has no meaning.
    """
    losses: list[Loss] = []
    _refuse_state(request)
    messages: list[dict[str, Any]] = []
    if request.instructions is not None:
        messages.append({"role": "system", "content": request.instructions})
    shown: list[Part] = []
    for turn in request.turns:
        given = shown_by_tools(turn, request.source)
        if shown and not any(isinstance(part, ToolResult) for part in turn.parts):
            # Results stand together behind their calls: what they show follows the last of them.
            encode_turn(Turn("user", tuple(shown)), request.source, messages, losses)
            shown = []
        encode_turn(turn, request.source, messages, losses)
        shown += given
    if shown:
        encode_turn(Turn("user", tuple(shown)), request.source, messages, losses)
    body: dict[str, Any] = {"model": model, "messages": messages}
    encode_tools(request, body, losses)
    _encode_format(request.response_format, body, losses)
    _encode_sampling(request.sampling, body)
    if request.sampling.top_k is not None and not is_native(request.source):
        # Not a parameter of OpenAI's, which refuses it; servers that know it are told by clients
        # of this dialect.
        del body["top_k"]
        losses.append(Loss("top_k", "chat has no such parameter"))
    for name, value in (
        ("reasoning_effort", openai_limits.effort(request, losses)),
        ("verbosity", request.verbosity),
        ("user", openai_limits.user(request, losses)),
        ("metadata", request.metadata),
        ("service_tier", request.service_tier),
    ):
        if value is not None:
            body[name] = value
    if request.reasoning_summary is not None:
        losses.append(Loss("reasoning.summary", "chat has no reasoning summaries"))
    if request.stream:
        body["stream"] = True
    options = dict(request.extra.get("stream_options") or {}) if is_native(request.source) else {}
    if request.include_usage and (request.stream or is_native(request.source)):
        options["include_usage"] = True
    if options:
        body["stream_options"] = options
    for name, value in request.extra.items():
        if name == "stream_options":
            continue
        crosses = name in SHARED or (is_native(request.source) and name not in _RESPONSES_ONLY)
        if crosses or request.source == DIALECT:
            body[name] = value
        else:
            _lose_extra(name, value, losses)
    return body, losses


def _refuse_state(request: CanonicalRequest) -> None:
    if request.source == DIALECT:
        return
    for name in ("previous_response_id", "conversation"):
        if request.extra.get(name):
            raise Untranslatable(name, "the earlier turns are kept by another API")
    if request.extra.get("prompt"):
        raise Untranslatable("prompt", "the prompt template is kept by another API")


def _lose_extra(name: str, value: Any, losses: list[Loss]) -> None:
    if value not in _HARMLESS.get(name, ()):
        losses.append(Loss(name, "chat has no such parameter"))


def _encode_format(wanted: ResponseFormat | None, body: dict[str, Any], losses: list[Loss]) -> None:
    if wanted is None or wanted.kind == "auto":
        return
    if wanted.kind == "other":
        if wanted.definition is not None and "type" in wanted.definition:
            body["response_format"] = dict(wanted.definition)
        else:
            losses.append(Loss("response_format", "the object names no known type"))
        return
    shape: dict[str, Any] = {"type": wanted.kind}
    body["response_format"] = shape
    if wanted.kind == "json_schema":
        inner: dict[str, Any] = {"name": wanted.name or "answer"}
        if wanted.description is not None:
            inner["description"] = wanted.description
        if wanted.schema is not None:
            inner["schema"] = wanted.schema
        if wanted.strict is not None:
            inner["strict"] = wanted.strict
        shape["json_schema"] = inner


def _encode_sampling(sampling: Sampling, body: dict[str, Any]) -> None:
    limit = "max_tokens" if sampling.legacy_max_tokens else "max_completion_tokens"
    for name, value in (
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("top_k", sampling.top_k),
        (limit, sampling.max_tokens),
        ("seed", sampling.seed),
        ("n", sampling.n),
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
        ("logprobs", sampling.logprobs),
        ("top_logprobs", sampling.top_logprobs),
    ):
        if value is not None:
            body[name] = value
    if sampling.stop:
        body["stop"] = sampling.stop[0] if sampling.stop_plain else list(sampling.stop)
