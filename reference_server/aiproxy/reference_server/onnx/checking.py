"""What a model folder is, what it can do here, and a trial: ``aiproxy models check``."""

import gc
import logging
import os
import resource
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aiproxy.reference_server.onnx.errors import LocalError, ModelUnavailable
from aiproxy.reference_server.onnx.folders import (
    DEMO,
    ModelFolder,
    TextFolder,
    VectorFolder,
    capabilities_of,
)
from aiproxy.reference_server.onnx.loading import Plan, load, plan
from aiproxy.reference_server.onnx.local_model import LocalModel

log = logging.getLogger(__name__)

#: Seconds the trial's one token may take.
TRIAL_S: Final = 120.0
#: Every word a folder's model can have, so that the check asks for none in particular.
_ANY: Final = ("text-generation", "embeddings", "image-classification", "text-classification")


def check(path: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is at ``path`` and what came of loading it; ``serves`` says whether it works.

    ``given`` holds what a configuration could say of it: ``device``, ``tokenizer``,
    ``chat_template``, ``max_context``.
    """
    name = path if path == DEMO else Path(path).name
    row = {"name": name, "path": path, "capabilities": _ANY, **given}
    row["runtime"] = "pytorch" if _is_program(path) else "onnx"
    provider = {"worker": "thread"}
    report: dict[str, Any] = {"model": name, "serves": False, "problem": None}
    try:
        made = plan(row, provider)
        report |= facts(made.folder) | placed(made)
        report |= tried(made, row, provider)
        report["serves"] = True
    except ModelUnavailable as unavailable:
        report["problem"] = unavailable.reason
        report["cause"] = None if unavailable.__cause__ is None else repr(unavailable.__cause__)
    except LocalError as failed:
        report["problem"] = f"it loads, but the trial failed: {failed.message}"
    except Exception as fault:
        log.exception("checking a model folder failed")
        report["problem"] = f"loading it failed ({type(fault).__name__})"
        report["cause"] = repr(fault)
    return report


def _is_program(path: str) -> bool:
    """Whether the only graph there is a torch.export program."""
    place = Path(path)
    if not place.is_dir():
        return place.suffix == ".pt2"
    return any(place.glob("*.pt2")) and not any(place.rglob("*.onnx"))


def facts(folder: ModelFolder) -> dict[str, Any]:
    """What the files say."""
    said: dict[str, Any] = {
        "kind": folder.kind,
        "capabilities": list(capabilities_of(folder)),
        "fingerprint": folder.fingerprint,
        "weights_bytes": folder.bytes,
    }
    if isinstance(folder, TextFolder):
        template = "declared" if folder.chat is not None else "jinja" if folder.template else None
        return said | {
            "context_tokens": folder.context,
            "vocabulary": folder.vocabulary,
            "ends": list(folder.ends),
            "chat_template": template,
            "cache": "paged" if folder.paged else "per request",
            "notes": text_notes(folder),
        }
    return said | {
        "max_tokens": folder.max_length,
        "dimensions": folder.dimensions,
        "pooling": folder.pooling,
        "normalize": folder.normalize,
        "labels": len(folder.labels),
        "notes": vector_notes(folder),
    }


def text_notes(folder: TextFolder) -> list[str]:
    """What works less well than it could, and what to add."""
    notes = []
    if folder.chat is None and folder.template is None:
        notes.append(
            "no chat template: /v1/completions only; add chat_template.jinja or set chat_template"
        )
    if folder.vocabulary is None:
        notes.append("nothing says how many tokens the graph scores; vocab_size is not checked")
    return notes


def vector_notes(folder: VectorFolder) -> list[str]:
    notes = []
    if folder.kind == "embedding" and folder.pooling is None:
        notes.append("nothing says how token vectors are pooled: mean; set default_pooling")
    if folder.kind == "embedding" and folder.normalize is None:
        notes.append("nothing says whether vectors have length 1: they will; set normalize")
    if folder.kind.endswith("classification") and not folder.labels:
        notes.append("no id2label in config.json: classes are told by number; set labels")
    return notes


def placed(made: Plan) -> dict[str, Any]:
    """Where and by what it would be served."""
    device = made.device
    return {
        "device": str(device),
        "device_name": device.name,
        "device_reason": device.reason,
        "threads": device.threads,
        "adapter": made.adapters[0],
        "worker": "process" if device.kind == "cuda" else "thread",
    }


def tried(made: Plan, row: Mapping[str, Any], provider: Mapping[str, Any]) -> dict[str, Any]:
    """Load the model, compute one token or vector, give it back.

    Raises:
        LocalError: one of these failed.
    """
    before, began = resident_bytes(), time.monotonic()
    model = load(made, row, provider)
    try:
        loaded_s = time.monotonic() - began
        began = time.monotonic()
        result = "a first vector or score"
        if model.text is not None:
            result = one_token(model)
        return {
            "load_seconds": round(loaded_s, 2),
            "trial": result,
            "trial_seconds": round(time.monotonic() - began, 3),
            "memory_bytes": max(0, resident_bytes() - before),
        }
    finally:
        model.close()


def one_token(model: LocalModel) -> str:
    """Let a text model go on from a letter by one token; return what it said."""
    from aiproxy.reference_server.onnx.text.generation import (
        Event,
        Failed,
        Finished,
        GenerationRequest,
    )

    text = model.text
    assert text is not None
    over = threading.Event()
    events: list[Event] = []

    def deliver(delivered: Any) -> None:
        events.extend(event for _, event in delivered)
        if any(isinstance(event, Finished | Failed) for event in events):
            over.set()

    prompt = text.model.raw_prompt("a")
    text.engine.submit(GenerationRequest(prompt, max_tokens=1), deliver)
    if not over.wait(TRIAL_S):
        raise ModelUnavailable(f"no token came in {TRIAL_S:g} s")
    last = events[-1]
    if isinstance(last, Failed):
        raise last.error
    return "one token"


def resident_bytes() -> int:
    """Memory of this process: what loading took is the difference of two."""
    gc.collect()
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except OSError:  # not on Linux: the highest it ever was, in bytes there
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGESIZE")
