"""Server-sent events: whatever way the bytes were cut, the same events come out."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxy.conformance.sse import EventReader, read_events

TEXT = '﻿: hello\r\ndata: {"a": 1}\r\n\r\nevent: x\ndata: one\ndata:two\nid: 7\n\ndata: é😀\r\rdata: [DONE]\n\n'
EVENTS = [("message", '{"a": 1}'), ("x", "one\ntwo"), ("message", "é😀"), ("message", "[DONE]")]


@given(st.lists(st.integers(0, len(TEXT.encode())), max_size=12))
def test_cuts_change_nothing(cuts: list[int]):
    body = TEXT.encode()
    edges = [0, *sorted(cuts), len(body)]
    pieces = [(float(n), body[a:b]) for n, (a, b) in enumerate(pairwise(edges))]
    events, fault = read_events(iter(pieces))
    assert [(event.event, event.data) for event in events] == EVENTS
    assert fault == ""


def test_an_event_has_the_time_of_its_last_byte():
    events, _ = read_events(iter([(0.1, b"data: 1\n"), (0.5, b"\ndata: 2"), (0.9, b"\n\n")]))
    assert [(event.data, event.at) for event in events] == [("1", 0.5), ("2", 0.9)]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"data: \xff\n\n", "not UTF-8 at byte 6"),
        (b"data: 1\n\ndata: 2", "an event without its empty line"),
        (b"data: 1\n\ndata: 2\n", "an event without its empty line"),
        (b"data: 1\n\n: a comment is no event\n", ""),
        (b"", ""),
    ],
)
def test_what_is_wrong_with_the_text_is_said(body: bytes, says: str):
    _, fault = read_events(iter([(0.0, body)]))
    assert fault == says


def test_comments_are_counted_and_the_end_mark_known():
    reader = EventReader()
    events = list(reader.feed(b": keep-alive\n\n: again\ndata: [DONE]\n\n"))
    assert (reader.comments, [event.done for event in events]) == (2, [True])
    assert events[0].json is None
