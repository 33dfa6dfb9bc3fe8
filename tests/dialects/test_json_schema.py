"""JSON Schema between dialects: always in the target's subset, and never stricter than it was."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from aiproxy.middleware.dialects.gemini.schemas import schema_in, schema_out
from aiproxy.middleware.dialects.json_schema import (
    JSON_KEYWORDS,
    OPENAPI_KEYWORDS,
    STRICT_KEYWORDS,
    SchemaRefused,
    closed,
    for_gemini,
    for_gemini_json,
    inline_refs,
)

Schema = dict[str, Any]
TREE: Schema = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["name", "children"],
        }
    },
}


# --- references ----------------------------------------------------------------------------------


def test_references_are_replaced_by_what_they_mean() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/id", "description": "mine"},
            "b": {"$ref": "#/definitions/old%20name"},
            "c": {"$ref": "#named"},
            "d": {"$ref": "#/properties/a"},
            "e": {"$ref": "#/$defs/id", "minLength": 3},
        },
        "$defs": {"id": {"type": "string"}, "n": {"$anchor": "named", "type": "null"}},
        "definitions": {"old name": {"type": "integer"}},
    }
    assert inline_refs(schema) == {
        "type": "object",
        "properties": {
            "a": {"type": "string", "description": "mine"},
            "b": {"type": "integer"},
            "c": {"$anchor": "named", "type": "null"},
            "d": {"type": "string", "description": "mine"},
            "e": {"minLength": 3, "allOf": [{"type": "string"}]},
        },
    }


def test_data_that_looks_like_a_reference_stays() -> None:
    schema = {
        "enum": [{"$ref": "x"}],
        "properties": {"$ref": {"type": "string"}, "$defs": {"type": "null"}},
    }
    assert inline_refs(schema) == schema


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (TREE, "recursive"),
        ({"properties": {"a": {"$ref": "#"}}}, "recursive"),
        ({"$ref": "#"}, "recursive"),
        ({"$ref": "#/$defs/none"}, "nowhere"),
        ({"$ref": "#/prefixItems/7", "prefixItems": [{}]}, "nowhere"),
        ({"$ref": "#missing"}, "nowhere"),
        ({"$ref": "https://example.org/s.json"}, "outside"),
        ({"$ref": 1}, "not a string"),
    ],
)
def test_references_nobody_can_replace_are_refused(schema: Schema, reason: str) -> None:
    with pytest.raises(SchemaRefused, match=reason):
        inline_refs(schema)


def test_a_schema_that_explodes_is_refused() -> None:
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for i in range(1, 20):
        twice = [{"$ref": f"#/$defs/d{i - 1}"}] * 2
        definitions[f"d{i}"] = {"anyOf": twice}
    with pytest.raises(SchemaRefused, match="too large"):
        inline_refs({"$ref": "#/$defs/d19", "$defs": definitions})


def test_a_schema_that_is_too_deep_is_refused() -> None:
    schema: Schema = {"type": "string"}
    for _ in range(500):
        schema = {"type": "array", "items": schema}
    for convert in (inline_refs, for_gemini, for_gemini_json, closed):
        with pytest.raises(SchemaRefused, match="deep"):
            convert(schema)


def test_recursion_is_unrolled_for_gemini_and_declared() -> None:
    made, losses = for_gemini_json(TREE)
    inner = made["properties"]["children"]["items"]
    assert inner["properties"]["children"]["items"] == {"type": "object"}
    assert [loss.detail for loss in losses] == ["recursion below the first levels is not enforced"]


# --- tables --------------------------------------------------------------------------------------

CASES: list[tuple[str, Schema, Schema, Schema, int, int]] = [
    # name, given, JSON subset, OpenAPI subset, losses of each
    (
        "schema dialect and comments",
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "x", "type": "string"},
        {"type": "string"},
        {"type": "STRING"},
        0,
        0,
    ),
    (
        "const",
        {"const": "a"},
        {"type": "string", "enum": ["a"]},
        {"type": "STRING", "enum": ["a"]},
        0,
        0,
    ),
    (
        "number enum",
        {"type": "integer", "enum": [1, 2]},
        {"type": "integer", "enum": [1, 2]},
        {"type": "INTEGER"},
        0,
        1,
    ),
    (
        "nullable type",
        {"type": ["string", "null"]},
        {"type": ["string", "null"]},
        {"type": "STRING", "nullable": True},
        0,
        0,
    ),
    (
        "nullable by anyOf",
        {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "d"},
        {"type": ["integer", "null"], "description": "d"},
        {"type": "INTEGER", "nullable": True, "description": "d"},
        0,
        0,
    ),
    (
        "nullable enum",
        {"enum": ["a", None]},
        {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]},
        {"type": "STRING", "enum": ["a"], "nullable": True},
        0,
        0,
    ),
    (
        "type list",
        {"type": ["string", "integer"], "minimum": 3},
        {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 3}]},
        {"anyOf": [{"type": "STRING"}, {"type": "INTEGER", "minimum": 3}]},
        0,
        0,
    ),
    (
        "exclusive limit of an integer",
        {"type": "integer", "exclusiveMinimum": 3, "maximum": 9.5},
        {"type": "integer", "minimum": 4, "maximum": 9},
        {"type": "INTEGER", "minimum": 4, "maximum": 9},
        0,
        0,
    ),
    (
        "exclusive limit of a number",
        {"type": "number", "exclusiveMinimum": 3},
        {"type": "number", "minimum": 3},
        {"type": "NUMBER", "minimum": 3},
        1,
        1,
    ),
    (
        "draft 4 exclusive limit",
        {"type": "integer", "minimum": 3, "exclusiveMinimum": True},
        {"type": "integer", "minimum": 4},
        {"type": "INTEGER", "minimum": 4},
        0,
        0,
    ),
    (
        "length and pattern",
        {"type": "string", "minLength": 1, "pattern": "^a"},
        {"type": "string"},
        {"type": "STRING", "minLength": 1, "pattern": "^a"},
        2,
        0,
    ),
    (
        "closed object",
        {
            "type": "object",
            "properties": {"a": {"type": "null"}},
            "additionalProperties": False,
            "required": ["a"],
        },
        {
            "type": "object",
            "properties": {"a": {"type": "null"}},
            "additionalProperties": False,
            "required": ["a"],
        },
        {"type": "OBJECT", "properties": {"a": {"type": "NULL"}}, "required": ["a"]},
        0,
        1,
    ),
    (
        "tuple",
        {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
        {"type": "array", "prefixItems": [{"type": "string"}], "maxItems": 1},
        {"type": "ARRAY", "items": {"type": "STRING"}, "maxItems": 1},
        0,
        1,
    ),
    (
        "allOf",
        {
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
                {"properties": {"b": {"type": "number"}}, "required": ["b"]},
            ]
        },
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
        {
            "type": "OBJECT",
            "properties": {"a": {"type": "STRING"}, "b": {"type": "NUMBER"}},
            "required": ["a", "b"],
        },
        0,
        0,
    ),
    (
        "tagged oneOf",
        {
            "oneOf": [
                {"type": "object", "properties": {"k": {"const": "a"}}, "required": ["k"]},
                {"type": "object", "properties": {"k": {"const": "b"}}, "required": ["k"]},
            ]
        },
        {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {"k": {"type": "string", "enum": [word]}},
                    "required": ["k"],
                }
                for word in "ab"
            ]
        },
        {
            "anyOf": [
                {
                    "type": "OBJECT",
                    "properties": {"k": {"type": "STRING", "enum": [word]}},
                    "required": ["k"],
                }
                for word in "ab"
            ]
        },
        0,
        0,
    ),
    (
        "what describes",
        {"type": "string", "format": "email", "default": "x", "description": "an address"},
        {"type": "string", "description": "an address (format: email; default: x)"},
        {"type": "STRING", "description": "an address (format: email; default: x)"},
        0,
        0,
    ),
    (
        "keywords of neither",
        {"type": "array", "items": {"type": "integer", "multipleOf": 2}, "uniqueItems": True},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "ARRAY", "items": {"type": "INTEGER"}},
        2,
        2,
    ),
    ("anything", {}, {}, for_gemini({})[0], 0, 1),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_the_two_subsets_of_gemini(case: tuple[str, Schema, Schema, Schema, int, int]) -> None:
    _, schema, plain, openapi, plain_losses, openapi_losses = case
    made, losses = for_gemini_json(schema)
    assert (made, len(losses)) == (plain, plain_losses)
    made, losses = for_gemini(schema)
    assert (made, len(losses)) == (openapi, openapi_losses)


def test_the_field_that_loses_less_is_used() -> None:
    assert schema_out({"type": "string", "pattern": "^a"})[:2] == (
        False,
        {"type": "STRING", "pattern": "^a"},
    )
    assert schema_out({"type": "integer", "enum": [1]})[0] is True


def test_nothing_of_the_schema_is_quoted_in_a_loss() -> None:
    schema = {"type": "object", "x-secret": 1, "properties": {"secret": {"not": {"const": "s"}}}}
    for convert in (for_gemini, for_gemini_json, closed):
        assert "secret" not in "".join(loss.detail for loss in convert(schema)[1])


def test_objects_are_closed_for_strict_mode() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "b": {"type": "integer", "default": 3},
            "c": {"$ref": "#/definitions/c"},
        },
        "required": ["a"],
        "definitions": {"c": {"type": "object", "additionalProperties": {"type": "string"}}},
    }
    made, losses = closed(schema)
    assert made == {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "b": {"type": ["integer", "null"]},
            "c": {"anyOf": [{"$ref": "#/$defs/c"}, {"type": "null"}]},
        },
        "required": ["a", "b", "c"],
        "additionalProperties": False,
        "$defs": {
            "c": {
                "type": "object",
                "properties": {},
                "required": [],
                "additionalProperties": False,
            }
        },
    }
    assert sorted(loss.detail for loss in losses) == [
        "default is not told",
        "objects take no further properties",
        "optional properties come as null",
    ]


def test_a_closed_schema_stays_as_it_is() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "string"}}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert closed(schema) == (schema, [])


# --- properties ----------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "k"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.sampled_from(["", "a", "bb", "x1"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    """Schemas with any keyword anywhere, most of them sensible."""
    many = st.lists(inner, min_size=1, max_size=3)
    named = st.dictionaries(NAMES, inner, max_size=3)
    kinds = st.sampled_from(["string", "number", "integer", "boolean", "null", "array", "object"])
    small = st.integers(0, 3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": kinds | st.lists(kinds, min_size=1, max_size=3, unique=True),
            "enum": st.lists(SCALARS, min_size=1, max_size=3),
            "const": SCALARS,
            "properties": named,
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": st.booleans() | inner,
            "items": inner,
            "prefixItems": many,
            "minItems": small,
            "maxItems": small,
            "minimum": st.integers(-2, 5) | st.floats(-2, 5),
            "exclusiveMinimum": st.integers(-2, 5),
            "exclusiveMaximum": st.integers(-2, 9),
            "maximum": st.integers(-2, 9),
            "minLength": small,
            "pattern": st.sampled_from(["^a", "[0-9]"]),
            "anyOf": many,
            "oneOf": many,
            "allOf": many,
            "not": inner,
            "uniqueItems": st.booleans(),
            "patternProperties": st.dictionaries(st.just("^a"), inner, max_size=1),
            "description": st.just("d"),
            "default": SCALARS,
            "format": st.sampled_from(["date-time", "uuid"]),
            "x-odd": st.just(1),
        },
    )


SCHEMAS = st.recursive(st.just({}) | keywords(st.just({})), keywords, max_leaves=8)
MANY = settings(
    max_examples=200,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking these takes minutes
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def nodes(schema: Schema) -> Iterator[Schema]:
    """Yield a schema and every schema in it."""
    yield schema
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from nodes(schema[name])
    for name in ("anyOf", "prefixItems"):
        for inner in schema.get(name, ()):
            yield from nodes(inner)
    for name in ("properties", "$defs"):
        for inner in schema.get(name, {}).values():
            yield from nodes(inner)


@MANY
@given(schema=SCHEMAS)
def test_the_result_is_always_in_the_subset(schema: Schema) -> None:
    made, _ = for_gemini_json(schema)
    for node in nodes(made):
        assert node.keys() <= JSON_KEYWORDS
        assert not isinstance(node.get("type"), list) or node["type"][1:] == ["null"]
        assert all(isinstance(v, str | int | float) for v in node.get("enum", ()))
    made, _ = for_gemini(schema)
    for node in nodes(made):
        assert node.keys() <= OPENAPI_KEYWORDS
        assert isinstance(node.get("type", ""), str)
        assert ("type" in node) != ("anyOf" in node)
        assert "anyOf" not in node or len(node) == 1
        assert all(isinstance(v, str) and v for v in node.get("enum", ()))
        assert node.get("type") != "ARRAY" or "items" in node
        assert set(node.get("required", ())) <= set(node.get("properties", {}))
    made, _ = closed(schema)
    for node in nodes(made):
        assert node.keys() <= STRICT_KEYWORDS
        if "properties" in node:
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])


@MANY
@given(schema=SCHEMAS, values=st.lists(VALUES, max_size=8))
def test_what_was_valid_stays_valid_where_nothing_is_declared(
    schema: Schema, values: list[Any]
) -> None:
    before = Draft202012Validator(schema)
    made, losses = for_gemini_json(schema)
    plain = Draft202012Validator(made)
    openapi, others = for_gemini(schema)
    read = Draft202012Validator(schema_in(openapi))
    for value in values:
        if not before.is_valid(value):
            continue
        if not losses:
            assert plain.is_valid(value), (value, made)
        if not others:
            assert read.is_valid(value), (value, openapi)


@MANY
@given(schema=SCHEMAS, values=st.lists(VALUES, max_size=8))
def test_what_was_valid_stays_valid_in_strict_mode(schema: Schema, values: list[Any]) -> None:
    made, losses = closed(schema)
    if losses:
        return
    before, after = Draft202012Validator(schema), Draft202012Validator(made)
    for value in values:
        if before.is_valid(value):
            assert after.is_valid(value), (value, made)


@MANY
@given(
    schema=st.recursive(
        SCALARS,
        lambda i: st.dictionaries(
            st.sampled_from(
                [
                    "$ref",
                    "$defs",
                    "type",
                    "properties",
                    "items",
                    "anyOf",
                    "enum",
                    "allOf",
                    "required",
                    "minimum",
                    "additionalProperties",
                    "const",
                    "prefixItems",
                    "oneOf",
                    "format",
                    "description",
                    "propertyOrdering",
                ]
            ),
            i | st.lists(i),
        ),
        max_leaves=12,
    )
)
def test_odd_schemas_are_converted_or_refused(schema: Any) -> None:
    given = schema if isinstance(schema, dict) else {"type": schema}
    for convert in (inline_refs, for_gemini, for_gemini_json, closed):
        try:
            convert(given)
        except SchemaRefused:
            continue
    schema_in(given)
