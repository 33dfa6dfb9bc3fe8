"""Local text models on onnxruntime: loading, scheduling, and OpenAI bodies around them.

``LocalModels`` is what the server uses; ``TextEngine`` and ``text_model.TextModel`` are the parts it
is made of. Importing this package needs no extra: onnxruntime, numpy and tokenizers are imported when
a model is loaded, and their absence is the reason of an unavailable model.

* What a client leaves out: temperature 0 (the likeliest token each time), no token limit but the
  model's context. A larger ``max_tokens`` than the context leaves is cut to it.
* The bundled ``builtin:demo`` reads the last user message only; see its MODEL_CARD.md.
"""

from aiproxy.reference_server.onnx.engine import Job, TextEngine
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
from aiproxy.reference_server.onnx.generation import (
    Event,
    Failed,
    Finished,
    GenerationRequest,
    Message,
    Sampling,
    Token,
    Usage,
)
from aiproxy.reference_server.onnx.local_models import LocalModel, LocalModels
from aiproxy.reference_server.onnx.openai_chat import error_object

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
    "Message",
    "ModelNotFound",
    "ModelUnavailable",
    "RequestRefused",
    "Sampling",
    "TextEngine",
    "Token",
    "Usage",
    "error_object",
]
