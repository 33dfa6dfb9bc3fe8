"""The item objects of ``output``, made the same way for whole answers and for streams."""

from collections.abc import Iterable, Mapping
from typing import Any

from aiproxy.middleware.dialects.canonical import Json, ToolKind


def id_prefix(kind: ToolKind) -> str:
    """Return what the ids of call items of a kind begin with."""
    return "ctc" if kind == "custom" else "fc"


def output_text(
    text: str, annotations: tuple[Json, ...] = (), logprobs: tuple[Json, ...] = ()
) -> dict[str, Any]:
    """Return an ``output_text`` part."""
    return {
        "type": "output_text",
        "text": text,
        "annotations": list(annotations),
        "logprobs": token_list(logprobs),
    }


def token_list(logprobs: Iterable[Json]) -> list[dict[str, Any]]:
    """Return tokens with all the members they have to have here: others may leave out bytes."""
    return [
        {**_with_bytes(token), "top_logprobs": [_with_bytes(t) for t in _objects(token)]}
        for token in logprobs
    ]


def _objects(token: Json) -> list[Json]:
    found = token.get("top_logprobs")
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _with_bytes(token: Json) -> dict[str, Any]:
    if token.get("bytes") is not None or not isinstance(token.get("token"), str):
        return dict(token)
    return {**token, "bytes": list(token["token"].encode(errors="replace"))}


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
