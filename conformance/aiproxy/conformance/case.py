"""One case: a nonce, what the fake providers are told to do with it, and what really happened.

The prompt carries the nonce, because gateways drop unknown headers and rewrite model names but
have to pass the prompt on. Who served is read from the proof of origin in the answer, never from
what the target says about itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote

from aiproxy.conformance.endpoint import CHAT, Endpoint, Fields
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Actor, Cast
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.transport import Leaving

RESPONSES: Final = "/v1/responses"
COMPLETIONS: Final = "/v1/completions"
EMBEDDINGS: Final = "/v1/embeddings"
PREDICT: Final = "/aiproxy/predict"
DECISIONS: Final = "/v1/routing/decisions"
DEFAULT: Final = "default"
# As the value of a field: leave that field out.
OMIT: Final = object()
_LIMIT: Final = 16
_SETTLE_S: Final = 0.5


class Upstreams(Protocol):
    """The fake providers, in this process or behind a control port."""

    def script(
        self, nonce: str, provider_id: str, acts: Sequence[Act], always: Act | None = None
    ) -> None:
        """Set the fates of the attempts with ``nonce`` at this provider."""
        ...

    def attempts(self, nonce: str) -> tuple[Attempt, ...]:
        """Return what arrived with ``nonce``, in order."""
        ...

    def everything(self) -> tuple[Attempt, ...]:
        """Return all that arrived, in order."""
        ...

    def origin(self, text: str, nonce: str, provider_ids: Iterable[str]) -> str:
        """Return which provider's proof for ``nonce`` is in ``text``, or nothing."""
        ...

    def origin_of_vector(
        self, vector: Sequence[float], nonce: str, provider_ids: Iterable[str], place: int = 0
    ) -> str:
        """Return which provider's embedding this is, or nothing."""
        ...

    def wait_idle(self, nonce: str, timeout_s: float) -> bool:
        """Wait until no attempt with ``nonce`` is being answered any more."""
        ...

    def habit(self, provider_id: str, act: Act | None) -> None:
        """Set what this provider does wherever no script speaks; ``None``: it is healthy."""
        ...

    def shut(self, provider_id: str) -> None:
        """Let a provider vanish: connections break, new ones are refused."""
        ...

    def reopen(self, provider_id: str) -> None:
        """Let a provider that vanished come back."""
        ...

    def open(
        self, actors: Iterable[Actor], ports: Mapping[str, int] | None = None
    ) -> dict[str, Actor]:
        """Give each actor its socket and return the actors with their endpoints, by id."""
        ...

    def close_all(self) -> None:
        """Close every socket; the log stays readable."""
        ...


