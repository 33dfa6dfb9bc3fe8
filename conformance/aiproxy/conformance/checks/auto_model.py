"""Auto values in the body: what they mean, where they may stand, what they leave alone (draft §5)."""

import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.case import OMIT
from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.endpoint import Reply
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import (
    HINT,
    LATENCY,
    MAPPED,
    POLICY,
    POOL,
    QUALITY,
    STRATEGY,
    SWITCH,
    USED,
    only_asked,
    served,
)

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_CHATS: Final = ("AIP-API-001",)
_AUTO: Final = ("XAI-AUTO-001",)
_RATED: Final = 0.9
# A parameter that may be auto, and the members of X-AI-Auto-Decisions that speak of it.
_DECIDED: Final[Mapping[str, tuple[str, ...]]] = {
    "model": ("model", "model_selection"),
    "tools": ("tools", "tool_mapping"),
    "reasoning": ("reasoning",),
    "max_completion_tokens": ("max_completion_tokens", "max_tokens", "token_optimization"),
}
_NO_LIMIT: Final[Mapping[str, Any]] = {"max_tokens": OMIT, "max_completion_tokens": OMIT}
_EXPLICIT_CALLS: Final = 6


@check(
    "XAI-AUTO-001",
    level=2,
    keyword="MUST",
    title="model auto is resolved to a provider's model",
    clause="draft §5, Table 1",
    depends_on=_CHATS,
)
@behind(a=Fake(), b=Fake())
def auto_is_resolved(probe: Probe) -> Iterator[Finding]:
    me = "XAI-AUTO-001"
    case = probe.case()
    headers = {SWITCH: "enabled", POOL: case.pool()}
    reply = case.chat(headers, model="auto")
    yield served(me, 'model "auto"', case, reply, *case.roles, blocks=True)
    if reply.status != 200:
        return
    yield tell(me, USED, bool(reply.header(USED)), reply, expected="a provider", found="nothing")
    mapped = reply.header(MAPPED)
    yield tell(
        me, MAPPED, mapped not in (None, "", "auto"), reply, expected="a model", found=repr(mapped)
    )
    least = probe.case()
    reply = least.chat(headers, model="auto", **_NO_LIMIT)
    yield served(me, "auto and messages, nothing else", least, reply, *least.roles)


@check(
    "XAI-AUTO-002",
    level=2,
    keyword="MUST",
    title="the word auto is never sent upstream as a model",
    clause="draft §5, Table 1",
    depends_on=_AUTO,
)
@behind(a=Fake(), b=Fake())
def auto_never_leaves(probe: Probe) -> Iterator[Finding]:
    """Every way to ask for auto: with and without headers, whole and streamed, on both paths."""
    me = "XAI-AUTO-002"
    pool = {POOL: probe.cast.pool("a", "b")}
    ways: dict[str, Any] = {
        "with a pool": lambda case: case.chat(pool, model="auto"),
        "without a header": lambda case: case.chat(model="auto"),
        "with the switch disabled": lambda case: case.chat({SWITCH: "disabled"}, model="auto"),
        "as a stream": lambda case: case.stream(pool, model="auto"),
        "as a stream without a header": lambda case: case.stream(model="auto"),
        "as a draft response": lambda case: case.draft(pool, model="auto"),
        "as a response": lambda case: case.responses(pool, model="auto"),
    }
    seen = 0
    for how, ask in ways.items():
        case = probe.case()
        reply = ask(case)
        models = [attempt.json.get("model") for attempt in case.attempts()]
        seen += len(models)
        yield tell(
            me, f"the model upstream, asked {how}", "auto" not in models, reply,
            expected="a provider's model", found="'auto'",
        )  # fmt: skip
    if not seen:
        yield say(me, Status.INCONCLUSIVE, "no request for auto reached a provider")


@check(
    "XAI-AUTO-008",
    level=2,
    keyword="MUST",
    title="auto outside Table 1 is a type error",
    clause="draft §5",
    depends_on=_CHATS,
)
@behind(a=Fake())
def auto_elsewhere_is_a_type_error(probe: Probe) -> Iterator[Finding]:
    me = "XAI-AUTO-008"
    for name in ("temperature", "n", "stream"):
        case = probe.case()
        wrong: dict[str, Any] = {name: "auto"}
        reply = case.chat(**wrong)
        yield tell(me, f'{name}: "auto"', reply.status == 400, reply, expected="status 400")
        if reply.status == 400:
            param = reply.error.get("param")
            yield tell(
                me, "error.param", param == name, reply, expected=repr(name), found=repr(param)
            )
        yield only_asked(me, f"who was asked with {name} auto", case, reply)


