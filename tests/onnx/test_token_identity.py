"""What both adapters generate is what transformers generates, token for token.

The expectations are stored (``oracle.json``, by ``scripts/local_oracle.py``); the model is made here
from the same weights. Requests arrive staggered, so that every batch is another one: through the
engine, and through the HTTP API of ``aiproxy serve``, whole and streamed.
"""

import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny_models

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.folders import TextFolder, read_folder
from aiproxy.reference_server.onnx.text.engine import Deliver, Job, TextEngine
from aiproxy.reference_server.onnx.text.genai import open_genai
from aiproxy.reference_server.onnx.text.generation import (
    Event,
    Failed,
    Finished,
    GenerationRequest,
    Token,
)
from aiproxy.reference_server.onnx.text.runner import Produced, Runner
from aiproxy.reference_server.onnx.text.slots import open_slots
from aiproxy.reference_server.onnx.text.text_model import read_text_model

ORACLE: dict[str, Any] = json.loads(Path(__file__).with_name("oracle.json").read_text("utf-8"))
#: Near ties are left out: another order of additions may decide them.
ROWS: list[dict[str, Any]] = [row for row in ORACLE["rows"] if row["sure"] == len(row["tokens"])]
#: The new tokens transformers was asked for at most.
NEW_TOKENS = 48

#: By adapter and graph: what ``tiny_llama`` is told. ``blocks`` are fewer than all need together.
MODELS: dict[str, dict[str, Any]] = {
    "genai-paged": {"paged": True, "blocks": 96},
    "genai-plain": {"paged": False, "cache": "gqa"},
    "slots-gqa": {"paged": False, "cache": "gqa"},
    "slots-concat": {"paged": False, "cache": "concat"},
}


def test_the_expectations_are_of_these_weights() -> None:
    assert ORACLE["weights_sha256"] == tiny_models.weights_digest()
    assert len(ROWS) >= 24
    assert {row["finish"] for row in ROWS} == {"length", "stop"}


def test_templates_and_tokenizer_give_the_prompts_transformers_makes() -> None:
    folder = read_folder(str(tiny_models.tiny_llama(paged=True)))
    assert isinstance(folder, TextFolder)
    text = read_text_model(folder)
    for row in ROWS:
        if "text" in row:
            assert list(text.raw_prompt(row["text"])) == row["prompt"], row["text"]
            assert text.decode(row["tokens"]) == row["said"]


