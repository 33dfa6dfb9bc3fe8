"""Bodies with odd values in them, for tests of what must not surprise."""

import copy
from typing import Any

from hypothesis import strategies as st

#: What stands where something else was expected.
VALUES = [None, True, 0, -1, 1.5, "", "x", "auto", [], {}, [None], [3], [[]], [{}],
          {"type": "x"}, {"x": 3}]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += places(inner, (*path, index))
    return found


def broken(
    sample: dict[str, Any], *, least: int = 1, more: tuple[Any, ...] = ()
) -> st.SearchStrategy[dict[str, Any]]:
    """The sample with ``least`` to two of its values replaced by something odd, or by one of ``more``."""

    def put(edits: list[tuple[tuple[Any, ...], Any]]) -> dict[str, Any]:
        result = copy.deepcopy(sample)
        for path, value in edits:
            holder: Any = result
            try:
                for key in path[:-1]:
                    holder = holder[key]
                holder[path[-1]] = copy.deepcopy(value)
            except (KeyError, IndexError, TypeError):
                continue  # an earlier edit took the place away
        return result

    edit = st.tuples(st.sampled_from(places(sample)), st.sampled_from([*VALUES, *more]))
    return st.lists(edit, min_size=least, max_size=2).map(put)
