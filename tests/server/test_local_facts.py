"""What the server tells of its local models: at the start, in /readyz and in /v1/providers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import ANNA, KEYS, Served, run, serve
from tiny_models import tiny_llama

from aiproxy.middleware import load_config
from aiproxy.reference_server.onnx import devices
from aiproxy.reference_server.onnx.devices.nvidia import Gpu, Survey
from aiproxy.reference_server.starting import StartRefused, refuse_shared_gpu

MODELS = [
    {"name": "good", "path": "builtin:demo"},
    {"name": "later", "path": str(tiny_llama(paged=True)), "load": "on_demand"},
    {"name": "gone", "path": "/secret-place/model"},
    {"name": "forced", "path": "builtin:demo", "device": "cuda:63"},
]


def config(**server: Any) -> dict[str, Any]:
    return {
        "server": server,
        "providers": {"local": {"type": "local", "device": "cpu", "models": MODELS}},
        "security": {"auth": {"api_keys": [{"name": n, "key": key} for n, key in KEYS.items()]}},
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("local"), config()) as running:
        yield running


def test_the_banner_says_where_each_model_runs_or_why_not(server: Served) -> None:
    """AIP-PROV-002, AIP-CFG-049: no path is told."""
    lines = server.err.read_text().splitlines()
    assert "  * good: runs on the CPU; the configuration says cpu" in lines
    assert "  * later: runs on the CPU when first asked; the configuration says cpu" in lines
    assert "  - gone: unavailable: model is missing or cannot be read" in lines
    [forced] = [line for line in lines if line.startswith("  - forced: unavailable: ")]
    assert "cuda:63 was asked for: " in forced
    assert "secret-place" not in server.err.read_text()


def test_readiness_tells_devices_and_states_and_no_names(server: Served) -> None:
    """Without a key: no name, no reason."""
    reply = server.get("/readyz")
    assert reply.status == 200
    assert reply.json["local"] == [
        {"device": "cpu", "state": "ready"},
        {"device": "cpu", "state": "idle"},
        {"device": None, "state": "unavailable"},
        {"device": None, "state": "unavailable"},
    ]
    assert b"good" not in reply.body
    assert server.get("/healthz").json == {"status": "ok"}


def test_providers_tells_names_and_reasons_to_who_has_a_key(server: Served) -> None:
    assert server.get("/v1/providers").status == 401
    reply = server.get("/v1/providers", headers=ANNA)
    told = {one["name"]: one for one in reply.json["local_models"]}
    assert told["good"] == {
        "name": "good",
        "state": "ready",
        "device": "cpu",
        "device_name": "CPU",
        "reason": "the configuration says cpu",
    }
    assert told["gone"]["reason"] == "model is missing or cannot be read"
    assert b"secret-place" not in reply.body


def test_what_cannot_run_is_not_listed_and_not_found(server: Served) -> None:
    """AIP-CFG-046, AIP-CFG-047."""
    listed = server.get("/v1/models", headers=ANNA).json["data"]
    assert {"good", "later"} <= {model["id"] for model in listed}
    assert not {"gone", "forced"} & {model["id"] for model in listed}
    body = {"model": "gone", "messages": [{"role": "user", "content": "hi"}]}
    reply = server.post("/v1/chat/completions", body, headers=ANNA)
    assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found")


def test_a_model_on_demand_answers_its_first_request(server: Served) -> None:
    body = {
        "model": "later",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 4,
    }
    reply = server.post("/v1/chat/completions", body, headers=ANNA)
    assert reply.status == 200, reply.body
    assert reply.json["usage"]["completion_tokens"] <= 4
    assert server.get("/readyz").json["local"][1] == {"device": "cpu", "state": "ready"}


def test_several_workers_each_serve_the_local_models(tmp_path: Path) -> None:
    """Sessions and threads are of the process that uses them."""
    with serve(tmp_path, config(), "--workers", "2") as server:
        body = {"model": "good", "messages": [{"role": "user", "content": "what is aiproxy"}]}
        replies = [server.post("/v1/chat/completions", body, headers=ANNA) for _ in range(6)]
        assert {reply.status for reply in replies} == {200}
        assert server.stop() == 0


def test_several_workers_on_one_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = devices.Devices(
        lambda: Survey((Gpu(0, "H200", 2**37),), "580.1"), lambda index: None, lambda: None
    )
    monkeypatch.setattr(devices, "devices", lambda: found)

    def refused(device: str, workers: int) -> str | None:
        provider = {"type": "local", "device": device, "models": [MODELS[0]]}
        try:
            refuse_shared_gpu(load_config({"providers": {"local": provider}}), workers)
        except StartRefused as refusal:
            return str(refusal)
        return None

    for device in ("auto", "cuda", "cuda:0"):
        assert "set server.workers: 1 (or --workers 1), or device: cpu" in (
            refused(device, 2) or ""
        )
    assert [refused("auto", 1), refused("cpu", 2), refused("cuda:1", 2)] == [None, None, None]


def test_explain_reads_the_folders_and_loads_nothing(tmp_path: Path) -> None:
    file = tmp_path / "aiproxy.json"
    file.write_text(json.dumps(config()))
    body = json.dumps({"model": "good", "messages": [{"role": "user", "content": "hi"}]}).encode()
    done = run("explain", "--config", str(file), "--json", "-", stdin=body)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert [row["model"] for row in record["candidates"]] == ["good"]
    assert record["error"] is None
