"""Which failures of a provider send a request to the next one, and which do not (draft §10)."""

from collections.abc import Iterator
from typing import Final

from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.failing import among, coded, moved, no_answer_found
from aiproxy.conformance.probe import Probe, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import only_asked, served

_CHATS: Final = ("AIP-API-001",)
_MOVES: Final = ("XAI-HDR-070",)

# Long against the answer of a fake on loopback, short against what a person would wait.
PATIENCE: Final = {"timeouts": {"first_byte": "1s", "first_token": "1s", "idle": "1s"}}
PATIENCE_S: Final = 1.0
# Choosing, asking the second provider and all of the machine's own delays.
_OVERHEAD_S: Final = 2.0
_LATE_S: Final = 8.0
_STATUSES: Final = (408, 429, 500, 502, 503, 504, 529)
_FIRST: Final = Fake(priority=1)
_LAST: Final = Fake(priority=90)


@check(
    "XAI-FAIL-005",
    level=2,
    keyword="MUST",
    title="a provider that does not answer in time is given up for the next",
    clause="draft §10 Fig 13",
    depends_on=_CHATS,
)
@behind(
    slow=Fake(priority=1, provider=PATIENCE),
    mute=Fake(priority=1, provider=PATIENCE),
    b=_LAST,
)
def a_timeout_moves_on(probe: Probe) -> Iterator[Finding]:
    me, most = "XAI-FAIL-005", PATIENCE_S + _OVERHEAD_S
    late, silent = probe.case(), probe.case()
    late.script("slow", always=Act(wait_s=_LATE_S))
    silent.script("mute", always=Act(fault="silence"))

    def ask(role: str) -> Reply:
        if role == "slow":
            return late.chat(among(late, role, "b"))
        return silent.stream(among(silent, role, "b"), stop_after_s=_LATE_S)

    reply, streamed = probe.together(("slow", "mute"), ask)
    yield moved(me, "a late answer", late, reply, off="slow", onto="b")
    took = reply.answer.seconds
    yield tell(
        me, "the time it cost", took <= most, reply, found=f"{took:.1f} s",
        expected=f"at most the timeout of {PATIENCE_S:g} s and {_OVERHEAD_S:g} s",
    )  # fmt: skip
    yield moved(me, "silence instead of a stream", silent, streamed, off="mute", onto="b")


@check(
    "XAI-FAIL-006",
    level=2,
    keyword="MUST",
    title="no connection, no TLS and no address are failures that move on",
    clause="draft §10",
    depends_on=_CHATS,
)
@behind(
    refused=Fake(priority=1, reach="refused"),
    untrusted=Fake(priority=1, reach="bad-tls"),
    unknown=Fake(priority=1, reach="no-such-host"),
    b=_LAST,
)
def an_unreachable_provider_moves_on(probe: Probe) -> Iterator[Finding]:
    me = "XAI-FAIL-006"
    what = {
        "refused": "a refused connection",
        "untrusted": "a certificate nobody vouches for",
        "unknown": "a host name that does not exist",
    }
    for role, fact in what.items():
        case = probe.case()
        reply = case.chat(among(case, role, "b"))
        yield moved(me, fact, case, reply, off=role, onto="b", seen=False)
    yield from _trusted_nobody(probe)


def _trusted_nobody(probe: Probe) -> Iterator[Finding]:
    """The negative twin: what must not be trusted is not asked even when nobody else is left."""
    case = probe.case()
    reply = case.chat(among(case, "untrusted"))
    yield no_answer_found("XAI-FAIL-006", "nobody to move on to", reply, 500, 502, 503, 504)
    yield only_asked("XAI-FAIL-006", "the certificate", case, reply)


@check(
    "XAI-FAIL-007",
    level=2,
    keyword="MUST",
    title="statuses 408, 429, 500, 502, 503, 504 and 529 move on",
    clause="draft §10",
    depends_on=_CHATS,
)
@behind(
    s408=_FIRST, s429=_FIRST, s500=_FIRST, s502=_FIRST, s503=_FIRST, s504=_FIRST, s529=_FIRST,
    b=_LAST,
)  # fmt: skip
def a_transient_status_moves_on(probe: Probe) -> Iterator[Finding]:
    for status in _STATUSES:
        case, role = probe.case(), f"s{status}"
        case.script(role, always=Act(status=status))
        reply = case.chat(among(case, role, "b"))
        yield moved("XAI-FAIL-007", f"status {status}", case, reply, off=role, onto="b")


