"""Requests that stay in their dialect: taking out the opaque data that must not be sent on.

A client's turns may have been answered by providers of several dialects. Their signatures and
sealed reasoning are kept for those who made them and taken out for everybody else.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from aiproxy.middleware.dialects.canonical import Json, Loss
from aiproxy.middleware.dialects.seals import (
    ORIGINS,
    PREFIX_BASE64,
    google_signature,
    loss,
    unseal,
    without_google,
)

_SEALS: Final = (b"aiproxy.", PREFIX_BASE64.encode())
#: What the raw bytes of a body hold, one of these, if ``foreign_opaque`` may find something in it.
_MARKS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "chat": (b"reasoning_details", b"thought_signature"),
    "draft": (b"reasoning_details", b"thought_signature"),
    "responses": _SEALS,
    "gemini": _SEALS,
    "anthropic": (*_SEALS, b'"signature":""', b'"signature": ""'),
}
#: Google's word for a call whose signature is not at hand.
_NO_SIGNATURE: Final = "skip_thought_signature_validator"


def may_hold_foreign(dialect: str, raw: bytes) -> bool:
    """Tell whether it is worth reading the ``raw`` bytes of a request to look for such data."""
    for mark in _MARKS.get(dialect, ()):  # noqa: SIM110 - every request passes here
        if mark in raw:
            return True
    return False


def foreign_opaque(dialect: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the top-level members of a request without the opaque data of other dialects.

    ``None`` when there is none of it. Ask ``may_hold_foreign`` first: that is cheaper.
    Data an upstream of this dialect made itself, such as the ``reasoning_details`` of a provider
    that speaks chat, stays.
    """
    changes = _Sweep(dialect, every=False).body(body)
    return changes or None


def foreign_losses(dialect: str, body: Mapping[str, Any]) -> list[Loss]:
    """Return what ``foreign_opaque`` leaves behind, once an origin."""
    sweep = _Sweep(dialect, every=False)
    sweep.body(body)
    return [loss(origin, dialect) for origin in sorted(sweep.origins)]


def unsealed(dialect: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the top-level members of a request without any opaque data and earlier reasoning.

    For another try after a provider said that it cannot read what it was sent.
    """
    return _Sweep(dialect, every=True).body(body)


class _Sweep:
    """One pass over a body. Nothing is changed in place. ``origins`` gathers whose data went."""

    def __init__(self, dialect: str, every: bool) -> None:
        self.origins: set[str] = set()
        self._dialect = dialect
        self._every = every

    def body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if self._dialect in ("chat", "draft"):
            return _changed(body, "messages", self._message)
        if self._dialect == "responses":
            return _changed(body, "input", self._item)
        if self._dialect == "gemini":
            return _changed(body, "contents", self._content)
        return self._anthropic(body) if self._dialect == "anthropic" else {}

    def _goes(self, value: object) -> bool:
        """Tell whether opaque ``value`` must not be sent."""
        held = unseal(value)
        if held is not None and held.origin != self._dialect:
            self.origins.add(held.origin)
            return True
        if isinstance(value, str) and value.startswith(PREFIX_BASE64):
            self.origins.add("another dialect")
            return True
        return self._every and value is not None

    # chat

    def _message(self, message: Json) -> Json | None:
        changes = _changed(message, "reasoning_details", self._detail)
        changes |= _changed(message, "tool_calls", self._unsigned)
        plain = self._unsigned(message)
        if not changes and plain is message and not self._every:
            return message
        kept = {**plain, **changes}
        # The plain text is that of the same reasoning.
        for name in ("reasoning_content", "reasoning"):
            if isinstance(kept.get(name), str):
                del kept[name]
        if kept.get("reasoning_details") == []:
            del kept["reasoning_details"]
        return kept if kept != message else message

    def _detail(self, detail: Json) -> Json | None:
        written = detail.get("format")
        if isinstance(written, str) and written in ORIGINS:
            self.origins.add(written)
            return None
        return None if self._every else detail

    def _unsigned(self, holder: Json) -> Json:
        """Return a call or message without a signature of Google's that must not be sent."""
        signature = google_signature(holder)
        return holder if signature is None or not self._goes(signature) else without_google(holder)

    # Responses

    def _item(self, item: Json) -> Json | None:
        kind = item.get("type")
        if kind == "reasoning":
            goes = self._goes(item.get("encrypted_content")) or self._every
            return None if goes else item
        if self._every and kind in ("message", "function_call", "custom_tool_call"):
            # An id ties the item to reasoning that is not sent any more.
            return {k: v for k, v in item.items() if k != "id"} if "id" in item else item
        return item

    # Anthropic

    def _anthropic(self, body: Mapping[str, Any]) -> dict[str, Any]:
        changes = _changed(body, "messages", self._turn)
        thinking = body.get("thinking")
        if not changes or not isinstance(thinking, Mapping) or thinking.get("type") != "enabled":
            return changes
        last = next((m for m in reversed(body["messages"]) if _is_answer(m)), None)
        if last is not None and not any(m is last for m in changes["messages"]):
            called = any(_kind(block) == "tool_use" for block in last["content"])
            if called:
                # With thinking on, a turn that called tools must begin with its thoughts.
                changes["thinking"] = {"type": "disabled"}
        return changes

    def _turn(self, message: Json) -> Json | None:
        changes = _changed(message, "content", self._block)
        if not changes:
            return message
        return {**message, **changes} if changes["content"] else None

    def _block(self, block: Json) -> Json | None:
        kind = _kind(block)
        if kind == "redacted_thinking":
            return None if self._goes(block.get("data")) or self._every else block
        if kind != "thinking":
            return block
        signature = block.get("signature")
        if not signature:  # thoughts of a dialect that signs nothing
            self.origins.add("another dialect")
            return None
        return None if self._goes(signature) else block

    # Gemini

    def _content(self, content: Json) -> Json | None:
        changes = _changed(content, "parts", self._part)
        if not changes:
            return content
        return {**content, **changes} if changes["parts"] else None

    def _part(self, part: Json) -> Json | None:
        name = "thoughtSignature" if "thoughtSignature" in part else "thought_signature"
        if part.get(name) == _NO_SIGNATURE or not self._goes(part.get(name)):
            return None if self._every and part.get("thought") is True else part
        if part.get("thought") is True:
            return None
        if "functionCall" in part or "function_call" in part:
            return {**part, name: _NO_SIGNATURE}
        kept = {k: v for k, v in part.items() if k != name}
        return kept if kept.get("text") != "" else None


def _is_answer(message: object) -> bool:
    return (
        isinstance(message, Mapping)
        and message.get("role") == "assistant"
        and isinstance(message.get("content"), list)
    )


def _kind(block: object) -> object:
    return block.get("type") if isinstance(block, Mapping) else None


def _changed(holder: Json, name: str, change: Callable[[Json], Json | None]) -> dict[str, Any]:
    """Return ``name`` with its objects changed or, at ``None``, left out; nothing if all stay."""
    value = holder.get(name)
    if not isinstance(value, list):
        return {}
    kept = list(_each(value, change))
    same = len(kept) == len(value) and all(a is b for a, b in zip(kept, value, strict=True))
    return {} if same else {name: kept}


def _each(value: list[Any], change: Callable[[Json], Json | None]) -> Iterator[Any]:
    for entry in value:
        new = change(entry) if isinstance(entry, Mapping) else entry
        if new is not None or entry is None:
            yield new
