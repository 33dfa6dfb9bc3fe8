"""The public example files load, and with exactly the values they state."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiproxy.middleware.config import load_config
from aiproxy.middleware.config.quantities import parse_duration, parse_size
from aiproxy.spec import schema

EXAMPLES = Path(__file__).parents[2] / "examples" / "config"
FULL = EXAMPLES / "aiproxy.yaml"
DURATIONS = {"peer_timeout", "heartbeat_interval", "read_timeout", "write_timeout", "retry_delay"}


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_example_loads(file: Path, env: dict[str, str]) -> None:
    assert load_config(file, env=env).problems == ()


def test_the_full_sample_loads_with_every_leaf_equal(env: dict[str, str]) -> None:
    values = load_config(FULL, env=env).values
    leaves = list(_leaves(yaml.safe_load(FULL.read_bytes())))
    assert len(leaves) > 150
    for path, written in leaves:
        assert _at(values, path) == _read(path, written, env), path


def test_the_samples_cloudflare_table_is_as_published(env: dict[str, str]) -> None:
    models = load_config(FULL, env=env).values["providers"]["cloudflare"]["models"]
    table = [
        (one["name"], one["model"], one["cost_per_1k_tokens"], one["cost_per_generation"])
        for one in models
    ]
    assert table == [
        ("llama-3.1-8b", "@cf/meta/llama-3.1-8b-instruct", 0.001, None),
        ("llama-4-scout", "@cf/meta/llama-4-scout-17b-16e", 0.002, None),
        ("qwen-coder", "@cf/qwen/qwen2.5-coder-7b-instruct", 0.001, None),
        ("stable-diffusion-xl", "@cf/stabilityai/stable-diffusion-xl-base-1.0", None, 0.01),
    ]


def test_the_sample_as_json_means_the_same(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "aiproxy.json"
    file.write_text(json.dumps(yaml.safe_load(FULL.read_bytes())))
    assert load_config(file, env=env).values == load_config(FULL, env=env).values


def test_every_leaf_of_the_sample_has_a_described_schema_node() -> None:
    for path, _ in _leaves(yaml.safe_load(FULL.read_bytes())):
        node = _schema_at(path)
        assert node["description"], path
        assert node["type"], path


def test_the_minimal_sample_is_filled_with_defaults(env: dict[str, str]) -> None:
    config = load_config(EXAMPLES / "minimal.yaml", env=env)
    local, cloudflare = (
        config.values["providers"]["local"],
        config.values["providers"]["cloudflare"],
    )
    assert (local["type"], local["priority"], local["weight"]) == ("local", 100, 1)
    assert local["models"][0]["runtime"] == "onnx"
    assert local["models"][0]["capabilities"] == ["text-generation"]
    assert cloudflare["timeouts"]["connect"] == 5.0
    assert config.values["server"]["max_request_size"] == 10_000_000
    assert config.values["node"]["name"] == "local-node"
    assert config.values["routing"]["failover"]["max_retries"] == 3
    assert config.values["security"]["auth"]["enabled"] is False


def test_the_minimal_sample_is_warned_about_its_open_address(env: dict[str, str]) -> None:
    keys = [warning.key for warning in load_config(EXAMPLES / "minimal.yaml", env=env).warnings]
    assert "server.listen_addr" in keys
    assert "providers.cloudflare.credentials.api_token" in keys


def test_use_case_fragments_load_when_merged_with_the_minimal_sample(env: dict[str, str]) -> None:
    minimal = yaml.safe_load((EXAMPLES / "minimal.yaml").read_bytes())
    cheap = {
        "routing": {
            "strategy": "cost_optimized",
            "policies": [
                {"if": "provider.type == 'local'", "then": "priority = 1"},
                {"else": "priority = 999"},
            ],
        }
    }
    policies = load_config(minimal | cheap, env=env).values["routing"]["policies"]
    assert [(one["type"], len(one["rules"])) for one in policies] == [("model_specific", 2)]

    alerts = [{"threshold": 90, "action": "disable_paid_providers"}]
    budget = {"budget": {"daily_limit": 10.00, "alerts": alerts}}
    values = load_config(minimal | budget, env=env).values["budget"]
    assert (values["enabled"], values["daily_limit"], values["alerts"]) == (True, 10.0, alerts)

    mesh = {"mesh": {"enabled": True, "peers": ["node1=10.0.0.1:9090", "node1"]}}
    node = {"node": {"id": "local-node", "type": "mesh"}}
    values = load_config(minimal | node | mesh, env=env).values
    assert "mesh" not in values
    assert values["node"]["mesh"]["peers"] == [
        {"id": "node1", "addr": "10.0.0.1:9090", "priority": 100}
    ]


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    else:
        yield path, value


def _read(path: tuple[Any, ...], written: Any, env: dict[str, str]) -> Any:
    if path[-1] in DURATIONS:
        return parse_duration(written)
    if path[-1] == "max_request_size":
        return parse_size(written)
    if isinstance(written, str) and written.startswith("${"):
        return env[written[2:-1]]
    return written


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _schema_at(path: tuple[Any, ...]) -> dict[str, Any]:
    document = schema("config")
    node: dict[str, Any] = document
    for step in path:
        if isinstance(step, int):
            node = node["items"]
        elif step in node.get("properties", {}):
            node = node["properties"][step]
        elif step.endswith("_model") and "patternProperties" in node:
            node = next(iter(node["patternProperties"].values()))
        else:
            node = node["additionalProperties"]
        if "$ref" in node:
            node = document["$defs"][node["$ref"].rpartition("/")[2]]
    return node
