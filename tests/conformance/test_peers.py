"""Other gateways: how their configuration is written, and how it reaches them."""

import json
import os
import shlex
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import jsonschema
import pytest
import yaml
from ports import free_base

from aiproxy.conformance import Options, Status, cli_main, run
from aiproxy.conformance.planning import every_scenario, plan
from aiproxy.conformance.rig.fleet import BASE, Actor, Cast, Fake, World
from aiproxy.conformance.rig.rendering import Unrenderable, headers_of, renderer, unsaid
from aiproxy.conformance.scoring import CONTROLLED, rows
from aiproxy.conformance.staging import casts_of

CHAT, EMBEDS = "AIP-API-001", "AIP-API-030"
NODE_MOST = 16 << 10
CONFIG = "x-portkey-config"
# As https://portkey.ai/docs/api-reference/inference-api/config-object has it, what we use of it.
PORTKEY_SCHEMA: dict[str, Any] = {
    "$ref": "#/$defs/config",
    "$defs": {
        "config": {
            "type": "object",
            "properties": {
                "strategy": {
                    "type": "object",
                    "properties": {
                        "mode": {"enum": ["single", "loadbalance", "fallback", "conditional"]},
                        "on_status_codes": {"type": "array", "items": {"type": "integer"}},
                        "conditions": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {
                                    "query": {"type": "object"},
                                    "then": {"type": "string"},
                                },
                                "required": ["query", "then"],
                                "additionalProperties": False,
                            },
                        },
                        "default": {"type": "string"},
                    },
                    "required": ["mode"],
                    "additionalProperties": False,
                },
                "targets": {"type": "array", "items": {"$ref": "#/$defs/config"}, "minItems": 1},
                "name": {"type": "string"},
                "provider": {
                    "enum": [
                        "openai", "anthropic", "cohere", "google", "mistral-ai", "deepseek",
                        "openrouter",
                    ]
                },
                "api_key": {"type": "string"},
                "custom_host": {"type": "string", "pattern": "^https?://"},
                "override_params": {"type": "object"},
                "weight": {"type": "number"},
                "request_timeout": {"type": "integer"},
            },
            "additionalProperties": False,
            "oneOf": [
                {"required": ["strategy", "targets"]},
                {"required": ["provider", "api_key"]},
            ],
        }
    },
}  # fmt: skip


def actors(**fakes: Fake) -> tuple[Cast, Actor]:
    """Return a cast and a default provider with names and endpoints anybody can read."""
    placed = {
        role: _actor(role, fake, f"model-of-{role}" if fake.alone else "common")
        for role, fake in fakes.items()
    }
    return Cast("a-test", "common", placed), _actor("default", Fake(), "plain")


def _actor(role: str, fake: Fake, model: str) -> Actor:
    endpoint = f"http://127.0.0.1:1/{role}/v1"
    return Actor(role, fake, role, model, f"up-{role}", f"sk-{role}", endpoint)


def litellm(world: World, **fakes: Fake) -> Any:
    own, default = actors(**fakes)
    return yaml.safe_load(renderer("litellm")(world, {"a-test": own}, default, 9000))


def portkey(world: World, **fakes: Fake) -> Any:
    own, default = actors(**fakes)
    make = headers_of("portkey")
    assert make is not None
    return json.loads(make(world, own, default)[CONFIG])


