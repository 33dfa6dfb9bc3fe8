"""Media types: what a name, a URL or a short word says about bytes."""

from typing import Final
from urllib.parse import urlsplit

_BY_ENDING: Final[dict[str, str]] = {
    "aac": "audio/aac",
    "csv": "text/csv",
    "flac": "audio/flac",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "md": "text/markdown",
    "mov": "video/quicktime",
    "mp3": "audio/mp3",
    "mp4": "video/mp4",
    "mpeg": "video/mpeg",
    "ogg": "audio/ogg",
    "pdf": "application/pdf",
    "png": "image/png",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
    "xml": "text/xml",
}
_SHORT: Final[dict[str, str]] = {
    "mpeg": "mp3",
    "x-wav": "wav",
    "wave": "wav",
    "x-flac": "flac",
    "l16": "pcm16",
    "pcm": "pcm16",
}
_LONG: Final[dict[str, str]] = {"pcm16": "audio/pcm", "opus": "audio/ogg"}


def by_name(name: str | None) -> str | None:
    """Return the media type that the ending of a file name or URL stands for."""
    if not name:
        return None
    try:
        path = urlsplit(name).path
    except ValueError:
        return None
    return _BY_ENDING.get(path.rpartition(".")[2].lower())


def audio_format(media_type: str) -> str:
    """Return the short word for a sound's media type: ``audio/mpeg`` is mp3."""
    word = media_type.partition(";")[0].strip().lower().removeprefix("audio/")
    return _SHORT.get(word, word)


def audio_type(word: str | None) -> str:
    """Return the media type for a short word; wav when there is none."""
    return _LONG.get(word or "", f"audio/{word or 'wav'}")


def plain_base64(data: str) -> str:
    """Return base64 in the alphabet of everybody else: Google's own client writes the one for
    URLs, which its API takes as well."""
    if "-" not in data and "_" not in data:
        return data
    plain = data.replace("-", "+").replace("_", "/")
    return plain + "=" * (-len(plain) % 4)


def at_google(url: str) -> bool:
    """Tell whether Gemini itself keeps or finds the file: its Files API, Cloud Storage or
    YouTube."""
    if url.startswith("gs://"):
        return True
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if parts.scheme != "https":
        return False
    host = parts.netloc.lower()
    return host == "generativelanguage.googleapis.com" or host in (
        "youtu.be",
        "youtube.com",
        "www.youtube.com",
    )


def split_data_url(value: str) -> tuple[str | None, str] | None:
    """Return the media type and the base64 of a data URL, ``None`` for anything else."""
    if not value.startswith("data:"):
        return None
    head, comma, data = value[5:].partition(",")
    if not comma or not head.endswith(";base64"):
        return None
    return head.partition(";")[0] or None, data
