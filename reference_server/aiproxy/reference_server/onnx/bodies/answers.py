"""From the engine's events to OpenAI bodies and chunks, a choice at a time.

A choice is told what text and log probabilities came; it says what a streaming client is to be sent
now, and at the end what a client gets who waited for all of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiproxy.reference_server.onnx.text.generation import Finished, FinishReason, Usage
from aiproxy.reference_server.onnx.text.runner import TokenLogprob
from aiproxy.reference_server.onnx.text.tool_calls import Called, CallReader, ToolUse

Json = dict[str, Any]
#: The bytes a token id stands for.
Spell = Callable[[int], bytes]

#: What JSON can say of a probability that is zero.
LOWEST_LOGPROB: Final = -9999.0


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every body of one answer carries: its id, creation time (Unix seconds), public model."""

    id: str
    created: int
    model: str
    fingerprint: str


class Choice(Protocol):
    """One alternative answer in the making."""

    def opening(self) -> list[Json]:
        """Return the choices of chunks that precede the first text."""
        ...

    def take(self, text: str, logprobs: Sequence[TokenLogprob]) -> list[Json]:
        """Return the choices of chunks for what came."""
        ...

    def end(self, reason: FinishReason) -> list[Json]:
        """Return the choices of the last chunks."""
        ...

    def whole(self) -> Json:
        """Return the choice of a whole body, after ``end``."""
        ...


class ChatChoice:
    """A choice of a chat answer, its tool calls read."""

    def __init__(
        self,
        index: int,
        use: ToolUse | None,
        spell: Spell | None,
        new_id: Callable[[], str],
    ) -> None:
        """``spell`` is given when log probabilities are wanted."""
        self._index = index
        self._reader = CallReader(use) if use else None
        self._spell = spell
        self._new_id = new_id
        self._texts: list[str] = []
        self._calls: list[Json] = []
        self._rows: list[Json] = []
        self._unsent: list[Json] = []
        self._reason: str | None = None

    def opening(self) -> list[Json]:
        return [self._choice({"role": "assistant", "content": ""})]

    def take(self, text: str, logprobs: Sequence[TokenLogprob]) -> list[Json]:
        if self._spell is not None:
            rows = [chat_logprob(row, self._spell) for row in logprobs]
            self._rows += rows
            self._unsent += rows
        if self._reader is not None:
            return self._told(self._reader.push(text))
        return self._told([text] if text else [])

    def end(self, reason: FinishReason) -> list[Json]:
        last = self._told(self._reader.finish()) if self._reader else []
        self._reason = "tool_calls" if self._calls and reason == "stop" else reason
        return [*last, self._choice({}, self._reason)]

    def whole(self) -> Json:
        text: str | None = "".join(self._texts)
        message: Json = {"role": "assistant", "content": text, "refusal": None}
        if self._calls:
            message |= {"content": text or None, "tool_calls": self._calls}
        rows = None if self._spell is None else {"content": self._rows, "refusal": None}
        return {
            "index": self._index,
            "message": message,
            "logprobs": rows,
            "finish_reason": self._reason,
        }

    def _told(self, items: Sequence[str | Called]) -> list[Json]:
        choices: list[Json] = []
        text = ""
        for item in items:
            if isinstance(item, str):
                text += item
                continue
            if text:
                choices.append(self._said(text))
                text = ""
            choices.append(self._choice({"tool_calls": [self._called(item)]}))
        if text:
            choices.append(self._said(text))
        return choices

    def _said(self, text: str) -> Json:
        self._texts.append(text)
        return self._choice({"content": text})

    def _called(self, call: Called) -> Json:
        function = {"name": call.name, "arguments": call.arguments}
        made: Json = {"id": "call_" + self._new_id(), "type": "function", "function": function}
        self._calls.append(made)
        return {"index": len(self._calls) - 1, **made}

    def _choice(self, delta: Json, reason: str | None = None) -> Json:
        rows = None
        if self._unsent:
            rows = {"content": self._unsent, "refusal": None}
            self._unsent = []
        return {"index": self._index, "delta": delta, "logprobs": rows, "finish_reason": reason}


