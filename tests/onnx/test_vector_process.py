"""Vectors from a worker process: the same numbers, and what a dead process means to a client."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import bert_graph
import numpy as np
import pytest
import tiny_images

from aiproxy.reference_server.onnx.bodies.embeddings import embed
from aiproxy.reference_server.onnx.bodies.predicting import classify
from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import LocalError
from aiproxy.reference_server.onnx.folders import read_folder
from aiproxy.reference_server.onnx.vectors.embedding import open_embedding
from aiproxy.reference_server.onnx.vectors.images import open_image
from aiproxy.reference_server.onnx.worker.graph_process import GraphProcess

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))
req = pytest.mark.requirement
CPU = Device()
TEXTS = ["hello world", "abc", "zebra"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bert_graph.write_tiny(tmp_path_factory.mktemp("bert"))


def vectors(model):
    answer = asyncio.run(embed(model, {"input": TEXTS}))
    return np.array([row["embedding"] for row in answer["data"]])


def test_the_same_vectors_come_from_a_process(folder):
    here = open_embedding(read_folder(folder), CPU)
    there = open_embedding(read_folder(folder), CPU, session_factory=GraphProcess)
    try:
        assert np.array_equal(vectors(here), vectors(there))
    finally:
        here.close()
        there.close()


def test_the_same_scores_come_from_a_process(tmp_path):
    tiny_images.write_clip(tmp_path, towers=True)
    here = open_image(read_folder(tmp_path), CPU)
    there = open_image(read_folder(tmp_path), CPU, session_factory=GraphProcess)
    body = {
        "image": tiny_images.base64(tiny_images.draw("red", "cross", 1)),
        "labels": ["a", "b c"],
    }
    try:
        found = [asyncio.run(classify(model, body))["data"] for model in (here, there)]
        assert found[0] == found[1]
    finally:
        here.close()
        there.close()


@pytest.mark.parametrize("towers", [True, False], ids=["two graphs", "one graph"])
def test_a_model_of_images_and_texts_tells_that_its_process_is_gone(tmp_path, towers):
    processes = []

    def started(path, device):
        processes.append(GraphProcess(path, device))
        return processes[-1]

    tiny_images.write_clip(tmp_path, towers=towers)
    model = open_image(read_folder(tmp_path), CPU, session_factory=started)
    try:
        assert model.lost is None
        os.kill(processes[-1].pid, signal.SIGKILL)
        until(lambda: model.lost is not None)
    finally:
        model.close()


def test_an_embedder_tells_that_its_process_is_gone(folder):
    model = open_embedding(read_folder(folder), CPU, session_factory=GraphProcess)
    try:
        assert model.lost is None
        os.kill(model._encoder._session.pid, signal.SIGKILL)
        until(lambda: model.lost is not None)
    finally:
        model.close()


def test_a_computation_that_fails_there_fails_its_input_alone(folder):
    """An id beyond the table, next to rows that are right."""
    model = open_embedding(read_folder(folder), CPU, max_batch=4, session_factory=GraphProcess)

    async def run():
        calls = [model.batcher.map([row]) for row in ((4, 5), (999,), (6, 7))]
        return await asyncio.gather(*calls, return_exceptions=True)

    try:
        first, bad, last = asyncio.run(run())
        assert isinstance(bad, LocalError)
        assert bad.status == 500
        assert len(first) == len(last) == 1
    finally:
        model.close()


@pytest.mark.slow
@req("AIP-FAIL-001")
def test_a_killed_process_fails_over_and_comes_back(folder, tmp_path):
    """``worker: process`` of ``aiproxy serve``: the next provider answers meanwhile, and the model
    again once its process is back."""
    from served import EmbeddingUpstream, serve

    rows = [{"name": "m", "path": str(folder), "capabilities": ["embeddings"]}]
    with EmbeddingUpstream("cloud") as cloud:
        config = {
            "providers": {
                "local": {"type": "local", "worker": "process", "models": rows, "priority": 1},
                "cloud": {
                    "type": "openai_compatible",
                    "endpoint": cloud.url,
                    "priority": 2,
                    "models": [
                        {"name": "m", "capabilities": ["embeddings"], "cost_per_1k_tokens": 0.1}
                    ],
                },
            },
            "routing": {"strategy": "cost", "health": {"probe_after": "1s"}},
        }
        with serve(tmp_path, config) as server:

            def provider():
                got = server.post("/v1/embeddings", {"model": "m", "input": TEXTS})
                assert got.status == 200, got
                return got.json["x-aiproxy"]["provider"]

            assert provider() == "local"
            [worker] = children(server.process.pid)
            os.kill(worker, signal.SIGKILL)
            assert provider() == "cloud"
            until(lambda: provider() == "local")
            [again] = children(server.process.pid)
            assert again != worker
            server.process.kill()
            server.process.wait(10)
            until(lambda: not Path(f"/proc/{again}").exists())


def until(condition, within_s=30.0):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def children(pid):
    """The processes started by one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text() if entry.name.isdecimal() else ""
        except OSError:
            continue
        if stat and int(stat.rpartition(")")[2].split()[1]) == pid:
            found.append(int(entry.name))
    return found
