"""Every fault, as bytes on a socket."""

import gzip
import json
import zlib

import pytest

from aiproxy.conformance.rig.acts import FAULTS, Act

STREAM = {"stream": True}


def proof(stage, nonce):
    return stage.upstreams.proof(nonce, stage["a"].id)


def test_every_fault_has_a_test_here():
    told = set(globals())
    named = {"cut-clean": "cut_clean"}
    missing = [
        fault
        for fault in FAULTS
        if not any(
            name.startswith(f"test_{named.get(fault, fault).replace('-', '_')}") for name in told
        )
    ]
    assert not missing


def test_reset_is_a_reset(stage):
    heard, nonce = stage.asked(Act(fault="reset"))
    assert (heard.data, heard.end) == (b"", "reset")
    (attempt,) = stage.upstreams.attempts(nonce)
    assert (attempt.fault, attempt.status, attempt.answered_at) == ("reset", None, None)
    assert attempt.finished_at is not None
    assert not attempt.gone


def test_close_is_an_end_without_an_answer(stage):
    heard, _ = stage.asked(Act(fault="close"))
    assert (heard.data, heard.end) == (b"", "closed")


def test_silence_lasts_until_the_client_leaves(stage):
    heard, nonce = stage.asked(Act(fault="silence"), quiet_s=0.1)
    assert (heard.data, heard.end) == (b"", "open")
    assert stage.upstreams.wait_idle(nonce, 2)
    (attempt,) = stage.upstreams.attempts(nonce)
    assert attempt.gone
    assert attempt.closed_at is not None
    assert attempt.closed_at - attempt.at > 0.09


def test_half_head_ends_inside_a_header(stage):
    heard, _ = stage.asked(Act(fault="half-head"))
    assert heard.data == b"HTTP/1.1 200 OK\r\nContent-Ty"
    assert heard.end == "closed"


@pytest.mark.parametrize("stream", [False, True])
def test_html_is_a_page(stage, stream):
    heard, _ = stage.asked(Act(fault="html"), stream=stream)
    assert heard.status == 200
    assert heard.header("content-type") == "text/html; charset=utf-8"
    assert heard.body.startswith(b"<!doctype html>")
    assert stage.asked(Act(fault="html", status=502))[0].status == 502


def test_empty_has_no_body(stage):
    heard, _ = stage.asked(Act(fault="empty"))
    assert (heard.status, heard.body, heard.header("content-length")) == (200, b"", "0")


def test_not_json_does_not_parse(stage):
    heard, _ = stage.asked(Act(fault="not-json"))
    assert heard.header("content-type") == "application/json"
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(heard.body)


def test_wrong_shape_is_json_of_another_kind(stage):
    heard, _ = stage.asked(Act(fault="wrong-shape"))
    assert heard.status == 200
    assert "choices" not in heard.json


def test_error_in_200_is_an_error_object(stage):
    heard, _ = stage.asked(Act(fault="error-in-200", message="overloaded", code="busy"))
    assert heard.status == 200
    assert heard.json["error"]["message"] == "overloaded"
    assert heard.json["error"]["code"] == "busy"


@pytest.mark.parametrize("stream", [False, True])
def test_short_body_promises_more(stage, stream):
    heard, nonce = stage.asked(Act(fault="short-body"), stream=stream)
    assert int(heard.header("content-length")) == len(heard.rest) + 64
    assert heard.end == "closed"
    assert proof(stage, nonce) in (heard.text if stream else heard.rest.decode())


@pytest.mark.parametrize("stream", [False, True])
def test_no_length_ends_with_the_connection(stage, stream):
    heard, nonce = stage.asked(Act(fault="no-length"), stream=stream)
    assert heard.header("content-length") is None
    assert heard.header("transfer-encoding") is None
    assert heard.header("connection") == "close"
    assert heard.end == "closed"
    assert proof(stage, nonce) in (
        heard.text if stream else heard.json["choices"][0]["message"]["content"]
    )


