"""Candidates are asked one after the other until one holds (XAI-FAIL-005 to 017).

Which retry goes where depends on the fault: at once at the same provider, after its own
``Retry-After``, at the next candidate, at models with a larger window, or nowhere.
"""

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Final

from aiproxy.middleware import outcome, refusals, streaming, whole
from aiproxy.middleware.auto import answer_check
from aiproxy.middleware.auto.answer_check import Misfit
from aiproxy.middleware.decision import Attempt, Decision
from aiproxy.middleware.dialects.canonical import Loss, Untranslatable
from aiproxy.middleware.effects import Answer, Call, Effect, Failure, Headers, Outcome, Reply, Wait
from aiproxy.middleware.fitting import fitted
from aiproxy.middleware.ingress import KEY_HEADERS, lost_headers, passed_headers
from aiproxy.middleware.outcome import Fault, Rejection
from aiproxy.middleware.prepare import Outgoing, prepare
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.plan import Plan, Ranked
from aiproxy.middleware.routing.refusing import Rejected
from aiproxy.middleware.serving import HOP_BY_HOP, JSON, Serving, Steps

_USER_AGENT: Final = "aiproxy"
#: Reasons for which a provider's own ``Retry-After`` is worth waiting for.
_PASSES: Final = frozenset({"rate_limited", "overloaded"})

Served = Generator[Effect, Outcome, Reply | None]


@dataclass(slots=True)
class _Chain:
    """Where the chain stands: who is left, how many attempts are, and how often each provider was
    asked again. ``soonest_s`` is the least time any of the failed asked to be given. ``unsealed`` is
    the model that could not read the opaque data of earlier turns: it is asked without. ``mend`` is
    the answer of ``mending`` that did not have the shape it was asked for in words, ``mended`` how
    often it was asked again for that."""

    ranked: list[Ranked]
    left: int
    again: dict[str, int] = field(default_factory=dict)
    last: Fault | None = None
    soonest_s: float | None = None
    unsealed: Model | None = None
    mend: Misfit | None = None
    mending: Model | None = None
    mended: int = 0

    def note(self, fault: Fault) -> None:
        self.left -= 1
        self.last = fault
        wait = fault.retry_after_s
        if wait is not None and (self.soonest_s is None or wait < self.soonest_s):
            self.soonest_s = wait

    def drop(self, fault: Fault) -> None:
        """Leave the first candidate, and those its fault speaks of as well."""
        model = self.ranked.pop(0).model
        if fault.whole_provider or fault.reason == "timeout":
            self.ranked = [r for r in self.ranked if r.model.provider is not model.provider]
        if fault.retry == "larger":
            window = model.context_window or 0
            self.ranked = [r for r in self.ranked if (r.model.context_window or 0) > window]


def attempt_all(serving: Serving, plan: Plan) -> Served:
    """Return the reply of the first candidate that gives one; ``None`` when it was streamed.

    Raises:
        ProxyError: nobody did.
    """
    settings = serving.gateway.settings.failover
    single = serving.intent.failover in ("none", "manual")
    chain = _Chain(list(plan.ranked), 1 if single else 1 + settings.max_retries)
    while chain.left > 0 and chain.ranked:
        if serving.too_late():
            raise refusals.timed_out(serving)
        ranked = chain.ranked[0]
        mend = chain.mend if chain.mending is ranked.model else None
        try:
            reply: Reply | None = yield from _attempt(
                serving,
                ranked,
                unsealed=chain.unsealed is ranked.model,
                mend=mend,
            )
            return reply
        except Rejection as rejection:
            fault = rejection.fault
            if mend is not None:
                fault = answer_check.unmended(fault)
            chain.mend = rejection if isinstance(rejection, Misfit) else None
        except Untranslatable as loss:
            chain.ranked.pop(0)
            _set_aside(serving.decision, ranked, loss)
            continue
        chain.note(fault)
        if fault.retry == "never":
            raise outcome.client_error(fault)
        yield from _next(serving, chain, fault)
    raise refusals.exhausted(serving, chain.last, chain.soonest_s)


def _next(serving: Serving, chain: _Chain, fault: Fault) -> Steps:
    """Leave the failed candidate, or wait and ask it again."""
    settings = serving.gateway.settings.failover
    model = chain.ranked[0].model
    provider = model.provider.id
    others = len(chain.ranked) > 1
    if fault.retry == "unsealed" and chain.unsealed is not model:
        chain.unsealed = model
        chain.left = max(1, chain.left)  # it is the same answer once more, and once only
        return
    if fault.retry == "repair":
        if chain.mending is not model:
            chain.mending, chain.mended = model, 0
        if chain.mended < serving.gateway.settings.repair_attempts:
            chain.mended += 1
            chain.left += 1  # it is no failover: nobody else is asked for it
            return
    # The last attempt is kept for somebody else where there is somebody else.
    if fault.retry == "same" and chain.left > (1 if others else 0):
        asked_again = chain.again.get(provider, 0)
        if asked_again < settings.same_provider_retries:
            chain.again[provider] = asked_again + 1
            if asked_again:
                yield Wait(min(settings.retry_delay_s, serving.time_left()))
            return
    wait = fault.retry_after_s
    if (
        wait is not None
        and not others
        and chain.left > 0
        and fault.reason in _PASSES
        and wait <= settings.max_retry_after_s
        and wait < serving.time_left()
    ):
        yield Wait(wait)
        return
    chain.drop(fault)


