"""Requests whose first provider fails: how they are asked, and what their answers show."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.endpoint import Reply
from aiproxy.conformance.probe import say, tell
from aiproxy.conformance.reply import strict_json, x_aiproxy
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.sightings import DEFAULT, POLICY, POOL, SWITCH

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

AUTO: Final = "auto"


def among(case: "Case", *roles: str, policy: str = "automatic") -> dict[str, str]:
    """Return the headers of a request that only ``roles`` may serve, under a failover policy."""
    return {SWITCH: "enabled", POLICY: policy, POOL: case.pool(*roles)}


def moved(
    me: str, fact: str, case: "Case", reply: Reply, *, off: str, onto: str, seen: bool = True
) -> Finding:
    """Return whether ``reply`` is an answer of somebody else after ``off`` had failed.

    That is ``onto`` where the pool is respected, which is another check's business. ``seen`` is
    whether a request would show in the log of ``off``: one that refuses connections never sees
    any. Where it would and does not, the fault was not exercised: inconclusive.
    """
    role = case.served(reply) if reply.status == 200 else ""
    if role and role != off and seen and off not in case.order():
        return say(me, Status.INCONCLUSIVE, f"{fact}: {case.who(off)} was not asked", reply)
    return tell(
        me, fact, role not in ("", off), reply, expected=f"200 from {case.who(onto)}",
        found=f"200 from {case.who(role)}" if role else reply.outcome,
    )  # fmt: skip


def seen(case: "Case") -> list[tuple[str, Attempt]]:
    """Return the attempts of a case with their roles, without those at fakes of other scenarios."""
    every = zip(case.tried(), case.attempts(), strict=False)
    return [(role, attempt) for role, attempt in every if role in (*case.roles, DEFAULT)]


def header_object(reply: Reply, name: str) -> Mapping[str, Any]:
    """Return the JSON object in a header field; empty when there is none."""
    value, _ = strict_json((reply.header(name) or "").encode("utf-8", "replace"))
    return value if isinstance(value, dict) else {}


def no_answer_found(me: str, fact: str, reply: Reply, *statuses: int) -> Finding:
    """Return whether ``reply`` is an error object with one of ``statuses``."""
    wanted = " or ".join(map(str, statuses))
    right = reply.status in statuses and isinstance(reply.error.get("message"), str)
    return tell(me, fact, right, reply, expected=f"{wanted} with an error object")


def coded(me: str, reply: Reply, *codes: str) -> Finding:
    """Return whether the error has one of ``codes``; the exact word is a rule of our house."""
    code = reply.error.get("code")
    return tell(
        me, "error.code", not reply.error or code in codes, reply,
        expected=" or ".join(codes), found=repr(code), otherwise=Status.WARN,
    )  # fmt: skip


def told_of_failover(case: "Case", reply: Reply) -> tuple[str, Mapping[str, Any]]:
    """Return the reason given for a failover, and every report about it by name.

    The reason may stand in X-AI-Auto-Selection, in the body's x-aiproxy or in the record.
    """
    selection = header_object(reply, "x-ai-auto-selection")
    record = case.decision(reply)
    failover = record.get("failover")
    failover = failover if isinstance(failover, dict) else {}
    reasons = (
        selection.get("failover_reason"),
        x_aiproxy(reply).get("failover_reason"),
        failover.get("reason"),
    )
    reason = next((text for text in reasons if isinstance(text, str) and text), "")
    reports = {
        "selection": {key: selection[key] for key in selection if key != "provider_selection"},
        "attempts": record.get("attempts", ()),
        "failover": failover,
    }
    return reason, reports
