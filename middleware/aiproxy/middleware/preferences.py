"""X-AI request headers to values (draft section 6, Table 2 and the names used in its figures).

Everything about a header - wire form, pattern, bounds, value set, aliases - is read from its
schema in ``aiproxy.spec``. What the values mean for a request is decided in ``intent``.

Rules (XAI-HDR-001 to 020): names compare without regard to case; surrounding spaces and tabs are
dropped; a list may come on several lines; a single value may be repeated only identically, on lines
of its own or joined by commas as some servers hand them on; control characters, non-ASCII octets and
folded lines are refused; a field value above its bound is 431; an unknown or empty hint is reported
and ignored, any other empty or bad value is 400.

A server that unfolds a folded line before the application sees it (h11, werkzeug) hides the fold;
what is left is checked like any value.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from re import compile as compile_pattern
from typing import Any, Final

from aiproxy.middleware.errors import ProxyError, bad_header
from aiproxy.middleware.routing import plugins
from aiproxy.spec import HEADERS, HeaderField, checker, schema

#: lower-case name -> field, for the names a client may send
REQUEST_FIELDS: Final = {
    field.name.lower(): field for field in HEADERS.values() if "request" in field.directions
}
#: the same names as they stand in an ASGI scope
REQUEST_NAMES: Final = frozenset(name.encode("ascii") for name in REQUEST_FIELDS)
RESPONSE_NAMES: Final = frozenset(
    field.name.lower() for field in HEADERS.values() if "response" in field.directions
)
PREFIX: Final = "x-ai-"

_PATTERNS: Final = {name: compile_pattern(f.pattern) for name, f in REQUEST_FIELDS.items()}
_SOFT_ROLES: Final = frozenset({"preference", "hint"})


@dataclass(frozen=True, slots=True)
class Ignored:
    """A header or parameter that was not used, and why (XAI-SYNC-015)."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Preferences:
    """What the X-AI request headers of one request say; absent means ``None`` or empty.

    ``pool`` and the other lists keep the order of arrival with duplicates collapsed. ``task`` is a
    known hint: one outside the set is in ``ignored`` only. Money is in US dollars, latency in
    milliseconds, quality in 0..1.
    """

    active: bool = False
    multi_provider: str | None = None
    pool: tuple[str, ...] | None = None
    strategy: str | None = None
    task: str | None = None
    tool_categories: tuple[str, ...] = ()
    reasoning: str | None = None
    quality: float | None = None
    max_latency_ms: int | None = None
    cost_limit: Decimal | None = None
    failover: str | None = None
    conversation_id: str | None = None
    parent_conversation: str | None = None
    workflow_step: str | None = None
    workflow_branch: str | None = None
    merge_branches: tuple[str, ...] = ()
    security: tuple[str, ...] = ()
    data_class: str | None = None
    ignored: tuple[Ignored, ...] = ()

    @property
    def disabled(self) -> bool:
        return self.multi_provider == "disabled"


#: attribute of ``Preferences`` for each header; the one place where wire names meet ours
_ATTRIBUTES: Final = {
    "x-ai-multi-provider": "multi_provider",
    "x-ai-provider-pool": "pool",
    "x-ai-routing-strategy": "strategy",
    "x-ai-task-hint": "task",
    "x-ai-tool-categories": "tool_categories",
    "x-ai-reasoning-preference": "reasoning",
    "x-ai-quality-threshold": "quality",
    "x-ai-max-latency": "max_latency_ms",
    "x-ai-cost-limit": "cost_limit",
    "x-ai-failover-policy": "failover",
    "x-ai-conversation-id": "conversation_id",
    "x-ai-parent-conversation": "parent_conversation",
    "x-ai-workflow-step": "workflow_step",
    "x-ai-workflow-branch": "workflow_branch",
    "x-ai-merge-branches": "merge_branches",
    "x-ai-security-requirements": "security",
    "x-ai-data-classification": "data_class",
}

NONE: Final = Preferences()
#: Fields whose values differ from request to request, so that nothing is gained by keeping them.
_OF_ONE_REQUEST: Final = frozenset(
    name for name, field in REQUEST_FIELDS.items() if field.role == "workflow"
)


def parse_headers(
    headers: Iterable[tuple[str, str]],
    *,
    lenient: bool = False,
    most_octets: int | None = None,
) -> Preferences:
    """Return the preferences of a request.

    ``headers`` are (lower-case name, value) pairs; other names than X-AI ones are skipped.
    ``lenient`` ignores and reports a bad preference or hint, never a bad control or constraint.
    ``most_octets`` bounds a field value below what its schema allows.

    Raises:
        ProxyError: 400 ``invalid_header_value`` or 431 ``header_too_large``, ``param`` naming the
            header.
    """
    said = tuple([(name, value) for name, value in headers if name.startswith(PREFIX)])
    if not said:
        return NONE
    once = False
    for name, value in said:
        if name in _OF_ONE_REQUEST:
            once = True
        if most_octets is not None and len(value) > most_octets and name in REQUEST_FIELDS:
            raise _too_large(REQUEST_FIELDS[name], len(value), most_octets)
    return _parse(said, lenient) if once else _remembered(said, lenient)


