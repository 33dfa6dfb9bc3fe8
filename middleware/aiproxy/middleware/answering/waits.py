"""How long a provider asks to be left alone: ``Retry-After``, rate-limit headers, prose."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from re import compile as compile_pattern
from typing import Final

from aiproxy.middleware.effects import Headers

#: ``1s``, ``6m0s``, ``1h2m3.5s``, ``120ms``
_DURATION: Final = compile_pattern(
    r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?"
    r"(?:(\d{1,9}(?:\.\d{1,9})?)ms)?"
)
_IN_PROSE: Final = compile_pattern(
    r"(?:try again|retry) (?:in|after) (\d[\dhms.]{0,20})( seconds?| minutes?| hours?)?"
)
_UNITS: Final = {"second": 1, "minute": 60, "hour": 3600}
#: Numbers above these are points in time, in seconds and in milliseconds since 1970.
_EPOCH_S: Final = 1e9
_EPOCH_MS: Final = 1e12


def retry_after(
    headers: Headers, wall_now: float, limits: Mapping[str, Iterable[str]] | None = None
) -> float | None:
    """Seconds a provider asks to wait; a time in the past reads as 0.

    In this order: ``retry-after-ms`` and Azure's form of it, ``retry-after`` (seconds, a duration
    or a date), then the rate-limit headers that tell when a limit is whole again. ``limits`` names
    those (``remaining``, ``reset``); without it any header that looks like one counts. A limit that
    still has something left does not hold anybody up while another one has nothing.
    """
    found = dict(headers)
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        milliseconds = _number(found.get(name))
        if milliseconds is not None:
            return max(0.0, milliseconds / 1000)
    value = found.get("retry-after")
    if value is not None:
        told = _moment(value, wall_now)
        if told is not None:
            return told
    return _from_limits(found, wall_now, limits)


def in_prose(message: str) -> float | None:
    """The seconds of ``try again in 7m12s`` and ``retry after 20 seconds`` in a lower-case text."""
    found = _IN_PROSE.search(message)
    if found is None:
        return None
    text = found[1].rstrip(".")
    number = _number(text)
    if number is None:
        return _duration(text)
    return number * _UNITS[(found[2] or " second").strip().rstrip("s")]


def _from_limits(
    found: Mapping[str, str], wall_now: float, limits: Mapping[str, Iterable[str]] | None
) -> float | None:
    named = limits.get("reset") if limits else None
    resets = named or [n for n in found if "ratelimit" in n and "reset" in n]
    waits: dict[bool, list[float]] = {True: [], False: []}
    for name in resets:
        told = _moment(found.get(name, ""), wall_now)
        if told is not None:
            waits[_spent(found, name)].append(told)
    if waits[True]:
        return max(waits[True])
    return min(waits[False], default=None)


def _spent(found: Mapping[str, str], reset: str) -> bool:
    """Whether the limit that a reset header belongs to has nothing left."""
    return _number(found.get(reset.replace("reset", "remaining"))) == 0


def _moment(value: str, wall_now: float) -> float | None:
    """Seconds from now: of a number, a duration, a time of RFC 3339 or an HTTP date."""
    text = value.strip()[:64]
    number = _number(text)
    if number is not None:
        if number >= _EPOCH_MS:
            number = number / 1000 - wall_now
        elif number >= _EPOCH_S:
            number -= wall_now
        return max(0.0, number)
    duration = _duration(text)
    if duration is not None:
        return duration
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return None
    try:
        return max(0.0, moment.timestamp() - wall_now)
    except (ValueError, OverflowError):
        return None


def _duration(text: str) -> float | None:
    found = _DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        return None
    days, hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is not None and isfinite(number) else None
