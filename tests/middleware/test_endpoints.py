"""Every inference path on both mounts: shapes, errors, the native endpoint, the model list."""

import base64
import json
import struct
import time

import pytest
from mounts import CHAT, CHEAP, DEAR, HELLO, RESPONSES, hold, model
from upstreams import Script

req = pytest.mark.requirement
ON = {"X-AI-Multi-Provider": "enabled"}
ALL = {"routing": {"scope": "all", "default_provider": "a"}}
PREDICT = "/aiproxy/predict"


@pytest.fixture
def served(pair):
    return pair(**ALL)


# --- chat completions ----------------------------------------------------------------------------


@req("AIP-API-001", "AIP-API-003", "AIP-API-004", "XAI-COMPAT-001", "XAI-COMPAT-016")
@req("XAI-COMPAT-017", "XAI-COMPAT-019")
@pytest.mark.parametrize("headers", [{}, ON])
def test_chat(served, headers):
    got = served.chat(headers, model="m-a", temperature=0.7)
    assert got.status == 200
    hold(got.json, "responses/chat")
    assert got.json["id"].startswith("chatcmpl-")
    assert got.json["model"] == "m-a"
    assert abs(got.json["created"] - time.time()) < 300
    assert [c["index"] for c in got.json["choices"]] == [0]
    usage = got.json["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert got.json["x-aiproxy"]["provider"] == "a"
    assert got.json["x-aiproxy"]["node"] == served.gateway.settings.node


@req("AIP-API-001", "XAI-COMPAT-018")
def test_ids_are_unique(served, fakes):
    ids = {served.chat(model="m-a").json["id"] for _ in range(10)}
    assert len(ids) == 10
    requests = {served.chat(model="m-a").header("x-request-id") for _ in range(5)}
    assert len(requests) == 5


@req("AIP-API-002", "XAI-COMPAT-002", "XAI-COMPAT-020", "XAI-AUTO-027")
def test_the_providers_request_is_the_clients(served, fakes):
    members = {
        "temperature": 0.7,
        "x_custom": {"a": 1},
        "seed": 3,
        "stop": "x",
        "metadata": {"k": "v"},
    }
    got = served.chat(model="m-a", **members)
    assert got.status == 200
    assert fakes.a.seen[0].body == {"model": "m-a", "messages": HELLO, **members}
    answer = got.json
    del answer["x-aiproxy"]
    assert set(answer) == {"id", "object", "created", "model", "choices", "usage"}


@req("XAI-COMPAT-021")
def test_unicode_comes_back_as_it_went(served, fakes):
    text = "🦆 שלום e\u0301 \U0001f469\u200d\U0001f4bb \u0000 \\u00e9 \u2028"
    fakes.a.script = Script(text=text)
    got = served.chat(model="m-a", messages=[{"role": "user", "content": text}])
    assert fakes.a.seen[0].body["messages"][0]["content"] == text
    assert got.json["choices"][0]["message"]["content"] == text


@req("AIP-API-005", "AIP-API-006", "AIP-API-016")
def test_cost_and_latency_are_exact_and_measured(pair, fakes):
    fakes.a.script = Script(
        usage={"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}, delay_s=0.1
    )
    served = pair({"cost_per_1k_tokens": 0.001}, **ALL)
    note = served.chat(model="m-a").json["x-aiproxy"]
    assert note["cost"] == 0.000021
    assert 100 <= note["latency_ms"] < 1000
    split = pair({"cost_per_1k_tokens": None, "price": {"input": 0.1, "output": 0.3}}, **ALL)
    assert split.chat(model="m-a").json["x-aiproxy"]["cost"] == 0.0045


@req("AIP-API-007")
def test_the_member_can_be_switched_off(pair):
    served = pair(**ALL, transparency_body=False)
    got = served.chat(model="m-a")
    assert "x-aiproxy" not in got.json
    streamed = served.chat(model="m-a", stream=True)
    assert b"x-aiproxy" not in streamed.body


@req("AIP-API-008")
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_in_streams_it_is_in_the_last_data_chunk(served, path):
    got = served.chat(path=path, model="m-a", stream=True, stream_options={"include_usage": True})
    assert got.events[-1] == "[DONE]"
    told = [("x-aiproxy" in str(event)) for event in got.events[:-1]]
    assert told == [False] * (len(told) - 1) + [True]


@req("AIP-API-009", "XAI-COMPAT-003", "XAI-COMPAT-006", "XAI-COMPAT-007")
@pytest.mark.parametrize(
    ("members", "code", "param"),
    [
        ({"messages": None}, "missing_required_parameter", "messages"),
        ({"model": None}, "missing_required_parameter", "model"),
        ({"messages": "hi"}, "invalid_type", "messages"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": [{"content": "x"}]}, "missing_required_parameter", "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": 5, "content": "x"}]}, "invalid_type", "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "invalid_type", "messages[0].content"),
        ({"temperature": [1]}, "invalid_type", "temperature"),
        ({"temperature": 3.0}, "invalid_value", "temperature"),
    ],
)
def test_body_faults_name_their_place(served, fakes, members, code, param):
    for headers in ({}, ON):
        got = served.chat(headers, **{"model": "m-a", **members})
        assert (got.status, got.error["code"], got.error["param"]) == (400, code, param), got
        assert got.error["type"] == "invalid_request_error"
    assert fakes.called() == {}


@req("AIP-API-009")
def test_all_roles_are_accepted(served):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "d"},
        {"role": "user", "content": [{"type": "text", "text": "u"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "t"},
    ]
    assert served.chat(model="m-a", messages=turns).status == 200


@req("XAI-COMPAT-004", "AIP-API-040")
@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"{", "invalid_json"),
        (b"", "invalid_json"),
        (b"[1]", "invalid_type"),
        (b'"text"', "invalid_type"),
        (b"null", "invalid_type"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "invalid_json"),
        (b'{"model":"m-a","messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "invalid_json"),
    ],
    ids=["cut", "empty", "list", "text", "null", "not utf-8", "deep objects", "deep lists"],
)
def test_what_is_no_json_object_is_a_400(served, fakes, raw, code):
    for headers in ({}, ON):
        got = served.post(CHAT, raw, {**headers, "content-type": "application/json"})
        assert (got.status, got.error["code"]) == (400, code)
    assert fakes.called() == {}


