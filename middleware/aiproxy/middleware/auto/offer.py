"""``tools: "auto"``: what a model is offered of the operator's list (XAI-TOOL).

Only listed tools are ever offered and the router runs none. The client sees generic names, one for
each category; the provider's own names are told in ``X-AI-Tool-Mapping`` alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from aiproxy.middleware.auto import hosted_tools
from aiproxy.middleware.auto.categories import meant
from aiproxy.middleware.auto.listing import Listed, listed_tools
from aiproxy.middleware.dialects.canonical import Json, Tool, ToolChoice, Untranslatable
from aiproxy.middleware.dialects.gemini.vocabulary import generation
from aiproxy.middleware.intent import Intent
from aiproxy.middleware.registry import Model

_ANY_ARGUMENTS: Final = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class Offer:
    """What one model is offered in one dialect.

    ``functions`` run at the client, ``hosted`` are entries of the provider's own ``tools``, and
    ``members`` body members that stand for one. ``names`` maps generic names to the provider's,
    for all the functions the operator lists: earlier turns may speak of tools not on offer now.
    """

    categories: tuple[str, ...]
    functions: tuple[Tool, ...] = ()
    hosted: tuple[tuple[Listed, Json], ...] = ()
    members: Mapping[str, Any] = field(default_factory=dict)
    selected: tuple[Listed, ...] = ()
    unmapped: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not self.selected

    @property
    def renames(self) -> tuple[tuple[str, str], ...]:
        """Provider name and generic name of each function whose names differ."""
        return tuple((theirs, ours) for ours, theirs in self.names.items() if theirs != ours)

    def record(self) -> dict[str, Any]:
        return {
            "requested": "auto",
            "categories": list(self.categories),
            "selected": [tool.row() for tool in self.selected],
            "unmapped": list(self.unmapped),
        }


def offer_for(intent: Intent, body: Mapping[str, Any], model: Model, dialect: str) -> Offer | None:
    """Return what a model is offered for ``tools: "auto"``; ``None`` where that was not asked.

    Without categories in the header those that the last user turn is about are taken. A category
    the model has no tool for, or none that its dialect can offer, is ``unmapped``.
    """
    if "tools" not in intent.autos:
        return None
    if intent.mode != "assisted":
        return Offer(())
    asked = intent.tool_categories
    functions: list[Tool] = []
    hosted: list[tuple[Listed, Json]] = []
    members: dict[str, Any] = {}
    selected: list[Listed] = []
    for tool in listed_tools(model, asked or meant(body, model.tools)):
        native = hosted_tools.entry_for(tool.entry, dialect)
        member = hosted_tools.members_for(tool.entry, dialect)
        if native is not None:
            hosted.append((tool, native))
        elif member is not None:
            members.update(member)
        elif _is_function(tool.entry, dialect):
            functions.append(_function(tool.entry))
        else:
            continue
        selected.append(tool)
    if functions and hosted and dialect == "gemini" and generation(model.upstream) < 3:
        # older models take one kind or the other; functions are what the client can follow
        selected = [tool for tool in selected if tool not in [listed for listed, _ in hosted]]
        hosted = []
    mapped = {tool.category for tool in selected}
    return Offer(
        categories=asked,
        functions=tuple(functions),
        hosted=tuple(hosted),
        members=members,
        selected=tuple(selected),
        unmapped=tuple(name for name in asked if name not in mapped),
        names={
            tool.generic: tool.name
            for tool in listed_tools(model)
            if hosted_tools.entry_for(tool.entry, dialect) is None
            and _is_function(tool.entry, dialect)
        },
    )


def _is_function(entry: str | Json, dialect: str) -> bool:
    if isinstance(entry, str):
        return entry not in hosted_tools.NEEDS_SETTINGS.get(dialect, ())
    return hosted_tools.is_function(entry)


def _function(entry: str | Json) -> Tool:
    if isinstance(entry, str):
        return Tool(entry, parameters=_ANY_ARGUMENTS, strict=None)
    inner = entry.get("function")
    given = inner if isinstance(inner, Mapping) else entry
    parameters = given.get("parameters") or given.get("input_schema") or _ANY_ARGUMENTS
    return Tool(
        hosted_tools.name_of(entry),
        description=given.get("description"),
        parameters=parameters,
        strict=given.get("strict"),
    )


def carried(intent: Intent, body: Mapping[str, Any], model: Model, dialect: str) -> int:
    """Return how many tools would be offered in the form the operator listed them in.

    A hosted tool counts where the dialect has it, a function everywhere.
    """
    chosen = intent.tool_categories or meant(body, model.tools)
    found = 0
    for tool in listed_tools(model, chosen):
        spoken = hosted_tools.dialects_of(tool.entry)
        found += dialect in spoken if spoken else _is_function(tool.entry, dialect)
    return found


# --- the choice among them -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chosen:
    """A client's ``tool_choice`` in the provider's names: ``canonical`` is for the functions on
    offer; ``native`` is the dialect's own member where only hosted tools are meant."""

    canonical: ToolChoice | None = None
    native: Any = None


def choose(offer: Offer, choice: ToolChoice | None, dialect: str) -> Chosen:
    """Return the choice among the tools on offer.

    Raises:
        Untranslatable: a tool must be called that this model is not offered.
    """
    if choice is None or (offer.empty and choice.mode in ("auto", "none")):
        return Chosen()
    if choice.mode in ("tool", "hosted"):
        return _named(offer, choice, dialect)
    if choice.mode == "allowed":
        return Chosen(_allowed(offer, choice))
    if offer.functions or choice.mode == "auto":
        return Chosen(choice if offer.functions else None)
    if not offer.hosted:
        raise Untranslatable("tool_choice", "no listed tool can be offered, and one is required")
    native = hosted_tools.choice_of(dialect, choice.mode, None)
    if native is None and choice.mode == "required":
        raise Untranslatable("tool_choice", f"{dialect} cannot be made to use a hosted tool")
    return Chosen(native=native)


def _named(offer: Offer, choice: ToolChoice, dialect: str) -> Chosen:
    wanted = str(choice.name)
    for tool in offer.selected:
        if wanted in (tool.generic, tool.name) and any(
            f.name == tool.name for f in offer.functions
        ):
            return Chosen(replace(choice, mode="tool", name=tool.name, definition=None))
    for tool, entry in offer.hosted:
        if wanted in (tool.generic, tool.name, entry.get("type"), entry.get("name")):
            native = hosted_tools.choice_of(dialect, "tool", entry)
            if native is None:
                break
            return Chosen(native=native)
    raise Untranslatable("tool_choice", "the tool that must be called is not on offer here")


def _allowed(offer: Offer, choice: ToolChoice) -> ToolChoice | None:
    offered = {tool.name for tool in offer.functions}
    known = {tool.generic: tool.name for tool in offer.selected}
    rows = []
    for row in choice.allowed:
        name = known.get(str(row.get("name")), row.get("name"))
        if name in offered:
            rows.append({**row, "name": name})
    if not rows:
        if choice.mode_within == "required":
            raise Untranslatable("tool_choice", "none of the allowed tools is on offer here")
        return ToolChoice("none") if offered else None
    return replace(choice, allowed=tuple(rows))
