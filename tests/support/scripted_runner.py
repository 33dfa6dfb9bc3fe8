"""A runner that says what the prompt tells it to, for tests of the scheduler and of workers.

A prompt's tokens are the answer's characters (``asking("abc")``). Opened in a worker process by
``open_scripted``, its behaviour is in the environment as JSON: the fields of ``Behaviour``.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import ModelUnavailable, RequestRefused
from aiproxy.reference_server.onnx.text.generation import GenerationRequest
from aiproxy.reference_server.onnx.text.runner import (
    Capacity,
    Produced,
    RunnerLost,
    Sequence,
    TokenLogprob,
    Traits,
)

PATIENCE_S = 20
SCRIPT = "SCRIPTED_RUNNER"


def decode(ids: Items[int], show_special: bool = False) -> str:
    """Characters by code point; token 0 is special and shows as ``<end>`` when asked for."""
    return "".join(chr(i) if i else ("<end>" if show_special else "") for i in ids)


def asking(words: str, **fields: Any) -> GenerationRequest:
    return GenerationRequest(tuple(map(ord, words)), **fields)


@dataclass
class Behaviour:
    """What goes wrong, and when. ``blocks`` None: slots only."""

    slots: int = 2
    context: int = 100
    blocks: int | None = None
    block_tokens: int = 4
    step_s: float = 0.0
    open_s: float = 0.0
    unfit: str | None = None  # why it cannot be opened
    die: str | None = None  # a sequence with this text ends the process or loses the runner
    hang: str | None = None  # one with this text makes a step hang
    refuse: str | None = None  # one with this text is refused
    stalled: bool = False  # steps bring nothing
    noise: str = ""  # goes to standard error when it is opened


@dataclass
class ScriptedRunner:
    """Answers each prompt with its own tokens, one a step. ``gate`` lets single steps happen."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    gate: threading.Semaphore | None = None
    live: dict[int, tuple[Sequence, int]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    failing: list[str] = field(default_factory=list)  # reasons of the next restarts
    restarts: int = 0
    closed: int = 0
    most_live: int = 0
    dropped: list[int] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    dies: bool = False  # the process itself, with ``die``
    lost: bool = False

    @property
    def capacity(self) -> Capacity:
        how = self.behaviour
        return Capacity(how.slots, how.context, how.blocks, how.block_tokens)

    traits = Traits(seeds=True, logprobs=True, grammars=frozenset(("regex",)))
    device = Device()

    def add(self, sequence: Sequence) -> None:
        self.threads.add(threading.get_ident())
        if self.lost:
            raise RunnerLost("it is still lost")
        text = decode(sequence.prompt)
        assert sequence.key not in self.live, "added twice"
        assert len(sequence.prompt) + sequence.most <= self.behaviour.context
        if self.behaviour.refuse is not None and self.behaviour.refuse in text:
            raise RequestRefused("invalid_value", "this is refused", "response_format")
        self.live[sequence.key] = (sequence, 0)
        self.most_live = max(self.most_live, len(self.live))
        assert len(self.live) <= self.behaviour.slots, "more than fit"
        if self.behaviour.blocks is not None:
            assert sum(map(self._blocks, self.live.values())) <= self.behaviour.blocks

    def _blocks(self, one: tuple[Sequence, int]) -> int:
        tokens = len(one[0].prompt) + one[0].most
        return -(-tokens // self.behaviour.block_tokens)

    def drop(self, key: int) -> None:
        self.threads.add(threading.get_ident())
        self.dropped.append(key)
        self.live.pop(key, None)

    def step(self, patience_s: float) -> list[Produced]:
        self.threads.add(threading.get_ident())
        if self.gate is not None:
            assert self.gate.acquire(timeout=PATIENCE_S)
        if self.behaviour.step_s:
            time.sleep(self.behaviour.step_s)
        if self.behaviour.stalled:
            return []
        produced = [self._one(key, *one) for key, one in list(self.live.items())]
        for part in produced:
            if part.finish is not None:
                del self.live[part.key]
        return produced

    def _one(self, key: int, sequence: Sequence, made: int) -> Produced:
        text = decode(sequence.prompt)
        if self.behaviour.die is not None and text.startswith(self.behaviour.die) and made == 2:
            if self.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            self.lost = True
            self.live.clear()
            raise RunnerLost("the device is gone")
        if self.behaviour.hang is not None and text.startswith(self.behaviour.hang):
            time.sleep(3600)
        if made == len(sequence.prompt):
            return Produced(key, finish="stop")
        token = sequence.prompt[made]
        if chr(token) == "!":
            return Produced(key, finish="failed", error="scripted")
        if chr(token) == "?":
            raise ZeroDivisionError("scripted: " + text)
        self.said.append(chr(token))
        self.live[key] = (sequence, made + 1)
        logprobs = () if sequence.top_logprobs is None else (TokenLogprob(token, -float(made)),)
        finish = "length" if made + 1 == sequence.most else None
        return Produced(key, (token,), finish, logprobs)

    def restart(self) -> None:
        if self.failing:
            raise RunnerLost(self.failing.pop(0))
        self.restarts += 1
        self.lost = False
        self.behaviour.die = None
        self.live.clear()

    def close(self) -> None:
        self.closed += 1


def open_scripted(spec: Any) -> Any:
    """Open what the environment describes; the function a worker is told to call."""
    how = Behaviour(**json.loads(os.environ.get(SCRIPT, "{}")))
    time.sleep(how.open_s)
    if how.unfit is not None:
        raise ModelUnavailable(how.unfit)
    if how.noise:
        os.write(2, how.noise.encode() + b"\n")
    return ScriptedRunner(how, dies=True)


def open_nothing(spec: Any) -> Any:
    raise ZeroDivisionError(f"scripted in {os.environ[SCRIPT]}")


def open_and_die(spec: Any) -> Any:
    os._exit(3)