@req("AIP-API-040")
@pytest.mark.parametrize(
    "extra",
    [
        '"temperature":1e400',
        '"model":"m-b"',
        '"seed":123456789012345678901234567890',
        '"\\u0000":1',
    ],
)
def test_odd_json_is_served_or_refused_never_a_500(served, extra):
    body = '{"model":"m-a","messages":[{"role":"user","content":"x"}],' + extra + "}"
    got = served.post(CHAT, body.encode(), {"content-type": "application/json"})
    assert got.status in (200, 400), got


@req("XAI-COMPAT-005")
@pytest.mark.parametrize("headers", [{}, ON])
def test_an_unknown_model_is_404(mount, fakes, headers):
    config = fakes.config({"a": ["m-a"]}, routing={"scope": "all"})
    config["providers"]["host"] = {"type": "app", "models": [{"name": "hosted"}]}
    got = mount(config).chat(headers, model="no-such-model-xyz")
    assert (got.status, got.error["code"], got.error["param"]) == (404, "model_not_found", "model")
    assert fakes.called() == {}


@req("XAI-COMPAT-008")
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "text/html"])
def test_another_media_type_is_415(served, kind):
    got = served.post(CHAT, b"{}", {"content-type": kind})
    assert (got.status, got.error["code"]) == (415, "unsupported_media_type")


@req("XAI-COMPAT-003")
def test_a_body_above_the_bound_is_413(pair):
    served = pair(**ALL, server={"max_request_size": "2KB"})
    big = [{"role": "user", "content": "x" * 3000}]
    for chunked in (False, True):
        body = {"model": "m-a", "messages": big}
        got = served.post(CHAT, body, chunked=chunked)
        assert (got.status, got.error["code"]) == (413, "request_too_large")


