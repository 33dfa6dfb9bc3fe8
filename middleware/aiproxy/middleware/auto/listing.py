"""The tools an operator lists for a model, and the names clients know them by."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiproxy.middleware.auto import hosted_tools
from aiproxy.middleware.dialects.canonical import Json
from aiproxy.middleware.registry import Model


@dataclass(frozen=True, slots=True)
class Listed:
    """One tool of the operator's list: its category, the name clients know it by, and its entry."""

    category: str
    generic: str
    entry: str | Json

    @property
    def name(self) -> str:
        return hosted_tools.name_of(self.entry)

    def row(self) -> dict[str, str]:
        return {
            "category": self.category,
            "provider_tool": self.name,
            "generic_name": self.generic,
        }


def listed_tools(model: Model, categories: Iterable[str] | None = None) -> Iterator[Listed]:
    """Yield a model's tools of some categories (``None``: all) in the operator's order.

    The first tool of a category has the category's name; others are numbered from 2.
    """
    for category in model.tools if categories is None else categories:
        entries = model.tools.get(category, ())
        if isinstance(entries, str | Mapping):
            entries = (entries,)
        generic = category.replace("-", "_")
        for number, entry in enumerate(entries, 1):
            yield Listed(category, generic if number == 1 else f"{generic}_{number}", entry)


def selectable(models: Iterable[Model], categories: tuple[str, ...]) -> frozenset[str]:
    """Return every name by which a client may choose one of some models' tools."""
    return frozenset(
        name
        for model in models
        for tool in listed_tools(model, categories or None)
        for name in (tool.generic, tool.name)
    )


def chosen_name(choice: Any) -> str | None:
    """Return the tool that a ``tool_choice`` object names; ``None`` for a choice among several."""
    kind = choice.get("type")
    if not isinstance(kind, str) or kind == "allowed_tools":
        return None
    inner = choice.get(kind)
    holder = inner if isinstance(inner, Mapping) else choice
    name = holder.get("name")
    return name if isinstance(name, str) else kind
