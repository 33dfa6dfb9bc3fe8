"""What a loaded configuration offers: values, places, warnings, a form that may be shown."""

import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiproxy.middleware.config import (
    Config,
    ConfigInvalid,
    Finding,
    insecure_public_bind,
    load_config,
)
from aiproxy.spec import schema

FULL = Path(__file__).parents[2] / "examples" / "config" / "aiproxy.yaml"
TWO = FULL.with_name("two-providers.yaml")


def _mine(**more: Any) -> dict[str, Any]:
    entry = {"type": "openai_compatible", "endpoint": "https://mine.example", **more}
    return {"providers": {"mine": entry}}


def _warned(source: Mapping[str, Any], **options: Any) -> list[str]:
    return [warning.key for warning in load_config(source, env={}, **options).warnings]


def test_nothing_means_all_defaults() -> None:
    config = load_config(None)
    assert config.values == load_config({}).values
    assert config.values["providers"] == {}
    assert config.values["server"]["listen_addr"] == "127.0.0.1:8080"
    assert config.values["server"]["drain_timeout"] == 30.0
    assert config.values["routing"]["scope"] == "opt_in"
    assert config.warnings == ()
    assert load_config(config.masked(), env={}).values == config.values


def test_a_mapping_is_not_changed_by_loading() -> None:
    source = {"mesh": {"peers": ["a=b.local:1"]}, "node": {"id": "x"}}
    before = json.dumps(source)
    load_config(source, env={})
    assert json.dumps(source) == before


def test_two_loads_share_no_values() -> None:
    first, second = load_config(None), load_config(None)
    first.values["routing"]["failover"]["fallback_chain"].append("x")
    first.values["observability"]["metrics"]["collect"].clear()
    assert second.values == load_config(None).values
    assert "x" not in second.values["routing"]["failover"]["fallback_chain"]


@pytest.mark.parametrize("file", [FULL, TWO], ids=["full", "two"])
def test_the_masked_form_loads_to_an_equal_configuration(file: Path, env: dict[str, str]) -> None:
    config = load_config(file, env=env)
    shown = config.masked()
    assert "canary" not in json.dumps(shown)
    assert "canary" not in repr(config)
    assert load_config(shown, env=env).values == config.values
    assert load_config(yaml.safe_load(yaml.safe_dump(shown)), env=env).values == config.values


SECRETS = {
    "providers": {
        "mine": {
            "type": "openai_compatible",
            "endpoint": "https://mine.example",
            "credentials": {"api_key": "canary-a", "api_token": "canary-b"},
            "headers": {"x-extra": "canary-c"},
        }
    },
    "node": {"mesh": {"secret": "canary-d"}},
    "state": {"backend": "valkey", "url": "redis://user:canary-e@store:6379"},
    "budget": {"cost_db": "postgresql://user:canary-f@db/costs"},
    "security": {
        "auth": {
            "api_keys": [{"key": "canary-g-canary-g", "name": "one"}],
            "jwt": {
                "issuer": "i", "audience": "a", "secret": "canary-h", "algorithms": ["HS256"],
            },
            "oauth2": {
                "introspection_url": "https://x.example",
                "client_id": "c",
                "client_secret": "canary-i",
            },
        }
    },
}  # fmt: skip


def test_literal_secrets_are_warned_about_and_never_shown() -> None:
    config = load_config(SECRETS, env={})
    shown = json.dumps(config.masked())
    assert "canary" not in shown + repr(config) + " ".join(map(str, config.warnings))
    assert shown.count("***") == 9
    assert "redis://***@store:6379" in shown
    warned = [warning.key for warning in config.warnings]
    assert "providers.mine.credentials.api_key" in warned
    assert "security.auth.api_keys[0].key" in warned


def test_a_secret_half_written_out_is_covered_whole() -> None:
    source = _mine(credentials={"api_key": "sk-canary-${REST}"})
    config = load_config(source, env={"REST": "x"})
    assert config.masked()["providers"]["mine"]["credentials"]["api_key"] == "***"
    source = _mine(credentials={"api_key": "${REST:-canary}"})
    assert (
        load_config(source, env={}).masked()["providers"]["mine"]["credentials"]["api_key"] == "***"
    )


