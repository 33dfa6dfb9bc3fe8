"""The legacy completions dialect: ``POST /v1/completions``.

A prompt that has to be answered by a provider that speaks chat becomes one user turn. Only
requests that came in this dialect can be written in it: a conversation is no prompt.
"""

from aiproxy.middleware.dialects.completions.reply_in import (
    StreamDecoder,
    check_reply,
    decode_reply,
    read_usage,
)
from aiproxy.middleware.dialects.completions.reply_out import (
    StreamEncoder,
    encode_error,
    encode_reply,
    reply_losses,
)
from aiproxy.middleware.dialects.completions.request import (
    decode_request,
    encode_request,
    target,
)
from aiproxy.middleware.dialects.completions.vocabulary import DIALECT

__all__ = [
    "DIALECT",
    "StreamDecoder",
    "StreamEncoder",
    "check_reply",
    "decode_reply",
    "decode_request",
    "encode_error",
    "encode_reply",
    "encode_request",
    "read_usage",
    "reply_losses",
    "target",
]
