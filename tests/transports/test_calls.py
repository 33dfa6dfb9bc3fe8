"""One call, one outcome: every way a provider can answer or fail, on both transports."""

import socket
import ssl
import time

import pytest
from transport_faults import (
    OK_BODY,
    FaultServer,
    refusing_port,
    unanswering_port,
)

from aiproxy.middleware.effects import Answer, Call, Failure
from aiproxy.middleware.providers.link import Link, Tls


def a_call(target, **changes):
    defaults = {
        "transport": "http",
        "provider": "p",
        "target": target,
        "headers": (("content-type", "application/json"),),
        "body": b"{}",
        "connect_s": 5.0,
        "first_byte_s": 5.0,
        "total_s": 8.0,
    }
    return Call(**defaults | changes)


LIMITED = {"first_byte_s": 0.3, "total_s": 0.5}

FAILURES = [
    ("rst", {}, "connect_refused"),
    ("fin", {}, "connect_refused"),
    ("no_head", LIMITED, "first_byte_timeout"),
    ("no_head", {"first_byte_s": None, "total_s": 0.3}, "total_timeout"),
    ("slow_head", LIMITED, "first_byte_timeout"),
    ("half_head", {}, "reset"),
    ("half_head_rst", {}, "reset"),
    ("stall_body", LIMITED, "total_timeout"),
    ("short_length", {}, "protocol_error"),
    ("rst_body", {}, "reset"),
    ("bad_length", {}, "protocol_error"),
    ("huge_header", {}, "too_large"),
    ("not_http", {}, "protocol_error"),
    ("chunked_cut", {}, "reset"),
    ("chunked_bad", {}, "protocol_error"),
    ("bomb", {"max_body_bytes": 1_000_000}, "too_large"),
    ("bad_gzip", {}, "protocol_error"),
    ("brotli", {}, "protocol_error"),
    ("large", {"max_body_bytes": 4_999_999}, "too_large"),
    ("endless", {"max_body_bytes": 1_000_000}, "too_large"),
]


@pytest.mark.parametrize(("name", "changes", "kind"), FAILURES)
def test_each_fault_is_named(face, server, name, changes, kind):
    began = time.monotonic()
    outcome = face.call(a_call(server.url(name), **changes))
    assert isinstance(outcome, Failure), outcome
    assert outcome.kind == kind
    assert time.monotonic() - began < 2
    assert "127.0.0.1" not in outcome.detail
    assert len(server.requests) == 1  # nothing was repeated


ANSWERS = [
    ("ok", 200, OK_BODY),
    ("dribble", 200, b"x" * 200),
    ("chunked", 200, b"one,two"),
    ("until_close", 200, b"all of it"),
    ("early_hints", 200, OK_BODY),
    ("gzipped", 200, OK_BODY),
    ("redirect", 302, b""),
    ("events_error", 429, b"wait"),
]


@pytest.mark.parametrize(("name", "status", "body"), ANSWERS)
def test_each_answer_is_read_whole(face, server, name, status, body):
    outcome = face.call(a_call(server.url(name), stream=True))
    assert isinstance(outcome, Answer), outcome
    assert (outcome.status, outcome.body, outcome.stream) == (status, body, None)
    assert "content-encoding" not in dict(outcome.headers)
    assert len(server.requests) == 1


def test_a_body_of_exactly_its_bound_is_read(face, server):
    outcome = face.call(a_call(server.url("ok"), max_body_bytes=len(OK_BODY)))
    assert isinstance(outcome, Answer)
    assert outcome.body == OK_BODY


def test_the_request_is_sent_as_it_is_given(face, server):
    headers = (("content-type", "application/json"), ("x-thing", "One, two"))
    target = server.url("a%2Fb:go/echo") + "?x=%20y&z=a%2Bb"
    outcome = face.call(a_call(target, headers=headers, body=b"12345"))
    assert isinstance(outcome, Answer)
    sent = server.requests[0]
    assert (sent.method, sent.target, sent.body) == (
        "POST",
        "/a%2Fb:go/echo?x=%20y&z=a%2Bb",
        b"12345",
    )
    assert sorted(sent.headers) == [
        ("accept-encoding", "identity"),
        ("content-length", "5"),
        ("content-type", "application/json"),
        ("host", f"127.0.0.1:{server.port}"),
        ("x-thing", "One, two"),
    ]
    assert [value for name, value in outcome.headers if name == "x-twice"] == ["a", "b"]


def test_an_accept_encoding_of_the_call_stands(face, server):
    face.call(a_call(server.url("ok"), headers=(("accept-encoding", "gzip"),)))
    sent = [value for name, value in server.requests[0].headers if name == "accept-encoding"]
    assert sent == ["gzip"]


def test_a_large_body_is_sent_in_one_piece(face, server):
    outcome = face.call(a_call(server.url("echo"), body=b"x" * 3_000_000))
    assert isinstance(outcome, Answer)
    assert outcome.body.startswith(b"POST /echo 3000000\n")


def test_a_get_has_no_body_and_is_not_repeated(face, server):
    outcome = face.call(a_call(server.url("rst"), method="GET", body=b"", headers=()))
    assert isinstance(outcome, Failure)
    assert [(r.method, r.body) for r in server.requests] == [("GET", b"")]


def test_a_refused_connection(face):
    with refusing_port() as port:
        outcome = face.call(a_call(f"http://127.0.0.1:{port}/"))
    assert isinstance(outcome, Failure)
    assert outcome.kind == "connect_refused"


