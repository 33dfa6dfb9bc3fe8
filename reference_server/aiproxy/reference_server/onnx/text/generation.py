"""The values that travel between the API surface, the scheduler and a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from aiproxy.reference_server.onnx.errors import LocalError

if TYPE_CHECKING:
    from aiproxy.reference_server.onnx.text.runner import Grammar, TokenLogprob

FinishReason: TypeAlias = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. ``temperature`` 0 takes the likeliest and draws nothing.

    ``top_k`` 0 and ``top_p`` 1 restrict nothing. With a ``seed`` the same request gives the same
    answer; without one the draws differ. ``logit_bias`` is added to the scores of token ids.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to be generated to a ``prompt`` of token ids.

    ``max_tokens`` None means as many as the context leaves, which also bounds a larger number.
    ``show_special`` keeps the text of special tokens in the answer (a tool call's markers).
    """

    prompt: tuple[int, ...]
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    grammar: "Grammar | None" = None
    top_logprobs: int | None = None
    show_special: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts; the end-of-answer token is not counted."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Token:
    """Text that became certain; never empty unless it brings log probabilities, never half a
    character."""

    text: str
    logprobs: "tuple[TokenLogprob, ...]" = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete; nothing follows."""

    reason: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer ended with an error; nothing follows."""

    error: LocalError


Event: TypeAlias = Token | Finished | Failed
