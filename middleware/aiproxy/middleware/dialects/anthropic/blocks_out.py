"""Parts of a request written as content blocks."""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.anthropic.vocabulary import DIALECT, IMAGE_TYPES
from aiproxy.middleware.dialects.canonical import (
    Audio,
    File,
    Image,
    Json,
    Loss,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Untranslatable,
)
from aiproxy.middleware.dialects.losses import note

_PDF: Final = "application/pdf"
_NOT_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")
#: Documents whose bytes are text, by media type or by the ending of their name.
_TEXTUAL: Final = ("text/", "application/json", "application/xml", "application/yaml")
_ENDINGS: Final = {".pdf": _PDF, ".txt": "text/plain", ".md": "text/plain", ".csv": "text/plain",
                   ".json": "text/plain", ".html": "text/plain", ".xml": "text/plain"}  # fmt: skip


@dataclass(slots=True)
class Writer:
    """Writes the parts of one request from ``source``. Call ids are brought to the letters this
    API takes, the same for a call and its results; those that are missing are made up in order."""

    source: str
    losses: list[Loss]
    native: bool = False
    _ids: dict[str, str] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _unnamed: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.native = self.source == DIALECT

    def lose(self, feature: str, detail: str) -> None:
        """Declare a loss, once."""
        note(self.losses, (Loss(feature, detail),))

    # --- calls ---

    def call_id(self, call: ToolCall) -> str:
        """Return the id of a call."""
        if call.id:
            return self._clean(call.id)
        made = f"call_{len(self._taken)}"
        self._taken.add(made)
        self._unnamed.append((made, call.name))
        return made

    def result_id(self, result: ToolResult) -> str:
        """Return the id of the call a result belongs to: one without id answers the earliest call
        without one, of its name where it has a name."""
        if result.call_id:
            return self._clean(result.call_id)
        for i, (made, name) in enumerate(self._unnamed):
            if result.name in (None, name):
                del self._unnamed[i]
                return made
        raise Untranslatable("tool_result", "a result names no call and answers none")

    def _clean(self, identity: str) -> str:
        known = self._ids.get(identity)
        if known is not None:
            return known
        clean = base = _NOT_ID.sub("_", identity)
        while clean in self._taken:
            clean = f"{base}_{len(self._taken)}"
        self._taken.add(clean)
        self._ids[identity] = clean
        return clean

    # --- parts ---

    def said(self, part: Part) -> dict[str, Any] | None:
        """Return the block of a part of the assistant's, ``None`` when nothing is left of it."""
        if isinstance(part, ToolCall):
            return self._call(part)
        if isinstance(part, Reasoning):
            return self._thought(part)
        if isinstance(part, Refusal):
            return _text(part.text)
        if isinstance(part, Audio) and reading.word(part.transcript):
            self.lose("audio", "of a spoken answer only the transcript is sent")
            return _text(reading.word(part.transcript))
        return self.shown(part)

    def shown(self, part: Part) -> dict[str, Any] | None:
        """Return the block of a part either side may show."""
        if isinstance(part, Text):
            block = _text(part.text)
            if part.signature is not None and (part.origin or self.source) != DIALECT:
                self.lose("reasoning", _moved(part.origin or self.source))
            if block is not None and part.extra:
                self._extra(part.extra, block)
            return block
        if isinstance(part, Image):
            return self._image(part)
        if isinstance(part, File):
            return self._document(part)
        if isinstance(part, Audio):
            raise Untranslatable("audio", "anthropic takes no sound")
        if isinstance(part, Opaque):
            return self._opaque(part)
        if isinstance(part, Refusal):
            return _text(part.text)
        if isinstance(part, Reasoning):
            return self._thought(part)
        kind = type(part).__name__
        self.lose("content_part", f"a {kind} stands where anthropic has no room for one")
        return None

    def result(self, result: ToolResult) -> dict[str, Any]:
        """Return the ``tool_result`` block of a call."""
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": self.result_id(result)}
        if result.plain and all(isinstance(part, Text) for part in result.parts):
            block["content"] = "".join(p.text for p in result.parts if isinstance(p, Text))
        else:
            block["content"] = [b for b in map(self.shown, result.parts) if b is not None]
        if result.is_error:
            block["is_error"] = True
        self._extra(result.extra, block)
        return block

    def _extra(self, extra: Json, block: dict[str, Any]) -> None:
        """Write the members only this dialect knows; a cache mark is understood from anyone."""
        if self.native:
            block.update(extra)
        elif "cache_control" in extra:
            block["cache_control"] = extra["cache_control"]

    def _call(self, call: ToolCall) -> dict[str, Any]:
        if call.kind == "custom":
            self.lose("custom_tool", "a call with free text is sent as one with a string")
            given: Any = {"input": call.arguments}
        elif not call.arguments.strip():
            given = {}
        else:
            try:
                given = orjson.loads(call.arguments)
            except orjson.JSONDecodeError:
                given = None
            if not isinstance(given, dict):
                raise Untranslatable("tool_call", "the arguments of an earlier call are no object")
        if call.signature is not None and (call.origin or self.source) != DIALECT:
            self.lose("reasoning", _moved(call.origin or self.source))
        block = {
            "type": "tool_use",
            "id": self.call_id(call),
            "name": call.name,
            "input": given,
        }
        self._extra(call.extra, block)
        return block

    def _thought(self, part: Reasoning) -> dict[str, Any] | None:
        origin = part.origin or self.source
        if origin != DIALECT:
            sealed = part.signature is not None or part.encrypted is not None
            self.lose("reasoning", _moved(origin) if sealed else _unsent(origin))
            return None
        if part.encrypted is not None:
            block = {"type": "redacted_thinking", "data": part.encrypted}
        elif part.signature:
            block = {"type": "thinking", "thinking": part.text, "signature": part.signature}
        else:
            self.lose("reasoning", "earlier thinking without a signature does not travel back")
            return None
        if self.native:
            block.update(part.extra)
        return block

    def _image(self, part: Image) -> dict[str, Any]:
        if part.data is not None:
            media = (part.media_type or "").lower()
            media = "image/jpeg" if media == "image/jpg" else media
            if media not in IMAGE_TYPES:
                raise Untranslatable("image", "anthropic takes only JPEG, PNG, GIF and WebP")
            source = {"type": "base64", "media_type": media, "data": part.data}
        elif part.url is not None:
            if not part.url.startswith(("http://", "https://")):
                raise Untranslatable("image", "anthropic takes images by http(s) URL or as base64")
            source = {"type": "url", "url": part.url}
        elif part.file_id is not None and self.native:
            source = {"type": "file", "file_id": part.file_id}
        else:
            raise Untranslatable("image", "a file id is known only to the API that gave it")
        if part.detail not in (None, "auto"):
            self.lose("detail", "anthropic chooses the resolution of images itself")
        block: dict[str, Any] = {"type": "image", "source": source}
        self._extra(part.extra, block)
        return block

    def _document(self, part: File) -> dict[str, Any]:
        source: dict[str, Any]
        if part.data is not None:
            source = _held(part)
        elif part.url is not None:
            source = {"type": "url", "url": part.url}
        elif part.file_id is not None and self.native:
            source = {"type": "file", "file_id": part.file_id}
        else:
            raise Untranslatable("file", "a file id is known only to the API that gave it")
        block: dict[str, Any] = {"type": "document", "source": source}
        if reading.word(part.name):
            block["title"] = part.name
        self._extra(part.extra, block)
        return block

    def _opaque(self, part: Opaque) -> dict[str, Any] | None:
        if part.dialect == DIALECT:
            return dict(part.value)
        if part.kind in ("item_reference", "compaction", "compaction_summary"):
            raise Untranslatable(part.kind, "the referenced content is kept by another API")
        self.lose("item", f"anthropic has no {part.kind} items")
        return None


