"""Request bodies out: the canonical form to Responses, with what was lost."""

from typing import Any, Final

from aiproxy.middleware.dialects import openai_limits
from aiproxy.middleware.dialects.canonical import CanonicalRequest, Loss, ResponseFormat
from aiproxy.middleware.dialects.chat import SHARED
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.responses.input_out import custom_ids, encode_turn, joined_text
from aiproxy.middleware.dialects.responses.tools import encode_tools
from aiproxy.middleware.dialects.responses.vocabulary import DIALECT, LOGPROBS

_SHARED_WITH_DRAFT: Final = SHARED | words(
    "previous_response_id conversation background max_tool_calls truncation include "
    "prompt context_management"
)


def target(model: str, stream: bool) -> str:
    """Return the path below a provider's base URL."""
    return "/responses"


def encode_request(request: CanonicalRequest, model: str) -> tuple[dict[str, Any], list[Loss]]:
    """Return the Responses body for ``model``, and what it could not say.

    A request from another dialect is sent with ``store: false`` unless it asked for storage:
    this API keeps answers by default, the others do not.

    Raises:
        Untranslatable: without the part that cannot be said the request has no meaning.
    """
    losses: list[Loss] = []
    native = request.source == DIALECT
    body: dict[str, Any] = {"model": model}
    if request.instructions is not None:
        body["instructions"] = request.instructions
    if len(request.turns) == 1 and request.turns[0].form == "bare":
        body["input"] = joined_text(request.turns[0].parts)
    elif request.turns or not native:
        items: list[dict[str, Any]] = []
        customs = custom_ids(request)
        for turn in request.turns:
            encode_turn(turn, request.source, customs, items, losses)
        body["input"] = items
    encode_tools(request, body, losses)
    text = encode_text(request.response_format, request.verbosity, losses)
    if text:
        body["text"] = text
    _encode_sampling(request, body, losses)
    reasoning: dict[str, Any] = dict(request.extra.get("reasoning") or {}) if native else {}
    effort = openai_limits.effort(request, losses)
    if effort is not None:
        reasoning["effort"] = effort
    if request.reasoning_summary is not None:
        reasoning["summary"] = request.reasoning_summary
    if reasoning:
        body["reasoning"] = reasoning
    for name, value in (
        ("user", openai_limits.user(request, losses)),
        ("metadata", request.metadata),
        ("service_tier", request.service_tier),
    ):
        if value is not None:
            body[name] = value
    if request.stream:
        body["stream"] = True
    shared = _SHARED_WITH_DRAFT if request.source == "draft" else SHARED
    for name, value in request.extra.items():
        if name in ("reasoning", "include") and name in body:
            if name == "include":
                body["include"] = [*value, *body["include"]]
        elif native or name in shared:
            body[name] = value
        elif name != "stream_options":
            losses.append(Loss(name, "the Responses API has no such parameter"))
    if not native:
        body.setdefault("store", False)
    return body, losses


def encode_text(
    wanted: ResponseFormat | None, verbosity: str | None, losses: list[Loss]
) -> dict[str, Any]:
    """Return the ``text`` member: the answer's shape and its verbosity."""
    text: dict[str, Any] = {}
    if wanted is not None and wanted.kind == "other":
        if wanted.definition is not None and "type" in wanted.definition:
            text["format"] = dict(wanted.definition)
        else:
            losses.append(Loss("response_format", "the object names no known type"))
    elif wanted is not None and wanted.kind != "auto":
        shape: dict[str, Any] = {"type": wanted.kind}
        if wanted.kind == "json_schema":
            shape["name"] = wanted.name or "answer"
            shape["schema"] = wanted.schema if wanted.schema is not None else {}
            if wanted.description is not None:
                shape["description"] = wanted.description
            if wanted.strict is not None:
                shape["strict"] = wanted.strict
        text["format"] = shape
    if verbosity is not None:
        text["verbosity"] = verbosity
    return text


def _encode_sampling(request: CanonicalRequest, body: dict[str, Any], losses: list[Loss]) -> None:
    sampling = request.sampling
    native = request.source == DIALECT
    for name, value in (
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("max_output_tokens", sampling.max_tokens),
        ("top_logprobs", sampling.top_logprobs),
    ):
        if value is not None:
            body[name] = value
    if sampling.logprobs and not (native and LOGPROBS in request.extra.get("include", ())):
        body["include"] = [LOGPROBS]
    for name, value in (
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
    ):
        if value is not None and native:
            body[name] = value
        elif value:
            losses.append(Loss(name, "the Responses API has no such parameter"))
    if sampling.stop:
        losses.append(Loss("stop", "the Responses API has no stop sequences"))
    if sampling.seed is not None:
        losses.append(Loss("seed", "the Responses API has no seed"))
    if sampling.top_k is not None:
        losses.append(Loss("top_k", "the Responses API has no such parameter"))
    if sampling.n is not None and sampling.n > 1:
        losses.append(Loss("n", "the Responses API gives one answer"))