@req("XAI-COMPAT-010")
def test_keys(pair):
    served = pair(
        **ALL, security={"auth": {"api_keys": [{"name": "me", "key": "sk-right-0123456789"}]}}
    )
    for scheme in ("Bearer", "bearer"):
        got = served.chat({"Authorization": f"{scheme} sk-right-0123456789"}, model="m-a")
        assert got.status == 200
    for headers in ({}, {"Authorization": "Bearer sk-wrong"}, {"Authorization": "Basic abc"}):
        for got in (served.chat(headers, model="m-a"), served.get("/v1/models", headers)):
            assert (got.status, got.error["code"]) == (401, "invalid_api_key")
            assert got.header("www-authenticate").startswith("Bearer")


@req("XAI-COMPAT-022")
def test_chunked_bodies_and_two_requests_on_a_connection(served):
    body = {"model": "m-a", "messages": HELLO}
    assert served.post(CHAT, body, ON, chunked=True).status == 200
    payload = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    one = head + b"Content-Length: %d\r\n" % len(payload)
    both = one + b"\r\n" + payload + one + b"Connection: close\r\n\r\n" + payload
    answer = served.raw(both)
    # werkzeug's server closes after each answer, uvicorn keeps the connection
    assert answer.count(b"HTTP/1.1 200") == (2 if served.kind == "asgi" else 1)


@req("AIP-API-037")
def test_request_ids_are_ours_or_a_well_formed_one(served):
    assert served.chat({"X-Request-ID": "mine-1"}, model="m-a").header("x-request-id") == "mine-1"
    for bad in ("a b", "x" * 200, "-lead", "é"):
        got = served.chat({"X-Request-ID": bad.encode("latin-1").decode("latin-1")}, model="m-a")
        assert got.header("x-request-id").startswith("req_")
    failing = served.chat({"X-Request-ID": "mine-2"}, messages=[])
    assert failing.header("x-request-id") == "mine-2"


@req("AIP-API-037")
def test_a_decision_can_be_read_by_its_request_id(served):
    got = served.chat(ON)
    found = served.get("/v1/routing/decisions/" + got.header("x-request-id"))
    assert found.status == 200
    hold(found.json, "decision")
    assert found.json["selected"]["provider"] == got.provider
    missing = served.get("/v1/routing/decisions/req_nosuch")
    assert (missing.status, missing.error["code"]) == (404, "not_found")


# --- responses, both shapes ----------------------------------------------------------------------


@req("XAI-COMPAT-013", "AIP-API-039")
@pytest.mark.parametrize("dialects", [["chat"], ["responses"], ["chat", "responses"]])
def test_the_drafts_shape(pair, fakes, dialects):
    served = pair(provider_a={"dialects": dialects}, **ALL)
    for headers in ({}, ON):
        got = served.chat(headers, path=RESPONSES, model="m-a")
        assert got.status == 200, got
        hold(got.json, "responses/union")
        assert got.json["object"] == "response"
        assert isinstance(got.json["created"], int)
        message = got.json["choices"][0]["message"]
        assert (message["role"], message["content"]) == ("assistant", "served by a")


@req("XAI-COMPAT-014")
@pytest.mark.parametrize("dialects", [["chat"], ["responses"], ["chat", "responses"]])
def test_the_genuine_shape(pair, fakes, dialects):
    served = pair(provider_a={"dialects": dialects}, **ALL)
    got = served.post(RESPONSES, {"model": "m-a", "input": "ping"})
    assert got.status == 200, got
    if dialects == ["chat"]:  # ours to build; a provider's own answer passes as it is
        hold(got.json, "responses/response")
    assert got.json["status"] == "completed"
    assert got.json["output"][0]["content"][0]["type"] == "output_text"
    assert got.json["output"][0]["content"][0]["text"] == "served by a"
    assert "choices" not in got.json


@req("XAI-COMPAT-015")
def test_both_shapes_or_neither_are_refused(served, fakes):
    both = served.post(RESPONSES, {"model": "m-a", "messages": HELLO, "input": "x"})
    assert (both.status, both.error["code"]) == (400, "invalid_value")
    neither = served.post(RESPONSES, {"model": "m-a"})
    assert (neither.status, neither.error["code"]) == (400, "missing_required_parameter")
    assert fakes.called() == {}


