"""What an answer held and its client is not shown: each kind of loss is told once.

Bookkeeping (item ids and states, fingerprints, times) does not count as lost.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from aiproxy.middleware.dialects.canonical import (
    Json,
    Loss,
    Reasoning,
    ReasoningDelta,
    Text,
    TextDelta,
    ToolCall,
    ToolCallStart,
)

#: Kinds of parts without which a prompt is about something else: never left out.
UNSEEN: Final = frozenset({"image", "document", "file", "audio"})
_BOOKKEEPING = frozenset({"id", "status"})
#: Marks of our own decoders beside them.
_UNSAID = _BOOKKEEPING | {"plain", "key"}


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


def strangers(losses: list[Loss], extra: Json, feature: str, dialect: str) -> None:
    """Note the members of a part, tool or turn of another dialect, which ``dialect`` is not sent.

    ``feature`` names the loss, but for marks of what to cache, which have a name of their own.
    """
    for name, value in extra.items():
        if name in _UNSAID or value in (None, "", [], {}):
            continue
        if name == "cache_control":
            note(losses, [Loss(name, f"{dialect} has no marks of what to cache")])
        else:
            note(losses, [Loss(feature, f"{dialect} does not take {name[:60]} here")])


def sealed(thought: Reasoning | ReasoningDelta) -> Iterator[Loss]:
    """Yield the opaque data of reasoning: a client that cannot hold it cannot send it back."""
    if thought.encrypted is not None:
        yield Loss("reasoning.encrypted_content", "sealed reasoning cannot be handed over")
    yield from unsigned(thought)


def unsigned(thought: Reasoning | ReasoningDelta) -> Iterator[Loss]:
    """Yield the signature of reasoning."""
    if thought.signature is not None:
        yield Loss("reasoning.signature", "reasoning signatures cannot be handed over")


def beside_signature(call: ToolCall) -> Json:
    """Return the members of a call without the one that holds its signature."""
    if call.signature is None:
        return call.extra
    return {name: value for name, value in call.extra.items() if name != "extra_content"}


def signed(said: Text | TextDelta | ToolCall | ToolCallStart) -> Iterator[Loss]:
    """Yield the signature of a text or a call."""
    if said.signature is not None:
        yield Loss("reasoning.signature", "signatures of texts and calls cannot be handed over")
