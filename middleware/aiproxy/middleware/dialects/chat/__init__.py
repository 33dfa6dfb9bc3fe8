"""The Chat Completions dialect: ``POST /v1/chat/completions``.

Reasoning text travels as ``reasoning_content``; ``reasoning`` is understood as well. What other
dialects made opaque travels in ``reasoning_details`` (``format`` is their name) and, for signatures
of calls and texts, as seals (``..seals``) in ``extra_content.google.thought_signature``.
"""

from aiproxy.middleware.dialects.chat.losses import part_losses, reply_losses
from aiproxy.middleware.dialects.chat.reply_in import check_reply, decode_reply, read_usage
from aiproxy.middleware.dialects.chat.reply_out import (
    encode_choices,
    encode_error,
    encode_reply,
    join_reasoning,
)
from aiproxy.middleware.dialects.chat.request_in import decode_request
from aiproxy.middleware.dialects.chat.request_out import encode_request, target
from aiproxy.middleware.dialects.chat.stream_in import StreamDecoder, stream_error
from aiproxy.middleware.dialects.chat.stream_out import StreamEncoder
from aiproxy.middleware.dialects.chat.tools import decode_tools
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT, SHARED

__all__ = [
    "DIALECT",
    "SHARED",
    "StreamDecoder",
    "StreamEncoder",
    "check_reply",
    "decode_reply",
    "decode_request",
    "decode_tools",
    "encode_choices",
    "encode_error",
    "encode_reply",
    "encode_request",
    "join_reasoning",
    "part_losses",
    "read_usage",
    "reply_losses",
    "stream_error",
    "target",
]
