"""Citations and grounding: byte offsets and chunk lists here, flat annotations there."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import Json

#: Characters kept of a streamed text to turn offsets with; beyond it they stay as they are.
_KEPT: Final = 1 << 20


class Told:
    """The text of an answer as far as it is told, to turn byte offsets into characters."""

    __slots__ = ("_bytes", "_length", "_pieces")

    def __init__(self, text: str = "") -> None:
        self._pieces: list[str] = [text] if text else []
        self._length = len(text)
        self._bytes: bytes | None = None

    def add(self, text: str) -> None:
        """Take more of the text."""
        if self._length < _KEPT:
            self._pieces.append(text)
        self._length += len(text)

    @property
    def length(self) -> int:
        """Characters so far."""
        return self._length

    def _text(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
            self._bytes = None
        return self._pieces[0] if self._pieces else ""

    def characters(self, offset: int) -> int:
        """Return the characters that the first ``offset`` bytes are."""
        text = self._text()
        if text.isascii():
            return min(offset, self._length)
        if self._bytes is None:
            self._bytes = text.encode("utf-8", "replace")
        if offset > len(self._bytes):
            return self._length
        return len(self._bytes[:offset].decode("utf-8", "ignore"))

    def bytes(self, offset: int) -> int:
        """Return the bytes that the first ``offset`` characters take."""
        text = self._text()
        return offset if text.isascii() else len(text[:offset].encode("utf-8", "replace"))


def annotations(candidate: Json, told: Told, starts: Mapping[int, int] | None = None) -> list[Json]:
    """Return the citations of a candidate. ``starts`` says at which character the text of a
    part begins, by its index; offsets count from there."""
    found: list[Json] = []
    grounding = candidate.get("groundingMetadata")
    if isinstance(grounding, Mapping):
        chunks = grounding.get("groundingChunks")
        chunks = chunks if isinstance(chunks, list) else []
        supports = reading.objects(grounding.get("groundingSupports"))
        for support in supports:
            found += _supported(support, chunks, told, starts or {})
        if not supports:
            for chunk in chunks:
                source = _source(chunk)
                if source is not None:
                    found.append(_citation(*source, 0, told.length))
    cited = candidate.get("citationMetadata")
    if isinstance(cited, Mapping):
        for item in reading.objects(cited.get("citations") or cited.get("citationSources")):
            uri = item.get("uri")
            if isinstance(uri, str) and uri:
                title = reading.optional(item.get("title")) or ""
                start, end = _offset(item, "startIndex"), _offset(item, "endIndex")
                first = told.characters(start)
                found.append(_citation(uri, title, first, told.characters(end) if end else first))
    return found


def _supported(
    support: Json, chunks: list[Any], told: Told, starts: Mapping[int, int]
) -> Iterable[Json]:
    segment = support.get("segment")
    segment = segment if isinstance(segment, Mapping) else {}
    base = starts.get(_offset(segment, "partIndex"), 0)
    skipped = told.bytes(base) if base else 0
    start = told.characters(skipped + _offset(segment, "startIndex"))
    end = told.characters(skipped + _offset(segment, "endIndex"))
    indices = support.get("groundingChunkIndices")
    for index in indices if isinstance(indices, list) else ():
        if isinstance(index, int) and 0 <= index < len(chunks):
            source = _source(chunks[index])
            if source is not None:
                yield _citation(*source, start, end)


def _source(chunk: Any) -> tuple[str, str] | None:
    if not isinstance(chunk, Mapping):
        return None
    for kind in ("web", "retrievedContext", "maps", "image"):
        inner = chunk.get(kind)
        if isinstance(inner, Mapping):
            uri = inner.get("uri") or inner.get("sourceUri")
            if isinstance(uri, str) and uri:
                return uri, reading.optional(inner.get("title")) or ""
    return None


def _offset(item: Json, name: str) -> int:
    value = item.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _citation(url: str, title: str, start: int, end: int) -> Json:
    return {
        "type": "url_citation",
        "url": url,
        "title": title,
        "start_index": start,
        "end_index": end,
    }


def grounding_metadata(cited: Iterable[Json], told: Told) -> tuple[dict[str, Any] | None, bool]:
    """Return ``groundingMetadata`` for annotations (``None`` when there is nothing to say) and
    whether it holds all of them."""
    chunks: list[dict[str, Any]] = []
    places: dict[str, int] = {}
    supports: list[dict[str, Any]] = []
    whole = True
    for annotation in cited:
        url = annotation.get("url")
        if annotation.get("type") != "url_citation" or not isinstance(url, str):
            whole = False
            continue
        if url not in places:
            places[url] = len(chunks)
            title = reading.optional(annotation.get("title")) or ""
            chunks.append({"web": {"uri": url, "title": title}})
        segment = {
            "startIndex": told.bytes(_offset(annotation, "start_index")),
            "endIndex": told.bytes(_offset(annotation, "end_index")),
        }
        supports.append({"segment": segment, "groundingChunkIndices": [places[url]]})
    if not chunks:
        return None, whole
    return {"groundingChunks": chunks, "groundingSupports": supports}, whole
