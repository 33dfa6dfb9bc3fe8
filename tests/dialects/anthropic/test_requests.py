"""What is sent upstream, case by case: ``requests.json`` holds them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiproxy.middleware.dialects import (
    CanonicalRequest,
    MalformedRequest,
    Untranslatable,
    anthropic,
    chat,
    responses,
)
from aiproxy.middleware.dialects.anthropic.models import family
from aiproxy.middleware.dialects.canonical import (
    Audio,
    File,
    Image,
    Reasoning,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from aiproxy.middleware.dialects.functions import tool_kinds

MODULES: dict[str, Any] = {"chat": chat, "responses": responses, "anthropic": anthropic}
CASES = json.loads((Path(__file__).parent / "requests.json").read_text())
NAMED = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
HI = Turn("user", (Text("hi"),), form="string")
NEW = "claude-opus-5-5"


def encoded(case: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    request = MODULES[case["from"]].decode_request({"model": "x", **case["body"]})
    body, losses = anthropic.encode_request(request, case["model"])
    return body, [loss.feature for loss in losses]


def request(*turns: Turn, **members: Any) -> CanonicalRequest:
    return CanonicalRequest("x", turns or (HI,), members.pop("source", "chat"), **members)


@NAMED
def test_the_body_and_its_losses(case: dict[str, Any]) -> None:
    body, losses = encoded(case)
    assert body == {"model": case["model"], **case["upstream"]}
    assert losses == case["losses"]


@NAMED
def test_what_is_sent_reads_back_and_is_sent_again_as_it_was(case: dict[str, Any]) -> None:
    body, _ = encoded(case)
    again, losses = anthropic.encode_request(anthropic.decode_request(body), case["model"])
    assert again == body
    assert losses == []


def test_the_official_sdk_takes_every_body(tmp_path: Path, tools: dict[str, Any]) -> None:
    bodies = [{"as": "request", "value": encoded(case)[0]} for case in CASES]
    counted = {"messages", "model", "system", "tools", "tool_choice", "thinking", "output_config"}
    for entry in list(bodies):
        body = {k: v for k, v in entry["value"].items() if k in counted}
        bodies.append({"as": "count_request", "value": body})
    told = tools["judge"](bodies, tmp_path)
    assert {i: verdict for i, verdict in enumerate(told) if verdict} == {}


@pytest.mark.parametrize(
    ("given", "feature"),
    [
        (request(sampling=Sampling(n=2)), "n"),
        (request(Turn("user", (Audio("AA==", "wav"),))), "audio"),
        (request(Turn("user", (Image(file_id="f"),))), "image"),
        (request(Turn("user", (Image(data="AA==", media_type="image/bmp"),))), "image"),
        (request(Turn("user", (Image(url="ftp://e.org/a"),))), "image"),
        (request(Turn("user", (File(file_id="f"),))), "file"),
        (request(Turn("user", (File(data="AA==", name="a.bin"),))), "file"),
        (request(Turn("user", (File(data="data:text/plain;base64,/w=="),))), "file"),
        (request(Turn("system", (Image(url="https://e.org"),)), HI), "image"),
        (request(HI, Turn("assistant", (ToolCall("c", "f", "[1]"),))), "tool_call"),
        (request(HI, Turn("assistant", (ToolCall("c", "f", "{"),))), "tool_call"),
        (request(HI, Turn("tool", (ToolResult("", ()),))), "tool_result"),
        (request(tool_choice=ToolChoice("required")), "tool_choice"),
        (
            request(tools=(Tool("w", "hosted"),), tool_choice=ToolChoice("required")),
            "tool_choice",
        ),
        (
            request(tools=(Tool("f"),), tool_choice=ToolChoice("tool", "g")),
            "tool_choice",
        ),
        (
            request(tools=(Tool("f"),), tool_choice=ToolChoice("hosted", definition={"type": "w"})),
            "tool_choice",
        ),
        (request(extra={"previous_response_id": "r"}, source="responses"), "previous_response_id"),
    ],
)
def test_what_would_have_no_meaning_is_refused(given: CanonicalRequest, feature: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        anthropic.encode_request(given, NEW)
    assert refused.value.feature == feature


def test_opaque_reasoning_goes_back_to_where_it_came_from_only() -> None:
    said = (
        Text("so"),
        Reasoning("hm", signature="s", origin="anthropic"),
        Reasoning("other", signature="g", origin="gemini"),
        ToolCall("c", "f", "{}", signature="t", origin="gemini"),
    )
    result = Turn("tool", (ToolResult("c", (Text("1"),)),))
    body, losses = anthropic.encode_request(request(HI, Turn("assistant", said), result), NEW)
    assert [block["type"] for block in body["messages"][1]["content"]] == [
        "thinking",
        "text",
        "tool_use",
    ]
    assert [(loss.feature, loss.detail) for loss in losses] == [
        ("reasoning", "opaque reasoning of gemini does not travel to anthropic")
    ]


def test_a_custom_tool_and_its_calls_travel_as_a_function_with_one_string() -> None:
    given = request(
        HI,
        Turn("assistant", (ToolCall("c", "sql", "SELECT 1", "custom"),)),
        Turn("tool", (ToolResult("c", (Text("1"),), kind="custom"),)),
        tools=(Tool("sql", "custom"),),
    )
    body, losses = anthropic.encode_request(given, NEW)
    assert body["messages"][1]["content"][0]["input"] == {"input": "SELECT 1"}
    assert body["tools"][0]["input_schema"]["required"] == ["input"]
    assert [loss.feature for loss in losses] == ["custom_tool", "custom_tool"]
    assert tool_kinds(given) == {"sql": "custom"}


def test_hosted_tools_of_this_api_are_taken_from_anybody() -> None:
    search = Tool("web_search", "hosted", definition={"type": "web_search_20260318", "name": "w"})
    body, losses = anthropic.encode_request(request(tools=(search,)), NEW)
    assert body["tools"] == [search.definition]
    assert losses == []


def test_ids_that_would_clash_once_cleaned_stay_apart() -> None:
    calls = (ToolCall("a.b", "f", "{}"), ToolCall("a:b", "f", "{}"))
    results = tuple(Turn("tool", (ToolResult(c.id, (Text(c.id),)),)) for c in calls)
    body, _ = anthropic.encode_request(request(HI, Turn("assistant", calls), *results), NEW)
    made = [block["id"] for block in body["messages"][1]["content"]]
    assert len(set(made)) == 2
    assert [block["tool_use_id"] for block in body["messages"][2]["content"]] == made


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": [{"role": "x", "content": ""}]}, "messages[0].role"),
        (
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages[0].content[0].source",
        ),
        ({"model": "m", "messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"model": "m", "messages": [], "system": [3]}, "system[0]"),
        ({"model": "m", "messages": [], "tools": [{"type": "custom"}]}, "tools[0].name"),
        ({"model": "m", "messages": [], "tool_choice": {"type": "x"}}, "tool_choice.type"),
        ({"model": "m", "messages": [], "max_tokens": "many"}, "max_tokens"),
        ({"model": "m", "messages": [], "stop_sequences": [1]}, "stop_sequences[0]"),
        ({"model": "m", "messages": [], "metadata": {"user_id": 1}}, "metadata.user_id"),
        ({"model": "m", "messages": [], "output_config": {"format": 1}}, "output_config.format"),
    ],
)
def test_faults_name_their_place(body: dict[str, Any], param: str) -> None:
    with pytest.raises(MalformedRequest) as fault:
        anthropic.decode_request(body)
    assert fault.value.param == param


def test_the_word_auto() -> None:
    found = anthropic.decode_request(
        {
            "model": "auto",
            "messages": [{"role": "user", "content": "hi"}],
            "tools": "auto",
            "max_tokens": "auto",
            "thinking": "auto",
            "response_format": "auto",
        }
    )
    assert found.auto == {"model", "tools", "max_tokens", "reasoning", "response_format"}
    assert (found.tools, found.sampling.max_tokens, found.reasoning_effort) == ((), None, None)
    body, losses = anthropic.encode_request(found, NEW)
    assert "response_format" not in body
    assert losses == []


def test_results_become_turns_of_their_own() -> None:
    content = [
        {"type": "tool_result", "tool_use_id": "a", "content": "1"},
        {"type": "tool_result", "tool_use_id": "b", "is_error": True},
        {"type": "text", "text": "go"},
    ]
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    turns = anthropic.decode_request(body).turns
    assert [turn.role for turn in turns] == ["tool", "tool", "user"]
    assert turns[1].parts == (ToolResult("b", (), is_error=True),)


def test_a_budget_reads_as_the_effort_it_reaches(tools: dict[str, Callable[..., Any]]) -> None:
    told = {}
    for budget in (1, 1024, 5000, 10000, 20000, 99999):
        thinking = {"type": "enabled", "budget_tokens": budget}
        body = {"model": "m", "messages": [], "thinking": thinking}
        told[budget] = anthropic.decode_request(body).reasoning_effort
    assert list(told.values()) == ["minimal", "minimal", "low", "medium", "high", "xhigh"]


@pytest.mark.parametrize(
    ("model", "thinking", "sampling", "forced"),
    [
        ("claude-opus-5-5", "adaptive", False, "never"),
        ("us.anthropic.claude-opus-4.7-v1:0", "adaptive", False, "unthinking"),
        ("claude-fable-5", "adaptive", False, "always"),
        ("claude-fable-5-1-20260901", "adaptive", False, "never"),
        ("claude-sonnet-4-6@20260101", "adaptive", True, "unthinking"),
        ("claude-sonnet-4-20250514", "budget", True, "unthinking"),
        ("claude-opus-4-1-20250805", "budget", True, "unthinking"),
        ("claude-3-7-sonnet-latest", "budget", True, "unthinking"),
        ("claude-3-haiku-20240307", "none", True, "always"),
        ("claude-opus-9", "adaptive", False, "never"),
        ("glm-5", "budget", True, "unthinking"),
    ],
)
def test_families(model: str, thinking: str, sampling: bool, forced: str) -> None:
    found = family(model)
    assert (found.thinking, found.sampling, found.forced) == (thinking, sampling, forced)


def test_paths_and_counts() -> None:
    assert anthropic.target("m", True) == anthropic.target("m", False) == "/messages"
    assert anthropic.encode_count(7) == {"input_tokens": 7}
