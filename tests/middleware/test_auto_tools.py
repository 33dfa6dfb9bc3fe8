"""``tools: "auto"`` in every dialect: what is offered, what the client sees, what it may send back."""

import json

import pytest
from mounts import CHAT, HELLO, RESPONSES
from upstreams import Script

req = pytest.mark.requirement
ON = {"X-AI-Multi-Provider": "enabled"}
MESSAGES = "/v1/messages"
TOOLS = {"web-search": "browser_8w", "code-execution": "python_6h"}
ARGUMENTS = {"name": "browser_8w", "q": 'Zürich "4"', "deep": [1, None, True]}


def one(fakes, dialect, tools=None, **facts):
    row = {"name": "m", "model": facts.pop("upstream", "up"), "tools": tools or TOOLS, **facts}
    return fakes.config({"a": {"dialects": [dialect], "models": [row]}})


def chat_call(name):
    call = {"name": name, "arguments": json.dumps(ARGUMENTS)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
    }


def claude_call(name):
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "up",
        "content": [{"type": "tool_use", "id": "toolu_1", "name": name, "input": ARGUMENTS}],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 7},
    }


def gemini_call(name):
    part = {"functionCall": {"name": name, "args": ARGUMENTS}}
    return {
        "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 12},
        "modelVersion": "up",
    }


def sse_of(*frames):
    rows = [f"data: {json.dumps(frame)}\n\n" for frame in frames]
    return "".join([*rows, "data: [DONE]\n\n"]).encode()


def names_of(body):
    found = []
    for tool in body.get("tools", ()):
        for declared in tool.get("functionDeclarations", ()):
            found.append(declared["name"])
        if "functionDeclarations" not in tool:
            found.append(tool.get("function", tool).get("name") or tool.get("type"))
    return found


@req("XAI-AUTO-003", "XAI-TOOL-006")
@pytest.mark.parametrize(
    "dialect", ["chat", "responses", "anthropic", "gemini", "mistral", "cohere"]
)
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_every_dialect_is_offered_the_listed_tools(mount, fakes, dialect, path):
    served = mount(one(fakes, dialect))
    body = {"model": "m", "tools": "auto", "messages": HELLO, "max_tokens": 50}
    if path == RESPONSES:
        body = {"model": "m", "tools": "auto", "input": "Hello", "max_output_tokens": 50}
    got = served.post(path, body, ON)
    assert sorted(names_of(fakes.a.seen[0].body)) == ["browser_8w", "python_6h"], got
    assert served.record(got)["tools"]["selected"]


@pytest.mark.parametrize(
    ("dialect", "name", "entry"),
    [
        ("responses", "web_search", {"type": "web_search"}),
        (
            "responses",
            "code_interpreter",
            {"type": "code_interpreter", "container": {"type": "auto"}},
        ),
        ("responses", "image_generation", {"type": "image_generation"}),
        ("anthropic", "web_search", {"type": "web_search_20250305", "name": "web_search"}),
        (
            "anthropic",
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
        ),
        (
            "anthropic",
            "code_execution",
            {"type": "code_execution_20250825", "name": "code_execution"},
        ),
        ("gemini", "googleSearch", {"googleSearch": {}}),
        ("gemini", {"codeExecution": {}}, {"codeExecution": {}}),
        ("mistral", "image_generation", {"type": "image_generation"}),
    ],
)
def test_hosted_tools_are_written_as_their_dialect_does(mount, fakes, dialect, name, entry):
    served = mount(one(fakes, dialect, {"web-search": name}))
    for path, body in ((CHAT, {"messages": HELLO}), (RESPONSES, {"input": "Hello"})):
        got = served.post(path, {"model": "m", "tools": "auto", **body}, ON)
        assert fakes.a.seen[-1].body["tools"] == [entry]
        [row] = served.record(got)["tools"]["selected"]
        assert row["category"] == "web-search"
        assert row["generic_name"] == "web_search"


def test_chat_has_a_search_that_is_no_tool(mount, fakes):
    served = mount(one(fakes, "chat", {"web-search": "web_search_options"}))
    got = served.chat(ON, model="m", tools="auto", tool_choice="auto")
    assert got.status == 200, got
    body = fakes.a.seen[0].body
    assert body["web_search_options"] == {}
    assert "tools" not in body
    assert "tool_choice" not in body


