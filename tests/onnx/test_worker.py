"""Workers as real processes: what they say comes back, and no way to end one takes more with it."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from inboxes import Inbox, said, until
from scripted_runner import SCRIPT, asking, decode

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import (
    GenerationFailed,
    LocalBusy,
    ModelUnavailable,
    RequestRefused,
)
from aiproxy.reference_server.onnx.folders import TextFolder, read_folder
from aiproxy.reference_server.onnx.text import engine as engine_module
from aiproxy.reference_server.onnx.text.engine import RemoteRunner, TextEngine
from aiproxy.reference_server.onnx.text.generation import Finished, Sampling, Usage
from aiproxy.reference_server.onnx.text.runner import Capacity, Grammar, RunnerLost, Sequence
from aiproxy.reference_server.onnx.worker import process as process_module
from aiproxy.reference_server.onnx.worker.messages import (
    Add,
    Frames,
    Open,
    pack,
    read_to_worker,
)
from aiproxy.reference_server.onnx.worker.parent import (
    WorkerRunner,
    WorkerSpec,
)

SUPPORT = str(Path(__file__).parent.parent / "support")
CPU = Device()


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    monkeypatch.setattr(engine_module, "RESTART_S", (0.05, 0.2))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., WorkerRunner]]:
    made: list[WorkerRunner] = []

    def make(opener: str = "open_scripted", sizes: Any = None, **behaviour: Any) -> WorkerRunner:
        monkeypatch.setenv(SCRIPT, json.dumps(behaviour))
        made.append(WorkerRunner(WorkerSpec(f"scripted_runner:{opener}", CPU, **(sizes or {}))))
        return made[-1]

    yield make
    for runner in made:
        runner.close()


@pytest.fixture
def engine_of(worker: Any) -> Iterator[Callable[..., TextEngine]]:
    made: list[TextEngine] = []

    def make(**behaviour: Any) -> TextEngine:
        made.append(TextEngine(worker(**behaviour), decode))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not asked after counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# --- answers --------------------------------------------------------------------------------------


def test_a_worker_answers_as_the_runner_in_it_would(engine_of: Any, inbox: Inbox) -> None:
    engine = engine_of(slots=4, context=60, blocks=9, block_tokens=5)
    assert engine.runner.capacity == Capacity(4, 60, 9, 5)
    assert (engine.runner.traits.seeds, engine.runner.traits.grammars) == (
        True,
        frozenset(("regex",)),
    )
    assert isinstance(engine.runner, RemoteRunner)
    jobs = [engine.submit(asking(text), inbox) for text in ("abc", "x", "hello")]
    assert [inbox.wait(job) for job in jobs] == [said("abc"), said("x"), said("hello")]
    assert engine.state.tokens == 9
    assert engine.state.steps >= 6


def test_refusals_and_failures_of_one_sequence_stay_with_it(engine_of: Any, inbox: Inbox) -> None:
    engine = engine_of(refuse="bad", slots=4)
    texts = ("bad", "ab!", "good")
    bad, failing, good = [engine.submit(asking(text), inbox) for text in texts]
    refused = inbox.error(bad)
    assert isinstance(refused, RequestRefused)
    assert (refused.code, refused.message, refused.param) == (
        "invalid_value",
        "this is refused",
        "response_format",
    )
    assert isinstance(inbox.error(failing), GenerationFailed)
    assert inbox.wait(good) == said("good")


def test_a_number_too_large_for_a_message_is_refused(engine_of: Any, inbox: Inbox) -> None:
    engine = engine_of()
    job = engine.submit(asking("a", sampling=Sampling(seed=1 << 70)), inbox)
    assert isinstance(inbox.error(job), RequestRefused)
    assert inbox.wait(engine.submit(asking("ab"), inbox)) == said("ab")


def test_a_cancelled_sequence_is_dropped_in_the_worker(engine_of: Any, inbox: Inbox) -> None:
    engine = engine_of(slots=1, step_s=0.01)
    job = engine.submit(asking("a" * 90), inbox)
    until(lambda: len(inbox.of(job)) > 2)
    job.cancel()
    got = len(inbox.of(job))
    assert inbox.wait(engine.submit(asking("xy"), inbox)) == said("xy")
    assert len(inbox.of(job)) <= got + 1  # one delivery may have been under way


def test_a_new_job_does_not_wait_for_the_step_under_way_to_be_sent(
    engine_of: Any, inbox: Inbox
) -> None:
    """Submitting wakes the owner thread; the sequence is in the worker's socket before its next
    step, and in that step."""
    engine = engine_of(slots=2, step_s=0.3)
    first = engine.submit(asking("abcdef"), inbox)
    until(lambda: len(inbox.of(first)) == 1)
    time.sleep(0.05)  # the worker is in its second step
    second = engine.submit(asking("x"), inbox)
    until(lambda: len(inbox.of(second)) == 1)
    assert len(inbox.of(first)) == 3


def test_large_prompts_go_both_ways_without_a_jam(engine_of: Any, inbox: Inbox) -> None:
    """More than a socket holds, while the worker is busy and talks back."""
    engine = engine_of(slots=8, context=200_000, step_s=0.02)
    chatty = engine.submit(asking("z" * 20), inbox)
    jobs = [engine.submit(asking("ab" * 40_000, max_tokens=2), inbox) for _ in range(7)]
    assert [inbox.wait(job)[-1] for job in jobs] == [Finished("length", Usage(80_000, 2))] * 7
    assert inbox.wait(chatty) == said("z" * 20)


# --- ends -----------------------------------------------------------------------------------------


def test_a_worker_killed_in_mid_answer_fails_the_job_and_comes_back(
    engine_of: Any, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    """AIP-PROV-004: who was given nothing gets a 503 that a router acts on."""
    engine = engine_of(slots=1, step_s=0.01)
    running = engine.submit(asking("a" * 90), inbox)
    waiting = engine.submit(asking("xyz"), inbox)
    until(lambda: len(inbox.of(running)) > 2)
    pid = engine.runner.pid
    os.kill(pid, signal.SIGKILL)
    assert isinstance(inbox.error(running), GenerationFailed)
    assert isinstance(inbox.error(waiting), ModelUnavailable)
    until(lambda: engine.state.restarts == 1)
    assert inbox.wait(engine.submit(asking("xyz"), inbox)) == said("xyz")
    assert engine.runner.pid != pid
    assert "ended by SIGKILL" in caplog.text


def test_a_worker_killed_while_idle_is_back_before_anybody_asks(
    engine_of: Any, inbox: Inbox
) -> None:
    engine = engine_of()
    inbox.wait(engine.submit(asking("a"), inbox))
    os.kill(engine.runner.pid, signal.SIGKILL)
    until(lambda: engine.state.restarts == 1)
    assert inbox.wait(engine.submit(asking("xyz"), inbox)) == said("xyz")


def test_a_sequence_that_kills_its_worker_takes_no_other_engine_with_it(
    engine_of: Any, inbox: Inbox
) -> None:
    engine, other = engine_of(die="die"), engine_of()
    assert isinstance(inbox.error(engine.submit(asking("die!"), inbox)), GenerationFailed)
    assert inbox.wait(other.submit(asking("xyz"), inbox)) == said("xyz")
    until(lambda: engine.state.restarts == 1)


def test_a_worker_that_says_nothing_is_killed(engine_of: Any, inbox: Inbox) -> None:
    engine = engine_of(hang="hang", sizes={"silent_s": 0.3})
    pid = engine.runner.pid
    assert isinstance(inbox.error(engine.submit(asking("hang"), inbox)), ModelUnavailable)
    assert not alive(pid)
    until(lambda: engine.state.restarts == 1)
    assert inbox.wait(engine.submit(asking("xyz"), inbox)) == said("xyz")


def test_an_idle_worker_may_be_silent(engine_of: Any, inbox: Inbox) -> None:
    engine = engine_of(sizes={"silent_s": 0.1})
    for _ in range(2):
        assert inbox.wait(engine.submit(asking("a"), inbox)) == said("a")
        time.sleep(0.3)
    assert engine.state.restarts == 0


def test_a_worker_whose_steps_bring_nothing_is_no_silent_one(engine_of: Any, inbox: Inbox) -> None:
    """It reports its steps, and the youngest job is given up instead of the process."""
    engine = engine_of(stalled=True, slots=2)
    assert isinstance(inbox.error(engine.submit(asking("abc"), inbox)), LocalBusy)
    assert engine.state.restarts == 0


def test_a_restart_that_fails_is_tried_again(
    engine_of: Any, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of()
    inbox.wait(engine.submit(asking("a"), inbox))
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    os.kill(engine.runner.pid, signal.SIGKILL)
    until(
        lambda: (
            "could not be opened" in (engine.state.lost or "")
            or "loading it failed" in (engine.state.lost or "")
        )
    )
    with pytest.raises(ModelUnavailable):
        engine.submit(asking("a"), inbox)
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    until(lambda: engine.state.restarts == 1)
    assert inbox.wait(engine.submit(asking("xyz"), inbox)) == said("xyz")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"unfit": "the graph is torn"}, "the graph is torn"),
        ({"opener": "open_nothing"}, r"loading it failed \(ZeroDivisionError\)"),
        ({"opener": "open_and_die"}, "its process ended with code 3"),
        ({"open_s": 9.0, "sizes": {"start_timeout_s": 0.4}}, "not ready after 0.4 s"),
    ],
)
def test_a_worker_that_cannot_open_its_model_says_why(
    worker: Any, how: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelUnavailable, match=reason):
        worker(**how)


def test_what_a_worker_writes_is_logged_without_what_exceptions_say(
    worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "what a client asked"
    with caplog.at_level(logging.INFO), pytest.raises(ModelUnavailable):
        worker("open_nothing", noise=secret)
    assert "ZeroDivisionError" in caplog.text
    assert "open_nothing" in caplog.text
    assert secret not in caplog.text


def test_native_noise_of_a_worker_is_logged(worker: Any, caplog: pytest.LogCaptureFixture) -> None:
    runner = worker(noise="something native")
    runner.wake()
    runner.step(1.0)
    until(lambda: runner.step(0.05) == [] and "something native" in caplog.text)


def test_close_ends_the_process_even_in_a_long_step(worker: Any, inbox: Inbox) -> None:
    runner = worker(hang="hang")
    engine = TextEngine(runner, decode)
    engine.submit(asking("hang"), inbox)
    until(lambda: engine.load == (1, 0))
    pid, began = runner.pid, time.monotonic()
    engine.close()
    assert time.monotonic() - began < 5
    assert not alive(pid)


def test_a_stopped_process_is_killed_at_close(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert process_module.END_S == 5
    monkeypatch.setattr(process_module, "END_S", 0.5)
    runner = worker()
    pid = runner.pid
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    runner.close()
    assert time.monotonic() - began < 3
    assert not alive(pid)


def test_a_closed_worker_cannot_be_used(worker: Any) -> None:
    runner = worker()
    runner.close()
    runner.close()
    for use in (lambda: runner.step(0.0), runner.restart):
        with pytest.raises(RunnerLost):
            use()


def test_the_signals_of_a_terminal_and_of_systemd_do_not_end_a_worker(
    engine_of: Any, inbox: Inbox
) -> None:
    """The server ends its requests first; the worker computes until then."""
    engine = engine_of()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(engine.runner.pid, number)
    assert inbox.wait(engine.submit(asking("abc"), inbox)) == said("abc")
    assert engine.state.restarts == 0


PARENT = """
    import sys
    from aiproxy.reference_server.onnx.devices import Device
    from aiproxy.reference_server.onnx.worker.parent import WorkerRunner, WorkerSpec
    from aiproxy.reference_server.onnx.text.runner import Sequence
    runner = WorkerRunner(WorkerSpec("scripted_runner:open_scripted", Device()))
    runner.add(Sequence(1, (ord("h"),), 5))
    print(runner.pid, flush=True)
    runner.step(60)
