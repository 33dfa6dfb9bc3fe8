"""Who asks what and when: arrivals, clients that take turns, conversations, and their bodies."""

from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import sqrt
from random import Random
from typing import Any, Final, Protocol

import orjson

from aiproxy.reference_server.simulate.clock import Clock
from aiproxy.reference_server.simulate.scenario import Phase, Scenario, Template
from aiproxy.reference_server.simulate.spreads import fixed
from aiproxy.reference_server.simulate.world import Client

#: As many bytes as a token has by the router's own estimate.
_WORD: Final = "ask "
_MOST_FILLED: Final = 1_000_000
_PAUSE: Final = fixed(1.0)
_ANSWER: Final = "An answer."
_STREAMING: Final = (":generateContent", ":streamGenerateContent")


@dataclass(slots=True)
class Request:
    """One request as its client sends it. ``patience_s``: it leaves after so long."""

    template: Template
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    client: Client
    patience_s: float | None = None


class Service(Protocol):
    """Where requests go; ``over`` is called when one has ended. ``False``: no more are taken."""

    def ask(self, request: Request, over: Callable[[], None]) -> bool: ...


@dataclass(slots=True)
class Talk:
    """A conversation: how many turns are left, and what was said."""

    id: str
    template: Template
    left: int
    turns: list[Mapping[str, Any]] = field(default_factory=list)
    tokens: int = 0


class Traffic:
    """Sets the phases of a scenario going on a clock."""

    def __init__(self, scenario: Scenario, clock: Clock, random: Random, service: Service) -> None:
        self._scenario = scenario
        self._clock = clock
        self._random = random
        self._service = service
        self._templates = [one for one in scenario.templates if one.weight > 0]
        self._edges = list(accumulate(one.weight for one in self._templates))
        self._ready: dict[tuple[str, bool], bytes] = {}
        self._talks = 0
        self._open = True

    def begin(self) -> None:
        start = 0.0
        for phase in self._scenario.phases:
            end = min(start + phase.for_s, self._scenario.duration_s)
            if start < end:
                self._clock.at(start, self._enter, (phase, start, end))
            start += phase.for_s

    def _enter(self, told: tuple[Phase, float, float]) -> None:
        phase, start, end = told
        if phase.clients is None:
            self._clock.at(start, _Arrivals(self, phase, start, end).next)
            return
        think = phase.think or _PAUSE
        for _ in range(phase.clients):
            first = think.draw(self._random) * self._random.random()
            self._clock.after(first, _Asking(self, phase, end).next)

    # --- asking ----------------------------------------------------------------------------------

    def ask(self, over: Callable[[], None]) -> bool:
        """Make one request, and the turns that follow it; ``over`` when all have ended."""
        template = self._templates[0]
        if len(self._templates) > 1:
            edges = self._edges
            template = self._templates[
                min(bisect(edges, self._random.random() * edges[-1]), len(edges) - 1)
            ]
        if template.turns is None:
            return self._send(self._request(template, None), over)
        self._talks += 1
        left = max(1, int(template.turns.draw(self._random)))
        return self._turn(Talk(f"sim-{self._talks}", template, left), over)

    def _turn(self, talk: Talk, over: Callable[[], None]) -> bool:
        talk.left -= 1
        request = self._request(talk.template, talk)

        def following(_: Any) -> None:
            self._turn(talk, over)

        def ended() -> None:
            pause = (talk.template.pause or _PAUSE).draw(self._random)
            later = self._clock.now + pause
            if talk.left < 1 or later >= self._scenario.duration_s:
                over()
            else:
                self._clock.at(later, following)

        return self._send(request, ended)

    def _send(self, request: Request, over: Callable[[], None]) -> bool:
        if not self._open:
            return False
        self._open = self._service.ask(request, over)
        return self._open

    # --- bodies ----------------------------------------------------------------------------------

    def _request(self, template: Template, talk: Talk | None) -> Request:
        random = self._random
        prompt = _count(template.prompt_tokens, random)
        made = _count(template.output_tokens, random)
        stream = None if template.stream is None else random.random() < template.stream
        patience = None if template.patience is None else template.patience.draw(random)
        path, query, headers = template.path, "", template.headers
        if path.endswith(_STREAMING):
            if stream is not None:
                path = path.rpartition(":")[0] + _STREAMING[stream]
                stream = None
            query = "alt=sse" if path.endswith(_STREAMING[1]) else ""
        client = Client(prompt, made)
        if talk is not None:
            headers = (*headers, ("x-ai-conversation-id", talk.id))
            body = _told(template.body, prompt, talk)
            if prompt is not None:
                client.prompt_tokens = talk.tokens + prompt
                talk.tokens += prompt + (made or 0)
            raw = orjson.dumps(_streamed(body, stream))
        elif prompt is not None:
            raw = orjson.dumps(_streamed(filled(template.body, prompt), stream))
        else:
            key = (template.name, bool(stream))
            ready = self._ready.get(key)
            if ready is None:
                ready = self._ready[key] = orjson.dumps(_streamed(template.body, stream))
            raw = ready
        return Request(template, path, query, headers, raw, client, patience)


