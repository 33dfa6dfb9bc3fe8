"""Clients of Anthropic's and Google's APIs, and of completions, on both mounts."""

import json

import pytest
from mounts import CHAT, model
from upstreams import Script

from aiproxy.middleware import AIProxyMiddleware, AIProxyWSGIMiddleware

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
ON = {"X-AI-Multi-Provider": "enabled"}
HELLO = {"max_tokens": 32, "messages": [{"role": "user", "content": "Hello"}]}
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
KEY = "client-key-canary"
KEYED = {"auth": {"api_keys": [{"name": "web", "key": KEY}]}}
CHAT_ONLY = {"provider_a": {"dialects": ["chat"]}, "provider_b": {"dialects": ["chat"]}}
ALL = {"routing": {"scope": "all", "default_provider": "a"}}


def google(name="m-a", action="generateContent", query=""):
    return f"/v1beta/models/{name}:{action}{query}"


def asked(kind, name="m-a", stream=False):
    """Path and body of a request of a kind."""
    if kind == "anthropic":
        return MESSAGES, {"model": name, "stream": stream, **HELLO}
    if kind == "gemini":
        action = "streamGenerateContent" if stream else "generateContent"
        return google(name, action, "?alt=sse" if stream else ""), CONTENTS
    return "/v1/completions", {"model": name, "prompt": "Hello", "stream": stream}


def said(kind, got):
    """The text of an answer, streamed or not."""
    if got.header("content-type").startswith("text/event-stream"):
        rows = [row for row in got.events if row != "[DONE]"]
        if kind == "anthropic":
            deltas = [row["delta"] for row in rows if row["type"] == "content_block_delta"]
            return "".join(delta["text"] for delta in deltas).strip()
    else:
        rows = [got.json]
        if kind == "anthropic":
            return "".join(block["text"] for block in got.json["content"])
    if kind == "gemini":
        contents = [row["candidates"][0].get("content") or {} for row in rows]
        return "".join(p["text"] for c in contents for p in c.get("parts") or ()).strip()
    return "".join(choice["text"] for row in rows for choice in row["choices"]).strip()


def refusal(kind, got):
    """Status word and text of a refusal, in the shape its client expects."""
    error = got.json["error"]
    if kind == "anthropic":
        assert got.json["type"] == "error"
        assert got.json["request_id"] == got.header("request-id") == got.header("x-request-id")
        return error["type"], error["message"]
    if kind == "gemini":
        assert error["code"] == got.status
        return error["status"], error["message"]
    return error["code"], error["message"]


KINDS = ("anthropic", "gemini", "completions")
FOREIGN = KINDS[:2]


@pytest.fixture
def served(pair):
    return pair(**ALL)


# --- opt-in: the application's own requests ------------------------------------------------------


@pytest.mark.parametrize(
    "path", [MESSAGES, COUNT, google(), google("m-a", "streamGenerateContent", "?alt=sse&key=x")]
)
def test_a_request_without_our_headers_is_the_applications(pair, fakes, path):
    served = pair()
    body = json.dumps({"model": "m-a", **HELLO, **CONTENTS}).encode()
    headers = {"content-type": "application/json", "x-api-key": "app-key"}
    got = served.post(path, body, headers)
    assert (got.status, got.body) == (200, b"page " + path.partition("?")[0].encode())
    assert served.host[-1] == ("POST", path.partition("?")[0], body)
    assert got.header("x-request-id") is None
    assert fakes.called() == {}


