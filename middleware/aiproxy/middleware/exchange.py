"""One request's life, without IO.

``Exchange.run`` is a generator of effects (see ``effects``): read the preferences, understand the
body, plan, then attempt candidates until one holds. A driver that closes the generator early (the
client left) settles the record as aborted.
"""

from collections.abc import Generator
from logging import getLogger
from typing import Any, Final

import orjson

from aiproxy.middleware.answering.attempts import attempt_all
from aiproxy.middleware.answering.fallbacks import with_fallbacks
from aiproxy.middleware.answering.mirrors import Mirrored
from aiproxy.middleware.answering.serving import JSON, Asked, Serving
from aiproxy.middleware.answering.waiting import Patience
from aiproxy.middleware.conversations import Turn
from aiproxy.middleware.conversations.ledger import CONVERSATION
from aiproxy.middleware.decision import Decision
from aiproxy.middleware.dialects import estimate
from aiproxy.middleware.dialects.canonical import MalformedRequest
from aiproxy.middleware.disclosure import response_headers
from aiproxy.middleware.effects import (
    Call,
    Consult,
    Effect,
    Failure,
    Flow,
    Fork,
    Outcome,
    Reply,
    Told,
)
from aiproxy.middleware.ensembles import running as ensembles
from aiproxy.middleware.ensembles.joint import Joint
from aiproxy.middleware.ensembles.panel import Panel
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.gateway import Gateway, Inbound
from aiproxy.middleware.intake import predict
from aiproxy.middleware.intake.admission import (
    authenticate,
    permit_model,
    read_json,
    request_id,
    responses_mode,
)
from aiproxy.middleware.intake.ingress import FOREIGN, identity, refusal, refuse_form, wants_events
from aiproxy.middleware.intake.json_array import as_json_array
from aiproxy.middleware.intake.validate import check_body
from aiproxy.middleware.intake.view import read as read_foreign
from aiproxy.middleware.intent import AUTO, Intent, understand
from aiproxy.middleware.preferences import PREFIX, REQUEST_FIELDS, Preferences, parse_headers
from aiproxy.middleware.routing.plan import Plan, cheapest
from aiproxy.middleware.routing.refusing import NoCandidate
from aiproxy.middleware.routing.steering import steered
from aiproxy.middleware.security import segregation, tags
from aiproxy.middleware.security.tags import Tag
from aiproxy.middleware.settings import ApiKey

log = getLogger("aiproxy")

