"""Scripts, the log, reach, and the sockets themselves."""

import json
import resource
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from rig_client import listen, new_nonce, port_of, request_bytes

from aiproxy.conformance.rig.acts import FAULTS, Act
from aiproxy.conformance.rig.fleet import Fake, Fleet, cast
from aiproxy.conformance.rig.guard import HarnessFault
from aiproxy.conformance.rig.upstreams import Reply, Upstreams
from aiproxy.conformance.rig.wire import Wire

CHAT = "/v1/chat/completions"


def connect(actor):
    return socket.create_connection(("127.0.0.1", port_of(actor)), 5)


def authorized(actor, **more):
    return {"Authorization": f"Bearer {actor.key}", **more}


def test_acts_in_their_order_then_always(stage, nonce):
    stage.script(nonce, "a", Act(status=503), Act(status=429), always=Act(status=500))
    ask = lambda role: stage.post(role, CHAT, stage.chat(role, nonce)).status
    assert [ask("a") for _ in range(4)] == [503, 429, 500, 500]
    assert ask("b") == 200, "the other provider has no script"
    stage.script(nonce, "a", Act(status=502))
    assert [ask("a"), ask("a")] == [502, 200]
    numbers = [(attempt.role, attempt.number) for attempt in stage.upstreams.attempts(nonce)]
    assert numbers == [*(("a", n) for n in (1, 2, 3, 4)), ("b", 1), ("a", 5), ("a", 6)]


def test_scripts_of_many_nonces_at_once(stage):
    plan = {new_nonce(): 400 + place for place in range(40)}
    for nonce, status in plan.items():
        stage.script(nonce, "a", Act(status=status, wait_s=0.05), Act(status=status + 100))

    def both(nonce):
        return [stage.post("a", CHAT, stage.chat("a", nonce)).status for _ in range(2)]

    with ThreadPoolExecutor(40) as pool:
        found = dict(zip(plan, pool.map(both, plan), strict=True))
    assert found == {nonce: [status, status + 100] for nonce, status in plan.items()}
    assert len(stage.upstreams.everything()) == 80


def test_habits_and_requests_without_a_nonce(stage, nonce):
    stage.upstreams.habit(stage["a"].id, Act(status=503))
    assert stage.get("a", "/v1/models").status == 503
    assert stage.post("a", CHAT, stage.chat("a", nonce)).status == 503
    stage.script("", "a", Act(status=500))
    assert stage.get("a", "/v1/models").status == 500
    stage.upstreams.habit(stage["a"].id, None)
    assert stage.get("a", "/v1/models").status == 200


def test_the_scripted_nonce_counts_among_several(stage):
    old, new = new_nonce(), new_nonce()
    body = stage.chat("a", old)
    body["messages"].append({"role": "user", "content": f"now {new}"})
    stage.post("a", CHAT, body)
    assert len(stage.upstreams.attempts(new)) == 1
    stage.script(old, "a", Act(status=503))
    assert stage.post("a", CHAT, body).status == 503


def test_a_nonce_is_found_after_a_line_break(stage, nonce):
    body = stage.chat("a", nonce)
    body["messages"][0]["content"] = f"First line\n{nonce}\té"
    stage.post("a", CHAT, body)
    assert len(stage.upstreams.attempts(nonce)) == 1


def test_the_log_of_an_attempt(stage, nonce):
    before = time.monotonic()
    body = json.dumps(stage.chat("a", nonce, x="é")).encode()
    stage.post("a", CHAT + "?q=1", body, {"X-Two": "1", "x-two": "2"})
    (attempt,) = stage.upstreams.attempts(nonce)
    assert attempt.role == "a"
    assert attempt.provider == stage["a"].id
    assert (attempt.method, attempt.path) == ("POST", CHAT + "?q=1")
    assert attempt.headers["x-two"] == "1, 2"
    assert attempt.headers["authorization"] == f"Bearer {stage['a'].key}"
    assert attempt.body == body
    assert attempt.json["x"] == "é"
    assert before <= attempt.at <= attempt.answered_at <= attempt.finished_at <= time.monotonic()
    assert (attempt.gone, attempt.closed_at, attempt.open) == (False, None, False)
    assert type(attempt).from_json(json.loads(json.dumps(attempt.as_json()))) == attempt


def test_a_client_that_leaves_a_stream(stage, nonce):
    stage.script(nonce, "a", Act(gap_s=0.05, pieces=30, text="x" * 30))
    with stage.begin("a", stage.chat("a", nonce, stream=True)) as plug:
        while b"content" not in plug.recv(65536):
            pass
    left = time.monotonic()
    assert stage.upstreams.wait_idle(nonce, 2)
    (attempt,) = stage.upstreams.attempts(nonce)
    assert attempt.gone
    assert abs(attempt.closed_at - left) < 0.5
    assert attempt.finished_at is None


