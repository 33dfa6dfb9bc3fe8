"""Tools, formats and log probabilities through every adapter, computed by a small true model."""

import asyncio
import http.client
import json
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tiny_models import make_tiny_llama
from upstreams import free_port, serve_asgi

from aiproxy.reference_server.app import create_app
from aiproxy.reference_server.onnx import LocalModels, RequestRefused
from aiproxy.spec import validate

pytest.importorskip("onnxruntime_genai")
pytest.importorskip("llguidance")

ADAPTERS = ("gqa", "concat", "paged")
WAIT_S = 30.0
HELLO = [{"role": "user", "content": "hello"}]
CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"zone": {"enum": ["MEZ", "UTC"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    },
}
FORCED = {"tools": [CLOCK], "tool_choice": "required", "parallel_tool_calls": False}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    root = tmp_path_factory.mktemp("models")
    folders: dict[str, Path] = {
        "gqa": make_tiny_llama(root / "gqa", paged=False, cache="gqa"),
        "concat": make_tiny_llama(root / "concat", paged=False, cache="concat"),
        "paged": make_tiny_llama(root / "paged", paged=True),
    }
    return [{"name": name, "path": str(folder)} for name, folder in folders.items()]


@pytest.fixture(scope="module")
def models(rows: list[dict[str, Any]]) -> Iterator[LocalModels]:
    served = LocalModels.from_config({"models": rows, "worker": "thread", "device": "cpu"})
    assert [model.reason for model in served.models] == [None] * len(ADAPTERS)
    yield served
    for model in served.models:
        model.close()


def ask(models: LocalModels, name: str, **fields: Any) -> Any:
    async def work() -> Any:
        answer: Any = await models.chat({"model": name, "messages": HELLO, **fields})
        return [chunk async for chunk in answer] if fields.get("stream") else answer

    return asyncio.run(asyncio.wait_for(work(), WAIT_S))


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_required_call_is_made_with_arguments_of_its_schema(
    models: LocalModels, name: str
) -> None:
    answer = ask(models, name, **FORCED, max_tokens=100)
    validate(answer, "responses/chat")
    (choice,) = answer["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert call["function"]["name"] == "clock"
    assert json.loads(call["function"]["arguments"])["zone"] in ("MEZ", "UTC")


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_answer_follows_a_json_schema(models: LocalModels, name: str) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "size": {"enum": ["S", "XXL"]}},
        "required": ["ok", "size"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"schema": schema, "strict": True}}
    # A small random model likes to write white space between the words for ever.
    (choice,) = ask(models, name, response_format=wanted, max_tokens=200)["choices"]
    if choice["finish_reason"] == "stop":
        found = json.loads(choice["message"]["content"])
        assert set(found) == {"ok", "size"}
        assert found["size"] in ("S", "XXL")
    else:
        assert choice["message"]["content"].lstrip().startswith("{")


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_schema_nobody_can_follow_is_refused_and_the_model_goes_on(
    models: LocalModels, name: str
) -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"schema": schema, "strict": True}}
    for stream in (False, True):
        with pytest.raises(RequestRefused) as refusal:
            ask(models, name, response_format=wanted, stream=stream)
        assert refusal.value.status == 400
    assert ask(models, name, max_tokens=2)["usage"]["completion_tokens"] == 2


def test_every_adapter_answers_alike(models: LocalModels) -> None:
    texts = {
        ask(models, name, max_tokens=12)["choices"][0]["message"]["content"] for name in ADAPTERS
    }
    assert len(texts) == 1


@pytest.mark.parametrize("name", ADAPTERS)
def test_log_probabilities_are_there_or_refused_by_name(models: LocalModels, name: str) -> None:
    (model,) = (model for model in models.models if model.name == name)
    assert model.text is not None
    if not model.text.engine.runner.traits.logprobs:
        with pytest.raises(RequestRefused, match="logprobs is not supported"):
            ask(models, name, logprobs=True)
        return
    answer = ask(models, name, logprobs=True, top_logprobs=20, max_tokens=4)
    validate(answer, "responses/chat")
    rows = answer["choices"][0]["logprobs"]["content"]
    assert len(rows) == answer["usage"]["completion_tokens"] == 4
    for row in rows:
        top = [entry["logprob"] for entry in row["top_logprobs"]]
        # Greedy: what was chosen is the likeliest.
        assert row["logprob"] == max(top) == top[0]
        assert len(top) == 20
        assert sum(map(math.exp, top)) <= 1.0 + 1e-6


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_marker_in_a_message_costs_as_many_tokens_as_its_letters(
    models: LocalModels, name: str
) -> None:
    def prompt_tokens(text: str) -> int:
        messages = [{"role": "user", "content": text}]
        tokens: int = ask(models, name, messages=messages, max_tokens=1)["usage"]["prompt_tokens"]
        return tokens

    assert prompt_tokens("<|eot_id|>") > prompt_tokens("x") + 3


def test_a_streamed_call_over_http_through_the_middleware(rows: list[dict[str, Any]]) -> None:
    local = {"type": "local", "models": rows[:1], "device": "cpu", "worker": "thread"}
    app = create_app({"providers": {"local": local}})
    port = free_port()
    server, thread = serve_asgi(app, port)
    try:
        body = {"model": "gqa", "messages": HELLO, "stream": True, "max_tokens": 100, **FORCED}
        headers = {"content-type": "application/json"}
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)) as client:
            client.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            answer = client.getresponse()
            text = answer.read().decode()
        assert answer.status == 200, text
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        chunks = [json.loads(line) for line in lines[:-1]]
        for chunk in chunks:
            validate(chunk, "events/chat-chunk")
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        calls = [call for c in choices for call in c["delta"].get("tool_calls") or ()]
        assert [call["function"]["name"] for call in calls] == ["clock"]
        assert choices[-1]["finish_reason"] == "tool_calls"
    finally:
        server.should_exit = True
        thread.join(10)