"""


def test_a_worker_ends_with_its_parent_even_in_a_long_step() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, SCRIPT: json.dumps({"hang": "h"})},
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    until(lambda: not alive(pid))


@pytest.mark.slow
def test_a_fork_gets_a_worker_of_its_own(worker: Any) -> None:
    """A server that forks after loading shares no socket between its processes."""
    runner = worker()
    script = """
        import os, json, sys
        from aiproxy.reference_server.onnx.devices import Device
        from aiproxy.reference_server.onnx.worker.parent import WorkerRunner, WorkerSpec
        from aiproxy.reference_server.onnx.text.runner import Sequence
        runner = WorkerRunner(WorkerSpec("scripted_runner:open_scripted", Device()))
        first = runner.pid
        child = os.fork()
        runner.add(Sequence(1, (65,), 1))
        got = []
        while not got:
            got = runner.step(5)
        assert got[0].tokens == (65,), got
        assert (runner.pid == first) == bool(child)
        runner.close()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            print("both")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("both\n", "")
    assert runner.step(0.0) == []


# --- real models ----------------------------------------------------------------------------------


def test_the_demo_model_says_the_same_in_a_worker() -> None:
    from aiproxy.reference_server.onnx.text.slots import open_slots

    folder = read_folder("builtin:demo")
    assert isinstance(folder, TextFolder)
    here = open_slots(folder, CPU, slots=2)
    there = WorkerRunner(WorkerSpec("slots", CPU, folder=folder, slots=2))
    try:
        assert (there.capacity, there.traits) == (here.capacity, here.traits)
        prompt = tuple(range(20, 30))
        got: dict[Any, list[int]] = {}
        for runner in (here, there):
            runner.add(Sequence(1, prompt, 20, top_logprobs=1))
            tokens = got.setdefault(runner, [])
            finish = None
            while finish is None:
                for part in runner.step(5.0):
                    tokens += part.tokens
                    finish = part.finish
        assert got[here] == got[there] != []
    finally:
        here.close()
        there.close()


