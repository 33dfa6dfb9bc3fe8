"""One line for each request, written directly since it is on the request's path."""

import logging
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from aiproxy.middleware.asgi import App, Message, Receive, Scope, Sender
from aiproxy.middleware.decision import Decision
from aiproxy.middleware.money.amounts import usd
from aiproxy.middleware.routing.plan import Plan
from aiproxy.reference_server.log_output import Output, encodable

_LONGEST_PATH: Final = 200
_MOST_CANDIDATES: Final = 8
_PROBES: Final = frozenset({"/healthz", "/readyz"})


class RequestLog:
    """Writes one line for each request: of an inference request what was decided, of any other
    (refused early, model list, health) what it was answered with."""

    def __init__(self, output: Output, level: int) -> None:
        self._output = output
        self._level = level
        self._decided: set[str] = set()

    def __call__(self, decision: Decision) -> None:
        mirror = decision.mirror
        if mirror is None:  # nobody is answered with the id of a mirror
            self._decided.add(decision.id)
        level = logging.ERROR if (decision.status or 0) >= 500 else logging.INFO
        if level < self._level:
            return
        served = decision.served
        requested, plan = decision.requested, decision.plan
        self._output.write(
            {
                "timestamp": datetime.now(UTC),
                "level": _name(level),
                "event": "request" if mirror is None else "mirror",
                "request_id": self._output.redact(decision.id),
                **({} if mirror is None else {"of": self._output.redact(mirror[1])}),
                "endpoint": decision.endpoint,
                "status": decision.status,
                "outcome": decision.outcome,
                "key": decision.owner,
                "requested": requested and self._output.redact(encodable(requested)),
                "provider": served.model.provider.id if served else None,
                "model": served.model.upstream if served else None,
                "reason": plan.reason if plan else None,
                "candidates": _candidates(plan) if plan else [],
                "attempts": len(decision.calls),
                "latency_ms": round(decision.latency_ms, 2),
                "cost_usd": None if decision.cost is None else usd(decision.cost),
                "error": decision.error["code"] if decision.error else None,
            }
        )

    def wrap(self, app: App) -> App:
        """Return ``app`` with a line for the requests that no decision tells of."""

        async def logged(scope: Scope, receive: Receive, send: Sender) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            began = monotonic()
            head: Message = {}

            async def watched(message: Message) -> None:
                nonlocal head
                head = head or message  # the first message is the head
                await send(message)

            try:
                await app(scope, receive, watched)
            finally:
                identity = _request_id(head)
                if identity in self._decided:
                    self._decided.discard(identity)
                else:
                    self._answered(scope, head, identity, monotonic() - began)

        return logged

    def _answered(self, scope: Scope, head: Message, identity: str, took_s: float) -> None:
        path, status = scope["path"], head.get("status")
        level = logging.DEBUG if path in _PROBES else logging.INFO
        if (status or 500) >= 500 and path not in _PROBES:
            level = logging.ERROR
        if level < self._level:
            return
        self._output.write(
            {
                "timestamp": datetime.now(UTC),
                "level": _name(level),
                "event": "request",
                "request_id": self._output.redact(identity),
                "method": scope["method"],
                "endpoint": self._output.redact(encodable(path[:_LONGEST_PATH])),
                "status": status,
                "latency_ms": round(took_s * 1000, 2),
            }
        )


def _candidates(plan: Plan) -> list[str]:
    """Who could have served, best first, as provider/model; the record says why others could not."""
    ranked = plan.ranked[:_MOST_CANDIDATES]
    return [f"{row.model.provider.id}/{row.model.upstream}" for row in ranked]


def _request_id(head: Message) -> str:
    for name, value in head.get("headers", ()):
        if name == b"x-request-id":
            return str(value, "latin-1")
    return ""


def _name(level: int) -> str:
    return logging.getLevelName(level).lower()
