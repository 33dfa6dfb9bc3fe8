"""Findings about who served and who was asked, told by the fake providers themselves.

What a target says about its choices is never taken from its headers here: the answer's proof of
origin names who served, the fakes' own logs name who was asked.
"""

import json
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.endpoint import CHAT, Reply
from aiproxy.conformance.probe import NotTestable, Probe, tell
from aiproxy.conformance.results import Finding

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

SWITCH: Final = "X-AI-Multi-Provider"
POOL: Final = "X-AI-Provider-Pool"
POLICY: Final = "X-AI-Failover-Policy"
STRATEGY: Final = "X-AI-Routing-Strategy"
HINT: Final = "X-AI-Task-Hint"
QUALITY: Final = "X-AI-Quality-Threshold"
LATENCY: Final = "X-AI-Max-Latency"
COST: Final = "X-AI-Cost-Limit"
USED: Final = "x-ai-provider-used"
MAPPED: Final = "x-ai-model-mapped"
DEFAULT: Final = "default"


def served(
    me: str, fact: str, case: "Case", reply: Reply, *roles: str, blocks: bool = False
) -> Finding:
    """Return whether ``reply`` is a 200 that one of ``roles`` wrote."""
    role = case.served(reply) if reply.status == 200 else ""
    return tell(
        me, fact, role in roles, reply, expected=f"an answer of {_names(case, roles)}",
        found=f"one of {_names(case, (role,))}" if reply.status == 200 else reply.outcome,
        blocks=blocks,
    )  # fmt: skip


def only_asked(me: str, fact: str, case: "Case", reply: Reply, *roles: str) -> Finding:
    """Return whether nobody but ``roles`` was asked for this case."""
    strangers = tuple(role for role in case.order() if role not in roles)
    return tell(
        me, fact, not strangers, reply,
        expected=f"nobody asked but {_names(case, roles)}" if roles else "nobody asked",
        found=f"{_names(case, strangers)} asked",
    )  # fmt: skip


def preferred(probe: Probe, *roles: str) -> str:
    """Return which of ``roles`` a healthy request for their common model goes to.

    Raises:
        NotTestable: none of them served it.
    """
    case = probe.case()
    reply = case.chat({POOL: case.pool(*roles)})
    role = case.served(reply) if reply.status == 200 else ""
    if role not in roles:
        raise NotTestable(
            f"a healthy request to {_names(case, roles)} was not served by them ({reply.outcome})"
        )
    return role


def raw_chat(probe: Probe, case: "Case", *fields: str, **members: Any) -> Reply:
    """Send the case's chat request with header lines as they are, for what a library refuses.

    Characters above 127 leave as one octet each (Latin-1).

    Raises:
        Unanswered: no complete answer.
    """
    content = json.dumps(case.body(**members)).encode()
    head = probe.endpoint.raw_head(
        "POST", CHAT, "Content-Type: application/json", f"Content-Length: {len(content)}",
        "Connection: close", *fields,
    )  # fmt: skip
    return probe.endpoint.raw(head.decode().encode("latin-1") + content)[0]


def _names(case: "Case", roles: tuple[str, ...]) -> str:
    return " or ".join(case.who(role) if role else "nobody known" for role in roles)