def test_a_hosted_tool_decides_which_dialect_is_spoken(mount, fakes):
    config = one(fakes, "chat", {"web-search": "web_search"})
    config["providers"]["a"]["dialects"] = ["chat", "responses"]
    served = mount(config)
    got = served.chat(ON, model="m", tools="auto")
    assert got.status == 200, got
    assert fakes.a.seen[0].path == "/v1/responses"
    assert fakes.a.seen[0].body["tools"] == [{"type": "web_search"}]
    served.chat(ON, model="m")
    assert fakes.a.seen[1].path == "/v1/chat/completions"


def test_a_name_that_needs_settings_is_not_offered(mount, fakes):
    served = mount(one(fakes, "responses", {"file-search": "file_search", "x": "fine"}))
    got = served.post(
        RESPONSES,
        {"model": "m", "tools": "auto", "input": "Hi"},
        {**ON, "X-AI-Tool-Categories": "file-search,x"},
    )
    assert names_of(fakes.a.seen[0].body) == ["fine"]
    assert json.loads(got.header("x-ai-tool-mapping"))["unmapped"] == ["file-search"]


@req("XAI-TOOL-001")
def test_a_category_may_have_several_tools_and_whole_definitions(mount, fakes):
    full = {"name": "find", "description": "Finds.", "parameters": {"type": "object"}}
    served = mount(one(fakes, "chat", {"web-search": ["look", full]}))
    fakes.a.script = Script(message=chat_call("find"))
    got = served.chat(ON, model="m", tools="auto")
    assert names_of(fakes.a.seen[0].body) == ["look", "find"]
    assert fakes.a.seen[0].body["tools"][1]["function"]["description"] == "Finds."
    call = got.json["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["name"] == "web_search_2"


@req("XAI-TOOL-003")
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("What will the weather be tomorrow?", ["sky"]),
        ("Draw a picture of the weather map", ["sky", "brush"]),
        ("Hello", ["sky", "brush"]),
    ],
)
def test_without_categories_the_text_chooses(mount, fakes, text, names):
    served = mount(one(fakes, "chat", {"weather": "sky", "image-generation": "brush"}))
    served.chat(ON, model="m", tools="auto", messages=[{"role": "user", "content": text}])
    assert names_of(fakes.a.seen[0].body) == names


# --- names on the way back -----------------------------------------------------------------------


@req("XAI-TOOL-011")
@pytest.mark.parametrize("path", [CHAT, RESPONSES, "draft"])
@pytest.mark.parametrize(
    ("dialect", "script"),
    [
        ("chat", Script(message=chat_call("browser_8w"))),
        ("anthropic", Script(body=claude_call("browser_8w"))),
        ("gemini", Script(body=gemini_call("browser_8w"))),
    ],
)
def test_the_client_sees_generic_names(mount, fakes, dialect, script, path):
    served = mount(one(fakes, dialect))
    fakes.a.script = script
    body = {"model": "m", "tools": "auto", "max_tokens": 50, "messages": HELLO}
    if path == RESPONSES:
        body = {"model": "m", "tools": "auto", "input": "Hello"}
    got = served.post(RESPONSES if path == "draft" else path, body, ON)
    assert got.status == 200, got
    if path == CHAT:
        call = got.json["choices"][0]["message"]["tool_calls"][0]["function"]
    else:
        call = next(i for i in got.json["output"] if i["type"] == "function_call")
    assert call["name"] == "web_search"
    assert json.loads(call["arguments"]) == ARGUMENTS
    shown = {k: v for k, v in got.json.items() if k != "x-aiproxy"}
    assert '"name": "browser_8w"' not in json.dumps(shown)


