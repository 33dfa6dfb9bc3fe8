"""``aiproxy explain`` and the running server decide alike."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from mounts import CHAT, HELLO, RESPONSES
from served import pair_config, serve, write_config
from upstreams import Script

from aiproxy.reference_server.explaining import explain_request

LONG = [{"role": "user", "content": "word " * 3000}]
CODE = [{"role": "user", "content": "Write a Python function that sorts a list, with tests."}]
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "explicit": (CHAT, {"model": "shared", "messages": HELLO}),
    "auto": (CHAT, {"model": "auto", "messages": HELLO}),
    "auto-code": (CHAT, {"model": "auto", "messages": CODE, "max_tokens": "auto"}),
    "long": (CHAT, {"model": "auto", "messages": LONG}),
    "only-b": (CHAT, {"model": "only-b", "messages": HELLO}),
    "draft": (RESPONSES, {"model": "auto", "messages": HELLO}),
    "responses": (RESPONSES, {"model": "auto", "input": "Hello"}),
    "native-only": (RESPONSES, {"model": "shared", "input": "Hello", "previous_response_id": "r"}),
    "embeddings": ("/v1/embeddings", {"model": "vectors", "input": "Hello"}),
    "wrong-kind": ("/v1/embeddings", {"model": "only-b", "input": "Hello"}),
    "unknown": (CHAT, {"model": "no-such", "messages": HELLO}),
    "malformed": (CHAT, {"model": "auto", "messages": [{"role": "wizard"}]}),
}
HEADERS: dict[str, tuple[tuple[str, str], ...]] = {
    "none": (),
    "on": (("X-AI-Multi-Provider", "enabled"),),
    "pool": (("X-AI-Provider-Pool", "b, nobody"),),
    "foreign-pool": (("X-AI-Provider-Pool", "nobody"),),
    "quality": (("X-AI-Quality-Threshold", "0.85"),),
    "cost": (("X-AI-Cost-Limit", "0.005"),),
    "free": (("X-AI-Cost-Limit", "0"),),
    "by-quality": (("X-AI-Routing-Strategy", "quality"),),
    "by-cost": (("X-AI-Routing-Strategy", "cost"), ("X-AI-Task-Hint", "coding")),
    "latency": (("X-AI-Max-Latency", "60000"),),
    "label": (("X-AI-Security-Requirements", "hipaa"),),
    "bad": (("X-AI-Cost-Limit", "much"),),
    "off": (("X-AI-Multi-Provider", "disabled"), ("X-AI-Routing-Strategy", "quality")),
}
CASES = list(itertools.product(BODIES, HEADERS))
#: What a request would get, by the record; times and ids differ from one record to the next.
COMPARED = ("requested", "mode", "auto", "task", "strategy", "strategy_source", "constraints")


@pytest.fixture(scope="module")
def asked(upstreams: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every case's answer's record, of a server of its own: nothing else moves its statistics."""
    a, b = upstreams
    a.script, b.script = Script(), Script()
    folder = tmp_path_factory.mktemp("explain")
    config = pair_config(a, b)
    found = {}
    with serve(folder, config) as server:
        for body, headers in CASES:
            path, document = BODIES[body]
            got = server.post(path, document, HEADERS[headers])
            identity = got.header("x-request-id")
            record = server.get(f"/v1/routing/decisions/{identity}").json
            found[body, headers] = (got.status, record)
    return write_config(folder, config), found


@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("body", BODIES)
def test_explain_agrees_with_the_server(asked: Any, body: str, headers: str) -> None:
    file, found = asked
    status, record = found[body, headers]
    path, document = BODIES[body]
    lines = [f"{name}: {value}" for name, value in HEADERS[headers]]
    told = explain_request(str(file), lines, path, json.dumps(document).encode())
    assert told["attempts"] == []
    assert told["error"] == record["error"]
    if record["error"]:
        assert told["error"]["status"] == status
    for name in COMPARED:
        assert told[name] == record[name], name
    chosen = [
        r["selected"] and (r["selected"]["provider"], r["selected"]["model"])
        for r in (told, record)
    ]
    assert chosen[0] == chosen[1]
    eligible = [
        {(c["provider"], c["model"], c["reason"]) for c in r["candidates"] if not c["eligible"]}
        for r in (told, record)
    ]
    assert eligible[0] == eligible[1]


def test_the_grid_holds_answers_and_refusals_of_both_providers(asked: Any) -> None:
    _, found = asked
    chosen = {record["selected"] and record["selected"]["provider"] for _, record in found.values()}
    statuses = {status for status, _ in found.values()}
    assert {"a", "b", None} <= chosen
    assert {200, 400, 404, 422} <= statuses


def test_the_command_prints_what_the_function_returns(asked: Any, tmp_path: Path) -> None:
    from served import run

    file, found = asked
    path, document = BODIES["auto"]
    done = run(
        "explain",
        "--json",
        "--config",
        str(file),
        "--endpoint",
        path,
        "--header",
        "X-AI-Quality-Threshold: 0.85",
        "-",
        stdin=json.dumps(document).encode(),
    )
    assert (
        json.loads(done.stdout)["selected"]["provider"]
        == (found["auto", "quality"][1]["selected"]["provider"])
    )
