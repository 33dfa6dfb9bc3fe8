"""What one exchange asks its driver to do, and what it is told in return.

An exchange is a generator: it yields effects and receives outcomes, and never opens a socket,
reads a clock or awaits. ``asgi.py`` and ``wsgi.py`` perform the effects; the simulator and
``explain`` answer them from a script. Header names are lower case, header values are text.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Headers: TypeAlias = tuple[tuple[str, str], ...]

FailureKind: TypeAlias = Literal[
    "connect_refused",  # nothing listens, or the peer reset before it answered
    "dns_failure",
    "tls_failure",
    "connect_timeout",
    "first_byte_timeout",  # connected, but no response head in time
    "idle_timeout",  # silence inside a body
    "total_timeout",
    "reset",  # the connection broke after the response head
    "protocol_error",  # not HTTP, a bad length, a refused redirect
    "too_large",  # the body or one line is above its bound
    "app_error",  # the wrapped application raised
    "store_unavailable",  # a store that is shared with others did not answer (Consult)
]


@dataclass(slots=True)
class Call:
    """Ask a provider once. Outcome: an ``Answer`` or a ``Failure``.

    ``target`` is an absolute URL for transport ``http`` and a path for transport ``app``.
    ``headers`` are complete: nothing of the client's request is added by a transport.
    With ``stream`` a 2xx answer whose content type is ``text/event-stream`` is handed back as soon
    as its head arrived (``Answer.stream`` set, ``Answer.body`` empty); any other answer is read whole.
    All times are seconds from now; ``None`` means no limit.
    """

    transport: Literal["http", "app"]
    provider: str
    target: str
    headers: Headers
    body: bytes
    stream: bool = False
    method: str = "POST"
    connect_s: float | None = None
    first_byte_s: float | None = None
    total_s: float | None = None
    max_body_bytes: int = 64 * 1024 * 1024


@dataclass(slots=True)
class Answer:
    """A provider's response head, with its body or an open stream."""

    status: int
    headers: Headers
    body: bytes = b""
    stream: object | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """No usable answer. ``detail`` is for the decision record: no URL, credential or body text."""

    kind: FailureKind
    detail: str = ""


@dataclass(slots=True)
class Read:
    """Wait for more bytes of an open stream. Outcome: ``bytes`` (empty at the end) or ``Failure``.

    With ``soft`` an elapsed ``timeout_s`` leaves the stream open and the outcome is ``None``:
    nothing arrived, read again when you like.
    """

    stream: object
    timeout_s: float | None = None
    soft: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """Give a stream up: its connection is closed, not reused. Outcome: ``None``."""

    stream: object


@dataclass(frozen=True, slots=True)
class Wait:
    """Let ``seconds`` pass. Outcome: ``None``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Start:
    """Send the response head of a streamed reply to the client. Outcome: ``None``."""

    status: int
    headers: Headers


@dataclass(slots=True)
class Send:
    """Send bytes of a streamed reply to the client. Outcome: ``None``."""

    data: bytes


@dataclass(slots=True)
class Reply:
    """A whole response; what an exchange returns when it did not stream."""

    status: int
    headers: Headers
    body: bytes


@dataclass(slots=True)
class Consult:
    """Ask something that blocks: a shared store. Outcome: ``Told``, or a ``Failure`` when ``ask``
    raised ``OSError``; whatever else it raises is a bug and ends the exchange.

    ``ask`` runs on a thread of its own where there is an event loop, so it must not touch what the
    exchange holds.
    """

    ask: Callable[[], Any]


@dataclass(slots=True)
class Told:
    """What ``Consult.ask`` returned."""

    value: Any


@dataclass(slots=True)
class Ending:
    """What one branch of a ``Fork`` came to. ``state``: ``running`` until it is over, ``done`` with
    the ``value`` it returned, ``raised`` with its ``fault``, ``stopped`` when it was not needed any
    more."""

    state: Literal["running", "done", "raised", "stopped"] = "running"
    value: Any = None
    fault: Exception | None = None


@dataclass(slots=True)
class Fork:
    """Take the steps of several branches at the same time. Outcome: the ``endings``, in order.

    ``enough`` is asked after each ending; once it says so, what still runs is stopped: its generator
    is closed and with it every stream it had open. Branches yield anything but ``Start`` and
    ``Send``; a stream that is open when its branch returns lives on and belongs to whoever forked.
    No two branches are ever inside their own code at the same time.
    """

    branches: Sequence[Generator[Any, Any, Any]]
    enough: Callable[[Sequence[Ending]], bool] = lambda _: False
    endings: list[Ending] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.endings = [Ending() for _ in self.branches]


Effect: TypeAlias = Call | Read | Close | Wait | Start | Send | Consult | Fork
Outcome: TypeAlias = Answer | Failure | bytes | Told | list[Ending] | None
#: Returns a ``Reply``, or ``None`` when the reply was streamed with ``Start`` and ``Send``.
Flow: TypeAlias = Generator[Effect, Outcome, Reply | None]
