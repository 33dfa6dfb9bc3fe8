"""The providers of a run: they answer calls as their scripts say, in virtual time."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Any, Final

import orjson

from aiproxy.middleware.dialects.codecs import EGRESS
from aiproxy.middleware.effects import Answer, Call, Failure, FailureKind
from aiproxy.middleware.registry import Registry
from aiproxy.reference_server.simulate import answers
from aiproxy.reference_server.simulate.clock import Clock, Timer
from aiproxy.reference_server.simulate.scripts import Behaviour, Script, Trouble

#: Frames of a stream that carry text, at most: more would say nothing more about routing.
_MOST_FRAMES: Final = 6
_JSON: Final = ("content-type", "application/json")
_EVENTS: Final = ("content-type", "text/event-stream")
#: A call nobody limits is given up after this.
_PATIENCE_S: Final = 86400.0
_FAILURES: Final[Mapping[str, FailureKind]] = {
    "refused": "connect_refused",
    "dns": "dns_failure",
    "tls": "tls_failure",
    "reset": "reset",
}
_FULL: Final = answers.refused(429, "rate_limit_exceeded", "simulated: too many calls at once")
_LISTED: Final = b'{"object":"list","data":[]}'
#: Dialects in the order in which one of several at the same address is taken.
_ORDER: Final = (
    *EGRESS,
    "completions",
    "embeddings",
    "cohere_embed",
    "gemini_embed",
    "workers_ai_embed",
)

Told = Callable[["Answer | Failure"], None]


@dataclass(slots=True)
class Client:
    """What the simulated client of a request lets its providers know: the length of its prompt and
    of the answer it will get, where the scenario says so."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(slots=True)
class Place:
    """One provider: its script and the calls it has."""

    script: Script
    busy: int = 0
    calls: int = 0
    most_busy: int = 0
    #: calls that wait for their turn, each with what begins it
    waiting: "deque[Pending] | None" = None


class Stream:
    """An open stream: frames, each with the moment it arrives, and how it ends.

    ``end`` is ``b""`` for an ordinary end, a ``Failure`` for a broken connection and ``None`` for
    silence without end.
    """

    __slots__ = ("_frames", "_next", "_release", "closed", "end", "end_at")

    def __init__(
        self,
        frames: list[tuple[float, bytes]],
        end_at: float,
        end: bytes | Failure | None,
        release: Callable[[], None],
    ) -> None:
        self._frames = frames
        self._next = 0
        self.end_at = end_at
        self.end = end
        self.closed = False
        self._release = release

    def due(self) -> float | None:
        """Return when the next read has an outcome, ``None`` for never."""
        if self._next < len(self._frames):
            return self._frames[self._next][0]
        return None if self.end is None else self.end_at

    def take(self) -> bytes | Failure:
        """Return what is due."""
        if self._next < len(self._frames):
            data = self._frames[self._next][1]
            self._next += 1
            return data
        assert self.end is not None
        self.close()
        return self.end

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._release()