@req("XAI-COMPAT-013")
@pytest.mark.parametrize("dialects", [["chat"], ["responses"]])
def test_the_drafts_shape_streams_union_frames(pair, dialects):
    served = pair(provider_a={"dialects": dialects}, **ALL)
    got = served.chat(ON, path=RESPONSES, model="m-a", stream=True)
    assert got.status == 200
    assert got.events[-1] == "[DONE]"
    for frame in got.events[:-1]:
        hold(frame, "events/union-frame")


# --- completions and embeddings ------------------------------------------------------------------


@req("AIP-API-033")
@pytest.mark.parametrize("headers", [{}, ON])
def test_completions(served, headers):
    got = served.post("/v1/completions", {"model": "m-a", "prompt": "Hi"}, headers)
    assert got.status == 200
    hold(got.json, "responses/completion")
    assert got.json["choices"][0]["text"] == "served by a"
    got = served.post("/v1/completions", {"model": "m-a", "prompt": 5}, headers)
    assert (got.status, got.error["param"]) == (400, "prompt")


@req("AIP-API-030", "AIP-API-031")
def test_embeddings(pair, fakes):
    served = pair({"capabilities": ["embeddings"]}, **ALL)
    for given, count in (("x", 1), (["x", "y", "z"], 3)):
        got = served.post("/v1/embeddings", {"model": "m-a", "input": given})
        assert got.status == 200
        hold(got.json, "responses/embeddings")
        assert [row["index"] for row in got.json["data"]] == list(range(count))
        assert {len(row["embedding"]) for row in got.json["data"]} == {3}
        assert got.json["x-aiproxy"]["cost"] == pytest.approx(4 * CHEAP / 1000)
    for given in ("", []):
        got = served.post("/v1/embeddings", {"model": "m-a", "input": given})
        assert (got.status, got.error["param"]) == (400, "input")
    got = served.post("/v1/embeddings", {"model": "m-b", "input": "x"})
    assert (got.status, got.error["code"]) == (400, "unsupported_capability")
    got = served.chat(model="m-a")
    assert (got.status, got.error["code"]) == (400, "unsupported_capability")
    assert "b" not in fakes.called()


@req("AIP-API-032")
def test_embedding_options_travel(pair, fakes):
    served = pair({"capabilities": ["embeddings"]}, **ALL)
    packed = base64.b64encode(struct.pack("<2f", 0.25, -0.5)).decode()
    row = {"object": "embedding", "index": 0, "embedding": packed}
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    fakes.a.script = Script(body={"object": "list", "model": "m-a", "data": [row], "usage": usage})
    body = {"model": "m-a", "input": "x", "encoding_format": "base64", "dimensions": 2}
    got = served.post("/v1/embeddings", body)
    assert got.status == 200
    assert got.json["data"][0]["embedding"] == packed
    assert fakes.a.seen[0].body == body


# --- predict -------------------------------------------------------------------------------------


def predict(served, headers=(), **members):
    body = {"model": "m-a", "input": "Hello, world!", **members}
    return served.post(PREDICT, {k: v for k, v in body.items() if v is not None}, headers)


@req("AIP-API-010", "AIP-API-011", "AIP-API-012", "AIP-API-033")
def test_predict(served, fakes):
    got = predict(served, temperature=0.2, max_tokens=7)
    assert got.status == 200
    hold(got.json, "responses/predict")
    assert got.json["request_id"].startswith("req_")
    assert got.json["request_id"] == got.header("x-request-id")
    assert (got.json["model"], got.json["output"]) == ("m-a", "served by a")
    meta = got.json["metadata"]
    assert meta["provider"] == "a"
    assert meta["cost"] == {
        "amount": pytest.approx(21 * CHEAP / 1000, abs=1e-12),
        "currency": "USD",
    }
    assert meta["tokens"] == {"input": 9, "output": 12, "total": 21}
    assert meta["routing"]["providers_tried"] == ["a"]
    assert meta["routing"]["failovers"] == 0
    sent = fakes.a.seen[0].body
    assert (sent["temperature"], sent["max_tokens"]) == (0.2, 7)
    assert set(sent) == {"model", "messages", "temperature", "max_tokens"}


