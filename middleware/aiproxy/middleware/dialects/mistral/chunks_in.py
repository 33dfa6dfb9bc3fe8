"""Content chunks of Mistral answers read as what they say."""

from collections.abc import Iterator, Mapping

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import Json, Opaque, Part, Reasoning, Text
from aiproxy.middleware.dialects.mistral.vocabulary import DIALECT


def decode_chunks(chunks: object) -> Iterator[Part | tuple[str, ...]]:
    """Yield the parts of a list of chunks; a tuple holds the ids a reference chunk cites."""
    for chunk in reading.objects(chunks):
        kind = chunk.get("type")
        if kind == "text" or (kind is None and "text" in chunk):
            text = reading.word(chunk.get("text"))
            if text:
                yield Text(text)
        elif kind == "thinking":
            signature = reading.optional(chunk.get("signature"))
            text = _thinking(chunk.get("thinking"))
            if text or signature:
                yield Reasoning(text, signature=signature)
        elif kind == "reference":
            ids = chunk.get("reference_ids")
            if isinstance(ids, list):
                yield tuple(str(i) for i in ids if isinstance(i, int | str))
        else:
            yield Opaque(DIALECT, reading.word(kind) or "content", chunk)


def citation(identity: str, place: int) -> Json:
    """Return the annotation of a reference at character ``place``: the id is all that is said."""
    return {"type": "file_citation", "file_id": identity, "filename": identity, "index": place}


def _thinking(value: object) -> str:
    if isinstance(value, str):
        return value
    items = value if isinstance(value, list) else ()
    return "".join(
        reading.word(item.get("text")) if isinstance(item, Mapping) else reading.word(item)
        for item in items
    )
