"""Request bodies in: Responses to the canonical form."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import CanonicalRequest, Json, ResponseFormat, Sampling
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.responses.input_in import decode_input
from aiproxy.middleware.dialects.responses.tools import decode_choice, decode_tools
from aiproxy.middleware.dialects.responses.vocabulary import DIALECT, LOGPROBS

_READ: Final = words(
    "model input instructions tools tool_choice parallel_tool_calls text temperature "
    "top_p max_output_tokens top_logprobs presence_penalty frequency_penalty user "
    "metadata service_tier reasoning stream stream_options"
)


def decode_request(body: Mapping[str, Any]) -> CanonicalRequest:
    """Return the canonical request of a Responses body.

    Contiguous output items (reasoning, message, calls) become one assistant turn.

    Raises:
        MalformedRequest: a member has a type this dialect cannot mean.
    """
    auto = {
        name
        for name in ("model", "tools", "reasoning", "max_output_tokens")
        if body.get(name) == "auto"
    }
    extra = reading.rest(body, _READ)
    options = body.get("stream_options")
    if isinstance(options, Mapping) and options:
        extra["stream_options"] = options
    asked = body.get("text")
    shape = asked if isinstance(asked, Mapping) else {}
    reasoning = body.get("reasoning")
    thought = reasoning if isinstance(reasoning, Mapping) else {}
    others = reading.rest(thought, ("effort", "summary", "generate_summary"))
    if others:
        extra["reasoning"] = others
    include = [word for word in _words(extra.pop("include", None)) if word != LOGPROBS]
    if include:
        extra["include"] = include
    return CanonicalRequest(
        model=reading.text(body.get("model"), "model"),
        turns=decode_input(body.get("input")),
        source=DIALECT,
        instructions=reading.string(body, "instructions"),
        tools=decode_tools(body.get("tools")),
        tool_choice=decode_choice(body.get("tool_choice")),
        parallel_tool_calls=reading.flag(body, "parallel_tool_calls"),
        response_format=_decode_format(shape.get("format")),
        sampling=_decode_sampling(body),
        reasoning_effort=reading.string(thought, "effort"),
        reasoning_summary=reading.string(thought, "summary"),
        verbosity=reading.string(shape, "verbosity"),
        user=reading.string(body, "user"),
        metadata=body.get("metadata"),
        service_tier=reading.string(body, "service_tier"),
        stream=bool(reading.flag(body, "stream")),
        # Every Responses stream ends with the usage, so an upstream must be asked for it.
        include_usage=body.get("stream") is True,
        auto=frozenset(auto),
        extra=extra,
    )


def _decode_sampling(body: Json) -> Sampling:
    top = reading.integer(body, "top_logprobs")
    wanted = LOGPROBS in _words(body.get("include"))
    return Sampling(
        temperature=reading.number(body, "temperature"),
        top_p=reading.number(body, "top_p"),
        max_tokens=reading.integer(body, "max_output_tokens"),
        presence_penalty=reading.number(body, "presence_penalty"),
        frequency_penalty=reading.number(body, "frequency_penalty"),
        logprobs=True if wanted or top else None,
        top_logprobs=top,
    )


def _words(value: object) -> list[str]:
    return [w for w in value if isinstance(w, str)] if isinstance(value, list | tuple) else []


def _decode_format(value: object) -> ResponseFormat | None:
    if value is None:
        return None
    given = reading.mapping(value, "text.format")
    kind = given.get("type")
    if kind == "text":
        return ResponseFormat("text")
    if kind == "json_object":
        return ResponseFormat("json_object")
    if kind == "json_schema":
        schema = given.get("schema")
        return ResponseFormat(
            "json_schema",
            name=given.get("name"),
            schema=schema if isinstance(schema, Mapping) else None,
            strict=reading.flag(given, "strict"),
            description=given.get("description"),
        )
    return ResponseFormat("other", definition=given)
