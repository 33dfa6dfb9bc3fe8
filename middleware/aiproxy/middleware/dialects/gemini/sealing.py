"""Opaque data of other dialects in ``thoughtSignature``, which is a member of bytes: the base64 of
a seal (``..seals``). Google's own signatures stay as they are."""

from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import replace

from aiproxy.middleware.dialects.canonical import Part, Reasoning, Text, ToolCall
from aiproxy.middleware.dialects.gemini.vocabulary import DIALECT
from aiproxy.middleware.dialects.seals import (
    PREFIX_BASE64,
    Seal,
    seal_call,
    seal_text,
    seal_thought,
    unseal,
)

_PLAIN = str.maketrans("-_", "+/")


def signature_of(
    part: Text | Reasoning | ToolCall, origin: str, text: str = "", identity: str = ""
) -> str | None:
    """Return the ``thoughtSignature`` of a part of an answer whose opaque data is of ``origin``,
    ``None`` when it has none. ``text`` is that of the thought, ``identity`` the id the client is
    told of the call."""
    encrypted = part.encrypted if isinstance(part, Reasoning) else None
    if part.signature is None and encrypted is None:
        return None
    if origin == DIALECT:
        return part.signature
    if isinstance(part, Reasoning):
        seal = seal_thought(origin, text, part.signature, encrypted)
    elif isinstance(part, ToolCall):
        seal = seal_call(origin, identity, part.signature or "")
    else:
        seal = seal_text(origin, part.signature or "")
    return packed(seal)


def packed(seal: str) -> str:
    """Return a seal as bytes are written in JSON."""
    return b64encode(seal.encode("utf-8", "surrogatepass")).decode()


def opened(parts: Iterable[Part]) -> list[Part]:
    """Return the parts of an earlier answer with what their seals hold.

    A sealed thought takes in the unsigned ones before it: streams tell a thought in pieces and
    its seal at the end.
    """
    made: list[Part] = []
    for part in parts:
        if not isinstance(part, Text | Reasoning | ToolCall) or part.signature is None:
            made.append(part)
            continue
        if not part.signature.startswith(PREFIX_BASE64):
            made.append(part)
            continue
        seal = _unpacked(part.signature) or Seal("unknown")
        if isinstance(part, Reasoning):
            text = part.text
            while made and isinstance(made[-1], Reasoning) and made[-1].signature is None:
                before = made.pop()
                assert isinstance(before, Reasoning)
                if before.origin is not None:
                    made.append(before)
                    break
                text = before.text + text
            made.append(_thought(part, text, seal))
        elif isinstance(part, ToolCall):
            own = seal.signature if seal.call == part.id else None
            made.append(replace(part, signature=own, origin=seal.origin))
        elif seal.said:
            made.append(replace(part, signature=seal.signature, origin=seal.origin))
        else:
            made.append(replace(part, signature=None))
    return made


def _thought(part: Reasoning, text: str, seal: Seal) -> Reasoning:
    fits = seal.fits(text) and not seal.said and seal.call is None
    # The reasoning of the Responses API is a summary.
    summary = (text,) if seal.origin == "responses" and text else ()
    return replace(
        part,
        text="" if summary else text,
        summary=summary,
        signature=seal.signature if fits else None,
        encrypted=seal.encrypted if fits else None,
        origin=seal.origin,
    )


def _unpacked(value: str) -> Seal | None:
    plain = value.translate(_PLAIN).rstrip("=")
    try:
        seal = b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        return unseal(seal.decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
