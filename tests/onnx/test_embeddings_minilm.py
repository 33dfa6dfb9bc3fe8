"""A real embedding model: all-MiniLM-L6-v2, fetched by scripts/test_models.py and pinned by hash.

minilm_vectors.json has what transformers gives for each text alone, and small sets of sentences with
a right answer among wrong ones.
"""

import asyncio
import base64
import importlib.util
import json
import os
import sys
from pathlib import Path

import bert_graph
import numpy as np
import pytest

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.folders import read_folder
from aiproxy.reference_server.onnx.vectors.embedding import open_embedding

req = pytest.mark.requirement
ROOT = Path(__file__).resolve().parents[2]
STORED = json.loads((Path(__file__).parent / "minilm_vectors.json").read_text())
TEXTS = [row["text"] for row in STORED["rows"]]
VECTORS = np.stack(
    [np.frombuffer(base64.b64decode(row["vector"]), "<f4") for row in STORED["rows"]]
)
sys.path.insert(0, str(ROOT / "tests" / "server"))


def checkpoint():
    """The unpacked checkpoint; skips, or fails where everything is required, without it."""
    spec = importlib.util.spec_from_file_location(
        "model_files", ROOT / "scripts" / "test_models.py"
    )
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.minilm()
    if found is None:
        reason = "all-MiniLM-L6-v2 is not here: python scripts/test_models.py minilm"
        if os.environ.get("AIPROXY_REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bert_graph.write_minilm(checkpoint(), tmp_path_factory.mktemp("minilm"))


@pytest.fixture(scope="module")
def served(folder, tmp_path_factory):
    """``aiproxy serve`` with the model as its only one."""
    from served import serve

    row = {"name": "minilm", "path": str(folder), "capabilities": ["embeddings"]}
    config = {"providers": {"local": {"type": "local", "models": [row]}}}
    with serve(tmp_path_factory.mktemp("served"), config) as server:
        yield server


@pytest.mark.parametrize("max_batch", [1, 7])
def test_vectors_agree_with_transformers(folder, max_batch):
    """Within 1e-5, alone and in batches of different lengths; token counts are the same too."""
    model = open_embedding(read_folder(folder), Device(), max_batch=max_batch)

    async def run():
        rows = await model.tokens(TEXTS)
        assert [len(row) for row in rows] == [row["tokens"] for row in STORED["rows"]]
        return await model.embed(rows)

    try:
        assert (model.max_length, model.dimensions, model.pooling) == (256, 384, "mean")
        assert np.abs(asyncio.run(run()) - VECTORS).max() < 1e-5
    finally:
        model.close()


@req("AIP-PROV-001", "AIP-API-001")
def test_the_server_gives_these_vectors(served):
    """Through POST /v1/embeddings of the server, as numbers and as base64."""
    plain = served.post("/v1/embeddings", {"model": "minilm", "input": TEXTS})
    assert plain.status == 200, plain
    found = np.array([row["embedding"] for row in plain.json["data"]])
    assert np.abs(found - VECTORS).max() < 1e-5
    assert plain.json["usage"]["prompt_tokens"] == sum(row["tokens"] for row in STORED["rows"])
    body = {"model": "minilm", "input": TEXTS, "encoding_format": "base64"}
    packed = served.post("/v1/embeddings", body).json["data"]
    again = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in packed]
    assert np.array_equal(np.stack(again), found.astype("<f4"))


@pytest.mark.parametrize("case", STORED["sets"], ids=lambda case: case["query"][:24])
def test_the_right_sentence_ranks_first(served, case):
    """By cosine, with half of the dimensions as well as with all."""
    texts = [case["query"], case["right"], *case["wrong"]]
    got = served.post("/v1/embeddings", {"model": "minilm", "input": texts})
    vectors = np.array([row["embedding"] for row in got.json["data"]])
    cosines = vectors[1:] @ vectors[0]
    assert cosines.argmax() == 0, dict(zip(texts[1:], cosines, strict=True))


@req("AIP-API-017")
def test_predict_gives_the_same_vectors(served):
    got = served.post("/aiproxy/predict", {"model": "minilm", "input": TEXTS[:2]})
    assert got.status == 200, got
    assert np.abs(np.array(got.json["output"]) - VECTORS[:2]).max() < 1e-5


def test_a_text_that_is_too_long_is_refused_by_the_server(served):
    got = served.post("/v1/embeddings", {"model": "minilm", "input": "word " * 300})
    assert (got.status, got.error["code"]) == (400, "context_length_exceeded"), got


def test_an_embedding_model_answers_no_chat(served):
    body = {"model": "minilm", "messages": [{"role": "user", "content": "Hello"}]}
    got = served.post("/v1/chat/completions", body)
    assert (got.status, got.error["code"]) == (400, "unsupported_capability"), got
