"""The Anthropic Messages dialect: ``POST /v1/messages`` and ``/v1/messages/count_tokens``.

Spoken to providers and by clients. ``models`` knows what each model family accepts.
"""

from aiproxy.middleware.dialects.anthropic.errors import encode_error, stream_error
from aiproxy.middleware.dialects.anthropic.losses import event_losses, part_losses, reply_losses
from aiproxy.middleware.dialects.anthropic.observing import Observer
from aiproxy.middleware.dialects.anthropic.reply_in import check_reply, decode_reply
from aiproxy.middleware.dialects.anthropic.reply_out import encode_reply
from aiproxy.middleware.dialects.anthropic.request_in import decode_request
from aiproxy.middleware.dialects.anthropic.request_out import encode_request
from aiproxy.middleware.dialects.anthropic.stream_in import StreamDecoder
from aiproxy.middleware.dialects.anthropic.stream_out import StreamEncoder
from aiproxy.middleware.dialects.anthropic.tools import decode_tools
from aiproxy.middleware.dialects.anthropic.usage import read_usage
from aiproxy.middleware.dialects.anthropic.vocabulary import DEFAULT_MAX_TOKENS, DIALECT

__all__ = [
    "DEFAULT_MAX_TOKENS",
    "DIALECT",
    "Observer",
    "StreamDecoder",
    "StreamEncoder",
    "check_reply",
    "decode_reply",
    "decode_request",
    "decode_tools",
    "encode_count",
    "encode_error",
    "encode_reply",
    "encode_request",
    "event_losses",
    "part_losses",
    "read_usage",
    "reply_losses",
    "stream_error",
    "target",
]


def target(model: str, stream: bool) -> str:
    """Return the path below a provider's base URL; model and streaming are told in the body."""
    return "/messages"


def encode_count(tokens: int) -> dict[str, int]:
    """Return the answer of count_tokens."""
    return {"input_tokens": tokens}