def test_lists_and_other_actions_are_the_applications_even_with_our_headers(pair, fakes):
    served = pair()
    for method, path in (
        ("GET", "/v1/models"),
        ("GET", "/v1beta/models"),
        ("GET", google()),
        ("POST", google("m-a", "embedContent")),
        ("POST", "/v1/messages/batches"),
    ):
        headers = {**ON, "anthropic-version": "2023-06-01"}
        got = served.request(method, path, CONTENTS if method == "POST" else None, headers)
        assert got.body == b"page " + path.encode()
    assert fakes.called() == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_with_our_headers_is_routed(pair, fakes, kind, stream):
    path, body = asked(kind, "auto", stream)
    served = pair({}, {"quality": 0.95}, **CHAT_ONLY)
    got = served.post(path, body, {**ON, "X-AI-Quality-Threshold": "0.9"})
    assert (got.status, got.provider, said(kind, got)) == (200, "b", "served by b")
    assert got.selection["model_selection"]["selected"] == "m-b"
    [seen] = fakes.b.seen
    assert seen.body["model"] == "m-b"


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FOREIGN)
def test_an_answer_tells_its_provider_and_cost(served, kind):
    path, body = asked(kind)
    got = served.post(path, body)
    assert got.status == 200
    told = got.json["x-aiproxy"]
    assert (told["provider"], told["model"]) == ("a", "m-a")
    assert told["cost"] == pytest.approx(21 * 0.001 / 1000)
    assert not [name for name, _ in got.headers if name.startswith("x-ai-")]
    record = served.record(got)
    assert record["selected"]["provider"] == "a"
    assert record["requested"]["endpoint"] == (
        MESSAGES if kind == "anthropic" else google("{model}")
    )


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_stream_tells_its_provider_and_cost(served, kind):
    path, body = asked(kind, stream=True)
    got = served.post(path, body)
    assert got.header("content-type").startswith("text/event-stream")
    [told] = [row["x-aiproxy"] for row in got.events if "x-aiproxy" in row]
    assert (told["provider"], told["cost"] > 0) == ("a", True)
    assert "[DONE]" not in got.events


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True])
def test_failover_is_invisible_but_told(pair, fakes, kind, stream):
    fakes.a.script = Script(status=503)
    path, body = asked(kind, "auto", stream)
    got = pair(**CHAT_ONLY).post(path, body, {**ON, "X-AI-Routing-Strategy": "cost"})
    assert (got.status, said(kind, got)) == (200, "served by b")
    assert got.header("x-ai-failover-occurred") == "true"
    assert fakes.called() == {"a": fakes.called()["a"], "b": 1}


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_wrapped_application_is_asked_in_its_own_api(mount, fakes, kind):
    config = fakes.config({"a": [model("m-a")]}, routing={"scope": "all", "default_provider": None})
    served = mount({**config, "security": KEYED})
    path, body = asked(kind, "house-model")
    name = "x-api-key" if kind == "anthropic" else "x-goog-api-key"
    got = served.post(path, body, {name: KEY})
    assert (got.status, said(kind, got)) == (200, "served by app")
    [(method, where, sent)] = served.host
    assert (method, where) == ("POST", CHAT)
    assert json.loads(sent)["messages"] == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("kind", FOREIGN)
def test_tool_calls_go_out_and_results_come_back(served, fakes, kind):
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
    }
    fakes.a.script = Script(message={"role": "assistant", "content": None, "tool_calls": [call]})
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    path, body = asked(kind)
    if kind == "anthropic":
        tool = {"name": "weather", "description": "d", "input_schema": schema}
        got = served.post(path, {**body, "tools": [tool]})
        [block] = [row for row in got.json["content"] if row["type"] == "tool_use"]
        assert (block["name"], block["input"]) == ("weather", {"city": "Paris"})
        assert got.json["stop_reason"] == "tool_use"
        result = {"type": "tool_result", "tool_use_id": block["id"], "content": "sunny"}
        turns = [
            *body["messages"],
            {"role": "assistant", "content": got.json["content"]},
            {"role": "user", "content": [result]},
        ]
        again = {**body, "tools": [tool], "messages": turns}
    else:
        tools = [{"functionDeclarations": [{"name": "weather", "parameters": schema}]}]
        got = served.post(path, {**body, "tools": tools})
        content = got.json["candidates"][0]["content"]
        [block] = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
        assert (block["name"], block["args"]) == ("weather", {"city": "Paris"})
        result = {"name": "weather", "response": {"output": "sunny"}}
        if "id" in block:
            result["id"] = block["id"]
        turns = [
            *body["contents"],
            content,
            {"role": "user", "parts": [{"functionResponse": result}]},
        ]
        again = {"contents": turns, "tools": tools}
    fakes.a.script = Script()
    assert said(kind, served.post(path, again)) == "served by a"
    first, second = fakes.a.seen
    assert first.body["tools"][0]["function"]["name"] == "weather"
    calling, told = second.body["messages"][-2:]
    assert told["role"] == "tool"
    assert told["tool_call_id"] == calling["tool_calls"][0]["id"]
    assert "sunny" in json.dumps(told["content"])


