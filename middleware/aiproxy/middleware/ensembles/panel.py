"""The members of an ensemble that were convened for one request, and what became of each.

A panel is the ensemble's part of the decision record. It never holds what was answered once the
client has been told.
"""

from dataclasses import dataclass, field
from math import fsum
from typing import Any, Final, Literal, TypeAlias

from aiproxy.middleware.answering.serving import Serving
from aiproxy.middleware.decision import Attempt
from aiproxy.middleware.dialects.canonical import Usage
from aiproxy.middleware.effects import Reply
from aiproxy.middleware.ensembles.answers import Given
from aiproxy.middleware.ensembles.roster import Ensemble, Member
from aiproxy.middleware.ensembles.voting import Figures, Verdict, Vote
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intent import Intent
from aiproxy.middleware.money.amounts import usd
from aiproxy.middleware.routing.plan import Plan

#: *planned*: about to be asked; *ok*: its answer counts; *failed*; *late*: stopped at the ensemble's
#: deadline or when nothing depended on it any more; *invalid*: its answer is no vote; *left_out*: it
#: may not serve this request; *not_asked*: somebody before it was good enough.
State: TypeAlias = Literal["planned", "ok", "failed", "late", "invalid", "left_out", "not_asked"]
_DIGITS: Final = 4


@dataclass(slots=True)
class Seat:
    """One member. ``worst`` is the worst case that is reserved for it, in picodollars."""

    member: Member
    place: int
    serving: Serving | None = None
    plan: Plan | None = None
    worst: int | None = None
    state: State = "planned"
    reason: str | None = None
    error: ProxyError | None = None
    reply: Reply | None = None
    given: Given | None = None
    started_ms: float = 0.0
    latency_ms: float | None = None
    quality: float | None = None
    score: float | None = None
    share: float | None = None
    alike: float | None = None
    outlier: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    served: Attempt | None = None

    def sit(self, serving: Serving) -> None:
        """Take the place of a member that will be asked."""
        self.serving = serving
        self.attempts = serving.decision.attempts

    @property
    def cost(self) -> int | None:
        return total_cost(self.attempts)

    def leave_out(self, reason: str, error: ProxyError | None = None) -> None:
        self.state, self.reason, self.error = "left_out", reason, error

    def vote(self) -> Vote:
        """The vote of an answer that counts."""
        assert self.given is not None
        weight, cost = self.member.weight, self.cost
        return Vote(self.given.form, weight, cost, self.place, self.given.quality)

    def provider(self) -> str | None:
        """Who answered, or would be asked first."""
        if self.served is not None:
            return self.served.model.provider.id
        if self.attempts:
            return self.attempts[-1].model.provider.id
        if self.plan is not None and self.plan.ranked:
            return self.plan.ranked[0].model.provider.id
        return self.member.provider

    def row(self) -> dict[str, Any]:
        cost = self.cost
        return {
            "provider": self.provider(),
            "model": self.member.model,
            "weight": self.member.weight,
            "outcome": self.state,
            "reason": self.reason,
            "agreement": _round(self.share),
            "likeness": _round(self.alike),
            "quality": self.quality,
            "score": _round(self.score),
            "outlier": self.outlier,
            "worst_case_usd": None if self.worst is None else usd(self.worst),
            "cost_usd": None if cost is None else usd(cost),
            "latency_ms": None if self.latency_ms is None else round(self.latency_ms, 3),
        }


@dataclass(slots=True)
class Judge:
    """The model that judges. ``state``: *planned*, *ok* when it decided, *failed*, *left_out* when
    nobody may serve it within the constraints, *not_asked* when there was nothing to decide."""

    model: str
    plan: Plan | None = None
    intent: Intent | None = None
    worst: int | None = None
    state: str = "planned"
    reason: str | None = None
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return self.plan is not None and self.state in ("planned", "ok")

    def row(self) -> dict[str, Any]:
        cost = total_cost(self.attempts)
        provider = None
        if self.attempts:
            provider = self.attempts[-1].model.provider.id
        elif self.plan is not None:
            provider = self.plan.ranked[0].model.provider.id
        return {
            "provider": provider,
            "model": self.model,
            "outcome": self.state,
            "reason": self.reason,
            "worst_case_usd": None if self.worst is None else usd(self.worst),
            "cost_usd": None if cost is None else usd(cost),
        }


