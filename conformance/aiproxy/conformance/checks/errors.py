"""Faulty requests and the refusals they earn (draft §15.3)."""

from collections.abc import Iterator
from typing import Final

from aiproxy.conformance.checks import check
from aiproxy.conformance.endpoint import CHAT, Reply
from aiproxy.conformance.probe import Probe, refused, say, tell
from aiproxy.conformance.results import Finding, Status

_CHATS: Final = ("AIP-API-001",)


@check(
    "XAI-COMPAT-004",
    level=1,
    keyword="MUST",
    title="a body that is not JSON gets 400",
    clause="draft §15.3",
    depends_on=_CHATS,
)
@check(
    "XAI-COMPAT-005",
    level=1,
    keyword="MUST",
    title="an unknown model gets 404",
    clause="draft §15.3",
    depends_on=_CHATS,
)
@check(
    "XAI-COMPAT-006",
    level=1,
    keyword="MUST",
    title="a missing required field gets 400 and is named",
    clause="draft §15.3",
    depends_on=_CHATS,
)
@check(
    "XAI-COMPAT-007",
    level=1,
    keyword="MUST",
    title="a value of the wrong type gets 400",
    clause="draft §15.3",
    depends_on=_CHATS,
)
@check(
    "XAI-COMPAT-003",
    level=1,
    keyword="MUST",
    title="errors are OpenAI error objects with message, type, param and code",
    clause="draft §15.3",
    depends_on=_CHATS,
)
def faulty_requests_are_refused(probe: Probe) -> Iterator[Finding]:
    broken = probe.endpoint.post(CHAT, b"{")
    yield refused("XAI-COMPAT-004", 'the body "{"', broken, 400)
    yield _code("XAI-COMPAT-004", broken, "invalid_json")

    name = f"no-such-model-{probe.word()}"
    unknown = probe.chat(model=name)
    yield refused("XAI-COMPAT-005", f"model {name!r}", unknown, 404)
    yield _code("XAI-COMPAT-005", unknown, "model_not_found")

    missing = probe.endpoint.post(CHAT, _without(probe, "messages"))
    yield refused("XAI-COMPAT-006", "no messages", missing, 400)
    if missing.status == 400 and "param" in missing.error:
        yield _named("XAI-COMPAT-006", missing, "messages")
    nameless = probe.endpoint.post(CHAT, _without(probe, "model"))
    # A server with one model may well know which one is meant.
    yield tell(
        "XAI-COMPAT-006", "no model", nameless.status == 400, nameless, expected="status 400",
        otherwise=Status.WARN if nameless.status == 200 else Status.FAIL,
    )  # fmt: skip

    text = probe.chat(messages=probe.word())
    yield refused("XAI-COMPAT-007", "messages as text", text, 400)
    listed = probe.chat(temperature=[0.5])
    yield refused("XAI-COMPAT-007", "temperature as a list", listed, 400)
    number = probe.chat(messages=[{"role": 5, "content": probe.word()}])
    yield refused("XAI-COMPAT-007", "role as a number", number, 400)

    yield from _shapes([broken, unknown, missing, nameless, text, listed, number])


def _shapes(replies: list[Reply]) -> Iterator[Finding]:
    me = "XAI-COMPAT-003"
    refusals = [reply for reply in replies if reply.status >= 400]
    if not refusals:
        yield say(me, Status.NOT_TESTABLE, "no error could be provoked")
    for reply in refusals:
        fault = _wrong_with(reply)
        yield tell(
            me, "the error object", not fault, reply, expected='{"error":{four keys}} as JSON',
            found=f"{fault} ({reply.outcome})",
        )  # fmt: skip
        code = reply.error.get("code")
        if not fault and not isinstance(code, str | None):
            yield tell(
                me, "error.code", False, reply, expected="text or null", found=repr(code),
                otherwise=Status.WARN,
            )  # fmt: skip


def _wrong_with(reply: Reply) -> str:
    if reply.media_type != "application/json":
        return f"media type {reply.media_type or 'missing'}"
    if reply.json_fault:
        return reply.json_fault
    if not reply.error:
        return "no error object"
    for key in ("message", "type"):
        if not isinstance(reply.error.get(key), str):
            return f"{key} is {reply.error.get(key)!r}"
    lacking = [key for key in ("param", "code") if key not in reply.error]
    return f"without {' and '.join(lacking)}" if lacking else ""


def _code(check_id: str, reply: Reply, code: str) -> Finding:
    """The exact word is a house rule: other OpenAI-compatible servers may say it differently."""
    return tell(
        check_id, "error.code", not reply.error or reply.error.get("code") == code, reply,
        expected=repr(code), found=repr(reply.error.get("code")), otherwise=Status.WARN,
    )  # fmt: skip


def _named(check_id: str, reply: Reply, field: str) -> Finding:
    param = str(reply.error.get("param"))
    if field in param:
        return tell(check_id, "error.param", True, reply)
    said = field in str(reply.error.get("message"))
    return tell(
        check_id, "error.param", False, reply, expected=repr(field), found=repr(param),
        otherwise=Status.WARN if said else Status.FAIL,
    )  # fmt: skip


def _without(probe: Probe, field: str) -> dict[str, object]:
    return {name: value for name, value in probe.body().items() if name != field}


@check(
    "XAI-COMPAT-008",
    level=1,
    keyword="MUST",
    title="wrong methods and media types are refused, not mishandled",
    clause="draft §15.3",
    depends_on=_CHATS,
)
def wrong_methods_and_media_types_are_refused(probe: Probe) -> Iterator[Finding]:
    """404 for the method and leniency about the media type are common elsewhere: warnings."""
    me = "XAI-COMPAT-008"
    put = probe.endpoint.send("PUT", CHAT, content=b"{}")
    yield tell(
        me, "PUT", put.status == 405, put, expected="status 405",
        otherwise=Status.WARN if put.status in (400, 404, 501) else Status.FAIL,
    )  # fmt: skip
    if put.status == 405:
        allow = put.header("allow")
        yield tell(
            me, "Allow", bool(allow), put, expected="the methods that work", found="no Allow",
            otherwise=Status.WARN,
        )  # fmt: skip
    plain = probe.endpoint.post(CHAT, probe.body(), headers={"Content-Type": "text/plain"})
    refuses = plain.status in (400, 415)
    lenient = plain.status in (200, 422)
    yield tell(
        me, "JSON sent as text/plain", refuses, plain, expected="status 415 or 400",
        otherwise=Status.WARN if lenient else Status.FAIL,
    )  # fmt: skip
