"""``aiproxy-target.yaml``: what is read from it, and how it says what is wrong."""

from pathlib import Path

import pytest

from aiproxy.conformance.asking import Usage, asked_for
from aiproxy.conformance.manifest import UnusableManifest, read_manifest
from aiproxy.conformance.options import Options
from aiproxy.spec import schema

WHOLE = """\
implementation: example-gateway
version: "1.4"
website: https://example.org
contact: conformance@example.org
launch: gateway {config} {port}
config_for: "{world}.yaml"
level: 2
model: small
api_key_env: GATEWAY_KEY
headers:
  x-tenant: tests
  x-token: "a ${TOKEN}"
features: [dialect:anthropic]
seed: 7
upstreams:
  ports: {abc: 9001}
worlds:
  plain: http://127.0.0.1:9000
"""
ENVIRONMENT = {"GATEWAY_KEY": "the-key-of-the-gateway", "TOKEN": "hidden"}


def written(folder: Path, text: str) -> Path:
    path = folder / "aiproxy-target.yaml"
    path.write_text(text)
    return path


def test_everything_is_read(tmp_path: Path):
    (tmp_path / "plain.yaml").write_text("")
    found = read_manifest(written(tmp_path, WHOLE), ENVIRONMENT, ("dialect:anthropic", "metrics"))
    target = found.target
    assert (target.implementation, target.version, target.level) == ("example-gateway", "1.4", 2)
    assert (target.url, target.contact) == ("https://example.org", "conformance@example.org")
    assert dict(target.features) == {"dialect:anthropic": True, "metrics": False}
    assert target.lacks == ("metrics",)
    assert found.api_key == "the-key-of-the-gateway"
    assert dict(found.headers) == {"x-tenant": "tests", "x-token": "a hidden"}
    assert found.config_for == str(tmp_path / "{world}.yaml")  # seen from the manifest
    assert (found.seed, dict(found.ports)) == (7, {"abc": 9001})
    assert "hidden" not in repr(found)
    assert "the-key" not in repr(found)


def test_a_mapping_of_features_leaves_the_others_open(tmp_path: Path):
    path = written(tmp_path, "features: {embeddings: false}\n")
    found = read_manifest(path, {}, ("embeddings", "metrics"))
    assert dict(found.target.features) == {"embeddings": False}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("level: 1\nlaunch: x\nlevel: 2\n", ":3: level: given twice"),
        ("version: 1.4\n", ":1: version: expected a string, found a number"),
        ("\nlevl: 2\n", ":2: levl: not a known key here; did you mean level?"),
        ("level: 9\n", ":1: level: expected at most 5"),
        ("upstreams:\n  ports:\n    a: 0\n", ":3: upstreams.ports.a: expected at least 1"),
        ("url: gateway\n", ":1: url: expected an http:// or https:// URL"),
        ('headers:\n  x: "${NOT_THERE}"\n', ":2: headers.x: the environment variable NOT_THERE"),
        ("api_key_env: NOT_THERE\n", ":1: api_key_env: the environment variable NOT_THERE"),
        ("features: [embedings]\n", "did you mean embeddings?"),
        ("a: [1\n", ":2: not YAML"),
        ("a: &x 1\nb: *x\n", ":2: aliases are not supported"),
        ("- a\n", ":1: expected keys and values"),
        ("", ":1: expected keys and values"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path: Path, text: str, says: str):
    path = written(tmp_path, text)
    with pytest.raises(UnusableManifest) as wrong:
        read_manifest(path, {}, ("embeddings",))
    assert str(wrong.value).startswith(str(path))
    assert says in str(wrong.value)
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: \x00", b"[" * 100_000])
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "aiproxy-target.yaml"
    path.write_bytes(content)
    with pytest.raises(UnusableManifest):
        read_manifest(path, {})


def test_a_missing_file_is_told(tmp_path: Path):
    with pytest.raises(UnusableManifest, match="No such file"):
        read_manifest(tmp_path / "none.yaml", {})


def test_every_example_of_the_schema_makes_a_run(tmp_path: Path):
    import yaml

    environment = {"GATEWAY_KEY": "k" * 20, "UPSTREAM_TOKEN": "t" * 20}
    for example in schema("target")["examples"]:
        (tmp_path / "templates").mkdir(exist_ok=True)
        (tmp_path / "templates" / "plain.yaml").write_text("")
        path = written(tmp_path, yaml.safe_dump(example, sort_keys=False))
        data = {**example, "features": {}}
        path = written(tmp_path, yaml.safe_dump(data, sort_keys=False))
        asked = asked_for({"manifest": path}, environment)
        assert asked.options.level == example.get("level", 1)


def test_the_command_line_goes_before_the_manifest(tmp_path: Path):
    path = written(tmp_path, "url: http://127.0.0.1:1/v1\nlevel: 2\nmodel: theirs\n")
    asked = asked_for({"manifest": path}, {})
    assert (asked.url, asked.options.level) == ("http://127.0.0.1:1", 2)
    assert (asked.options.model, asked.options.resolved_mode) == ("theirs", "observe")
    given = {"manifest": path, "level": "1", "model": "mine", "launch": "x {config} {port}"}
    asked = asked_for(given, {})
    assert (asked.url, asked.options.level, asked.options.model) == ("", 1, "mine")
    assert asked.options.resolved_mode == "controlled"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "give a URL"),
        ({"url": "http://127.0.0.1:1", "launch": "x {config}"}, "not both"),
        ({"url": "http://127.0.0.1:1", "mode": "controlled"}, "--launch with {config}"),
        ({"url": "http://127.0.0.1:1", "mode": "perfect"}, "observe, attached, controlled"),
        ({"launch": "x {config}", "mode": "attached"}, "--upstreams"),
        ({"launch": "x {config}", "config_for": "litelm"}, "did you mean litellm?"),
        ({"url": "http://127.0.0.1:1", "profile": "securty"}, "did you mean security?"),
        ({"url": "http://127.0.0.1:1", "baseline": "/no/such"}, "No such file"),
        ({"url": "http://127.0.0.1:1", "check": ["XAI-HDR-070"]}, "upstreams that the suite"),
        ({"url": "http://127.0.0.1:1", "level": "0"}, "from 1 to 5"),
        ({"url": "http://127.0.0.1:1", "seed": "-1"}, "from 0 to"),
        ({"launch": "'"}, "--launch"),
    ],
)
def test_what_makes_no_sense_is_one_line(given: dict[str, object], says: str):
    with pytest.raises(Usage) as wrong:
        asked_for(given, {})
    assert says in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_options_travel_as_plain_data(tmp_path: Path):
    (tmp_path / "plain.yaml").write_text("")
    asked = asked_for({"manifest": written(tmp_path, WHOLE), "seed": "7"}, ENVIRONMENT)
    assert Options.from_plain(asked.options.as_plain()) == asked.options
    assert "hidden" not in repr(asked.options)
    assert set(asked.options.secrets) >= {"the-key-of-the-gateway", "a hidden"}
