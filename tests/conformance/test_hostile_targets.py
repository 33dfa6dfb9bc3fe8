"""Whole runs against targets that mean harm: one clear status each, bounded in time and memory."""

import resource
import ssl
import subprocess
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from right_server import Handler, RightServer

from aiproxy.conformance import Options, Report, Status, run

OURS = {Status.HARNESS_ERROR}


class Huge(Handler):
    """Every chat is answered by 100 MB."""

    def chat(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(100 << 20))
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b" " * (1 << 20))


class Bomb(Handler):
    """Every answer is small and unpacks to 512 MB."""

    content = b""

    def serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)


class Endless(Handler):
    """Every chat is a stream without end."""

    def chat(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        while True:
            self.wfile.write(b'data: {"choices":[]}\n\n')
            time.sleep(0.001)


class Past(Handler):
    """The clock stands in 2001; the answers agree with it."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(1_000_000_000)


def bomb() -> bytes:
    pack = zlib.compressobj(9, wbits=31)
    return b"".join(pack.compress(b" " * (1 << 20)) for _ in range(512)) + pack.flush()


def bounded(handler: type[Handler], **options: Any) -> Report:
    """Run level 1 and hold what every hostile target has to get."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with RightServer(handler=handler) as server:
        report = run(server.url, Options(seed=7, timeout_s=1.0, **options))
    assert time.monotonic() - begun < 100
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 300
    assert not OURS & {result.status for result in report.results}
    assert (report.grade.level, report.exit_code) == (0, 1)
    return report


def test_answers_of_100_mb_are_cut_and_fail():
    report = bounded(Huge)
    chat = next(r for r in report.results if r.check == "AIP-API-001")
    assert chat.status is Status.FAIL
    assert "more than 8388608 bytes" in chat.reason


def test_bombs_are_not_unpacked():
    Bomb.content = bomb()
    report = bounded(Bomb)
    listed = next(r for r in report.results if r.check == "AIP-API-019")
    assert listed.status is Status.FAIL


def test_streams_without_end_are_left():
    report = bounded(Endless)
    chat = next(r for r in report.results if r.check == "AIP-API-001")
    assert chat.status is Status.FAIL
    assert "not finished after 1 s" in chat.reason


def test_a_clock_that_stands_is_named_by_one_check():
    with RightServer(handler=Past) as server:
        report = run(server.url, Options(seed=7))
    # The answers' own times are right, so the Date field alone is no reason to fail.
    assert report.grade.level == 1
    with RightServer("milliseconds", handler=Past) as server:
        report = run(server.url, Options(seed=7))
    assert [r.check for r in report.red] == ["XAI-COMPAT-017"]


def test_a_certificate_nobody_vouches_for_is_unreachable(tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
         "/CN=localhost", "-keyout", str(key), "-out", str(certificate)],
        check=False, capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("needs openssl")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = RightServer()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    report = run(server.url.replace("http:", "https:"), Options(seed=7))
    server.shutdown()
    server.server_close()
    assert report.unreachable.startswith("TLS failed: ")
    assert "\n" not in report.unreachable
    assert report.exit_code == 3
