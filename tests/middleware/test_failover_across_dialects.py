"""One conversation moves from OpenAI to Anthropic, to Gemini, to an OpenAI-compatible local server.

It has a system message, an image, two parallel tool calls a turn, a schema for the answer and
reasoning. At every hop the fakes of the conformance suite read the request as strictly as the
provider would, an independent reader looks whether all of it arrived, and what did not has to be
among the losses that the client was told.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Actor, Cast, Fake, Fleet, World, cast
from aiproxy.conformance.rig.rendering import configuration
from aiproxy.conformance.rig.upstreams import Upstreams

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dialects"))

from fidelity.answers import Answer, Called
from fidelity.client_readers import WHOLE, WHOLE_OF
from fidelity.features import PNG
from fidelity.provider_writers import PROVIDERS
from fidelity.reply_grid import wire_of
from fidelity.request_readers import understood
from fidelity.strict_providers import refusal

#: Role -> the dialect we speak with it.
HOPS = {"openai": "chat", "anthropic": "anthropic", "google": "gemini", "local": "chat"}
ROLES = tuple(HOPS)
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = {
    "weather": {"description": "Tells the weather", "parameters": CITY},
    "plan": {"description": "Plans a day", "parameters": CITY},
}
SHAPE = {
    "type": "object",
    "properties": {"advice": {"type": "string"}},
    "required": ["advice"],
    "additionalProperties": False,
}
SAID = '{"advice":"Take an umbrella."}'
DOWN = Act(status=503)


def calls_of(turn: int) -> tuple[Called, ...]:
    """Two parallel calls; ids are the provider's (Google gives none)."""
    return tuple(
        Called(f"call_{turn}{letter}", name, json.dumps({"city": f"{city}{turn}"}))
        for letter, name, city in (("a", "weather", "Bern"), ("b", "plan", "Rome"))
    )


def answer_of(turn: int) -> Answer:
    if turn == len(ROLES) - 1:
        return Answer("end", SAID)
    opaque = {"openai": {}, "anthropic": {"signature": "c2lnbmVk"}, "google": {}}[ROLES[turn]]
    calls = calls_of(turn)
    if ROLES[turn] == "google":
        first = Called(calls[0].id, calls[0].name, calls[0].arguments, "dGhvdWdodA")
        calls = (first, *calls[1:])
    return Answer("turn", "Let me see.", thought=f"Thought {turn}.", calls=calls,
                  finish="tool_calls", **opaque)  # fmt: skip


class Journey:
    """A conversation and the providers it meets."""

    def __init__(self, served: Any, upstreams: Upstreams, actors: dict[str, Actor], nonce: str):
        self.served, self.upstreams, self.actors, self.nonce = served, upstreams, actors, nonce

    def script(self, stream: bool) -> None:
        """Provider ``n`` answers turn ``n`` and is down ever after."""
        for turn, role in enumerate(ROLES):
            writer, answer = PROVIDERS[HOPS[role]], answer_of(turn)
            if stream:
                body = wire_of(writer.stream(answer)).decode()
                if HOPS[role] == "chat":
                    body += "data: [DONE]\n\n"
                act = Act(body=body, content_type="text/event-stream")
            else:
                act = Act(body=json.dumps(writer.whole(answer)))
            self.upstreams.script(self.nonce, self.actors[role].id, (act,), always=DOWN)

    def look(self, turn: int, losses: set[str], stream: bool) -> None:
        """What the provider of ``turn`` was sent is valid, and whole but for declared losses."""
        role = ROLES[turn]
        attempt = [
            a for a in self.upstreams.attempts(self.nonce) if a.provider == self.actors[role].id
        ][-1]
        assert attempt.status == 200, (role, attempt.json)
        sent = dict(attempt.json)
        if "model" in sent:
            sent["model"] = "m"
        assert refusal(HOPS[role], sent, stream) is None
        facts = understood(HOPS[role], sent)
        kinds = {fact[0] for fact in facts}
        assert ("image", "image/png", PNG) in facts
        assert {fact[1] for fact in facts if fact[0] == "tool"} == set(TOOLS)
        assert any(fact[0] == "system" and "Be brief." in fact[1] for fact in facts)
        wanted = [("call", c.name, json.dumps(json.loads(c.arguments), sort_keys=True))
                  for n in range(turn) for c in calls_of(n)]  # fmt: skip
        assert [fact for fact in facts if fact[0] == "call"] == wanted
        results = [fact[1:] for fact in facts if fact[0] == "result"]
        assert results == [(c.name, f"result {c.id}") for n in range(turn) for c in calls_of(n)]
        told = {loss.partition(".")[0] for loss in losses}
        if not any(fact[:3] == ("schema", "answer", "advice") for fact in facts):
            assert told & {"response_format", "schema"}, (role, kinds, losses)
        if ("thinks", "yes") not in facts:
            assert told & {"reasoning", "reasoning_effort"}, (role, kinds, losses)
        thoughts = {fact[1] for fact in facts if fact[0] == "thought"}
        if any(f"Thought {n}." not in thoughts for n in range(turn)):
            assert "reasoning" in told, (role, losses)
        # Opaque data is for its maker alone.
        opaque = {fact[1] for fact in facts if fact[0] in ("signature", "encrypted")}
        makers = {"anthropic": "c2lnbmVk", "google": "dGhvdWdodA"}
        for maker, data in makers.items():
            if maker != role and HOPS[role] != "chat":
                assert data not in opaque
        assert "c2lnbmVk" not in attempt.body.decode() or role == "anthropic"
        assert "dGhvdWdodA" not in attempt.body.decode() or role == "google"


