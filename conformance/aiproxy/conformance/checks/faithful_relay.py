"""What a client sends reaches the provider, and what the provider says reaches the client.

The fakes' logs hold the request as it arrived; the level 1 checks here need nothing behind the
target but one provider.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.failing import among, seen
from aiproxy.conformance.probe import Probe, refused, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import PLAIN, Fake
from aiproxy.conformance.sightings import DEFAULT, served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_CHATS: Final = ("AIP-API-001",)
_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_TOOLS: Final = [
    {
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
    },
    {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},
]


def received(case: "Case") -> Mapping[str, Any]:
    """Return the last request body a fake got for ``case``; empty when there was none."""
    bodies = [attempt.json for attempt in case.attempts() if attempt.method == "POST"]
    return bodies[-1] if bodies and isinstance(bodies[-1], dict) else {}


@check(
    "XAI-COMPAT-002",
    level=1,
    keyword="MUST",
    title="a request without extension headers is a plain call of the default provider",
    clause="draft §15.2",
    depends_on=_CHATS,
)
@check(
    "AIP-API-002",
    level=1,
    keyword="MUST",
    title="temperature and the other sampling fields reach the provider",
    clause="aiproxy §5.1",
    depends_on=_CHATS,
)
@behind(world=PLAIN)
def a_plain_call_is_passed_on(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-COMPAT-002", probe.case()
    sampling = {
        "temperature": 0.7, "top_p": 0.9, "seed": probe.chance.randint(1, 10**6),
        "presence_penalty": 0.25, "frequency_penalty": -0.5, "stop": ["\n\n", "END"],
    }  # fmt: skip
    strange = f"x_{probe.word()}"
    turns = [
        {"role": "system", "content": f"Be brief, {probe.word()}."},
        {"role": "user", "content": "Hello \u4f60\u597d \U0001f600"},
        {"role": "assistant", "content": "Hello."},
        *case.messages("Say ok."),
    ]
    usage = {name: probe.chance.randint(5, 500) for name in _COUNTS[:2]}
    usage["total_tokens"] = sum(usage.values())
    case.script(DEFAULT, always=Act(usage=usage, finish="length"))
    fields: dict[str, Any] = {
        "messages": turns,
        "user": f"u-{probe.word()}",
        strange: {"a": [1]},
        **sampling,
    }
    reply = case.chat(**fields)
    yield served(me, "a plain call", case, reply, DEFAULT)
    got = received(case)
    if not got:
        yield tell(me, "the provider's request", False, reply, expected="one", found="none")
        yield say("AIP-API-002", Status.INCONCLUSIVE, "the provider was not asked", reply)
        return
    yield from _sampling(sampling, got, reply)
    yield from _request(case, fields, strange, got, reply)
    yield from _answer(usage, reply)
    hot = probe.case()
    hot.script(DEFAULT, always=Act(status=400, message="temperature must be at most 2"))
    yield refused("AIP-API-002", "temperature 3.0", hot.chat(temperature=3.0), 400)


def _sampling(sent: Mapping[str, Any], got: Mapping[str, Any], reply: Reply) -> Iterator[Finding]:
    for name, value in sent.items():
        yield tell(
            "AIP-API-002", name, got.get(name) == value, reply, expected=f"{value!r} upstream",
            found=repr(got.get(name)),
        )  # fmt: skip


def _request(
    case: "Case", fields: Mapping[str, Any], strange: str, got: Mapping[str, Any], reply: Reply
) -> Iterator[Finding]:
    me, limit = "XAI-COMPAT-002", case.limit_field
    same = got.get("messages") == fields["messages"]
    yield tell(
        me, "the messages", same, reply, expected="as sent", found=str(got.get("messages"))[:160]
    )
    actor = case.actor(DEFAULT)
    yield tell(
        me, "the model", got.get("model") in (actor.model, actor.upstream_model), reply,
        expected=f"{actor.upstream_model} or {actor.model}", found=repr(got.get("model")),
    )  # fmt: skip
    limits = {got[name] for name in ("max_tokens", "max_completion_tokens") if got.get(name)}
    yield tell(
        me, "the token limit", limits == {case.body()[limit]}, reply,
        expected=str(case.body()[limit]), found=str(sorted(limits)),
    )  # fmt: skip
    yield tell(
        me, "user", got.get("user") == fields["user"], reply, expected=repr(fields["user"]),
        found=repr(got.get("user")),
    )  # fmt: skip
    yield tell(
        me, "a field nobody knows", got.get(strange) == fields[strange], reply,
        expected="passed on", found=repr(got.get(strange)), otherwise=Status.WARN,
    )  # fmt: skip
    known = {*fields, "model", "max_tokens", "max_completion_tokens", "stream", "n"}
    # What says the same as leaving it out changes nothing.
    added = sorted(name for name in set(got) - known if got[name] not in (None, [], {}))
    yield tell(
        me, "fields the client did not send", not added, reply, expected="none",
        found=", ".join(added),
    )  # fmt: skip


def _answer(usage: Mapping[str, int], reply: Reply) -> Iterator[Finding]:
    me = "XAI-COMPAT-002"
    told = reply.object.get("usage")
    counts = {name: told.get(name) for name in _COUNTS} if isinstance(told, dict) else told
    yield tell(
        me, "usage", counts == dict(usage), reply, expected=f"the provider's: {dict(usage)}",
        found=str(counts),
    )  # fmt: skip
    choices = reply.object.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    reason = first.get("finish_reason") if isinstance(first, dict) else None
    yield tell(
        me, "finish_reason", reason == "length", reply, expected="the provider's: length",
        found=repr(reason),
    )  # fmt: skip


@check(
    "XAI-TOOL-013",
    level=1,
    keyword="MUST",
    title="explicit tools and tool_choice pass unchanged",
    clause="draft §5 Table 1",
    depends_on=_CHATS,
)
@check(
    "XAI-AUTO-004",
    level=1,
    keyword="MUST",
    title='tool_choice "auto" keeps its standard meaning',
    clause="draft §5 Table 1",
    depends_on=_CHATS,
)
@behind(world=PLAIN)
def tools_pass_unchanged(probe: Probe) -> Iterator[Finding]:
    named = {"type": "function", "function": {"name": "look_up"}}
    for choice in ("auto", "none", "required", named):
        me = "XAI-AUTO-004" if choice == "auto" else "XAI-TOOL-013"
        what = choice if isinstance(choice, str) else "a function's name"
        case = probe.case()
        if choice == "auto":  # the model decides, and this one decides to call
            case.script(DEFAULT, always=Act(tool_calls=(("look_up", {"word": probe.word()}),)))
        reply = case.chat(tools=_TOOLS, tool_choice=choice)
        got = received(case)
        if reply.status != 200 or not got:
            yield tell(me, f"tool_choice {what}", False, reply, expected="200 from the provider")
            continue
        yield tell(
            me, f"tool_choice {what}", got.get("tool_choice") == choice, reply,
            expected=repr(choice), found=repr(got.get("tool_choice")),
        )  # fmt: skip
        yield tell(
            me, f"the tools with {what}", got.get("tools") == _TOOLS, reply, expected="as sent",
            found=str(got.get("tools"))[:160],
        )  # fmt: skip
        if choice == "auto":
            yield from _called(case, reply)


def _called(case: "Case", reply: Reply) -> Iterator[Finding]:
    me = "XAI-AUTO-004"
    choices = reply.object.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    calls = (first.get("message") or {}).get("tool_calls") or [{}]
    name = (calls[0].get("function") or {}).get("name")
    right = name == "look_up" and first.get("finish_reason") == "tool_calls"
    yield tell(
        me, "the call the model made", right, reply, expected="look_up, and finish tool_calls",
        found=f"{name!r} and {first.get('finish_reason')!r}",
    )  # fmt: skip
    shown = [name for name, _ in reply.headers if name.startswith("x-ai-")]
    yield tell(
        me, "multi-provider routing", not shown, reply, expected="not switched on by it",
        found=", ".join(shown),
    )  # fmt: skip


@check(
    "XAI-PRIN-005",
    level=2,
    keyword="MUST",
    title="one model name is served by providers that know it under different names",
    clause="draft §3 problem 5",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2))
def names_are_mapped(probe: Probe) -> Iterator[Finding]:
    me = "XAI-PRIN-005"
    for first, second in (("a", "b"), ("b", "a")):
        for failing in (False, True):
            case = probe.case()
            roles = (first, second) if failing else (first,)
            if failing:
                case.script(first, always=Act(status=504))
            reply = case.chat(among(case, *roles), model=probe.cast.model)
            yield served(me, f"{probe.cast.model} at {' and '.join(roles)}", case, reply, *roles)
            for role, attempt in seen(case):
                own = case.actor(role).upstream_model
                named = (attempt.json or {}).get("model")
                yield tell(
                    me, f"the name sent to {role}", named == own, reply,
                    expected=own, found=repr(named),
                )  # fmt: skip


@check(
    "XAI-FAIL-024",
    level=2,
    keyword="SHOULD",
    title="an idempotency key is honoured or passed on",
    clause="draft §10",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1))
def an_idempotency_key_counts(probe: Probe) -> Iterator[Finding]:
    me, case, name = "XAI-FAIL-024", probe.case(), f"idem-{probe.word()}"
    headers = {**among(case, "a"), "Idempotency-Key": name}
    first, second = (case.chat(headers) for _ in range(2))
    got = case.attempts()
    passed = bool(got) and all(a.headers.get("idempotency-key") == name for a in got)
    once = len(got) == 1 and first.object.get("id") == second.object.get("id")
    yield tell(
        me, "the same request twice under one key", passed or once, second,
        expected="answered once, or the key at the provider",
        found=f"{len(got)} requests, without the key",
    )  # fmt: skip
    other = case.chat({**headers}, prompt="Say something else.")
    refuses = other.status in (400, 409, 422)
    yield tell(
        me, "another request under that key", refuses or passed, other,
        expected="409 or 400, or the key at the provider",
    )  # fmt: skip


derive(
    "AIP-CHK-004", level=1, keyword="MUST", title="there is a basic routing engine",
    clause="aiproxy §8 Phase 1", of=("AIP-ROUTE-001", "AIP-ROUTE-004"),
)  # fmt: skip
derive(
    "AIP-CHK-005", level=1, keyword="MUST", title="there are health checks",
    clause="aiproxy §8 Phase 1", of=("AIP-API-022", "AIP-API-036"),
)  # fmt: skip
