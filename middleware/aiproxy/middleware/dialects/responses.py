"""The Responses dialect: ``POST /v1/responses`` with ``input``.

Order of this page: request in, request out, reply in, reply out, stream in, stream out.
The Response objects made here always carry the 31 members that both the OpenAI description and
the Open Responses specification ask for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    PartEnd,
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
from aiproxy.middleware.dialects.chat import (
    SHARED,
    stream_error,
)
from aiproxy.middleware.dialects.chat import (
    decode_tools as decode_nested_tools,
)
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.sse import DONE_FRAME
from aiproxy.middleware.dialects.usage import read_usage, responses_usage

DIALECT: Final = "responses"

_READ: Final = words(
    "model input instructions tools tool_choice parallel_tool_calls text temperature "
    "top_p max_output_tokens top_logprobs presence_penalty frequency_penalty user "
    "metadata service_tier reasoning stream stream_options"
)
_LOGPROBS: Final = "message.output_text.logprobs"
_ENCRYPTED: Final = "reasoning.encrypted_content"
_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
}
_CALLS: Final[dict[str, tuple[ToolKind, str]]] = {
    "function_call": ("function", "arguments"),
    "custom_tool_call": ("custom", "input"),
}
_OUTPUTS: Final[dict[str, ToolKind]] = {
    "function_call_output": "function",
    "custom_tool_call_output": "custom",
}
#: Codes the error member of a Response object may hold; others become ``server_error``.
_ERROR_CODES: Final = frozenset({"server_error", "rate_limit_exceeded", "invalid_prompt"})
#: Exactly one of these ends a stream.
_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


# --- request in ----------------------------------------------------------------------------------


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
    include = [word for word in _words(extra.pop("include", None)) if word != _LOGPROBS]
    if include:
        extra["include"] = include
    return CanonicalRequest(
        model=reading.text(body.get("model"), "model"),
        turns=_decode_input(body.get("input")),
        source=DIALECT,
        instructions=reading.string(body, "instructions"),
        tools=decode_tools(body.get("tools")),
        tool_choice=_decode_choice(body.get("tool_choice")),
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
    wanted = _LOGPROBS in _words(body.get("include"))
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


def _decode_input(value: object) -> tuple[Turn, ...]:
    if isinstance(value, str):
        return (Turn("user", (Text(value),), form="bare"),)
    if value is None:
        return ()
    turns: list[Turn] = []
    for i, item in enumerate(reading.array(value, "input")):
        _decode_item(reading.mapping(item, f"input[{i}]"), f"input[{i}]", turns)
    return tuple(turns)


def _decode_item(item: Json, path: str, turns: list[Turn]) -> None:
    kind = reading.word(item.get("type"))
    if kind in ("", "message") and "role" in item:
        _decode_message(item, path, turns)
    elif kind in _CALLS:
        _said(_decode_call(item, path), turns)
    elif kind in _OUTPUTS:
        turns.append(Turn("tool", (_decode_output(item, path),)))
    elif kind == "reasoning":
        current = turns[-1] if turns else None
        # What a model thinks comes before what it says: new thoughts begin a new turn unless
        # calls are still waiting for their results.
        if current is not None and current.role == "assistant" and not _pending(current):
            turns.append(Turn("assistant", (decode_reasoning(item),), form="absent"))
        else:
            _said(decode_reasoning(item), turns)
    else:
        word = str(kind)
        _said(Opaque(DIALECT, word, item), turns)


def _decode_message(item: Json, path: str, turns: list[Turn]) -> None:
    role = _ROLES.get(reading.text(item.get("role"), f"{path}.role"))
    if role is None:
        raise MalformedRequest(f"{path}.role", "another word", "one of " + ", ".join(_ROLES))
    content = item.get("content")
    form: Literal["string", "parts"] = "string" if isinstance(content, str) else "parts"
    parts: tuple[Part, ...]
    if isinstance(content, str):
        parts = (Text(content),)
    else:
        parts = tuple(
            _decode_part(reading.mapping(part, f"{path}.content[{i}]"), f"{path}.content[{i}]")
            for i, part in enumerate(reading.array(content or [], f"{path}.content"))
        )
    extra = reading.rest(item, ("type", "role", "content"))
    current = turns[-1] if turns else None
    if role == "assistant" and current is not None and current.role == "assistant":
        silent = not any(isinstance(p, Text | Refusal) for p in current.parts)
        if _pending(current) or silent:
            joined_form = form if silent else "parts"
            turns[-1] = Turn("assistant", (*current.parts, *parts), form=joined_form, extra=extra)
            return
    turns.append(Turn(role, parts, form=form, extra=extra))


def _pending(turn: Turn) -> bool:
    return any(isinstance(part, ToolCall) for part in turn.parts)


def _said(part: Part, turns: list[Turn]) -> None:
    """Add ``part`` to the assistant turn in progress, or begin one."""
    current = turns[-1] if turns else None
    if current is not None and current.role == "assistant":
        turns[-1] = Turn(
            "assistant", (*current.parts, part), form=current.form, extra=current.extra
        )
    else:
        turns.append(Turn("assistant", (part,), form="absent"))


def _decode_call(item: Json, path: str) -> ToolCall:
    kind, member = _CALLS[item["type"]]
    return ToolCall(
        id=reading.text(item.get("call_id"), f"{path}.call_id"),
        name=reading.text(item.get("name"), f"{path}.name"),
        arguments=reading.arguments_text(item.get(member)),
        kind=kind,
        extra=reading.rest(item, ("type", "call_id", "name", member)),
    )


def _decode_output(item: Json, path: str) -> ToolResult:
    output = item.get("output")
    plain = isinstance(output, str)
    parts: tuple[Part, ...]
    if isinstance(output, str):
        parts = (Text(output),)
    elif output is None:
        parts, plain = (), True
    else:
        parts = tuple(
            _decode_part(reading.mapping(part, f"{path}.output[{i}]"), f"{path}.output[{i}]")
            for i, part in enumerate(reading.array(output, f"{path}.output"))
        )
    return ToolResult(
        call_id=reading.text(item.get("call_id"), f"{path}.call_id"),
        parts=parts,
        plain=plain,
        kind=_OUTPUTS[item["type"]],
        extra=reading.rest(item, ("type", "call_id", "output")),
    )


def decode_reasoning(item: Json) -> Reasoning:
    """Return the reasoning of an item; absent members read as empty."""
    return Reasoning(
        text="".join(_texts(item.get("content"))),
        summary=tuple(_texts(item.get("summary"))),
        encrypted=item.get("encrypted_content"),
        id=item.get("id"),
        extra=reading.rest(item, ("type", "id", "summary", "content", "encrypted_content")),
    )


def _texts(parts: object) -> list[str]:
    if not isinstance(parts, list | tuple):
        return []
    found = (p.get("text") for p in parts if isinstance(p, Mapping))
    return [text for text in found if isinstance(text, str)]


def _decode_part(part: Json, path: str) -> Part:
    kind = reading.word(part.get("type"))
    if kind in ("input_text", "output_text", "text"):
        return Text(
            reading.text(part.get("text"), f"{path}.text"),
            tuple(a for a in reading.objects(part.get("annotations")) if isinstance(a, Mapping)),
            reading.logprobs(part.get("logprobs") or None),
            reading.rest(part, ("type", "text", "annotations", "logprobs")),
        )
    if kind == "input_image":
        url = part.get("image_url")
        url = None if url is None else reading.text(url, f"{path}.image_url")
        extra = reading.rest(part, ("type", "image_url", "detail", "file_id"))
        return reading.image(url, part.get("detail"), part.get("file_id"), extra)
    if kind == "input_file":
        return File(
            url=part.get("file_url"),
            data=part.get("file_data"),
            file_id=part.get("file_id"),
            name=part.get("filename"),
            extra=reading.rest(part, words("type file_url file_data file_id filename")),
        )
    if kind == "input_audio":
        inner = reading.mapping(part.get("input_audio"), f"{path}.input_audio")
        return Audio(data=inner.get("data"), format=inner.get("format"))
    if kind == "refusal":
        return Refusal(reading.text(part.get("refusal"), f"{path}.refusal"))
    return Opaque(DIALECT, str(kind), part)


def decode_tools(tools: object) -> tuple[Tool, ...]:
    """Return the tools of a Responses ``tools`` member; ``"auto"`` and null give none.

    Function tools are flat here; the nested chat form is understood as well, because the
    draft's examples use it on this route.
    """
    if tools is None or tools == "auto":
        return ()
    found: list[Tool] = []
    for i, item in enumerate(reading.array(tools, "tools")):
        tool = reading.mapping(item, f"tools[{i}]")
        kind = reading.word(tool.get("type"))
        if kind in ("function", "custom") and isinstance(tool.get(kind), Mapping):
            found += decode_nested_tools([tool])
        elif kind == "function":
            found.append(
                Tool(
                    reading.text(tool.get("name"), f"tools[{i}].name"),
                    "function",
                    tool.get("description"),
                    tool.get("parameters"),
                    reading.flag(tool, "strict"),
                    extra=reading.rest(tool, words("type name description parameters strict")),
                )
            )
        elif kind == "custom":
            found.append(
                Tool(
                    reading.text(tool.get("name"), f"tools[{i}].name"),
                    "custom",
                    tool.get("description"),
                    definition=tool.get("format"),
                    extra=reading.rest(tool, words("type name description format")),
                )
            )
        else:
            found.append(Tool(str(kind), "hosted", definition=tool))
    return tuple(found)


def _decode_choice(choice: object) -> ToolChoice | None:
    if choice is None:
        return None
    if choice == "auto":
        return ToolChoice("auto")
    if choice == "none":
        return ToolChoice("none")
    if choice == "required":
        return ToolChoice("required")
    given = reading.mapping(choice, "tool_choice")
    kind = str(given.get("type"))
    if kind in ("function", "custom"):
        inner = given.get(kind)
        holder = inner if isinstance(inner, Mapping) else given
        return ToolChoice(
            "tool", str(holder.get("name")), "custom" if kind == "custom" else "function"
        )
    if kind == "allowed_tools":
        tools = tuple(t for t in reading.objects(given.get("tools")) if isinstance(t, Mapping))
        return ToolChoice("allowed", allowed=tools, mode_within=str(given.get("mode", "auto")))
    return ToolChoice("hosted", kind, definition=given)


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


# --- request out ---------------------------------------------------------------------------------


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
        body["input"] = _joined(request.turns[0].parts)
    elif request.turns or not native:
        items: list[dict[str, Any]] = []
        customs = _custom_ids(request)
        for turn in request.turns:
            _encode_turn(turn, request.source, customs, items, losses)
        body["input"] = items
    _encode_tools(request, body, losses)
    text = encode_text(request.response_format, request.verbosity, losses)
    if text:
        body["text"] = text
    _encode_sampling(request, body, losses)
    reasoning: dict[str, Any] = dict(request.extra.get("reasoning") or {}) if native else {}
    if request.reasoning_effort is not None:
        reasoning["effort"] = request.reasoning_effort
    if request.reasoning_summary is not None:
        reasoning["summary"] = request.reasoning_summary
    if reasoning:
        body["reasoning"] = reasoning
    for name, value in (
        ("user", request.user),
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


_SHARED_WITH_DRAFT: Final = SHARED | words(
    "previous_response_id conversation background max_tool_calls truncation include "
    "prompt context_management"
)


def _custom_ids(request: CanonicalRequest) -> frozenset[str]:
    """Return the ids of custom tool calls: other dialects answer them like any other call."""
    parts = (part for turn in request.turns for part in turn.parts)
    return frozenset(p.id for p in parts if isinstance(p, ToolCall) and p.kind == "custom")


def _joined(parts: tuple[Part, ...]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Text))


def _encode_turn(
    turn: Turn,
    source: str,
    customs: frozenset[str],
    items: list[dict[str, Any]],
    losses: list[Loss],
) -> None:
    message: dict[str, Any] | None = None
    if turn.name is not None:
        losses.append(Loss("message.name", "the Responses API has no participant names"))
    if source != DIALECT:
        for name in turn.extra:
            losses.append(Loss(f"message.{name}", "the Responses API has no such member"))
    for part in turn.parts:
        if isinstance(part, Text | Image | File | Audio | Refusal) or (
            isinstance(part, Opaque) and turn.role != "assistant"
        ):
            encoded = _encode_part(part, turn.role, source, losses)
            if message is None:
                extra = dict(turn.extra) if source == DIALECT else {}
                message = {"type": "message", "role": turn.role, "content": [], **extra}
                items.append(message)
            if encoded is not None:
                message["content"].append(encoded)
            continue
        _close(message, turn)
        message = None
        if isinstance(part, Reasoning):
            if source == DIALECT:
                items.append(_encode_thought(part))
            else:
                losses.append(Loss("reasoning", "earlier reasoning does not travel"))
        elif isinstance(part, ToolCall):
            items.append(_encode_call(part, source))
        elif isinstance(part, ToolResult):
            custom = part.kind == "custom" or part.call_id in customs
            items.append(_encode_result(part, custom, source, losses))
        elif part.dialect == DIALECT:
            items.append(dict(part.value))
        else:
            losses.append(Loss("item", f"the Responses API has no {part.kind} items"))
    _close(message, turn)


def _close(message: dict[str, Any] | None, turn: Turn) -> None:
    """Write a message's content as a string again when it came as one."""
    if message is None or turn.form not in ("string", "bare"):
        return
    content = message["content"]
    if len(content) == 1 and set(content[0]) <= {"type", "text", "annotations"}:
        message["content"] = content[0].get("text", content)


