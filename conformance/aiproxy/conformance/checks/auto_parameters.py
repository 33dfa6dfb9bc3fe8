"""Auto values of the body: what becomes of them on the way to a provider (draft §5, Table 1)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.case import OMIT
from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.checks.task_hints import picture
from aiproxy.conformance.choices import AUTO, CHATS, ask, bad_field, choose
from aiproxy.conformance.claims import LIMITS, token_limit
from aiproxy.conformance.orders import left_auto
from aiproxy.conformance.orders import token_limit as sent_limit
from aiproxy.conformance.probe import Probe, is_count, refused, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import HINT, POLICY, POOL, SWITCH, only_asked, served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_WINDOW: Final = 512
# Words of one token each, and of more than four characters with the space behind.
_WORDS: Final = ("time", "work", "hand", "year", "life", "part", "week", "case")
_LONGEST: Final = 64


def _limit(value: object) -> dict[str, Any]:
    """Return the fields that ask for this token limit, and for no other."""
    return {**dict.fromkeys(LIMITS, OMIT), "max_completion_tokens": value}


def _limited(
    probe: Probe, role: str, value: object = AUTO, **fields: Any
) -> tuple["Case", Reply, object]:
    """Ask ``role`` with this limit; return the case, its reply and the limit that arrived."""
    case, reply = choose(probe, (role,), **_limit(value), **fields)
    attempts = case.attempts()
    return case, reply, sent_limit(attempts[-1].json) if attempts else None


@check(
    "XAI-AUTO-006",
    level=3,
    keyword="MUST",
    title='max_completion_tokens:"auto" becomes a positive integer',
    clause="draft §5, Table 1",
    depends_on=CHATS,
)
@check(
    "XAI-AUTO-017",
    level=3,
    keyword="MUST",
    title="the computed limit is told with requested, calculated and basis",
    clause="draft Fig 8",
    depends_on=CHATS,
)
@check(
    "XAI-AUTO-018",
    level=3,
    keyword="MUST",
    title="completion tokens stay within the computed limit",
    clause="draft Fig 8",
    depends_on=CHATS,
)
@check(
    "XAI-AUTO-020",
    level=3,
    keyword="MUST",
    title="the computed limit fits the model's output and context",
    clause="draft §5, Table 1",
    depends_on=CHATS,
)
@behind(
    wide=Fake(model={"max_output_tokens": 4096, "context_window": 32768}),
    short=Fake(model={"max_output_tokens": _LONGEST, "context_window": 32768}),
    narrow=Fake(alone=True, model={"context_window": _WINDOW}),
)
def token_limits_are_computed(probe: Probe) -> Iterator[Finding]:
    for role, most in (("wide", 4096), ("short", _LONGEST), ("narrow", _WINDOW)):
        case, reply, sent = _limited(probe, role)
        yield served("XAI-AUTO-006", f"a limit of auto at {role}", case, reply, role)
        yield tell(
            "XAI-AUTO-006", f"the limit that {role} received", is_count(sent) and sent > 0, reply,
            expected="a positive integer", found=repr(sent),
        )  # fmt: skip
        yield from _told("XAI-AUTO-017", role, case, reply, sent)
        yield tell(
            "XAI-AUTO-020", f"the limit at {role}", is_count(sent) and sent <= most, reply,
            expected=f"at most {most}", found=repr(sent),
        )  # fmt: skip
    yield from _usage_is_honest("XAI-AUTO-018", probe)
    yield from _context_is_respected("XAI-AUTO-020", probe)


def _told(me: str, role: str, case: "Case", reply: Reply, sent: object) -> Iterator[Finding]:
    told = token_limit(case, reply)
    right = (
        told is not None
        and told.requested == AUTO
        and told.calculated == sent
        and isinstance(told.basis, str)
        and bool(told.basis)
    )
    yield tell(
        me, f"what is told of the limit at {role}", right, reply,
        expected=f"requested auto, calculated {sent}, a basis", found=str(told),
    )  # fmt: skip


def _usage_is_honest(me: str, probe: Probe) -> Iterator[Finding]:
    """A provider that keeps to the limit, and one that does not: the usage told is its own."""
    for spent in (7, 9000):
        case = probe.case()
        usage = {"prompt_tokens": 5, "completion_tokens": spent, "total_tokens": 5 + spent}
        case.script("wide", Act(usage=usage))
        reply = ask(case, ("wide",), **_limit(AUTO))
        found = (reply.object.get("usage") or {}).get("completion_tokens")
        fact = "within" if spent == 7 else "beyond"
        yield tell(
            me, f"a completion {fact} the limit", found == spent, reply,
            expected=f"usage.completion_tokens {spent}", found=repr(found),
        )  # fmt: skip
        told = token_limit(case, reply)
        calculated = told.calculated if told else None
        if spent == 7:
            yield tell(
                me, "the limit told", is_count(calculated) and calculated >= spent, reply,
                expected=f"at least {spent}", found=repr(calculated),
            )  # fmt: skip


def _context_is_respected(me: str, probe: Probe) -> Iterator[Finding]:
    for count in (240, 320):
        prompt = " ".join(_WORDS[i % len(_WORDS)] for i in range(count))
        _, reply, sent = _limited(probe, "narrow", prompt=prompt)
        most = _WINDOW - count
        yield tell(
            me, f"the limit beside {count} words in a context of {_WINDOW}",
            is_count(sent) and 0 < sent <= most, reply,
            expected=f"at most {most}", found=repr(sent) if sent is not None else reply.outcome,
        )  # fmt: skip
    prompt = " ".join(_WORDS[i % len(_WORDS)] for i in range(4 * _WINDOW))
    case = probe.case()
    reply = case.chat({SWITCH: "enabled"}, model=probe.cast["narrow"].model, prompt=prompt)
    yield refused(me, "a prompt beyond the context", reply, 400)
    yield only_asked(me, "who was asked: a prompt beyond the context", case, reply)
    code = reply.error.get("code")
    yield tell(
        me, "the code for it", reply.status != 400 or code == "context_length_exceeded", reply,
        expected="context_length_exceeded", found=repr(code),
    )  # fmt: skip


@check(
    "XAI-AUTO-019",
    level=3,
    keyword="MUST",
    title="an explicit token limit passes unchanged, a wrong one is refused",
    clause="draft §5, Table 1",
    depends_on=CHATS,
)
@behind(a=Fake())
def explicit_limits_pass(probe: Probe) -> Iterator[Finding]:
    me = "XAI-AUTO-019"
    for value in (500, 7):
        case, reply, sent = _limited(probe, "a", value)
        yield served(me, f"a limit of {value}", case, reply, "a")
        yield tell(
            me, f"what arrived for {value}", sent == value, reply, expected=str(value),
            found=repr(sent),
        )  # fmt: skip
    for wrong in (0, -1, 1.5, "many"):
        case, reply, _ = _limited(probe, "a", wrong)
        yield from bad_field(me, f"a limit of {wrong!r}", case, reply, "max_completion_tokens")


@check(
    "XAI-AUTO-012",
    level=3,
    keyword="MUST",
    title="only models whose capabilities satisfy the request are selected",
    clause="draft §5 criterion 2",
    depends_on=CHATS,
)
@behind(
    blind=Fake(priority=1, price=0.0005),
    sees=Fake(priority=9, price=0.02, capabilities=("text-generation", "vision")),
)
def capabilities_decide(probe: Probe) -> Iterator[Finding]:
    me, pool = "XAI-AUTO-012", ("blind", "sees")
    for act, fact in ((None, "a picture"), (Act(status=503), "a picture, and who sees it fails")):
        case = probe.case()
        if act:
            case.script("sees", always=act)
        pixel = picture(case.prompt("What is this?"))
        reply = ask(case, pool, {POLICY: "automatic"}, messages=pixel)
        if act is None:
            yield served(me, fact, case, reply, "sees")
        else:
            yield tell(me, fact, reply.status >= 400, reply, expected="an error")
        yield only_asked(me, f"who was asked: {fact}", case, reply, "sees")
    case, reply = choose(probe, pool)
    yield served(me, "a text alone", case, reply, "blind")


def _schema(kind: str = "object") -> dict[str, Any]:
    """Return a response_format with a schema that has something of everything."""
    schema = {
        "type": kind,
        "properties": {
            "summary": {"type": "string", "description": "Kurz – «so»"},
            "insights": {
                "type": "array",
                "items": {"anyOf": [{"type": "null"}, {"type": "number"}]},
            },
        },
        "required": ["summary", "insights"],
        "additionalProperties": False,
    }
    inner = {"name": "analysis_report", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": inner}


@check(
    "XAI-AUTO-023",
    level=3,
    keyword="MUST",
    title="a json_schema passes unchanged to a provider that supports it",
    clause="draft Fig 8, Fig 17, Fig 21",
    depends_on=CHATS,
)
@check(
    "XAI-AUTO-025",
    level=3,
    keyword="MUST",
    title="a malformed json_schema is refused before any call",
    clause="draft §5, Table 1",
    depends_on=CHATS,
)
@behind(a=Fake(capabilities=("text-generation", "json-mode")))
def schemas_pass_or_are_refused(probe: Probe) -> Iterator[Finding]:
    text = '{"summary": "{proof}", "insights": []}'
    for model, headers in ((AUTO, {HINT: "analytical"}), (probe.cast.model, {})):
        case, wanted = probe.case(), _schema()
        case.script("a", always=Act(text=text))
        chosen = {**headers, POOL: case.pool()}
        reply = case.chat(chosen, model=model, response_format=wanted)
        attempts = case.attempts()
        yield only_asked("XAI-AUTO-023", f"who was asked, model {model}", case, reply, "a")
        found = (attempts[0].json or {}).get("response_format") if attempts else None
        yield tell(
            "XAI-AUTO-023", f"what arrived, model {model}", found == wanted, reply,
            expected="response_format as sent", found=repr(found)[:160],
        )  # fmt: skip
        case = probe.case()
        broken = {**headers, POOL: case.pool()}
        reply = case.chat(broken, model=model, response_format=_schema("strang"))
        fact = f'a schema of type "strang", model {model}'
        yield from bad_field("XAI-AUTO-025", fact, case, reply, "response_format")


@check(
    "XAI-AUTO-005",
    level=3,
    keyword="MUST",
    title='reasoning:"auto" becomes something the provider understands',
    clause="draft §5, Table 1",
    depends_on=CHATS,
)
@behind(
    native=Fake(model={"reasoning": "native"}),
    enhanced=Fake(model={"reasoning": "enhanced"}),
    plain=Fake(model={"reasoning": "none"}),
)
def reasoning_is_resolved(probe: Probe) -> Iterator[Finding]:
    me = "XAI-AUTO-005"
    for role in ("native", "enhanced", "plain"):
        for path in ("chat", "draft"):
            case = probe.case()
            send = case.chat if path == "chat" else case.draft
            reply = send({POOL: case.pool(role)}, model=AUTO, reasoning=AUTO)
            yield served(me, f"reasoning of auto at {role} ({path})", case, reply, role)
            for attempt in case.attempts():
                left = left_auto(attempt.json)
                yield tell(
                    me, f"what {role} received ({path})", not left, reply,
                    expected="no auto in it", found=", ".join(left),
                )  # fmt: skip
