"""One attempt's stream: opened, relayed and closed, and what becomes of it when it fails.

Before the commit point (see ``streaming``) a failure is the chain's affair; after it the stream ends
with an error inside it, or somebody else carries it on (``resuming``).
"""

from collections.abc import Generator, Mapping
from logging import getLogger
from typing import Any

from aiproxy.middleware.answering import resuming
from aiproxy.middleware.answering.outcome import Fault, Rejection
from aiproxy.middleware.answering.passing import PassThrough
from aiproxy.middleware.answering.prepare import Outgoing
from aiproxy.middleware.answering.relay import Document, Relay, Translation
from aiproxy.middleware.answering.resuming import Delivered, Interrupted, Recorder, Resumption
from aiproxy.middleware.answering.serving import Serving, Steps
from aiproxy.middleware.answering.streaming import Streaming
from aiproxy.middleware.auto.telling import Renamer, Teller
from aiproxy.middleware.decision import Attempt
from aiproxy.middleware.dialects.canonical import MalformedReply, StreamCut
from aiproxy.middleware.dialects.observe import reply_usage
from aiproxy.middleware.effects import Answer, Close, Effect, Outcome, Send
from aiproxy.middleware.intake.members import too_deep

log = getLogger("aiproxy")


def open_stream(
    serving: Serving,
    attempt: Attempt,
    out: Outgoing,
    answer: Answer,
    *,
    quiet: bool = False,
    delivered: Delivered | None = None,
) -> Generator[Effect, Outcome, Streaming]:
    """Read an open stream up to its first content; nothing of it has reached the client then.

    ``quiet``: nor may a sign of life. ``delivered``: the client has the beginning of an answer that
    this one carries on.

    Raises:
        Rejection: it failed before that; it is closed.
    """
    teller = _teller(out)
    written: Recorder | None = None
    relay: Relay
    row: dict[str, Any] | None = None
    if delivered is not None:
        how = delivered.how(attempt.model)
        row = delivered.row(attempt.model.provider.id, how)
        written = delivered.recorder
        relay = Resumption(
            out.dialect,
            serving.intent.endpoint,
            delivered,
            delivered.expected(how),
            teller=teller,
            kinds=out.kinds,
        )
    elif resuming.wanted(serving, out):
        written = resuming.recorder(serving, out, attempt.model)
        relay = Translation(
            out.dialect,
            serving.intent.endpoint,
            None,
            teller=teller,
            kinds=out.kinds,
            encoder=written,
        )
    else:
        teller = teller if out.translated else None
        relay = _relay(serving, attempt, out, teller)
    running = Streaming(serving, attempt, answer, relay, teller, written, row)
    stream = answer.stream
    assert stream is not None
    try:
        yield from _guarded(serving, running, running.begin(stream, quiet=quiet))
    except Exception:
        yield Close(stream)
        raise
    return running


def relay_stream(serving: Serving, running: Streaming, stream: object) -> Steps:
    """Relay the rest of a stream to its end, good or bad, and close it.

    Raises:
        Rejection: it failed and nothing of it has reached the client.
        Interrupted: it broke off, and somebody else may carry it on.
    """
    try:
        if not running.over:
            yield from _guarded(serving, running, running.carry_on(stream))
    except Exception:
        yield Close(stream)
        raise
    yield Close(stream)


def _guarded(serving: Serving, running: Streaming, steps: Steps) -> Steps:
    """Take the steps of a stream; a failure after the commit point is told inside it.

    Raises:
        Rejection: it failed before the commit point.
        Interrupted: after it, and somebody else may carry it on.
    """
    try:
        yield from steps
    except Rejection as rejection:
        yield from _failed(serving, running, rejection)
    except GeneratorExit:
        running.abandoned()  # the driver is leaving: it closes what is open itself
        raise
    except Exception as found:
        told = _untellable(found)
        if not told:
            if not serving.committed:
                raise
            log.exception("request %s failed inside its stream", serving.decision.id)
        fault = Fault("invalid_response", "other" if told else "never", 200, counts=told)
        yield from _failed(serving, running, Rejection(fault))


def _failed(serving: Serving, running: Streaming, rejection: Rejection) -> Steps:
    fault, written = rejection.fault, running.written
    fresh = written is None or not written.unsent
    if not serving.committed or (running.resumed is not None and not running.spoke and fresh):
        running.spent()
        raise rejection
    if written is not None and written.resumable and fault.retry != "never":
        frames = written.take()
        if frames:
            yield Send(frames)
        running.settle()
        raise Interrupted(fault, written)
    yield Send(running.broken(fault))
    running.over = True


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
    running = Streaming(serving, attempt, answer, relay)
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
