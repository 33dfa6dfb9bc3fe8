"""The steps of an ensemble's request, without IO: plan, execute, aggregate, validate, tell."""

import json
from typing import Any

import pytest

from aiproxy.middleware.effects import Answer, Call, Fork, Reply
from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.gateway import Gateway, Inbound

req = pytest.mark.requirement


def gateway(**ensemble: Any) -> Gateway:
    providers = {
        name: {
            "type": "openai_compatible",
            "endpoint": f"http://127.0.0.1:1/{name}",
            "models": [{"name": f"m-{name}", "cost_per_1k_tokens": 0.001}],
        }
        for name in "abc"
    }
    members = [{"model": f"m-{name}"} for name in "abc"]
    routing = {"scope": "all", "ensembles": {"e": {"members": members, **ensemble}}}
    return Gateway({"providers": providers, "routing": routing}, wrapped_app=False)


def asked(shape: bool = False) -> Inbound:
    body: dict[str, Any] = {
        "model": "ensemble/e",
        "messages": [{"role": "user", "content": "Hello"}],
    }
    if shape:
        body["response_format"] = {"type": "json_object"}
    return Inbound("/v1/chat/completions", "chat", (), json.dumps(body).encode())


def said(text: str) -> Answer:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "x"}
    return Answer(200, (), json.dumps({**body, "choices": [choice], "usage": usage}).encode())


@req("UNI-API-013", "UNI-ENS-010")
def test_an_ensemble_plans_executes_validates_and_aggregates() -> None:
    """Every member is planned before any is called; an invalid answer is no vote."""
    exchange = Exchange(gateway(method="voting"), asked(shape=True))
    flow = exchange.run()
    fork = next(flow)
    assert isinstance(fork, Fork)
    panel = exchange.decision.ensemble
    assert panel is not None
    assert [seat.state for seat in panel.seats] == ["planned"] * 3
    assert panel.worst() is not None
    assert panel.verdict is None
    calls = [next(branch) for branch in fork.branches]
    assert [call.provider for call in calls if isinstance(call, Call)] == ["a", "b", "c"]
    for branch, ending, text in zip(
        fork.branches, fork.endings, ('{"a": 1}', "no json", '{"a":1.0}'), strict=True
    ):
        with pytest.raises(StopIteration) as over:
            branch.send(said(text))
        ending.state, ending.value = "done", over.value.value
    assert panel.verdict is None  # nothing is compared before all is there
    with pytest.raises(StopIteration) as done:
        flow.send(fork.endings)
    reply = done.value.value
    assert isinstance(reply, Reply)
    assert reply.status == 200
    assert [seat.state for seat in panel.seats] == ["ok", "invalid", "ok"]
    assert panel.verdict is not None
    assert panel.verdict.agreement == 1.0
    assert json.loads(reply.body)["usage"]["total_tokens"] == 6


def test_enough_is_known_as_soon_as_it_is() -> None:
    """A quorum of two cannot be reached any more after two failures."""
    exchange = Exchange(gateway(quorum=2), asked())
    fork = next(exchange.run())
    assert isinstance(fork, Fork)
    assert not fork.enough(fork.endings)
    for ending in fork.endings[:2]:
        ending.state, ending.value = "done", False
    assert fork.enough(fork.endings)
    fork.endings[0].value = True
    assert not fork.enough(fork.endings)
    fork.endings[2].state, fork.endings[2].value = "done", True
    assert fork.enough(fork.endings)


def test_nothing_of_an_answer_stays_in_memory_with_the_record() -> None:
    exchange = Exchange(gateway(method="cascade"), asked())
    flow = exchange.run()
    fork = next(flow)
    assert isinstance(fork, Fork)
    next(fork.branches[0])
    with pytest.raises(StopIteration) as over:
        fork.branches[0].send(said("a secret answer"))
    fork.endings[0].state, fork.endings[0].value = "done", over.value.value
    with pytest.raises(StopIteration):
        flow.send(fork.endings)
    panel = exchange.decision.ensemble
    assert panel is not None
    assert all(seat.given is seat.reply is seat.serving is None for seat in panel.seats)
    assert "secret" not in repr(panel)
