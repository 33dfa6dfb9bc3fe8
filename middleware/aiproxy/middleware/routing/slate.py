"""The candidates of one kind of request, without what changes from call to call."""

from collections.abc import Sequence
from dataclasses import dataclass

from aiproxy.middleware.dialects.codecs import lossy
from aiproxy.middleware.intent import DEFAULT_OUTPUT_TOKENS, Intent
from aiproxy.middleware.money.prices import Price
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.board import SHORTEST, Board
from aiproxy.middleware.routing.faults import static_fault
from aiproxy.middleware.routing.refusing import Rejected
from aiproxy.middleware.security import trust


@dataclass(slots=True)
class Slate:
    """``models`` are in the order that breaks ties. ``turns`` counts the requests of this kind."""

    models: tuple[Model, ...]
    rejected: tuple[Rejected, ...]
    smallest_context: int | None
    board: Board | None
    dearest: Price | None
    longest_output: int
    turns: int = 0

    def within(self, intent: Intent, limit: int) -> bool:
        """Whether a request is so small that a cost limit (picodollars) cannot reject anybody."""
        if self.dearest is None:
            return False
        output = self.longest_output if intent.output_limit is None else intent.output_limit
        worst = self.dearest.worst(intent.prompt_tokens, output * intent.copies, intent.copies)
        return worst <= limit


def build_slate(intent: Intent, models: Sequence[Model], keep: int) -> Slate:
    """Sort out who can serve this kind of request; ``keep`` is how many are ranked of a long list."""
    kept: list[Model] = []
    dropped: list[Rejected] = []
    for model in models:
        reason = static_fault(intent, model)
        if reason is None:
            kept.append(model)
        else:
            detail = trust.detail(intent.constraints, model.provider, reason)
            dropped.append(Rejected(model, reason, detail))
    if intent.task == "multimodal" and intent.selects:
        seeing = [m for m in kept if "vision" in m.capabilities]
        if seeing:
            dropped += [
                Rejected(m, "lacks_capability") for m in kept if "vision" not in m.capabilities
            ]
            kept = seeing
    windows = [m.context_window for m in kept if m.context_window is not None]
    losing = {
        m: lossy(intent.endpoint, m.provider.dialects, intent.features) for m in kept
    }  # losses count against a candidate: it comes after its equals
    # where the data is not for everybody, equals go by their security level (XAI-SEC-017)
    guarded = trust.demanding(intent.constraints)
    kept.sort(
        key=lambda m: (
            losing[m],
            -m.provider.level if guarded else 0,
            m.provider.priority,
            m.provider.order,
            m.order,
        )
    )
    return Slate(
        models=tuple(kept),
        rejected=tuple(dropped),
        smallest_context=min(windows, default=None),
        board=Board(kept, intent, keep) if len(kept) > SHORTEST else None,
        dearest=_dearest(kept),
        longest_output=max((m.max_output_tokens or DEFAULT_OUTPUT_TOKENS for m in kept), default=0),
    )


def _dearest(models: Sequence[Model]) -> Price | None:
    """The largest price of each kind; ``None`` where a price is unknown."""
    prices = [m.price for m in models if m.price is not None]
    if len(prices) < len(models) or not prices:
        return None
    each = [price for held in prices for price in (held, *(tier for _, tier in held.tiers))]
    return Price(
        input=max(p.reading for p in each),
        output=max(p.writing for p in each),
        per_item=max(p.per_item for p in each),
        per_request=max(p.per_request for p in each),
    )