@pytest.mark.parametrize(
    "source",
    [
        _mine(credentials="canary-in-the-wrong-place"),
        _mine(credentials={"api_key": ["canary"]}),
        _mine(headers={"x-a": {"canary": "canary"}}),
        _mine(headers="canary"),
        {"security": {"auth": {"api_keys": "canary"}}},
        {"security": {"auth": {"api_keys": ["canary-canary-canary"]}}},
        {"security": {"auth": {"api_keys": [{"key": "canary", "name": "n"}]}}},
        {"state": {"backend": "valkey", "url": "http://canary@x"}},
        {"server": {"workers": "sk-canary"}},
    ],
)
def test_a_problem_never_shows_what_may_be_a_secret(source: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        load_config(source, env={})
    messages = [problem.message for problem in refused.value.problems]
    assert "canary" not in "".join(messages)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("redis://:${PW}@store:6379", "redis://:${PW}@store:6379"),
        ("redis://user:${PW}@store:6379", "redis://user:${PW}@store:6379"),
        ("redis://user:canary${PW}@store:6379", "redis://***@store:6379"),
        ("redis://user:${PW:-canary}@store:6379", "redis://***@store:6379"),
        ("redis://store:6379", "redis://store:6379"),
        ("${STORE}", "${STORE}"),
    ],
)
def test_a_url_shows_all_but_its_password(written: str, shown: str) -> None:
    env = {"PW": "canary", "STORE": "redis://u:canary@store"}
    config = load_config({"state": {"backend": "valkey", "url": written}}, env=env)
    assert config.masked()["state"]["url"] == shown
    if "***" not in shown:
        assert load_config(config.masked(), env=env).values == config.values
        assert config.warnings == ()


def test_a_header_shows_its_scheme_and_reference() -> None:
    config = load_config(_mine(headers={"x-auth": "Bearer ${T}"}), env={"T": "canary"})
    assert config.masked()["providers"]["mine"]["headers"] == {"x-auth": "Bearer ${T}"}


def test_where_names_line_and_column(env: dict[str, str]) -> None:
    config = load_config(FULL, env=env)
    assert config.where("server.listen_addr") == (str(FULL), 21, 3)
    assert config.where("providers.openai.models[1].name") == (str(FULL), 88, 9)
    assert config.where(("providers", "openai", "models", 1, "name")) == (str(FULL), 88, 9)
    assert config.where("providers.openai.timeouts.total") == config.where("providers.openai")
    assert load_config({}).where("server") == ("<mapping>", 0, 0)


def test_given_tells_the_operators_word_from_a_default(env: dict[str, str]) -> None:
    config = load_config(FULL, env=env)
    assert config.given("server.listen_addr")
    assert not config.given("server.workers")
    assert not config.given("server.listen")


def test_a_host_may_put_its_own_values_under_the_file() -> None:
    base = {"routing": {"scope": "all", "strategy": "latency"}}
    values = load_config({"routing": {"strategy": "quality"}}, env={}, base=base).values
    assert (values["routing"]["scope"], values["routing"]["strategy"]) == ("all", "quality")


def test_lenient_turns_typos_and_unknown_ids_into_warnings() -> None:
    source = {
        "budget": {"dayly_limit": 1},
        "routing": {"failover": {"fallback_chain": ["nowhere"]}},
    }
    assert _warned(source, lenient=True) == [
        "budget.dayly_limit",
        "routing.failover.fallback_chain[0]",
    ]


def test_lenient_still_refuses_wrong_values() -> None:
    with pytest.raises(ConfigInvalid, match=r"server\.workers"):
        load_config({"server": {"workers": 0, "typo": 1}}, env={}, lenient=True)


def test_problems_are_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("cache: {ttl: 1}\nserver: {workers: x}\nnode: {id: ''}\nbudget: {enabled: 1}\n")
    with pytest.raises(ConfigInvalid) as refused:
        load_config(file, env={})
    assert [problem.line for problem in refused.value.problems] == [1, 2, 3, 4]


