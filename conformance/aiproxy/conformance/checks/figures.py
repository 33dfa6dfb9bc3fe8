"""The draft's figures replayed: the requests of the vectors, among providers like the figure's.

Only the pool is added (the figure's own names become ours) and the nonce to the last message.
Prices and wordings that a figure merely illustrates are held against nobody; who serves, what is
sent upstream and the form of the answer are.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.choices import CHATS, no_candidate
from aiproxy.conformance.pacing import paced
from aiproxy.conformance.probe import Probe, is_count, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.worlds import CHEAPEST
from aiproxy.conformance.sightings import POOL, only_asked, served
from aiproxy.spec.vectors import vector

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_TEXT: Final = ("text-generation",)
_CODE: Final = ("text-generation", "code-generation")
_SEES: Final = ("text-generation", "vision")
_NOT_OURS: Final = ("Host", "Authorization", "Content-Type", POOL)


def _body(number: int, turn: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = _request(number, turn)["body"]
    return found


def _request(number: int, turn: int = 0) -> Mapping[str, Any]:
    found: Mapping[str, Any] = vector(f"figures/fig-{number:02}")["exchanges"][turn]["request"]
    return found


def _replay(
    case: "Case", number: int, roles: tuple[str, ...], turn: int = 0, **changed: Any
) -> Reply:
    """Send the request of a figure within the pool of ``roles``."""
    request = _request(number, turn)
    headers = {k: v for k, v in request["headers"].items() if k not in _NOT_OURS}
    *turns, last = request["body"]["messages"]
    messages = [*turns, {**last, "content": case.prompt(last["content"])}]
    body = {**request["body"], "messages": messages, **changed}
    return case.post(request["path"], body, {**headers, POOL: case.pool(*roles)})


def _draft_form(me: str, reply: Reply) -> Iterator[Finding]:
    """Yield whether the answer has the form that all figures share."""
    if reply.status != 200:
        return
    choices = reply.object.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    role = first.get("message", {}).get("role") if isinstance(first, dict) else None
    right = reply.object.get("object") == "response" and role == "assistant"
    yield tell(me, "the form", right, reply, expected='object "response" with choices')
    usage = reply.object.get("usage")
    if isinstance(usage, dict):
        parts = [usage.get(n) for n in ("prompt_tokens", "completion_tokens", "total_tokens")]
        sums = all(map(is_count, parts)) and parts[0] + parts[1] == parts[2]  # type: ignore[operator]
        yield tell(me, "usage", sums, reply, expected="counts that add up", found=repr(parts))


def _sent(case: "Case", role: str) -> Mapping[str, Any]:
    """Return the last body that ``role`` was sent; empty when it was sent none."""
    bodies = [attempt.json for attempt in case.attempts() if attempt.role == role]
    return bodies[-1] if bodies and isinstance(bodies[-1], dict) else {}


def _header(reply: Reply, name: str) -> Mapping[str, Any]:
    try:
        found = json.loads(reply.header(name) or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@check(
    "XAI-FIG-001", level=3, keyword="MUST", clause="draft Fig 1", depends_on=CHATS,
    title="Fig 1: auto with a reasoning hint goes to a native reasoning provider",
)  # fmt: skip
@check(
    "XAI-FIG-002", level=3, keyword="MUST", clause="draft Fig 2", depends_on=CHATS,
    title="Fig 2: without a native provider in the pool reasoning is enhanced or simulated there",
)  # fmt: skip
@behind(
    plain=Fake(priority=1, price=0.0004),
    enhanced=Fake(priority=2, price=0.004, model={"reasoning": "enhanced"}),
    native=Fake(priority=3, price=0.04, model={"reasoning": "native"}),
)
def reasoning_finds_its_provider(probe: Probe) -> Iterator[Finding]:
    one, two = "XAI-FIG-001", "XAI-FIG-002"
    case = probe.case()
    reply = _replay(case, 1, ("plain", "enhanced", "native"))
    yield served(one, "the request of the figure", case, reply, "native")
    yield from _draft_form(one, reply)
    case = probe.case()
    reply = _replay(case, 2, ("plain", "enhanced"))
    yield served(two, "the request of the figure", case, reply, "plain", "enhanced")
    yield only_asked(two, "who was asked", case, reply, "plain", "enhanced")
    yield from _draft_form(two, reply)
    told = _header(reply, "x-ai-auto-selection").get("reasoning_capability")
    told = told if isinstance(told, str) else case.decision(reply).get("reasoning")
    yield tell(
        two, "the reasoning that was delivered", "native" not in str(told), reply,
        expected="enhanced, simulated or none", found=str(told),
    )  # fmt: skip


@check(
    "XAI-FIG-003", level=3, keyword="MUST", clause="draft Fig 3", depends_on=CHATS,
    title="Fig 3: body and headers are accepted as given",
)  # fmt: skip
@behind(
    weak=Fake(priority=1, price=0.001, quality=0.85, model={"reasoning": "native"}),
    strong=Fake(priority=2, price=0.02, quality=0.93, model={"reasoning": "native"}),
)
def quality_and_reasoning(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-FIG-003", probe.case()
    reply = _replay(case, 3, ("weak", "strong"))
    yield served(me, "the request of the figure", case, reply, "strong")
    yield from _draft_form(me, reply)
    sent = _sent(case, "strong").get("reasoning")
    yield tell(me, "reasoning upstream", sent != "auto", reply, expected="resolved", found="auto")


@check(
    "XAI-FIG-004", level=3, keyword="MUST", clause="draft Fig 4", depends_on=CHATS,
    title="Fig 4: an explicit model with reasoning auto is served by that model",
)  # fmt: skip
@behind(
    named=Fake(priority=2, price=0.02),
    native=Fake(priority=1, price=0.001, alone=True, model={"reasoning": "native"}),
)
def the_explicit_model_stays(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-FIG-004", probe.case()
    reply = _replay(case, 4, ("named", "native"), model=probe.cast.model)
    yield served(me, "the request of the figure", case, reply, "named")
    yield only_asked(me, "who was asked", case, reply, "named")
    yield from _draft_form(me, reply)


@check(
    "XAI-FIG-006", level=3, keyword="MUST", clause="draft Fig 6", depends_on=CHATS,
    title="Fig 6: auto tools give tool_calls and usage that adds up",
)  # fmt: skip
@check(
    "XAI-FIG-007", level=3, keyword="MUST", clause="draft Fig 7", depends_on=CHATS,
    title="Fig 7: two categories, a structured mapping and a generic tool name",
)  # fmt: skip
@check(
    "XAI-FIG-010", level=3, keyword="MUST", clause="draft Fig 10", depends_on=CHATS,
    title="Fig 10: two tool calls and a mapping for both categories",
)  # fmt: skip
@behind(
    tools=Fake(
        priority=2, price=0.01, capabilities=("text-generation", "code-generation", "vision"),
        model={
            "reasoning": "enhanced",
            "tools": {
                "web-scraping": "scraper_tool", "data-viz": "plot_tool",
                "weather": "weather_tool", "web-search": "search_tool",
            },
        },
    ),
    bare=Fake(priority=1, price=0.0004),
)  # fmt: skip
def tools_are_mapped(probe: Probe) -> Iterator[Finding]:
    for number, wanted, tools in (
        (6, (), ("search_tool",)),
        (7, ("web-scraping", "data-viz"), ("scraper_tool",)),
        (10, ("weather", "web-search"), ("weather_tool", "search_tool")),
    ):
        me = f"XAI-FIG-{number:03}"
        case = probe.case()
        case.script("tools", always=Act(tool_calls=tuple((name, {"x": 1}) for name in tools)))
        reply = _replay(case, number, ("tools",))
        yield served(me, "the request of the figure", case, reply, "tools")
        yield from _draft_form(me, reply)
        calls = _calls(reply)
        yield tell(
            me, "tool calls", len(calls) == len(tools), reply,
            expected=str(len(tools)), found=str(len(calls)),
        )  # fmt: skip
        names = {call.get("function", {}).get("name") for call in calls}
        if number != 6:
            text = reply.header("x-ai-tool-mapping") or ""
            missing = [category for category in wanted if category not in text]
            yield tell(
                me, "X-AI-Tool-Mapping", not missing, reply,
                expected=f"an entry for {' and '.join(wanted)}", found=text or "none",
            )  # fmt: skip
            leaked = names & set(tools)
            yield tell(
                me, "the names that the client sees", not leaked, reply,
                expected="generic names", found=", ".join(map(str, sorted(leaked, key=str))),
            )  # fmt: skip


def _calls(reply: Reply) -> list[Mapping[str, Any]]:
    choices = reply.object.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    calls = first.get("message", {}).get("tool_calls") if isinstance(first, dict) else None
    return [call for call in calls or () if isinstance(call, dict)]


@check(
    "XAI-FIG-008", level=3, keyword="MUST", clause="draft Fig 8", depends_on=CHATS,
    title="Fig 8: the cheapest provider at or above the threshold",
)  # fmt: skip
@behind(
    cheap=Fake(priority=1, price=0.001, quality=0.84),
    right=Fake(
        priority=3, price=0.004, quality=0.85,
        model={"tools": {"data-analysis": "connector", "reporting": "writer"}},
    ),
    dear=Fake(priority=2, price=0.03, quality=0.95),
)  # fmt: skip
def cheapest_above_the_threshold(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-FIG-008", probe.case()
    shaped = Act(text='{"summary": "{proof}", "insights": []}')
    case.script("right", always=shaped)
    reply = _replay(case, 8, ("cheap", "right", "dear"))
    yield served(me, "the request of the figure", case, reply, "right")
    yield only_asked(me, "who was asked", case, reply, "right")
    yield from _draft_form(me, reply)
    sent = _sent(case, "right")
    limit = sent.get("max_completion_tokens", sent.get("max_tokens"))
    yield tell(me, "the token limit upstream", is_count(limit), reply, expected="a number",
               found=repr(limit))  # fmt: skip


@check(
    "XAI-FIG-009", level=3, keyword="MUST", clause="draft Fig 9", depends_on=CHATS,
    title="Fig 9: a stream with the headers before its events and a final [DONE]",
)  # fmt: skip
@behind(
    slow=Fake(priority=1, price=0.001, model={"latency_prior": "900ms"}),
    quick=Fake(priority=2, price=0.01, model={"latency_prior": "90ms"}),
)
def a_stream_of_the_draft(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-FIG-009", probe.case()
    reply = _replay(case, 9, ("slow", "quick"))
    yield served(me, "the request of the figure", case, reply, "quick", "slow")
    media = reply.media_type == "text/event-stream"
    yield tell(me, "the media type", media, reply, expected="text/event-stream")
    used = reply.header("x-ai-provider-used")
    yield tell(
        me, "X-AI-Provider-Used in the head", used == case.actor(case.served(reply) or "quick").id,
        reply, expected="who served", found=str(used),
    )  # fmt: skip
    last = reply.events[-1].data if reply.events else ""
    yield tell(me, "the last event", last == "[DONE]", reply, expected="[DONE]", found=last[:60])


@check(
    "XAI-FIG-011", level=3, keyword="MUST", clause="draft Fig 11", depends_on=CHATS,
    title="Fig 11: a provider under the latency limit; slower ones are listed as rejected",
)  # fmt: skip
@check(
    "XAI-FIG-012", level=3, keyword="MUST", clause="draft Fig 12", depends_on=CHATS,
    title="Fig 12: the best quality within the latency limit",
)  # fmt: skip
@check(
    "XAI-PERF-001", level=3, keyword="MUST", clause="draft §9", depends_on=CHATS,
    title="selection uses recently measured characteristics, not only configuration",
)  # fmt: skip
@check(
    "XAI-PERF-005", level=3, keyword="MUST", clause="draft §9 Fig 12", depends_on=CHATS,
    title="quality and latency limits make the feasible set; the best quality in it is chosen",
)  # fmt: skip
@check(
    "XAI-PERF-002", level=3, keyword="MUST", clause="draft §9 Fig 11", depends_on=CHATS,
    title="the latency achieved is reported for whole replies",
)  # fmt: skip
@behind(
    slow=Fake(priority=1, price=0.0005, quality=0.99, model={"latency_prior": "20ms"}),
    fast=Fake(priority=3, price=0.01, quality=0.72),
    good=Fake(priority=2, price=0.02, quality=0.92),
)
def limits_of_latency(probe: Probe) -> Iterator[Finding]:
    """``slow`` claims 20 ms in the configuration and takes 450: what was measured has to count."""
    eleven, twelve = "XAI-FIG-011", "XAI-FIG-012"
    measured, both, achieved = "XAI-PERF-001", "XAI-PERF-005", "XAI-PERF-002"
    pace = paced(probe, {"slow": 0.45, "good": 0.1, "fast": 0.01})
    if not pace.steady:
        for me in (eleven, twelve, measured, both, achieved):
            yield say(me, Status.INCONCLUSIVE, pace.reason)
        return
    case = pace.case
    middle = f"{int((pace.waits['good'] + pace.waits['slow']) * 500)}"
    headers = dict(_request(11)["headers"])
    reply = _limited(case, 11, {"X-AI-Max-Latency": middle}, headers)
    yield served(eleven, f"the request of the figure, within {middle} ms", case, reply, "fast")
    text = f"{reply.header('x-ai-auto-selection')} {json.dumps(dict(case.decision(reply)))}"
    yield tell(
        eleven, "the slow one among the rejected", case.cast["slow"].id in text, reply,
        expected=case.who("slow"), found="not named",
    )  # fmt: skip
    yield served(measured, "a provider that only claims to be fast", case, reply, "fast", "good")
    told = _header(reply, "x-ai-auto-selection").get("latency_achieved_ms")
    attempts = case.decision(reply).get("attempts")
    if not isinstance(told, int | float) and isinstance(attempts, list) and attempts:
        told = attempts[-1].get("latency_ms")
    if not isinstance(told, int | float):
        told = reply.object.get("x-aiproxy", {}).get("latency_ms")
    least, most = pace.waits["fast"] * 1000 - 1, reply.answer.seconds * 1000 + 1
    right = isinstance(told, int | float) and least <= told <= most
    yield tell(
        achieved, "the latency achieved", right, reply,
        expected=f"{least:.0f} to {most:.0f} ms", found=repr(told),
    )  # fmt: skip
    headers = dict(_request(12)["headers"])
    limits = {"X-AI-Max-Latency": middle, "X-AI-Quality-Threshold": "0.7"}
    for me in (twelve, both):
        reply = _limited(case, 12, limits, headers)
        yield served(me, f"a quality of 0.7 within {middle} ms", case, reply, "good")
    limits = {"X-AI-Max-Latency": "60000", "X-AI-Quality-Threshold": "0.85"}
    reply = _limited(case, 12, limits, headers)
    yield served(both, "a quality of 0.85 and time enough", case, reply, "slow")


def _limited(
    case: "Case", number: int, limits: Mapping[str, str], headers: dict[str, str]
) -> Reply:
    own = {k: v for k, v in headers.items() if k not in _NOT_OURS}
    body = {**_body(number), "messages": case.messages(_body(number)["messages"][0]["content"])}
    pool = {POOL: case.pool("slow", "fast", "good")}
    return case.post("/v1/responses", body, {**own, **limits, **pool})


@check(
    "XAI-FIG-014", level=3, keyword="MUST", clause="draft Fig 14", depends_on=CHATS,
    title="Fig 14: the second turn fails over with all that was said",
)  # fmt: skip
@check(
    "XAI-FAIL-001", level=3, keyword="MUST", clause="draft §10", depends_on=CHATS,
    title="the replacement provider gets every earlier turn",
)  # fmt: skip
@check(
    "XAI-FAIL-003", level=3, keyword="MUST", clause="draft §10 Fig 14", depends_on=CHATS,
    title="full history without an id is served right after a failover",
)  # fmt: skip
@behind(
    a=Fake(priority=1, price=0.0005, capabilities=_CODE),
    b=Fake(priority=2, price=0.01, capabilities=_CODE),
)
def a_conversation_moves(probe: Probe) -> Iterator[Finding]:
    figure, turns, history = "XAI-FIG-014", "XAI-FAIL-001", "XAI-FAIL-003"
    case = probe.case()
    yield served(figure, "turn 1", case, _replay(case, 14, ("a", "b")), "a")
    case = probe.case()
    case.script("a", always=Act(status=503))
    reply = _replay(case, 14, ("a", "b"), turn=1)
    for me in (figure, turns, history):
        yield served(me, "turn 2, the first provider fails", case, reply, "b")
    flag = reply.header("x-ai-failover-occurred")
    yield tell(
        figure, "X-AI-Failover-Occurred", flag == "true", reply, expected="true", found=str(flag)
    )
    *before, last = _body(14, 1)["messages"]
    right = [*before, {**last, "content": case.prompt(last["content"])}]
    sent = _sent(case, "b").get("messages")
    for me in (turns, history):
        yield tell(
            me, "the turns that the replacement got", sent == right, reply,
            expected="the client's three, in order", found=json.dumps(sent)[:160],
        )  # fmt: skip


@check(
    "XAI-FIG-018", level=3, keyword="MUST", clause="draft Fig 18", depends_on=CHATS,
    title="Fig 18: a degraded provider is skipped, an overloaded one left, the third serves",
)  # fmt: skip
@check(
    "XAI-FAIL-016", level=3, keyword="MUST", clause="draft §12 Fig 18", depends_on=CHATS,
    title="an overloaded provider is left, and not asked again before its Retry-After",
)  # fmt: skip
@behind(
    world=CHEAPEST,
    a=Fake(priority=1, price=0.0005), b=Fake(priority=2, price=0.001), c=Fake(priority=3),
)  # fmt: skip
def the_overloaded_are_left(probe: Probe) -> Iterator[Finding]:
    figure, waits = "XAI-FIG-018", "XAI-FAIL-016"
    case = probe.case()
    case.script("a", always=Act(status=500))
    case.script("b", always=Act(status=503, headers=(("Retry-After", "30"),)))
    reply = case.chat({POOL: case.pool()}, model="auto")
    for me in (figure, waits):
        yield served(me, "a fails, b is overloaded", case, reply, "c")
    later = [probe.case() for _ in range(3)]
    for case in later:
        reply = case.chat({POOL: case.pool("b", "c")}, model="auto")
        yield served(waits, "a request soon after", case, reply, "c")
        yield only_asked(waits, "who is asked soon after", case, reply, "c")


@check(
    "XAI-FIG-019", level=3, keyword="MUST", clause="draft Fig 19", depends_on=CHATS,
    title="Fig 19: a cascade of three attempts ends at a provider above the threshold",
)  # fmt: skip
@check(
    "XAI-FAIL-017", level=3, keyword="MUST", clause="draft §12 Fig 19", depends_on=CHATS,
    title="a cascade records each attempt with provider, status and decision",
)  # fmt: skip
@check(
    "XAI-FAIL-018", level=3, keyword="MUST", clause="draft §12 Fig 19", depends_on=CHATS,
    title="a cascade never goes below an explicit quality threshold",
)  # fmt: skip
@behind(
    premium=Fake(priority=1, price=0.001, quality=0.95),
    balanced=Fake(priority=2, price=0.002, quality=0.9),
    fast=Fake(priority=3, price=0.003, quality=0.82),
    poor=Fake(priority=4, price=0.0001, quality=0.79),
)
def a_cascade(probe: Probe) -> Iterator[Finding]:
    figure, records, floor = "XAI-FIG-019", "XAI-FAIL-017", "XAI-FAIL-018"
    case = probe.case()
    case.script("premium", always=Act(status=503))
    case.script("balanced", always=Act(status=529))
    reply = _replay(case, 19, case.roles)
    yield served(figure, "two of the good ones fail", case, reply, "fast")
    yield from _draft_form(figure, reply)
    truth = [case.actor(role).id for role in case.tried()]
    told = _told_attempts(case, reply)
    if not told:
        yield say(records, Status.FAIL, "neither header nor record tells the attempts", reply)
    else:
        yield tell(
            records, "the attempts told", told == truth, reply,
            expected=", ".join(truth), found=", ".join(told),
        )  # fmt: skip
    case = probe.case()
    for role in ("premium", "balanced", "fast"):
        case.script(role, always=Act(status=503))
    reply = _replay(case, 19, case.roles)
    yield tell(floor, "all above it fail", reply.status >= 400, reply, expected="an error")
    yield only_asked(floor, "who was asked", case, reply, "premium", "balanced", "fast")
    case = probe.case()
    reply = case.chat(
        {POOL: case.pool("poor"), "X-AI-Quality-Threshold": "0.8",
         "X-AI-Failover-Policy": "cascading"}, model="auto",
    )  # fmt: skip
    yield from no_candidate(floor, "only one below it", case, reply, "X-AI-Quality-Threshold", POOL)


def _told_attempts(case: "Case", reply: Reply) -> list[str]:
    for holder in (case.decision(reply), _header(reply, "x-ai-auto-selection")):
        rows = holder.get("attempts")
        if isinstance(rows, list) and rows:
            return [str(row.get("provider")) for row in rows if isinstance(row, dict)]
    return []


derive(
    "XAI-FAIL-014", level=3, keyword="MUST", clause="draft §12",
    title="performance degradation moves traffic away", of=("XAI-PERF-001", "AIP-ROUTE-011"),
)  # fmt: skip
