"""Fake providers behind a control port, with the interface of ``Upstreams``."""

import json
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import httpx

from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.control import NO_NONCE, actor_from_json, actor_json
from aiproxy.conformance.rig.fleet import Actor
from aiproxy.conformance.rig.guard import HarnessFault
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.rig.proof import Proofs

_PATIENCE_S: Final = 30.0


class RemoteUpstreams:
    """What ``Upstreams`` does, done by the process that owns the control port.

    Every method raises ``HarnessFault`` when that process cannot be reached or refuses.
    """

    def __init__(self, control_url: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=control_url.rstrip("/"),
            headers={"Authorization": f"Bearer {token}"},
            timeout=_PATIENCE_S,
            trust_env=False,
        )
        self._opened: set[str] = set()
        self._proofs: Proofs | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close_all()
        self._client.close()

    @property
    def actors(self) -> Mapping[str, Actor]:
        """The actors that are open there, by id, whoever opened them."""
        rows = self._ask("GET", "/fleet")["actors"]
        return {row["id"]: actor_from_json(row) for row in rows}

    def open(
        self, actors: Iterable[Actor], ports: Mapping[str, int] | None = None
    ) -> dict[str, Actor]:
        """Open actors there; one of the same id is closed first. See ``Upstreams.open``."""
        asked = {"actors": [actor_json(actor) for actor in actors], "ports": dict(ports or {})}
        rows = self._ask("PUT", "/actors", asked)
        opened = {row["id"]: actor_from_json(row) for row in rows}
        self._opened |= set(opened)
        return opened

    def close(self, provider_ids: Iterable[str]) -> None:
        """Close some providers for good."""
        ids = list(provider_ids)
        self._ask("DELETE", "/actors", ids)
        self._opened -= set(ids)

    def close_all(self) -> None:
        """Close what was opened from here; the log stays readable."""
        if self._opened:
            self.close(sorted(self._opened))

    def shut(self, provider_id: str) -> None:
        """Let a provider vanish."""
        self._ask("POST", f"/shut/{_quoted(provider_id)}")

    def reopen(self, provider_id: str) -> None:
        """Let a provider that vanished come back."""
        self._ask("POST", f"/reopen/{_quoted(provider_id)}")

    def script(
        self, nonce: str, provider_id: str, acts: Sequence[Act], always: Act | None = None
    ) -> None:
        """Say what the next attempts for ``nonce`` at a provider get."""
        told: dict[str, Any] = {"acts": [act.as_json() for act in acts]}
        if always is not None:
            told["always"] = always.as_json()
        self._ask("PUT", f"/script/{nonce or NO_NONCE}", {provider_id: told})

    def habit(self, provider_id: str, act: Act | None) -> None:
        """Say what a provider does wherever no script speaks."""
        told = None if act is None else act.as_json()
        self._ask("PUT", f"/habit/{_quoted(provider_id)}", told)

    def attempts(self, nonce: str) -> tuple[Attempt, ...]:
        """Return what arrived with ``nonce``, in order."""
        return _attempts(self._ask("GET", f"/attempts/{nonce or NO_NONCE}"))

    def everything(self) -> tuple[Attempt, ...]:
        """Return all that arrived, in order."""
        return _attempts(self._ask("GET", "/attempts"))

    def wait_idle(self, nonce: str, timeout_s: float) -> bool:
        """Wait until no attempt for ``nonce`` is being answered; return whether that came true."""
        path = f"/attempts/{nonce or NO_NONCE}?idle_s={timeout_s}"
        return bool(self._ask("GET", path, patience_s=timeout_s + _PATIENCE_S)["idle"])

    def proof(self, nonce: str, provider_id: str) -> str:
        """Return the text that proves an answer of ``provider_id`` to ``nonce``."""
        return self._shared.proof(nonce, provider_id)

    def origin(self, text: str, nonce: str, provider_ids: Iterable[str]) -> str:
        """Return which of ``provider_ids`` made ``text``, or nothing."""
        return self._shared.origin(text, nonce, provider_ids)

    def origin_of_vector(
        self, vector: Sequence[float], nonce: str, provider_ids: Iterable[str], place: int = 0
    ) -> str:
        """Return which of ``provider_ids`` made the embedding of input ``place``, or nothing."""
        return self._shared.origin_of_vector(vector, nonce, provider_ids, place)

    @property
    def _shared(self) -> Proofs:
        if self._proofs is None:
            self._proofs = Proofs(bytes.fromhex(self._ask("GET", "/fleet")["secret"]))
        return self._proofs

    def _ask(
        self, method: str, path: str, body: Any = None, *, patience_s: float = _PATIENCE_S
    ) -> Any:
        content = b"" if method in ("GET", "POST") else json.dumps(body).encode()
        try:
            answer = self._client.request(method, path, content=content, timeout=patience_s)
            told = answer.json()
        except (httpx.HTTPError, ValueError) as fault:
            reason = str(fault) or type(fault).__name__
            raise HarnessFault(f"the control port of the fake providers: {reason}") from fault
        if answer.status_code != 200:
            raise HarnessFault(f"the control port refused: {told['error']['message']}")
        return told


def _attempts(told: Any) -> tuple[Attempt, ...]:
    return tuple(Attempt.from_json(row) for row in told["attempts"])


def _quoted(provider_id: str) -> str:
    return urllib.parse.quote(provider_id, safe="")
