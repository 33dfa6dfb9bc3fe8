"""Putting an operator's URL, a documented path and a dialect's own path together."""

from collections.abc import Iterable
from re import compile as compile_pattern
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

PLACEHOLDER: Final = compile_pattern(r"\{([a-z_]+)\}")
_VERSION_SEGMENT: Final = compile_pattern(r"v[0-9]+[a-z0-9]*")


def join(url: str, target: str, model: str = "") -> str:
    """Return ``target`` (path and query, as a dialect gives it) below the base ``url``.

    The base's own query is kept and goes last; ``{model}`` in its path becomes ``model``, escaped.
    """
    parts = urlsplit(url)
    path, _, query = target.partition("?")
    if model and "{model}" in parts.path:
        parts = parts._replace(path=parts.path.replace("{model}", quote(model, safe="")))
    queries = "&".join(one for one in (query, parts.query) if one)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + path, queries, ""))


def climb(path: str, relative: str) -> str:
    """Return ``relative`` seen from ``path``; ``..`` goes up, at most to the top."""
    return "/" + "/".join(_resolved(_segments(path), relative))


def place(
    given: str,
    documented: str,
    wanted: str,
    others: Iterable[str] = (),
    *,
    pinned: bool = False,
) -> str:
    """Return the path of the surface ``wanted`` for an operator's URL with the path ``given``.

    ``wanted`` and ``others`` are relative to ``documented``. The end of ``given`` is held against
    the beginning of the documented path and of every surface's: the one that agrees in most
    segments tells which part of ``given`` comes before the provider's own paths. A ``given`` that
    agrees with none is such a part itself, or, when it ends in a version, the base already; where
    the documented version is ``pinned``, it takes the place of that version.
    """
    here, base = _segments(given), _segments(documented)
    known = [base, *(_resolved(base, other) for other in (wanted, *others))]
    best, agreed = base, 0
    for path in known:
        length = _agreement(here, path)
        if length > agreed:
            best, agreed = path, length
    if agreed == 0 and here and _VERSION_SEGMENT.fullmatch(here[-1]):
        if pinned:
            return "/" + "/".join(_resolved(here[:-1] + base, wanted))
        return "/" + "/".join(_resolved(here, wanted))
    before, own = here[: len(here) - agreed], here[len(here) - agreed :]
    target = _resolved(base, wanted)
    # What the operator wrote for a placeholder stays where the two paths still run together.
    shared = 0
    while shared < min(agreed, len(target)) and target[shared] == best[shared]:
        shared += 1
    return "/" + "/".join(before + own[:shared] + target[shared:])


def _agreement(given: list[str], path: list[str]) -> int:
    for length in range(min(len(given), len(path)), 0, -1):
        if all(map(_same, given[-length:], path[:length])):
            return length
    return 0


def _resolved(base: list[str], relative: str) -> list[str]:
    found = list(base)
    for part in _segments(relative):
        if part == "..":
            del found[-1:]
        else:
            found.append(part)
    return found


def _segments(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _same(given: str, wanted: str) -> bool:
    return given == wanted or bool(PLACEHOLDER.fullmatch(wanted))
