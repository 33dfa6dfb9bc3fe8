"""Request bodies out: the canonical form to generateContent, with what was lost."""

from typing import Any, Final

from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Loss,
    ResponseFormat,
    Sampling,
    Untranslatable,
)
from aiproxy.middleware.dialects.gemini.schemas import schema_out
from aiproxy.middleware.dialects.gemini.thinking import encode_thinking
from aiproxy.middleware.dialects.gemini.tools_out import encode_tools
from aiproxy.middleware.dialects.gemini.turns_out import Contents
from aiproxy.middleware.dialects.gemini.vocabulary import DIALECT, generation
from aiproxy.middleware.dialects.losses import note

_HARMLESS: Final[dict[str, tuple[Any, ...]]] = {
    "truncation": ("disabled",),
    "background": (False,),
    "include": ([], ()),
    "store": (False,),
    "stream_options": ({},),
}
_STATE: Final = ("previous_response_id", "conversation", "prompt", "container")
_TIERS: Final[dict[str, str]] = {
    "default": "standard",
    "standard": "standard",
    "standard_only": "standard",
    "flex": "flex",
    "priority": "priority",
}
_MOST_STOPS: Final = 5
_MOST_CHOICES: Final = 8
_MOST_LOGPROBS: Final = 20


def encode_request(request: CanonicalRequest, model: str) -> tuple[dict[str, Any], list[Loss]]:
    """Return the generateContent body for ``model``, and what it could not say. Neither the
    model nor streaming is part of it: both are in the path.

    Raises:
        Untranslatable: without the part that cannot be said the request has no meaning.
    """
    losses: list[Loss] = []
    own = request.source == DIALECT
    if not own:
        for name in _STATE:
            if request.extra.get(name):
                raise Untranslatable(name, "the earlier turns are kept by another API")
    conversation = Contents(request.source, model, losses)
    if request.instructions:
        conversation.system.append({"text": request.instructions})
    for turn in request.turns:
        conversation.add(turn)
    contents = conversation.finish()
    body: dict[str, Any] = {"contents": contents}
    if conversation.system:
        body["systemInstruction"] = {"parts": conversation.system}
    calls = encode_tools(request, body, losses)
    config: dict[str, Any] = {}
    _encode_sampling(request.sampling, config, losses)
    _encode_format(request, model, calls, body, config, losses)
    encode_thinking(request, model, config, losses)
    _encode_rest(request, body, config, losses)
    if config:
        body["generationConfig"] = config
    return body, losses


def _encode_sampling(sampling: Sampling, config: dict[str, Any], losses: list[Loss]) -> None:
    for name, value in (
        ("temperature", sampling.temperature),
        ("topP", sampling.top_p),
        ("topK", sampling.top_k),
        ("maxOutputTokens", sampling.max_tokens),
        ("presencePenalty", sampling.presence_penalty),
        ("frequencyPenalty", sampling.frequency_penalty),
        ("responseLogprobs", sampling.logprobs),
    ):
        if value is not None:
            config[name] = value
    if sampling.stop:
        config["stopSequences"] = list(sampling.stop[:_MOST_STOPS])
        if len(sampling.stop) > _MOST_STOPS:
            losses.append(Loss("stop", f"gemini takes {_MOST_STOPS} stop sequences"))
    if sampling.n is not None:
        config["candidateCount"] = min(sampling.n, _MOST_CHOICES)
        if sampling.n > _MOST_CHOICES:
            losses.append(Loss("n", f"gemini gives {_MOST_CHOICES} answers at most"))
    if sampling.top_logprobs:
        config["responseLogprobs"] = True
        config["logprobs"] = min(sampling.top_logprobs, _MOST_LOGPROBS)
    if sampling.seed is not None:
        if -(2**31) <= sampling.seed < 2**31:
            config["seed"] = sampling.seed
        else:
            losses.append(Loss("seed", "gemini takes seeds of 32 bits"))


def _encode_format(
    request: CanonicalRequest,
    model: str,
    calls: bool,
    body: dict[str, Any],
    config: dict[str, Any],
    losses: list[Loss],
) -> None:
    wanted = request.response_format
    if wanted is None or wanted.kind in ("text", "auto"):
        return
    if request.source == DIALECT and wanted.definition is not None:
        config.update(wanted.definition)
        return
    if wanted.kind == "other":
        losses.append(Loss("response_format", "the object names no known type"))
        return
    if generation(model) < 3:
        if calls and wanted.kind == "json_schema":
            raise Untranslatable("response_format", "this model cannot have tools and a schema")
        if calls:
            losses.append(Loss("response_format", "this model cannot have tools and give JSON"))
            return
        # Tools that must not be called would still stand in the way.
        tools = [tool for tool in body.get("tools", ()) if "functionDeclarations" not in tool]
        if len(tools) < len(body.get("tools", ())):
            body.pop("toolConfig", None)
            body["tools"] = tools
            if not tools:
                del body["tools"]
    config["responseMimeType"] = "application/json"
    if wanted.kind == "json_schema" and wanted.schema:
        _encode_schema(wanted, config, losses)


def _encode_schema(wanted: ResponseFormat, config: dict[str, Any], losses: list[Loss]) -> None:
    schema = dict(wanted.schema or {})
    if wanted.description and "description" not in schema:
        schema["description"] = wanted.description
    plain, shape, lost = schema_out(schema)
    note(losses, lost)
    config["responseJsonSchema" if plain else "responseSchema"] = shape


def _encode_rest(
    request: CanonicalRequest, body: dict[str, Any], config: dict[str, Any], losses: list[Loss]
) -> None:
    own = request.source == DIALECT
    if request.verbosity not in (None, "medium"):
        losses.append(Loss("verbosity", "gemini is not told how long to answer"))
    if request.user is not None:
        losses.append(Loss("user", "gemini is not told who asks"))
    if request.metadata and own:
        body["labels"] = request.metadata
    elif request.metadata:
        losses.append(Loss("metadata", "gemini keeps no metadata of requests"))
    tier = request.service_tier
    if tier is not None and own:
        body["serviceTier"] = tier
    elif tier is not None and tier != "auto":
        if tier in _TIERS:
            body["serviceTier"] = _TIERS[tier]
        else:
            losses.append(Loss("service_tier", "gemini has no such service tier"))
    for name, value in request.extra.items():
        if not own:
            if value not in _HARMLESS.get(name, ()):
                losses.append(Loss(name, "gemini has no such parameter"))
            continue
        head, dot, member = name.partition(".")
        if not dot:
            body[name] = value
        elif head == "generationConfig" and member not in config:
            config[member] = value
