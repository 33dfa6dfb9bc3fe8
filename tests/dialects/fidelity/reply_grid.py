"""Every answer of the table, given by each provider and told to the clients of each dialect."""

from collections.abc import Iterable
from functools import cache
from typing import Any, Final

import orjson
from fidelity.answers import ANSWERS, Answer
from fidelity.client_readers import WHOLE, WHOLE_OF
from fidelity.facts import Fact, Json
from fidelity.provider_writers import PROVIDERS, Stream
from fidelity.request_grid import Cell

from aiproxy.middleware.dialects import observe
from aiproxy.middleware.dialects.canonical import Envelope, Loss
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.dialects.sse import SSEParser

BY_NAME: Final = {answer.name: answer for answer in ANSWERS}
Frames = list[tuple[str | None, Any]]


def envelope() -> Envelope:
    return Envelope(id="resp_0123abcd", created=1_790_000_000, model="auto", include_usage=True)


def wire_of(stream: Stream) -> bytes:
    """The stream as a provider sends it."""
    found = b""
    for event, payload in stream:
        found += b"" if event is None else b"event: " + event.encode() + b"\n"
        found += b"data: " + orjson.dumps(payload) + b"\n\n"
    return found


def parsed(wire: bytes) -> Frames:
    parser = SSEParser()
    events = [*parser.feed(wire), *parser.finish()]
    assert parser.leftover == b""
    return [(e.event, orjson.loads(e.data)) for e in events if e.data is not None and not e.is_done]


def whole(provider: str, ingress: str, body: Json) -> tuple[Json, tuple[Loss, ...]]:
    """A whole answer, from the provider's language to the client's."""
    assert check_reply(provider, body) is None
    losses: list[Loss] = []
    reply = codec(provider).decode_reply(body)
    told = codec(ingress).encode_reply(reply, envelope(), losses)
    return orjson.loads(orjson.dumps(told)), tuple(losses)


def check_reply(provider: str, body: Json) -> str | None:
    """Why a body is no answer, in the dialect's own judgement."""
    own = getattr(codec(provider), "check_reply", None)
    found: str | None = observe.check_reply(provider, body) if own is None else own(body)
    return found


def events_of(provider: str, frames: Iterable[tuple[str | None, Any]]) -> list[Any]:
    decoder = codec(provider).StreamDecoder()
    events = [e for event, payload in frames for e in decoder.feed(payload, event)]
    assert decoder.complete
    return events + decoder.finish()


def streamed(provider: str, ingress: str, wire: bytes) -> tuple[Json, tuple[Loss, ...]]:
    """A streamed answer, put together as the client's SDK does."""
    encoder = codec(ingress).StreamEncoder(envelope())
    if hasattr(encoder, "source"):  # as the relay does
        encoder.source = provider
    if hasattr(encoder, "source"):
        encoder.source = provider
    out = b"".join(encoder.encode(event) for event in events_of(provider, parsed(wire)))
    out += encoder.finish()
    return WHOLE_OF[ingress](parsed(out)), tuple(encoder.losses)


@cache
def told(
    provider: str, ingress: str, name: str, stream: bool
) -> tuple[tuple[Fact, ...], tuple[Loss, ...]] | None:
    """What the client reads and what is declared; ``None`` where the provider cannot say it."""
    answer = BY_NAME[name]
    source = PROVIDERS[provider]
    if not source.says(answer, stream):
        return None
    if stream:
        body, losses = streamed(provider, ingress, wire_of(source.stream(answer)))
    else:
        body, losses = whole(provider, ingress, source.whole(answer))
    return tuple(WHOLE[ingress](body)), losses


@cache
def cell(provider: str, ingress: str, name: str, stream: bool) -> Cell:
    found = told(provider, ingress, name, stream)
    if found is None:
        return Cell("unsaid")
    facts, losses = found
    answer = BY_NAME[name]
    lost = _missing(answer, facts)
    names = tuple(sorted({loss.feature for loss in losses}))
    if not lost:
        return Cell("lossy" if names else "kept", names)
    known = any(word in loss for loss in names for word in answer.names)
    return Cell("lossy" if known else "silent", names, lost)


def _missing(answer: Answer, facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
    """Wanted facts that were not told; calls have to come in their order."""
    wanted = list(answer.facts())
    calls = [fact for fact in wanted if fact[0] == "call"]
    lost = [fact for fact in wanted if fact not in facts]
    if not lost and calls != [fact for fact in facts if fact[0] == "call"]:
        lost = calls
    return tuple(lost)
