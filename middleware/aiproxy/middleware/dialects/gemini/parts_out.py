"""Parts written for Gemini; what it cannot be told is noted or refused."""

from collections.abc import Mapping
from typing import Any

import orjson

from aiproxy.middleware.dialects.canonical import (
    Audio,
    File,
    Image,
    Json,
    Loss,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Untranslatable,
)
from aiproxy.middleware.dialects.gemini import media
from aiproxy.middleware.dialects.gemini.vocabulary import DIALECT, MADE_ID
from aiproxy.middleware.dialects.losses import note, strangers
from aiproxy.middleware.dialects.seals import loss


def encode_part(part: Part, source: str, losses: list[Loss]) -> dict[str, Any] | None:
    """Return a part of a request from ``source``, or ``None`` when nothing is left of it.

    Raises:
        Untranslatable: an image, a file or a call that has no form here.
    """
    own = source == DIALECT
    if isinstance(part, Text):
        if not part.text and not own and not part.signature:
            return None
        if part.annotations:
            note(losses, [Loss("annotations", "citations of earlier answers do not travel")])
        made: dict[str, Any] = {"text": part.text, **_extra(part.extra, own, losses)}
        return _signed(made, part, source, losses)
    if isinstance(part, Reasoning):
        return _thought(part, source, losses)
    if isinstance(part, ToolCall):
        return _signed(_call(part, own, losses), part, source, losses)
    if isinstance(part, Image):
        return _image(part, own, losses)
    if isinstance(part, File):
        return _file(part, own, losses)
    if isinstance(part, Audio):
        return _audio(part, own, losses)
    if isinstance(part, Refusal):
        note(losses, [Loss("refusal", "an earlier refusal is told as ordinary text")])
        return {"text": part.text} if part.text else None
    if isinstance(part, Opaque):
        if part.dialect == DIALECT:
            return dict(part.value)
        if part.kind in ("item_reference", "compaction", "compaction_summary"):
            raise Untranslatable(part.kind, "the referenced content is kept by another API")
        note(losses, [Loss("content_part", f"gemini has no {part.kind[:64]} parts")])
    return None


def _extra(extra: Json, own: bool, losses: list[Loss]) -> dict[str, Any]:
    """Return members that only this dialect knows; those of others are lost."""
    if not extra:
        return {}
    if own:
        return dict(extra)
    strangers(losses, extra, "part_members", DIALECT)
    return {}


def _signed(
    made: dict[str, Any], part: Text | ToolCall | Reasoning, source: str, losses: list[Loss]
) -> dict[str, Any]:
    """Add the signature of a part where it is Gemini's own; note that of another."""
    if part.signature is not None:
        origin = part.origin or source
        if origin == DIALECT:
            made["thoughtSignature"] = part.signature
        else:
            note(losses, [loss(origin, DIALECT)])
    return made


def _thought(part: Reasoning, source: str, losses: list[Loss]) -> dict[str, Any] | None:
    origin = part.origin or source
    if origin != DIALECT:
        if part.signature is not None or part.encrypted is not None:
            note(losses, [loss(origin, DIALECT)])
        elif part.text or part.summary:
            note(losses, [Loss("reasoning", "earlier reasoning does not travel to gemini")])
        return None
    if source != DIALECT and part.signature is None:
        # Without its signature a thought says nothing to the model.
        note(losses, [Loss("reasoning", "earlier reasoning does not travel to gemini")])
        return None
    text = part.text or "\n\n".join(part.summary)
    made = {"text": text, "thought": True, **_extra(part.extra, source == DIALECT, losses)}
    return _signed(made, part, source, losses)


def _call(part: ToolCall, own: bool, losses: list[Loss]) -> dict[str, Any]:
    extra = _extra(part.extra, own, losses)
    more = extra.pop("functionCall", {})
    call: dict[str, Any] = {"name": part.name, "args": arguments(part)}
    if part.id and not part.id.startswith(MADE_ID):
        call = {"id": part.id, **call}
    return {"functionCall": {**call, **more}, **extra}


def arguments(part: ToolCall) -> dict[str, Any]:
    """Return the arguments of a call as the object Gemini wants.

    Raises:
        Untranslatable: they are no JSON object.
    """
    if part.kind == "custom":
        return {"input": part.arguments}
    if not part.arguments.strip():
        return {}
    try:
        value = orjson.loads(part.arguments)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise Untranslatable("tool_call", "the arguments of an earlier call are no JSON object")
    return value


def _inline(data: str, kind: str, name: str | None = None) -> dict[str, Any]:
    inner = {"mimeType": kind, "data": data}
    if name is not None:
        inner["displayName"] = name
    return {"inlineData": inner}


def _kept(uri: str, kind: str | None, name: str | None = None) -> dict[str, Any]:
    inner = {"fileUri": uri}
    if kind is not None:
        inner["mimeType"] = kind
    if name is not None:
        inner["displayName"] = name
    return {"fileData": inner}


def _image(part: Image, own: bool, losses: list[Loss]) -> dict[str, Any]:
    extra = _extra(part.extra, own, losses)
    name = extra.pop("displayName", None)
    if part.detail not in (None, "auto"):
        note(losses, [Loss("image.detail", "gemini is not told how closely to look")])
    if part.data is not None:
        return {**_inline(part.data, part.media_type or "image/png", name), **extra}
    uri = part.url if part.url is not None else part.file_id
    if uri is None:
        raise Untranslatable("image", "the image has neither data nor a URL")
    data = media.split_data_url(uri)
    if data is not None:
        return {**_inline(data[1], data[0] or "image/png", name), **extra}
    if own or media.at_google(uri):
        return {**_kept(uri, part.media_type or media.by_name(uri), name), **extra}
    if part.url is None:
        raise Untranslatable("image", "gemini cannot refer to an image kept by another API")
    raise Untranslatable("image", "gemini takes image data, not the URL of an image")


def _file(part: File, own: bool, losses: list[Loss]) -> dict[str, Any]:
    extra = _extra(part.extra, own, losses)
    kind = part.media_type or media.by_name(part.name)
    name = part.name if own else None
    if part.data is not None:
        split = media.split_data_url(part.data)
        data = part.data if split is None else split[1]
        kind = part.media_type or (split[0] if split is not None else None) or kind
        return {**_inline(data, kind or "application/pdf", name), **extra}
    uri = part.url if part.url is not None else part.file_id
    if uri is None:
        raise Untranslatable("file", "the file has neither data nor a URL")
    if own or media.at_google(uri):
        return {**_kept(uri, kind or media.by_name(uri), name), **extra}
    if part.url is None:
        raise Untranslatable("file", "gemini cannot refer to a file kept by another API")
    raise Untranslatable("file", "gemini takes the data of a file, not its URL")


def _audio(part: Audio, own: bool, losses: list[Loss]) -> dict[str, Any] | None:
    extra = _extra(part.extra, own, losses)
    kind = extra.pop("mimeType", None) or media.audio_type(part.format)
    if part.data:
        return {**_inline(part.data, kind), **extra}
    note(losses, [Loss("audio", "earlier spoken answers travel as their transcript")])
    return {"text": part.transcript} if part.transcript else None


def response_value(text: str, failed: bool) -> Mapping[str, Any]:
    """Return what a tool said as an object: itself where it is one, else wrapped."""
    if failed:
        return {"error": text}
    if text.lstrip().startswith("{"):
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = None
        if isinstance(value, dict):
            return value
    return {"result": text}
