"""What the decision headers say, held against each other and against what happened (draft §6)."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import CATEGORIES, CHATS, ask
from aiproxy.conformance.probe import Probe, say, tell, x_aiproxy
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import MAPPED, POOL, USED, served
from aiproxy.spec import Invalid, validate

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_SELECTION: Final = "x-ai-auto-selection"
_DECISIONS: Final = "x-ai-auto-decisions"
_MAPPING: Final = "x-ai-tool-mapping"
_CONFIDENCE: Final = "x-ai-selection-confidence"
_TOOL: Final = {"type": "function", "function": {"name": "own", "parameters": {"type": "object"}}}


def _invalid(text: str | None, schema: str) -> str:
    """Return why a header's text breaks the open schema of reading, or nothing."""
    if text is None:
        return "no such header"
    try:
        validate(json.loads(text), schema)
    except (ValueError, Invalid) as wrong:
        return str(wrong)[:160]
    return ""


@check(
    "XAI-RESP-008", level=3, keyword="MUST", clause="draft §6 Table 3", depends_on=CHATS,
    title="X-AI-Auto-Selection is a JSON object that describes the selection",
)  # fmt: skip
@check(
    "XAI-RESP-009", level=3, keyword="MUST", clause="draft §6 Table 3", depends_on=CHATS,
    title="X-AI-Tool-Mapping pairs categories with tools, when tools was auto",
)  # fmt: skip
@check(
    "XAI-RESP-010", level=3, keyword="MUST", clause="draft §6 Table 3", depends_on=CHATS,
    title="X-AI-Auto-Decisions has one entry for each auto parameter",
)  # fmt: skip
@check(
    "XAI-RESP-012", level=3, keyword="MUST", clause="draft §6 Table 3", depends_on=CHATS,
    title="X-AI-Selection-Confidence is a decimal from 0 to 1",
)  # fmt: skip
@behind(
    a=Fake(
        priority=1, price=0.003, quality=0.9,
        model={"tools": {"web-search": "find_tool"}, "reasoning": "native"},
    ),
    b=Fake(priority=2, price=0.02, quality=0.7),
)  # fmt: skip
def the_headers_describe_the_decision(probe: Probe) -> Iterator[Finding]:
    selection, mapping = "XAI-RESP-008", "XAI-RESP-009"
    decisions, confidence = "XAI-RESP-010", "XAI-RESP-012"
    for autos, entries in (
        ({}, 1),
        ({"max_completion_tokens": "auto"}, 2),
        ({"tools": "auto"}, 2),
        ({"tools": "auto", "max_completion_tokens": "auto", "reasoning": "auto"}, 4),
    ):
        case = probe.case()
        headers = {CATEGORIES: "web-search"} if "tools" in autos else {}
        reply = ask(case, ("a", "b"), headers, **_without_limit(autos))
        what = f"auto for model{''.join(f', {name}' for name in autos)}"
        if reply.status != 200:
            for me in (selection, mapping, decisions, confidence):
                yield say(me, Status.NOT_TESTABLE, f"{what}: {reply.outcome}", reply)
            continue
        wrong = _invalid(reply.header(_SELECTION), "auto-selection")
        yield tell(selection, what, not wrong, reply, expected="an object", found=wrong)
        yield from _of_mapping(mapping, what, reply, "tools" in autos)
        found = _object(reply.header(_DECISIONS))
        yield tell(
            decisions, what, len(found) == entries, reply,
            expected=f"{entries} entries", found=", ".join(found) or "none",
        )  # fmt: skip
        yield from _of_confidence(confidence, what, reply)
    case = probe.case()
    reply = ask(case, ("a", "b"), {}, tools=[_TOOL])
    given = reply.header(_MAPPING)
    yield tell(mapping, "tools of the client's own", given is None, reply, expected="no header",
               found=str(given))  # fmt: skip


