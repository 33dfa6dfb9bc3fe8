"""Tool calls on their way back: one shape for all, generic names (draft §5, Figs 6-10)."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.checks.tool_categories import function
from aiproxy.conformance.choices import AUTO, CATEGORIES, CHATS, ask, bad_field, choose
from aiproxy.conformance.claims import tool_mapping
from aiproxy.conformance.orders import exchanged
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_ARGUMENTS: Final = {"place": 'Zürich "4"', "days": 3, "deep": {"list": [1, None, True]}}
_CALLERS: Final = ("claude", "gpt")


def message(reply: Reply) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the first choice and its message; empty where there is none."""
    choices = reply.object.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    found = choice.get("message") if isinstance(choice, dict) else None
    return (choice, found) if isinstance(found, dict) else ({}, {})


def calls(reply: Reply) -> list[dict[str, Any]]:
    """Return the tool calls of the first choice."""
    found = message(reply)[1].get("tool_calls")
    return [call for call in found if isinstance(call, dict)] if isinstance(found, list) else []


def _function(call: dict[str, Any]) -> dict[str, Any]:
    found = call.get("function")
    return found if isinstance(found, dict) else {}


def _called(probe: Probe, role: str, *names: str, **fields: Any) -> tuple["Case", Reply]:
    """Have ``role`` call the tools ``names``, all with the same arguments."""
    case = probe.case()
    case.script(role, Act(tool_calls=tuple((name, _ARGUMENTS) for name in names)))
    return case, ask(case, (role,), {}, **{"tools": [function(name) for name in names], **fields})


@check(
    "XAI-TOOL-007",
    level=3,
    keyword="MUST",
    title="tool calls are an array of id, type function, name and arguments",
    clause="draft Fig 6, 7, 10",
    depends_on=CHATS,
)
@check(
    "XAI-TOOL-008",
    level=3,
    keyword="MUST",
    title="function.arguments is JSON in a string",
    clause="draft Fig 6, 7, 10",
    depends_on=CHATS,
)
@check(
    "XAI-TOOL-009",
    level=3,
    keyword="MUST",
    title="several tool calls keep their order and have distinct ids",
    clause="draft Fig 10",
    depends_on=CHATS,
)
@check(
    "XAI-TOOL-010",
    level=3,
    keyword="MUST",
    title="finish_reason is tool_calls, and stands on the choice alone",
    clause="draft Fig 6, 7, 10",
    depends_on=CHATS,
)
@behind(gpt=Fake(), claude=Fake(dialect="anthropic"))
def calls_have_one_shape(probe: Probe) -> Iterator[Finding]:
    """Anthropic's own form holds objects where ours holds text, and says tool_use at the end."""
    for role in _CALLERS:
        case, reply = _called(probe, role, "weather", "news")
        found = calls(reply)
        if case.served(reply) not in ("", role) or reply.status != 200 or not found:
            for me in ("XAI-TOOL-007", "XAI-TOOL-008", "XAI-TOOL-009", "XAI-TOOL-010"):
                yield tell(me, f"tool calls of {role}", False, reply, expected="an array of calls")
            continue
        yield from _shaped("XAI-TOOL-007", role, reply)
        for call in found:
            yield _arguments("XAI-TOOL-008", role, call, reply)
        names = [_function(call).get("name") for call in found]
        yield tell(
            "XAI-TOOL-009", f"the names, from {role}", names == ["weather", "news"], reply,
            expected="weather, news", found=", ".join(map(str, names)),
        )  # fmt: skip
        ids = [str(call.get("id")) for call in found]
        yield tell(
            "XAI-TOOL-009", f"the ids, from {role}", len(set(ids)) == len(ids), reply,
            expected="one for each call", found=", ".join(ids),
        )  # fmt: skip
        choice, said = message(reply)
        yield tell(
            "XAI-TOOL-010", f"finish_reason, from {role}",
            choice.get("finish_reason") == "tool_calls", reply,
            expected="tool_calls", found=repr(choice.get("finish_reason")),
        )  # fmt: skip
        yield tell(
            "XAI-TOOL-010", f"the message, from {role}", "finish_reason" not in said, reply,
            expected="no finish_reason inside it", found=repr(said.get("finish_reason")),
        )  # fmt: skip


