"""Parts of a turn written as Mistral content chunks."""

from typing import Any

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    Audio,
    File,
    Image,
    Part,
    Text,
    Untranslatable,
)
from aiproxy.middleware.dialects.mistral.vocabulary import API


def encode_chunk(part: Part) -> dict[str, Any] | None:
    """Return the chunk of a part, ``None`` for one of a kind Mistral has no chunk for.

    Raises:
        Untranslatable: the part refers to something only another provider keeps.
    """
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        url = reading.image_url(part)
        if url is None:
            raise Untranslatable("image", f"{API} cannot see an image another provider keeps")
        if part.detail is None:
            return {"type": "image_url", "image_url": url}
        return {"type": "image_url", "image_url": {"url": url, "detail": part.detail}}
    if isinstance(part, File):
        return _encode_file(part)
    if isinstance(part, Audio):
        if part.data is None:
            raise Untranslatable("audio", f"{API} cannot hear what another provider keeps")
        return {"type": "input_audio", "input_audio": part.data}
    return None


def _encode_file(part: File) -> dict[str, Any]:
    url = part.url
    if url is None:
        if part.data is None:
            raise Untranslatable("file", f"{API} cannot read a file another provider keeps")
        url = part.data
        if not url.startswith("data:"):
            url = f"data:{part.media_type or 'application/pdf'};base64,{url}"
    chunk = {"type": "document_url", "document_url": url}
    if part.name is not None:
        chunk["document_name"] = part.name
    return chunk