def _encode_part(
    part: Text | Image | File | Audio | Refusal | Opaque,
    role: Role,
    source: str,
    losses: list[Loss],
) -> dict[str, Any] | None:
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    if isinstance(part, Opaque):
        if part.dialect == DIALECT:
            return dict(part.value)
        losses.append(Loss("content_part", f"the Responses API has no {part.kind} parts"))
        return None
    extra = dict(part.extra) if source == DIALECT else {}
    if part.extra and source != DIALECT and set(part.extra) != {"plain"}:
        names = ", ".join(sorted(part.extra))
        losses.append(Loss("part_members", f"the Responses API does not take {names} here"))
    if isinstance(part, Text):
        if role == "assistant":
            annotations = list(part.annotations)
            return {"type": "output_text", "text": part.text, "annotations": annotations, **extra}
        return {"type": "input_text", "text": part.text, **extra}
    if isinstance(part, Image):
        pairs = {
            "image_url": reading.image_url(part),
            "file_id": part.file_id,
            "detail": part.detail or "auto",
        }
        held = {k: v for k, v in pairs.items() if v is not None}
        return {"type": "input_image", **held, **extra}
    if isinstance(part, File):
        pairs = {
            "file_url": part.url,
            "file_data": part.data,
            "file_id": part.file_id,
            "filename": part.name,
        }
        held = {k: v for k, v in pairs.items() if v is not None}
        return {"type": "input_file", **held, **extra}
    if role == "assistant":
        losses.append(Loss("audio", "earlier spoken answers do not travel"))
        if part.transcript:
            return {"type": "output_text", "text": part.transcript, "annotations": []}
        return None
    if source == DIALECT:
        inner = {"data": part.data or "", "format": part.format or "wav"}
        return {"type": "input_audio", "input_audio": inner}
    raise Untranslatable("audio", "the Responses API does not hear audio input")


