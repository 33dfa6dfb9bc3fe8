"""What the client is told when the candidates are exhausted: one error that sums them up
(XAI-FAIL-022). ``x-should-retry: false`` keeps its retries from multiplying ours, unless waiting
would help: then ``Retry-After`` says how long."""

from aiproxy.middleware.answering import outcome
from aiproxy.middleware.answering.outcome import MODEL_NOT_FOUND, Fault
from aiproxy.middleware.answering.serving import Serving
from aiproxy.middleware.auto.answer_check import FAILED
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.routing.refusing import refusal


def timed_out(serving: Serving) -> ProxyError:
    """The deadline of the whole request passed."""
    limit_s = serving.deadline - serving.decision.started
    return ProxyError(
        "upstream_timeout",
        f"No provider answered within {limit_s:g} s, "
        f"after {len(serving.decision.attempts)} attempts.",
        should_retry=False,
    )


def exhausted(serving: Serving, last: Fault | None, soonest_s: float | None) -> ProxyError:
    """Nobody is left to ask. ``last`` is ``None`` when nobody could be asked at all;
    ``soonest_s`` is when one of the failed may be asked again."""
    plan = serving.decision.plan
    if last is None and plan is not None and any(r.reason == "unhealthy" for r in plan.rejected):
        return refusal(serving.intent, tuple(plan.rejected), serving.now())
    if last is None:
        budget = serving.gateway.budget
        if budget is not None and serving.refused_cost is not None:
            return budget.exceeded(serving.decision.owner, serving.refused_cost)
        lost = ", ".join(sorted({loss.feature for loss in serving.decision.losses}))
        return ProxyError(
            "no_eligible_provider",
            f"No provider here can express this request: {lost} would be lost. Leave it out, or "
            "name a model whose provider takes it.",
            param="model",
            should_retry=False,
        )
    if serving.intent.failover == "manual":
        return ProxyError(
            "failover_required",
            f"The chosen provider failed ({last.reason}) and X-AI-Failover-Policy is manual; "
            "X-AI-Alternatives-Considered lists whom to ask next.",
            should_retry=False,
        )
    if serving.too_late():
        return timed_out(serving)
    if last.retry == "larger":
        return outcome.client_error(last, serving.intent.prompt_member)
    if last.code == FAILED:
        return misshapen()
    tried = {attempt.model.provider.id for attempt in serving.decision.attempts}
    if len(tried) == 1:
        return _lone(last)
    return ProxyError(
        "all_providers_failed",
        f"All {len(tried)} providers that were tried failed; the last one with {last.reason}.",
        retry_after_s=soonest_s,
        should_retry=False if soonest_s is None else None,
    )


def crowded() -> ProxyError:
    """All places at everybody who may serve the request are taken, and stayed so."""
    return ProxyError(
        "provider_overloaded",
        "Every provider that may serve this request has as many calls as it takes; "
        "no place became free in time.",
        retry_after_s=1.0,
    )


def misshapen() -> ProxyError:
    """No answer satisfies the shape that was asked for."""
    return ProxyError(
        FAILED,
        "The answer does not satisfy response_format, and whoever may serve this request has no "
        "mode of its own for it.",
        should_retry=False,
    )


def _lone(last: Fault) -> ProxyError:
    """The error of the only provider that could be asked, by its kind."""
    wait = last.retry_after_s
    retry = None if wait is not None else False
    if last.code == MODEL_NOT_FOUND:
        return ProxyError(
            "model_not_found",
            "The provider of this model does not have it any more.",
            param="model",
        )
    if last.reason == "timeout":
        return ProxyError(
            "upstream_timeout", "The provider did not answer in time.", should_retry=False
        )
    if last.reason == "rate_limited":
        return ProxyError(
            "rate_limit_exceeded",
            "The provider is limiting requests; the limit is its own, not this key's.",
            retry_after_s=wait if wait is not None else 1.0,
        )
    if last.reason in ("overloaded", "local_gpu_busy"):
        return ProxyError(
            "provider_overloaded",
            "The provider is overloaded and no other one may serve this request.",
            retry_after_s=wait,
            should_retry=retry,
        )
    if last.reason == "auth_failed":
        return ProxyError(
            "upstream_auth_failed",
            "The provider refused this router's credentials; its operator must mend them.",
            should_retry=False,
        )
    if last.reason in ("invalid_response", "stream_interrupted"):
        return ProxyError(
            "upstream_invalid_response",
            "The provider's answer could not be understood.",
            should_retry=False,
        )
    return ProxyError(
        "all_providers_failed",
        f"The only provider that may serve this request failed ({last.reason}).",
        retry_after_s=wait,
        should_retry=retry,
    )
