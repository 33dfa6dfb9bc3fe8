"""A provider made of raw sockets that misbehaves on demand: the path of a request names the fault.

Requests are counted, and so are connections the peer has closed, so that a test can see what
really went over the wire.
"""

import contextlib
import gzip
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

OK_BODY = b'{"ok":true}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + OK_BODY
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass
class Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class Connection:
    """One accepted connection; ``nth`` counts its requests from 1."""

    socket: socket.socket
    server: "FaultServer"
    nth: int = 0

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def hold(self) -> None:
        """Say nothing until the peer hangs up or the server stops."""
        self.socket.settimeout(10)
        with contextlib.suppress(OSError):
            while self.socket.recv(65536):
                pass
        self.server.hangups.append(time.monotonic())
        self.server.hung_up.set()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


#: Each returns True to go on with the connection.
Fault = Callable[[Connection, Request], bool]
FAULTS: dict[str, Fault] = {}


def fault(function: Callable[[Connection, Request], bool | None]) -> Fault:
    FAULTS[function.__name__] = lambda connection, request: bool(function(connection, request))
    return FAULTS[function.__name__]


@fault
def ok(c: Connection, r: Request) -> bool:
    c.send(OK)
    return True


@fault
def echo(c: Connection, r: Request) -> bool:
    lines = "\n".join(f"{name}: {value}" for name, value in r.headers)
    body = f"{r.method} {r.target} {len(r.body)}\n{lines}".encode()
    c.send(b"HTTP/1.1 200 OK\r\nX-Twice: a\r\nx-twice: b\r\nContent-Length: %d\r\n\r\n" % len(body))
    c.send(body)
    return True


@fault
def rst(c: Connection, r: Request) -> None:
    c.reset()


@fault
def fin(c: Connection, r: Request) -> None:
    """Close without a word."""


@fault
def no_head(c: Connection, r: Request) -> None:
    c.hold()


@fault
def slow_head(c: Connection, r: Request) -> None:
    """One byte each 20 ms: 40 bytes and more than every limit of the tests."""
    with contextlib.suppress(OSError):
        for byte in OK:
            c.send(bytes([byte]))
            if c.server.stopping.wait(0.02):
                return


@fault
def half_head(c: Connection, r: Request) -> None:
    c.send(b"HTTP/1.1 200 OK\r\nContent-")


@fault
def half_head_rst(c: Connection, r: Request) -> None:
    c.send(b"HTTP/1.1 200 OK\r\nContent-")
    time.sleep(0.05)  # the bytes must be read before the reset discards them
    c.reset()


@fault
def dribble(c: Connection, r: Request) -> bool:
    body = b"x" * 200
    c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n")
    for byte in body:
        c.send(bytes([byte]))
    return True


@fault
def stall_body(c: Connection, r: Request) -> None:
    c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    c.hold()


@fault
def short_length(c: Connection, r: Request) -> None:
    c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


@fault
def rst_body(c: Connection, r: Request) -> None:
    c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    time.sleep(0.05)
    c.reset()


@fault
def bad_length(c: Connection, r: Request) -> None:
    c.send(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n")
    c.hold()


@fault
def too_long(c: Connection, r: Request) -> bool:
    """An answer with another whole answer stuck to it."""
    c.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    return True


@fault
def too_long_later(c: Connection, r: Request) -> bool:
    c.send(OK)
    time.sleep(0.05)
    c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    return True


@fault
def huge_header(c: Connection, r: Request) -> None:
    with contextlib.suppress(OSError):
        c.send(b"HTTP/1.1 200 OK\r\nX-Huge: " + b"h" * 300_000 + b"\r\n\r\n")
    c.hold()


@fault
def not_http(c: Connection, r: Request) -> None:
    c.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


@fault
def chunked(c: Connection, r: Request) -> bool:
    c.send(b"HTTP/1.1 200 OK\r\n" + CHUNKED, chunk(b"one,"), chunk(b"two"), b"0\r\n\r\n")
    return True


@fault
def chunked_cut(c: Connection, r: Request) -> None:
    c.send(b"HTTP/1.1 200 OK\r\n" + CHUNKED, chunk(b"one"), b"ff\r\ntwo")


@fault
def chunked_bad(c: Connection, r: Request) -> None:
    c.send(b"HTTP/1.1 200 OK\r\n" + CHUNKED, chunk(b"one"), b"zz\r\ntwo")
    c.hold()


@fault
def until_close(c: Connection, r: Request) -> None:
    c.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")


@fault
def early_hints(c: Connection, r: Request) -> bool:
    c.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK)
    return True


