"""Local models: loading, scheduling, and OpenAI bodies around them.

``LocalModels`` is what the server uses; ``TextEngine`` and ``text.text_model.TextModel`` are parts it is
made of. Importing this package needs no extra: onnxruntime, numpy and tokenizers are imported when
a model is loaded, and their absence is the reason of an unavailable model.

* What a client leaves out: the model's own sampling, else temperature 0 (the likeliest token each
  time); no token limit but the model's context. A larger ``max_tokens`` than the context leaves is
  cut to it.
* What a model or its adapter cannot do (tools, grammars, log probabilities...) is refused by the
  field's name.
* The bundled ``builtin:demo`` reads the last user message only; see its MODEL_CARD.md.
"""

from aiproxy.reference_server.onnx.bodies.chat import error_object
from aiproxy.reference_server.onnx.errors import (
    ContextOverflow,
    EngineClosed,
    GenerationFailed,
    LocalBusy,
    LocalError,
    ModelNotFound,
    ModelUnavailable,
    RequestRefused,
)
from aiproxy.reference_server.onnx.local_model import LocalModel
from aiproxy.reference_server.onnx.local_models import LocalModels
from aiproxy.reference_server.onnx.text.engine import Job, TextEngine
from aiproxy.reference_server.onnx.text.generation import (
    Event,
    Failed,
    Finished,
    GenerationRequest,
    Sampling,
    Token,
    Usage,
)

__all__ = [
    "ContextOverflow",
    "EngineClosed",
    "Event",
    "Failed",
    "Finished",
    "GenerationFailed",
    "GenerationRequest",
    "Job",
    "LocalBusy",
    "LocalError",
    "LocalModel",
    "LocalModels",
    "ModelNotFound",
    "ModelUnavailable",
    "RequestRefused",
    "Sampling",
    "TextEngine",
    "Token",
    "Usage",
    "error_object",
]
