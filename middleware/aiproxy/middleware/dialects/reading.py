"""Reading members of a JSON object whose types nobody has checked yet."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

import orjson

from aiproxy.middleware.dialects.canonical import File, Image, Json, MalformedRequest, Usage


def words(text: str) -> frozenset[str]:
    """Return the words of ``text`` as a set, to write long lists of member names shortly."""
    return frozenset(text.split())


def kind_of(value: object) -> str:
    """Return the JSON type of ``value`` in words, never the value itself."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, Mapping):
        return "an object"
    return "an array"


def text(value: object, path: str, member: str = "") -> str:
    """Return ``value`` as text or raise ``MalformedRequest`` naming ``path`` and its ``member``.

    A path is only put together when something is at fault there: it comes in two pieces.
    """
    if isinstance(value, str):
        return value
    raise MalformedRequest(path + member, kind_of(value), "a string")


def given(body: Json, name: str, path: str) -> str | None:
    """Return an optional text member of the object at ``path``.

    Raises:
        MalformedRequest: it is something else.
    """
    value = body.get(name)
    return None if value is None else text(value, f"{path}.{name}")


def mapping(value: object, path: str, member: str = "") -> Json:
    """Return ``value`` as an object or raise ``MalformedRequest`` naming ``path`` and ``member``."""
    # What a JSON reader made is a dict; asking an abstract class costs ten times as much.
    if type(value) is dict or isinstance(value, Mapping):
        return value
    raise MalformedRequest(path + member, kind_of(value), "an object")


def array(value: object, path: str, member: str = "") -> list[Any]:
    """Return ``value`` as a list or raise ``MalformedRequest`` naming ``path`` and ``member``."""
    if isinstance(value, list | tuple):
        return list(value)
    raise MalformedRequest(path + member, kind_of(value), "an array")


def number(body: Json, name: str) -> Any:
    """Return a number, or ``None`` when the member is absent or null."""
    value = body.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise MalformedRequest(name, kind_of(value), "a number")


def integer(body: Json, name: str) -> int | None:
    """Return an integer, or ``None`` when the member is absent, null or the word ``auto``."""
    value = body.get(name)
    if value is None or value == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise MalformedRequest(name, kind_of(value), "an integer")


def flag(body: Json, name: str) -> bool | None:
    """Return a boolean, or ``None`` when the member is absent or null."""
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise MalformedRequest(name, kind_of(value), "a boolean")


def string(body: Json, name: str) -> str | None:
    """Return a string, or ``None`` when the member is absent or null."""
    value = body.get(name)
    return None if value is None else text(value, name)


def rest(body: Json, known: Iterable[str]) -> dict[str, Any]:
    """Return the members of ``body`` that are not ``known``; nulls mean absent and go."""
    if isinstance(known, frozenset):
        if known.issuperset(body):
            return {}
        names: Container[str] = known
    else:
        names = known if isinstance(known, tuple) else frozenset(known)
    return {k: v for k, v in body.items() if k not in names and v is not None}


def arguments_text(value: object) -> str:
    """Return tool arguments as text; some servers send an object, or null for none."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return orjson.dumps(value).decode()


def is_whole_json(value: str) -> bool:
    """Tell whether ``value`` is one complete JSON text."""
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True


def image(url: str | None, detail: str | None, file_id: str | None, extra: Json) -> Image:
    """Return an image; a base64 data URL is taken apart."""
    if url is not None and url.startswith("data:"):
        head, comma, data = url.partition(";base64,")
        media = head[5:]
        if comma and media and ";" not in media:
            return Image(data=data, media_type=media, detail=detail, file_id=file_id, extra=extra)
    return Image(url=url, detail=detail, file_id=file_id, extra=extra)


def image_url(part: Image) -> str | None:
    """Return the URL of an image, put together again when it holds data."""
    if part.data is not None:
        return f"data:{part.media_type or 'image/png'};base64,{part.data}"
    return part.url


def file_data(part: File) -> str | None:
    """Return the data of a file as a data URL where its type is known: OpenAI's APIs want that."""
    if part.data is None or part.media_type is None or part.data.startswith("data:"):
        return part.data
    return f"data:{part.media_type};base64,{part.data}"


def file_name(part: File) -> str | None:
    """Return the name of a file; data whose dialect has no names gets one, it must have one."""
    if part.name is not None or part.data is None or part.media_type is None:
        return part.name
    return "document.pdf" if part.media_type == "application/pdf" else "document.txt"


def word(value: object) -> str:
    """Return ``value`` when it is text, else an empty text; safe as a key of a table."""
    return value if isinstance(value, str) else ""


def optional(value: object) -> str | None:
    """Return ``value`` when it is text."""
    return value if isinstance(value, str) else None


def objects(value: object) -> list[Json]:
    """Return the objects of a list; anything else has none."""
    if not isinstance(value, list | tuple):
        return []
    return [x for x in value if isinstance(x, (dict, Mapping))]


def logprobs(value: object) -> tuple[Json, ...] | None:
    """Return the per-token objects of a list, or ``None`` for anything else."""
    if not isinstance(value, list | tuple):
        return None
    return tuple(item for item in value if isinstance(item, Mapping))


def merge_usage(seen: Usage | None, new: Usage | None) -> Usage | None:
    """Return what two reports of one stream say together.

    Stream usage is cumulative. Some upstreams report the prompt at the start and the completion at
    the end, and zeros for the rest: a count never goes back.
    """
    if new is None or seen is None:
        return new or seen
    return Usage(
        max(seen.input, new.input),
        max(seen.output, new.output),
        max(seen.cached, new.cached),
        max(seen.cache_write, new.cache_write),
        max(seen.reasoning, new.reasoning),
    )
