"""Providers are looked after apart from clients' requests (draft 12, Fig 18), on both mounts."""

import http.server
import itertools
import os
import random
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mounts import model
from upstreams import Script, free_port

from aiproxy.middleware import Gateway
from aiproxy.middleware.providers.link import links_of
from aiproxy.middleware.watching.monitor import Look, Monitor, build_monitor

sys.path.insert(0, str(Path(__file__).parents[1] / "transports"))
from faults import certificates

pytestmark = pytest.mark.requirement("XAI-FAIL-015", "ASC-HEALTH-003")

COST = {"x-ai-routing-strategy": "cost"}
ONLY_A = {**COST, "x-ai-provider-pool": "a"}


def config(fakes: Any, *, monitor: dict[str, Any] | None = None, **health: Any) -> dict[str, Any]:
    cheap, dear = model("m-a", cost_per_1k_tokens=0.001), model("m-b", cost_per_1k_tokens=0.01)
    return fakes.config(
        {"a": {"models": [cheap], "credentials": {"api_key": "key-of-a"}}, "b": [dear]},
        routing={
            "failover": {"same_provider_retries": 0},
            "health": {
                "min_samples": 5,
                "probe_after": "200ms",
                "probe_max": "10s",
                **health,
                "monitor": monitor or {},
            },
        },
    )


def until(condition: Callable[[], Any], within_s: float = 5.0) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
    return found


def looks(upstream: Any) -> list[Any]:
    return [seen for seen in upstream.seen if seen.path.endswith("/models")]


def asked(upstream: Any) -> int:
    return len(upstream.seen) - len(looks(upstream))


def fails(served: Any, times: int = 6) -> None:
    for _ in range(times):
        served.chat(ONLY_A)


def test_a_failing_provider_is_looked_at_while_nobody_asks(mount: Any, fakes: Any) -> None:
    """The looks carry the provider's own credentials, no content, and come ever more seldom."""
    fakes.a.script = Script(status=500)
    served = mount(config(fakes))
    fails(served)
    calls = asked(fakes.a)
    until(lambda: len(looks(fakes.a)) >= 4)
    found = looks(fakes.a)
    assert asked(fakes.a) == calls
    assert {seen.headers["authorization"] for seen in found} == {"Bearer key-of-a"}
    assert {(seen.path, str(seen.body)) for seen in found} == {("/v1/models", "{}")}
    gaps = [later.at - sooner.at for sooner, later in itertools.pairwise(found)]
    assert gaps[1] > 1.3 * gaps[0]
    assert gaps[2] > 1.3 * gaps[1]
    assert not looks(fakes.b)


def test_nobody_is_looked_at_while_all_is_well(mount: Any, fakes: Any) -> None:
    served = mount(config(fakes))
    assert served.chat(COST).provider == "a"
    assert served.gateway.background._thread is None
    fakes.a.script = Script(status=500)
    served.chat(COST)
    assert served.gateway.background._thread is None, "one failure is no trouble yet"


def test_the_monitor_can_be_switched_off(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=500)
    served = mount(config(fakes, monitor={"enabled": False}))
    fails(served)
    assert served.gateway.registry.by_provider["a"][0].track.open_until
    assert served.gateway.background._thread is None


def test_who_cannot_be_reached_gets_no_request_until_a_look_reaches_it(
    mount: Any, fakes: Any
) -> None:
    """Its circuit's own pauses go by, and no client waits for nobody; then the next one is the
    probe (ASC-CB-004)."""
    fakes.a.stop()
    try:
        served = mount(config(fakes, probe_max="400ms"))
        fails(served, 8)
        until(lambda: served.gateway.background.monitor.last(
            served.gateway.registry.providers["a"]
        ))  # fmt: skip
        before = len(served.gateway.registry.by_provider["a"][0].track.timeline)
        for _ in range(12):
            got = served.chat(COST)
            assert (got.provider, len(served.record(got)["attempts"])) == ("b", 1)
            time.sleep(0.1)
        track = served.gateway.registry.by_provider["a"][0].track
        assert len(track.timeline) == before
    finally:
        fakes.a.start()
    until(lambda: served.chat(COST).provider == "a")
    assert track.state(time.monotonic()) == "closed"


def test_a_server_error_keeps_nobody_out_for_longer(mount: Any, fakes: Any) -> None:
    """The list of models may be broken while answers are not: the circuit's own clock decides."""
    fakes.a.script = Script(status=500)
    served = mount(config(fakes, probe_max="300ms"))
    fails(served)
    until(lambda: looks(fakes.a))
    calls = asked(fakes.a)
    until(lambda: (served.chat(COST), asked(fakes.a) > calls)[1])


