"""The X-AI response headers: their form, when they come, and whether they are true (draft §6)."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.endpoint import Reply
from aiproxy.conformance.failing import AUTO, among, seen
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import strict_json
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.worlds import CROWD
from aiproxy.conformance.sightings import MAPPED, USED, raw_chat
from aiproxy.spec import HEADERS

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_CHATS: Final = ("AIP-API-001",)
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_JSON_FIELDS: Final = frozenset(
    field.name.lower() for field in HEADERS.values() if field.wire == "json"
)
# Table 3, and the two that only the figures and section 17 have.
_TRANSPARENCY: Final = (
    "x-ai-provider-used",
    "x-ai-model-mapped",
    "x-ai-auto-selection",
    "x-ai-tool-mapping",
    "x-ai-auto-decisions",
    "x-ai-alternatives-considered",
    "x-ai-selection-confidence",
    "x-ai-failover-occurred",
)
# A string of JSON: what is white outside of one is not compact.
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
# What a prompt or a name may hold that breaks a header: quotes, line ends, more than ASCII.
_PROVOKING: Final = 'Say "ok",\r\nX-AI-Provider-Used: evil\r\n\u00e9 \u4f60\u597d \U0001f600 \\ {}'


def x_ai(reply: Reply) -> list[tuple[str, str]]:
    """Return the X-AI fields of an answer in order, repeated ones too."""
    return [(name, value) for name, value in reply.headers if name.startswith("x-ai-")]


@check(
    "XAI-RESP-001",
    level=2,
    keyword="MUST",
    title="an X-AI response header is one line without CR, LF, NUL or folding",
    clause="draft §6 Response Headers",
    depends_on=_CHATS,
)
@check(
    "XAI-RESP-002",
    level=2,
    keyword="MUST",
    title="headers that hold JSON are compact ASCII JSON",
    clause="draft §6",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2), c=Fake(priority=3))
def headers_are_single_lines(probe: Probe) -> Iterator[Finding]:
    case = probe.case()
    case.script("a", always=Act(status=503))
    fields = [f"{name}: {value}" for name, value in among(case, "a", "b", "c").items()]
    fields += ["X-AI-Task-Hint: reasoning", "X-AI-Routing-Strategy: quality"]
    messages = [{"role": "user", "content": case.prompt(_PROVOKING)}]
    reply = raw_chat(probe, case, *fields, model=AUTO, messages=messages)
    shown = x_ai(reply)
    if reply.status != 200 or not shown:
        for me in ("XAI-RESP-001", "XAI-RESP-002"):
            yield say(
                me, Status.INCONCLUSIVE, f"no X-AI header to look at ({reply.outcome})", reply
            )
        return
    lines = [(n, v) for n, v in reply.headers if set(n) - _TOKEN or set(v) & set("\r\n\0")]
    yield tell(
        "XAI-RESP-001", "each header line", not lines, reply, expected="one name and one value",
        found="; ".join(f"{name!r}: {value!r}" for name, value in lines)[:120],
    )  # fmt: skip
    wrong = [f"{n}: {v!r}"[:60] for n, v in shown if not v or not all(" " <= c <= "~" for c in v)]
    yield tell(
        "XAI-RESP-001", "each value", not wrong, reply, expected="visible ASCII and spaces",
        found="; ".join(wrong),
    )  # fmt: skip
    yield from _compact(probe)


def _compact(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-RESP-002", probe.case()
    reply = case.chat(among(case, "b", "c"), prompt=_PROVOKING, model=AUTO)
    held = [(name, value) for name, value in x_ai(reply) if name in _JSON_FIELDS]
    if not held:
        yield say(me, Status.INCONCLUSIVE, "no header with JSON was sent", reply)
    for name, value in held:
        fault = _not_compact(value)
        yield tell(me, name, not fault, reply, expected="compact ASCII JSON", found=fault)


def _not_compact(value: str) -> str:
    """Return what is wrong with the JSON of a header, or nothing."""
    fault = "" if value.isascii() else "not ASCII"
    fault = fault or strict_json(value.encode("utf-8", "replace"))[1]
    # A folded line that was put together again leaves a space behind; that is another check's.
    spaces = sum(map(str.isspace, _STRING.sub("", value)))
    return fault or ("" if spaces <= 2 else f"{spaces} spaces between its parts")


_CROWD: Final = 60
_EXTRAS: Final[Any] = {f"p{number}": Fake(reach="refused") for number in range(_CROWD)}
_FIELD_OCTETS: Final = 2048
_ALL_OCTETS: Final = 3072


@check(
    "XAI-RESP-003",
    level=2,
    keyword="MUST",
    title="an X-AI header has at most 2048 octets, all of them 3072, and a cut is marked",
    clause="draft §6",
    depends_on=_CHATS,
)
@behind(
    world=CROWD,
    a=Fake(priority=1),
    **_EXTRAS,
)
def headers_are_bounded(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-RESP-003", probe.case()
    reply = case.chat(among(case, *case.roles), model=AUTO)
    shown = x_ai(reply)
    if reply.status != 200 or not shown:
        yield say(me, Status.INCONCLUSIVE, f"no X-AI header to look at ({reply.outcome})", reply)
        return
    name, most = max(((name, len(value)) for name, value in shown), key=lambda pair: pair[1])
    yield tell(
        me, "the longest header", most <= _FIELD_OCTETS, reply,
        expected=f"at most {_FIELD_OCTETS} octets", found=f"{name}: {most}",
    )  # fmt: skip
    total = sum(len(value) for _, value in shown)
    yield tell(
        me, "all of them", total <= _ALL_OCTETS, reply,
        expected=f"at most {_ALL_OCTETS} octets", found=str(total),
    )  # fmt: skip
    for field, value in shown:
        if field in _JSON_FIELDS:
            yield from _cut_in_good_form(probe, reply, field, value)


def _cut_in_good_form(probe: Probe, reply: Reply, name: str, value: str) -> Iterator[Finding]:
    me, fault = "XAI-RESP-003", strict_json(value.encode())[1]
    yield tell(me, name, not fault, reply, expected="JSON, however much was left out", found=fault)
    others = [probe.cast[f"p{number}"].id for number in range(_CROWD)]
    named = sum(identifier in value for identifier in others)
    marked = '"truncated":true' in value or "truncated" in str(reply.header("x-ai-auto-selection"))
    if 0 < named < _CROWD:
        # A short list may also be all that was ever meant to be shown.
        yield tell(
            me, f"{name} names {named} of {_CROWD} others", marked, reply,
            expected='"truncated":true', found="no mark", otherwise=Status.WARN,
        )  # fmt: skip


@check(
    "XAI-RESP-004",
    level=2,
    keyword="MUST",
    title="decision headers come with multi-provider requests, and only with them",
    clause="draft §6 Response Headers",
    depends_on=_CHATS,
)
@check(
    "XAI-RESP-020",
    level=2,
    keyword="MUST",
    title="X-AI headers take nothing from the standard headers",
    clause="draft §6",
    depends_on=_CHATS,
)
@check(
    "XAI-PRIN-007",
    level=2,
    keyword="MUST",
    title="with the features on, bodies keep the standard format",
    clause="draft §4.3",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2))
def active_and_plain_answers(probe: Probe) -> Iterator[Finding]:
    plain_case, case = probe.case(), probe.case()
    plain = plain_case.chat(model=probe.default.model)
    active = case.chat(among(case, "a", "b"), model=AUTO)
    for what, reply in (("a plain request", plain), ("a routed request", active)):
        if reply.status != 200:
            for me in ("XAI-RESP-004", "XAI-RESP-020", "XAI-PRIN-007"):
                yield tell(me, what, False, reply, expected="200")
            return
    shown = [name for name, _ in x_ai(plain) if name in _TRANSPARENCY]
    yield tell(
        "XAI-RESP-004", "a plain request", not shown, plain, expected="no decision headers",
        found=", ".join(shown),
    )  # fmt: skip
    yield tell(
        "XAI-RESP-004", "a routed request", active.header(USED) is not None, active,
        expected="X-AI-Provider-Used", found="no such header",
    )  # fmt: skip
    yield tell(
        "XAI-RESP-004", "what became of auto", active.header("x-ai-auto-selection") is not None,
        active, expected="X-AI-Auto-Selection", found="no such header", otherwise=Status.WARN,
    )  # fmt: skip
    yield from _standard_headers(plain, active)
    yield from _standard_body(plain, active)


def _standard_headers(plain: Reply, active: Reply) -> Iterator[Finding]:
    me = "XAI-RESP-020"
    for what, reply in (("plain", plain), ("routed", active)):
        names = [name for name, _ in reply.headers]
        once = all(names.count(name) <= 1 for name in ("content-type", "content-length", "date"))
        yield tell(me, f"standard fields, {what}", once, reply, expected="each once")
        media = reply.media_type
        yield tell(
            me, f"Content-Type, {what}", media == "application/json", reply,
            expected="application/json", found=media,
        )  # fmt: skip
        length = reply.header("content-length")
        framed = length == str(len(reply.body)) or "chunked" in str(
            reply.header("transfer-encoding")
        )
        yield tell(me, f"framing, {what}", framed, reply, expected="a right length or chunks")
    lost = sorted(
        name
        for name in ("x-request-id", "date", "server", "content-type")
        if plain.header(name) is not None and active.header(name) is None
    )
    yield tell(
        me, "fields of a plain answer", not lost, active, expected="in a routed one as well",
        found=f"without {', '.join(lost)}",
    )  # fmt: skip


_STANDARD: Final = frozenset(
    {"id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint"}
)


def _standard_body(plain: Reply, active: Reply) -> Iterator[Finding]:
    me = "XAI-PRIN-007"
    right = _is_completion(active.object)
    yield tell(me, "the body", right, active, expected="a chat.completion with a message")
    strangers = sorted(set(active.object) - _STANDARD - {"x-aiproxy"})
    yield tell(
        me, "its members", not strangers, active, expected="the standard ones and x-aiproxy",
        found=", ".join(strangers),
    )  # fmt: skip
    lacking = sorted((set(plain.object) & _STANDARD) - set(active.object))
    yield tell(
        me, "members of a plain answer", not lacking, active, expected="in a routed one as well",
        found=f"without {', '.join(lacking)}",
    )  # fmt: skip


def _is_completion(body: Any) -> bool:
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return (
        body.get("object") == "chat.completion"
        and isinstance(message, dict)
        and message.get("role") == "assistant"
        and isinstance(message.get("content"), str)
    )


@check(
    "XAI-RESP-006",
    level=2,
    keyword="MUST",
    title="X-AI-Model-Mapped is the model that was asked of the provider",
    clause="draft §6 Table 3",
    depends_on=_CHATS,
)
@check(
    "XAI-RESP-007",
    level=2,
    keyword="SHOULD",
    title="X-AI-Model-Mapped is there when model was auto or an alias",
    clause="draft §6 Table 3",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2), down=Fake(priority=1), other=Fake(alone=True))
def the_mapped_model_is_true(probe: Probe) -> Iterator[Finding]:
    failed = probe.case()
    failed.script("down", always=Act(status=503))
    requests: list[tuple[str, Case, Reply]] = [
        ("auto, after a failover", failed, failed.chat(among(failed, "down", "b"), model=AUTO))
    ]
    for what, roles, model in (
        ("auto", ("a",), AUTO),
        ("auto, another pool", ("b", "other"), AUTO),
        ("an explicit name", ("a", "b"), probe.cast.model),
        ("the name of one provider", ("other",), probe.cast["other"].model),
    ):
        case = probe.case()
        requests.append((what, case, case.chat(among(case, *roles), model=model)))
    case = probe.case()
    streamed = case.stream(among(case, "a"), model=AUTO)
    requests.append(("auto, streamed", case, streamed))
    for what, case, reply in requests:
        yield from _mapped(what, case, reply)


def _mapped(what: str, case: "Case", reply: Reply) -> Iterator[Finding]:
    role = case.served(reply)
    asked = [a.json.get("model") for one, a in seen(case) if one == role and a.json]
    if reply.status != 200 or not asked:
        for me in ("XAI-RESP-006", "XAI-RESP-007"):
            yield say(me, Status.INCONCLUSIVE, f"{what}: not answered", reply)
        return
    value = reply.header(MAPPED)
    yield tell(
        "XAI-RESP-007", what, value is not None, reply, expected="X-AI-Model-Mapped", found="none"
    )
    if value is None:
        yield say("XAI-RESP-006", Status.INCONCLUSIVE, f"{what}: no such header", reply)
        return
    yield tell(
        "XAI-RESP-006", what, value == asked[-1], reply, expected=str(asked[-1]), found=value
    )
