"""The endpoint against hostile targets: bounded in time and memory, one clear reason each."""

import gzip
import json
import time

import pytest
from right_server import Handler, RightServer

from aiproxy.conformance import Options, Status, run
from aiproxy.conformance.endpoint import BudgetSpent, Endpoint, UnusableUrl, base_url, strict_json
from aiproxy.conformance.redaction import Redactor, public_url
from aiproxy.conformance.transport import Unanswered
from aiproxy.spec import validate


class Endless(Handler):
    """Streams for as long as anybody listens."""

    def route(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        while True:
            self.wfile.write(b": still here\n" * 4096)


class Bomb(Handler):
    """64 MiB of zeros in a few kilobytes."""

    def route(self) -> None:
        content = gzip.compress(bytes(64 << 20), 1)
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Dripping(Handler):
    """A head that never ends, a byte at a time: no read ever times out."""

    def route(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            self.wfile.write(b"x")
            time.sleep(0.05)


class Dropping(Handler):
    """Closes without a word."""

    def route(self) -> None:
        self.close_connection = True


class Mumbling(Handler):
    """Does not speak HTTP."""

    def route(self) -> None:
        self.close_connection = True
        self.wfile.write(b"hello there\r\n\r\n")


@pytest.mark.parametrize(("handler", "reason"), [(Endless, "more than"), (Bomb, "once unpacked")])
def test_an_answer_without_end_is_cut(handler: type[Handler], reason: str):
    with RightServer(handler=handler) as server:
        endpoint = Endpoint(server.url, timeout_s=60)
        reply = endpoint.get("/v1/models")
        endpoint.close()
    assert reason in reply.json_fault
    assert len(reply.body) <= (8 << 20) + (1 << 20)


@pytest.mark.parametrize(
    ("handler", "kind"), [(Dripping, "timeout"), (Dropping, "dropped"), (Mumbling, "dropped")]
)
def test_no_answer_has_one_reason_on_both_ways(handler: type[Handler], kind: str):
    with RightServer(handler=handler) as server:
        endpoint = Endpoint(server.url, timeout_s=0.3)
        with pytest.raises(Unanswered) as fault:
            endpoint.get("/v1/models")
        with pytest.raises(Unanswered) as raw:
            endpoint.raw(endpoint.raw_head("GET", "/v1/models"))
        endpoint.close()
    assert (fault.value.kind, raw.value.kind) == (kind, kind)
    assert all("(no answer" in exchange.response for exchange in endpoint.exchanges)


class Throttling(Handler):
    """Answers 429, always or to every third request."""

    def route(self) -> None:
        if not self.has("now-and-then") or next(self.server.numbers) % 3 == 0:
            self.send_response(429)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().route()


def test_a_rate_limit_is_waited_for_as_told():
    with RightServer("now-and-then", handler=Throttling) as server:
        report = run(server.url, Options(seed=1))
    assert (report.grade.level, report.red) == (1, ())


def test_a_rate_limit_that_stays_leaves_the_level_open():
    with RightServer(handler=Throttling) as server:
        report = run(server.url, Options(seed=1))
    statuses = {result.status for result in report.results if not result.derived_from}
    assert not statuses & {Status.FAIL, Status.WARN, Status.HARNESS_ERROR, Status.PASS}
    assert (report.grade.level, report.exit_code) == (0, 1)


def test_tls_to_a_plain_port_is_unreachable_and_says_tls():
    with RightServer() as server:
        report = run(server.url.replace("http:", "https:"))
    assert report.unreachable.startswith("TLS failed")
    assert report.exit_code == 3


def test_a_target_that_goes_away_is_unreachable_not_wrong():
    class Dying(Handler):
        def route(self) -> None:
            super().route()
            if self.path == "/v1/completions":
                self.server.socket.close()  # nobody is let in any more

    with RightServer(handler=Dying) as server:
        report = run(server.url, Options(seed=1, timeout_s=1))
        server.socket = server.socket.__class__()  # something for the server's end to close
    statuses = {result.check: result.status for result in report.results}
    assert statuses["UNI-API-002"] is Status.PASS
    assert statuses["AIP-API-037"] is Status.UNREACHABLE
    assert report.grade.level == 0


def test_the_budget_is_kept_and_what_it_stopped_was_not_run():
    with RightServer() as server:
        report = run(server.url, Options(seed=1, budget=10))
        assert len(server.log) == 10
    statuses = {result.status for result in report.results if not result.derived_from}
    assert Status.NOT_RUN in statuses
    assert Status.FAIL not in statuses
    assert (report.grade.level, report.exit_code) == (0, 1)


def test_an_endpoint_without_budget_sends_nothing():
    with RightServer() as server:
        endpoint = Endpoint(server.url, budget=0)
        with pytest.raises(BudgetSpent):
            endpoint.get("/v1/models")
        endpoint.close()
        assert server.log == []


def test_every_request_that_is_meant_to_be_right_satisfies_our_own_schema():
    with RightServer() as server:
        report = run(server.url, Options(seed=5))
    right = [
        exchange.request.partition("\n\n")[2]
        for exchange in report.exchanges
        if exchange.request.startswith("POST /v1/chat/") and " 200" in exchange.response[:13]
    ]
    bodies = [json.loads(body) for body in right if len(body) < 4096]
    assert len(bodies) > 8
    for body in bodies:
        validate(body, "requests/chat")


@pytest.mark.parametrize(
    ("target", "base"),
    [
        ("http://h:1", "http://h:1"),
        ("http://h:1/", "http://h:1"),
        ("http://h:1/v1", "http://h:1"),
        ("https://h/openai/v1/", "https://h/openai"),
        (" http://[::1]:8080/v1 ", "http://[::1]:8080"),
    ],
)
def test_the_target_may_end_in_its_version(target: str, base: str):
    assert base_url(target) == base


@pytest.mark.parametrize("target", ["", "h:1", "ftp://h", "http://", "http://h:x", "http://[::1"])
def test_what_is_no_url_is_refused(target: str):
    with pytest.raises(UnusableUrl):
        base_url(target)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"NaN", b'{"a":Infinity}', b'"\\ud800"', b'"\xff"', b"[" * 100_000, b"<html>"],
)
def test_what_is_not_json_has_a_reason(body: bytes):
    value, fault = strict_json(body)
    assert value is None
    assert fault


def test_secrets_are_masked_and_long_texts_cut():
    redact = Redactor(("secret-value",), most=40)
    assert "secret" not in redact.head("GET / HTTP/1.1", [("Authorization", "Bearer x-secret")])
    assert redact.text(b"a secret-value b") == "a [redacted] b"
    assert redact.text("sk-abcdefghijklmnopqrstuvwxyz") == "[redacted]"
    assert len(redact.text("x" * 100)) < 60
    assert public_url("https://me:pw@h:1/p?key=1#f") == "https://h:1/p"
