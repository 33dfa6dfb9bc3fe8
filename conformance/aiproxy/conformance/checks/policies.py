"""Policies: the rules of the Standard's sections 4.1 and 7 in force.

Each scenario's rules are guarded by its own model name, so that they touch nobody else's requests.
The fallback of a rule must move with the rule: every fact has a twin where the other one is right.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.choices import CHATS
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Casts, Fake, World
from aiproxy.conformance.sightings import only_asked, served

_ORDER, _BACK = "policies.the_first_match_wins", "policies.the_first_match_wins_again"
_TOKENS, _TYPES = "policies.length_decides", "policies.types_decide"
_PREFER, _REQUIRE = "policies.preferences_order", "policies.requirements_bind"
_NOBODY: Final = "policies.a_requirement_nobody_meets"
_LONG: Final = " ".join(["A sentence of nine words that only takes space."] * 260)
_FAILS: Final = Act(status=503)


def _policies(casts: Casts) -> Mapping[str, Any]:
    policies: list[dict[str, Any]] = []

    def add(name: str, rules: list[dict[str, str]], kind: str = "model_specific") -> None:
        policies.append({"name": name, "type": kind, "rules": rules})

    for scenario, roles in ((_ORDER, ("b", "c")), (_BACK, ("c", "b"))):
        if scenario in casts:
            cast = casts[scenario]
            mine = f"request.model == '{cast.model}'"
            rules = [{"if": mine, "then": f"require provider.{cast[r].id}"} for r in roles]
            add(f"rules of {cast.model}", rules)
    if _TOKENS in casts:
        mine = f"request.model == '{casts[_TOKENS].model}'"
        add("minimize_cost", [
            {"if": f"{mine} and request.tokens < 1000", "then": "provider.priority ASC"},
            {"if": f"{mine} and request.tokens >= 1000", "then": "provider.cost_per_1k_tokens ASC"},
        ], "cost_optimized")  # fmt: skip
    if _TYPES in casts:
        mine = f"request.model == '{casts[_TYPES].model}'"
        add("by type", [
            {"if": f"{mine} and provider.type == 'ollama'", "then": "priority = 1"},
            {"if": f"{mine} and provider.type == 'lmstudio'", "then": "priority = 2"},
            {"if": f"{mine}", "then": "priority = 3"},
        ])  # fmt: skip
    if _PREFER in casts:
        cast = casts[_PREFER]
        glob = f"{cast.model[:-2]}*"
        then = f"prefer provider.{cast['c'].id} > provider.{cast['b'].id}"
        add("prefers", [{"if": f"request.model matches '{glob}'", "then": then}])
    if _REQUIRE in casts:
        cast = casts[_REQUIRE]
        glob = f"{cast.model[:-2]}*"
        then = f"require provider.{cast['b'].id}"
        add("requires", [{"if": f"request.model == '{glob}'", "then": then}])
    if _NOBODY in casts:
        cast = casts[_NOBODY]
        mine = f"request.model == '{cast.model}'"
        add("nobody", [{"if": mine, "then": f"require provider.{cast['elsewhere'].id}"}])
    return {"routing": {"strategy": "cost_optimized", "policies": policies}}


_WORLD: Final = World("policies", _policies)


def _asked(probe: Probe, *failing: str, prompt: str = "Say ok.") -> tuple[Any, Any]:
    case = probe.case()
    for role in failing:
        case.script(role, always=_FAILS)
    return case, case.chat(prompt=prompt)


@check(
    "AIP-ROUTE-009",
    level=3,
    keyword="MUST",
    title="within a policy the first matching rule wins",
    clause="aiproxy §7.1-7.3",
    depends_on=CHATS,
)
@behind(world=_WORLD, a=Fake(price=0.001), b=Fake(price=0.002), c=Fake(price=0.003))
def the_first_match_wins(probe: Probe) -> Iterator[Finding]:
    """Two rules match and contradict each other; the twin below has them the other way round."""
    case, reply = _asked(probe)
    yield served("AIP-ROUTE-009", "rules: require b, then require c", case, reply, "b")


@check(
    "ASC-RULE-006",
    level=3,
    keyword="MUST",
    title="rules are evaluated in order and the first match wins",
    clause="asc rules order",
    depends_on=CHATS,
)
@behind(world=_WORLD, a=Fake(price=0.001), b=Fake(price=0.002), c=Fake(price=0.003))
def the_first_match_wins_again(probe: Probe) -> Iterator[Finding]:
    case, reply = _asked(probe)
    yield served("ASC-RULE-006", "rules: require c, then require b", case, reply, "c")
    yield only_asked("ASC-RULE-006", "who was asked", case, reply, "c")


@check(
    "AIP-ROUTE-014",
    level=3,
    keyword="MUST",
    title="request.tokens < 1000 with provider.priority ASC: short ones go by priority",
    clause="aiproxy §4.1 policy minimize_cost",
    depends_on=CHATS,
)
@check(
    "AIP-ROUTE-015",
    level=3,
    keyword="MUST",
    title="request.tokens >= 1000 with provider.cost_per_1k_tokens ASC: long ones go by price",
    clause="aiproxy §4.1 policy minimize_cost",
    depends_on=CHATS,
)
@behind(
    world=_WORLD,
    first=Fake(priority=1, price=0.02),
    middle=Fake(priority=2, price=0.01),
    cheap=Fake(priority=3, price=0.001),
)
def length_decides(probe: Probe) -> Iterator[Finding]:
    """About ten tokens, and more than two thousand: no estimate is that far off."""
    for me, prompt, expected, second in (
        ("AIP-ROUTE-014", "Say ok.", "first", "middle"),
        ("AIP-ROUTE-015", _LONG, "cheap", "middle"),
    ):
        what = "a short prompt" if prompt != _LONG else "a long prompt"
        case, reply = _asked(probe, prompt=prompt)
        yield served(me, what, case, reply, expected)
        case, reply = _asked(probe, expected, prompt=prompt)
        yield served(me, f"{what} while {expected} fails", case, reply, second)


@check(
    "AIP-ROUTE-016",
    level=3,
    keyword="MUST",
    title="rules on provider.type set the priorities, whatever was configured",
    clause="aiproxy §4.1 policy minimize_latency",
    depends_on=CHATS,
)
@behind(
    world=_WORLD,
    other=Fake(priority=1, price=0.0001),
    second=Fake(priority=2, price=0.001, provider={"type": "lmstudio"}),
    first=Fake(priority=3, price=0.002, provider={"type": "ollama"}),
)
def types_decide(probe: Probe) -> Iterator[Finding]:
    me = "AIP-ROUTE-016"
    case, reply = _asked(probe)
    yield served(me, "all healthy", case, reply, "first")
    case, reply = _asked(probe, "first")
    yield served(me, "while the first type fails", case, reply, "second")
    case, reply = _asked(probe, "first", "second")
    yield served(me, "while both types fail", case, reply, "other")


@check(
    "AIP-ROUTE-017",
    level=3,
    keyword="MUST",
    title="prefer puts the named providers first, in their order, and the rest behind",
    clause="aiproxy §4.1 policy route_by_model",
    depends_on=CHATS,
)
@behind(
    world=_WORLD,
    a=Fake(priority=1, price=0.0001),
    b=Fake(priority=2, price=0.001),
    c=Fake(priority=3, price=0.01),
)
def preferences_order(probe: Probe) -> Iterator[Finding]:
    me = "AIP-ROUTE-017"
    for failing, expected in (((), "c"), (("c",), "b"), (("c", "b"), "a")):
        case, reply = _asked(probe, *failing)
        what = f"while {' and '.join(failing)} fail" if failing else "all healthy"
        yield served(me, what, case, reply, expected)


@check(
    "AIP-ROUTE-018",
    level=3,
    keyword="MUST",
    title="request.model == with a * is a pattern; require leaves nobody else in",
    clause="aiproxy §4.1 policy route_by_model",
    depends_on=CHATS,
)
@behind(
    world=_WORLD,
    a=Fake(priority=1, price=0.0001),
    b=Fake(priority=2, price=0.001),
    free=Fake(priority=3, price=0.01, alone=True),
)
def requirements_bind(probe: Probe) -> Iterator[Finding]:
    me = "AIP-ROUTE-018"
    case, reply = _asked(probe)
    yield served(me, "a model that the pattern fits", case, reply, "b")
    case, reply = _asked(probe, "b")
    yield tell(me, "while the required one fails", reply.status >= 500, reply, expected="an error")
    yield only_asked(me, "while the required one fails", case, reply, "b")
    case = probe.case()
    reply = case.chat(model=probe.cast["free"].model)
    yield served(me, "a model that the pattern does not fit", case, reply, "free")


@check(
    "AIP-ROUTE-024",
    level=3,
    keyword="MUST",
    title="a requirement that nobody meets ends in a refusal",
    clause="aiproxy §4.1 (implied)",
    depends_on=CHATS,
)
@behind(
    world=_WORLD,
    a=Fake(price=0.001),
    b=Fake(price=0.002),
    elsewhere=Fake(price=0.003, alone=True),
)
def a_requirement_nobody_meets(probe: Probe) -> Iterator[Finding]:
    """The provider that the rule names is healthy, and does not serve this model."""
    me = "AIP-ROUTE-024"
    case = probe.case()
    control = case.chat(model=probe.cast["elsewhere"].model)
    if case.served(control) != "elsewhere":
        yield say(me, Status.NOT_TESTABLE, "the provider that the rule names does not answer")
        return
    case, reply = _asked(probe)
    yield only_asked(me, "who was asked", case, reply)
    right = reply.status in (422, 503) and reply.error.get("code") in _REFUSALS
    yield tell(me, "the answer", right, reply, expected="422 or 503 no_eligible_provider")


_REFUSALS: Final = ("no_eligible_provider", "no_healthy_provider")


derive(
    "AIP-CHK-011", level=3, keyword="MUST", title="checklist: advanced routing strategies exist",
    clause="aiproxy §8 Phase 3",
    of=(
        "AIP-ROUTE-010", "AIP-ROUTE-011", "AIP-ROUTE-012", "AIP-ROUTE-013", "XAI-HDR-023",
        "XAI-HDR-024", "XAI-HDR-025", "XAI-HDR-026", "XAI-HDR-027",
    ),
)  # fmt: skip
