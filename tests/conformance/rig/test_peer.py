"""A fake peer answers what the Standard says of a node, and serves what is forwarded to it."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
import yaml

from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Actor, Fake, Fleet, World, cast
from aiproxy.conformance.rig.peers import PEER, address, listener_of
from aiproxy.conformance.rig.rendering import aiproxy_yaml
from aiproxy.conformance.rig.upstreams import Upstreams
from aiproxy.spec import validate

NONCE = "ref-abcdefghijkm"


@pytest.fixture(name="played")
def fixture_played() -> Any:
    fleet = Fleet({"peer": Fake(dialect=PEER, priority=7), "local": Fake(priority=1)})
    with Upstreams() as upstreams:
        own = cast(fleet, "a.scenario", 1)
        yield upstreams, upstreams.open(own.actors.values()), own


def asked(actor: Actor, path: str, body: Any) -> httpx.Response:
    return httpx.post(f"http://{address(actor)}{path}", json=body, trust_env=False)


def chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": f"Say ok. ({NONCE})"}]}


def test_a_peer_shows_its_status_and_takes_any_message(played: Any):
    _, actors, own = played
    peer = actors[own["peer"].id]
    url = f"http://{address(peer)}/aiproxy/mesh/status"
    status = httpx.get(url, trust_env=False).json()
    validate(status, "responses/mesh-status")
    assert status["node"]["id"] == peer.id
    assert asked(peer, "/aiproxy/mesh/heartbeat", {"node": "x"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "envelope"),
    [
        ("/v1/chat/completions", lambda body: body),
        ("/aiproxy/mesh/forward", lambda body: {"hops": 1, "request": {"body": body}}),
        ("/aiproxy/mesh/forward", lambda body: {"body": json.dumps(body)}),
    ],
)
def test_a_forward_is_served_wherever_it_stands(played: Any, path: str, envelope: Any):
    upstreams, actors, own = played
    peer = actors[own["peer"].id]
    answer = asked(peer, path, envelope(chat(peer.model)))
    text = answer.json()["choices"][0]["message"]["content"]
    assert upstreams.origin(text, NONCE, [peer.id]) == peer.id
    assert [attempt.path for attempt in upstreams.attempts(NONCE)] == [path]


def test_a_prediction_is_served_and_an_unknown_model_is_not(played: Any):
    upstreams, actors, own = played
    peer = actors[own["peer"].id]
    answer = asked(peer, "/aiproxy/predict", {"model": peer.model, "input": NONCE}).json()
    validate(answer, "responses/predict")
    assert upstreams.origin(answer["output"], NONCE, [peer.id]) == peer.id
    assert asked(peer, "/v1/chat/completions", chat("other")).status_code == 404


def test_a_peer_is_scripted_like_any_other(played: Any):
    upstreams, actors, own = played
    peer = actors[own["peer"].id]
    upstreams.script(NONCE, peer.id, [Act(status=503)])
    assert asked(peer, "/v1/chat/completions", chat(peer.model)).status_code == 503
    assert asked(peer, "/v1/chat/completions", chat(peer.model)).status_code == 200


def test_a_configuration_names_peers_in_the_mesh_and_nowhere_else(played: Any):
    _, actors, own = played
    opened = {role: actors[actor.id] for role, actor in own.actors.items()}
    casts = {"a.scenario": replace(own, actors=opened)}
    world = World("mesh", {"node": {"mesh": {"secret": "a shared one"}}})
    config = yaml.safe_load(aiproxy_yaml(world, casts, opened["local"], 18080))
    peer = actors[own["peer"].id]
    mesh = config["node"]["mesh"]
    assert mesh["peers"] == [{"id": peer.id, "addr": address(peer), "priority": 7}]
    assert mesh["enabled"] is True
    assert mesh["listen_addr"] == listener_of("http://127.0.0.1:18080") != ""
    assert peer.id not in config["providers"]
