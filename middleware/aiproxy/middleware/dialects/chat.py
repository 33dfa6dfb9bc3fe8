"""The Chat Completions dialect: ``POST /v1/chat/completions``.

Order of this page: request in, request out, reply in, reply out, stream in, stream out.
Reasoning text travels as ``reasoning_content``; ``reasoning`` is understood as well.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import orjson

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
    Audio,
    AudioDelta,
    CanonicalEvent,
    CanonicalReply,
    CanonicalRequest,
    Choice,
    Envelope,
    File,
    Finish,
    FinishReason,
    Image,
    Json,
    Loss,
    MalformedReply,
    MalformedRequest,
    Opaque,
    Part,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    ResponseFormat,
    Role,
    Sampling,
    StreamCut,
    StreamError,
    StreamStart,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolChoice,
    ToolKind,
    ToolResult,
    Turn,
    Untranslatable,
    Usage,
    UsageEvent,
)
from aiproxy.middleware.dialects.finish import finish_reason, is_failure
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.sse import DONE_FRAME
from aiproxy.middleware.dialects.usage import chat_usage, read_usage

DIALECT: Final = "chat"

_READ: Final = words(
    "model messages tools tool_choice parallel_tool_calls response_format temperature "
    "top_p top_k max_tokens max_completion_tokens stop seed n presence_penalty "
    "frequency_penalty logprobs top_logprobs user metadata service_tier "
    "reasoning_effort verbosity stream stream_options functions function_call "
    "reasoning"
)

#: Members that mean the same here as in other OpenAI dialects, so they cross over untouched.
SHARED: Final = words(
    "store safety_identifier prompt_cache_key prompt_cache_retention "
    "prompt_cache_options moderation"
)

_MESSAGE: Final = words(
    "role content name refusal audio tool_calls tool_call_id function_call "
    "reasoning_content reasoning"
)
_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


# --- request in ----------------------------------------------------------------------------------


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
        turns=tuple(
            _decode_message(reading.mapping(message, f"messages[{i}]"), f"messages[{i}]")
            for i, message in enumerate(reading.array(body.get("messages"), "messages"))
        ),
        source=DIALECT,
        tools=(*decode_tools(body.get("tools")), *_decode_functions(body.get("functions"))),
        tool_choice=_decode_choice(body),
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


def _decode_message(message: Json, path: str) -> Turn:
    written = reading.text(message.get("role"), f"{path}.role")
    role = _ROLES.get(written)
    if role is None:
        raise MalformedRequest(f"{path}.role", "another word", "one of " + ", ".join(_ROLES))
    content = message.get("content")
    form: Literal["string", "parts", "null", "absent"]
    parts: list[Part]
    if isinstance(content, str):
        form, parts = "string", [Text(content)]
    elif content is None:
        form, parts = ("null" if "content" in message else "absent"), []
    else:
        form = "parts"
        parts = [
            _decode_part(reading.mapping(part, f"{path}.content[{i}]"), f"{path}.content[{i}]")
            for i, part in enumerate(reading.array(content, f"{path}.content"))
        ]
    name = message.get("name")
    name = None if name is None else reading.text(name, f"{path}.name")
    if role == "tool":
        legacy = written == "function"
        result = ToolResult(
            call_id=""
            if legacy
            else reading.text(message.get("tool_call_id"), f"{path}.tool_call_id"),
            parts=tuple(parts),
            plain=form != "parts",
            kind="legacy_function" if legacy else "function",
            name=name if legacy else None,
        )
        extra = reading.rest(message, _MESSAGE)
        return Turn("tool", (result,), None if legacy else name, form, extra)
    if role == "assistant":
        parts = _decode_said(message, parts, path)
    return Turn(role, tuple(parts), name, form, reading.rest(message, _MESSAGE))


def _decode_said(message: Json, content: list[Part], path: str) -> list[Part]:
    """Return the parts of an assistant turn: what was thought, said, and called."""
    parts: list[Part] = []
    thought = message.get("reasoning_content")
    key = "reasoning_content"
    if not isinstance(thought, str):
        thought, key = message.get("reasoning"), "reasoning"
    if isinstance(thought, str) and thought:
        parts.append(Reasoning(thought, extra={} if key == "reasoning_content" else {"key": key}))
    parts += content
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        parts.append(Refusal(refusal))
    audio = message.get("audio")
    if isinstance(audio, Mapping):
        parts.append(_decode_audio(audio))
    calls = message.get("tool_calls")
    if calls is not None:
        for i, call in enumerate(reading.array(calls, f"{path}.tool_calls")):
            parts.append(_decode_call(reading.mapping(call, f"{path}.tool_calls[{i}]")))
    legacy = message.get("function_call")
    if isinstance(legacy, Mapping):
        parts.append(_decode_legacy_call(legacy))
    return parts


def _decode_call(call: Json) -> ToolCall:
    identity = call.get("id")
    identity = identity if isinstance(identity, str) else ""
    extra = reading.rest(call, ("id", "type", "function", "custom", "index"))
    custom = call.get("custom")
    if call.get("type") == "custom" and isinstance(custom, Mapping):
        return ToolCall(
            identity, str(custom.get("name") or ""), str(custom.get("input") or ""), "custom", extra
        )
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    arguments = reading.arguments_text(function.get("arguments"))
    return ToolCall(identity, str(function.get("name") or ""), arguments, "function", extra)


def _decode_legacy_call(call: Json) -> ToolCall:
    arguments = reading.arguments_text(call.get("arguments"))
    return ToolCall("", str(call.get("name") or ""), arguments, "legacy_function")


def _decode_audio(audio: Json) -> Audio:
    return Audio(
        data=audio.get("data"),
        id=audio.get("id"),
        transcript=audio.get("transcript"),
        extra=reading.rest(audio, ("data", "id", "transcript")),
    )


def _decode_part(part: Json, path: str) -> Part:
    kind = reading.word(part.get("type"))
    extra = reading.rest(part, ("type", str(kind)))
    if kind == "text":
        return Text(reading.text(part.get("text"), f"{path}.text"), extra=extra)
    if kind == "image_url":
        inner = part.get("image_url")
        if isinstance(inner, str):  # a common short form
            return reading.image(inner, None, None, {**extra, "plain": True})
        inner = reading.mapping(inner, f"{path}.image_url")
        url = reading.text(inner.get("url"), f"{path}.image_url.url")
        return reading.image(url, inner.get("detail"), None, extra)
    if kind == "input_audio":
        inner = reading.mapping(part.get("input_audio"), f"{path}.input_audio")
        return Audio(data=inner.get("data"), format=inner.get("format"), extra=extra)
    if kind == "file":
        inner = reading.mapping(part.get("file"), f"{path}.file")
        return File(
            data=inner.get("file_data"),
            file_id=inner.get("file_id"),
            name=inner.get("filename"),
            extra=extra,
        )
    if kind == "refusal":
        return Refusal(reading.text(part.get("refusal"), f"{path}.refusal"))
    return Opaque(DIALECT, str(kind), part)


def decode_tools(tools: object) -> tuple[Tool, ...]:
    """Return the tools of a chat ``tools`` member; ``"auto"`` and null give none."""
    if tools is None or tools == "auto":
        return ()
    found = []
    for i, item in enumerate(reading.array(tools, "tools")):
        tool = reading.mapping(item, f"tools[{i}]")
        kind = reading.word(tool.get("type"))
        inner = tool.get(kind) if isinstance(kind, str) else None
        extra = reading.rest(tool, ("type", str(kind)))
        if kind == "function":
            function = reading.mapping(inner, f"tools[{i}].function")
            found.append(_function_tool(function, f"tools[{i}].function", extra))
        elif kind == "custom" and isinstance(inner, Mapping):
            shape = inner.get("format")
            grammar = shape.get("grammar") if isinstance(shape, Mapping) else None
            if isinstance(shape, Mapping) and isinstance(grammar, Mapping):
                shape = {"type": "grammar", **grammar}
            found.append(
                Tool(
                    reading.text(inner.get("name"), f"tools[{i}].custom.name"),
                    "custom",
                    inner.get("description"),
                    definition=shape,
                    extra=extra,
                )
            )
        else:
            found.append(Tool(str(kind), "hosted", definition=tool))
    return tuple(found)


def _function_tool(function: Json, path: str, extra: Json) -> Tool:
    return Tool(
        name=reading.text(function.get("name"), f"{path}.name"),
        description=function.get("description"),
        parameters=function.get("parameters"),
        strict=reading.flag(function, "strict"),
        extra=extra,
    )


def _decode_functions(functions: object) -> Iterator[Tool]:
    for i, item in enumerate([] if functions is None else reading.array(functions, "functions")):
        path = f"functions[{i}]"
        tool = _function_tool(reading.mapping(item, path), path, {})
        yield replace(tool, kind="legacy_function")


def _decode_choice(body: Json) -> ToolChoice | None:
    choice, kind = body.get("tool_choice"), "function"
    if choice is None:
        choice, kind = body.get("function_call"), "legacy_function"
        if isinstance(choice, Mapping):
            return ToolChoice("tool", str(choice.get("name")), "legacy_function")
    if choice is None:
        return None
    if choice in ("auto", "none", "required"):
        return ToolChoice(choice, kind=_kind(kind))
    given = reading.mapping(choice, "tool_choice")
    kind = str(given.get("type"))
    inner = given.get(kind)
    if kind in ("function", "custom") and isinstance(inner, Mapping):
        return ToolChoice("tool", str(inner.get("name")), _kind(kind))
    if kind == "allowed_tools" and isinstance(inner, Mapping):
        allowed = tuple(_flat_allowed(t) for t in reading.objects(inner.get("tools")))
        return ToolChoice("allowed", allowed=allowed, mode_within=str(inner.get("mode", "auto")))
    return ToolChoice("hosted", kind, definition=given)


def _kind(word: str) -> ToolKind:
    kinds: dict[str, ToolKind] = {"custom": "custom", "legacy_function": "legacy_function"}
    return kinds.get(word, "function")


def _flat_allowed(tool: Json) -> Json:
    kind = str(tool.get("type"))
    inner = tool.get(kind)
    return {"type": kind, **inner} if isinstance(inner, Mapping) else tool


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


# --- request out ---------------------------------------------------------------------------------


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
    for turn in request.turns:
        _encode_turn(turn, request.source, messages, losses)
    body: dict[str, Any] = {"model": model, "messages": messages}
    _encode_tools(request, body, losses)
    _encode_format(request.response_format, body, losses)
    _encode_sampling(request.sampling, body)
    for name, value in (
        ("reasoning_effort", request.reasoning_effort),
        ("verbosity", request.verbosity),
        ("user", request.user),
        ("metadata", request.metadata),
        ("service_tier", request.service_tier),
    ):
        if value is not None:
            body[name] = value
    if request.reasoning_summary is not None:
        losses.append(Loss("reasoning.summary", "chat has no reasoning summaries"))
    if request.stream:
        body["stream"] = True
    options = dict(request.extra.get("stream_options") or {}) if _native(request.source) else {}
    if request.include_usage:
        options["include_usage"] = True
    if options:
        body["stream_options"] = options
    for name, value in request.extra.items():
        if name == "stream_options":
            continue
        crosses = name in SHARED or (_native(request.source) and name not in _RESPONSES_ONLY)
        if crosses or request.source == DIALECT:
            body[name] = value
        else:
            _lose_extra(name, value, losses)
    return body, losses


def _native(source: str) -> bool:
    """Tell whether messages were written in this dialect; the draft's are."""
    return source in (DIALECT, "draft")


