"""Data classes that a client puts on single messages and content parts.

A member ``data_classification`` of a turn or of a part says which class its data is of, in every
dialect. It counts like the header, for the whole request (draft Fig 17, resolution T-41), and goes
no further: no provider is sent the member. Data that merely has such a key, as the arguments of a
tool call may, is left alone.
"""

from dataclasses import dataclass
from re import compile as compile_pattern
from typing import Any, Final

from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intake.members import patch

MEMBER: Final = "data_classification"
#: Members of a body that hold turns, a list of them, or one by itself.
_TURNS: Final = (
    "messages",
    "input",
    "contents",
    "system",
    "systemInstruction",
    "system_instruction",
)
#: Members of a turn or part that hold parts.
_INSIDE: Final = ("content", "parts", "output")
_NAME: Final = compile_pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MARK: Final = MEMBER.encode()
#: Escapes of ASCII letters, in which the member's name could be written as well.
_ESCAPED: Final = b"\\u00"


@dataclass(frozen=True, slots=True)
class Tag:
    """One class and where it stands: turn ``turn`` of ``member``, all of it or one ``part``.

    A tag further inside belongs to the part around it.
    """

    data_class: str
    member: str
    turn: int
    part: int | None
    path: str


def taken(body: dict[str, Any], raw: bytes) -> tuple[tuple[Tag, ...], bytes]:
    """Return the tags of a body and its bytes without them; they are removed from ``body`` too.

    Raises:
        ProxyError: 400 for a tag that is no class name.
    """
    if _MARK not in raw and _ESCAPED not in raw:
        return (), raw
    found: list[Tag] = []
    for member in _TURNS:
        given = body.get(member)
        if isinstance(given, list):
            for index, turn in enumerate(given):
                if isinstance(turn, dict):
                    _take(turn, member, index, f"{member}[{index}]", found)
        elif isinstance(given, dict):
            _take(given, member, 0, member, found)
    if not found:
        return (), raw
    touched = {tag.member: body[tag.member] for tag in found}
    try:
        return tuple(found), patch(raw, touched)
    except TypeError:
        raise ProxyError(
            "invalid_value",
            "The request is nested too deeply to be written without its data_classification.",
            param=found[0].path,
        ) from None


def classes(tags: tuple[Tag, ...]) -> tuple[tuple[str, str], ...]:
    """Each class once, with the first place that names it."""
    first: dict[str, str] = {}
    for tag in tags:
        first.setdefault(tag.data_class, tag.path)
    return tuple(first.items())


def _take(turn: dict[str, Any], member: str, index: int, path: str, found: list[Tag]) -> None:
    todo: list[tuple[dict[str, Any], int | None, str]] = [(turn, None, path)]
    for holder, part, where in todo:  # which grows while it is walked
        if MEMBER in holder:
            name = _name(holder.pop(MEMBER), f"{where}.{MEMBER}")
            found.append(Tag(name, member, index, part, f"{where}.{MEMBER}"))
        for key in _INSIDE:
            inside = holder.get(key)
            if isinstance(inside, list):
                for place, row in enumerate(inside):
                    if isinstance(row, dict):
                        own = place if part is None else part
                        todo.append((row, own, f"{where}.{key}[{place}]"))


def _name(value: Any, path: str) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise ProxyError(
        "invalid_value",
        "A data_classification is the name of one data class, as in X-AI-Data-Classification.",
        param=path,
        should_retry=False,
    )
