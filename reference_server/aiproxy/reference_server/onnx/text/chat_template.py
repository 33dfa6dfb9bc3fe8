"""What a model is asked with: messages as values, and the declarative template of config.json.

    {"begin": "<|bos|>", "roles": {"user": "<|user|>"}, "close": null, "answer": "<|assistant|>",
     "turns": 1}

``roles`` gives the marker before each role's text (a role without one is left out), ``close`` the
marker after it, ``answer`` the marker that asks for the answer, ``turns`` how many user turns are
kept, counted from the last (null: all that fit). Text of messages is never read as a marker.
Templates in Jinja, which most published models bring, are in ``templates_jinja``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from aiproxy.reference_server.onnx.errors import ContextOverflow, ModelUnavailable
from aiproxy.reference_server.onnx.text.tokenizing import TextTokenizer

#: Texts longer than this many characters for each token of the context are refused unread.
CHARACTERS_A_TOKEN: Final = 64
#: What a message costs beside its text, in characters of text: its markers and its role.
MESSAGE_CHARACTERS: Final = 16
#: Used only to tell a client how long such an unread text is.
USUAL_CHARACTERS_A_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call an assistant made; ``arguments`` is JSON as the client sent it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message; ``role`` is system, user, assistant or tool. ``call_id`` and ``name`` belong to
    a tool's result: the call it answers, and the function called where that is known."""

    role: str
    text: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    name: str | None = None

    @property
    def characters(self) -> int:
        """About how much text there is to read."""
        calls = sum(len(call.id) + len(call.name) + len(call.arguments) for call in self.calls)
        named = len(self.call_id or "") + len(self.name or "")
        return MESSAGE_CHARACTERS * (1 + len(self.calls)) + len(self.text) + calls + named


@dataclass(frozen=True, slots=True)
class Conversation:
    """``tools`` are the function descriptions as clients send them, ``{"type": "function", ...}``;
    ``described`` is how many characters they have as JSON."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    described: int = field(default=0, compare=False)

    @property
    def characters(self) -> int:
        """About how much text there is to read."""
        return self.described + sum(message.characters for message in self.messages)


class Template(Protocol):
    """Makes a prompt of a conversation."""

    def encode(self, conversation: Conversation, limit: int) -> list[int]:
        """Return the prompt's token ids.

        Raises:
            ContextOverflow: it does not fit ``limit`` tokens (a longer prompt may also come back).
            RequestRefused: the template does not take these messages.
        """
        ...


@dataclass(frozen=True, slots=True)
class DeclaredTemplate:
    """The template of a ``chat`` object; the oldest messages give way when not all fit."""

    tokenizer: TextTokenizer
    begin: tuple[int, ...]
    roles: Mapping[str, int]
    close: tuple[int, ...]
    answer: tuple[int, ...]
    turns: int | None

    def encode(self, conversation: Conversation, limit: int) -> list[int]:
        kept = self._recent([m for m in conversation.messages if m.role in self.roles])
        room = limit - 1 - len(self.begin) - len(self.answer)
        parts: list[list[int]] = []
        for message in reversed(kept):
            if len(message.text) > limit * CHARACTERS_A_TOKEN:
                part = None
                size = len(message.text) // USUAL_CHARACTERS_A_TOKEN
            else:
                ids = self.tokenizer.encode_text(message.text)
                part = [self.roles[message.role], *ids, *self.close]
                size = len(part)
            if part is None or size > room:
                if parts:
                    break
                raise ContextOverflow(limit, size + limit - 1 - room)
            room -= size
            parts.append(part)
        return [*self.begin, *(token for part in reversed(parts) for token in part), *self.answer]

    def _recent(self, messages: Sequence[Message]) -> Sequence[Message]:
        users = [at for at, message in enumerate(messages) if message.role == "user"]
        if self.turns is None or len(users) <= self.turns:
            return messages
        return messages[users[-self.turns] :]


def read_template(chat: Mapping[str, Any], tokenizer: TextTokenizer) -> DeclaredTemplate:
    """Return the template described by ``chat``.

    Raises:
        ModelUnavailable: a part is missing, or a marker is not in the vocabulary.
    """

    def marker(text: str | None) -> tuple[int, ...]:
        if text is None:
            return ()
        token = tokenizer.token_id(text)
        if token is None:
            raise ModelUnavailable(f"the chat template's marker {text} is not in the vocabulary")
        return (token,)

    try:
        return DeclaredTemplate(
            tokenizer=tokenizer,
            begin=marker(chat.get("begin")),
            roles={role: marker(text)[0] for role, text in chat["roles"].items()},
            close=marker(chat.get("close")),
            answer=marker(chat.get("answer")),
            turns=chat.get("turns"),
        )
    except (AttributeError, IndexError, KeyError, TypeError) as wrong:
        raise ModelUnavailable("chat in config.json is not a chat template") from wrong
