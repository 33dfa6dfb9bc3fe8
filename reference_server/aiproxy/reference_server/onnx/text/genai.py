"""The adapter over onnxruntime-genai's Engine (0.18).

The Engine schedules by itself: sequences join and leave between iterations. Of a paged model
("dynamic" batching) everybody's tokens go through one run, and the cache is blocks. A plain model
("static") is served in batches of four, and who comes later waits for the whole batch. Therefore
loading should take this adapter for paged folders only and the slot adapter for plain decoders, on
the CPU and on CUDA; plain folders come here where the slot adapter cannot run their graph.

What is particular about the library, and handled here:

* An Engine belongs to the thread that made it. The one of loading, which is tried before the model
  counts as ready, is replaced when the first sequence comes from another thread.
* Nothing is preempted: sequences that all need one block more than there is wait for ever. ``step``
  then gives nothing; whoever admits sequences must reserve blocks (``Capacity``) or drop one.
* A finished sequence keeps its blocks until its request is closed.
* A failed run makes the Engine useless (``RunnerLost``); ``restart`` loads the model anew.
* Its nucleus sampling without a top_k lets improbable tokens through, with one it does not.
* A grammar that goes on inside a character (``(漢|é)字``: the tokens are bytes) can make the library
  refuse its own choice, and it then repeats the step of everybody for ever. ``step`` gives up the
  sequence that is at fault. Of a plain model such a grammar ends the Engine.
* There are no penalties, logit biases or log probabilities, and no tokens never to be chosen.
"""

import gc
import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from aiproxy.reference_server.onnx import runtime
from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import ModelUnavailable, RequestRefused
from aiproxy.reference_server.onnx.folders import TextFolder
from aiproxy.reference_server.onnx.folders.graphs import read_graph
from aiproxy.reference_server.onnx.text.generation import Sampling
from aiproxy.reference_server.onnx.text.guidance import LONGEST
from aiproxy.reference_server.onnx.text.runner import (
    LAYOUT,
    Capacity,
    Grammar,
    GrammarKind,
    Produced,
    RunnerLost,
    Sequence,
    SequenceEnd,
    Traits,
)

log = logging.getLogger(__name__)

#: The library's own, whatever ``static_batching`` says.
STATIC_BATCH: Final = 4
#: The library refuses more.
MOST_SEQUENCES: Final = 256
#: Tokens of one run on CUDA. With 2048, its default, long contexts of several sequences end in an
#: illegal memory access (onnxruntime-genai issue 2583).
CUDA_SCHEDULED_TOKENS: Final = 1024
#: Bytes of the cache on the CPU where nothing says how many.
CPU_CACHE_BYTES: Final = 512 * 1024 * 1024
#: Of the GPU's memory left beside the weights (or of the limit), for the cache.
CACHE_SHARE: Final = 0.6
#: Sequences at once where the folder says nothing: the library's default.
USUAL_SEQUENCES: Final = 16
_GUIDANCE: Final[Mapping[GrammarKind, str]] = {
    "json_object": "json_schema",
    "json_schema": "json_schema",
    "regex": "regex",
    "lark": "lark_grammar",
}
_ENDS: Final[Mapping[str, SequenceEnd]] = {
    "EOS": "stop",
    "STOP_STRING": "stop",
    "MAX_GENERATED_TOKENS": "length",
    "MAX_SESSION_TOKENS": "length",
}
#: Faults of the whole Engine and not of one request.
_FATAL: Final = frozenset({"ENGINE_EXECUTION_FAILURE", "ENGINE_CONTRACT_FAILURE"})
_ITEM_BYTES: Final = {"float": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}
_SEED_BITS: Final = 2**63 - 1
#: Steps that were taken back in a row until a sequence is given up for it.
RETRIES: Final = 3
#: Tokens of a sequence that are enough to see whether it stopped inside a character.
_TAIL: Final = 4
#: What the library raises: the text of a C++ exception, or MemoryError for bad_alloc.
_FAULTS: Final = (RuntimeError, MemoryError)


