"""Embeddings: one canonical form between OpenAI's clients and every provider's own call."""

from array import array
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import httpx2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import OpenAI

from aiproxy.middleware.dialects import (
    Envelope,
    Loss,
    MalformedReply,
    MalformedRequest,
    Untranslatable,
    Usage,
    embeddings,
)
from aiproxy.middleware.dialects.embeddings import cohere, gemini, workers_ai
from aiproxy.spec import validate

VECTORS = [[0.25, -0.5, 1.0], [0.0, 2.0, -4.0]]
BGE = "@cf/baai/bge-m3"


def asked(**body: Any) -> Any:
    return embeddings.decode_request({"model": "m", "input": ["a", "b"], **body})


def envelope(**request: Any) -> Envelope:
    return Envelope("embd-1", 1_790_000_000, "auto", request)


def packed(vector: list[float]) -> str:
    return b64encode(array("f", vector).tobytes()).decode()


# --- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "input": "a"},
        {"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 3},
        {"model": "m", "input": [1, 2, 3], "user": "u"},
        {"model": "m", "input": [[1], [2, 3]], "encoding_format": "float"},
        {"model": "m", "input": "a", "input_type": "search_query", "more": {"x": 1}},
    ],
)
def test_a_request_that_stays_in_its_dialect_keeps_everything(body: Any) -> None:
    assert embeddings.encode_request(embeddings.decode_request(body), "m") == (body, [])
    assert embeddings.target("m", False) == "/embeddings"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": 1}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": {}}, "input"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": [1, "a"]}, "input[1]"),
        ({"input": [True]}, "input[0]"),
        ({"input": [[1], 2]}, "input[1]"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": "3"}, "dimensions"),
    ],
)
def test_malformed_requests_name_the_member(body: Any, param: str) -> None:
    with pytest.raises(MalformedRequest) as found:
        asked(**body)
    assert found.value.param == param


def test_cohere_is_told_what_vectors_are_for() -> None:
    body, losses = cohere.encode_request(asked(dimensions=256), "embed-v4.0")
    assert body == {
        "model": "embed-v4.0",
        "texts": ["a", "b"],
        "input_type": "search_document",
        "embedding_types": ["float"],
        "output_dimension": 256,
    }
    assert losses == []
    body, losses = cohere.encode_request(
        asked(input_type="search_query", truncate="START", user="u", x=1), "m"
    )
    assert (body["input_type"], body["truncate"]) == ("search_query", "START")
    assert {loss.feature for loss in losses} == {"user", "x"}
    assert cohere.target("m", False) == "/embed"


def test_gemini_is_asked_once_a_text() -> None:
    body, losses = gemini.encode_request(
        asked(dimensions=256, input_type="clustering"), "models/gemini-embedding-001"
    )
    assert body["requests"][1] == {
        "model": "models/gemini-embedding-001",
        "taskType": "CLUSTERING",
        "outputDimensionality": 256,
        "content": {"parts": [{"text": "b"}]},
    }
    assert losses == []
    assert gemini.target("gemini-embedding-001", False) == (
        "/models/gemini-embedding-001:batchEmbedContents"
    )
    assert {loss.feature for loss in gemini.encode_request(asked(user="u"), "m")[1]} == {"user"}


def test_workers_ai_knows_texts_only() -> None:
    body, losses = workers_ai.encode_request(asked(input_type="clustering", user="u"), BGE)
    assert body == {"text": ["a", "b"]}
    assert {loss.feature for loss in losses} == {"input_type", "user"}
    assert workers_ai.target(BGE, False) == f"/run/{BGE}"
    with pytest.raises(Untranslatable, match="dimensions"):
        workers_ai.encode_request(asked(dimensions=256), BGE)


@pytest.mark.parametrize(("module", "most"), [(cohere, 96), (gemini, 100), (workers_ai, 100)])
def test_token_ids_and_too_many_texts_are_refused(module: Any, most: int) -> None:
    module.encode_request(asked(input=["a"] * most), "m")
    for value in (["a"] * (most + 1), [1, 2], [[1]]):
        with pytest.raises(Untranslatable, match="input"):
            module.encode_request(asked(input=value), "m")


# --- answers -------------------------------------------------------------------------------------

OPENAI_BODY: dict[str, Any] = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [
        {"object": "embedding", "index": 1, "embedding": VECTORS[1]},
        {"object": "embedding", "index": 0, "embedding": packed(VECTORS[0])},
    ],
    "usage": {"prompt_tokens": 4, "total_tokens": 4},
}
COHERE_BODY: dict[str, Any] = {
    "id": "e1",
    "texts": ["a", "b"],
    "embeddings": {"float": VECTORS},
    "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 4}},
    "response_type": "embeddings_by_type",
}
GEMINI_BODY: dict[str, Any] = {
    "embeddings": [{"values": VECTORS[0]}, {"values": VECTORS[1]}],
    "usageMetadata": {"promptTokenCount": 4},
}
WORKERS_BODY: dict[str, Any] = {
    "result": {"shape": [2, 3], "data": VECTORS, "pooling": "cls", "usage": {"prompt_tokens": 4}},
    "success": True,
    "errors": [],
    "messages": [],
}
BODIES = [
    (embeddings, OPENAI_BODY), (cohere, COHERE_BODY), (gemini, GEMINI_BODY),
    (workers_ai, WORKERS_BODY),
    (cohere, {**COHERE_BODY, "embeddings": {"base64": [packed(v) for v in VECTORS]}}),
    (cohere, {**COHERE_BODY, "embeddings": VECTORS}),
]  # fmt: skip


