"""What agents that speak Anthropic's or Google's API do all day, at providers of other APIs."""

import pytest
from mounts import model
from upstreams import Script

MESSAGES = "/v1/messages"
ON = {"X-AI-Multi-Provider": "enabled"}
PIXEL = "iVBORw0KGgo="
SEES = {"capabilities": ["text-generation", "vision"]}
PICTURE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
}
ASKED = {"model": "m-a", "max_tokens": 32, "messages": [{"role": "user", "content": "Hello"}]}


def results(*contents):
    """A conversation whose calls were answered with those contents, and a question behind."""
    calls = [
        {"type": "tool_use", "id": f"toolu_{n}", "name": "look", "input": {}}
        for n, _ in enumerate(contents)
    ]
    told = [
        {"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": content}
        for n, content in enumerate(contents)
    ]
    turns = [
        *ASKED["messages"],
        {"role": "assistant", "content": calls},
        {"role": "user", "content": [*told, {"type": "text", "text": "So?"}]},
    ]
    return {**ASKED, "messages": turns}


def losses(got):
    return {row["feature"] for row in got.json["x-aiproxy"].get("losses", ())}


@pytest.fixture
def chatting(pair):
    """``chatting(**facts)``: a mount whose provider speaks Chat Completions only."""
    return lambda **facts: pair(facts, provider_a={"dialects": ["chat"]})


# --- pictures that tools give --------------------------------------------------------------------


def test_pictures_of_tools_are_shown_to_a_chat_model(chatting, fakes):
    body = results([PICTURE], [{"type": "text", "text": "a text"}])
    got = chatting(**SEES).post(MESSAGES, body, ON)
    assert got.status == 200, got
    *_, first, second, shown, question = fakes.a.seen[0].body["messages"]
    assert (first["role"], first["tool_call_id"], first["content"]) == ("tool", "toolu_0", "")
    assert (second["role"], second["content"]) == ("tool", "a text")
    assert shown["role"] == "user"
    assert [part["image_url"]["url"] for part in shown["content"]] == [
        "data:image/png;base64," + PIXEL
    ]
    assert question == {"role": "user", "content": "So?"}
    assert "tool_result" in losses(got)


def test_pictures_of_the_last_tools_are_shown_too(chatting, fakes):
    body = results([{"type": "text", "text": "map"}, PICTURE])
    body["messages"][-1]["content"].pop()
    assert chatting(**SEES).post(MESSAGES, body, ON).status == 200
    *_, told, shown = fakes.a.seen[0].body["messages"]
    assert (told["role"], told["content"]) == ("tool", "map")
    assert PIXEL in shown["content"][0]["image_url"]["url"]


def test_pictures_of_tools_are_shown_to_cohere(pair, fakes):
    answer = {"role": "assistant", "content": [{"type": "text", "text": "ok"}]}
    fakes.a.script = Script(body={"id": "c", "finish_reason": "COMPLETE", "message": answer})
    served = pair(SEES, provider_a={"dialects": ["cohere"]})
    assert served.post(MESSAGES, results([PICTURE], "text"), ON).status == 200
    *_, first, second, shown, _question = fakes.a.seen[0].body["messages"]
    assert [first["role"], second["role"], shown["role"]] == ["tool", "tool", "user"]
    assert PIXEL in shown["content"][0]["image_url"]["url"]


def test_a_result_without_content_is_an_empty_text(chatting, fakes):
    assert chatting().post(MESSAGES, results([]), ON).status == 200
    assert fakes.a.seen[0].body["messages"][-2]["content"] == ""


# --- thinking ------------------------------------------------------------------------------------


def google(**thinking):
    path = "/v1beta/models/m-a:generateContent"
    contents = [{"role": "user", "parts": [{"text": "Hello"}]}]
    return path, {"contents": contents, "generationConfig": {"thinkingConfig": thinking}}


