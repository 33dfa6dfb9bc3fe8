"""What a client is told when nobody may serve its request: the status, and the header to blame."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, overload

from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intent import Intent
from aiproxy.middleware.registry import Model


@dataclass(frozen=True, slots=True)
class Rejected:
    """``detail`` says more, in the draft's words (Fig 16): ``insufficient_hipaa``."""

    model: Model
    reason: str
    detail: str | None = None


class Rejections(Sequence[Rejected]):
    """Who may not serve: ``known`` already, and whom ``work`` finds when somebody reads it."""

    __slots__ = ("_known", "_rows", "_work")

    def __init__(
        self, known: tuple[Rejected, ...], work: Callable[[], Iterable[tuple[Model, str]]]
    ) -> None:
        self._known = known
        self._work = work
        self._rows: tuple[Rejected, ...] | None = None

    def _all(self) -> tuple[Rejected, ...]:
        if self._rows is None:
            self._rows = (*self._known, *(Rejected(model, why) for model, why in self._work()))
            self._work = list  # what it held is needed no more
        return self._rows

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[Rejected]:
        return iter(self._all())

    @overload
    def __getitem__(self, place: int) -> Rejected: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Rejected]: ...

    def __getitem__(self, place: int | slice) -> Rejected | Sequence[Rejected]:
        return self._all()[place]


class NoCandidate(ProxyError):
    """Nobody may serve a request; ``rejected`` says why not, candidate by candidate."""

    rejected: tuple[Rejected, ...] = ()


def unknown_model() -> ProxyError:
    return ProxyError(
        "model_not_found",
        "No provider here serves this model; GET /v1/models lists the names.",
        param="model",
    )


#: (reason, constraint, code); the first that rejects somebody names the blocking header. The pool is
#: last: whoever is not in it was not asked for, and says nothing about those who were.
_BLOCKERS: Final = (
    ("lacks_security_label", "labels", "unsupported_security_requirement"),
    ("wrong_region", "regions", "unsupported_security_requirement"),
    ("not_local", "local_only", "unsupported_security_requirement"),
    ("insufficient_security_level", "level", "unsupported_security_requirement"),
    ("over_cost_limit", "cost_limit", "no_eligible_provider"),
    ("price_unknown", "cost_limit", "no_eligible_provider"),
    ("below_quality_threshold", "quality", "no_eligible_provider"),
    ("quality_unknown", "quality", "no_eligible_provider"),
    ("over_max_latency", "max_latency_ms", "no_eligible_provider"),
    ("not_in_pool", "pool", "no_eligible_provider"),
)


def refusal(intent: Intent, rejected: tuple[Rejected, ...], now: float) -> NoCandidate:
    found = _stated_refusal(intent, rejected, now)
    found.rejected = rejected
    return found


def _stated_refusal(intent: Intent, rejected: tuple[Rejected, ...], now: float) -> NoCandidate:
    reasons = {r.reason for r in rejected}
    waiting = [r.model for r in rejected if r.reason == "unhealthy"]
    if waiting:
        soonest = min(
            max(m.track.blocked_for(now), m.provider.track.blocked_for(now)) for m in waiting
        )
        return NoCandidate(
            "no_healthy_provider",
            "Every provider that could serve this request is cooling down after failures.",
            retry_after_s=soonest,
        )
    if "over_budget" in reasons:
        return NoCandidate(
            "budget_exceeded", "The budget does not cover this request.", should_retry=False
        )
    if not intent.model_auto and reasons <= {"lacks_capability", "cannot_express"}:
        return NoCandidate(
            "unsupported_capability",
            "This model does not serve this kind of request; "
            "GET /v1/models lists the models, and the endpoint must match their capabilities.",
            param="model",
        )
    if "context_too_small" in reasons and reasons <= {"context_too_small", "lacks_capability"}:
        return NoCandidate(
            "context_length_exceeded",
            f"The prompt is about {intent.longest_input or intent.prompt_tokens} tokens, more than the context window of "
            "every model that could serve it; shorten it.",
            param=intent.prompt_member,
        )
    for reason, constraint, code in _BLOCKERS:
        if reason in reasons:
            return NoCandidate(
                code,
                _explain(intent, reason, rejected),
                param=intent.constraints.blame.get(constraint),
                should_retry=False,
            )
    return NoCandidate(
        "no_eligible_provider",
        "No model here can serve this request: " + ", ".join(sorted(reasons) or ["none listed"]),
        param="model",
        should_retry=False,
    )


def _explain(intent: Intent, reason: str, rejected: tuple[Rejected, ...]) -> str:
    counts: dict[str, int] = {}
    for row in rejected:
        counts[row.reason] = counts.get(row.reason, 0) + 1
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return (
        f"No provider can serve this request within its constraints ({listed}); "
        "nothing was sent upstream."
    )