def open_genai(
    folder: TextFolder,
    device: Device,
    *,
    slots: int | None = None,
    context: int | None = None,
    cache_tokens: int | None = None,
    memory_limit: int | None = None,
) -> "GenaiRunner":
    """Load ``folder`` on ``device`` and try it.

    ``slots`` sequences at most at once, of ``context`` tokens at most; the cache of a paged model
    holds ``cache_tokens``. ``memory_limit`` is bytes of GPU memory. None: what the folder says, or
    what fits.

    Raises:
        ModelUnavailable: the library is missing, the folder damaged or for another device, or there
            is too little memory.
    """
    if folder.cuda_only and device.kind != "cuda":
        raise ModelUnavailable(
            "its graph computes on CUDA only and the device is the CPU; give the folder a variant "
            "in cpu/, or use a machine with an NVIDIA GPU"
        )
    limit = memory_limit or device.memory_limit
    plan = plan_for(folder, device, slots, context, cache_tokens, limit)
    return GenaiRunner(folder.root, folder.tokenizer, plan, device)


@dataclass(frozen=True, slots=True)
class GenaiPlan:
    """How a folder is opened: ``overlay`` goes over genai_config.json, ``options`` are those of the
    CUDA provider, ``vocabulary`` the number of scores."""

    capacity: Capacity
    overlay: Mapping[str, Any]
    vocabulary: int
    options: Mapping[str, str] = field(default_factory=dict)


