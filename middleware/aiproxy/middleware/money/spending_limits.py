"""What may be spent in a period, by whom, and what happens on the way to it (AIP-BUDGET-003 to 007).

Amounts in whole picodollars; periods are UTC days and UTC calendar months.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Final, Literal

from aiproxy.middleware.money.amounts import picodollars

Period = Literal["daily", "monthly"]


@dataclass(frozen=True, slots=True)
class Alert:
    """``at`` is the amount that sets it off; ``off`` takes paid providers out from then on."""

    percent: float
    at: int
    off: bool


@dataclass(slots=True)
class Spell:
    """One period of a limit: from ``key`` (its date) until ``ends`` (Unix time). ``told`` counts the
    alerts that went off."""

    key: str
    ends: float
    used: int = 0
    held: int = 0
    told: int = 0


class Limit:
    """What may be spent a period, by the client key ``owner`` or by everybody (``None``)."""

    __slots__ = ("alerts", "amount", "off_at", "owner", "period", "spell")

    def __init__(
        self, period: Period, amount: int, owner: str | None, alerts: tuple[Alert, ...]
    ) -> None:
        self.period: Final = period
        self.amount: Final = amount
        self.owner: Final = owner
        self.alerts: Final = alerts
        self.off_at: Final = min((a.at for a in alerts if a.off), default=None)
        self.spell = Spell("", 0.0)

    @property
    def name(self) -> str:
        return f"{self.period} limit" + (f" of key {self.owner}" if self.owner else "")

    def at(self, wall: float) -> Spell:
        """The period that holds now. A clock that is set back does not begin one anew."""
        if wall >= self.spell.ends:
            self.spell = begun(self.period, wall)
        return self.spell

    def left(self, wall: float) -> int:
        """What may be reserved now."""
        spell = self.at(wall)
        if self.off_at is not None and spell.used >= self.off_at:
            return 0
        return max(0, self.amount - spell.used - spell.held)

    def crossed(self) -> list[Alert]:
        """The alerts that went off and were not told yet, in rising order."""
        spell, found = self.spell, []
        while spell.told < len(self.alerts) and spell.used >= self.alerts[spell.told].at:
            found.append(self.alerts[spell.told])
            spell.told += 1
        return found


def begun(period: Period, wall: float) -> Spell:
    """The period that a moment (Unix time) is in."""
    today = datetime.fromtimestamp(wall, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "daily":
        return Spell(f"{today:%Y-%m-%d}", (today + timedelta(days=1)).timestamp())
    first = today.replace(day=1)
    return Spell(f"{first:%Y-%m}", (first + timedelta(days=32)).replace(day=1).timestamp())


def limits_of(values: Mapping[str, Any]) -> tuple[Limit, ...]:
    """The limits that a configuration sets, for everybody and for single keys."""
    budget = values["budget"]
    if not budget["enabled"]:
        return ()
    rows = [(None, budget), *((row["name"], row) for row in values["security"]["auth"]["api_keys"])]
    found = []
    for owner, row in rows:
        for period in ("daily", "monthly"):
            amount = row.get(f"{period}_limit")
            if amount is not None:
                whole = picodollars(amount)
                found.append(Limit(period, whole, owner, _alerts(budget["alerts"], whole)))
    return tuple(found)


def _alerts(rows: list[Mapping[str, Any]], amount: int) -> tuple[Alert, ...]:
    if not amount:
        return ()  # there is no way to a limit of nothing
    found = [
        Alert(
            row["threshold"],
            -int(-amount * Fraction(str(row["threshold"])) / 100 // 1),
            row["action"] == "disable_paid_providers",
        )
        for row in rows
    ]
    return tuple(sorted(found, key=lambda alert: alert.at))