def _without_limit(autos: Mapping[str, Any]) -> dict[str, Any]:
    """The usual small limit gives way to an automatic one."""
    from aiproxy.conformance.case import OMIT

    dropped = {"max_tokens": OMIT} if "max_completion_tokens" in autos else {}
    return {**dropped, **autos}


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _of_mapping(me: str, what: str, reply: Reply, wanted: bool) -> Iterator[Finding]:
    text = reply.header(_MAPPING)
    if not wanted:
        yield tell(me, what, text is None, reply, expected="no header", found=str(text))
        return
    wrong = _invalid(text, "tool-mapping")
    yield tell(me, what, not wrong, reply, expected="an object", found=wrong)
    named = "web-search" in (text or "") and "find_tool" in (text or "")
    yield tell(
        me, f"{what}: the pair", named, reply, expected="web-search with its tool", found=str(text)
    )


def _of_confidence(me: str, what: str, reply: Reply) -> Iterator[Finding]:
    text = reply.header(_CONFIDENCE)
    try:
        number = float(text) if text is not None else -1.0
    except ValueError:
        number = -1.0
    yield tell(me, what, 0.0 <= number <= 1.0, reply, expected="0.0 to 1.0", found=str(text))
    told = _object(reply.header(_SELECTION)).get("confidence")
    if isinstance(told, int | float):
        equal = abs(told - number) < 0.0051
        yield tell(me, f"{what}: as in {_SELECTION}", equal, reply, expected=f"{told}",
                   found=str(text))  # fmt: skip


@check(
    "XAI-RESP-037", level=3, keyword="MUST", clause="draft §6 (implied)", depends_on=CHATS,
    title="numbers in decision headers agree with reality and with each other",
)  # fmt: skip
@behind(a=Fake(priority=1, price=0.003, quality=0.83), b=Fake(priority=2, price=0.02, quality=0.7))
def numbers_agree(probe: Probe) -> Iterator[Finding]:
    """A scripted wait, a configured quality, and the times of a failover as its client saw it."""
    me, case = "XAI-RESP-037", probe.case()
    case.script("a", always=Act(wait_s=0.2))
    reply = ask(case, ("a", "b"), {"X-AI-Max-Latency": "60000"})
    yield served(me, "who served", case, reply, "a")
    least, most = 200.0 - 1, reply.answer.seconds * 1000 + 1
    told = _object(reply.header(_SELECTION))
    for name, value in (
        ("latency_achieved_ms", told.get("latency_achieved_ms")),
        ("x-aiproxy.latency_ms", x_aiproxy(reply).get("latency_ms")),
    ):
        if isinstance(value, int | float):
            yield tell(
                me, name, least <= value <= most, reply,
                expected=f"{least:.0f} to {most:.0f}", found=repr(value),
            )  # fmt: skip
    quality = told.get(
        "quality_achieved", _object(reply.header(_DECISIONS)).get("quality_achieved")
    )
    if quality is not None:
        yield tell(me, "quality_achieved", quality == 0.83, reply, expected="0.83",
                   found=repr(quality))  # fmt: skip
    used, mapped = reply.header(USED), reply.header(MAPPED)
    same = x_aiproxy(reply).get("provider") in (None, used)
    yield tell(me, "X-AI-Provider-Used and x-aiproxy.provider", same, reply, expected=str(used),
               found=str(x_aiproxy(reply).get("provider")))  # fmt: skip
    sent = {attempt.json.get("model") for attempt in case.attempts() if attempt.json}
    yield tell(
        me, "X-AI-Model-Mapped", mapped in sent, reply, expected=str(sent), found=str(mapped)
    )
    case = probe.case()
    case.script("a", always=Act(status=503, wait_s=0.15))
    reply = ask(case, ("a", "b"))
    lost = _object(reply.header(_SELECTION)).get("failover_time_ms")
    if isinstance(lost, int | float) and case.served(reply) == "b":
        most = reply.answer.seconds * 1000 + 1
        yield tell(
            me, "failover_time_ms", 149 <= lost <= most, reply,
            expected=f"150 to {most:.0f}", found=repr(lost),
        )  # fmt: skip


