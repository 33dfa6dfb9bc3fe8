"""One candidate is asked once: the call, and its answer told to the client.

``ask`` goes as far as an answer can be judged without the client hearing of it: a whole document,
or a stream up to its first content. ``tell`` does the rest. What an attempt holds meanwhile (a place
at the provider, the probe of a circuit, a reservation in the budget) ends with it, whatever happens.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from aiproxy.middleware.answering import opening, outcome, resuming, whole
from aiproxy.middleware.answering.fitting import fitted
from aiproxy.middleware.answering.outcome import Rejection
from aiproxy.middleware.answering.places import Places
from aiproxy.middleware.answering.prepare import Outgoing, prepare
from aiproxy.middleware.answering.resuming import Delivered
from aiproxy.middleware.answering.serving import HOP_BY_HOP, JSON, Serving
from aiproxy.middleware.answering.streaming import Streaming
from aiproxy.middleware.auto import answer_check
from aiproxy.middleware.auto.answer_check import Misfit
from aiproxy.middleware.decision import Attempt
from aiproxy.middleware.dialects.canonical import Untranslatable, Usage
from aiproxy.middleware.effects import Answer, Call, Effect, Failure, Headers, Outcome, Reply
from aiproxy.middleware.health import Track, claim
from aiproxy.middleware.intake.ingress import KEY_HEADERS, lost_headers, passed_headers
from aiproxy.middleware.money.budgets import Hold, OverBudget
from aiproxy.middleware.money.sent_limits import worst_sent
from aiproxy.middleware.registry import Endpoint, Model
from aiproxy.middleware.routing.plan import Ranked

_USER_AGENT: Final = "aiproxy"
#: The record's word for an attempt that another one was faster than.
_OUTPACED: Final = "outpaced"


class Barred(Exception):
    """A candidate may not be asked any more. Internal to the chain of attempts."""


class Busy(Exception):
    """All places of a candidate's provider are taken. Internal to the chain of attempts."""


@dataclass(slots=True)
class Rival:
    """What attempts that race share. ``over``: one of them has an answer."""

    over: bool = False


@dataclass(slots=True)
class _Held:
    """What an attempt holds while it lasts."""

    serving: Serving
    attempt: Attempt
    since: float
    probes: Sequence[Track]
    places: Places | None
    hold: Hold | None
    rival: Rival | None
    over: bool = False

    def begin(self) -> None:
        self.attempt.model.track.in_flight += 1
        if self.attempt.track is not None:
            self.attempt.track.in_flight += 1

    def end(self) -> None:
        if self.over:
            return
        self.over = True
        attempt = self.attempt
        attempt.model.track.in_flight -= 1
        if attempt.track is not None:
            attempt.track.in_flight -= 1
        _end_probes(self.probes)
        if self.places is not None:
            self.places.release()
        if attempt.outcome == "running" and self.rival is not None and self.rival.over:
            self._lost()
        if attempt.outcome != "ok":
            # a success has its time already, the one its headers told (XAI-RESP-037)
            attempt.latency_ms = (self.serving.now() - self.since) * 1000
        if self.hold is not None:
            self.hold.settle(attempt)

    def _lost(self) -> None:
        """Another one was faster. The provider has had the prompt, and charges for it."""
        attempt, price = self.attempt, self.attempt.model.price
        attempt.outcome, attempt.error = "aborted", _OUTPACED
        attempt.usage, attempt.estimated = Usage(input=self.serving.intent.prompt_tokens), True
        attempt.cost = None if price is None else price.cost(attempt.usage)


@dataclass(slots=True)
class Begun:
    """An attempt whose answer is there and has not been told: a ``body``, or a stream that is
    ``running``."""

    serving: Serving
    attempt: Attempt
    out: Outgoing
    answer: Answer
    held: _Held
    body: dict[str, Any] = field(default_factory=dict)
    running: Streaming | None = None

    def lose(self) -> None:
        """Leave the answer untold, because another one was as fast. Its stream is the caller's to
        close."""
        self.held.end()


def ask(
    serving: Serving,
    ranked: Ranked,
    *,
    unsealed: bool = False,
    mend: Misfit | None = None,
    delivered: Delivered | None = None,
    rival: Rival | None = None,
    keyless: bool = False,
    placed: bool = False,
) -> Generator[Effect, Outcome, Begun]:
    """Ask one candidate once.

    ``unsealed``: without the opaque data of earlier turns; ``mend``: for an answer in place of that
    one; ``delivered``: to carry that one on; ``rival``: while another one is asked; ``keyless``:
    without the client's idempotency key; ``placed``: it has its place at the provider already.

    Raises:
        Barred: its circuit is open by now.
        Busy: its provider takes no more calls at the moment.
        OverBudget: too little is left to spend on it.
        Rejection: it gave no answer; nothing has reached the client.
        Untranslatable: it could not be asked.
    """
    model = ranked.model
    places = model.provider.places
    held: _Held | None = None
    try:
        out = _outgoing(serving, model, unsealed=unsealed, mend=mend, delivered=delivered)
        if places is not None and not placed:
            if not places.take():
                places = None
                raise Busy
            placed = True
        place = serving.gateway.endpoints.next(
            model.provider, serving.failed_tracks(model.provider)
        )
        held = _hold(serving, ranked, out, place, places, rival)
        attempt = held.attempt
        anew = unsealed or keyless or mend is not None or delivered is not None
        target = place.target(out.dialect, model.upstream, stream=serving.intent.stream)
        answer = yield _call(serving, model, target, out, anew=anew)
        if isinstance(answer, Failure):
            raise Rejection(outcome.of_failure(answer))
        assert isinstance(answer, Answer)
        attempt.status = answer.status
        begun = Begun(serving, attempt, out, answer, held)
        if answer.stream is None:
            begun.body = whole.read(serving, attempt, out, answer)
            if delivered is not None:
                raise Rejection(outcome.Fault("invalid_response", "other", answer.status))
            return begun
        begun.running = yield from opening.open_stream(
            serving,
            attempt,
            out,
            answer,
            quiet=rival is not None,
            delivered=delivered,
        )
        return begun
    except BaseException as found:
        if held is not None:
            _note(serving, held.attempt, found)
            held.end()
        elif places is not None and placed:
            places.release()
        raise


