"""A tool's way through vendors: its definition, the call, and the result (asc Normalisation)."""

import json
from collections.abc import Iterator
from typing import Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.checks.tool_calls import calls
from aiproxy.conformance.choices import CHATS
from aiproxy.conformance.probe import Probe, tell
from aiproxy.conformance.results import Finding
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import served

_ARGUMENTS: Final = {"place": 'Zürich "4"', "days": 3, "deep": {"list": [1, True]}}
# Not every vendor's calls have an id that could carry the proof of origin.
_SIGNED: Final = {**_ARGUMENTS, "proof": "{proof}"}
_RESULT: Final = "between 3 and 9 degrees"
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "forecast",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["place"],
        },
    },
}


@check(
    "ASC-NORM-007",
    level=3,
    keyword="MUST",
    title="tool calls of OpenAI, Anthropic and Google are normalised in requests and answers",
    clause="asc Normalisation tool calls",
    depends_on=CHATS,
)
@behind(
    openai=Fake(alone=True),
    anthropic=Fake(alone=True, dialect="anthropic"),
    google=Fake(alone=True, dialect="google"),
)
def tools_go_there_and_back(probe: Probe) -> Iterator[Finding]:
    """The fakes refuse, as their models do, a result without its call or in a foreign form."""
    me = "ASC-NORM-007"
    for role in probe.cast.actors:
        if not probe.target.features.get(f"dialect:{role}", True):
            continue
        model = probe.cast[role].model
        case = probe.case()
        case.script(role, always=Act(tool_calls=(("forecast", _SIGNED),)))
        reply = case.chat(model=model, tools=[_TOOL], max_tokens=200)
        yield served(me, f"a call by {role}", case, reply, role)
        found = calls(reply)
        arguments = found[0].get("function", {}).get("arguments") if found else None
        right = isinstance(arguments, str) and _read(arguments) == _ARGUMENTS
        yield tell(
            me, f"the arguments that {role} gave", right, reply,
            expected="the same, as one JSON text", found=repr(arguments),
        )  # fmt: skip
        if not right:
            continue
        case = probe.case()
        turns = [
            *case.messages(),
            {"role": "assistant", "content": None, "tool_calls": found},
            {"role": "tool", "tool_call_id": found[0].get("id"), "content": _RESULT},
        ]
        reply = case.chat(model=model, tools=[_TOOL], messages=turns, max_tokens=200)
        yield served(me, f"the result for {role}", case, reply, role)
        sent = [attempt.json for attempt in case.attempts()]
        yield tell(
            me, f"the call that {role} reads back", any(map(_holds_arguments, sent)), reply,
            expected="the same arguments", found=json.dumps(sent, ensure_ascii=False)[-200:],
        )  # fmt: skip
        told = any(_RESULT in json.dumps(body, ensure_ascii=False) for body in sent)
        yield tell(me, f"the result that {role} reads", told, reply, expected=_RESULT)


def _read(text: str) -> Any:
    """Return the value of one JSON text, without the proof of origin."""
    try:
        return _unsigned(json.loads(text))
    except ValueError:
        return None


def _unsigned(value: Any) -> Any:
    return {k: v for k, v in value.items() if k != "proof"} if isinstance(value, dict) else value


def _holds_arguments(value: Any) -> bool:
    """Return whether the arguments are somewhere inside, as an object or as one JSON text."""
    if _unsigned(value) == _ARGUMENTS or (isinstance(value, str) and _read(value) == _ARGUMENTS):
        return True
    if isinstance(value, dict):
        return any(map(_holds_arguments, value.values()))
    return isinstance(value, list) and any(map(_holds_arguments, value))
