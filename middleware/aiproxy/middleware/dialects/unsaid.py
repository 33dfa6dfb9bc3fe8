"""What an API has no parameter for: told once each, for requests of any other dialect."""

from collections.abc import Container, Iterator
from typing import Any, Final

from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Json,
    Loss,
    Opaque,
    Part,
    Reasoning,
    Text,
    ToolCall,
    Turn,
    Untranslatable,
)
from aiproxy.middleware.dialects.losses import note

#: Members that say nothing more than what happens anyway.
_HARMLESS: Final[dict[str, tuple[Any, ...]]] = {
    "truncation": ("disabled",),
    "background": (False,),
    "store": (False,),
    "include": ([], ()),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}
_KEPT_ELSEWHERE: Final = ("previous_response_id", "conversation", "prompt")
_STATE_ITEMS: Final = ("item_reference", "compaction", "compaction_summary")


def refuse_state(request: CanonicalRequest) -> None:
    """Raise ``Untranslatable`` for a request that leans on what another API keeps."""
    if request.source not in ("responses", "draft"):
        return
    for name in _KEPT_ELSEWHERE:
        if request.extra.get(name):
            raise Untranslatable(name, "the earlier turns are kept by another API")


def knobs(request: CanonicalRequest, says: Container[str], api: str) -> Iterator[Loss]:
    """Yield the parameters of a request that ``api`` does not say; ``says`` names those it does."""
    sampling = request.sampling
    unsaid = f"{api} has no such parameter"
    for name, value in (
        ("top_k", sampling.top_k),
        ("seed", sampling.seed),
        ("presence_penalty", sampling.presence_penalty or None),
        ("frequency_penalty", sampling.frequency_penalty or None),
        ("logprobs", sampling.logprobs or None),
        ("top_logprobs", sampling.top_logprobs or None),
        ("reasoning_effort", request.reasoning_effort),
        ("verbosity", request.verbosity),
        ("user", request.user),
        ("metadata", request.metadata or None),
        ("service_tier", request.service_tier),
    ):
        if value is not None and name not in says:
            yield Loss(name, unsaid)
    if sampling.stop and "stop" not in says:
        yield Loss("stop", f"{api} has no stop sequences")
    if sampling.n is not None and sampling.n > 1 and "n" not in says:
        yield Loss("n", f"{api} gives one answer")
    if request.reasoning_summary is not None:
        yield Loss("reasoning.summary", f"{api} has no reasoning summaries")
    if request.parallel_tool_calls is False and "parallel_tool_calls" not in says:
        yield Loss("parallel_tool_calls", f"{api} cannot be held to one call at a time")


def member(name: str, value: Any, api: str) -> Iterator[Loss]:
    """Yield the loss of a member of the client's dialect, unless it says nothing."""
    if name != "stream_options" and value not in _HARMLESS.get(name, ()):
        yield Loss(name, f"{api} has no such parameter")


def part(given: Part, api: str, losses: list[Loss]) -> None:
    """Note a part ``api`` cannot hold and can do without.

    Raises:
        Untranslatable: it cannot do without.
    """
    if isinstance(given, Opaque):
        if given.kind in _STATE_ITEMS:
            raise Untranslatable(given.kind, "the referenced content is kept by another API")
        feature = "item" if given.dialect == "responses" else "content_part"
        note(losses, [Loss(feature, f"{api} has no {given.kind} parts")])
        return
    kind = type(given).__name__.lower()
    raise Untranslatable(kind, f"{api} takes no such {kind}")


def thought(
    given: Reasoning, dialect: str, source: str, losses: list[Loss], signed: bool = False
) -> bool:
    """Tell whether earlier reasoning is of ``dialect`` and may go back; note what may not.

    ``signed`` says that the dialect has room for a signature; none of these seals reasoning.
    """
    origin = given.origin or source
    if origin == dialect:
        if given.encrypted is not None or (given.signature is not None and not signed):
            note(losses, [Loss("reasoning", f"{dialect} has no sealed reasoning")])
        return bool(given.text or given.summary or (signed and given.signature))
    detail = f"earlier reasoning of {origin} does not travel to {dialect}"
    if given.signature is not None or given.encrypted is not None:
        detail = f"opaque reasoning of {origin} does not travel to {dialect}"
    note(losses, [Loss("reasoning", detail)])
    return False


def seals(turn: Turn, dialect: str, losses: list[Loss]) -> None:
    """Note opaque signatures that sit on the text or the calls of a turn."""
    for held in turn.parts:
        if isinstance(held, Text | ToolCall) and held.signature is not None:
            origin = held.origin or "another dialect"
            detail = f"opaque reasoning of {origin} does not travel to {dialect}"
            note(losses, [Loss("reasoning", detail)])


def part_members(given: Part, api: str, losses: list[Loss]) -> None:
    """Note members of a part, such as ``cache_control``, that only its dialect knows."""
    extra: Json | None = getattr(given, "extra", None)
    if not extra:
        return
    for name, value in extra.items():
        if name not in ("plain", "key") and value not in (None, "", [], {}):
            note(losses, [Loss(name, f"{api} has no such member")])


def joined(parts: tuple[Part, ...]) -> str:
    """Return the text of parts, without anything between them."""
    return "".join(p.text for p in parts if isinstance(p, Text))