@pytest.mark.parametrize("kind", FOREIGN)
def test_parameters_left_to_the_router_are_resolved(pair, fakes, kind):
    served = pair({"tools": {"web-search": "finder"}}, **CHAT_ONLY)
    path, body = asked(kind, "auto")
    if kind == "anthropic":
        body = {**body, "max_tokens": "auto", "tools": "auto", "thinking": "auto"}
    else:
        limit = {"maxOutputTokens": "auto"}
        body = {**body, "tools": "auto", "generationConfig": limit}
    headers = {**ON, "X-AI-Provider-Pool": "a", "X-AI-Tool-Categories": "web-search"}
    got = served.post(path, body, headers)
    assert got.status == 200, got
    [seen] = fakes.a.seen
    assert [tool["function"]["name"] for tool in seen.body["tools"]] == ["finder"]
    assert [seen.body[name] > 0 for name in seen.body if name.startswith("max_")] == [True]
    assert got.decisions["model_selection"]["selected"] == "m-a"
    assert got.decisions["token_optimization"]["requested"] == "auto"
    assert got.decisions["tool_mapping"]["selected_tools"][0]["provider_tool"] == "finder"


def test_a_beta_is_heard_by_its_own_api_and_lost_elsewhere(pair, fakes):
    served = pair(**ALL)
    path, body = asked("anthropic")
    got = served.post(path, body, {"anthropic-beta": "one-2026", "anthropic-version": "x"})
    assert "beta" in {row["feature"] for row in got.json["x-aiproxy"]["losses"]}
    assert "anthropic-beta" not in fakes.a.seen[-1].headers
    served = pair(**ALL, provider_a={"dialects": ["anthropic"]})
    fakes.a.script = Script(body=ANSWER)
    got = served.post(path, body, {"anthropic-beta": "one-2026"})
    assert (got.status, said("anthropic", got)) == (200, "hi")
    assert "losses" not in got.json["x-aiproxy"]
    assert fakes.a.seen[-1].headers["anthropic-beta"] == "one-2026"


ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m-a",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 1},
}


def test_what_stays_in_its_api_is_the_clients_own(pair, fakes):
    """Members nobody here knows, the order of members, the spelling of numbers."""
    served = pair(**ALL, provider_a={"dialects": ["anthropic"]})
    fakes.a.script = Script(body={**ANSWER, "novel": {"a": 1}})
    body = {"novel": [1.50], "model": "m-a", **HELLO, "top_k": 3}
    got = served.post(MESSAGES, body)
    assert fakes.a.seen[-1].body == body
    assert fakes.a.seen[-1].path == "/v1/messages"
    assert got.json["novel"] == {"a": 1}
    chunk = {
        "candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP", "n": 1}],
        "modelVersion": "m-a",
    }
    served = pair(**ALL, provider_a={"dialects": ["gemini"]})
    fakes.a.script = Script(
        raw=b": a comment\n\ndata: " + json.dumps(chunk).encode() + b"\r\n\r\n",
        content_type="text/event-stream",
    )
    got = served.post(google("m-a", "streamGenerateContent", "?alt=sse"), {**CONTENTS, "novel": 1})
    assert fakes.a.seen[-1].path.endswith("/models/m-a:streamGenerateContent")
    assert fakes.a.seen[-1].body == {**CONTENTS, "novel": 1}
    assert got.events[0]["candidates"] == chunk["candidates"]
    assert b"comment" not in got.body, "Google's own client fails at a comment"


# --- the array -----------------------------------------------------------------------------------


def test_google_streams_an_array_where_events_were_not_asked_for(served):
    for query in ("", "?alt=json", "?key=unused"):
        got = served.post(google("m-a", "streamGenerateContent", query), CONTENTS)
        assert got.header("content-type") == "application/json; charset=utf-8"
        texts = [
            part["text"]
            for row in got.json
            for part in (row["candidates"][0].get("content") or {}).get("parts", ())
        ]
        assert "".join(texts).strip() == "served by a"
        assert got.json[-1]["candidates"][0]["finishReason"] == "STOP"
        assert got.json[-1]["x-aiproxy"]["provider"] == "a"


def test_a_broken_array_is_whole_json_and_says_so(served, fakes):
    fakes.a.script = Script(cut_after=2, done=False, finish=False)
    got = served.post(google("m-a", "streamGenerateContent"), CONTENTS)
    assert got.status == 200
    assert got.json[-1]["error"]["code"] >= 500
    fakes.a.script = Script(status=404)
    got = served.post(google("m-a", "streamGenerateContent"), CONTENTS)
    assert (got.status, [row["error"]["status"] for row in got.json]) == (404, ["NOT_FOUND"])


