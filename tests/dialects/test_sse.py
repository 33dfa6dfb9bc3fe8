"""Framing: whatever the cut, the events are the same."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiproxy.middleware.dialects.sse import (
    SSEEvent,
    SSEParser,
    SSETooLarge,
    encode,
    parser_for,
)

ENDINGS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:x",
        b"data",
        b"data: \xf0\x9f\x98\x80 \xe2\x80\xa8",
        b"data: [DONE]",
        b"event: ping",
        b": OPENROUTER PROCESSING",
        b"id: 7",
        b"retry: 10",
        b"unknown",
        b"",
        b"",
    ]
)


@st.composite
def wires(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(st.tuples(LINES, ENDINGS), max_size=20))
    start = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return start + b"".join(line + ending for line, ending in lines)


def events_of(pieces: list[bytes]) -> tuple[list[SSEEvent], bytes]:
    parser = SSEParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.finish(), parser.leftover


@given(wire=wires(), cuts=st.lists(st.integers(0, 400), max_size=12))
@example(wire=b"data: a\r\n\r\ndata: b\r\n\r\n", cuts=[8, 9, 10, 11])
@example(wire=b"data: a\n\n\n\n\ndata: b\r\r", cuts=[8, 9, 10, 11])
def test_cut_points_never_change_the_events(wire: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    pieces = [wire[a:b] for a, b in itertools.pairwise(edges)]
    assert events_of(pieces) == events_of([wire])


@given(wire=wires())
def test_one_byte_at_a_time_gives_the_same_events(wire: bytes) -> None:
    assert events_of([wire[i : i + 1] for i in range(len(wire))]) == events_of([wire])


@given(wire=wires())
def test_raw_bytes_are_kept_exactly(wire: bytes) -> None:
    events, leftover = events_of([wire])
    joined = b"".join(event.raw for event in events) + leftover
    assert joined.startswith(wire)
    assert joined[len(wire) :] in (b"", b"\n", b"\n\n")  # the blank line of a last whole event


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_fields_are_read_with_every_line_ending(ending: str) -> None:
    wire = ending.join(["event: delta", "data: one", "data:two", "id: 4", "", ": hi", "", ""])
    events, leftover = events_of([wire.encode()])
    assert [(e.event, e.data, e.is_comment) for e in events] == [
        ("delta", b"one\ntwo", False),
        (None, None, True),
    ]
    assert b"".join(e.raw for e in events) + leftover == wire.encode()


def test_a_byte_order_mark_is_skipped_once() -> None:
    events, _ = events_of([b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n"])
    assert [e.data for e in events] == [b"a", None]


@pytest.mark.parametrize(
    ("tail", "data"),
    [
        (b'data: {"a": 1}', b'{"a": 1}'),
        (b'data: {"a": 1}\n', b'{"a": 1}'),
        (b"data: [DONE]", b"[DONE]"),
        (b"event: x\r\ndata: []\r\n", b"[]"),
    ],
)
def test_a_whole_last_event_is_delivered_without_its_blank_line(tail: bytes, data: bytes) -> None:
    events, leftover = events_of([b"data: 1\n\n" + tail])
    assert [e.data for e in events] == [b"1", data]
    assert leftover == b""
    assert events[-1].raw.endswith((b"\n\n", b"\r\n\n"))


@pytest.mark.parametrize("tail", [b'data: {"a": 1', b"data: 12", b"dat", b"event: x\n", b"data: "])
def test_a_broken_last_event_is_left_over(tail: bytes) -> None:
    events, leftover = events_of([b"data: 1\n\n" + tail])
    assert [e.data for e in events] == [b"1"]
    assert leftover == tail


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    ("wire", "what"),
    [
        (b"data: 1\n\ndata: " + b"x" * 90, "line"),
        (b"data: 1\n\ndata: " + b"x" * 90 + b"\n\n", "line"),
        (b"data: 1\r\n\r\ndata: " + b"x" * 90 + b"\r\n\r\n", "line"),
        (b"data: 1\n\n" + b"data: xxxx\n" * 30, "event"),
    ],
)
def test_bounds_hold_and_earlier_events_arrive(wire: bytes, what: str, step: int) -> None:
    parser = SSEParser(max_line_bytes=64, max_event_bytes=200)
    seen: list[bytes | None] = []

    def read() -> None:
        for i in range(0, len(wire), step):
            seen.extend(e.data for e in parser.feed(wire[i : i + step]))
        seen.extend(e.data for e in parser.finish())

    with pytest.raises(SSETooLarge) as caught:
        read()
    assert caught.value.what == what
    assert seen == [b"1"]


@given(
    data=st.binary(max_size=60).filter(lambda b: b"\r" not in b),
    name=st.sampled_from([None, "x.y"]),
)
def test_encode_and_parse_are_inverse(data: bytes, name: str | None) -> None:
    events, leftover = events_of([encode(data, name)])
    assert [(e.event, e.data) for e in events] == [(name, data)]
    assert leftover == b""


def test_an_event_never_shows_its_data_in_a_repr() -> None:
    assert "secret" not in repr(SSEEvent("x", b"secret", b"data: secret\n\n"))


def test_a_picture_fits_into_one_event_of_gemini() -> None:
    line = b'data: {"inlineData": "' + b"A" * (3 << 20) + b'"}\n\n'
    assert len(parser_for("gemini").feed(line)) == 1
    with pytest.raises(SSETooLarge):
        parser_for("chat").feed(line)