class _Arrivals:
    """Requests of an open phase, whoever is still waiting."""

    __slots__ = ("_end", "_made", "_phase", "_start", "_traffic")

    def __init__(self, traffic: Traffic, phase: Phase, start: float, end: float) -> None:
        self._traffic = traffic
        self._phase = phase
        self._start = start
        self._end = end
        self._made = 0
        if phase.arrivals == "poisson":
            self._made = -1  # the first moment is drawn like any other

    def next(self, _: Any) -> None:
        traffic = self._traffic
        if self._made >= 0 and not traffic.ask(_nothing):
            return
        self._made += 1
        moment = self._moment()
        if moment is not None and moment < self._end:
            traffic._clock.at(moment, self.next)

    def _moment(self) -> float | None:
        """Return when the following request comes, ``None`` for never."""
        phase, traffic = self._phase, self._traffic
        rate = phase.rate or 0.0
        last = rate if phase.ramp_to is None else phase.ramp_to
        most = max(rate, last)
        if most <= 0:
            return None
        slope = (last - rate) / phase.for_s
        if phase.arrivals == "poisson":
            random = traffic._random
            moment = traffic._clock.now
            while moment < self._end:
                moment += random.expovariate(most)
                if random.random() * most < rate + slope * (moment - self._start):
                    return moment
            return None
        if slope == 0:
            return self._start + self._made / rate
        under = rate * rate + 2 * slope * self._made
        return None if under < 0 else self._start + (sqrt(under) - rate) / slope


class _Asking:
    """One client of a closed phase: asks, waits for the answer, thinks."""

    __slots__ = ("_end", "_phase", "_traffic")

    def __init__(self, traffic: Traffic, phase: Phase, end: float) -> None:
        self._traffic = traffic
        self._phase = phase
        self._end = end

    def next(self, _: Any) -> None:
        if self._traffic._clock.now < self._end:
            self._traffic.ask(self._answered)

    def _answered(self) -> None:
        traffic = self._traffic
        think = (self._phase.think or _PAUSE).draw(traffic._random)
        traffic._clock.after(max(think, 1e-6), self.next)


def _nothing() -> None:
    pass


def _count(spread: Any, random: Random) -> int | None:
    return None if spread is None else int(spread.draw(random))


def _streamed(body: Mapping[str, Any], stream: bool | None) -> Mapping[str, Any]:
    return body if stream is None else {**body, "stream": stream}


def filled(body: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """Return the body with its last text filled up to about so many tokens."""
    found = dict(body)
    for key in ("messages", "input", "contents"):
        turns = found.get(key)
        if isinstance(turns, list) and turns and isinstance(turns[-1], Mapping):
            found[key] = [*turns[:-1], _filled_turn(turns[-1], tokens)]
            return found
    for key in ("input", "prompt"):
        if isinstance(found.get(key), str):
            found[key] = _filled_text(found[key], tokens)
            return found
    return found


def _filled_turn(turn: Mapping[str, Any], tokens: int) -> Mapping[str, Any]:
    for key in ("content", "parts"):
        content = turn.get(key)
        if isinstance(content, str):
            return {**turn, key: _filled_text(content, tokens)}
        if isinstance(content, list):
            for index, part in enumerate(content):
                if isinstance(part, Mapping) and isinstance(part.get("text"), str):
                    text = {**part, "text": _filled_text(part["text"], tokens)}
                    return {**turn, key: [*content[:index], text, *content[index + 1 :]]}
    return turn


def _filled_text(text: str, tokens: int) -> str:
    missing = min(tokens, _MOST_FILLED) - len(text.encode()) // len(_WORD)
    return f"{text} {_WORD * missing}".rstrip() if missing > 0 else text


def _told(body: Mapping[str, Any], prompt: int | None, talk: Talk) -> dict[str, Any]:
    """Return the body of the next turn: what was said before, then what the body says."""
    found = dict(body) if prompt is None else filled(body, prompt)
    for key in ("messages", "input", "contents"):
        given = found.get(key)
        if isinstance(given, str) and key == "input":
            given = [{"role": "user", "content": given}]
        if not isinstance(given, list) or not all(isinstance(one, Mapping) for one in given):
            continue
        asked: Sequence[Mapping[str, Any]] = given[-1:]
        found[key] = [*(given[:-1]), *talk.turns, *asked]
        reply: Mapping[str, Any] = {"role": "assistant", "content": _ANSWER}
        if key == "contents":
            reply = {"role": "model", "parts": [{"text": _ANSWER}]}
        talk.turns += [*asked, reply]
        break
    return found
