"""Images to labels through ``/aiproxy/predict``, on both mounts: the wrapped application is asked,
nobody else ever is."""

import json
from contextlib import ExitStack

import pytest
from mounts import hold, model, mounted

from aiproxy.middleware import AIProxyMiddleware, AIProxyWSGIMiddleware

req = pytest.mark.requirement
PREDICT = "/aiproxy/predict"
INSIDE = "/v1/images/classifications"
ROWS = [{"label": "tabby", "score": 0.75}, {"label": "tiger", "score": 0.25}]
SEES = {"capabilities": ["image-classification"]}
ALL = {"routing": {"scope": "all"}}


class Classifier:
    """An application with the internal path, for either interface. ``queue`` holds the answers of
    the next requests, (status, body); without one it classifies."""

    def __init__(self):
        self.seen, self.queue = [], []

    def answer(self, method, path, body):
        self.seen.append((method, path, json.loads(body) if body else None))
        if path != INSIDE:
            return 404, b"{}"
        asked = json.loads(body)
        rows = ROWS[: asked.get("top_k")]
        status, answer = (
            self.queue.pop(0)
            if self.queue
            else (200, {"object": "list", "model": asked["model"], "data": rows})
        )
        return status, json.dumps(answer).encode()

    async def asgi(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        status, answer = self.answer(scope["method"], scope["path"], body)
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": answer})

    def wsgi(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, answer = self.answer(environ["REQUEST_METHOD"], environ["PATH_INFO"], body)
        start_response(f"{status} Whatever", [("content-type", "application/json")])
        return [answer]


@pytest.fixture
def app():
    return Classifier()


@pytest.fixture
def behind(server, app):
    """``behind(config)``: the middleware of a configuration around the classifier."""
    with ExitStack() as stack:

        def build(config):
            wrapped = (
                AIProxyMiddleware(app.asgi, config)
                if server.kind == "asgi"
                else AIProxyWSGIMiddleware(app.wsgi, config)
            )
            return stack.enter_context(mounted(server, config, app=wrapped))

        yield build


@pytest.fixture
def served(behind):
    app_rows = {"type": "app", "models": [{"name": "eyes", **SEES}, {"name": "words"}]}
    return behind({"providers": {"app": app_rows}, **ALL})


def predict(served, **members):
    body = {"model": "eyes", "input": {"image": "AAAA"}, **members}
    return served.post(PREDICT, {k: v for k, v in body.items() if v is not None})


@req("AIP-API-010", "AIP-API-011", "AIP-API-012", "AIP-API-017")
@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("AAAA", {"image": "AAAA"}),
        ({"image": "data:image/png;base64,AAAA"}, {"image": "data:image/png;base64,AAAA"}),
        (
            {"image": {"data": "AAAA", "media_type": "image/png"}},
            {"image": {"data": "AAAA", "media_type": "image/png"}},
        ),
        (
            {"image": "AAAA", "labels": ["a cat", "a dog"], "top_k": 1},
            {"image": "AAAA", "labels": ["a cat", "a dog"], "top_k": 1},
        ),
    ],
)
def test_an_image_is_answered_with_labels(served, app, given, sent):
    got = predict(served, input=given)
    assert got.status == 200, got
    hold(got.json, "responses/predict")
    assert got.json["output"] == ROWS[: sent.get("top_k")]
    assert app.seen == [("POST", INSIDE, {"model": "eyes", **sent})]
    told = got.json["metadata"]
    assert told["provider"] == "app"
    assert told["tokens"] == {"input": 0, "output": 0, "total": 0}
    assert told["cost"] == {"amount": 0, "currency": "USD"}
    assert told["routing"]["providers_tried"] == ["app"]
    record = served.record(got)
    assert [(row["provider"], row["outcome"]) for row in record["attempts"]] == [("app", "ok")]


def test_labels_and_top_k_may_stand_beside_the_input(served, app):
    assert predict(served, labels=["x"], top_k=1).status == 200
    assert app.seen[0][2] == {"model": "eyes", "image": "AAAA", "labels": ["x"], "top_k": 1}


def test_what_says_nothing_of_the_labels_may_stand_beside_them(served, app):
    got = predict(served, user="u", metadata={"a": "b"}, n=1, stream=False, temperature=None)
    assert got.status == 200, got
    assert app.seen[0][2] == {"model": "eyes", "image": "AAAA"}


def test_an_application_without_a_model_list_is_asked_for_any_name(behind, app):
    served = behind(ALL)
    assert predict(served, model="whatever").json["output"] == ROWS
    assert [path for _, path, _ in app.seen] == [INSIDE]