class TextChoice:
    """A choice of a completion: text alone, log probabilities in their older form."""

    def __init__(self, index: int, spell: Spell | None) -> None:
        self._index = index
        self._spell = spell
        self._texts: list[str] = []
        self._rows = LegacyLogprobs()
        self._unsent = LegacyLogprobs()
        self._reason: str | None = None

    def opening(self) -> list[Json]:
        return []

    def take(self, text: str, logprobs: Sequence[TokenLogprob]) -> list[Json]:
        if self._spell is not None:
            for row in logprobs:
                self._rows.add(row, self._spell)
                self._unsent.add(row, self._spell)
        if not text:
            return []
        self._texts.append(text)
        return [self._choice(text)]

    def end(self, reason: FinishReason) -> list[Json]:
        self._reason = reason
        return [self._choice("", reason)]

    def whole(self) -> Json:
        rows = None if self._spell is None else self._rows.body()
        return {
            "index": self._index,
            "text": "".join(self._texts),
            "logprobs": rows,
            "finish_reason": self._reason,
        }

    def _choice(self, text: str, reason: str | None = None) -> Json:
        rows = self._unsent.body() if self._unsent.tokens else None
        self._unsent = LegacyLogprobs()
        return {"index": self._index, "text": text, "logprobs": rows, "finish_reason": reason}


class LegacyLogprobs:
    """Four lists side by side."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self._own: list[float] = []
        self._top: list[dict[str, float]] = []
        self._offsets: list[int] = []

    def add(self, row: TokenLogprob, spell: Spell) -> None:
        self.tokens.append(spelled(spell(row.token)))
        self._own.append(finite(row.logprob))
        # Two tokens may spell alike (halves of characters); the likelier one is kept.
        top: dict[str, float] = {}
        for other, logprob in row.top:
            top.setdefault(spelled(spell(other)), finite(logprob))
        self._top.append(top)
        self._offsets.append(row.begin)

    def body(self) -> Json:
        return {
            "tokens": self.tokens,
            "token_logprobs": self._own,
            "top_logprobs": self._top,
            "text_offset": self._offsets,
        }


def chat_logprob(row: TokenLogprob, spell: Spell) -> Json:
    top = [_logprob(token, logprob, spell) for token, logprob in row.top]
    return _logprob(row.token, row.logprob, spell) | {"top_logprobs": top}


def _logprob(token: int, logprob: float, spell: Spell) -> Json:
    written = spell(token)
    return {"token": spelled(written), "logprob": finite(logprob), "bytes": list(written)}


def spelled(written: bytes) -> str:
    """Return a token's text; what is no whole character shows as OpenAI shows it."""
    try:
        return written.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in written)


def finite(logprob: float) -> float:
    return max(LOWEST_LOGPROB, logprob)


def whole_body(
    envelope: Envelope, kind: str, choices: Sequence[Choice], ends: Sequence[Finished]
) -> Json:
    """Return the body of a whole answer; ``kind`` is its ``object``."""
    return body_of(envelope, kind, [choice.whole() for choice in choices]) | {
        "usage": usage_object(total(ends))
    }


def total(ends: Sequence[Finished]) -> Usage:
    """Return the usage of all choices together; their prompt counts once."""
    prompt = max(end.usage.prompt_tokens for end in ends)
    return Usage(prompt, sum(end.usage.completion_tokens for end in ends))


def usage_object(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def body_of(envelope: Envelope, kind: str, choices: list[Json]) -> Json:
    return {
        "id": envelope.id,
        "object": kind,
        "created": envelope.created,
        "model": envelope.model,
        "system_fingerprint": envelope.fingerprint,
        "choices": choices,
    }