@fault
def gzipped(c: Connection, r: Request) -> bool:
    body = gzip.compress(OK_BODY)
    c.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body))
    c.send(body)
    return True


@fault
def bomb(c: Connection, r: Request) -> bool:
    body = gzip.compress(b"0" * 20_000_000)
    c.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body))
    c.send(body)
    return True


@fault
def bad_gzip(c: Connection, r: Request) -> bool:
    c.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope")
    return True


@fault
def brotli(c: Connection, r: Request) -> bool:
    c.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 4\r\n\r\nnope")
    return True


@fault
def redirect(c: Connection, r: Request) -> bool:
    c.send(
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.invalid/\r\nContent-Length: 0\r\n\r\n"
    )
    return True


@fault
def large(c: Connection, r: Request) -> None:
    c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n")
    with contextlib.suppress(OSError):
        c.send(b"x" * 5_000_000)


@fault
def endless(c: Connection, r: Request) -> None:
    with contextlib.suppress(OSError):
        c.send(b"HTTP/1.1 200 OK\r\n" + CHUNKED)
        while not c.server.stopping.is_set():
            c.send(chunk(b"x" * 65536))


@fault
def idle_close(c: Connection, r: Request) -> None:
    """Answer well, promise keep-alive by saying nothing of close, and hang up at once."""
    c.send(OK)


@fault
def once(c: Connection, r: Request) -> bool:
    """Answer the first request of a connection; hang up on reading the second."""
    if c.nth == 1:
        c.send(OK)
        return True
    return False


@fault
def once_rst(c: Connection, r: Request) -> bool:
    if c.nth == 1:
        c.send(OK)
        return True
    c.reset()
    return False


@fault
def once_then_half_head(c: Connection, r: Request) -> bool:
    if c.nth == 1:
        c.send(OK)
        return True
    c.send(b"HTTP/1.1 2")
    return False


@fault
def events(c: Connection, r: Request) -> bool:
    """Three events, each when the test says so."""
    c.send(EVENTS + CHUNKED)
    for number in range(3):
        c.server.wait_for_step()
        c.send(chunk(b"data: %d\n\n" % number))
    c.server.wait_for_step()
    c.send(b"0\r\n\r\n")
    return True


@fault
def events_split(c: Connection, r: Request) -> bool:
    """Chunk framing cut into single bytes, each when the test says so."""
    c.send(EVENTS + CHUNKED)
    for byte in chunk(b"data: 1\n\n") + chunk(b"data: 2\n\n") + b"0\r\nX-Trailer: 1\r\n\r\n":
        c.server.wait_for_step()
        c.send(bytes([byte]))
    return True


@fault
def events_stall(c: Connection, r: Request) -> None:
    c.send(EVENTS + CHUNKED, chunk(b"data: 1\n\n"))
    c.hold()


