"""One request while it is being served: what its attempts share.

The clock and the deadline, the record that is filled as attempts come and go, and how an answer
is named and headed for the client.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from aiproxy.middleware.answering.outcome import MODEL_NOT_FOUND, Fault
from aiproxy.middleware.decision import Attempt, Decision
from aiproxy.middleware.dialects.canonical import CanonicalRequest, Envelope, Usage
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.dialects.usage import added
from aiproxy.middleware.disclosure import response_headers
from aiproxy.middleware.effects import Answer, Effect, Headers, Outcome
from aiproxy.middleware.gateway import Gateway, Inbound
from aiproxy.middleware.health import Track
from aiproxy.middleware.intake.ingress import identity
from aiproxy.middleware.intake.predict import NativeRequest
from aiproxy.middleware.intent import Intent
from aiproxy.middleware.registry import Model, Provider
from aiproxy.middleware.security.tags import Tag

#: Part of an exchange: yields effects, is told outcomes.
Steps: TypeAlias = Generator[Effect, Outcome, Any]

JSON: Final = ("content-type", "application/json")
#: Of one connection or one coding of the body; never copied from one message to another.
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "content-encoding",
        "accept-encoding",
        "expect",
        "host",
    }
)
#: Response headers that are ours to set, whoever answered.
_OURS: Final = frozenset({"content-type", "x-request-id", "cache-control", "date", "server"})
#: What the id of an answer begins with, by the endpoint it was asked at.
_ID_PREFIXES: Final = {
    "chat": "chatcmpl-",
    "completions": "cmpl-",
    "anthropic": "msg_",
    "gemini": "",
}
#: How long a provider that lacks a model is not asked for it again.
_MODEL_LACKING_S: Final = 60.0
#: Less than this is no time to call anybody.
_LEAST_S: Final = 0.001


@dataclass(slots=True)
class Asked:
    """The body of a request: its ``endpoint`` kind, parsed and as received. ``native`` is set for
    a predict request, whose ``body`` and ``raw`` are the chat or embeddings request it became.

    ``original`` is set for a client of another API than OpenAI's: the parsed body in its own
    dialect, with the model and stream its path says. ``body`` is then a view of it in the terms of
    Chat Completions, for everything that judges a request; what is sent is made of ``original``,
    or of ``decoded``, its canonical form. ``tags`` are the data classes its messages and parts
    carried; none of the bodies has them any more."""

    endpoint: str
    body: dict[str, Any]
    raw: bytes
    native: NativeRequest | None = None
    original: Mapping[str, Any] | None = None
    decoded: CanonicalRequest | None = None
    tags: tuple[Tag, ...] = ()

    def canonical(self) -> CanonicalRequest:
        """Return the canonical form, which is made once for all attempts.

        Raises:
            MalformedRequest: a member cannot be read.
        """
        found = self.decoded
        if found is None:
            given = self.body if self.original is None else self.original
            read: CanonicalRequest = codec(self.endpoint).decode_request(given)
            found = self.decoded = read
        return found


@dataclass(slots=True)
class Serving:
    """``deadline`` is in seconds of the runtime's clock. ``committed``: the client has the head of
    a stream. ``delivered``: it has the whole answer, and what follows concerns only us. ``refused_cost``: the
    least that a candidate would have cost (picodollars) that the budget did not cover any more.
    ``beside``: it is made beside a client's own request, and never hedged."""

    gateway: Gateway
    inbound: Inbound
    decision: Decision
    intent: Intent
    asked: Asked
    deadline: float
    committed: bool = False
    delivered: bool = False
    refused_cost: int | None = None
    beside: bool = False

    # --- time ------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.gateway.runtime.now()

    def elapsed_ms(self) -> float:
        return (self.gateway.runtime.now() - self.decision.started) * 1000

    def time_left(self) -> float:
        return max(0.0, self.deadline - self.gateway.runtime.now())

    def too_late(self) -> bool:
        """Whether the deadline of the whole request has passed, or is about to."""
        return self.time_left() < _LEAST_S

    # --- the record ------------------------------------------------------------------------------

    def succeeded(self, attempt: Attempt, *, first_byte_ms: float | None = None) -> None:
        """The attempt gave a whole answer; times count from its start."""
        now = self.gateway.runtime.now()
        total = (now - self.decision.started) * 1000 - attempt.started_ms
        attempt.outcome = "ok"
        attempt.latency_ms = total
        model = attempt.model
        first = total if first_byte_ms is None else first_byte_ms
        track, whole = model.track, model.provider.track
        track.succeeded(now, total, first)
        if attempt.usage is not None:
            track.wrote(attempt.usage.output)
        if track.slow_until:
            self.gateway.registry.note_trouble(track)
        if whole is not track:  # a provider without a model list has one track for both
            whole.recovered(now)
        if attempt.track is not None:
            attempt.track.succeeded(now, total, first)
        self.decision.served = attempt
        self.decision.latency_ms = self.elapsed_ms()

    def failed(self, attempt: Attempt, fault: Fault) -> None:
        """The attempt gave none, or broke off; health hears of what is the provider's doing."""
        attempt.outcome, attempt.error = "failed", fault.reason
        model = attempt.model
        if not fault.counts:
            return
        if fault.code == MODEL_NOT_FOUND and model.track is model.provider.track:
            return  # a provider without a model list was asked for a name it does not know
        runtime = self.gateway.runtime
        now = runtime.now()
        if attempt.track is not None:
            attempt.track.failed(now, runtime.jitter, retry_after_s=fault.pause_s)
            failed = self.failed_tracks(model.provider)
            if fault.of_endpoint and self.gateway.endpoints.another(model.provider, failed):
                return  # its siblings still work: it counts for itself (ASC-LB-001)
        self.gateway.registry.failed(
            model,
            now,
            runtime.jitter,
            _MODEL_LACKING_S if fault.code == MODEL_NOT_FOUND else fault.pause_s,
            whole_provider=fault.whole_provider and model.track is not model.provider.track,
        )

    def failed_tracks(self, provider: Provider) -> list[Track | None]:
        """The endpoints of a provider that failed this request; empty where it has one."""
        if len(provider.endpoints) == 1:
            return []
        return [
            attempt.track
            for attempt in self.decision.attempts
            if attempt.outcome == "failed" and attempt.model.provider is provider
        ]

    def settle(self, attempt: Attempt, usage: Usage | None, output_bytes: int) -> None:
        """Usage and cost of an attempt; without a report both are estimated and say so."""
        decision, intent = self.decision, self.intent
        estimated = usage is None
        if usage is None:
            output = max(1, output_bytes // 4) if intent.writes_text else 0
            if intent.stream:
                output = max(1, output // 8)  # a frame's envelope is many times its text
            usage = Usage(input=intent.prompt_tokens, output=output)
        attempt.usage, attempt.estimated = usage, estimated
        price = attempt.model.price
        attempt.cost = None if price is None else price.cost(usage)
        decision.usage, decision.usage_estimated = usage, estimated
        decision.cost = attempt.cost
        limit = intent.constraints.cost_limit
        decision.over_limit = (
            limit is not None and attempt.cost is not None and attempt.cost > limit
        )

    def sum_up(self) -> None:
        """Usage and cost of an answer that several gave in turn."""
        decision = self.decision
        spoke = [attempt for attempt in decision.attempts if attempt.usage is not None]
        for attempt in spoke:
            if attempt.outcome == "failed" and attempt.usage is not None:
                assert decision.usage is not None
                decision.usage = added(decision.usage, attempt.usage)
                decision.usage_estimated = decision.usage_estimated or attempt.estimated
                if decision.cost is not None and attempt.cost is not None:
                    decision.cost += attempt.cost
        limit = self.intent.constraints.cost_limit
        decision.over_limit = (
            limit is not None and decision.cost is not None and decision.cost > limit
        )

    # --- the answer ------------------------------------------------------------------------------

    def public_model(self, model: Model) -> str:
        """``auto`` is echoed; otherwise the public name of the model that really served."""
        return self.intent.model if self.intent.model_auto else model.name

    def envelope(self, model: Model) -> Envelope:
        """The identity of an answer that is written anew."""
        prefix = _ID_PREFIXES.get(self.intent.endpoint, "resp_")
        body = self.asked.body
        options = body.get("stream_options")
        return Envelope(
            id=prefix + self.decision.id.replace("req_", "", 1),
            created=self.decision.created,
            model=self.public_model(model),
            request=body,
            include_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
            completed_at=lambda: int(self.gateway.runtime.wall()),
        )

    def reply_headers(self, model: Model, answer: Answer, *base: tuple[str, str]) -> Headers:
        """The head of an answer: ours, and of the provider's only what may pass.

        The wrapped application is the service the client called, so its headers (cookies too)
        stand; another provider's pass by ``relay_headers`` alone.
        """
        named = identity(self.intent.endpoint, self.decision.id)
        found = [*base, *named]
        provider = model.provider
        if provider.transport == "app":
            told = {name for name, _ in named}
            found += [r for r in answer.headers if _may_pass(r[0]) and r[0] not in told]
        elif provider.relay_headers:
            allowed = provider.relay_headers
            found += [row for row in answer.headers if row[0] in allowed and _may_pass(row[0])]
        found += response_headers(self.decision, self.gateway.settings)
        return tuple(found)


def _may_pass(name: str) -> bool:
    return not (name in HOP_BY_HOP or name in _OURS or name.startswith("x-ai-"))
