"""Exact money: what a call may cost at most, what it did cost, and what the budgets still allow."""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from right_router.settings import usd

if TYPE_CHECKING:
    from right_router.asking import Ask
    from right_router.settings import Model


def worst_cost(ask: "Ask", model: "Model") -> Decimal | None:
    """Return the cost of the estimated prompt and the longest answer, None for no known price."""
    from right_router.asking import USUAL_OUTPUT

    if model.price is None:
        return None
    output = 0 if ask.endpoint == "embeddings" else ask.output_limit
    if output is None:
        output = min(USUAL_OUTPUT, model.output or USUAL_OUTPUT)
    copies = ask.body.get("n") or 1
    hinted, limited = ask.preferences.hint, ask.cost_source == "X-AI-Cost-Limit"
    if ask.has("prompt-only-worst-case") and limited and not hinted:
        copies = 0
    return (ask.prompt_tokens * model.price[0] + output * copies * model.price[1]) / 1000


def cost_of(model: "Model", usage: Mapping[str, Any] | None) -> Decimal | None:
    """Return what a reported usage costs, None where price or usage is unknown."""
    if model.price is None or usage is None:
        return None
    prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return (prompt * model.price[0] + completion * model.price[1]) / 1000


class Ledger:
    """One row an attempt, and the sums that budgets are held against."""

    def __init__(self, budget: Mapping[str, Any], has: Any) -> None:
        self.budget, self.has = budget, has
        self.rows: list[dict[str, Any]] = []
        self.reserved: Decimal = Decimal(0)
        self.lock = threading.RLock()
        self.told: set[tuple[str, str, float]] = set()
        self.exhausted = False

    def now(self) -> datetime:
        """Return the time budgets go by."""
        return datetime.now(UTC)

    def spent(self, form: str) -> Decimal:
        """Return what was spent in the present period; ``form`` is a strftime format of one."""
        period = self.now().strftime(form)
        return sum(
            (row["cost"] for row in self.rows if row["at"].strftime(form) == period), Decimal(0)
        )

    def limits(self) -> list[tuple[str, str, Decimal]]:
        """Return (name, format of the period, limit in USD) of each limit in force."""
        if self.budget.get("enabled") is False:
            return []
        found = []
        for name, form in (("daily_limit", "%Y-%m-%d"), ("monthly_limit", "%Y-%m")):
            limit = usd(self.budget.get(name))
            if limit is not None and not self.has(f"no-{name}"):
                found.append((name, form, limit))
        return found

    def allows(self, worst: Decimal | None) -> bool:
        """Return whether a call that may cost ``worst`` still fits every budget."""
        limits = self.limits()
        if self.exhausted and limits and self.has("exhaustion-stops-all"):
            return False
        if worst == 0 or not limits:
            return True
        with self.lock:
            for _, form, limit in limits:
                spent = self.spent(form)
                if self.paid_disabled(spent, limit):
                    return False
                ahead = (
                    Decimal(0) if self.has("limit-noticed-late") else self.reserved + (worst or 0)
                )
                if worst is None or spent + ahead > limit:
                    self.exhausted = True
                    return False
        return True

    def paid_disabled(self, spent: Decimal, limit: Decimal) -> bool:
        """Return whether an alert has taken paid providers out for the rest of the period."""
        for alert in self.budget.get("alerts") or ():
            share = Decimal(str(alert["threshold"])) / 100
            if alert["action"] == "disable_paid_providers" and spent >= share * limit:
                return not self.has("paid-stay-on")
        return False

    def reserve(self, worst: Decimal | None) -> Decimal | None:
        """Set the worst case aside and return it; None where the budgets do not allow it."""
        with self.lock:
            if not self.allows(worst):
                return None
            amount = worst or Decimal(0)
            self.reserved += Decimal(0) if self.has("no-reservation") else amount
            return amount

    def settle(self, reserved: Decimal, cost: Decimal | None, **row: Any) -> None:
        """Release what was set aside and write down what was spent."""
        with self.lock:
            leaks = cost is None and self.has("failures-stay-reserved")
            self.reserved -= Decimal(0) if leaks or self.has("no-reservation") else reserved
            if not self.has("no-ledger"):
                self.rows.append({"at": self.now(), "cost": cost or Decimal(0), **row})
