"""What all attempts of one request together may have cost, held against its cost limit.

Each attempt counts with what it is known to have cost; where the provider may have worked and did
not say, with its worst case; with nothing where it cannot have worked.
"""

from dataclasses import dataclass

from aiproxy.middleware.answering.outcome import Fault
from aiproxy.middleware.decision import Attempt
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.money.amounts import usd
from aiproxy.middleware.routing.plan import Ranked


def exposure(attempt: Attempt, fault: Fault) -> int:
    """Picodollars that a failed attempt may have cost."""
    if attempt.cost is not None:
        return attempt.cost
    if fault.unreached or (attempt.status is not None and attempt.status >= 300):
        return 0  # an error without usage is charged by nobody
    return attempt.ranked.cost or 0


@dataclass(slots=True)
class Envelope:
    """The cost limit of a request and what may have been spent of it, in picodollars. ``short`` is
    the worst case of the first candidate that did not fit any more."""

    limit: int | None
    spent: int = 0
    short: int | None = None

    def fits(self, ranked: Ranked) -> bool:
        """Whether one more attempt at its worst stays inside the limit."""
        if self.limit is None or not self.spent:
            return True  # alone it was held against the limit by the plan
        cost = ranked.cost or 0
        if self.spent + cost <= self.limit:
            return True
        if self.short is None or cost < self.short:
            self.short = cost
        return False

    def explain(self, error: ProxyError) -> ProxyError:
        """Add the arithmetic to an error, when candidates were left out for it."""
        if self.short is None or self.limit is None:
            return error
        error.message += (
            f" No other candidate fits the cost limit: up to {usd(self.spent):.6g} USD of "
            f"{usd(self.limit):.6g} are spent, and the next one may cost {usd(self.short):.6g}."
        )
        return error