# --- messages -------------------------------------------------------------------------------------


def test_messages_come_back_whatever_the_pieces() -> None:
    folder = read_folder("builtin:demo")
    assert isinstance(folder, TextFolder)
    sequence = Sequence(
        7, (1, 2), 9, Sampling(0.5, logit_bias={5: -1.5}, seed=3), Grammar("regex", "a+"), 2
    )
    sent = [Open(WorkerSpec("slots", CPU, folder=folder, slots=2)), Add(sequence)]
    wire = b"".join(map(pack, sent))
    frames = Frames()
    got = [
        read_to_worker(content)
        for at in range(0, len(wire), 7)
        for content in frames.feed(wire[at : at + 7])
    ]
    assert got == sent


def test_a_worker_sees_its_own_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from aiproxy.reference_server.onnx.devices.nvidia import worker_environment
    from aiproxy.reference_server.onnx.worker import child

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert worker_environment(Device("cuda", 1))["CUDA_VISIBLE_DEVICES"] == "6"
    seen: list[Device] = []
    monkeypatch.setattr(
        child, "open_adapter", lambda name, folder, device, **sizes: seen.append(device)
    )
    folder = read_folder("builtin:demo")
    assert isinstance(folder, TextFolder)
    child.open_spec(WorkerSpec("slots", Device("cuda", 1, "GPU"), folder))
    assert seen == [Device("cuda", 0, "GPU")]
