"""One TCP connection to a fake provider: requests in, logged and answered one after the other."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final

from aiproxy.conformance.rig.acts import HEALTHY, Act
from aiproxy.conformance.rig.answers import Author, Plan
from aiproxy.conformance.rig.fleet import Actor
from aiproxy.conformance.rig.http1 import Malformed, Request, limit, read_request
from aiproxy.conformance.rig.log import Log
from aiproxy.conformance.rig.proof import nonces
from aiproxy.conformance.rig.scripts import Scripts
from aiproxy.conformance.rig.wire import Wire

_NUMBERS: Final = count(1)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a route of one's own."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    body: bytes = b"{}"


# What serves a path of one's own: nothing leaves the request to the provider's dialect.
Handler = Callable[[Request, Actor], Reply | Awaitable[Reply | None] | None]


@dataclass(slots=True)
class Stage:
    """What all connections of one ``Upstreams`` share."""

    author: Author
    scripts: Scripts = field(default_factory=Scripts)
    log: Log = field(default_factory=Log)
    routes: dict[str, list[tuple[str, Handler]]] = field(default_factory=dict)
    connections: set["Connection"] = field(default_factory=set)
    faults: list[BaseException] = field(default_factory=list)


class Connection(asyncio.StreamReaderProtocol):
    """Serves one client of ``actor``."""

    def __init__(self, stage: Stage, actor: Actor) -> None:
        self._loop = asyncio.get_running_loop()
        self._stage, self.actor = stage, actor
        self._requests = asyncio.StreamReader(limit(), self._loop)
        super().__init__(self._requests, None, self._loop)
        self._number = next(_NUMBERS)
        self._work: asyncio.Task[None] | None = None
        self._first_byte: float | None = None
        self._left_at: float | None = None
        self._answering = False
        self._ended = False  # by ourselves

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve."""
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=0)  # "sent" means: the kernel has it
        self._writer = asyncio.StreamWriter(transport, self, self._requests, self._loop)
        self._stage.connections.add(self)
        self._work = self._loop.create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        """Note when a request begins."""
        if self._first_byte is None:
            self._first_byte = time.monotonic()
        super().data_received(data)

    def eof_received(self) -> bool:
        """The client closed: whatever is being answered ends here."""
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by the client or by ourselves."""
        self._leave()
        super().connection_lost(exc)
        self._stage.connections.discard(self)

    def end(self) -> None:
        """Break the connection off."""
        self._ended = True
        if self._work is not None:
            self._work.cancel()
        self._writer.transport.abort()

    def _leave(self) -> None:
        if self._left_at is None:
            self._left_at = time.monotonic()
            self._requests.feed_eof()
            if self._work is not None and self._answering:
                self._work.cancel()

    async def _serve(self) -> None:
        try:
            while await self._one():
                pass
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception as fault:  # noqa: BLE001 (the suite's own: told to whoever asks next)
            self._stage.faults.append(fault)
        finally:
            self._writer.close()

    async def _one(self) -> bool:
        """Serve one request; return whether another may follow."""
        try:
            request = await read_request(self._requests, self._go_on)
        except Malformed as fault:
            await self._refuse(fault)
            return False
        if request is None:
            return False
        request = replace(request, at=self._first_byte or time.monotonic())
        self._first_byte = None
        nonce = self._nonce(request)
        place, number = self._enter(nonce, request)
        act = HEALTHY
        self._answering = True
        try:
            own = await self._routed(request)
            if own is None and "/redirected" in request.path:
                own = Reply(404)
            if own is None:
                act = self._stage.scripts.next(nonce, self.actor.id)
                plan = self._stage.author.plan(request, self.actor, act, nonce, number)
            else:
                plan = Plan(own.status, own.headers, own.body)
            return await self._answer(place, request, plan, act)
        except asyncio.CancelledError:
            self._stage.log.change(place, **self._departure())
            raise
        finally:
            self._answering = False

    async def _answer(self, place: int, request: Request, plan: Plan, act: Act) -> bool:
        log = self._stage.log
        begun = False

        def began() -> None:
            nonlocal begun
            if not begun:
                begun = True
                log.change(place, answered_at=time.monotonic(), status=plan.status)

        log.change(place, fault=act.fault, usage=plan.usage)
        wire = Wire(
            self._writer,
            began,
            version=request.version,
            stays=request.stays,
            head_only=request.method == "HEAD",
        )
        try:
            await wire.send(plan, act)
        except ConnectionError:
            log.change(place, **self._departure())
            return False
        log.change(place, finished_at=time.monotonic())
        return wire.stays

    def _departure(self) -> dict[str, Any]:
        """Return what the log says of an attempt whose connection ended too early."""
        return {"gone": not self._ended, "closed_at": self._left_at or time.monotonic()}

    def _enter(self, nonce: str, request: Request) -> tuple[int, int]:
        return self._stage.log.enter(
            role=self.actor.role,
            provider=self.actor.id,
            nonce=nonce,
            at=request.at,
            method=request.method,
            path=request.target,
            headers=request.fields,
            body=request.body,
            connection=self._number,
        )

    def _nonce(self, request: Request) -> str:
        """Return the nonce of the request: the last one that is scripted, else the last one."""
        found = nonces(request.body) or nonces(request.target.encode())
        known = [one for one in found if self._stage.scripts.knows(one)]
        return (known or found or [""])[-1]

    async def _routed(self, request: Request) -> Reply | None:
        for prefix, handler in self._stage.routes.get(self.actor.id, ()):
            if request.path.startswith(prefix):
                answer = handler(request, self.actor)
                return answer if answer is None or isinstance(answer, Reply) else await answer
        return None

    async def _go_on(self) -> None:
        self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _refuse(self, fault: Malformed) -> None:
        request = Request("", "", (), fault.seen, at=self._first_byte or time.monotonic())
        place, _ = self._enter((nonces(fault.seen) or [""])[-1], request)
        now = time.monotonic()
        if self._left_at is not None:
            self._stage.log.change(place, fault="malformed", gone=True, closed_at=self._left_at)
            return
        self._stage.log.change(
            place, fault="malformed", status=400, answered_at=now, finished_at=now
        )
        self._writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n")
        self._writer.write(b"Connection: close\r\n\r\n")
        await self._writer.drain()