def _shaped(me: str, role: str, reply: Reply) -> Iterator[Finding]:
    for call in calls(reply):
        right = (
            isinstance(call.get("id"), str)
            and bool(call["id"])
            and call.get("type") == "function"
            and isinstance(_function(call).get("name"), str)
            and "arguments" in _function(call)
        )
        yield tell(
            me, f"a call of {role}", right, reply,
            expected="id, type function, function.name and function.arguments",
            found=repr(call)[:160],
        )  # fmt: skip


def _arguments(me: str, role: str, call: dict[str, Any], reply: Reply) -> Finding:
    found = _function(call).get("arguments")
    try:
        right = isinstance(found, str) and json.loads(found) == _ARGUMENTS
    except ValueError:
        right = False
    return tell(
        me, f"the arguments of a call of {role}", right, reply,
        expected=f"the text of {json.dumps(_ARGUMENTS)}", found=repr(found)[:160],
    )  # fmt: skip


@check(
    "XAI-TOOL-011",
    level=3,
    keyword="MUST",
    title="the client sees generic tool names, the mapping the provider's",
    clause="draft Fig 7",
    depends_on=CHATS,
)
@behind(a=Fake(model={"tools": {"web-search": "browser_8w", "code-execution": "python_6h"}}))
def clients_see_generic_names(probe: Probe) -> Iterator[Finding]:
    me = "XAI-TOOL-011"
    for category, tool in (("web-search", "browser_8w"), ("code-execution", "python_6h")):
        case = probe.case()
        case.script("a", Act(tool_calls=((tool, _ARGUMENTS),)))
        reply = ask(case, ("a",), {CATEGORIES: category}, tools=AUTO)
        names = [str(_function(call).get("name")) for call in calls(reply)]
        mapping = tool_mapping(case, reply)
        generic = mapping.generic.get(tool, category) if mapping else category
        right = [name.replace("_", "-") for name in names] == [generic.replace("_", "-")]
        yield tell(
            me, f"the call of {tool}", right, reply, expected=f"the generic name {generic}",
            found=", ".join(names) or reply.outcome,
        )  # fmt: skip
        paired = mapping is not None and mapping.tools.get(category) == tool
        yield tell(
            me, f"the mapping of {category}", paired, reply, expected=f"{category} and {tool}",
            found=mapping.told if mapping else "no mapping",
        )  # fmt: skip


@check(
    "XAI-TOOL-012",
    level=3,
    keyword="MUST",
    title="a tool's result goes back under the provider's own id and name",
    clause="draft §5",
    depends_on=CHATS,
)
@behind(claude=Fake(dialect="anthropic", model={"tools": {"web-search": "browser_8w"}}))
def results_find_their_call(probe: Probe) -> Iterator[Finding]:
    me, role, tool = "XAI-TOOL-012", "claude", "browser_8w"
    case = probe.case()
    case.script(role, Act(tool_calls=((tool, _ARGUMENTS),)))
    headers = {CATEGORIES: "web-search"}
    first = ask(case, (role,), headers, tools=AUTO)
    if not calls(first):
        yield say(me, Status.NOT_TESTABLE, f"no tool call to answer: {first.outcome}", first)
        return
    result = f"found {probe.word()}"
    call_id = calls(first)[0].get("id")
    turns = [
        *case.messages(),
        {"role": "assistant", "content": None, "tool_calls": calls(first)},
        {"role": "tool", "tool_call_id": call_id, "content": result},
    ]
    reply = ask(case, (role,), headers, tools=AUTO, messages=turns)
    yield served(me, "a follow-up with the tool's result", case, reply, role)
    yield _returned(me, reply, case, tool, result)
    strange = [*turns[:2], {**turns[2], "tool_call_id": f"call_{probe.word()}"}]
    other, refusal = choose(probe, (role,), headers, tools=AUTO, messages=strange)
    yield from bad_field(me, "a result of an unknown call", other, refusal, "messages")


def _returned(me: str, reply: Reply, case: "Case", tool: str, result: str) -> Finding:
    """Look at the last body that arrived: call and result belong together, under native names."""
    attempts = case.attempts()
    uses, results = exchanged(attempts[-1].json if len(attempts) > 1 else None)
    right = (
        len(uses) == len(results) == 1
        and uses[0].name == tool
        and uses[0].arguments == _ARGUMENTS
        and results[0].call == uses[0].call
        and result in results[0].text
    )
    return tell(
        me, "what the provider received", right, reply,
        expected=f"a call of {tool} and its result under one id", found=f"{uses} and {results}",
    )  # fmt: skip
