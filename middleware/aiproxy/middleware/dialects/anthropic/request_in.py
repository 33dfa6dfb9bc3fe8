"""Request bodies in: Anthropic Messages to the canonical form."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.anthropic.messages_in import decode_message, decode_system
from aiproxy.middleware.dialects.anthropic.tools import decode_choice, decode_tools
from aiproxy.middleware.dialects.anthropic.vocabulary import BUDGETS, DIALECT
from aiproxy.middleware.dialects.canonical import CanonicalRequest, Json, ResponseFormat, Sampling
from aiproxy.middleware.dialects.reading import words

_READ: Final = words(
    "model messages system max_tokens stop_sequences stream temperature top_p top_k tools "
    "tool_choice thinking output_config output_format metadata service_tier response_format"
)
_TIERS: Final = {"auto": "auto", "standard_only": "default"}


def decode_request(body: Mapping[str, Any]) -> CanonicalRequest:
    """Return the canonical request of a Messages body (or one of count_tokens).

    ``extra`` keeps what has no canonical place: ``thinking`` where its exact form says more than
    an effort (a budget, a display), an effort without thinking, other ``metadata``.

    Raises:
        MalformedRequest: a member has a type this dialect cannot mean.
    """
    extra = reading.rest(body, _READ)
    auto = {name for name in ("model", "tools", "max_tokens") if body.get(name) == "auto"}
    if body.get("thinking") == "auto":
        auto.add("reasoning")
    response_format = _decode_format(body, extra, auto)
    effort, shown = _decode_thinking(body, extra)
    user = _decode_metadata(body.get("metadata"), extra)
    choice, parallel = decode_choice(body.get("tool_choice"))
    stop = body.get("stop_sequences")
    tier = reading.string(body, "service_tier")
    turns = [*decode_system(body.get("system"))]
    for i, message in enumerate(reading.array(body.get("messages"), "messages")):
        path = f"messages[{i}]"
        turns += decode_message(reading.mapping(message, path), path)
    stream = bool(reading.flag(body, "stream"))
    return CanonicalRequest(
        model=reading.text(body.get("model"), "model"),
        turns=tuple(turns),
        source=DIALECT,
        tools=decode_tools(body.get("tools")),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=response_format,
        sampling=Sampling(
            temperature=reading.number(body, "temperature"),
            top_p=reading.number(body, "top_p"),
            top_k=reading.integer(body, "top_k"),
            max_tokens=reading.integer(body, "max_tokens"),
            stop=tuple(
                reading.text(s, f"stop_sequences[{i}]")
                for i, s in enumerate([] if stop is None else reading.array(stop, "stop_sequences"))
            ),
        ),
        reasoning_effort=effort,
        reasoning_summary="auto" if shown else None,
        user=user,
        service_tier=None if tier is None else _TIERS.get(tier, tier),
        stream=stream,
        include_usage=stream,  # streams of this dialect always end with it
        auto=frozenset(auto),
        extra=extra,
    )


def _decode_format(body: Json, extra: dict[str, Any], auto: set[str]) -> ResponseFormat | None:
    if body.get("response_format") is not None:
        if body["response_format"] == "auto":
            auto.add("response_format")
            return ResponseFormat("auto", name="auto")
        extra["response_format"] = body["response_format"]
    config = body.get("output_config")
    if config is None:
        config = {}
    config = reading.mapping(config, "output_config")
    others = reading.rest(config, ("format", "effort"))
    if others:
        extra["output_config"] = others
    path = "output_config.format"
    shape = config.get("format")
    if shape is None:
        shape, path = body.get("output_format"), "output_format"
    if shape is None:
        return None
    given = reading.mapping(shape, path)
    if given.get("type") != "json_schema":
        return ResponseFormat("other", definition=given)
    schema = reading.mapping(given.get("schema"), f"{path}.schema")
    return ResponseFormat("json_schema", schema=schema, strict=True if _is_strict(schema) else None)


def _is_strict(schema: Json) -> bool:
    """Tell whether a schema is strict by everybody's rules: closed, every property required.

    This API enforces others too, but elsewhere a strict schema with optional ones is refused.
    """
    stack: list[object] = [schema]
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            names, required = item.get("properties"), item.get("required")
            if item.get("type") == "object" or isinstance(names, Mapping):
                if item.get("additionalProperties") is not False:
                    return False
                needed = required if isinstance(required, list) else []
                if isinstance(names, Mapping) and any(name not in needed for name in names):
                    return False
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
    return True


def _decode_thinking(body: Json, extra: dict[str, Any]) -> tuple[str | None, bool]:
    """Return the effort asked for (``none`` when thinking is declined) and whether a summary of
    the thinking is to be shown.

    A budget reads as the effort whose budget it reaches; adaptive thinking without an effort as
    ``medium``.
    """
    config = body.get("output_config")
    named = config.get("effort") if isinstance(config, Mapping) else None
    effort = None if named is None else reading.text(named, "output_config.effort")
    given = body.get("thinking")
    thinking = {} if given in (None, "auto") else reading.mapping(given, "thinking")
    kind = thinking.get("type")
    shown = thinking.get("display") == "summarized"
    if kind == "adaptive" and effort is not None and len(thinking) == 1 + shown:
        return effort, shown
    if effort is not None:
        extra["output_config"] = {**extra.get("output_config", {}), "effort": effort}
    if not thinking:
        return effort, False
    if kind == "disabled" and effort is None and len(thinking) == 1:
        return "none", False
    extra["thinking"] = thinking
    if kind in ("disabled", "between_tools"):
        return "none", False
    budget = thinking.get("budget_tokens")
    if effort is not None or kind != "enabled" or type(budget) is not int:
        return effort or "medium", shown
    fitting = [word for word, tokens in BUDGETS.items() if tokens <= budget and word != "max"]
    return (fitting[-1] if fitting else "minimal"), shown


def _decode_metadata(value: object, extra: dict[str, Any]) -> str | None:
    if value is None:
        return None
    given = reading.mapping(value, "metadata")
    others = reading.rest(given, ("user_id",))
    if others:
        extra["metadata"] = others
    user = given.get("user_id")
    return None if user is None else reading.text(user, "metadata.user_id")