@check(
    "XAI-FAIL-008",
    level=2,
    keyword="MUST",
    title="statuses 400, 413 and 422 are the client's and are not tried elsewhere",
    clause="draft §10",
    depends_on=_CHATS,
)
@behind(s400=_FIRST, s413=_FIRST, s422=_FIRST, b=_LAST)
def a_refused_request_stays(probe: Probe) -> Iterator[Finding]:
    me = "XAI-FAIL-008"
    for status in (400, 413, 422):
        case, role = probe.case(), f"s{status}"
        case.script(role, always=Act(status=status, code="invalid_value"))
        reply = case.chat(among(case, role, "b"))
        yield only_asked(me, f"after status {status}", case, reply, role)
        if reply.status != 200:
            clients = 400 <= reply.status < 500 and reply.status not in (401, 403, 408, 429)
            yield tell(
                me, f"the answer to status {status}", clients, reply,
                expected=f"{status} or another refusal of the request",
            )  # fmt: skip


@check(
    "XAI-FAIL-009",
    level=2,
    keyword="MUST",
    title="a provider's 401 or 403 is the operator's fault and never reaches the client",
    clause="draft §10",
    depends_on=_CHATS,
)
@behind(s401=_FIRST, s403=_FIRST, alone=_FIRST, barred=_FIRST, b=_LAST)
def a_credential_fault_is_not_the_clients(probe: Probe) -> Iterator[Finding]:
    me = "XAI-FAIL-009"
    for status, shared, single in ((401, "s401", "alone"), (403, "s403", "barred")):
        case = probe.case()
        case.script(shared, always=Act(status=status))
        reply = case.chat(among(case, shared, "b"))
        yield moved(me, f"status {status}", case, reply, off=shared, onto="b")

        case, key = probe.case(), probe.cast[single].key
        told = f"Incorrect API key provided: {key[:10]}...{key[-6:]}"
        case.script(single, always=Act(status=status, message=told))
        reply = case.chat(among(case, single))
        yield no_answer_found(me, f"status {status} and nobody else", reply, 500, 502, 503)
        yield coded(me, reply, "upstream_auth_failed", "all_providers_failed")
        leaks = key[:10].encode() in reply.body or key[-6:].encode() in reply.body
        yield tell(me, "parts of the key", not leaks, reply, expected="not shown")


_BROKEN: Final = {
    "html": "an HTML page",
    "empty": "an empty body",
    "not-json": "a body that is not JSON",
    "wrong-shape": "JSON of another shape",
    "error-in-200": "an error object",
    "short-body": "a body cut short",
}


@check(
    "XAI-FAIL-010",
    level=2,
    keyword="MUST",
    title="status 200 with a body that is no answer is a failure that moves on",
    clause="draft §10",
    depends_on=_CHATS,
)
@behind(
    html=_FIRST, empty=_FIRST, notjson=_FIRST, wrongshape=_FIRST, errorin200=_FIRST,
    shortbody=_FIRST, alone=_FIRST, b=_LAST,
)  # fmt: skip
def a_broken_answer_moves_on(probe: Probe) -> Iterator[Finding]:
    me = "XAI-FAIL-010"
    for fault, fact in _BROKEN.items():
        case, role = probe.case(), fault.replace("-", "")
        case.script(role, always=Act(fault=fault))
        reply = case.chat(among(case, role, "b"))
        yield moved(me, fact, case, reply, off=role, onto="b")
    case = probe.case()
    case.script("alone", always=Act(fault="html"))
    reply = case.chat(among(case, "alone"))
    yield no_answer_found(me, "an HTML page and nobody else", reply, 500, 502, 503)
    yield coded(me, reply, "upstream_invalid_response", "all_providers_failed")


