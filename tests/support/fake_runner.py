"""A runner that computes nothing: it says what a test gave it to say, a token of each a step."""

import threading
from collections.abc import Callable, Iterable

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.text.runner import (
    Capacity,
    Produced,
    RunnerLost,
    Sequence,
    TokenLogprob,
    Traits,
)

EVERYTHING = Traits(
    seeds=True,
    penalties=True,
    logit_bias=True,
    logprobs=True,
    grammars=frozenset({"json_object", "json_schema", "regex", "lark"}),
)


class FakeRunner:
    """``answer`` gives the tokens of a sequence's answer. ``hold``: nothing is computed until the
    event is set. With log probabilities asked for, token ``t`` has -t/1000."""

    def __init__(
        self,
        answer: Callable[[Sequence], Iterable[int]],
        *,
        slots: int = 8,
        context: int = 256,
        traits: Traits = EVERYTHING,
        hold: threading.Event | None = None,
    ) -> None:
        self._answer = answer
        self._hold = hold
        self._live: dict[int, tuple[Sequence, list[int], int]] = {}
        self.capacity = Capacity(slots, context)
        self.traits = traits
        self.device = Device()
        self.seen: list[Sequence] = []
        self.dropped: list[int] = []
        self.lost: str | None = None
        self.closed = False

    @property
    def live(self) -> int:
        return len(self._live)

    def add(self, sequence: Sequence) -> None:
        self.seen.append(sequence)
        self._live[sequence.key] = (sequence, list(self._answer(sequence)), 0)

    def drop(self, key: int) -> None:
        if self._live.pop(key, None) is not None:
            self.dropped.append(key)

    def step(self, patience_s: float) -> list[Produced]:
        if self.lost:
            self._live.clear()
            raise RunnerLost(self.lost)
        if self._hold is not None and not self._hold.wait(min(patience_s, 0.01)):
            return []
        return [self._advance(key) for key in list(self._live)]

    def _advance(self, key: int) -> Produced:
        sequence, answer, at = self._live[key]
        if at == len(answer) or at == sequence.most:
            del self._live[key]
            return Produced(key, finish="stop" if at == len(answer) else "length")
        self._live[key] = (sequence, answer, at + 1)
        return Produced(key, (answer[at],), logprobs=self._logprobs(sequence, answer[at]))

    def _logprobs(self, sequence: Sequence, token: int) -> tuple[TokenLogprob, ...]:
        if sequence.top_logprobs is None:
            return ()
        top = tuple((other, -other / 1000) for other in range(sequence.top_logprobs))
        return (TokenLogprob(token, -token / 1000, top),)

    def restart(self) -> None:
        self.lost = None

    def close(self) -> None:
        self.closed = True
