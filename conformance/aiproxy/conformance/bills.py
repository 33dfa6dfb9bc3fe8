"""What an answer ought to cost: the tokens a fake made up, at the price it was configured with.

Nobody can guess the counts, so a right product was worked out from them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from aiproxy.conformance.probe import say, tell
from aiproxy.conformance.results import Finding, Status

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case
    from aiproxy.conformance.reply import Reply

# A thousandth of a micro-dollar: the Standard's samples are exact to more than that.
EXACT_USD: Final = 1e-9


def is_number(value: object) -> TypeGuard[float]:
    """Return whether ``value`` is a number of JSON, which ``true`` is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_usd(value: object, expected: float) -> bool:
    """Return whether ``value`` is the amount ``expected``, unrounded."""
    return is_number(value) and abs(value - expected) <= EXACT_USD


def reported(case: "Case", role: str) -> Mapping[str, Any]:
    """Return the usage that the fake ``role`` reported last; empty when it did not."""
    usages = [a.usage for a in case.attempts() if a.role == role and a.usage]
    return usages[-1] if usages else {}


def billed(me: str, case: "Case", role: str, amount: object, reply: "Reply") -> Finding:
    """Return whether ``amount`` is what the last answer of ``role`` cost, in USD."""
    tokens, price = reported(case, role).get("total_tokens"), case.actor(role).fake.price
    if tokens is None or price is None:
        return say(me, Status.INCONCLUSIVE, f"{case.who(role)} reported no usage", reply)
    expected = tokens * price / 1000
    return tell(
        me, f"{tokens} tokens at {price:g} a thousand", is_usd(amount, expected), reply,
        expected=f"{expected:.9f}", found=repr(amount),
    )  # fmt: skip