@pytest.mark.parametrize("status", [200, 401, 404])
def test_any_other_answer_shows_that_it_is_reachable(fakes: Any, status: int) -> None:
    fakes.a.script = Script(status=status, body={})
    monitor = build_monitor(*_gateway(config(fakes)))
    look = monitor.look(monitor.registry.providers["a"])
    assert (look.verdict, look.why) == ("up", str(status))


def _gateway(rows: Any) -> tuple[Gateway, dict[str, Any]]:
    made = Gateway(rows, wrapped_app=False)
    return made, links_of(made.registry.providers.values())


def test_a_redirect_is_not_followed(fakes: Any) -> None:
    fakes.a.script = Script(status=302, body={}, headers={"location": fakes.b.url + "/models"})
    monitor = build_monitor(*_gateway(config(fakes)))
    assert monitor.look(monitor.registry.providers["a"]).verdict == "up"
    assert not fakes.b.seen


def test_silence_is_ill_and_nobody_there_is_down(fakes: Any) -> None:
    rows = config(fakes, monitor={"timeout": "200ms"})
    rows["providers"]["b"]["endpoint"] = f"http://127.0.0.1:{free_port()}/v1"
    fakes.a.script = Script(delay_s=1.0)
    monitor = build_monitor(*_gateway(rows))
    looked = [monitor.look(monitor.registry.providers[name]) for name in ("a", "b")]
    assert [(look.verdict, look.why) for look in looked] == [
        ("ill", "total_timeout"),
        ("down", "connect_refused"),
    ]
    assert 150 <= looked[0].took_ms < 900


def test_one_endpoint_that_answers_is_enough(fakes: Any) -> None:
    rows = config(fakes)
    dead = f"http://127.0.0.1:{free_port()}/v1"
    del rows["providers"]["a"]["endpoint"]
    rows["providers"]["a"]["endpoints"] = [{"url": dead}, {"url": fakes.a.url}]
    monitor = build_monitor(*_gateway(rows))
    assert monitor.look(monitor.registry.providers["a"]).verdict == "up"