def test_a_broken_part_does_not_hide_problems_elsewhere_nor_cause_new_ones() -> None:
    source = {
        "providers": {"openai": 5, "mine": {"type": "openai_compatible"}},
        "routing": {"default_provider": "openai", "failover": {"fallback_chain": ["openai"]}},
        "security": {"auth": {"enabled": True, "api_keys": [{"name": "a"}]}},
    }
    with pytest.raises(ConfigInvalid) as refused:
        load_config(source, env={})
    assert sorted(problem.key for problem in refused.value.problems) == [
        "providers.mine.endpoint",
        "providers.openai",
        "security.auth.api_keys[0].key",
    ]


@pytest.mark.parametrize(
    ("source", "key"),
    [
        (_mine(models=[{"name": "a", "capabilities": ["telepathy"]}]),
         "providers.mine.models[0].capabilities[0]"),
        (_mine(models=[{"name": "a", "openai_model": "b"}]), "providers.mine.models[0].openai_model"),
        (_mine(endpoint="http://10.0.0.5/v1", tls={"allow_plaintext": True}),
         "providers.mine.endpoint"),
        ({"providers": {"local": {"runtimes": ["golearn"],
          "models": [{"name": "a", "path": "x", "runtime": "golearn"}]}}},
         "providers.local.models[0].runtime"),
        ({"providers": {"local": {"models": [{"name": "a", "path": "x", "unload_after": "5m"}]}}},
         "providers.local.models[0].unload_after"),
        ({"routing": {"policies": [{"if": "request.model == 'gpt-*'", "then": "priority = 1"}]}},
         "routing.policies[0].rules[0].if"),
        ({"budget": {"daily_limit": 10, "monthly_limit": 5}}, "budget.monthly_limit"),
        ({"node": {"type": "mesh"}}, "node.type"),
        ({"security": {"cors": {"allowed_origins": ["https://a.example"]}}},
         "security.cors.allowed_origins"),
        ({"security": {"auth": {"enabled": False, "api_keys": [{"key": "k" * 16, "name": "a"}]}}},
         "security.auth.enabled"),
    ],
)  # fmt: skip
def test_what_is_odd_but_legal_is_warned_about(source: dict[str, Any], key: str) -> None:
    assert key in _warned(source)


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1:1/v1", "http://127.9.9.9", "http://[::1]:1/v1", "http://localhost:1/v1",
     "https://mine.example"],
)  # fmt: skip
def test_loopback_may_be_plain_http(endpoint: str) -> None:
    assert _warned(_mine(endpoint=endpoint)) == []


@pytest.mark.parametrize(
    "endpoint",
    ["http://mine.example", "http://10.0.0.1", "http://localhost.example", "http://127.0.0.1.nip.io",
     "http://[fe80::1]", "http://0.0.0.0"],
)  # fmt: skip
def test_other_hosts_may_not(endpoint: str) -> None:
    with pytest.raises(ConfigInvalid, match="expected https://"):
        load_config(_mine(endpoint=endpoint), env={})


def test_authentication_switches_on_with_its_keys() -> None:
    keys = [{"key": "${K}", "name": "a"}]
    config = load_config({"security": {"auth": {"api_keys": keys}}}, env={"K": "k" * 16})
    assert config.values["security"]["auth"]["enabled"] is True


@pytest.mark.parametrize("key", ["model", "openai_compatible_model"])
def test_the_upstream_id_comes_from_either_spelling(key: str) -> None:
    config = load_config(_mine(models=[{"name": "public", key: "upstream"}]), env={})
    assert config.values["providers"]["mine"]["models"][0]["model"] == "upstream"


def test_labels_may_be_bare_words() -> None:
    config = load_config(
        _mine(security={"labels": ["hipaa", {"label": "soc2", "date": "2026-01-31"}]})
    )
    assert config.values["providers"]["mine"]["security"]["labels"] == [
        {"label": "hipaa", "evidence": None, "date": None},
        {"label": "soc2", "evidence": None, "date": "2026-01-31"},
    ]


PUBLIC = {"server": {"listen_addr": "0.0.0.0:8080"}}


