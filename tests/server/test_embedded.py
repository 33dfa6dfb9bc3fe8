"""The server without a configuration, a key or a network."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self

import pytest
from mounts import CHAT, HELLO, RESPONSES
from upstreams import free_port, serve_asgi

from aiproxy.reference_server import embedded as module
from aiproxy.reference_server.embedded import DEMO_MODEL, PROBE_ALL_S, discover, listed_models
from aiproxy.spec import validate
from aiproxy.spec.catalog import Preset, presets


@pytest.mark.requirement("AIP-CLI-002", "AIP-NODE-001")
def test_the_demo_model_answers_without_anything(embedded: Any) -> None:
    got = embedded.post(CHAT, {"model": DEMO_MODEL, "messages": HELLO, "max_tokens": 8})
    assert got.status == 200
    validate(got.json, "responses/chat")
    told = got.json["x-aiproxy"]
    assert (told["provider"], told["node"], told["cost"]) == ("local", "embedded", 0)
    assert got.json["usage"]["completion_tokens"] <= 8


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"model": "auto", "messages": HELLO}),
        (RESPONSES, {"model": DEMO_MODEL, "input": "Hello"}),
        (RESPONSES, {"model": "auto", "messages": HELLO}),
        ("/v1/completions", {"model": DEMO_MODEL, "prompt": "Hello"}),
        ("/aiproxy/predict", {"model": DEMO_MODEL, "input": "Hello"}),
    ],
)
def test_the_demo_model_is_reached_by_every_text_endpoint(
    embedded: Any, path: str, body: dict[str, Any]
) -> None:
    got = embedded.post(path, body)
    assert got.status == 200, got.body
    if path != "/aiproxy/predict":
        ended = embedded.post(path, {**body, "stream": True}).events
        assert ended[-1] == "[DONE]"


def test_embeddings_have_no_local_model(embedded: Any) -> None:
    got = embedded.post("/v1/embeddings", {"model": DEMO_MODEL, "input": "x"})
    assert 400 <= got.status < 500
    validate(got.json, "error")


def test_a_cloud_key_in_the_environment_switches_its_provider_on() -> None:
    env = {"OPENAI_API_KEY": "canary-openai-key", "GROQ_API_KEY": ""}
    config, found = discover(env, probe=False)
    assert set(config.values["providers"]) == {"openai", "local"}
    told = {line.name: line for line in found}
    assert told["openai"].used
    assert not told["groq"].used
    assert told["groq"].detail == "needs GROQ_API_KEY"
    assert "canary" not in repr(found) + repr(config) + json.dumps(config.masked())
    entry = config.values["providers"]["openai"]
    assert entry["priority"] < config.values["providers"]["local"]["priority"]
    assert entry["models"]


def test_without_a_key_only_the_demo_model_is_there() -> None:
    config, found = discover({}, probe=False)
    assert set(config.values["providers"]) == {"local"}
    assert all(line.used == (line.name == "local") for line in found)


def test_without_the_extra_the_banner_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    _, found = discover({"OPENAI_API_KEY": "k"}, probe=False)
    assert found[-1].detail == "needs pip install 'aiproxy[onnx]'"


# --- probing -------------------------------------------------------------------------------------


class FakeOllama:
    """Answers ``/v1/models`` with ``document``; anything else is 404."""

    def __init__(self, document: Any, status: int = 200) -> None:
        self.body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.status = status
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1/models"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            status = self.status if scope["path"] == "/v1/models" else 404
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": self.body})

    def __enter__(self) -> Self:
        self._server, self._thread = serve_asgi(self, self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)


LISTED = {"object": "list", "data": [{"id": "llama3.2"}, {"id": "qwen3"}, {"id": "llama3.2"}]}


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``at(url)`` puts the only local server there is to probe at a URL."""

    def put(url: str) -> None:
        ollama: Preset = replace(presets()["ollama"], probe=url)
        monkeypatch.setattr(module, "presets", lambda: {"ollama": ollama})

    return put


def test_a_local_server_is_found_with_its_models(at: Any) -> None:
    with FakeOllama(LISTED) as fake:
        at(fake.url)
        config, found = discover({})
    entry = config.values["providers"]["ollama"]
    assert [model["name"] for model in entry["models"]] == ["llama3.2", "qwen3"]
    assert entry["endpoint"] == f"http://127.0.0.1:{fake.port}"
    assert found[0].used


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"data": []}, 200),
        ({"data": {"id": "x"}}, 200),
        ({"data": [1, None, {}, {"id": 5}, {"id": ""}]}, 200),
        ([], 200),
        (b"<html>not a model server</html>", 200),
        (b"", 200),
        (b"[" * 100_000, 200),
        (LISTED, 401),
        (LISTED, 500),
    ],
)
def test_what_is_no_model_server_is_left_alone(at: Any, document: Any, status: int) -> None:
    with FakeOllama(document, status) as fake:
        at(fake.url)
        config, found = discover({})
    assert set(config.values["providers"]) == {"local"}
    assert not found[0].used


def test_the_probe_does_not_find_another_of_us(at: Any, embedded: Any) -> None:
    url = f"{embedded.url}/v1/models"
    assert embedded.get("/v1/models").json["data"]
    assert listed_models(url) == []
    at(url)
    config, _ = discover({})
    assert set(config.values["providers"]) == {"local"}


@pytest.fixture
def dribbling() -> Iterator[int]:
    """A server that sends one octet of its answer every tenth of a second, for ever."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plug, _ = listener.accept()
            with plug:
                try:
                    plug.sendall(b"HTTP/1.1 200 OK\r\n")
                    while not ended.wait(0.1):
                        plug.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        ended.set()
        thread.join(5)


def test_a_server_that_dribbles_does_not_hold_the_start_up(at: Any, dribbling: int) -> None:
    at(f"http://127.0.0.1:{dribbling}/v1/models")
    began = time.monotonic()
    config, _ = discover({})
    assert time.monotonic() - began < PROBE_ALL_S + 2
    assert set(config.values["providers"]) == {"local"}
