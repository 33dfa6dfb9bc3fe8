"""Hostile JSON: arbitrary values, and good documents with something wrong in one place."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import orjson
from hypothesis import strategies as st

Path = tuple[str | int, ...]

#: What the JSON parser in front lets through: no surrogates, no NaN, numbers of 64 bits.
texts = st.text(st.characters(codec="utf-8"), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.sampled_from(["", "auto", "\x00", "data:;base64,", "data:image/png;base64,A",
                       "{", "[]", "-1", "0", "tool_use", "text", "function", "message",
                       "error", "stop", "aiproxy.", "aiproxy.anthropic.s.x"])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            texts
            | st.sampled_from(["type", "role", "content", "text", "id", "name", "index", "delta",
                               "arguments", "input", "parts", "message", "choices", "error"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)  # fmt: skip
objects = st.dictionaries(texts, values, max_size=6)


def paths(value: Any, here: Path = ()) -> Iterator[Path]:
    """Every place of a document but its root."""
    rows: Any = ()
    if isinstance(value, Mapping):
        rows = value.items()
    elif isinstance(value, list):
        rows = enumerate(value)
    for key, inner in rows:
        yield (*here, key)
        yield from paths(inner, (*here, key))


@st.composite
def broken(draw: st.DrawFn, documents: list[Any]) -> Any:
    """A good document with one to three places deleted, doubled, wrapped, or made anything."""
    document = deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths(document))
        if not places:
            break
        *above, last = draw(st.sampled_from(places))
        holder = document
        for key in above:
            holder = holder[key]
        how = draw(st.sampled_from(["value", "value", "delete", "wrap", "member", "twice"]))
        if how == "delete":
            del holder[last]
        elif how == "wrap":
            holder[last] = [holder[last]]
        elif how == "member" and isinstance(holder[last], dict):
            holder[last][draw(texts)] = draw(values)
        elif how == "twice" and isinstance(holder, list):
            holder.append(deepcopy(holder[last]))
        else:
            holder[last] = draw(values)
    return document


def sendable(document: Any) -> bool:
    """Whether it can be written as JSON by the writer we use."""
    orjson.dumps(document)
    return True
