"""Seals: opaque continuity data on its way to a client of another dialect and back.

What a provider made opaque can only be read by that provider. A client of another dialect carries
it as a *seal*: ``aiproxy.<origin>.<kind>.<payload>``, where ``origin`` is the dialect it is of and
the payload is what the provider gave, untouched. Nothing sealed is ever sent to another dialect;
``continuity`` sees to that where a body stays in its dialect.

kind: ``s`` signature of reasoning, ``e`` encrypted reasoning, ``b`` both, ``c`` signature of a tool
call (the call's id follows, base64url), ``t`` signature of the text before it. ``s`` and ``b`` go
with a digest of the reasoning text: a signature is of no use beside another text. A seal that ends
after the origin says whose the reasoning is and no more.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from aiproxy.middleware.dialects.canonical import Json, Loss

PREFIX: Final = "aiproxy."
#: The prefix as clients of dialects whose opaque members are bytes see it: base64 of its start.
PREFIX_BASE64: Final = "YWlwcm94eS"
#: Formats of ``reasoning_details`` that are dialects of ours; other words are an upstream's own.
ORIGINS: Final = frozenset(
    {"anthropic", "cohere", "completions", "gemini", "mistral", "responses", "workers_ai"}
)
_NAMES: Final = ORIGINS | {"chat", "draft"}


@dataclass(frozen=True, slots=True)
class Seal:
    """What a seal holds. ``call`` is the id of the call that ``signature`` belongs to; ``said``:
    it belongs to text. ``digest`` is that of the reasoning text, empty when any will do."""

    origin: str
    signature: str | None = None
    encrypted: str | None = None
    call: str | None = None
    said: bool = False
    digest: str = ""

    def fits(self, text: str) -> bool:
        """Tell whether the signature may stand beside ``text``."""
        return not self.digest or self.digest == _digest(text)


def seal_thought(origin: str, text: str, signature: str | None, encrypted: str | None) -> str:
    """Return the seal of a reasoning block."""
    if signature is None:
        return f"{PREFIX}{origin}" if encrypted is None else f"{PREFIX}{origin}.e.{encrypted}"
    digest = _digest(text)
    if encrypted is None:
        return f"{PREFIX}{origin}.s{digest}.{signature}"
    return f"{PREFIX}{origin}.b{digest}-{len(signature)}.{signature}{encrypted}"


def seal_call(origin: str, call_id: str, signature: str) -> str:
    """Return the seal of a tool call's signature."""
    name = urlsafe_b64encode(call_id.encode("utf-8", "surrogatepass")).decode().rstrip("=")
    return f"{PREFIX}{origin}.c{name}.{signature}"


def seal_text(origin: str, signature: str) -> str:
    """Return the seal of a text's signature."""
    return f"{PREFIX}{origin}.t.{signature}"


def unseal(value: object) -> Seal | None:
    """Return what a seal holds, ``None`` when ``value`` is none. A broken one holds nothing."""
    if not isinstance(value, str) or not value.startswith(PREFIX):
        return None
    origin, _, rest = value[len(PREFIX) :].partition(".")
    if origin not in _NAMES:
        return Seal("unknown")
    head, _, payload = rest.partition(".")
    kind, note = head[:1], head[1:]
    if not payload:
        return Seal(origin)
    if kind == "s":
        return Seal(origin, payload, digest=note)
    if kind == "e":
        return Seal(origin, encrypted=payload)
    if kind == "t":
        return Seal(origin, payload, said=True)
    if kind == "c":
        return Seal(origin, payload, call=_call_id(note))
    digest, _, size = note.partition("-")
    if kind == "b" and size.isdecimal() and len(size) < 9:
        cut = int(size)
        return Seal(origin, payload[:cut], payload[cut:], digest=digest)
    return Seal(origin)


def loss(origin: str, dialect: str) -> Loss:
    """Return the loss of opaque data that stays behind."""
    return Loss("reasoning", f"opaque reasoning of {origin} does not travel to {dialect}")


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _call_id(note: str) -> str:
    try:
        return urlsafe_b64decode(note + "=" * (-len(note) % 4)).decode("utf-8", "surrogatepass")
    except ValueError:
        return ""


def google_signature(holder: Json) -> object:
    """Return the thought signature in the way Google's chat API has it, ``None`` without one."""
    extra = holder.get("extra_content")
    google = extra.get("google") if isinstance(extra, Mapping) else None
    return google.get("thought_signature") if isinstance(google, Mapping) else None


def with_google(signature: str) -> dict[str, Any]:
    """Return the members that carry a thought signature in the way of Google's chat API."""
    return {"extra_content": {"google": {"thought_signature": signature}}}


def without_google(holder: Json) -> dict[str, Any]:
    """Return a copy without its thought signature; members that are empty then go too."""
    kept = dict(holder)
    extra = kept.pop("extra_content")
    google = {k: v for k, v in extra["google"].items() if k != "thought_signature"}
    rest = {k: v for k, v in extra.items() if k != "google"}
    if google:
        rest["google"] = google
    if rest:
        kept["extra_content"] = rest
    return kept
