"""A stream that broke off is carried on by somebody else, without repeating or contradicting a byte.

``routing.failover.mid_stream: resume``. What the client has is known exactly, because its stream is
written by one encoder from the first event to the last: ``Recorder`` stands before that encoder and
keeps the text. The next model is asked to go on where the text ends, when it is known to accept a
partial assistant turn (*continuation*); otherwise it is asked the same request again, and its answer
is held until it has said the delivered text exactly (*restart*). Then only what is new is sent. An
answer that says something else ends the stream with an error.

Text goes on; an answer with a tool call, a refusal, sound or a shape it must have does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from aiproxy.middleware.answering.outcome import Fault, Rejection
from aiproxy.middleware.answering.prepare import Outgoing
from aiproxy.middleware.answering.relay import Translation
from aiproxy.middleware.answering.serving import Serving
from aiproxy.middleware.auto.telling import Teller
from aiproxy.middleware.decision import Attempt
from aiproxy.middleware.dialects import canonical
from aiproxy.middleware.dialects.canonical import CanonicalRequest, Text, ToolKind, Turn, Usage
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.dialects.usage import added
from aiproxy.middleware.registry import Model

How = Literal["continuation", "restart"]

#: A longer text is not carried on: to say it all again would take longer than anybody waits.
MOST_CHARS: Final = 256 * 1024
#: What an answer may have that the next one cannot be held to.
_SHAPED: Final = frozenset({"json_schema", "json_mode", "logprobs", "audio", "n_gt_1"})
#: Endpoints whose streams have a canonical form.
_ENDPOINTS: Final = frozenset({"chat", "draft", "responses", "anthropic", "gemini"})
_DIVERGED: Final = Fault("diverged", "never", 200, counts=False)


def wanted(serving: Serving, out: Outgoing) -> bool:
    """Whether this stream may be carried on when it breaks."""
    intent = serving.intent
    return (
        serving.gateway.settings.failover.mid_stream == "resume"
        and intent.failover not in ("none", "manual")
        and intent.endpoint in _ENDPOINTS
        and intent.copies == 1
        and out.check is None
        and _SHAPED.isdisjoint(intent.features)
    )


class Recorder:
    """The client's encoder, and what was said through it. ``resumable``: it is text alone.

    ``unsent`` are the frames that the client has not got yet; ``sent`` says that it has.
    """

    __slots__ = ("_encoder", "_size", "_texts", "resumable", "thought", "unsent")

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._texts: list[str] = []
        self._size = 0
        self.resumable = True
        self.thought = False
        self.unsent: list[bytes] = []

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def losses(self) -> Sequence[canonical.Loss]:
        found: Sequence[canonical.Loss] = self._encoder.losses
        return found

    def encode(self, event: canonical.CanonicalEvent) -> bytes:
        if isinstance(event, canonical.TextDelta):
            self._texts.append(event.text)
            self._size += len(event.text)
            if event.choice or self._size > MOST_CHARS:
                self.resumable = False
        elif isinstance(event, canonical.ReasoningDelta):
            self.thought = True
        elif isinstance(event, _STOPS):
            self.resumable = False
        frames: bytes = self._encoder.encode(event)
        if frames:
            self.unsent.append(frames)
        return frames

    def sent(self) -> None:
        self.unsent.clear()

    def take(self) -> bytes:
        """The frames that the client has not got yet, which it gets now."""
        frames = b"".join(self.unsent)
        self.unsent.clear()
        return frames

    def finish(self, extra: Mapping[str, Any]) -> bytes:
        return bytes(self._encoder.finish(extra))

    def fail(self, error: Mapping[str, Any]) -> bytes:
        return bytes(self._encoder.fail(error))


_STOPS: Final = (
    canonical.RefusalDelta,
    canonical.AudioDelta,
    canonical.ToolCallStart,
    canonical.OpaqueItem,
)


def recorder(serving: Serving, out: Outgoing, model: Model) -> Recorder:
    """The encoder of a stream that may be carried on."""
    encoder = codec(serving.intent.endpoint).StreamEncoder(serving.envelope(model))
    if hasattr(encoder, "source"):
        encoder.source = out.dialect
    return Recorder(encoder)


class Interrupted(Rejection):
    """An attempt that broke off after the client had some of its answer, which may be carried on."""

    def __init__(self, fault: Fault, recorder: Recorder) -> None:
        super().__init__(fault)
        self.recorder = recorder


@dataclass(slots=True)
class Delivered:
    """What a client has of an answer that broke off: by ``attempt``, with ``fault``. ``usage`` is
    that of all attempts that spoke so far, ``at_chars`` the length of their text."""

    recorder: Recorder
    attempt: Attempt
    fault: Fault
    usage: Usage
    at_chars: int

    def row(self, to: str, how: How) -> dict[str, Any]:
        """What the record says when ``to`` carries on."""
        source = self.attempt.model.provider.id
        return {"from": source, "to": to, "how": how, "at_chars": self.at_chars}

    def how(self, model: Model) -> How:
        """In which way a model is asked to carry on."""
        return (
            "continuation"
            if model.continues is not None and self.recorder.text.strip()
            else "restart"
        )

    def request(self, request: CanonicalRequest, how: How) -> CanonicalRequest:
        """The request that the next one is asked."""
        if how == "restart":
            return request
        said = Turn("assistant", (Text(self.recorder.text.rstrip()),), form="string")
        return replace(request, turns=(*request.turns, said))

    def expected(self, how: How) -> str:
        """What the next answer has to begin with. A partial turn cannot end in white space: that
        part has to be said again."""
        text = self.recorder.text
        return text if how == "restart" else text[len(text.rstrip()) :]


def marked(body: dict[str, Any], model: Model) -> dict[str, Any]:
    """The body of a continuation with the marks that the provider's kind wants there."""
    marks = model.continues
    if marks is None or not (marks.message or marks.body):
        return body
    turns = body.get("messages")
    if isinstance(turns, list) and turns and isinstance(turns[-1], dict):
        body = {**body, "messages": [*turns[:-1], {**turns[-1], **marks.message}]}
    return {**body, **marks.body}


