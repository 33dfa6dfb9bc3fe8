"""One answer of several told to the client, in its own dialect and form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from aiproxy.middleware.answering import opening, whole
from aiproxy.middleware.answering.outcome import Fault, Rejection
from aiproxy.middleware.answering.prepare import Outgoing
from aiproxy.middleware.answering.serving import Serving, Steps
from aiproxy.middleware.decision import Attempt
from aiproxy.middleware.dialects.anthropic.usage import write_usage
from aiproxy.middleware.dialects.canonical import Usage
from aiproxy.middleware.dialects.gemini.usage import usage_metadata
from aiproxy.middleware.dialects.usage import chat_usage, responses_usage, union_usage
from aiproxy.middleware.effects import Answer
from aiproxy.middleware.ensembles.panel import Panel, Seat, total_cost, total_usage
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intake.members import patch
from aiproxy.middleware.registry import Model

#: Where an answer has its usage, and in which words, by the client's endpoint.
_USAGE: Final[Mapping[str, tuple[str, Callable[[Usage], dict[str, Any]]]]] = {
    "chat": ("usage", chat_usage),
    "completions": ("usage", chat_usage),
    "responses": ("usage", responses_usage),
    "draft": ("usage", union_usage),
    "anthropic": ("usage", write_usage),
    "gemini": ("usageMetadata", usage_metadata),
}


@dataclass(slots=True)
class Joint(Serving):
    """The serving of an ensemble's request: its members were served, counted and charged before, so
    telling their answer settles nothing and says nothing of anybody's health."""

    def succeeded(self, attempt: Attempt, *, first_byte_ms: float | None = None) -> None:
        attempt.outcome = "ok"
        attempt.latency_ms = self.elapsed_ms()
        self.decision.served = attempt
        self.decision.latency_ms = attempt.latency_ms

    def failed(self, attempt: Attempt, fault: Fault) -> None:
        attempt.outcome, attempt.error = "failed", fault.reason

    def settle(self, attempt: Attempt, usage: Usage | None, output_bytes: int) -> None:
        """Nothing: see ``reckon``."""

    def public_model(self, model: Model) -> str:
        """The ensemble, which is what was asked for; who answered is in X-AI-Model-Mapped."""
        return self.intent.model

    def reckon(self, panel: Panel) -> None:
        """Put every attempt, and the sums of tokens and money, into the record."""
        decision = self.decision
        decision.attempts = panel.attempts()
        decision.usage = total_usage(decision.attempts)
        decision.cost = total_cost(decision.attempts)
        decision.usage_estimated = any(
            seat.serving is not None and seat.serving.decision.usage_estimated
            for seat in panel.seats
        )
        limit = panel.limit
        decision.over_limit = (
            limit is not None and decision.cost is not None and decision.cost > limit
        )


def tell(joint: Joint, panel: Panel, winner: Seat) -> Steps:
    """Return the winner's answer as the ensemble's, or stream it.

    Raises:
        ProxyError: it cannot be told as a stream.
    """
    endpoint = joint.intent.endpoint
    served, reply, serving = winner.served, winner.reply, winner.serving
    assert served is not None
    assert reply is not None
    assert serving is not None
    decision, own = joint.decision, serving.decision
    decision.losses, decision.auto = own.losses, own.auto
    decision.reasoning, decision.tools = own.reasoning, own.tools
    raw = reply.body
    if decision.usage is not None:
        name, written = _USAGE[endpoint]
        raw = patch(raw, {name: written(decision.usage)})
    # The client waited for all of it: its own time, tokens and price are the ensemble's.
    attempt = replace(served, started_ms=0.0, usage=decision.usage, cost=decision.cost)
    out = Outgoing(endpoint, b"", translated=False)
    answer = Answer(200, (), raw)
    document = orjson.loads(raw)
    try:
        if joint.intent.stream:
            yield from opening.tell_document(joint, attempt, out, answer, document)
            return None
        return whole.reply(joint, attempt, out, answer, document)
    except Rejection:
        raise ProxyError(
            "upstream_invalid_response",
            "The answer that was chosen could not be told in the form that was asked for.",
            should_retry=False,
        ) from None
