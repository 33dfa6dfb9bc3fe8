"""Streams that break: one that was cut is never passed off as complete (draft §8).

Whatever goes wrong before the first content may be hidden by another provider. Afterwards the
client has read something, so the only honest end is an error.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.checks.failover_causes import PATIENCE
from aiproxy.conformance.endings import done, error_of, finish_of, shown
from aiproxy.conformance.endpoint import Reply
from aiproxy.conformance.failing import among, moved
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import only_asked

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_STREAMS: Final = ("XAI-STREAM-006",)
_FIRST: Final = Fake(priority=1)
_LAST: Final = Fake(priority=90)
# Content events before the fault, of this many: enough that any router has begun to forward.
_AFTER: Final = 3
_PIECES: Final = 8
# Apart, because what is read at once may be judged at once: then the failure came before output.
_GAP_S: Final = 0.08
_ONE_ANSWER: Final = re.compile(r"proof-[0-9a-f]{24}")
_WAIT_S: Final = 8.0


@check(
    "XAI-STREAM-008",
    level=2,
    keyword="MUST",
    title="a failure before the stream begins leads to one ordinary stream from another provider",
    clause="draft §8",
    depends_on=_STREAMS,
)
@behind(down=_FIRST, gone=_FIRST, early=_FIRST, b=_LAST)
def a_stream_may_start_elsewhere(probe: Probe) -> Iterator[Finding]:
    me = "XAI-STREAM-008"
    acts = {"down": Act(status=503), "gone": Act(fault="reset")}
    for role, act in acts.items():
        case = probe.case()
        case.script(role, always=act)
        reply = case.stream(among(case, role, "b"))
        fact = f"a stream, {'status 503' if role == 'down' else 'connection reset'} first"
        yield moved(me, fact, case, reply, off=role, onto="b")
        yield from _ordinary(me, fact, case, reply)
    # Begun, but nothing worth reading was sent: hidden or told, never called an answer.
    case = probe.case()
    case.script("early", always=Act(fault="cut", after=0, pieces=_PIECES))
    reply = case.stream(among(case, "early", "b"))
    if case.served(reply) == "b":
        yield from _ordinary(me, "a stream cut before its first content", case, reply)
    else:
        told = reply.status != 200 or bool(error_of(reply))
        yield tell(
            me, "a stream cut before its first content", told, reply, found=shown(reply),
            expected="the next provider's stream, or an error",
        )  # fmt: skip


def _ordinary(me: str, fact: str, case: "Case", reply: Reply) -> Iterator[Finding]:
    if case.served(reply) != "b":
        return
    whole = done(reply) and bool(finish_of(reply)) and not error_of(reply)
    yield tell(
        me, f"{fact}: its end", whole, reply, expected="a finish_reason and [DONE]",
        found=shown(reply),
    )  # fmt: skip
    ids = {str(e.json.get("id")) for e in reply.events if isinstance(e.json, dict)}
    yield tell(me, f"{fact}: its id", len(ids) == 1, reply, expected="one", found=str(len(ids)))


_BREAKS: Final = {
    "cut": "a connection that breaks",
    "cut-clean": "an end without a finish_reason",
    "error-event": "an error event of the provider",
    "no-finish": "[DONE] without a finish_reason",
    "stall": "silence",
}


@check(
    "XAI-STREAM-009",
    level=2,
    keyword="MUST",
    title="a failure after output has begun ends the stream with an error, without [DONE]",
    clause="draft §8",
    depends_on=_STREAMS,
)
@check(
    "XAI-STREAM-002",
    level=2,
    keyword="MUST",
    title="once output was passed on the provider does not change",
    clause="draft §8",
    depends_on=_STREAMS,
)
@behind(
    cut=_FIRST, cutclean=_FIRST, errorevent=_FIRST, nofinish=_FIRST,
    stall=Fake(priority=1, provider=PATIENCE), nodone=_FIRST, garbageevent=_FIRST, b=_LAST,
)  # fmt: skip
def a_broken_stream_ends_in_an_error(probe: Probe) -> Iterator[Finding]:
    cases = {fault: probe.case() for fault in _BREAKS}

    def ask(fault: str) -> Reply:
        case, role = cases[fault], _role(fault)
        case.script(role, always=Act(fault=fault, after=_AFTER, pieces=_PIECES, gap_s=_GAP_S))
        return case.stream(among(case, role, "b"), stop_after_s=_WAIT_S)

    replies = probe.together(cases, ask)
    for (fault, case), reply in zip(cases.items(), replies, strict=True):
        fact, role = _BREAKS[fault], _role(fault)
        hidden = case.served(reply) == "b" and _ONE_ANSWER.fullmatch(reply.text) is not None
        if reply.status != 200 or hidden or role not in case.order():
            for me in ("XAI-STREAM-009", "XAI-STREAM-002"):
                reason = f"{fact}: nothing of the first provider was passed on"
                yield say(me, Status.INCONCLUSIVE, reason, reply)
            continue
        yield from _broken(fact, fault, case, reply)
        yield only_asked("XAI-STREAM-002", fact, case, reply, role)
    yield from _without_end_mark(probe)
    yield from _with_garbage(probe)


def _role(fault: str) -> str:
    return fault.replace("-", "")


def _broken(fact: str, fault: str, case: "Case", reply: Reply) -> Iterator[Finding]:
    me = "XAI-STREAM-009"
    honest = not done(reply) and not finish_of(reply)
    yield tell(
        me, f"{fact}: not called complete", honest, reply, found=shown(reply),
        expected="no finish_reason and no [DONE]",
    )  # fmt: skip
    if not honest:
        return
    error = error_of(reply)
    # How long silence may last is the operator's choice, and not every target can be told.
    soft = fault == "stall" and reply.answer.seconds > _WAIT_S - 0.5
    yield tell(
        me, f"{fact}: said to the client", bool(error), reply, found=shown(reply),
        expected="an error object in the last event", otherwise=Status.WARN if soft else Status.FAIL,
    )  # fmt: skip
    if error:
        code = error.get("code")
        yield tell(
            me, f"{fact}: its code", code == "stream_interrupted", reply, otherwise=Status.WARN,
            expected="stream_interrupted", found=repr(code),
        )  # fmt: skip


def _without_end_mark(probe: Probe) -> Iterator[Finding]:
    """The negative twin: a finish_reason was seen, so nothing is missing but the mark."""
    case = probe.case()
    case.script("nodone", always=Act(fault="no-done"))
    reply = case.stream(among(case, "nodone", "b"))
    right = case.served(reply) == "nodone" and bool(finish_of(reply)) and done(reply)
    yield tell(
        "XAI-STREAM-009", "a whole stream without [DONE]", right, reply, otherwise=Status.WARN,
        expected="complete, with [DONE]", found=shown(reply),
    )  # fmt: skip


def _with_garbage(probe: Probe) -> Iterator[Finding]:
    """One unreadable event may be left out or end the stream; it must not reach the client."""
    case = probe.case()
    case.script(
        "garbageevent",
        always=Act(fault="garbage-event", after=_AFTER, pieces=_PIECES, gap_s=_GAP_S),
    )
    reply = case.stream(among(case, "garbageevent", "b"))
    unread = [event.data[:60] for event in reply.events if not event.done and event.json is None]
    yield tell(
        "XAI-STREAM-009", "an event that does not parse", not unread, reply,
        expected="not passed on", found="; ".join(unread), otherwise=Status.WARN,
    )  # fmt: skip
    ended = bool(error_of(reply)) or (done(reply) and bool(finish_of(reply)))
    yield tell(
        "XAI-STREAM-009", "the stream around it", ended, reply, found=shown(reply),
        expected="an end or an error",
    )  # fmt: skip