@pytest.mark.parametrize(("module", "body"), BODIES)
@pytest.mark.parametrize("form", ["float", "base64"])
def test_every_provider_s_vectors_reach_the_client(module: Any, body: Any, form: str) -> None:
    assert module.check_reply(body) is None
    reply = module.decode_reply(body)
    assert reply.source == module.DIALECT
    assert reply.usage == module.read_usage(body) == Usage(4)
    losses: list[Loss] = []
    told = embeddings.encode_reply(reply, envelope(encoding_format=form), losses)
    assert losses == []
    validate(told, "responses/embeddings")
    assert told["model"] == "auto"
    assert told["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    expected: list[Any] = VECTORS if form == "float" else [packed(v) for v in VECTORS]
    assert [item["embedding"] for item in told["data"]] == expected
    assert [item["index"] for item in told["data"]] == [0, 1]


@pytest.mark.parametrize("form", [None, "float", "base64"])
def test_the_sdk_reads_our_vectors(form: Any) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        given_body = orjson.loads(request.content)
        embeddings.decode_request(given_body)
        reply = cohere.decode_reply(COHERE_BODY)
        return httpx2.Response(200, json=embeddings.encode_reply(reply, envelope(**given_body)))

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    sdk = OpenAI(api_key="k", base_url="http://test/v1", http_client=transport, max_retries=0)
    more = {} if form is None else {"encoding_format": form}
    found = sdk.embeddings.create(model="auto", input=["a", "b"], **more)
    if form == "base64":
        assert [item.embedding for item in found.data] == [packed(v) for v in VECTORS]
    else:
        assert [item.embedding for item in found.data] == VECTORS


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20)
)
def test_packed_vectors_are_the_same_vectors(vector: list[float]) -> None:
    data = [{"index": 0, "embedding": packed(vector)}]
    reply = embeddings.decode_reply({"data": data})
    assert list(reply.vectors[0]) == vector
    told = embeddings.encode_reply(reply, envelope(encoding_format="base64"))
    assert told["data"][0]["embedding"] == packed(vector)


def test_numbers_without_a_place_in_32_bits() -> None:
    reply = embeddings.decode_reply({"data": [{"embedding": [1e300]}]})
    with pytest.raises(MalformedReply, match="too large"):
        embeddings.encode_reply(reply, envelope(encoding_format="base64"))


@pytest.mark.parametrize(
    ("module", "body"),
    [
        (embeddings, {"error": {"message": "x"}}),
        (embeddings, {"data": []}),
        (embeddings, {"data": [{"index": 0}]}),
        (embeddings, {"data": [{"embedding": []}]}),
        (embeddings, {"data": [{"embedding": ["a"]}]}),
        (embeddings, {"data": [{"embedding": [True]}]}),
        (embeddings, {"data": [{"embedding": "not base64"}]}),
        (embeddings, {"data": [{"embedding": "AAA="}]}),
        (embeddings, {"data": [{"embedding": ""}]}),
        (embeddings, {"data": [{"embedding": packed([float("nan")])}]}),
        (cohere, {"message": "invalid api token"}),
        (cohere, {"embeddings": {"float": []}}),
        (cohere, {"embeddings": {"int8": [[1]]}}),
        (cohere, {"embeddings": {"float": [3]}}),
        (cohere, {"embeddings": {"base64": [3]}}),
        (gemini, {"error": {"message": "x"}}),
        (gemini, {"embeddings": []}),
        (gemini, {"embeddings": [3]}),
        (gemini, {"embeddings": [{}]}),
        (gemini, {}),
        (workers_ai, {"success": False, "errors": [{"message": "x"}]}),
        (workers_ai, {"result": {}, "success": True}),
        (workers_ai, {"result": {"data": []}, "success": True}),
        (workers_ai, {"result": {"data": [[None]]}, "success": True}),
    ],
)
def test_no_answer(module: Any, body: Any) -> None:
    with pytest.raises(MalformedReply) as found:
        module.decode_reply(body)
    assert "x" not in found.value.reason.split()


def test_usage_that_is_not_told_is_not_made_up() -> None:
    body = {"embeddings": GEMINI_BODY["embeddings"]}
    assert gemini.read_usage(body) is None
    assert "usage" not in embeddings.encode_reply(gemini.decode_reply(body), envelope())
    error = {"message": "m", "type": "t", "param": None, "code": None}
    assert embeddings.encode_error(400, error) == {"error": error}


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["data", "embedding", "embeddings", "float", "base64", "index", "values",
                         "result", "usage", "meta", "tokens", "usageMetadata", "success"]),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip
MODULES: list[Any] = [embeddings, cohere, gemini, workers_ai]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(MODULES),
    st.dictionaries(
        st.sampled_from(["data", "embeddings", "result", "meta", "usage", "usageMetadata"]),
        ODD,
        max_size=4,
    ),
)
def test_odd_answers(module: Any, body: Any) -> None:
    module.read_usage(body)
    read: Callable[[Any], Any] = module.decode_reply
    try:
        embeddings.encode_reply(read(body), envelope(encoding_format="base64"))
    except MalformedReply:
        pass


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(MODULES),
    st.dictionaries(
        st.sampled_from(["input", "dimensions", "encoding_format", "user", "input_type", "x"]),
        ODD | st.lists(st.text(max_size=3), max_size=3),
        max_size=4,
    ),
)
def test_odd_requests(module: Any, body: Any) -> None:
    try:
        module.encode_request(asked(**body), "m")
    except (MalformedRequest, Untranslatable):
        pass
