"""The draft's dialect: ``POST /v1/responses`` with ``messages`` (draft-00, all figures).

Requests look like Chat Completions with a few Responses members. Answers are the union of both
worlds: a valid Response object that also has ``created``, ``choices`` and both usage spellings;
stream frames are typed Responses events that are at once ``response.chunk`` objects. Untyped
chunks are never mixed in, because SDKs cannot read those.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from aiproxy.middleware.dialects import chat, responses
from aiproxy.middleware.dialects.canonical import (
    CanonicalEvent,
    CanonicalReply,
    CanonicalRequest,
    Choice,
    Envelope,
    FinishReason,
    Loss,
    MalformedReply,
    MalformedRequest,
    Usage,
)
from aiproxy.middleware.dialects.losses import members, note
from aiproxy.middleware.dialects.responses.losses import STOP
from aiproxy.middleware.dialects.usage import chat_usage, union_usage

DIALECT: Final = "draft"


# --- request -------------------------------------------------------------------------------------


def decode_request(body: Mapping[str, Any]) -> CanonicalRequest:
    """Return the canonical request of a ``messages`` body on ``/v1/responses``.

    Tools may be nested as in chat or flat as in Responses; ``max_output_tokens`` and ``text`` are
    accepted for ``max_completion_tokens`` and ``response_format``.

    Raises:
        MalformedRequest: a member has a type this dialect cannot mean, or one thing is said
            twice in two spellings.
    """
    mapped = dict(body)
    for one, other in (
        ("messages", "input"),
        ("response_format", "text"),
        ("max_completion_tokens", "max_output_tokens"),
    ):
        if mapped.get(one) is not None and mapped.get(other) is not None:
            raise MalformedRequest(one, f"{one} and {other}", "one of the two")
    text = mapped.pop("text", None)
    limit = mapped.pop("max_output_tokens", None)
    if limit is not None:
        mapped["max_completion_tokens"] = limit
    instructions = mapped.pop("instructions", None)
    reasoning = mapped.pop("reasoning", None)
    tools = mapped.pop("tools", None)
    choice = mapped.get("tool_choice")
    if isinstance(choice, Mapping) and isinstance(choice.get(str(choice.get("type"))), Mapping):
        choice = None  # nested as in chat, which reads it
    else:
        mapped.pop("tool_choice", None)
    request = chat.decode_request(mapped)
    auto = set(request.auto)
    if tools == "auto":
        auto.add("tools")
    if reasoning == "auto":
        auto.add("reasoning")
    # The members of both dialects that read differently are read by the Responses dialect.
    twin = responses.decode_request(
        {
            "model": request.model,
            "input": "",
            "text": text,
            "reasoning": reasoning,
            "tools": tools,
            "tool_choice": choice,
            "instructions": instructions,
        }
    )
    return replace(
        request,
        source=DIALECT,
        instructions=twin.instructions,
        tools=(*twin.tools, *request.tools),
        tool_choice=twin.tool_choice or request.tool_choice,
        response_format=request.response_format or twin.response_format,
        reasoning_effort=request.reasoning_effort or twin.reasoning_effort,
        reasoning_summary=twin.reasoning_summary,
        verbosity=request.verbosity or twin.verbosity,
        include_usage=request.include_usage or request.stream,
        auto=frozenset(auto),
    )


# --- reply ---------------------------------------------------------------------------------------


def target(model: str, stream: bool) -> str:
    """Return the path below a provider's base URL."""
    return "/responses"


