"""Request bodies in: generateContent to the canonical form.

Google's API names the model in the path and streams by another method. The caller adds both to
the body: ``model`` (text) and ``stream`` (true or false). Members this module does not know keep
their place in ``extra`` under a dotted name, such as ``generationConfig.speechConfig``.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Json,
    MalformedRequest,
    ResponseFormat,
    Sampling,
)
from aiproxy.middleware.dialects.gemini.schemas import schema_in
from aiproxy.middleware.dialects.gemini.thinking import decode_thinking
from aiproxy.middleware.dialects.gemini.tools_in import decode_choice, decode_tools
from aiproxy.middleware.dialects.gemini.turns_in import decode_contents, decode_system
from aiproxy.middleware.dialects.gemini.vocabulary import DIALECT, camel
from aiproxy.middleware.dialects.reading import words

_READ: Final = words(
    "model stream contents systemInstruction tools toolConfig generationConfig labels serviceTier"
)
_CONFIG_READ: Final = words(
    "temperature topP topK maxOutputTokens stopSequences candidateCount seed presencePenalty "
    "frequencyPenalty responseMimeType responseSchema responseJsonSchema responseLogprobs logprobs "
    "thinkingConfig"
)
_JSON: Final = "application/json"
#: Members whose usual value says nothing.
_USUAL: Final[dict[str, tuple[Any, ...]]] = {"responseModalities": (["TEXT"], ["text"])}
_CONFIG: Final = "generationConfig"


def decode_request(body: Mapping[str, Any]) -> CanonicalRequest:
    """Return the canonical request of a generateContent body with ``model`` and ``stream``.

    Raises:
        MalformedRequest: a member has a type this dialect cannot mean.
    """
    given = camel(body)
    config = given.get(_CONFIG)
    config = {} if config is None else camel(reading.mapping(config, _CONFIG))
    auto: set[str] = set()
    model = reading.text(given.get("model"), "model")
    for name, value in (
        ("model", model),
        ("tools", given.get("tools")),
        ("max_tokens", config.get("maxOutputTokens")),
        ("reasoning", config.get("thinkingConfig")),
    ):
        if value == "auto":
            auto.add(name)
    extra = reading.rest(given, _READ)
    for name, value in reading.rest(config, _CONFIG_READ).items():
        if value not in _USUAL.get(name, ()):
            extra[f"{_CONFIG}.{name}"] = value
    shape = _decode_format(config)
    if shape is not None and shape.kind == "auto":
        auto.add("response_format")
    effort, summary = decode_thinking(config.get("thinkingConfig"), extra)
    turns = decode_system(given.get("systemInstruction"))
    turns += decode_contents(given.get("contents"))
    labels = given.get("labels")
    return CanonicalRequest(
        model=model,
        turns=tuple(turns),
        source=DIALECT,
        tools=decode_tools(given.get("tools")),
        tool_choice=decode_choice(given.get("toolConfig"), extra),
        response_format=shape,
        sampling=_decode_sampling(config),
        reasoning_effort=effort,
        reasoning_summary=summary,
        metadata=None if labels is None else reading.mapping(labels, "labels"),
        service_tier=reading.string(given, "serviceTier"),
        stream=bool(reading.flag(given, "stream")),
        include_usage=True,
        auto=frozenset(auto),
        extra=extra,
    )


def _decode_sampling(config: Json) -> Sampling:
    stop = config.get("stopSequences")
    path = f"{_CONFIG}.stopSequences"
    words_ = () if stop is None else tuple(reading.array(stop, path))
    for i, word in enumerate(words_):
        reading.text(word, f"{path}[{i}]")
    return Sampling(
        temperature=_number(config, "temperature"),
        top_p=_number(config, "topP"),
        top_k=_integer(config, "topK"),
        max_tokens=_integer(config, "maxOutputTokens"),
        stop=words_,
        seed=_integer(config, "seed"),
        n=_integer(config, "candidateCount"),
        presence_penalty=_number(config, "presencePenalty"),
        frequency_penalty=_number(config, "frequencyPenalty"),
        logprobs=_flag(config, "responseLogprobs"),
        top_logprobs=_integer(config, "logprobs"),
    )


def _decode_format(config: Json) -> ResponseFormat | None:
    kind = config.get("responseMimeType")
    schema, name = config.get("responseJsonSchema"), "responseJsonSchema"
    if schema is None:
        schema, name = config.get("responseSchema"), "responseSchema"
    if "auto" in (kind, schema):
        return ResponseFormat("auto", name="auto")
    if schema is not None:
        reading.mapping(schema, f"{_CONFIG}.{name}")
    if kind is None and schema is None:
        return None
    kind = _JSON if kind is None else reading.text(kind, f"{_CONFIG}.responseMimeType")
    written = {"responseMimeType": kind}
    if schema is not None:
        written[name] = schema
    if kind == _JSON:
        if schema is None:
            return ResponseFormat("json_object", definition=written)
        plain = schema if name == "responseJsonSchema" else schema_in(schema)
        return ResponseFormat("json_schema", schema=plain, definition=written)
    if kind == "text/plain" and schema is None:
        return ResponseFormat("text")
    return ResponseFormat("other", definition=written)


def _number(config: Json, name: str) -> Any:
    value = config.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise MalformedRequest(f"{_CONFIG}.{name}", reading.kind_of(value), "a number")


def _integer(config: Json, name: str) -> int | None:
    """Return an integer; Google's own SDK writes some of them with a point."""
    value = config.get(name)
    if value is None or value == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise MalformedRequest(f"{_CONFIG}.{name}", reading.kind_of(value), "an integer")


def _flag(config: Json, name: str) -> bool | None:
    value = config.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise MalformedRequest(f"{_CONFIG}.{name}", reading.kind_of(value), "a boolean")
