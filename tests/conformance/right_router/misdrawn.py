"""Defects of the draft's figures and of what decision headers say, each seen by one check.

As in ``misled``: every function is called where the right thing has just been done.
"""

import itertools
import json
from typing import TYPE_CHECKING, Any

from right_server import Refusal

from right_router.misled import only, said

if TYPE_CHECKING:
    from right_router.asking import Ask
    from right_router.settings import Model

Fields = list[tuple[str, str]]
PIECES = itertools.count(1)
TOOLS = {"X-AI-Tool-Mapping": '{"selected_tools":[],"unmapped":[]}'}


def drawn(ask: "Ask", **headers: str) -> bool:
    """Return whether this is a figure's request: the draft's form with just these headers."""
    return ask.endpoint == "draft" and only(ask, Multi_Provider="enabled", **headers)


def order(ask: "Ask", found: list["Model"]) -> list["Model"]:
    """Return the candidates with the first two in each other's place."""
    limits = {"Max_Latency": ""}
    swaps = (
        ("figure-1-second", {"Task_Hint": "reasoning-optimized", "Routing_Strategy": "capability-first"}),
        ("figure-8-dearest", {
            "Task_Hint": "analytical", "Tool_Categories": "", "Routing_Strategy": "cost",
            "Quality_Threshold": "",
        }),
        ("figure-11-second", {"Task_Hint": "support", "Routing_Strategy": "latency", **limits}),
        ("figure-12-second", {"Task_Hint": "analytical", "Quality_Threshold": "", **limits}),
    )  # fmt: skip
    for name, headers in swaps:
        if ask.has(name) and len(found) > 1 and drawn(ask, **headers):
            return [found[1], found[0], *found[2:]]
    return found


def refuse(ask: "Ask") -> None:
    """Refuse what a figure asks for.

    Raises:
        Refusal: 400.
    """
    three = {"Task_Hint": "reasoning", "Reasoning_Preference": "native", "Quality_Threshold": "0.9"}
    if ask.has("figure-3-refused") and drawn(ask, **three):
        raise Refusal(400, "unsupported_parameter", "not like this", "reasoning")


def moves(ask: "Ask") -> bool:
    """Return whether the explicit model of Fig 4 is taken for auto."""
    four = "reasoning" in ask.autos and drawn(ask, Task_Hint="reasoning")
    return ask.has("figure-4-moves") and four


def claims(ask: "Ask") -> bool:
    """Return whether measured latencies give way to what was configured."""
    support = {"Task_Hint": "support", "Routing_Strategy": "latency", "Max_Latency": ""}
    return ask.has("claims-beat-measures") and drawn(ask, **support)


def body(ask: "Ask", sent: dict[str, Any]) -> None:
    """Change what a candidate is sent."""
    turns = sent.get("messages")
    own = any(turn.get("role") == "assistant" for turn in ask.body.get("messages") or ())
    if ask.has("turns-dropped") and ask.attempts and own and not ask.preferences.conversation:
        sent["messages"] = turns[-1:]
    if ask.has("streams-spend-more") and ask.stream and "max_completion_tokens" in ask.autos:
        for name in ("max_completion_tokens", "max_tokens"):
            if name in sent:
                sent[name] += 1


def answer(ask: "Ask", told: dict[str, Any]) -> dict[str, Any]:
    """Change what the client is answered."""
    if ask.has("figure-6-sum-wrong") and drawn(
        ask, Task_Hint="reasoning", Routing_Strategy="balanced"
    ):
        told = {**told, "usage": {**told["usage"], "total_tokens": 0}}
    message = (told.get("choices") or [{}])[0].get("message") or {}
    calls = message.get("tool_calls") or []
    if (
        ask.has("figure-7-own-names")
        and calls
        and drawn(ask, Task_Hint="coding", Tool_Categories="")
    ):
        calls[0]["function"]["name"] = "scraper_tool"
    if ask.has("arguments-encoded-twice") and calls and "forecast" in str(calls):
        for call in calls:
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    if ask.has("figure-10-one-call") and drawn(ask, Task_Hint="multimodal", Tool_Categories=""):
        message["tool_calls"] = calls[:1]
    return told


def headers(ask: "Ask", found: Fields) -> Fields:
    """Change the X-AI headers of an answer."""
    fields = dict(found)
    selection = json.loads(fields.get("X-AI-Auto-Selection", "{}"))
    two = drawn(ask, Task_Hint="reasoning-optimized")
    if ask.has("figure-2-claims-native") and two:
        selection["reasoning_capability"] = "native"
    if ask.has("compliance-invented") and "security_compliance" in selection:
        selection["security_compliance"] = {"encryption": "aes256_end_to_end"}
    if ask.has("failover-time-invented") and "failover_time_ms" in selection:
        selection["failover_time_ms"] = 1
    if selection:
        fields["X-AI-Auto-Selection"] = json.dumps(selection, separators=(",", ":"))
    fourteen = {"Task_Hint": "coding", "Failover_Policy": "automatic"}
    if ask.has("figure-14-flagless") and drawn(ask, **fourteen):
        fields.pop("X-AI-Failover-Occurred", None)
    if ask.has("selection-is-a-list") and selection:
        fields["X-AI-Auto-Selection"] = f"[{fields['X-AI-Auto-Selection']}]"
    if ask.has("mapping-always") and isinstance(ask.body.get("tools"), list):
        fields = TOOLS | fields
    decisions = json.loads(fields.get("X-AI-Auto-Decisions", "{}"))
    if ask.has("decisions-one-short") and len(decisions) == 4:
        decisions.popitem()
        fields["X-AI-Auto-Decisions"] = json.dumps(decisions, separators=(",", ":"))
    return list(fields.items())


def record(ask: "Ask", found: dict[str, Any]) -> dict[str, Any]:
    """Change the decision record."""
    if ask.has("cascade-retold") and said(ask).get("Failover-Policy") == "cascading":
        found["attempts"] = found["attempts"][::-1]
    return found


def event(ask: "Ask", chunk: dict[str, Any]) -> dict[str, Any]:
    """Change an event of a stream."""
    if ask.has("call-pieces-lost") and "tool_calls" in json.dumps(chunk) and next(PIECES) % 4 == 0:
        for choice in chunk.get("choices") or ():
            choice["delta"].pop("tool_calls", None)
    return chunk
