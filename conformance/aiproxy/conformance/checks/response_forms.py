"""POST /v1/responses in both its forms: the draft's with messages, the genuine with input."""

from collections.abc import Iterator
from typing import Any, Final

from aiproxy.conformance.case import OMIT, RESPONSES
from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.endings import finish_of, shown
from aiproxy.conformance.failing import among, coded
from aiproxy.conformance.probe import Probe, declines, is_count, refused, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import served
from aiproxy.conformance.sse import Event

_CHATS: Final = ("AIP-API-001",)
_DRAFT: Final = ("XAI-COMPAT-013",)


@check(
    "XAI-COMPAT-013",
    level=2,
    keyword="MUST",
    title="/v1/responses takes messages and answers with object response and choices",
    clause="draft Fig 1-21",
    depends_on=_CHATS,
)
@check(
    "XAI-COMPAT-014",
    level=2,
    keyword="SHOULD",
    title="/v1/responses takes input and answers with output items",
    clause="draft §1",
    depends_on=_CHATS,
)
@check(
    "XAI-COMPAT-015",
    level=2,
    keyword="MUST",
    title="both messages and input, or neither, are refused",
    clause="draft",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2))
def both_forms_are_answered(probe: Probe) -> Iterator[Finding]:
    yield from _draft(probe)
    yield from _genuine(probe)
    me = "XAI-COMPAT-015"
    case = probe.case()
    both = case.draft(among(case, "a", "b"), input="Say ok.")
    yield refused(me, "messages and input", both, 400)
    neither = case.draft(among(case, "a", "b"), messages=OMIT)
    yield refused(me, "neither messages nor input", neither, 400)
    for reply, code in ((both, "invalid_value"), (neither, "missing_required_parameter")):
        if reply.status == 400:
            yield coded(me, reply, code)


def _draft(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-COMPAT-013", probe.case()
    reply = case.draft(among(case, "a", "b"))
    yield served(me, "a body with messages", case, reply, "a", "b")
    if reply.status != 200:
        return
    body = reply.object
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    role = message.get("role") if isinstance(message, dict) else None
    facts: dict[str, tuple[bool, str, Any]] = {
        "id": (isinstance(body.get("id"), str) and bool(body["id"]), "text", body.get("id")),
        "object": (body.get("object") == "response", "'response'", body.get("object")),
        "created": (is_count(body.get("created")), "an integer", body.get("created")),
        "choices[0].message.role": (role == "assistant", "'assistant'", role),
    }
    for name, (right, wanted, found) in facts.items():
        yield tell(me, name, right, reply, expected=wanted, found=repr(found))


def _genuine(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-COMPAT-014", probe.case()
    reply = case.responses(among(case, "a", "b"))
    if declines(reply):
        yield tell(me, "a body with input", False, reply, expected="an answer")
        return
    yield served(me, "a body with input", case, reply, "a", "b")
    body = reply.object
    output = body.get("output")
    items = output if isinstance(output, list) else []
    parts = [
        part.get("type")
        for item in items
        if isinstance(item, dict) and item.get("type") == "message"
        for part in item.get("content") or ()
    ]
    kind, status = body.get("object"), body.get("status")
    yield tell(me, "object", kind == "response", reply, expected="'response'", found=repr(kind))
    yield tell(me, "status", status == "completed", reply, expected="completed", found=repr(status))
    yield tell(
        me, "output", "output_text" in parts, reply, expected="a message with output_text",
        found=f"{parts}",
    )  # fmt: skip
    yield tell(me, "choices", "choices" not in body, reply, expected="none in this form")


@check(
    "XAI-STREAM-004",
    level=2,
    keyword="MUST",
    title="the draft's streams are response.chunk objects with one id",
    clause="draft Fig 9",
    depends_on=_DRAFT,
)
@check(
    "XAI-STREAM-005",
    level=2,
    keyword="MUST",
    title="a completed stream in the draft's form ends with [DONE] and nothing after it",
    clause="draft Fig 9",
    depends_on=_DRAFT,
)
@behind(a=Fake(priority=1), b=Fake(priority=2))
def a_draft_stream(probe: Probe) -> Iterator[Finding]:
    case = probe.case()
    case.script("a", always=Act(pieces=6))
    reply = case.draft(among(case, "a", "b"), stream=True)
    yield served("XAI-STREAM-004", "a stream in the draft's form", case, reply, "a", "b")
    chunks = [event for event in reply.events if not event.done]
    if reply.status != 200 or not chunks:
        yield say("XAI-STREAM-005", Status.INCONCLUSIVE, "there is no stream", reply)
        return
    yield from _chunks(reply, chunks)
    places = [place for place, event in enumerate(reply.events) if event.done]
    yield tell(
        "XAI-STREAM-005", "[DONE]", places == [len(reply.events) - 1], reply, found=shown(reply),
        expected="once, as the last event",
    )  # fmt: skip
    rest = reply.stream_fault or reply.answer.incomplete
    yield tell("XAI-STREAM-005", "the end", not rest, reply, expected="then nothing", found=rest)


def _chunks(reply: Reply, chunks: list[Event]) -> Iterator[Finding]:
    me = "XAI-STREAM-004"
    wrong = [event.data[:80] for event in chunks if not isinstance(event.json, dict)]
    yield tell(me, "each event", not wrong, reply, expected="a JSON object", found="; ".join(wrong))
    if wrong:
        return
    kinds = {str(event.json.get("object")) for event in chunks}
    yield tell(
        me, "object", kinds == {"response.chunk"}, reply, expected="response.chunk in each",
        found=", ".join(sorted(kinds)),
    )  # fmt: skip
    ids = {str(event.json.get("id")) for event in chunks}
    yield tell(
        me, "id", len(ids) == 1 and ids != {"None"}, reply, expected="the same in each",
        found=", ".join(sorted(ids))[:120],
    )  # fmt: skip


@check(
    "XAI-STREAM-007",
    level=2,
    keyword="SHOULD",
    title="a genuine Responses stream has typed events from created to completed, in order",
    clause="draft §8",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2))
def a_genuine_stream(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-STREAM-007", probe.case()
    reply = case.stream(among(case, "a", "b"), path=RESPONSES)
    yield served(me, "a Responses stream", case, reply, "a", "b")
    bodies = [event.json for event in reply.events if isinstance(event.json, dict)]
    kinds = [str(body.get("type")) for body in bodies]
    if not kinds:
        return
    right = kinds[0] == "response.created" and finish_of(reply) == "response.completed"
    right = right and kinds[-1] == "response.completed"
    yield tell(
        me, "first and last", right, reply, expected="response.created to response.completed",
        found=f"{kinds[0]} to {kinds[-1]}",
    )  # fmt: skip
    numbers = [body.get("sequence_number") for body in bodies]
    counted = [number for number in numbers if is_count(number)]
    rising = len(counted) == len(numbers) and counted == sorted(set(counted))
    yield tell(me, "sequence_number", rising, reply, expected="rising", found=str(numbers)[:80])
