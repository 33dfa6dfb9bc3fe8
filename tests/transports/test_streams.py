"""Streams: bytes as they come, silence told apart from the end, and nothing ever lost."""

import asyncio
import time

import pytest
from transport_faults import FaultServer

from aiproxy.middleware.effects import Answer, Failure, Read
from aiproxy.middleware.providers.aio import AsyncTransports
from aiproxy.middleware.providers.link import Link, Tls

from .test_calls import a_call, tls_server


def opened(face, target, **changes):
    outcome = face.call(a_call(target, stream=True, **changes))
    assert isinstance(outcome, Answer), outcome
    assert outcome.stream is not None
    assert outcome.body == b""
    return outcome.stream


def test_events_arrive_one_by_one(face, server):
    stream = opened(face, server.url("events"))
    assert face.read(stream, 0.05, True) is None
    for number in range(3):
        server.step()
        assert face.read(stream) == b"data: %d\n\n" % number
    server.step()
    assert face.read(stream) == b""
    assert face.read(stream) == b""


def test_a_finished_stream_gives_its_connection_back(face, server):
    for _ in range(3):
        server.step(4)
        stream = opened(face, server.url("events"))
        while face.read(stream):
            pass
    assert server.connections == 1


def test_soft_reads_lose_no_byte_however_the_framing_is_cut(face, server):
    stream = opened(face, server.url("events_split"))
    got, silences = b"", 0
    while True:
        data = face.read(stream, 0.001, True)
        if data is None:
            silences += 1
            server.step()
            continue
        assert isinstance(data, bytes), data
        if not data:
            break
        got += data
    assert got == b"data: 1\n\ndata: 2\n\n"
    assert silences > 20
    server.step(4)
    again = opened(face, server.url("events"))
    assert face.read(again).startswith(b"data: 0\n\n")
    face.close_stream(again)
    assert server.connections == 1


def test_a_hard_timeout_ends_the_stream(face, server):
    stream = opened(face, server.url("events_stall"))
    assert face.read(stream) == b"data: 1\n\n"
    began = time.monotonic()
    expected = Failure("idle_timeout", "silence inside the stream")
    assert face.read(stream, 0.2) == expected
    assert 0.15 < time.monotonic() - began < 1
    assert face.read(stream) == expected
    assert server.hung_up.wait(1)


def test_the_total_limit_holds_inside_a_stream(face, server):
    stream = opened(face, server.url("events_stall"), total_s=0.3)
    assert face.read(stream) == b"data: 1\n\n"
    outcome = face.read(stream, 5.0, True)
    assert isinstance(outcome, Failure)
    assert outcome.kind == "total_timeout"


def test_what_arrived_before_a_cut_is_read_first(face, server):
    stream = opened(face, server.url("events_cut"))
    got = b""
    while isinstance(data := face.read(stream), bytes):
        assert data
        got += data
    assert got == b"data: 1\n\ndata: 2\n\n"
    assert data.kind == "reset"
    assert face.read(stream) == data


def test_a_reset_inside_a_stream(face, server):
    stream = opened(face, server.url("events_rst"))
    assert face.read(stream) == b"data: 1\n\n"
    server.step()
    outcome = face.read(stream)
    assert isinstance(outcome, Failure)
    assert outcome.kind == "reset"


def test_a_compressed_stream_is_decompressed(face, server):
    stream = opened(face, server.url("events_gzip"))
    got = b""
    while data := face.read(stream):
        got += data
    assert got == b"data: 1\n\ndata: 2\n\n"


def test_closing_is_seen_by_the_provider_at_once(face, server):
    stream = opened(face, server.url("events_stall"))
    assert face.read(stream) == b"data: 1\n\n"
    closed = time.monotonic()
    face.close_stream(stream)
    face.close_stream(stream)
    assert server.hung_up.wait(1)
    assert server.hangups[0] - closed < 0.1
    outcome = face.read(stream)
    assert isinstance(outcome, Failure)


def test_closing_over_tls_does_not_wait_for_a_farewell(face_class, certs):
    server = tls_server(certs)
    face = face_class({"p": Link(tls=Tls(ca=str(certs["ca.pem"])))})
    try:
        stream = opened(face, server.url("events_stall"))
        assert face.read(stream) == b"data: 1\n\n"
        closed = time.monotonic()
        face.close_stream(stream)
        assert server.hung_up.wait(1)
        assert server.hangups[0] - closed < 0.1
    finally:
        face.close()
        server.close()


def test_a_stream_over_tls_with_soft_reads(face_class, certs):
    server = tls_server(certs)
    face = face_class({"p": Link(tls=Tls(ca=str(certs["ca.pem"])))})
    try:
        stream = opened(face, server.url("events"))
        for number in range(3):
            assert face.read(stream, 0.01, True) is None
            server.step()
            assert face.read(stream) == b"data: %d\n\n" % number
        server.step()
        assert face.read(stream) == b""
    finally:
        face.close()
        server.close()


@pytest.mark.parametrize("name", ["no_head", "stall_body", "events_stall"])
def test_cancelling_closes_the_connection_within_a_tenth_of_a_second(server, name):
    async def scenario():
        transports = AsyncTransports()

        async def use():
            outcome = await transports.call(a_call(server.url(name), stream=True))
            await transports.read(Read(outcome.stream))
            await transports.read(Read(outcome.stream))

        task = asyncio.create_task(use())
        while not server.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        cancelled = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.hung_up.wait, 1)
        assert server.hangups[0] - cancelled < 0.1
        await transports.aclose()

    asyncio.run(scenario())


def test_a_call_above_the_bound_waits_for_a_connection():
    server = FaultServer()

    async def scenario():
        transports = AsyncTransports({"p": Link(max_connections=1)})
        held = await transports.call(a_call(server.url("events_stall"), stream=True))
        late = await transports.call(a_call(server.url("ok"), connect_s=0.1))
        assert isinstance(late, Failure)
        assert late.kind == "connect_timeout"
        waiting = asyncio.create_task(transports.call(a_call(server.url("ok"))))
        await asyncio.sleep(0)
        await transports.close_stream(held.stream)
        assert isinstance(await waiting, Answer)
        await transports.aclose()

    try:
        asyncio.run(scenario())
    finally:
        server.close()
