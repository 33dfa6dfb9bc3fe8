"""Citations: flat in the canonical form, nested under their type here."""

from collections.abc import Mapping

from aiproxy.middleware.dialects.canonical import Json


def flat_annotation(annotation: Json) -> Json:
    """Return a citation in its flat form."""
    kind = annotation.get("type")
    inner = annotation.get(kind) if isinstance(kind, str) else None
    return {"type": kind, **inner} if isinstance(inner, Mapping) else annotation


def nested_annotation(annotation: Json) -> Json:
    """Return a URL citation in the nested form of chat; others stay as they are."""
    kind = annotation.get("type")
    if kind != "url_citation" or "url_citation" in annotation:
        return annotation
    return {"type": kind, kind: {k: v for k, v in annotation.items() if k != "type"}}
