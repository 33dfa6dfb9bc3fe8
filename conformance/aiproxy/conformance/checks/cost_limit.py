"""X-AI-Cost-Limit: what one request may cost at most (draft §6, Table 2).

A request's worst case is its prompt and its whole token limit at the list price.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import CHATS, ask, bad_header, choose, no_candidate
from aiproxy.conformance.claims import record, rejections, shortened
from aiproxy.conformance.probe import Probe, say, tell, x_aiproxy
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import COST, STRATEGY, only_asked, served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_BAD: Final = ("-1", "$1", "1 USD", "1,00", "NaN", "")
_REMOTE: Final = {"local": False}
_PRICE: Final = 0.01
# Room for the rounding of sums told as decimals.
_CENT: Final = 1e-9


@check(
    "XAI-HDR-064",
    level=3,
    keyword="MUST",
    title="X-AI-Cost-Limit is a decimal amount, 0 or more",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@behind(free=Fake(price=0.0))
def limits_are_amounts(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-064"
    for value in ("0", "0.01", "5"):
        _, reply = choose(probe, ("free",), {COST: value})
        yield tell(me, f"{COST}: {value}", reply.status == 200, reply, expected="status 200")
    for value in _BAD:
        case, reply = choose(probe, ("free",), {COST: value})
        yield from bad_header(me, COST, value, case, reply)


@check(
    "XAI-HDR-065",
    level=3,
    keyword="MUST",
    title="who may cost more than the limit is excluded",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-066",
    level=3,
    keyword="MUST",
    title="an unknown price is not eligible under a limit",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-067",
    level=3,
    keyword="MUST",
    title="a limit of 0 leaves only what is free",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@behind(
    dear=Fake(priority=1, price=0.01, quality=0.95),
    cheap=Fake(priority=9, price=0.001, quality=0.5),
    unpriced=Fake(priority=2, price=None, quality=0.9, provider=_REMOTE),
    free=Fake(priority=8, price=0.0, quality=0.4),
)
def the_limit_binds(probe: Probe) -> Iterator[Finding]:
    """Quality decides among those within the limit, and favours whoever is beyond it."""
    for me, pool, limit, right in (
        ("XAI-HDR-065", ("dear", "cheap"), "0.005", "cheap"),
        ("XAI-HDR-065", ("dear", "cheap"), "0.5", "dear"),
        ("XAI-HDR-065", ("dear", "cheap"), "", "dear"),
        ("XAI-HDR-066", ("unpriced", "cheap"), "0.5", "cheap"),
        ("XAI-HDR-066", ("unpriced", "cheap"), "", "unpriced"),
        ("XAI-HDR-067", ("dear", "cheap", "free"), "0", "free"),
        ("XAI-HDR-067", ("cheap", "free"), "0.5", "cheap"),
    ):
        headers = {STRATEGY: "quality", **({COST: limit} if limit else {})}
        case, reply = choose(probe, pool, headers, **_limited(probe, 1000))
        fact = f"{f'limit {limit}' if limit else 'no limit'} among {' and '.join(pool)}"
        yield served(me, fact, case, reply, right)
        yield only_asked(me, f"who was asked: {fact}", case, reply, right)
        if limit == "0.005":
            yield _listed(me, case, reply)
    impossible: tuple[tuple[str, tuple[str, ...], str], ...] = (
        ("XAI-HDR-065", ("dear",), "0.005"),
        ("XAI-HDR-066", ("unpriced",), "0.5"),
        ("XAI-HDR-067", ("dear", "cheap"), "0"),
    )
    for me, some, limit in impossible:
        case, reply = choose(probe, some, {COST: limit}, **_limited(probe, 1000))
        yield from no_candidate(me, f"{limit} among {' and '.join(some)}", case, reply, COST)


def _limited(probe: Probe, tokens: int) -> dict[str, Any]:
    return {probe.facts.limit_field: tokens}


def _listed(me: str, case: "Case", reply: Reply) -> Finding:
    reasons = rejections(case, reply, "dear")
    if not reasons and shortened(reply):
        return say(me, Status.INCONCLUSIVE, "the headers are shortened and there is no record")
    named = any(word in reason.lower() for reason in reasons for word in ("cost", "price", "limit"))
    return tell(
        me, "the dear one among the rejected", named, reply,
        expected="a reason that speaks of cost", found=", ".join(reasons) or "not listed",
    )  # fmt: skip


@check(
    "XAI-HDR-068",
    level=3,
    keyword="MUST",
    title="the cost told does not exceed the limit",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@behind(a=Fake(price=_PRICE))
def the_cost_told_keeps_the_limit(probe: Probe) -> Iterator[Finding]:
    """The fake keeps to the token limit; at last it does not, and then that must show."""
    me = "XAI-HDR-068"
    for tokens, words, limit in ((100, 5, 0.01), (400, 60, 0.02), (40, 300, 0.02)):
        case = probe.case()
        spent = tokens + words
        case.script("a", always=Act(usage=_usage(words, tokens)))
        headers = {COST: f"{limit}"}
        reply = ask(case, ("a",), headers, prompt="word " * words, **_limited(probe, tokens))
        told = _cost(case, reply)
        if reply.status != 200 or told is None:
            yield say(me, Status.INCONCLUSIVE, f"no cost told: {reply.outcome}", reply)
            continue
        real = spent / 1000 * _PRICE
        yield tell(
            me, f"{spent} tokens under a limit of {limit}", told <= limit + _CENT and told > 0,
            reply, expected=f"{real} or thereabouts", found=str(told),
        )  # fmt: skip
    case = probe.case()
    case.script("a", always=Act(usage=_usage(10, 9000)))
    reply = ask(case, ("a",), {COST: "0.01"}, **_limited(probe, 100))
    told = _cost(case, reply)
    shown = told is not None and told > 0.01
    yield tell(
        me, "9000 tokens where 100 were allowed", shown or _flagged(case, reply), reply,
        expected="a cost above the limit, or a flag", found=f"cost {told}",
    )  # fmt: skip


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _cost(case: "Case", reply: Reply) -> float | None:
    """Return the cost as told, in US dollars."""
    for told in (x_aiproxy(reply).get("cost"), record(case, reply).get("cost_usd")):
        if isinstance(told, int | float) and not isinstance(told, bool):
            return float(told)
    return None


def _flagged(case: "Case", reply: Reply) -> bool:
    told = (x_aiproxy(reply), record(case, reply))
    return any(body.get("cost_limit_exceeded") is True for body in told)