@pytest.mark.parametrize("stream", [False, True])
def test_huge_is_more_than_64_mib_and_costs_no_memory(stage, stream):
    nonce = "ref-hugehugehuge"
    stage.script(nonce, "a", Act(fault="huge"))
    read = 0
    with stage.begin("a", stage.chat("a", nonce, stream=stream)) as plug:
        tail = b""
        while data := plug.recv(1 << 20):
            read += len(data)
            tail = data[-40:]
    assert read > 64 * 2**20
    assert tail.endswith(b"0\r\n\r\n")


def test_huge_stops_when_the_client_has_enough(stage):
    nonce = "ref-enoughenough"
    stage.script(nonce, "a", Act(fault="huge"))
    with stage.begin("a", stage.chat("a", nonce)) as plug:
        plug.recv(1 << 20)
    assert stage.upstreams.wait_idle(nonce, 5)
    assert stage.upstreams.attempts(nonce)[0].gone


@pytest.mark.parametrize("stream", [False, True])
def test_bomb_is_small_and_unpacks_to_more_than_256_mib(stage, stream):
    heard, _ = stage.asked(Act(fault="bomb"), stream=stream, quiet_s=20)
    assert heard.header("content-encoding") == "gzip"
    assert len(heard.rest) == int(heard.header("content-length")) < 2**20
    unpack, size, first = zlib.decompressobj(31), 0, b""
    data = heard.rest
    while data:
        plain = unpack.decompress(data, 2**24)
        first, size, data = first or plain[:200], size + len(plain), unpack.unconsumed_tail
    assert size > 256 * 2**20
    assert unpack.eof, "a right gzip trailer"
    assert b'"choices"' in first


def test_redirect_goes_to_another_host_and_shows_who_followed(stage):
    heard, nonce = stage.asked(Act(fault="redirect"))
    assert heard.status == 307
    assert heard.header("location").startswith("http://localhost:")
    stage.post("a", "/redirected", stage.chat("a", nonce))
    paths = [attempt.path for attempt in stage.upstreams.attempts(nonce)]
    assert paths == ["/v1/chat/completions", "/redirected"]
    own = Act(fault="redirect", headers=(("location", "http://elsewhere.invalid/"),))
    assert stage.asked(own)[0].header("location") == "http://elsewhere.invalid/"


def test_cut_breaks_inside_a_chunk(stage):
    heard, _ = stage.asked(Act(fault="cut", after=2), stream=True)
    contents = [c["choices"][0]["delta"].get("content") for c in heard.events if c != "[DONE]"]
    assert len([text for text in contents if text]) == 2
    assert heard.rest.endswith(b"40\r\ndata: ")
    assert (heard.whole, heard.end) == (False, "closed")


def test_cut_of_a_whole_answer_sends_half(stage):
    heard, nonce = stage.asked(Act(fault="cut"))
    assert not heard.whole
    assert 0 < len(heard.body) < 400
    assert stage.upstreams.attempts(nonce)[0].usage is None


def test_cut_clean_ends_in_good_form_too_early(stage):
    heard, nonce = stage.asked(Act(fault="cut-clean", after=3), stream=True)
    assert heard.whole
    assert "[DONE]" not in heard.events
    assert [e["choices"][0]["finish_reason"] for e in heard.events] == [None] * 4
    assert proof(stage, nonce).startswith(heard.text)
    assert heard.text


def test_stall_keeps_the_connection_open(stage):
    heard, nonce = stage.asked(Act(fault="stall", after=1), stream=True, quiet_s=0.1)
    assert heard.end == "open"
    assert len(heard.events) == 2
    assert stage.upstreams.wait_idle(nonce, 2)
    assert stage.upstreams.attempts(nonce)[0].gone