THINKING = [
    (MESSAGES, {**ASKED, "max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 5000}}),
    (MESSAGES, {**ASKED, "thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}),
    google(thinkingBudget=5000),
]  # fmt: skip
UNTHINKING = [
    (MESSAGES, {**ASKED, "thinking": {"type": "disabled"}}),
    google(thinkingBudget=0),
]


@pytest.mark.parametrize(("path", "body"), THINKING)
def test_thinking_is_not_asked_of_a_model_that_is_not_said_to(chatting, fakes, path, body):
    """Most chat models answer the parameter with 400, and these clients send it by habit."""
    got = chatting().post(path, body, ON)
    assert got.status == 200
    assert "reasoning_effort" not in fakes.a.seen[0].body
    assert "reasoning" in losses(got)


@pytest.mark.parametrize(("path", "body"), UNTHINKING)
def test_thinking_that_is_declined_is_no_loss_where_there_is_none(chatting, fakes, path, body):
    got = chatting().post(path, body, ON)
    assert "reasoning_effort" not in fakes.a.seen[0].body
    assert "reasoning" not in losses(got)


@pytest.mark.parametrize(("path", "body"), THINKING)
def test_thinking_is_asked_of_a_model_that_can(chatting, fakes, path, body):
    assert chatting(reasoning="native").post(path, body, ON).status == 200
    assert fakes.a.seen[0].body["reasoning_effort"] in ("medium", "low", "high")


@pytest.mark.parametrize("kind", [{"type": "enabled", "budget_tokens": 5000}, {"type": "disabled"}])
@pytest.mark.parametrize("reasoning", ["native", "none"])
def test_cohere_is_not_sent_thinking_in_anthropics_words(mount, fakes, kind, reasoning):
    answer = {"role": "assistant", "content": [{"type": "text", "text": "ok"}]}
    fakes.a.script = Script(body={"id": "c", "finish_reason": "COMPLETE", "message": answer})
    row = model("m-a", reasoning=reasoning)
    served = mount(fakes.config({"a": {"dialects": ["cohere"], "models": [row]}}))
    assert served.post(MESSAGES, {**ASKED, "thinking": kind}, ON).status == 200
    sent = fakes.a.seen[0].body.get("thinking", {})
    assert set(sent) <= {"type", "token_budget"}


# --- who asks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_a_long_name_of_the_user_is_lost_where_openai_would_refuse_it(pair, fakes, dialect):
    served = pair(provider_a={"dialects": [dialect]})
    for name, sent in (("u" * 64, "u" * 64), ("u" * 65, None)):
        got = served.post(MESSAGES, {**ASKED, "metadata": {"user_id": name}}, ON)
        assert fakes.a.seen[-1].body.get("user") == sent
        assert ("user" in losses(got)) is (sent is None)


# --- Google's array ------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_array_is_json_however_the_provider_writes_its_events(pair, fakes, end):
    """An event may hold its data in several lines, which are one document."""
    lines = [
        'data: {"candidates": [{"content": {"parts": [{"text": "hi"}]},',
        'data:  "finishReason": "STOP"}], "modelVersion": "at-google"}',
    ]
    first = 'data: {"candidates": [{"content": {"parts": [{"text": "oh "}]}}]}'
    wire = first + end * 2 + lines[0] + end + lines[1] + end * 2
    fakes.a.script = Script(raw=wire.encode(), content_type="text/event-stream")
    served = pair(provider_a={"dialects": ["gemini"]})
    path, body = google()
    got = served.post(path.replace(":generate", ":streamGenerate"), body, ON)
    texts = [row["candidates"][0]["content"]["parts"][0]["text"] for row in got.json]
    assert texts == ["oh ", "hi"]
    assert got.json[-1]["candidates"][0]["finishReason"] == "STOP"


# --- what those APIs take, too -------------------------------------------------------------------


ALONE = {
    "system_instruction": {"parts": {"text": "Be brief."}},
    "contents": {"parts": {"text": "Hello"}},
    "tools": {"function_declarations": {"name": "look", "parameters": {"type": "OBJECT"}}},
}


def test_google_takes_one_thing_in_the_place_of_a_list(pair, chatting, fakes):
    """As its own documentation writes it."""
    path, _ = google()
    assert chatting().post(path, ALONE, ON).status == 200
    sent = fakes.a.seen[-1].body
    assert [(turn["role"], turn["content"]) for turn in sent["messages"]] == [
        ("system", "Be brief."),
        ("user", "Hello"),
    ]
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["look"]
    content = {"role": "model", "parts": [{"text": "hi"}]}
    fakes.a.script = Script(body={"candidates": [{"content": content, "finishReason": "STOP"}]})
    assert pair(provider_a={"dialects": ["gemini"]}).post(path, ALONE, ON).status == 200
    assert fakes.a.seen[-1].body == ALONE
    count = path.replace("generateContent", "countTokens")
    assert pair().post(count, {"contents": ALONE["contents"]}, ON).json["totalTokens"] > 0


def test_a_prompt_may_be_put_into_the_cache_without_an_answer(pair, chatting, fakes):
    """``max_tokens: 0`` means that in Anthropic's API, and nothing in any other."""
    body = {**ASKED, "max_tokens": 0}
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m-a",
        "content": [],
        "stop_reason": "max_tokens",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 0},
    }
    got = chatting().post(MESSAGES, body, ON)
    assert (got.status, got.json["error"]["type"]) == (422, "invalid_request_error")
    assert "a" not in fakes.called()
    fakes.a.script = Script(body=answer)
    got = pair(provider_a={"dialects": ["anthropic"]}).post(MESSAGES, body, ON)
    assert (got.status, got.json["stop_reason"]) == (200, "max_tokens")
    assert fakes.a.seen[-1].body == body


def test_a_prompt_that_google_keeps_goes_to_nobody_else(pair, chatting, fakes):
    path, body = google()
    kept = {**body, "cachedContent": "cachedContents/abc"}
    got = chatting().post(path, kept, ON)
    assert (got.status, got.json["error"]["status"]) == (422, "INVALID_ARGUMENT")
    assert "a" not in fakes.called()
    content = {"role": "model", "parts": [{"text": "hi"}]}
    fakes.a.script = Script(body={"candidates": [{"content": content, "finishReason": "STOP"}]})
    assert pair(provider_a={"dialects": ["gemini"]}).post(path, kept, ON).status == 200
    assert fakes.a.seen[-1].body == kept


def test_a_part_that_nobody_here_knows_reaches_google(pair, chatting, fakes):
    path, body = google()
    body["contents"][0]["parts"].append({"hologram": {"of": "x"}})
    content = {"role": "model", "parts": [{"text": "hi"}]}
    fakes.a.script = Script(body={"candidates": [{"content": content, "finishReason": "STOP"}]})
    assert pair(provider_a={"dialects": ["gemini"]}).post(path, body, ON).status == 200
    assert fakes.a.seen[-1].body == body
    fakes.a.script = Script()
    got = chatting().post(path, body, ON)
    assert got.status == 200
    assert "content_part" in losses(got)


# --- paths of those APIs that are not served -----------------------------------------------------

KEY = "client-key-canary"


@pytest.mark.parametrize(
    ("path", "header", "own"),
    [
        ("/v1beta/cachedContents", "x-goog-api-key", {}),
        ("/v1/cachedContents", "x-goog-api-key", {"x-goog-api-client": "google-genai-sdk/3"}),
        ("/v1/files", "x-api-key", {"anthropic-version": "2023-06-01"}),
    ],
)
def test_other_paths_of_an_api_take_its_key_and_refuse_in_its_words(pair, path, header, own):
    auth = {"auth": {"api_keys": [{"name": "web", "key": KEY}]}}
    served = pair(routing={"scope": "all", "default_provider": "a"}, security=auth)
    got = served.get(path, {**own, header: KEY})
    assert (got.status, got.body) == (200, b"page " + path.encode())
    got = served.get(path, {**own, header: "wrong"})
    error = got.json["error"]
    told = error.get("status") or error.get("type")
    assert (got.status, told) in ((401, "UNAUTHENTICATED"), (401, "authentication_error"))
    assert served.get("/v1/files", {"x-api-key": KEY}).status == 401
