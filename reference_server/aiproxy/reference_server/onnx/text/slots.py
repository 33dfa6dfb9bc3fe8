"""An adapter for any decoder in one ONNX file: batches that change with every token.

A sequence takes a row as soon as one is free, also while the others are in the middle of theirs.
Each step reads a piece of the prompts that are to come (so a long one does not hold up the others),
then computes one token of all rows together. The last token of a prompt is computed like those that
follow it, so every score comes from the same place.

Which way of batching a graph bears is not guessed from its operators but tried when it is opened:
some sequences that come and go are computed in each style, and compared with each computed alone.
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import ContextOverflow, ModelUnavailable, RequestRefused
from aiproxy.reference_server.onnx.folders import TextFolder
from aiproxy.reference_server.onnx.runtime import open_session, refusal
from aiproxy.reference_server.onnx.text import runner
from aiproxy.reference_server.onnx.text.decoder import Decoder
from aiproxy.reference_server.onnx.text.guidance import Grammars, Guide
from aiproxy.reference_server.onnx.text.rows import STYLES, Rows, SingleRows, Unfit
from aiproxy.reference_server.onnx.text.runner import (
    Capacity,
    Produced,
    RunnerLost,
    SequenceEnd,
    Traits,
)
from aiproxy.reference_server.onnx.text.sampling import (
    Logits,
    Sampler,
    choose_all,
    log_probability,
)

log = logging.getLogger(__name__)

#: Rows where nothing else is asked for: on a processor, more of them gain little.
_SLOTS: Final = {"cpu": 16, "cuda": 32}
#: Bytes of cache on a processor where nothing else is asked for.
_CPU_CACHE: Final = 1 << 30
#: Share of the GPU's memory, beside the weights, that the cache may take where no limit is set.
_CUDA_SHARE: Final = 0.6
#: Rows that a long context makes room for before it is used in full.
_FEWEST: Final = 4
#: Prompt tokens computed at once.
_PIECE: Final = {"cpu": 128, "cuda": 1024}


def open_slots(
    folder: TextFolder,
    device: Device,
    *,
    slots: int | None = None,
    context: int | None = None,
    cache_tokens: int | None = None,
) -> "SlotRunner":
    """Open the decoder of ``folder``; ``cache_tokens`` bounds slots times context.

    Raises:
        ModelUnavailable: it cannot be loaded, is no decoder, gives no numbers, or not even one
            sequence fits the memory.
    """
    decoder = _open(folder, device)
    try:
        style, in_pieces = find_style(decoder)
        size = fit(folder, decoder, style.copies, slots, context, cache_tokens)
        rows = style(decoder, size.slots, size.context)
    except MemoryError as full:
        raise ModelUnavailable("there is not enough memory for its key-value cache") from full
    except ModelUnavailable:
        raise
    except Exception as failed:  # onnxruntime's exceptions share no base class of their own
        raise ModelUnavailable(_why(failed)) from failed
    for note in size.notes:
        log.warning("%s: %s", folder.name, note)
    log.info(
        "%s: %d sequences of %d tokens at once, style %s",
        folder.name, size.slots, size.context, style.name,
    )  # fmt: skip
    return SlotRunner(folder, decoder, rows, size, in_pieces=in_pieces)


@dataclass(frozen=True, slots=True)
class Size:
    """How many sequences of how many tokens; ``notes`` say what had to be made smaller."""

    slots: int
    context: int
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Answer:
    """A sequence in the making. ``next`` is the token to be computed next, ``read`` how much of the
    prompt is in the cache."""

    asked: runner.Sequence
    sampler: Sampler
    guide: Guide | None
    next: int
    read: int = 0
    made: int = 0

    @property
    def key(self) -> int:
        return self.asked.key

    def piece(self, tokens: int | None) -> tuple[int, ...]:
        """Return the next tokens of the prompt, at most so many; its last one is never among them."""
        before_last = self.asked.prompt[:-1]
        end = len(before_last) if tokens is None else self.read + tokens
        return before_last[self.read : end]


class SlotRunner:
    """See ``runner.Runner``."""

    def __init__(
        self, folder: TextFolder, decoder: Decoder, rows: Rows, size: Size, *, in_pieces: bool
    ) -> None:
        self._folder = folder
        self._device = decoder.device
        self._decoder: Decoder | None = decoder
        self._rows: Rows | None = rows
        self._style = type(rows)
        self._size = size
        self._piece = _PIECE[decoder.device.kind] if in_pieces else None
        self._vocabulary = decoder.vocabulary
        self._ends = frozenset(folder.ends)
        self._suppressed = [at for at in folder.suppress if 0 <= at < decoder.vocabulary]
        self._grammars = _open_grammars(folder, decoder.vocabulary)
        self._waiting: deque[_Answer] = deque()
        self._newcomer: _Answer | None = None
        self._live: list[_Answer] = []  # in the order of the rows
        self._lost: str | None = None

    @property
    def capacity(self) -> Capacity:
        return Capacity(self._size.slots, self._size.context)

    @property
    def traits(self) -> Traits:
        grammars: frozenset[runner.GrammarKind] = frozenset()
        if self._grammars is not None:
            grammars = frozenset(("json_object", "json_schema", "regex", "lark"))
        return Traits(seeds=True, penalties=True, logit_bias=True, logprobs=True, grammars=grammars)

    @property
    def device(self) -> Device:
        return self._device

    @property
    def style(self) -> str:
        """How rows are batched: ``shared``, ``padded`` or, one after the other, ``single``."""
        return self._style.name

    @property
    def notes(self) -> tuple[str, ...]:
        """What the memory made smaller, as sentences for operators."""
        return self._size.notes

    def add(self, sequence: runner.Sequence) -> None:
        if self._lost is not None:
            raise RunnerLost(self._lost)
        prompt = sequence.prompt
        if not prompt or sequence.most < 1:
            raise RequestRefused("invalid_value", "there is nothing to compute", "messages")
        if len(prompt) + sequence.most > self._size.context:
            raise ContextOverflow(self._size.context, len(prompt))
        if not 0 <= min(prompt) <= max(prompt) < self._vocabulary:
            raise RequestRefused(
                "invalid_value", "the prompt holds tokens this model does not have", "messages"
            )
        sampler = Sampler(sequence.sampling, self._vocabulary)
        guide = self._guide(sequence.grammar) if sequence.grammar is not None else None
        self._waiting.append(_Answer(sequence, sampler, guide, prompt[-1]))

    def drop(self, key: int) -> None:
        self._waiting = deque(answer for answer in self._waiting if answer.key != key)
        if self._newcomer is not None and self._newcomer.key == key:
            self._newcomer = None
            if self._rows is not None:
                self._rows.abandon()
        for row, answer in enumerate(self._live):
            if answer.key == key:
                try:
                    self._leave(row)
                except Exception:
                    log.exception("%s: a row could not be moved", self._folder.name)
                    self._forget("a step failed")
                return

    def step(self, patience_s: float) -> list[Produced]:
        if self._lost is not None or self._rows is None:
            raise RunnerLost(self._lost or "it is closed")
        try:
            self._admit(self._rows)
            if not self._live:
                return []
            scores = self._rows.decode([answer.next for answer in self._live])
            if self._suppressed:
                scores[:, self._suppressed] = -np.inf
            return self._choose(scores)
        except Exception as failed:
            # The state of the rows is unknown now, whatever it was.
            log.exception("%s: a step failed on %s", self._folder.name, self._device)
            reason = _why(failed, "a step failed")
            self._forget(reason)
            raise RunnerLost(reason) from failed

    def restart(self) -> None:
        self._forget("it is being restarted")
        try:
            self._decoder = _open(self._folder, self._device)
            self._rows = self._style(self._decoder, self._size.slots, self._size.context)
        except Exception as failed:
            reason = failed.reason if isinstance(failed, ModelUnavailable) else _why(failed)
            self._forget(reason)
            raise RunnerLost(reason) from failed
        self._lost = None

    def close(self) -> None:
        self._forget("it is closed")

    def _guide(self, grammar: runner.Grammar) -> Guide:
        if self._grammars is None:
            asked = grammar.fields[0]
            message = f"this model cannot be held to a grammar; leave {asked} out"
            raise RequestRefused("unsupported_capability", message, asked)
        return self._grammars.start(grammar)

    def _admit(self, rows: Rows) -> None:
        """Read prompts into free rows: a piece of one at least, no more than a piece of all."""
        left = self._piece or 1
        while left > 0 and len(self._live) < self._size.slots:
            if self._newcomer is None:
                if not self._waiting:
                    return
                rows.begin()
                self._newcomer = self._waiting.popleft()
            answer = self._newcomer
            # Pieces are cut at the same places whatever else runs: so are the roundings.
            piece = answer.piece(self._piece)
            if piece:
                rows.extend(piece)
                answer.read += len(piece)
                left -= len(piece)
            if not answer.piece(1):
                rows.join()
                self._live.append(answer)
                self._newcomer = None

    def _choose(self, scores: Logits) -> list[Produced]:
        live = list(self._live)
        masks = [answer.guide.allowed() if answer.guide else None for answer in live]
        tokens = choose_all(scores, [answer.sampler for answer in live], masks)
        produced: list[Produced] = []
        # From the last row on: a row that leaves is then replaced by one that has had its turn.
        for row in range(len(live) - 1, -1, -1):
            made = self._go_on(live[row], tokens[row], scores[row])
            produced.append(made)
            if made.finish is not None:
                self._leave(row)
        produced.reverse()
        return produced

    def _go_on(self, answer: _Answer, token: int | None, scores: Logits) -> Produced:
        if token is None:
            return Produced(answer.key, finish="failed", error="no token has a score")
        if token in self._ends:
            return Produced(answer.key, finish="stop")
        wrong = answer.guide.accept(token) if answer.guide is not None else None
        if wrong is not None:
            return Produced(answer.key, finish="failed", error=f"the grammar failed: {wrong}")
        answer.next = token
        answer.made += 1
        finish: SequenceEnd | None = None
        if answer.guide is not None and answer.guide.complete:
            finish = "stop"
        elif answer.made >= answer.asked.most:
            finish = "length"
        many = answer.asked.top_logprobs
        logprobs = () if many is None else (log_probability(scores, token, many),)
        return Produced(answer.key, (token,), finish, logprobs)

    def _leave(self, row: int) -> None:
        if self._rows is not None:
            self._rows.remove(row)
        last = self._live.pop()
        if row < len(self._live):
            self._live[row] = last

    def _forget(self, reason: str) -> None:
        self._lost = reason
        self._waiting.clear()
        self._live.clear()
        self._newcomer = self._rows = self._decoder = None


def _open(folder: TextFolder, device: Device) -> Decoder:
    session = open_session(folder.graph, device)
    try:
        return Decoder(session, folder, device)
    except ModelUnavailable:
        raise
    except Exception as failed:
        raise ModelUnavailable(_why(failed)) from failed


def _open_grammars(folder: TextFolder, vocabulary: int) -> Grammars | None:
    try:
        return Grammars(folder.tokenizer, vocabulary, folder.ends)
    except (ImportError, OSError, ValueError) as unfit:
        log.warning("%s: answers cannot be held to grammars: %s", folder.name, unfit)
        return None


def _why(failed: Exception, otherwise: str = "a trial run failed") -> str:
    """Return a reason without any path, as onnxruntime's own words may have one."""
    if isinstance(failed, MemoryError) or "memory" in refusal(failed):
        return "there is not enough memory"
    return otherwise


