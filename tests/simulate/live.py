"""The same scenario against a real server: its providers behind sockets, its traffic in real time."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import served
from upstreams import free_port, serve_asgi

from aiproxy.reference_server.simulate import Scenario, Script, answers
from aiproxy.reference_server.simulate.clock import Clock
from aiproxy.reference_server.simulate.traffic import Request, Traffic


def smaller(scenario: Scenario, *, seconds: float, requests: int, faster: bool = True) -> Scenario:
    """The scenario in ``seconds`` with about so many requests; ``faster``: with its providers, too,
    as quick as that makes them."""
    share = seconds / scenario.duration_s
    small = scenario.scaled(share)
    if not faster:
        small = replace(small, scripts=scenario.scripts, templates=scenario.templates)
    made = sum(
        phase.for_s * ((phase.rate or 0) + (phase.ramp_to or phase.rate or 0)) / 2
        for phase in small.phases
    )
    thin = min(1.0, requests / made)
    thinned = [
        replace(
            phase,
            rate=(phase.rate or 0) * thin,
            ramp_to=None if phase.ramp_to is None else phase.ramp_to * thin,
        )
        for phase in small.phases
    ]
    return replace(small, phases=thinned)


def timetable(scenario: Scenario) -> list[tuple[float, Request]]:
    """What is sent when: traffic as the simulator makes it, to nobody."""
    clock = Clock()
    found: list[tuple[float, Request]] = []

    class Nobody:
        def ask(self, request: Request, over: Callable[[], None]) -> bool:
            found.append((clock.now, request))
            over()
            return True

    Traffic(scenario, clock, Random(f"{scenario.seed} traffic"), Nobody()).begin()
    clock.run(scenario.duration_s, 1_000_000)
    return found


class Fake:
    """A provider that behaves as its script says, in real time from ``zero`` on."""

    def __init__(self, name: str, script: Script) -> None:
        self.name = name
        self.script = script
        self.port = free_port()
        self.zero = time.monotonic()
        self.calls = 0
        self._random = Random(name)
        self._server, self._thread = serve_asgi(self._app, self.port)

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.calls += 1
        found = self.script.behave(time.monotonic() - self.zero, self._random)
        trouble = found.trouble
        request = json.loads(body) if body else {}
        dialect = "anthropic" if scope["path"].endswith("/messages") else "chat"
        said = answers.Said(
            f"live-{self.calls}", request.get("model", "m"), 1, 10, 20, f"<{self.name}>"
        )
        if trouble is not None and trouble.status is not None:
            await asyncio.sleep(found.latency_s)
            refusal = answers.refused(trouble.status, trouble.code, trouble.message)
            await _respond(send, trouble.status, b"application/json", [refusal])
        elif request.get("stream"):
            await asyncio.sleep(found.first_token_s)
            frames = answers.frames(dialect, said, 1)
            gap = found.per_token_s * said.output_tokens / len(frames)
            await _respond(send, 200, b"text/event-stream", frames, gap)
        else:
            await asyncio.sleep(found.latency_s)
            whole = answers.whole(dialect, said, request)
            await _respond(send, 200, b"application/json", [whole])


async def _respond(
    send: Any, status: int, kind: bytes, parts: list[bytes], gap_s: float = 0.0
) -> None:
    headers = [(b"content-type", kind)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(gap_s)
    await send({"type": "http.response.body", "body": b""})


def run_live(scenario: Scenario, folder: Path) -> dict[str, float]:
    """Serve the scenario with ``aiproxy serve`` and return each provider's share of the answers."""
    plan = timetable(scenario)
    otherwise = scenario.scripts.get("*", Script())
    with ExitStack() as stack:
        fakes = {}
        values = json.loads(json.dumps(scenario.config.masked()))
        for name, entry in values["providers"].items():
            fake = Fake(name, scenario.scripts.get(name, otherwise))
            stack.callback(fake.stop)
            fakes[name] = fake
            entry["endpoint"] = f"http://127.0.0.1:{fake.port}/v1"
            entry["credentials"] = {"api_key": "a-key-of-this-test"}
        server = stack.enter_context(served.serve(folder, values))
        return asyncio.run(_ask_all(server.url, plan, list(fakes.values())))


async def _ask_all(
    url: str, plan: list[tuple[float, Request]], fakes: list[Fake]
) -> dict[str, float]:
    counts: Counter[str] = Counter()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        zero = time.monotonic() + 0.2
        for fake in fakes:
            fake.zero = zero

        async def one(at: float, request: Request) -> None:
            await asyncio.sleep(max(0.0, zero + at - time.monotonic()))
            headers = {"content-type": "application/json", **dict(request.headers)}
            target = f"{url}{request.path}" + (f"?{request.query}" if request.query else "")
            async with session.post(target, data=request.body, headers=headers) as reply:
                text = await reply.text()
                named = [fake.name for fake in fakes if f"<{fake.name}>" in text]
                counts[named[0] if named else "nobody"] += 1

        await asyncio.gather(*(one(at, request) for at, request in plan))
    unanswered = counts.pop("nobody", 0)
    assert unanswered <= 0.01 * len(plan), f"{unanswered} requests were not answered"
    whole = sum(counts.values())
    return {name: count / whole for name, count in counts.items()}