class Resumption(Translation):
    """The stream of an answer that carries another one on, told through the same encoder.

    ``expected`` is what it has to say before anything of it is new.
    """

    def __init__(
        self,
        upstream: str,
        client: str,
        delivered: Delivered,
        expected: str,
        *,
        teller: Teller | None,
        kinds: Mapping[str, ToolKind],
    ) -> None:
        super().__init__(
            upstream, client, None, teller=teller, kinds=kinds, encoder=delivered.recorder
        )
        self._rest = expected
        self._silent = not delivered.recorder.text and not delivered.recorder.thought
        self._before = delivered.usage

    def _encode(self, events: list[canonical.CanonicalEvent]) -> bytes:
        told: list[canonical.CanonicalEvent] = []
        for event in events:
            told += self._told(event)
        return super()._encode(told)

    def _told(self, event: canonical.CanonicalEvent) -> tuple[canonical.CanonicalEvent, ...]:
        if isinstance(event, canonical.StreamError | canonical.UsageEvent):
            return (event,)
        if isinstance(event, canonical.StreamStart):
            return ()
        if isinstance(event, canonical.ReasoningDelta):
            self.begun = True
            return (event,) if self._silent else ()
        if isinstance(event, canonical.TextDelta):
            self.begun = True
            return self._new(event)
        if not self._rest:
            return (event,)
        if isinstance(event, (canonical.Finish, *_STOPS)):
            raise Rejection(_DIVERGED)
        return ()

    def _new(self, event: canonical.TextDelta) -> tuple[canonical.CanonicalEvent, ...]:
        rest, text = self._rest, event.text
        if not rest:
            return (event,)
        if event.choice or not (rest.startswith(text) or text.startswith(rest)):
            raise Rejection(_DIVERGED)
        self._rest = rest[len(text) :]
        new = text[len(rest) :]
        return (replace(event, text=new, logprobs=(), signature=None),) if new else ()

    def _shown(self, event: canonical.UsageEvent) -> canonical.UsageEvent:
        return canonical.UsageEvent(added(self._before, event.usage))
