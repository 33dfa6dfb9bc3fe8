"""Contents and their parts read as turns; answers reuse the reading of parts."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    Audio,
    File,
    Image,
    Json,
    MalformedRequest,
    Opaque,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from aiproxy.middleware.dialects.gemini import media
from aiproxy.middleware.dialects.gemini.vocabulary import DIALECT, FOREIGN_SIGNATURE, camel
from aiproxy.middleware.dialects.reading import words

#: What a part without text holds; exactly one of them.
_DATA: Final = (
    "functionCall",
    "functionResponse",
    "inlineData",
    "fileData",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
)
_READ: Final = words(
    "text functionCall functionResponse inlineData fileData thought thoughtSignature"
)
_CALL: Final = words("id name args")
_RESULT: Final = words("id name response parts")


def decode_part(given: object) -> Part:
    """Return a part; one that only Gemini understands is carried untouched.

    Raises:
        MalformedRequest: a member has another type than it must, or there is no data. ``param`` is
            the path within the part.
    """
    part = camel(reading.mapping(given, ""))
    signature = part.get("thoughtSignature")
    if signature is not None and (type(signature) is not str or signature == FOREIGN_SIGNATURE):
        signature = None
    extra = {} if len(part) == 1 or part.keys() <= _READ else reading.rest(part, _READ)
    if "text" in part:
        text = reading.text(part["text"], "text")
        if part.get("thought") is True:
            return Reasoning(text, signature=signature, extra=extra)
        return Text(text, extra=extra, signature=signature)
    for kind in _DATA:
        value = part.get(kind)
        if value is not None:
            break
    else:
        if signature is not None:
            return Text("", signature=signature)
        for kind, value in part.items():
            if kind not in _READ and isinstance(value, Mapping):
                return Opaque(DIALECT, kind, part)  # of a kind that is newer than this
        raise MalformedRequest("", "an object without data", "text or one of " + ", ".join(_DATA))
    inner = camel(reading.mapping(value, kind))
    if kind == "functionCall":
        return _call(inner, signature, extra)
    if kind == "functionResponse":
        return _result(inner, extra)
    if kind == "inlineData":
        if signature is not None:
            extra["thoughtSignature"] = signature
        return _inline(inner, extra)
    if kind == "fileData":
        return _file(inner, extra)
    return Opaque(DIALECT, kind, part)


def within(path: str, fault: MalformedRequest) -> MalformedRequest:
    """Return a fault as it is told by who knows where the faulty object stands."""
    param = f"{path}.{fault.param}" if fault.param else path
    return MalformedRequest(param, fault.found, fault.expected)


def _call(call: Json, signature: str | None, extra: dict[str, Any]) -> ToolCall:
    arguments = call.get("args")
    if arguments is not None:
        reading.mapping(arguments, "functionCall.args")
    if not call.keys() <= _CALL:
        extra["functionCall"] = reading.rest(call, _CALL)
    return ToolCall(
        reading.optional(call.get("id")) or "",
        reading.text(call.get("name"), "functionCall.name"),
        _written(arguments or {}, "functionCall.args"),
        extra=extra,
        signature=signature,
    )


def _result(result: Json, extra: dict[str, Any]) -> ToolResult:
    response = result.get("response")
    response = {} if response is None else reading.mapping(response, "functionResponse.response")
    text, failed = _told(response)
    parts: list[Part] = [Text(text)]
    for i, item in enumerate(reading.objects(result.get("parts"))):
        try:
            parts.append(decode_part(item))
        except MalformedRequest as fault:
            raise within(f"functionResponse.parts[{i}]", fault) from None
    if not result.keys() <= _RESULT:
        extra["functionResponse"] = reading.rest(result, _RESULT)
    return ToolResult(
        reading.optional(result.get("id")) or "",
        tuple(parts),
        plain=len(parts) == 1,
        is_error=failed,
        name=reading.text(result.get("name"), "functionResponse.name"),
        extra=extra,
    )


def _told(response: Json) -> tuple[str, bool]:
    """Return what a response says as text, and whether it reports a failure.

    A lone ``result`` or ``error`` text is taken out of its object, unless it could then be
    taken for an object itself.
    """
    if len(response) == 1:
        name, value = next(iter(response.items()))
        wrapped = name in ("result", "error") and isinstance(value, str)
        if wrapped and not value.lstrip().startswith("{"):
            return value, name == "error"
    return _written(response, "functionResponse.response"), False


def _written(value: Json, path: str) -> str:
    """Return an object as JSON text; it may be read at greater depths than it can be written."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        raise MalformedRequest(path, "an object nested too deeply", "a flatter one") from None


def _inline(inner: Json, extra: dict[str, Any]) -> Part:
    data = media.plain_base64(reading.text(inner.get("data"), "inlineData.data"))
    kind = reading.text(inner.get("mimeType"), "inlineData.mimeType")
    name = reading.optional(inner.get("displayName"))
    if kind.startswith("image/"):
        if name is not None:
            extra["displayName"] = name
        return Image(data=data, media_type=kind, extra=extra)
    if kind.startswith("audio/"):
        word = media.audio_format(kind)
        if media.audio_type(word) != kind:
            extra["mimeType"] = kind
        return Audio(data=data, format=word, extra=extra)
    return File(data=data, media_type=kind, name=name, extra=extra)


def _file(inner: Json, extra: dict[str, Any]) -> Part:
    """A file that Google keeps is an id to everybody else; any other has a URL."""
    uri = reading.text(inner.get("fileUri"), "fileData.fileUri")
    kind = reading.optional(inner.get("mimeType"))
    name = reading.optional(inner.get("displayName"))
    kept = media.at_google(uri)
    where: dict[str, str] = {"file_id": uri} if kept else {"url": uri}
    if kind is not None and kind.startswith("image/"):
        if name is not None:
            extra["displayName"] = name
        return Image(media_type=kind, extra=extra, **where)
    return File(media_type=kind, name=name, extra=extra, **where)


def parts_of(content: Json) -> list[Part]:
    """Return the parts of a content.

    Raises:
        MalformedRequest: see ``decode_part``; ``param`` is the path within the content.
    """
    given = content.get("parts")
    if given is None:
        return []
    if isinstance(given, Mapping):
        given = [given]
    made: list[Part] = []
    for i, part in enumerate(reading.array(given, "parts")):
        try:
            made.append(decode_part(part))
        except MalformedRequest as fault:
            raise within(f"parts[{i}]", fault) from None
    return made