def test_a_litellm_configuration_orders_the_entries_of_a_model_by_priority():
    config = litellm(BASE, late=Fake(priority=9, price=None), soon=Fake(priority=2, price=0.004))
    by_id = {entry["model_info"]["id"]: entry for entry in config["model_list"]}
    assert by_id["soon"] == {
        "model_name": "common",
        "litellm_params": {
            "model": "openai/up-soon",
            "api_base": "http://127.0.0.1:1/soon/v1",
            "api_key": "sk-soon",
            "allowed_openai_params": ["user"],
            "input_cost_per_token": 4e-06,
            "output_cost_per_token": 4e-06,
            "order": 1,
        },
        "model_info": {"id": "soon"},
    }
    assert by_id["late"]["litellm_params"]["order"] == 2
    assert "input_cost_per_token" not in by_id["late"]["litellm_params"]
    assert by_id["default"]["model_name"] == "plain"
    assert config["router_settings"] == {
        "routing_strategy": "simple-shuffle", "num_retries": 0, "retry_after": 0,
        "enable_pre_call_checks": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "model", "base"),
    [
        ("anthropic", "anthropic/up-a", "http://127.0.0.1:1/a"),
        ("cohere", "cohere_chat/up-a", "http://127.0.0.1:1/a/v2/chat"),
        ("google", "gemini/up-a", "http://127.0.0.1:1/a/v1beta"),
        ("mistral", "mistral/up-a", "http://127.0.0.1:1/a/v1"),
    ],
)
def test_litellm_is_told_each_dialect_by_its_own_name(dialect: str, model: str, base: str):
    config = litellm(BASE, a=Fake(dialect=dialect))
    entry = next(e for e in config["model_list"] if e["model_info"]["id"] == "a")
    assert (entry["litellm_params"]["model"], entry["litellm_params"]["api_base"]) == (model, base)


def test_litellm_gets_its_own_word_for_a_strategy_that_it_has():
    dear = World("dear", {"routing": {"strategy": "cost_optimized"}})
    config = litellm(dear, a=Fake(), b=Fake())
    assert config["router_settings"]["routing_strategy"] == "cost-based-routing"
    assert all("order" not in entry["litellm_params"] for entry in config["model_list"])


def test_a_portkey_configuration_leads_each_model_to_its_providers():
    config = portkey(BASE, late=Fake(priority=9), soon=Fake(priority=2), alone=Fake(alone=True))
    jsonschema.validate(config, PORTKEY_SCHEMA)
    assert config["strategy"] == {
        "mode": "conditional",
        "conditions": [
            {"query": {"params.model": {"$eq": name}}, "then": name}
            for name in ("common", "model-of-alone", "plain")
        ],
        "default": "default",
    }
    group, lone, plain, as_it_is = config["targets"]
    assert group["strategy"]["mode"] == "fallback"
    assert [target["override_params"]["model"] for target in group["targets"]] == [
        "up-soon", "up-late",
    ]  # fmt: skip
    assert lone == {
        "name": "model-of-alone",
        "provider": "openai",
        "api_key": "sk-alone",
        "custom_host": "http://127.0.0.1:1/alone/v1",
        "override_params": {"model": "up-alone"},
    }
    assert plain["name"] == "plain"
    assert as_it_is == {
        "name": "default",
        "provider": "openai",
        "api_key": "sk-default",
        "custom_host": "http://127.0.0.1:1/default/v1",
    }


def test_portkey_draws_lots_by_weight():
    balancing = {"enabled": True, "strategy": "weighted"}
    world = World("w", {"routing": {"strategy": "availability", "load_balancing": balancing}})
    config = portkey(world, a=Fake(provider={"weight": 3}), b=Fake(provider={"weight": 1}))
    jsonschema.validate(config, PORTKEY_SCHEMA)
    assert config["targets"][0]["strategy"] == {"mode": "loadbalance"}
    assert [target["weight"] for target in config["targets"][0]["targets"]] == [3, 1]


def test_every_scenario_fits_into_a_request_head_of_nodejs():
    make = headers_of("portkey")
    assert make is not None
    seen = 0
    for world in plan(rows(3, CONTROLLED), CONTROLLED).worlds.values():
        casts, default = casts_of(world, every_scenario(world, CONTROLLED), 7)
        default = replace(default, endpoint="http://127.0.0.1:65535/v1")
        for own in (*casts.values(), Cast("none", default.model, {})):
            long = {
                r: replace(a, endpoint="http://127.0.0.1:65535/v1") for r, a in own.actors.items()
            }
            try:
                fields = make(world, replace(own, actors=long), default)
            except Unrenderable:
                continue
            jsonschema.validate(json.loads(fields[CONFIG]), PORTKEY_SCHEMA)
            assert len(fields[CONFIG]) < NODE_MOST - 2048, own.scenario
            seen += 1
    assert seen > 100


