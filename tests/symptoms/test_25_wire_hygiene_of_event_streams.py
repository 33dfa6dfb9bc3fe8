"""Whatever the wire does to an event stream (where it cuts it, how it ends lines, what it puts
between events), the client gets the same answer, in well-formed frames."""

import gzip
import time
from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pytest
from wire import DONE, STREAM_HEAD, Wire, WireUpstream, frame

from aiproxy.middleware.answering.passing import PassThrough
from aiproxy.middleware.answering.relay import Relay, Translation
from aiproxy.middleware.dialects.canonical import Envelope, StreamCut
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.dialects.sse import SSEParser

TEXT = "Grüße, 日本 😀\u2028 ok"
GIVEN = Envelope(id="resp_0123", created=1, model="m")
CLIENTS = ("chat", "responses", "draft", "anthropic", "gemini")


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    body = {"id": "x", "model": "up", "choices": [{"index": 0, "delta": delta, **more}]}
    body["choices"][0]["finish_reason"] = reason  # type: ignore[index]
    return b"data: " + orjson.dumps(body)


CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    *(chunk({"content": piece}) for piece in ("Grüße, ", "日本 😀", "\u2028 ok")),
    chunk({}, "stop"),
]


def stream(*lines: bytes, end: bytes = b"\n", done: bool = True) -> bytes:
    blocks = [*(lines or CHUNKS), *((b"data: [DONE]",) if done else ())]
    return b"".join(block + end + end for block in blocks)


def relay(client: str, upstream: str = "chat") -> Relay:
    if client == upstream:
        return PassThrough(client, "m")
    return Translation(upstream, client, GIVEN)


def received(client: str, parts: Iterable[bytes], upstream: str = "chat") -> tuple[bytes, Relay]:
    """All that the client gets of an answer that arrives in ``parts``."""
    way = relay(client, upstream)
    wire = b"".join([*(way.feed(part) for part in parts), way.end()])
    if way.finished:
        wire += way.drain() + way.finish({})
    return wire, way


def text_of(client: str, wire: bytes) -> str:
    decoder = codec(client).StreamDecoder()
    parser = SSEParser()
    said = ""
    for event in [*parser.feed(wire), *parser.finish()]:
        if event.data is not None and not event.is_done:
            for found in decoder.feed(orjson.loads(event.data), event.event):
                said += getattr(found, "text", "")
    assert parser.leftover == b""
    decoder.finish()
    return said


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_cut_gives_the_same_bytes(client: str, end: bytes) -> None:
    """Also in the middle of a UTF-8 character, of a line end and of a JSON escape."""
    wire = stream(end=end)
    whole, _ = received(client, [wire])
    assert text_of(client, whole) == TEXT
    for cut in range(len(wire)):
        assert received(client, [wire[:cut], wire[cut:]])[0] == whole, cut
    assert received(client, [wire[i : i + 1] for i in range(len(wire))])[0] == whole


ODD: dict[str, bytes] = {
    "comments": b": OPENROUTER PROCESSING\n\n" + stream() + b": bye\n\n",
    "a comment inside an event": stream(b": hm\n" + CHUNKS[0], *CHUNKS[1:]),
    "no space after the colon": stream().replace(b"data: ", b"data:"),
    "stray blank lines": b"\n\n" + stream().replace(b"\n\n", b"\n\n\n\n"),
    "a byte order mark": b"\xef\xbb\xbf" + stream(),
    "ids and retries": b"retry: 10\n\n" + stream().replace(b"data: {", b"id: 7\ndata: {"),
    "data over two lines": stream().replace(b',"model"', b',\ndata: "model"'),
    "no [DONE]": stream(done=False),
    "no last blank line": stream().removesuffix(b"\n\n"),
    "no [DONE] and no last blank line": stream(done=False).removesuffix(b"\n\n"),
    "a frame that is no JSON": stream(CHUNKS[0], b"data: {not json", *CHUNKS[1:]),
    "empty finish reasons": stream(
        *(c.replace(b'"finish_reason":null', b'"finish_reason":""') for c in CHUNKS)
    ),
    "no index": stream(*(c.replace(b'"index":0,', b"") for c in CHUNKS)),
    "pings between": stream(CHUNKS[0], b'data: {"choices":[]}', *CHUNKS[1:]),
    "usage so far in every chunk": stream(
        *(c[:-1] + b',"usage":{"prompt_tokens":9,"completion_tokens":%d}}' % i
          for i, c in enumerate(CHUNKS))
    ),
}  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", ODD)
def test_oddities_change_nothing(name: str, client: str) -> None:
    wire, way = received(client, [ODD[name]])
    assert way.finished
    assert text_of(client, wire) == TEXT
    if "usage" in name:
        assert way.usage is not None
        assert (way.usage.input, way.usage.output) == (9, len(CHUNKS) - 1)


def test_usage_in_two_halves_is_added_up() -> None:
    """The prompt is counted at the start and the completion at the end, with zeros between."""
    counts = [(9, 1), (0, 0), (0, 0), (0, 0), (0, 7)]
    usage = b',"usage":{"prompt_tokens":%d,"completion_tokens":%d}}'
    wire = stream(*(c[:-1] + usage % pair for c, pair in zip(CHUNKS, counts, strict=True)))
    _, way = received("responses", [wire])
    assert way.usage is not None
    assert (way.usage.input, way.usage.output) == (9, 7)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("reason", [b"null", b'""'])
def test_a_stream_that_only_says_done_is_not_a_finished_one(client: str, reason: bytes) -> None:
    wire = stream(*CHUNKS[:-1]).replace(b'"finish_reason":null', b'"finish_reason":' + reason)
    _, way = received(client, [wire])
    assert not way.finished
    if client != "chat":
        with pytest.raises(StreamCut):
            way.drain()


