"""Optimising cost, latency and availability against a known truth (aiproxy §2, §4.1; asc rules).

The truth is what the suite configured and scripted. Each winner loses in a twin of its scenario,
so that a fixed order cannot pass.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from aiproxy.conformance.case import OMIT
from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.choices import CHATS, choose, picks
from aiproxy.conformance.pacing import paced
from aiproxy.conformance.probe import Probe, refused, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake, World
from aiproxy.conformance.rig.worlds import CHEAPEST
from aiproxy.conformance.sightings import QUALITY, STRATEGY, only_asked, served

_FASTEST: Final = World("fastest", {"routing": {"strategy": "latency_optimized"}})
_CODE: Final = ("text-generation", "code-generation")
_SEES: Final = ("text-generation", "vision")
_DRAWS: Final = 10
_PICTURE: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)


@check(
    "AIP-ROUTE-010",
    level=3,
    keyword="MUST",
    title="strategy cost_optimized orders candidates by estimated cost",
    clause="aiproxy §4.1 strategy",
    depends_on=CHATS,
)
@behind(
    world=CHEAPEST,
    first=Fake(priority=1, price=0.005),
    second=Fake(priority=2, price=0.001),
    free=Fake(priority=3, price=0.0),
    unknown=Fake(priority=0, price=None),
)
def cost_orders_everybody(probe: Probe) -> Iterator[Finding]:
    """The order shows in who steps in for whom; who names no price comes last."""
    me, order = "AIP-ROUTE-010", ("free", "second", "first", "unknown")
    for failing in range(len(order)):
        case = probe.case()
        for role in order[:failing]:
            case.script(role, always=Act(status=503))
        reply = case.chat()
        what = f"while {', '.join(order[:failing])} fail" if failing else "all healthy"
        yield served(me, what, case, reply, order[failing])


@check(
    "AIP-ROUTE-007",
    level=3,
    keyword="MUST",
    title="the cheapest provider that meets the requirements is chosen",
    clause="aiproxy §2",
    depends_on=CHATS,
)
@check(
    "UNI-ROUTE-006",
    level=3,
    keyword="MUST",
    title="a selector picks a provider from scored candidates",
    clause="universal providerSelection.selector",
    depends_on=CHATS,
)
@behind(
    a=Fake(priority=1, price=0.006, quality=0.95),
    b=Fake(priority=2, price=0.001, quality=0.30),
    c=Fake(priority=3, price=0.002, quality=0.55),
    d=Fake(priority=4, price=0.004, quality=0.80),
    e=Fake(priority=5, price=0.003, quality=0.60, capabilities=_SEES),
)
def the_cheapest_that_will_do(probe: Probe) -> Iterator[Finding]:
    """Pools, quality thresholds and cost limits of chance, against working it out by hand."""
    fakes = {role: probe.cast[role].fake for role in probe.cast.actors}
    for _ in range(_DRAWS):
        pool = tuple(sorted(probe.chance.sample(sorted(fakes), k=probe.chance.randint(2, 5))))
        least = probe.chance.choice((0.0, 0.4, 0.58, 0.7))
        fit = [role for role in pool if _quality(fakes[role]) >= least]
        headers = {STRATEGY: "cost", QUALITY: f"{least:g}"}
        case, reply = choose(probe, pool, headers)
        what = f"among {', '.join(pool)} with a quality of {least:g} at least"
        for me in ("AIP-ROUTE-007", "UNI-ROUTE-006"):
            if fit:
                right = min(fit, key=lambda role: fakes[role].price or 0.0)
                yield served(me, what, case, reply, right)
            else:
                yield refused(me, what, reply, 422)
                yield only_asked(me, what, case, reply)


def _quality(fake: Fake) -> float:
    return fake.quality if isinstance(fake.quality, float) else 0.0


@check(
    "ASC-CAP-002",
    level=3,
    keyword="MUST",
    title="each class of request goes to its cheapest capable provider",
    clause="asc Why Naive Proxying 2",
    depends_on=CHATS,
)
@behind(
    plain=Fake(priority=9, price=0.0005),
    codes=Fake(priority=5, price=0.003, capabilities=_CODE),
    codes_dear=Fake(priority=1, price=0.03, capabilities=_CODE),
    sees=Fake(priority=4, price=0.004, capabilities=_SEES),
    sees_dear=Fake(priority=2, price=0.04, capabilities=_SEES),
)
def each_class_has_its_own_cheapest(probe: Probe) -> Iterator[Finding]:
    me, everyone = "ASC-CAP-002", ("plain", "codes", "codes_dear", "sees", "sees_dear")
    cost = {STRATEGY: "cost"}
    yield picks(me, probe, "a plain question", everyone, "plain", cost)
    case = probe.case()
    parts = [
        {"type": "text", "text": case.prompt("What is this?")},
        {"type": "image_url", "image_url": {"url": _PICTURE}},
    ]
    reply = case.chat(
        {"X-AI-Provider-Pool": case.pool(*everyone), **cost}, model="auto",
        messages=[{"role": "user", "content": parts}],
    )  # fmt: skip
    yield served(me, "a question about a picture", case, reply, "sees")
    coding = {STRATEGY: "capability-first", "X-AI-Task-Hint": "coding"}
    yield picks(me, probe, "a coding task", everyone, "codes", coding)


@check(
    "ASC-RULE-003",
    level=3,
    keyword="MUST",
    title="the cheapest provider with room for the context is chosen",
    clause="asc rules Cost-based",
    depends_on=CHATS,
)
@behind(
    small=Fake(priority=1, price=0.0005, model={"context_window": 1024}),
    large=Fake(priority=2, price=0.001, model={"context_window": 65536}),
    dear=Fake(priority=3, price=0.01, model={"context_window": 65536}),
)
def the_context_has_to_fit(probe: Probe) -> Iterator[Finding]:
    """Some 2,600 words are more than 1,024 tokens of any tokenizer and fewer than 60,000."""
    me, cost = "ASC-RULE-003", {STRATEGY: "cost"}
    everyone = ("small", "large", "dear")
    yield picks(me, probe, "a short prompt", everyone, "small", cost)
    text = " ".join(["A sentence of nine words that only takes space."] * 290)
    case = probe.case()
    reply = case.chat(
        {"X-AI-Provider-Pool": case.pool(*everyone), **cost}, model="auto", prompt=text
    )
    yield served(me, "a long prompt", case, reply, "large")
    yield only_asked(me, "who was asked with a long prompt", case, reply, "large")


@check(
    "AIP-ROUTE-011",
    level=3,
    keyword="MUST",
    title="strategy latency_optimized orders candidates by measured latency",
    clause="aiproxy §4.1 strategy",
    depends_on=CHATS,
)
@check(
    "ASC-RULE-004",
    level=3,
    keyword="MUST",
    title="the 95th percentile of the latency decides, not its mean",
    clause="asc rules Latency-based",
    depends_on=CHATS,
)
@check(
    "XAI-PERF-007",
    level=3,
    keyword="MUST",
    title="latency statistics ignore failed calls",
    clause="draft §9 (implied)",
    depends_on=CHATS,
)
@behind(
    world=_FASTEST,
    slow=Fake(priority=1, price=0.0001),
    middle=Fake(priority=2, price=0.001),
    fast=Fake(priority=3, price=0.01),
    uneven=Fake(priority=4, price=0.02),
)
def measured_latency_orders(probe: Probe) -> Iterator[Finding]:
    order, tail, failed = "AIP-ROUTE-011", "ASC-RULE-004", "XAI-PERF-007"
    pace = paced(probe, {"slow": 0.5, "middle": 0.22, "fast": 0.01})
    if not pace.steady:
        for me in (order, tail, failed):
            yield say(me, Status.INCONCLUSIVE, pace.reason)
        return
    three = ("slow", "middle", "fast")
    for missing, right in (((), "fast"), (("fast",), "middle")):
        pool = tuple(role for role in three if role not in missing)
        case, reply = choose(probe, pool)
        yield served(order, f"among {', '.join(pool)}", case, reply, right)
    for _ in range(8):
        _wait(probe, "uneven", 0.0)
    probe.together(2, lambda _: _wait(probe, "uneven", _LONG_S))
    case, reply = choose(probe, ("middle", "uneven"))
    what = f"always 220 ms, against no time that is {_LONG_S:g} s one time in five"
    yield served(tail, what, case, reply, "middle")
    probe.together(2, lambda _: _wait(probe, "fast", 0.6, status=500))
    pool = ("middle", "fast")
    again = probe.poll(lambda: _chosen(probe, pool, {}) == "fast", 5.0)
    yield tell(
        failed, "the fastest, after two failures that took 600 ms each", again,
        expected="still the fastest", found="passed over for 5 s",
    )  # fmt: skip


_LONG_S: Final = 0.95


def _wait(probe: Probe, role: str, seconds: float, status: int = 200) -> None:
    case = probe.case()
    case.script(role, always=Act(wait_s=seconds, status=status))
    case.chat({"X-AI-Provider-Pool": case.pool(role)}, model="auto")


@check(
    "AIP-ROUTE-012",
    level=3,
    keyword="MUST",
    title="strategy availability orders candidates by recent success",
    clause="aiproxy §4.1 strategy",
    depends_on=CHATS,
)
@behind(
    shaky=Fake(priority=1, price=0.001),
    sound=Fake(priority=9, price=0.01),
    middling=Fake(priority=5, price=0.005),
)
def success_orders(probe: Probe) -> Iterator[Finding]:
    """Two of ten fail at one, four of ten at the other: below any threshold, above any doubt."""
    me = "AIP-ROUTE-012"
    for role, failures in (("shaky", 4), ("middling", 2), ("sound", 0)):
        for call in range(10):
            case = probe.case()
            case.script(role, always=Act(status=500) if call < failures else Act())
            case.chat({"X-AI-Provider-Pool": case.pool(role)}, model="auto")
    seen = {role: sum(case_role == role for case_role in _own_attempts(probe)) for role in _THREE}
    if min(seen.values()) < 8:
        yield say(me, Status.INCONCLUSIVE, "a provider alone in its pool was not always asked")
        return
    headers = {STRATEGY: "availability"}
    for pool, right in ((_THREE, "sound"), (("shaky", "middling"), "middling")):
        chosen = partial(_chosen, probe, pool, headers)
        settled = probe.poll(lambda: chosen() == right, 4.0)  # noqa: B023 (called at once)
        yield tell(
            me, f"among {', '.join(pool)}", settled,
            expected=right, found=_chosen(probe, pool, headers) or "nobody",
        )  # fmt: skip


_THREE: Final = ("shaky", "middling", "sound")


def _own_attempts(probe: Probe) -> list[str]:
    ids = {probe.cast[role].id: role for role in probe.cast.actors}
    return [ids[a.provider] for a in probe.upstreams.everything() if a.provider in ids]


def _chosen(probe: Probe, pool: tuple[str, ...], headers: dict[str, str]) -> str:
    case, reply = choose(probe, pool, headers)
    return case.served(reply)


@check(
    "AIP-USE-001",
    level=3,
    keyword="MUST",
    title="the local provider serves alone; the cloud only while it is down",
    clause="aiproxy §7.1",
    depends_on=CHATS,
)
@behind(
    world=CHEAPEST,
    cloud=Fake(priority=1, price=0.002),
    near=Fake(priority=2, price=0.0, provider={"local": True}),
)
def near_before_far(probe: Probe) -> Iterator[Finding]:
    me = "AIP-USE-001"
    for _ in range(5):
        case = probe.case()
        reply = case.chat()
        yield served(me, "while the local one is up", case, reply, "near")
        yield only_asked(me, "who is asked by then", case, reply, "near")
    probe.upstreams.shut(probe.cast["near"].id)
    case = probe.case()
    yield served(me, "while the local one is down", case, case.chat(), "cloud")
    probe.upstreams.reopen(probe.cast["near"].id)
    back = probe.poll(lambda: _near(probe), _BACK_S, every_s=0.2, times=3)
    yield tell(me, "once it is up again", back, expected="it serves again", found="the cloud")


_BACK_S: Final = 15.0


def _near(probe: Probe) -> bool:
    case = probe.case()
    return case.served(case.chat()) == "near"


@check(
    "AIP-API-013",
    level=3,
    keyword="MUST",
    title="predict: routing.strategy overrides the configured strategy for one request",
    clause="aiproxy §5.2",
    depends_on=("AIP-API-010",),
)
@check(
    "AIP-API-014",
    level=3,
    keyword="MUST",
    title="predict: routing.max_cost bounds the estimated cost in US dollars",
    clause="aiproxy §5.2",
    depends_on=("AIP-API-010",),
)
@behind(
    world=CHEAPEST,
    cheap=Fake(priority=9, price=0.001, quality=0.3),
    good=Fake(priority=1, price=0.05, quality=0.9),
)
def predict_has_its_own_routing(probe: Probe) -> Iterator[Finding]:
    strategy, limit = "AIP-API-013", "AIP-API-014"
    for asked, right in ((OMIT, "cheap"), ({"strategy": "quality"}, "good"), (OMIT, "cheap")):
        case = probe.case()
        reply = case.predict(routing=asked)
        what = "no routing of its own" if asked is OMIT else f"routing {asked}"
        yield served(strategy, what, case, reply, right)
    wrong: tuple[tuple[str, dict[str, Any], str], ...] = (
        (strategy, {"strategy": "cheapest"}, "routing.strategy"),
        (limit, {"max_cost": -1}, "routing.max_cost"),
        (limit, {"max_cost": "much"}, "routing.max_cost"),
    )
    for me, routing, param in wrong:
        case = probe.case()
        reply = case.predict(routing=routing)
        yield refused(me, f"routing {routing}", reply, 400)
        yield tell(
            me, f"what is blamed for {routing}", reply.error.get("param") == param, reply,
            expected=f"param {param}", found=f"param {reply.error.get('param')}",
        )  # fmt: skip
        yield only_asked(me, f"who was asked with {routing}", case, reply)
    case = probe.case()
    reply = case.predict(routing={"max_cost": 0})
    none = reply.status == 422 and reply.error.get("code") == "no_eligible_provider"
    yield tell(limit, "max_cost 0, nobody free", none, reply, expected="422 no_eligible_provider")
    yield only_asked(limit, "who was asked for nothing", case, reply)
    case = probe.case()
    reply = case.predict(routing={"strategy": "quality", "max_cost": 0.005})
    yield served(limit, "quality, for at most half a cent", case, reply, "cheap")


@check(
    "ASC-CACHE-006",
    level=3,
    keyword="MUST",
    title="no cache answers requests with a seed, tools or no-store",
    clause="asc Semantic Caching caveats",
    depends_on=CHATS,
)
@behind(a=Fake())
def some_requests_are_never_cached(probe: Probe) -> Iterator[Finding]:
    """The very same request twice; the fake must have seen both."""
    me = "ASC-CACHE-006"
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    for what, headers, fields in (
        ("a seed", {}, {"seed": 7}),
        ("tools", {}, {"tools": [tool]}),
        ("a high temperature", {}, {"temperature": 1.5}),
        ("Cache-Control: no-store", {"Cache-Control": "no-store"}, {}),
    ):
        case = probe.case()
        fields_: dict[str, Any] = dict(fields)
        first, second = (case.chat(headers, **fields_) for _ in range(2))
        if first.status != 200 or second.status != 200:
            yield say(me, Status.INCONCLUSIVE, f"{what}: {first.outcome}", first)
            continue
        asked = len(case.tried())
        yield tell(
            me, f"twice the same request with {what}", asked == 2, second,
            expected="two calls of the provider", found=str(asked),
        )  # fmt: skip


derive(
    "AIP-PROB-005", level=3, keyword="MUST", clause="aiproxy §1.5",
    title="the cheapest suitable provider is selected automatically", of=("AIP-ROUTE-007",),
)  # fmt: skip
derive(
    "AIP-CHK-012", level=3, keyword="MUST", title="checklist: cost optimisation exists",
    clause="aiproxy §8 Phase 3", of=("AIP-ROUTE-007",),
)  # fmt: skip
derive(
    "AIP-CHK-013", level=3, keyword="MUST", title="checklist: latency optimisation exists",
    clause="aiproxy §8 Phase 3", of=("AIP-ROUTE-011",),
)  # fmt: skip
derive(
    "UNI-ROUTE-001", level=3, keyword="MUST", title="a cost-optimised strategy exists",
    clause="universal strategies.costOptimized", of=("AIP-ROUTE-010",),
)  # fmt: skip
derive(
    "UNI-ROUTE-002", level=3, keyword="MUST", title="a performance-optimised strategy exists",
    clause="universal strategies.performanceOptimized", of=("AIP-ROUTE-011",),
)  # fmt: skip
derive(
    "UNI-ROUTE-003", level=3, keyword="MUST", title="a quality-optimised strategy exists",
    clause="universal strategies.qualityOptimized", of=("XAI-HDR-025",),
)  # fmt: skip
derive(
    "UNI-ROUTE-004", level=3, keyword="MUST", title="a balanced strategy exists",
    clause="universal strategies.balanced", of=("XAI-HDR-027",),
)  # fmt: skip
derive(
    "UNI-ROUTE-014", level=3, keyword="MUST", clause="universal selectOptimalProvider steps",
    title="selection analyses, lists, scores, applies a strategy, validates and has fallbacks",
    of=("UNI-ROUTE-006", "AIP-ROUTE-010", "AIP-FAIL-002"),
)  # fmt: skip
derive(
    "ASC-CAP-003", level=3, keyword="MUST", clause="asc Why Naive Proxying 3",
    title="the model whose declared capabilities fit best gets the request", of=("XAI-HDR-026",),
)  # fmt: skip