def _encode_thought(part: Reasoning) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "reasoning"}
    if part.id is not None:
        item["id"] = part.id
    item["summary"] = [{"type": "summary_text", "text": text} for text in part.summary]
    if part.text:
        item["content"] = [{"type": "reasoning_text", "text": part.text}]
    if part.encrypted is not None:
        item["encrypted_content"] = part.encrypted
    item.update(part.extra)
    return item


def _encode_call(call: ToolCall, source: str) -> dict[str, Any]:
    custom = call.kind == "custom"
    extra = dict(call.extra) if source == DIALECT else {}
    return {
        "type": "custom_tool_call" if custom else "function_call",
        "call_id": call.id or _legacy_id(call.name),
        "name": call.name,
        "input" if custom else "arguments": call.arguments,
        **extra,
    }


def _legacy_id(name: str) -> str:
    """Return the id that ties an old-style call to its result: both only have the name."""
    return f"call_{name}"


def _encode_result(
    result: ToolResult, custom: bool, source: str, losses: list[Loss]
) -> dict[str, Any]:
    output: Any
    if result.plain:
        output = _joined(result.parts)
    else:
        parts = (
            _encode_part(part, "user", source, losses)
            for part in result.parts
            if isinstance(part, Text | Image | File | Audio | Refusal | Opaque)
        )
        output = [part for part in parts if part is not None]
    extra = dict(result.extra) if source == DIALECT else {}
    return {
        "type": "custom_tool_call_output" if custom else "function_call_output",
        "call_id": result.call_id or _legacy_id(result.name or ""),
        "output": output,
        **extra,
    }


def _encode_tools(request: CanonicalRequest, body: dict[str, Any], losses: list[Loss]) -> None:
    native = request.source == DIALECT
    tools: list[dict[str, Any]] = []
    for tool in request.tools:
        if tool.kind != "hosted":
            tools.append(encode_tool(tool, native))
        elif tool.definition is not None and request.source != "chat":
            tools.append(dict(tool.definition))
        else:
            losses.append(Loss("hosted_tool", f"{tool.name} is not known to the Responses API"))
    if tools:
        body["tools"] = tools
    choice = request.tool_choice
    if choice is not None and choice.mode == "hosted" and request.source == "chat":
        raise Untranslatable(
            "tool_choice", f"the Responses API cannot be made to use {choice.name}"
        )
    if choice is not None and (tools or native):
        body["tool_choice"] = encode_choice(choice)
    elif choice is not None and request.tools and choice.mode in ("required", "tool", "allowed"):
        raise Untranslatable("tool_choice", "no tool the model must choose from can be offered")
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls


def encode_tool(tool: Tool, whole: bool = True) -> dict[str, Any]:
    """Return a tool in the flat form; ``whole`` keeps members only its dialect knows.

    ``strict`` is always written for functions: this API takes a missing one for true, chat
    takes it for false.
    """
    extra = dict(tool.extra) if whole else {}
    if tool.kind == "hosted":
        return dict(tool.definition or {"type": tool.name})
    flat: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        flat["description"] = tool.description
    if tool.kind == "custom":
        if tool.definition is not None:
            flat["format"] = tool.definition
        return {"type": "custom", **flat, **extra}
    flat["parameters"] = tool.parameters
    if tool.strict is not None:
        flat["strict"] = tool.strict
    elif not whole:
        flat["strict"] = False
    if tool.parameters is None and not whole:
        flat["parameters"] = {"type": "object", "properties": {}}
    return {"type": "function", **flat, **extra}


def encode_choice(choice: ToolChoice) -> Any:
    """Return a ``tool_choice`` in the flat form."""
    if choice.mode == "tool":
        kind = "custom" if choice.kind == "custom" else "function"
        return {"type": kind, "name": choice.name}
    if choice.mode == "allowed":
        allowed = [dict(tool) for tool in choice.allowed]
        return {"type": "allowed_tools", "mode": choice.mode_within, "tools": allowed}
    if choice.mode == "hosted":
        return dict(choice.definition or {"type": choice.name})
    return choice.mode


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
    if sampling.logprobs and not (native and _LOGPROBS in request.extra.get("include", ())):
        body["include"] = [_LOGPROBS]
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


# --- reply in ------------------------------------------------------------------------------------


