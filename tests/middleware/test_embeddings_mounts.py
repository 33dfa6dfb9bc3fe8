"""Embeddings of providers that have an API of their own for them, on both mounts."""

import base64
import struct

import pytest
from upstreams import Script

EMBEDDINGS = "/v1/embeddings"
ON = {"X-AI-Multi-Provider": "enabled"}
VECTORS = [[0.25, -0.5], [1.0, 0.125]]
#: dialect -> path below the base URL, the answer, and the texts that were sent
APIS = {
    "cohere_embed": (
        "/embed",
        {"embeddings": {"float": VECTORS}, "meta": {"billed_units": {"input_tokens": 4}}},
        lambda body: body["texts"],
    ),
    "gemini_embed": (
        "/models/at-a:batchEmbedContents",
        {"embeddings": [{"values": v} for v in VECTORS], "usageMetadata": {"promptTokenCount": 4}},
        lambda body: [row["content"]["parts"][0]["text"] for row in body["requests"]],
    ),
    "workers_ai_embed": (
        "/run/at-a",
        {"result": {"shape": [2, 2], "data": VECTORS, "usage": {"prompt_tokens": 4}}, "success": True},
        lambda body: body["text"],
    ),
}  # fmt: skip
EACH = pytest.mark.parametrize("dialect", APIS)


@pytest.fixture
def served(pair, fakes):
    """``served(dialect)``: a mount whose provider ``a`` gives vectors in that dialect only."""

    def build(dialect, **rest):
        fakes.a.script = Script(body=APIS[dialect][1])
        facts = {"model": "at-a", "capabilities": ["embeddings"]}
        return pair(
            facts, {"capabilities": ["embeddings"]}, provider_a={"dialects": [dialect]}, **rest
        )

    return build


@EACH
@pytest.mark.parametrize("name", ["m-a", "auto"])
def test_vectors_come_from_an_api_of_its_own(served, fakes, dialect, name):
    body = {"model": name, "input": ["one", "two"]}
    got = served(dialect).post(EMBEDDINGS, body, {**ON, "X-AI-Provider-Pool": "a"})
    assert got.status == 200, got
    path, _, texts = APIS[dialect]
    [seen] = fakes.a.seen
    assert seen.path == "/v1" + path
    assert texts(seen.body) == ["one", "two"]
    assert [row["embedding"] for row in got.json["data"]] == VECTORS
    assert [row["index"] for row in got.json["data"]] == [0, 1]
    assert (got.json["object"], got.json["model"]) == ("list", name)
    assert got.json["usage"]["prompt_tokens"] == 4


@EACH
def test_vectors_are_packed_where_the_client_asks_for_it(served, dialect):
    body = {"model": "m-a", "input": ["one", "two"], "encoding_format": "base64"}
    got = served(dialect).post(EMBEDDINGS, body, ON)
    packed = [base64.b64decode(row["embedding"]) for row in got.json["data"]]
    assert [list(struct.unpack("<2f", raw)) for raw in packed] == VECTORS


@EACH
@pytest.mark.parametrize("change", [{"input": [1, 2]}, {"input": ["x"] * 101}])
def test_what_an_api_cannot_take_goes_to_another_or_is_refused(served, fakes, dialect, change):
    server = served(dialect)
    body = {"model": "auto", "input": "one", **change}
    got = server.post(EMBEDDINGS, body, {**ON, "X-AI-Provider-Pool": "a,b"})
    assert (got.status, got.provider) == (200, "b")
    got = server.post(EMBEDDINGS, {**body, "model": "m-a"}, ON)
    assert got.status in (400, 422), got
    assert got.error["code"] != "internal_error"
    assert "a" not in fakes.called()


@EACH
def test_failover_to_an_api_of_its_own(served, fakes, dialect):
    server = served(dialect, routing={"failover": {"same_provider_retries": 0}})
    fakes.b.script = Script(status=503)
    body = {"model": "auto", "input": ["one", "two"]}
    got = server.post(EMBEDDINGS, body, {**ON, "X-AI-Provider-Preference": "b"})
    assert (got.status, got.provider) == (200, "a")
    assert [row["embedding"] for row in got.json["data"]] == VECTORS


@pytest.mark.requirement("AIP-API-017")
def test_a_context_window_is_held_by_each_text_and_not_by_all_together(pair, fakes):
    """Fifty texts that fit are asked for together; one that does not is refused, by its member."""
    facts = {"capabilities": ["embeddings"], "context_window": 100}
    served = pair(facts, facts)
    data = [{"object": "embedding", "index": i, "embedding": [1.0]} for i in range(50)]
    fakes.a.script = Script(body={"object": "list", "model": "m-a", "data": data})
    for texts in (["word " * 40] * 50, [[1] * 100] * 50):
        got = served.post(EMBEDDINGS, {"model": "m-a", "input": texts}, ON)
        assert got.status == 200, got
    for texts in (["a", "word " * 200], "word " * 200, [[1], [1] * 101], [1] * 101):
        got = served.post(EMBEDDINGS, {"model": "m-a", "input": texts}, ON)
        assert (got.status, got.error["code"]) == (400, "context_length_exceeded"), got
        assert got.error["param"] == "input"
    assert len(fakes.a.seen) == 2
