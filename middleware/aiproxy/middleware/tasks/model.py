"""The bundled task model: a few hundred kilobytes of ONNX, run on one thread of the CPU.

It is asked inline, before routing, for ``auto`` requests without a hint; the prompt stays in the
process. ``model_card.md`` beside it says how it was made and how good it is.
"""

import os
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

from aiproxy.middleware.classify import (
    GENERAL,
    MULTIMODAL,
    last_user_content,
    shows,
    text_of,
)

# Before the first import of onnxruntime: its Linux wheels send telemetry otherwise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

FILE: Final = "model.onnx"
#: SHA-256 of the file this release was measured with.
DIGEST: Final = "d3f95ee8b4e34504abd14b2aaee745cb6ea89e31ecdc569978991bb0bdf776eb"
_FATAL: Final = 4  # onnxruntime's severity: nothing below reaches stderr


class Unavailable(Exception):
    """The model cannot be run here; the text says what to do."""


class TaskModel:
    """``min_confidence``: below that share the answer is ``general``."""

    def __init__(self, session: Any, features: Any, classes: tuple[str, ...], least: float) -> None:
        self._run = session.run
        self._features = features
        self._classes = classes
        self._least = least

    def classify(self, body: Mapping[str, Any]) -> str:
        """Return the task of a request body of any shape, as ``classify.classify`` does."""
        content = last_user_content(body)
        if shows(content):
            return MULTIMODAL
        text = text_of(content)
        if not text.strip():
            return GENERAL
        task, share = self.guess(text, body)
        return task if share >= self._least else GENERAL

    def guess(self, text: str, body: Mapping[str, Any]) -> tuple[str, float]:
        """The likeliest task, and how likely the model thinks it is."""
        rows, counts = self._features(text, body)
        shares = self._run(None, {"rows": rows, "counts": counts[None, :]})[0][0]
        best = int(shares.argmax())
        return self._classes[best], float(shares[best])


def load(*, min_confidence: float) -> TaskModel:
    """Return the bundled model.

    Raises:
        Unavailable: onnxruntime or numpy is missing, or the file is not the one of this release.
    """
    try:
        import onnxruntime as runtime

        from aiproxy.middleware.tasks.features import CLASSES, features
    except ImportError:
        raise Unavailable(
            "found model without onnxruntime, expected words, or the extra that has it: "
            "pip install 'aiproxy[onnx]'"
        ) from None
    return TaskModel(_session(runtime, _graph()), features, CLASSES, min_confidence)


def _graph() -> bytes:
    data = files("aiproxy.middleware.tasks").joinpath(FILE).read_bytes()
    if sha256(data).hexdigest() != DIGEST:
        raise Unavailable(
            "found a bundled model that is not the one of this release, expected an undamaged "
            "installation: pip install --force-reinstall aiproxy"
        )
    return data


def _session(runtime: Any, graph: bytes) -> Any:
    runtime.set_default_logger_severity(_FATAL)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
