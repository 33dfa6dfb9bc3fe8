"""Every decoder of every dialect against hostile input: documented failures and no others.

Requests: ``MalformedRequest``; replies: ``MalformedReply``; streams: ``StreamCut`` or an error
event. What was read can be written again in every dialect, or is ``Untranslatable``. The default
run tries some hundred inputs each; ``-m exhaustive`` thousands.
"""

import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiproxy.middleware.dialects.canonical import (
    Finish,
    MalformedReply,
    MalformedRequest,
    StreamCut,
    StreamError,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Untranslatable,
    UsageEvent,
)
from aiproxy.middleware.dialects.codecs import SPOKEN_FOR, codec, names
from aiproxy.middleware.dialects.observe import observer

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "dialects"), str(Path(__file__).resolve().parent)]

from fidelity.answers import ANSWERS
from fidelity.features import REQUESTS
from fidelity.provider_writers import PROVIDERS
from fidelity.reply_grid import check_reply, envelope
from fidelity.request_grid import said_in, there
from mutations import broken, objects, sendable, values

VECTORS = SPOKEN_FOR["embeddings"]
DIALECTS = [name for name in names() if there(name) and name not in VECTORS]
INGRESS = [name for name in DIALECTS if hasattr(codec(name), "decode_request")]
TOLD_TO = [name for name in INGRESS if hasattr(codec(name), "encode_reply")]
SENT_IN = [name for name in DIALECTS if hasattr(codec(name), "encode_request")]
READ = [name for name in DIALECTS if hasattr(codec(name), "decode_reply")]
HEARD = [name for name in DIALECTS if hasattr(codec(name), "StreamDecoder")]

KEEP = settings(max_examples=60, suppress_health_check=list(HealthCheck))
LONG = settings(KEEP, max_examples=2500)


def requests_of(dialect: str) -> list[Any]:
    wires = (said_in(dialect, feature.name, False) for feature in REQUESTS)
    return [json.loads(wire) for wire in wires if wire is not None]


def replies_of(dialect: str) -> list[Any]:
    """Good answers: of the provider, or those our own clients of the dialect get."""
    source = PROVIDERS.get(dialect, PROVIDERS["responses"])
    return [source.whole(answer) for answer in ANSWERS if source.says(answer, False)]


def streams_of(dialect: str) -> list[Any]:
    source = PROVIDERS.get(dialect, PROVIDERS["responses"])
    found = [source.stream(answer) for answer in ANSWERS if source.says(answer, True)]
    return [[[event, payload] for event, payload in stream[:25]] for stream in found]


class _Nobody:
    """Stands where nothing is passed through."""

    def feed(self, payload: Any, event: str | None = None) -> int:
        return 0


def watcher(dialect: str) -> Any:
    """What watches a stream that is passed through: only dialects of clients have it."""
    return observer(dialect) if dialect in INGRESS and dialect != "draft" else _Nobody()


# --- requests ------------------------------------------------------------------------------------


def read_request(dialect: str, body: dict[str, Any]) -> None:
    try:
        request = codec(dialect).decode_request(body)
    except MalformedRequest as refused:
        assert refused.param
        return
    except Untranslatable:  # only who speaks the dialect can be asked: a prompt of token ids
        assert dialect == "completions"
        return
    for egress in SENT_IN:
        try:
            sent, losses = codec(egress).encode_request(request, "m")
        except Untranslatable as refused:
            assert refused.feature
            continue
        assert sendable(sent)
        assert all(isinstance(loss.feature, str) for loss in losses)


@pytest.mark.parametrize("dialect", INGRESS)
def test_requests(dialect: str) -> None:
    fuzz_requests(dialect, KEEP)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dialect", INGRESS)
def test_many_requests(dialect: str) -> None:
    fuzz_requests(dialect, LONG)


def fuzz_requests(dialect: str, how: settings) -> None:
    @how
    @given(objects | broken(requests_of(dialect)))
    def run(body: Any) -> None:
        read_request(dialect, body)

    run()


# --- replies -------------------------------------------------------------------------------------


def read_reply(dialect: str, body: dict[str, Any]) -> None:
    module = codec(dialect)
    why = check_reply(dialect, body)
    assert why is None or isinstance(why, str)
    if hasattr(module, "read_usage"):
        module.read_usage(body)
    try:
        reply = module.decode_reply(body)
    except MalformedReply as refused:
        assert refused.reason
        return
    assert reply.choices
    for ingress in TOLD_TO:
        try:
            told = codec(ingress).encode_reply(reply, envelope(), [])
        except MalformedReply:  # such as arguments that are no object, where one is needed
            continue
        assert sendable(told)