@check(
    "XAI-STREAM-013", level=3, keyword="MUST", clause="draft Fig 9", depends_on=CHATS,
    title="auto parameters are resolved the same way with and without a stream",
)  # fmt: skip
@behind(
    a=Fake(priority=1, price=0.003, model={"tools": {"web-search": "find_tool"}}),
    b=Fake(priority=2, price=0.02),
)
def streams_resolve_alike(probe: Probe) -> Iterator[Finding]:
    me = "XAI-STREAM-013"
    sent: list[dict[str, Any]] = []
    used: list[str] = []
    for stream in (False, True):
        case = probe.case()
        fields = _without_limit({"tools": "auto", "max_completion_tokens": "auto"})
        reply = ask(case, ("a", "b"), {CATEGORIES: "web-search"}, stream=stream, **fields)
        used.append(case.served(reply))
        if reply.status != 200 or not used[-1]:
            yield say(me, Status.NOT_TESTABLE, f"stream {stream}: {reply.outcome}", reply)
            return
        sent.append(_compared(case))
    yield tell(me, "who served", used[0] == used[1], expected=used[0], found=used[1])
    differs = sorted(k for k in {*sent[0], *sent[1]} if sent[0].get(k) != sent[1].get(k))
    yield tell(
        me, "what was sent upstream", not differs, expected="the same but for the stream",
        found=", ".join(f"{k}: {sent[0].get(k)!r} and {sent[1].get(k)!r}" for k in differs)[:160],
    )  # fmt: skip


def _compared(case: "Case") -> dict[str, Any]:
    """Return what was sent last, without what is different in each request and in streams."""
    body = case.attempts()[-1].json
    left_out = ("stream", "stream_options", "messages", "input")
    return {k: v for k, v in body.items() if k not in left_out} if isinstance(body, dict) else {}


@check(
    "XAI-STREAM-015", level=3, keyword="MUST", clause="draft §8 (implied)", depends_on=CHATS,
    title="tool calls stream as deltas that assemble into valid JSON arguments",
)  # fmt: skip
@behind(a=Fake(priority=1))
def tool_calls_stream_in_pieces(probe: Probe) -> Iterator[Finding]:
    """Seven pieces with quotes and letters of many bytes in them; two calls side by side."""
    me, case = "XAI-STREAM-015", probe.case()
    given = (
        ("look_up", {"query": 'Zürich "日本" and \\ more', "count": 7}),
        ("add", {"terms": [1, 2, {"deep": "ü"}]}),
    )
    case.script("a", always=Act(tool_calls=given, pieces=7))
    reply = case.stream({POOL: case.pool()}, model="auto", tools=[_TOOL])
    calls: dict[int, dict[str, str]] = {}
    for event in reply.events:
        for piece in _pieces(event.json):
            call = calls.setdefault(piece.get("index", 0), {"id": "", "name": "", "text": ""})
            function = piece.get("function") or {}
            call["id"] = call["id"] or str(piece.get("id") or "")
            call["name"] += function.get("name") or ""
            call["text"] += function.get("arguments") or ""
    found = [(call["name"], _value(call["text"])) for _, call in sorted(calls.items())]
    yield tell(
        me, "the calls put together", found == list(given), reply,
        expected=json.dumps(given, ensure_ascii=False), found=json.dumps(found, ensure_ascii=False),
    )  # fmt: skip
    ids = {call["id"] for call in calls.values()}
    yield tell(
        me, "their ids", len(ids) == len(given) and "" not in ids, reply,
        expected="one each", found=repr(sorted(ids)),
    )  # fmt: skip


def _pieces(chunk: Any) -> list[dict[str, Any]]:
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    found: list[dict[str, Any]] = []
    for choice in choices or ():
        found += (choice.get("delta") or {}).get("tool_calls") or ()
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
