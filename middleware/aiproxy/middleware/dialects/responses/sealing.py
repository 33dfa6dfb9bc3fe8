"""Opaque data of other dialects in Responses items.

A ``reasoning`` item made of another dialect's thoughts always has a seal (see ``seals``) as its
``encrypted_content``: it says whose thoughts they are even where nothing is encrypted. The
signature of a call travels in an empty reasoning item before the call, whose seal names the call's
id; the signature of a text in one right after the message.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import Json, Part, Reasoning, Text, ToolCall
from aiproxy.middleware.dialects.responses.items import reasoning_item
from aiproxy.middleware.dialects.responses.vocabulary import DIALECT
from aiproxy.middleware.dialects.seals import Seal, seal_thought, unseal

#: Origins whose opaque data is this dialect's own.
OWN: Final = frozenset({DIALECT, "draft"})


def marker(item: Json) -> Seal | None:
    """Return the seal of a reasoning item that only carries the signature of something else."""
    seal = unseal(item.get("encrypted_content"))
    return seal if seal is not None and (seal.said or seal.call is not None) else None


def marker_item(identity: str, seal: str) -> dict[str, Any]:
    """Return the reasoning item that carries the signature of something else."""
    return reasoning_item(identity, "", (), seal)


def decode_reasoning(item: Json) -> Reasoning:
    """Return the reasoning of an item; absent members read as empty. A signature is dropped when
    the text it was given for is not there any more."""
    text = "".join(part_texts(item.get("content")))
    summary = tuple(part_texts(item.get("summary")))
    encrypted = reading.optional(item.get("encrypted_content"))
    extra = reading.rest(item, ("type", "id", "summary", "content", "encrypted_content"))
    seal = unseal(encrypted)
    if seal is None:
        identity = reading.optional(item.get("id"))
        return Reasoning(text, summary, encrypted=encrypted, id=identity, extra=extra)
    signature = seal.signature if seal.fits(text) else None
    return Reasoning(text, summary, signature, seal.encrypted, None, extra, seal.origin)


def sealed_content(part: Reasoning, origin: str | None) -> str | None:
    """Return the ``encrypted_content`` of a thought of ``origin``, ``None`` for unknown ones."""
    if origin in OWN:
        return part.encrypted
    if origin is None:
        return None
    return seal_thought(origin, part.text, part.signature, part.encrypted)


def sign_call(call: ToolCall, seals: Mapping[str, Seal]) -> ToolCall:
    """Return a call with the signature that came before it."""
    seal = seals.get(call.id)
    if seal is None:
        return call
    return replace(call, signature=seal.signature, origin=seal.origin)


def sign_text(parts: tuple[Part, ...], seal: Seal) -> tuple[Part, ...]:
    """Return parts with the signature on the last text, on an empty one if there is none."""
    last = parts[-1] if parts else None
    if isinstance(last, Text):
        return (*parts[:-1], replace(last, signature=seal.signature, origin=seal.origin))
    return (*parts, Text("", signature=seal.signature, origin=seal.origin))


def part_texts(parts: object) -> list[str]:
    """Return the texts of a list of parts; anything else has none."""
    if not isinstance(parts, list | tuple):
        return []
    found = (p.get("text") for p in parts if isinstance(p, Mapping))
    return [text for text in found if isinstance(text, str)]
