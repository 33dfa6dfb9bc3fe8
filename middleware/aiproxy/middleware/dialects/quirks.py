"""Fitting a chat-shaped body to a provider that differs from the reference in small ways.

The differences are data (``aiproxy.spec.catalog.Rules``); this module applies them. Whatever the
client would notice is told as a loss; another spelling of the same wish, or leaving out what asks
for nothing, is not.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from aiproxy.middleware.dialects.canonical import Loss
from aiproxy.spec.catalog import Rules

#: Parameters that are told under the name of what they belong to.
_FEATURES: Final[Mapping[str, str]] = {
    "frequency_penalty": "penalties",
    "presence_penalty": "penalties",
    "random_seed": "seed",
    "reasoning_effort": "reasoning",
    "top_logprobs": "logprobs",
}
#: Values that ask for nothing, so that leaving them out loses nothing.
_NO_WISH: Final[Mapping[str, tuple[Any, ...]]] = {
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "logit_bias": ({},),
    "metadata": ({},),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "temperature": (1,),
    "tool_choice": ("auto",),
    "top_logprobs": (0,),
    "top_p": (1,),
}
#: Parameters that say how to transport the answer; the router tells usage whatever became of them.
_TRANSPORT: Final = frozenset({"stream_options"})
_ABSENT: Final = object()


def adapt(
    rules: Rules, body: Mapping[str, Any], model: str = ""
) -> tuple[dict[str, Any], frozenset[str], list[Loss]]:
    """Return what to set, what to remove and what is lost by it.

    ``body`` is a chat request, whole or translated, and is not changed; ``model`` is the upstream
    name that the rules of single models go by, the body's own when empty. Members that are set and
    are none of the body's are new. A value of a wrong type is left for the provider to refuse.
    """
    changes: dict[str, Any] = {}
    removed: set[str] = set()
    losses: list[Loss] = []
    for part in _applying(rules, model or str(body.get("model", ""))):
        _apply(part, body, changes, removed, losses)
    return changes, frozenset(removed), losses


def _applying(rules: Rules, model: str) -> Iterator[Rules]:
    yield rules
    for glob, more in rules.models.items():
        if fnmatchcase(model, glob):
            yield more


def _apply(
    rules: Rules,
    body: Mapping[str, Any],
    changes: dict[str, Any],
    removed: set[str],
    losses: list[Loss],
) -> None:
    def now(name: str) -> Any:
        if name in removed:
            return _ABSENT
        return changes[name] if name in changes else body.get(name, _ABSENT)

    def leave_out(name: str) -> None:
        value = now(name)
        changes.pop(name, None)
        if name in body:
            removed.add(name)
        if name not in _TRANSPORT and value is not None and value not in _NO_WISH.get(name, ()):
            _note(losses, name, "this provider does not take it")

    for name in rules.drop:
        if now(name) is not _ABSENT:
            leave_out(name)
    for name, kept in rules.only.items():
        value = now(name)
        if value is not _ABSENT and value is not None and value not in kept:
            leave_out(name)
    for name, table in rules.values.items():
        value = now(name)
        if isinstance(value, str) and value in table:
            changes[name] = table[value]
    for name, (low, high) in rules.limits.items():
        value = now(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            nearest = min(max(value, low), high)
            if nearest != value:
                changes[name] = nearest
                span = f"{low:g} to {high:g}" if low != high else f"{low:g} only"
                _note(losses, name, f"this provider takes {span}")
    for name, other in rules.rename.items():
        value = now(name)
        if value is not _ABSENT:
            changes.pop(name, None)
            if name in body:
                removed.add(name)
            if now(other) in (_ABSENT, None):
                removed.discard(other)
                changes[other] = value
    if rules.roles:
        messages = now("messages")
        replaced = _with_roles(rules.roles, messages)
        if replaced is not None:
            changes["messages"] = replaced


def _with_roles(roles: Mapping[str, str], messages: Any) -> list[Any] | None:
    """The messages under their other roles, or ``None`` when none has one of ``roles``."""
    if not isinstance(messages, list):
        return None
    if not any(_role(message) in roles for message in messages):
        return None
    return [
        {**message, "role": roles[role]} if (role := _role(message)) in roles else message
        for message in messages
    ]


def _role(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    return role if isinstance(role, str) else ""


def _note(losses: list[Loss], name: str, detail: str) -> None:
    loss = Loss(_FEATURES.get(name, name), f"{name}: {detail}")
    if loss not in losses:
        losses.append(loss)
