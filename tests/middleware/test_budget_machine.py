"""Whatever happens in whatever order, a limit holds and the books agree (AIP-BUDGET-003, 009, 010).

The model is plain arithmetic over a list of attempts; the machine and it are asked the same.
"""

import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from aiproxy.middleware.dialects.canonical import Usage
from aiproxy.middleware.money.budgets import Budget, OverBudget
from aiproxy.middleware.money.ledger import Ledger, report
from aiproxy.middleware.money.spending_limits import Alert, Limit

pytestmark = pytest.mark.requirement(
    "AIP-BUDGET-003", "AIP-BUDGET-009", "AIP-BUDGET-010", "AIP-BUDGET-014"
)

MODEL = SimpleNamespace(provider=SimpleNamespace(id="p"), upstream="m")
START = 1_780_200_000.0
DAY = 86_400
#: One step of money: nothing here is a multiple of it that a float could not tell apart.
AMOUNTS = st.integers(0, 100).map(lambda n: n * 333_333_333_333_333)
OWNERS = st.sampled_from([None, "anna", "ben"])


@dataclass
class Open:
    hold: object
    owner: str | None
    day: str
    worst: int


class Money(RuleBasedStateMachine):
    """Limits: a day for everybody, a month for everybody (paid ones off at 50 %), a day for anna."""

    holds = Bundle("holds")

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "costs.db"
        self.wall = START
        self.open = []
        self.charged = []  # (owner, day, cost)
        self.amounts = {
            ("daily", None): 40_000_000_000_000_000,
            ("monthly", None): 50_000_000_000_000_000,
            ("daily", "anna"): 15_000_000_000_000_000,
        }
        self.start()

    def start(self):
        alert = Alert(50.0, self.amounts["monthly", None] // 2, off=True)
        self.limits = {
            (period, owner): Limit(period, amount, owner, (alert,) if period == "monthly" else ())
            for (period, owner), amount in self.amounts.items()
        }
        self.budget = Budget(tuple(self.limits.values()), Ledger(self.path), lambda: self.wall)

    def today(self):
        return f"{datetime.fromtimestamp(self.wall, UTC):%Y-%m-%d}"

    def spent(self, period, owner, day):
        prefix = day if period == "daily" else day[:7]
        return sum(
            cost
            for who, when, cost in self.charged
            if when.startswith(prefix) and owner in (None, who)
        )

    def held(self, period, owner, day):
        prefix = day if period == "daily" else day[:7]
        return sum(
            row.worst
            for row in self.open
            if row.day.startswith(prefix) and owner in (None, row.owner)
        )

    def room(self, owner):
        rooms = []
        for (period, who), amount in self.amounts.items():
            if who not in (None, owner):
                continue
            spent = self.spent(period, who, self.today())
            if period == "monthly" and spent >= amount // 2:
                return 0
            rooms.append(amount - spent - self.held(period, who, self.today()))
        return max(0, min(rooms))

    @rule(target=holds, owner=OWNERS, worst=AMOUNTS)
    def reserve(self, owner, worst):
        room = self.room(owner)
        assert self.budget.left(owner) == room
        decision = SimpleNamespace(
            id="r", owner=owner, explained=False, usage=None, usage_estimated=False
        )
        try:
            hold = self.budget.reserve(decision, MODEL, worst)
        except OverBudget:
            assert worst > room
            return None
        assert worst <= room or worst == 0
        row = Open(hold, owner, self.today(), worst)
        self.open.append(row)
        return row

    @rule(
        row=consumes(holds), part=st.sampled_from([0, 37, 100, 100, 100, None]), twice=st.booleans()
    )
    def settle(self, row, part, twice):
        """It cost some part of the worst case, or nobody knows what."""
        if row is None or row not in self.open:
            return
        cost = None if part is None else row.worst * part // 100
        attempt = SimpleNamespace(
            cost=cost,
            outcome="ok",
            usage=None if cost is None else Usage(input=1, output=1),
            estimated=False,
        )
        for _ in range(1 + twice):
            row.hold.settle(attempt)
        self.open.remove(row)
        self.charged.append((row.owner, row.day, cost or 0))

    @rule(days=st.sampled_from([0.3, 1, 1, 40]))
    def time_passes(self, days):
        self.wall += days * DAY

    @rule()
    def restart(self):
        """A shutdown settles what is open, as released; another process goes on."""
        released = SimpleNamespace(cost=None, outcome="aborted", usage=None, estimated=False)
        for row in self.open:
            row.hold.settle(released)
            self.charged.append((row.owner, row.day, 0))
        self.open.clear()
        self.budget.close()
        self.start()

    @invariant()
    def nothing_passes_a_limit_and_nothing_is_lost(self):
        for (period, owner), amount in self.amounts.items():
            limit = self.limits[period, owner]
            spell = limit.at(self.wall)
            assert spell.used == self.spent(period, owner, self.today())
            assert spell.held == self.held(period, owner, self.today())
            assert 0 <= spell.used + spell.held <= amount

    def teardown(self):
        for row in self.open:
            row.hold.settle(
                SimpleNamespace(cost=None, outcome="aborted", usage=None, estimated=False)
            )
            self.charged.append((row.owner, row.day, 0))
        self.budget.close()
        expected = sum(cost for *_, cost in self.charged)
        if self.charged:
            [row] = report(self.path, ())
            assert row["attempts"] == len(self.charged)
            assert row["cost"] == expected
            assert sum(amount for *_, amount in Ledger(self.path).totals("")) == expected
        self.folder.cleanup()


def test_limits_hold_and_books_agree_whatever_the_order():
    examples = 400 if os.environ.get("AIPROXY_THOROUGH") else 25
    run_state_machine_as_test(
        Money, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None)
    )


def test_a_million_small_charges_add_up_exactly():
    """AIP-BUDGET-014: 1e6 charges of 0.0000003 USD are 0.3 USD."""
    from aiproxy.middleware.money.amounts import PER_USD, picodollars, usd

    each = picodollars("0.0000003")
    budget = Budget((Limit("daily", PER_USD, None, ()),), None, lambda: START)
    decision = SimpleNamespace(
        id="r", owner=None, explained=False, usage=None, usage_estimated=False
    )
    attempt = SimpleNamespace(cost=each * 10_000, outcome="ok", usage=None, estimated=False)
    for _ in range(100):
        budget.reserve(decision, MODEL, each * 10_000).settle(attempt)
    assert usd(budget._all[0].spell.used) == 0.3
