"""Shares of traffic that are sent to somebody else as well (``routing.mirrors``).

A mirrored request is one more request of the same prompt, made when the client has its answer: it
passes the same filters (security, pool, capabilities, cost, health), is asked once, and what comes
back is read and thrown away. It has a decision of its own, linked to the request it repeats, with
its attempt and its cost; the client's limits count without it. It never delays or fails a request:
beyond ``max_concurrency`` it is left out, and at shutdown it is closed.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from logging import getLogger
from threading import Lock
from typing import Any, Final

from aiproxy.middleware.answering.asides import aside, asked_for, intent_for
from aiproxy.middleware.answering.attempts import attempt_all
from aiproxy.middleware.answering.serving import Serving
from aiproxy.middleware.dialects.canonical import MalformedRequest
from aiproxy.middleware.effects import Effect, Outcome
from aiproxy.middleware.ensembles.roster import PREFIX
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.routing.globs import Glob, compile_glob
from aiproxy.middleware.routing.plan import Plan

log = getLogger("aiproxy")

#: One mirrored request under way: effects out, outcomes in, as of any exchange.
Mirrored = Generator[Effect, Outcome, None]

#: Requests that were answered, well or not; one that was refused is nobody's traffic.
_MIRRORED: Final = frozenset({"ok", "failed"})
_POINTS: Final = 1 << 64


@dataclass(slots=True)
class Mirror:
    """One row of ``routing.mirrors``. ``busy`` counts its requests under way."""

    name: str
    asks: Glob
    provider: str | None
    to: str | None
    percent: float
    most: int
    busy: int = 0
    lock: Lock = field(default_factory=Lock, repr=False)

    def enter(self) -> bool:
        with self.lock:
            if self.busy >= self.most:
                return False
            self.busy += 1
            return True

    def leave(self) -> None:
        with self.lock:
            self.busy -= 1


class Mirrors:
    """The mirrors of one configuration."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = [
            Mirror(
                row["name"],
                compile_glob(row["model"]),
                row["provider"],
                row["to"],
                float(row["percent"]),
                row["max_concurrency"],
            )
            for row in rows
        ]

    def of(self, serving: Serving) -> list[Mirrored]:
        """Return what is to be done beside a request that is over; its decision has their ids."""
        decision, intent = serving.decision, serving.intent
        if decision.outcome not in _MIRRORED or intent.mode == "disabled":
            return []
        asked = decision.requested or intent.model
        found: list[Mirrored] = []
        for mirror in self._rows:
            if mirror.to is None and asked.startswith(PREFIX):
                continue
            sample = decision.conversation or decision.id
            if mirror.asks(asked) and in_share(mirror.name, sample, mirror.percent):
                mirror_id = f"mir_{serving.gateway.runtime.new_id()}"
                decision.mirrors.append(mirror_id)
                found.append(_mirrored(serving, mirror, mirror_id))
        return found


def build_mirrors(rows: Sequence[Mapping[str, Any]]) -> Mirrors:
    """Return the mirrors of ``routing.mirrors``."""
    return Mirrors(rows)


def in_share(name: str, sample: str, percent: float) -> bool:
    """Return whether a request is in the share: always the same for the same conversation (or
    request) and mirror, nobody at 0, everybody at 100."""
    digest = sha256(f"{name}\0{sample}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") < percent / 100 * _POINTS


def _mirrored(serving: Serving, mirror: Mirror, mirror_id: str) -> Mirrored:
    gateway, held = serving.gateway, serving.decision
    model = mirror.to or held.requested or serving.intent.model
    providers = None if mirror.provider is None else (mirror.provider,)
    intent = intent_for(serving.intent, model, providers, failover="none")
    limits = replace(intent.constraints)
    intent.constraints = limits
    if gateway.budget is not None:
        limits.budget = gateway.budget.left(None)
    side = aside(serving, intent, asked_for(serving.asked, model), "mirror")
    decision = side.decision
    # The operator's traffic, not the caller's: no key's budget pays for it.
    decision.id, decision.owner = mirror_id, None
    decision.mirror = (mirror.name, held.id)
    decision.started = gateway.runtime.now()
    decision.created = int(gateway.runtime.wall())
    side.deadline = decision.started + intent.timeout_s
    entered = mirror.enter()
    try:
        if not entered:
            raise _left_out(mirror)
        plan = _plan(side, serving)
        decision.plan = plan
        yield from attempt_all(side, plan)
        decision.outcome = "ok"
    except (ProxyError, MalformedRequest) as fault:
        _note(side, fault)
    except GeneratorExit:
        decision.outcome = "aborted"
        for attempt in decision.attempts:
            if attempt.outcome == "running":
                attempt.outcome = "aborted"
        raise
    except Exception:
        decision.outcome = "failed"
        log.exception("mirror %s of request %s failed inside the router", mirror.name, held.id)
    finally:
        if entered:
            mirror.leave()
        for attempt in decision.attempts:
            attempt.role = "mirror"
        decision.latency_ms = (gateway.runtime.now() - decision.started) * 1000
        gateway.finished(decision)


def _left_out(mirror: Mirror) -> ProxyError:
    return ProxyError(
        "provider_overloaded", f"Mirror {mirror.name} has {mirror.most} requests under way."
    )


def _plan(side: Serving, original: Serving) -> Plan:
    """Who gets the mirrored request: anybody but who answered the one it repeats.

    Raises:
        ProxyError: nobody may, or only the same one.
    """
    plan = side.gateway.planner.plan(side.intent, side.now())
    served = original.decision.served
    if served is None:
        return plan
    ranked = tuple(row for row in plan.ranked if row.model is not served.model)
    if not ranked:
        raise ProxyError("no_eligible_provider", "Nobody but who answered may get the mirror.")
    return replace(plan, ranked=ranked, eligible=len(ranked))


def _note(side: Serving, fault: ProxyError | MalformedRequest) -> None:
    decision = side.decision
    decision.outcome = "failed" if decision.attempts else "refused"
    told = fault if isinstance(fault, ProxyError) else ProxyError("invalid_value", str(fault))
    decision.status = told.status
    decision.error = {
        "status": told.status,
        "code": told.code,
        "param": told.param,
        "message": told.message,
    }
