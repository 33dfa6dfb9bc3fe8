"""The Responses dialect: ``POST /v1/responses`` with ``input``.

The Response objects made here always carry the 31 members that both the OpenAI description and
the Open Responses specification ask for.
"""

from aiproxy.middleware.dialects.responses.items import (
    call_item,
    message_item,
    output_text,
    reasoning_item,
)
from aiproxy.middleware.dialects.responses.losses import part_losses, reply_losses
from aiproxy.middleware.dialects.responses.reply_in import check_reply, decode_reply, read_usage
from aiproxy.middleware.dialects.responses.reply_out import encode_error, encode_reply
from aiproxy.middleware.dialects.responses.request_in import decode_request
from aiproxy.middleware.dialects.responses.request_out import (
    encode_request,
    encode_text,
    target,
)
from aiproxy.middleware.dialects.responses.response import response_object
from aiproxy.middleware.dialects.responses.sealing import decode_reasoning
from aiproxy.middleware.dialects.responses.stream_in import StreamDecoder
from aiproxy.middleware.dialects.responses.stream_out import StreamEncoder
from aiproxy.middleware.dialects.responses.tools import decode_tools, encode_choice, encode_tool
from aiproxy.middleware.dialects.responses.vocabulary import DIALECT

__all__ = [
    "DIALECT",
    "StreamDecoder",
    "StreamEncoder",
    "call_item",
    "check_reply",
    "decode_reasoning",
    "decode_reply",
    "decode_request",
    "decode_tools",
    "encode_choice",
    "encode_error",
    "encode_reply",
    "encode_request",
    "encode_text",
    "encode_tool",
    "message_item",
    "output_text",
    "part_losses",
    "read_usage",
    "reasoning_item",
    "reply_losses",
    "response_object",
    "target",
]
