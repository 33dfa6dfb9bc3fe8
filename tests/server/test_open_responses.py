"""The acceptance cases of Open Responses (https://www.openresponses.org), HTTP part, against the
server, in front of an upstream of each dialect.

The cases are told here in our own words, so that they are always proven. Where a checkout of the
project's own suite is at hand, it is the judge too:

    git clone https://github.com/openresponses/openresponses && cd openresponses
    npm install --no-save tsx zod@3
    AIPROXY_OPEN_RESPONSES=$PWD pytest tests/server/test_open_responses.py

Not covered: the WebSocket transport and ``POST /v1/responses/compact``, which this server lacks.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import environment, serve
from speaking import Speaker

from aiproxy.spec import validate

CHECKOUT = os.environ.get("AIPROXY_OPEN_RESPONSES", "")
#: Our names of the project's cases.
THEIRS = (
    "basic-response",
    "assistant-phase",
    "response-output-phase-schema",
    "streaming-response",
    "system-prompt",
    "tool-calling",
    "image-input",
    "multi-turn",
)
#: Model -> provider type and the path of its base URL.
UPSTREAMS = {
    "at-chat": ("openai_compatible", "/v1", ["chat"]),
    "at-responses": ("openai_compatible", "/v1", ["responses"]),
    "at-anthropic": ("anthropic", "/v1", ["anthropic"]),
    "at-gemini": ("google", "/v1beta", ["gemini"]),
}
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Tells the weather at a place",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "Town and state"}},
        "required": ["location"],
    },
}


def say(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content, **more}


#: What is asked, and what the answer has to be besides a valid response.
CASES: dict[str, dict[str, Any]] = {
    "a plain question": {"input": [say("user", "Greet me in three words.")]},
    "a question as a string": {"input": "Greet me in three words."},
    "a system message": {"input": [say("system", "Speak like a pirate."), say("user", "Hello.")]},
    "instructions": {"instructions": "Speak like a pirate.", "input": [say("user", "Hello.")]},
    "turns of an earlier talk": {
        "input": [
            say("user", "I am called Alice."),
            say("assistant", "Hello Alice!"),
            say("user", "What am I called?"),
        ]
    },
    "phases of earlier answers": {
        "input": [
            say("assistant", "I look it up.", phase="commentary"),
            say("assistant", "It is four.", phase="final_answer"),
            say("user", "Say the number again."),
        ]
    },
    "an image": {
        "input": [
            say(
                "user",
                [
                    {"type": "input_text", "text": "What is in it?"},
                    {"type": "input_image", "image_url": PNG},
                ],
            )
        ]
    },
    "a tool": {"input": [say("user", "How is the weather in San Francisco?")], "tools": [WEATHER]},
    "a tool that must be called": {
        "input": [say("user", "How is the weather in San Francisco?")],
        "tools": [WEATHER],
        "tool_choice": "required",
    },
    "the result of a tool": {
        "input": [
            say("user", "How is the weather in San Francisco?"),
            {"type": "function_call", "call_id": "call_0", "name": "get_weather",
             "arguments": '{"location":"San Francisco, CA"}'},
            {"type": "function_call_output", "call_id": "call_0", "output": "sunny"},
        ],
        "tools": [WEATHER],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def speaker() -> Iterator[Speaker]:
    with Speaker() as running:
        yield running


@pytest.fixture(scope="module")
def server(speaker: Speaker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    providers = {
        model: {
            "type": kind,
            "endpoint": speaker.url(base),
            "credentials": {"api_key": "sk-of-the-fake"},
            "dialects": dialects,
            "models": [{"name": model, "capabilities": ["vision"]}],
        }
        for model, (kind, base, dialects) in UPSTREAMS.items()
    }
    config = {"providers": providers, "routing": {"default_provider": "at-chat"}}
    with serve(tmp_path_factory.mktemp("open_responses"), config) as running:
        yield running


def holds(case: str, response: dict[str, Any], model: str) -> None:
    validate(response, "responses/response")
    assert (response["object"], response["status"], response["model"]) == (
        "response", "completed", model,
    )  # fmt: skip
    assert response["error"] is None
    assert response["incomplete_details"] is None
    assert response["output"], "no output items"
    assert response["completed_at"] >= response["created_at"]
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    if case in ("a tool", "a tool that must be called"):
        (call,) = calls
        assert (call["name"], call["status"]) == ("get_weather", "completed")
        assert call["call_id"]
        assert json.loads(call["arguments"]) == {"location": "San Francisco, CA"}
    else:
        assert calls == []
        (message,) = [item for item in response["output"] if item["type"] == "message"]
        assert (message["role"], message["status"]) == ("assistant", "completed")
        assert [part["type"] for part in message["content"]] == ["output_text"]
        assert message["content"][0]["text"] == "Ahoy there, matey!"
    assert len({item["id"] for item in response["output"]}) == len(response["output"])
    used = response["usage"]
    assert used["total_tokens"] == used["input_tokens"] + used["output_tokens"] > 0


@pytest.mark.parametrize("model", UPSTREAMS)
@pytest.mark.parametrize("case", CASES)
def test_a_response(server: Any, case: str, model: str) -> None:
    got = server.post("/v1/responses", {"model": model, **CASES[case]})
    assert got.status == 200, got.body
    assert got.header("content-type") == "application/json"
    holds(case, got.json, model)


@pytest.mark.parametrize("model", UPSTREAMS)
@pytest.mark.parametrize("case", CASES)
def test_a_streamed_response(server: Any, case: str, model: str) -> None:
    got = server.post("/v1/responses", {"model": model, "stream": True, **CASES[case]})
    assert got.status == 200, got.body
    assert (got.header("content-type") or "").startswith("text/event-stream")
    *events, done = got.events
    assert done == "[DONE]"
    for event in events:
        validate(event, "events/response-event")
    named = [line[7:] for line in got.body.decode().splitlines() if line.startswith("event: ")]
    assert named == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert named[:2] == ["response.created", "response.in_progress"]
    assert named[-1] == "response.completed"
    assert events[0]["response"]["status"] == "in_progress"
    final = events[-1]["response"]
    holds(case, final, model)
    framed(events, final)


def framed(events: list[dict[str, Any]], final: dict[str, Any]) -> None:
    """Each item is added, filled and done in that order, as the item of the final response."""
    for index, item in enumerate(final["output"]):
        mine = [e for e in events if e.get("output_index") == index]
        kinds = [event["type"] for event in mine]
        assert kinds[0] == "response.output_item.added"
        assert kinds[-1] == "response.output_item.done"
        assert mine[0]["item"]["id"] == mine[-1]["item"]["id"] == item["id"]
        assert mine[-1]["item"] == item
        assert all(e["item_id"] == item["id"] for e in mine if "item_id" in e)
        deltas = "".join(e["delta"] for e in mine if e["type"].endswith(".delta"))
        said = item.get("arguments") or "".join(p["text"] for p in item.get("content", ()))
        assert deltas == said


@pytest.mark.parametrize("model", UPSTREAMS)
def test_what_was_asked_reaches_the_upstream(server: Any, speaker: Speaker, model: str) -> None:
    speaker.seen.clear()
    server.post("/v1/responses", {"model": model, **CASES["a system message"]})
    ((dialect, body),) = speaker.seen
    assert dialect == UPSTREAMS[model][2][0]
    assert "pirate" in json.dumps(body)


def test_a_request_that_is_no_request(server: Any) -> None:
    for body in ({"input": 5, "model": "at-chat"}, {"model": "at-chat", "input": [5]}, []):
        got = server.post("/v1/responses", body)
        assert got.status == 400
        assert got.error["type"] == "invalid_request_error"


# --- the project's own suite ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge() -> Callable[..., Any]:
    home = Path(CHECKOUT)
    runner = home / "node_modules" / ".bin" / "tsx"
    if not CHECKOUT or not runner.exists():
        pytest.skip("AIPROXY_OPEN_RESPONSES names no checkout with tsx installed; see this module")

    def run(base_url: str, model: str, *ids: str) -> Any:
        done = subprocess.run(
            [str(runner), str(home / "bin" / "compliance-test.ts"), "--base-url", base_url,
             "--api-key", "sk-none", "--model", model, "--filter", ",".join(ids), "--json"],
            capture_output=True, cwd=home, env=environment(), timeout=120, check=False,
        )  # fmt: skip
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize("model", UPSTREAMS)
def test_the_projects_own_suite(server: Any, judge: Callable[..., Any], model: str) -> None:
    found = judge(f"{server.url}/v1", model, *THEIRS)
    assert found["summary"] == {
        "passed": len(THEIRS), "failed": 0, "skipped": 0, "total": len(THEIRS),
    }, found  # fmt: skip
