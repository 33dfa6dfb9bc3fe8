"""The Workers AI dialect: ``POST /accounts/{id}/ai/run/{model}``, Cloudflare's own form.

Answers come wrapped (``{result, success, errors, messages}``) and in two shapes: the older models'
``{response, tool_calls}`` and the chat completion of newer ones. Both are understood everywhere.

Structured output does not stream there: such a request is sent without ``stream`` and its answer
is a document.
"""

from aiproxy.middleware.dialects.workers_ai.reply_in import check_reply, decode_reply, read_usage
from aiproxy.middleware.dialects.workers_ai.request_out import encode_request, target
from aiproxy.middleware.dialects.workers_ai.stream_in import StreamDecoder
from aiproxy.middleware.dialects.workers_ai.vocabulary import DIALECT

__all__ = [
    "DIALECT",
    "StreamDecoder",
    "check_reply",
    "decode_reply",
    "encode_request",
    "read_usage",
    "target",
]
