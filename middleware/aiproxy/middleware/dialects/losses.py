"""What an answer held and its client is not shown: each kind of loss is told once.

Bookkeeping (item ids and states, fingerprints, times) does not count as lost.
"""

from collections.abc import Iterable, Iterator

from aiproxy.middleware.dialects.canonical import Json, Loss, Reasoning, ReasoningDelta

_BOOKKEEPING = frozenset({"id", "status"})


def note(losses: list[Loss], found: Iterable[Loss]) -> None:
    """Add what was ``found`` to ``losses`` unless it is known: a stream repeats itself."""
    for loss in found:
        if loss not in losses:
            losses.append(loss)


def members(extra: Json, prefix: str, reason: str) -> Iterator[Loss]:
    """Yield a loss, named ``prefix`` and the member, for each member that says something."""
    for name, value in extra.items():
        if name not in _BOOKKEEPING and value not in (None, "", [], {}):
            yield Loss(prefix + name, reason)


def sealed(thought: Reasoning | ReasoningDelta) -> Iterator[Loss]:
    """Yield the opaque data of reasoning: a client that cannot hold it cannot send it back."""
    if thought.encrypted is not None:
        yield Loss("reasoning.encrypted_content", "sealed reasoning cannot be handed over")
    yield from unsigned(thought)


def unsigned(thought: Reasoning | ReasoningDelta) -> Iterator[Loss]:
    """Yield the signature of reasoning, which no OpenAI dialect has room for."""
    if thought.signature is not None:
        yield Loss("reasoning.signature", "reasoning signatures cannot be handed over")
