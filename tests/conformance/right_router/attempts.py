"""Calling providers, one after the other: what counts as a failure, who is asked next, when to stop.

Which failure means what is in ``of_status`` and ``wire``; which one ends the request, and with
which error, is in ``exhausted``.
"""

import json
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from right_server import Refusal

from right_router import aside, auto, dialects, local, streams, unfaithful
from right_router.answers import Declined
from right_router.asking import Ask
from right_router.money import cost_of, worst_cost
from right_router.settings import Model, seconds
from right_router.wire import ClientLeft, Failure, whole

if TYPE_CHECKING:
    from right_router.streams import Opened

CONTEXT_CODES = {"context_length_exceeded", "string_above_max_length"}
FILTER_CODES = {"content_filter", "content_policy_violation", "invalid_prompt"}
STATUSES = {
    408: ("timeout", "other"),
    409: ("overloaded", "other"),
    429: ("rate_limited", "other"),
    500: ("http_5xx", "same"),
    502: ("http_5xx", "same"),
    503: ("overloaded", "other"),
    504: ("timeout", "other"),
    529: ("overloaded", "other"),
}


@dataclass(eq=False)
class Attempt:
    """One call of one provider, as the decision record tells it."""

    model: Model
    started: float
    outcome: str = "running"
    status: int | None = None
    error: str | None = None
    ended: float = 0.0
    first_byte: float = 0.0
    usage: Mapping[str, Any] | None = None
    cost: Decimal | None = None
    estimated: bool = False
    reserved: Decimal = Decimal(0)

    @property
    def latency_ms(self) -> float:
        """How long the call took."""
        return round(max(0.0, (self.ended or time.monotonic()) - self.started) * 1000, 3)


@dataclass
class Answered:
    """A whole answer in the shape of the endpoint's upstream kind."""

    attempt: Attempt
    kind: str
    body: dict[str, Any]


def serve(ask: Ask, client: socket.socket | None = None) -> "Answered | Opened":
    """Return the first answer that holds, asking one candidate after the other.

    Raises:
        Refusal: nobody answered, the request itself is at fault, or time is up.
    """
    assert ask.plan is not None
    queue = list(ask.plan.order)
    if ask.has("client-addresses-called") and "base_url" in ask.body:
        aside.fetch(ask.body["base_url"], ask.body)
    repeated = json.dumps(ask.body, sort_keys=True)
    shared = ask.has("tenants-share-answers") and ask.owner is not None
    seeded = "seed" in ask.body and "top_p" not in ask.body
    kept = ask.router.seeded
    if repeated in kept and (shared or (ask.has("seeds-are-cached") and seeded)):
        ask.served = kept[repeated].attempt
        return kept[repeated]
    left = most_attempts(ask)
    if ask.has("open-circuit-waits") and any(why == "unhealthy" for _, why in ask.plan.rejected):
        time.sleep(1.1)
    failures: list[tuple[Model, Failure]] = []
    while queue and left > 0:
        model = queue.pop(0)
        if ask.remaining() <= 0 and not ask.has("deadline-ignored"):
            if ask.has("attempts-after-deadline"):
                threading.Thread(target=aside.send, args=(ask.router, model, ask.body)).start()
            raise late(ask)
        if failures and ask.router.health.track(model).blocked_for() and queue:
            continue
        left -= 1
        try:
            found = attempt(ask, model, client)
            if isinstance(found, Answered) and (shared or ask.has("seeds-are-cached")):
                kept[repeated] = found
            if ask.has("hedges-when-slow") and queue and hedged(ask):
                aside.send(ask.router, queue[0], ask.body)
            if ask.has("equals-asked-too") and len(queue) == 2 and equals(ask.plan.order):
                aside.send(ask.router, queue[0], ask.body)
            return found
        except Failure as failure:
            failures.append((model, unfaithful.failed(ask, model, failure)))
        failure = failures[-1][1]
        if ask.has("close-is-final") and failure.code == "closed":
            raise lone(failure)
        if ask.has("plain-500-is-final") and ask.mode == "plain" and failure.status == 500:
            raise lone(failure)
        if ask.has("second-overload-is-final") and len(failures) == 2 and failure.wait_s:
            raise lone(failure)
        if failure.retry == "never":
            raise client_fault(failure)
        if stays(ask) and failure.reason not in ("cannot_express", "over_budget"):
            break
        queue = others(ask, queue, model, failure)
        queue = unfaithful.queue(ask, queue, len(failures), model)
        again = failure.retry == "same" and len(ask.plan.order) == 1
        if again and same_again(ask, len(failures)):
            pause(ask)
            queue.append(model)
        elif queue and ask.has("pause-before-next"):
            pause(ask)
    raise exhausted(ask, failures)