@check(
    "XAI-AUTO-009",
    level=2,
    keyword="MUST",
    title="only the lower-case word auto is auto",
    clause="draft §5",
    depends_on=_CHATS,
)
@behind(a=Fake())
def only_the_exact_word_is_auto(probe: Probe) -> Iterator[Finding]:
    me = "XAI-AUTO-009"
    for model in ("Auto", "AUTO", " auto"):
        for headers in ({}, {SWITCH: "enabled", POOL: probe.cast.pool("a")}):
            case = probe.case()
            reply = case.chat(headers, model=model)
            # With a pool, "no member has that model" is as good an answer as "no such model".
            right = (404, 422) if headers else (404,)
            clear = reply.status in (400, 404, 422)
            yield tell(
                me, f"model {model!r} {'with' if headers else 'without'} a pool",
                reply.status in right, reply, expected="status 404",
                otherwise=Status.WARN if clear else Status.FAIL,
            )  # fmt: skip
            yield only_asked(me, f"who was asked for {model!r}", case, reply)


@check(
    "XAI-AUTO-015",
    level=2,
    keyword="MUST",
    title="the answer to auto says auto; X-AI-Model-Mapped says the model",
    clause="draft Fig 1-21",
    depends_on=_AUTO,
)
@behind(a=Fake(), b=Fake())
def the_answer_says_auto(probe: Probe) -> Iterator[Finding]:
    me = "XAI-AUTO-015"
    case = probe.case()
    headers = {SWITCH: "enabled", POOL: case.pool("a")}
    for what, reply in (
        ("a chat", probe.case().chat(headers, model="auto")),
        ("a draft response", probe.case().draft(headers, model="auto")),
    ):
        if reply.status != 200 and what != "a chat":
            continue  # whether that path is there is another check's matter
        yield _model_is(me, f"body.model of {what}", reply, "auto")
        mapped = reply.header(MAPPED)
        yield tell(
            me, f"{MAPPED} of {what}", mapped not in (None, "", "auto"), reply,
            expected="a model", found=repr(mapped),
        )  # fmt: skip
    explicit = probe.case().chat({SWITCH: "enabled"})
    yield _model_is(me, "body.model of an explicit request", explicit, probe.cast.model)


def _model_is(me: str, fact: str, reply: Reply, model: str) -> Finding:
    found = reply.object.get("model")
    return tell(me, fact, found == model, reply, expected=repr(model), found=repr(found))


@check(
    "XAI-AUTO-016",
    level=2,
    keyword="MUST",
    title="any subset of the auto parameters may be auto",
    clause="draft §5",
    depends_on=_AUTO,
)
@behind(a=Fake(capabilities=("text-generation", "tools"), quality=_RATED))
def any_subset_may_be_auto(probe: Probe) -> Iterator[Finding]:
    me = "XAI-AUTO-016"
    for size in range(len(_DECIDED) + 1):
        for subset in combinations(_DECIDED, size):
            case = probe.case()
            own = _NO_LIMIT if "max_completion_tokens" in subset else {}
            fields: dict[str, Any] = {**own, **dict.fromkeys(subset, "auto")}
            reply = case.chat({SWITCH: "enabled", POOL: case.pool("a")}, **fields)
            what = f"auto: {', '.join(subset) or 'nothing'}"
            yield served(me, what, case, reply, "a")
            others = _decided(reply).difference(*(_DECIDED[name] for name in subset))
            yield tell(
                me, f"X-AI-Auto-Decisions with {what}", not others, reply,
                expected="nothing else decided", found=", ".join(sorted(others)),
            )  # fmt: skip


def _decided(reply: Reply) -> set[str]:
    """Return the members of X-AI-Auto-Decisions that speak of a parameter."""
    try:
        told = json.loads(reply.header("x-ai-auto-decisions") or "{}")
    except ValueError:
        return set()  # another check's fault
    known = {word for words in _DECIDED.values() for word in words}
    return known & set(told) if isinstance(told, dict) else set()


@check(
    "XAI-AUTO-027",
    level=2,
    keyword="MUST",
    title="parameters outside Table 1 reach the provider unchanged",
    clause="draft §5",
    depends_on=_CHATS,
)
@behind(a=Fake())
def other_parameters_are_untouched(probe: Probe) -> Iterator[Finding]:
    me = "XAI-AUTO-027"
    chance = probe.chance
    given: dict[str, Any] = {
        "temperature": round(chance.uniform(0.1, 1.9), 3),
        "top_p": round(chance.uniform(0.1, 0.9), 3),
        "stop": [probe.word(), probe.word()],
        "seed": chance.randrange(1, 1 << 30),
        "n": chance.randrange(2, 4),
    }
    for headers in ({}, {SWITCH: "enabled", POOL: probe.cast.pool("a")}):
        case = probe.case()
        reply = case.chat(headers, **given)
        how = "with X-AI headers" if headers else "without an X-AI header"
        attempts = case.attempts()
        if not attempts:
            yield tell(me, f"a request {how}", False, reply, expected="it reaches the provider")
            continue
        sent = attempts[-1].json
        for name, value in given.items():
            yield tell(
                me, f"{name} {how}", sent.get(name) == value, reply, expected=repr(value),
                found=repr(sent[name]) if name in sent else "dropped",
            )  # fmt: skip


