"""Embeddings: ``POST /v1/embeddings`` as OpenAI has it, and the canonical form behind it.

The modules ``cohere``, ``gemini`` and ``workers_ai`` speak the dialects ``cohere_embed``,
``gemini_embed`` and ``workers_ai_embed`` to providers; clients speak only this one.
"""

from aiproxy.middleware.dialects.embeddings.canonical import EmbeddingsReply, EmbeddingsRequest
from aiproxy.middleware.dialects.embeddings.openai import (
    DIALECT,
    check_reply,
    decode_reply,
    decode_request,
    encode_error,
    encode_reply,
    encode_request,
    read_usage,
    target,
)

__all__ = [
    "DIALECT",
    "EmbeddingsReply",
    "EmbeddingsRequest",
    "check_reply",
    "decode_reply",
    "decode_request",
    "encode_error",
    "encode_reply",
    "encode_request",
    "read_usage",
    "target",
]
