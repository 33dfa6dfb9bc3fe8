"""Tests of a gateway of your own, with fake AI providers behind it.

    pip install 'aiproxy[conformance]'
    pytest test_gateway.py

``Gateway`` stands in for yours: it asks one provider after the other. The fixture
``aiproxy_upstreams`` opens the fakes; each request's text carries a nonce, by which they are told
what to do with it and by which they remember it. A healthy answer proves which of them gave it.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

import pytest

from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Actor, Fake

BROKEN = [
    Act(status=503),
    Act(status=429, headers=(("retry-after", "1"),)),
    Act(fault="reset"),
    Act(fault="short-body"),
]


class Gateway(BaseHTTPRequestHandler):
    """Your gateway in twenty lines."""

    providers: Sequence[Actor]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status, answer = 502, b'{"error": {"message": "every provider failed"}}'
        for provider in self.providers:
            request = Request(
                f"{provider.endpoint}/chat/completions",
                json.dumps({**body, "model": provider.upstream_model}).encode(),
                {"content-type": "application/json", "authorization": f"Bearer {provider.key}"},
            )
            try:
                with urlopen(request, timeout=5) as reply:
                    status, answer = 200, reply.read()
                    break
            except (OSError, HTTPException) as fault:  # a status of 400 and above is one too
                self.log_message("%s: %r", provider.role, fault)
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture
def ask() -> Iterator[Callable[..., str]]:
    """Start the gateway in front of providers, ask it something, return the answer's bytes."""
    servers = []

    def asked(text: str, *providers: Actor) -> str:
        handler = type("Handler", (Gateway,), {"providers": providers})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        body = {"model": "any", "messages": [{"role": "user", "content": text}]}
        url = f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
        with urlopen(Request(url, json.dumps(body).encode()), timeout=30) as reply:
            return reply.read().decode()

    yield asked
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("act", BROKEN, ids=lambda act: act.fault or act.status)
def test_the_second_is_asked_when_the_first_fails(
    act: Act, aiproxy_upstreams: Any, ask: Callable[..., str]
) -> None:
    fakes = aiproxy_upstreams(a=Fake(), b=Fake())
    case = fakes.case()
    case.script("a", always=act)
    answer = ask(f"Say ok. {case.nonce}", fakes["a"], fakes["b"])
    assert case.origin(answer) == "b"
    assert case.order() == ("a", "b")


def test_nobody_else_is_asked_while_the_first_is_well(
    aiproxy_upstreams: Any, ask: Callable[..., str]
) -> None:
    fakes = aiproxy_upstreams(a=Fake(), b=Fake())
    case = fakes.case()
    assert case.origin(ask(f"Say ok. {case.nonce}", fakes["a"], fakes["b"])) == "a"
    (attempt,) = case.attempts()
    assert attempt.headers["authorization"] == f"Bearer {fakes['a'].key}"
    assert attempt.json["model"] == fakes["a"].upstream_model


def test_a_provider_that_cannot_be_reached_is_passed_over(
    aiproxy_upstreams: Any, ask: Callable[..., str]
) -> None:
    fakes = aiproxy_upstreams(gone=Fake(reach="refused"), b=Fake())
    case = fakes.case()
    answer = ask(f"Say ok. {case.nonce}", fakes["gone"], fakes["b"])
    assert (case.origin(answer), case.order()) == ("b", ("b",))