@pytest.fixture
def journey(mount: Any) -> Iterator[Journey]:
    with Upstreams(b"secret of a test") as upstreams:
        fakes = {
            role: Fake(
                dialect={"chat": "openai", "anthropic": "anthropic", "gemini": "google"}[dialect],
                priority=10 * (place + 1),
                capabilities=("vision", "reasoning"),
                provider={"dialects": ["chat"]} if dialect == "chat" else {},
            )
            for place, (role, dialect) in enumerate(HOPS.items())
        }
        seed = random.randrange(10**6)
        made = cast(Fleet(fakes, shuffled=False), "journey", seed)
        opened = upstreams.open(made.actors.values())
        actors = {role: opened[made[role].id] for role in ROLES}
        casts = {"journey": Cast("journey", made.model, actors)}
        world = World("journey", {"routing": {"strategy": "availability"}})
        config = configuration(world, casts, actors["openai"], 0)
        config["providers"] = {actor.id: config["providers"][actor.id] for actor in actors.values()}
        for section in ("server", "node", "version"):
            config.pop(section, None)
        nonce = "ref-" + "".join(random.choices("abcdefghijkmnpqrstuvwxyz23456789", k=12))
        yield Journey(mount(config), upstreams, actors, nonce)


def losses_of(got: Any, record: dict[str, Any]) -> set[str]:
    return {row["feature"] for row in record.get("losses", ())}


def provider_of(journey: Journey, got: Any) -> str:
    return next(r for r, a in journey.actors.items() if a.id == got.provider)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_chat_conversation(journey: Journey, stream: bool) -> None:
    journey.script(stream)
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    question = {"type": "text", "text": f"Reference {journey.nonce}. What shall I do?"}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [question, picture]},
    ]
    for turn, role in enumerate(ROLES):
        got = journey.served.chat(
            {"X-AI-Routing-Strategy": "availability", "X-AI-Failover-Policy": "automatic"},
            model=journey.actors["openai"].model,
            messages=messages,
            tools=[{"type": "function", "function": {"name": n, **t}} for n, t in TOOLS.items()],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": SHAPE, "strict": True},
            },
            reasoning_effort="high",
            max_completion_tokens=9000,
            stream=stream,
            stream_options={"include_usage": True} if stream else None,
        )
        assert got.status == 200, got.body
        assert provider_of(journey, got) == role
        record = journey.served.record(got)
        journey.look(turn, losses_of(got, record), stream)
        if stream:
            told: Any = WHOLE_OF["chat"]([(None, e) for e in got.events if e != "[DONE]"])
        else:
            told = got.json
        facts = list(WHOLE["chat"](told))
        answer = answer_of(turn)
        assert {f for f in answer.facts() if f[0] in ("text", "call", "finish", "thought")} <= set(
            facts
        )
        message = {"role": "assistant", **told["choices"][0]["message"]}
        message.setdefault("content", None)
        calls = message.get("tool_calls") or []
        assert len({call["id"] for call in calls}) == len(answer.calls)
        messages.append(message)
        for call, said in zip(calls, answer.calls, strict=True):
            messages.append(
                {"role": "tool", "tool_call_id": call["id"], "content": f"result {said.id}"}
            )
    assert json.loads(messages[-1]["content"]) == json.loads(SAID)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_responses_conversation(journey: Journey, stream: bool) -> None:
    journey.script(stream)
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"}
    question = {"type": "input_text", "text": f"Reference {journey.nonce}. What shall I do?"}
    items: list[dict[str, Any]] = [{"role": "user", "content": [question, picture]}]
    for turn, role in enumerate(ROLES):
        got = journey.served.post(
            "/v1/responses",
            {
                "model": journey.actors["openai"].model,
                "instructions": "Be brief.",
                "input": items,
                "tools": [{"type": "function", "name": n, **t} for n, t in TOOLS.items()],
                "text": {"format": {"type": "json_schema", "name": "answer", "schema": SHAPE,
                                    "strict": True}},
                "reasoning": {"effort": "high"},
                "include": ["reasoning.encrypted_content"],
                "max_output_tokens": 9000,
                "store": False,
                "stream": stream,
            },
            {"X-AI-Routing-Strategy": "availability"},
        )  # fmt: skip
        assert got.status == 200, got.body
        assert provider_of(journey, got) == role
        journey.look(turn, losses_of(got, journey.served.record(got)), stream)
        if stream:
            events = [e for e in got.events if e != "[DONE]"]
            told: Any = WHOLE_OF["responses"]([(e["type"], e) for e in events])
        else:
            told = got.json
        answer = answer_of(turn)
        facts = set(WHOLE["responses"](told))
        assert {f for f in answer.facts() if f[0] in ("text", "call", "finish")} <= facts
        items += told["output"]
        calls = [item for item in told["output"] if item["type"] == "function_call"]
        for call, said in zip(calls, answer.calls, strict=True):
            items.append(
                {"type": "function_call_output", "call_id": call["call_id"],
                 "output": f"result {said.id}"}
            )  # fmt: skip
    assert ("text", SAID) in facts