@dataclass(frozen=True, slots=True)
class Case:
    """One nonce, and the scenario's actors. Roles are those of the scenario, and ``default``."""

    nonce: str
    cast: Cast
    endpoint: Endpoint
    upstreams: Upstreams
    default: Actor
    limit_field: str = "max_tokens"

    @property
    def model(self) -> str:
        """The public model name of the scenario's fakes, or of the default provider."""
        return self.cast.model if self.cast.actors else self.default.model

    @property
    def roles(self) -> tuple[str, ...]:
        """The scenario's own roles, in the order of the configuration."""
        return tuple(self.cast.actors)

    def actor(self, role: str) -> Actor:
        """Return the fake that plays ``role``."""
        return self.default if role == DEFAULT else self.cast[role]

    def pool(self, *roles: str) -> str:
        """Return the value of X-AI-Provider-Pool that names ``roles``; all own ones by default."""
        return ",".join(self.actor(role).id for role in roles or self.roles)

    def who(self, role: str) -> str:
        """Return ``role`` with its id, for messages."""
        known = role == DEFAULT or role in self.cast.actors
        return f"{role} ({self.actor(role).id})" if known else role or "nobody whom the suite knows"

    def script(self, role: str, *acts: Act, always: Act | None = None) -> None:
        """Tell ``role`` what to do with its first, second, ... attempt, and with later ones."""
        self.upstreams.script(self.nonce, self.actor(role).id, acts, always)

    # Requests.

    def prompt(self, text: str = "Say ok.") -> str:
        """Return ``text`` with the nonce."""
        return f"{text} ({self.nonce})"

    def messages(self, text: str = "Say ok.") -> list[dict[str, Any]]:
        """Return one user message that carries the nonce."""
        return [{"role": "user", "content": self.prompt(text)}]

    def body(self, prompt: str = "Say ok.", **fields: Any) -> dict[str, Any]:
        """Return the body of a small chat request with ``fields`` on top."""
        return _merged(
            {"model": self.model, "messages": self.messages(prompt), self.limit_field: _LIMIT},
            fields,
        )

    def chat(
        self, headers: Fields | None = None, *, prompt: str = "Say ok.", key: str | None = "",
        leave_after: int | None = None, stop_after_s: float | None = None, **fields: Any,
    ) -> Reply:  # fmt: skip
        """Send a chat; ``key`` stands in place of the world's own, ``None`` sends none.

        ``leave_after`` and ``stop_after_s`` are those of ``stream``.

        Raises:
            Unanswered: no answer came. BudgetSpent: the run has no requests left.
        """
        leaving = Leaving(leave_after, stop_after_s)
        return self.post(CHAT, self.body(prompt, **fields), headers, key=key, leaving=leaving)

    def draft(
        self, headers: Fields | None = None, *, prompt: str = "Say ok.", key: str | None = "",
        leave_after: int | None = None, stop_after_s: float | None = None, **fields: Any,
    ) -> Reply:  # fmt: skip
        """Send the draft's form to /v1/responses: a body with ``messages``."""
        leaving = Leaving(leave_after, stop_after_s)
        return self.post(RESPONSES, self.body(prompt, **fields), headers, key=key, leaving=leaving)

    def responses(
        self, headers: Fields | None = None, *, prompt: str = "Say ok.", key: str | None = "",
        leave_after: int | None = None, stop_after_s: float | None = None, **fields: Any,
    ) -> Reply:  # fmt: skip
        """Send the genuine form to /v1/responses: a body with ``input``."""
        own = {"model": self.model, "input": self.prompt(prompt), "max_output_tokens": _LIMIT}
        leaving = Leaving(leave_after, stop_after_s)
        return self.post(RESPONSES, _merged(own, fields), headers, key=key, leaving=leaving)

    def completion(
        self, headers: Fields | None = None, *, prompt: str = "Say ok.", key: str | None = "",
        leave_after: int | None = None, stop_after_s: float | None = None, **fields: Any,
    ) -> Reply:  # fmt: skip
        """Send an older text completion."""
        own = {"model": self.model, "prompt": self.prompt(prompt), "max_tokens": _LIMIT}
        leaving = Leaving(leave_after, stop_after_s)
        return self.post(COMPLETIONS, _merged(own, fields), headers, key=key, leaving=leaving)

    def embed(
        self, headers: Fields | None = None, *, prompt: str = "a text", key: str | None = "",
        **fields: Any,
    ) -> Reply:  # fmt: skip
        """Ask for embeddings of one text."""
        own = {"model": self.model, "input": self.prompt(prompt), "encoding_format": "float"}
        return self.post(EMBEDDINGS, _merged(own, fields), headers, key=key)

    def predict(
        self, headers: Fields | None = None, *, prompt: str = "Say ok.", key: str | None = "",
        **fields: Any,
    ) -> Reply:  # fmt: skip
        """Send a native prediction to /aiproxy/predict."""
        own = {"model": self.model, "input": self.prompt(prompt)}
        return self.post(PREDICT, _merged(own, fields), headers, key=key)

    def stream(
        self, headers: Fields | None = None, *, path: str = CHAT, prompt: str = "Say ok.",
        key: str | None = "", leave_after: int | None = None, stop_after_s: float | None = None,
        **fields: Any,
    ) -> Reply:  # fmt: skip
        """Ask for a stream; for one in the draft's form use ``draft(stream=True)``.

        The connection is closed early after ``leave_after`` events with data, or after
        ``stop_after_s`` seconds (the reply's status is then 0 when no head had come).
        """
        send = {CHAT: self.chat, RESPONSES: self.responses, COMPLETIONS: self.completion}[path]
        return send(
            headers, prompt=prompt, key=key, leave_after=leave_after, stop_after_s=stop_after_s,
            **{"stream": True, **fields},
        )  # fmt: skip

    def post(
        self, path: str, body: object, headers: Fields | None = None, *, key: str | None = "",
        leaving: Leaving | None = None,
    ) -> Reply:  # fmt: skip
        """Send ``body`` as it is; a 429 is an answer like any other."""
        return self.endpoint.post(
            path, body, headers=headers, authorization=f"Bearer {key}" if key else key,
            leaving=leaving or Leaving(), patient=False,
        )  # fmt: skip

    # What really happened.

    def served(self, reply: Reply) -> str:
        """Return the role whose proof of origin ``reply`` carries, or nothing."""
        role_of = {actor.id: role for role, actor in self.cast.actors.items()}
        role_of[self.default.id] = DEFAULT
        ids = tuple(role_of)
        found = self.upstreams.origin(reply.text, self.nonce, ids)
        if not found:  # ids of tool calls carry it too, and so do embeddings
            plain = reply.body.decode("utf-8", "replace")
            found = self.upstreams.origin(plain, self.nonce, ids)
        for place, vector in enumerate(() if found else vectors(reply)):
            found = found or self.upstreams.origin_of_vector(vector, self.nonce, ids, place)
        return role_of.get(found, "")

    def attempts(self, settle_s: float = _SETTLE_S) -> tuple[Attempt, ...]:
        """Return what the fakes saw of this case, in order.

        Waits up to ``settle_s`` seconds for attempts that are still being answered.
        """
        self.upstreams.wait_idle(self.nonce, settle_s)
        return self.upstreams.attempts(self.nonce)

    def tried(self) -> tuple[str, ...]:
        """Return the role of each attempt, in order; fakes of other scenarios are strangers."""
        role_of = {actor.id: role for role, actor in self.cast.actors.items()}
        role_of[self.default.id] = DEFAULT
        return tuple(role_of.get(a.provider, f"stranger {a.provider}") for a in self.attempts())

    def order(self) -> tuple[str, ...]:
        """Return the roles that were asked, each once, in order of first contact."""
        return tuple(dict.fromkeys(self.tried()))

    def decision(self, reply: Reply) -> Mapping[str, Any]:
        """Return the decision record of ``reply``; empty where the target offers none."""
        name = reply.header("x-request-id")
        if not name:
            return {}
        record = self.endpoint.get(f"{DECISIONS}/{quote(name, safe='')}")
        return record.object if record.status == 200 else {}


def vectors(reply: Reply) -> list[list[float]]:
    """Return the embeddings in ``reply``, in order."""
    data = reply.object.get("data")
    rows = data if isinstance(data, list) else []
    found = [row.get("embedding") for row in rows if isinstance(row, dict)]
    return [
        vector for vector in found
        if isinstance(vector, list) and all(isinstance(n, int | float) for n in vector)
    ]  # fmt: skip


def _merged(own: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**own, **fields}.items() if value is not OMIT}
