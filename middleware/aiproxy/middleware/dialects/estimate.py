"""The prompt token estimate that limits, budgets and rules work with before anyone tokenises."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

#: Tokens a message costs beside its text: role, separators.
PER_MESSAGE: Final = 4
#: Tokens that open the answer.
PER_REPLY: Final = 3
#: Tokens a tool costs beside its JSON.
PER_TOOL: Final = 8
#: Tokens of an image, by its ``detail``; anything but ``low`` counts as one full-size picture.
IMAGE_LOW: Final = 85
IMAGE: Final = 765
#: Tokens of a document or a piece of sound, whose length cannot be told from its reference.
FILE: Final = 1500
AUDIO: Final = 500
#: UTF-8 bytes a token stands for on average.
BYTES_PER_TOKEN: Final = 4


def prompt_tokens(dialect: str, body: Mapping[str, Any]) -> int:
    """Return an estimate of the prompt tokens of a request body, at least 1.

    Published formula (``routing`` rules and cost limits use it under the same name)::

        tokens = ceil(B / 4) + 4 * M + 3 + 8 * T + ceil(J / 4) + I

    B  UTF-8 bytes of all texts: message contents, tool arguments and results, instructions
    M  messages or input items (a plain string is one)
    3  opens the answer; left out for embeddings
    T  tools; J  the bytes of their JSON together with that of the answer's schema
    I  765 an image (85 with ``detail: low``), 1500 a file, 500 a piece of audio

    Token arrays (embeddings, completions) count one token an element. It errs on the high side
    for English (about 4.5 bytes a token) and is near for CJK text (3 bytes, 0.7 tokens a sign).
    """
    if dialect == "classifications":
        return 1  # an image that is only looked at is no prompt
    count = _Count()
    if dialect in ("embeddings", "completions"):
        count.plain(body.get("input" if dialect == "embeddings" else "prompt"))
        return max(1, count.total() + (0 if dialect == "embeddings" else PER_REPLY))
    for name in ("instructions", "system"):
        if body.get(name):
            count.message(body[name])
    for name in ("messages", "input"):
        turns = body.get(name)
        if isinstance(turns, str):
            count.message(turns)
        elif isinstance(turns, list):
            for turn in turns:
                count.message(turn)
    tools = body.get("tools") or body.get("functions")
    if isinstance(tools, list):
        count.fixed += PER_TOOL * len(tools)
        count.json(tools)
    text = body.get("text")
    shape = text.get("format") if isinstance(text, (dict, Mapping)) else body.get("response_format")
    if isinstance(shape, (dict, Mapping)) and len(shape) > 1:
        count.json(shape)
    return max(1, count.total() + PER_REPLY)


def longest_input(body: Mapping[str, Any]) -> int | None:
    """Return the same estimate of the longest of several texts (or token lists) to embed, ``None``
    where there is one."""
    given = body.get("input")
    if not isinstance(given, list) or not given or isinstance(given[0], int):
        return None
    most = 0
    for item in given:
        count = _Count()
        count.plain(item)
        most = max(most, count.total())
    return most


class _Count:
    __slots__ = ("fixed", "json_bytes", "text_bytes")

    def __init__(self) -> None:
        self.fixed = 0
        self.text_bytes = 0
        self.json_bytes = 0

    def total(self) -> int:
        texts = -(-self.text_bytes // BYTES_PER_TOKEN)
        return texts - (-self.json_bytes // BYTES_PER_TOKEN) + self.fixed

    def message(self, turn: object) -> None:
        self.fixed += PER_MESSAGE
        if isinstance(turn, dict) and len(turn) == 2 and "role" in turn:
            text = turn.get("content")
            if isinstance(text, str):  # a role and a text, as most turns are
                self.text(text)
                return
        self.content(turn)

    def text(self, value: str) -> None:
        self.text_bytes += len(value) if value.isascii() else len(value.encode("utf-8", "replace"))

    def json(self, value: object) -> None:
        try:
            self.json_bytes += len(orjson.dumps(value))
        except TypeError:
            self.json_bytes += len(str(value))

    def plain(self, value: object) -> None:
        """Count a prompt that is a string, token numbers, or a list of either."""
        if isinstance(value, str):
            self.text(value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, int):
                    self.fixed += 1
                else:
                    self.plain(item)

    def content(self, value: object) -> None:
        """Count a message, an item, a part, or a list of them."""
        if isinstance(value, str):
            self.text(value)
        elif isinstance(value, list):
            for item in value:
                self.content(item)
        elif isinstance(value, (dict, Mapping)):
            self._object(value)

    def _object(self, value: Mapping[str, Any]) -> None:
        kind = value.get("type")
        if kind in ("image_url", "input_image", "image"):
            inner = value.get("image_url")
            holder = inner if isinstance(inner, (dict, Mapping)) else value
            self.fixed += IMAGE_LOW if holder.get("detail") == "low" else IMAGE
            return
        if kind in ("file", "input_file"):
            self.fixed += FILE
            return
        if kind == "input_audio":
            self.fixed += AUDIO
            return
        for name in ("content", "text", "output", "arguments", "input", "refusal", "summary"):
            found = value.get(name)
            if found:
                self.content(found)
        calls = value.get("tool_calls")
        if isinstance(calls, list):
            for call in calls:
                inner = (
                    call.get("function") or call.get("custom")
                    if isinstance(call, (dict, Mapping))
                    else None
                )
                if isinstance(inner, (dict, Mapping)):
                    self.fixed += PER_MESSAGE
                    self.content(inner.get("name"))
                    self.content(inner)
        legacy = value.get("function_call")
        if isinstance(legacy, (dict, Mapping)):
            self.content(legacy)
