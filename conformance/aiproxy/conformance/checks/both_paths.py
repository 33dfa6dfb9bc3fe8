"""The same headers on /v1/chat/completions and on /v1/responses (draft §6)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.endpoint import Reply
from aiproxy.conformance.probe import Probe, say, tell
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
    USED,
)

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_FAILING: Final = Act(status=503)


@check(
    "XAI-HDR-076",
    level=2,
    keyword="MUST",
    title="the headers act alike on both paths",
    clause="draft §6",
    depends_on=("AIP-API-001",),
)
@behind(a=Fake(), b=Fake(), c=Fake(), d=Fake(), e=Fake(), f=Fake(), g=Fake(), h=Fake())
def headers_act_alike(probe: Probe) -> Iterator[Finding]:
    """Each form of request has two fakes of its own that fail: c and d, e and f, g and h."""
    me = "XAI-HDR-076"
    on_chat = {row: found for row, found, _ in _matrix(probe, "chat", "cd")}
    for form, pair in (("draft", "ef"), ("responses", "gh")):
        plain = getattr(probe.case(), form)()
        if plain.status != 200:
            # The draft's form is owed at this level, the genuine one is recommended.
            status = Status.NOT_TESTABLE if form == "draft" else Status.UNSUPPORTED
            yield say(me, status, f"/v1/responses, {_FORMS[form]}: {plain.outcome}", plain)
            continue
        for row, found, reply in _matrix(probe, form, pair):
            yield tell(
                me, f"{row}, {_FORMS[form]}", found == on_chat[row], reply,
                expected=f"as on /v1/chat/completions: {on_chat[row]}", found=found,
            )  # fmt: skip


_FORMS: Final = {"draft": "with messages", "responses": "with input"}


def _matrix(probe: Probe, form: str, failing: str) -> Iterator[tuple[str, str, Reply]]:
    """Yield each row's name, what became of it in words, and the reply."""
    cast = probe.cast
    rows: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
        "a pool of a": ({POOL: cast.pool("a")}, {}),
        "a pool of b": ({POOL: cast.pool("b")}, {}),
        "enabled, auto, a pool of b": (
            {SWITCH: "enabled", POOL: cast.pool("b")}, {"model": "auto"},
        ),
        "disabled, auto, a pool of b": (
            {SWITCH: "disabled", POOL: cast.pool("b")}, {"model": "auto"},
        ),
        "a pool of strangers": ({POOL: probe.word()}, {}),
        "an unknown hint": ({HINT: probe.word(), POOL: cast.pool("a")}, {}),
        _ALL_FAIL: ({POLICY: "none", POOL: cast.pool(*failing)}, {}),
        **{f"{name}: {value}": ({name: value}, {}) for name, value in _BAD},
    }  # fmt: skip
    for row, (headers, fields) in rows.items():
        case = probe.case()
        if row == _ALL_FAIL:
            for role in failing:
                case.script(role, always=_FAILING)
        reply = getattr(case, form)(headers, **fields)
        named = headers.get(POOL) in (case.pool("a"), case.pool("b"))
        yield row, _outcome(case, reply, named=named), reply


_ALL_FAIL: Final = "policy none, two that fail"
_BAD: Final = (
    (POLICY, "sometimes"), (SWITCH, "perhaps"), (QUALITY, "2"), (LATENCY, "-1"), (COST, "cheap"),
)  # fmt: skip


def _outcome(case: "Case", reply: Reply, *, named: bool) -> str:
    """Who serves is part of the outcome only where the pool names one provider."""
    asked = len(case.order())
    if reply.status == 200:
        who = case.who(case.served(reply)) if named else "somebody"
        return f"served by {who}, {'' if reply.header(USED) else 'not '}told, {asked} asked"
    param, code = reply.error.get("param"), reply.error.get("code")
    return f"{reply.status} {code} ({param}), {asked} asked"
