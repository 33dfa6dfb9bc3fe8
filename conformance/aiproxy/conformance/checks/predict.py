"""The native endpoint POST /aiproxy/predict (aiproxy §5.2)."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiproxy.conformance.bills import billed, is_number, reported
from aiproxy.conformance.case import Case
from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.probe import Probe, is_count, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake

PREDICT: Final = "/aiproxy/predict"
PREDICTS: Final = ("AIP-API-010",)
# The request may take this long; each of four providers fails after this much; four take longer.
_TIMEOUT_MS: Final = 900
_FAILS_AFTER_S: Final = 0.7
_LATEST_S: Final = 1.3


@check(
    "AIP-API-010",
    level=2,
    keyword="MUST",
    title="POST /aiproxy/predict takes model and input and gives request_id, model and output",
    clause="aiproxy §5.2",
)
@check(
    "AIP-API-011",
    level=2,
    keyword="MUST",
    title="metadata has provider, node_id, latency_ms, tokens, cost and routing",
    clause="aiproxy §5.2",
)
@check(
    "AIP-API-016",
    level=2,
    keyword="MUST",
    title="cost.amount is the tokens times the price, divided by 1000",
    clause="aiproxy §5.2",
)
@behind(a=Fake(alone=True, price=0.0031), b=Fake(alone=True, price=0.00077))
def a_prediction_is_made(probe: Probe) -> Iterator[Finding]:
    answer, metadata, price = "AIP-API-010", "AIP-API-011", "AIP-API-016"
    ids = []
    for role in ("a", "b"):
        case = probe.case()
        actor = case.cast[role]
        reply = case.predict(model=actor.model)
        body = reply.object
        if reply.status != 200 or not body:
            yield tell(
                answer, "a prediction", False, reply, expected="200 with a JSON object", blocks=True
            )
            for other in (metadata, price):
                yield say(other, Status.NOT_TESTABLE, f"{answer} failed", reply)
            return
        ids.append(body.get("request_id"))
        yield from _answer(answer, case, role, reply)
        told = _part(body, "metadata")
        yield from _metadata(metadata, case, role, told, reply)
        amount = _part(told, "cost").get("amount")
        yield billed(price, case, role, amount, reply)
    yield tell(
        answer, "request_id", len(set(ids)) == len(ids), expected="one of its own", found=repr(ids)
    )


def _answer(me: str, case: Case, role: str, reply: Reply) -> Iterator[Finding]:
    body, actor = reply.object, case.cast[role]
    name = body.get("request_id")
    right = isinstance(name, str) and bool(name)
    yield tell(me, "request_id", right, reply, expected="text", found=repr(name))
    yield tell(
        me, "its prefix", str(name).startswith("req_"), reply, expected="req_…", found=repr(name),
        otherwise=Status.WARN,
    )  # fmt: skip
    yield tell(
        me, "model", body.get("model") == actor.model, reply,
        expected=repr(actor.model), found=repr(body.get("model")),
    )  # fmt: skip
    yield tell(
        me, "output", case.served(reply) == role, reply,
        expected=f"the text of {case.who(role)}", found=repr(body.get("output"))[:80],
    )  # fmt: skip


def _metadata(
    me: str, case: Case, role: str, told: Mapping[str, Any], reply: Reply
) -> Iterator[Finding]:
    def has(name: str, value: object, holds: bool, expected: str) -> Finding:
        return tell(me, name, holds, reply, expected=expected, found=repr(value))

    provider, node, latency = told.get("provider"), told.get("node_id"), told.get("latency_ms")
    yield has("provider", provider, provider == case.cast[role].id, case.who(role))
    yield has("node_id", node, isinstance(node, str) and bool(node), "text")
    yield has("latency_ms", latency, is_number(latency) and latency >= 0, "a number")
    tokens, usage = _part(told, "tokens"), reported(case, role)
    counts = [tokens.get(name) for name in ("input", "output", "total")]
    numbers = [count for count in counts if is_count(count)]
    summed = len(numbers) == 3 and numbers[0] + numbers[1] == numbers[2]
    yield has("tokens", tokens, summed, "input, output and their total")
    if usage and summed:
        wanted = [usage[f"{name}_tokens"] for name in ("prompt", "completion", "total")]
        yield has("tokens", numbers, numbers == wanted, f"the provider's {wanted}")
    cost = _part(told, "cost")
    yield has("cost.amount", cost, is_number(cost.get("amount")), "a number")
    yield has("cost.currency", cost.get("currency"), cost.get("currency") == "USD", '"USD"')
    routing = told.get("routing")
    yield has("routing", routing, isinstance(routing, dict), "an object")


@check(
    "AIP-API-012",
    level=2,
    keyword="MUST",
    title="metadata.routing has strategy_used, providers_tried, failovers and reason",
    clause="aiproxy §5.2",
    depends_on=(*PREDICTS, "AIP-FAIL-001"),
)
@check(
    "AIP-FAIL-007",
    level=2,
    keyword="MUST",
    title="failovers is the number of providers tried, less one",
    clause="aiproxy §5.2",
    depends_on=(*PREDICTS, "AIP-FAIL-001"),
)
@behind(
    a=Fake(priority=1),
    b=Fake(priority=2),
    c=Fake(priority=3),
    e=Fake(alone=True),
)
def the_way_to_the_answer_is_told(probe: Probe) -> Iterator[Finding]:
    """Two failures, none, one; then a model of its own, which nobody else can fail over to."""
    for failing in (("a", "b"), (), ("c",)):
        case = probe.case()
        for role in failing:
            case.script(role, always=Act(status=503))
        yield from _way(case, case.predict())
    case = probe.case()
    yield from _way(case, case.predict(model=case.cast["e"].model))


def _way(case: Case, reply: Reply) -> Iterator[Finding]:
    shape, count = "AIP-API-012", "AIP-FAIL-007"
    order = case.order()
    routing = _part(_part(reply.object, "metadata"), "routing")
    if reply.status != 200 or not order:
        for me in (shape, count):
            yield say(me, Status.INCONCLUSIVE, "no provider answered this request", reply)
        return
    strategy, reason = routing.get("strategy_used"), routing.get("reason")
    yield tell(
        shape, "strategy_used", isinstance(strategy, str) and bool(strategy), reply,
        expected="text", found=repr(strategy),
    )  # fmt: skip
    told = isinstance(reason, str) and bool(reason)
    if len(order) > 1:
        yield tell(shape, "reason", told, reply, expected="a code", found=repr(reason))
    else:
        yield tell(
            shape, "reason", "reason" in routing and (told or reason is None), reply,
            expected="a code, or null", found=repr(reason),
        )  # fmt: skip
    tried, asked = routing.get("providers_tried"), [case.cast[role].id for role in order]
    names = list(dict.fromkeys(tried)) if isinstance(tried, list) else tried
    yield tell(
        shape, f"providers_tried after {len(order) - 1} failures", names == asked, reply,
        expected=repr(asked), found=repr(tried),
    )  # fmt: skip
    failovers = routing.get("failovers")
    yield tell(
        count, f"failovers with {len(order)} providers asked",
        is_count(failovers) and failovers == len(order) - 1, reply,
        expected=str(len(order) - 1), found=repr(failovers),
    )  # fmt: skip


@check(
    "AIP-API-015",
    level=2,
    keyword="MUST",
    title="routing.timeout is the limit of the whole request in milliseconds",
    clause="aiproxy §5.2",
    depends_on=(*PREDICTS, "AIP-FAIL-001"),
)
@check(
    "AIP-FAIL-009",
    level=2,
    keyword="MUST",
    title="a deadline of the client stops further attempts",
    clause="aiproxy §6",
    depends_on=(*PREDICTS, "AIP-FAIL-001"),
)
@behind(a=Fake(priority=1), b=Fake(priority=2), c=Fake(priority=3), d=Fake(priority=4))
def a_prediction_has_a_deadline(probe: Probe) -> Iterator[Finding]:
    limit, stop = "AIP-API-015", "AIP-FAIL-009"
    case = probe.case()
    for role in "abcd":
        case.script(role, always=Act(status=503, wait_s=_FAILS_AFTER_S))
    begun = time.monotonic()
    reply = case.predict(routing={"timeout": _TIMEOUT_MS})
    took = time.monotonic() - begun
    code = reply.error.get("code")
    yield tell(
        limit, f"{_TIMEOUT_MS} ms and four providers that fail after {_FAILS_AFTER_S:g} s each",
        (reply.status, code) == (504, "upstream_timeout"), reply,
        expected="504 upstream_timeout",
    )  # fmt: skip
    in_time = _TIMEOUT_MS / 1000 * 0.9 <= took <= _LATEST_S
    yield tell(
        limit, "when it answers", in_time, reply,
        expected=f"after about {_TIMEOUT_MS} ms", found=f"after {took:.2f} s",
    )  # fmt: skip
    time.sleep(_FAILS_AFTER_S)
    deadline = begun + _LATEST_S
    late = [attempt for attempt in case.attempts() if attempt.at > deadline]
    yield tell(
        stop, "after the deadline", not late and len(case.attempts()) <= 2, reply,
        expected="no further attempt", found=f"{len(case.attempts())} attempts",
    )  # fmt: skip
    for wrong in (0, "30s", -5):
        reply = probe.case().predict(routing={"timeout": wrong})
        yield tell(limit, f"a timeout of {wrong!r}", reply.status == 400, reply, expected="400")
    case = probe.case()
    reply = case.predict(routing={"timeout": 30_000})
    served = case.served(reply) in case.roles
    yield tell(limit, "a timeout of 30000", served, reply, expected="an answer")


@check(
    "AIP-API-018",
    level=2,
    keyword="MUST",
    title="a refused prediction has the same error object as the OpenAI endpoints",
    clause="aiproxy §5.2",
    depends_on=PREDICTS,
)
@behind(a=Fake())
def refusals_are_error_objects(probe: Probe) -> Iterator[Finding]:
    me = "AIP-API-018"
    case = probe.case()
    model, ask = case.model, case.prompt("Say ok.")
    missing, unknown = "missing_required_parameter", "model_not_found"
    wrong: dict[str, tuple[object, int, str, str | None]] = {
        "no model": ({"input": ask}, 400, missing, "model"),
        "no input": ({"model": model}, 400, missing, "input"),
        "a model nobody has": (
            {"model": f"no-such-{probe.word()}", "input": ask}, 404, unknown, "model",
        ),
        "a body that is not JSON": (b'{"model":', 400, "invalid_json", None),
    }  # fmt: skip
    for what, (body, status, code, param) in wrong.items():
        reply = probe.endpoint.post(PREDICT, body)
        error = reply.error
        shaped = isinstance(error.get("message"), str) and {"type", "param", "code"} <= set(error)
        yield tell(
            me, what, reply.status == status and shaped, reply,
            expected=f"status {status} with message, type, param and code",
        )  # fmt: skip
        if shaped:
            named = error["code"] == code and (param is None or error["param"] == param)
            yield tell(
                me, f"the error of {what}", named, reply,
                expected=f"{code}, {param}", found=f"{error['code']}, {error['param']}",
            )  # fmt: skip
    asked = bool(case.attempts())
    yield tell(me, "the provider", not asked, expected="not asked", found="a request")


def _part(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object ``name`` of ``body``; empty when it is none."""
    part = body.get(name)
    return part if isinstance(part, dict) else {}


derive(
    "AIP-API-033", level=2, keyword="MUST", title="OpenAI-compatible and native REST are both offered",
    clause="aiproxy §2", of=("AIP-API-001", "AIP-API-010"),
)  # fmt: skip