def decode_reply(body: Mapping[str, Any]) -> CanonicalReply:
    """Return the canonical reply of a Response object.

    Raises:
        MalformedReply: no output, or a response that failed or is not finished.
    """
    status = body.get("status")
    if body.get("error") or status == "failed":
        raise MalformedReply("the response failed")
    if status in ("in_progress", "queued", "cancelled"):
        raise MalformedReply(f"the response is {status}")
    output = body.get("output")
    if not isinstance(output, list):
        raise MalformedReply("no output")
    parts: list[Part] = []
    for i, item in enumerate(output):
        if not isinstance(item, Mapping):
            raise MalformedReply(f"output[{i}] is not an object")
        try:
            parts += _decode_output_item(item, f"output[{i}]")
        except MalformedRequest as fault:
            raise MalformedReply(str(fault)) from None
    created = body.get("created_at")
    return CanonicalReply(
        choices=(Choice(tuple(parts), _reason(body, _called(parts))),),
        source=DIALECT,
        usage=read_usage(body.get("usage")),
        id=body.get("id"),
        model=body.get("model"),
        created=int(created) if isinstance(created, int | float) else None,
        service_tier=body.get("service_tier"),
        extra={},
    )


def _decode_output_item(item: Json, path: str) -> list[Part]:
    kind = reading.word(item.get("type"))
    if kind == "message":
        content = item.get("content")
        return [
            _decode_part(reading.mapping(part, f"{path}.content[{i}]"), f"{path}.content[{i}]")
            for i, part in enumerate(content if isinstance(content, list) else [])
        ]
    if kind in _CALLS:
        return [_decode_call(item, path)]
    if kind == "reasoning":
        return [decode_reasoning(item)]
    return [Opaque(DIALECT, str(kind), item)]


def _called(parts: list[Part]) -> bool:
    return any(isinstance(part, ToolCall) for part in parts)


def _reason(body: Json, called: bool) -> FinishReason:
    if body.get("status") == "incomplete":
        details = body.get("incomplete_details")
        why = details.get("reason") if isinstance(details, Mapping) else None
        return "content_filter" if why == "content_filter" else "length"
    return "tool_calls" if called else "stop"


# --- reply out -----------------------------------------------------------------------------------


def response_object(
    envelope: Envelope,
    status: str,
    output: list[dict[str, Any]],
    usage: Usage | None = None,
    reason: FinishReason | None = None,
    error: Json | None = None,
) -> dict[str, Any]:
    """Return a Response object with its 31 members; request members are echoed in this shape."""
    request = envelope.request
    incomplete = None
    if status == "incomplete":
        incomplete = {
            "reason": "content_filter" if reason == "content_filter" else "max_output_tokens"
        }
    return {
        "id": envelope.id,
        "object": "response",
        "created_at": envelope.created,
        "completed_at": envelope.ended() if status == "completed" else None,
        "status": status,
        "incomplete_details": incomplete,
        "model": envelope.model,
        "previous_response_id": _given(request, "previous_response_id", str),
        "instructions": _given(request, "instructions", str, list),
        "output": output,
        "error": error,
        "tools": [_echo_tool(tool) for tool in _echo_tools(request)],
        "tool_choice": _echo_choice(request.get("tool_choice")),
        "truncation": _given(request, "truncation", str) or "disabled",
        "parallel_tool_calls": request.get("parallel_tool_calls") is not False,
        "text": _echo_text(request),
        "top_p": _figure(request, "top_p", 1.0),
        "presence_penalty": _figure(request, "presence_penalty", 0.0),
        "frequency_penalty": _figure(request, "frequency_penalty", 0.0),
        "top_logprobs": _given(request, "top_logprobs", int) or 0,
        "temperature": _figure(request, "temperature", 1.0),
        "reasoning": _echo_reasoning(request),
        "usage": None if usage is None else responses_usage(usage),
        "max_output_tokens": _given(request, "max_output_tokens", int)
        or _given(request, "max_completion_tokens", int),
        "max_tool_calls": _given(request, "max_tool_calls", int),
        # Nothing is kept behind an answer made from another dialect, whatever was asked.
        "store": False,
        "background": False,
        "service_tier": _given(request, "service_tier", str) or "default",
        "metadata": _given(request, "metadata", dict) or {},
        "safety_identifier": _given(request, "safety_identifier", str),
        "prompt_cache_key": _given(request, "prompt_cache_key", str),
    }


def _given(request: Json, name: str, *types: type) -> Any:
    value = request.get(name)
    return value if isinstance(value, types) and not isinstance(value, bool) else None


def _figure(request: Json, name: str, default: float) -> float:
    value = _given(request, name, int, float)
    return default if value is None else value


def _echo_tools(request: Json) -> tuple[Tool, ...]:
    try:
        return decode_tools(request.get("tools"))
    except MalformedRequest:
        return ()


def _echo_tool(tool: Tool) -> dict[str, Any]:
    if tool.kind != "function":
        return encode_tool(tool)
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def _echo_choice(choice: object) -> Any:
    try:
        decoded = _decode_choice(choice)
    except MalformedRequest:
        decoded = None
    return "auto" if decoded is None else encode_choice(decoded)


def _echo_text(request: Json) -> dict[str, Any]:
    text = request.get("text")
    shape = dict(text) if isinstance(text, Mapping) else {}
    nested = request.get("response_format")
    if "format" not in shape and isinstance(nested, Mapping):
        inner = nested.get("json_schema")
        if isinstance(inner, Mapping):
            shape["format"] = {"type": "json_schema", "name": "answer", "schema": {}, **inner}
        elif nested.get("type") in ("text", "json_object"):
            shape["format"] = {"type": nested["type"]}
    if not isinstance(shape.get("format"), Mapping):
        shape["format"] = {"type": "text"}
    return shape


def _echo_reasoning(request: Json) -> dict[str, Any]:
    given = request.get("reasoning")
    given = given if isinstance(given, Mapping) else {}
    effort = given.get("effort") or request.get("reasoning_effort")
    return {"effort": effort, "summary": given.get("summary")}


def encode_reply(reply: CanonicalReply, envelope: Envelope) -> dict[str, Any]:
    """Return the Response object of a reply; only its first choice can be told."""
    choice = min(reply.choices, key=lambda c: c.index)
    items = _Items(envelope)
    for part in choice.parts:
        items.add(part)
    reason = choice.finish_reason
    status = "incomplete" if reason in ("length", "content_filter") else "completed"
    output = items.output
    if status == "incomplete" and output and "status" in output[-1]:
        output[-1]["status"] = "incomplete"
    body = response_object(envelope, status, output, reply.usage, reason)
    if reply.service_tier is not None:
        body["service_tier"] = reply.service_tier
    return body