@pytest.mark.parametrize("dialect", READ)
def test_replies(dialect: str) -> None:
    fuzz_replies(dialect, KEEP)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dialect", READ)
def test_many_replies(dialect: str) -> None:
    fuzz_replies(dialect, LONG)


def fuzz_replies(dialect: str, how: settings) -> None:
    @how
    @given(objects | broken(replies_of(dialect)))
    def run(body: Any) -> None:
        read_reply(dialect, body)

    run()


# --- streams -------------------------------------------------------------------------------------


def read_stream(dialect: str, frames: list[Any]) -> None:
    decoder, watch = codec(dialect).StreamDecoder(), watcher(dialect)
    encoders = [codec(ingress).StreamEncoder(envelope()) for ingress in TOLD_TO]
    events: list[Any] = []
    for event, payload in frames:
        if isinstance(payload, dict):
            events += decoder.feed(payload, event if isinstance(event, str) else None)
            watch.feed(payload, event if isinstance(event, str) else None)
    whole = True
    try:
        events += decoder.finish()
    except StreamCut:
        whole = False
    in_order(events, whole)
    failed = any(isinstance(event, StreamError) for event in events)
    if failed:
        return
    for encoder in encoders:
        wire = b"".join(encoder.encode(event) for event in events)
        cut = {"message": "cut", "type": "upstream_error", "param": None, "code": None}
        try:
            wire += encoder.finish() if whole else encoder.fail(cut)
        except StreamCut:  # the only choice this client is told never ended
            wire += encoder.fail(cut)
        assert isinstance(wire, bytes)


def in_order(events: list[Any], whole: bool) -> None:
    """What encoders rely on: see the canonical events."""
    started: dict[int, set[int]] = {}
    ended: set[int] = set()
    for place, event in enumerate(events):
        if isinstance(event, StreamError):
            assert place == len(events) - 1, "something came after an error"
        elif isinstance(event, UsageEvent):
            assert place == len(events) - 1, "something came after the usage"
        elif isinstance(event, ToolCallStart):
            calls = started.setdefault(event.choice, set())
            assert event.index not in calls, "a call began twice"
            calls.add(event.index)
            assert isinstance(event.id, str)
            assert isinstance(event.name, str)
        elif isinstance(event, ToolCallDelta | ToolCallEnd):
            assert event.index in started.get(event.choice, set()), "a call was not begun"
        if isinstance(event, Finish):
            assert event.choice not in ended, "a choice ended twice"
            ended.add(event.choice)
    for calls in started.values() if whole else ():
        assert calls == set(range(len(calls))), "calls are not numbered from 0"


@pytest.mark.parametrize("dialect", HEARD)
def test_nothing_follows_an_error(dialect: str) -> None:
    for error in ({"message": "overloaded", "type": "server_error"}, True):
        for stream in streams_of(dialect):
            for place in range(len(stream) + 1):
                read_stream(dialect, [*stream[:place], [None, {"error": error}], *stream[place:]])


def test_nothing_follows_a_choice_that_failed() -> None:
    def choice(number: int, reason: str | None) -> dict[str, Any]:
        return {"index": number, "delta": {"content": "Hi"}, "finish_reason": reason}

    for dialect in ("chat", "mistral", "workers_ai"):
        for reasons in (("error", None), (None, "error", "stop", "error")):
            choices = [choice(number, reason) for number, reason in enumerate(reasons)]
            read_stream(dialect, [[None, {"choices": choices}], [None, {"choices": choices}]])


@pytest.mark.parametrize("dialect", HEARD)
def test_streams(dialect: str) -> None:
    fuzz_streams(dialect, KEEP)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dialect", HEARD)
def test_many_streams(dialect: str) -> None:
    fuzz_streams(dialect, LONG)


def fuzz_streams(dialect: str, how: settings) -> None:
    anything = st.lists(st.tuples(st.none() | st.text(max_size=8), values).map(list), max_size=6)

    @how
    @given(broken(streams_of(dialect)) | anything)
    def run(frames: Any) -> None:
        pairs = [f for f in frames if isinstance(f, list) and len(f) == 2]
        read_stream(dialect, pairs)

    run()


# --- embeddings ----------------------------------------------------------------------------------

