"""Requests whose answer shows a choice, and the findings about it.

Everything is asked of a pool of the scenario's own fakes, so that nobody else's can be chosen.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.probe import Probe, refused, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.sightings import POOL, only_asked, served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

AUTO: Final = "auto"
CATEGORIES: Final = "X-AI-Tool-Categories"
PREFERENCE: Final = "X-AI-Reasoning-Preference"
SECURITY: Final = "X-AI-Security-Requirements"
CHATS: Final = ("AIP-API-001",)

Headers = Mapping[str, str]


def choose(
    probe: Probe, roles: tuple[str, ...], headers: Headers | None = None, **fields: Any
) -> tuple["Case", Reply]:
    """Ask for ``model: "auto"`` within the pool of ``roles``; return the case and its reply."""
    case = probe.case()
    return case, ask(case, roles, headers, **fields)


def ask(
    case: "Case", roles: tuple[str, ...], headers: Headers | None = None, **fields: Any
) -> Reply:
    """Send the chat request of ``case`` within the pool of ``roles``, with a model of auto."""
    return case.chat({POOL: case.pool(*roles), **(headers or {})}, **{"model": AUTO, **fields})


def picks(
    me: str,
    probe: Probe,
    fact: str,
    roles: tuple[str, ...],
    right: str | tuple[str, ...],
    headers: Headers | None = None,
    **fields: Any,
) -> Finding:
    """Return whether one of ``right`` is chosen among ``roles``."""
    case, reply = choose(probe, roles, headers, **fields)
    return served(me, fact, case, reply, *((right,) if isinstance(right, str) else right))


def no_candidate(
    me: str, fact: str, case: "Case", reply: Reply, *params: str, code: str = "no_eligible_provider"
) -> Iterator[Finding]:
    """Yield whether ``reply`` is the 422 of an impossible request that blames one of ``params``."""
    yield refused(me, fact, reply, 422)
    yield only_asked(me, f"who was asked: {fact}", case, reply)
    if reply.status == 422:
        said, param = reply.error.get("code"), str(reply.error.get("param")).lower()
        right = said == code and (not params or param in {name.lower() for name in params})
        # Our own pool bars others as well, so it is not wrong to name it; it just helps nobody.
        pool = said == code and param == POOL.lower()
        yield tell(
            me, f"what is blamed: {fact}", right, reply,
            expected=f"code {code}, param {' or '.join(params) or 'any'}",
            found=f"code {said}, param {param}", otherwise=Status.WARN if pool else Status.FAIL,
        )  # fmt: skip


def bad_header(me: str, name: str, value: str, case: "Case", reply: Reply) -> Iterator[Finding]:
    """Yield whether ``value`` was refused with the 400 that names the header."""
    yield refused(me, f"{name}: {value}", reply, 400)
    yield only_asked(me, f"who was asked with {value!r}", case, reply)
    if reply.status == 400:
        found = (reply.error.get("code"), str(reply.error.get("param")).lower())
        yield tell(
            me, f"what is blamed for {value!r}", found == ("invalid_header_value", name.lower()),
            reply, expected=f"code invalid_header_value, param {name}",
            found=f"code {found[0]}, param {found[1]}",
        )  # fmt: skip


def bad_field(me: str, fact: str, case: "Case", reply: Reply, param: str) -> Iterator[Finding]:
    """Yield whether a body was refused with the 400 that names the field ``param``."""
    yield refused(me, fact, reply, 400)
    yield only_asked(me, f"who was asked: {fact}", case, reply)
    if reply.status == 400:
        found = str(reply.error.get("param"))
        yield tell(
            me, f"what is blamed: {fact}", found.startswith(param), reply,
            expected=f"param {param}", found=f"param {found}",
        )  # fmt: skip
