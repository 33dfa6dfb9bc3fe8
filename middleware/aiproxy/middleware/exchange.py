"""One request's life, without IO.

``Exchange.run`` is a generator of effects (see ``effects``): read the preferences, understand the
body, plan, then attempt candidates until one holds. Until the first content-bearing event of a
stream nothing has been sent to the client and failover is invisible; after it a failure ends the
stream with an error inside it. A driver that closes the generator early (the client left) settles
the record as aborted.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from hmac import compare_digest
from logging import getLogger
from re import compile as compile_pattern
from typing import Any, Final

import orjson

from aiproxy.middleware import outcome, predict
from aiproxy.middleware.decision import Attempt, Decision
from aiproxy.middleware.dialects.canonical import (
    Envelope,
    MalformedReply,
    MalformedRequest,
    StreamCut,
    Untranslatable,
    Usage,
)
from aiproxy.middleware.dialects.observe import check_reply, reply_usage
from aiproxy.middleware.dialects.sse import SSETooLarge
from aiproxy.middleware.disclosure import metadata, response_headers
from aiproxy.middleware.effects import (
    Answer,
    Call,
    Close,
    Effect,
    Failure,
    Flow,
    Headers,
    Outcome,
    Read,
    Reply,
    Send,
    Start,
    Wait,
)
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.gateway import Gateway, Inbound
from aiproxy.middleware.intent import Intent, Native, understand
from aiproxy.middleware.members import append, patch
from aiproxy.middleware.outcome import Fault
from aiproxy.middleware.preferences import REQUEST_FIELDS, parse_headers
from aiproxy.middleware.prepare import Outgoing, decoders, encoders, prepare
from aiproxy.middleware.registry import Model
from aiproxy.middleware.relay import PassThrough, Relay, Renamer, Translation
from aiproxy.middleware.routing.plan import Plan, Ranked, Rejected
from aiproxy.middleware.validate import check_body

log = getLogger("aiproxy")

_JSON: Final = ("content-type", "application/json")
_STREAM_HEADERS: Final = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache, no-transform"),
    ("x-accel-buffering", "no"),
)
_REQUEST_ID: Final = compile_pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
#: Lifecycle frames held before the commit point; an upstream that sends more is taken at its word.
_MOST_HELD_BYTES: Final = 256 * 1024
#: How long to wait for the end of a stream that already said it is done, to keep its connection.
_LINGER_S: Final = 0.02
_HOP_BY_HOP: Final = frozenset(
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

Steps = Generator[Effect, Outcome, Any]


class Rejection(Exception):
    """An attempt that gave no reply; internal to the chain."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


@dataclass(slots=True)
class _Chain:
    """Where the chain of attempts stands."""

    ranked: list[Ranked]
    left: int
    avoid: set[str]
    same: dict[str, int]
    larger_than: int = 0