def _refuse_state(request: CanonicalRequest) -> None:
    if request.source == DIALECT:
        return
    for name in ("previous_response_id", "conversation"):
        if request.extra.get(name):
            raise Untranslatable(name, "the earlier turns are kept by another API")
    if request.extra.get("prompt"):
        raise Untranslatable("prompt", "the prompt template is kept by another API")


_RESPONSES_ONLY: Final = words(
    "background context_management conversation include max_tool_calls "
    "previous_response_id prompt truncation"
)
_HARMLESS: Final[dict[str, tuple[Any, ...]]] = {
    "truncation": ("disabled",),
    "background": (False,),
    "include": ([], ()),
}


def _lose_extra(name: str, value: Any, losses: list[Loss]) -> None:
    if value not in _HARMLESS.get(name, ()):
        losses.append(Loss(name, "chat has no such parameter"))


def _encode_turn(
    turn: Turn, source: str, messages: list[dict[str, Any]], losses: list[Loss]
) -> None:
    results = [part for part in turn.parts if isinstance(part, ToolResult)]
    for result in results:
        messages.append(_encode_result(turn, result, losses))
    if results:
        return
    message: dict[str, Any] = {"role": turn.role}
    content: list[Part] = []
    calls: list[dict[str, Any]] = []
    for part in turn.parts:
        if isinstance(part, Reasoning):
            if _native(source):
                message[part.extra.get("key", "reasoning_content")] = part.text
            else:
                losses.append(Loss("reasoning", "earlier reasoning does not travel to chat"))
        elif isinstance(part, ToolCall):
            if part.kind == "legacy_function":
                message["function_call"] = {"name": part.name, "arguments": part.arguments}
            else:
                calls.append(_encode_call(part, part.id, _native(source)))
        elif isinstance(part, Refusal) and turn.form in ("string", "null", "absent"):
            message["refusal"] = part.text
        elif isinstance(part, Audio) and turn.role == "assistant":
            message["audio"] = {"id": part.id}
        else:
            content.append(part)
    if turn.form in ("string", "bare") and len(content) == 1 and isinstance(content[0], Text):
        message["content"] = content[0].text
    elif content or turn.form == "parts":
        encoded = [p for p in (_encode_part(p, turn.role, source, losses) for p in content) if p]
        if not encoded and (calls or turn.role == "assistant"):
            # Nothing was said; an empty list is refused by several servers.
            if not calls and "refusal" not in message:
                if not turn.parts or all(isinstance(p, Opaque | Reasoning) for p in turn.parts):
                    return
                message["content"] = ""
            else:
                message["content"] = None
        else:
            message["content"] = _plain_if_foreign(encoded, turn.role, source)
    elif turn.form == "null":
        message["content"] = None
    elif turn.form == "string":
        message["content"] = ""
    if calls:
        message["tool_calls"] = calls
    if turn.name is not None:
        message["name"] = turn.name
    if _native(source):
        message.update(turn.extra)
    messages.append(message)