# --- Responses events ----------------------------------------------------------------------------


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **more}


MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
           "content": [{"type": "output_text", "text": TEXT, "annotations": []}]}  # fmt: skip
AT = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
CREATED = event("created", response={"id": "resp_9", "model": "up", "status": "in_progress"})
ADDED = event("output_item.added", output_index=0, item={**MESSAGE, "content": []})
DELTAS = [event("output_text.delta", **AT, delta=p) for p in ("Grüße, ", "日本 😀", "\u2028 ok")]
TOLD = event("output_text.done", **AT, text=TEXT)
CLOSED = event("output_item.done", output_index=0, item=MESSAGE)
OVER = event(
    "completed",
    response={"id": "resp_9", "model": "up", "status": "completed", "output": [MESSAGE]},
)
ORDERS: dict[str, list[dict[str, Any]]] = {
    "in order": [CREATED, ADDED, *DELTAS, TOLD, CLOSED, OVER],
    "text before its item": [CREATED, *DELTAS, ADDED, TOLD, CLOSED, OVER],
    "nothing before the text": [*DELTAS, TOLD, OVER],
    "the item is done before its text": [CREATED, ADDED, *DELTAS, CLOSED, TOLD, OVER],
    "a late delta": [CREATED, ADDED, *DELTAS[:2], TOLD, DELTAS[2], CLOSED, OVER],
    "a delta after the item": [CREATED, ADDED, *DELTAS[:2], CLOSED, DELTAS[2], OVER],
    "no deltas": [CREATED, ADDED, TOLD, CLOSED, OVER],
    "only the end": [OVER],
    "unknown events": [event("new_thing", x=1), CREATED, {"type": "x"}, ADDED, *DELTAS, OVER],
}


@pytest.mark.parametrize("numbers", ["none", "right", "backwards", "odd"])
@pytest.mark.parametrize("client", ["chat", "draft", "anthropic", "gemini"])
@pytest.mark.parametrize("name", ORDERS)
def test_events_out_of_order_or_without_numbers(name: str, client: str, numbers: str) -> None:
    number: dict[str, Callable[[int], dict[str, Any]]] = {
        "none": lambda i: {},
        "right": lambda i: {"sequence_number": i},
        "backwards": lambda i: {"sequence_number": -i},
        "odd": lambda i: {"sequence_number": "seven"},
    }
    frames = [{**payload, **number[numbers](i)} for i, payload in enumerate(ORDERS[name])]
    wire = b"".join(
        b"event: %b\ndata: %b\n\n" % (str(f["type"]).encode(), orjson.dumps(f)) for f in frames
    )
    out, way = received(client, [wire], "responses")
    assert way.finished
    assert text_of(client, out) == TEXT


@pytest.mark.parametrize("upstream", ["chat", "anthropic", "gemini"])
@pytest.mark.parametrize("client", ["responses", "draft"])
def test_our_own_events_are_numbered_and_in_order(client: str, upstream: str) -> None:
    first, _ = received(upstream, [stream()]) if upstream != "chat" else (stream(), None)
    wire, _ = received(client, [first], upstream)
    parser = SSEParser()
    events = [e for e in parser.feed(wire) if e.data is not None and not e.is_done]
    told = [orjson.loads(e.data or b"") for e in events]
    assert [t["sequence_number"] for t in told] == list(range(len(told)))
    assert [t["type"] for t in told] == [e.event for e in events]
    begun: set[str] = set()
    for payload in told:
        if payload["type"] == "response.output_item.added":
            begun.add(payload["item"]["id"])
        assert payload.get("item_id") is None or payload["item_id"] in begun
    assert told[0]["type"] == "response.created"
    assert told[-1]["type"] == "response.completed"
    assert wire.endswith(b"data: [DONE]\n\n")


# --- on the wire ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_a_compressed_stream_is_read(mount: Any, duo: Any, best: Any, path: str) -> None:
    def squeezed(wire: Wire) -> None:
        head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
        body = gzip.compress(
            frame({"role": "assistant", "content": "Hi"}) + frame({}, "stop") + DONE
        )
        wire.send(head)
        wire.chunk(body[:11], body[11:20], body[20:])
        wire.end()

    asked: dict[str, Any] = {"model": "auto", "stream": True}
    asked |= {"input": "Hi"} if path.endswith("responses") else {
        "messages": [{"role": "user", "content": "Hi"}]}  # fmt: skip
    with WireUpstream(squeezed) as upstream:
        got = mount(duo(url_a=upstream.url)).post(path, asked, best)
    assert got.status == 200
    assert got.header("content-encoding") is None
    assert b'"Hi"' in got.body
    assert got.body.endswith(b"data: [DONE]\n\n")


def test_silence_inside_long_arguments_keeps_the_connection(
    mount: Any, duo: Any, best: Any
) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}

    def slow(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"tool_calls": [call]}))
        time.sleep(0.5)
        more = {"index": 0, "function": {"arguments": '{"a":1}'}}
        wire.chunk(frame({"tool_calls": [more]}), frame({}, "tool_calls"), DONE)
        wire.end()

    with WireUpstream(slow) as upstream:
        served = mount(duo(url_a=upstream.url, routing={"stream_keepalive": "100ms"}))
        got = served.chat(best, stream=True)
    assert got.status == 200
    silence = got.body.index(b": keep-alive\n\n")
    assert got.body.index(b'"f"') < silence < got.body.index(b'{\\"a\\":1}')
    assert got.body.endswith(b"data: [DONE]\n\n")
