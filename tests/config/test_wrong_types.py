"""Every key works with its stated type only (AIP-CFG-113): generated from the schema.

For each node of the schema a small configuration that holds it is built, then each value of a type
the node does not accept is put there. The load must be refused with exactly that path, or, for the
one rewritten shorthand, below it.
"""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from aiproxy.middleware.config import ConfigInvalid, load_config
from aiproxy.spec import schema
from aiproxy.spec.faults import dotted

DOCUMENT = schema("config")
WRONG: dict[str, Any] = {
    "string": "not what is due",
    "integer": -7,
    "number": 0.25,
    "boolean": True,
    "null": None,
    "array": [[]],
    "object": {"no-such-key": {}},
}
Path = tuple[str | int, ...]


def _resolved(rules: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in rules:
        return dict(DOCUMENT["$defs"][rules["$ref"].rpartition("/")[2]])
    return rules


def _nodes(rules: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    rules = _resolved(rules)
    if path:
        yield path, rules
    for key, inner in rules.get("properties", {}).items():
        yield from _nodes(inner, (*path, key))
    for inner in rules.get("patternProperties", {}).values():
        yield from _nodes(inner, (*path, "openai_model"))
    if isinstance(rules.get("additionalProperties"), dict):
        key = "local" if path == ("providers",) else "entry"
        yield from _nodes(rules["additionalProperties"], (*path, key))
    if "items" in rules:
        yield from _nodes(rules["items"], (*path, 0))


NODES = list(_nodes(DOCUMENT))


def _accepts(rules: dict[str, Any], kind: str) -> bool:
    types = [rules["type"]] if isinstance(rules["type"], str) else rules["type"]
    return kind in types or (kind == "integer" and "number" in types)


def _placed(path: Path, value: Any) -> Any:
    """Return a configuration with ``value`` at ``path`` and nothing else."""
    for step in reversed(path):
        value = [value] if isinstance(step, int) else {step: value}
    return value


CASES = [
    pytest.param(path, kind, id=f"{dotted(path)}-{kind}")
    for path, rules in NODES
    for kind in WRONG
    if not _accepts(rules, kind)
]


def test_the_schema_has_hundreds_of_nodes() -> None:
    assert len(NODES) > 250
    assert len(CASES) > 1000


@pytest.mark.parametrize(("path", "kind"), CASES)
def test_a_value_of_another_type_is_refused_at_its_path(path: Path, kind: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        load_config(_placed(path, copy.deepcopy(WRONG[kind])), env={})
    keys = [problem.key for problem in refused.value.problems]
    assert dotted(path) in keys


@pytest.mark.parametrize(
    "path",
    [path for path, rules in NODES if _accepts(rules, "object") and "properties" in rules],
    ids=dotted,
)
def test_an_unknown_key_is_refused_everywhere(path: Path) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        load_config(_placed((*path, "no-such-key"), 1), env={})
    assert dotted((*path, "no-such-key")) in [one.key for one in refused.value.problems]


@pytest.mark.parametrize(("path", "rules"), NODES, ids=[dotted(path) for path, _ in NODES])
def test_every_node_says_its_type_and_what_it_is_for(path: Path, rules: dict[str, Any]) -> None:
    assert rules["description"].endswith(".")
    assert "x-aiproxy-expected" in rules or "pattern" not in rules


DEFAULTED = [(path, rules["default"]) for path, rules in NODES if "default" in rules]


@pytest.mark.parametrize(
    ("path", "default"), DEFAULTED, ids=[dotted(path) for path, _ in DEFAULTED]
)
def test_every_default_satisfies_its_own_schema(path: Path, default: Any) -> None:
    assert dotted(path) not in _problem_keys(_placed(path, copy.deepcopy(default)))


def _problem_keys(source: dict[str, Any]) -> list[str]:
    try:
        load_config(source, env={})
    except ConfigInvalid as refused:
        return [problem.key for problem in refused.problems]
    return []