def _plain_if_foreign(parts: list[dict[str, Any]], role: Role, source: str) -> Any:
    """Join text-only lists from other dialects: many chat servers take only strings there."""
    if _native(source) or not parts:
        return parts
    if any(set(part) != {"type", "text"} for part in parts):
        return parts
    if role == "user" and len(parts) > 1:
        return parts
    return "".join(part["text"] for part in parts)


def _encode_result(turn: Turn, result: ToolResult, losses: list[Loss]) -> dict[str, Any]:
    content: Any
    kept = [p for p in result.parts if isinstance(p, Text)]
    for part in result.parts:
        if not isinstance(part, Text):
            kind = part.kind if isinstance(part, Opaque) else type(part).__name__.lower()
            losses.append(Loss("tool_result", f"chat tool results hold text only, not {kind}"))
    if result.plain:
        content = "".join(p.text for p in kept)
    else:
        content = [{"type": "text", "text": p.text, **p.extra} for p in kept]
    message: dict[str, Any]
    if result.kind == "legacy_function":
        message = {"role": "function", "name": result.name or "", "content": content}
    else:
        message = {"role": "tool", "tool_call_id": result.call_id, "content": content}
        if turn.name is not None:
            message["name"] = turn.name
    message.update(turn.extra)
    return message


def _encode_call(call: ToolCall, identity: str, whole: bool) -> dict[str, Any]:
    extra = call.extra if whole else {}
    if call.kind == "custom":
        inner: dict[str, Any] = {"name": call.name, "input": call.arguments}
        return {"id": identity, "type": "custom", "custom": inner, **extra}
    inner = {"name": call.name, "arguments": call.arguments}
    return {"id": identity, "type": "function", "function": inner, **extra}