ASKED = [
    {"model": "m", "input": "Hello"},
    {"model": "m", "input": ["a", "b"], "dimensions": 8, "encoding_format": "base64", "user": "u"},
    {"model": "m", "input": [[1, 2], [3]]},
]
EMBEDDED: dict[str, list[Any]] = {
    "embeddings": [
        {"object": "list", "model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3},
         "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}]},
        {"object": "list", "model": "m", "data": [{"index": 0, "embedding": "AACAPgAAAL8="}]},
    ],
    "cohere_embed": [
        {"id": "e", "embeddings": {"float": [[0.25, -0.5]]}, "texts": ["Hello"],
         "meta": {"billed_units": {"input_tokens": 3}}, "response_type": "embeddings_by_type"},
    ],
    "gemini_embed": [{"embeddings": [{"values": [0.25, -0.5]}]}],
    "workers_ai_embed": [
        {"result": {"shape": [1, 2], "data": [[0.25, -0.5]], "pooling": "mean"}, "success": True,
         "errors": [], "messages": []},
    ],
}  # fmt: skip


@KEEP
@given(objects | broken(ASKED))
def test_embedding_requests(body: Any) -> None:
    try:
        request = codec("embeddings").decode_request(body)
    except MalformedRequest as refused:
        assert refused.param
        return
    for name in VECTORS:
        try:
            sent, _ = codec(name).encode_request(request, "m")
        except Untranslatable:
            continue
        assert sendable(sent)


@pytest.mark.parametrize("dialect", VECTORS)
def test_embedding_replies(dialect: str) -> None:
    @KEEP
    @given(objects | broken(EMBEDDED[dialect]))
    def run(body: Any) -> None:
        codec(dialect).check_reply(body)
        codec(dialect).read_usage(body)
        try:
            reply = codec(dialect).decode_reply(body)
        except MalformedReply:
            return
        assert sendable(codec("embeddings").encode_reply(reply, envelope(), []))

    run()


# --- memory --------------------------------------------------------------------------------------

EVENTS = 10_000


def floods(dialect: str) -> list[tuple[str, list[Any]]]:
    """Ten thousand events of one kind, small each."""
    source = PROVIDERS.get(dialect, PROVIDERS["responses"])
    kinds: dict[str, Any] = {}
    for answer in ANSWERS:
        if source.says(answer, True):
            for event, payload in source.stream(answer):
                if len(json.dumps(payload)) < 600:
                    kinds.setdefault(shape(payload), (event, payload))
    found = [(name, [kind] * EVENTS) for name, kind in kinds.items()]
    junk = (None, {"type": "unheard_of", "n": 1})
    return [*found, ("junk", [junk] * EVENTS)]


def shape(payload: Any) -> str:
    """The kind of an event: its type, or the members it has."""
    if not isinstance(payload, dict):
        return type(payload).__name__
    kind = payload.get("type")
    inner = next((v for k, v in payload.items() if k in ("delta", "choices", "candidates")), None)
    if isinstance(inner, list) and inner:
        inner = inner[0].get("delta") or inner[0].get("content") or inner[0]
    members = ",".join(sorted(inner)) if isinstance(inner, dict) else ""
    return f"{kind}:{members}"


@pytest.mark.slow
@pytest.mark.parametrize("dialect", HEARD)
def test_a_flood_is_not_kept(dialect: str) -> None:
    """A decoder and an observer hold what the answer needs, not what was sent: ten thousand events
    may cost at most as much as their bytes, or half a megabyte."""
    grown: dict[str, int] = {}
    for name, frames in floods(dialect):
        decoder, watch = codec(dialect).StreamDecoder(), watcher(dialect)
        sent = sum(len(json.dumps(payload)) for _, payload in frames)
        tracemalloc.start()
        for event, payload in frames:
            decoder.feed(payload, event)
            watch.feed(payload, event)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        if kept > max(sent, 500_000):
            grown[name] = kept
    assert grown == {}


@pytest.mark.parametrize("dialect", HEARD)
def test_deep_nesting_is_refused_not_followed(dialect: str) -> None:
    deep: Any = "x"
    for _ in range(100):
        deep = {"properties": {"a": deep}, "type": "object", "items": [deep] if deep == "x" else 1}
    body: dict[str, Any] = {
        "choices": [{"message": {"content": deep}}],
        "output": [deep],
        "content": [deep],
        "candidates": [deep],
        "message": deep,
        "result": deep,
    }
    read_reply(dialect, body)
    read_stream(dialect, [[None, body]])