@fault
def events_cut(c: Connection, r: Request) -> None:
    c.send(EVENTS + CHUNKED, chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n"))


@fault
def events_rst(c: Connection, r: Request) -> None:
    c.send(EVENTS + CHUNKED, chunk(b"data: 1\n\n"))
    c.server.wait_for_step()
    c.reset()


@fault
def events_gzip(c: Connection, r: Request) -> bool:
    c.send(EVENTS + b"Content-Encoding: gzip\r\n" + CHUNKED)
    body = gzip.compress(b"data: 1\n\ndata: 2\n\n")
    c.send(chunk(body[:7]), chunk(body[7:]), b"0\r\n\r\n")
    return True


@fault
def events_error(c: Connection, r: Request) -> bool:
    c.send(b"HTTP/1.1 429 Slow\r\nContent-Type: text/event-stream\r\nContent-Length: 4\r\n\r\nwait")
    return True


@dataclass
class FaultServer:
    """Listens on a port of 127.0.0.1 (with TLS when a context is given)."""

    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    hangups: list[float] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)
    connections: int = 0

    def __post_init__(self) -> None:
        self._steps = threading.Semaphore(0)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def url(self, name: str) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/{name}"

    def step(self, count: int = 1) -> None:
        """Let a fault that waits go on."""
        self._steps.release(count)

    def wait_for_step(self) -> None:
        assert self._steps.acquire(timeout=10), "the test never said to go on"

    def close(self) -> None:
        self.stopping.set()
        self._steps.release(1000)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for opened in list(self._open):
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a fault hangs"

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(accepted,), daemon=True)
            self._threads.append(thread)
            thread.start()

    @staticmethod
    def _secured(accepted: socket.socket, tls: ssl.SSLContext) -> ssl.SSLSocket:
        with accepted.dup() as kept:
            try:
                return tls.wrap_socket(accepted, server_side=True)
            except OSError:
                # closed with something unread, the connection would be reset and the alert lost
                _read_out(kept)
                raise

    def _serve(self, accepted: socket.socket) -> None:
        opened = accepted
        self._open.add(accepted)
        try:
            if self.tls is not None:
                opened = self._secured(accepted, self.tls)
                self._open.add(opened)
            connection = Connection(opened, self)
            with opened.makefile("rb") as lines:
                while (request := _request(lines)) is not None:
                    self.requests.append(request)
                    connection.nth += 1
                    name = request.target.partition("?")[0].rpartition("/")[2]
                    if not FAULTS[name](connection, request):
                        return
        except OSError:
            return  # the peer went away, which several tests mean it to do
        finally:
            self._open.discard(accepted)
            self._open.discard(opened)
            opened.close()


def _read_out(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.settimeout(2)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass


def _request(lines: object) -> Request | None:
    line = lines.readline()  # type: ignore[attr-defined]
    if not line.endswith(b" HTTP/1.1\r\n"):
        return None
    method, target, _ = line.decode("latin-1").split()
    headers = []
    while (line := lines.readline().strip()) != b"":  # type: ignore[attr-defined]
        name, _, value = line.decode("latin-1").partition(": ")
        headers.append((name.lower(), value))
    body = lines.read(int(dict(headers).get("content-length", "0")))  # type: ignore[attr-defined]
    return Request(method, target, headers, body)


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port that is taken and not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextlib.contextmanager
def unanswering_port() -> Iterator[int]:
    """A port whose backlog is full: connecting hangs."""
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", port))
        yield port


def certificates(folder: Path) -> dict[str, Path]:
    """Make an authority, a server certificate for 127.0.0.1 and a client certificate."""
    made = {name: folder / name for name in ("ca.pem", "ca.key")}
    subject = ["-subj", "/CN=test authority"]
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-keyout", str(made["ca.key"]), "-out", str(made["ca.pem"]), *subject,
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    for who, extension in (
        ("server", "subjectAltName=IP:127.0.0.1"),
        ("client", "extendedKeyUsage=clientAuth"),
    ):
        key, request, cert = (folder / f"{who}.{end}" for end in ("key", "csr", "pem"))
        extensions = folder / f"{who}.ext"
        extensions.write_text(f"{extension}\nauthorityKeyIdentifier=keyid\n")
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", str(key), "-out", str(request), "-subj", f"/CN={who}",
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", str(request), "-CA", str(made["ca.pem"]), "-CAkey",
            str(made["ca.key"]), "-CAcreateserial", "-days", "2", "-out", str(cert),
            "-extfile", str(extensions),
        )  # fmt: skip
        made |= {f"{who}.key": key, f"{who}.pem": cert}
    return made


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