def _attempt(
    serving: Serving, ranked: Ranked, *, unsealed: bool = False, mend: Misfit | None = None
) -> Served:
    """Ask one candidate once; ``unsealed``: without the opaque data of earlier turns; ``mend``: for
    an answer in place of that one.

    Raises:
        Rejection: it gave no answer; nothing has reached the client.
        Untranslatable: it could not be asked.
    """
    model = ranked.model
    asked = serving.asked
    out = prepare(
        serving.intent,
        asked.raw,
        asked.body,
        model,
        original=asked.original,
        canonical=asked.canonical,
    )
    if mend is not None and out.check is not None:
        out.body = answer_check.mended(out.check, mend.text, mend.why)
    out = fitted(out, model, unsealed=unsealed)
    out.losses += lost_headers(serving.inbound, out.dialect)
    if out.losses and serving.gateway.settings.strict_translation:
        raise Untranslatable(out.losses[0].feature, out.losses[0].detail)
    place = serving.gateway.endpoint_for(model.provider)
    attempt = _begin(serving, ranked, place.region or out.dialect, out)
    started = serving.now()
    tracks = [t for t in (model.track, model.provider.track) if t.begin_probe(started)]
    model.track.in_flight += 1
    try:
        answer = yield _call(
            serving,
            model,
            place.target(out.dialect, model.upstream, stream=serving.intent.stream),
            out,
            anew=unsealed or mend is not None,
        )
        if isinstance(answer, Failure):
            raise Rejection(outcome.of_failure(answer))
        assert isinstance(answer, Answer)
        attempt.status = answer.status
        if answer.stream is not None:
            yield from streaming.relay_stream(serving, attempt, out, answer)
            return None
        body = whole.read(serving, attempt, out, answer)
        if serving.intent.stream:
            yield from streaming.tell_document(serving, attempt, out, answer, body)
            return None
        return whole.reply(serving, attempt, out, answer, body)
    except Rejection as rejection:
        serving.failed(attempt, rejection.fault)
        raise
    except Exception:
        attempt.outcome = "failed"  # by a bug of ours: the provider is not to blame
        raise
    finally:
        model.track.in_flight -= 1
        for track in tracks:
            track.end_probe()
        if attempt.outcome != "ok":
            # a success has its time already, the one its headers told (XAI-RESP-037)
            attempt.latency_ms = (serving.now() - started) * 1000


def _begin(serving: Serving, ranked: Ranked, endpoint: str, out: Outgoing) -> Attempt:
    decision = serving.decision
    started_ms = serving.elapsed_ms()
    if decision.attempts:
        decision.failover_ms = started_ms
    attempt = Attempt(ranked=ranked, endpoint=endpoint, started_ms=started_ms)
    decision.attempts.append(attempt)
    decision.losses = list(out.losses)
    decision.auto, decision.reasoning, decision.tools = out.auto, out.reasoning, out.tools
    if "model" in decision.auto and decision.plan is not None:
        decision.auto["model"]["basis"] = decision.plan.reason
    return attempt


def _call(
    serving: Serving, model: Model, target: str, out: Outgoing, *, anew: bool = False
) -> Call:
    """The call of an attempt; ``anew``: the same provider was asked something else before, and must
    not take this for the same request."""
    provider = model.provider
    limits = provider.limits
    left = serving.time_left()
    stream = serving.intent.stream
    if provider.transport == "app":
        headers = _headers_for_app(serving)
    else:
        accept = "text/event-stream" if stream else "application/json"
        headers = (
            JSON,
            ("accept", accept),
            ("user-agent", _USER_AGENT),
            *provider.headers.get(out.dialect, ()),
        )
        key = serving.inbound.header("idempotency-key")
        if key is not None and not anew:
            headers += (("idempotency-key", key),)
        headers += passed_headers(serving.inbound, out.dialect)
    return Call(
        transport="app" if provider.transport == "app" else "http",
        provider=provider.id,
        target=target,
        headers=headers,
        body=out.body,
        stream=stream,
        connect_s=min(limits.connect, left),
        first_byte_s=min(limits.first_byte, left),
        total_s=min(limits.total, left),
    )


def _headers_for_app(serving: Serving) -> Headers:
    """The client's own headers: the wrapped application is the service it called. A key of ours
    that came in the header of a foreign API ends here."""
    ours = None
    if serving.gateway.settings.keys is not None:
        ours = KEY_HEADERS.get(serving.inbound.endpoint)
    kept = tuple(
        (name, value)
        for name, value in serving.inbound.headers
        if name not in HOP_BY_HOP
        and not name.startswith("x-ai-")
        and name not in ("content-type", ours)
    )
    return (JSON, *kept)


def _set_aside(decision: Decision, ranked: Ranked, loss: Untranslatable) -> None:
    """Note that a candidate was not asked, because it would have had to lose something."""
    plan = decision.plan
    assert plan is not None
    rest = tuple(r for r in plan.ranked if r is not ranked)
    rejected = (*plan.rejected, Rejected(ranked.model, "cannot_express"))
    decision.plan = replace(plan, ranked=rest, rejected=rejected)
    decision.losses = [Loss(loss.feature, loss.detail)]