class Recorder:
    """A runner that remembers the tokens it gave, by sequence."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.tokens: dict[int, list[int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def step(self, patience_s: float) -> list[Produced]:
        made = self.runner.step(patience_s)
        for produced in made:
            self.tokens.setdefault(produced.key, []).extend(produced.tokens)
        return made


def whole(text: str) -> str:
    """Return ``text`` without half a character at its end, which is never delivered."""
    return text.rstrip("\N{REPLACEMENT CHARACTER}")


@pytest.fixture(params=MODELS)
def engine(request: pytest.FixtureRequest) -> Iterator[TextEngine]:
    folder = read_folder(str(tiny_models.tiny_llama(**MODELS[request.param])))
    assert isinstance(folder, TextFolder)
    runner: Runner
    if request.param.startswith("genai"):
        runner = open_genai(folder, Device(), slots=8)
    else:
        runner = open_slots(folder, Device(), slots=8)
    made = TextEngine(Recorder(runner), read_text_model(folder).decode)
    yield made
    made.close()


def test_staggered_requests_get_the_tokens_of_transformers(engine: Any) -> None:
    """AIP-PROV: 29 prompts that arrive while others compute, wait for places and blocks, and leave;
    every text and every end is that of a lonely run of the reference implementation."""
    texts: dict[Job, list[str]] = {}
    ends: dict[Job, Event] = {}
    over = threading.Semaphore(0)

    def deliver(events: list[tuple[Job, Event]]) -> None:
        for job, event in events:
            if isinstance(event, Token):
                texts.setdefault(job, []).append(event.text)
            else:
                ends[job] = event
                over.release()

    jobs = submit_staggered(engine, deliver)
    for _ in jobs:
        assert over.acquire(timeout=60)
    for row, job in zip(ROWS, jobs, strict=True):
        end = ends[job]
        assert isinstance(end, Finished), end.error if isinstance(end, Failed) else end
        assert engine.runner.tokens[job.key] == row["tokens"], row
        assert whole("".join(texts.get(job, []))) == whole(row["said"]), row
        assert end.reason == row["finish"], row
        counted = (end.usage.prompt_tokens, end.usage.completion_tokens)
        assert counted == (len(row["prompt"]), len(row["tokens"]))
    state = engine.state
    assert (state.running, state.waiting) == (0, 0)
    assert state.free_blocks == engine.runner.capacity.blocks


def submit_staggered(engine: TextEngine, deliver: Deliver) -> list[Job]:
    """Submit every row, each two steps after the one before."""
    jobs = []
    for row in ROWS:
        jobs.append(engine.submit(GenerationRequest(tuple(row["prompt"]), NEW_TOKENS), deliver))
        seen = engine.state.steps
        deadline = time.monotonic() + 0.05  # the last ones may wait for a place
        while engine.state.steps < seen + 2 and time.monotonic() < deadline:
            time.sleep(0.0005)
    return jobs


# --- through `aiproxy serve` ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with the paged model (genai) and a bare decoder (slots)."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "server"))
    from served import serve

    models = [
        {"name": "paged", "path": str(tiny_models.tiny_llama(**MODELS["genai-paged"]))},
        {"name": "plain", "path": str(tiny_models.tiny_llama(**MODELS["slots-gqa"]))},
        {"name": "bare", "path": str(tiny_models.tiny_llama(**MODELS["slots-concat"]))},
    ]
    provider = {"type": "local", "device": "cpu", "models": models, "max_queue_wait": "60s"}
    config = {"providers": {"local": provider}}
    with serve(tmp_path_factory.mktemp("identity"), config) as server:
        yield server


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", ["paged", "plain", "bare"])
def test_the_http_api_says_what_transformers_says(served: Any, model: str, streamed: bool) -> None:
    """AIP-PROV, UNI-PROV: the same prompts as chats and as raw texts, staggered, over real
    connections; a stream's pieces together are the whole answer."""

    def answered(index: int) -> tuple[str, str, dict[str, int]]:
        time.sleep(index * 0.004)
        return ask(served.port, ROWS[index], model, streamed)

    with ThreadPoolExecutor(len(ROWS)) as clients:
        answers = list(clients.map(answered, range(len(ROWS))))
    for row, (said, finish, usage) in zip(ROWS, answers, strict=True):
        assert whole(said) == whole(row["said"]), row
        assert finish == row["finish"]
        assert usage["prompt_tokens"] == len(row["prompt"])
        assert usage["completion_tokens"] == len(row["tokens"])


def ask(
    port: int, row: dict[str, Any], model: str, streamed: bool
) -> tuple[str, str, dict[str, int]]:
    """Return text, finish reason and usage of one answer."""
    chat = "messages" in row
    body: dict[str, Any] = {"model": model, "max_tokens": NEW_TOKENS, "temperature": 0}
    body |= {"messages": row["messages"]} if chat else {"prompt": row["text"]}
    if streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    try:
        path = "/v1/chat/completions" if chat else "/v1/completions"
        link.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = link.getresponse()
        raw = response.read()
    finally:
        link.close()
    assert response.status == 200, raw
    if not streamed:
        answer = json.loads(raw)
        choice = answer["choices"][0]
        said = choice["message"]["content"] if chat else choice["text"]
        return said, choice["finish_reason"], answer["usage"]
    chunks = [
        json.loads(line.removeprefix(b"data: "))
        for line in raw.splitlines()
        if line.startswith(b"data: {")
    ]
    assert raw.rstrip().endswith(b"data: [DONE]")
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    pieces = [
        (choice["delta"].get("content") or "") if chat else choice["text"] for choice in choices
    ]
    ends = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    usages = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert len(ends) == len(usages) == 1
    return "".join(pieces), ends[0], usages[0]
