"""Cohere citations as flat annotations."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import Json

_ELSEWHERE: Final = ("THINKING_CONTENT", "PLAN")


def of_answer(citation: Json) -> bool:
    """Tell whether a citation is about the answer's text, not about what was thought."""
    return citation.get("type") not in _ELSEWHERE


def annotations(citation: Json) -> Iterator[dict[str, Any]]:
    """Yield one annotation a source: by URL where its document has one, else as a file citation.

    ``start_index`` and ``end_index`` count characters of the cited text part.
    """
    start, end = _place(citation.get("start")), _place(citation.get("end"))
    for source in reading.objects(citation.get("sources")):
        document = source.get("document") or source.get("tool_output")
        document = document if isinstance(document, Mapping) else {}
        identity = reading.word(source.get("id")) or reading.word(document.get("id"))
        title = reading.word(document.get("title")) or identity
        url = reading.word(document.get("url"))
        if url:
            yield {
                "type": "url_citation",
                "url": url,
                "title": title or url,
                "start_index": start,
                "end_index": end,
            }
        else:
            yield {
                "type": "file_citation",
                "file_id": identity,
                "filename": title,
                "index": start,
            }


def _place(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
