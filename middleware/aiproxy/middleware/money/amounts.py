"""Money as whole picodollars (1e-12 USD), so that sums and products stay exact.

A price of 0.0003 USD per 1k tokens is 300_000 picodollars a token; no float takes part until a
figure is printed.
"""

from decimal import Decimal
from typing import Final

PER_USD: Final = 10**12


def picodollars(usd: float | str | Decimal) -> int:
    """USD to picodollars. Floats are read by their shortest decimal form, so 0.1 means 0.1."""
    amount = usd if isinstance(usd, Decimal) else Decimal(str(usd))
    return int((amount * PER_USD).to_integral_value())


def per_token(usd_per_1k: float | str | Decimal) -> int:
    """A price per thousand tokens as picodollars per token."""
    return picodollars(usd_per_1k) // 1000


def usd(amount: int) -> float:
    """The nearest double of an amount in picodollars, for JSON."""
    return amount / PER_USD
