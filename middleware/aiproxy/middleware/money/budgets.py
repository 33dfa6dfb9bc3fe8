"""Spending limits of a UTC day and a UTC calendar month, in whole picodollars (AIP-BUDGET).

The worst case of an attempt is reserved before it, settled by what it cost, released when nothing
is known to have been spent: what is spent and what is held never pass a limit together, whoever
spends at the same time. Totals are in this process, read from the ledger when it starts and written
behind (``ledger``); one process spends by one ledger.

Whoever calls a provider for a request does this around each call, side calls (hedges, members of an
ensemble, mirrors, judges) included::

    budget = gateway.budget                  # None: nothing is limited and nothing recorded
    hold = None if budget is None else budget.reserve(decision, model, worst)  # may raise OverBudget
    try:
        ...                                  # sets attempt.usage and attempt.cost where known
    finally:
        if hold is not None:
            hold.settle(attempt)

The same remaining amounts bind before that as a cost limit, in ``Constraints.budget`` (T-25).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging import getLogger
from threading import Lock
from typing import Final
from weakref import WeakSet

from aiproxy.middleware.config import Config, ConfigInvalid, Problem
from aiproxy.middleware.decision import Attempt, Decision
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.money.amounts import PER_USD
from aiproxy.middleware.money.ledger import Ledger, LedgerUnusable, Row, path_of
from aiproxy.middleware.money.spending_limits import Alert, Limit, Spell, begun, limits_of
from aiproxy.middleware.registry import Model, Registry

log = getLogger("aiproxy")

#: The most a column of the ledger holds: nine million dollars.
_MOST: Final = 2**63 - 1
#: When only what others hold stands in the way, this is how soon some of it may be free again.
_SOON_S: Final = 1.0


class OverBudget(Exception):
    """A candidate may cost more than is left; it was not asked. ``worst`` in picodollars."""

    def __init__(self, worst: int = 0) -> None:
        super().__init__(worst)
        self.worst = worst


@dataclass(slots=True)
class Hold:
    """What is reserved for one attempt; ``settle`` ends it, once."""

    budget: "Budget"
    decision: Decision
    model: Model
    day: str
    amount: int
    spells: tuple[tuple[Limit, Spell], ...]
    over: bool = False

    def settle(self, attempt: Attempt) -> None:
        """Charge what the attempt is known to have cost, release the rest, and note the row."""
        self.budget.settle(self, attempt)


@dataclass(slots=True)
class _Owners:
    """The limits that apply to a key, by its name."""

    common: tuple[Limit, ...]
    own: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)

    def of(self, owner: str | None) -> tuple[Limit, ...]:
        if owner is None:
            return self.common
        return self.own.get(owner, self.common)


class Budget:
    """The limits of a gateway and its ledger; either may be absent. Safe under threads and forks.

    Raises:
        LedgerUnusable: the ledger is damaged, or something else's file.
    """

    def __init__(
        self, limits: tuple[Limit, ...], ledger: Ledger | None, wall: Callable[[], float]
    ) -> None:
        self.ledger = ledger
        self._wall = wall
        self._lock = Lock()
        self._all = limits
        common = tuple(limit for limit in limits if limit.owner is None)
        names = {limit.owner for limit in limits if limit.owner is not None}
        self._limits = _Owners(
            common,
            {n: common + tuple(x for x in limits if x.owner == n) for n in names},
        )
        self._today = begun("daily", wall())
        self._claimed = ledger is None or not limits
        self._claiming = Lock()
        self._fault: str | None = None
        self._tried = 0.0
        self._load()
        _budgets.add(self)

    @property
    def limited(self) -> bool:
        return bool(self._all)

    # --- before an attempt -----------------------------------------------------------------------

    def left(self, owner: str | None) -> int | None:
        """What the next attempt of a key may cost at most; ``None`` without a limit."""
        limits = self._limits.of(owner)
        if not limits:
            return None
        wall = self._wall()
        if self._fault is not None and not self._claimable(wall):
            return 0
        with self._lock:
            return min(limit.left(wall) for limit in limits)

    def reserve(self, decision: Decision, model: Model, worst: int | None) -> Hold:
        """Hold ``worst`` picodollars of every limit that applies to the caller, or of none.

        Raises:
            OverBudget: a limit has less left, or the price is unknown where there is a limit.
        """
        limits = self._limits.of(decision.owner)
        amount = worst or 0
        if limits and worst is None:
            raise OverBudget
        wall = self._wall()
        ours = self._claimed or decision.explained or not (limits and amount)
        if not ours and not self._claimable(wall):
            raise OverBudget(amount)
        with self._lock:
            if wall >= self._today.ends:
                self._today = begun("daily", wall)
            if amount:
                for limit in limits:
                    if limit.left(wall) < amount:
                        raise OverBudget(amount)
            if decision.explained:
                return Hold(self, decision, model, self._today.key, 0, (), over=True)
            spells = tuple((limit, limit.at(wall)) for limit in limits)
            for _, spell in spells:
                spell.held += amount
            return Hold(self, decision, model, self._today.key, amount, spells)

    def exceeded(self, owner: str | None, worst: int) -> ProxyError:
        """The refusal of a request that would cost ``worst`` at least (AIP-BUDGET-011).

        ``Retry-After`` is the end of the period that must end first; where only what other requests
        hold is in the way, it is short, and trying again is not advised against.
        """
        wall = self._wall()
        with self._lock:
            full = [limit for limit in self._limits.of(owner) if limit.left(wall) < worst]
            spent = [
                limit
                for limit in full
                if limit.amount - limit.spell.used < worst
                or (limit.off_at is not None and limit.spell.used >= limit.off_at)
            ]
            ends = max((limit.spell.ends for limit in spent), default=wall + _SOON_S)
        if self._fault is not None:
            return ProxyError(
                "budget_exceeded",
                "The ledger of this budget cannot be used here, so nothing paid is served.",
                retry_after_s=_SOON_S,
                should_retry=False,
            )
        if not spent:
            return ProxyError(
                "budget_exceeded",
                "What is left of the budget is reserved for requests that are being served; "
                "what they do not use is free again soon.",
                retry_after_s=_SOON_S,
            )
        names = " and ".join(limit.period for limit in spent)
        return ProxyError(
            "budget_exceeded",
            f"The {names} budget does not cover this request; free models go on, paid ones come "
            f"back at {datetime.fromtimestamp(ends, UTC):%Y-%m-%dT%H:%M:%SZ}.",
            retry_after_s=ends - wall,
            should_retry=False,
        )

    # --- after it --------------------------------------------------------------------------------

    def settle(self, hold: Hold, attempt: Attempt) -> None:
        """See ``Hold.settle``. A cost above what was held is charged as it is."""
        cost = attempt.cost
        charged = 0 if cost is None else min(cost, _MOST)
        alerts: list[tuple[Limit, Alert, int]] = []
        with self._lock:
            if hold.over:
                return
            hold.over = True
            for limit, spell in hold.spells:
                spell.held -= hold.amount
                spell.used += charged
                if charged and limit.spell is spell:
                    alerts += [(limit, alert, spell.used) for alert in limit.crossed()]
        for limit, alert, used in alerts:
            _tell(limit, alert, used)
        if self.ledger is not None:
            self.ledger.put(self._row(hold, attempt, None if cost is None else charged))

    def _row(self, hold: Hold, attempt: Attempt, cost: int | None) -> Row:
        decision, usage = hold.decision, attempt.usage
        return Row(
            at=self._wall(),
            day=hold.day,
            request=decision.id,
            key=decision.owner or "",
            provider=hold.model.provider.id,
            model=hold.model.upstream,
            outcome="aborted" if attempt.outcome == "running" else attempt.outcome,
            input_tokens=None if usage is None else usage.input,
            output_tokens=None if usage is None else usage.output,
            estimated=attempt.estimated,
            cost=cost,
        )

    # --- life ------------------------------------------------------------------------------------

    def claim(self) -> None:
        """Be the process that spends by this ledger; done at the first attempt at the latest.

        Raises:
            LedgerUnusable: another process is, or the file cannot be written.
        """
        with self._claiming:
            if self._claimed or self.ledger is None:
                return
            self.ledger.claim()
            self._load()
            self._claimed = True
            self._fault = None

    def close(self) -> None:
        """Write what is not written yet; another process may spend by the ledger then."""
        if self.ledger is not None:
            self.ledger.close()
            self._claimed = not self._all

    def _claimable(self, wall: float) -> bool:
        """Claim the ledger; where that failed a moment ago it is not tried again yet."""
        if self._fault is not None and 0 <= wall - self._tried < _SOON_S:
            return False
        self._tried = wall
        try:
            self.claim()
        except LedgerUnusable as fault:
            if self._fault is None:
                log.error("budget: %s; nothing paid is served", fault)
            self._fault = str(fault)
            return False
        return True

    def _load(self) -> None:
        """Take the totals of the running periods from the ledger."""
        if self.ledger is None or not self._all:
            return
        wall = self._wall()
        month = begun("monthly", wall)
        rows = self.ledger.totals(f"{month.key}-01")
        with self._lock:
            for limit in self._all:
                spell = limit.at(wall)
                spell.used = sum(
                    amount
                    for day, key, amount in rows
                    if day.startswith(spell.key) and limit.owner in (None, key)
                )
                limit.crossed()  # told by the process that crossed them

    def forked(self) -> None:
        """In a child process: nothing is held, and the ledger is somebody else's."""
        self._lock, self._claiming = Lock(), Lock()
        for limit in self._all:
            limit.spell.held = 0
        if self.ledger is not None:
            self.ledger.forked()
            self._claimed = not self._all