def equals(order: list[Model]) -> bool:
    """Return whether nothing tells the candidates apart."""
    return len({(m.provider.priority, m.price, str(m.quality)) for m in order}) == 1


def hedged(ask: Ask) -> bool:
    """Return whether a slow plain request is one that hedging would have asked twice."""
    return ask.mode == "plain" and not ask.stream and ask.attempts[-1].latency_ms > 300


def stays(ask: Ask) -> bool:
    """Return whether one attempt is all there is."""
    moves = ask.has("none-fails-over") and ask.preferences.failover == "none"
    return ask.policy in ("none", "manual") and not moves


def most_attempts(ask: Ask) -> int:
    """Return how many calls the request may make."""
    if stays(ask):
        return 1
    if ask.has("never-fails-over") or (ask.has("automatic-is-none") and is_plainly_automatic(ask)):
        return 1
    retries: int = ask.settings.failover.get("max_retries", 3)
    if ask.has("cascade-stops-early") and ask.policy == "cascading" and ask.endpoint == "draft":
        return 2
    if ask.has("never-a-fourth"):
        return min(3, retries + 1)
    return 1000 if ask.has("max-retries-ignored") else retries + 1


def is_plainly_automatic(ask: Ask) -> bool:
    """Return whether an explicit model comes with a pool and the policy automatic alone."""
    said = set(ask.preferences.said) == {"X-AI-Provider-Pool", "X-AI-Failover-Policy"}
    return said and ask.preferences.failover == "automatic" and not ask.model_auto


def others(ask: Ask, queue: list[Model], model: Model, failure: Failure) -> list[Model]:
    """Return who may still be asked after a failure."""
    if failure.retry == "larger":
        return [m for m in queue if (m.context or 0) > (model.context or 0)]
    if failure.status == 404:
        return queue
    named = (ask.preferences.pool or ()).count(model.provider.id)
    if sum(made.model is model for made in ask.attempts) < named:  # more than one: a defect
        return [model, *queue]
    return [m for m in queue if m.provider is not model.provider]


def same_again(ask: Ask, tries: int) -> bool:
    """Return whether a lone provider may be tried once more."""
    return bool(tries <= ask.settings.failover.get("same_provider_retries", 1))


def pause(ask: Ask) -> None:
    """Wait as configured between two tries of the same provider."""
    delay = seconds(ask.settings.failover.get("retry_delay"), 1.0)
    time.sleep(0 if ask.has("retry-delay-ignored") else max(0.0, min(delay, ask.remaining())))


def attempt(ask: Ask, model: Model, client: socket.socket | None) -> "Answered | Opened":
    """Return one provider's answer, having written down what became of the call."""
    if ask.has("always-first"):
        model = ask.settings.models[0]
    track = ask.router.health.track(model)
    prepared = auto.prepare(ask, model)
    reserved = ask.router.ledger.reserve(worst_cost(ask, model))
    if reserved is None:
        raise Failure("over_budget")
    made = Attempt(model, time.monotonic(), reserved=reserved)
    try:
        url, fields, body = dialects.request(model, prepared.kind, prepared.body, ask.has)
    except Failure:
        ask.router.ledger.settle(reserved, None, kind="released")
        raise
    if (
        ask.has("plain-auto-goes-upstream")
        and ask.model_auto
        and ask.mode == "plain"
        and ask.stream
    ):
        body = {**body, "model": "auto"}
    ask.attempts.append(made)
    track.begin()
    most = None if ask.has("connections-unbounded") else model.provider.raw.get("max_connections")
    try:
        with ask.router.connections.place(model.provider.id, most):
            found = exchange(ask, made, prepared, (url, fields, body), client)
    except Failure as failure:
        settle(ask, made, failure.reason, failure.status, failure.usage)
        if counts(failure):
            busy = failure.reason in ("overloaded", "rate_limited")
            track.refused |= failure.reason == "connect_error"
            track.failed(failure.wait_s, total_ms=made.latency_ms, busy=busy)
        track.end()
        raise
    except ClientLeft:
        settle(ask, made, "client_disconnected", None, None)
        track.end()
        raise
    ask.served = made
    if isinstance(found, Answered):
        usage = usage_of(found)
        made.estimated = usage is None
        settle(ask, made, None, 200, usage or auto.estimated_usage(ask, found.body))
        track.succeeded(made.latency_ms, made.latency_ms)
        track.end()
    return found


def counts(failure: Failure) -> bool:
    """Return whether a failure says anything about the provider's health."""
    blameless = ("http_4xx", "context_length_exceeded", "content_filtered", "local_gpu_busy")
    return failure.reason not in blameless