class Exchange:
    """One request against one gateway."""

    def __init__(self, gateway: Gateway, inbound: Inbound) -> None:
        self.gateway = gateway
        self.inbound = inbound
        runtime = gateway.runtime
        self.decision = Decision(
            id=request_id(inbound.headers, runtime.new_id),
            started=runtime.now(),
            created=int(runtime.wall()),
            endpoint=inbound.path,
            node=gateway.settings.node,
        )
        self._deadline = self.decision.started + gateway.settings.timeout_s
        self._native: predict.NativeRequest | None = None
        self._committed = False
        self._body: dict[str, Any] = {}
        self._raw = b""

    # --- the whole -------------------------------------------------------------------------------

    def run(self) -> Flow:
        """Serve the request; see ``Flow``. Never raises for anything a client or provider did."""
        decision = self.decision
        try:
            reply = yield from self._serve()
            if decision.outcome == "running":
                decision.outcome = "ok"
            return reply
        except ProxyError as error:
            return self._refuse(error)
        except MalformedRequest as fault:
            return self._refuse(
                ProxyError(
                    "invalid_value",
                    f"{fault.param}: found {fault.found}, expected {fault.expected}.",
                    param=fault.param,
                )
            )
        except GeneratorExit:
            decision.outcome = "aborted"
            self._abort_attempt()
            raise
        except Exception:
            # A bug, not an outcome: the client gets an id, the log gets the rest.
            log.exception("request %s failed inside the router", decision.id)
            return self._refuse(
                ProxyError(
                    "internal_error",
                    f"The router failed on this request; quote {decision.id} to its operator.",
                )
            )
        finally:
            decision.latency_ms = self._elapsed_ms()
            self.gateway.finished(decision)

    def explain(self, *, trusted: bool = False) -> Decision:
        """Decide and stop: the record this request would get, with no provider called.

        ``trusted`` skips the check of the client's key: the operator asks.
        """
        try:
            self._decide(trusted=trusted)
        except ProxyError as error:
            self._note(error)
        return self.decision

    def _serve(self) -> Generator[Effect, Outcome, Reply | None]:
        intent, plan = self._decide()
        reply: Reply | None = yield from self._attempt_all(intent, plan)
        return reply

    def _decide(self, *, trusted: bool = False) -> tuple[Intent, Plan]:
        gateway, inbound, decision = self.gateway, self.inbound, self.decision
        if not trusted:
            decision.owner = authenticate(gateway, inbound.headers)
        preferences = parse_headers(inbound.headers, lenient=gateway.settings.lenient)
        decision.preferences = preferences
        if preferences.active:
            decision.headers = tuple(
                (REQUEST_FIELDS[name].name, value)
                for name, value in inbound.headers
                if name in REQUEST_FIELDS
            )
            decision.conversation = preferences.conversation_id
            _refuse_missing_history(preferences)
        endpoint, body, native = self._read_body()
        decision.requested = body["model"]
        permit_model(gateway, decision.owner, body["model"])
        intent = understand(
            endpoint, body, preferences, gateway.settings, gateway.registry, native
        )
        decision.intent = intent
        decision.ignored = list(intent.ignored)
        self._deadline = decision.started + intent.timeout_s
        plan = self._plan(intent)
        decision.plan = plan
        decision.ignored += plan.ignored
        return intent, plan

    def _plan(self, intent: Intent) -> Plan:
        gateway = self.gateway
        now = gateway.runtime.now()
        try:
            return gateway.planner.plan(intent, now)
        except ProxyError:
            raise
        except Exception:
            # XAI-FAIL-021: broken selection falls back to the default provider, inside every
            # constraint that protects data and money.
            log.exception("selection failed for %s; using the default provider", self.decision.id)
            return gateway.planner.plan_default(intent, now)

    def _read_body(self) -> tuple[str, dict[str, Any], Native]:
        inbound = self.inbound
        body = read_json(inbound.body)
        endpoint = inbound.endpoint
        raw = inbound.body
        native = Native()
        if endpoint == "responses":
            endpoint = responses_mode(body)
        if endpoint == "predict":
            check_body("predict", body)
            self._native = predict.read(body, self.gateway.registry)
            endpoint, body, native = (
                self._native.endpoint,
                self._native.body,
                self._native.native,
            )
            raw = orjson.dumps(body)
        else:
            check_body(endpoint, body)
        self._body, self._raw = body, raw
        return endpoint, body, native

    # --- attempts --------------------------------------------------------------------------------

    def _attempt_all(self, intent: Intent, plan: Plan) -> Generator[Effect, Outcome, Reply | None]:
        settings = self.gateway.settings.failover
        allowed = 1 if intent.failover in ("none", "manual") else 1 + settings.max_retries
        chain = _Chain(list(plan.ranked), allowed, set(), {})
        last: Fault | None = None
        while chain.left > 0 and chain.ranked:
            ranked = chain.ranked[0]
            if self.gateway.runtime.now() >= self._deadline:
                raise self._timed_out()
            fault: Fault
            try:
                reply: Reply | None = yield from self._attempt(intent, ranked)
                return reply
            except Rejection as rejection:
                fault = rejection.fault
            except Untranslatable as loss:
                chain.ranked.pop(0)
                self._reject(ranked, "cannot_express", str(loss))
                continue
            last = fault
            if self._committed:
                return None
            chain.left -= 1
            if fault.retry == "never":
                raise self._client_fault(fault)
            self.decision.failover_ms = self._elapsed_ms()
            yield from self._next(chain, ranked, fault)
        raise self._exhausted(intent, last, bool(chain.ranked))

    def _next(self, chain: _Chain, ranked: Ranked, fault: Fault) -> Steps:
        """Decide who is asked next: the same candidate again, or the chain without it."""
        settings = self.gateway.settings.failover
        model = ranked.model
        provider = model.provider.id
        others = len(chain.ranked) > 1
        if fault.retry == "same" and chain.left > (1 if others else 0):
            done = chain.same.get(provider, 0)
            if done < settings.same_provider_retries:
                chain.same[provider] = done + 1
                if not others and done:
                    yield Wait(min(settings.retry_delay_s, self._time_left()))
                return
        if not others and chain.left > 0 and fault.retry_after_s is not None:
            wait = fault.retry_after_s
            if (
                fault.reason in ("rate_limited", "overloaded")
                and wait <= settings.max_retry_after_s
                and wait < self._time_left()
            ):
                yield Wait(wait)
                return
        chain.ranked.pop(0)
        if fault.whole_provider or fault.reason == "timeout":
            chain.ranked = [r for r in chain.ranked if r.model.provider.id != provider]
        if fault.retry == "larger":
            window = model.context_window or 0
            chain.ranked = [
                r
                for r in chain.ranked
                if r.model.context_window is not None and r.model.context_window > window
            ]

    def _attempt(
        self, intent: Intent, ranked: Ranked
    ) -> Generator[Effect, Outcome, Reply | None]:
        gateway, decision = self.gateway, self.decision
        model = ranked.model
        out = prepare(intent, self._raw, self._body, model)
        if out.losses and gateway.settings.strict_translation:
            raise Untranslatable(out.losses[0].feature, out.losses[0].detail)
        started = gateway.runtime.now()
        place = gateway.endpoint_for(model.provider)
        attempt = Attempt(
            ranked=ranked,
            endpoint=place.region or out.dialect,
            started_ms=(started - decision.started) * 1000,
        )
        decision.attempts.append(attempt)
        decision.losses = list(out.losses)
        decision.auto, decision.reasoning, decision.tools = out.auto, out.reasoning, out.tools
        if "model" in decision.auto and decision.plan is not None:
            decision.auto["model"]["basis"] = decision.plan.reason
        track = model.track
        track.in_flight += 1
        track.begin_probe(started)
        try:
            answer = yield self._call(intent, model, place.target(out.dialect), out)
            if isinstance(answer, Failure):
                raise Rejection(outcome.of_failure(answer))
            assert isinstance(answer, Answer)
            attempt.status = answer.status
            if answer.stream is not None:
                yield from self._stream(intent, attempt, out, answer)
                return None
            return self._whole(intent, attempt, out, answer)
        except Rejection as rejection:
            self._failed(attempt, rejection.fault)
            raise
        finally:
            track.in_flight -= 1
            track.end_probe()
            attempt.latency_ms = (gateway.runtime.now() - started) * 1000

    def _call(self, intent: Intent, model: Model, target: str, out: Outgoing) -> Call:
        provider = model.provider
        limits = provider.limits
        left = self._time_left()
        if provider.transport == "app":
            headers = self._headers_for_app()
        else:
            accept = "text/event-stream" if intent.stream else "application/json"
            headers = (_JSON, ("accept", accept), ("user-agent", USER_AGENT), *provider.headers)
            key = self.inbound.header("idempotency-key")
            if key is not None:
                headers += (("idempotency-key", key),)
        return Call(
            transport="app" if provider.transport == "app" else "http",
            provider=provider.id,
            target=target,
            headers=headers,
            body=out.body,
            stream=intent.stream,
            connect_s=min(limits.connect, left),
            first_byte_s=min(limits.first_byte, left),
            total_s=min(limits.total, left),
        )

    def _headers_for_app(self) -> Headers:
        """The client's own headers: the wrapped application is the service it called."""
        kept = tuple(
            (name, value)
            for name, value in self.inbound.headers
            if name not in _HOP_BY_HOP and not name.startswith("x-ai-") and name != "content-type"
        )
        return (_JSON, *kept)

    # --- whole replies ---------------------------------------------------------------------------

    def _whole(self, intent: Intent, attempt: Attempt, out: Outgoing, answer: Answer) -> Reply:
        model = attempt.model
        fault = outcome.of_answer(answer, self.gateway.runtime.wall())
        if fault is not None:
            raise Rejection(fault)
        try:
            body = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            raise Rejection(Fault("invalid_response", "other", answer.status)) from None
        broken = check_reply(out.dialect, body)
        if broken is not None:
            error = body.get("error") if isinstance(body, dict) else None
            if error:
                raise Rejection(outcome.of_error_object(error))
            raise Rejection(Fault("invalid_response", "other", answer.status))
        if intent.stream:
            # Asked for a stream and got a document: nothing to commit to, somebody else may do it.
            raise Rejection(Fault("invalid_response", "other", answer.status))
        now = self.gateway.runtime.now()
        elapsed = (now - self.decision.started) * 1000 - attempt.started_ms
        attempt.latency_ms = elapsed
        self._succeeded(attempt, now, elapsed, elapsed)
        usage = reply_usage(out.dialect, body)
        self._settle(intent, attempt, usage, len(answer.body))
        public = self._public_model(intent, model)
        if out.translated:
            try:
                reply = decoders(out.dialect).decode_reply(body)
                document = encoders(intent.endpoint).encode_reply(reply, self._envelope(intent, public))
            except MalformedReply:
                raise Rejection(Fault("invalid_response", "other", answer.status)) from None
            encoded = orjson.dumps(document)
        elif body.get("model") != public:
            encoded = patch(answer.body, {"model": public})
        else:
            encoded = answer.body
        if out.renames:
            encoded = Renamer(out.renames)(encoded)
        self.decision.latency_ms = self._elapsed_ms()
        extra = metadata(self.decision, self.gateway.settings)
        if self._native is not None:
            encoded = predict.shape(self._native, orjson.loads(encoded), self.decision)
        elif extra is not None:
            if "x-aiproxy" in body:
                encoded = patch(encoded, {"x-aiproxy": extra})
            else:
                encoded = append(encoded, "x-aiproxy", extra)
        self.decision.status = 200
        return Reply(200, self._reply_headers(model, answer, _JSON), encoded)

    # --- streams ---------------------------------------------------------------------------------

    def _stream(self, intent: Intent, attempt: Attempt, out: Outgoing, answer: Answer) -> Steps:
        limits = attempt.model.provider.limits
        relay = self._relay(intent, attempt.model, out)
        stream = answer.stream
        assert stream is not None
        runtime = self.gateway.runtime
        began = runtime.now()
        first_token_by = min(
            self.decision.started + attempt.started_ms / 1000 + limits.first_token, self._deadline
        )
        ends_by = min(began + limits.total, self._deadline)
        held: list[bytes] = []
        held_bytes = 0
        keepalive = self.gateway.settings.keepalive_s
        silent_since = began
        alive = True
        try:
            while True:
                now = runtime.now()
                limit = ends_by - now
                limit = min(limit, limits.idle if self._committed else first_token_by - now)
                soft = keepalive is not None and self._committed and keepalive < limit
                timeout = keepalive if soft else max(0.0, limit)
                data = yield Read(stream, timeout, soft)
                if data is None:
                    if runtime.now() - silent_since >= limits.idle:
                        raise Rejection(Fault("timeout", "other", answer.status))
                    yield Send(b": keep-alive\n\n")
                    continue
                silent_since = runtime.now()
                if isinstance(data, Failure):
                    if relay.finished:
                        break
                    raise Rejection(self._stream_fault(data))
                assert isinstance(data, bytes)
                try:
                    chunk = relay.feed(data) if data else relay.end()
                except SSETooLarge:
                    raise Rejection(Fault("invalid_response", "other", answer.status)) from None
                if relay.error is not None:
                    if chunk and self._committed:
                        yield Send(chunk)
                    raise Rejection(outcome.of_error_object(relay.error))
                if self._committed:
                    if chunk:
                        yield Send(chunk)
                else:
                    held.append(chunk)
                    held_bytes += len(chunk)
                    if relay.content_seen or held_bytes > _MOST_HELD_BYTES:
                        yield from self._commit(attempt, answer, began, b"".join(held))
                        held.clear()
                if relay.closed or not data:
                    break
            if not relay.finished:
                raise Rejection(Fault("stream_interrupted", "other", answer.status))
            tail = relay.drain()
            self._settle(intent, attempt, relay.usage, relay.output_bytes)
            if not self._committed:
                yield from self._commit(attempt, answer, began, b"".join(held))
            now = runtime.now()
            self._succeeded(
                attempt, now, (now - began) * 1000, attempt.latency_ms or (now - began) * 1000
            )
            self.decision.latency_ms = self._elapsed_ms()
            extra = metadata(self.decision, self.gateway.settings)
            yield Send(tail + relay.finish({"x-aiproxy": extra} if extra is not None else {}))
            self.decision.status = 200
            if relay.closed:
                yield Read(stream, _LINGER_S)
        except StreamCut:
            self._broken(attempt, relay, Fault("stream_interrupted", "other", answer.status))
            if not self._committed:
                raise Rejection(Fault("stream_interrupted", "other", answer.status)) from None
            yield Send(relay.fail(self._stream_error()))
        except Rejection as rejection:
            if not self._committed:
                raise
            self._failed(attempt, rejection.fault)
            self._broken(attempt, relay, rejection.fault)
            yield Send(relay.fail(self._stream_error()))
        except GeneratorExit:
            alive = False  # the driver is leaving: it closes what is open itself
            if self._committed:
                self._settle(intent, attempt, relay.usage, relay.output_bytes)
            raise
        finally:
            if alive:
                yield Close(stream)

    def _relay(self, intent: Intent, model: Model, out: Outgoing) -> Relay:
        public = self._public_model(intent, model)
        rename = Renamer(out.renames) if out.renames else None
        if out.translated:
            return Translation(
                out.dialect, intent.endpoint, self._envelope(intent, public), rename=rename
            )
        return PassThrough(out.dialect, public, rename=rename)

    def _commit(self, attempt: Attempt, answer: Answer, began: float, held: bytes) -> Steps:
        """The first content-bearing event: from here on the client knows who answers."""
        self._committed = True
        decision = self.decision
        decision.served = attempt
        now = self.gateway.runtime.now()
        attempt.latency_ms = (now - decision.started) * 1000 - attempt.started_ms
        decision.latency_ms = self._elapsed_ms()
        yield Start(200, self._reply_headers(attempt.model, answer, *_STREAM_HEADERS))
        yield Send(held)

    def _stream_fault(self, failure: Failure) -> Fault:
        if failure.kind == "reset":
            return Fault("stream_interrupted", "other", 200)
        return replace(outcome.of_failure(failure), retry="other", whole_provider=False)

    def _stream_error(self) -> dict[str, Any]:
        error = ProxyError(
            "stream_interrupted",
            "The provider's stream broke off before the answer was complete; "
            f"what was sent stands, the rest is missing ({self.decision.id}).",
        )
        inner: dict[str, Any] = error.body()["error"]
        return inner

    def _broken(self, attempt: Attempt, relay: Relay, fault: Fault) -> None:
        decision = self.decision
        attempt.outcome, attempt.error = "failed", fault.reason
        decision.outcome = "failed"
        decision.status = 200
        decision.error = {
            "status": 200 if self._committed else 502,
            "code": "stream_interrupted",
            "param": None,
        }
        if decision.error["status"] == 200:
            decision.error["status"] = 502
        if decision.intent is not None:
            self._settle(decision.intent, attempt, relay.usage, relay.output_bytes)

    # --- bookkeeping -----------------------------------------------------------------------------

    def _elapsed_ms(self) -> float:
        return (self.gateway.runtime.now() - self.decision.started) * 1000

    def _time_left(self) -> float:
        return max(0.0, self._deadline - self.gateway.runtime.now())

    def _succeeded(
        self, attempt: Attempt, now: float, total_ms: float, first_byte_ms: float
    ) -> None:
        attempt.outcome = "ok"
        model = attempt.model
        model.track.succeeded(now, total_ms, first_byte_ms)
        model.provider.track.recovered()
        self.decision.served = attempt

    def _failed(self, attempt: Attempt, fault: Fault) -> None:
        attempt.outcome = "failed"
        attempt.error = fault.reason
        if fault.counts:
            runtime = self.gateway.runtime
            self.gateway.registry.failed(
                attempt.model,
                runtime.now(),
                runtime.jitter,
                fault.retry_after_s,
                whole_provider=fault.whole_provider,
            )

    def _abort_attempt(self) -> None:
        for attempt in self.decision.attempts:
            if attempt.outcome == "running" or (
                attempt is self.decision.served and self.decision.outcome == "aborted"
            ):
                attempt.outcome, attempt.error = "aborted", "client_disconnected"

    def _settle(
        self, intent: Intent, attempt: Attempt, usage: Usage | None, output_bytes: int
    ) -> None:
        """Usage and cost of an attempt; without a report both are estimated and say so."""
        decision = self.decision
        estimated = usage is None
        if usage is None:
            output = 0 if "embeddings" in intent.needs else max(1, output_bytes // 4)
            if intent.stream:
                output = max(1, output // 8)  # a frame's envelope is many times its text
            usage = Usage(input=intent.prompt_tokens, output=output)
        attempt.usage = usage
        price = attempt.model.price
        attempt.cost = None if price is None else price.cost(usage.input, usage.output)
        decision.usage, decision.usage_estimated = usage, estimated
        decision.cost = attempt.cost
        limit = intent.constraints.cost_limit
        decision.over_limit = (
            limit is not None and attempt.cost is not None and attempt.cost > limit
        )

    def _reject(self, ranked: Ranked, reason: str, detail: str) -> None:
        plan = self.decision.plan
        assert plan is not None
        remaining = tuple(r for r in plan.ranked if r is not ranked)
        self.decision.plan = replace(
            plan, ranked=remaining, rejected=(*plan.rejected, Rejected(ranked.model, reason))
        )

    def _public_model(self, intent: Intent, model: Model) -> str:
        """``auto`` is echoed; otherwise the public name of the model that really served."""
        return intent.model if intent.model_auto else model.name

    def _envelope(self, intent: Intent, public: str) -> Envelope:
        prefix = "chatcmpl-" if intent.endpoint == "chat" else "resp_"
        options = self._body.get("stream_options")
        return Envelope(
            id=prefix + self.decision.id.replace("req_", "", 1),
            created=self.decision.created,
            model=public,
            request=self._body,
            include_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
            completed_at=lambda: int(self.gateway.runtime.wall()),
        )

    def _reply_headers(self, model: Model, answer: Answer, *base: tuple[str, str]) -> Headers:
        found = [*base, ("x-request-id", self.decision.id)]
        provider = model.provider
        if provider.transport == "app":
            found += [
                (name, value)
                for name, value in answer.headers
                if name not in _HOP_BY_HOP
                and not name.startswith("x-ai-")
                and name not in ("content-type", "x-request-id", "cache-control", "date", "server")
            ]
        elif provider.relay_headers:
            found += [row for row in answer.headers if row[0] in provider.relay_headers]
        found += response_headers(self.decision, self.gateway.settings)
        return tuple(found)

    # --- refusals --------------------------------------------------------------------------------

    def _refuse(self, error: ProxyError) -> Reply | None:
        self._note(error)
        headers = [_JSON, ("x-request-id", self.decision.id), *error.response_headers()]
        if self.decision.plan is not None:
            headers += response_headers(self.decision, self.gateway.settings)
        return Reply(error.status, tuple(headers), error.encode())

    def _note(self, error: ProxyError) -> None:
        decision = self.decision
        decision.outcome = "refused" if not decision.attempts else "failed"
        decision.status = error.status
        decision.error = {
            "status": error.status,
            "code": error.code,
            "param": error.param,
            "message": error.message,
        }

    def _client_fault(self, fault: Fault) -> ProxyError:
        return outcome.client_error(fault)

    def _timed_out(self) -> ProxyError:
        return ProxyError(
            "upstream_timeout",
            f"No provider answered within {self._deadline - self.decision.started:g} s, "
            f"after {len(self.decision.attempts)} attempts.",
            should_retry=False,
        )

    def _exhausted(self, intent: Intent, last: Fault | None, more: bool) -> ProxyError:
        """The whole chain failed: one error that sums it up (XAI-FAIL-022)."""
        decision = self.decision
        if last is None:
            return ProxyError(
                "no_eligible_provider",
                "No provider can express this request: "
                "every candidate would have to drop a part of it.",
                param="model",
                should_retry=False,
            )
        if intent.failover == "manual":
            return ProxyError(
                "failover_required",
                f"The chosen provider failed ({last.reason}) and X-AI-Failover-Policy is manual; "
                "X-AI-Alternatives-Considered lists whom to ask next.",
                should_retry=False,
            )
        tried = {attempt.model.provider.id for attempt in decision.attempts}
        if self.gateway.runtime.now() >= self._deadline:
            return self._timed_out()
        if last.retry == "larger":
            return outcome.client_error(last)
        if last.code == "model_not_found" and len(tried) == 1:
            return ProxyError(
                "model_not_found",
                "The provider of this model does not have it any more.",
                param="model",
            )
        if len(tried) > 1:
            return ProxyError(
                "all_providers_failed",
                f"All {len(tried)} providers that were tried failed; the last one with "
                f"{last.reason}.",
                retry_after_s=last.retry_after_s,
                should_retry=False if last.retry_after_s is None else None,
            )
        return _lone_failure(last)


def _lone_failure(last: Fault) -> ProxyError:
    wait = last.retry_after_s
    retry = None if wait is not None else False
    if last.reason == "timeout":
        return ProxyError(
            "upstream_timeout", "The provider did not answer in time.", should_retry=retry
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


USER_AGENT: Final = "aiproxy"


def request_id(headers: Headers, new_id: Any) -> str:
    """The client's ``X-Request-ID`` when it is well formed, else a new one (AIP-API-037)."""
    for name, value in headers:
        if name == "x-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return f"req_{new_id()}"


def read_json(raw: bytes) -> dict[str, Any]:
    """The body as an object.

    Raises:
        ProxyError: 400 ``invalid_json`` or ``invalid_type``.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as fault:
        raise ProxyError(
            "invalid_json",
            f"The body is not valid JSON (line {fault.lineno}, column {fault.colno}).",
        ) from None
    if not isinstance(body, dict):
        raise ProxyError("invalid_type", "The body must be a JSON object.", param="body")
    return body


def responses_mode(body: Mapping[str, Any]) -> str:
    """``messages`` is the draft's shape, ``input`` the genuine one (XAI-COMPAT-015)."""
    drafted, genuine = body.get("messages") is not None, body.get("input") is not None
    if drafted and genuine:
        raise ProxyError(
            "invalid_value", "Send either input or messages, not both.", param="messages"
        )
    if not drafted and not genuine and "prompt" not in body:
        raise ProxyError(
            "missing_required_parameter",
            "Missing input (or messages, for the shape of the draft).",
            param="input",
        )
    return "draft" if drafted else "responses"


def authenticate(gateway: Gateway, headers: Headers) -> str | None:
    """The name of the caller's key, or ``None`` where keys are off (AIP-CFG-100, 101).

    Raises:
        ProxyError: 401 ``invalid_api_key``.
    """
    keys = gateway.settings.keys
    if keys is None:
        return None
    given = next((value for name, value in headers if name == "authorization"), "")
    scheme, _, token = given.partition(" ")
    digest = sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
    found = None
    for key in keys:
        if compare_digest(key.digest, digest):
            found = key
    if found is None or scheme.lower() != "bearer":
        raise ProxyError(
            "invalid_api_key",
            "Missing or unknown API key; send it as Authorization: Bearer <key>.",
            headers=(("www-authenticate", 'Bearer realm="aiproxy"'),),
        )
    return found.name


def permit_model(gateway: Gateway, owner: str | None, model: str) -> None:
    """403 ``model_not_permitted`` where a key is limited to some models."""
    for key in gateway.settings.keys or ():
        if key.name == owner and key.models is not None and model not in key.models:
            raise ProxyError(
                "model_not_permitted", "This key may not use this model.", param="model"
            )


def _refuse_missing_history(preferences: Any) -> None:
    """No conversation store is kept: what would need one is refused, never guessed."""
    if preferences.merge_branches:
        raise ProxyError(
            "workflow_branch_not_found",
            "This router keeps no conversation state, so there are no branches to merge; "
            "send the whole history in the request.",
            param="X-AI-Merge-Branches",
        )
