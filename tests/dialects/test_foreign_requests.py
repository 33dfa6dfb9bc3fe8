"""What requests of other dialects hold and chat and Responses do not know is never sent, always told."""

import json
from typing import Any

import pytest

from aiproxy.middleware.dialects import (
    CanonicalRequest,
    File,
    Opaque,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
    Untranslatable,
    chat,
    draft,
    responses,
)
from aiproxy.middleware.dialects.codecs import codec

CACHE = {"cache_control": {"type": "ephemeral"}}
TARGETS: dict[str, Any] = {"chat": chat, "responses": responses}
CALL = ToolCall("c", "f", "{}", extra=CACHE)


def request(*turns: Turn, **more: Any) -> CanonicalRequest:
    return CanonicalRequest("m", turns, "anthropic", **more)


def sent(target: str, given: CanonicalRequest) -> tuple[dict[str, Any], list[str]]:
    body, losses = TARGETS[target].encode_request(given, "m")
    return body, [loss.feature for loss in losses]


@pytest.mark.parametrize("target", TARGETS)
def test_marks_of_what_to_cache_are_told_once(target: str) -> None:
    body, losses = sent(
        target,
        request(
            Turn("system", (Text("Be brief", extra=CACHE),), extra=CACHE),
            Turn("user", (Text("Hi", extra=CACHE), Text("you", extra=CACHE))),
            Turn("assistant", (CALL,), form="null"),
            Turn("tool", (ToolResult("c", (Text("sun", extra=CACHE),), False, extra=CACHE),)),
            tools=(Tool("f", parameters={"type": "object"}, extra=CACHE),),
        ),
    )
    assert "cache_control" not in json.dumps(body)
    assert losses == ["cache_control"]


@pytest.mark.parametrize("target", TARGETS)
def test_other_members_of_tools_turns_and_parts_are_told(target: str) -> None:
    body, losses = sent(
        target,
        request(
            Turn(
                "user", (Text("Hi", extra={"mark": 1}),), extra={"mood": "x", "id": "bookkeeping"}
            ),
            Turn("assistant", (ToolCall("c", "f", "{}", extra={"caller": {"type": "x"}}),)),
            Turn("tool", (ToolResult("c", (Text("no"),), is_error=True, extra={"hint": 1}),)),
            tools=(Tool("f", extra={"eager": True}),),
        ),
    )
    wire = json.dumps(body)
    assert not any(word in wire for word in ("mark", "mood", "caller", "hint", "eager"))
    assert set(losses) == {"part_members", "message_members", "tool_call", "tool_result",
                           "tool_members"}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_results_beside_text_are_all_sent(target: str) -> None:
    turn = Turn("user", (ToolResult("c", (Text("sun"),)), Text("Thanks")))
    body, losses = sent(target, request(Turn("assistant", (ToolCall("c", "f", "{}"),)), turn))
    wire = json.dumps(body)
    assert "sun" in wire
    assert "Thanks" in wire
    assert losses == []


@pytest.mark.parametrize("target", TARGETS)
def test_data_of_a_file_goes_as_a_data_url_with_a_name(target: str) -> None:
    pdf = File(data="JVBERg==", media_type="application/pdf")
    body, _ = sent(target, request(Turn("user", (pdf,))))
    wire = json.dumps(body)
    assert '"data:application/pdf;base64,JVBERg=="' in wire
    assert '"filename": "document.pdf"' in wire


@pytest.mark.parametrize("target", TARGETS)
def test_tools_that_run_elsewhere(target: str) -> None:
    tool = Tool("web_search", "hosted", definition={"type": "web_search_20250305"})
    body, losses = sent(target, request(Turn("user", (Text("Hi"),)), tools=(tool,)))
    assert "tools" not in body
    assert losses == ["hosted_tool"]
    choice = ToolChoice("hosted", "web_search", definition={"type": "web_search_20250305"})
    with pytest.raises(Untranslatable):
        sent(target, request(Turn("user", (Text("Hi"),)), tools=(tool,), tool_choice=choice))


@pytest.mark.parametrize("target", TARGETS)
def test_parts_only_another_dialect_understands(target: str) -> None:
    part = Opaque("anthropic", "search_result", {"type": "search_result", "mine": 1})
    body, losses = sent(target, request(Turn("user", (Text("Hi"), part, part))))
    assert "mine" not in json.dumps(body)
    assert losses == ["content_part"]


def test_top_k_is_for_servers_whose_clients_know_it() -> None:
    given = request(Turn("user", (Text("Hi"),)), sampling=Sampling(top_k=4))
    assert sent("chat", given) == (
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        ["top_k"],
    )
    own = chat.decode_request({"model": "m", "messages": [], "top_k": 4})
    assert chat.encode_request(own, "m")[0]["top_k"] == 4


def test_sealed_reasoning_need_not_be_asked_for() -> None:
    body = {"model": "m", "input": "Hi", "include": ["reasoning.encrypted_content"]}
    assert chat.encode_request(responses.decode_request(body), "m")[1] == []


@pytest.mark.parametrize("name", ["chat", "responses", "draft"])
def test_every_dialect_has_the_same_api(name: str) -> None:
    module = codec(name)
    assert module is {"chat": chat, "responses": responses, "draft": draft}[name]
    path = {"chat": "/chat/completions"}.get(name, "/responses")
    assert module.target("any/model", True) == module.target("m", False) == path
    error = {"message": "no", "type": "t", "param": None, "code": "c"}
    assert module.encode_error(400, error) == {"error": error}
    message = {"role": "assistant", "content": "Hi"}
    body = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "output": [{"type": "message", "role": "assistant", "content": []}],
        "status": "completed",
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    assert module.check_reply(body) is None
    usage = module.read_usage(body)
    assert (usage.input, usage.output) == (5, 2)
    assert module.check_reply({"error": {"message": "secret"}}) == "the body holds an error object"


@pytest.mark.parametrize(
    ("member", "value"), [("stop_sequence", "END"), ("stop_reason", "END"), ("stop_reason", 128009)]
)
def test_the_stop_sequence_of_a_chat_server(member: str, value: object) -> None:
    message = {"role": "assistant", "content": "Hi"}
    choice = {"index": 0, "message": message, "finish_reason": "stop", member: value}
    expected = value if isinstance(value, str) else None
    assert chat.decode_reply({"choices": [choice]}).choices[0].stop_sequence == expected
    decoder = chat.StreamDecoder()
    events = decoder.feed({"choices": [{"delta": {"content": "Hi"}, **choice}]})
    assert [getattr(e, "stop_sequence", None) for e in [*events, *decoder.finish()]][-1] == expected