class _Items:
    """Collects parts into output items; adjoining text and refusals share a message."""

    def __init__(self, envelope: Envelope) -> None:
        self.output: list[dict[str, Any]] = []
        self._envelope = envelope
        self._calls = 0

    def add(self, part: Part) -> None:
        if isinstance(part, Text):
            if part.text or part.annotations:
                self._say(output_text(part.text, part.annotations, part.logprobs or ()))
        elif isinstance(part, Refusal):
            self._say({"type": "refusal", "refusal": part.text})
        elif isinstance(part, Audio):
            if part.transcript:
                self._say(output_text(part.transcript))
        elif isinstance(part, Reasoning):
            index = len(self.output)
            identity = self._envelope.item_id("rs", index)
            self.output.append(reasoning_item(identity, part.text, part.summary, part.encrypted))
        elif isinstance(part, ToolCall):
            identity = part.id or self._envelope.call_id(self._calls)
            self._calls += 1
            self.output.append(
                call_item(
                    self._envelope.item_id(_prefix(part.kind), len(self.output)),
                    identity,
                    part.name,
                    part.arguments,
                    part.kind,
                    "completed",
                )
            )
        elif isinstance(part, Opaque) and part.dialect == DIALECT:
            self.output.append(dict(part.value))

    def _say(self, content: dict[str, Any]) -> None:
        last = self.output[-1] if self.output else None
        if last is None or last["type"] != "message":
            identity = self._envelope.item_id("msg", len(self.output))
            last = message_item(identity, [], "completed")
            self.output.append(last)
        last["content"].append(content)


def _prefix(kind: ToolKind) -> str:
    return "ctc" if kind == "custom" else "fc"


def output_text(
    text: str, annotations: tuple[Json, ...] = (), logprobs: tuple[Json, ...] = ()
) -> dict[str, Any]:
    """Return an ``output_text`` part."""
    return {
        "type": "output_text",
        "text": text,
        "annotations": list(annotations),
        "logprobs": list(logprobs),
    }


