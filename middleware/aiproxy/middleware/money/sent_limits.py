"""What the call that is about to be made can cost at worst: its price at the limit it is sent with."""

from typing import Any, Final

import orjson

from aiproxy.middleware.answering.prepare import Outgoing
from aiproxy.middleware.intent import Intent
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.faults import output_tokens

#: Where a body says how much may be answered, thinking included, in any dialect we write.
_MEMBERS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens")


def worst_sent(intent: Intent, model: Model, out: Outgoing) -> int | None:
    """Picodollars; ``None`` when the price is unknown. Never below what the plan counted with.

    A translated body may carry a larger limit than the client gave, or one where it gave none: an
    API that demands a limit, or counts thinking within it.
    """
    price = model.price
    if price is None:
        return None
    tokens = output_tokens(intent, model)
    sent = out.limit
    if sent is None and out.translated and not price.free:
        sent = _limit_in(out.body)
    if sent is not None and intent.writes_text:
        tokens = max(tokens, sent * intent.copies)
    return price.worst(intent.prompt_tokens, tokens, intent.copies)


def _limit_in(raw: bytes) -> int | None:
    body: dict[str, Any] = orjson.loads(raw)
    inner = body.get("generationConfig")
    holders = (body, inner) if isinstance(inner, dict) else (body,)
    found = [holder[name] for holder in holders for name in _MEMBERS if name in holder]
    return max((value for value in found if type(value) is int), default=None)