# --- how much fits ------------------------------------------------------------------------------


def fit(
    folder: TextFolder,
    decoder: Decoder,
    copies: int,
    slots: int | None,
    context: int | None,
    cache_tokens: int | None,
) -> Size:
    """Return how many sequences of how many tokens fit.

    Raises:
        ModelUnavailable: not even a few tokens.
    """
    notes: list[str] = []
    wanted = _SLOTS[decoder.device.kind] if slots is None else max(1, slots)
    longest = min(folder.context, context or folder.context)
    room = _budget(folder, decoder.device) // (decoder.token_bytes * copies)
    tokens = room if cache_tokens is None else cache_tokens
    of = "memory" if cache_tokens is None else "kv_cache_tokens"
    few = 1 if context is not None else min(wanted, _FEWEST)
    if tokens < longest * few:
        shorter = min(longest, max(tokens // few, min(tokens, 256)))
        if shorter < longest:
            notes.append(
                f"its context is cut from {longest} to {shorter} tokens, as {of} has room for "
                f"{tokens}; raise kv_cache_tokens or lower max_concurrency"
            )
            longest = shorter
    if longest < 2:
        raise ModelUnavailable("there is not enough memory for its key-value cache")
    several = min(wanted, tokens // longest)
    if several < wanted:
        notes.append(
            f"{several} sequences at once instead of {wanted}, as {of} has room for {tokens} "
            f"tokens and a context is {longest}"
        )
    return Size(several, longest, tuple(notes))


def _budget(folder: TextFolder, device: Device) -> int:
    """Return how many bytes the cache may take."""
    if device.memory_limit is not None:
        return device.memory_limit
    if device.kind == "cpu" or device.memory_bytes is None:
        return _CPU_CACHE
    return int((device.memory_bytes - folder.bytes) * _CUDA_SHARE)


# --- which style --------------------------------------------------------------------------------

_Observed: TypeAlias = dict[tuple[int, int], Logits]

#: Lengths of the sequences that are tried, short of what the smallest context holds.
_LENGTHS: Final = (7, 3, 12)
_STEPS: Final = 4
_LONGEST: Final = 32
#: How far scores may differ, as a share of their spread, by the bytes of a cached number: a batch
#: rounds elsewhere than a row alone; a wrong mask or position is off by the spread itself.
_TOLERANCE: Final = {4: 2e-3, 2: 5e-2}


def find_style(decoder: Decoder) -> tuple[type[Rows], bool]:
    """Return the first style that agrees with each row computed alone, and whether prompts may be
    computed in pieces.

    Raises:
        ModelUnavailable: the graph runs in no style, or its scores are no numbers.
    """
    try:
        alone = {}
        for who in range(len(_LENGTHS)):
            alone.update(_observe(decoder, SingleRows(decoder, 1, _LONGEST), _solo(who), None))
    except Exception as failed:
        raise ModelUnavailable(_why(failed)) from failed
    if not all(
        np.isfinite(scores).any() and not np.isnan(scores).any() for scores in alone.values()
    ):
        raise ModelUnavailable("the model's scores are not numbers; it may need another precision")
    tolerance = _TOLERANCE[decoder.caches[0].element.size]
    for style in STYLES:
        for piece in (5, None):
            try:
                seen = _observe(decoder, style(decoder, len(_LENGTHS), _LONGEST), _crowd(), piece)
            except Unfit as reason:
                log.debug("style %s: %s", style.name, reason)
                break
            except Exception:
                log.debug("style %s does not run", style.name, exc_info=True)
                continue
            if all(_agree(seen[place], alone[place], tolerance) for place in alone):
                return style, piece is not None
            log.debug("style %s gives other scores", style.name)
    raise ModelUnavailable("the model's scores change from run to run")


@dataclass(frozen=True, slots=True)
class _Act:
    """Who joins, who leaves, then how many tokens of all are computed."""

    joins: tuple[int, ...] = ()
    leaves: tuple[int, ...] = ()
    steps: int = field(default=1)


def _solo(who: int) -> Sequence[_Act]:
    return [_Act(joins=(who,), steps=_STEPS)]


def _crowd() -> Sequence[_Act]:
    """Three sequences: two together, the first leaves, the third takes its place."""
    return [
        _Act(joins=(0,), steps=2),
        _Act(joins=(1,), steps=2),
        _Act((2,), (0,), 2),
        _Act((), (1,), 2),
    ]


def _observe(decoder: Decoder, rows: Rows, acts: Sequence[_Act], piece: int | None) -> _Observed:
    """Return the scores of each sequence and step."""
    seen: _Observed = {}
    kinds = min(61, decoder.vocabulary - 1)
    order: list[int] = []
    steps = dict.fromkeys(range(len(_LENGTHS)), 0)
    for act in acts:
        for who in act.leaves:
            row = order.index(who)
            rows.remove(row)
            last = order.pop()
            if row < len(order):
                order[row] = last
        for who in act.joins:
            rows.begin()
            prompt = [_token(who, at, kinds) for at in range(_LENGTHS[who])]
            for at in range(0, len(prompt), piece or len(prompt)):
                rows.extend(prompt[at : at + (piece or len(prompt))])
            rows.join()
            order.append(who)
        for _ in range(act.steps):
            scores = rows.decode([_token(who, _LENGTHS[who] + steps[who], kinds) for who in order])
            for row, who in enumerate(order):
                seen[who, steps[who]] = scores[row].copy()
                steps[who] += 1
    return seen


def _token(who: int, at: int, kinds: int) -> int:
    """Return some token: small, as every vocabulary has small ones, and other at every place."""
    return (who * 17 + at * 7) % kinds + 1


def _agree(seen: Logits, alone: Logits, tolerance: float) -> bool:
    finite = np.isfinite(alone)
    if not np.array_equal(np.isfinite(seen), finite):
        return False
    spread = float(np.ptp(alone[finite])) or 1.0
    return float(np.abs(seen[finite] - alone[finite]).max()) <= tolerance * spread