def test_another_form_of_answer_is_refused(served, fakes):
    got = served.post(google("m-a", "generateContent", "?alt=proto"), CONTENTS)
    assert (got.status, refusal("gemini", got)[0]) == (400, "INVALID_ARGUMENT")
    assert fakes.called() == {}


# --- keys ----------------------------------------------------------------------------------------


def test_keys_are_taken_where_the_api_has_them_and_nowhere_else(pair, fakes):
    served = pair(**ALL, security=KEYED)
    accepted = [
        (asked("anthropic"), {"x-api-key": KEY}),
        (asked("anthropic"), {"authorization": f"Bearer {KEY}"}),
        (asked("gemini"), {"x-goog-api-key": KEY}),
        ((google(query=f"?key={KEY}"), CONTENTS), {}),
    ]
    for (path, body), headers in accepted:
        assert served.post(path, body, headers).status == 200, (path, headers)
    refused = [
        (asked("anthropic"), {"x-goog-api-key": KEY}),
        (asked("anthropic"), {"x-api-key": "wrong"}),
        ((f"{MESSAGES}?key={KEY}", asked("anthropic")[1]), {}),
        (asked("gemini"), {"x-api-key": KEY}),
        ((google(query="?key=wrong"), CONTENTS), {}),
        (asked("completions"), {"x-api-key": KEY}),
        ((f"{CHAT}?key={KEY}", {"model": "m-a", "messages": HELLO["messages"]}), {}),
    ]
    for (path, body), headers in refused:
        assert served.post(path, body, headers).status == 401, (path, headers)
    assert fakes.called() == {"a": len(accepted)}
    for seen in fakes.a.seen:
        assert KEY not in json.dumps(seen.headers) + seen.path
    for decision in served.gateway.decisions._rows.values():
        assert KEY not in json.dumps(decision.record())


def test_the_application_is_not_told_a_key_of_ours(mount, fakes):
    heads = []

    def spy(environ, start_response):
        heads.append(dict(environ))
        start_response("404 Not Found", [("content-type", "text/plain")])
        return [b""]

    async def spy_asgi(scope, receive, send):
        heads.append({name.decode(): value.decode() for name, value in scope["headers"]})
        heads[-1]["QUERY_STRING"] = scope["query_string"].decode()
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config = {**fakes.config({"a": [model("m-a")]}, **ALL), "security": KEYED}
    kind = mount(config).kind
    wrapped = (
        AIProxyMiddleware(spy_asgi, config)
        if kind == "asgi"
        else AIProxyWSGIMiddleware(spy, config)
    )
    served = mount(config, app=wrapped)
    for (path, body), headers in (
        (asked("anthropic", "house"), {"x-api-key": KEY}),
        (asked("gemini", "house"), {"x-goog-api-key": KEY}),
        ((google("house", query=f"?key={KEY}"), CONTENTS), {}),
    ):
        served.post(path, body, headers)
    assert len(heads) == 3
    for head in heads:
        told = [str(value) for name, value in head.items() if not name.startswith("wsgi")]
        assert KEY not in " ".join(told)


# --- counting, models ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "member"),
    [
        (COUNT, {"model": "m-a", "messages": HELLO["messages"]}, "input_tokens"),
        (COUNT, {"model": "auto", "system": "Hi", **HELLO}, "input_tokens"),
        (google("m-a", "countTokens"), CONTENTS, "totalTokens"),
        (
            google("auto", "countTokens"),
            {"generateContentRequest": {"model": "models/x", **CONTENTS}},
            "totalTokens",
        ),
    ],
)
def test_tokens_are_counted_here_and_the_answer_says_so(served, fakes, path, body, member):
    got = served.post(path, body)
    assert (got.status, got.header("x-aiproxy-estimated")) == (200, "true")
    assert set(got.json) == {member}
    assert got.json[member] > 0
    assert fakes.called() == {}
    assert served.gateway.decisions.get(got.header("x-request-id"), None) is None


