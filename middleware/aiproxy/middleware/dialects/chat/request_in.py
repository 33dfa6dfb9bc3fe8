"""Request bodies in: Chat Completions to the canonical form."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import CanonicalRequest, Json, ResponseFormat, Sampling
from aiproxy.middleware.dialects.chat.messages_in import decode_messages
from aiproxy.middleware.dialects.chat.tools import decode_choice, decode_functions, decode_tools
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT
from aiproxy.middleware.dialects.reading import words

_READ: Final = words(
    "model messages tools tool_choice parallel_tool_calls response_format temperature "
    "top_p top_k max_tokens max_completion_tokens stop seed n presence_penalty "
    "frequency_penalty logprobs top_logprobs user metadata service_tier "
    "reasoning_effort verbosity stream stream_options functions function_call "
    "reasoning"
)


def decode_request(body: Mapping[str, Any]) -> CanonicalRequest:
    """Return the canonical request of a Chat Completions body.

    Raises:
        MalformedRequest: a member has a type this dialect cannot mean.
    """
    auto = {k for k in ("model", "tools", "reasoning", "max_tokens") if body.get(k) == "auto"}
    if body.get("max_completion_tokens") == "auto":
        auto.add("max_completion_tokens")
    options = body.get("stream_options")
    extra = reading.rest(body, _READ)
    if isinstance(options, Mapping):
        others = reading.rest(options, ("include_usage",))
        if others:
            extra["stream_options"] = others
    reasoning = body.get("reasoning")
    effort = reading.string(body, "reasoning_effort")
    if isinstance(reasoning, Mapping):
        extra["reasoning"] = reasoning
    response_format = _decode_format(body.get("response_format"))
    if response_format is not None and response_format.kind == "auto":
        auto.add("response_format")
    return CanonicalRequest(
        model=reading.text(body.get("model"), "model"),
        turns=decode_messages(body.get("messages")),
        source=DIALECT,
        tools=(*decode_tools(body.get("tools")), *decode_functions(body.get("functions"))),
        tool_choice=decode_choice(body),
        parallel_tool_calls=reading.flag(body, "parallel_tool_calls"),
        response_format=response_format,
        sampling=_decode_sampling(body),
        reasoning_effort=effort,
        verbosity=reading.string(body, "verbosity"),
        user=reading.string(body, "user"),
        metadata=None if body.get("metadata") is None else body["metadata"],
        service_tier=reading.string(body, "service_tier"),
        stream=bool(reading.flag(body, "stream")),
        include_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
        auto=frozenset(auto),
        extra=extra,
    )


def _decode_sampling(body: Json) -> Sampling:
    stop = body.get("stop")
    legacy = body.get("max_completion_tokens") is None and body.get("max_tokens") is not None
    if stop is not None and not isinstance(stop, str):
        stop = [reading.text(s, f"stop[{i}]") for i, s in enumerate(reading.array(stop, "stop"))]
    return Sampling(
        temperature=reading.number(body, "temperature"),
        top_p=reading.number(body, "top_p"),
        top_k=reading.integer(body, "top_k"),
        max_tokens=reading.integer(body, "max_tokens" if legacy else "max_completion_tokens"),
        legacy_max_tokens=legacy,
        stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        stop_plain=isinstance(stop, str),
        seed=reading.integer(body, "seed"),
        n=reading.integer(body, "n"),
        presence_penalty=reading.number(body, "presence_penalty"),
        frequency_penalty=reading.number(body, "frequency_penalty"),
        logprobs=reading.flag(body, "logprobs"),
        top_logprobs=reading.integer(body, "top_logprobs"),
    )


def _decode_format(value: object) -> ResponseFormat | None:
    if value is None:
        return None
    if isinstance(value, str):
        # The draft writes "auto" and "provider-adaptive" where objects usually stand.
        return ResponseFormat("auto", name=value)
    given = reading.mapping(value, "response_format")
    kind = given.get("type")
    if kind == "text":
        return ResponseFormat("text")
    if kind == "json_object":
        return ResponseFormat("json_object")
    inner = given.get("json_schema")
    if isinstance(inner, Mapping) and kind in ("json_schema", None):
        schema = inner.get("schema")
        return ResponseFormat(
            "json_schema",
            name=inner.get("name"),
            schema=schema if isinstance(schema, Mapping) else None,
            strict=reading.flag(inner, "strict"),
            description=inner.get("description"),
        )
    return ResponseFormat("other", definition=given)