def encode_error(status: int, error: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a refusal; ``error`` has message, type, param and code."""
    return {"error": dict(error)}


def check_reply(body: Mapping[str, Any]) -> str | None:
    """Return why a 200 body is no answer, in our words; ``None`` when either half is one."""
    if isinstance(body.get("output"), list):
        return responses.check_reply(body)
    return chat.check_reply(body)


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply, in either spelling."""
    return chat.read_usage(body)


def encode_reply(
    reply: CanonicalReply, envelope: Envelope, losses: list[Loss] | None = None
) -> dict[str, Any]:
    """Return the union object. All choices are mirrored; ``output`` tells the first one.

    ``losses``, when given, receives what neither half of the object can show.
    """
    if losses is not None:
        note(losses, reply_losses(reply))
    body = responses.encode_reply(reply, envelope)
    body["created"] = envelope.created
    body["choices"] = chat.encode_choices(reply, envelope)
    if reply.usage is not None:
        body["usage"] = union_usage(reply.usage)
    return body


def reply_losses(reply: CanonicalReply) -> Iterator[Loss]:
    """Yield what the union object of ``reply`` leaves out of both its halves."""
    ordered = sorted(reply.choices, key=lambda choice: choice.index)
    for place, choice in enumerate(ordered):
        for part in choice.parts:
            shown_in_output = place == 0
            elsewhere = {loss.feature for loss in responses.part_losses(part)}
            for loss in chat.part_losses(part, reply.source):
                if not shown_in_output or loss.feature in elsewhere:
                    yield loss
        if choice.stop_sequence is not None and reply.source != chat.DIALECT:
            yield STOP
    yield from members(reply.extra, "", "a union object has no such member")


def decode_reply(body: Mapping[str, Any]) -> CanonicalReply:
    """Return the reply of a union object; one with ``choices`` only is understood as well.

    Raises:
        MalformedReply: neither ``output`` nor ``choices`` can be read.
    """
    if isinstance(body.get("output"), list):
        return replace(responses.decode_reply(body), source=DIALECT)
    if isinstance(body.get("choices"), list):
        return replace(chat.decode_reply(body), source=DIALECT, extra={})
    raise MalformedReply("neither output nor choices")


# --- stream --------------------------------------------------------------------------------------


class StreamEncoder(responses.StreamEncoder):
    """Canonical events in, union frames out."""

    def __init__(self, envelope: Envelope, source: str | None = None) -> None:
        super().__init__(envelope, source)
        self._mirrored = {
            "id": envelope.id,
            "object": "response.chunk",
            "created": envelope.created,
            "model": envelope.model,
        }

    def _mirror(
        self,
        payload: dict[str, Any],
        delta: dict[str, Any] | None,
        finish: FinishReason | None,
    ) -> None:
        for name, value in self._mirrored.items():
            payload.setdefault(name, value)
        choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
        payload["choices"] = [choice]
        if finish is not None and self._usage is not None:
            payload["usage"] = chat_usage(self._usage)

    def _told(self, response: dict[str, Any], reason: FinishReason | None) -> dict[str, Any]:
        """Make the response inside a lifecycle event a union object too."""
        response["created"] = self._envelope.created
        response["choices"] = []
        if reason is None:
            return response
        if self._usage is not None:
            response["usage"] = union_usage(self._usage)
        parts = responses.decode_reply(response).choices[0].parts
        choice = Choice(parts, reason)
        reply = CanonicalReply((choice,), responses.DIALECT)
        response["choices"] = chat.encode_choices(reply, self._envelope)
        return response


class StreamDecoder(responses.StreamDecoder):
    """Union frames in, canonical events out; plain ``response.chunk`` frames are understood."""

    __slots__ = ("_chunks",)

    def __init__(self) -> None:
        super().__init__()
        self._chunks: chat.StreamDecoder | None = None

    @property
    def complete(self) -> bool:
        """True once the terminal event, or every finish reason, was seen."""
        return super().complete if self._chunks is None else self._chunks.complete

    def feed(self, payload: Mapping[str, Any], event: str | None = None) -> list[CanonicalEvent]:
        """Return the events of one frame. Nothing follows a ``StreamError``."""
        if self._chunks is None and "type" not in payload and event is None:
            if not isinstance(payload.get("choices"), list):
                return super().feed(payload, event)
            self._chunks = chat.StreamDecoder()
        if self._chunks is not None:
            return self._chunks.feed(payload, event)
        return super().feed(payload, event)

    def finish(self) -> list[CanonicalEvent]:
        """Return the closing events, or raise ``StreamCut``."""
        return super().finish() if self._chunks is None else self._chunks.finish()


__all__ = [
    "DIALECT",
    "StreamDecoder",
    "StreamEncoder",
    "check_reply",
    "decode_reply",
    "decode_request",
    "encode_error",
    "encode_reply",
    "read_usage",
    "reply_losses",
    "target",
]