def test_waiting_has_an_end(stage, nonce):
    stage.script(nonce, "a", Act(fault="silence"))
    with stage.begin("a", stage.chat("a", nonce)) as plug:
        plug.settimeout(0.1)
        with pytest.raises(TimeoutError):
            plug.recv(1)
        assert not stage.upstreams.wait_idle(nonce, 0.05)
    assert stage.upstreams.wait_idle(nonce, 2)
    assert stage.upstreams.wait_idle("ref-neverseen000", 0)


def test_keep_alive_and_two_requests_in_one_write(stage, nonce):
    content = json.dumps(stage.chat("a", nonce)).encode()
    one = request_bytes("POST", CHAT, content, authorized(stage["a"]))
    last = request_bytes("POST", CHAT, content, authorized(stage["a"], Connection="close"))
    with connect(stage["a"]) as plug:
        plug.sendall(one)
        while b"finish_reason" not in plug.recv(65536):
            pass
        plug.sendall(one + last)
        heard = listen(plug, 5)
    assert heard.data.count(b"HTTP/1.1 200") == 2
    assert heard.end == "closed"
    assert len({attempt.connection for attempt in stage.upstreams.attempts(nonce)}) == 1


def test_chunked_requests_and_a_hundred(stage, nonce):
    content = json.dumps(stage.chat("a", nonce)).encode()
    fields = authorized(stage["a"], **{"Transfer-Encoding": "chunked", "Expect": "100-continue"})
    head = request_bytes("POST", CHAT, b"", fields).replace(b"Content-Length: 0\r\n", b"")
    head = head.replace(b"\r\n\r\n", b"\r\nContent-Type: application/json\r\n\r\n")
    half = len(content) // 2
    parts = [b"%x;ext=1\r\n%b\r\n" % (len(p), p) for p in (content[:half], content[half:])]
    with connect(stage["a"]) as plug:
        plug.sendall(head)
        assert plug.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        plug.sendall(b"".join(parts) + b"0\r\nTrailer: x\r\n\r\n")
        assert b" 200 OK" in plug.recv(65536)
    assert stage.upstreams.attempts(nonce)[0].body == content