@req("AIP-API-017", "AIP-API-018")
@pytest.mark.parametrize(
    ("members", "code", "param"),
    [
        ({"model": "words"}, "unsupported_capability", "input"),
        ({"input": ["AAAA"]}, "unsupported_capability", "input"),
        ({"input": {"prompt": "a cat"}}, "unsupported_capability", "input"),
        ({"input": {"image": 5}}, "invalid_type", "input.image"),
        ({"input": {"image": ""}}, "invalid_value", "input.image"),
        ({"input": {"image": {"url": "https://x/y.png"}}}, None, None),
        ({"input": {"image": "https://example.com/cat.png"}}, "unsupported_parameter", "input.image"),
        ({"input": {"image": {"data": " File:///etc"}}}, "unsupported_parameter", "input.image"),
        ({"input": {"image": "AAAA", "labels": []}}, "invalid_value", "input.labels"),
        ({"input": {"image": "AAAA", "labels": [1]}}, "invalid_type", "input.labels[0]"),
        ({"input": {"image": "AAAA", "top_k": 0}}, "invalid_value", "input.top_k"),
        ({"input": {"image": "AAAA", "size": 3}}, "unsupported_parameter", "input.size"),
        ({"stream": True}, "unsupported_parameter", "stream"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "unsupported_parameter", "tools"),
        ({"temperature": 0.5}, "unsupported_parameter", "temperature"),
        ({"x_custom": 1}, "unsupported_parameter", "x_custom"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused_before_anybody_is_asked(served, app, members, code, param):
    got = predict(served, **members)
    assert got.status == 400, got
    if code is not None:
        assert (got.error["code"], got.error["param"]) == (code, param), got
    assert app.seen == []


def test_an_unknown_name_is_404_also_with_an_image(served, app):
    got = predict(served, model="nobody")
    assert (got.status, got.error["code"]) == (404, "model_not_found")
    assert app.seen == []


@req("AIP-API-017")
@pytest.mark.parametrize("name", ["eyes", "auto"])
def test_no_remote_provider_is_ever_sent_an_image(behind, fakes, app, name):
    """A cloud that claims the capability is rejected with a reason, chosen by name or not."""
    rows = fakes.config({"cloud": [model("eyes", **SEES)]}, **ALL)
    rows["providers"]["app"] = {"type": "app", "models": [{"name": "other", **SEES}]}
    served = behind(rows)
    got = served.post(
        PREDICT, {"model": name, "input": {"image": "AAAA"}}, {"X-AI-Multi-Provider": "enabled"}
    )
    if name == "auto":
        assert got.status == 200
        assert got.json["metadata"]["provider"] == "app"
    else:
        assert (got.status, got.error["code"]) == (400, "unsupported_capability"), got
        assert got.error["param"] == "model"
    rejected = {row["provider"]: row["reason"] for row in served.record(got)["candidates"]}
    assert rejected["cloud"] == "cannot_express"
    assert fakes.called() == {}


@req("AIP-FAIL-001", "AIP-FAIL-007")
def test_another_model_of_the_process_takes_over(behind, fakes, app):
    """A busy model is left for the next one that sees; the text models are not asked."""
    app.queue.append((503, {"error": {"message": "busy", "type": "upstream_error", "param": None,
                                      "code": "local_gpu_busy"}}))  # fmt: skip
    served = behind(
        {
            "providers": {
                "first": {
                    "type": "local",
                    "models": [{"name": "eyes", "path": "builtin:demo", **SEES}],
                    "priority": 1,
                },
                "app": {"type": "app", "models": [{"name": "eyes", **SEES}], "priority": 2},
            },
            **ALL,
        }
    )
    got = predict(served)
    assert got.status == 200, got
    told = got.json["metadata"]["routing"]
    assert told["providers_tried"] == ["first", "app"]
    assert (told["failovers"], told["reason"]) == (1, "local_gpu_busy")


def test_a_refusal_of_the_application_reaches_the_client(served, app):
    fault = {
        "message": "x",
        "type": "invalid_request_error",
        "param": "input",
        "code": "invalid_value",
    }
    app.queue.append((400, {"error": fault}))
    got = predict(served)
    assert (got.status, got.error["code"], got.error["param"]) == (400, "invalid_value", "input")


@pytest.mark.parametrize(
    "answer",
    [{}, {"data": []}, {"data": [{"label": 1, "score": 0.5}]}, {"data": [{"label": "a", "score": "b"}]},
     {"data": ["a"]}, {"error": {"message": "x"}, "data": ROWS}],
)  # fmt: skip
def test_a_200_without_labels_is_no_answer(served, app, answer):
    app.queue += [(200, answer)] * 5
    got = predict(served)
    assert got.status in (502, 503), got


def test_an_ensemble_classifies_nothing(behind, app):
    served = behind(
        {
            "providers": {
                "app": {"type": "app", "models": [{"name": "eyes", **SEES}, {"name": "w"}]}
            },
            "routing": {
                "scope": "all",
                "ensembles": {"two": {"members": [{"model": "w"}, {"model": "w"}]}},
            },
        }
    )
    got = predict(served, model="ensemble/two")
    assert (got.status, got.error["code"]) == (400, "unsupported_capability"), got
    assert app.seen == []


@req("AIP-SEC-001")
def test_a_key_that_may_not_use_the_model_classifies_nothing(behind, app):
    served = behind(
        {
            "providers": {"app": {"type": "app", "models": [{"name": "eyes", **SEES}, {"name": "w"}]}},
            "security": {"auth": {"type": "api_key", "api_keys": [
                {"name": "k", "key": "sk-" + "a" * 40, "models": ["w"]}]}},
            **ALL,
        }
    )  # fmt: skip
    body = {"model": "eyes", "input": {"image": "AAAA"}}
    got = served.post(PREDICT, body, {"Authorization": "Bearer sk-" + "a" * 40})
    assert (got.status, got.error["code"]) == (403, "model_not_permitted"), got
    assert app.seen == []


def test_a_text_model_still_takes_text(served, fakes, app):
    app.queue.append((500, {}))
    got = served.post(PREDICT, {"model": "words", "input": "Hello"})
    assert app.seen[0][1] == "/v1/chat/completions", got
