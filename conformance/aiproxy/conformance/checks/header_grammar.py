"""The grammar of X-AI request headers: names, lines, bounds and bad values (draft §6)."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.endpoint import MODELS, Reply
from aiproxy.conformance.probe import Probe, refused, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import (
    COST,
    HINT,
    LATENCY,
    POLICY,
    POOL,
    QUALITY,
    SWITCH,
    raw_chat,
    served,
)
from aiproxy.conformance.transport import Unanswered
from aiproxy.spec import HEADERS

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_CHATS: Final = ("AIP-API-001",)
_MOVES_ON: Final = ("XAI-HDR-070",)
_CATEGORIES: Final = "X-AI-Tool-Categories"
_BOUND: Final = 2048  # octets of a request header's value (resolution T-02)
_RATED: Final = 0.9  # a declared quality, so that a quality threshold is no obstacle
# What needs a state or an attestation that no fake has: sent apart, whatever becomes of them.
_DELICATE: Final = ("conversation", "workflow", "merge", "security", "data")


@check(
    "XAI-HDR-002",
    level=2,
    keyword="MUST",
    title="header names are matched in any letter case",
    clause="draft §6",
    depends_on=_CHATS,
)
@behind(a=Fake(), b=Fake())
def names_in_any_letter_case(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-002"
    for name in (POOL.lower(), POOL.upper()):
        for role in ("a", "b"):
            case = probe.case()
            reply = case.chat({name: case.pool(role)})
            yield served(me, f"{name} naming {role}", case, reply, role)
    replies = [probe.case().chat({name: "bogus"}) for name in _spellings(SWITCH)]
    statuses = [reply.status for reply in replies]
    yield tell(
        me, f"{SWITCH}: bogus in three spellings", len(set(statuses)) == 1, replies[-1],
        expected="one outcome", found=f"status {', '.join(map(str, statuses))}",
    )  # fmt: skip


def _spellings(name: str) -> tuple[str, str, str]:
    return name, name.lower(), name.upper()


@check(
    "XAI-HDR-003",
    level=2,
    keyword="MUST",
    title="spaces and tabs around a value are ignored",
    clause="draft §6",
    depends_on=_CHATS,
)
@behind(a=Fake(quality=_RATED), b=Fake(quality=_RATED))
def space_around_values(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-003"
    for padded in (f"{QUALITY}:   0.5  ", f"{QUALITY}:\t0.5 \t", f"{POLICY}: \tautomatic\t "):
        reply = raw_chat(probe, probe.case(), padded)
        yield tell(me, repr(padded), reply.status == 200, reply, expected="status 200")
    for role in ("a", "b"):
        case = probe.case()
        reply = raw_chat(probe, case, f"{POOL}: \t {case.pool(role)} \t")
        yield served(me, f"a padded pool of {role}", case, reply, role)
    inner = raw_chat(probe, probe.case(), f"{QUALITY}: 0 .5")
    yield refused(me, "a space inside a number", inner, 400)


@check(
    "XAI-HDR-004",
    level=2,
    keyword="MUST",
    title="a single-valued header sent twice with different values is refused",
    clause="draft §6",
    depends_on=_CHATS,
)
@behind(a=Fake(quality=_RATED))
def one_value_sent_twice(probe: Probe) -> Iterator[Finding]:
    """Equal lines are only asked to be taken: a sender must not write them either."""
    me = "XAI-HDR-004"
    for name, first, second in ((LATENCY, "60000", "90000"), (POLICY, "none", "automatic")):
        two = raw_chat(probe, probe.case(), f"{name}: {first}", f"{name}: {second}")
        yield refused(me, f"{name} as {first} and {second}", two, 400)
        same = raw_chat(probe, probe.case(), f"{name}: {second}", f"{name}: {second}")
        yield tell(
            me, f"{name} twice as {second}", same.status == 200, same, expected="status 200",
            otherwise=Status.WARN if same.status == 400 else Status.FAIL,
        )  # fmt: skip


@check(
    "XAI-HDR-005",
    level=2,
    keyword="MUST",
    title="a list sent on several lines is one list",
    clause="draft §6, Table 2",
    depends_on=_MOVES_ON,
)
@behind(a=Fake(), b=Fake(), c=Fake(), d=Fake())
def a_list_on_several_lines(probe: Probe) -> Iterator[Finding]:
    """The member on the one line fails, so only a router that reads the other line answers."""
    me = "XAI-HDR-005"
    for first, second, failing in (("a", "b", "a"), ("c", "d", "d")):
        case = probe.case()
        case.script(failing, always=Act(status=503))
        lines = (f"{POOL}: {case.pool(first)}", f"{POOL}: {case.pool(second)}")
        reply = raw_chat(probe, case, *lines, f"{POLICY}: automatic")
        healthy = second if failing == first else first
        yield served(me, f"the pool {first} and {second}, {failing} fails", case, reply, healthy)
    tools = (f"{_CATEGORIES}: web-search", f"{_CATEGORIES}: weather")
    reply = raw_chat(probe, probe.case(), *tools)
    yield tell(me, "two lines of tool categories", reply.status == 200, reply, expected="200")


@check(
    "XAI-HDR-007",
    level=2,
    keyword="MUST",
    title="X-AI request headers are not forwarded to providers",
    clause="draft §6 (safety)",
    depends_on=_CHATS,
)
@behind(a=Fake(quality=_RATED, priority=1), b=Fake(quality=_RATED))
def x_ai_headers_stay_here(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-007"
    case = probe.case()
    case.script("a", always=Act(status=503))  # a fallback attempt is looked at too
    known = _samples(case)
    plain = {name: value for name, value in known.items() if not _delicate(name)}
    reply = case.chat({**plain, f"X-AI-{probe.word().capitalize()}": "1"})
    yield from _nothing_forwarded(me, "the headers of Table 2 and an unknown one", case, reply)
    for name in filter(_delicate, known):
        other = probe.case()
        reply = other.chat({SWITCH: "enabled", name: known[name]})
        if other.attempts():
            yield from _nothing_forwarded(me, name, other, reply)


def _samples(case: "Case") -> dict[str, str]:
    """Return a valid value for every X-AI request header; the pool is this case's."""
    fields = [field for field in HEADERS.values() if "request" in field.directions]
    samples = {field.name: field.accepted[0] for field in fields}
    return samples | {POOL: case.pool(), LATENCY: "60000", COST: "1", QUALITY: "0.5"} | {
        SWITCH: "enabled", POLICY: "automatic"
    }  # fmt: skip