def _held(part: File) -> dict[str, Any]:
    """Return the source of a document whose data is at hand."""
    # Other dialects pass these members on unread.
    data, media = reading.word(part.data), reading.word(part.media_type).lower()
    name = reading.word(part.name).lower()
    if data.startswith("data:"):
        head, _, data = data.partition(",")
        media = head[5:].partition(";")[0].lower() or media
        if ";base64" not in head:
            raise Untranslatable("file", "the data URL of a document is not base64")
    if not media and name:
        media = next((m for e, m in _ENDINGS.items() if name.endswith(e)), "")
    if media == _PDF or (not media and data.startswith("JVBERi")):  # "%PDF-"
        return {"type": "base64", "media_type": _PDF, "data": data}
    if not media.startswith(_TEXTUAL):
        raise Untranslatable("file", "anthropic takes only PDF and text documents")
    try:
        words = b64decode(data, validate=True).decode()
    except (NotBase64, ValueError):
        raise Untranslatable("file", "the text of a document is not UTF-8 in base64") from None
    return {"type": "text", "media_type": "text/plain", "data": words}


def _text(words: str) -> dict[str, Any] | None:
    """Return a text block; the API refuses blank ones."""
    return {"type": "text", "text": words} if words and not words.isspace() else None


def _moved(origin: str) -> str:
    return f"opaque reasoning of {origin} does not travel to {DIALECT}"


def _unsent(origin: str) -> str:
    return f"earlier reasoning of {origin} does not travel to {DIALECT}"
