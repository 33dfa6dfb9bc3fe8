"""llmock breaks its answers by script and judges its client: here the client is our router.

The verdict is about what a provider sees: retries too early, of what cannot be retried, too many of
them, and cut streams taken for answers. What our own client is told is looked at beside it.
"""

import json
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SPOKEN = {
    "chat": ("openai_compatible", "/v1"),
    "responses": ("openai_compatible", "/v1"),
    "anthropic": ("anthropic", "/anthropic/v1"),
    "gemini": ("google", "/gemini/v1beta"),
    "cohere": ("cohere", "/cohere/v2"),
    "mistral": ("mistral", "/mistral/v1"),
}
DIALECTS = sorted(SPOKEN)
HEADERS = {"X-AI-Routing-Strategy": "quality", "X-AI-Failover-Policy": "automatic"}


def provider(llmock: Any, dialect: str, quality: float) -> dict[str, Any]:
    kind, base = SPOKEN[dialect]
    return {
        "type": kind,
        "endpoint": llmock.url + base,
        "credentials": {"api_key": "sk-of-the-fake"},
        "dialects": [dialect],
        "timeouts": {"idle": "1s", "first_token": "1s"},
        "models": [{"name": "m", "model": "model-x", "quality": quality}],
    }


@pytest.fixture
def served(mount: Any, llmock: Any, request: pytest.FixtureRequest, fakes: Any) -> Any:
    """``a`` is llmock, ``b`` somebody else."""
    llmock.call("POST", "/_llmock/reset")
    config = fakes.config({"b": {"models": [{"name": "m", "quality": 0.5}]}})
    one = provider(llmock, request.getfixturevalue("dialect"), 0.9)
    config["providers"] = {"a": one, **config["providers"]}
    return mount(config)


@pytest.fixture
def twins(mount: Any, llmock: Any, request: pytest.FixtureRequest) -> Any:
    """Two providers that are one llmock: a second attempt is a retry in its eyes."""
    llmock.call("POST", "/_llmock/reset")
    dialect = request.getfixturevalue("dialect")
    providers = {"a": provider(llmock, dialect, 0.9), "b": provider(llmock, dialect, 0.8)}
    return mount({"providers": providers, "routing": {"default_provider": "a"}})


def script(llmock: Any, *behaviours: dict[str, Any]) -> None:
    llmock.call("POST", "/_llmock/scenario", {"behaviors": list(behaviours)})


def judged(llmock: Any) -> Any:
    verdict = llmock.call("GET", "/_llmock/verdict")
    assert [f for f in verdict["findings"] if f["severity"] == "error"] == []
    assert verdict["passed"] is True
    return verdict