@req("AIP-API-012")
def test_predict_tells_of_failovers(mount, fakes):
    served = mount(
        fakes.config({"a": [model("m", cost_per_1k_tokens=0)], "b": [model("m")]}, **ALL)
    )
    fakes.a.script = Script(status=503)
    got = predict(served, model="m")
    assert got.status == 200
    routing = got.json["metadata"]["routing"]
    assert routing["providers_tried"] == ["a", "b"]
    assert routing["failovers"] == 1
    assert routing["reason"] in ("overloaded", "http_5xx")


@req("AIP-API-013")
def test_predict_may_name_a_strategy(mount, fakes):
    both = {
        "a": [model("m", cost_per_1k_tokens=DEAR, latency_prior="10ms")],
        "b": [model("m", latency_prior="900ms")],
    }
    served = mount(fakes.config(both, routing={"scope": "all", "strategy": "cost_optimized"}))
    got = predict(served, model="m", routing={"strategy": "latency_optimized"})
    assert got.json["metadata"]["provider"] == "a"
    assert got.json["metadata"]["routing"]["strategy_used"] == "latency_optimized"
    got = predict(served, model="m")
    assert got.json["metadata"]["provider"] == "b"
    assert got.json["metadata"]["routing"]["strategy_used"] == "cost"
    got = predict(served, model="m", routing={"strategy": "cheapest"})
    assert (got.status, got.error["code"]) == (400, "invalid_value")
    assert got.error["param"] == "routing.strategy"


@req("AIP-API-014")
def test_predict_may_bound_its_cost(served, fakes):
    got = predict(served, routing={"max_cost": 0})
    assert (got.status, got.error["code"]) == (422, "no_eligible_provider")
    assert got.error["param"] == "routing.max_cost"
    for bad in (-1, "1"):
        got = predict(served, routing={"max_cost": bad})
        assert (got.status, got.error["param"]) == (400, "routing.max_cost")
    assert fakes.called() == {}
    assert predict(served, routing={"max_cost": 0.1}).status == 200


@req("AIP-API-015")
def test_predict_may_bound_its_time(mount, fakes):
    served = mount(fakes.config({"a": [model("m")], "b": [model("m")]}, **ALL))
    fakes.a.script = fakes.b.script = Script(status=500, delay_s=0.15)
    started = time.monotonic()
    got = predict(served, model="m", routing={"timeout": 250})
    assert (got.status, got.error["code"]) == (504, "upstream_timeout")
    assert 0.2 < time.monotonic() - started < 1.5
    for bad in (0, "30s", 1.5):
        got = predict(served, model="m", routing={"timeout": bad})
        assert (got.status, got.error["param"]) == (400, "routing.timeout")


@req("AIP-API-017")
def test_predict_takes_what_the_model_takes(pair):
    served = pair({"capabilities": ["embeddings"]}, **ALL)
    one = predict(served)
    assert one.json["output"] == [0.25, -0.5, 0.0]
    many = predict(served, input=["a", "b"])
    hold(many.json, "responses/predict")
    assert many.json["output"] == [[0.25, -0.5, 0.0], [0.25, -0.5, 1.0]]
    for name, given in (("m-a", {"image": "AAAA"}), ("m-b", ["a"]), ("m-b", {"image": "AAAA"})):
        got = predict(served, model=name, input=given)
        assert (got.status, got.error["code"]) == (400, "unsupported_capability"), got
        assert got.error["param"] == "input"


@req("AIP-API-018")
@pytest.mark.parametrize(
    ("members", "code", "param"),
    [
        ({"model": None}, "missing_required_parameter", "model"),
        ({"input": None}, "missing_required_parameter", "input"),
        ({"input": ""}, "invalid_value", "input"),
        ({"input": 5}, "invalid_type", "input"),
        ({"routing": {"max_csot": 1}}, "invalid_value", "routing.max_csot"),
        ({"stream": True}, "unsupported_parameter", "stream"),
        ({"n": 2}, "unsupported_parameter", "n"),
        ({"messages": HELLO}, "unsupported_parameter", "messages"),
        ({"temperature": "hot"}, "invalid_type", "temperature"),
    ],
)
def test_predict_errors_are_the_same_object(served, fakes, members, code, param):
    got = predict(served, **members)
    assert (got.status, got.error["code"], got.error["param"]) == (400, code, param), got
    assert fakes.called() == {}