# One try and three more is what routing.failover.max_retries says by default.
_MOST_ATTEMPTS: Final = 4


@check(
    "XAI-FAIL-022",
    level=2,
    keyword="MUST",
    title="when everybody fails the client gets one error that sums it up",
    clause="draft §12",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2), c=Fake(priority=3), d=Fake(priority=4))
def an_exhausted_chain_is_one_error(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-FAIL-022", probe.case()
    secret = f"internal-{probe.word()}"
    for role in case.roles:
        case.script(role, always=Act(status=503, message=f"queue {secret} is full"))
    reply = case.chat(among(case, *case.roles))
    yield no_answer_found(me, "the answer when all fail", reply, 502, 503)
    yield coded(me, reply, "all_providers_failed", "provider_overloaded")
    shown = secret.encode() in reply.body or any(secret in value for _, value in reply.headers)
    yield tell(me, "the providers' own words", not shown, reply, expected="not passed on")
    tried = len(case.tried())
    yield tell(
        me, "the number of attempts", 1 <= tried <= _MOST_ATTEMPTS, reply,
        expected=f"1 to {_MOST_ATTEMPTS} (max_retries 3)", found=str(tried),
    )  # fmt: skip
    advised = reply.header("x-should-retry") == "false" or reply.header("retry-after")
    yield tell(
        me, "advice about trying again", bool(advised), reply, otherwise=Status.WARN,
        expected="x-should-retry: false or Retry-After", found="neither",
    )  # fmt: skip


@check(
    "XAI-FAIL-023",
    level=2,
    keyword="MUST",
    title="who is tried next satisfies the same constraints as the first",
    clause="draft §10",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2), outside=Fake(priority=3), fit=Fake(priority=4))
def a_failover_keeps_the_constraints(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-FAIL-023", probe.case()
    for role in ("a", "b"):
        case.script(role, always=Act(status=503))
    reply = case.chat(among(case, "a", "b"))
    yield only_asked(me, "a pool whose members fail", case, reply, "a", "b")
    yield no_answer_found(me, "its answer", reply, 502, 503)
    twin = probe.case()
    for role in ("a", "b"):
        twin.script(role, always=Act(status=503))
    reply = twin.chat(among(twin, "a", "b", "fit"))
    yield served(me, "a pool with one who is well", twin, reply, "fit")


# Every other one meets a failing provider, now this one and now that: no order avoids them all.
_OUTAGE: Final = 24


@check(
    "XAI-PRIN-002",
    level=2,
    keyword="MUST",
    title="a provider's outage is hidden while another one is well",
    clause="draft §3 problem 2",
    depends_on=_MOVES,
)
@behind(a=Fake(priority=1), b=Fake(priority=2))
def an_outage_is_hidden(probe: Probe) -> Iterator[Finding]:
    me = "XAI-PRIN-002"
    ways = (Act(status=503), Act(status=500), Act(fault="reset"), Act(fault="close"))
    cases = [probe.case() for _ in range(_OUTAGE)]
    for number, case in enumerate(cases[::2]):
        case.script("ab"[number % 2], always=ways[number % len(ways)])
    replies = [case.chat(among(case, "a", "b")) for case in cases]
    for case, reply in zip(cases, replies, strict=True):
        if reply.status != 200 or not case.served(reply):
            yield served(me, "a request while one provider comes and goes", case, reply, "a", "b")
            return
    met = sum(attempt.status != 200 for case in cases for attempt in case.attempts())
    if not met:
        yield tell(
            me, "the outage", False, expected="at least one request that met it", found="none",
            otherwise=Status.INCONCLUSIVE,
        )  # fmt: skip
        return
    yield tell(me, f"{_OUTAGE} requests, {met} failures behind them", True, replies[-1])


derive(
    "XAI-ARCH-008", level=2, keyword="MUST", title="failures are handled by trying alternatives",
    clause="draft §14 component 6",
    of=("XAI-FAIL-005", "XAI-FAIL-006", "XAI-FAIL-007", "XAI-FAIL-008", "XAI-FAIL-022"),
)  # fmt: skip
