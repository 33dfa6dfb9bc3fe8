"""The explaining and the fast validator give the same verdict on damaged examples."""

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxy.spec import Invalid, checker, names, schema, validate

BODIES = [
    name
    for name in names()
    if name.partition("/")[0] in ("events", "requests", "responses", "upstream")
]
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["auto", "auto\n", "", "stop", "message", "function", "robot", "aiproxy:x", "ü"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abtype", max_size=4), inner)
    ),
    max_leaves=5,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside ``node``, the node itself left out."""
    inner = node.items() if isinstance(node, dict) else enumerate(node)
    found: list[tuple[Any, ...]] = []
    for key, value in inner:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found.extend(places(value, (*path, key)))
    return found


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, Any]:
    """Draw a schema name and one of its examples with up to three values replaced or removed."""
    name = draw(st.sampled_from(BODIES))
    objects = [example for example in schema(name)["examples"] if isinstance(example, dict)]
    instance = copy.deepcopy(draw(st.sampled_from(objects)))
    for _ in range(draw(st.integers(1, 3))):
        spots = places(instance)
        if not spots:
            break
        *way, last = draw(st.sampled_from(spots))
        holder = instance
        for step in way:
            holder = holder[step]
        if draw(st.booleans()):
            holder[last] = draw(VALUES)
        else:
            del holder[last]
    return name, instance


def accepted(instance: Any, name: str) -> bool:
    try:
        validate(instance, name)
    except Invalid:
        return False
    return True


@settings(max_examples=600, deadline=None)
@given(damaged())
def test_both_validators_agree_on_a_damaged_example(case: tuple[str, Any]) -> None:
    name, instance = case
    assert checker(name).ok(instance) == accepted(instance, name)