def _parse(said: tuple[tuple[str, str], ...], lenient: bool) -> Preferences:
    lines: dict[str, list[str]] = {}
    ignored: list[Ignored] = []
    for name, value in said:
        field = REQUEST_FIELDS.get(name)
        if field is None:
            if name in RESPONSE_NAMES:
                ignored.append(Ignored(name, "response_header"))
            continue
        lines.setdefault(name, []).append(value)
    if not lines:
        return NONE
    found: dict[str, Any] = {"active": True}
    for name, values in lines.items():
        field = REQUEST_FIELDS[name]
        try:
            parsed = _field_value(name, values)
        except ProxyError:
            if not (lenient and field.role in _SOFT_ROLES):
                raise
            ignored.append(Ignored(field.name, "invalid_value"))
            continue
        if parsed is None:
            ignored.append(Ignored(field.name, "empty"))
            continue
        if field.role == "hint" and field.values and parsed not in field.values:
            ignored.append(Ignored(field.name, "unrecognised_value"))
            continue
        found[_ATTRIBUTES[name]] = parsed
    if ignored:
        found["ignored"] = tuple(ignored)
    return Preferences(**found)


#: A client says the same of most of its requests.
_remembered = lru_cache(maxsize=128)(_parse)


def _too_large(field: HeaderField, octets: int, most: int) -> ProxyError:
    return ProxyError(
        "header_too_large",
        f"{field.name} is {octets} octets long; at most {most} are accepted.",
        param=field.name,
    )


def _field_value(name: str, values: list[str]) -> Any:
    field = REQUEST_FIELDS[name]
    if len(values) > 1:
        if field.wire == "csv":
            return parse_value(name, ",".join(values))
        first = values[0].strip(" \t")
        if any(value.strip(" \t") != first for value in values[1:]):
            raise bad_header(field.name, "sent more than once with different values; send one")
    return parse_value(name, values[0])


@lru_cache(maxsize=2048)
def parse_value(name: str, raw: str) -> Any:
    """Return the value of the request header ``name`` (lower case) as its schema types it.

    Tokens come back in canonical spelling, lists as tuples without duplicates, money as
    ``Decimal``. ``None`` stands for an empty optional value.
    """
    field = REQUEST_FIELDS[name]
    if len(raw) > field.max_octets:
        raise _too_large(field, len(raw), field.max_octets)
    if not (raw.isascii() and raw.replace("\t", " ").isprintable()):
        raise bad_header(field.name, "only visible ASCII characters and spaces are allowed.")
    value = raw.strip(" \t")
    if not value:
        if field.role != "hint":
            raise bad_header(field.name, f"the value is empty; expected {_expected(field)}.")
        return None
    if "," in value and field.wire != "csv":
        value = _once(value)
    return _typed(field, value)


plugins.on_change.extend((_remembered.cache_clear, parse_value.cache_clear))


def _once(value: str) -> str:
    """Repeated lines of one value as WSGI joins them: ``100,100`` is 100 said twice."""
    said = {part.strip(" \t") for part in value.split(",")}
    return said.pop() if len(said) == 1 and "" not in said else value


def _typed(field: HeaderField, value: str) -> Any:
    if field.values and field.closed:
        canonical = _spellings(field.name).get(value.lower())
        if canonical is None and field.name == "X-AI-Routing-Strategy":
            canonical = plugins.canonical(value)
        if canonical is None:
            raise bad_header(field.name, f"unknown value; expected {_expected(field)}.")
        return canonical
    if not _PATTERNS[field.name.lower()].fullmatch(value):
        raise bad_header(field.name, f"expected {_expected(field)}.")
    if field.wire == "csv":
        return _members(field, value)
    if field.wire == "token":
        folded = value.lower()
        return _spellings(field.name).get(folded, folded if field.values else value)
    if field.wire == "integer":
        number: int | float | Decimal = int(value)
    elif field.name == "X-AI-Cost-Limit":
        number = Decimal(value)  # money never passes through a float
    else:
        number = float(value)
    if not checker(field.schema_name).ok(float(number) if field.wire == "decimal" else number):
        raise bad_header(field.name, f"out of range; expected {_expected(field)}.")
    return number


def _members(field: HeaderField, value: str) -> tuple[str, ...]:
    """Empty members are dropped (``,a,,b``), duplicates collapsed (XAI-HDR-018)."""
    spellings = _spellings(field.name)
    found: dict[str, None] = {}
    for part in value.split(","):
        member = part.strip(" \t")
        if member:
            found[spellings.get(member.lower(), member)] = None
    return tuple(found)


@lru_cache(maxsize=64)
def _spellings(name: str) -> dict[str, str]:
    field = HEADERS[name]
    known = {value.lower(): value for value in field.values}
    known.update({alias.lower(): canonical for alias, canonical in field.aliases.items()})
    return known


def _expected(field: HeaderField) -> str:
    if field.closed and field.values:
        return "one of " + ", ".join(field.values)
    stated: str | None = schema(field.schema_name).get("x-aiproxy-expected")
    if stated:
        return stated
    if field.wire == "csv":
        return "a comma-separated list of names"
    return "one token of letters, digits, '.', '_' or '-'"