class Pending:
    """A call under way. ``cancel`` gives it up: its caller hears nothing more."""

    __slots__ = ("_holds", "_place", "_timer", "_world", "call", "client", "over", "since", "told")

    def __init__(
        self, world: "World", place: Place, call: Call, client: Client, told: Told
    ) -> None:
        self._world = world
        self._place = place
        self._timer: Timer | None = None
        self._holds = False
        self.call = call
        self.client = client
        self.told = told
        self.since = world.clock.now
        self.over = False

    def begin(self) -> None:
        """The provider turns to it."""
        place = self._place
        place.busy += 1
        place.most_busy = max(place.most_busy, place.busy)
        self._holds = True
        self._forget()
        self._world.answer(self, place)

    def answer_at(self, at: float, outcome: "Answer | Failure") -> None:
        """Tell the outcome at a moment, or that a time limit of the call was reached before."""
        call, since = self.call, self.since
        first = _PATIENCE_S if call.first_byte_s is None else call.first_byte_s
        total = _PATIENCE_S if call.total_s is None else call.total_s
        kind: FailureKind = "first_byte_timeout" if first <= total else "total_timeout"
        limit = since + min(first, total)
        if at > limit:
            at, outcome = limit, Failure(kind)
        self._timer = self._world.clock.at(at, self.finish, outcome)

    def never(self) -> None:
        """Nothing comes until a limit of the call is reached."""
        self.answer_at(inf, Failure("first_byte_timeout"))

    def finish(self, outcome: "Answer | Failure") -> None:
        self.over = True
        stream = getattr(outcome, "stream", None)
        if stream is None:
            self.leave()
        self.told(outcome)

    def cancel(self) -> None:
        if self.over:
            return
        self.over = True
        self._forget()
        self.leave()

    def leave(self) -> None:
        """The provider is done with it; whoever waits longest is next."""
        place = self._place
        waiting = place.waiting
        if not self._holds:
            if waiting is not None and self in waiting:
                waiting.remove(self)
            return
        self._holds = False
        place.busy -= 1
        while waiting:
            following = waiting.popleft()
            if not following.over:
                following.begin()
                break

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class World:
    """All providers of a run. ``calls`` counts what each was asked, by id."""

    def __init__(
        self,
        clock: Clock,
        registry: Registry,
        scripts: Mapping[str, Script],
        random: Random,
        wall: Callable[[], float],
    ) -> None:
        self.clock = clock
        self.random = random
        self._wall = wall
        self._registry = registry
        otherwise = scripts.get("*", Script())
        self._places = {name: Place(scripts.get(name, otherwise)) for name in registry.providers}
        self._dialects: dict[tuple[str, str, bool], str] = {}
        self._names: dict[str, dict[str, str]] = {name: {} for name in registry.providers}
        for model in registry.models:
            self._names[model.provider.id][model.upstream] = model.name

    @property
    def calls(self) -> dict[str, int]:
        return {name: place.calls for name, place in self._places.items()}

    @property
    def most_busy(self) -> dict[str, int]:
        """The most calls each provider had at once."""
        return {name: place.most_busy for name, place in self._places.items()}

    @property
    def busy(self) -> dict[str, int]:
        return {name: place.busy for name, place in self._places.items()}

    def call(self, call: Call, client: Client, told: Told) -> Pending:
        """Ask a provider; ``told`` hears the outcome, later."""
        place = self._places[call.provider]
        place.calls += 1
        pending = Pending(self, place, call, client, told)
        most = place.script.max_in_flight
        if most is None or place.busy < most:
            pending.begin()
        elif place.script.when_full == "reject" or self._crowded(place):
            pending.answer_at(self.clock.now, Answer(429, (_JSON, ("retry-after", "1")), _FULL))
        else:
            if place.waiting is None:
                place.waiting = deque()
            place.waiting.append(pending)
            pending.never()
        return pending

    def look(self, call: Call, told: Told) -> None:
        """Look whether a provider is there: no work for it, and none of its calls."""
        place = self._places[call.provider]
        pending = Pending(self, place, call, Client(), told)
        found = place.script.behave(self.clock.now, self.random)
        if found.trouble is None or not self._fails(pending, found, found.trouble):
            pending.answer_at(self.clock.now + found.latency_s, Answer(200, (_JSON,), _LISTED))

    def _crowded(self, place: Place) -> bool:
        most = place.script.max_queue
        return most is not None and len(place.waiting or ()) >= most

    # --- answering -------------------------------------------------------------------------------

    def answer(self, pending: Pending, place: Place) -> None:
        """Decide what a call meets now that the provider turns to it."""
        call = pending.call
        request: dict[str, Any] | None = None
        script = place.script
        model = None
        if script.models:
            request = _read(call.body)
            model = str(request.get("model"))
            names = self._names[call.provider]
            script = script.models.get(model) or script.models.get(names.get(model, ""), script)
        now = self.clock.now
        found = script.behave(now, self.random)
        trouble = found.trouble
        if trouble is not None and self._fails(pending, found, trouble):
            return
        if request is None:
            request = _read(call.body)
        dialect = self._dialect(call, request)
        said = self._said(pending, found, request)
        streaming = call.stream and (request.get("stream") is True or dialect == "gemini")
        if not streaming:
            if trouble is not None:  # cut, stall, error_event: of a whole answer nothing is left
                if trouble.fault == "stall":
                    pending.never()
                else:
                    pending.answer_at(now + found.latency_s, Failure("reset"))
                return
            body = answers.whole(dialect, said, request)
            pending.answer_at(now + found.latency_s, Answer(200, (_JSON,), body))
            return
        usage = b'"include_usage":true' in call.body
        frames = answers.frames(dialect, said, min(_MOST_FRAMES, said.output_tokens), usage=usage)
        stream = self._stream(pending, found, said, dialect, frames)
        pending.answer_at(now + found.first_token_s, Answer(200, (_EVENTS,), stream=stream))

    def _fails(self, pending: Pending, found: Behaviour, trouble: Trouble) -> bool:
        """Answer a call that gets no answer proper; ``False``: its stream will break."""
        at = self.clock.now + found.latency_s
        if trouble.status is not None:
            head: tuple[tuple[str, str], ...] = (_JSON,)
            if trouble.retry_after_s is not None:
                head += (("retry-after", f"{trouble.retry_after_s:g}"),)
            body = answers.refused(trouble.status, trouble.code, trouble.message)
            pending.answer_at(at, Answer(trouble.status, head, body))
        elif trouble.fault is not None and trouble.fault in _FAILURES:
            pending.answer_at(at, Failure(_FAILURES[trouble.fault]))
        elif trouble.fault == "connect_timeout":
            limit = pending.call.connect_s
            pending.answer_at(
                self.clock.now + (_PATIENCE_S if limit is None else limit),
                Failure("connect_timeout"),
            )
        elif trouble.fault == "timeout":
            pending.never()
        elif trouble.fault == "malformed":
            pending.answer_at(at, Answer(200, (_JSON,), b"simulated: not JSON"))
        else:
            return False
        return True

    def _said(self, pending: Pending, found: Behaviour, request: Mapping[str, Any]) -> answers.Said:
        client = pending.client
        given, made = client.prompt_tokens, client.output_tokens
        return answers.Said(
            id=f"sim-{pending.call.provider}-{self._places[pending.call.provider].calls}",
            model=str(request.get("model") or "simulated"),
            created=int(self._wall()),
            input_tokens=given if given is not None else max(1, len(pending.call.body) // 4),
            output_tokens=max(1, made) if made is not None else found.output_tokens,
            text=found.text,
        )

    def _stream(
        self,
        pending: Pending,
        found: Behaviour,
        said: answers.Said,
        dialect: str,
        frames: list[bytes],
    ) -> Stream:
        begun = self.clock.now + found.first_token_s
        parts = len(frames) - 1
        each = said.output_tokens / parts * found.per_token_s
        timed = [(begun + each * number, frame) for number, frame in enumerate(frames[:-1])]
        over = begun + said.output_tokens * found.per_token_s
        end: bytes | Failure | None = b""
        trouble = found.trouble
        if trouble is None:
            timed.append((over, frames[-1]))
        else:
            timed = timed[: int(trouble.after * parts)]
            over = begun + each * max(0, len(timed) - 1)
            if trouble.fault == "error_event":
                code = trouble.code or "server_error"
                message = trouble.message or "simulated failure"
                timed.append((over, answers.broken(dialect, code, message)))
            elif trouble.fault == "stall":
                end = None
            else:
                end = Failure("reset")
        return Stream(timed, over, end, pending.leave)

    def _dialect(self, call: Call, request: Mapping[str, Any]) -> str:
        """Return the dialect a call is made in: its address says so, and where two dialects share
        one, the body."""
        vectors = "messages" not in request and (
            "input" in request or "text" in request or "texts" in request or "requests" in request
        )
        key = (call.provider, call.target, vectors)
        found = self._dialects.get(key)
        if found is None:
            found = self._dialects[key] = self._look_up(call, request, vectors=vectors)
        return found

    def _look_up(self, call: Call, request: Mapping[str, Any], *, vectors: bool) -> str:
        provider = self._registry.providers[call.provider]
        upstreams = {str(request.get("model") or "")}
        upstreams.update(self._names[call.provider])
        fitting = [
            dialect
            for dialect in _ORDER
            for endpoint in provider.endpoints
            if dialect in endpoint.urls
            and any(
                call.target == endpoint.target(dialect, upstream, stream=stream)
                for upstream in upstreams
                for stream in (False, True)
            )
        ]
        embed = [d for d in fitting if "embed" in d]
        if vectors and embed:
            return embed[0]
        plain = [d for d in fitting if "embed" not in d]
        return plain[0] if plain else "chat"


def _read(body: bytes) -> dict[str, Any]:
    found = orjson.loads(body)
    return found if isinstance(found, dict) else {}
