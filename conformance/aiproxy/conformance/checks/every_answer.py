"""What holds for every chat answer of the run, looked at when all others are done."""

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any, Final

from aiproxy.conformance.checks import check
from aiproxy.conformance.checks.streaming import LEGAL_FINISH
from aiproxy.conformance.endpoint import Reply
from aiproxy.conformance.probe import Probe, is_count, say, tell
from aiproxy.conformance.results import Finding, Status

_CHATS: Final = ("AIP-API-001",)
_ENOUGH: Final = 8
_CLOCK_S: Final = 300


@check(
    "XAI-COMPAT-016",
    level=1,
    keyword="MUST",
    title="usage adds up and is never negative",
    clause="draft Fig 6-8",
    depends_on=_CHATS,
)
@check(
    "XAI-COMPAT-017",
    level=1,
    keyword="MUST",
    title="created is a Unix time in seconds near the clock",
    clause="draft Fig 1-21",
    depends_on=_CHATS,
)
@check(
    "XAI-COMPAT-018",
    level=1,
    keyword="MUST",
    title="each answer has an id of its own",
    clause="draft Fig 1-21",
    depends_on=_CHATS,
)
@check(
    "XAI-COMPAT-019",
    level=1,
    keyword="MUST",
    title="choices are numbered from 0 and end for a legal reason",
    clause="draft Fig 6",
    depends_on=_CHATS,
)
def every_answer_is_sound(probe: Probe) -> Iterator[Finding]:
    answers = _answers(probe)
    for _ in range(_ENOUGH - len(answers)):
        probe.chat()
    answers = _answers(probe)
    yield _first_fault(
        "XAI-COMPAT-016", "usage", answers, _wrong_usage, "total = prompt + completion"
    )
    yield _first_fault("XAI-COMPAT-017", "created", answers, _wrong_time, "seconds, near now")
    yield _first_fault("XAI-COMPAT-019", "choices", answers, _wrong_choices, "0, 1, … and a reason")
    ids = [name for reply in answers if isinstance(name := reply.object.get("id"), str)]
    if len(ids) < 2:
        yield say("XAI-COMPAT-018", Status.INCONCLUSIVE, f"only {len(ids)} answers to compare")
        return
    repeated = len(ids) - len(set(ids))
    yield tell(
        "XAI-COMPAT-018", "ids", not repeated, answers[-1],
        expected=f"{len(ids)} different ones", found=f"{repeated} repeated",
    )  # fmt: skip


def _answers(probe: Probe) -> list[Reply]:
    return [
        reply
        for reply in probe.endpoint.answers
        if reply.status == 200 and reply.object.get("object") == "chat.completion"
    ]


def _first_fault(
    check_id: str, fact: str, answers: list[Reply], wrong_with: Any, expected: str
) -> Finding:
    for reply in answers:
        fault = wrong_with(reply)
        if fault:
            return tell(check_id, fact, False, reply, expected=expected, found=fault)
    if not answers:
        return say(check_id, Status.NOT_TESTABLE, "no chat.completion to look at")
    return tell(check_id, fact, True, answers[0])


def _wrong_usage(reply: Reply) -> str:
    usage = reply.object.get("usage")
    if not isinstance(usage, dict):
        return ""
    counts = [usage.get(f"{name}_tokens") for name in ("prompt", "completion", "total")]
    numbers = [count for count in counts if is_count(count)]
    if len(numbers) < 3:
        return ""  # another check's fault
    prompt, completion, total = numbers
    if min(numbers) < 0 or prompt + completion != total:
        return f"{prompt} + {completion}, total {total}"
    return ""


def _wrong_time(reply: Reply) -> str:
    created = reply.object.get("created")
    if not is_count(created):
        return ""  # another check's fault
    now = time.time()
    clocks = [now]
    try:
        clocks.append(parsedate_to_datetime(reply.header("date") or "").timestamp())
    except (TypeError, ValueError):
        clocks.append(now)  # no usable Date: our own clock decides
    if min(abs(created - clock) for clock in clocks) < _CLOCK_S:
        return ""
    return f"{created} at {int(now)}"


def _wrong_choices(reply: Reply) -> str:
    choices = reply.object.get("choices")
    if not isinstance(choices, list):
        return ""  # another check's fault
    for position, choice in enumerate(choices):
        if not isinstance(choice, dict):
            return f"choice {position} is not an object"
        if choice.get("index") != position:
            return f"index {choice.get('index')!r} at position {position}"
        if choice.get("finish_reason") not in LEGAL_FINISH:
            return f"finish_reason {choice.get('finish_reason')!r}"
    return ""
