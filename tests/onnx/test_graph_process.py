"""A graph in a process of its own: the same numbers, and what happens when that process is lost."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bert_graph import write_tiny

from aiproxy.reference_server.onnx import ModelUnavailable
from aiproxy.reference_server.onnx.condition import condition
from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.devices.trial import try_in_process
from aiproxy.reference_server.onnx.local_model import LocalModel
from aiproxy.reference_server.onnx.vectors.session import open_graph
from aiproxy.reference_server.onnx.worker.graph_process import CallFailed, GraphProcess

CPU = Device()


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("bert")) / "model.onnx"


@pytest.fixture
def session(graph: Path) -> Iterator[GraphProcess]:
    found = GraphProcess(graph, CPU, compute_s=5.0, pause_s=0.3)
    yield found
    found.close()


def feeds(session: Any, rows: int = 2) -> dict[str, Any]:
    return {name: np.ones((rows, 3), np.int64) for name in session.inputs}


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_it_computes_what_the_same_session_here_does(graph: Path, session: GraphProcess) -> None:
    here = open_graph(graph, CPU)
    assert (dict(session.inputs), dict(session.outputs)) == (here.inputs, here.outputs)
    names = list(here.outputs)
    there, wanted = session.run(feeds(here), names), here.run(feeds(here), names)
    assert list(there) == names
    assert all(np.array_equal(there[name], wanted[name]) for name in names)
    assert session.pid != os.getpid()


def test_a_call_the_graph_refuses_leaves_the_process(session: GraphProcess) -> None:
    pid = session.pid
    with pytest.raises(CallFailed):
        session.run({"nonsense": np.ones(1)}, list(session.outputs))
    session.run(feeds(session), list(session.outputs))
    assert session.pid == pid


def test_a_killed_process_is_told_and_another_started(session: GraphProcess) -> None:
    """Callers learn it at once; after a pause the next call is served by a new process."""
    pid = session.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="failed and is started again"):
            session.run(feeds(session), list(session.outputs))
    time.sleep(0.35)
    session.run(feeds(session), list(session.outputs))
    assert session.pid not in (None, pid)
    assert gone(pid)


def test_a_lost_process_is_told_until_another_is_there(session: GraphProcess) -> None:
    """What /readyz and /v1/providers say of a model that computes there."""
    part = SimpleNamespace(lost=None, close=session.close)
    model = LocalModel("m", ("embeddings",), 9, embedding=part, device=CPU)

    def told() -> tuple[str, str | None]:
        part.lost = session.lost
        now = condition(model)
        return now.state, now.reason

    assert told() == ("ready", None)
    assert session.pid is not None
    os.kill(session.pid, signal.SIGKILL)
    until(lambda: session.lost is not None)  # before anybody called
    assert told() == ("lost", "its process failed and is started again")
    for _ in range(2):
        with pytest.raises(ModelUnavailable):
            session.run(feeds(session), list(session.outputs))
        assert told()[0] == "lost"
    session._pause_s = 0.0
    session.run(feeds(session), list(session.outputs))
    assert told() == ("ready", None)


def test_what_lies_in_the_current_folder_is_not_imported(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a graph's process nor by the trial of a GPU."""
    trap = (
        f"import pathlib; pathlib.Path({str(tmp_path / 'sprung')!r}).touch(); raise SystemExit(9)"
    )
    for name in ("msgspec", "numpy", "json", "logging", "aiproxy"):
        (tmp_path / f"{name}.py").write_text(trap)
    monkeypatch.chdir(tmp_path)
    GraphProcess(graph, CPU).close()
    assert "ended with" not in (try_in_process(0) or "")
    assert not (tmp_path / "sprung").exists()


def until(true: Callable[[], bool], within_s: float = 5.0) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def test_a_process_that_gives_no_answer_is_killed(graph: Path) -> None:
    session = GraphProcess(graph, CPU, compute_s=0.3)
    pid = session.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(ModelUnavailable):
        session.run(feeds(session), list(session.outputs))
    assert time.monotonic() - began < 5
    assert gone(pid)
    session.close()


def test_closing_does_not_wait_for_a_computation_that_hangs(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiproxy.reference_server.onnx.worker.graph_process._END_S", 0.3)
    session = GraphProcess(graph, CPU, compute_s=60.0)
    pid = session.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(session.run, feeds(session), list(session.outputs))
        time.sleep(0.2)
        began = time.monotonic()
        session.close()
        assert time.monotonic() - began < 5
        with pytest.raises(ModelUnavailable):
            hanging.result(5)
    assert gone(pid)


def test_closing_ends_the_process_and_refuses_calls(session: GraphProcess) -> None:
    pid = session.pid
    assert pid is not None
    session.close()
    session.close()
    assert gone(pid)
    with pytest.raises(ModelUnavailable, match="it is unloaded"):
        session.run({}, [])


def test_a_graph_that_cannot_be_loaded_there(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelUnavailable, match="damaged or uses unknown operators"):
        GraphProcess(tmp_path / "net.onnx", CPU)


def test_a_forked_server_starts_a_process_of_its_own(session: GraphProcess) -> None:
    """As gunicorn with a preloaded application: parent and child do not share a socket."""
    ours = session.pid
    session._pause_s = 0.0
    child = os.fork()
    if child == 0:
        code = 1
        try:
            session.run(feeds(session), list(session.outputs))
            code = 0 if session.pid != ours else 2
            session.close()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    session.run(feeds(session), list(session.outputs))
    assert session.pid == ours
