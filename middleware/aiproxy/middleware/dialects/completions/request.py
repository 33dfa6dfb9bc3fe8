"""Request bodies, both ways: a prompt is one user turn."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import reading, unsaid
from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Json,
    Loss,
    MalformedRequest,
    Sampling,
    Text,
    Turn,
    Untranslatable,
)
from aiproxy.middleware.dialects.completions.vocabulary import DIALECT
from aiproxy.middleware.dialects.reading import words

_READ: Final = words(
    "model prompt echo temperature top_p top_k max_tokens stop seed n presence_penalty "
    "frequency_penalty logprobs user stream stream_options"
)
#: What this API stops at when the client sets no limit.
_DEFAULT_MAX_TOKENS: Final = 16


def decode_request(body: Mapping[str, Any]) -> CanonicalRequest:
    """Return the canonical request of a completions body.

    ``echo`` is not asked of the upstream: whoever writes the answer puts the prompt before it. ``best_of`` and other
    members that chat does not have stay in ``extra``, where each target declares them lost.

    Raises:
        MalformedRequest: a member has a type this dialect cannot mean.
        Untranslatable: several prompts, token ids, or text to be put between two others.
    """
    if body.get("suffix"):
        raise Untranslatable("suffix", "only a completions API can fill in the middle of a text")
    echo = reading.flag(body, "echo")
    count = reading.integer(body, "logprobs")
    if echo and count is not None:
        raise Untranslatable("logprobs", "only a completions API can rate a prompt it is given")
    options = body.get("stream_options")
    extra = reading.rest(body, _READ)
    if extra.get("best_of") == (reading.integer(body, "n") or 1):
        del extra["best_of"]  # the best n of n
    extra.pop("suffix", None)
    return CanonicalRequest(
        model=reading.text(body.get("model"), "model"),
        turns=(Turn("user", (Text(_prompt(body)),), form="string"),),
        source=DIALECT,
        sampling=_sampling(body, count),
        user=reading.string(body, "user"),
        stream=bool(reading.flag(body, "stream")),
        include_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
        auto=frozenset(k for k in ("model", "max_tokens") if body.get(k) == "auto"),
        extra=extra,
    )


def _prompt(body: Json) -> str:
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return prompt
    if prompt is None:
        raise MalformedRequest("prompt", "null" if "prompt" in body else "nothing", "a string")
    items = reading.array(prompt, "prompt")
    if not items:
        raise MalformedRequest("prompt", "an empty array", "a string")
    if isinstance(items[0], str):
        for i, item in enumerate(items):
            reading.text(item, f"prompt[{i}]")
        if len(items) > 1:
            raise Untranslatable("prompt", "a chat API answers one prompt a request")
        return str(items[0])
    first = items[0]
    if isinstance(first, list) or (isinstance(first, int) and not isinstance(first, bool)):
        raise Untranslatable("prompt", "token ids mean nothing to another model")
    raise MalformedRequest("prompt[0]", reading.kind_of(first), "a string")


def _sampling(body: Json, logprobs: int | None) -> Sampling:
    stop = body.get("stop")
    if stop is not None and not isinstance(stop, str):
        stop = [reading.text(s, f"stop[{i}]") for i, s in enumerate(reading.array(stop, "stop"))]
    limit = reading.integer(body, "max_tokens")
    if limit is None and body.get("max_tokens") != "auto":
        limit = _DEFAULT_MAX_TOKENS
    return Sampling(
        temperature=reading.number(body, "temperature"),
        top_p=reading.number(body, "top_p"),
        top_k=reading.integer(body, "top_k"),
        max_tokens=limit,
        legacy_max_tokens=True,
        stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        stop_plain=isinstance(stop, str),
        seed=reading.integer(body, "seed"),
        n=reading.integer(body, "n"),
        presence_penalty=reading.number(body, "presence_penalty"),
        frequency_penalty=reading.number(body, "frequency_penalty"),
        logprobs=None if logprobs is None else True,
        top_logprobs=logprobs or None,
    )


def target(model: str, stream: bool) -> str:
    """Return the path below the base URL; the body says whether to stream."""
    return "/completions"


def encode_request(request: CanonicalRequest, model: str) -> tuple[dict[str, Any], list[Loss]]:
    """Return the completions body for ``model``.

    Raises:
        Untranslatable: the request did not come in this dialect.
    """
    if request.source != DIALECT or len(request.turns) != 1:
        raise Untranslatable("messages", "a completions API takes a prompt, not a conversation")
    sampling = request.sampling
    body: dict[str, Any] = {"model": model, "prompt": unsaid.joined(request.turns[0].parts)}
    logprobs = None
    if sampling.logprobs:
        logprobs = sampling.top_logprobs or 0
    for name, value in (
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("top_k", sampling.top_k),
        ("max_tokens", sampling.max_tokens),
        ("seed", sampling.seed),
        ("n", sampling.n),
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
        ("logprobs", logprobs),
        ("user", request.user),
    ):
        if value is not None:
            body[name] = value
    if sampling.stop:
        body["stop"] = sampling.stop[0] if sampling.stop_plain else list(sampling.stop)
    if request.stream:
        body["stream"] = True
        if request.include_usage:
            body["stream_options"] = {"include_usage": True}
    body.update(request.extra)
    return body, []
