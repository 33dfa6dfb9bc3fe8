"""Citations: flat in the canonical form, nested under their type here."""

from collections.abc import Mapping

from aiproxy.middleware.dialects.canonical import Json
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT


def flat_annotation(annotation: Json) -> Json:
    """Return a citation in its flat form."""
    kind = annotation.get("type")
    inner = annotation.get(kind) if isinstance(kind, str) else None
    return {"type": kind, **inner} if isinstance(inner, Mapping) else annotation


def is_told(annotation: Json, source: str | None) -> bool:
    """Tell whether a chat client can be told of a citation: OpenAI's SDK takes those of web pages
    only, and cannot read a stream with others. Those of a chat server are its own affair."""
    return annotation.get("type") == "url_citation" or source == DIALECT


def nested_annotation(annotation: Json) -> Json:
    """Return a URL citation in the nested form of chat; others stay as they are."""
    kind = annotation.get("type")
    if kind != "url_citation" or "url_citation" in annotation:
        return annotation
    return {"type": kind, kind: {k: v for k, v in annotation.items() if k != "type"}}
