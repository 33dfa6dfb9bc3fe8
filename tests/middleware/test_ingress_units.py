"""Clients of other APIs: paths, keys, refusals, the JSON array, the view. No sockets."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxy.middleware.effects import Reply, Send, Start
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.gateway import Gateway
from aiproxy.middleware.intake.ingress import (
    Routes,
    offered_keys,
    query_value,
    refusal,
    refuse_form,
)
from aiproxy.middleware.intake.json_array import as_json_array
from aiproxy.middleware.intake.view import read
from aiproxy.middleware.settings import ENDPOINTS

PROVIDERS = {
    "a": {
        "type": "openai_compatible",
        "endpoint": "http://127.0.0.1:9/v1",
        "models": [{"name": "m"}],
    }
}


def routes(*rows):
    server = {"endpoints": [dict(zip(("path", "protocol"), row, strict=True)) for row in rows]}
    config = {"providers": PROVIDERS, **({"server": server} if rows else {})}
    return Routes(Gateway(config, scope="all").settings)


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "model", "stream", "counting"),
    [
        ("/v1beta/models/m:generateContent", "m", False, False),
        ("/v1beta/models/m:streamGenerateContent", "m", True, False),
        ("/v1beta/models/m:countTokens", "m", False, True),
        ("/v1beta/models/llama3:8b:generateContent", "llama3:8b", False, False),
        ("/v1beta/models/@cf/meta/llama:generateContent", "@cf/meta/llama", False, False),
        ("/v1beta/models/auto:generateContent", "auto", False, False),
        ("/v1/models/m:generateContent", "m", False, False),
        ("/v1/models/m:streamGenerateContent", "m", True, False),
    ],
)
def test_a_google_path_names_the_model_and_the_action(path, model, stream, counting):
    found = routes().match(path)
    assert (found.endpoint, found.model, found.stream) == ("gemini", model, stream)
    assert found.counting is counting
    version = path.split("/")[1]
    assert found.label == f"/{version}/models/{{model}}:" + path.rpartition(":")[2]


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models",
        "/v1beta/models/",
        "/v1beta/models/m",
        "/v1beta/models/m:embedContent",
        "/v1beta/models/:generateContent",
        "/v1beta/models/m:generateContent/x",
        "/v1beta/modelsm:generateContent",
        "/v1/messages/",
        "/v1/messages/batches",
    ],
)
def test_other_paths_are_not_inference(path):
    assert routes().match(path) is None


def test_the_messages_paths():
    answering, counting = map(routes().match, ("/v1/messages", "/v1/messages/count_tokens"))
    assert (answering.endpoint, answering.counting) == ("anthropic", False)
    assert (counting.endpoint, counting.counting) == ("anthropic", True)


@given(st.text(max_size=60))
def test_any_path_below_the_folder_is_taken_or_left(rest):
    found = routes_default.match("/v1beta/models/" + rest)
    assert found is None or (found.model and rest.startswith(found.model + ":"))


routes_default = routes()


def test_a_list_of_endpoints_may_name_them_under_any_prefix():
    found = routes(("/api/v1/messages", "anthropic"), ("/api/v1beta/models", "google"))
    assert found.match("/api/v1/messages").endpoint == "anthropic"
    assert found.match("/api/v1/messages/count_tokens").counting
    assert found.match("/api/v1beta/models/m:generateContent").model == "m"
    assert found.match("/v1/messages") is None
    assert found.match("/v1beta/models/m:generateContent") is None
    assert found.match("/api/v1/models/m:generateContent").model == "m"
    assert found.speaks("/api/v1beta/models/m") == "gemini"


@pytest.mark.parametrize(
    ("path", "headers", "api"),
    [
        ("/v1/models", {}, ""),
        ("/v1/models/m", {"authorization": "Bearer x", "x-api-key": "x"}, ""),
        ("/v1/models", {"anthropic-version": "1"}, "anthropic"),
        ("/v1/models/m", {"x-goog-api-key": "x"}, "gemini"),
        ("/v1beta/models", {}, "gemini"),
        ("/v1/messages", {}, "anthropic"),
        ("/v1/messages/batches", {}, "anthropic"),
        ("/v1/chat/completions", {"anthropic-version": "1", "x-goog-api-key": "x"}, ""),
        ("/v1/embeddings", {}, ""),
    ],
)
def test_which_api_is_spoken_at_a_path(path, headers, api):
    assert routes().speaks(path, tuple(headers.items())) == api


def test_a_list_that_leaves_them_out_switches_them_off():
    config = {
        "providers": PROVIDERS,
        "server": {"endpoints": [{"path": "/v1/chat/completions", "protocol": "openai"}]},
    }
    settings = Gateway(config, scope="all").settings
    assert settings.disabled_paths >= {"/v1/messages", "/v1beta/models"}
    assert settings.model_folders == ()
    assert set(Gateway({"providers": PROVIDERS}).settings.endpoints) == set(ENDPOINTS)


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "headers", "query", "keys"),
    [
        ("anthropic", {"authorization": "Bearer a"}, "", ["a"]),
        ("anthropic", {"x-api-key": "b"}, "", ["b"]),
        ("anthropic", {"authorization": "Basic xyz", "x-api-key": "b"}, "", ["b"]),
        ("anthropic", {"x-goog-api-key": "c"}, "key=d", []),
        ("gemini", {"x-goog-api-key": "c"}, "alt=sse&key=d", ["c", "d"]),
        ("gemini", {}, "key=d%2Be&key=f", ["d+e"]),
        ("gemini", {"x-api-key": "b"}, "keys=d", []),
        ("chat", {"x-api-key": "b", "x-goog-api-key": "c"}, "key=d", []),
        ("", {"authorization": "bearer  a "}, "", ["a"]),
    ],
)
def test_a_key_counts_only_where_its_api_has_it(endpoint, headers, query, keys):
    assert list(offered_keys(endpoint, tuple(headers.items()), query)) == keys


@given(st.text(max_size=200))
def test_any_query_is_read(query):
    query_value(query, "key")


def test_a_query_of_many_fields_is_not_read():
    assert query_value("&".join(f"a{n}=1" for n in range(1000)) + "&key=k", "key") is None


def test_a_form_that_is_not_spoken_is_refused():
    for query in ("", "alt=sse", "alt=json", "$alt=x"):
        refuse_form(query)
    with pytest.raises(ProxyError, match="alt"):
        refuse_form("alt=proto")


def test_the_key_in_a_query_is_not_in_the_repr_of_a_request():
    from aiproxy.middleware.gateway import Inbound

    assert "sk-secret" not in repr(Inbound("/x", "gemini", (), b"", "key=sk-secret"))


# --- refusals ------------------------------------------------------------------------------------


def test_refusals_have_the_shape_of_the_clients_api():
    error = ProxyError("model_not_found", "No such model.", param="model")
    status, body = refusal(error, "chat", "req_1")
    assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")
    status, body = refusal(error, "anthropic", "req_1")
    told = json.loads(body)
    assert (status, told["type"], told["request_id"]) == (404, "error", "req_1")
    assert told["error"]["type"] == "not_found_error"
    status, body = refusal(error, "gemini", "req_1")
    told = json.loads(body)["error"]
    assert (status, told["code"], told["status"]) == (404, 404, "NOT_FOUND")


def test_an_overloaded_provider_has_the_status_anthropics_client_knows():
    status, body = refusal(ProxyError("provider_overloaded", "Busy."), "anthropic", "req_1")
    assert (status, json.loads(body)["error"]["type"]) == (529, "overloaded_error")
    assert refusal(ProxyError("provider_overloaded", "Busy."), "gemini", "x")[0] == 503


# --- the array -----------------------------------------------------------------------------------


def flow(pieces, reply=None):
    if reply is None:
        yield Start(200, (("content-type", "text/event-stream"), ("x-request-id", "r")))
        for piece in pieces:
            yield Send(piece)
    return reply


def told(pieces):
    steps = list(as_json_array(flow(pieces)))
    assert dict(steps[0].headers)["content-type"].startswith("application/json")
    assert dict(steps[0].headers)["x-request-id"] == "r"
    return b"".join(step.data for step in steps[1:])


@given(st.lists(st.integers(1, 40), max_size=12))
def test_events_become_elements_wherever_the_bytes_are_cut(cuts):
    rows = [{"n": number, "t": "a\u2028ü {[,"} for number in range(4)]
    raw = b"\n\n".join(b"data: " + json.dumps(r, ensure_ascii=False).encode() for r in rows)
    raw = b"\n\n" + raw.replace(b"\n\n", b"\r\n\r\n", 1) + b"\n\n"
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(raw[at : at + cut])
        at += cut
    assert json.loads(told([*pieces, raw[at:]])) == rows


def test_an_element_is_there_as_soon_as_its_event_is():
    assert told([b'data: {"a":1}\n\n']) == b'[{"a":1}]'
    first = next(s for s in as_json_array(flow([b'data: {"a":1}\n\n'])) if isinstance(s, Send))
    assert first.data == b'[{"a":1}'
    assert told([]) == b"[]"
    assert told([b": keep-alive\n\n"]) == b"\n[]"


def test_a_refusal_is_the_only_element():
    def run(reply):
        wrapped = as_json_array(flow((), reply))
        with pytest.raises(StopIteration) as stop:
            next(wrapped)
        return stop.value.value.body

    assert run(Reply(404, (), b'{"error":{}}')) == b'[{"error":{}}]'


def test_leaving_closes_the_exchange():
    closed = []

    def inner():
        try:
            yield Start(200, ())
            yield Send(b"data: {}\n\n")
        finally:
            closed.append(True)

    wrapped = as_json_array(inner())
    next(wrapped)
    wrapped.close()
    assert closed == [True]


# --- the view ------------------------------------------------------------------------------------


def test_the_view_of_a_message_request():
    body = {
        "model": "auto",
        "max_tokens": "auto",
        "system": "Be brief.",
        "stream": True,
        "tools": "auto",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Prove it"}]}],
    }
    view, _ = read("anthropic", body)
    assert (view["model"], view["tools"], view["stream"]) == ("auto", "auto", True)
    assert view["max_completion_tokens"] == "auto"
    assert [turn["role"] for turn in view["messages"]] == ["system", "user"]


def test_the_view_of_a_google_request():
    body = {
        "model": "m",
        "stream": False,
        "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
        "generationConfig": {"maxOutputTokens": 7},
    }
    view, _ = read("gemini", body)
    assert (view["model"], view["max_completion_tokens"]) == ("m", 7)
    assert len(view["messages"]) == 1


def test_the_base64_of_googles_client_is_everybodys():
    inline = {"mimeType": "image/png", "data": "_-8="}
    body = {"model": "m", "stream": False, "contents": [{"parts": [{"inlineData": inline}]}]}
    [part] = read("gemini", body)[0]["messages"][0]["content"]
    assert part["image_url"]["url"] == "data:image/png;base64,/+8="


def test_a_request_that_chat_cannot_express_still_has_a_view():
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    hosted = {"type": "web_search_20250305", "name": "web_search"}
    body = {
        "model": "m",
        "max_tokens": 5,
        "tools": [hosted],
        "tool_choice": {"type": "tool", "name": "web_search"},
        "messages": [
            {"role": "user", "content": [{"type": "document", "source": source}]},
            {"role": "assistant", "content": [{"type": "text", "text": "hm"}]},
            {"role": "user", "content": "go on"},
        ],
    }
    view, _ = read("anthropic", body)
    assert view["model"] == "m"
    assert len(view["messages"]) >= 2
