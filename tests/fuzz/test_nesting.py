"""Documents nested as deeply as a parser takes them: an answer, never a failure of our own."""

import json
from typing import Any

import pytest
from upstreams import Script

HEADERS = {"X-AI-Routing-Strategy": "quality"}


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.fixture
def served(mount: Any, fakes: Any, request: pytest.FixtureRequest) -> Any:
    dialect = request.getfixturevalue("dialect")
    providers = {n: {"models": [{"name": "m"}], "dialects": [dialect]} for n in "ab"}
    return mount(fakes.config(providers))


@pytest.mark.parametrize("levels", [200, 260, 900, 1100])
@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_requests(served: Any, dialect: str, levels: int) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": "%s"}}
    body = json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [tool]}
    )
    nested = '{"type":"object","properties":' + '{"a":' * levels + "{}" + "}" * levels + "}"
    got = served.post("/v1/chat/completions", body.replace('"%s"', nested).encode(),
                      {"content-type": "application/json", **HEADERS})  # fmt: skip
    assert got.status in (200, 400, 422), got.body


@pytest.mark.parametrize("levels", [200, 260, 900])
@pytest.mark.parametrize("dialect", ["responses"])
@pytest.mark.parametrize(
    "asked", [{"input": "x"}, {"messages": [{"role": "user", "content": "x"}]}]
)
def test_replies(served: Any, fakes: Any, dialect: str, levels: int, asked: dict[str, Any]) -> None:
    said = {"type": "output_text", "text": "hi", "annotations": []}
    output = [
        {"type": "message", "role": "assistant", "content": [said]},
        {"type": "web_search_call", "id": "w", "x": deep(levels)},
    ]
    fakes.a.script = Script(
        body={
            "id": "x",
            "object": "response",
            "status": "completed",
            "model": "m",
            "output": output,
        }
    )
    got = served.post("/v1/responses", {"model": "m", **asked}, HEADERS)
    assert got.status in (200, 502), got.body
