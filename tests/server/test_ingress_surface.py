"""The paths of other APIs on the server: methods, switches, the log, local models, explain."""

import json

import pytest
from served import KEYS, run, write_config

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
GOOGLE = "/v1beta/models/shared:generateContent"
ASKED = {"model": "shared", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", MESSAGES, "POST"),
        ("DELETE", MESSAGES, "POST"),
        ("GET", COUNT, "POST"),
        ("GET", GOOGLE, "POST"),
        ("DELETE", GOOGLE, "POST"),
        ("POST", "/v1beta/models", "GET"),
        ("POST", "/v1beta/models/shared", "GET"),
    ],
)
def test_a_wrong_method_is_405_in_the_shape_of_the_api(pair, method, path, allowed):
    got = pair.server.request(method, path, {} if method == "POST" else None)
    assert got.status == 405
    assert allowed in [word.strip() for word in got.header("allow").split(",")]
    error = got.json["error"]
    if path.startswith(MESSAGES):
        assert (got.json["type"], error["type"]) == ("error", "invalid_request_error")
        assert got.json["request_id"] == got.header("x-request-id")
    else:
        assert error["code"] == 405


@pytest.mark.parametrize("path", [MESSAGES, COUNT, GOOGLE, "/v1beta/models"])
def test_options_names_the_methods(pair, path):
    for headers in ({}, {"access-control-request-method": "POST", "origin": "https://x.example"}):
        got = pair.server.request("OPTIONS", path, None, headers)
        assert got.status in (200, 204)
        assert got.header("allow")


def test_an_action_that_is_not_served_says_so(pair):
    got = pair.server.post("/v1beta/models/shared:embedContent", CONTENTS)
    assert (got.status, got.json["error"]["status"]) == (404, "NOT_FOUND")
    assert "generateContent" in got.json["error"]["message"]
    got = pair.server.post("/v1/messages/batches", ASKED)
    assert (got.status, got.json["error"]["type"]) == (404, "not_found_error")


def test_capabilities_tell_the_paths(pair):
    told = pair.server.get("/v1/capabilities").json
    assert {MESSAGES, COUNT, "/v1beta/models/{model}:generateContent"} <= set(told["endpoints"])
    assert {"anthropic", "google"} <= set(told["protocols"])


def test_the_log_has_the_path_without_the_model_and_without_the_query(pair):
    server = pair.server
    got = server.post(GOOGLE + "?key=query-key-canary", CONTENTS)
    line = server.line_of(got.header("x-request-id"))
    assert (line["endpoint"], line["requested"]) == (
        "/v1beta/models/{model}:generateContent",
        "shared",
    )
    counted = server.post("/v1beta/models/shared:countTokens?key=query-key-canary", CONTENTS)
    line = server.line_of(counted.header("x-request-id"))
    assert (line["endpoint"], line["status"]) == ("/v1beta/models/shared:countTokens", 200)
    other = server.post("/v1beta/models/shared:no?key=query-key-canary", CONTENTS)
    server.line_of(other.header("x-request-id"))
    assert "query-key-canary" not in server.out.read_text() + server.err.read_text()


def test_a_trailing_slash_changes_nothing(pair):
    assert pair.server.post(MESSAGES + "/", ASKED).status == 200
    assert pair.server.post(GOOGLE + "/", CONTENTS).status == 200


def test_paths_that_a_list_leaves_out_are_not_served(keyed):
    headers = {"x-api-key": KEYS["anna"], "x-goog-api-key": KEYS["anna"]}
    for path, body in ((MESSAGES, ASKED), (COUNT, ASKED), (GOOGLE, CONTENTS)):
        got = keyed.server.post(path, body, headers)
        assert got.status in (401, 404), path
    for path in (MESSAGES, GOOGLE):
        bearer = {"authorization": f"Bearer {KEYS['anna']}"}
        assert keyed.server.post(path, ASKED, bearer).status == 404
    assert keyed.a.seen == []


def test_the_shared_list_of_models_takes_the_keys_of_those_it_answers(keyed):
    bearer = {"authorization": f"Bearer {KEYS['anna']}"}
    for headers in (bearer, {"x-api-key": KEYS["anna"]}):
        got = keyed.server.get("/v1/models", {**headers, "anthropic-version": "x"})
        assert got.status == 200
    assert [row["type"] for row in got.json["data"]] == ["model"] * len(got.json["data"])
    assert keyed.server.get("/v1/models", {"x-api-key": KEYS["anna"]}).status == 401


@pytest.mark.parametrize("stream", [False, True])
def test_local_models_answer_every_api(embedded, stream):
    [name] = [row["id"] for row in embedded.get("/v1/models").json["data"]][:1]
    body = {**ASKED, "model": name, "stream": stream}
    got = embedded.post(MESSAGES, body)
    assert got.status == 200, got
    action = "streamGenerateContent?alt=sse" if stream else "generateContent"
    limit = {"generationConfig": {"maxOutputTokens": 9}}
    other = embedded.post(f"/v1beta/models/{name}:{action}", {**CONTENTS, **limit})
    assert other.status == 200, other
    if stream:
        assert got.events[-1]["type"] == "message_stop"
        texts = [e["delta"]["text"] for e in got.events if e["type"] == "content_block_delta"]
        assert "".join(texts)
        assert other.events[-1]["candidates"][0]["finishReason"] in ("STOP", "MAX_TOKENS")
    else:
        assert got.json["content"][0]["text"]
        assert got.json["usage"]["output_tokens"] > 0
        assert other.json["candidates"][0]["content"]["parts"][0]["text"]


def test_explain_knows_the_paths(tmp_path):
    entry = {
        "type": "openai_compatible",
        "endpoint": "http://127.0.0.1:9/v1",
        "models": [{"name": "shared"}],
    }
    config = write_config(tmp_path, {"providers": {"a": entry}})
    for path, body in ((MESSAGES, ASKED), (GOOGLE, CONTENTS)):
        asked = tmp_path / "body.json"
        asked.write_text(json.dumps(body))
        done = run("explain", "--json", "--config", str(config), "--endpoint", path, str(asked))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["selected"]["provider"] == "a"
    done = run("explain", "--json", "--config", str(config), "--endpoint", COUNT, str(asked))
    assert done.returncode == 2
    assert "count" not in done.stderr.partition("expected")[2]
