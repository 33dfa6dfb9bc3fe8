"""Streams that go well: headers first, chunks as they come, text undamaged, an end (draft §8)."""

import re
from collections.abc import Iterator
from typing import Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.endings import LEGAL_FINISH, done, finish_of, shown, usages
from aiproxy.conformance.failing import among, no_answer_found
from aiproxy.conformance.probe import Probe, refused, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import USED, served

_STREAMS: Final = ("XAI-STREAM-006",)


@check(
    "XAI-STREAM-001",
    level=2,
    keyword="MUST",
    title="stream: true is answered with 200 and text/event-stream",
    clause="draft §8",
    depends_on=_STREAMS,
)
@check(
    "XAI-STREAM-003",
    level=2,
    keyword="MUST",
    title="decision headers stand in the response head, ahead of the first event",
    clause="draft Fig 9",
    depends_on=_STREAMS,
)
@check(
    "XAI-STREAM-016",
    level=2,
    keyword="SHOULD",
    title="streams are not to be cached, counted or compressed on the way",
    clause="draft §8",
    depends_on=_STREAMS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2))
def a_routed_stream(probe: Probe) -> Iterator[Finding]:
    case = probe.case()
    case.script("a", always=Act(wait_s=0.3))
    reply = case.stream(among(case, "a", "b"))
    streams = reply.status == 200 and reply.media_type == "text/event-stream"
    yield tell(
        "XAI-STREAM-001", "stream: true", streams, reply, expected="200 with text/event-stream",
        found=f"{reply.status} with {reply.media_type or 'no media type'}",
    )  # fmt: skip
    if not streams:
        for me in ("XAI-STREAM-003", "XAI-STREAM-016"):
            yield say(me, Status.INCONCLUSIVE, "no stream to look at", reply)
        return
    role = case.served(reply)
    used = reply.header(USED)
    yield tell(
        "XAI-STREAM-003", "X-AI-Provider-Used", bool(role) and used == case.actor(role).id, reply,
        expected=f"{case.who(role)}, in the head", found=used or "no such header in the head",
    )  # fmt: skip
    caching = (reply.header("cache-control") or "").lower()
    yield tell(
        "XAI-STREAM-016", "Cache-Control", "no-cache" in caching or "no-store" in caching, reply,
        expected="no-cache or no-store", found=caching or "none",
    )  # fmt: skip
    rest = [name for name in ("content-length", "content-encoding") if reply.header(name)]
    yield tell(
        "XAI-STREAM-016", "length and coding", not rest, reply, expected="neither",
        found=", ".join(rest),
    )  # fmt: skip


@check(
    "XAI-STREAM-010",
    level=2,
    keyword="MUST",
    title="what goes wrong before a stream begins is an ordinary error",
    clause="draft §8",
    depends_on=_STREAMS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2))
def errors_before_a_stream_are_plain(probe: Probe) -> Iterator[Finding]:
    me = "XAI-STREAM-010"
    unknown = probe.case()
    reply = unknown.stream(model=f"no-such-{probe.word()}")
    yield refused(me, "an unknown model", reply, 404)
    yield _plain(me, reply)
    case = probe.case()
    # The first of them fails after it began, before anything worth reading.
    case.script("a", always=Act(fault="error-event", after=0))
    case.script("b", always=Act(status=503))
    reply = case.stream(among(case, "a", "b"))
    yield no_answer_found(me, "nobody gave a stream", reply, 500, 502, 503, 504)
    yield _plain(me, reply)


def _plain(me: str, reply: Reply) -> Finding:
    return tell(
        me, "its media type", reply.media_type == "application/json", reply,
        expected="application/json", found=reply.media_type,
    )  # fmt: skip


# The fake sends its content events this far apart; a target that forwards them keeps the distance.
_GAP_S: Final = 0.4
_PIECES: Final = 4
_KEPT: Final = 0.5
_TRIES: Final = 2


@check(
    "XAI-STREAM-011",
    level=2,
    keyword="MUST",
    title="chunks are passed on as they come",
    clause="draft §8",
    depends_on=_STREAMS,
)
@behind(a=Fake(priority=1))
def chunks_are_passed_on_as_they_come(probe: Probe) -> Iterator[Finding]:
    """Looks at the distances between events, so that a slow machine delays all of them alike."""
    me, whole = "XAI-STREAM-011", _GAP_S * (_PIECES - 1)
    reply, spread = None, 0.0
    for _ in range(_TRIES):
        case = probe.case()
        case.script("a", always=Act(gap_s=_GAP_S, pieces=_PIECES))
        reply = case.stream(among(case, "a"))
        times = [event.at for event in reply.events if '"content"' in event.data]
        spread = times[-1] - times[0] if times else 0.0
        if spread >= _KEPT * whole:
            break
    yield tell(
        me, "time from the first to the last content", spread >= _KEPT * whole, reply,
        expected=f"about {whole:.1f} s, as the provider sent it", found=f"{spread:.2f} s",
    )  # fmt: skip


