"""Reading an error body of any dialect: the words a provider uses, whatever object they stand in.

Known shapes: OpenAI ``{error: {message, type, param, code}}``; Anthropic ``{type: error, error:
{type, message}}``; Google ``{error: {code, message, status, details}}``, also in a list; Cohere
``{id, message}``; Mistral ``{object: error, message, type, code}``; FastAPI ``{detail}``;
Cloudflare ``{success: false, errors}``; AWS ``{__type, message}``; servers with ``{error: text}``;
MiniMax ``{base_resp}``; and such an object by itself, as it stands in a stream.
Nothing here leaves the process: words and messages are compared, never relayed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from re import compile as compile_pattern
from typing import Any, Final

import orjson

#: Members that hold a provider's word for what went wrong.
_WORDS: Final = (
    "code",
    "type",
    "status",
    "reason",
    "error_type",
    "error_code",
    "blockReason",
    "__type",
)
#: Members that hold an HTTP status: of the error itself, or of the one it wraps.
_STATUSES: Final = (
    "originalStatusCode",
    "raw_status_code",
    "status_code",
    "statusCode",
    "http_status",
    "status",
    "code",
)
#: Members whose object may be, or hold, the error; their list is something else.
_WRAPPERS: Final = ("Output", "base_resp", "promptFeedback", "detail", "message", "response")
_LONGEST_MESSAGE: Final = 2000
_MOST_ROWS: Final = 8
#: An apostrophe inside a word opens nothing.
_QUOTED: Final = compile_pattern(r"`[^`]*`|\"[^\"]*\"|(?<!\w)'[^']*'(?!\w)")
_PARAM: Final = compile_pattern(r"[A-Za-z_][A-Za-z0-9_.\[\]-]{0,99}")
_DURATION: Final = compile_pattern(r"(\d{1,9}(?:\.\d{1,9})?)s")


@dataclass(frozen=True, slots=True)
class Told:
    """What an error body says.

    ``words`` are codes, types and statuses, lower case, the most particular first. ``message`` is
    lower case; ``plain`` is the same without what stands in quotes, which may be the client's own
    text. ``status`` is an HTTP status named inside. ``wait_s`` is the wait the body asks for.
    ``daily``: a quota of a day or month is used up, ``one_model``: of one model only.
    """

    words: tuple[str, ...] = ()
    message: str = ""
    status: int | None = None
    param: str | None = None
    wait_s: float | None = None
    daily: bool = False
    one_model: bool = False

    @property
    def plain(self) -> str:
        return _QUOTED.sub("", self.message)


NOTHING: Final = Told()


def read(body: bytes) -> Told:
    """Return what the bytes of an error body say; an unreadable one says nothing."""
    try:
        return tell(orjson.loads(body))
    except orjson.JSONDecodeError:
        return NOTHING


def tell(document: Any) -> Told:
    """Return what a document says of an error, in any of the known shapes."""
    objects = _objects(document)
    if not objects:
        return Told(message=_lower(document)) if isinstance(document, str) else NOTHING
    objects.reverse()
    words = dict.fromkeys(word for value in objects for word in _words(value))
    details = [row for value in reversed(objects) for row in _rows(value.get("details"))]
    quotas = [str(v.get("quotaId", "")) for row in details for v in _rows(row.get("violations"))]
    waits = [found for row in details if (found := _delay(row.get("retryDelay"))) is not None]
    return Told(
        words=tuple(words),
        message=next((text for value in objects if (text := _message(value))), ""),
        status=next((s for value in objects if (s := _status(value))), None),
        param=next((p for value in objects if (p := _param(value))), None),
        wait_s=max(waits, default=None),
        daily=any("PerDay" in name for name in quotas),
        one_model=bool(quotas) and all("PerModel" in name for name in quotas),
    )


def _objects(document: Any) -> list[dict[str, Any]]:
    """Every object that may hold words, from the outermost to the innermost."""
    found: list[dict[str, Any]] = []
    _gather(document, found, 0)
    return found


def _gather(document: Any, found: list[dict[str, Any]], depth: int) -> None:
    if depth > 4:
        return
    if isinstance(document, list):
        for row in document[:_MOST_ROWS]:
            _gather(row, found, depth + 1)
        return
    if not isinstance(document, dict):
        return
    found.append(document)
    for name in _WRAPPERS:
        inner = document.get(name)
        if isinstance(inner, dict):
            _gather(inner, found, depth + 1)
    for name in ("details", "errors", "error", "innererror"):
        inner = document.get(name)
        if isinstance(inner, dict | list):
            _gather(inner, found, depth + 1)


def _words(value: Mapping[str, Any]) -> Iterator[str]:
    for name in _WORDS:
        found = value.get(name)
        if found is None or isinstance(found, bool) or not isinstance(found, str | int):
            continue
        word = str(found).strip().lower()[:100]
        if word and word not in ("error", "failed"):
            # AWS: "com.amazonaws.bedrock#ThrottlingException:http://..."
            yield word.rpartition("#")[2].partition(":http")[0]
    if isinstance(value.get("status_code"), int) and value["status_code"]:
        yield str(value["status_code"])
    metadata = value.get("metadata")
    if isinstance(metadata, dict) and "flagged_input" in metadata:
        yield "flagged_input"
    if isinstance(value.get("blockReason"), str):
        yield "blocked_prompt"


def _message(value: Mapping[str, Any]) -> str:
    for name in ("message", "Message", "error", "detail", "msg", "status_msg", "originalMessage"):
        found = value.get(name)
        if isinstance(found, str) and found:
            return _lower(found)
        if name == "detail" and isinstance(found, list):
            texts = [row.get("msg") for row in _rows(found)]
            return _lower("; ".join(text for text in texts if isinstance(text, str)))
    return ""


def _status(value: Mapping[str, Any]) -> int | None:
    for name in _STATUSES:
        found = value.get(name)
        if found is None:
            continue
        if isinstance(found, str) and len(found) == 3 and found.isdecimal():
            found = int(found)
        if type(found) is int and 400 <= found <= 599:
            return found
    return None


def _param(value: Mapping[str, Any]) -> str | None:
    found = value.get("param")
    if isinstance(found, str) and _PARAM.fullmatch(found):
        return found
    for row in _rows(value.get("detail")):
        path = _path(row.get("loc"))
        if path is not None:
            return path
    return None


def _path(loc: Any) -> str | None:
    """``["body", "messages", 0, "content"]`` as ``messages[0].content``."""
    if not isinstance(loc, list):
        return None
    path = ""
    for step in loc[:_MOST_ROWS]:
        if type(step) is int:
            path += f"[{step}]"
        elif isinstance(step, str) and not (step == "body" and not path):
            path += f".{step}" if path else step
    return path if _PARAM.fullmatch(path) else None


def _delay(value: Any) -> float | None:
    """Google's ``RetryInfo.retryDelay``: seconds with an ``s``."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return float(found[1]) if found else None


def _rows(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        return []
    return [row for row in value[:_MOST_ROWS] if isinstance(row, dict)]


def _lower(text: str) -> str:
    return text[:_LONGEST_MESSAGE].lower()
