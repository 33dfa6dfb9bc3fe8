"""Answers out: the canonical form to ``text_completion`` objects and streams."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
    AudioDelta,
    CanonicalEvent,
    CanonicalReply,
    Choice,
    Envelope,
    Finish,
    FinishReason,
    Json,
    Loss,
    OpaqueItem,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    Text,
    TextDelta,
    ToolCall,
    ToolCallStart,
    Usage,
    UsageEvent,
)
from aiproxy.middleware.dialects.chat.closing import closing_frames, error_frame
from aiproxy.middleware.dialects.chat.reply_out import endings
from aiproxy.middleware.dialects.completions import logprobs
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.usage import chat_usage

_REASONING = Loss("reasoning", "a completion has no place for reasoning")
_CALLS = Loss("tool_calls", "a completion has no tool calls")
_CITATIONS = Loss("annotations", "a completion has no citations")
_REFUSAL = Loss("refusal", "a completion tells a refusal as text")
_PARTS = Loss("content_part", "a completion holds text only")


def reply_losses(reply: CanonicalReply) -> Iterator[Loss]:
    """Yield what a ``text_completion`` object of ``reply`` leaves out."""
    for choice in reply.choices:
        for part in choice.parts:
            if isinstance(part, Text):
                if part.annotations:
                    yield _CITATIONS
            elif isinstance(part, ToolCall):
                yield _CALLS
            elif isinstance(part, Refusal):
                yield _REFUSAL
            else:
                yield _REASONING if isinstance(part, Reasoning) else _PARTS


def encode_reply(
    reply: CanonicalReply, envelope: Envelope, losses: list[Loss] | None = None
) -> dict[str, Any]:
    """Return a ``text_completion`` object; a refusal is told as text, an echo comes first."""
    if losses is not None:
        note(losses, reply_losses(reply))
    before = _echo(envelope)
    ordered = sorted(reply.choices, key=lambda choice: choice.index)
    body: dict[str, Any] = {
        "id": envelope.id,
        "object": "text_completion",
        "created": envelope.created,
        "model": envelope.model,
        "choices": [_choice(choice, i, before) for i, choice in enumerate(ordered)],
    }
    if reply.usage is not None:
        body["usage"] = chat_usage(reply.usage)
    if reply.system_fingerprint is not None:
        body["system_fingerprint"] = reply.system_fingerprint
    return body


def encode_error(status: int, error: Json) -> dict[str, Any]:
    """Return the error body; it is the one of every OpenAI dialect."""
    return {"error": dict(error)}


def _choice(choice: Choice, index: int, before: str) -> dict[str, Any]:
    said = [part for part in choice.parts if isinstance(part, Text | Refusal)]
    tokens = [token for part in said for token in part.logprobs or ()]
    return {
        "text": before + "".join(part.text for part in said),
        "index": index,
        "logprobs": logprobs.encode(tokens, len(before)),
        "finish_reason": _reason(choice.finish_reason),
        **endings(choice.native_finish_reason, choice.stop_sequence),
    }


def _reason(reason: FinishReason) -> str:
    return "stop" if reason in ("tool_calls", "function_call") else reason


def _echo(envelope: Envelope) -> str:
    """Return the prompt when the client wants it before the answer."""
    if envelope.request.get("echo") is not True:
        return ""
    prompt = envelope.request.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    return prompt if isinstance(prompt, str) else ""


class StreamEncoder:
    """Canonical events in, ``text_completion`` frames out.

    Finish frames are held until ``finish`` so that the last JSON frame can carry more.
    """

    __slots__ = (
        "_echo",
        "_envelope",
        "_finishes",
        "_head",
        "_offsets",
        "_tail",
        "_usage",
        "losses",
    )

    def __init__(self, envelope: Envelope) -> None:
        self.losses: list[Loss] = []
        self._envelope = envelope
        self._echo = _echo(envelope)
        self._offsets: dict[int, int] = {}  # characters told so far, by choice
        self._finishes: dict[int, Finish] = {}
        self._usage: Usage | None = None
        head = {
            "id": envelope.id,
            "object": "text_completion",
            "created": envelope.created,
            "model": envelope.model,
        }
        self._head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":'
        self._tail = b',"usage":null}\n\n' if envelope.include_usage else b"}\n\n"

    def encode(self, event: CanonicalEvent) -> bytes:
        """Return the frames of one event, possibly none."""
        match event:
            case TextDelta(text, choice, tokens):
                return self._frame(choice, text, tokens) if text or tokens else b""
            case RefusalDelta(text, choice):
                note(self.losses, [_REFUSAL])
                return self._frame(choice, text)
            case Finish():
                self._finishes[event.choice] = event
            case UsageEvent(usage):
                self._usage = usage
            case ReasoningDelta():
                note(self.losses, [_REASONING])
            case ToolCallStart():
                note(self.losses, [_CALLS])
            case AnnotationDelta():
                note(self.losses, [_CITATIONS])
            case AudioDelta() | OpaqueItem():
                note(self.losses, [_PARTS])
            case _:
                pass
        return b""

    def finish(self, extra: Mapping[str, Any] | None = None) -> bytes:
        """Return the finish frames, the usage frame when asked for, and ``[DONE]``.

        Raises:
            StreamCut: no ``Finish`` was encoded; an ending is never made up.
        """
        return b"".join(
            closing_frames(
                self._finishes,
                lambda choice, ending: self._frame(choice, "", (), ending),
                head=self._head,
                usage=self._usage,
                usage_asked=self._envelope.include_usage,
                extra=extra,
            )
        )

    def fail(self, error: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> bytes:
        """Return the error frame that ends a broken stream; no ``[DONE]`` follows it."""
        return error_frame(error, extra)

    def _frame(
        self, choice: int, text: str, tokens: tuple[Json, ...] = (), ending: Finish | None = None
    ) -> bytes:
        before = self._offsets.get(choice)
        if before is None:
            before = len(self._echo)
            text = self._echo + text
            self._offsets[choice] = len(text)
        else:
            self._offsets[choice] = before + len(text)
        item: dict[str, Any] = {
            "text": text,
            "index": choice,
            "logprobs": logprobs.encode(tokens, before) if tokens else None,
            "finish_reason": None if ending is None else _reason(ending.reason),
        }
        if ending is not None:
            item |= endings(ending.native, ending.stop_sequence)
        return self._head + orjson.dumps([item]) + self._tail