def text(got: Any, stream: bool) -> str:
    if not stream:
        return str(got.json["choices"][0]["message"]["content"])
    return "".join(
        c["delta"].get("content") or ""
        for event in got.events
        if event != "[DONE]"
        for c in event.get("choices", ())
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
class TestEveryDialect:
    def test_healthy(self, served: Any, llmock: Any, dialect: str, stream: bool) -> None:
        script(llmock, {"type": "reply", "text": "All is well here."})
        got = served.chat(HEADERS, model="m", stream=stream)
        assert (got.status, got.provider) == (200, "a"), got.body
        assert text(got, stream) == "All is well here."
        assert judged(llmock)["findings"] == []

    @pytest.mark.parametrize("status", [429, 500, 503, 529])
    def test_one_failure(
        self, served: Any, llmock: Any, dialect: str, stream: bool, status: int
    ) -> None:
        script(llmock, {"type": "fail", "status": status})
        got = served.chat(HEADERS, model="m", stream=stream)
        assert got.status == 200, got.body
        assert got.provider in ("a", "b")
        assert served.record(got)["attempts"][0]["outcome"] == "failed"
        judged(llmock)

    @pytest.mark.parametrize("status", [400, 413, 422])
    def test_what_cannot_be_retried_is_not(
        self, served: Any, llmock: Any, dialect: str, stream: bool, status: int
    ) -> None:
        script(llmock, {"type": "fail", "status": status, "times": 5})
        got = served.chat(HEADERS, model="m", stream=stream)
        assert got.status in (200, 400, 413, 422, 502)
        assert llmock.call("GET", "/_llmock/requests")["count"] == 1
        judged(llmock)

    def test_an_outage_is_not_made_worse(
        self, served: Any, llmock: Any, dialect: str, stream: bool
    ) -> None:
        script(llmock, {"type": "fail", "status": 503, "times": 20})
        got = served.chat(HEADERS, model="m", stream=stream)
        assert (got.status, got.provider) == (200, "b")
        assert llmock.call("GET", "/_llmock/requests")["count"] <= 4
        judged(llmock)

    def test_calls(self, served: Any, llmock: Any, dialect: str, stream: bool) -> None:
        call = {"name": "weather", "arguments": {"city": "Bern"}}
        script(llmock, {"type": "reply", "tool_calls": [call]})
        tool = {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        }
        tools = [{"type": "function", "function": tool}]
        got = served.chat(HEADERS, model="m", tools=tools, stream=stream)
        assert (got.status, got.provider) == (200, "a"), got.body
        if stream:
            rows = [
                call["function"]
                for event in got.events[:-1]
                for choice in event["choices"]
                for call in choice["delta"].get("tool_calls") or ()
            ]
        else:
            rows = [c["function"] for c in got.json["choices"][0]["message"]["tool_calls"]]
        assert "".join(row.get("name") or "" for row in rows) == "weather"
        assert json.loads("".join(row.get("arguments") or "" for row in rows)) == {"city": "Bern"}
        judged(llmock)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", ["disconnect", "truncate", "malformed"])
def test_a_stream_that_breaks_before_content_is_asked_again(
    twins: Any, llmock: Any, dialect: str, fault: str
) -> None:
    script(llmock, {"type": "stream_fault", "kind": fault, "after_chunks": 0})
    got = twins.chat(HEADERS, model="m", stream=True)
    assert got.status == 200
    assert got.events[-1] == "[DONE]" or "error" in got.events[-1]
    if fault != "malformed":
        assert (got.events[-1], got.provider) == ("[DONE]", "b")
    judged(llmock)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", ["disconnect", "truncate"])
def test_a_stream_that_breaks_after_content_is_an_error_to_our_client(
    served: Any, llmock: Any, dialect: str, fault: str
) -> None:
    """llmock would have it asked again; nobody may, once a part of the answer was shown."""
    script(
        llmock,
        {"type": "reply", "text": "one two three four five six seven eight nine ten " * 5},
        {"type": "stream_fault", "kind": fault, "after_chunks": 6},
    )
    got = served.chat(HEADERS, model="m", stream=True)
    if "[DONE]" in got.events:  # what was sent had been all of it, or none
        assert got.provider == "b" or text(got, True).endswith("ten")
        return
    assert got.events[-1]["error"]["code"] == "stream_interrupted"
    assert llmock.call("GET", "/_llmock/requests")["count"] == 1


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stall_is_not_sat_through(twins: Any, llmock: Any, dialect: str) -> None:
    script(llmock, {"type": "stream_fault", "kind": "stall", "after_chunks": 0, "stall_seconds": 8})
    got = twins.chat(HEADERS, model="m", stream=True)
    assert got.status in (200, 502, 504)
    codes = {finding["code"] for finding in judged(llmock)["findings"]}
    assert "no_read_timeout" not in codes


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_named_time_is_kept(served: Any, llmock: Any, dialect: str) -> None:
    script(llmock, {"type": "fail", "status": 429, "retry_after": 30, "times": 2})
    for _ in range(3):
        assert served.chat(HEADERS, model="m").provider == "b"
    assert llmock.call("GET", "/_llmock/requests")["count"] == 1
    judged(llmock)
