"""X-AI-Tool-Categories and ``tools: "auto"``: which tools a provider is offered (draft §5, §6).

What the operator lists for a model is all that may ever be picked; the fakes see what arrives.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import AUTO, CATEGORIES, CHATS, ask, bad_field
from aiproxy.conformance.claims import ToolMapping, tool_mapping
from aiproxy.conformance.orders import tool_names
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import POOL, served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_TOOLS: Final = {
    "web-search": "find_7q",
    "code-execution": "run_9k",
    "image-generation": "draw_3x",
}
_OTHERS: Final = {"web-search": "look_2m", "code-execution": "exec_5z"}


def _offered(
    probe: Probe, roles: tuple[str, ...], categories: str = "", **fields: Any
) -> tuple["Case", Reply]:
    case = probe.case()
    headers = {CATEGORIES: categories} if categories else {}
    return case, ask(case, roles, headers, **{"tools": AUTO, **fields})


def _arrived(me: str, fact: str, case: "Case", reply: Reply, *names: str) -> Iterator[Finding]:
    """Yield whether every body that arrived offers exactly ``names``."""
    bodies = [attempt.json for attempt in case.attempts()]
    if not bodies:
        yield tell(me, fact, False, reply, expected="a provider asked")
    for body in bodies:
        found = tool_names(body)
        yield tell(
            me, fact, sorted(found) == sorted(names), reply,
            expected=f"tools {', '.join(names)}", found=", ".join(found) or "no tools",
        )  # fmt: skip


def _mapped(me: str, case: "Case", reply: Reply, **pairs: str | None) -> Iterator[Finding]:
    """Yield whether the mapping says of each category which tool it became, ``None`` for none."""
    mapping = tool_mapping(case, reply)
    for name, tool in pairs.items():
        category = name.replace("_", "-")
        found = mapping.tools.get(category) if mapping else None
        named = mapping is not None and category in mapping.told
        what = f"mapped to {tool}" if tool else "reported as unmapped"
        yield tell(
            me, f"{category} is {what}", found == tool and named, reply, expected=what,
            found=f"mapped to {found}" if found else "listed" if named else "not mentioned",
        )  # fmt: skip


@check(
    "XAI-HDR-043",
    level=3,
    keyword="MUST",
    title="X-AI-Tool-Categories narrows the tools to the named categories",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-044",
    level=3,
    keyword="MUST",
    title="web-search becomes the provider's search tool",
    clause="draft §5 tool framework",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-045",
    level=3,
    keyword="MUST",
    title="code-execution, also as code-exec, becomes the provider's execution tool",
    clause="draft §5 tool framework",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-046",
    level=3,
    keyword="MUST",
    title="image-generation becomes the provider's image tool",
    clause="draft §5 tool framework",
    depends_on=CHATS,
)
@check(
    "XAI-AUTO-003",
    level=3,
    keyword="MUST",
    title='tools:"auto" becomes tools of the chosen provider',
    clause="draft §5, Table 1",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-050",
    level=3,
    keyword="SHOULD",
    title="the header has no effect on an explicit tools array",
    clause="draft §5 sync rule 1",
    depends_on=CHATS,
)
@behind(
    full=Fake(priority=1, model={"tools": _TOOLS}),
    half=Fake(priority=2, model={"tools": _OTHERS}),
)
def categories_become_tools(probe: Probe) -> Iterator[Finding]:
    for role, listed in (("full", _TOOLS), ("half", _OTHERS)):
        yield from _resolved("XAI-AUTO-003", probe, role, listed)
    me = "XAI-HDR-043"
    for categories in ("web-search", "code-execution", "code-execution, web-search"):
        case, reply = _offered(probe, ("full",), categories)
        wanted = [_TOOLS[category.strip()] for category in categories.split(",")]
        yield from _arrived(me, f"{CATEGORIES}: {categories}", case, reply, *wanted)
    me = "XAI-HDR-044"
    case, reply = _offered(probe, ("half",), "web-search,weather")
    yield from _arrived(me, "web-search, and one not listed", case, reply, "look_2m")
    yield from _mapped(me, case, reply, web_search="look_2m", weather=None)
    me = "XAI-HDR-045"
    for spelling in ("code-execution", "code-exec"):
        case, reply = _offered(probe, ("full",), spelling)
        yield from _arrived(me, f"{CATEGORIES}: {spelling}", case, reply, "run_9k")
    case, reply = _offered(probe, ("full",), "codeexec")
    yield from _arrived(me, "codeexec, which nobody lists", case, reply)
    yield from _mapped(me, case, reply, codeexec=None)
    me = "XAI-HDR-046"
    case, reply = _offered(probe, ("full", "half"), "image-generation")
    if case.served(reply) == "half":
        yield from _mapped(me, case, reply, image_generation=None)
    else:
        yield from _arrived(me, "one of two has an image tool", case, reply, "draw_3x")
    case, reply = _offered(probe, ("half",), "image-generation")
    yield from _arrived(me, "nobody has an image tool", case, reply)
    yield from _mapped(me, case, reply, image_generation=None)
    yield from _explicit_tools_stand("XAI-HDR-050", probe)


def _resolved(me: str, probe: Probe, role: str, listed: dict[str, str]) -> Iterator[Finding]:
    case, reply = _offered(probe, (role,))
    yield served(me, f"tools of auto at {role}", case, reply, role)
    for attempt in case.attempts():
        names = tool_names(attempt.json)
        right = bool(names) and set(names) <= set(listed.values())
        yield tell(
            me, f"the tools that {role} was offered", right, reply,
            expected=f"some of {', '.join(listed.values())}", found=", ".join(names) or "none",
        )  # fmt: skip


def function(name: str) -> dict[str, Any]:
    """Return a tool of the client's own."""
    parameters = {"type": "object", "properties": {"q": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def _explicit_tools_stand(me: str, probe: Probe) -> Iterator[Finding]:
    mine = function(f"mine_{probe.word()}")
    case, reply = _offered(probe, ("full",), "web-search", tools=[mine])
    if not case.attempts():
        yield say(me, Status.INCONCLUSIVE, "no provider was asked", reply)
    for attempt in case.attempts():
        found = (attempt.json or {}).get("tools")
        yield tell(
            me, "an explicit array beside the header", found == [mine], reply,
            expected="the array as sent", found=repr(found)[:120],
        )  # fmt: skip


@check(
    "XAI-HDR-047",
    level=3,
    keyword="MUST",
    title="web-scraping and data-viz are accepted and reported",
    clause="draft Fig 7",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-048",
    level=3,
    keyword="MUST",
    title="data-analysis and reporting are accepted and reported",
    clause="draft Fig 8",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-049",
    level=3,
    keyword="MUST",
    title="weather and web-search are accepted together and reported",
    clause="draft Fig 10",
    depends_on=CHATS,
)
@behind(a=Fake(model={"tools": {"web-search": "find_7q", "data-viz": "plot_4r"}}))
def example_categories_are_reported(probe: Probe) -> Iterator[Finding]:
    for me, categories in (
        ("XAI-HDR-047", ("web-scraping", "data-viz")),
        ("XAI-HDR-048", ("data-analysis", "reporting")),
        ("XAI-HDR-049", ("weather", "web-search")),
    ):
        case, reply = _offered(probe, ("a",), ",".join(categories))
        yield served(me, " and ".join(categories), case, reply, "a")
        mapping = tool_mapping(case, reply) or ToolMapping({}, {}, "")
        for category in categories:
            yield tell(
                me, f"{category} in X-AI-Tool-Mapping", category in mapping.told, reply,
                expected="mapped or unmapped", found="not mentioned",
            )  # fmt: skip


@check(
    "XAI-TOOL-005",
    level=3,
    keyword="MUST",
    title="without a match the tools are left out, and the mapping says so",
    clause="draft §5",
    depends_on=CHATS,
)
@check(
    "XAI-TOOL-006",
    level=3,
    keyword="MUST",
    title="only listed tools are picked, and the router runs none itself",
    clause="draft §16 (safety)",
    depends_on=CHATS,
)
@behind(
    bare=Fake(priority=1, capabilities=("text-generation", "tools")),
    armed=Fake(priority=2, model={"tools": {"web-search": "find_7q"}}),
)
def nothing_but_what_is_listed(probe: Probe) -> Iterator[Finding]:
    me = "XAI-TOOL-005"
    for role, categories in (("bare", ""), ("bare", "web-search"), ("armed", "weather")):
        case, reply = _offered(probe, (role,), categories)
        fact = f"{role}, {categories or 'no'} category"
        yield served(me, fact, case, reply, role)
        for attempt in case.attempts():
            absent = "tools" not in (attempt.json or {})
            yield tell(me, f"{fact}: no tools member upstream", absent, reply, found="tools sent")
        mapping = tool_mapping(case, reply)
        yield tell(
            me, f"{fact}: the mapping", mapping is not None and not mapping.tools, reply,
            expected="a mapping with nothing selected",
            found=mapping.told if mapping else "no mapping",
        )  # fmt: skip
    me = "XAI-TOOL-006"
    case = probe.case()
    case.script("armed", Act(tool_calls=(("shell", {"command": "id"}),)))
    reply = ask(case, ("armed",), {CATEGORIES: "web-search"}, tools=AUTO)
    for attempt in case.attempts():
        names = tool_names(attempt.json)
        yield tell(
            me, "the tools offered", names == ("find_7q",), reply, expected="find_7q",
            found=", ".join(names),
        )  # fmt: skip
    yield tell(
        me, "a call of a tool nobody listed is left to the client", len(case.tried()) == 1, reply,
        expected="one call of the provider", found=f"{len(case.tried())}",
    )  # fmt: skip


@check(
    "XAI-TOOL-014",
    level=3,
    keyword="MUST",
    title="a tool_choice that names no selectable tool is refused",
    clause="draft §5",
    depends_on=CHATS,
)
@check(
    "XAI-TOOL-016",
    level=3,
    keyword="MUST",
    title='tools is an array or "auto"',
    clause="draft §5",
    depends_on=CHATS,
)
@behind(a=Fake(model={"tools": {"web-search": "find_7q"}}))
def wrong_tools_are_refused(probe: Probe) -> Iterator[Finding]:
    chosen = {"type": "function", "function": {"name": "nosuch"}}
    case, reply = _offered(probe, ("a",), tool_choice=chosen)
    yield from bad_field("XAI-TOOL-014", "a tool_choice of nosuch", case, reply, "tool_choice")
    wrong: tuple[object, ...] = ("all", {}, "AUTO")
    for value in wrong:
        for model in (AUTO, probe.cast.model):
            case = probe.case()
            reply = case.chat({POOL: case.pool("a")}, tools=value, model=model)
            fact = f"tools: {value!r}, model {model}"
            yield from bad_field("XAI-TOOL-016", fact, case, reply, "tools")
    case, reply = _offered(probe, ("a",), tool_choice="auto")
    yield served("XAI-TOOL-016", "tools and tool_choice of auto", case, reply, "a")