def _encode_part(part: Part, role: Role, source: str, losses: list[Loss]) -> dict[str, Any] | None:
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    extra = {} if isinstance(part, Opaque) or not _native(source) else dict(part.extra)
    if isinstance(part, Text):
        return {"type": "text", "text": part.text, **extra}
    if isinstance(part, Image):
        url = reading.image_url(part)
        if url is None:
            raise Untranslatable("image", "chat cannot refer to an image by file id")
        if extra.pop("plain", False):
            return {"type": "image_url", "image_url": url, **extra}
        inner = {"url": url} if part.detail is None else {"url": url, "detail": part.detail}
        return {"type": "image_url", "image_url": inner, **extra}
    if isinstance(part, Audio):
        inner = {"data": part.data or "", "format": part.format or "wav"}
        return {"type": "input_audio", "input_audio": inner, **extra}
    if isinstance(part, File):
        if part.url is not None:
            raise Untranslatable("file", "chat cannot refer to a file by URL")
        pairs = {"file_id": part.file_id, "file_data": part.data, "filename": part.name}
        held = {k: v for k, v in pairs.items() if v is not None}
        return {"type": "file", "file": held, **extra}
    if isinstance(part, Opaque):
        if part.dialect == DIALECT:
            return dict(part.value)
        if part.kind in ("item_reference", "compaction", "compaction_summary"):
            raise Untranslatable(part.kind, "the referenced content is kept by another API")
        losses.append(Loss("item", f"chat has no {part.kind} items"))
    return None


def _encode_tools(request: CanonicalRequest, body: dict[str, Any], losses: list[Loss]) -> None:
    tools: list[dict[str, Any]] = []
    functions: list[dict[str, Any]] = []
    for tool in request.tools:
        if tool.kind == "legacy_function":
            functions.append(_encode_function(tool))
        elif tool.kind == "function":
            tools.append({"type": "function", "function": _encode_function(tool), **tool.extra})
        elif tool.kind == "custom":
            tools.append({"type": "custom", "custom": _encode_custom(tool), **tool.extra})
        elif request.source == DIALECT and tool.definition is not None:
            tools.append(dict(tool.definition))
        else:
            losses.append(Loss("hosted_tool", f"chat has no hosted tool {tool.name}"))
    choice = request.tool_choice
    if tools:
        body["tools"] = tools
    if functions:
        body["functions"] = functions
    if choice is not None and choice.mode == "hosted" and request.source != DIALECT:
        raise Untranslatable("tool_choice", f"chat cannot be made to use {choice.name}")
    if request.tools and not tools and not functions:
        if choice is not None and choice.mode in ("required", "tool", "allowed"):
            raise Untranslatable("tool_choice", "no tool the model must choose from can be offered")
        return
    if choice is not None and (tools or functions or _native(request.source)):
        _encode_choice(choice, body)
    if request.parallel_tool_calls is not None and (tools or _native(request.source)):
        body["parallel_tool_calls"] = request.parallel_tool_calls