@pytest.mark.parametrize("name", ["litellm", "portkey"])
def test_a_world_nobody_has_words_for_is_not_rendered(name: str):
    own, default = actors(a=Fake())
    world = World("strict", {"routing": {"policies": [{"name": "p"}]}})
    with pytest.raises(Unrenderable, match="cannot say"):
        renderer(name)(world, {"a-test": own}, default, 9000)


@pytest.mark.parametrize(
    ("name", "fake", "says"),
    [
        ("litellm", Fake(), ""),
        ("litellm", Fake(provider={"type": "mistral", "timeouts": {"first_byte": "1s"}}), ""),
        ("litellm", Fake(provider={"max_connections": 3}), "no words for max_connections"),
        ("portkey", Fake(dialect="cloudflare"), "no words for cloudflare"),
        ("portkey", Fake(provider={"headers": {"x": "y"}}), "no words for headers"),
        ("portkey", Fake(reach="no-such-host"), "no words for a host that does not exist"),
        ("aiproxy", Fake(provider={"max_connections": 3}), ""),
    ],
)
def test_what_a_target_has_no_words_for_is_told(name: str, fake: Fake, says: str):
    own, _ = actors(a=fake)
    told = unsaid(name, own)
    assert told.endswith(says)
    assert bool(told) == bool(says)


class Listener(ThreadingHTTPServer):
    """A gateway that refuses everything and remembers how it was configured."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Refusal)
        self.heard: list[tuple[str, str]] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class Refusal(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Listener

    def log_message(self, *words: object) -> None:
        """Silence."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.heard.append((self.path, self.headers.get(CONFIG, "")))
        self.send_response(503)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST = answer


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as server:
        yield server


def test_requests_carry_the_providers_of_their_scenario_alone(
    listener: Listener, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A manifest that ``init`` wrote is enough; the file beside it is for people."""
    words = ["init", "--for", "portkey", "--dir", str(tmp_path), "--port-base", str(free_base())]
    assert cli_main([*words, "--seed", "5"]) == 0
    assert "@portkey-ai/gateway" in capsys.readouterr().out
    for file in tmp_path.glob("portkey-*.json"):
        jsonschema.validate(json.loads(file.read_text()), PORTKEY_SCHEMA)
    manifest = tmp_path / "aiproxy-target.yaml"
    told = yaml.safe_load(manifest.read_text())
    assert told["config_for"] == "portkey"
    url = f"http://127.0.0.1:{listener.server_address[1]}"
    manifest.write_text(yaml.safe_dump({**told, "worlds": dict.fromkeys(told["worlds"], url)}))
    assert cli_main(["--manifest", str(manifest), "--check", CHAT, "--check", EMBEDS]) == 1
    assert listener.heard
    for path, field in listener.heard:
        config = json.loads(field)
        jsonschema.validate(config, PORTKEY_SCHEMA)
        assert len(config["targets"]) <= 5, path


def test_a_command_without_a_configuration_is_controlled_when_requests_carry_it():
    assert Options(launch="gateway --port {port}", config_for="portkey").resolved_mode == CONTROLLED
    assert Options(launch="gateway --port {port}", config_for="litellm").resolved_mode == "observe"


@pytest.mark.parametrize(
    ("variable", "name", "rest"),
    [
        (
            "AIPROXY_TEST_LITELLM", "litellm",
            "--config {config} --port {port} --host 127.0.0.1 --telemetry False",
        ),
        ("AIPROXY_TEST_PORTKEY", "portkey", "--port={port} --headless"),
    ],
)  # fmt: skip
def test_a_real_peer_is_graded(
    variable: str, name: str, rest: str, monkeypatch: pytest.MonkeyPatch
):
    program = os.environ.get(variable)
    if not program:
        pytest.skip(
            f"no {name} here: {variable}='COMMAND' pytest tests/conformance/test_peers.py "
            "(see conformance/reports/README.md)"
        )
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    command = f"{shlex.join(shlex.split(program))} {rest}"
    needed = (CHAT, "XAI-STREAM-006", "XAI-COMPAT-021", "AIP-PROB-003", EMBEDS)
    options = Options(level=2, seed=7, launch=command, config_for=name, checks=needed, ready_s=180)
    report = run("", options)
    assert report.unreachable == ""
    assert {r.check: r.status for r in report.results} == dict.fromkeys(needed, Status.PASS)
