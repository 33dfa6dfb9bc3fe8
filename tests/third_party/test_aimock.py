"""aimock, a fake provider of another project, as upstream in every dialect it speaks.

It was written from the providers' references by other people: what both sides got wrong in the
same way elsewhere does not fit together here.
"""

import json
from typing import Any

import pytest
from mounts import Got

pytestmark = pytest.mark.slow

TEXT = "Grüße 😀 from a long enough sentence to come in several pieces."
#: Dialect -> provider type and path of the base URL at aimock.
SPOKEN = {
    "chat": ("openai_compatible", "/v1"),
    "responses": ("openai_compatible", "/v1"),
    "anthropic": ("anthropic", "/v1"),
    "gemini": ("google", "/v1beta"),
    "cohere": ("cohere", "/v2"),
}
PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/gpt-x:",
    "cohere": "/v2/chat",
}
TOOL = {
    "name": "weather",
    "description": "Tells the weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
HEADERS = {"X-AI-Routing-Strategy": "quality"}


@pytest.fixture
def served(mount: Any, aimock: Any, request: pytest.FixtureRequest, fakes: Any) -> Any:
    dialect = request.getfixturevalue("dialect")
    kind, base = SPOKEN[dialect]
    aimock.call("POST", "/__aimock/reset/journal")
    provider = {
        "type": kind,
        "endpoint": aimock.url + base,
        "credentials": {"api_key": "sk-of-the-fake"},
        "dialects": [dialect],
        "models": [{"name": "m", "model": "gpt-x", "quality": 0.9,
                    "capabilities": ["vision", "reasoning"]}],
    }  # fmt: skip
    config = fakes.config({"b": {"models": [{"name": "m", "quality": 0.5}]}})
    config["providers"] = {"third": provider, **config["providers"]}
    config["routing"]["default_provider"] = "third"
    return mount(config)


def journal(aimock: Any) -> list[Any]:
    found = aimock.call("GET", "/__aimock/journal")
    rows: list[Any] = found if isinstance(found, list) else found.get("entries", found)
    return rows


def asked(served: Any, shape: str, text: str, stream: bool, **more: Any) -> Got:
    got: Got
    if shape == "chat":
        tools = [{"type": "function", "function": TOOL}]
        turns = [{"role": "user", "content": text}, *more.get("turns", ())]
        got = served.chat(HEADERS, model="m", messages=turns, tools=tools, stream=stream)
    else:
        tools = [{"type": "function", **TOOL}]
        items = [{"role": "user", "content": text}, *more.get("turns", ())]
        body = {"model": "m", "input": items, "tools": tools, "stream": stream}
        got = served.post("/v1/responses", body, HEADERS)
    return got


def said(got: Got, shape: str, stream: bool) -> tuple[str, list[tuple[str, str, Any]]]:
    """The text and the calls (id, name, arguments) as the client reads them."""
    if shape == "responses":
        body = got.json if not stream else got.events[-2]["response"]
        text = "".join(p["text"] for i in body["output"] if i["type"] == "message"
                       for p in i["content"])  # fmt: skip
        calls = [(i["call_id"], i["name"], json.loads(i["arguments"]))
                 for i in body["output"] if i["type"] == "function_call"]  # fmt: skip
        return text, calls
    if not stream:
        message = got.json["choices"][0]["message"]
        calls = [(c["id"], c["function"]["name"], json.loads(c["function"]["arguments"]))
                 for c in message.get("tool_calls") or ()]  # fmt: skip
        return message["content"] or "", calls
    text, held = "", {}
    for event in got.events[:-1]:
        for choice in event["choices"]:
            text += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls") or ():
                row = held.setdefault(call["index"], ["", "", ""])
                row[0] = call.get("id") or row[0]
                row[1] += call["function"].get("name") or ""
                row[2] += call["function"].get("arguments") or ""
    return text, [(i, n, json.loads(a)) for i, n, a in held.values()]


def finish(got: Got, shape: str, stream: bool) -> str:
    if shape == "responses":
        return str((got.json if not stream else got.events[-2]["response"])["status"])
    if not stream:
        return str(got.json["choices"][0]["finish_reason"])
    reasons = [c["finish_reason"] for e in got.events[:-1] for c in e["choices"]]
    (reason,) = [reason for reason in reasons if reason]
    return str(reason)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("shape", ["chat", "responses"])
@pytest.mark.parametrize("dialect", sorted(SPOKEN))
class TestEveryDialect:
    def test_text(self, served: Any, aimock: Any, dialect: str, shape: str, stream: bool) -> None:
        got = asked(served, shape, "say hello", stream)
        assert (got.status, got.provider) == (200, "third"), got.body
        assert said(got, shape, stream) == (TEXT, [])
        assert finish(got, shape, stream) in ("stop", "completed")
        row = journal(aimock)[-1]
        assert row["path"].startswith(PATHS[dialect])
        assert "sk-of-the-fake" not in got.body.decode()

    @pytest.mark.parametrize("asks", ["one call", "two calls"])
    def test_calls_and_their_results(
        self, served: Any, aimock: Any, dialect: str, shape: str, stream: bool, asks: str
    ) -> None:
        got = asked(served, shape, asks, stream)
        assert (got.status, got.provider) == (200, "third"), got.body
        _, calls = said(got, shape, stream)
        cities = ["Bern", "Rome"][: 1 + (asks == "two calls")]
        assert [(name, args) for _, name, args in calls] == [
            ("weather", {"city": city}) for city in cities
        ]
        assert len({identity for identity, _, _ in calls} - {""}) == len(calls)
        assert finish(got, shape, stream) in ("tool_calls", "completed")
        if shape == "chat":
            entries = [
                {"id": i, "type": "function", "function": {"name": n, "arguments": json.dumps(a)}}
                for i, n, a in calls
            ]
            turns: list[Any] = [{"role": "assistant", "content": None, "tool_calls": entries}]
            turns += [{"role": "tool", "tool_call_id": i, "content": "sunny"} for i, _, _ in calls]
        else:
            turns = [
                {"type": "function_call", "call_id": i, "name": n, "arguments": json.dumps(a)}
                for i, n, a in calls
            ]
            turns += [{"type": "function_call_output", "call_id": i, "output": "sunny"}
                      for i, _, _ in calls]  # fmt: skip
        again = asked(served, shape, asks, stream, turns=turns)
        assert (again.status, again.provider) == (200, "third"), again.body
        assert said(again, shape, stream)[0] == ("Sunny." if len(cities) == 1 else "Both.")

    def test_reasoning_stays_apart_from_the_text(
        self, served: Any, dialect: str, shape: str, stream: bool
    ) -> None:
        got = asked(served, shape, "think first", stream)
        assert (got.status, got.provider) == (200, "third"), got.body
        # aimock tells Cohere's reasoning as a text of its own in front of the answer.
        told = "Let me think.Because." if dialect == "cohere" else "Because."
        assert said(got, shape, stream)[0] == told

    @pytest.mark.parametrize("asks", ["too busy", "broken"])
    def test_its_errors_are_another_providers_turn(
        self, served: Any, fakes: Any, dialect: str, shape: str, stream: bool, asks: str
    ) -> None:
        got = asked(served, shape, asks, stream)
        assert (got.status, got.provider) == (200, "b"), got.body
        assert b"SECRET" not in got.body
        error = served.record(got)["attempts"][0]["error"]
        assert error == {"too busy": "rate_limited", "broken": "http_5xx"}[asks]
