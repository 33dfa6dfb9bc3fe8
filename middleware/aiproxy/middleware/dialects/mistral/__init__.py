"""The Mistral dialect: ``POST /v1/chat/completions``, close to OpenAI's and stricter.

Unknown members are refused there, ids of calls have exactly nine letters or digits, and turns
follow one another in a fixed order. Content of answers may be a list of chunks, thinking among
them. Usage comes at the end of every stream, asked for or not.
"""

from aiproxy.middleware.dialects.mistral.reply_in import check_reply, decode_reply, read_usage
from aiproxy.middleware.dialects.mistral.request_out import encode_request, target
from aiproxy.middleware.dialects.mistral.stream_in import StreamDecoder
from aiproxy.middleware.dialects.mistral.vocabulary import DIALECT

__all__ = [
    "DIALECT",
    "StreamDecoder",
    "check_reply",
    "decode_reply",
    "encode_request",
    "read_usage",
    "target",
]
