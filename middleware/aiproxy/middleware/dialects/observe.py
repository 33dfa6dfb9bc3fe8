"""Watching a reply that passes through in its own dialect.

An observer reads a copy of each frame and tells four things: whether the client would see content
(the commit point), whether the answer is complete, what it used, and whether it failed.
It never changes anything and never raises on odd input.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol, TypeAlias

from aiproxy.middleware.dialects.canonical import Usage
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.dialects.finish import is_failure
from aiproxy.middleware.dialects.reading import word
from aiproxy.middleware.dialects.usage import read_usage

Dialect: TypeAlias = Literal["chat", "responses", "completions", "embeddings"]

#: Flags of ``Observer.feed``; a frame may have several.
CONTENT: Final = 1
FINISH: Final = 2
TERMINAL: Final = 4
USAGE: Final = 8
ERROR: Final = 16


class Observer(Protocol):
    """What was seen of one stream so far."""

    finished: bool
    error: Mapping[str, Any] | None
    model: str | None
    content_seen: bool

    @property
    def usage(self) -> Usage | None:
        """The last usage reported; stream usage is cumulative, so the last is the whole."""
        ...

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> int:
        """Take one frame and return its flags."""
        ...


def observer(dialect: str) -> Observer:
    """Return a fresh observer for streams of ``dialect``.

    Embeddings do not stream; their observer takes the body as its only frame.
    """
    made: Observer = (_OBSERVERS.get(dialect) or codec(dialect).Observer)()
    return made


class _Watched:
    __slots__ = ("_usage", "content_seen", "error", "finished", "model")

    def __init__(self) -> None:
        self.finished = False
        self.error: Mapping[str, Any] | None = None
        self.model: str | None = None
        self.content_seen = False
        self._usage: object = None

    @property
    def usage(self) -> Usage | None:
        """The last usage reported, read when asked for: some servers report it in every frame."""
        return read_usage(self._usage)

    def _failed(self, error: object, payload: Mapping[str, Any]) -> int:
        if self.error is None:
            self.error = (
                error if isinstance(error, (dict, Mapping)) else {"message": str(error or "")}
            )
            if not error:
                self.error = payload
        return ERROR


class _ChatObserver(_Watched):
    __slots__ = ("_ended", "_seen")

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[int] = set()
        self._ended: set[int] = set()

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> int:
        """Take one ``chat.completion.chunk``, as a JSON reader made it (plain dicts and lists)."""
        if event == "error" or payload.get("error"):
            return self._failed(payload.get("error"), payload)
        flags = 0
        if self.model is None:
            model = payload.get("model")
            if isinstance(model, str):
                self.model = model
        usage = payload.get("usage")
        if usage is not None and isinstance(usage, (dict, Mapping)) and usage:
            self._usage = usage
            flags = USAGE
        choices = payload.get("choices")
        if not choices or choices.__class__ is not list:
            return flags
        for choice in choices:
            if choice.__class__ is not dict:
                continue
            delta = choice.get("delta") or choice.get("message")
            if delta and delta.__class__ is dict and (delta.get("content") or _says_more(delta)):
                flags |= CONTENT
                self.content_seen = True
            index = choice.get("index", 0)
            if index.__class__ is not int:
                index = 0
            self._seen.add(index)
            reason = choice.get("finish_reason")
            if reason and reason.__class__ is str:
                if is_failure(reason):
                    self._failed({"code": reason, "message": "the answer ended in an error"}, {})
                    flags |= ERROR
                else:
                    self._ended.add(index)
                    flags |= FINISH
        if self._ended:
            self.finished = self._seen == self._ended
        return flags


def _says_more(delta: Mapping[str, Any]) -> bool:
    """Tell whether a delta without content holds something a client would show or act on."""
    return bool(
        delta.get("tool_calls")
        or delta.get("reasoning_content")
        or delta.get("reasoning")
        or delta.get("refusal")
        or delta.get("audio")
        or delta.get("function_call")
    )


class _CompletionsObserver(_ChatObserver):
    __slots__ = ()

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> int:
        """Take one legacy ``text_completion`` chunk."""
        flags = super().feed(payload, event)
        choices = payload.get("choices")
        if not flags & ERROR and isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, (dict, Mapping)) and choice.get("text"):
                    self.content_seen = True
                    return flags | CONTENT
        return flags


class _EmbeddingsObserver(_Watched):
    __slots__ = ()

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> int:
        """Take the whole body."""
        if event == "error" or payload.get("error"):
            return self._failed(payload.get("error"), payload)
        if isinstance(payload.get("model"), str):
            self.model = payload["model"]
        flags = 0
        if payload.get("data"):
            self.finished = self.content_seen = True
            flags = CONTENT | FINISH | TERMINAL
        if isinstance(payload.get("usage"), Mapping):
            self._usage = payload["usage"]
            flags |= USAGE
        return flags


#: Events whose ``delta`` a client shows or acts on once it is not empty.
_DELTA: Final = ".delta"
_LIFECYCLE: Final = frozenset({"response.created", "response.queued", "response.in_progress"})
_QUIET_ITEMS: Final = frozenset({"message", "reasoning"})


class _ResponsesObserver(_Watched):
    __slots__ = ()

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> int:
        """Take one typed Responses event."""
        kind = payload.get("type")
        if not isinstance(kind, str):
            kind = event or ""
        if kind.endswith(_DELTA):
            if payload.get("delta"):
                self.content_seen = True
                return CONTENT
            return 0
        if kind == "error" or event == "error":
            return self._failed(payload.get("error"), payload)
        if kind in _LIFECYCLE:
            return self._started(payload.get("response"))
        if kind == "response.output_item.added" or kind == "response.output_item.done":
            return self._item(payload.get("item"), kind.endswith("done"))
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            return self._ended(kind, payload.get("response"))
        if kind.endswith(".done") and (
            payload.get("text") or payload.get("arguments") or payload.get("refusal")
        ):
            self.content_seen = True
            return CONTENT
        if not kind.startswith("response.") and payload.get("error"):
            return self._failed(payload.get("error"), payload)
        return 0

    def _started(self, response: object) -> int:
        if isinstance(response, (dict, Mapping)) and isinstance(response.get("model"), str):
            self.model = response["model"]
        return 0

    def _item(self, item: object, done: bool) -> int:
        """A tool call or hosted call is content as soon as it begins; others once they say."""
        if not isinstance(item, (dict, Mapping)):
            return 0
        kind = word(item.get("type"))
        if kind in _QUIET_ITEMS and not (done and _says(item)):
            return 0
        self.content_seen = True
        return CONTENT

    def _ended(self, kind: str, response: object) -> int:
        response = response if isinstance(response, (dict, Mapping)) else {}
        self._started(response)
        flags = TERMINAL
        usage = response.get("usage")
        if isinstance(usage, (dict, Mapping)) and usage:
            self._usage = usage
            flags |= USAGE
        if kind == "response.failed":
            return flags | self._failed(response.get("error") or {"message": "failed"}, {})
        self.finished = True
        output = response.get("output")
        if not self.content_seen and isinstance(output, list):
            for item in output:
                if isinstance(item, (dict, Mapping)) and (
                    word(item.get("type")) not in _QUIET_ITEMS or _says(item)
                ):
                    self.content_seen = True
                    flags |= CONTENT
                    break
        return flags | FINISH


def _says(item: Mapping[str, Any]) -> bool:
    for name in ("content", "summary"):
        parts = item.get(name)
        if isinstance(parts, list):
            for part in parts:
                if isinstance(part, (dict, Mapping)) and (part.get("text") or part.get("refusal")):
                    return True
    return False


_OBSERVERS: Final[dict[str, type[Any]]] = {
    "chat": _ChatObserver,
    "completions": _CompletionsObserver,
    "embeddings": _EmbeddingsObserver,
    "responses": _ResponsesObserver,
}


# --- whole bodies --------------------------------------------------------------------------------


def reply_usage(dialect: str, body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply, ``None`` when it reports none."""
    if dialect in _OBSERVERS:
        return read_usage(body.get("usage"))
    found: Usage | None = codec(dialect).read_usage(body)
    return found


def check_reply(dialect: str, body: object) -> str | None:
    """Return why an upstream's 200 body is no answer, or ``None`` when it is one.

    The reason is ours: it never quotes the body.
    """
    if not isinstance(body, (dict, Mapping)):
        return "the body is not a JSON object"
    if dialect not in ("completions", "embeddings"):
        fault: str | None = codec(dialect).check_reply(body)
        return fault
    error = body.get("error")
    if error:
        return "the body holds an error object"
    member = "data" if dialect == "embeddings" else "choices"
    entries = body.get(member)
    if not isinstance(entries, list):
        return f"{member} is missing"
    if not entries:
        return f"{member} is empty"
    inner = "embedding" if dialect == "embeddings" else "text"
    for i, entry in enumerate(entries):
        if not isinstance(entry, (dict, Mapping)):
            return f"{member}[{i}] is not an object"
        value = entry.get(inner)
        if value is None:
            return f"{member}[{i}].{inner} is missing"
        if is_failure(entry.get("finish_reason")):
            return f"{member}[{i}] ended in an error"
    return None
