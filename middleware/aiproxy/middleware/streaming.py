"""One attempt's stream on its way to the client.

Nothing is sent before the first content-bearing event, the commit point: until then the attempt
may be given up and another one made unseen. After it a failure ends the stream with an error
inside it. An answer is whole only when a finish reason or a terminal event was seen.
"""

from collections.abc import Mapping
from logging import getLogger
from typing import Any, Final

from aiproxy.middleware import outcome, refusals
from aiproxy.middleware.auto.answer_check import FAILED
from aiproxy.middleware.auto.telling import Renamer, Teller
from aiproxy.middleware.decision import Attempt
from aiproxy.middleware.dialects.canonical import MalformedReply, StreamCut
from aiproxy.middleware.dialects.observe import reply_usage
from aiproxy.middleware.dialects.sse import SSETooLarge
from aiproxy.middleware.disclosure import metadata
from aiproxy.middleware.effects import Answer, Close, Failure, Read, Send, Start
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.members import too_deep
from aiproxy.middleware.outcome import Fault, Rejection
from aiproxy.middleware.passing import PassThrough
from aiproxy.middleware.prepare import Outgoing
from aiproxy.middleware.relay import Document, Relay, Translation
from aiproxy.middleware.serving import Serving, Steps

log = getLogger("aiproxy")

_STREAM_HEADERS: Final = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache, no-transform"),
    ("x-accel-buffering", "no"),
)
_KEEP_ALIVE: Final = b": keep-alive\n\n"
#: Google's own client knows no comments and fails at one; a blank line it skips.
_BLANK: Final = b"\n\n"
#: Lifecycle frames held before the commit point; an upstream that sends more is taken at its word.
_MOST_HELD_BYTES: Final = 256 * 1024
#: How long to wait for the end of a stream that already said it is done, to keep its connection.
_LINGER_S: Final = 0.02


def relay_stream(serving: Serving, attempt: Attempt, out: Outgoing, answer: Answer) -> Steps:
    """Relay an open stream to its end, good or bad, and close it.

    Raises:
        Rejection: it failed before the commit point.
    """
    teller = _teller(out) if out.translated else None
    relay = _relay(serving, attempt, out, teller)
    running = _Streaming(serving, attempt, answer, relay, teller)
    stream = answer.stream
    assert stream is not None
    try:
        yield from _guarded(serving, running, running.relay_all(stream))
    except Exception:
        yield Close(stream)
        raise
    yield Close(stream)


def _guarded(serving: Serving, running: "_Streaming", steps: Steps) -> Steps:
    """Take the steps of a stream; a failure after the commit point is told inside it.

    Raises:
        Rejection: it failed before the commit point.
    """
    try:
        yield from steps
    except Rejection as rejection:
        if not serving.committed:
            running.spent()
            raise
        yield Send(running.broken(rejection.fault))
    except GeneratorExit:
        running.abandoned()  # the driver is leaving: it closes what is open itself
        raise
    except Exception as found:
        told = _untellable(found)
        if not serving.committed:
            if told:
                raise Rejection(Fault("invalid_response", "other", 200)) from None
            raise
        if not told:
            log.exception("request %s failed inside its stream", serving.decision.id)
        yield Send(running.broken(Fault("invalid_response", "other", 200, counts=told)))


def _untellable(fault: Exception) -> bool:
    """Whether the provider's answer is what cannot be told, rather than a bug of ours."""
    return isinstance(fault, MalformedReply | StreamCut) or too_deep(fault)


def tell_document(
    serving: Serving,
    attempt: Attempt,
    out: Outgoing,
    answer: Answer,
    body: Mapping[str, Any],
) -> Steps:
    """Stream a whole reply: the provider ignored ``stream`` and answered with a document.

    Raises:
        Rejection: its dialect cannot be told as a stream.
    """
    intent = serving.intent
    try:
        relay = Document(
            out.dialect,
            intent.endpoint,
            body,
            serving.envelope(attempt.model),
            teller=_teller(out),
            kinds=out.kinds,
        )
    except Exception as found:
        if not (isinstance(found, KeyError) or _untellable(found)):
            raise
        raise Rejection(Fault("invalid_response", "other", answer.status)) from None
    running = _Streaming(serving, attempt, answer, relay)
    running.hold(relay.frames)
    steps = running.complete(reply_usage(out.dialect, body), len(answer.body))
    yield from _guarded(serving, running, steps)


def _teller(out: Outgoing) -> Teller | None:
    if out.renames or out.check is not None or out.kinds:
        return Teller(out.renames, out.check, out.kinds)
    return None


def _relay(serving: Serving, attempt: Attempt, out: Outgoing, teller: Teller | None) -> Relay:
    if out.translated:
        envelope = serving.envelope(attempt.model)
        return Translation(
            out.dialect, serving.intent.endpoint, envelope, teller=teller, kinds=out.kinds
        )
    rename = Renamer(out.renames, out.dialect) if out.renames else None
    return PassThrough(out.dialect, serving.public_model(attempt.model), rename=rename)