@check(
    "XAI-AUTO-028",
    level=2,
    keyword="SHOULD",
    title="model auto is accepted on both paths",
    clause="draft §5",
    depends_on=_AUTO,
)
@behind(a=Fake(priority=1), b=Fake(priority=9), c=Fake(priority=9), d=Fake(priority=9))
def auto_on_both_paths(probe: Probe) -> Iterator[Finding]:
    me = "XAI-AUTO-028"
    case, twin = probe.case(), probe.case()
    headers = {SWITCH: "enabled", POOL: case.pool()}
    chat = case.chat(headers, model="auto")
    draft = twin.draft(headers, model="auto")
    yield served(me, "/v1/chat/completions", case, chat, *case.roles)
    yield served(me, "/v1/responses", twin, draft, case.served(chat) or "a")


@check(
    "XAI-AUTO-030",
    level=2,
    keyword="MUST",
    title="headers alone never move an explicit model",
    clause="draft §5, primary control",
    depends_on=_CHATS,
)
@check(
    "XAI-SYNC-001",
    level=2,
    keyword="SHOULD",
    title="explicit parameters win over headers, which are reported as ignored",
    clause="draft §5, rule 1",
    depends_on=_CHATS,
)
@behind(
    a=Fake(alone=True, priority=9, price=0.01, quality=_RATED),
    b=Fake(alone=True, priority=1, price=0.0001, quality={"coding": 1.0, "general": 1.0}),
)
def headers_never_move_an_explicit_model(probe: Probe) -> Iterator[Finding]:
    """Everything but the model speaks for b: price, priority, quality at the hinted task."""
    me, model = "XAI-AUTO-030", probe.cast["a"].model
    wishes = {
        SWITCH: "enabled", POOL: probe.cast.pool("a", "b"), STRATEGY: "cost", HINT: "coding",
        "X-AI-Tool-Categories": "web-search", "X-AI-Reasoning-Preference": "native",
        QUALITY: "0.5", LATENCY: "60000", POLICY: "automatic",
    }  # fmt: skip
    for turn in range(_EXPLICIT_CALLS):
        case = probe.case()
        reply = case.chat(wishes, model=model)
        yield served(me, "a's model, headers for b", case, reply, "a")
        yield only_asked(me, "who was asked", case, reply, "a")
        if turn == 0:
            yield served("XAI-SYNC-001", "the explicit model", case, reply, "a")
            yield _ignored("XAI-SYNC-001", case, reply)
    twin = probe.case()
    reply = twin.chat(wishes, model=probe.cast["b"].model)
    yield served(me, "b's model, the same headers", twin, reply, "b")
    failing = probe.case()
    failing.script("a", always=Act(status=503))
    reply = failing.chat(wishes, model=model)
    yield only_asked(me, "who was asked when a fails", failing, reply, "a")


def _ignored(me: str, case: "Case", reply: Reply) -> Finding:
    """Return whether record or answer name a header that changed nothing here."""
    places = [json.dumps(case.decision(reply).get("ignored")), str(reply.object.get("x-aiproxy"))]
    places += [value for name, value in reply.headers if name.startswith("x-ai-")]
    told = any(HINT.lower() in place.lower() or "ignored" in place.lower() for place in places)
    return tell(
        me, "the ignored headers", told, reply, expected=f"{HINT} among the ignored ones",
        found="nothing reported",
    )  # fmt: skip


@check(
    "XAI-REASON-007",
    level=2,
    keyword="MUST",
    title="an explicit reasoning object reaches providers that support it",
    clause="draft §5",
    depends_on=_CHATS,
)
@behind(
    native=Fake(
        alone=True, capabilities=("text-generation", "reasoning"), model={"reasoning": "native"}
    ),
    plain=Fake(alone=True, model={"reasoning": "none"}),
)
def explicit_reasoning_is_passed(probe: Probe) -> Iterator[Finding]:
    """The chat API spells it ``reasoning_effort``, the Responses API ``reasoning.effort``."""
    me = "XAI-REASON-007"
    for effort in ("low", "high"):
        case = probe.case()
        reply = case.chat(model=probe.cast["native"].model, reasoning={"effort": effort})
        yield served(me, f"effort {effort}, a provider that reasons", case, reply, "native")
        for attempt in case.attempts():
            found = _effort(attempt.json)
            yield tell(
                me, "the effort upstream", found == effort, reply, expected=repr(effort),
                found=repr(found),
            )  # fmt: skip
    case = probe.case()
    reply = case.chat(model=probe.cast["plain"].model, reasoning={"effort": "low"})
    yield tell(
        me, "a provider that does not reason", reply.status < 500, reply,
        expected="an answer, or a clear refusal",
    )  # fmt: skip


def _effort(sent: Mapping[str, Any]) -> Any:
    nested = sent.get("reasoning")
    return nested.get("effort") if isinstance(nested, dict) else sent.get("reasoning_effort")
