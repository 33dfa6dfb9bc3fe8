"""Each attempt is adapted anew from what the client said: its dialect, its model, its limits and
its abilities, never what the attempt before it was sent."""

from typing import Any

import pytest
from upstreams import Script

SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "schema": {"type": "object", "properties": {}}},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("first", "second"), [("responses", "chat"), ("chat", "responses")])
def test_the_second_provider_gets_its_own_dialect(
    mount: Any, duo: Any, best: Any, fakes: Any, first: str, second: str, stream: bool
) -> None:
    fakes.a.script = Script(status=503)
    served = mount(duo(a={"dialects": [first]}, b={"dialects": [second]}))
    got = served.chat(best, seed=7, max_completion_tokens=50, response_format=SCHEMA, stream=stream)
    assert (got.status, got.provider) == (200, "b")
    chat, responses = (fakes.a, fakes.b) if first == "chat" else (fakes.b, fakes.a)
    assert chat.seen[0].path == "/v1/chat/completions"
    assert set(chat.seen[0].body) >= {
        "messages",
        "seed",
        "max_completion_tokens",
        "response_format",
    }
    assert responses.seen[0].path == "/v1/responses"
    assert set(responses.seen[0].body) >= {"input", "max_output_tokens", "text"}
    assert "messages" not in responses.seen[0].body
    assert {fakes.a.seen[0].body["model"], fakes.b.seen[0].body["model"]} == {"a-m", "b-m"}


def test_losses_are_those_of_the_attempt_that_served(
    mount: Any, duo: Any, best: Any, fakes: Any
) -> None:
    fakes.a.script = Script(status=503)
    served = mount(duo(a={"dialects": ["responses"]}, b={"dialects": ["chat"]}))
    got = served.chat(best, seed=7)
    assert "losses" not in got.json["x-aiproxy"]
    fakes.a.script, fakes.b.script = Script(), Script(status=503)
    served = mount(duo(a={"dialects": ["chat"]}, b={"dialects": ["responses"]}))
    got = served.chat(best, seed=7)
    assert "losses" not in got.json["x-aiproxy"]


def test_a_schema_survives_the_fallback_when_tools_are_off(
    mount: Any, duo: Any, best: Any, fakes: Any
) -> None:
    fakes.a.script = Script(status=503)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    mount(duo()).chat(best, tools=[tool], tool_choice="none", response_format=SCHEMA)
    assert fakes.b.seen[0].body["response_format"] == SCHEMA
    assert fakes.b.seen[0].body["tool_choice"] == "none"


def test_who_cannot_do_it_is_no_fallback(mount: Any, duo: Any, best: Any, fakes: Any) -> None:
    """A deployment without the ability is left out of the fallbacks as of the first choice."""
    fakes.a.script = Script(status=503)
    seeing = {"name": "m", "model": "a-m", "quality": 0.9, "capabilities": ["vision"]}
    parts = [{"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}]
    served = mount(duo(a={"models": [seeing]}))
    got = served.chat(best, messages=[{"role": "user", "content": parts}])
    assert got.status >= 500
    assert fakes.called() == {"a": 1}


def test_the_fallback_is_another_target(mount: Any, duo: Any, best: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=503)
    served = mount(duo())
    got = served.chat(best)
    attempts = served.record(got)["attempts"]
    assert [(row["provider"], row["outcome"]) for row in attempts] == [("a", "failed"), ("b", "ok")]
    assert fakes.called() == {"a": 1, "b": 1}