class _Streaming:
    """The state of one relayed stream. All times are seconds of the runtime's clock."""

    __slots__ = (
        "_answer",
        "_attempt",
        "_ends_by",
        "_first_token_by",
        "_first_token_ms",
        "_heard",
        "_held",
        "_held_bytes",
        "_idle",
        "_keepalive",
        "_relay",
        "_serving",
        "_teller",
    )

    def __init__(
        self,
        serving: Serving,
        attempt: Attempt,
        answer: Answer,
        relay: Relay,
        teller: Teller | None = None,
    ) -> None:
        self._serving = serving
        self._attempt = attempt
        self._answer = answer
        self._relay = relay
        self._teller = teller
        limits = attempt.model.provider.limits
        now = serving.now()
        started = serving.decision.started + attempt.started_ms / 1000
        self._first_token_by = min(started + limits.first_token, serving.deadline)
        self._ends_by = min(started + limits.total, serving.deadline)
        self._idle = limits.idle
        self._keepalive = serving.gateway.settings.keepalive_s
        self._heard = now
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._first_token_ms: float | None = None

    def hold(self, chunk: bytes) -> None:
        self._held.append(chunk)
        self._held_bytes += len(chunk)

    def relay_all(self, stream: object) -> Steps:
        """Read until the provider is done, sending what the client may have.

        Raises:
            Rejection: the stream failed, fell silent or ended without being complete.
        """
        serving, relay = self._serving, self._relay
        while True:
            timeout, soft = self._patience()
            data = yield Read(stream, timeout, soft)
            if data is None:
                yield from self._keep_alive()
                continue
            self._heard = serving.now()
            if isinstance(data, Failure):
                if relay.finished:
                    break
                raise Rejection(outcome.of_stream_failure(data))
            assert isinstance(data, bytes)
            chunk = self._feed(data)
            if relay.error is not None:
                self.hold(chunk)
                words = self._attempt.model.provider.error_words
                raise Rejection(outcome.of_error_object(relay.error, words=words))
            if self._first_token_ms is None:
                self.hold(chunk)
                if relay.content_seen or self._held_bytes > _MOST_HELD_BYTES:
                    yield from self._commit()
            elif chunk:
                yield Send(chunk)
            if relay.closed or not data:
                break
        yield from self.complete(relay.usage, relay.output_bytes)
        if relay.closed:
            yield Read(stream, _LINGER_S)

    def complete(self, usage: Any, output_bytes: int) -> Steps:
        """End a whole answer: what is held, the last frames and what they say of the decision.

        Raises:
            Rejection: it is not whole.
        """
        serving, attempt, relay = self._serving, self._attempt, self._relay
        if not relay.finished:
            raise Rejection(self._interrupted())
        try:
            tail = relay.drain()
        except StreamCut:
            raise Rejection(self._interrupted()) from None
        if self._teller is not None:
            self._teller.hold()
        serving.settle(attempt, relay.usage or usage, output_bytes)
        serving.decision.losses += relay.losses
        serving.decision.skipped_events = relay.skipped
        if self._first_token_ms is None:
            yield from self._commit()
        serving.succeeded(attempt, first_byte_ms=self._first_token_ms)
        extra = metadata(serving.decision, serving.gateway.settings)
        try:
            end = tail + relay.finish({"x-aiproxy": extra} if extra is not None else {})
        except StreamCut:
            raise Rejection(self._interrupted()) from None
        yield Send(end)
        serving.delivered = True

    def spent(self) -> None:
        """Put what a stream that is given up has reported on its attempt (AIP-FAIL-010)."""
        usage, attempt = self._relay.usage, self._attempt
        if usage is not None and attempt.usage is None:
            price = attempt.model.price
            attempt.usage, attempt.cost = usage, None if price is None else price.cost(usage)

    def broken(self, fault: Fault) -> bytes:
        """Note that a stream broke after the commit point; return what is held and the frames that
        say so."""
        serving = self._serving
        decision = serving.decision
        serving.failed(self._attempt, fault)
        serving.settle(self._attempt, self._relay.usage, self._relay.output_bytes)
        if fault.code == FAILED:
            error = refusals.misshapen()
        else:
            error = ProxyError(
                "stream_interrupted",
                "The provider's stream broke off before the answer was complete; "
                f"what was sent stands, the rest is missing ({decision.id}).",
            )
        decision.outcome = "failed"
        decision.error = {"status": error.status, "code": error.code, "param": None}
        inner: dict[str, Any] = error.body()["error"]
        return b"".join(self._held) + self._relay.fail(inner)

    def abandoned(self) -> None:
        """The client left."""
        if self._serving.committed and not self._serving.delivered:
            self._serving.settle(self._attempt, self._relay.usage, self._relay.output_bytes)

    def _patience(self) -> tuple[float, bool]:
        """How long the next read may take, and whether its end is only time for a keep-alive."""
        now = self._serving.now()
        until = self._first_token_by if self._first_token_ms is None else self._heard + self._idle
        limit = max(0.0, min(until, self._ends_by) - now)
        keepalive = self._keepalive
        if keepalive is not None and keepalive < limit:
            return keepalive, True
        return limit, False

    def _feed(self, data: bytes) -> bytes:
        try:
            return self._relay.feed(data) if data else self._relay.end()
        except SSETooLarge:
            raise Rejection(Fault("invalid_response", "other", self._answer.status)) from None

    def _keep_alive(self) -> Steps:
        """A sign of life. The first one commits: the client has the head from then on."""
        if not self._serving.committed:
            yield from self._start()
        yield Send(_BLANK if self._serving.intent.endpoint == "gemini" else _KEEP_ALIVE)

    def _commit(self) -> Steps:
        """The first content-bearing event: from here on the client knows who answers."""
        serving = self._serving
        self._first_token_ms = serving.elapsed_ms() - self._attempt.started_ms
        if not serving.committed:
            yield from self._start()
        held = b"".join(self._held)
        self._held.clear()
        yield Send(held)

    def _start(self) -> Steps:
        serving, attempt = self._serving, self._attempt
        decision = serving.decision
        serving.committed = True
        decision.served = attempt
        decision.status = 200
        attempt.latency_ms = serving.elapsed_ms() - attempt.started_ms
        decision.latency_ms = serving.elapsed_ms()
        yield Start(200, serving.reply_headers(attempt.model, self._answer, *_STREAM_HEADERS))

    def _interrupted(self) -> Fault:
        return Fault("stream_interrupted", "other", self._answer.status)