_budgets: "WeakSet[Budget]" = WeakSet()


def _after_fork() -> None:
    for budget in list(_budgets):
        budget.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _tell(limit: Limit, alert: Alert, used: int) -> None:
    log.warning(
        "budget: %s: %g %% reached, %.4f of %.2f USD spent in %s%s",
        limit.name,
        alert.percent,
        used / PER_USD,
        limit.amount / PER_USD,
        limit.spell.key,
        "; paid providers are left out until it ends" if alert.off else "",
    )


# --- from a configuration ------------------------------------------------------------------------


def warn_of_unpriced(registry: Registry) -> None:
    """Say which models a limit leaves out, since nobody knows what they cost (T-25)."""
    names = [f"{m.provider.id}/{m.name}" for m in registry.models if m.price is None]
    if names:
        shown = ", ".join(names[:10]) + (" and more" if len(names) > 10 else "")
        log.warning("budget: limits leave out the models without a known price: %s", shown)


def build_budget(
    config: Config, wall: Callable[[], float], *, ledger: bool = True
) -> Budget | None:
    """The budget of a configuration; ``None`` where it limits nothing and names no ledger.
    Without ``ledger`` none is opened, and every period begins at nothing.

    Raises:
        ConfigInvalid: the ledger cannot be used.
    """
    limits, url = limits_of(config.values), config.values["budget"]["cost_db"]
    recorded = (
        ledger and config.values["budget"]["track_costs"] and (bool(limits) or url is not None)
    )
    if url is not None and not url.startswith("sqlite:"):
        recorded = False  # refused or warned of before (config.unenforced)
    if not (limits or recorded):
        return None
    try:
        return Budget(limits, Ledger(path_of(url)) if recorded else None, wall)
    except LedgerUnusable as fault:
        problem = Problem(config.file, 0, 0, "budget.cost_db", str(fault))
        raise ConfigInvalid([problem]) from None