def test_a_provider_without_a_listing_is_only_connected_to() -> None:
    """Its credentials are sent nowhere."""
    heard: list[bytes] = []

    class Host(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            heard.append(self.rfile.read())

    server = http.server.HTTPServer(("127.0.0.1", 0), Host)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        entry = {
            "type": "azure_openai_deployments",
            "endpoint": f"http://127.0.0.1:{server.server_port}",
            "credentials": {"api_key": "key-canary"},
            "models": [{"name": "m"}],
        }
        monitor = build_monitor(*_gateway({"providers": {"a": entry}}))
        look = monitor.look(monitor.registry.providers["a"])
        assert (look.verdict, look.why) == ("up", "connected")
        until(lambda: heard)
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
    assert heard == [b""]
    assert monitor.look(monitor.registry.providers["a"]).verdict == "down"


class _Listing(http.server.BaseHTTPRequestHandler):
    """Answers any GET; keeps the credentials it was sent."""

    sent: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.sent.append(self.headers["api-key"] or self.headers["authorization"])
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize("kind", ["openai_compatible", "azure_openai_deployments"])
def test_a_look_trusts_whom_requests_trust(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A certificate that does not verify is nobody there, and is sent no credentials."""
    made = certificates(tmp_path_factory.mktemp("certs"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made["server.pem"], made["server.key"])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Listing)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    entry = {
        "type": kind,
        "endpoint": f"https://127.0.0.1:{server.server_port}",
        "credentials": {"api_key": "key-canary"},
        "models": [{"name": "m"}],
    }
    _Listing.sent.clear()
    try:
        found = []
        for tls in ({}, {"ca": str(made["ca.pem"])}):
            monitor = build_monitor(*_gateway({"providers": {"a": {**entry, "tls": tls}}}))
            found.append(monitor.look(monitor.registry.providers["a"]).verdict)
            if not tls:
                assert _Listing.sent == []
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
    assert found == ["down", "up"]
    assert _Listing.sent == (["Bearer key-canary"] if kind == "openai_compatible" else [])


def test_an_idle_provider_is_looked_at_and_ranked_last_while_it_is_down(
    mount: Any, fakes: Any
) -> None:
    served = mount(config(fakes, monitor={"interval": "200ms"}))
    assert served.chat(COST).provider == "a"
    until(lambda: len(looks(fakes.a)) >= 2 and looks(fakes.b))
    fakes.a.stop()
    try:
        until(lambda: served.gateway.registry.providers["a"].track.cooling(time.monotonic()))
        calls = len(served.gateway.decisions._rows)
        got = served.chat(COST)
        assert (got.provider, len(served.record(got)["attempts"])) == ("b", 1)
        assert len(served.gateway.decisions._rows) == calls + 1
    finally:
        fakes.a.start()
    until(lambda: served.chat(COST).provider == "a")


def test_a_provider_in_use_needs_no_look(mount: Any, fakes: Any) -> None:
    served = mount(config(fakes, monitor={"interval": "300ms"}))
    deadline = time.monotonic() + 1.2
    while time.monotonic() < deadline:
        assert served.chat(COST).provider == "a"
        time.sleep(0.05)
    assert not looks(fakes.a)
    assert looks(fakes.b)


def test_a_closed_mount_looks_at_nobody(mount: Any, fakes: Any, server: Any) -> None:
    fakes.a.script = Script(status=500)
    served = mount(config(fakes))
    fails(served)
    thread = served.gateway.background._thread
    assert thread is not None
    server.leave(served.middleware)
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_begins_anew(fakes: Any) -> None:
    """The parent's thread is not in it; the first request starts one of its own."""
    rows = config(fakes, monitor={"interval": "50ms"})
    background = Gateway(rows, wrapped_app=False).background
    background.begin()
    until(lambda: looks(fakes.a))
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, f"{background.begun} {background._thread}".encode())
        background.begin()
        time.sleep(0.3)
        alive = background._thread is not None and background._thread.is_alive()
        os.write(writing, f" {alive}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"False None True"
    background.close()


# --- when ----------------------------------------------------------------------------------------


@pytest.fixture
def monitor(fakes: Any) -> Monitor:
    return build_monitor(*_gateway(config(fakes, probe_after="1s", probe_max="8s")))


def opened(monitor: Monitor, now: float) -> Any:
    track = monitor.registry.by_provider["a"][0].track
    for _ in range(6):
        track.failed(now, lambda: 0.5)
    return track


def conclude(monitor: Monitor, now: float, verdict: Any) -> None:
    found = monitor.registry.providers["a"]
    monitor.conclude(found, Look(now, verdict, "test", 1.0))


def test_pauses_double_up_to_the_longest_and_start_over(monitor: Monitor) -> None:
    monitor.jitter = random.Random(7).random
    now = 100.0
    track = opened(monitor, now)
    pauses = []
    for _ in range(6):
        began = now
        assert not monitor.due(now)
        now += monitor.next_in(now) or 0.0
        pauses.append(now - began)
        assert [p.id for p in monitor.due(now)] == ["a"]
        assert not monitor.due(now), "one look at a time"
        conclude(monitor, now, "ill")
    for pause, usual in zip(pauses, [1, 2, 4, 8, 8, 8], strict=True):
        assert 0.75 * usual <= pause <= 0.9 * usual
    track.open_until = now
    track.succeeded(now, 10.0, 10.0)
    assert not monitor.due(now)
    assert monitor.next_in(now) is None
    opened(monitor, now)
    assert not monitor.due(now)
    assert (monitor.next_in(now) or 0.0) <= 0.9


def test_what_a_look_concludes(monitor: Monitor) -> None:
    """Down: open until after the next look. Ill: nothing. Up after that: at once half open. Up
    again: nothing."""
    track = opened(monitor, 100.0)
    monitor.due(100.0)
    assert track.open_until == 101.0
    monitor.due(100.9)
    conclude(monitor, 100.9, "down")
    assert track.open_until > 102.0
    held = track.open_until
    conclude(monitor, 102.0, "ill")
    assert track.open_until == held
    conclude(monitor, 103.0, "up")
    assert track.open_until == 103.0
    assert track.state(103.0) == "half_open"
    track.failed(104.0, lambda: 0.5)
    later = track.open_until
    conclude(monitor, 104.5, "up")
    assert track.open_until == later
    assert [(step.after, step.why) for step in track.timeline] == [
        ("open", "5 of 5 calls failed"),
        ("half_open", "reachable again"),
        ("open", "the probe failed"),
    ]


def test_a_clock_that_goes_back_puts_no_look_off(monitor: Monitor) -> None:
    opened(monitor, 10_000.0)
    monitor.due(10_000.0)
    track = monitor.registry.by_provider["a"][0].track
    track.blocked_for(50.0)
    assert not monitor.due(50.0)
    wait = monitor.next_in(50.0)
    assert wait is not None
    assert wait <= 8.0