def test_error_event_is_the_last(stage):
    act = Act(fault="error-event", after=1, message="the model fell over", code="overloaded")
    heard, _ = stage.asked(act, stream=True)
    assert heard.whole
    assert heard.events[-1]["error"]["message"] == "the model fell over"
    assert heard.events[-1]["error"]["code"] == "overloaded"
    assert len(heard.events) == 3


def test_garbage_event_then_the_stream_goes_on(stage):
    heard, _ = stage.asked(Act(fault="garbage-event", after=1), stream=True)
    lines = [line for line in heard.body.decode().split("\n") if line.startswith("data: ")]
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(lines[2][6:])
    assert lines[-1] == "data: [DONE]"
    assert len(lines) == 8


def test_no_done_has_a_finish(stage):
    heard, _ = stage.asked(Act(fault="no-done"), stream=True)
    assert heard.whole
    assert heard.events[-1]["choices"][0]["finish_reason"] == "stop"


def test_no_finish_has_a_done(stage):
    heard, _ = stage.asked(Act(fault="no-finish"), stream=True)
    assert heard.events[-1] == "[DONE]"
    chunks = heard.events[:-1]
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)


def test_wrong_media_type_is_else_right(stage):
    heard, nonce = stage.asked(Act(fault="wrong-media-type"), stream=True)
    assert heard.header("content-type") == "application/json"
    assert heard.text == proof(stage, nonce)


def test_whole_for_stream_is_one_document(stage):
    heard, nonce = stage.asked(Act(fault="whole-for-stream"), stream=True)
    assert heard.json["choices"][0]["message"]["content"] == proof(stage, nonce)


def test_endless_goes_on_until_the_client_leaves(stage):
    nonce = "ref-endlessendle"
    stage.script(nonce, "a", Act(fault="endless"))
    data = b""
    with stage.begin("a", stage.chat("a", nonce, stream=True)) as plug:
        while data.count(b"data: ") < 50:
            data += plug.recv(65536)
    assert stage.upstreams.wait_idle(nonce, 2)
    assert stage.upstreams.attempts(nonce)[0].gone


def test_crlf_ends_every_line(stage):
    heard, nonce = stage.asked(Act(fault="crlf"), stream=True)
    assert heard.body.count(b"\n") == heard.body.count(b"\r\n") > 10
    assert heard.text == proof(stage, nonce)


def test_comments_stand_between_events(stage):
    heard, nonce = stage.asked(Act(fault="comments"), stream=True)
    assert heard.body.startswith(b"data: ")
    assert b"\n: keep-alive\n" in heard.body
    assert heard.text == proof(stage, nonce)


def test_split_cuts_inside_characters(stage):
    heard, nonce = stage.asked(Act(fault="split"), stream=True)
    assert max(map(len, heard.chunks)) == 7
    broken = 0
    for chunk in heard.chunks:
        try:
            chunk.decode()
        except UnicodeDecodeError:
            broken += 1
    assert broken
    assert heard.text.startswith(proof(stage, nonce))
    assert "漢字" in heard.text


def test_late_call_sends_the_arguments_at_once(stage):
    calls = (("look_up", {"city": "Paris", "unit": "C"}),)
    for fault, pieces in (("", 4), ("late-call", 1)):
        heard, _ = stage.asked(Act(fault=fault, tool_calls=calls), stream=True)
        deltas = [e["choices"][0]["delta"] for e in heard.events if e != "[DONE]"]
        rows = [call for delta in deltas for call in delta.get("tool_calls", ())]
        assert [row["function"].get("name") for row in rows] == ["look_up"] + [None] * pieces
        joined = "".join(row["function"]["arguments"] for row in rows)
        assert json.loads(joined) == {"city": "Paris", "unit": "C"}
        assert heard.events[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_the_bomb_is_one_right_gzip_member():
    from aiproxy.conformance.rig.wire import _bomb

    assert gzip.decompress(_bomb(False)[: len(_bomb(False))])[:7] == b'{"id":"'