@pytest.mark.parametrize(
    ("source", "exposed"),
    [
        (PUBLIC, False),
        (_mine(), False),
        (PUBLIC | _mine(), True),
        (PUBLIC | _mine(enabled=False), False),
        (PUBLIC | _mine(models=[{"name": "a", "cost_per_1k_tokens": 0}]), False),
        (PUBLIC | _mine(models=[{"name": "a", "price": {"input": 0.1}}]), True),
        (PUBLIC | {"providers": {"ollama": {}}}, False),
        (PUBLIC | _mine() | {"security": {"auth": {"api_keys": [{"key": "k" * 16, "name": "a"}]}}},
         False),
    ],
)  # fmt: skip
def test_an_open_relay_is_recognised(source: dict[str, Any], exposed: bool) -> None:
    config = load_config(source, env={})
    assert (insecure_public_bind(config.values) is not None) is exposed
    assert ("server.listen_addr" in [one.key for one in config.warnings]) is exposed


def test_a_validator_reports_the_column_inside_a_text(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    rule = "{if: request.tokens < 5, then: prefer provider.a}"
    file.write_text(f"providers: {{a: {{type: ollama}}}}\nrouting:\n  policies:\n    - {rule}\n")

    def rules(values: Mapping[str, Any]) -> Iterable[Finding]:
        text = values["routing"]["policies"][0]["rules"][0]["if"]
        yield Finding(
            ("routing", "policies", 0, "rules", 0, "if"), "found <", False, text.index("<")
        )
        yield Finding(("routing",), "a warning", warning=True)

    with pytest.raises(ConfigInvalid) as refused:
        load_config(file, env={}, validators=[rules])
    [problem] = refused.value.problems
    assert (problem.line, problem.column) == (4, 12 + len("request.tokens "))


def test_a_validator_may_only_warn() -> None:
    def grumble(values: Mapping[str, Any]) -> Iterable[Finding]:
        yield Finding(("node",), "odd", warning=True)

    assert _warned({}, validators=[grumble]) == ["node"]


def test_a_configuration_of_20_providers_with_20_models_loads_fast(tmp_path: Path) -> None:
    models = [
        {"name": f"m{index}", "model": f"up/{index}", "price": {"input": 0.001, "output": 0.002}}
        for index in range(20)
    ]
    providers = {f"p{index}": _mine(models=models)["providers"]["mine"] for index in range(20)}
    file = tmp_path / "big.yaml"
    file.write_text(yaml.safe_dump(json.loads(json.dumps({"providers": providers}))))
    took = [_timed(file) for _ in range(5)]
    assert min(took) < 0.15


def _timed(file: Path) -> float:
    began = time.process_time()
    load_config(file, env={})
    return time.process_time() - began


WORDS = st.sampled_from(
    ["server", "providers", "local", "openai", "models", "name", "enabled", "mesh", "node", "peers",
     "routing", "policies", "if", "then", "else", "rules", "security", "auth", "api_keys", "key",
     "type", "${A}", "${B}", "$${", "${", "5s", "10MB", "x=y:1", "a" * 70, "\ud800", "\x00", ""]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=25,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(source=st.dictionaries(WORDS | st.sampled_from(list(schema("config")["properties"])), VALUES),
       lenient=st.booleans())  # fmt: skip
def test_any_mapping_loads_or_is_refused_in_order(source: dict[str, Any], lenient: bool) -> None:
    with contextlib.suppress(ConfigInvalid):
        config = load_config(source, env={"A": "alpha"}, lenient=lenient)
        assert isinstance(config, Config)
        assert set(config.values) >= {"server", "providers", "routing"}


YAML_TEXT = st.lists(
    st.tuples(st.integers(0, 3), WORDS, st.sampled_from([":", ": ", ": [", ": {", " -", "]", "}"]), WORDS),
    max_size=12,
)  # fmt: skip


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(rows=YAML_TEXT)
def test_any_file_loads_or_is_refused_in_order(
    rows: list[tuple[int, str, str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "fuzz.yaml"
    text = "\n".join(f"{'  ' * depth}{key}{sign}{value}" for depth, key, sign, value in rows)
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigInvalid):
        assert load_config(file, env={}).problems == ()
