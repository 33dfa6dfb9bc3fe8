"""The Standard's section 7: 7.1 and 7.3 are run, all four load with every key they state."""

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from mounts import CHAT, Client, Mount, mounted
from served import serve, until
from upstreams import Script, Seen, Upstream

from aiproxy.middleware import AIProxyMiddleware, AIProxyWSGIMiddleware
from aiproxy.middleware.config import load_config

req = pytest.mark.requirement
FOLDER = Path(__file__).parent
CASES = {row["section"]: row for row in yaml.safe_load((FOLDER / "use_cases.yaml").read_bytes())}
MINIMAL = FOLDER.parents[1] / "examples" / "config" / "minimal.yaml"
KEYS = {"OPENAI_API_KEY": "sk-not-a-key-000001", "ANTHROPIC_API_KEY": "sk-not-a-key-000002"}


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """One configuration of several; what is a mapping in two of them is merged."""
    found: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
            found[key] = merged(found[key], value) if both else value
    return found


@req("AIP-USE-005")
@pytest.mark.parametrize("section", CASES)
def test_a_fragment_loads_beside_the_minimal_configuration(section: str) -> None:
    case = CASES[section]
    minimal = yaml.safe_load(MINIMAL.read_bytes())
    given = merged(minimal, case["fragment"], case.get("beside", {}))
    loaded = load_config(given, env=KEYS)
    assert loaded.problems == ()
    values = loaded.values
    told = merged(case["fragment"], case.get("beside", {}))
    if "mesh" in told:  # the short spelling of node.mesh (T-47)
        told["node"] = merged(told.get("node", {}), {"mesh": told.pop("mesh")})
        assert [peer["id"] for peer in values["node"]["mesh"]["peers"]] == [
            peer["id"] if isinstance(peer, dict) else peer.partition("=")[0]
            for peer in told["node"]["mesh"].pop("peers")
        ]
        assert all(":" in peer["addr"] for peer in values["node"]["mesh"]["peers"])
    policies = told["routing"].pop("policies", [])
    kept = [rule for policy in values["routing"]["policies"] for rule in policy["rules"]]
    assert kept == policies
    _hold_leaves(values, told)


def _hold_leaves(values: Any, told: Any, path: str = "") -> None:
    """Every value that was stated is there, as it was stated."""
    if isinstance(told, Mapping):
        for key, inner in told.items():
            _hold_leaves(values[key], inner, f"{path}.{key}")
    elif isinstance(told, list):
        for one, other in zip(values, told, strict=True):
            _hold_leaves(one, other, path)
    else:
        wanted = KEYS.get(told[2:-1], told) if isinstance(told, str) else told
        assert values == wanted, path


# --- 7.1 -----------------------------------------------------------------------------------------

QUICK = {
    "failover": {"same_provider_retries": 0},
    "health": {"probe_after": "200ms", "probe_max": "400ms"},
}


def asks(client: Client, times: int, model: str = "shared") -> list[Any]:
    return [client.chat((), model=model, max_tokens=16) for _ in range(times)]


def texts(answers: list[Any]) -> set[str]:
    assert {got.status for got in answers} == {200}
    return {got.json["choices"][0]["message"]["content"] for got in answers}


def at_home(kind: str, config: Any) -> tuple[Upstream, Any]:
    """A mount around an application that is the provider of type local, and its script."""
    local = Upstream("home")

    def threaded(environ: Any, start_response: Any) -> list[bytes]:
        body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        script, seen = local.script, Seen(environ["PATH_INFO"], {}, body, 0.0)
        reply = local._error(script) if script.status >= 400 else local._reply(seen, script)
        start_response(f"{script.status} Told", [("content-type", "application/json")])
        return [json.dumps(reply).encode()]

    if kind == "asgi":
        return local, AIProxyMiddleware(local._app, config)
    return local, AIProxyWSGIMiddleware(threaded, config)