def _encode_function(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return function


def _encode_custom(tool: Tool) -> dict[str, Any]:
    custom: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        custom["description"] = tool.description
    shape = tool.definition
    if shape is not None:
        if shape.get("type") == "grammar":
            shape = {"type": "grammar", "grammar": {k: v for k, v in shape.items() if k != "type"}}
        custom["format"] = shape
    return custom


def _encode_choice(choice: ToolChoice, body: dict[str, Any]) -> None:
    if choice.kind == "legacy_function":
        named = choice.mode == "tool"
        body["function_call"] = {"name": choice.name} if named else choice.mode
    elif choice.mode == "tool":
        body["tool_choice"] = {"type": choice.kind, choice.kind: {"name": choice.name}}
    elif choice.mode == "allowed":
        tools = []
        for tool in choice.allowed:
            kind = str(tool.get("type"))
            inner = {k: v for k, v in tool.items() if k != "type"}
            tools.append({"type": kind, kind: inner} if inner else {"type": kind})
        inner_choice = {"mode": choice.mode_within, "tools": tools}
        body["tool_choice"] = {"type": "allowed_tools", "allowed_tools": inner_choice}
    elif choice.mode == "hosted":
        body["tool_choice"] = dict(choice.definition or {})
    else:
        body["tool_choice"] = choice.mode


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


# --- reply in ------------------------------------------------------------------------------------


def decode_reply(body: Mapping[str, Any]) -> CanonicalReply:
    """Return the canonical reply of a ``chat.completion`` object.

    A finish reason that is missing or empty reads as ``stop`` (or ``tool_calls``): the body
    arrived whole, so the answer did too.

    Raises:
        MalformedReply: an error object, no choices, or a choice that broke off.
    """
    if body.get("error"):
        raise MalformedReply("a 200 body holds an error object")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise MalformedReply("no choices")
    created = body.get("created")
    return CanonicalReply(
        choices=tuple(_decode_reply_choice(choice, i) for i, choice in enumerate(choices)),
        source=DIALECT,
        usage=read_usage(body.get("usage")),
        id=_text_or_none(body.get("id")),
        model=_text_or_none(body.get("model")),
        created=int(created) if isinstance(created, int | float) else None,
        service_tier=_text_or_none(body.get("service_tier")),
        system_fingerprint=_text_or_none(body.get("system_fingerprint")),
        extra=reading.rest(
            body,
            words("id object created model choices usage service_tier system_fingerprint"),
        ),
    )


def _decode_reply_choice(choice: object, index: int) -> Choice:
    if not isinstance(choice, Mapping):
        raise MalformedReply(f"choices[{index}] is not an object")
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise MalformedReply(f"choices[{index}] has no message")
    native = choice.get("finish_reason")
    if is_failure(native):
        raise MalformedReply(f"choices[{index}] ended in an error")
    content = message.get("content")
    probabilities = choice.get("logprobs")
    probabilities = probabilities if isinstance(probabilities, Mapping) else {}
    said: list[Part] = []
    if isinstance(content, str):
        if content:
            said.append(
                Text(
                    content,
                    tuple(_flat_annotation(a) for a in reading.objects(message.get("annotations"))),
                    reading.logprobs(probabilities.get("content")),
                )
            )
    elif isinstance(content, list):
        for i, part in enumerate(content):
            if not isinstance(part, Mapping):
                raise MalformedReply(f"choices[{index}].message.content[{i}] is not an object")
            said.append(_decode_part(part, "content"))
    elif content is not None:
        raise MalformedReply(f"choices[{index}].message.content is {reading.kind_of(content)}")
    try:
        parts = _decode_said(message, said, "message")
    except MalformedRequest as fault:
        raise MalformedReply(f"choices[{index}]: {fault}") from None
    calls = [part for part in parts if isinstance(part, ToolCall)]
    legacy = bool(calls) and all(call.kind == "legacy_function" for call in calls)
    reason = finish_reason(native, bool(calls), legacy)
    if reason is None:
        reason = ("function_call" if legacy else "tool_calls") if calls else "stop"
    number = choice.get("index")
    return Choice(
        tuple(parts),
        reason,
        number if isinstance(number, int) and number >= 0 else index,
        native if isinstance(native, str) and native and native != reason else None,
        reading.rest(choice, ("index", "message", "finish_reason", "logprobs")),
    )


def _flat_annotation(annotation: Json) -> Json:
    kind = annotation.get("type")
    inner = annotation.get(kind) if isinstance(kind, str) else None
    return {"type": kind, **inner} if isinstance(inner, Mapping) else annotation


def _nested_annotation(annotation: Json) -> Json:
    kind = annotation.get("type")
    if kind != "url_citation" or "url_citation" in annotation:
        return annotation
    return {"type": kind, kind: {k: v for k, v in annotation.items() if k != "type"}}


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


# --- reply out -----------------------------------------------------------------------------------


def encode_reply(reply: CanonicalReply, envelope: Envelope) -> dict[str, Any]:
    """Return a ``chat.completion`` object; choices are renumbered from 0 (XAI-COMPAT-019)."""
    body: dict[str, Any] = {
        "id": envelope.id,
        "object": "chat.completion",
        "created": envelope.created,
        "model": envelope.model,
        "choices": encode_choices(reply, envelope),
    }
    if reply.usage is not None:
        body["usage"] = chat_usage(reply.usage)
    if reply.service_tier is not None:
        body["service_tier"] = reply.service_tier
    if reply.system_fingerprint is not None:
        body["system_fingerprint"] = reply.system_fingerprint
    if reply.source == DIALECT:
        for name, value in reply.extra.items():
            body.setdefault(name, value)
    return body


def encode_choices(reply: CanonicalReply, envelope: Envelope) -> list[dict[str, Any]]:
    """Return the ``choices`` of a reply in the chat shape."""
    ordered = sorted(reply.choices, key=lambda choice: choice.index)
    whole = reply.source == DIALECT
    return [_encode_choice_reply(c, i, envelope, whole) for i, c in enumerate(ordered)]


def _encode_choice_reply(
    choice: Choice, index: int, envelope: Envelope, whole: bool
) -> dict[str, Any]:
    texts = [part for part in choice.parts if isinstance(part, Text)]
    refusals = [part for part in choice.parts if isinstance(part, Refusal)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(part.text for part in texts) if texts else None,
        "refusal": "".join(part.text for part in refusals) if refusals else None,
    }
    thought = join_reasoning(part for part in choice.parts if isinstance(part, Reasoning))
    if thought:
        message["reasoning_content"] = thought
    annotations = [_nested_annotation(a) for part in texts for a in part.annotations]
    if annotations:
        message["annotations"] = annotations
    for part in choice.parts:
        if isinstance(part, Audio):
            pairs = {"id": part.id, "data": part.data, "transcript": part.transcript, **part.extra}
            message["audio"] = {k: v for k, v in pairs.items() if v is not None}
    calls = [part for part in choice.parts if isinstance(part, ToolCall)]
    if len(calls) == 1 and calls[0].kind == "legacy_function":
        message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}
    elif calls:
        message["tool_calls"] = [
            _encode_call(call, call.id or envelope.call_id(i, index), whole)
            for i, call in enumerate(calls)
        ]
    content = [p for part in texts for p in part.logprobs or ()]
    refused = [p for part in refusals for p in part.logprobs or ()]
    carried = any(p.logprobs is not None for p in texts) or bool(refused)
    probabilities = {"content": content or None, "refusal": refused or None} if carried else None
    return {
        "index": index,
        "message": message,
        "logprobs": probabilities,
        "finish_reason": choice.finish_reason,
        **choice.extra,
    }


