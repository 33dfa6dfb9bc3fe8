"""A model that the target runs itself: how many at once, and what happens to the rest (aiproxy §5.2).

The fakes of type ``local`` are never asked: the target's own small model answers in their place. So
an answer without a proof of origin is the local one, and one with the proof of ``b`` moved on.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiproxy.conformance.case import Case
from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.worlds import ORDERED

CHATS: Final = ("AIP-API-001",)
BUSY: Final = "local_gpu_busy"
_AT_ONCE: Final = 10
_ROUNDS: Final = 3
# An answer that took this many times as long as a lone one has waited for others.
_QUEUED: Final = 5.0
_OWN: Final[Mapping[str, Any]] = {
    "type": "local",
    "endpoint": None,
    "credentials": {"api_key": None},
    "max_concurrency": 1,
}
_DEMO: Final[Mapping[str, Any]] = {"path": "builtin:demo", "model": None}


@check(
    "AIP-FAIL-006",
    level=2,
    keyword="MUST",
    title="a busy local accelerator is a reason to fail over",
    clause="aiproxy §5.2",
    depends_on=(*CHATS, "AIP-API-010"),
    feature="local-models",
)
@check(
    "AIP-PROV-004",
    level=2,
    keyword="MUST",
    title="local inference has a bounded concurrency and a bounded queue",
    clause="aiproxy §5.2 local_gpu_busy",
    depends_on=(*CHATS, "AIP-API-010"),
    feature="local-models",
)
@behind(
    world=ORDERED,
    gpu=Fake(priority=1, price=0.0, provider={**_OWN, "max_queue": 0}, model=_DEMO),
    b=Fake(priority=2),
    lone=Fake(alone=True, price=0.0, provider={**_OWN, "max_queue": 1}, model=_DEMO),
)
def local_places_are_bounded(probe: Probe) -> Iterator[Finding]:
    moves, bound = "AIP-FAIL-006", "AIP-PROV-004"
    case = probe.case()
    first = case.predict(model=case.cast["lone"].model)
    if first.status != 200 or case.attempts():
        reason = "the target runs no model of its own for a provider of type local"
        for me in (moves, bound):
            yield say(me, Status.UNSUPPORTED, reason, first)
        return
    yield from _moved_on(probe, moves)
    yield from _bounded(probe, bound)


def _moved_on(probe: Probe, me: str) -> Iterator[Finding]:
    answers, moved = list[tuple[Case, Reply]](), list[tuple[Case, Reply]]()
    for _ in range(_ROUNDS):
        answers = _at_once(probe, probe.cast.model)
        moved = [(case, reply) for case, reply in answers if case.served(reply) == "b"]
        if moved:
            break
    failed = [reply for _, reply in answers if reply.status != 200]
    yield tell(
        me, f"{_AT_ONCE} requests at once for one place", not failed, failed[0] if failed else None,
        expected="an answer to each", found=f"{len(failed)} errors",
    )  # fmt: skip
    if not moved:
        yield say(me, Status.INCONCLUSIVE, "the local model was never busy")
        return
    told = {reply.label: _reason(reply) for _, reply in moved}
    reply = next((r for _, r in moved if told[r.label] == BUSY), moved[0][1])
    yield tell(
        me, "the reason of one that moved on", told[reply.label] == BUSY, reply,
        expected=BUSY, found=repr(told[reply.label]),
    )  # fmt: skip


def _reason(reply: Reply) -> object:
    metadata = reply.object.get("metadata")
    routing = metadata.get("routing") if isinstance(metadata, dict) else None
    return routing.get("reason") if isinstance(routing, dict) else None


def _bounded(probe: Probe, me: str) -> Iterator[Finding]:
    model = probe.cast["lone"].model
    alone = min(probe.case().predict(model=model).answer.seconds for _ in range(3))
    replies, refused = list[Reply](), list[Reply]()
    for _ in range(_ROUNDS):
        replies = [reply for _, reply in _at_once(probe, model)]
        refused = [reply for reply in replies if reply.status != 200]
        if refused:
            break
    longest = max(reply.answer.seconds for reply in replies)
    if not refused and longest < _QUEUED * alone:
        yield say(me, Status.INCONCLUSIVE, "the local model is too fast to be kept busy")
        return
    yield tell(
        me, f"{_AT_ONCE} requests at once for one place and a queue of one", bool(refused),
        expected="some refused", found=f"all answered, the last after {longest:.2f} s",
    )  # fmt: skip
    odd = [reply for reply in refused if reply.status != 503 or not reply.error]
    yield tell(
        me, "the refusals", not odd, odd[0] if odd else None, expected="503 with an error object"
    )


def _at_once(probe: Probe, model: str) -> list[tuple[Case, Reply]]:
    cases = [probe.case() for _ in range(_AT_ONCE)]
    replies = probe.together(cases, lambda case: case.predict(model=model))
    return list(zip(cases, replies, strict=True))