def test_http_1_0_gets_no_chunks(stage, nonce):
    content = json.dumps(stage.chat("a", nonce, stream=True)).encode()
    request = request_bytes("POST", CHAT, content, authorized(stage["a"]))
    with connect(stage["a"]) as plug:
        plug.sendall(request.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        heard = listen(plug, 5)
    assert heard.end == "closed"
    assert heard.header("transfer-encoding") is None
    assert heard.events[-1] == "[DONE]"


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/2.0 x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        b"POST / HTTP/1.1\r\n: no name\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_logged(stage, data):
    with connect(stage["a"]) as plug:
        plug.sendall(data)
        heard = listen(plug, 5)
    assert b" 400 " in heard.data or heard.end == "reset"
    (attempt,) = stage.upstreams.everything()
    assert (attempt.fault, attempt.status, attempt.method) == ("malformed", 400, "")


def test_a_body_is_kept_up_to_16_mib(stage):
    body = b'{"x": "' + b"x" * 17 * 2**20 + b'"}'
    assert stage.post("a", CHAT, body).status == 400
    assert len(stage.upstreams.everything()[0].body) == 16 * 2**20


def test_how_providers_can_be_reached(stage_of):
    stage = stage_of(
        refused=Fake(reach="refused"), tls=Fake(reach="bad-tls"), lost=Fake(reach="no-such-host")
    )
    with pytest.raises(ConnectionRefusedError):
        connect(stage["refused"])
    assert stage["tls"].endpoint.startswith("https://127.0.0.1:")
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
        httpx.get(stage["tls"].endpoint + "/models", trust_env=False)
    lax = ssl.create_default_context()
    lax.check_hostname, lax.verify_mode = False, ssl.CERT_NONE
    key = {"Authorization": f"Bearer {stage['tls'].key}"}
    answer = httpx.get(stage["tls"].endpoint + "/models", headers=key, verify=lax, trust_env=False)
    assert answer.status_code == 200, "who does not look at the certificate is served, and seen"
    assert len(stage.upstreams.everything()) == 1
    assert stage["lost"].endpoint == f"https://{stage['lost'].id}.invalid/v1"


def test_a_provider_vanishes_and_comes_back(stage, nonce):
    stage.script(nonce, "a", Act(fault="silence"))
    with stage.begin("a", stage.chat("a", nonce)) as plug:
        plug.settimeout(0.1)
        with pytest.raises(TimeoutError):
            plug.recv(1)
        stage.upstreams.shut(stage["a"].id)
        assert listen(plug, 2).end in ("closed", "reset")
    assert not stage.upstreams.attempts(nonce)[0].gone, "it was the provider that left"
    with pytest.raises(ConnectionRefusedError):
        connect(stage["a"])
    stage.upstreams.shut(stage["a"].id)
    stage.upstreams.reopen(stage["a"].id)
    assert stage.get("a", "/v1/models").status == 200


def test_routes_of_ones_own(stage, nonce):
    seen = []

    def status(request, actor):
        seen.append((request.method, request.path, actor.id))
        return Reply(body=b'{"peer":true}') if request.path.endswith("status") else None

    async def slow(request, actor):
        return Reply(202, (("content-type", "text/plain"),), request.body)

    stage.upstreams.route(stage["a"].id, "/aiproxy/mesh", status)
    stage.upstreams.route(stage["a"].id, "/echo", slow)
    assert stage.get("a", "/aiproxy/mesh/status").json == {"peer": True}
    assert stage.get("a", "/aiproxy/mesh/other").status == 404
    assert stage.get("b", "/aiproxy/mesh/status").status == 404
    heard = stage.post("a", "/echo", nonce.encode())
    assert (heard.status, heard.body) == (202, nonce.encode())
    assert [path for _, path, _ in seen] == ["/aiproxy/mesh/status", "/aiproxy/mesh/other"]
    assert stage.upstreams.attempts(nonce)[0].status == 202


def test_200_actors_open_within_a_second(stage_of):
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1024:
        pytest.skip("fewer than 1024 open files are allowed here")
    actors = cast(Fleet({f"r{n}": Fake() for n in range(200)}), "many", 7).actors.values()
    before = time.perf_counter()
    with Upstreams() as upstreams:
        opened = upstreams.open(actors)
        took = time.perf_counter() - before
        ports = {port_of(actor) for actor in opened.values()}
        plugs = [connect(actor) for actor in opened.values()]
        for plug in plugs:
            plug.close()
    assert took < 1
    assert len(ports) == 200


def test_wanted_ports_and_ids_twice(stage):
    with Upstreams() as other:
        taken = port_of(stage["a"])
        with pytest.raises(OSError, match="in use"):
            other.open([stage.cast["a"]], {stage["a"].id: taken})
        free = socket.create_server(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        opened = other.open([stage.cast["a"]], {stage["a"].id: port})
        assert port_of(opened[stage["a"].id]) == port
        with pytest.raises(ValueError, match="open already"):
            other.open([stage.cast["a"]])


def test_the_log_stays_after_the_end_and_threads_do_not(stage, nonce):
    stage.post("a", CHAT, stage.chat("a", nonce))
    stage.upstreams.close_all()
    stage.upstreams.close_all()
    assert len(stage.upstreams.attempts(nonce)) == 1
    assert not [t for t in threading.enumerate() if t.name == "aiproxy-conformance-fakes"]
    with pytest.raises(ConnectionRefusedError):
        connect(stage["a"])


def test_the_same_secret_proves_the_same(nonce):
    one, two, other = Upstreams(b"s"), Upstreams(b"s"), Upstreams()
    assert one.proof(nonce, "x") == two.proof(nonce, "x") != other.proof(nonce, "x")
    assert one.proof(nonce, "x") != one.proof(nonce, "y")


def test_a_fault_of_the_fakes_is_told_to_whoever_asks(stage, nonce, monkeypatch):
    async def broken(self, plan, act):
        raise TypeError("our own")

    monkeypatch.setattr(Wire, "send", broken)
    stage.post("a", CHAT, stage.chat("a", nonce))
    with pytest.raises(HarnessFault, match="our own"):
        stage.upstreams.attempts(nonce)
    with pytest.raises(HarnessFault):
        stage.upstreams.script(nonce, stage["a"].id, [])


def test_a_wrong_shape_of_ours_is_a_fault_of_ours(stage, nonce, monkeypatch):
    from aiproxy.conformance.rig.shapes import chat

    monkeypatch.setattr(chat, "whole", lambda ask, said: {"choices": []})
    assert stage.post("a", CHAT, stage.chat("a", nonce)).data == b""
    with pytest.raises(HarnessFault, match="upstream/chat"):
        stage.upstreams.everything()


def test_every_fault_leaves_the_fakes_sound(stage):
    for fault in sorted(FAULTS):
        if fault in ("huge", "bomb", "endless"):
            continue
        for stream in (False, True):
            _, nonce = stage.asked(Act(fault=fault), stream=stream, quiet_s=0.03)
            assert stage.upstreams.wait_idle(nonce, 2), fault
            assert len(stage.upstreams.attempts(nonce)) == 1