def tell(begun: Begun) -> Generator[Effect, Outcome, Reply | None]:
    """Tell the client the answer; return the reply, or ``None`` when it was streamed.

    Raises:
        Rejection: it cannot be told; nothing has reached the client.
        Interrupted: it broke off, and somebody else may carry it on.
    """
    serving, attempt, out, answer = begun.serving, begun.attempt, begun.out, begun.answer
    if begun.held.rival is not None:
        _adopt(serving, out)
    try:
        if begun.running is not None:
            yield from opening.relay_stream(serving, begun.running, answer.stream)
            return None
        if serving.intent.stream:
            yield from opening.tell_document(serving, attempt, out, answer, begun.body)
            return None
        return whole.reply(serving, attempt, out, answer, begun.body)
    except BaseException as found:
        _note(serving, attempt, found)
        raise
    finally:
        begun.held.end()


def _note(serving: Serving, attempt: Attempt, found: BaseException) -> None:
    """Put on an attempt why it ended."""
    if isinstance(found, Rejection):
        serving.failed(attempt, found.fault)
    elif isinstance(found, Exception):
        attempt.outcome = "failed"  # by a bug of ours: the provider is not to blame


def _outgoing(
    serving: Serving,
    model: Model,
    *,
    unsealed: bool,
    mend: Misfit | None,
    delivered: Delivered | None,
) -> Outgoing:
    """What is sent to one candidate.

    Raises:
        Untranslatable: it cannot be said.
    """
    asked = serving.asked
    continued = delivered is not None and delivered.how(model) == "continuation"
    if continued:
        assert delivered is not None
        request = delivered.request(asked.canonical(), "continuation")
        out = prepare(
            serving.intent,
            asked.raw,
            asked.body,
            model,
            original=asked.original,
            canonical=lambda: request,
            rewritten=True,
        )
        out.body = orjson.dumps(resuming.marked(orjson.loads(out.body), model))
    else:
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
    return out


def _hold(
    serving: Serving,
    ranked: Ranked,
    out: Outgoing,
    place: Endpoint,
    places: Places | None,
    rival: Rival | None,
) -> _Held:
    """Reserve what an attempt needs, and put it on record.

    Raises:
        Barred: its circuit is open by now.
        OverBudget: too little is left to spend on it.
    """
    model = ranked.model
    probes = _claimed(serving, model)
    budget = serving.gateway.budget
    hold = None
    if budget is not None:
        worst = worst_sent(serving.intent, model, out) if budget.limited else None
        try:
            hold = budget.reserve(serving.decision, model, worst)
        except OverBudget:
            _end_probes(probes)
            raise
    decision = serving.decision
    started_ms = serving.elapsed_ms()
    if decision.attempts:
        decision.failover_ms = started_ms
    attempt = Attempt(ranked=ranked, endpoint=place.region or out.dialect, started_ms=started_ms)
    attempt.track = place.track
    decision.attempts.append(attempt)
    _adopt(serving, out)
    held = _Held(serving, attempt, serving.now(), probes, places, hold, rival)
    held.begin()
    return held


def _adopt(serving: Serving, out: Outgoing) -> None:
    """Let the record speak of what this candidate is sent."""
    decision = serving.decision
    decision.losses, decision.unsaid = list(out.losses), len(out.losses)
    decision.auto, decision.reasoning, decision.tools = out.auto, out.reasoning, out.tools
    if "model" in decision.auto and decision.plan is not None:
        decision.auto["model"]["basis"] = decision.plan.reason


def _claimed(serving: Serving, model: Model) -> Sequence[Track]:
    """The tracks whose probe this attempt is (ASC-CB-005).

    Raises:
        Barred: a circuit opened since the plan was made, or its one probe is somebody else's.
    """
    own, whole_provider = model.track, model.provider.track
    if not (own.open_until or whole_provider.open_until):
        return ()
    probes = claim((own, whole_provider), serving.now())
    if probes is None:
        raise Barred
    return probes


def _end_probes(probes: Sequence[Track]) -> None:
    for track in probes:
        track.end_probe()


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
