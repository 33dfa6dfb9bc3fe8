"""Tools that providers run themselves, as each dialect writes them.

An operator lists a provider tool by its name or as the object its API takes. A name in ``HOSTED`` is
that dialect's hosted tool; any other one is a function the client runs. Tools that cannot do without
settings (a vector store, a library) have to be listed as objects.

Facts as of the Messages, generateContent, Responses and Mistral references of November 2026. Chat
Completions has one hosted search, which is a member of the body and no tool; Cohere v2 and Workers AI
have none.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects.canonical import Json

_ANTHROPIC_SEARCH: Final = {"type": "web_search_20250305", "name": "web_search"}
_ANTHROPIC_CODE: Final = {"type": "code_execution_20250825", "name": "code_execution"}
_ANTHROPIC_FETCH: Final = {"type": "web_fetch_20250910", "name": "web_fetch"}

#: dialect -> name -> the entry of its ``tools`` array
HOSTED: Final[Mapping[str, Mapping[str, Json]]] = {
    "responses": {
        "web_search": {"type": "web_search"},
        "web_search_preview": {"type": "web_search_preview"},
        "code_interpreter": {"type": "code_interpreter", "container": {"type": "auto"}},
        "image_generation": {"type": "image_generation"},
    },
    "anthropic": {
        "web_search": _ANTHROPIC_SEARCH,
        "web_search_20250305": _ANTHROPIC_SEARCH,
        "code_execution": _ANTHROPIC_CODE,
        "code_execution_20250825": _ANTHROPIC_CODE,
        "web_fetch": _ANTHROPIC_FETCH,
        "web_fetch_20250910": _ANTHROPIC_FETCH,
    },
    "gemini": {
        "google_search": {"googleSearch": {}},
        "googleSearch": {"googleSearch": {}},
        "web_search": {"googleSearch": {}},
        "code_execution": {"codeExecution": {}},
        "codeExecution": {"codeExecution": {}},
        "url_context": {"urlContext": {}},
        "urlContext": {"urlContext": {}},
        "google_maps": {"googleMaps": {}},
        "googleMaps": {"googleMaps": {}},
    },
    "mistral": {"image_generation": {"type": "image_generation"}},
}
#: dialect -> name -> body members that switch a hosted tool on without an entry in ``tools``
MEMBERS: Final[Mapping[str, Mapping[str, Json]]] = {
    "chat": {"web_search_options": {"web_search_options": {}}},
}
#: Hosted tools that no provider takes without settings: a bare name of these is not offered.
NEEDS_SETTINGS: Final[Mapping[str, frozenset[str]]] = {
    "responses": frozenset({"file_search", "mcp"}),
    "gemini": frozenset({"file_search", "fileSearch"}),
    "mistral": frozenset({"document_library"}),
}
#: Types of objects that are functions, whatever the dialect.
FUNCTIONS: Final = frozenset({"function", "custom"})
_OURS: Final = ("responses", "anthropic", "gemini", "mistral")


def is_function(entry: Json) -> bool:
    """Whether an object of the operator's describes a function rather than a hosted tool."""
    kind = entry.get("type")
    return kind in FUNCTIONS or (kind is None and isinstance(entry.get("name"), str))


def name_of(entry: str | Json) -> str:
    """Return the provider's name of a listed tool, as records and the mapping header tell it."""
    if isinstance(entry, str):
        return entry
    inner = entry.get("function")
    holder = inner if isinstance(inner, Mapping) else entry
    for name in ("name", "type"):
        if isinstance(holder.get(name), str) and not (name == "type" and is_function(entry)):
            return str(holder[name])
    return next(iter(entry), "tool")


def dialects_of(entry: str | Json) -> frozenset[str]:
    """Return the dialects in which a listed tool is a hosted one; empty for a function."""
    if isinstance(entry, str):
        return frozenset(
            dialect for table in (HOSTED, MEMBERS) for dialect in table if entry in table[dialect]
        )
    if is_function(entry):
        return frozenset()
    kind = entry.get("type")
    if kind is None:
        return frozenset({"gemini"})
    if str(kind)[-8:].isdigit():
        return frozenset({"anthropic"})
    found = frozenset(d for d in _OURS if any(e.get("type") == kind for e in HOSTED[d].values()))
    if not found and kind in NEEDS_SETTINGS["mistral"]:
        return frozenset({"mistral"})
    return found or frozenset({"responses"})


def entry_for(entry: str | Json, dialect: str) -> Json | None:
    """Return what stands in a dialect's ``tools`` for a hosted tool; ``None`` where there is none."""
    if isinstance(entry, str):
        return HOSTED.get(dialect, {}).get(entry)
    return entry if dialect in dialects_of(entry) else None


def members_for(entry: str | Json, dialect: str) -> Json | None:
    """Return the body members that switch a tool on in a dialect, where it has some."""
    return MEMBERS.get(dialect, {}).get(entry) if isinstance(entry, str) else None


def choice_of(dialect: str, mode: str, entry: Json | None) -> Any:
    """Return a dialect's ``tool_choice`` for hosted tools, ``None`` where it cannot be said.

    ``mode`` is *required*, *none*, or *tool* for the one of ``entry``.
    """
    if dialect == "responses":
        return {"type": entry["type"]} if mode == "tool" and entry else mode
    if dialect == "anthropic":
        if mode == "tool" and entry:
            return {"type": "tool", "name": entry.get("name")}
        return {"type": {"required": "any"}.get(mode, mode)}
    return None
