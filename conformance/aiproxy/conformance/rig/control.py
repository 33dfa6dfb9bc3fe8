"""The control port: fake providers in another process, told what to do over loopback HTTP.

Every request but ``GET /health`` carries ``Authorization: Bearer TOKEN``. Bodies are JSON.

==========  =======================  ==========================================================
``GET``     ``/health``              ``{"status": "ok"}``
``GET``     ``/fleet``               the actors that are open, and the secret of the proofs
``PUT``     ``/actors``              ``{"actors": [...], "ports": {id: port}}`` opens some;
                                     those of the same id are closed first
``DELETE``  ``/actors``              a list of ids closes them
``PUT``     ``/script/NONCE``        ``{id: {"acts": [...], "always": {...}}}``; ``-`` is no nonce
``PUT``     ``/habit/ID``            an act, or ``null`` for health
``POST``    ``/shut/ID``             the provider vanishes; ``/reopen/ID`` brings it back
``GET``     ``/attempts``            everything that arrived
``GET``     ``/attempts/NONCE``      what arrived with a nonce; with ``?idle_s=S`` it waits until
                                     none of it is being answered
==========  =======================  ==========================================================
"""

import asyncio
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Any, Final, Self

from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Actor, Fake
from aiproxy.conformance.rig.guard import HarnessFault
from aiproxy.conformance.rig.http1 import Request
from aiproxy.conformance.rig.shapes.requests import bearer
from aiproxy.conformance.rig.upstreams import Reply, Upstreams

NO_NONCE: Final = "-"
_LONGEST_WAIT_S: Final = 60.0


class Control:
    """Serves the control port of ``upstreams`` on loopback until the ``with`` block ends.

    ``token`` is made up when none is given.
    """

    def __init__(self, upstreams: Upstreams, *, port: int = 0, token: str = "") -> None:
        self.token = token or secrets.token_urlsafe(24)
        self._upstreams, self._port = upstreams, port
        self._front = Upstreams()
        self.url = ""

    def __enter__(self) -> Self:
        """Begin to listen.

        Raises:
            OSError: the port is taken.
        """
        actor = Actor("control", Fake(), "control", "", "", self.token)
        self._front.route("control", "/", self._serve)
        opened = self._front.open([actor], {"control": self._port} if self._port else None)
        self.url = opened["control"].endpoint.removesuffix("/v1")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._front.close_all()

    async def _serve(self, request: Request, _: Actor) -> Reply:
        if (request.method, request.path) == ("GET", "/health"):
            return _reply({"status": "ok"})
        if not hmac.compare_digest(bearer(request).encode(), self.token.encode()):
            return _refusal(401, "the control port wants its bearer token")
        first, _slash, rest = request.path.strip("/").partition("/")
        work = self._WORK.get((request.method, first))
        if work is None:
            return _refusal(404, f"no such thing: {request.method} {request.path}")
        try:
            body = json.loads(request.body) if request.body else None
            return _reply(await asyncio.to_thread(work, self, rest, body, request.query))
        except HarnessFault as fault:
            return _refusal(500, str(fault))
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as fault:
            return _refusal(400, f"{type(fault).__name__}: {fault}")

    def _fleet(self, rest: str, body: Any, query: Mapping[str, str]) -> Any:
        rows = [actor_json(actor) for actor in self._upstreams.actors.values()]
        return {"secret": self._upstreams.secret.hex(), "actors": rows}

    def _open(self, rest: str, body: Any, query: Mapping[str, str]) -> Any:
        actors = [actor_from_json(row) for row in body["actors"]]
        self._upstreams.close([actor.id for actor in actors])
        opened = self._upstreams.open(actors, body.get("ports"))
        return [actor_json(actor) for actor in opened.values()]

    def _close(self, rest: str, body: Any, query: Mapping[str, str]) -> Any:
        self._upstreams.close(body)
        return {}

    def _script(self, nonce: str, body: Any, query: Mapping[str, str]) -> Any:
        for provider_id, told in body.items():
            always = told.get("always")
            self._upstreams.script(
                "" if nonce == NO_NONCE else nonce,
                provider_id,
                [Act.from_json(act) for act in told.get("acts", ())],
                None if always is None else Act.from_json(always),
            )
        return {}

    def _habit(self, provider_id: str, body: Any, query: Mapping[str, str]) -> Any:
        self._upstreams.habit(provider_id, None if body is None else Act.from_json(body))
        return {}

    def _shut(self, provider_id: str, body: Any, query: Mapping[str, str]) -> Any:
        self._upstreams.shut(provider_id)
        return {}

    def _reopen(self, provider_id: str, body: Any, query: Mapping[str, str]) -> Any:
        self._upstreams.reopen(provider_id)
        return {}

    def _attempts(self, nonce: str, body: Any, query: Mapping[str, str]) -> Any:
        if not nonce:
            return {"attempts": [one.as_json() for one in self._upstreams.everything()]}
        nonce = "" if nonce == NO_NONCE else nonce
        idle = True
        if "idle_s" in query:
            idle = self._upstreams.wait_idle(nonce, min(_LONGEST_WAIT_S, float(query["idle_s"])))
        attempts = [one.as_json() for one in self._upstreams.attempts(nonce)]
        return {"idle": idle, "attempts": attempts}

    _WORK: Final[dict[tuple[str, str], Callable[..., Any]]] = {
        ("GET", "fleet"): _fleet,
        ("PUT", "actors"): _open,
        ("DELETE", "actors"): _close,
        ("PUT", "script"): _script,
        ("PUT", "habit"): _habit,
        ("POST", "shut"): _shut,
        ("POST", "reopen"): _reopen,
        ("GET", "attempts"): _attempts,
    }


def actor_json(actor: Actor) -> dict[str, Any]:
    """Return an actor as JSON data; of its fake what is not at its default."""
    plain = Fake()
    fake = {k: v for k, v in asdict(actor.fake).items() if v != getattr(plain, k)}
    return {**asdict(actor), "fake": fake}


def actor_from_json(data: Mapping[str, Any]) -> Actor:
    """Return the actor that ``actor_json`` described.

    Raises:
        TypeError, KeyError: unknown or missing members.
    """
    fake = dict(data["fake"])
    if "capabilities" in fake:
        fake["capabilities"] = tuple(fake["capabilities"])
    return Actor(**{**data, "fake": Fake(**fake)})


def _reply(data: Any, status: int = 200) -> Reply:
    return Reply(status, body=json.dumps(data).encode())


def _refusal(status: int, message: str) -> Reply:
    return _reply({"error": {"message": message}}, status)
