"""One request, several vendors: what each is sent, and what the client is given (draft §3, §14)."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.checks.native_dialects import choice_of, message_of
from aiproxy.conformance.endings import LEGAL_FINISH
from aiproxy.conformance.failing import among, seen
from aiproxy.conformance.probe import Probe, is_count, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_CHATS: Final = ("AIP-API-001",)
_FEATURE: Final = "dialect:anthropic"
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string"}},
            "required": ["word"],
        },
    },
}
_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")


@check(
    "XAI-PRIN-001",
    level=2,
    keyword="MUST",
    title="the same request can be served by different vendors",
    clause="draft §3 problem 1, §4.1",
    depends_on=_CHATS,
    feature=_FEATURE,
)
@check(
    "XAI-ARCH-006",
    level=2,
    keyword="MUST",
    title="requests are adapted to what each provider needs",
    clause="draft §14 component 4",
    depends_on=_CHATS,
    feature=_FEATURE,
)
@check(
    "XAI-ARCH-007",
    level=2,
    keyword="MUST",
    title="whatever the provider, the client gets standard OpenAI shapes",
    clause="draft §14 component 5",
    depends_on=_CHATS,
    feature=_FEATURE,
)
@behind(
    openai=Fake(),
    anthropic=Fake(dialect="anthropic"),
    google=Fake(dialect="google"),
    cohere=Fake(dialect="cohere"),
)
def one_request_fits_all(probe: Probe) -> Iterator[Finding]:
    """The fakes are as strict as their models: what they cannot read they refuse."""
    wishes: dict[str, Any] = {"temperature": 0.37, "stop": ["HALT"], "tools": [_TOOL]}
    members: dict[str, set[str]] = {}
    for role in probe.cast.actors:
        if not probe.target.features.get(f"dialect:{role}", True):
            continue
        case = probe.case()
        messages = [{"role": "system", "content": "Be brief."}, *case.messages()]
        reply = case.chat(among(case, role), messages=messages, **wishes)
        yield served("XAI-PRIN-001", f"the request at {role}", case, reply, role)
        yield from _adapted(case, reply)
        if reply.status == 200:
            yield from _standard(role, reply)
            members[role] = set(reply.object) - {"x-aiproxy", *_OPTIONAL}
        yield from _calls(probe, role)
    shapes = {tuple(sorted(names)) for names in members.values()}
    yield tell(
        "XAI-PRIN-001", "what a client reads", len(shapes) <= 1, expected="the same members",
        found=" or ".join(map(", ".join, shapes)),
    )  # fmt: skip
    yield from _new_words(probe)


_OPTIONAL: Final = ("system_fingerprint", "service_tier", "usage")


def _adapted(case: "Case", reply: Reply) -> Iterator[Finding]:
    me, attempts = "XAI-ARCH-006", seen(case)
    if not attempts:
        yield tell(me, "the provider's request", False, reply, expected="one", found="none")
        return
    role, last = attempts[-1]
    actor = case.actor(role)
    yield tell(
        me, f"what {actor.role} makes of it", last.status == 200, reply,
        expected="200: it understands the request", found=f"{last.status} at {last.path}",
    )  # fmt: skip
    sent = f"{last.path} {last.body.decode('utf-8', 'replace')}"
    lost = [text for text in ("0.37", "HALT", "look_up", actor.upstream_model) if text not in sent]
    yield tell(
        me, f"what {actor.role} is told", not lost, reply, expected="all that was asked",
        found=f"without {', '.join(lost)}",
    )  # fmt: skip
    public = f'"{actor.model}"' in sent
    yield tell(me, f"the name {actor.role} is told", not public, reply, expected="its own")


def _standard(role: str, reply: Reply) -> Iterator[Finding]:
    me = "XAI-ARCH-007"
    kind, choice, message = reply.object.get("object"), choice_of(reply), message_of(reply)
    finish = choice.get("finish_reason")
    right = kind == "chat.completion" and message.get("role") == "assistant" and finish == "stop"
    yield tell(
        me, f"the answer of {role}", right, reply, expected="chat.completion, assistant, stop",
        found=f"{kind}, {message.get('role')}, {finish}",
    )  # fmt: skip
    usage = reply.object.get("usage")
    counts = [usage.get(name) for name in _COUNTS] if isinstance(usage, Mapping) else []
    whole = [number for number in counts if is_count(number)]
    yield tell(
        me, f"the usage of {role}", len(whole) == 3 and sum(whole[:2]) == whole[2], reply,
        expected="prompt, completion and total tokens", found=repr(usage),
    )  # fmt: skip


def _calls(probe: Probe, role: str) -> Iterator[Finding]:
    """A tool call of a vendor is one of OpenAI's: arguments as text, finish tool_calls."""
    me, case, word = "XAI-ARCH-007", probe.case(), probe.word()
    case.script(role, always=Act(tool_calls=(("look_up", {"word": word}),)))
    reply = case.chat(among(case, role), tools=[_TOOL])
    calls = message_of(reply).get("tool_calls")
    first = calls[0] if isinstance(calls, list) and calls else {}
    function = first.get("function") if isinstance(first, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    right = isinstance(arguments, str) and _value(arguments) == {"word": word}
    yield tell(
        me, f"a tool call of {role}", right and bool(first.get("id")), reply,
        expected=f"arguments with {word}, as text, and an id", found=repr(first)[:160],
    )  # fmt: skip
    finish = choice_of(reply).get("finish_reason")
    yield tell(
        me, f"finish_reason of that call of {role}", finish == "tool_calls", reply,
        expected="tool_calls", found=repr(finish),
    )  # fmt: skip


def _new_words(probe: Probe) -> Iterator[Finding]:
    """A reason to stop that nobody knows yet still becomes a legal one."""
    me, case = "XAI-ARCH-007", probe.case()
    case.script("anthropic", always=Act(extra={"stop_reason": f"new_{probe.word()}"}))
    reply = case.chat(among(case, "anthropic"))
    if not any(attempt.path.endswith("/messages") for attempt in case.attempts()):
        return  # OpenAI's words are spoken to it, so it has no word of its own to translate
    finish = choice_of(reply).get("finish_reason")
    yield tell(
        me, "a stop_reason nobody knows", finish in LEGAL_FINISH, reply,
        expected=", ".join(sorted(LEGAL_FINISH)),
        found=repr(finish) if reply.status == 200 else reply.outcome,
    )  # fmt: skip


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


# The status of a provider nobody can stand in for, and what fits it in the answer: exactly, or
# in the sense of another status of the same family.
_FITTING: Final[Mapping[int, tuple[int, tuple[int, ...]]]] = {
    429: (429, (502, 503)),
    529: (503, (502, 504)),
    500: (502, (500, 503)),
}


@check(
    "XAI-COMPAT-009",
    level=2,
    keyword="MUST",
    title="a provider's error becomes the same error object, with a fitting status",
    clause="draft §15.3",
    depends_on=_CHATS,
    feature=_FEATURE,
)
@behind(
    o429=Fake(), o529=Fake(), o500=Fake(), a429=Fake(dialect="anthropic"),
    a529=Fake(dialect="anthropic"), a500=Fake(dialect="anthropic"),
)  # fmt: skip
def errors_are_translated(probe: Probe) -> Iterator[Finding]:
    me = "XAI-COMPAT-009"
    for role in probe.cast.actors:
        status, vendor = int(role[1:]), {"o": "OpenAI", "a": "Anthropic"}[role[0]]
        fact, (exact, near) = f"status {status} of {vendor}", _FITTING[status]
        case = probe.case()
        case.script(role, always=Act(status=status))
        reply = case.chat(among(case, role, policy="none"))
        if role not in case.order():
            yield say(me, Status.INCONCLUSIVE, f"{fact}: not asked", reply)
            continue
        lacking = [n for n in ("message", "type", "param", "code") if n not in reply.error]
        shaped = not lacking and set(reply.object) <= {"error", "x-aiproxy"}
        yield tell(
            me, f"{fact}: the error object", shaped, reply, expected="message, type, param, code"
        )
        yield tell(
            me, f"{fact}: the answer's status", reply.status == exact, reply, expected=str(exact),
            found=str(reply.status),
            otherwise=Status.WARN if reply.status in near else Status.FAIL,
        )  # fmt: skip