def plan_for(
    folder: TextFolder,
    device: Device,
    slots: int | None,
    context: int | None,
    cache_tokens: int | None,
    limit: int | None,
) -> GenaiPlan:
    """Return how ``folder`` is opened on ``device``; the arguments are those of ``open_genai``.

    Raises:
        ModelUnavailable: its configuration is damaged, or there is no memory for a cache.
    """
    config = _read_config(folder.root)
    length = min(folder.context, context or folder.context)
    model = config.get("model") or {}
    overlay: dict[str, Any] = {
        "model": {
            "context_length": length,
            "eos_token_id": list(folder.ends),
            "decoder": {
                "session_options": {
                    "log_severity_level": runtime.FATAL,
                    "intra_op_num_threads": device.threads,
                    # A waiting thread must sleep: spinning takes the core from the event loop.
                    "session.intra_op.allow_spinning": "0",
                }
            },
        },
        "search": {"max_length": length},
    }
    vocabulary = folder.vocabulary or int(model.get("vocab_size") or 0)
    options: dict[str, str] = {}
    if device.kind == "cuda":
        options["device_id"] = str(device.index)
        if limit is not None:
            options["gpu_mem_limit"] = str(limit)
    if not folder.paged:
        return GenaiPlan(
            Capacity(min(slots or STATIC_BATCH, STATIC_BATCH), length), overlay, vocabulary, options
        )
    said = dict((config.get("engine") or {}).get("dynamic_batching") or {})
    block = int(said.get("block_size") or 256)
    most = slots or int(said.get("max_batch_size") or USUAL_SEQUENCES)
    most = max(1, min(most, MOST_SEQUENCES))
    if cache_tokens is not None:
        blocks = -(-cache_tokens // block)
    elif "num_blocks" in said:
        blocks = int(said["num_blocks"])
    else:
        room = _cache_bytes(folder, device, limit)
        # A whole context for everybody, if there is room for it.
        blocks = min(most * -(-length // block), room // max(1, block * _token_bytes(folder)))
    if blocks < 1:
        raise ModelUnavailable("there is no memory for its key-value cache beside its weights")
    pinned = {"block_size": block, "num_blocks": blocks, "max_batch_size": most}
    if device.kind == "cuda":
        asked = int(said.get("max_scheduled_tokens") or CUDA_SCHEDULED_TOKENS)
        pinned["max_scheduled_tokens"] = min(asked, CUDA_SCHEDULED_TOKENS)
    overlay["engine"] = {"dynamic_batching": pinned}
    fits = min(length, blocks * block)
    return GenaiPlan(Capacity(most, fits, blocks, block), overlay, vocabulary, options)


def _read_config(root: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((root / "genai_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as wrong:
        raise ModelUnavailable("genai_config.json is missing or damaged") from wrong
    if not isinstance(config, dict):
        raise ModelUnavailable("genai_config.json is no object")
    return config


def _token_bytes(folder: TextFolder) -> int:
    """Return what one token's keys and values take in all layers."""
    if not (folder.layers and folder.heads and folder.head_size):
        raise ModelUnavailable(
            "genai_config.json does not say how large its cache is (num_hidden_layers, "
            "num_key_value_heads, head_size); set kv_cache_tokens"
        )
    inputs = read_graph(folder.graph).inputs
    kinds = [value.type for name, value in inputs.items() if name.startswith("past_key_values")]
    item = _ITEM_BYTES.get(kinds[0], 4) if kinds else 4
    return 2 * folder.layers * folder.heads * folder.head_size * item


def _cache_bytes(folder: TextFolder, device: Device, limit: int | None) -> int:
    if device.kind != "cuda":
        return CPU_CACHE_BYTES
    if limit is not None:
        return int(limit * CACHE_SHARE)
    return int(((device.memory_bytes or 0) - folder.bytes) * CACHE_SHARE)


@dataclass(slots=True)
class _Running:
    """A request of the library, the number of its only turn, and its last tokens if a grammar
    guides it."""

    request: Any
    turn: int
    guided: bool
    tail: tuple[int, ...] = ()


class GenaiRunner:
    """One model on one device; see ``runner.Runner``."""

    def __init__(self, root: Path, tokenizer: Path, plan: GenaiPlan, device: Device) -> None:
        """
        Raises:
            ModelUnavailable: the model cannot be loaded or fails at the first token.
        """
        self._library = runtime.genai()
        self._root = root
        self._tokenizer = tokenizer
        self._words: Any = None
        self._plan = plan
        self._device = device
        flags = self._library.EngineEventFlags
        self._token, self._over, self._failed, self._retry = (
            int(flag) for flag in (flags.TOKEN, flags.TURN_FINISHED, flags.FAILED, flags.RETRYABLE)
        )
        self._running: dict[int, _Running] = {}
        self._keys: dict[Any, int] = {}
        self._model: Any = None
        self._engine: Any = None
        self._buffer: Any = None
        self._owner = 0
        self._repeated = 0  # steps in a row that were taken back
        self._lost: str | None = None
        self._traits = Traits(
            seeds=plan.capacity.blocks is not None, grammars=frozenset(_GUIDANCE.keys())
        )
        try:
            self._load()
            self._warm_up()
        except RunnerLost as lost:
            self.close()
            raise ModelUnavailable(lost.reason) from lost.__cause__
        except ModelUnavailable:
            self.close()
            raise
        except Exception as refused:  # the library raises RuntimeError and what C++ had
            self.close()
            raise ModelUnavailable(_refusal(refused)) from refused

    @property
    def capacity(self) -> Capacity:
        return self._plan.capacity

    @property
    def traits(self) -> Traits:
        return self._traits

    @property
    def device(self) -> Device:
        return self._device

    def add(self, sequence: Sequence) -> None:
        if self._lost is not None:
            raise RunnerLost(self._lost)
        # Such an id would end the run, and with it everybody's answer.
        if not 0 <= min(sequence.prompt) <= max(sequence.prompt) < self._plan.vocabulary:
            raise RequestRefused(
                "invalid_value",
                "the prompt has tokens this model does not know: its tokenizer is another model's",
                "messages",
            )
        self._own()
        request: Any = None
        try:
            request = self._engine.create_request()
            turn = self._library.TurnOptions(request)
            turn.set_max_generated_tokens(max(1, sequence.most))  # 0 would mean no limit
            self._choose(turn, sequence.sampling)
            if sequence.grammar is not None:
                turn.set_guidance(_GUIDANCE[sequence.grammar.kind], _written(sequence.grammar))
            number = request.begin_turn(np.array(sequence.prompt, np.int32), turn)
        except (*_FAULTS, TypeError, ValueError) as refused:
            _close(request)
            if _unhealthy(refused):
                raise self._losing(str(refused)) from refused
            raise _refused(sequence, refused) from refused
        self._running[sequence.key] = _Running(request, number, sequence.grammar is not None)
        self._keys[request] = sequence.key

    def drop(self, key: int) -> None:
        running = self._forget(key)
        if running is None:
            return
        try:
            running.request.cancel_turn(running.turn)
        except RuntimeError:
            pass  # the turn is over, or the engine lost; closing is what gives the blocks back
        _close(running.request)

    def step(self, patience_s: float) -> list[Produced]:
        if self._lost is not None:
            raise RunnerLost(self._lost)
        if not self._running:
            return []
        try:
            events = list(self._engine.run(self._buffer))
        except _FAULTS as failed:
            raise self._losing(str(failed)) from failed
        produced = self._collect(events)
        # Such an event names no request.
        taken_back = any(int(event.flags) & self._retry for event in events)
        self._repeated = self._repeated + 1 if taken_back and not produced else 0
        if self._repeated >= RETRIES:
            self._repeated = 0
            produced += self._give_up()
        return produced

    def _give_up(self) -> list[Produced]:
        """End the guided sequence that is likely to be why steps are taken back: the one that
        stopped inside a character, else the youngest."""
        guided = [key for key, running in self._running.items() if running.guided]
        if not guided:
            return []
        cut = [key for key in guided if self._inside_character(self._running[key].tail)]
        key = (cut or guided)[-1]
        self.drop(key)
        return [Produced(key, (), "failed", error="the library cannot follow its grammar")]

    def _inside_character(self, tail: tuple[int, ...]) -> bool:
        if self._words is None:
            from tokenizers import Tokenizer

            self._words = Tokenizer.from_file(str(self._tokenizer))
        text: str = self._words.decode(list(tail))
        return text.endswith("\N{REPLACEMENT CHARACTER}")

    def restart(self) -> None:
        self._unload()
        try:
            self._load()
            self._warm_up()
        except ModelUnavailable as still:
            raise self._losing(still.reason) from still
        except _FAULTS as still:
            raise self._losing(str(still)) from still

    def close(self) -> None:
        self._unload()
        self._lost = "the model is closed"

    def _load(self) -> None:
        """Read the model; its first Engine belongs to the calling thread."""
        if self._plan.options:
            from aiproxy.reference_server.onnx.devices.nvidia import preload

            preload(runtime.onnxruntime())
        config = self._library.Config(str(self._root))
        config.overlay(json.dumps(self._plan.overlay))
        if self._device.kind == "cuda":
            for name, value in self._plan.options.items():
                config.set_provider_option("cuda", name, value)
        else:
            config.clear_providers()
        self._model = self._library.Model(config)
        self._make_engine()
        self._lost = None

    def _make_engine(self) -> None:
        self._buffer = self._engine = None
        self._free()  # its cache must be gone before there is another
        self._engine = self._library.Engine(self._model)
        # As many events as sequences can have in one run: a token and an end.
        self._buffer = self._engine.create_event_buffer(2 * self.capacity.slots + 2)
        self._owner = threading.get_ident()
        blocks, limits = self.capacity.blocks, self._engine.get_capabilities()
        if blocks is None:
            return
        fits = limits.max_request_length
        if limits.configured_max_batch_size < self.capacity.slots or fits < self.capacity.context:
            raise ModelUnavailable(
                f"its engine takes {limits.configured_max_batch_size} sequences of {fits} tokens, "
                f"not the {self.capacity.slots} of {self.capacity.context} it was asked for"
            )

    def _own(self) -> None:
        """Let the Engine be the calling thread's; only the first sequence may bring another one."""
        if self._owner == threading.get_ident() or self._running:
            return
        try:
            self._make_engine()
        except (*_FAULTS, ModelUnavailable) as failed:
            raise self._losing(str(failed)) from failed

    def _warm_up(self) -> None:
        """Compute two tokens: what allots memory lazily or fails on this device does it now."""
        start = 1 if self._plan.vocabulary > 1 else 0
        self.add(Sequence(-1, (start,), 2))
        for _ in range(16):
            for made in self.step(0.0):
                if made.finish == "failed":
                    raise ModelUnavailable("it failed at its first tokens; see the server log")
            if not self._running:
                return
        self.drop(-1)
        raise ModelUnavailable("it gave no token when it was tried")

    def _choose(self, turn: Any, sampling: Sampling) -> None:
        """Write how tokens are chosen into the library's ``turn`` options."""
        turn.set_do_sample(sampling.temperature > 0)
        if sampling.temperature <= 0:
            return
        turn.set_temperature(sampling.temperature)
        most = self._plan.vocabulary
        # See the module: with top_p a top_k is always set, all tokens where none was asked for.
        usual = most if sampling.top_p < 1 else 0
        turn.set_top_k(min(sampling.top_k, most) if sampling.top_k else usual)
        turn.set_top_p(sampling.top_p)
        if sampling.seed is not None and self._traits.seeds:
            turn.set_seed(sampling.seed & _SEED_BITS)

    def _collect(self, events: Iterable[Any]) -> list[Produced]:
        """Return what ``events`` say by sequence, and close the requests that are over."""
        tokens: dict[int, list[int]] = {}
        ends: dict[int, tuple[SequenceEnd, str | None]] = {}
        for event in events:
            flags = int(event.flags)
            if flags & self._failed and event.error_code.name in _FATAL:
                raise self._losing(f"the engine failed ({event.error_code.name})")
            # No request: the cache is full for everybody. No key: it was dropped meanwhile.
            key = None if event.request is None else self._keys.get(event.request)
            if key is None:
                continue
            tokens.setdefault(key, [])
            if flags & self._token:
                tokens[key].append(event.token)
                running = self._running[key]
                if running.guided:
                    running.tail = (*running.tail[1 - _TAIL :], event.token)
            if flags & self._over:
                finish: SequenceEnd = _ENDS.get(event.finish_reason.name, "failed")
                why = f"{event.finish_reason.name}, {event.error_code.name}"
                ends[key] = finish, why if finish == "failed" else None
        for key in ends:
            over = self._forget(key)
            if over is not None:
                _close(over.request)
        produced = []
        for key, made in tokens.items():
            if key in ends:
                produced.append(Produced(key, tuple(made), ends[key][0], error=ends[key][1]))
            elif made:
                produced.append(Produced(key, tuple(made)))
        return produced

    def _forget(self, key: int) -> _Running | None:
        running = self._running.pop(key, None)
        if running is not None:
            del self._keys[running.request]
        return running

    def _losing(self, reason: str) -> RunnerLost:
        """Drop everything, remember that nothing works, and return what to raise."""
        log.error("the engine of a local model is lost: %s", reason)
        for key in list(self._running):
            self.drop(key)
        self._lost = "the model's engine failed while it computed"
        return RunnerLost(self._lost)

    def _unload(self) -> None:
        for key in list(self._running):
            self.drop(key)
        self._buffer = self._engine = self._model = None
        self._free()  # the memory must be there when the next model is loaded

    def _free(self) -> None:
        """Of GPU memory there is no second helping: what a cycle still holds is freed now."""
        if self.device.kind == "cuda":
            gc.collect()


def _close(request: Any) -> None:
    """Give back what a request of the library holds, from whatever thread and state."""
    if request is None:
        return
    try:
        request.close()
    except RuntimeError:
        pass  # its engine is another thread's or gone, and its blocks with it


def _written(grammar: Grammar) -> str:
    """Return ``grammar`` as the library reads it.

    Raises:
        ValueError: it is too long or no JSON.
    """
    if len(grammar.text) > LONGEST:
        raise ValueError(f"it has {len(grammar.text)} characters; at most {LONGEST} are read")
    if grammar.kind not in ("json_object", "json_schema"):
        return grammar.text
    schema: Any = json.loads(grammar.text) if grammar.kind == "json_schema" else {"type": "object"}
    if isinstance(schema, dict):
        schema["x-guidance"] = {**schema.get("x-guidance", {}), **LAYOUT}
    return json.dumps(schema)


def _unhealthy(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "no longer healthy" in str(error)


def _refused(sequence: Sequence, error: Exception) -> RequestRefused:
    text = " ".join(str(error).split())[:300]
    if sequence.grammar is not None:
        return sequence.grammar.refused(f"cannot be used: {text}")
    return RequestRefused("invalid_value", f"the model cannot take the request: {text}", None)


def _refusal(error: Exception) -> str:
    """Return why a model could not be loaded, in words that name no path."""
    text = str(error)
    if "PagedAttention" in text:
        return "its graph computes on CUDA only; give the folder a variant in cpu/"
    if "interface not available" in text or "CUDA driver" in text or "libcu" in text:
        return "CUDA cannot be used here; see `aiproxy devices`"
    if "JSON Error" in text or "Error encountered while parsing" in text:
        return "genai_config.json has a field onnxruntime-genai does not know"
    return runtime.refusal(error)