#: Marks a count of tokens that is ours and not the provider's tokeniser's.
_ESTIMATED: Final = ("x-aiproxy-estimated", "true")


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
            tracked=gateway.settings.track_costs,
        )
        self._serving: Serving | None = None
        self._panel: Panel | None = None
        #: what is left to do for mirrors once the client has its answer
        self.mirrored: list[Mirrored] = []
        self._kept = not inbound.counting

    def run(self) -> Flow:
        """Serve the request; see ``Flow``. Never raises for anything a client or provider did."""
        inbound = self.inbound
        if inbound.stream and inbound.model is not None and not wants_events(inbound.query):
            return as_json_array(self._run())
        return self._run()

    def _run(self) -> Flow:
        decision = self.decision
        try:
            reply = yield from self._serve()
            if decision.outcome == "running":
                decision.outcome = "ok"
            return reply
        except ProxyError as error:
            return self._refuse(error)
        except MalformedRequest as fault:
            return self._refuse(_malformed(fault))
        except GeneratorExit:
            self._abandoned()
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
            decision.latency_ms = (self.gateway.runtime.now() - decision.started) * 1000
            if self._kept:
                mirrors = self.gateway.mirrors
                if mirrors is not None and self._serving is not None:
                    self.mirrored = mirrors.of(self._serving)
                self.gateway.finished(decision)

    def explain(self) -> Decision:
        """Lead the request up to its first call, which is not made: its record without attempts.

        Whatever is looked at before somebody is asked has been looked at, translation included.
        Nothing is logged or kept.
        """
        self._kept = False
        decision = self.decision
        decision.explained = True
        flow = self.run()
        outcome: Outcome = None
        try:
            while type(effect := flow.send(outcome)) not in (Call, Fork):
                outcome = None
                if isinstance(effect, Consult):
                    outcome = _asked(effect)
        except StopIteration:
            return decision
        flow.close()
        self._unbegun()
        decision.attempts.clear()
        if decision.segregation is not None:
            decision.segregation.forget()
        decision.served = None
        decision.outcome = "running"
        return decision

    # --- deciding --------------------------------------------------------------------------------

    def _serve(self) -> Generator[Effect, Outcome, Reply | None]:
        if self.inbound.counting:
            return self._count()
        key = self._caller()
        preferences = self._preferences()
        asked = self._read_body()
        self.decision.requested = asked.body["model"]
        permit_model(self.gateway, self.decision.owner, asked.body["model"])
        if preferences.active:
            turn: Turn | None = yield from self.gateway.conversations.begin(
                self.decision, preferences, asked, looking=not self._kept
            )
            if turn is not None:
                answered: Reply | None = yield from self._converse(key, preferences, turn)
                return answered
        reply: Reply | None = yield from self._answer(key, preferences, asked)
        return reply

    def _converse(self, key: ApiKey | None, preferences: Preferences, turn: Turn) -> Flow:
        """Serve a turn of a conversation, and keep it."""
        reply: Reply | None = yield from turn.watch(
            self._answer(key, preferences, turn.asked, turn)
        )
        if reply is None or turn.workflow.continuity != "lost":
            return reply
        headers = [row for row in reply.headers if not row[0].startswith(PREFIX)]
        headers += response_headers(self.decision, self.gateway.settings)
        return Reply(reply.status, tuple(headers), reply.body)

    def _answer(
        self,
        key: ApiKey | None,
        preferences: Preferences,
        asked: Asked,
        turn: Turn | None = None,
    ) -> Flow:
        patience = Patience(self.gateway, self.decision)
        while True:
            try:
                serving, plan = self._decide(key, preferences, asked, turn)
                break
            except NoCandidate as refusal:
                yield patience.wait_after(refusal)
        self._serving = serving
        if self._panel is not None and isinstance(serving, Joint):
            joint_reply: Reply | None = yield from ensembles.serve(serving, self._panel)
            return joint_reply
        if asked.tags and turn is None:
            cut = segregation.cut_of(serving)
            if cut is not None:
                own = None if key is None else key.data_class
                split_reply: Reply | None = yield from segregation.serve(serving, cut, own)
                return split_reply
        reply: Reply | None = yield from attempt_all(serving, plan)
        return reply

    def _decide(
        self,
        key: ApiKey | None,
        preferences: Preferences,
        asked: Asked,
        turn: Turn | None,
    ) -> tuple[Serving, Plan]:
        gateway, inbound, decision = self.gateway, self.inbound, self.decision
        tagged = tags.classes(asked.tags) if asked.tags else ()
        if turn is not None:
            preferences = turn.bound(preferences)
            tagged = (*tagged, *((name, CONVERSATION) for name in turn.classes))
        native = None if asked.native is None else asked.native.native
        intent = understand(
            asked.endpoint,
            asked.body,
            preferences,
            gateway.settings,
            gateway.registry,
            native,
            key_class=None if key is None else key.data_class,
            tagged=tagged,
        )
        decision.intent = intent
        if turn is not None:
            turn.binds(preferences, intent.constraints.classes)
        if gateway.budget is not None:
            intent.constraints.budget = gateway.budget.left(decision.owner)
        decision.ignored = list(intent.ignored)
        if gateway.ensembles and ensembles.is_named(intent.model):
            deadline = decision.started + intent.timeout_s
            return self._convened(Joint(gateway, inbound, decision, intent, asked, deadline))
        plan = self._plan(intent)
        decision.plan = plan
        decision.ignored += plan.ignored
        deadline = decision.started + intent.timeout_s
        return Serving(gateway, inbound, decision, intent, asked, deadline), plan

    def _convened(self, joint: Joint) -> tuple[Serving, Plan]:
        self._panel = ensembles.plan(joint)
        assert joint.decision.plan is not None
        return joint, joint.decision.plan

    def _count(self) -> Reply:
        """How many tokens the prompt has, by our own estimate; nobody is asked."""
        inbound, decision = self.inbound, self.decision
        self._caller()
        asked = self._read_body()
        model: str = asked.body["model"]
        permit_model(self.gateway, decision.owner, model)
        if model != AUTO and not self.gateway.registry.named(model):
            self.gateway.model(model)
        tokens = estimate.prompt_tokens("chat", asked.body)
        member = "input_tokens" if inbound.endpoint == "anthropic" else "totalTokens"
        named = identity(inbound.endpoint, decision.id)
        return Reply(200, (JSON, *named, _ESTIMATED), orjson.dumps({member: tokens}))

    def _caller(self) -> ApiKey | None:
        inbound = self.inbound
        key = authenticate(
            self.gateway, inbound.headers, "inference", inbound.endpoint, inbound.query
        )
        self.decision.owner = None if key is None else key.name
        return key

    def _preferences(self) -> Preferences:
        headers, decision, settings = self.inbound.headers, self.decision, self.gateway.settings
        preferences = parse_headers(
            headers, lenient=settings.lenient, most_octets=settings.request_field_bytes
        )
        decision.preferences = preferences
        if preferences.active:
            decision.headers = tuple(
                (REQUEST_FIELDS[name].name, value)
                for name, value in headers
                if name in REQUEST_FIELDS
            )
            decision.conversation = preferences.conversation_id
        return preferences

    def _read_body(self) -> Asked:
        inbound = self.inbound
        body = read_json(inbound.body)
        endpoint = inbound.endpoint
        found, raw = tags.taken(body, inbound.body)
        if endpoint in FOREIGN:
            return self._read_foreign(endpoint, body, raw, found)
        if endpoint == "responses":
            endpoint = responses_mode(body)
        check_body(endpoint, body)
        if endpoint != "predict":
            return Asked(endpoint, body, raw, tags=found)
        native = predict.read(body, self.gateway.registry)
        return Asked(native.endpoint, native.body, orjson.dumps(native.body), native)

    def _read_foreign(
        self, endpoint: str, body: dict[str, Any], raw: bytes, found: tuple[Tag, ...]
    ) -> Asked:
        inbound = self.inbound
        original = body
        if inbound.model is not None:
            if inbound.counting and isinstance(body.get("generateContentRequest"), dict):
                body = body["generateContentRequest"]
            original = {**body, "model": inbound.model, "stream": inbound.stream}
            refuse_form(inbound.query)
        elif inbound.counting:
            original = {**body, "stream": False}
        check_body(endpoint, original)
        view, decoded = read_foreign(endpoint, original)
        return Asked(endpoint, view, raw, original=original, decoded=decoded, tags=found)

    def _plan(self, intent: Intent) -> Plan:
        gateway, decision = self.gateway, self.decision
        now = gateway.runtime.now()
        try:
            plan = with_fallbacks(gateway, intent, decision.owner, now)
            if gateway.canaries or decision.conversation is not None:
                return steered(gateway, decision, intent, plan, now)
            return plan
        except NoCandidate as refusal:
            decision.rejected = refusal.rejected  # the record says who was considered, too
            if refusal.code == "budget_exceeded" and gateway.budget is not None:
                raise gateway.budget.exceeded(
                    decision.owner, cheapest(intent, refusal.rejected)
                ) from None
            raise
        except ProxyError:
            raise
        except Exception:
            # XAI-FAIL-021: broken selection falls back to the default provider, inside every
            # constraint that protects data and money.
            log.exception("selection failed for %s; using the default provider", decision.id)
            return gateway.planner.plan_default(intent, now)

    # --- ending ----------------------------------------------------------------------------------

    def _refuse(self, error: ProxyError) -> Reply | None:
        self._note(error)
        if self._serving is not None and self._serving.committed:
            return None  # the head of a stream is out: no other answer can follow it
        decision, endpoint = self.decision, self.inbound.endpoint
        status, body = refusal(error, endpoint, decision.id)
        decision.status = status
        if decision.error is not None:
            decision.error["status"] = status
        headers = [JSON, *identity(endpoint, decision.id), *error.response_headers()]
        if decision.plan is not None:
            self._unbegun()
            headers += response_headers(decision, self.gateway.settings)
        return Reply(status, tuple(headers), body)

    def _unbegun(self) -> None:
        """Take back a new conversation's id: a conversation begins with an answer."""
        preferences = self.decision.preferences
        if preferences is None or preferences.conversation_id is None:
            self.decision.conversation = None

    def _note(self, error: ProxyError) -> None:
        decision = self.decision
        decision.outcome = "failed" if decision.attempts else "refused"
        decision.status = error.status
        decision.error = {
            "status": error.status,
            "code": error.code,
            "param": error.param,
            "message": error.message,
        }

    def _abandoned(self) -> None:
        """The client left. What it had whole stays a success."""
        decision = self.decision
        if self._serving is not None and self._serving.delivered:
            decision.outcome = "ok"
            return
        if decision.outcome != "running":
            return  # it had failed already
        decision.outcome = "aborted"
        for attempt in decision.calls:
            if attempt.outcome == "running" or attempt is decision.served:
                attempt.outcome, attempt.error = "aborted", "client_disconnected"


def _asked(effect: Consult) -> Outcome:
    """What a store answers, asked here and now."""
    try:
        return Told(effect.ask())
    except OSError as fault:
        return Failure("store_unavailable", type(fault).__name__)


def _malformed(fault: MalformedRequest) -> ProxyError:
    return ProxyError(
        "invalid_value",
        f"{fault.param}: found {fault.found}, expected {fault.expected}.",
        param=fault.param,
    )