@dataclass(slots=True)
class Panel:
    """``limit`` is the cost limit the sum of all worst cases is held to, in picodollars."""

    ensemble: Ensemble
    seats: list[Seat]
    judge: Judge | None = None
    limit: int | None = None
    verdict: Verdict | None = None
    figures: Figures | None = None
    winner: Seat | None = None
    fallback: str | None = None
    wall_ms: float | None = None
    show: bool = False

    @property
    def asked(self) -> list[Seat]:
        """Those who were asked."""
        return [s for s in self.seats if s.state not in ("planned", "left_out", "not_asked")]

    @property
    def answered(self) -> list[Seat]:
        return [seat for seat in self.seats if seat.state == "ok"]

    def attempts(self) -> list[Attempt]:
        """Every call that was made for the ensemble, in the order they were made."""
        found = [attempt for seat in self.seats for attempt in seat.attempts]
        if self.judge is not None:
            found += self.judge.attempts
        return sorted(found, key=lambda attempt: attempt.started_ms)

    def worst(self) -> int | None:
        """The sum of all worst cases; ``None`` where one is unknown."""
        rows = [seat.worst for seat in self.seats if seat.state != "left_out"]
        if self.judge is not None and self.judge.plan is not None:
            rows.append(self.judge.worst)
        known = [row for row in rows if row is not None]
        return sum(known) if len(known) == len(rows) else None

    def confidence(self) -> float:
        """The share of those who were asked that say what the winner says: a member that failed
        speaks for nobody (UNI-ENS-007)."""
        assert self.verdict is not None
        weighed = self.ensemble.method == "weighted"
        voters = self.answered
        agreeing = fsum(voters[i].member.weight if weighed else 1.0 for i in self.verdict.agreeing)
        whole = fsum(seat.member.weight if weighed else 1.0 for seat in self.asked)
        return agreeing / whole if whole else 0.0

    # --- what is told -----------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """The member ``ensemble`` of the decision record."""
        worst = self.worst()
        return {
            **self._summary(),
            "worst_case_usd": None if worst is None else usd(worst),
            "members": [seat.row() for seat in self.seats],
            "judge": None if self.judge is None else self.judge.row(),
            **self._insights(),
            **self._performance(),
        }

    def compact(self) -> dict[str, Any]:
        """The member ``ensemble`` of ``x-aiproxy``."""
        rows = []
        for seat in self.seats:
            row: dict[str, Any] = {
                "provider": seat.provider(),
                "model": seat.member.model,
                "outcome": seat.state,
                "agreement": _round(seat.share),
            }
            if self.show and seat.given is not None:
                row["answer"] = seat.given.text
            rows.append(row)
        return {**self._summary(), "members": rows}

    def _summary(self) -> dict[str, Any]:
        winner, verdict = self.winner, self.verdict
        return {
            "name": self.ensemble.name,
            "method": self.ensemble.method,
            "quorum": self.ensemble.quorum,
            "answers": len(self.answered),
            "winner": None if winner is None else winner.place,
            "agreement": None if verdict is None else _round(verdict.agreement),
            "consensus": None if verdict is None else verdict.consensus,
            "confidence": None if verdict is None else _round(self.confidence()),
            "fallback": self.fallback,
        }

    def _insights(self) -> dict[str, Any]:
        """What the answers say about each other (UNI-ENS-008)."""
        found, asked = self.figures, self.asked
        return {
            "diversity": None if found is None else _round(found.diversity),
            "consistency": None if found is None else _round(found.consistency),
            "reliability": _round(len(self.answered) / len(asked)) if asked else None,
        }

    def _performance(self) -> dict[str, Any]:
        """How well the members ran side by side, and what the money went into (UNI-ENS-009)."""
        busy = [seat.latency_ms for seat in self.asked if seat.latency_ms is not None]
        wall = self.wall_ms
        told = wall is not None and wall > 0 and bool(busy)
        return {
            "latency_ms": None if wall is None else round(wall, 3),
            "parallel_efficiency": _round(fsum(busy) / (len(busy) * wall))
            if told and wall
            else None,
            "utilisation": _round(fsum(busy) / wall) if told and wall else None,
            "cost_effectiveness": self._effectiveness(),
        }

    def _effectiveness(self) -> float | None:
        """The share of what was spent that went into answers which say what the winner says."""
        whole = total_cost(self.attempts())
        if self.verdict is None or not whole:
            return None
        voters = self.answered
        spent = sum(voters[i].cost or 0 for i in self.verdict.agreeing)
        return _round(spent / whole)

    def forget(self) -> None:
        """Drop what was answered and all that was held to get it."""
        for seat in self.seats:
            seat.serving = seat.reply = seat.given = None
        if self.judge is not None:
            self.judge.intent = None
        self.show = False


def total_cost(attempts: list[Attempt]) -> int | None:
    """What a list of attempts cost; ``None`` where nothing is known of any, or the price of one
    that used tokens is not."""
    if any(a.cost is None and a.usage is not None for a in attempts):
        return None
    known = [attempt.cost for attempt in attempts if attempt.cost is not None]
    return sum(known) if known else None


def total_usage(attempts: list[Attempt]) -> Usage | None:
    """The tokens of a list of attempts, as far as they are known."""
    rows = [attempt.usage for attempt in attempts if attempt.usage is not None]
    if not rows:
        return None
    return Usage(
        input=sum(row.input for row in rows),
        output=sum(row.output for row in rows),
        cached=sum(row.cached for row in rows),
        cache_write=sum(row.cache_write for row in rows),
        reasoning=sum(row.reasoning for row in rows),
    )


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
