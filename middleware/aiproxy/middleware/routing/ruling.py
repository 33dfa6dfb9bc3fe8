"""Policies at work: which rule decides for which candidate, and what that does to their order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from aiproxy.middleware.routing import plugins
from aiproxy.middleware.routing.facts import CandidateFacts, RequestFacts
from aiproxy.middleware.routing.rule_closures import (
    Assigned,
    Preferred,
    Required,
    Sorted,
    Step,
    Test,
    ordering,
)
from aiproxy.spec import HEADERS


@dataclass(frozen=True, slots=True)
class Rule:
    """``holds`` is ``None`` for ``else``; ``per_provider`` when the condition asks a candidate."""

    holds: Test | None
    per_provider: bool
    step: Step


@dataclass(frozen=True, slots=True)
class Policy:
    """``strategy`` is the canonical one it acts under, ``None`` for always."""

    name: str
    strategy: str | None
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What policies decided; all indices are into the candidates given.

    ``order`` has every index once that ``rejected`` (index to policy name) has not. ``applied``
    are the policies of which a rule held, ``matched`` those rules as ``policy[rule]``, and
    ``sorted_by`` what moved candidates, in the order it took effect.
    """

    order: tuple[int, ...]
    rejected: Mapping[int, str] = field(default_factory=dict)
    applied: tuple[str, ...] = ()
    sorted_by: tuple[str, ...] = ()
    matched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compiled:
    """Policies ready to be applied.

    ``reads`` are the names their rules use (``provider.latency_ms``): a fact that is not among
    them need not be measured.
    """

    policies: tuple[Policy, ...]
    warnings: tuple[str, ...] = ()
    reads: frozenset[str] = frozenset()
    _active: dict[str, tuple[Policy, ...]] = field(default_factory=dict, repr=False)

    def active(self, strategy: str) -> tuple[Policy, ...]:
        """Return the policies that act under ``strategy``, which may be an alias."""
        found = self._active.get(strategy)
        if found is None:
            name = strategies_by_spelling().get(strategy.lower()) or plugins.canonical(strategy)
            found = tuple(p for p in self.policies if p.strategy is None or p.strategy == name)
            if name is not None:  # a bounded number of spellings
                self._active[strategy] = found
        return found

    def apply(
        self, strategy: str, request: RequestFacts, candidates: Sequence[CandidateFacts]
    ) -> Ruling:
        """Return the order of ``candidates`` and who among them was turned away.

        The order given is what stable sorts preserve.
        """
        active = self.active(strategy)
        if not active or not candidates:
            return Ruling(tuple(range(len(candidates))))
        run = _Run(request, candidates)
        for policy in active:
            run.follow(policy)
        return Ruling(
            tuple(run.order),
            run.rejected,
            tuple(run.applied),
            tuple(run.sorted_by),
            tuple(run.matched),
        )


class _Run:
    """The candidates of one request on their way through the policies."""

    __slots__ = (
        "applied",
        "candidates",
        "matched",
        "order",
        "priorities",
        "rejected",
        "request",
        "sorted_by",
    )

    def __init__(self, request: RequestFacts, candidates: Sequence[CandidateFacts]) -> None:
        self.request = request
        self.candidates = candidates
        self.order = list(range(len(candidates)))
        self.priorities = [candidate.priority for candidate in candidates]
        self.rejected: dict[int, str] = {}
        self.applied: list[str] = []
        self.sorted_by: list[str] = []
        self.matched: list[str] = []

    def follow(self, policy: Policy) -> None:
        decided = self._decide(policy)
        if not decided:
            return
        self.applied.append(policy.name)
        assigned = False
        for step, mine in decided:
            if isinstance(step, Assigned):
                assigned = True
                for i in mine:
                    self.priorities[i] = step.priority
        if assigned:
            self.order.sort(key=lambda i: ordering(self.priorities[i]))
            self.sorted_by.append("priority")
        for kind in (Sorted, Preferred, Required):
            for step, mine in decided:
                if type(step) is not kind:
                    continue
                if isinstance(step, Sorted):
                    self._sort(step, mine)
                elif isinstance(step, Preferred):
                    self._prefer(step, mine)
                elif isinstance(step, Required):
                    self._require(step, mine, policy.name)

    def _decide(self, policy: Policy) -> list[tuple[Step, list[int]]]:
        """Return the steps to take and the candidates of each: the first rule that holds decides."""
        decided: list[tuple[Step, list[int]]] = []
        request, candidates, priorities = self.request, self.candidates, self.priorities
        rest = self.order
        for place, rule in enumerate(policy.rules):
            if not rest:
                break
            holds = rule.holds
            if holds is not None and rule.per_provider:
                mine: list[int] = []
                others: list[int] = []
                for i in rest:
                    (mine if holds(request, candidates[i], priorities[i]) else others).append(i)
                rest = others
            elif holds is None or holds(request, candidates[rest[0]], None):
                mine, rest = list(rest), []
            else:
                continue
            if mine:
                decided.append((rule.step, mine))
                self.matched.append(f"{policy.name}[{place}]")
        return decided

    def _sort(self, step: Sorted, mine: list[int]) -> None:
        request, candidates, priorities = self.request, self.candidates, self.priorities

        def key(i: int) -> tuple[bool, float]:
            return step.key(request, candidates[i], priorities[i])

        if len(mine) == len(self.order):
            self.order.sort(key=key)
        else:
            members = set(mine)
            places = [place for place, i in enumerate(self.order) if i in members]
            ranked = sorted((self.order[place] for place in places), key=key)
            for place, i in zip(places, ranked, strict=True):
                self.order[place] = i
        self.sorted_by.append(step.text)

    def _prefer(self, step: Preferred, mine: list[int]) -> None:
        last = len(step.rank)
        rank = {i: step.rank.get(self.candidates[i].id, last) for i in mine}
        if min(rank.values()) < last:
            self.order.sort(key=lambda i: rank.get(i, last))
            self.sorted_by.append(step.text)

    def _require(self, step: Required, mine: list[int], name: str) -> None:
        for i in mine:
            if not step.holds(self.request, self.candidates[i], self.priorities[i]):
                self.rejected[i] = name
        self.order = [i for i in self.order if i not in self.rejected]


@cache
def strategies_by_spelling() -> Mapping[str, str]:
    """Every accepted spelling in lower case, with the canonical strategy."""
    header = HEADERS["X-AI-Routing-Strategy"]
    spellings = {name.lower(): name for name in header.values}
    return {**spellings, **{alias.lower(): name for alias, name in header.aliases.items()}}