_LEAVES_S: Final = 2.0
_SLOW_S: Final = 6.0


@check(
    "XAI-STREAM-012",
    level=2,
    keyword="MUST",
    title="a client that leaves ends the provider's work",
    clause="draft §8",
    depends_on=_STREAMS,
)
@behind(a=Fake(priority=1))
def leaving_ends_the_work(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-STREAM-012", probe.case()
    # Nothing more is to be passed on for a while, so only watching the client shows that it left.
    case.script("a", always=Act(gap_s=_SLOW_S, pieces=3))
    reply = case.stream(among(case, "a"), leave_after=1, stop_after_s=_LEAVES_S)

    def left() -> bool:
        seen = probe.upstreams.attempts(case.nonce)
        return bool(seen) and all(attempt.gone for attempt in seen)

    gone = probe.poll(left, _LEAVES_S, 0.05)
    if not probe.upstreams.attempts(case.nonce):
        yield say(me, Status.INCONCLUSIVE, "the provider was not asked", reply)
        return
    yield tell(
        me, "the provider's connection", gone, reply, found="still open",
        expected=f"closed within {_LEAVES_S:g} s of the client's leaving",
    )  # fmt: skip


@check(
    "XAI-STREAM-014",
    level=2,
    keyword="SHOULD",
    title="stream_options.include_usage gives one usage before the end",
    clause="draft §8",
    depends_on=_STREAMS,
)
@behind(a=Fake(priority=1))
def usage_is_streamed_on_request(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-STREAM-014", probe.case()
    reply = case.stream(among(case, "a"), stream_options={"include_usage": True})
    found = usages(reply)
    yield tell(
        me, "usage", len(found) == 1, reply, expected="in one chunk", found=f"in {len(found)}"
    )
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    said = [attempt.usage for attempt in case.attempts() if attempt.usage]
    if len(found) == 1 and said:
        given = {name: found[0].get(name) for name in names}
        wanted = {name: said[-1].get(name) for name in names}
        yield tell(
            me, "its numbers", given == wanted, reply, expected=f"the provider's: {wanted}",
            found=str(given),
        )  # fmt: skip


# Two, three and four octets of UTF-8, a combining character, and one outside the first plane.
_LETTERS: Final = ' \u00e9 e\u0301 \u4f60\u597d \u05e9\u05dc\u05d5\u05dd \U0001f600\U0001f468\u200d\U0001f469 \\n "data: x" end'


@check(
    "XAI-STREAM-017",
    level=2,
    keyword="MUST",
    title="characters and events split over network reads arrive whole",
    clause="draft §8",
    depends_on=_STREAMS,
)
@behind(split=Fake(priority=1), crlf=Fake(priority=1), comments=Fake(priority=1))
def split_streams_are_read_right(probe: Probe) -> Iterator[Finding]:
    me = "XAI-STREAM-017"
    for fault in ("split", "crlf", "comments"):
        case = probe.case()
        case.script(fault, always=Act(fault=fault, text="{proof}" + _LETTERS, pieces=24))
        reply = case.stream(among(case, fault))
        fact = {
            "split": "a stream cut inside characters and lines",
            "crlf": "a stream with CRLF line ends",
            "comments": "a stream with comments in it",
        }[fault]
        yield served(me, fact, case, reply, fault)
        whole = re.fullmatch(r"proof-[0-9a-f]{24}" + re.escape(_LETTERS), reply.text)
        yield tell(
            me, f"the text of {fact}", whole is not None, reply,
            expected=f"ends in {_LETTERS[-30:]!r}", found=repr(reply.text[-40:]),
        )  # fmt: skip
        right = not reply.stream_fault and done(reply) and finish_of(reply) in LEGAL_FINISH
        yield tell(
            me, f"the end of {fact}", right, reply, expected="a finish_reason and [DONE]",
            found=reply.stream_fault or shown(reply),
        )  # fmt: skip