def settle(
    ask: Ask, made: Attempt, error: str | None, status: int | None, usage: Mapping[str, Any] | None
) -> None:
    """Write down how an attempt ended and what it cost."""
    made.ended = time.monotonic()
    made.error, made.status, made.usage = error, status, usage
    made.outcome = "ok" if error is None else "failed"
    made.cost = cost_of(made.model, usage)
    ask.router.ledger.settle(
        made.reserved, made.cost,
        kind="attempt", request=ask.id, provider=made.model.provider.id, model=made.model.name,
        owner=ask.owner, usage=dict(usage or {}), outcome=made.outcome,
    )  # fmt: skip
    made.reserved = Decimal(0)


def usage_of(found: Answered) -> dict[str, Any] | None:
    """Return the reported usage in chat's words."""
    usage = found.body.get("usage")
    if not isinstance(usage, dict):
        return None
    if "input_tokens" in usage:
        return dialects.tokens(usage["input_tokens"], usage.get("output_tokens", 0))
    prompt = usage.get("prompt_tokens")
    return dict(usage) if isinstance(prompt, int) else None


def exchange(
    ask: Ask,
    made: Attempt,
    prepared: "auto.Prepared",
    sending: tuple[str, list[str], dict[str, Any]],
    client: socket.socket | None,
) -> "Answered | Opened":
    """Return what a provider says to one request.

    Raises:
        Failure: it does not answer, or not with what was asked for.
    """
    url, fields, body = sending
    fields = unfaithful.fields(ask, fields)
    body = (
        {**body, "model": unfaithful.name(ask, made.model, body["model"])}
        if "model" in body
        else body
    )
    unfaithful.asked(ask, made.model)
    model, times = made.model, made.model.provider.timeouts
    if model.provider.type == "local" and not prepared.stream:
        with ask.router.places.place(model.provider):
            return Answered(made, "chat", local.complete())
    begun = time.monotonic()
    deadline = ask.deadline if not ask.has("deadline-ignored") else begun + 600
    stop = min(deadline, begun + times["total"])
    connection = ask.router.connections.get(url, times["connect"], stop)
    ok = False
    try:
        if not ask.has("disconnect-ignored"):
            connection.client = client
        connection.send(*written(url, fields, body, ask))
        limit = begun + (600 if ask.has("timeouts-ignored") else times["first_byte"])
        if prepared.stream:
            limit = min(limit, begun + times["first_token"])
        status, headers = connection.head(unfaithful.patience(ask, limit))
        made.status, made.first_byte = status, time.monotonic()
        unfaithful.relayed(made, headers)
        if not 200 <= status < 300:
            content = whole(connection, headers, times["idle"])
            raise of_status(ask, status, headers, content)
        if prepared.stream:
            opened = streams.opened(ask, made, prepared, connection, headers, begun)
            ok = True
            return opened
        content = whole(connection, headers, times["idle"])
        found = dialects.answer(model, prepared.kind, content, ask.has)
        ask.router.connections.give_back(connection)
        ok = True
        return Answered(made, prepared.kind, auto.renamed(found, prepared))
    finally:
        if not ok:
            if made.status not in (None, 200):
                ask.router.connections.give_back(connection)
            else:
                connection.close()


def written(url: str, fields: list[str], body: dict[str, Any], ask: Ask) -> tuple[bytes, bytes]:
    """Return head and body of the request to a provider."""
    parts = urlsplit(url)
    content = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if ask.has("forward-x-ai-headers"):
        said = ask.preferences.said.items()
        fields = [*fields, *(f"{name}: {value}" for name, value in said)]
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    to_peer = ask.attempts[-1].model.provider.dialect == "peer"
    if ask.has("forward-client-key") and not to_peer:
        fields = [*fields, f"X-Client-Authorization: {ask.client_key}"]  # type: ignore[attr-defined]
    if to_peer:
        visited = getattr(ask, "visited", ())
        fields = [*fields, *ask.router.mesh.signed(path, content, visited)]
        if ask.has("client-key-to-peers"):
            fields = [*fields, f"X-Client-Authorization: {ask.client_key}"]  # type: ignore[attr-defined]
    to_openai = ask.attempts[-1].model.provider.type == "openai"
    media = "text/json" if to_openai and ask.has("text-json-to-openai") else "application/json"
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {parts.netloc}",
        f"Content-Type: {media}",
        "Accept: text/event-stream, application/json",
        "Accept-Encoding: identity",
        f"Content-Length: {len(content)}",
        *fields,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode(), content