def message_item(identity: str, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    """Return an assistant message item."""
    return {
        "id": identity,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def call_item(
    identity: str, call_id: str, name: str, arguments: str, kind: ToolKind, status: str
) -> dict[str, Any]:
    """Return a function call item, or a custom tool call item."""
    custom = kind == "custom"
    return {
        "id": identity,
        "type": "custom_tool_call" if custom else "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "input" if custom else "arguments": arguments,
    }


def reasoning_item(
    identity: str, text: str, summary: tuple[str, ...], encrypted: str | None
) -> dict[str, Any]:
    """Return a reasoning item. Opaque data goes to the client, which may replay it."""
    item: dict[str, Any] = {
        "id": identity,
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": paragraph} for paragraph in summary],
    }
    if text:
        item["content"] = [{"type": "reasoning_text", "text": text}]
    if encrypted is not None:
        item["encrypted_content"] = encrypted
    return item


# --- stream in -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Seen:
    """What has been told of one output item. ``told`` maps (member, index) to its text so far."""

    kind: str = ""
    call: int | None = None
    item: int = 0
    told: dict[tuple[str, int], str] = field(default_factory=dict)
    ended: set[tuple[str, int]] = field(default_factory=set)
    held: str = ""  # arguments that came before their item
    annotations: int = 0
    encrypted: bool = False
    done: bool = False


#: Delta event -> (member of the item, field naming the part, event of the whole, its text).
_TEXTS: Final[dict[str, tuple[str, str, str]]] = {
    "response.output_text": ("output_text", "content_index", "text"),
    "response.refusal": ("refusal", "content_index", "refusal"),
    "response.reasoning_text": ("reasoning_text", "content_index", "text"),
    "response.reasoning_summary_text": ("summary_text", "summary_index", "text"),
    "response.function_call_arguments": ("arguments", "", "arguments"),
    "response.custom_tool_call_input": ("arguments", "", "input"),
}


class StreamDecoder:
    """Typed Responses events in, canonical events out.

    Each ``done`` event, each finished item and the terminal response are compared with what the
    deltas told, and the missing rest is delivered: some servers stream only the ends.
    """

    __slots__ = ("_by_id", "_calls", "_final", "_items", "_reasonings", "_stopped")

    def __init__(self) -> None:
        self._items: dict[int, _Seen] = {}
        self._by_id: dict[str, int] = {}
        self._calls = 0
        self._reasonings = 0
        self._final: list[CanonicalEvent] | None = None
        self._stopped = False

    @property
    def complete(self) -> bool:
        """True once the terminal event was seen."""
        return self._final is not None

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> list[CanonicalEvent]:
        """Return the events of one frame. Nothing follows a ``StreamError``."""
        if self._stopped or self._final is not None:
            return []
        kind = payload.get("type")
        if not isinstance(kind, str):
            kind = event or ""
        events: list[CanonicalEvent] = []
        stem, _, ending = kind.rpartition(".")
        if kind == "error" or (payload.get("error") and not kind.startswith("response.")):
            self._stopped = True
            error = payload.get("error")
            events.append(stream_error(error if isinstance(error, Mapping) else payload))
        elif ending in ("delta", "done") and stem in _TEXTS:
            self._text(payload, stem, ending == "done", events)
        elif kind in ("response.output_item.added", "response.output_item.done"):
            item = payload.get("item")
            if isinstance(item, Mapping):
                place = self._place(payload, item)
                self._item(item, place, ending == "done", events)
        elif kind == "response.output_text.annotation.added":
            annotation = payload.get("annotation")
            if isinstance(annotation, Mapping):
                self._seen(payload).annotations += 1
                events.append(AnnotationDelta(annotation))
        elif kind == "response.content_part.done":
            self._part_done(payload, events)
        elif kind == "response.created":
            response = payload.get("response")
            response = response if isinstance(response, Mapping) else {}
            events.append(StreamStart(response.get("id"), response.get("model")))
        elif kind in _TERMINAL:
            response = payload.get("response")
            self._end(kind, response if isinstance(response, Mapping) else {}, events)
        return events

    def finish(self) -> list[CanonicalEvent]:
        """Return the closing events.

        Raises:
            StreamCut: no terminal event was seen.
        """
        if self._stopped:
            return []
        if self._final is None:
            raise StreamCut("the stream ended without a terminal event")
        return self._final

    def _place(self, payload: Json, item: Json | None = None) -> int:
        """Return the output index a frame speaks of; servers may omit it or change item ids."""
        index = payload.get("output_index")
        identity = payload.get("item_id") if item is None else item.get("id")
        if isinstance(index, int) and index >= 0:
            if isinstance(identity, str):
                self._by_id.setdefault(identity, index)
            return index
        if isinstance(identity, str):
            return self._by_id.setdefault(identity, len(self._items))
        return max(self._items, default=0)

    def _seen(self, payload: Json) -> _Seen:
        return self._items.setdefault(self._place(payload), _Seen())

    def _text(self, payload: Json, stem: str, done: bool, events: list[CanonicalEvent]) -> None:
        member, part_field, whole = _TEXTS[stem]
        index = payload.get(part_field, 0) if part_field else 0
        index = index if isinstance(index, int) else 0
        seen = self._seen(payload)
        value = payload.get(whole if done else "delta")
        if not isinstance(value, str):
            return
        if member == "arguments" and seen.call is None:
            # Arguments before their item: the name may come with the done event or the item.
            name = payload.get("name")
            if not (done and isinstance(name, str)):
                if not done:
                    seen.held += value
                return
            kind = "custom_tool_call" if stem.endswith("input") else "function_call"
            identity = payload.get("call_id")
            self._start_call({"type": kind, "name": name, "call_id": identity}, seen, events)
        logprobs = reading.logprobs(payload.get("logprobs")) or ()
        if done:
            self._complete(seen, member, index, value, logprobs, events)
        elif value:
            self._tell(seen, member, index, value, logprobs, events)

    def _tell(
        self,
        seen: _Seen,
        member: str,
        index: int,
        value: str,
        logprobs: tuple[Json, ...],
        events: list[CanonicalEvent],
    ) -> None:
        key = (member, index)
        seen.told[key] = seen.told.get(key, "") + value
        if member == "output_text":
            events.append(TextDelta(value, 0, logprobs))
        elif member == "refusal":
            events.append(RefusalDelta(value))
        elif member == "arguments":
            if seen.call is not None:
                events.append(ToolCallDelta(seen.call, value))
        else:
            if not seen.kind:
                self._start_reasoning(seen)
            kind: Literal["text", "summary"] = "summary" if member == "summary_text" else "text"
            part = index if kind == "summary" else 0
            events.append(ReasoningDelta(value, 0, kind, seen.item, part))

    def _complete(
        self,
        seen: _Seen,
        member: str,
        index: int,
        value: str,
        logprobs: tuple[Json, ...],
        events: list[CanonicalEvent],
    ) -> None:
        """Deliver what the deltas left out of a member that is now whole."""
        told = seen.told.get((member, index), "")
        if len(value) > len(told) and value.startswith(told):
            self._tell(seen, member, index, value[len(told) :], () if told else logprobs, events)

    def _part_done(self, payload: Json, events: list[CanonicalEvent]) -> None:
        part, index = payload.get("part"), payload.get("content_index", 0)
        if isinstance(part, Mapping) and isinstance(index, int):
            self._content(part, index, self._seen(payload), events)

    def _content(self, part: Json, index: int, seen: _Seen, events: list[CanonicalEvent]) -> None:
        kind = str(part.get("type"))
        member = "output_text" if kind == "text" else kind
        if member not in ("output_text", "refusal", "reasoning_text"):
            return
        value = part.get("refusal" if kind == "refusal" else "text")
        if isinstance(value, str):
            logprobs = reading.logprobs(part.get("logprobs")) or ()
            self._complete(seen, member, index, value, logprobs, events)
        if member == "reasoning_text":
            return
        annotations = part.get("annotations")
        if isinstance(annotations, list) and (member, index) not in seen.ended:
            for annotation in annotations[seen.annotations :]:
                if isinstance(annotation, Mapping):
                    events.append(AnnotationDelta(annotation))
        if (member, index) not in seen.ended:
            seen.ended.add((member, index))
            seen.annotations = 0
            events.append(PartEnd())

    def _item(self, item: Json, place: int, done: bool, events: list[CanonicalEvent]) -> None:
        seen = self._items.setdefault(place, _Seen())
        if seen.done:
            return
        seen.done = done
        kind = str(item.get("type"))
        if kind in _CALLS:
            if seen.call is None:
                self._start_call(item, seen, events)
            value = reading.arguments_text(item.get(_CALLS[kind][1]))
            if done or value:
                self._complete(seen, "arguments", 0, value, (), events)
            if done and item.get("status") != "incomplete" and seen.call is not None:
                events.append(ToolCallEnd(seen.call))
        elif kind == "reasoning":
            if not seen.kind:
                self._start_reasoning(seen)
            if done:
                self._thought(item, seen, events)
        elif kind == "message":
            seen.kind = kind
            content = item.get("content")
            if done and isinstance(content, list):
                for index, part in enumerate(content):
                    if isinstance(part, Mapping):
                        self._content(part, index, seen, events)

    def _thought(self, item: Json, seen: _Seen, events: list[CanonicalEvent]) -> None:
        for index, text in enumerate(_texts(item.get("summary"))):
            self._complete(seen, "summary_text", index, text, (), events)
        for index, text in enumerate(_texts(item.get("content"))):
            self._complete(seen, "reasoning_text", index, text, (), events)
        encrypted = item.get("encrypted_content")
        if isinstance(encrypted, str) and not seen.encrypted:
            seen.encrypted = True
            events.append(ReasoningDelta("", 0, "summary", seen.item, encrypted=encrypted))

    def _start_reasoning(self, seen: _Seen) -> None:
        seen.kind = "reasoning"
        seen.item = self._reasonings
        self._reasonings += 1

    def _start_call(self, item: Json, seen: _Seen, events: list[CanonicalEvent]) -> None:
        seen.kind = str(item.get("type"))
        seen.call = self._calls
        self._calls += 1
        identity, name = item.get("call_id"), item.get("name")
        events.append(
            ToolCallStart(
                seen.call,
                identity if isinstance(identity, str) else "",
                name if isinstance(name, str) else "",
                "custom" if seen.kind == "custom_tool_call" else "function",
            )
        )
        if seen.held:
            self._tell(seen, "arguments", 0, seen.held, (), events)

    def _end(self, kind: str, response: Json, events: list[CanonicalEvent]) -> None:
        if kind == "response.failed":
            self._stopped = True
            events.append(stream_error(response.get("error") or {}))
            return
        output = response.get("output")
        for position, item in enumerate(output if isinstance(output, list) else []):
            if isinstance(item, Mapping):
                identity = item.get("id")
                known = self._by_id.get(identity) if isinstance(identity, str) else None
                self._item(item, position if known is None else known, True, events)
        status = {"status": "incomplete"} if kind == "response.incomplete" else {}
        reason = _reason({**response, **status}, self._calls > 0)
        self._final = [Finish(reason)]
        usage = read_usage(response.get("usage"))
        if usage is not None:
            self._final.append(UsageEvent(usage))


# --- stream out ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    """An output item being written."""

    index: int
    item: dict[str, Any]
    kind: ToolKind = "function"
    number: int = 0  # of the reasoning block
    part: dict[str, Any] | None = None
    pieces: list[str] = field(default_factory=list)
    summary_part: int = -1


class StreamEncoder:
    """Canonical events in, typed Responses frames out.

    Sequence numbers start at 0 and step by 1; the response id, item ids and output indexes never
    change; every item that begins also ends, in the terminal response as in the stream.
    """

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._sequence = 0
        self._frames: list[bytes] = []
        self._begun = False
        self._output: list[dict[str, Any]] = []
        self._message: _Open | None = None
        self._reasoning: _Open | None = None
        self._calls: dict[int, _Open] = {}
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None

    def encode(self, event: CanonicalEvent) -> bytes:
        """Return the frames of one event, possibly none. Other choices than 0 are left out."""
        if isinstance(event, UsageEvent):
            self._usage = event.usage
            return b""
        if isinstance(event, StreamStart | StreamError) or event.choice != 0:
            return b""
        if isinstance(event, Finish):
            self._reason = event.reason
            return b""
        if isinstance(event, PartEnd):
            if self._message is not None:
                self._end_part(self._message)
            return self._flush()
        self._begin()
        if isinstance(event, TextDelta):
            self._say("output_text", event.text, event.logprobs)
        elif isinstance(event, RefusalDelta):
            self._say("refusal", event.text, ())
        elif isinstance(event, ReasoningDelta):
            self._think(event)
        elif isinstance(event, ToolCallStart):
            self._start_call(event)
        elif isinstance(event, ToolCallDelta):
            self._argue(event)
        elif isinstance(event, ToolCallEnd):
            call = self._calls.pop(event.index, None)
            if call is not None:
                self._end_call(call, "completed")
        elif isinstance(event, AnnotationDelta):
            self._annotate(event.annotation)
        elif isinstance(event, AudioDelta) and event.transcript:
            self._say("output_text", event.transcript, ())
        return self._flush()

    def finish(self, extra: Mapping[str, Any] | None = None) -> bytes:
        """Close what is open, then the terminal event with the whole response, then ``[DONE]``.

        ``extra`` is merged into the terminal frame, which is the last JSON frame.

        Raises:
            StreamCut: no ``Finish`` was encoded; an ending is never made up.
        """
        reason = self._reason
        if reason is None:
            raise StreamCut()
        self._begin()
        status = "incomplete" if reason in ("length", "content_filter") else "completed"
        self._close(status)
        response = response_object(self._envelope, status, self._output, self._usage, reason)
        self._emit(
            f"response.{status}",
            {"response": self._told(response, reason), **(extra or {})},
            finish=reason,
        )
        return self._flush() + DONE_FRAME

    def fail(self, error: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> bytes:
        """Return a nested ``error`` event, ``response.failed`` and ``[DONE]``."""
        inner = error.get("error")
        inner = inner if isinstance(inner, Mapping) else error
        self._begin()
        self._emit("error", {"error": dict(inner)})
        code = inner.get("code")
        told = {
            "code": code if code in _ERROR_CODES else "server_error",
            "message": str(inner.get("message") or "the answer broke off"),
        }
        for item in self._open():
            self._settle(item, "incomplete")
        response = response_object(self._envelope, "failed", self._output, self._usage, error=told)
        self._emit("response.failed", {"response": self._told(response, None), **(extra or {})})
        return self._flush() + DONE_FRAME

    # What a union stream adds; see draft.py.

    def _told(self, response: dict[str, Any], reason: FinishReason | None) -> dict[str, Any]:
        return response

    def _mirror(
        self, payload: dict[str, Any], delta: dict[str, Any] | None, finish: FinishReason | None
    ) -> None:
        """Add members to a frame just before it is written."""

    # Frames.

    def _emit(
        self,
        kind: str,
        members: dict[str, Any],
        delta: dict[str, Any] | None = None,
        finish: FinishReason | None = None,
    ) -> None:
        payload = {"type": kind, "sequence_number": self._sequence, **members}
        self._mirror(payload, delta, finish)
        self._sequence += 1
        self._frames.append(
            b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(payload) + b"\n\n"
        )

    def _flush(self) -> bytes:
        frames = b"".join(self._frames)
        self._frames.clear()
        return frames

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        response = response_object(self._envelope, "in_progress", [])
        told = self._told(response, None)
        self._emit("response.created", {"response": told}, {"role": "assistant"})
        self._emit("response.in_progress", {"response": told})

    def _add(self, item: dict[str, Any], delta: dict[str, Any] | None = None) -> _Open:
        index = len(self._output)
        self._output.append(item)
        members = {"output_index": index, "item": item}
        self._emit("response.output_item.added", members, delta)
        return _Open(index, item)

    def _open(self) -> list[_Open]:
        held = [self._message, self._reasoning, *self._calls.values()]
        return sorted((item for item in held if item is not None), key=lambda item: item.index)

    def _close(self, status: str) -> None:
        """End every open item; the last one of a cut answer is the incomplete one."""
        for item in self._open():
            last = item.index == len(self._output) - 1
            state = status if last else "completed"
            if item is self._message:
                self._end_message(state)
            elif item is self._reasoning:
                self._end_reasoning()
            else:
                self._end_call(item, state)
        if status == "incomplete" and self._output and "status" in self._output[-1]:
            self._output[-1]["status"] = status
        self._calls.clear()

    def _settle(self, held: _Open, status: str) -> None:
        """Write what an open item holds so far into it, without events."""
        text = "".join(held.pieces)
        if held is self._message and held.part is not None:
            held.part["refusal" if held.part["type"] == "refusal" else "text"] = text
        elif held is self._reasoning:
            self._keep_thought(held, text)
        elif held is not self._message:
            held.item["input" if held.kind == "custom" else "arguments"] = text
        if "status" in held.item:
            held.item["status"] = status

    # Messages.

    def _say(self, kind: str, text: str, logprobs: tuple[Json, ...]) -> None:
        self._end_reasoning()
        held = self._message
        if held is not None and held.index != len(self._output) - 1:
            self._end_message("completed")
            held = None
        if held is None:
            identity = self._envelope.item_id("msg", len(self._output))
            held = self._message = self._add(message_item(identity, [], "in_progress"))
        if held.part is not None and held.part["type"] != kind:
            self._end_part(held)
        if held.part is None:
            refused = kind == "refusal"
            part: dict[str, Any] = (
                {"type": "refusal", "refusal": ""} if refused else output_text("")
            )
            self._emit("response.content_part.added", {**self._at(held, 1), "part": part})
            held.part = part
            held.item["content"].append(part)
        held.pieces.append(text)
        members = {**self._at(held), "delta": text}
        if kind == "refusal":
            self._emit("response.refusal.delta", members, {"refusal": text})
            return
        if logprobs:
            held.part["logprobs"] += logprobs
        members["logprobs"] = list(logprobs)
        self._emit("response.output_text.delta", members, {"content": text})

    def _at(self, held: _Open, ahead: int = 0) -> dict[str, Any]:
        """Return the members that name the current part of a message."""
        return {
            "item_id": held.item["id"],
            "output_index": held.index,
            "content_index": len(held.item["content"]) - 1 + ahead,
        }

    def _annotate(self, annotation: Json) -> None:
        held = self._message
        if held is None or held.part is None or held.part["type"] != "output_text":
            self._say("output_text", "", ())
            held = self._message
        if held is not None and held.part is not None:
            index = len(held.part["annotations"])
            held.part["annotations"].append(annotation)
            members = {**self._at(held), "annotation_index": index, "annotation": annotation}
            self._emit("response.output_text.annotation.added", members)

    def _end_part(self, held: _Open) -> None:
        part = held.part
        if part is None:
            return
        text = "".join(held.pieces)
        held.pieces.clear()
        held.part = None
        at = self._at(held)
        if part["type"] == "refusal":
            part["refusal"] = text
            self._emit("response.refusal.done", {**at, "refusal": text})
        else:
            part["text"] = text
            done = {**at, "text": text, "logprobs": part["logprobs"]}
            self._emit("response.output_text.done", done)
        self._emit("response.content_part.done", {**at, "part": part})

    def _end_message(self, status: str) -> None:
        held, self._message = self._message, None
        if held is None:
            return
        self._end_part(held)
        held.item["status"] = status
        self._done(held)

    def _done(self, held: _Open) -> None:
        members = {"output_index": held.index, "item": held.item}
        self._emit("response.output_item.done", members)

    # Reasoning.

    def _think(self, event: ReasoningDelta) -> None:
        held = self._reasoning
        if held is not None and held.number != event.item:
            self._end_reasoning()
            held = None
        if held is None:
            self._end_message("completed")
            identity = self._envelope.item_id("rs", len(self._output))
            held = self._reasoning = self._add(reasoning_item(identity, "", (), None))
            held.number = event.item
        if event.encrypted is not None:
            held.item["encrypted_content"] = event.encrypted
        if not event.text:
            return
        part = event.part if event.kind == "summary" else -2
        if held.part is None or held.summary_part != part:
            self._end_thought(held)
            held.summary_part = part
            self._begin_thought(held)
        held.pieces.append(event.text)
        kind = "reasoning_text" if part == -2 else "reasoning_summary_text"
        members = {**self._thought_at(held), "delta": event.text}
        self._emit(f"response.{kind}.delta", members, {"reasoning_content": event.text})

    def _thought_at(self, held: _Open) -> dict[str, Any]:
        at: dict[str, Any] = {"item_id": held.item["id"], "output_index": held.index}
        if held.summary_part == -2:
            at["content_index"] = 0
        else:
            at["summary_index"] = len(held.item["summary"])
        return at

    def _begin_thought(self, held: _Open) -> None:
        text = held.summary_part == -2
        held.part = {"type": "reasoning_text" if text else "summary_text", "text": ""}
        kind = "content_part" if text else "reasoning_summary_part"
        self._emit(f"response.{kind}.added", {**self._thought_at(held), "part": held.part})

    def _end_thought(self, held: _Open) -> None:
        part = held.part
        if part is None:
            return
        text = "".join(held.pieces)
        at = self._thought_at(held)
        proper = part["type"] == "reasoning_text"
        kind = "reasoning_text" if proper else "reasoning_summary_text"
        self._emit(f"response.{kind}.done", {**at, "text": text})
        whole = {**part, "text": text}
        kind = "content_part" if proper else "reasoning_summary_part"
        self._emit(f"response.{kind}.done", {**at, "part": whole})
        self._keep_thought(held, text)

    def _keep_thought(self, held: _Open, text: str) -> None:
        """Move the text of the current part into the item."""
        if held.part is None:
            return
        whole = {**held.part, "text": text}
        if whole["type"] == "summary_text":
            held.item["summary"].append(whole)
        elif held.item.get("content"):
            held.item["content"][0]["text"] = held.item["content"][0]["text"] + text
        else:
            held.item["content"] = [whole]
        held.pieces.clear()
        held.part = None

    def _end_reasoning(self) -> None:
        held, self._reasoning = self._reasoning, None
        if held is None:
            return
        self._end_thought(held)
        self._done(held)

    # Calls. Several may be open at once: parallel calls can be interleaved.

    def _start_call(self, event: ToolCallStart) -> None:
        self._end_reasoning()
        self._end_message("completed")
        identity = self._envelope.item_id(_prefix(event.kind), len(self._output))
        call_id = event.id or self._envelope.call_id(event.index)
        item = call_item(identity, call_id, event.name, "", event.kind, "in_progress")
        inner = {"name": event.name, "arguments": ""}
        if event.kind == "custom":
            inner = {"name": event.name, "input": ""}
        kind = "custom" if event.kind == "custom" else "function"
        call = {"index": event.index, "id": call_id, "type": kind, kind: inner}
        held = self._add(item, {"tool_calls": [call]})
        held.kind = event.kind
        self._calls[event.index] = held

    def _argue(self, event: ToolCallDelta) -> None:
        held = self._calls.get(event.index)
        if held is None or not event.arguments:
            return
        held.pieces.append(event.arguments)
        custom = held.kind == "custom"
        stem = "custom_tool_call_input" if custom else "function_call_arguments"
        inner = {"input" if custom else "arguments": event.arguments}
        call = {"index": event.index, "custom" if custom else "function": inner}
        members = {
            "item_id": held.item["id"],
            "output_index": held.index,
            "delta": event.arguments,
        }
        self._emit(f"response.{stem}.delta", members, {"tool_calls": [call]})

    def _end_call(self, held: _Open, status: str) -> None:
        text = "".join(held.pieces)
        held.item["status"] = status
        at = {"item_id": held.item["id"], "output_index": held.index}
        if held.kind == "custom":
            held.item["input"] = text
            self._emit("response.custom_tool_call_input.done", {**at, "input": text})
        else:
            held.item["arguments"] = text
            done = {**at, "name": held.item["name"], "arguments": text}
            self._emit("response.function_call_arguments.done", done)
        self._done(held)
