"""The frames that end a stream of chunks; Chat Completions and completions end alike."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from aiproxy.middleware.dialects.canonical import Finish, StreamCut, Usage
from aiproxy.middleware.dialects.sse import DONE_FRAME
from aiproxy.middleware.dialects.usage import chat_usage


def closing_frames(
    finishes: Mapping[int, Finish],
    frame: Callable[[int, Finish], bytes],
    *,
    head: bytes,
    usage: Usage | None,
    usage_asked: bool,
    extra: Mapping[str, Any] | None,
) -> Iterator[bytes]:
    """Yield the finish ``frame`` of each choice, the usage frame when asked for, and ``[DONE]``.

    ``head`` is a chunk up to its choices. ``extra`` joins the last JSON frame.

    Raises:
        StreamCut: nothing finished; an ending is never made up.
    """
    if not finishes:
        raise StreamCut()
    more = b"" if not extra else b"," + orjson.dumps(extra)[1:-1]
    last = max(finishes)
    for choice, ending in sorted(finishes.items()):
        told = frame(choice, ending)
        if more and not usage_asked and choice == last:
            told = told[:-3] + more + b"}\n\n"
        yield told
    if usage_asked:
        counts = None if usage is None else chat_usage(usage)
        yield head + b'[],"usage":' + orjson.dumps(counts) + more + b"}\n\n"
    yield DONE_FRAME


def error_frame(error: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> bytes:
    """Return the frame that ends a broken stream; no ``[DONE]`` follows it."""
    inner = error.get("error")
    body = {"error": inner if isinstance(inner, Mapping) else dict(error), **(extra or {})}
    return b"data: " + orjson.dumps(body) + b"\n\n"
