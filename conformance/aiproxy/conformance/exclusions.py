"""Which requirements no check looks at, and why: the files of the folder ``excluded``.

Each file maps a requirement to one line. A row of the register is looked at, repeats others, or
stands in one of these files; ``trace.gaps`` finds those that do none of it.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "excluded"


@cache
def exclusions() -> Mapping[str, str]:
    """Return the reason of every excluded requirement."""
    return {name: reason for _, name, reason in entries()}


def entries() -> Iterator[tuple[str, str, str]]:
    """Yield file name, requirement and reason of every entry, in the order of the files."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for file in sorted(FOLDER.glob("*.yaml")):
        for name, reason in (yaml.load(file.read_bytes(), Loader=loader) or {}).items():  # noqa: S506
            yield file.name, str(name), " ".join(str(reason or "").split())


def faults() -> Iterator[str]:
    """Yield what is wrong with the entries: no reason, or a row excluded twice."""
    seen: dict[str, str] = {}
    for file, name, reason in entries():
        if not reason:
            yield f"{name}: excluded in {file} without a reason"
        if name in seen:
            yield f"{name}: excluded in {seen[name]} and in {file}"
        seen.setdefault(name, file)
