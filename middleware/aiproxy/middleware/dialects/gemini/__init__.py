"""The Gemini dialect: ``generateContent``, ``streamGenerateContent`` and ``countTokens``.

The model is in the path and streaming another method, so neither is part of a body here: to
``decode_request`` the caller adds them as ``model`` and ``stream``.
"""

from collections.abc import Mapping
from typing import Any

from aiproxy.middleware.dialects.gemini.errors import encode_error
from aiproxy.middleware.dialects.gemini.losses import event_losses, part_losses, reply_losses
from aiproxy.middleware.dialects.gemini.observe import Observer
from aiproxy.middleware.dialects.gemini.reply_in import check_reply, decode_reply
from aiproxy.middleware.dialects.gemini.reply_out import encode_reply
from aiproxy.middleware.dialects.gemini.request_in import decode_request
from aiproxy.middleware.dialects.gemini.request_out import encode_request
from aiproxy.middleware.dialects.gemini.stream_in import StreamDecoder
from aiproxy.middleware.dialects.gemini.stream_out import StreamEncoder
from aiproxy.middleware.dialects.gemini.usage import read_usage
from aiproxy.middleware.dialects.gemini.vocabulary import DIALECT, target


def encode_count(tokens: int) -> dict[str, Any]:
    """Return the body of a ``countTokens`` answer."""
    return {"totalTokens": tokens}


def count_body(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the generateContent body that a ``countTokens`` body asks about: itself, or the
    request inside it. Both need ``model`` and ``stream`` before ``decode_request``."""
    for name in ("generateContentRequest", "generate_content_request"):
        inner = body.get(name)
        if isinstance(inner, Mapping):
            return inner
    return body


__all__ = [
    "DIALECT",
    "Observer",
    "StreamDecoder",
    "StreamEncoder",
    "check_reply",
    "count_body",
    "decode_reply",
    "decode_request",
    "encode_count",
    "encode_error",
    "encode_reply",
    "encode_request",
    "event_losses",
    "part_losses",
    "read_usage",
    "reply_losses",
    "target",
]
