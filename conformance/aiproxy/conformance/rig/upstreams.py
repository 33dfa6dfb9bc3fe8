"""The fake providers of a run: one listening socket each, all served by one background thread."""

import asyncio
import secrets
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.answers import Author
from aiproxy.conformance.rig.fleet import Actor
from aiproxy.conformance.rig.guard import HarnessFault, warm
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.rig.proof import Proofs
from aiproxy.conformance.rig.tls import server_context
from aiproxy.conformance.rig.upstream_connection import Connection, Handler, Reply, Stage

__all__ = ["Attempt", "Handler", "HarnessFault", "Reply", "Upstreams"]

T = TypeVar("T")
_BACKLOG: Final = 128
_GOODBYE_S: Final = 1.0  # for sockets to be let go of


class Upstreams:
    """Fake providers on loopback sockets, scripted by the nonce a prompt carries.

    Every method may be called from any thread. Each raises ``HarnessFault`` when the fakes
    themselves went wrong: nothing they logged then says anything about the target.
    """

    def __init__(self, secret: bytes | None = None, *, host: str = "127.0.0.1") -> None:
        self.secret = secret or secrets.token_bytes(32)
        self._proofs = Proofs(self.secret)
        self._host = host
        self._stage = Stage(Author(self._proofs))
        self._actors: dict[str, Actor] = {}
        self._sockets: dict[str, socket.socket] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close_all()

    @property
    def actors(self) -> Mapping[str, Actor]:
        """The actors that were opened, by id."""
        return dict(self._actors)

    def open(
        self, actors: Iterable[Actor], ports: Mapping[str, int] | None = None
    ) -> dict[str, Actor]:
        """Give each actor its socket and return the actors with their endpoints, by id.

        ``ports`` are wanted ports by id. How an actor can be reached follows from its fake.

        Raises:
            OSError: a wanted port is taken. ValueError: an id that is open already.
        """
        warm()
        opened: dict[str, Actor] = {}
        try:
            for actor in actors:
                if actor.id in self._actors or actor.id in opened:
                    raise ValueError(f"the provider {actor.id!r} is open already")
                opened[actor.id] = self._bound(actor, (ports or {}).get(actor.id, 0))
        except (OSError, ValueError):
            for provider_id in opened.keys() & self._sockets.keys():
                self._sockets.pop(provider_id).close()
            raise
        self._actors.update(opened)
        self._run(self._listen([one for one in opened.values() if _listens(one)]))
        return opened

    def shut(self, provider_id: str) -> None:
        """Let a provider vanish: connections break, new ones are refused."""
        self._run(self._shut(provider_id))

    def reopen(self, provider_id: str) -> None:
        """Let a provider that vanished come back at its old port."""
        self._run(self._listen([self._actors[provider_id]]))

    def close(self, provider_ids: Iterable[str]) -> None:
        """Close some providers for good; their ids may be opened again."""
        self._run(self._close([one for one in provider_ids if one in self._actors]))

    def close_all(self) -> None:
        """Close every socket and end the thread; the log stays readable."""
        if self._loop is None or self._thread is None:
            return
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    def script(
        self, nonce: str, provider_id: str, acts: Sequence[Act], always: Act | None = None
    ) -> None:
        """Say what the next attempts for ``nonce`` at a provider get.

        After ``acts`` come ``always`` or healthy answers. The nonce "" stands for requests that
        carry none, such as probes of health.
        """
        self._sound()
        self._stage.scripts.set(nonce, provider_id, acts, always)

    def habit(self, provider_id: str, act: Act | None) -> None:
        """Say what a provider does wherever no script speaks; ``None`` makes it healthy again."""
        self._sound()
        self._stage.scripts.set_habit(provider_id, act)

    def route(self, provider_id: str, path_prefix: str, handler: Handler) -> None:
        """Serve paths of a provider with ``handler``, on the background thread; see ``Reply``."""
        self._stage.routes.setdefault(provider_id, []).append((path_prefix, handler))

    def attempts(self, nonce: str) -> tuple[Attempt, ...]:
        """Return what arrived with ``nonce``, in order."""
        self._sound()
        return self._stage.log.attempts(nonce)

    def everything(self) -> tuple[Attempt, ...]:
        """Return all that arrived, in order."""
        self._sound()
        return self._stage.log.everything()

    def wait_idle(self, nonce: str, timeout_s: float) -> bool:
        """Wait until no attempt for ``nonce`` is being answered; return whether that came true."""
        idle = self._stage.log.wait_idle(nonce, timeout_s)
        self._sound()
        return idle

    def proof(self, nonce: str, provider_id: str) -> str:
        """Return the text that proves an answer of ``provider_id`` to ``nonce``."""
        return self._proofs.proof(nonce, provider_id)

    def origin(self, text: str, nonce: str, provider_ids: Iterable[str]) -> str:
        """Return which of ``provider_ids`` made ``text`` or a tool call's id in it, or nothing."""
        return self._proofs.origin(text, nonce, provider_ids)

    def origin_of_vector(
        self, vector: Sequence[float], nonce: str, provider_ids: Iterable[str], place: int = 0
    ) -> str:
        """Return which of ``provider_ids`` made the embedding of input ``place``, or nothing."""
        return self._proofs.origin_of_vector(vector, nonce, provider_ids, place)

    def _sound(self) -> None:
        if self._stage.faults:
            first = self._stage.faults[0]
            raise HarnessFault(f"a fake provider failed: {first!r}") from first

    def _bound(self, actor: Actor, port: int) -> Actor:
        if actor.fake.reach == "no-such-host":
            return replace(actor, endpoint=f"https://{actor.id}.invalid/v1")
        plug = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            plug.bind((self._host, port))
            plug.setblocking(False)
        except BaseException:
            plug.close()
            raise
        self._sockets[actor.id] = plug
        scheme = "https" if actor.fake.reach == "bad-tls" else "http"
        return replace(actor, endpoint=f"{scheme}://{self._host}:{plug.getsockname()[1]}/v1")

    async def _listen(self, actors: Sequence[Actor]) -> None:
        loop = asyncio.get_running_loop()
        for actor in actors:
            self._servers[actor.id] = await loop.create_server(
                self._connections_of(actor),
                sock=self._sockets[actor.id],
                ssl=server_context() if actor.fake.reach == "bad-tls" else None,
                backlog=_BACKLOG,
            )

    def _connections_of(self, actor: Actor) -> Callable[[], Connection]:
        return lambda: Connection(self._stage, actor)

    async def _deaf(self, provider_ids: Sequence[str]) -> None:
        """Close listening sockets; what was accepted a moment ago needs its server to begin."""
        for provider_id in provider_ids:
            asyncio.get_running_loop().remove_reader(self._sockets[provider_id])
        await asyncio.sleep(0)
        for provider_id in provider_ids:
            self._servers.pop(provider_id).close()

    async def _close(self, provider_ids: Sequence[str]) -> None:
        await self._deaf([one for one in provider_ids if one in self._servers])
        for one in provider_ids:
            self._break(one)
            del self._actors[one]
            if one in self._sockets:  # not those of which only the name is wrong
                self._sockets.pop(one).close()

    def _break(self, provider_id: str) -> None:
        for connection in [c for c in self._stage.connections if c.actor.id == provider_id]:
            connection.end()

    async def _shut(self, provider_id: str) -> None:
        if provider_id not in self._servers:
            return
        port = self._sockets[provider_id].getsockname()[1]
        await self._deaf([provider_id])  # and the port is bound again, without listening
        self._break(provider_id)
        self._bound(self._actors[provider_id], port)

    async def _end(self) -> None:
        await self._deaf(list(self._servers))
        for plug in self._sockets.values():
            plug.close()
        self._sockets.clear()
        self._actors.clear()
        patience = time.monotonic() + _GOODBYE_S
        while time.monotonic() < patience:
            for connection in list(self._stage.connections):
                connection.end()
            if asyncio.all_tasks() == {asyncio.current_task()} and not self._stage.connections:
                break
            await asyncio.sleep(0)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` on the background thread, which begins with the first of it."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="aiproxy-conformance-fakes", daemon=True
            )
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _listens(actor: Actor) -> bool:
    return actor.fake.reach not in ("refused", "no-such-host")
