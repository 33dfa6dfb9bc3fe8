"""Citations: web results become flat ``url_citation`` annotations, places in documents stay."""

from typing import Any

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import Json

_PLACES = frozenset(
    {
        "char_location",
        "page_location",
        "content_block_location",
        "search_result_location",
        "web_search_result_location",
    }
)


def annotation(citation: Json, start: int, end: int) -> Json:
    """Return the annotation of a citation of ``text[start:end]`` (characters of its part)."""
    url = citation.get("url")
    if citation.get("type") != "web_search_result_location" or not isinstance(url, str):
        return citation
    return {
        "type": "url_citation",
        "url": url,
        "title": reading.word(citation.get("title")),
        "start_index": start,
        "end_index": end,
    }


def citation(given: Json) -> dict[str, Any] | None:
    """Return the citation of an annotation, ``None`` where this dialect has none of its kind.

    A web citation from elsewhere has no ``encrypted_index``; an empty one stands in its place.
    """
    kind = reading.word(given.get("type"))
    if kind in _PLACES:
        return dict(given)
    if kind != "url_citation":
        return None
    return {
        "type": "web_search_result_location",
        "url": reading.word(given.get("url")),
        "title": reading.optional(given.get("title")),
        "cited_text": reading.word(given.get("cited_text")),
        "encrypted_index": "",
    }
