"""HTTP itself, byte by byte where that matters (draft §4.5, §15.1)."""

import json
from collections.abc import Iterator

from aiproxy.conformance.checks import check
from aiproxy.conformance.endpoint import CHAT, MODELS
from aiproxy.conformance.probe import Probe, tell
from aiproxy.conformance.results import Finding
from aiproxy.conformance.transport import Unanswered


@check(
    "XAI-PRIN-008",
    level=1,
    keyword="MUST",
    title="a bare HTTP/1.1 request is enough",
    clause="draft §4.5",
    depends_on=("AIP-API-001",),
)
def a_bare_request_is_enough(probe: Probe) -> Iterator[Finding]:
    """Nothing but Host, the key, type and length: no User-Agent, no Accept, nothing of ours."""
    content = json.dumps(probe.body()).encode()
    head = probe.endpoint.raw_head(
        "POST",
        CHAT,
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Connection: close",
        polite=False,
    )
    try:
        reply = probe.endpoint.raw(head + content)[0]
    except Unanswered as fault:
        yield tell("XAI-PRIN-008", "a bare request", False, expected="200", found=fault.reason)
        return
    yield tell("XAI-PRIN-008", "a bare request", reply.status == 200, reply, expected="200")


@check(
    "XAI-COMPAT-022",
    level=1,
    keyword="SHOULD",
    title="HEAD, OPTIONS, keep-alive, chunked requests and contradictory lengths are handled",
    clause="draft §15.1",
    depends_on=("AIP-API-001",),
)
def http_is_spoken_well(probe: Probe) -> Iterator[Finding]:
    me, endpoint = "XAI-COMPAT-022", probe.endpoint
    for method in ("HEAD", "OPTIONS"):
        reply = endpoint.send(method, MODELS)
        yield tell(me, method, reply.status < 500, reply, expected="no server error")
    get = endpoint.raw_head("GET", MODELS)
    try:
        both = endpoint.raw(get + endpoint.raw_head("GET", MODELS, "Connection: close"), replies=2)
        yield tell(
            me, "two requests on one connection", len(both) == 2, both[0],
            expected="two answers", found=f"{len(both)}",
        )  # fmt: skip
    except Unanswered as fault:
        yield tell(me, "two requests on one connection", False, found=fault.reason)
    content = json.dumps(probe.body()).encode()
    try:
        reply = endpoint.send("POST", CHAT, content=content, chunked=True)
        yield tell(me, "a chunked request", reply.status == 200, reply, expected="200")
    except Unanswered as fault:
        yield tell(me, "a chunked request", False, expected="200", found=fault.reason)
    sizes = (f"Content-Length: {len(content)}", f"Content-Length: {len(content) + 5}")
    head = endpoint.raw_head("POST", CHAT, "Content-Type: application/json", *sizes)
    try:
        reply = endpoint.raw(head + content + b"     ")[0]
        yield tell(me, "two lengths", 400 <= reply.status < 500, reply, expected="status 400")
    except Unanswered:
        yield tell(me, "two lengths", True)  # closing the connection is the other right answer


@check(
    "AIP-API-037",
    level=1,
    keyword="SHOULD",
    title="each answer carries its own x-request-id",
    clause="aiproxy §5",
    depends_on=("AIP-API-001",),
)
def answers_carry_a_request_id(probe: Probe) -> Iterator[Finding]:
    me = "AIP-API-037"
    replies = [
        probe.chat(),
        probe.endpoint.get(MODELS),
        probe.endpoint.post(CHAT, b"{"),
    ]
    ids = [reply.header("x-request-id") for reply in replies]
    missing = sum(not identifier for identifier in ids)
    yield tell(
        me, "x-request-id", not missing, replies[0],
        expected="on each answer", found=f"missing on {missing} of {len(ids)}",
    )  # fmt: skip
    known = [identifier for identifier in ids if identifier]
    yield tell(
        me, "its value", len(known) == len(set(known)), replies[0],
        expected="a new one each time", found="the same twice",
    )  # fmt: skip
