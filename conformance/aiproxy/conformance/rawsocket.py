"""HTTP/1.1 by hand, for what an HTTP library would never send.

Reads answers with just enough parsing to know where they end. Bounded by one deadline and one
size, whatever the other side does.
"""

import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiproxy.conformance.transport import Answer, Unanswered


@dataclass(slots=True)
class _Reader:
    connection: socket.socket
    deadline: float
    most_bytes: int
    held: bytes = b""
    taken: int = 0

    def more(self) -> bool:
        """Read once; say whether anything came before the other side closed."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
        piece = self.connection.recv(65536)
        self.held += piece
        self.taken += len(piece)
        if self.taken > self.most_bytes:
            raise Unanswered("dropped", f"more than {self.most_bytes} bytes")
        return bool(piece)

    def until(self, mark: bytes) -> bytes:
        while mark not in self.held:
            if not self.more():
                raise Unanswered("dropped", "connection closed inside an answer")
        found, _, self.held = self.held.partition(mark)
        return found

    def exactly(self, size: int) -> bytes:
        while len(self.held) < size:
            if not self.more():
                raise Unanswered("dropped", "connection closed inside a body")
        found, self.held = self.held[:size], self.held[size:]
        return found

    def rest(self) -> bytes:
        while self.more():
            pass
        found, self.held = self.held, b""
        return found


def talk(
    url: str, payload: bytes, *, replies: int, timeout_s: float, most_bytes: int
) -> list[Answer]:
    """Send ``payload`` as it is and return up to ``replies`` answers from that one connection.

    Raises:
        Unanswered: no connection, or not one complete answer.
    """
    try:
        with _connect(url, timeout_s) as connection:
            connection.sendall(payload)
            reader = _Reader(connection, time.monotonic() + timeout_s, most_bytes)
            return _answers(reader, replies)
    except TimeoutError:
        raise Unanswered("timeout", f"no answer within {timeout_s:g} s") from None
    except ConnectionRefusedError as fault:
        raise Unanswered("refused", f"connection failed: {fault.strerror}") from None
    except OSError as fault:
        raise Unanswered("dropped", f"connection broke: {fault}") from None


def _answers(reader: _Reader, replies: int) -> list[Answer]:
    answers: list[Answer] = []
    while len(answers) < replies:
        try:
            answer = _answer(reader)
        except (Unanswered, TimeoutError, OSError):
            if answers:
                break
            raise
        if answer.status >= 200:  # 1xx is only a promise
            answers.append(answer)
    return answers


def _connect(url: str, timeout_s: float) -> socket.socket:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = socket.create_connection((parts.hostname or "", port), timeout_s)
    if parts.scheme != "https":
        return connection
    try:
        return ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname)
    except BaseException:
        connection.close()
        raise


def _answer(reader: _Reader) -> Answer:
    lines = reader.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    code, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or not code.isdigit():
        raise Unanswered("dropped", f"not an HTTP/1 status line: {lines[0][:60]!r}")
    headers = tuple(
        (name.strip().lower(), value.strip())
        for name, _, value in (line.partition(":") for line in lines[1:])
    )
    answer = Answer(int(code), headers, b"", http_version=version, reason=reason)
    if answer.status < 200 or answer.status in (204, 304):
        return answer
    if "chunked" in (answer.header("transfer-encoding") or "").lower():
        body = _chunks(reader)
    elif (length := answer.header("content-length") or "").isdigit():
        body = reader.exactly(int(length))
    else:
        body = reader.rest()
    return Answer(answer.status, headers, body, http_version=version, reason=reason)


def _chunks(reader: _Reader) -> bytes:
    body = b""
    while True:
        size_text = reader.until(b"\r\n").split(b";")[0].strip()
        try:
            size = int(size_text, 16)
        except ValueError:
            raise Unanswered("dropped", "a chunk without a size") from None
        if size == 0:
            while reader.until(b"\r\n"):
                pass
            return body
        body += reader.exactly(size)
        reader.exactly(2)
