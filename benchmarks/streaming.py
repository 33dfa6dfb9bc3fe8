"""Many chat streams at once against a port: tokens a second and times to the first token."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_COUNTED = b'"completion_tokens":'
_TEXT = b'"content":"'
PROMPT = "count the gates of the city"


@dataclass(frozen=True, slots=True)
class Streams:
    """What a round gave: tokens by the server's own usage, seconds of it all, and for each stream
    the milliseconds until its first text."""

    tokens: int
    seconds: float
    first_ms: tuple[float, ...]

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds

    def first(self, share: float) -> float:
        """A quantile of the times to the first text."""
        found = sorted(self.first_ms)
        return found[min(len(found) - 1, int(len(found) * share))]


async def streamed(
    port: int, model: str, at_once: int, each: int, tokens: int, prompt: str = PROMPT
) -> Streams:
    """``at_once`` clients, each asking for ``each`` streams of ``tokens`` one after another."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began = time.perf_counter()
    found = await asyncio.gather(*(_client(port, body, each) for _ in range(at_once)))
    seconds = time.perf_counter() - began
    rows = [row for rows in found for row in rows]
    return Streams(sum(made for made, _ in rows), seconds, tuple(first for _, first in rows))


async def _client(port: int, body: Mapping[str, Any], each: int) -> list[tuple[int, float]]:
    return [await _one(port, body) for _ in range(each)]


async def _one(port: int, body: Mapping[str, Any]) -> tuple[int, float]:
    """One stream on a connection of its own: its tokens, and milliseconds to the first text."""
    began = time.perf_counter()
    status, answer, first = await ask(port, "/v1/chat/completions", body)
    if status != 200 or b"data: [DONE]" not in answer:
        raise RuntimeError(answer[:2000].decode(errors="replace"))
    at = answer.rindex(_COUNTED) + len(_COUNTED)
    made = int(answer[at : at + 12].split(b",")[0].split(b"}")[0])
    return made, 1e3 * ((first or time.perf_counter()) - began)


async def ask(port: int, path: str, body: Mapping[str, Any]) -> tuple[int, bytes, float | None]:
    """Return the status of a POST, all bytes of its answer, and when its first text came."""
    content = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n".encode()
        + content
    )
    pieces: list[bytes] = []
    first = None
    while piece := await reader.read(1 << 16):
        pieces.append(piece)
        if first is None and _TEXT in piece.replace(_TEXT + b'"', b""):
            first = time.perf_counter()
    writer.close()
    answer = b"".join(pieces)
    return int(answer[9:12] or b"0"), answer, first
