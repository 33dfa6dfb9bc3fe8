"""The target as the checks see it: requests in, replies out, everything recorded and bounded."""

import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from aiproxy.conformance.rawsocket import talk
from aiproxy.conformance.redaction import Redactor
from aiproxy.conformance.reply import Reply, strict_json
from aiproxy.conformance.transport import STAYING, Answer, Leaving, Transport, Unanswered

__all__ = [
    "CHAT", "MODELS", "Allowance", "BudgetSpent", "Endpoint", "Exchange", "Reply", "Throttled",
    "UnusableUrl", "base_url", "exchange_from_json", "strict_json",
]  # fmt: skip

CHAT: Final = "/v1/chat/completions"
MODELS: Final = "/v1/models"
USER_AGENT: Final = "aiproxy-conformance"
_MOST_BYTES: Final = 8 << 20
_TRIES: Final = 3
_LONGEST_PAUSE_S: Final = 5.0

Fields = Mapping[str, str] | Sequence[tuple[str, str]]


class BudgetSpent(Exception):
    """The run made as many requests, or took as long, as it said it would at most."""


class Throttled(Exception):
    """The target keeps answering 429: that says nothing about what was asked."""


class UnusableUrl(ValueError):
    """The target is not an http or https URL with a host."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer as they may be shown: redacted and cut to size.

    ``upstream`` is what the suite's own providers saw of it and said, a text for each attempt.
    """

    label: str
    request: str
    response: str
    seconds: float
    upstream: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the exchange as plain JSON data."""
        return asdict(self)


def _patience(reply: Reply) -> float:
    """Return how long to wait after a 429, in seconds: what it says, one second, at most five."""
    told = reply.header("retry-after") or ""
    return min(float(told), _LONGEST_PAUSE_S) if told.isdecimal() else 1.0


def base_url(target: str) -> str:
    """Return the URL below which ``/v1`` lies; ``target`` may or may not end in it.

    Raises:
        UnusableUrl: no http or https URL with a host.
    """
    wrong = "the target must be a URL such as http://127.0.0.1:8080"
    try:
        parts = urlsplit(target.strip())
        port = parts.port
    except ValueError:
        raise UnusableUrl(wrong) from None
    strange = any(not "!" <= letter <= "~" for letter in target.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or strange:
        raise UnusableUrl(wrong)
    path = parts.path.rstrip("/").removesuffix("/v1")
    return f"{parts.scheme}://{parts.netloc}{path}"


def exchange_from_json(data: Mapping[str, Any]) -> Exchange:
    """Return the exchange that ``Exchange.as_json`` described."""
    return Exchange(**{**data, "upstream": tuple(data["upstream"])})


class Allowance:
    """How many requests a run may make and how long it may take; shared by all its threads."""

    def __init__(self, most: int, limit_s: float) -> None:
        self.most, self.limit_s, self.spent = most, limit_s, 0
        self._until = time.monotonic() + limit_s
        self._lock = threading.Lock()

    def take(self) -> int:
        """Return the number of the request that may be made now.

        Raises:
            BudgetSpent: there are no more, or the time is over.
        """
        with self._lock:
            end = self.end
            if end:
                raise BudgetSpent(end)
            self.spent += 1
            return self.spent

    @property
    def end(self) -> str:
        """Why no request can be made any more, or an empty string."""
        if self.spent >= self.most:
            return f"the budget of {self.most} requests is spent"
        return f"the run's {self.limit_s:g} s are over" if time.monotonic() > self._until else ""


@dataclass(frozen=True, slots=True)
class Sent:
    """When and with what a recorded request left, for whoever looks for its other side.

    ``path`` is empty for raw bytes.
    """

    begun: float
    content: bytes
    path: str = ""
    fields: tuple[tuple[str, str], ...] = ()


class Endpoint:
    """One target, one key, one budget of requests; may be used by several threads at once.

    ``exchanges`` is everything sent so far in the order it was answered, ``answers`` the replies
    and ``sent`` the requests, in the same order. ``headers`` go with each request, and so does
    ``configuring``: what a target is told by the request itself about its providers.
    """

    def __init__(
        self,
        target: str,
        *,
        api_key: str | None = None,
        budget: int = 200,
        timeout_s: float = 30.0,
        limit_s: float = 600.0,
        prefix: str = "",
        allowance: Allowance | None = None,
        headers: Mapping[str, str] | None = None,
        secrets: Iterable[str] = (),
    ) -> None:
        self.url = base_url(target)
        self.api_key, self.timeout_s = api_key, timeout_s
        self.allowance = allowance or Allowance(budget, limit_s)
        self.headers = dict(headers or {})
        self.configuring: Mapping[str, str] = {}
        self.exchanges: list[Exchange] = []
        self.answers: list[Reply] = []
        self.sent: list[Sent] = []
        self.redactor = Redactor((*((api_key,) if api_key else ()), *secrets))
        self._prefix, self._lock = prefix, threading.Lock()
        self._transport = Transport(self.url, timeout_s=timeout_s, most_bytes=_MOST_BYTES)

    @property
    def spent(self) -> int:
        """How many requests the run has made so far."""
        return self.allowance.spent

    def close(self) -> None:
        """Give back connections and the background thread."""
        self._transport.close()

    def fault(self) -> str:
        """Return why the target cannot be reached, or nothing when it answers HTTP at all."""
        try:
            self.get(MODELS)
        except Unanswered as unanswered:
            return unanswered.reason
        except Throttled:
            return ""  # it answers, if only to refuse
        return ""

    def get(self, path: str, **options: Any) -> Reply:
        """Send a GET; the options are those of ``send``."""
        return self.send("GET", path, **options)

    def post(self, path: str, body: object, **options: Any) -> Reply:
        """Send ``body`` as JSON (bytes go as they are); the options are those of ``send``."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", path, content=content, **options)

    def send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: Fields | None = None,
        authorization: str | None = "",
        chunked: bool = False,
        leaving: Leaving = STAYING,
        patient: bool = True,
    ) -> Reply:
        """Return the reply to one request.

        ``authorization`` is the whole field value; empty means the run's own key, ``None`` none.
        ``headers`` replace our own of the same name; as pairs they may repeat one.
        ``leaving`` says when we close the connection early. Without ``patient`` a 429 is an
        answer like any other.

        Raises:
            Unanswered: no answer came. BudgetSpent: the run has no requests left.
            Throttled: 429 even after waiting as told, twice.
        """
        for _ in range(_TRIES):
            reply = self._send(method, path, content, headers, authorization, chunked, leaving)
            if reply.status != 429 or not patient:
                return reply
            time.sleep(_patience(reply))
        raise Throttled("the target limits the rate (429); try later, or with a higher limit")

    def _send(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: Fields | None,
        authorization: str | None,
        chunked: bool,
        leaving: Leaving,
    ) -> Reply:
        fields = self._fields(headers or {}, authorization, content is not None)
        shown = _Shown(self.allowance.take(), f"{method} {path} HTTP/1.1", fields, content or b"")
        try:
            answer = self._transport.send(
                method, self.url + path, fields, content, chunked=chunked, leaving=leaving
            )
        except Unanswered as fault:
            self._record(shown, None, fault.reason)
            raise
        return self._record(shown, answer, "")

    def raw(self, payload: bytes, *, replies: int = 1) -> list[Reply]:
        """Send bytes as they are over one fresh connection; see ``rawsocket.talk``.

        Raises:
            Unanswered: not one complete answer. BudgetSpent: the run has no requests left.
        """
        shown = _Shown(self.allowance.take(), "(raw bytes)", (), payload)
        try:
            answers = talk(
                self.url,
                payload,
                replies=replies,
                timeout_s=min(self.timeout_s, 10.0),
                most_bytes=_MOST_BYTES,
            )
        except Unanswered as fault:
            self._record(shown, None, fault.reason)
            raise
        further = (_Shown(self.allowance.take(), "(raw bytes)", (), payload) for _ in answers[1:])
        return [
            self._record(one, answer, "")
            for one, answer in zip((shown, *further), answers, strict=True)
        ]

    def raw_head(self, method: str, path: str, *fields: str, polite: bool = True) -> bytes:
        """Return a request head with Host, the key and ``fields``; ``polite`` adds User-Agent."""
        parts = urlsplit(self.url)
        lines = [
            f"{method} {parts.path}{path} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2]}",
        ]
        if polite:
            lines += [f"User-Agent: {USER_AGENT}", "Accept: */*"]
        if self.api_key:
            lines.append(f"Authorization: Bearer {self.api_key}")
        own = {**self.headers, **self.configuring}
        lines += [f"{name}: {value}" for name, value in own.items()]
        return ("\r\n".join((*lines, *fields)) + "\r\n\r\n").encode()

    def _fields(
        self, extra: Fields, authorization: str | None, body: bool
    ) -> tuple[tuple[str, str], ...]:
        fields = {
            "User-Agent": USER_AGENT,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        if body:
            fields["Content-Type"] = "application/json"
        if authorization:
            fields["Authorization"] = authorization
        elif authorization == "" and self.api_key:
            fields["Authorization"] = f"Bearer {self.api_key}"
        fields |= self.headers
        given = tuple(extra.items() if isinstance(extra, Mapping) else extra)
        own = {name.lower() for name, _ in given}
        ours = ((name, fields[name]) for name in fields if name.lower() not in own)
        return (*ours, *given, *self.configuring.items())  # long: last, where a record is cut

    def _record(self, shown: "_Shown", answer: Answer | None, fault: str) -> Reply:
        label = f"{self._prefix}{shown.number}"
        redact = self.redactor
        if answer is None:
            response = f"(no answer: {redact.text(fault)})"
        elif not answer.status:
            response = f"(we closed the connection after {answer.seconds:.3f} s, unanswered)"
        else:
            line = f"{answer.http_version} {answer.status} {answer.reason}".rstrip()
            response = f"{redact.head(line, answer.headers)}\n\n{redact.text(answer.body)}"
            response += f"\n({answer.incomplete})" if answer.incomplete else ""
            response += "\n(we closed the connection here)" if answer.left else ""
        request = f"{redact.head(shown.first, shown.headers)}\n\n{redact.text(shown.content)}"
        seconds = answer.seconds if answer is not None else 0.0
        exchange = Exchange(label, request.strip(), response, round(seconds, 4))
        reply = Reply(answer or Answer(0, (), b""), label)
        with self._lock:
            self.exchanges.append(exchange)
            self.answers.append(reply)
            self.sent.append(Sent(shown.begun, shown.content, shown.path, shown.headers))
        return reply


class _Shown:
    """A request as it will be recorded."""

    def __init__(
        self, number: int, first: str, headers: tuple[tuple[str, str], ...], content: bytes
    ) -> None:
        self.number, self.first, self.headers, self.content = number, first, headers, content
        self.path = first.split()[1] if first.endswith("HTTP/1.1") else ""
        self.begun = time.monotonic()
