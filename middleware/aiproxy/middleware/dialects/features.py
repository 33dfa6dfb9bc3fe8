"""What a request needs of a model, told from its body without translating it."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiproxy.middleware.dialects.reading import word, words

#: Every word ``needs`` can answer with.
NEEDS: Final = frozenset(
    {
        "audio",
        "embeddings",
        "files",
        "hosted_tools",
        "json_mode",
        "json_schema",
        "logprobs",
        "n_gt_1",
        "reasoning",
        "stateful",
        "streaming",
        "tools",
        "vision",
    }
)

_NOTHING: Final[frozenset[str]] = frozenset()
_STREAMING: Final = frozenset({"streaming"})
_PARTS: Final = {
    "image_url": "vision",
    "input_image": "vision",
    "image": "vision",
    "input_audio": "audio",
    "file": "files",
    "input_file": "files",
}
#: A body with none of these and only plain strings as contents needs nothing special.
_TELLING: Final = words(
    "tools functions response_format text logprobs top_logprobs n modalities audio "
    "reasoning reasoning_effort previous_response_id conversation prompt include"
)


def needs(dialect: str, body: Mapping[str, Any]) -> frozenset[str]:
    """Return the capabilities a candidate must have to serve ``body``.

    ``stateful`` means that earlier turns are kept by the upstream that answered them;
    ``hosted_tools`` that the upstream itself must run a tool.
    """
    if dialect == "embeddings":
        return frozenset({"embeddings"})
    if dialect == "classifications":
        return frozenset({"vision"})
    found: set[str] = set()
    for name in ("messages", "input"):
        turns = body.get(name)
        if isinstance(turns, list):
            _contents(turns, found)
    if not _TELLING.isdisjoint(body):
        _members(dialect, body, found)
    if not found:
        return _STREAMING if body.get("stream") is True else _NOTHING
    if body.get("stream") is True:
        found.add("streaming")
    return frozenset(found)


def _contents(turns: Iterable[Any], found: set[str]) -> None:
    for turn in turns:
        if not isinstance(turn, (dict, Mapping)):
            continue
        content = turn.get("content")
        if content.__class__ is str:
            continue
        for parts in (content, turn.get("output")):
            if isinstance(parts, list):
                for part in parts:
                    need = (
                        _PARTS.get(word(part.get("type")))
                        if isinstance(part, (dict, Mapping))
                        else None
                    )
                    if need is not None:
                        found.add(need)
        if turn.get("type") == "item_reference":
            found.add("stateful")


def _members(dialect: str, body: Mapping[str, Any], found: set[str]) -> None:
    for tool in _list(body.get("tools")):
        kind = tool.get("type") if isinstance(tool, (dict, Mapping)) else None
        found.add("tools" if kind in ("function", "custom", None) else "hosted_tools")
    if _list(body.get("functions")):
        found.add("tools")
    _shape(body, found)
    if (
        (dialect != "completions" and body.get("logprobs"))
        or (dialect == "completions" and body.get("logprobs") is not None)
        or body.get("top_logprobs")
        or "message.output_text.logprobs" in _list(body.get("include"))
    ):
        found.add("logprobs")
    n = body.get("n")
    if isinstance(n, int) and n > 1:
        found.add("n_gt_1")
    if body.get("audio") or "audio" in _list(body.get("modalities")):
        found.add("audio")
    reasoning = body.get("reasoning")
    effort = reasoning.get("effort") if isinstance(reasoning, (dict, Mapping)) else None
    if (effort or body.get("reasoning_effort") or "none") != "none":
        found.add("reasoning")
    if dialect != "completions" and any(
        body.get(name) for name in ("previous_response_id", "conversation", "prompt")
    ):
        found.add("stateful")


def _shape(body: Mapping[str, Any], found: set[str]) -> None:
    text = body.get("text")
    shape = text.get("format") if isinstance(text, (dict, Mapping)) else None
    shape = shape or body.get("response_format")
    if not isinstance(shape, (dict, Mapping)):
        return
    if shape.get("type") == "json_schema" or "json_schema" in shape:
        found.add("json_schema")
    elif shape.get("type") == "json_object":
        found.add("json_mode")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