# --- models --------------------------------------------------------------------------------------


@req("AIP-API-019", "AIP-API-020", "AIP-API-021", "AIP-API-023", "AIP-API-024")
def test_models(mount, fakes):
    served = mount(
        fakes.config(
            {
                "a": [model("shared"), model("@cf/meta/llama-3.1", cost_per_1k_tokens=None)],
                "b": [model("shared", cost_per_1k_tokens=DEAR)],
            },
            routing={"scope": "all"},
        )
    )
    got = served.get("/v1/models")
    hold(got.json, "responses/models")
    names = [row["id"] for row in got.json["data"]]
    assert sorted(names) == sorted(set(names)) == ["@cf/meta/llama-3.1", "shared"]
    shared = next(row for row in got.json["data"] if row["id"] == "shared")
    assert [row["name"] for row in shared["providers"]] == ["a", "b"]
    assert [row["cost_per_1k_tokens"] for row in shared["providers"]] == [CHEAP, DEAR]
    assert [row["avg_latency_ms"] for row in shared["providers"]] == [None, None]
    assert served.get("/v1/models/shared").json == shared
    for spelt in ("@cf/meta/llama-3.1", "%40cf%2Fmeta%2Fllama-3.1"):
        assert served.get(f"/v1/models/{spelt}").json["id"] == "@cf/meta/llama-3.1"
    missing = served.get("/v1/models/nosuch")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")
    for name in names:
        assert served.chat(model=name).status == 200
    again = served.get("/v1/models").json["data"]
    measured = [row["avg_latency_ms"] for entry in again for row in entry["providers"]]
    assert any(isinstance(value, float) for value in measured)
    assert served.get("/v1/models/").status in (200, 404)


@req("AIP-API-022")
def test_available_reflects_health(pair, fakes):
    served = pair(**ALL)
    fakes.a.script = Script(status=503)
    assert served.chat(model="m-a").status >= 500
    now = served.gateway.runtime.now()
    [found] = served.gateway.registry.by_provider["a"]
    for _ in range(12):
        found.track.failed(now, lambda: 0.5)
    rows = {row["id"]: row["providers"][0] for row in served.get("/v1/models").json["data"]}
    assert rows["m-a"]["available"] is False
    assert rows["m-b"]["available"] is True
    found.track.__init__()
    found.provider.track.__init__()
    assert served.get("/v1/models/m-a").json["providers"][0]["available"] is True


@req("AIP-API-033")
def test_a_given_endpoint_list_is_exhaustive(pair):
    rows = [
        {"path": "/v1/chat/completions", "protocol": "openai"},
        {"path": "/aiproxy/predict", "protocol": "native", "enabled": False},
    ]
    served = pair(**ALL, server={"endpoints": rows})
    assert served.chat(model="m-a").status == 200
    assert served.chat(path=RESPONSES, model="m-a").status == 200
    for path in ("/v1/embeddings", PREDICT):
        got = served.post(path, {"model": "m-a", "input": "x"})
        assert (got.status, got.error["code"]) == (404, "not_found")


@req("XAI-COMPAT-009", "XAI-COMPAT-003")
@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (Script(status=400, body={"error": {"message": "bad", "code": "x"}}), 400, None),
        (Script(status=401), 502, "upstream_auth_failed"),
        (Script(status=404), 404, "model_not_found"),
        (Script(status=429), 429, "rate_limit_exceeded"),
        (Script(status=500), 502, "all_providers_failed"),
        (Script(status=529), 503, "provider_overloaded"),
        (Script(raw=b"<html>"), 502, "upstream_invalid_response"),
    ],
    ids=lambda value: str(getattr(value, "status", value)),
)
def test_upstream_errors_become_ours(pair, fakes, script, status, code):
    fakes.a.script = script
    got = pair(**ALL).chat({"X-AI-Failover-Policy": "none"}, model="m-a")
    assert got.status == status, got
    hold(got.json, "error-emitted")
    assert code is None or got.error["code"] == code
    assert b"SECRET" not in got.body
