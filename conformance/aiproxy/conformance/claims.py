"""What a target says about its decisions: X-AI headers, ``x-aiproxy``, the decision record.

Read only where a requirement is about what is told; who really served is never taken from here.
The draft's figures show many shapes and a header has little room, so a thing counts as told
wherever it stands.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.reply import Reply, strict_json, x_aiproxy

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

SELECTION: Final = "x-ai-auto-selection"
DECISIONS: Final = "x-ai-auto-decisions"
MAPPING: Final = "x-ai-tool-mapping"
_REASONS: Final = ("reason", "reason_not_selected", "rejected", "why", "decision")
_RUNGS: Final = {"native": "native", "enh": "enhanced", "sim": "simulated"}
# Names a token limit has in a request body.
LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")


def field(reply: Reply, name: str) -> Any:
    """Return the JSON of response header ``name``; ``None`` when it is absent or not JSON."""
    return strict_json((reply.header(name) or "").encode())[0]


def record(case: "Case", reply: Reply) -> dict[str, Any]:
    """Return the decision record without ``requested``, which only repeats the client."""
    return {k: v for k, v in case.decision(reply).items() if k != "requested"}


def mentions(case: "Case", reply: Reply, *words: str) -> bool:
    """Return whether any of ``words`` occurs in what is told about this reply's decision."""
    shown = [value for name, value in reply.headers if name.startswith("x-ai-")]
    shown.append(json.dumps(x_aiproxy(reply)))
    if not any(word in text for word in words for text in shown):
        shown.append(json.dumps(record(case, reply)))
    return any(word in text for word in words for text in shown)


def rejections(case: "Case", reply: Reply, role: str) -> tuple[str, ...]:
    """Return the reasons told for leaving ``role`` out, wherever they stand."""
    provider = case.cast[role].id
    shown = [field(reply, name) for name, _ in reply.headers if name.startswith("x-ai-")]
    found = {
        str(row[name])
        for told in (*shown, record(case, reply))
        for key, row in _rows(told)
        if provider in (key, row.get("provider"))
        for name in _REASONS
        if row.get(name)
    }
    return tuple(sorted(found))


def _rows(value: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every object inside ``value`` with the key it stands under."""
    if isinstance(value, dict):
        yield key, value
        for name, inner in value.items():
            yield from _rows(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _rows(inner, key)


def shortened(reply: Reply) -> bool:
    """Return whether a header says that it does not tell everything."""
    return any('"truncated":true' in text.replace(" ", "") for _, text in reply.headers)


def capability(case: "Case", reply: Reply) -> str:
    """Return native, enhanced or simulated as told; empty when it is not."""
    selection, decisions = field(reply, SELECTION), field(reply, DECISIONS)
    told = (
        _at(selection, "reasoning_capability"),
        _at(decisions, "reasoning", "capability"),
        _at(selection, "provider_selection", "primary_choice", "reasoning_type"),
    )
    for value in (*told, _at(record(case, reply), "reasoning", "capability")):
        for start, rung in _RUNGS.items():
            if isinstance(value, str) and value.startswith(start):
                return rung
    return ""


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """What is told of a token limit of auto."""

    requested: object
    calculated: object
    basis: object


def token_limit(case: "Case", reply: Reply) -> TokenLimit | None:
    """Return what is told of the computed token limit, or nothing."""
    told = _at(field(reply, DECISIONS), "token_optimization")
    if isinstance(told, dict):
        return TokenLimit(told.get("requested"), told.get("calculated"), told.get("basis"))
    auto = record(case, reply).get("auto")
    for name in LIMITS:
        told = _at(auto, name)
        if isinstance(told, dict):
            return TokenLimit(told.get("requested"), told.get("resolved"), told.get("basis"))
    return None


@dataclass(frozen=True, slots=True)
class ToolMapping:
    """What is told of ``tools: "auto"``, in one form.

    ``tools`` maps a category to the provider's tool; ``generic`` a provider's tool to the name the
    client sees, where that is told; ``told`` is the text of it all.
    """

    tools: Mapping[str, str]
    generic: Mapping[str, str]
    told: str


def tool_mapping(case: "Case", reply: Reply) -> ToolMapping | None:
    """Return the tool mapping as told, in the form of Fig 7 or in the flat one of Fig 10."""
    told = field(reply, MAPPING)
    if told is None:
        told = _at(field(reply, DECISIONS), "tool_mapping")
    if told is None:
        told = record(case, reply).get("tools")
    if not isinstance(told, dict):
        return None
    rows = told.get("selected_tools", told.get("selected"))
    if isinstance(rows, list):
        chosen = [row for row in rows if isinstance(row, dict)]
        tools = {str(row.get("category")): str(row.get("provider_tool")) for row in chosen}
        generic = {
            str(row.get("provider_tool")): str(row["generic_name"])
            for row in chosen
            if "generic_name" in row
        }
        return ToolMapping(tools, generic, json.dumps(told))
    flat = {key: value for key, value in told.items() if isinstance(value, str) and value}
    return ToolMapping({k: v for k, v in flat.items() if k != "requested"}, {}, json.dumps(told))


def _at(value: Any, *path: str) -> Any:
    """Return what lies at ``path`` in nested objects, or nothing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
