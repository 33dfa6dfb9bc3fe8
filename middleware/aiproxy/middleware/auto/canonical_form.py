"""Resolved auto parameters written into a canonical request, and that into a provider's body."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from aiproxy.middleware.auto import shapes
from aiproxy.middleware.auto.offer import Chosen, Offer, choose
from aiproxy.middleware.auto.resolving import Resolved
from aiproxy.middleware.auto.rungs import EFFORT, reasons
from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Loss,
    Part,
    ToolCall,
    ToolResult,
    Turn,
)
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.intent import AUTO
from aiproxy.middleware.registry import Model

#: Members in which a client says itself how a model should reason.
_SAID: Final = ("reasoning", "thinking", "output_config", "thinkingConfig")
#: Dialects whose providers refuse a system turn behind the conversation.
_LEADING: Final = frozenset({"mistral", "cohere", "workers_ai"})
#: Dialects whose encoder cannot tell which models take a reasoning setting: the registry must.
_UNTOLD: Final = frozenset({"mistral", "cohere", "workers_ai"})
_NO_REASONING: Final = Loss("reasoning", "the model has no reasoning that an effort could steer")


@dataclass(frozen=True, slots=True)
class Written:
    """A canonical request as one model gets it, with what only its own dialect can say. ``added``
    are the texts of ours among its turns."""

    request: CanonicalRequest
    model: str
    dialect: str
    offer: Offer | None = None
    chosen: Chosen = field(default_factory=Chosen)
    losses: tuple[Loss, ...] = ()
    added: tuple[str, ...] = ()

    def encode(self) -> tuple[dict[str, Any], list[Loss]]:
        """Return the provider's body and all losses.

        Raises:
            Untranslatable: the dialect cannot say it.
        """
        body, losses = codec(self.dialect).encode_request(self.request, self.model)
        offer = self.offer
        if offer is not None:
            if offer.hosted:
                body["tools"] = [
                    *body.get("tools", ()),
                    *(dict(entry) for _, entry in offer.hosted),
                ]
            body.update(offer.members)
            if self.chosen.native is not None:
                body["tool_choice"] = self.chosen.native
        return body, [*self.losses, *losses]

    def with_turn(self, text: str) -> "Written":
        """Return it with one marked instruction of ours more."""
        turns = placed(self.request.turns, shapes.turn(text), self.dialect)
        return replace(self, request=replace(self.request, turns=turns), added=(*self.added, text))


def write(request: CanonicalRequest, resolved: Resolved, model: Model, dialect: str) -> Written:
    """Return ``request`` with its auto parameters resolved for ``model`` in ``dialect``.

    Raises:
        Untranslatable: a tool must be called that the model is not offered.
    """
    losses: tuple[Loss, ...] = ()
    effort = None if request.reasoning_effort == AUTO else request.reasoning_effort
    rung = resolved.rung
    if rung is not None and rung.capability == "native":
        said = request.reasoning_summary is not None or any(n in request.extra for n in _SAID)
        if effort is None and not said:
            effort = EFFORT
    elif effort not in (None, "none") and dialect in _UNTOLD and not reasons(model):
        effort, losses = None, (_NO_REASONING,)
    elif effort is not None and _by_habit(request, dialect) and not reasons(model):
        losses = () if effort == "none" else (_NO_REASONING,)
        effort = None
    sampling = request.sampling
    if resolved.limits:
        sampling = replace(sampling, max_tokens=resolved.limit)
    shape = request.response_format
    if shape is not None and shape.kind == "auto":
        shape = None
    offer, chosen = resolved.offer, Chosen()
    turns, tools, choice = request.turns, request.tools, request.tool_choice
    parallel = request.parallel_tool_calls
    if offer is not None:
        chosen = choose(offer, choice, dialect)
        tools, choice = offer.functions, chosen.canonical
        parallel = parallel if offer.functions else None
        if offer.names:
            turns = tuple(_renamed(turn, offer.names) for turn in turns)
    told = {
        "turns": turns,
        "tools": tools,
        "tool_choice": choice,
        "parallel_tool_calls": parallel,
        "reasoning_effort": effort,
        "sampling": sampling,
        "response_format": shape,
    }
    changes: dict[str, Any] = {
        name: value for name, value in told.items() if value is not getattr(request, name)
    }
    written = Written(
        replace(request, **changes) if changes else request,
        model.upstream,
        dialect,
        offer,
        chosen,
        losses,
    )
    if rung is not None and rung.instruction is not None:
        return written.with_turn(rung.instruction)
    return written


def _by_habit(request: CanonicalRequest, dialect: str) -> bool:
    """Whether the effort is one that agents of another API send to any model: most models that are
    spoken to in ``chat`` refuse the parameter, so the registry must say who takes it."""
    return dialect == "chat" and request.source in ("anthropic", "gemini")


def placed(turns: tuple[Turn, ...], turn: Turn, dialect: str) -> tuple[Turn, ...]:
    """Return the turns with one of ours: at the end, or behind the leading system turns where a
    provider refuses it anywhere else."""
    if dialect not in _LEADING:
        return (*turns, turn)
    place = next(
        (i for i, t in enumerate(turns) if t.role not in ("system", "developer")), len(turns)
    )
    return (*turns[:place], turn, *turns[place:])


def _renamed(turn: Turn, names: Mapping[str, str]) -> Turn:
    """A turn whose calls and results go by the provider's names (XAI-TOOL-012)."""
    if not any(isinstance(part, ToolCall | ToolResult) for part in turn.parts):
        return turn
    name = names.get(turn.name, turn.name) if turn.role == "tool" and turn.name else turn.name
    return replace(turn, parts=tuple(_native(part, names) for part in turn.parts), name=name)


def _native(part: Part, names: Mapping[str, str]) -> Part:
    if isinstance(part, ToolCall | ToolResult) and part.name is not None:
        native = names.get(part.name)
        return part if native is None else replace(part, name=native)
    return part
