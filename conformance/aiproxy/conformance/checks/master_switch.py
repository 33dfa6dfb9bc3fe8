"""X-AI-Multi-Provider, the master switch, and who serves when nothing is asked for (draft §5, §6).

The switch decides between the world's default provider and everybody else, so each check here
has its twin: the same request with the switch the other way, or without it.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.case import OMIT
from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.endpoint import Reply
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake, World
from aiproxy.conformance.sightings import (
    COST,
    DEFAULT,
    HINT,
    POLICY,
    POOL,
    STRATEGY,
    SWITCH,
    USED,
    only_asked,
    served,
)

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

# A world of its own: its default provider fails, and auto may go to everybody in it.
_SWITCHED: Final = World("switched", {"routing": {"strategy": "availability"}})
_AUTO: Final = ("XAI-AUTO-001",)
_DRAFT: Final = ("XAI-COMPAT-013",)
_DECISIONS: Final = (
    USED, "x-ai-model-mapped", "x-ai-auto-selection", "x-ai-auto-decisions", "x-ai-tool-mapping",
    "x-ai-alternatives-considered", "x-ai-selection-confidence", "x-ai-failover-occurred",
)  # fmt: skip
_AUTO_PARAMETERS: Final = ("model", "tools", "reasoning", "max_completion_tokens")
# What an auto parameter may be called on its way to a provider.
_AUTO_FIELDS: Final = (
    "model", "tools", "reasoning", "reasoning_effort", "max_tokens", "max_completion_tokens",
    "max_output_tokens",
)  # fmt: skip


@check(
    "XAI-HDR-013",
    level=2,
    keyword="MUST",
    title="enabled: an auto model may be served by any eligible provider",
    clause="draft §6, Table 2",
    depends_on=_AUTO,
)
@check(
    "XAI-HDR-014",
    level=2,
    keyword="MUST",
    title="disabled: only the default provider is contacted, without failover",
    clause="draft §6, Table 2, Fig 5",
    depends_on=_AUTO,
)
@check(
    "XAI-HDR-015",
    level=2,
    keyword="MUST",
    title="another multi-provider header alone counts as enabled",
    clause="draft §5, rule 3",
    depends_on=_AUTO,
)
@behind(world=_SWITCHED, a=Fake(priority=1), b=Fake(priority=1))
def the_switch_decides(probe: Probe) -> Iterator[Finding]:
    """Failures come last: whoever failed may well be left alone for a while."""
    yield from _headers_alone(probe)
    yield from _disabled(probe, {}, failing=False)
    yield from _disabled(probe, {}, failing=True)
    yield from _disabled(probe, {POLICY: "automatic"}, failing=True)
    yield from _enabled(probe)


def _headers_alone(probe: Probe) -> Iterator[Finding]:
    """A pool shows it by who serves, a preference by the decision that is then told."""
    me = "XAI-HDR-015"
    for role in ("a", "b"):
        case = probe.case()
        reply = case.chat({POOL: case.pool(role)}, model="auto")
        yield served(me, f"{POOL} alone, {role}", case, reply, role)
    for name, value in ((POLICY, "automatic"), (HINT, "coding"), (STRATEGY, "cost"), (COST, "1")):
        alone = probe.case().chat({name: value}, model="auto")
        switched = probe.case().chat({name: value, SWITCH: "enabled"}, model="auto")
        yield tell(
            me, f"{name} alone", _told(alone) == _told(switched), alone,
            expected=f"as with enabled: {_told(switched)}", found=_told(alone),
        )  # fmt: skip


def _disabled(probe: Probe, headers: Mapping[str, str], *, failing: bool) -> Iterator[Finding]:
    me, case = "XAI-HDR-014", probe.case()
    case.script(DEFAULT, always=Act(status=500) if failing else None)
    reply = case.chat({SWITCH: "disabled", **headers}, model="auto")
    how = f"the default provider {'fails' if failing else 'is healthy'}"
    yield only_asked(me, f"who was asked when {how}", case, reply, DEFAULT)
    if failing:
        error = reply.status >= 500
        yield tell(me, f"the answer when {how}", error, reply, expected="status 502 or 503")
    else:
        yield served(me, f"the answer when {how}", case, reply, DEFAULT)


def _enabled(probe: Probe) -> Iterator[Finding]:
    """Nothing but the switch is said, and all but one provider fail: that one has to serve."""
    for role, other in (("a", "b"), ("b", "a")):
        case = probe.case()
        for failing in (DEFAULT, other):
            case.script(failing, always=Act(status=500))
        reply = case.chat({SWITCH: "enabled"}, model="auto")
        yield served("XAI-HDR-013", f"only {role} is healthy", case, reply, role)


def _told(reply: Reply) -> str:
    return f"status {reply.status}, {'a' if reply.header(USED) else 'no'} provider told"


@check(
    "XAI-SYNC-002",
    level=2,
    keyword="MUST",
    title="disabled: auto values are ordinary, one default provider serves",
    clause="draft §5, rule 2",
    depends_on=_AUTO,
)
@behind(a=Fake(priority=1), b=Fake(priority=1))
def disabled_makes_auto_ordinary(probe: Probe) -> Iterator[Finding]:
    me = "XAI-SYNC-002"
    case = probe.case()
    auto: dict[str, Any] = {"max_tokens": OMIT} | dict.fromkeys(_AUTO_PARAMETERS, "auto")
    reply = case.chat({SWITCH: "disabled"}, **auto)
    yield served(me, "every auto parameter", case, reply, DEFAULT)
    yield only_asked(me, "who was asked", case, reply, DEFAULT)
    yield from _default_model(me, probe, case, reply)
    for attempt in case.attempts():
        left = [name for name in _AUTO_FIELDS if attempt.json.get(name) == "auto"]
        yield tell(
            me, "the word auto upstream", not left, reply, expected="nowhere", found=", ".join(left)
        )
        yield _no_tools(me, attempt.json, reply)


@check(
    "XAI-SYNC-003",
    level=2,
    keyword="MUST",
    title="disabled: all preference headers are ignored",
    clause="draft §6, Fig 5",
    depends_on=_AUTO,
)
@behind(a=Fake(priority=1, price=0.0001), b=Fake(priority=2))
def disabled_ignores_preferences(probe: Probe) -> Iterator[Finding]:
    """The twin differs in the switch alone."""
    me = "XAI-SYNC-003"
    case = probe.case()
    wishes = {POOL: case.pool("b"), STRATEGY: "cost", HINT: "coding", POLICY: "automatic"}
    reply = case.chat({SWITCH: "disabled", **wishes}, model="auto")
    yield served(me, "disabled, with wishes", case, reply, DEFAULT)
    yield only_asked(me, "who was asked", case, reply, DEFAULT)
    yield _undecided(me, reply)
    twin = probe.case()
    reply = twin.chat({SWITCH: "enabled", **wishes}, model="auto")
    yield served(me, "enabled, with the same wishes", twin, reply, "b")


@check(
    "XAI-SYNC-007",
    level=2,
    keyword="MUST",
    title="auto without any X-AI header is served by the default provider",
    clause="draft §5, rule 3",
    depends_on=_AUTO,
)
@behind(a=Fake(priority=1, price=0.0001), b=Fake(priority=2))
def auto_alone_is_the_defaults(probe: Probe) -> Iterator[Finding]:
    me = "XAI-SYNC-007"
    for _ in range(3):
        case = probe.case()
        reply = case.chat(model="auto")
        yield served(me, "auto and no X-AI header", case, reply, DEFAULT)
        yield only_asked(me, "who was asked", case, reply, DEFAULT)
        yield from _default_model(me, probe, case, reply)
        yield _undecided(me, reply)


@check(
    "XAI-SYNC-012",
    level=2,
    keyword="MUST",
    title="example 3: disabled overrides auto model and tools",
    clause="draft §6, Fig 5",
    depends_on=_DRAFT,
)
@check(
    "XAI-FIG-005",
    level=2,
    keyword="MUST",
    title="the request of Fig 5 is accepted and served by the default provider",
    clause="draft Fig 5",
    depends_on=_DRAFT,
)
@behind(a=Fake(priority=1), b=Fake(priority=2))
def the_request_of_figure_5(probe: Probe) -> Iterator[Finding]:
    case = probe.case()
    figure: dict[str, Any] = {"model": "auto", "tools": "auto"}
    reply = case.draft({SWITCH: "disabled", HINT: "reasoning"}, prompt="Help with coding", **figure)
    yield served("XAI-FIG-005", "the request of Fig 5", case, reply, DEFAULT)
    me = "XAI-SYNC-012"
    if not case.attempts():
        yield say(me, Status.NOT_TESTABLE, "no provider was asked", reply)
        return
    yield only_asked(me, "who was asked", case, reply, DEFAULT)
    for attempt in case.attempts():
        yield _no_tools(me, attempt.json, reply)
    yield from _default_model(me, probe, case, reply)


def _default_model(me: str, probe: Probe, case: "Case", reply: Reply) -> Iterator[Finding]:
    for attempt in case.attempts():
        if attempt.role == DEFAULT:
            model = attempt.json.get("model")
            yield tell(
                me, "the model asked of the default provider",
                model == probe.default.upstream_model, reply,
                expected=f"its own, {probe.default.upstream_model}", found=repr(model),
            )  # fmt: skip


def _no_tools(me: str, sent: Mapping[str, Any], reply: Reply) -> Finding:
    return tell(
        me, "tools upstream", not sent.get("tools"), reply, expected="none",
        found=repr(sent.get("tools"))[:80],
    )  # fmt: skip


def _undecided(me: str, reply: Reply) -> Finding:
    """Nothing was decided between providers, so nothing should be told; telling is no harm."""
    shown = [name for name in _DECISIONS if reply.header(name) is not None]
    return tell(
        me, "decision headers", not shown, reply, expected="none", found=", ".join(shown),
        otherwise=Status.WARN,
    )  # fmt: skip
