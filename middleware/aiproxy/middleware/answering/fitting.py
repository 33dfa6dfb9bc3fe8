"""The last touch on a body that is about to be sent: what this one provider cannot take goes.

A chat body is fitted to the provider's small differences (its ``quirks``). Opaque data of earlier
turns that somebody else made is taken out of a body that stays in its dialect; data that a provider
says it cannot read, as when its account changed, is taken out for one more try. Every change that a
client would notice is declared.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from aiproxy.middleware.answering.prepare import Outgoing
from aiproxy.middleware.dialects import continuity, quirks
from aiproxy.middleware.dialects.canonical import Loss
from aiproxy.middleware.intake.members import patch
from aiproxy.middleware.registry import Model

_UNREAD: Final = Loss("reasoning", "the provider could not read the opaque data of earlier turns")


def fitted(out: Outgoing, model: Model, *, unsealed: bool = False) -> Outgoing:
    """Return what is sent to ``model``; ``unsealed``: without any opaque data of earlier turns."""
    rules = model.provider.quirks
    quirky = out.dialect == "chat" and bool(rules)
    marked = not out.translated and continuity.may_hold_foreign(out.dialect, out.body)
    if not (quirky or marked or unsealed):
        return out
    body: dict[str, Any] = orjson.loads(out.body)
    changes: dict[str, Any] = {}
    removed: frozenset[str] = frozenset()
    losses: list[Loss] = []
    if unsealed:
        changes = continuity.unsealed(out.dialect, body)
        losses = [_UNREAD] if changes else []
    elif marked:
        changes = continuity.foreign_opaque(out.dialect, body) or {}
        losses = continuity.foreign_losses(out.dialect, body)
    if quirky:
        told, removed, lost = quirks.adapt(rules, _with(body, changes), model.upstream)
        changes |= told
        losses += lost
    if not (changes or removed):
        return out
    raw = patch(out.body, changes, remove=removed)
    return replace(out, body=raw, losses=(*out.losses, *losses))


def _with(body: dict[str, Any], changes: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**body, **changes} if changes else body
