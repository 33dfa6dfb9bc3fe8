"""Turning messages into token ids by the declarative ``chat`` object of a model's config.json.

    {"begin": "<|bos|>", "roles": {"user": "<|user|>"}, "close": null, "answer": "<|assistant|>",
     "turns": 1}

``roles`` gives the marker before each role's text (a role without one is left out), ``close`` the
marker after it, ``answer`` the marker that asks for the answer, ``turns`` how many user turns are
kept, counted from the last (null: all that fit). Text of messages is never read as a marker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiproxy.reference_server.onnx.errors import ContextOverflow, ModelUnavailable
from aiproxy.reference_server.onnx.generation import Message

#: Texts longer than this many characters for each token of the context are refused unread.
CHARACTERS_A_TOKEN: Final = 64
#: Used only to tell a client how long such an unread text is.
USUAL_CHARACTERS_A_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """``tokenizer`` is a ``tokenizers.Tokenizer`` that reads special tokens in text as plain text."""

    tokenizer: Any
    begin: tuple[int, ...]
    roles: Mapping[str, int]
    close: tuple[int, ...]
    answer: tuple[int, ...]
    turns: int | None

    def encode(self, messages: Sequence[Message], limit: int) -> list[int]:
        """Return the prompt's token ids, fewer than ``limit``; the oldest messages give way.

        Raises:
            ContextOverflow: the last message alone does not fit.
        """
        kept = self._recent([message for message in messages if message.role in self.roles])
        room = limit - 1 - len(self.begin) - len(self.answer)
        parts: list[list[int]] = []
        for message in reversed(kept):
            if len(message.text) > limit * CHARACTERS_A_TOKEN:
                part = None
                size = len(message.text) // USUAL_CHARACTERS_A_TOKEN
            else:
                part = [self.roles[message.role], *self._ids(message.text), *self.close]
                size = len(part)
            if part is None or size > room:
                if parts:
                    break
                raise ContextOverflow(limit, size + limit - 1 - room)
            room -= size
            parts.append(part)
        return [*self.begin, *(token for part in reversed(parts) for token in part), *self.answer]

    def _recent(self, messages: list[Message]) -> list[Message]:
        users = [at for at, message in enumerate(messages) if message.role == "user"]
        if self.turns is None or len(users) <= self.turns:
            return messages
        return messages[users[-self.turns] :]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def read_template(chat: Mapping[str, Any], tokenizer: Any) -> ChatTemplate:
    """Return the template described by ``chat``.

    Raises:
        ModelUnavailable: a marker is not in the vocabulary.
    """

    def marker(text: str | None) -> tuple[int, ...]:
        if text is None:
            return ()
        token = tokenizer.token_to_id(text)
        if token is None:
            raise ModelUnavailable(f"the chat template's marker {text} is not in the vocabulary")
        return (token,)

    return ChatTemplate(
        tokenizer=tokenizer,
        begin=marker(chat.get("begin")),
        roles={role: marker(text)[0] for role, text in chat["roles"].items()},
        close=marker(chat.get("close")),
        answer=marker(chat.get("answer")),
        turns=chat.get("turns"),
    )