def join_reasoning(parts: Iterable[Reasoning]) -> str:
    """Return reasoning as one text, blocks and summary paragraphs set apart by an empty line."""
    pieces = [piece for part in parts for piece in (*part.summary, part.text) if piece]
    return "\n\n".join(pieces)


# --- stream in -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Call:
    index: int
    id: str
    key: int | None
    name: str = ""
    kind: ToolKind = "function"
    started: bool = False
    held: str = ""  # arguments that came before the name
    seen: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Progress:
    """What is known of one choice of a stream."""

    native: str | None = None
    calls: list[_Call] = field(default_factory=list)
    by_key: dict[int, _Call] = field(default_factory=dict)
    by_id: dict[str, _Call] = field(default_factory=dict)


class StreamDecoder:
    """``chat.completion.chunk`` objects in, canonical events out.

    Which call a tool delta belongs to is decided by its id first and its index second, because
    servers send index 0 for every call, -1, or none. Finish reasons are held until ``finish``:
    a call may follow the stop in a chunk of its own.
    """

    __slots__ = ("_choices", "_failed", "_started", "_usage")

    def __init__(self) -> None:
        self._choices: dict[int, _Progress] = {}
        self._usage: Usage | None = None
        self._started = False
        self._failed = False

    @property
    def complete(self) -> bool:
        """True once every choice that began has its finish reason."""
        return bool(self._choices) and all(p.native for p in self._choices.values())

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> list[CanonicalEvent]:
        """Return the events of one chunk. Nothing follows a ``StreamError``."""
        if self._failed:
            return []
        error = payload.get("error")
        if error or event == "error":
            self._failed = True
            return [stream_error(error if error else payload)]
        events: list[CanonicalEvent] = []
        if not self._started:
            self._started = True
            model, identity = payload.get("model"), payload.get("id")
            events.append(StreamStart(_text_or_none(identity), _text_or_none(model)))
        usage = payload.get("usage")
        if usage is not None:
            self._usage = reading.merge_usage(self._usage, read_usage(usage))
        choices = payload.get("choices")
        if isinstance(choices, list):
            for position, choice in enumerate(choices):
                if isinstance(choice, Mapping):
                    self._choice(choice, position, events)
        return events

    def finish(self) -> list[CanonicalEvent]:
        """Return the closing events.

        Raises:
            StreamCut: a choice has no finish reason, or none ever began.
        """
        if self._failed:
            return []
        if not self.complete:
            raise StreamCut()
        events: list[CanonicalEvent] = []
        for number, progress in sorted(self._choices.items()):
            for call in progress.calls:
                self._announce(call, number, events)
            legacy = bool(progress.calls) and progress.calls[0].kind == "legacy_function"
            reason = finish_reason(progress.native, bool(progress.calls), legacy) or "stop"
            if reason in ("tool_calls", "function_call"):
                events += [ToolCallEnd(call.index, number) for call in progress.calls]
            native = progress.native if progress.native != reason else None
            events.append(Finish(reason, number, native))
        if self._usage is not None:
            events.append(UsageEvent(self._usage))
        return events

    def _choice(self, choice: Json, position: int, events: list[CanonicalEvent]) -> None:
        number = choice.get("index")
        number = number if isinstance(number, int) and number >= 0 else position
        progress = self._choices.get(number)
        if progress is None:
            progress = self._choices[number] = _Progress()
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            delta = choice.get("message")  # a whole message in a stream: some gateways do that
        if isinstance(delta, Mapping):
            self._delta(delta, choice, number, progress, events)
        native = choice.get("finish_reason")
        if isinstance(native, str) and native:
            if is_failure(native):
                self._failed = True
                events.append(StreamError(native, "the upstream ended the answer in an error"))
            elif progress.native is None or finish_reason(progress.native, False) == "stop":
                progress.native = native

    def _delta(
        self,
        delta: Json,
        choice: Json,
        number: int,
        progress: _Progress,
        events: list[CanonicalEvent],
    ) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            events.append(ReasoningDelta(thought, number))
        content = delta.get("content")
        if isinstance(content, list):
            content = "".join(
                p["text"] for p in content if isinstance(p, Mapping) and type(p.get("text")) is str
            )
        if isinstance(content, str) and content:
            probabilities = choice.get("logprobs")
            tokens = None
            if isinstance(probabilities, Mapping):
                tokens = reading.logprobs(probabilities.get("content"))
            events.append(TextDelta(content, number, tokens or ()))
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            events.append(RefusalDelta(refusal, number))
        audio = delta.get("audio")
        if isinstance(audio, Mapping):
            events.append(
                AudioDelta(
                    audio.get("data"),
                    audio.get("transcript"),
                    audio.get("id"),
                    audio.get("expires_at"),
                    number,
                )
            )
        for annotation in reading.objects(delta.get("annotations")):
            if isinstance(annotation, Mapping):
                events.append(AnnotationDelta(_flat_annotation(annotation), number))
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            for call in calls:
                if isinstance(call, Mapping):
                    self._tool(call, number, progress, events)
        legacy = delta.get("function_call")
        if isinstance(legacy, Mapping):
            wrapped = {"index": 0, "function": legacy}
            self._tool(wrapped, number, progress, events, "legacy_function")

    def _tool(
        self,
        delta: Json,
        number: int,
        progress: _Progress,
        events: list[CanonicalEvent],
        kind: ToolKind = "function",
    ) -> None:
        inner = delta.get("function")
        if delta.get("type") == "custom" or (inner is None and "custom" in delta):
            kind, inner = "custom", delta.get("custom")
        inner = inner if isinstance(inner, Mapping) else {}
        name = inner.get("name")
        name = name if isinstance(name, str) else ""
        given = inner.get("arguments") if kind != "custom" else inner.get("input")
        arguments = reading.arguments_text(given)
        call = self._which(delta, name, kind, progress)
        if name and not call.name:
            call.name = name
        if call.name:
            self._announce(call, number, events)
        if not arguments:
            return
        call.seen.append(arguments)
        if call.started:
            events.append(ToolCallDelta(call.index, arguments, number))
        else:
            call.held += arguments

    @staticmethod
    def _which(delta: Json, name: str, kind: ToolKind, progress: _Progress) -> _Call:
        """Return the call a delta belongs to, a new one when it belongs to none."""
        identity = delta.get("id")
        identity = identity if isinstance(identity, str) else ""
        key = delta.get("index")
        key = key if isinstance(key, int) and not isinstance(key, bool) and key >= 0 else None
        at_key = progress.by_key.get(key) if key is not None else None
        if identity:
            known = progress.by_id.get(identity)
            if known is not None:
                return known
            if at_key is not None and not at_key.id and not at_key.started:
                at_key.id = identity
                progress.by_id[identity] = at_key
                return at_key
        else:
            current = at_key
            if current is None and key is None and progress.calls:
                current = progress.calls[-1]
            if current is not None and _continues(current, name):
                return current
        call = _Call(len(progress.calls), identity, key, kind=kind)
        progress.calls.append(call)
        if key is not None:
            progress.by_key[key] = call
        if identity:
            progress.by_id[identity] = call
        return call

    @staticmethod
    def _announce(call: _Call, number: int, events: list[CanonicalEvent]) -> None:
        if call.started:
            return
        call.started = True
        events.append(ToolCallStart(call.index, call.id, call.name, call.kind, number))
        if call.held:
            events.append(ToolCallDelta(call.index, call.held, number))
            call.held = ""