def test_a_connection_that_is_never_made(face):
    with unanswering_port() as port:
        outcome = face.call(a_call(f"http://127.0.0.1:{port}/", connect_s=0.2))
    assert isinstance(outcome, Failure)
    assert outcome.kind == "connect_timeout"


def test_a_name_that_does_not_resolve(face, monkeypatch):
    def unknown(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    outcome = face.call(a_call("http://no-such-host.invalid/"))
    assert outcome == Failure("dns_failure", "the host name does not resolve")


@pytest.mark.parametrize(
    "target", ["ftp://127.0.0.1/x", "nonsense", "http:///x", "http://h:99999/"]
)
def test_a_target_that_is_no_http_url(face, target):
    outcome = face.call(a_call(target))
    assert isinstance(outcome, Failure)
    assert outcome.kind == "protocol_error"


def test_a_header_that_cannot_be_written(face, server):
    outcome = face.call(a_call(server.url("ok"), headers=(("x-evil", "a\r\nx-injected: b"),)))
    assert isinstance(outcome, Failure)
    assert outcome.kind == "protocol_error"
    assert server.requests == []


@pytest.mark.parametrize("pause_s", [0.05, 0.2])
def test_a_stale_pooled_connection_is_not_the_callers_failure(face, server, pause_s):
    for _ in range(6):
        outcome = face.call(a_call(server.url("idle_close")))
        assert isinstance(outcome, Answer), outcome
        assert outcome.body == OK_BODY
        face.idle(pause_s)  # for the farewell to arrive


@pytest.mark.parametrize("name", ["once", "once_rst"])
def test_a_request_that_was_read_is_not_sent_again(face, server, name):
    """AIP-FAIL-004: whoever counts attempts hears of it, and no provider reads it twice."""
    assert isinstance(face.call(a_call(server.url(name))), Answer)
    outcome = face.call(a_call(server.url(name)))
    assert isinstance(outcome, Failure)
    assert outcome.kind == "connect_refused"
    assert len(server.requests) == 2


def test_a_failure_after_the_first_byte_of_a_reused_connection_stands(face, server):
    assert isinstance(face.call(a_call(server.url("once_then_half_head"))), Answer)
    outcome = face.call(a_call(server.url("once_then_half_head")))
    assert isinstance(outcome, Failure)
    assert outcome.kind == "reset"
    assert len(server.requests) == 2


def test_a_new_connection_that_breaks_is_not_repeated(face, server):
    assert isinstance(face.call(a_call(server.url("fin"))), Failure)
    assert len(server.requests) == 1


def test_connections_are_reused(face, server):
    for name in ("ok", "chunked", "gzipped", "redirect", "ok"):
        assert isinstance(face.call(a_call(server.url(name))), Answer)
    assert server.connections == 1


@pytest.mark.parametrize("name", ["too_long", "too_long_later"])
def test_an_unsolicited_answer_never_reaches_a_later_call(face, server, name):
    face.call(a_call(server.url(name)))
    time.sleep(0.1)  # the surplus has to arrive while the connection is idle
    outcome = face.call(a_call(server.url("echo")))
    assert isinstance(outcome, Answer), outcome
    assert outcome.body.startswith(b"POST /echo 2\n")


def tls_server(certs, *, client_ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs["server.pem"], certs["server.key"])
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return FaultServer(tls=context)


def test_a_certificate_nobody_vouches_for_is_refused(face, certs):
    server = tls_server(certs)
    try:
        outcome = face.call(a_call(server.url("ok")))
        assert outcome == Failure("tls_failure", "the certificate does not verify")
        assert server.requests == []
    finally:
        server.close()


def test_plain_http_where_tls_is_expected(face, server):
    outcome = face.call(a_call(server.url("ok").replace("http:", "https:"), connect_s=2.0))
    assert isinstance(outcome, Failure)
    assert outcome.kind in ("tls_failure", "connect_refused")


def test_the_authority_of_a_provider_is_its_own(face_class, certs):
    server = tls_server(certs)
    face = face_class({"p": Link(tls=Tls(ca=str(certs["ca.pem"])))})
    try:
        for _ in range(2):
            outcome = face.call(a_call(server.url("ok")))
            assert isinstance(outcome, Answer), outcome
        assert server.connections == 1
        other = face.call(a_call(server.url("ok"), provider="other"))
        assert isinstance(other, Failure)
        assert other.kind == "tls_failure"
    finally:
        face.close()
        server.close()


def test_a_client_certificate_is_shown(face_class, certs):
    server = tls_server(certs, client_ca=certs["ca.pem"])
    tls = Tls(str(certs["ca.pem"]), str(certs["client.pem"]), str(certs["client.key"]))
    face = face_class({"p": Link(tls=tls), "bare": Link(tls=Tls(ca=str(certs["ca.pem"])))})
    try:
        assert isinstance(face.call(a_call(server.url("ok"))), Answer)
        outcome = face.call(a_call(server.url("ok"), provider="bare"))
        assert isinstance(outcome, Failure)
        assert outcome.kind == "tls_failure"
    finally:
        face.close()
        server.close()


def test_an_expected_ca_file_that_is_missing_is_an_outcome(face_class):
    face = face_class({"p": Link(tls=Tls(ca="/nonexistent/ca.pem"))})
    try:
        outcome = face.call(a_call("https://127.0.0.1:1/"))
    finally:
        face.close()
    assert isinstance(outcome, Failure)


def test_no_app_is_wrapped(face):
    outcome = face.call(a_call("/v1/chat/completions", transport="app"))
    assert outcome == Failure("app_error", "no application is wrapped")
