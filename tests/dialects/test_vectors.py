"""Golden vectors: each file of ``vectors/`` is one exchange, with a line on where it is from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from aiproxy.middleware.dialects import (
    Envelope,
    Finish,
    MalformedReply,
    StreamCut,
    StreamError,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Untranslatable,
    UsageEvent,
    chat,
    draft,
    responses,
)
from aiproxy.middleware.dialects.observe import check_reply, observer
from aiproxy.middleware.dialects.sse import SSEParser

MODULES: dict[str, Any] = {"chat": chat, "responses": responses, "draft": draft}
FILES = sorted((Path(__file__).parent / "vectors").glob("*.json"))
VECTORS = [(path.stem, json.loads(path.read_text("utf-8"))) for path in FILES]
Kit = dict[str, Callable[..., Any]]


def of(kind: str) -> pytest.MarkDecorator:
    chosen = [pytest.param(vector, id=name) for name, vector in VECTORS if vector["kind"] == kind]
    assert chosen
    return pytest.mark.parametrize("vector", chosen)


def encoder(target: str) -> Any:
    return chat if target == "chat" else responses


def test_every_vector_says_where_it_is_from() -> None:
    assert [name for name, vector in VECTORS if not vector["provenance"].endswith(".")
            and not vector["provenance"].endswith("values.")] == []  # fmt: skip
    assert {vector["kind"] for _, vector in VECTORS} == {
        "request", "untranslatable", "reply", "malformed", "stream"
    }  # fmt: skip


@of("request")
def test_requests(vector: dict[str, Any]) -> None:
    request = MODULES[vector["source"]].decode_request(vector["body"])
    body, losses = encoder(vector["target"]).encode_request(request, "m")
    assert body == vector["expected"]
    assert sorted({loss.feature for loss in losses}) == vector["losses"]
    assert orjson.dumps(body)


@of("untranslatable")
def test_requests_that_lose_their_meaning_are_refused(vector: dict[str, Any]) -> None:
    request = MODULES[vector["source"]].decode_request(vector["body"])
    with pytest.raises(Untranslatable) as refused:
        encoder(vector["target"]).encode_request(request, "m")
    assert refused.value.feature == vector["feature"]


@of("reply")
def test_replies(vector: dict[str, Any]) -> None:
    reply = MODULES[vector["source"]].decode_reply(vector["body"])
    given = Envelope(id="resp_0123", created=1_790_000_000, model="auto")
    body = MODULES[vector["target"]].encode_reply(reply, given)
    assert {name: body[name] for name in vector["expected"]} == vector["expected"]
    assert body["model"] == "auto"
    assert check_reply(vector["source"], vector["body"]) is None


@of("malformed")
def test_broken_replies_are_told_apart(vector: dict[str, Any]) -> None:
    with pytest.raises(MalformedReply):
        MODULES[vector["source"]].decode_reply(vector["body"])


@of("stream")
@pytest.mark.parametrize("step", [1, 3, 64, 100_000])
def test_streams_from_the_field(vector: dict[str, Any], step: int) -> None:
    wire = vector["wire"].encode()
    parser = SSEParser()
    parsed = [e for i in range(0, len(wire), step) for e in parser.feed(wire[i : i + step])]
    parsed += parser.finish()
    decoder, watch = MODULES[vector["dialect"]].StreamDecoder(), observer(vector["dialect"])
    events = []
    for event in parsed:
        if event.data is None or event.is_done:
            continue
        payload = orjson.loads(event.data)
        events += decoder.feed(payload, event.event)
        watch.feed(payload, event.event)
    if vector["outcome"] == "cut":
        with pytest.raises(StreamCut):
            decoder.finish()
    else:
        events += decoder.finish()
    text = "".join(e.text for e in events if isinstance(e, TextDelta))
    starts = [e for e in events if isinstance(e, ToolCallStart)]
    told = [
        [s.id, s.name, "".join(e.arguments for e in events
                               if isinstance(e, ToolCallDelta) and e.index == s.index)]
        for s in starts
    ]  # fmt: skip
    reasons = [e.reason for e in events if isinstance(e, Finish)]
    totals = [e.usage.total for e in events if isinstance(e, UsageEvent)]
    assert (text, told) == (vector["text"], vector["calls"])
    assert [s.index for s in starts] == list(range(len(starts)))
    assert reasons == [vector["finish_reason"]] * (vector["outcome"] == "complete")
    assert totals == ([] if vector["total_tokens"] is None else [vector["total_tokens"]])
    # A copy that only watches comes to the same judgement.
    failed = any(isinstance(e, StreamError) for e in events)
    assert failed == (vector["outcome"] == "error") == (watch.error is not None)
    assert watch.finished == (vector["outcome"] == "complete")
    assert watch.content_seen == bool(text or told)
    seen = None if watch.usage is None else watch.usage.total
    assert seen == vector["total_tokens"]