def test_the_model_list_has_the_shape_of_its_client(served):
    version = {"anthropic-version": "2023-06-01"}
    listed = served.get("/v1/models", version).json
    assert [row["id"] for row in listed["data"]] == ["m-a", "m-b"]
    assert (listed["has_more"], listed["last_id"]) == (False, "m-b")
    assert served.get("/v1/models/m-a", version).json["display_name"] == "m-a"
    got = served.get("/v1/models/nobody", version)
    assert (got.status, refusal("anthropic", got)[0]) == (404, "not_found_error")
    assert served.get("/v1/models").json["object"] == "list"
    for path, headers in (("/v1beta/models", {}), ("/v1/models", {"x-goog-api-client": "x"})):
        rows = served.get(path, headers).json["models"]
        assert [row["name"] for row in rows] == ["models/m-a", "models/m-b"]
    assert served.get("/v1beta/models/m-a").json["displayName"] == "m-a"
    got = served.get("/v1beta/models/nobody")
    assert (got.status, refusal("gemini", got)[0]) == (404, "NOT_FOUND")


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize(
    ("change", "headers", "status", "words"),
    [
        (b"{", {}, 400, ("invalid_request_error", "INVALID_ARGUMENT")),
        (b"[]", {}, 400, ("invalid_request_error", "INVALID_ARGUMENT")),
        ({"messages": [], "contents": []}, {}, 400, ("invalid_request_error", "INVALID_ARGUMENT")),
        (
            {},
            {"X-AI-Cost-Limit": "much"},
            400,
            ("invalid_request_error", "INVALID_ARGUMENT"),
        ),
        (
            {},
            {"content-type": "text/plain"},
            415,
            ("invalid_request_error", "FAILED_PRECONDITION"),
        ),
    ],
)
def test_a_refusal_has_the_shape_of_its_client(served, fakes, kind, change, headers, status, words):
    path, body = asked(kind)
    payload = change if isinstance(change, bytes) else json.dumps({**body, **change}).encode()
    got = served.post(path, payload, {"content-type": "application/json", **headers})
    assert (got.status, refusal(kind, got)[0]) == (status, words[kind == "gemini"])
    assert fakes.called() == {}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        (
            Script(status=400, body={"error": {"message": "SECRET"}}),
            400,
            ("invalid_request_error", "INVALID_ARGUMENT"),
        ),
        (Script(status=401), 502, ("api_error", "INTERNAL")),
        (Script(status=404), 404, ("not_found_error", "NOT_FOUND")),
        (Script(status=429), 429, ("rate_limit_error", "RESOURCE_EXHAUSTED")),
        (Script(status=500), 502, ("api_error", "INTERNAL")),
        (
            Script(status=529),
            {"anthropic": 529, "gemini": 503},
            ("overloaded_error", "UNAVAILABLE"),
        ),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_what_an_upstream_fails_with(served, fakes, kind, stream, script, status, words):
    fakes.a.script = script
    path, body = asked(kind, stream=stream)
    got = served.post(path, body, {"X-AI-Failover-Policy": "none"})
    assert got.status == (status[kind] if isinstance(status, dict) else status)
    assert refusal(kind, got)[0] == words[kind == "gemini"]
    assert b"SECRET" not in got.body
    assert served.record(got)["error"]["status"] == got.status


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_body_that_is_too_large_is_refused_in_the_shape_of_its_client(pair, kind):
    served = pair(**ALL, server={"max_request_size": "1KB"})
    path, body = asked(kind)
    got = served.post(path, {**body, "x": "y" * 2000})
    assert got.status == 413
    assert refusal(kind, got)[0] in ("request_too_large", "INVALID_ARGUMENT", "FAILED_PRECONDITION")


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_stream_that_breaks_off_says_so(served, fakes, kind):
    fakes.a.script = Script(cut_after=2, done=False, finish=False)
    path, body = asked(kind, stream=True)
    got = served.post(path, body)
    assert got.status == 200
    last = got.events[-1]
    assert last["error"]["message"].startswith("The provider's stream broke off")
    assert (last.get("type") == "error") is (kind == "anthropic")


# --- completions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_completions_are_answered_by_a_chat_provider(pair, fakes, stream):
    served = pair(**ALL, provider_a={"dialects": ["chat"]})
    path, body = asked("completions", stream=stream)
    got = served.post(path, {**body, "max_tokens": 7})
    assert (got.status, said("completions", got)) == (200, "served by a")
    [seen] = fakes.a.seen
    assert seen.path == CHAT
    assert seen.body["messages"][-1] == {"role": "user", "content": "Hello"}
    whole = got.events[0] if stream else got.json
    assert whole["object"] == "text_completion"
    assert whole["id"].startswith("cmpl-")
