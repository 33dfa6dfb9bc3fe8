"""The target as the checks see it: requests in, replies out, everything recorded and bounded."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from aiproxy.conformance.rawsocket import talk
from aiproxy.conformance.redaction import Redactor
from aiproxy.conformance.transport import Answer, Transport, Unanswered

CHAT: Final = "/v1/chat/completions"
MODELS: Final = "/v1/models"
USER_AGENT: Final = "aiproxy-conformance"
_MOST_BYTES: Final = 8 << 20
_TRIES: Final = 3
_LONGEST_PAUSE_S: Final = 5.0


class BudgetSpent(Exception):
    """The run made as many requests, or took as long, as it said it would at most."""


class Throttled(Exception):
    """The target keeps answering 429: that says nothing about what was asked."""


class UnusableUrl(ValueError):
    """The target is not an http or https URL with a host."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer as they may be shown: redacted and cut to size."""

    label: str
    request: str
    response: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the exchange as plain JSON data."""
        return asdict(self)


class Reply:
    """An answer, with its body read as JSON when asked for.

    ``label`` names the recorded exchange.
    """

    def __init__(self, answer: Answer, label: str) -> None:
        self.answer, self.label = answer, label
        self.status, self.body, self.headers = answer.status, answer.body, answer.headers

    def header(self, name: str) -> str | None:
        """Return the first field ``name`` (lower case), or nothing."""
        return self.answer.header(name)

    @property
    def media_type(self) -> str:
        """The media type without parameters, in lower case."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    @cached_property
    def _parsed(self) -> tuple[Any, str]:
        if self.answer.incomplete:
            return None, self.answer.incomplete
        return strict_json(self.body)

    @property
    def json(self) -> Any:
        """The body as JSON, or ``None`` when it is not."""
        return self._parsed[0]

    @property
    def json_fault(self) -> str:
        """Why the body is not JSON text, or an empty string."""
        return self._parsed[1]

    @property
    def object(self) -> Mapping[str, Any]:
        """The body as a JSON object; empty when it is anything else."""
        return self.json if isinstance(self.json, dict) else {}

    @property
    def error(self) -> Mapping[str, Any]:
        """The ``error`` object of the body; empty when there is none."""
        error = self.object.get("error")
        return error if isinstance(error, dict) else {}

    @property
    def outcome(self) -> str:
        """Status and the start of the body, for a finding."""
        shown = self.body[:120].decode("utf-8", "replace").replace("\n", " ")
        return f"{self.status} {shown}".strip()


def strict_json(body: bytes) -> tuple[Any, str]:
    """Return the JSON value of ``body`` and why there is none (empty when there is)."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as fault:
        return None, f"not UTF-8 at byte {fault.start}"
    except UnicodeEncodeError:
        return None, "a lone surrogate inside a string"
    except RecursionError:
        return None, "nested too deeply"
    except ValueError as fault:
        return None, f"not JSON ({fault})"
    return value, ""


def _patience(reply: Reply) -> float:
    """Return how long to wait after a 429, in seconds: what it says, one second, at most five."""
    told = reply.header("retry-after") or ""
    return min(float(told), _LONGEST_PAUSE_S) if told.isdecimal() else 1.0


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


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
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise UnusableUrl(wrong)
    path = parts.path.rstrip("/").removesuffix("/v1")
    return f"{parts.scheme}://{parts.netloc}{path}"


class Endpoint:
    """One target, one key, one budget of requests.

    ``exchanges`` is everything sent so far; ``answers`` the replies, in the same order.
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
    ) -> None:
        self.url = base_url(target)
        self.api_key, self.budget, self.timeout_s = api_key, budget, timeout_s
        self._limit_s, self._begun = limit_s, time.monotonic()
        self.exchanges: list[Exchange] = []
        self.answers: list[Reply] = []
        self._prefix = prefix
        self._redactor = Redactor((api_key,) if api_key else ())
        self._transport = Transport(self.url, timeout_s=timeout_s, most_bytes=_MOST_BYTES)

    @property
    def spent(self) -> int:
        """How many requests were made so far."""
        return len(self.exchanges)

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
        headers: Mapping[str, str] | None = None,
        authorization: str | None = "",
        chunked: bool = False,
    ) -> Reply:
        """Return the reply to one request.

        ``authorization`` is the whole field value; empty means the run's own key, ``None`` none.

        Raises:
            Unanswered: no answer came. BudgetSpent: the run has no requests left.
            Throttled: 429 even after waiting as told, twice.
        """
        for _ in range(_TRIES):
            reply = self._send(method, path, content, headers, authorization, chunked)
            if reply.status != 429:
                return reply
            time.sleep(_patience(reply))
        raise Throttled("the target limits the rate (429); try later, or with a higher limit")

    def _send(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str] | None,
        authorization: str | None,
        chunked: bool,
    ) -> Reply:
        fields = self._fields(headers or {}, authorization, content is not None)
        shown = (f"{method} {path} HTTP/1.1", tuple(fields.items()), content or b"")
        self._spend()
        try:
            answer = self._transport.send(
                method, self.url + path, tuple(fields.items()), content, chunked=chunked
            )
        except Unanswered as fault:
            self._record(*shown, None, fault.reason)
            raise
        return self._record(*shown, answer, "")

    def raw(self, payload: bytes, *, replies: int = 1) -> list[Reply]:
        """Send bytes as they are over one fresh connection; see ``rawsocket.talk``.

        Raises:
            Unanswered: not one complete answer. BudgetSpent: the run has no requests left.
        """
        self._spend()
        try:
            answers = talk(
                self.url,
                payload,
                replies=replies,
                timeout_s=min(self.timeout_s, 10.0),
                most_bytes=_MOST_BYTES,
            )
        except Unanswered as fault:
            self._record("(raw bytes)", (), payload, None, fault.reason)
            raise
        return [self._record("(raw bytes)", (), payload, answer, "") for answer in answers]

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
        return ("\r\n".join((*lines, *fields)) + "\r\n\r\n").encode()

    def _fields(
        self, extra: Mapping[str, str], authorization: str | None, body: bool
    ) -> dict[str, str]:
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
        return {**fields, **extra}

    def _spend(self) -> None:
        if self.spent >= self.budget:
            raise BudgetSpent(f"the budget of {self.budget} requests is spent")
        if time.monotonic() - self._begun > self._limit_s:
            raise BudgetSpent(f"the run's {self._limit_s:g} s are over")

    def _record(
        self,
        first: str,
        headers: tuple[tuple[str, str], ...],
        content: bytes,
        answer: Answer | None,
        fault: str,
    ) -> Reply:
        label = f"{self._prefix}{len(self.exchanges) + 1}"
        redact = self._redactor
        if answer is None:
            response = f"(no answer: {redact.text(fault)})"
        else:
            line = f"{answer.http_version} {answer.status} {answer.reason}".rstrip()
            response = f"{redact.head(line, answer.headers)}\n\n{redact.text(answer.body)}"
            response += f"\n({answer.incomplete})" if answer.incomplete else ""
        request = f"{redact.head(first, headers)}\n\n{redact.text(content)}".strip()
        seconds = answer.seconds if answer is not None else 0.0
        self.exchanges.append(Exchange(label, request, response, round(seconds, 4)))
        reply = Reply(answer or Answer(0, (), b""), label)
        self.answers.append(reply)
        return reply