@req("AIP-USE-001")
def test_7_1_the_local_model_alone_and_the_cloud_only_while_it_is_down(
    server: Any, fakes: Any
) -> None:
    config = fakes.config(
        {"cloud": {"upstream": "a", "models": [{"name": "shared", "cost_per_1k_tokens": 0.002}]}}
    )
    config["providers"]["local"] = {"type": "local", "models": [{"name": "shared", "path": "m"}]}
    config["routing"] = {**QUICK, "scope": "all", **CASES["7.1"]["fragment"]["routing"]}
    local, app = at_home(server.kind, config)
    with mounted(server, config, app=app) as served:
        assert isinstance(served, Mount)
        assert texts(asks(served, 100)) == {"served by home"}
        assert fakes.called() == {}
        local.script = Script(status=503)
        assert texts(asks(served, 5)) == {"served by a"}
        local.script = Script()
        until(lambda: texts(asks(served, 1)) == {"served by home"})
        asked = len(fakes.a.seen)
        assert texts(asks(served, 20)) == {"served by home"}
        assert len(fakes.a.seen) == asked


@req("AIP-USE-001")
def test_7_1_through_the_server_with_a_model_server_that_goes_and_comes(
    fakes: Any, tmp_path: Path
) -> None:
    with Upstream("near") as near:
        config = fakes.config(
            {
                "cloud": {
                    "upstream": "a",
                    "models": [{"name": "shared", "cost_per_1k_tokens": 0.002}],
                }
            }
        )
        config["providers"]["near"] = {
            "type": "openai_compatible",
            "local": True,
            "endpoint": near.url,
            "models": [{"name": "shared", "cost_per_1k_tokens": 0.0}],
        }
        config["routing"] = {**QUICK, **CASES["7.1"]["fragment"]["routing"]}
        with serve(tmp_path, config) as server:
            assert texts(asks(server, 100)) == {"served by near"}
            assert fakes.called() == {}
            near.stop()
            assert texts(asks(server, 5)) == {"served by a"}
            near.start()
            until(lambda: texts(asks(server, 1)) == {"served by near"})
            asked = len(fakes.a.seen)
            assert texts(asks(server, 20)) == {"served by near"}
            assert len(fakes.a.seen) == asked


# --- 7.3 -----------------------------------------------------------------------------------------


@req("AIP-USE-003", "AIP-BUDGET-007", "AIP-BUDGET-008")
def test_7_3_free_models_until_the_end_and_nothing_paid_from_90_percent_on(
    fakes: Any, tmp_path: Path
) -> None:
    """A paid answer is one dollar: nine are 90 % of ten dollars, and there is no tenth."""
    dollar = {"prompt_tokens": 500, "completion_tokens": 500, "total_tokens": 1000}
    fakes.b.script = fakes.c.script = Script(usage=dollar)
    both = {"name": "shared", "cost_per_1k_tokens": 0}
    config = fakes.config(
        {
            "local": {"upstream": "a", "local": True, "models": [both]},
            "cloudflare": {"upstream": "d", "models": [both]},
            "cheap": {
                "upstream": "b",
                "models": [{**both, "cost_per_1k_tokens": 1.0}, {"name": "paid", "cost_per_1k_tokens": 1.0}],
            },
            "dear": {"upstream": "c", "models": [{"name": "paid", "cost_per_1k_tokens": 5.0}]},
        }
    )  # fmt: skip
    fragment = CASES["7.3"]["fragment"]
    config["budget"] = {**fragment["budget"], "cost_db": f"sqlite:///{tmp_path}/costs.db"}
    config["routing"] = {**QUICK, **fragment["routing"]}
    with serve(tmp_path, config) as server:
        assert texts(asks(server, 10)) <= {"served by a", "served by d"}
        answers = [server.chat((), model="paid", max_tokens=1000) for _ in range(12)]
        assert [got.status for got in answers] == [200] * 9 + [429] * 3
        assert texts(answers[:9]) == {"served by b"}
        assert answers[9].error["code"] == "budget_exceeded"
        assert texts(asks(server, 10)) <= {"served by a", "served by d"}
        fakes.a.script = fakes.d.script = Script(status=503)
        # even when no free one is up: nothing paid
        assert (
            server.post(
                CHAT, {"model": "shared", "messages": [{"role": "user", "content": "x"}]}
            ).status
            >= 429
        )
        assert (len(fakes.b.seen), len(fakes.c.seen)) == (9, 0)
        alerts = [x["event"] for x in server.lines if x.get("event", "").startswith("budget: ")]
        assert len(alerts) == 1
        assert "90 %" in alerts[0]
        assert server.stop() == 0
    database = sqlite3.connect(tmp_path / "costs.db")
    [(spent,)] = database.execute("SELECT sum(amount) FROM spent")
    database.close()
    assert spent == 9 * 10**12
