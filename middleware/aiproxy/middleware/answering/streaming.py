"""One attempt's stream on its way to the client.

Nothing is sent before the first content-bearing event, the commit point: until then the attempt
may be given up and another one made unseen. After it a failure ends the stream with an error
inside it, unless somebody else may carry it on (``resuming``). An answer is whole only when a
finish reason or a terminal event was seen.
"""

from collections.abc import Generator
from typing import Any, Final

from aiproxy.middleware.answering import outcome, refusals
from aiproxy.middleware.answering.outcome import Fault, Rejection
from aiproxy.middleware.answering.relay import Relay
from aiproxy.middleware.answering.resuming import Recorder
from aiproxy.middleware.answering.serving import Serving, Steps
from aiproxy.middleware.auto.answer_check import FAILED
from aiproxy.middleware.auto.telling import Teller
from aiproxy.middleware.decision import Attempt
from aiproxy.middleware.dialects.canonical import StreamCut
from aiproxy.middleware.dialects.sse import SSETooLarge
from aiproxy.middleware.disclosure import metadata
from aiproxy.middleware.effects import (
    Answer,
    Effect,
    Failure,
    Outcome,
    Read,
    Send,
    Start,
)
from aiproxy.middleware.errors import ProxyError

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


def interruption(serving: Serving, fault: Fault) -> dict[str, Any]:
    """Note in the record that a stream stays incomplete; return the error that says so inside it."""
    decision = serving.decision
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
    found: dict[str, Any] = error.body()["error"]
    return found


class Streaming:
    """The state of one relayed stream. All times are seconds of the runtime's clock.

    ``over``: it failed, and its end has been told. ``spoke``: something of it was said to the
    client. ``written`` is set for a stream that may be carried on, ``resumed``, for the record, for
    one that carries another on.
    """

    __slots__ = (
        "_answer",
        "_attempt",
        "_ended",
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
        "over",
        "resumed",
        "spoke",
        "written",
    )

    def __init__(
        self,
        serving: Serving,
        attempt: Attempt,
        answer: Answer,
        relay: Relay,
        teller: Teller | None = None,
        written: Recorder | None = None,
        resumed: dict[str, Any] | None = None,
    ) -> None:
        self.over = self.spoke = False
        self.written = written
        self.resumed = resumed
        self._ended = False
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

    def begin(self, stream: object, *, quiet: bool) -> Steps:
        """Read until there is something that the client would show, or all was read.

        Raises:
            Rejection: the stream failed, fell silent or ended without being complete.
        """
        serving, relay = self._serving, self._relay
        while not self._ended:
            timeout, soft = (self._limit(), False) if quiet else self._patience()
            data = yield Read(stream, timeout, soft)
            if data.__class__ is not bytes:
                data = yield from self._received(data)
                if data is None:
                    continue
            assert isinstance(data, bytes)
            self._heard = serving.now()
            self.hold(self._feed(data))
            self._look(data)
            if relay.content_seen or self._held_bytes > _MOST_HELD_BYTES:
                self._first_token_ms = serving.elapsed_ms() - self._attempt.started_ms
                return
        if not relay.finished:
            raise Rejection(self._interrupted())

    def carry_on(self, stream: object) -> Steps:
        """Send what is held, and the rest of the stream as it comes.

        Raises:
            Rejection: it failed, fell silent or ended without being complete.
        """
        relay = self._relay
        if self._first_token_ms is not None:
            yield from self._commit()
        while not self._ended:
            timeout, soft = self._patience()
            data = yield Read(stream, timeout, soft)
            if data.__class__ is not bytes:
                data = yield from self._received(data)
                if data is None:
                    continue
            assert isinstance(data, bytes)
            self._heard = self._serving.now()
            chunk = self._feed(data)
            if relay.error is not None:
                self.hold(chunk)
                self._look(data)
            if relay.closed or not data:
                self._ended = True
            if chunk:
                yield Send(chunk)
                if self.written is not None:
                    self.written.sent()
        yield from self.complete(relay.usage, relay.output_bytes)
        if relay.closed:
            yield Read(stream, _LINGER_S)

    def _received(self, data: Outcome) -> Generator[Effect, Outcome, bytes | None]:
        """What a read gave that gave no bytes: ``None`` for time to give a sign of life.

        Raises:
            Rejection: the stream failed before its end was known.
        """
        if data is None:
            yield from self._keep_alive()
            return None
        assert isinstance(data, Failure)
        if not self._relay.finished:
            raise Rejection(outcome.of_stream_failure(data))
        self._ended = True
        return b""

    def _look(self, data: bytes) -> None:
        """Look at what the provider said with the last bytes.

        Raises:
            Rejection: that it failed.
        """
        relay = self._relay
        if relay.error is not None:
            words = self._attempt.model.provider.error_words
            raise Rejection(outcome.of_error_object(relay.error, words=words))
        if relay.closed or not data:
            self._ended = True

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
        decision = serving.decision
        serving.settle(attempt, relay.usage or usage, output_bytes)
        decision.losses += relay.losses
        decision.skipped_events = relay.skipped
        if self.resumed is not None:
            serving.sum_up()
        if not self.spoke:
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
        self._serving.failed(self._attempt, fault)
        self.settle()
        said = b"".join(self._held) if self.written is None else self.written.take()
        return said + self._relay.fail(interruption(self._serving, fault))

    def settle(self) -> None:
        """Usage and cost of what was said so far."""
        self._serving.settle(self._attempt, self._relay.usage, self._relay.output_bytes)

    def abandoned(self) -> None:
        """The client left."""
        if self._serving.committed and not self._serving.delivered:
            self.settle()

    def _patience(self) -> tuple[float, bool]:
        """How long the next read may take, and whether its end is only time for a keep-alive."""
        limit = self._limit()
        keepalive = self._keepalive
        if keepalive is not None and keepalive < limit:
            return keepalive, True
        return limit, False

    def _limit(self) -> float:
        speaks = self._first_token_ms is not None or self._relay.begun
        until = self._heard + self._idle if speaks else self._first_token_by
        return max(0.0, min(until, self._ends_by) - self._serving.now())

    def _feed(self, data: bytes) -> bytes:
        if self._ended:
            return b""
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
        if self._first_token_ms is None:
            self._first_token_ms = serving.elapsed_ms() - self._attempt.started_ms
        self.spoke = True
        if self.resumed is not None:
            serving.decision.resumed.append(self.resumed)
        if not serving.committed:
            yield from self._start()
        held = b"".join(self._held)
        self._held.clear()
        yield Send(held)
        if self.written is not None:
            self.written.sent()

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
