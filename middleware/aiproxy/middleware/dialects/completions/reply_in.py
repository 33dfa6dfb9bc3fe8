"""Answers in: ``text_completion`` objects and streams to the canonical form."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import chat, observe, reading, usage
from aiproxy.middleware.dialects.canonical import (
    CanonicalEvent,
    CanonicalReply,
    Choice,
    MalformedReply,
    Text,
    Usage,
)
from aiproxy.middleware.dialects.chat.reply_in import stop_sequence
from aiproxy.middleware.dialects.completions import logprobs
from aiproxy.middleware.dialects.completions.vocabulary import DIALECT
from aiproxy.middleware.dialects.finish import finish_reason

_ENDINGS: Final = ("index", "finish_reason", "stop_sequence", "stop_reason")


def check_reply(body: Mapping[str, Any]) -> str | None:
    """Return why a 200 body is no answer, or ``None`` when it is one."""
    return observe.check_reply(DIALECT, body)


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply."""
    return usage.read_usage(body.get("usage"))


def decode_reply(body: Mapping[str, Any]) -> CanonicalReply:
    """Return the canonical reply of a ``text_completion`` object.

    Raises:
        MalformedReply: an error object, no choices, or a choice that broke off.
    """
    fault = check_reply(body)
    if fault is not None:
        raise MalformedReply(fault)
    choices = []
    for i, choice in enumerate(body["choices"]):
        text = choice["text"]
        if not isinstance(text, str):
            raise MalformedReply(f"choices[{i}].text is {reading.kind_of(text)}")
        native = choice.get("finish_reason")
        reason = finish_reason(native, False) or "stop"
        index = choice.get("index")
        tokens = logprobs.decode(choice.get("logprobs"))
        choices.append(
            Choice(
                (Text(text, (), tokens or None),),
                reason,
                index if isinstance(index, int) and index >= 0 else i,
                native if isinstance(native, str) and native and native != reason else None,
                stop_sequence=stop_sequence(choice),
            )
        )
    created = body.get("created")
    return CanonicalReply(
        choices=tuple(choices),
        source=DIALECT,
        usage=read_usage(body),
        id=reading.optional(body.get("id")),
        model=reading.optional(body.get("model")),
        created=int(created) if isinstance(created, int) else None,
        system_fingerprint=reading.optional(body.get("system_fingerprint")),
    )


class StreamDecoder:
    """``text_completion`` chunks in, canonical events out."""

    __slots__ = ("_chat",)

    def __init__(self) -> None:
        self._chat = chat.StreamDecoder()

    @property
    def complete(self) -> bool:
        """True once every choice that began has its finish reason."""
        return self._chat.complete

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> list[CanonicalEvent]:
        """Return the events of one chunk. Nothing follows a ``StreamError``."""
        choices = payload.get("choices")
        if not isinstance(choices, list):
            return self._chat.feed(payload, event)
        return self._chat.feed({**payload, "choices": [_as_chat(c) for c in choices]}, event)

    def finish(self) -> list[CanonicalEvent]:
        """Return the closing events.

        Raises:
            StreamCut: a choice has no finish reason, or none ever began.
        """
        return self._chat.finish()


def _as_chat(choice: Any) -> Any:
    if not isinstance(choice, Mapping):
        return choice
    told = {k: v for k, v in choice.items() if k in _ENDINGS}
    tokens = logprobs.decode(choice.get("logprobs"))
    if tokens:
        told["logprobs"] = {"content": list(tokens)}
    return {**told, "delta": {"content": reading.word(choice.get("text"))}}
