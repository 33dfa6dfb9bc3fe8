"""Starting, draining, workers: the server as a process."""

import json
import os
import signal
import socket
import threading
import time
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Any

import pytest
from mounts import CHAT, HELLO
from served import Served, pair_config, serve, until
from upstreams import Script, Upstream

STREAM = {"model": "shared", "messages": HELLO, "stream": True}


class Streaming:
    """A chat stream that is being read."""

    def __init__(self, server: Served) -> None:
        self._link = HTTPConnection("127.0.0.1", server.port, timeout=30)
        body = json.dumps(STREAM)
        self._link.request("POST", CHAT, body, {"content-type": "application/json"})
        self.answer = self._link.getresponse()
        assert self.answer.status == 200

    def rest(self) -> bytes:
        """All that comes until the end; what came before a cut, when it is cut."""
        try:
            return self.answer.read()
        except IncompleteRead as cut:
            return cut.partial
        finally:
            self._link.close()


@pytest.fixture
def slow(upstreams: Any, tmp_path: Path) -> Any:
    """``slow(**server)``: a server whose upstream sends 6 words, one every 150 ms."""
    a, b = upstreams
    script = Script(chunks=[f"w{n} " for n in range(6)], gap_s=0.15)
    return lambda **members: (a, script, serve(tmp_path, pair_config(a, b, server=members)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_streams_finish_and_exits_0(slow: Any, number: int) -> None:
    a, script, serving = slow(drain_timeout="20s")
    a.script = script
    with serving as server:
        stream = Streaming(server)
        server.process.send_signal(number)
        until(lambda: not accepts(server.port))
        text = stream.rest()
        assert text.count(b'"w') + text.count(b"w5 ") > 0
        assert text.endswith(b"data: [DONE]\n\n")
        assert server.process.wait(10) == 0


def test_what_outlasts_the_drain_time_is_cut_visibly(slow: Any) -> None:
    a, script, serving = slow(drain_timeout="300ms")
    a.script = Script(chunks=script.chunks, gap_s=1)
    with serving as server:
        stream = Streaming(server)
        waiting: list[tuple[int, bool]] = []
        a.queue.append(Script(delay_s=20))
        later = threading.Thread(target=lambda: waiting.append(outcome(server)))
        later.start()
        until(lambda: len(a.seen) >= 2 and not a.queue)
        began = time.monotonic()
        assert server.stop() == 0
        assert 0.25 < time.monotonic() - began < 5
        assert b"[DONE]" not in stream.rest()
        later.join(10)
        assert waiting == [(503, True)]
    a.seen.clear()


def outcome(server: Served) -> tuple[int, bool]:
    """Status, and whether the answer has a request id."""
    got = server.post(CHAT, {**STREAM, "stream": False})
    return got.status, bool(got.header("x-request-id"))


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_client_that_leaves_is_noticed_and_logged(pair: Any) -> None:
    pair.a.script = Script(chunks=["w "] * 200, gap_s=0.05)
    stream = Streaming(pair.server)
    identity = stream.answer.getheader("x-request-id")
    stream.answer.close()
    stream._link.close()
    until(lambda: pair.a.seen[0].aborted, 2)
    assert pair.server.line_of(identity)["outcome"] == "aborted"


def test_a_client_that_stops_reading_is_cut_off(upstreams: Any, tmp_path: Path) -> None:
    a, b = upstreams
    a.seen.clear()
    config = pair_config(a, b, server={"write_timeout": "500ms"})
    with serve(tmp_path, config) as server, socket.socket() as plug:
        a.script = Script(chunks=["w" * 60_000] * 400)
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plug.connect(("127.0.0.1", server.port))
        body = json.dumps(STREAM).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        plug.sendall(head.encode() + body)
        until(lambda: a.seen and a.seen[0].aborted)
    a.script = Script()


def test_ready_means_ready_and_the_banner_comes_first(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        told = server.err.read_text().splitlines()
        assert told[-1] == f"listening on {server.url}"
        assert any(line.startswith("  - openai: needs OPENAI_API_KEY") for line in told)
        assert any("aiproxy-demo" in line and line.startswith("  * ") for line in told)


# --- workers -------------------------------------------------------------------------------------


def children(server: Served) -> list[int]:
    found = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [int(word) for word in found.split()]


def test_two_workers_serve_and_a_killed_one_is_replaced(upstreams: Any, tmp_path: Path) -> None:
    a, b = upstreams
    a.script = Script()
    with serve(tmp_path, pair_config(a, b), "--workers", "2") as server:
        before = children(server)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        until(lambda: len(set(children(server)) - set(before)) == 1)
        statuses = {server.post(CHAT, {**STREAM, "stream": False}).status for _ in range(20)}
        assert statuses == {200}
        assert any("starting another" in row["event"] for row in server.lines)
        assert server.err.read_text().count("listening on ") == 1
        everyone = children(server)
        assert server.stop() == 0
        assert not [pid for pid in everyone if Path(f"/proc/{pid}").exists()]


def test_workers_do_not_outlive_their_parent(upstreams: Any, tmp_path: Path) -> None:
    with serve(tmp_path, pair_config(*upstreams), "--workers", "2") as server:
        left = children(server)
        server.stop(signal.SIGKILL)
        until(lambda: not any(running(pid) for pid in left))


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_workers_that_cannot_start_end_the_server() -> None:
    from aiproxy.reference_server.workers import Workers

    code = os.fork()
    if code == 0:
        os._exit(Workers(2, lambda first: 7).run())
    assert os.waitstatus_to_exitcode(os.waitpid(code, 0)[1]) == 1


# --- a provider dies -----------------------------------------------------------------------------


def test_a_provider_killed_under_load_costs_no_client_an_error(tmp_path: Path) -> None:
    a, b = Upstream("a"), Upstream("b")
    a.start()
    b.start()
    config = pair_config(a, b)
    try:
        with serve(tmp_path, config) as server:
            told: list[tuple[int, str, str]] = []
            more = threading.Event()

            def client() -> None:
                for _ in range(25):
                    got = server.post(CHAT, {**STREAM, "stream": False})
                    about = got.json.get("x-aiproxy", {})
                    told.append((got.status, about.get("provider"), got.header("x-request-id")))
                    if len(told) > 40:
                        more.set()

            threads = [threading.Thread(target=client) for _ in range(8)]
            for thread in threads:
                thread.start()
            assert more.wait(20)
            a.stop()
            for thread in threads:
                thread.join(60)
            records = [
                (provider, server.get(f"/v1/routing/decisions/{identity}").json)
                for _, provider, identity in told
            ]
    finally:
        a.stop()
        b.stop()
    assert [row for row in told if row[0] != 200] == []
    assert len(told) == 200
    assert {row[1] for row in told} == {"a", "b"}
    for provider, record in records:
        first, last = record["attempts"][0], record["attempts"][-1]
        assert (record["selected"]["provider"], last["provider"]) == (provider, provider)
        assert (last["outcome"], record["failover"]["occurred"]) == ("ok", first is not last)
    assert any(len(record["attempts"]) == 2 for _, record in records)
