"""``aiproxy simulate``: what it prints, what it exits with, and that it repeats itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from scenes import scene

from aiproxy.reference_server.cli.commands import aiproxy
from aiproxy.reference_server.simulate import plotting

SCENARIOS = Path(__file__).parents[2] / "examples" / "scenarios"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(aiproxy, ["simulate", *map(str, arguments)])


@pytest.fixture
def outage(tmp_path: Path) -> Path:
    """A provider that fails for a while, so that there is something to see in every table."""
    errors = [{"from": "2s", "to": "5s", "status": 503}]
    health = {"min_samples": 3, "window": "2s", "probe_after": "500ms"}
    routing = {"health": health, "failover": {"max_retries": 0}}
    document = scene(1, {"a": {"errors": errors}}, routing=routing, expect={"share": {"a": 1}})
    file = tmp_path / "outage.json"
    file.write_text(json.dumps(document))
    return file


def test_tables_tell_shares_costs_percentiles_circuits_and_what_was_expected(outage: Path) -> None:
    done = run(outage)
    assert done.exit_code == 0, done.output
    for word in ("outage, seed 1: 100 requests", "p95 ms", "cost USD", "not answered",
                 "a/m", "half_open", "share a", "requests a second"):  # fmt: skip
        assert word in done.output, word


def test_json_is_the_result(outage: Path) -> None:
    done = run(outage, "--json", "--seed", 4)
    told = json.loads(done.output)
    assert told["seed"] == 4
    assert told["requests"] == 100
    assert sum(told["share"].values()) == pytest.approx(1)
    assert {"at_s", "name", "from", "to", "why"} == set(told["breakers"][0])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_in_every_process(outage: Path) -> None:
    told = set()
    for hashing in ("0", "1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", "from aiproxy.reference_server.cli import main; main()",
             "simulate", str(outage), "--json"],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONHASHSEED": hashing},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        told.add(done.stdout)
    assert len(told) == 1
    assert run(outage, "--json", "--seed", 2).output.encode() not in told


def test_what_does_not_hold_exits_1_and_is_marked(tmp_path: Path) -> None:
    file = tmp_path / "scene.json"
    expect = {"errors": 0, "share": {"a": "< 10%"}, "p95_ms": "< 900", "breaker_opened": ["a"]}
    file.write_text(json.dumps(scene(2, expect=expect)))
    done = run(file)
    assert done.exit_code == 1
    lines = [line.split() for line in done.output.splitlines()]
    verdicts = {line[0]: line[-1] for line in lines if line and line[-1] in ("yes", "NO")}
    assert verdicts == {"errors": "yes", "share": "NO", "p95_ms": "yes", "breaker_opened": "NO"}
    told = json.loads(run(file, "--json").output)
    assert told["ok"] is False
    assert [c["what"] for c in told["checks"] if not c["ok"]] == ["share a", "breaker_opened a"]


def test_expectations_of_kinds_and_stretches(tmp_path: Path) -> None:
    document = scene(
        1,
        {"a": {"outages": [{"from": "5s"}]}},
        expect={
            "errors": "> 0",
            "statuses": {"200": 50},
            "calls": {"a": ">= 50"},
            "windows": [{"to": "5s", "errors": 0, "requests": 50}, {"from": "5s", "errors": 1}],
            "requests_by_name": {"kind0": {"requests": 100, "p50_ms": "== 100"}},
        },
    )
    document["config"]["routing"] = {"failover": {"max_retries": 0}}
    file = tmp_path / "scene.json"
    file.write_text(json.dumps(document))
    done = run(file)
    told = json.loads(run(file, "--json").output)
    assert [check for check in told["checks"] if not check["ok"]] == []
    assert done.exit_code == 0


def test_a_bad_scenario_exits_2_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("config: {}\ntraffic: {phases: [{for: 1s, rate: -1}]}\n")
    done = run(file)
    assert done.exit_code == 2
    assert f"{file}:2: traffic.phases[0].rate: found -1 (a number), expected" in done.output
    assert run(tmp_path / "none.yaml").exit_code == 2


def test_another_configuration_for_the_same_traffic(tmp_path: Path) -> None:
    document: Any = scene(2)
    file, other = tmp_path / "scene.json", tmp_path / "other.json"
    file.write_text(json.dumps(document))
    document["config"]["providers"]["a"]["priority"] = 9
    other.write_text(json.dumps(document["config"]))
    assert json.loads(run(file, "--json").output)["share"] == {"a": 1.0}
    assert json.loads(run(file, "--json", "--config", other).output)["share"] == {"b": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["png", "svg"])
def test_a_picture(form: str, outage: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / f"run.{form}"
    done = run(outage, "--plot", file)
    assert done.exit_code == 0, done.output
    drawn = file.read_bytes()
    assert drawn[:5] in (b"\x89PNG\r", b"<?xml")
    run(outage, "--plot", file)
    assert file.read_bytes() == drawn, "the same run gives the same picture"


def test_a_picture_of_another_kind_or_without_matplotlib_is_refused(
    outage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(outage, "--plot", tmp_path / "run.txt")
    assert done.exit_code == 2
    assert "expected a name that ends in .png" in done.output
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run(outage, "--plot", tmp_path / "run.png")
    assert done.exit_code == 2
    assert "pip install 'aiproxy[simulate]'" in done.output


def test_simulating_loads_no_matplotlib_and_no_http_client() -> None:
    code = (
        "import sys, aiproxy.reference_server.simulate;"
        "print([m for m in ('matplotlib', 'rich', 'aiohttp', 'uvicorn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert plotting.__name__ in sys.modules


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(SCENARIOS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_published_scenarios_hold(file: Path) -> None:
    done = run(file, "--json")
    told = json.loads(done.output)
    assert [check for check in told["checks"] if not check["ok"]] == []
    assert told["checks"]
    assert done.exit_code == 0