def _delicate(name: str) -> bool:
    return any(word in name.lower() for word in _DELICATE)


def _nothing_forwarded(me: str, what: str, case: "Case", reply: Reply) -> Iterator[Finding]:
    attempts = case.attempts()
    if not attempts:
        yield say(me, Status.INCONCLUSIVE, f"{what}: no provider was asked", reply)
    for attempt in attempts:
        leaked = sorted(name for name in attempt.headers if name.startswith("x-ai-"))
        yield tell(
            me, f"{what}, as {case.who(attempt.role)} saw it", not leaked, reply,
            expected="no X-AI header", found=", ".join(leaked),
        )  # fmt: skip


@check(
    "XAI-HDR-008",
    level=2,
    keyword="MUST",
    title="an overlong X-AI header is refused with 431",
    clause="draft §6 (safety)",
    depends_on=_CHATS,
)
@behind(a=Fake())
def overlong_headers_are_refused(probe: Probe) -> Iterator[Finding]:
    """Categories nobody knows are ignored, so only the length speaks against them."""
    me = "XAI-HDR-008"
    for octets in (_BOUND // 4, 2 * _BOUND):
        names = [probe.word() * 4 for _ in range(octets // 49)]
        reply = probe.case().chat({_CATEGORIES: ",".join(names)})
        fact = f"{_CATEGORIES} of about {octets} octets"
        if octets < _BOUND:
            yield tell(me, fact, reply.status == 200, reply, expected="status 200")
        else:
            yield refused(me, fact, reply, 431, 400)


@check(
    "XAI-HDR-009",
    level=2,
    keyword="MUST",
    title="control characters and non-ASCII octets are refused or stripped, never echoed",
    clause="draft §6 (safety)",
    depends_on=_CHATS,
)
@behind(a=Fake())
def hostile_octets_are_not_echoed(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-009"
    for what, octets in {
        "a NUL": "\x00", "a DEL": "\x7f", "an octet 255": "\xff", "an escaped line": "%0d%0aX-In: ",
    }.items():  # fmt: skip
        case, marker = probe.case(), probe.word()
        lines = (f"{POOL}: {case.pool('a')}", f"{HINT}: coding{octets}{marker}")
        try:
            reply = raw_chat(probe, case, *lines)
        except Unanswered as silence:
            yield tell(
                me, what, False, expected="status 400", found=silence.reason, otherwise=Status.WARN
            )
            continue
        yield tell(
            me, what, reply.status in (200, 400), reply, expected="refused with 400, or stripped"
        )
        yield tell(
            me, f"{what}, in response headers", not _echo(reply, marker), reply,
            expected="no trace of it", found=_echo(reply, marker),
        )  # fmt: skip


def _echo(reply: Reply, marker: str) -> str:
    """Return the first response field that carries ``marker`` or an octet no field may hold."""
    for name, value in reply.headers:
        if name == "x-in" or marker in value or re.search(r"[^\t\x20-\x7e]", value):
            return f"{name}: {value[:80]!r}"
    return ""


@check(
    "XAI-HDR-010",
    level=2,
    keyword="MUST",
    title="an empty control or constraint header is refused and named",
    clause="draft §6",
    depends_on=_CHATS,
)
@behind(a=Fake(quality=_RATED))
def empty_values_are_refused(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-010"
    for name in (SWITCH, POOL, QUALITY, LATENCY, COST, POLICY):
        reply = probe.case().chat({name: ""})
        yield refused(me, f"{name} without a value", reply, 400)
        if reply.status == 400:
            yield _blames(me, name, reply)


def _blames(me: str, name: str, reply: Reply) -> Finding:
    param = reply.error.get("param")
    right = isinstance(param, str) and param.lower() == name.lower()
    return tell(me, "error.param", right, reply, expected=repr(name), found=repr(param))


@check(
    "XAI-HDR-011",
    level=2,
    keyword="MUST",
    title="bad X-AI values get the OpenAI error object, code invalid_header_value",
    clause="draft §6",
    depends_on=_CHATS,
)
@behind(a=Fake(quality=_RATED))
def bad_values_get_the_error_object(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-011"
    bad = {
        POLICY: "sometimes", SWITCH: "perhaps", COST: "cheap", QUALITY: "high", LATENCY: "soon",
        POOL: "a;b",
    }  # fmt: skip
    replies = {name: probe.case().chat({name: value}) for name, value in bad.items()}
    refusals = {name: reply for name, reply in replies.items() if reply.status >= 400}
    if not refusals:
        yield say(me, Status.NOT_TESTABLE, "no bad value was refused")
    for name, reply in refusals.items():
        yield tell(
            me, f"the body for a bad {name}", bool(reply.error), reply, expected="an error object",
            found=f"{reply.media_type or 'no media type'}: {reply.outcome}",
        )  # fmt: skip
        if not reply.error:
            continue
        yield _blames(me, name, reply)
        for member, word in (("type", "invalid_request_error"), ("code", "invalid_header_value")):
            found = reply.error.get(member)
            yield tell(
                me, f"error.{member} for a bad {name}", found == word, reply,
                expected=repr(word), found=repr(found),
            )  # fmt: skip


@check(
    "XAI-HDR-012",
    level=2,
    keyword="MUST",
    title="X-AI-Multi-Provider accepts exactly enabled and disabled",
    clause="draft §6, Table 2",
    depends_on=_CHATS,
)
@behind()
def the_switch_has_two_positions(probe: Probe) -> Iterator[Finding]:
    """Asks the default provider's model, which every position of the switch can serve."""
    me, model = "XAI-HDR-012", probe.default.model
    for value in ("enabled", "disabled", "ENABLED", "Disabled"):
        reply = probe.case().chat({SWITCH: value}, model=model)
        yield tell(me, value, reply.status == 200, reply, expected="status 200")
    for value in ("true", "on", "1", "enable", "enabled,disabled", probe.word()):
        reply = probe.case().chat({SWITCH: value}, model=model)
        yield refused(me, value, reply, 400)


@check(
    "XAI-HDR-077",
    level=2,
    keyword="SHOULD",
    title="X-AI headers do no harm where no provider is chosen",
    clause="draft §6",
    depends_on=("AIP-API-019",),
)
@behind(a=Fake())
def headers_on_the_model_list(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-077"
    plain = probe.endpoint.get(MODELS)
    full = probe.endpoint.get(MODELS, headers=_samples(probe.case()))
    same = full.status == plain.status and _ids(full) == _ids(plain)
    yield tell(me, "every header, valid", same, full, expected="the list as it is without them")
    bad = probe.endpoint.get(MODELS, headers={SWITCH: "perhaps", LATENCY: "soon"})
    yield tell(me, "bad values", bad.status == 200, bad, expected="status 200")


def _ids(reply: Reply) -> list[str]:
    data = reply.object.get("data")
    rows = data if isinstance(data, list) else []
    return sorted(str(row.get("id")) for row in rows if isinstance(row, dict))
