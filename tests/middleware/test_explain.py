"""``Exchange.explain`` says what the mount then does, and calls nobody."""

import json

import pytest
from mounts import CHAT, DEAR, HELLO, RESPONSES, model

from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.gateway import Inbound

KINDS = {
    CHAT: "chat",
    RESPONSES: "responses",
    "/aiproxy/predict": "predict",
    "/v1/embeddings": "embeddings",
}

GRID = [
    ({}, CHAT, {}),
    ({}, CHAT, {"model": "only-b"}),
    ({"X-AI-Multi-Provider": "enabled"}, CHAT, {}),
    ({"X-AI-Multi-Provider": "disabled"}, CHAT, {"tools": "auto"}),
    ({"X-AI-Multi-Provider": "disabled", "X-AI-Task-Hint": "coding"}, RESPONSES, {}),
    ({"X-AI-Routing-Strategy": "cost"}, CHAT, {}),
    ({"X-AI-Routing-Strategy": "quality"}, CHAT, {}),
    ({"X-AI-Routing-Strategy": "latency"}, RESPONSES, {}),
    ({"X-AI-Routing-Strategy": "balanced"}, CHAT, {"stream": True}),
    ({"X-AI-Routing-Strategy": "capability-first", "X-AI-Task-Hint": "coding"}, CHAT, {}),
    ({"X-AI-Task-Hint": "coding"}, CHAT, {}),
    ({"X-AI-Task-Hint": "origami"}, CHAT, {}),
    ({"X-AI-Task-Hint": "coding"}, CHAT, {"model": "shared"}),
    ({"X-AI-Provider-Pool": "b,nosuch"}, CHAT, {}),
    ({"X-AI-Provider-Pool": "nosuch"}, CHAT, {}),
    ({"X-AI-Provider-Pool": "b"}, CHAT, {"model": "only-a"}),
    ({"X-AI-Quality-Threshold": "0.85"}, CHAT, {}),
    ({"X-AI-Quality-Threshold": "0.99"}, CHAT, {}),
    ({"X-AI-Quality-Threshold": "0.99"}, CHAT, {"model": "shared"}),
    ({"X-AI-Quality-Threshold": "2"}, CHAT, {}),
    ({"X-AI-Cost-Limit": "0.002"}, CHAT, {"max_tokens": 100}),
    ({"X-AI-Cost-Limit": "0"}, CHAT, {}),
    ({"X-AI-Max-Latency": "100"}, CHAT, {}),
    ({"X-AI-Max-Latency": "1"}, CHAT, {}),
    ({"X-AI-Security-Requirements": "hipaa"}, CHAT, {}),
    ({"X-AI-Security-Requirements": "nosuch"}, CHAT, {}),
    ({"X-AI-Data-Classification": "nosuch"}, CHAT, {}),
    ({"X-AI-Reasoning-Preference": "native"}, CHAT, {"reasoning": "auto"}),
    ({"X-AI-Tool-Categories": "web-search"}, CHAT, {"tools": "auto"}),
    ({"X-AI-Merge-Branches": "x,y"}, CHAT, {}),
    ({}, "/aiproxy/predict", {"input": "x", "model": "shared", "routing": {"strategy": "quality"}}),
    ({}, "/aiproxy/predict", {"input": "x", "model": "shared", "routing": {"max_cost": 0}}),
    ({}, "/v1/embeddings", {"input": "x", "model": "only-a"}),
    ({}, CHAT, {"model": "nosuch"}),
    ({}, CHAT, {"messages": []}),
    ({"X-AI-Multi-Provider": "enabled"}, RESPONSES, {"messages": None, "input": "x"}),
]


@pytest.mark.parametrize("number", range(len(GRID)), ids=lambda n: str(GRID[n])[:70])
def test_the_explanation_is_what_happens(asgi_server, fakes, number):
    from mounts import mounted

    headers, path, members = GRID[number]
    providers = {
        "a": [
            model("shared", cost_per_1k_tokens=DEAR, quality=0.9, latency_prior="50ms"),
            model("only-a", reasoning="native", quality={"coding": 0.7}),
        ],
        "b": {
            "security": {"labels": [{"label": "hipaa"}]},
            "models": [
                model("shared", latency_prior="400ms", quality=0.6),
                model("only-b", capabilities=["code-generation"], tools={"web-search": "x"}),
            ],
        },
    }
    config = fakes.config(providers, routing={"scope": "all"})
    hosted = {"name": "hosted", "capabilities": ["embeddings"]}  # never a choice for a chat
    config["providers"]["host"] = {"type": "app", "models": [hosted]}
    body = {"model": "auto", "messages": HELLO, **members}
    if path in ("/aiproxy/predict", "/v1/embeddings"):
        del body["messages"]
    body = {name: value for name, value in body.items() if value is not None}
    with mounted(asgi_server, config) as served:
        lowered = tuple((name.lower(), value) for name, value in headers.items())
        raw = json.dumps(body).encode()
        told = Exchange(served.gateway, Inbound(path, KINDS[path], lowered, raw)).explain().record()
        assert fakes.called() == {}
        assert served.host == []
        got = served.post(path, body, headers)
        did = served.record(got)
    assert told["attempts"] == []
    for member in (
        "requested", "mode", "task", "task_basis", "strategy", "strategy_source", "constraints", "ignored", "error"
    ):  # fmt: skip
        assert told[member] == did[member], member
    if got.status == 200:
        chosen = ("provider", "model", "confidence", "reason")
        assert [told["selected"][k] for k in chosen] == [did["selected"][k] for k in chosen]
        assert did["attempts"][0]["provider"] == told["selected"]["provider"]
        assert fakes.called() == {told["selected"]["provider"]: 1}
    else:
        assert told["error"]["code"] == got.error["code"]
        assert told["selected"] is None

    def reasons(record):
        return {
            (c["provider"], c["model"]): (c["eligible"], c["reason"]) for c in record["candidates"]
        }

    assert reasons(told) == reasons(did)
    if got.status == 422 and told["error"]["param"] != "X-AI-Security-Requirements":
        rejected = [row for row in told["candidates"] if not row["eligible"]]
        known_before_planning = {"X-AI-Data-Classification", "X-AI-Provider-Pool"}
        assert rejected or told["error"]["param"] in known_before_planning
