import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import aiproxy.spec
from aiproxy.spec import checker, names, schema, validate, vector

FOLDER = Path(aiproxy.spec.__file__).parent / "schemas"
OURS = [
    "alternatives",
    "auto-decisions",
    "auto-decisions-emitted",
    "auto-selection",
    "auto-selection-emitted",
    "decision",
    "error",
    "error-emitted",
    "ids",
    "levels",
    "profiles",
    "reason-codes",
    "report",
    "report-summary",
    "requirements",
    "tool-mapping",
    "vectors",
    "x-aiproxy",
]


def test_every_file_below_schemas_is_a_named_schema():
    files = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.json")}
    assert set(names()) == files
    assert files >= set(OURS)


@pytest.mark.parametrize("name", names())
def test_identifier_and_dialect_follow_from_the_name(name):
    document = schema(name)
    assert document["$id"] == f"urn:aiproxy:schema:{name}"
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", names())
def test_every_schema_compiles_in_both_validators(name):
    Draft202012Validator.check_schema(schema(name))
    assert isinstance(checker(name).ok({}), bool)


def references(node):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for key, value in node.items():
            if key not in ("examples", "default", "const", "enum"):
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


@pytest.mark.parametrize("name", names())
def test_every_reference_leads_somewhere(name):
    for reference in references(schema(name)):
        target, _, pointer = reference.partition("#")
        node = schema(target.removeprefix("urn:aiproxy:schema:")) if target else schema(name)
        for part in pointer.split("/")[1:]:
            node = node[part.replace("~1", "/").replace("~0", "~")]
        assert isinstance(node, dict | bool)


@pytest.mark.parametrize("name", names())
def test_every_example_of_a_schema_is_valid(name):
    for example in schema(name).get("examples", []):
        validate(example, name)
        assert checker(name).ok(example)


@pytest.mark.parametrize("name", sorted(set(OURS) - {"auto-decisions", "auto-selection"}))
def test_our_schemas_have_examples_or_data(name):
    data = {"requirements", "vectors"}
    assert name in data or schema(name)["examples"]


def test_an_unknown_name_suggests_a_close_one():
    with pytest.raises(KeyError, match="did you mean decision"):
        schema("decisoin")
    with pytest.raises(KeyError, match="fig-01"):
        vector("figures/fig01")


def test_names_outside_the_folder_are_refused():
    with pytest.raises(KeyError):
        schema("../schemas/error")


def test_documents_are_read_once_and_shared_between_threads():
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: checker("decision").ok({}), range(64)))
    assert results == [False] * 64
    assert schema("decision") is schema("decision")
    assert checker("decision") is checker("decision")


def test_importing_loads_no_validator_and_no_yaml():
    code = (
        "import sys, json, aiproxy.spec;"
        "print(json.dumps([m for m in ('yaml', 'jsonschema', 'jsonschema_rs', 'referencing')"
        " if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout) == []
