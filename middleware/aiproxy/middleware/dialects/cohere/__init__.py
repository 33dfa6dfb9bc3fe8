"""The Cohere v2 chat dialect: ``POST /v2/chat``, spoken to Cohere.

What the model plans before it calls tools (``tool_plan``) is reasoning here: Cohere describes it
as a chain of thought, and it is no answer. Text of an earlier turn that made calls is written
back as that plan, the only place such a turn has for words.
"""

from aiproxy.middleware.dialects.cohere.reply_in import check_reply, decode_reply, read_usage
from aiproxy.middleware.dialects.cohere.request_out import encode_request, target
from aiproxy.middleware.dialects.cohere.stream_in import StreamDecoder
from aiproxy.middleware.dialects.cohere.vocabulary import DIALECT

__all__ = [
    "DIALECT",
    "StreamDecoder",
    "check_reply",
    "decode_reply",
    "encode_request",
    "read_usage",
    "target",
]