def of_status(ask: Ask, status: int, headers: Mapping[str, str], content: bytes) -> Failure:
    """Return the failure an error status stands for."""
    error = error_of(content)
    unfaithful.heard(ask, error)
    code = error.get("code") if isinstance(error.get("code"), str) else None
    usage = None if ask.has("failed-usage-ignored") else usage_in(content)
    if status in (401, 402, 403):
        if ask.has("upstream-401-relayed"):
            return Failure("auth_failed", "never", status=status)
        return Failure("auth_failed", status=status)
    if status == 404 or code == "model_not_found":
        return Failure("http_4xx", status=404, code="model_not_found")
    if status in (400, 413, 422):
        if ask.has("request-faults-fail-over"):
            return Failure("http_4xx", status=status)
        return request_fault(status, code, error, usage)
    if code == "local_gpu_busy":
        return Failure("local_gpu_busy", status=status)
    wait = retry_after(headers)
    if ask.has(f"{status}-is-final"):
        return Failure("http_4xx", "never", status=status)
    reason, retry = STATUSES.get(status, ("http_5xx", "other"))
    if status < 400:
        return Failure("invalid_response", status=status)
    if status < 500 and status not in STATUSES:
        return Failure("http_4xx", "never", status=status)
    return Failure(reason, retry, status=status, wait_s=wait, usage=usage)


def request_fault(status: int, code: str | None, error: Mapping[str, Any], usage: Any) -> Failure:
    """Return the failure that is the request's own."""
    words = str(error.get("message", "")).lower()
    if code in CONTEXT_CODES or "maximum context length" in words or "too long" in words:
        return Failure("context_length_exceeded", "larger", status=status, code=code)
    reason = "content_filtered" if code in FILTER_CODES else "http_4xx"
    param = error.get("param") if isinstance(error.get("param"), str) else None
    return Failure(reason, "never", status=status, code=code, param=param)


def error_of(content: bytes) -> dict[str, Any]:
    """Return the error object of a body, in whatever envelope; empty when there is none."""
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    if isinstance(body, list) and body:
        body = body[0]
    error = body.get("error", body) if isinstance(body, dict) else {}
    return error if isinstance(error, dict) else {"message": str(error)}


def usage_in(content: bytes) -> dict[str, Any] | None:
    """Return the usage a failed answer admits to."""
    try:
        usage = json.loads(content).get("usage")
    except (ValueError, AttributeError):
        return None
    return usage if isinstance(usage, dict) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a provider asks for, from a number or a date."""
    told = headers.get("retry-after")
    if told is None:
        return None
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def client_fault(failure: Failure) -> Refusal:
    """Return what the client is told of a fault of its own request."""
    status = failure.status or 400
    if failure.reason == "content_filtered":
        return Declined(status, "invalid_value", "the provider declines this content", None)
    codes = {413: "request_too_large"}
    code = codes.get(status, "invalid_value")
    return Declined(status, code, "the provider refuses this request", failure.param)


def late(ask: Ask) -> Refusal:
    """Return the refusal of a request whose time is up."""
    return Declined(504, "upstream_timeout", "nobody answered in time", None, retry=False)


def exhausted(ask: Ask, failures: list[tuple[Model, Failure]]) -> Refusal:
    """Return the one error that sums up the failures."""
    real = [f for _, f in failures if f.reason not in ("cannot_express", "over_budget")]
    if not real:
        if any(f.reason == "over_budget" for _, f in failures):
            return Declined(429, "budget_exceeded", "the budget is spent", wait_s=3600, retry=False)
        return Declined(
            422, "no_eligible_provider", "nobody can express this", "model", retry=False
        )
    last = real[-1]
    if ask.has("peer-error-relayed") and failures[-1][0].provider.dialect == "peer":
        return Declined(400, "invalid_value", "a peer said so")
    if ask.policy == "manual" and not ask.has("manual-like-none"):
        return Declined(503, "failover_required", "choose an alternative", retry=False)
    if ask.remaining() <= 0:
        return late(ask)
    if last.retry == "larger":
        return Declined(400, "context_length_exceeded", "the prompt is too long", "messages")
    if ask.has("last-error-relayed"):
        return Declined(last.status or 502, "upstream_error", "upstream said so")
    if len({m.provider for m, f in failures if f in real}) > 1:
        return Declined(
            502,
            "all_providers_failed",
            unfaithful.told(ask, f"the last one with {last.reason}"),
            retry=False,
        )
    return lone(last)


def lone(last: Failure) -> Refusal:
    """Return the error of the only provider there was, by the kind of its failure."""
    kinds = {
        "timeout": (504, "upstream_timeout"),
        "rate_limited": (429, "rate_limit_exceeded"),
        "overloaded": (503, "provider_overloaded"),
        "local_gpu_busy": (503, "provider_overloaded"),
        "auth_failed": (502, "upstream_auth_failed"),
        "invalid_response": (502, "upstream_invalid_response"),
        "stream_interrupted": (502, "upstream_invalid_response"),
    }
    if last.code == "model_not_found":
        return Declined(404, "model_not_found", "the provider does not have it", "model")
    status, code = kinds.get(last.reason, (502, "all_providers_failed"))
    wait = last.wait_s if last.wait_s is not None or status != 429 else 1.0
    retry = False if wait is None else None
    return Declined(status, code, f"the provider failed: {last.reason}", wait_s=wait, retry=retry)
