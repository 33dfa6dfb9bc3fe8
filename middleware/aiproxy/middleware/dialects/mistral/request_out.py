"""Request bodies out: the canonical form to Mistral chat completions, with what was lost."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import unsaid
from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Loss,
    ResponseFormat,
)
from aiproxy.middleware.dialects.functions import Offer, lose_members, nested, offer
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.mistral.messages_out import encode_messages
from aiproxy.middleware.dialects.mistral.vocabulary import API, DIALECT, REFUSED
from aiproxy.middleware.dialects.reading import words

_SAID: Final = words(
    "top_k seed presence_penalty frequency_penalty logprobs top_logprobs stop n "
    "reasoning_effort metadata service_tier parallel_tool_calls"
)
#: Mistral's tiers: with or without the faster one, where the account has it.
_TIERS: Final[dict[str, str]] = {
    "auto": "auto",
    "priority": "auto",
    "default": "standard_only",
    "standard_only": "standard_only",
}


def target(model: str, stream: bool) -> str:
    """Return the path below the base URL; the body says whether to stream."""
    return "/chat/completions"


def encode_request(request: CanonicalRequest, model: str) -> tuple[dict[str, Any], list[Loss]]:
    """Return the chat completions body for ``model``, and what it could not say.

    Members of a chat request that neither OpenAI nor we know, such as ``safe_prompt``, are passed
    on: whoever writes them means Mistral.

    Raises:
        Untranslatable: without the part that cannot be said the request has no meaning.
    """
    unsaid.refuse_state(request)
    losses: list[Loss] = []
    body: dict[str, Any] = {"model": model, "messages": encode_messages(request, losses)}
    _encode_tools(request, offer(request, API, losses), body, losses)
    _encode_format(request.response_format, body, losses)
    _encode_sampling(request, body)
    if request.reasoning_effort is not None:
        body["reasoning_effort"] = request.reasoning_effort
    if isinstance(request.metadata, Mapping) and request.metadata:
        body["metadata"] = dict(request.metadata)
    tier = _TIERS.get(request.service_tier or "")
    if tier is not None:
        body["service_tier"] = tier
    elif request.service_tier is not None:
        losses.append(Loss("service_tier", "Mistral has no such service tier"))
    if request.stream:
        body["stream"] = True
    note(losses, unsaid.knobs(request, _SAID, API))
    chat = request.source in ("chat", "draft", DIALECT)
    for name, value in request.extra.items():
        if name == "prompt_cache_key" or (chat and name not in REFUSED):
            body[name] = value
        else:
            note(losses, unsaid.member(name, value, API))
    return body, losses


def _encode_tools(
    request: CanonicalRequest, offered: Offer, body: dict[str, Any], losses: list[Loss]
) -> None:
    if not offered.tools:
        return
    tools = []
    for tool in offered.tools:
        written = nested(tool)
        if tool.strict is not None:
            written["function"]["strict"] = tool.strict
        tools.append(written)
    body["tools"] = tools
    if offered.name is not None:
        body["tool_choice"] = {"type": "function", "function": {"name": offered.name}}
    elif offered.mode is not None:
        body["tool_choice"] = "any" if offered.mode == "required" else offered.mode
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    note(losses, lose_members(offered.tools, API))


def _encode_format(wanted: ResponseFormat | None, body: dict[str, Any], losses: list[Loss]) -> None:
    if wanted is None or wanted.kind == "auto":
        return
    if wanted.kind == "other":
        losses.append(Loss("response_format", "the object names no known type"))
        return
    shape: dict[str, Any] = {"type": wanted.kind}
    if wanted.kind == "json_schema":
        inner: dict[str, Any] = {
            "name": wanted.name or "answer",
            "schema": wanted.schema if wanted.schema is not None else {},
        }
        if wanted.description is not None:
            inner["description"] = wanted.description
        if wanted.strict is not None:
            inner["strict"] = wanted.strict
        shape["json_schema"] = inner
    body["response_format"] = shape


def _encode_sampling(request: CanonicalRequest, body: dict[str, Any]) -> None:
    sampling = request.sampling
    for name, value in (
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("top_k", sampling.top_k),
        ("max_tokens", sampling.max_tokens),
        ("random_seed", sampling.seed),
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
