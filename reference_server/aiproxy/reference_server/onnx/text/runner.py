"""What computes tokens: the seam between the scheduler and an adapter.

An adapter (``slots``, ``genai``, or a worker process behind ``worker.parent``) takes sequences of
token ids and gives token ids back, many sequences together. It knows nothing of text, stop strings,
queues or clients; ``engine.TextEngine`` does. Every method is called on one thread, the owner's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import RequestRefused
from aiproxy.reference_server.onnx.text.generation import Sampling

GrammarKind: TypeAlias = Literal["json_object", "json_schema", "regex", "lark"]
SequenceEnd: TypeAlias = Literal["stop", "length", "failed"]
#: How JSON is laid out, in the words of ``x-guidance``. Fixed: a model may write line feeds until
#: its tokens are spent.
LAYOUT: Final[Mapping[str, bool | str]] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer must look like. ``text`` is a JSON Schema (as JSON), a regular expression or a
    Lark grammar in llguidance's dialect; empty for ``json_object``. A Lark grammar names special
    tokens as ``<|marker|>``. ``fields`` of the body ask for it, the main one first."""

    kind: GrammarKind
    text: str = ""
    fields: tuple[str, ...] = ("response_format",)

    def refused(self, problem: str) -> RequestRefused:
        """Return the refusal that blames ``fields``; ``problem`` goes on after the grammar."""
        asked = " and ".join(self.fields)
        return RequestRefused("invalid_value", f"the grammar of {asked} {problem}", self.fields[0])


@dataclass(frozen=True, slots=True)
class Sequence:
    """One answer to compute. ``most`` is the number of new tokens at most, the prompt and these fit
    the context. ``top_logprobs`` None: no log probabilities; 0 to 20: of the token itself and of so
    many likeliest ones."""

    key: int
    prompt: tuple[int, ...]
    most: int
    sampling: Sampling = field(default_factory=Sampling)
    grammar: Grammar | None = None
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural logarithm of the probability of ``token`` (before temperature), and of the likeliest
    ones at its place, likeliest first. ``begin`` is the character of the answer at which its text
    begins; who makes the text says so."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    begin: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Produced:
    """What one step gave one sequence. The token that ends an answer is never among ``tokens``.
    With ``finish`` set the adapter has forgotten the sequence and given back what it held;
    ``error`` says why it failed, for the log."""

    key: int
    tokens: tuple[int, ...] = ()
    finish: SequenceEnd | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much fits at once: ``slots`` sequences of ``context`` tokens (prompt and answer), and, with
    a paged cache, ``blocks`` of ``block_tokens`` tokens for all of them together (None: every slot
    has room for a whole context)."""

    slots: int
    context: int
    blocks: int | None = None
    block_tokens: int = 1


@dataclass(frozen=True, slots=True)
class Traits:
    """What an adapter can do beyond temperature, top_p, top_k and limits; a request for the rest is
    refused with the field's name."""

    seeds: bool = False
    penalties: bool = False  # presence and frequency
    logit_bias: bool = False
    logprobs: bool = False
    grammars: frozenset[GrammarKind] = frozenset()


class Runner(Protocol):
    """An adapter. ``close`` may be called twice, and from the thread that made it where no owner
    thread was started."""

    @property
    def capacity(self) -> Capacity: ...

    @property
    def traits(self) -> Traits: ...

    @property
    def device(self) -> Device: ...

    def add(self, sequence: Sequence) -> None:
        """Take a sequence; it joins with the next ``step``.

        Raises:
            RequestRefused: this sequence can never be computed (its grammar, for example).
            RunnerLost: nothing can be computed any more until ``restart``.
        """

    def drop(self, key: int) -> None:
        """Forget a sequence and give back what it holds; harmless when it is over."""

    def step(self, patience_s: float) -> list[Produced]:
        """Compute one iteration of everything taken, or, where another process computes, wait at
        most ``patience_s`` for what it has. May be empty.

        Raises:
            RunnerLost: nothing can be computed any more until ``restart``; all sequences are gone.
        """
        ...

    def restart(self) -> None:
        """Build anew after ``RunnerLost``, or raise it again."""

    def close(self) -> None: ...


class RunnerLost(Exception):
    """The device, the engine or its process is gone. ``reason`` is a sentence for operators."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
