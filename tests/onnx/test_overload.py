"""A served local model that is full, or whose process is killed: the router goes on to a cloud.

``aiproxy serve`` as a process; the cloud is a scripted one on a socket.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from inboxes import until
from mounts import Got
from upstreams import Upstream

sys.path.insert(0, str(Path(__file__).parent.parent / "server"))  # where `served` lives

QUESTION = "what does X-AI-Max-Latency do?"
CHAT = {"model": "shared", "messages": [{"role": "user", "content": QUESTION}]}
PREDICT = {"model": "shared", "input": QUESTION}
#: The local one first, then the cloud.
FIRST_FREE = {"X-AI-Multi-Provider": "enabled", "X-AI-Auto-Debug": "true"}


def config(cloud: Upstream, **local: Any) -> dict[str, Any]:
    text = {"name": "shared", "capabilities": ["text-generation"], "cost_per_1k_tokens": 0.01}
    return {
        "routing": {"scope": "all", "strategy": "cost"},
        "providers": {
            "local": {
                "type": "local",
                "priority": 1,
                "device": "cpu",
                "models": [{**text, "cost_per_1k_tokens": 0.0, "path": "builtin:demo"}],
                **local,
            },
            "cloud": {
                "type": "openai_compatible",
                "priority": 2,
                "endpoint": cloud.url,
                "models": [text],
            },
        },
    }


@pytest.fixture
def cloud() -> Iterator[Upstream]:
    with Upstream("cloud") as upstream:
        yield upstream


def crowd(ask: Callable[[], Got], size: int = 12) -> list[Got]:
    """Ask ``size`` times at once."""
    together = threading.Barrier(size)

    def one(_: int) -> Got:
        together.wait(10)
        return ask()

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


@pytest.mark.requirement("AIP-PROV-004", "AIP-API-012")
def test_a_full_local_model_fails_over_and_the_record_says_so(
    tmp_path: Path, cloud: Upstream
) -> None:
    """Running 1 + queue 1: the others are answered by the cloud, and nobody sees an error."""
    from served import serve

    with serve(tmp_path, config(cloud, max_concurrency=1, max_queue=1)) as server:
        chats = crowd(lambda: server.post("/v1/chat/completions", CHAT, FIRST_FREE))
        predictions = crowd(lambda: server.post("/aiproxy/predict", PREDICT, FIRST_FREE))
        for got in (chats, predictions):
            assert [one.status for one in got] == [200] * len(got)
        for one in chats:
            assert (one.provider == "cloud") == bool(one.header("x-ai-failover-occurred"))
            if one.provider == "cloud":
                assert one.selection["failover_reason"] == "local_gpu_busy"
                assert one.selection["attempts"] == [
                    {"provider": "local", "outcome": "local_gpu_busy"},
                    {"provider": "cloud", "outcome": "ok"},
                ]
        for one in predictions:
            told = one.json["metadata"]["routing"]
            if one.json["metadata"]["provider"] == "cloud":
                assert (told["providers_tried"], told["failovers"], told["reason"]) == (
                    ["local", "cloud"],
                    1,
                    "local_gpu_busy",
                )
            else:
                assert (told["providers_tried"], told["failovers"]) == (["local"], 0)
        for by in (
            [one.provider for one in chats],
            [one.json["metadata"]["provider"] for one in predictions],
        ):
            assert by.count("local") >= 2, by
            assert by.count("cloud") >= 1, by
        alone = server.post("/v1/chat/completions", CHAT, FIRST_FREE)
        assert alone.provider == "local"


@pytest.mark.requirement("AIP-PROV-004")
def test_a_full_local_model_alone_answers_503_provider_overloaded(
    tmp_path: Path, cloud: Upstream
) -> None:
    from served import serve

    given = config(cloud, max_concurrency=1, max_queue=1)
    del given["providers"]["cloud"]
    with serve(tmp_path, given) as server:
        got = crowd(lambda: server.post("/v1/chat/completions", CHAT))
        codes = {one.error["code"] for one in got if one.status != 200}
        assert {one.status for one in got} == {200, 503}
        assert codes == {"provider_overloaded"}


def children(pid: int) -> list[int]:
    """The worker processes of a server."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z" and b"worker.child" in command:
            found.append(int(stat.parent.name))
    return found


def test_a_killed_worker_fails_over_and_comes_back(tmp_path: Path, cloud: Upstream) -> None:
    from served import serve

    with serve(tmp_path, config(cloud, worker="process")) as server:
        (worker,) = children(server.process.pid)
        assert server.post("/v1/chat/completions", CHAT, FIRST_FREE).provider == "local"
        os.kill(worker, signal.SIGKILL)
        during = server.post("/v1/chat/completions", CHAT, FIRST_FREE)
        assert (during.status, during.provider) == (200, "cloud")
        until(lambda: bool(set(children(server.process.pid)) - {worker}))
        until(lambda: server.post("/v1/chat/completions", CHAT, FIRST_FREE).provider == "local")
        (again,) = children(server.process.pid)
        assert server.stop() == 0
        until(lambda: not Path(f"/proc/{again}").exists())


@pytest.mark.requirement("XAI-STREAM-009")
def test_a_worker_killed_in_the_middle_of_a_stream_ends_it_in_an_error(
    tmp_path: Path, cloud: Upstream
) -> None:
    """What the client has seen is not told anew by somebody else, nor passed off as complete."""
    from served import serve

    numbers = {"type": "array", "items": {"type": "integer"}, "minItems": 200}
    schema = {"type": "object", "properties": {"n": numbers}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "numbers", "schema": schema}}
    asked = {**CHAT, "stream": True, "response_format": wanted}
    with serve(tmp_path, config(cloud, worker="process")) as server:
        (worker,) = children(server.process.pid)
        chat = f"{server.url}/v1/chat/completions"
        with httpx.stream("POST", chat, json=asked, headers=FIRST_FREE, timeout=30) as got:
            assert got.status_code == 200
            lines = got.iter_lines()
            next(line for line in lines if '"content":"' in line)
            os.kill(worker, signal.SIGKILL)
            rest = [line.removeprefix("data: ") for line in lines if line]
        assert json.loads(rest[-1])["error"]["code"] == "stream_interrupted", rest[-3:]
        assert not any('"finish_reason":"' in line for line in rest)
        assert cloud.seen == []
        until(lambda: server.post("/v1/chat/completions", CHAT, FIRST_FREE).provider == "local")


@pytest.mark.slow
def test_a_server_killed_outright_leaves_no_worker_behind(tmp_path: Path, cloud: Upstream) -> None:
    from served import serve

    with serve(tmp_path, config(cloud, worker="process")) as server:
        (worker,) = children(server.process.pid)
        server.process.kill()
        server.process.wait()
    until(lambda: not Path(f"/proc/{worker}").exists())
