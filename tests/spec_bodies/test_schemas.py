"""The body schemas as documents: they compile, explain themselves, and their examples hold."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from jsonschema import Draft202012Validator

from aiproxy.spec import Invalid, checker, names, schema, validate

FOLDERS = ("events", "requests", "responses", "upstream")
BODIES = [name for name in names() if name.partition("/")[0] in FOLDERS]
SERVED = {
    "requests/chat",
    "requests/completions",
    "requests/draft",
    "requests/embeddings",
    "requests/predict",
    "requests/responses",
    "responses/chat",
    "responses/completion",
    "responses/embeddings",
    "responses/mesh-status",
    "responses/model",
    "responses/models",
    "responses/not-available",
    "responses/predict",
    "responses/response",
    "responses/union",
    "events/chat-chunk",
    "events/completion-chunk",
    "events/response-event",
    "events/union-frame",
    "upstream/chat",
    "upstream/completion",
    "upstream/embeddings",
    "upstream/response",
}
EXAMPLES = [
    pytest.param(name, example, id=f"{name}[{place}]")
    for name in BODIES
    for place, example in enumerate(schema(name)["examples"])
]
# Subschemas below these only narrow members that are described where they are declared.
NARROWING = {"if", "then", "else", "not", "anyOf", "allOf", "oneOf"}


def undescribed(node: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of declared members that carry no description."""
    if isinstance(node, list):
        return
    for key, value in node.items():
        if key == "properties":
            for member, rules in value.items():
                if not rules.get("description"):
                    yield f"{path}.{member}"
                yield from undescribed(rules, f"{path}.{member}")
        elif isinstance(value, dict) and key not in NARROWING and key != "examples":
            yield from undescribed(value, f"{path}/{key}")


def test_every_endpoint_we_serve_has_its_schemas() -> None:
    assert set(BODIES) >= SERVED


@pytest.mark.parametrize("name", BODIES)
def test_a_schema_is_legal_and_says_what_it_is_for(name: str) -> None:
    document = schema(name)
    Draft202012Validator.check_schema(document)
    assert jsonschema_rs.meta.is_valid(document)
    assert document["$id"] == f"urn:aiproxy:schema:{name}"
    assert document["title"]
    assert document["description"]
    assert document["examples"]


@pytest.mark.parametrize("name", BODIES)
def test_every_member_has_a_description(name: str) -> None:
    document = {key: value for key, value in schema(name).items() if key != "examples"}
    assert list(undescribed(document)) == []


def test_an_undescribed_member_is_found() -> None:
    document = {"properties": {"a": {"description": "x", "properties": {"b": {"type": "string"}}}}}
    assert list(undescribed(document)) == [".a.b"]


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_an_example_is_valid_for_both_validators(name: str, example: object) -> None:
    validate(example, name)
    assert checker(name).ok(example)


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_an_example_survives_json(name: str, example: object) -> None:
    assert json.loads(json.dumps(example)) == example


@pytest.mark.parametrize("name", BODIES)
def test_a_list_is_never_a_body(name: str) -> None:
    assert not checker(name).ok([])
    with pytest.raises(Invalid):
        validate([], name)


def test_the_response_object_has_the_31_members_of_both_documents() -> None:
    required = schema("responses/response")["$defs"]["body"]["required"]
    assert len(required) == len(set(required)) == 31