@req("XAI-TOOL-011")
@pytest.mark.parametrize("path", [CHAT, RESPONSES, "draft"])
def test_the_end_of_a_stream_has_generic_names_too(mount, fakes, path):
    served = mount(one(fakes, "chat"))
    delta = {"index": 0, "id": "call_1", "type": "function"}
    call = {"name": "browser_8w", "arguments": json.dumps(ARGUMENTS)}
    fakes.a.script = Script(
        raw=sse_of(
            {"choices": [{"index": 0, "delta": {"tool_calls": [{**delta, "function": call}]}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        ),
        content_type="text/event-stream",
    )
    body = {"model": "m", "tools": "auto", "messages": HELLO, "stream": True}
    if path == RESPONSES:
        body = {"model": "m", "tools": "auto", "input": "Hello", "stream": True}
    got = served.post(RESPONSES if path == "draft" else path, body, ON)
    assert got.status == 200, got
    text = got.body.decode()
    assert '"web_search"' in text
    assert '"name":"browser_8w"' not in text
    assert '"name": "browser_8w"' not in text


@req("XAI-TOOL-011")
def test_two_names_may_change_places(mount, fakes):
    served = mount(one(fakes, "chat", {"a": "b", "b": "a"}))
    for theirs, ours in (("a", "b"), ("b", "a")):
        fakes.a.script = Script(message=chat_call(theirs))
        got = served.chat(ON, model="m", tools="auto")
        call = got.json["choices"][0]["message"]["tool_calls"][0]
        assert call["function"]["name"] == ours


@req("XAI-TOOL-011")
def test_a_foreign_ingress_sees_generic_names_and_its_arguments_untouched(mount, fakes):
    served = mount(one(fakes, "anthropic"))
    fakes.a.script = Script(body=claude_call("browser_8w"))
    body = {"model": "m", "max_tokens": 50, "tools": "auto", "messages": HELLO}
    got = served.post(MESSAGES, body, ON)
    assert got.status == 200, got
    [block] = got.json["content"]
    assert block["name"] == "web_search"
    assert block["input"] == ARGUMENTS
    sent = fakes.a.seen[0].body
    assert names_of(sent) == ["browser_8w", "python_6h"]
    assert sent["max_tokens"] == 50
    assert sent["messages"] == HELLO

    served = mount(one(fakes, "gemini"))
    fakes.a.script = Script(body=gemini_call("browser_8w"))
    contents = [{"role": "user", "parts": [{"text": "Hello"}]}]
    got = served.post(
        "/v1beta/models/m:generateContent", {"contents": contents, "tools": "auto"}, ON
    )
    assert got.status == 200, got
    [part] = got.json["candidates"][0]["content"]["parts"]
    assert part["functionCall"] == {"name": "web_search", "args": ARGUMENTS}
    assert fakes.a.seen[-1].body["contents"] == contents


# --- names the client sends back -----------------------------------------------------------------


def history(name="web_search"):
    return [
        *HELLO,
        chat_call(name),
        {"role": "tool", "tool_call_id": "call_1", "content": "found it"},
    ]


@req("XAI-TOOL-012")
def test_earlier_calls_go_back_under_the_providers_name(mount, fakes):
    turns = history()
    mount(one(fakes, "chat")).chat(ON, model="m", tools="auto", messages=turns)
    sent = fakes.a.seen[0].body["messages"]
    assert sent[1]["tool_calls"][0]["function"]["name"] == "browser_8w"
    assert sent[1]["tool_calls"][0]["id"] == "call_1"
    assert [sent[0], sent[2]] == [turns[0], turns[2]]

    mount(one(fakes, "anthropic")).chat(ON, model="m", tools="auto", messages=turns)
    blocks = [b for t in fakes.a.seen[1].body["messages"] for b in t["content"] if b != "H"]
    uses = [b for b in blocks if isinstance(b, dict) and b["type"] == "tool_use"]
    results = [b for b in blocks if isinstance(b, dict) and b["type"] == "tool_result"]
    assert [use["name"] for use in uses] == ["browser_8w"]
    assert uses[0]["id"] == results[0]["tool_use_id"]

    mount(one(fakes, "gemini")).chat(ON, model="m", tools="auto", messages=turns)
    parts = [p for t in fakes.a.seen[2].body["contents"] for p in t["parts"]]
    assert [p["functionCall"]["name"] for p in parts if "functionCall" in p] == ["browser_8w"]
    named = [p["functionResponse"]["name"] for p in parts if "functionResponse" in p]
    assert named == ["browser_8w"]


@req("XAI-TOOL-012")
def test_a_result_of_an_unknown_call_is_refused(mount, fakes):
    turns = history()
    turns[2] = {**turns[2], "tool_call_id": "call_strange"}
    for dialect in ("anthropic", "gemini", "cohere"):
        got = mount(one(fakes, dialect)).chat(ON, model="m", tools="auto", messages=turns)
        assert (got.status, got.error["code"]) == (400, "invalid_value"), got
        assert got.error["param"] == "messages"
    assert fakes.called() == {}


@req("XAI-TOOL-012")
def test_explicit_tools_keep_their_names(mount, fakes):
    turns = history()
    mine = [{"type": "function", "function": {"name": "web_search", "parameters": {}}}]
    mount(one(fakes, "chat")).chat(ON, model="m", tools=mine, messages=turns)
    assert fakes.a.seen[0].body["messages"] == turns
    assert fakes.a.seen[0].body["tools"] == mine


@req("XAI-TOOL-014")
def test_a_named_choice_becomes_the_providers_name_or_is_refused(mount, fakes):
    served = mount(one(fakes, "chat"))
    choice = {"type": "function", "function": {"name": "web_search"}}
    got = served.chat(ON, model="m", tools="auto", tool_choice=choice)
    assert got.status == 200, got
    assert fakes.a.seen[0].body["tool_choice"]["function"]["name"] == "browser_8w"
    for name, headers in (
        ("nosuch", ON),
        ("web_search", {**ON, "X-AI-Tool-Categories": "code-execution"}),
        ("web_search", {"X-AI-Multi-Provider": "disabled"}),
    ):
        strange = {"type": "function", "function": {"name": name}}
        got = served.chat(headers, model="m", tools="auto", tool_choice=strange)
        assert (got.status, got.error["code"]) == (400, "invalid_value"), got
        assert got.error["param"] == "tool_choice"
    assert len(fakes.a.seen) == 1
    body = {"model": "m", "max_tokens": 9, "tools": "auto", "messages": HELLO}
    strange = {"type": "tool", "name": "nosuch"}
    got = served.post(MESSAGES, {**body, "tool_choice": strange}, ON)
    assert (got.status, got.json["error"]["type"]) == (400, "invalid_request_error"), got


@pytest.mark.parametrize(
    ("dialect", "path", "written"),
    [
        ("responses", RESPONSES, {"type": "web_search"}),
        ("responses", CHAT, {"type": "web_search"}),
        ("anthropic", CHAT, {"type": "tool", "name": "web_search"}),
    ],
)
def test_a_hosted_tool_can_be_chosen_by_its_generic_name(mount, fakes, dialect, path, written):
    served = mount(one(fakes, dialect, {"web-search": "web_search"}))
    if path == CHAT:
        choice = {"type": "function", "function": {"name": "web_search"}}
        body = {"messages": HELLO, "tool_choice": choice}
    else:
        body = {"input": "Hello", "tool_choice": {"type": "function", "name": "web_search"}}
    served.post(path, {"model": "m", "tools": "auto", **body}, ON)
    assert fakes.a.seen[0].body["tool_choice"] == written


def test_a_choice_that_cannot_be_made_goes_to_somebody_else(mount, fakes):
    rows = {"a": {"code-execution": "run"}, "b": {"web-search": "look"}}
    config = fakes.config(
        {name: {"models": [{"name": "m", "tools": tools}]} for name, tools in rows.items()}
    )
    choice = {"type": "function", "function": {"name": "web_search"}}
    served = mount(config)
    got = served.chat(ON, model="m", tools="auto", tool_choice=choice)
    assert got.provider == "b"
    got = served.chat({**ON, "X-AI-Provider-Pool": "a"}, model="m", tools="auto",
                      tool_choice=choice)  # fmt: skip
    assert got.status == 400
    bare = mount(fakes.config({"a": ["m"]}))
    got = bare.chat(ON, model="m", tools="auto", tool_choice="required")
    assert (got.status, got.error["code"]) == (422, "no_eligible_provider")


@req("XAI-TOOL-015")
def test_the_mapping_lists_what_there_is_to_choose_from(mount, fakes):
    config = fakes.config(
        {
            "a": {"models": [{"name": "m-a", "tools": TOOLS}]},
            "b": {"models": [{"name": "m-b", "tools": {"weather": "sky"}}]},
        }
    )
    got = mount(config).chat({"X-AI-Provider-Pool": "a"}, tools="auto")
    mapping = json.loads(got.header("x-ai-tool-mapping"))
    assert mapping["available_categories"] == ["code-execution", "weather", "web-search"]
    assert mapping["provider_tools"] == {"a": ["browser_8w", "python_6h"], "b": ["sky"]}
    got = mount({**config, "transparency": "minimal"}).chat(ON, tools="auto")
    assert got.header("x-ai-tool-mapping") is None
