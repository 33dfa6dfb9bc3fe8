"""The compiled validator and the reference validator give the same verdict."""

import copy

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiproxy.spec import (
    HEADERS,
    Invalid,
    checker,
    names,
    read_field,
    schema,
    validate,
    vector,
    vectors,
)
from aiproxy.spec.register import rows_as_written

# Numbers stay where both engines can represent them: JSON beyond 64 bits and 2^53 is not our aim.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.sampled_from(["", "auto", "a", "cost", "none", "x" * 300, "a\n", "é", "-1", "0.5"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


def valid_instances():
    """Yield (schema name, valid instance) from the examples, the vectors and the register."""
    for name in names():
        for example in schema(name).get("examples", []):
            yield name, example
    for name in vectors():
        yield "vectors", vector(name)
        for exchange in vector(name).get("exchanges", []):
            for field, raw in exchange.get("response", {}).get("headers", {}).items():
                if field in HEADERS:
                    yield HEADERS[field].schema_name, read_field(field, raw)
    for field in HEADERS.values():
        for raw in field.accepted:
            yield field.schema_name, read_field(field.name, raw)
    yield from (("requirements", row) for row in list(rows_as_written())[::50])


INSTANCES = list(valid_instances())


def containers(node):
    if isinstance(node, dict | list):
        yield node
        for value in node.values() if isinstance(node, dict) else node:
            yield from containers(value)


@st.composite
def mutants(draw):
    """Return a schema's name and a valid instance with one to three changes somewhere inside."""
    name, instance = draw(st.sampled_from(INSTANCES))
    root = {"": copy.deepcopy(instance)}
    for _ in range(draw(st.integers(1, 3))):
        node = draw(st.sampled_from([found for found in containers(root) if found]))
        key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
        change = draw(st.sampled_from(["replace", "drop", "add", "repeat"]))
        if change == "drop" and node is not root:
            del node[key]
        elif change == "add" and isinstance(node, dict) and node is not root:
            node[draw(st.text(max_size=5))] = draw(JSON)
        elif change == "repeat" and isinstance(node, list):
            node.append(node[key])
        else:
            node[key] = draw(JSON)
        if not root:
            root[""] = None
    return name, root[""]


def verdict(instance, name):
    try:
        validate(instance, name)
    except Invalid as error:
        if not all(fault.message and fault.keyword for fault in error.errors) or not error.errors:
            raise AssertionError("a refusal without words") from error
        return False
    return True


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutants())
def test_mutated_instances_get_one_verdict(case):
    name, instance = case
    assert checker(name).ok(instance) == verdict(instance, name)
    assert (checker(name).first_fault(instance) is None) == checker(name).ok(instance)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(names()), JSON)
def test_arbitrary_values_get_one_verdict(name, instance):
    assert checker(name).ok(instance) == verdict(instance, name)


def test_the_unchanged_instances_are_valid():
    assert [name for name, instance in INSTANCES if not checker(name).ok(instance)] == []
    assert [name for name, instance in INSTANCES if not verdict(instance, name)] == []