def _continues(call: _Call, name: str) -> bool:
    """Tell whether a delta without an id, naming ``name``, goes on with ``call``."""
    if not name or not call.name:
        return True
    if name != call.name:
        return False
    # The same name again: a server that repeats it in every chunk, or a second call. It is a
    # second call once the first one's arguments are whole.
    return not (call.seen and reading.is_whole_json("".join(call.seen)))


def stream_error(error: object) -> StreamError:
    """Return the failure an upstream reported in a stream, in whichever shape."""
    if not isinstance(error, Mapping):
        return StreamError(None, str(error))
    inner = error.get("error")
    if isinstance(inner, Mapping):
        error = inner
    code, status = error.get("code"), error.get("status")
    if isinstance(code, int):  # several gateways put the HTTP status there
        code, status = None, code
    return StreamError(
        _text_or_none(code),
        str(error.get("message") or ""),
        _text_or_none(error.get("type")),
        status if isinstance(status, int) else None,
    )


# --- stream out ----------------------------------------------------------------------------------


class StreamEncoder:
    """Canonical events in, ``chat.completion.chunk`` frames out.

    Finish chunks are held until ``finish`` so that the last JSON frame can carry more.
    """

    __slots__ = (
        "_envelope",
        "_finishes",
        "_head",
        "_kinds",
        "_roles",
        "_tail",
        "_thoughts",
        "_usage",
    )

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._usage: Usage | None = None
        self._finishes: dict[int, FinishReason] = {}
        self._kinds: dict[tuple[int, int], ToolKind] = {}
        self._roles: set[int] = set()
        self._thoughts: dict[int, tuple[int, str, int]] = {}
        head = {
            "id": envelope.id,
            "object": "chat.completion.chunk",
            "created": envelope.created,
            "model": envelope.model,
        }
        self._head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":'
        self._tail = b',"usage":null}\n\n' if envelope.include_usage else b"}\n\n"

    def encode(self, event: CanonicalEvent) -> bytes:
        """Return the frames of one event, possibly none."""
        match event:
            case TextDelta(text, choice, logprobs):
                tokens = {"content": list(logprobs), "refusal": None} if logprobs else None
                return self._frame(choice, {"content": text}, tokens)
            case ReasoningDelta() if event.text:
                return self._frame(event.choice, {"reasoning_content": self._thought(event)})
            case RefusalDelta(text, choice):
                return self._frame(choice, {"refusal": text})
            case ToolCallStart():
                return self._frame(event.choice, self._call(event))
            case ToolCallDelta(index, arguments, choice):
                return self._frame(choice, self._arguments(index, arguments, choice))
            case AnnotationDelta(annotation, choice):
                return self._frame(choice, {"annotations": [_nested_annotation(annotation)]})
            case AudioDelta():
                pairs = {
                    "id": event.id,
                    "data": event.data,
                    "transcript": event.transcript,
                    "expires_at": event.expires_at,
                }
                held = {k: v for k, v in pairs.items() if v is not None}
                return self._frame(event.choice, {"audio": held})
            case Finish(reason, choice):
                self._finishes[choice] = reason
            case UsageEvent(usage):
                self._usage = usage
            case _:
                pass
        return b""

    def finish(self, extra: Mapping[str, Any] | None = None) -> bytes:
        """Return the finish chunks, the usage chunk when asked for, and ``[DONE]``.

        ``extra`` is merged into the last JSON frame.

        Raises:
            StreamCut: no ``Finish`` was encoded; an ending is never made up.
        """
        if not self._finishes:
            raise StreamCut()
        more = b"" if not extra else b"," + orjson.dumps(extra)[1:-1]
        frames = []
        usage_asked = self._envelope.include_usage
        last = max(self._finishes)
        for choice, reason in sorted(self._finishes.items()):
            frame = self._frame(choice, {}, None, reason)
            if more and not usage_asked and choice == last:
                frame = frame[:-3] + more + b"}\n\n"
            frames.append(frame)
        if usage_asked:
            usage = None if self._usage is None else chat_usage(self._usage)
            frames.append(self._head + b'[],"usage":' + orjson.dumps(usage) + more + b"}\n\n")
        return b"".join((*frames, DONE_FRAME))

    def fail(self, error: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> bytes:
        """Return the error frame that ends a broken stream; no ``[DONE]`` follows it."""
        inner = error.get("error")
        body = {"error": inner if isinstance(inner, Mapping) else dict(error), **(extra or {})}
        return b"data: " + orjson.dumps(body) + b"\n\n"

    def _frame(
        self,
        choice: int,
        delta: dict[str, Any],
        logprobs: Json | None = None,
        reason: FinishReason | None = None,
    ) -> bytes:
        if choice not in self._roles:
            self._roles.add(choice)
            delta = {"role": "assistant", **delta}
            if "content" not in delta:
                delta["content"] = None
        item = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._head + orjson.dumps([item]) + self._tail

    def _thought(self, event: ReasoningDelta) -> str:
        here = (event.item, event.kind, event.part)
        before = self._thoughts.get(event.choice)
        self._thoughts[event.choice] = here
        return event.text if before in (None, here) else "\n\n" + event.text

    def _call(self, event: ToolCallStart) -> dict[str, Any]:
        self._kinds[event.choice, event.index] = event.kind
        if event.kind == "legacy_function":
            return {"function_call": {"name": event.name, "arguments": ""}}
        identity = event.id or self._envelope.call_id(event.index, event.choice)
        call: dict[str, Any] = {"index": event.index, "id": identity, "type": event.kind}
        argument = "input" if event.kind == "custom" else "arguments"
        call[event.kind] = {"name": event.name, argument: ""}
        return {"tool_calls": [call]}

    def _arguments(self, index: int, arguments: str, choice: int) -> dict[str, Any]:
        kind = self._kinds.get((choice, index), "function")
        if kind == "legacy_function":
            return {"function_call": {"arguments": arguments}}
        inner = {"input" if kind == "custom" else "arguments": arguments}
        return {"tool_calls": [{"index": index, kind: inner}]}
