"""An ensemble's request from its members to one answer: plan, execute, aggregate, validate, tell
(UNI-API-013).

Nothing is asked of several providers unless the request names an ensemble (UNI-ENS-006).
"""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Final

from aiproxy.middleware.answering.serving import Steps
from aiproxy.middleware.dialects.canonical import MalformedRequest
from aiproxy.middleware.effects import Effect, Outcome
from aiproxy.middleware.ensembles import answers, judging, voting
from aiproxy.middleware.ensembles.answers import Shape
from aiproxy.middleware.ensembles.cascade import cascade
from aiproxy.middleware.ensembles.executing import ask, read, shortfall
from aiproxy.middleware.ensembles.joint import Joint, tell
from aiproxy.middleware.ensembles.panel import Panel, Seat
from aiproxy.middleware.ensembles.planning import convene
from aiproxy.middleware.ensembles.roster import PREFIX, Ensemble
from aiproxy.middleware.ensembles.voting import Verdict
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intent import Intent
from aiproxy.middleware.preferences import Preferences
from aiproxy.middleware.routing.refusing import unknown_model

_SHAPED: Final = frozenset({"json_schema", "json_mode"})
_STRATEGY: Final = "X-AI-Routing-Strategy"


def is_named(model: str) -> bool:
    """Return whether a request asks for an ensemble: by its name alone, never otherwise."""
    return model.startswith(PREFIX)


def plan(joint: Joint) -> Panel:
    """Return the members that will be asked; the record has their candidates.

    Raises:
        ProxyError: 404 for an unknown name, 400 for what an ensemble cannot give, and as
            ``convene``.
    """
    decision, intent = joint.decision, joint.intent
    ensemble = joint.gateway.ensembles.get(intent.model)
    if ensemble is None:
        raise unknown_model()
    _check(intent, ensemble)
    joint.intent = decision.intent = _by_strategy(intent, decision.preferences)
    decision.ignored = [
        row for row in decision.ignored if not (row.name == _STRATEGY and joint.intent != intent)
    ]
    panel = convene(joint, ensemble)
    panel.show = ensemble.show_members
    decision.ensemble = panel
    return panel


def _check(intent: Intent, ensemble: Ensemble) -> None:
    if not intent.writes_text:
        raise ProxyError(
            "unsupported_capability",
            f"{ensemble.name} answers text; an embedding or a classification needs one model.",
            param="model",
        )
    if intent.mode == "disabled":
        raise ProxyError(
            "invalid_header_combination",
            "An ensemble asks several providers, and X-AI-Multi-Provider: disabled asks for one.",
            param="X-AI-Multi-Provider",
        )
    if intent.copies > 1:
        raise ProxyError(
            "unsupported_parameter", "An ensemble gives one answer; leave n out.", param="n"
        )


def _by_strategy(intent: Intent, preferences: Preferences | None) -> Intent:
    """The router chooses who serves a member: the strategy a client asks for is not beside the
    point, as it is for a model of one provider."""
    if preferences is None or preferences.strategy is None or intent.mode != "assisted":
        return intent
    return replace(intent, strategy=preferences.strategy, strategy_source="header")


# --- execute -------------------------------------------------------------------------------------


def serve(joint: Joint, panel: Panel) -> Steps:
    """Return the ensemble's answer; ``None`` when it was streamed.

    Raises:
        ProxyError: too few members gave an answer that counts.
    """
    started = joint.now()
    shape = _shape(joint)
    try:
        if panel.ensemble.method == "cascade":
            verdict = yield from cascade(joint, panel, shape)
        else:
            verdict = yield from _parallel(joint, panel, shape)
        panel.wall_ms = (joint.now() - started) * 1000
        _note(joint, panel, verdict)
        assert panel.winner is not None
        joint.reckon(panel)
        return (yield from tell(joint, panel, panel.winner))
    finally:
        if panel.wall_ms is None:
            panel.wall_ms = (joint.now() - started) * 1000
        joint.reckon(panel)
        panel.forget()


def _shape(joint: Joint) -> Shape | None:
    """The shape of the answer that was asked for, as far as it can be read."""
    if _SHAPED.isdisjoint(joint.intent.features):
        return None
    try:
        return answers.wanted_shape(joint.asked.canonical())
    except MalformedRequest:
        return None  # only its own API can say what it means


def _parallel(
    joint: Joint, panel: Panel, shape: Shape | None
) -> Generator[Effect, Outcome, Verdict]:
    seats = [seat for seat in panel.seats if seat.state == "planned"]
    yield from ask(joint, panel, seats, quorum=panel.ensemble.quorum)
    for seat in seats:
        read(joint, seat, shape)
    return (yield from aggregate(joint, panel))


# --- aggregate -----------------------------------------------------------------------------------


def aggregate(joint: Joint, panel: Panel) -> Generator[Effect, Outcome, Verdict]:
    """Return the verdict of the ensemble's method on the answers that count.

    Raises:
        ProxyError: there is no quorum of them.
    """
    voters = panel.answered
    if len(voters) < panel.ensemble.quorum:
        raise shortfall(panel)
    votes = [seat.vote() for seat in voters]
    method, agreement = panel.ensemble.method, panel.ensemble.agreement
    if method in ("voting", "weighted"):
        return voting.plurality(votes, weighed=method == "weighted")
    if method == "best_of":
        found = yield from _judged(joint, panel, voters)
        if found is not None:
            return voting.chosen(votes, found, agreement)
        panel.fallback = "consensus"
    return voting.consensus(votes, agreement)


def _judged(joint: Joint, panel: Panel, voters: Sequence[Seat]) -> Steps:
    """The index of the answer a judge chose; ``None`` when nobody did."""
    judge = panel.judge
    if len({seat.given.form.key for seat in voters if seat.given is not None}) == 1:
        if judge is not None and judge.usable:
            judge.state = "not_asked"
        best = min(range(len(voters)), key=lambda i: (voters[i].vote().price, i))
        return best  # all say the same
    if judge is None or not judge.usable or joint.too_late():
        return None
    texts = [seat.given.text for seat in voters if seat.given is not None]
    return (yield from judging.best(joint, judge, texts))


def _note(joint: Joint, panel: Panel, verdict: Verdict) -> None:
    """Put a verdict into the record."""
    voters = panel.answered
    panel.verdict, panel.winner = verdict, voters[verdict.winner]
    panel.figures = voting.figures(verdict.table, panel.ensemble.agreement)
    for i, seat in enumerate(voters):
        seat.share, seat.alike = verdict.each[i], verdict.alike[i]
        seat.outlier = i in panel.figures.outliers
    if panel.judge is not None and panel.judge.state == "planned":
        panel.judge.state = "not_asked"
    if joint.decision.plan is not None:
        confidence = round(panel.confidence(), 4)
        joint.decision.plan = replace(joint.decision.plan, confidence=confidence)
