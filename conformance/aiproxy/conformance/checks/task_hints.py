"""X-AI-Task-Hint: what kind of work it is (draft §6, Table 2; Figs 1, 9, 11, 16, 17, 21).

Each kind of work has one fake that is declared for it, in every way a configuration can say so;
the first in priority is the cheapest and made for nothing in particular.
"""

from collections.abc import Iterator
from typing import Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import (
    AUTO,
    CHATS,
    SECURITY,
    ask,
    bad_header,
    choose,
    no_candidate,
    picks,
)
from aiproxy.conformance.claims import SELECTION, field, mentions
from aiproxy.conformance.probe import Probe, refused, tell
from aiproxy.conformance.results import Finding
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import HINT, POOL, only_asked, served

_TASKS: Final = ("reasoning", "coding", "creative", "analytical")
_TEXT: Final = "text-generation"


def _good_at(task: str) -> dict[str, float]:
    return {**dict.fromkeys(("general", *_TASKS), 0.4), task: 0.95}


_FIELD: Final[dict[str, Any]] = {
    "any": Fake(priority=1, price=0.0005, quality=dict.fromkeys(("general", *_TASKS), 0.4)),
    "thinker": Fake(
        priority=6, quality=_good_at("reasoning"), capabilities=(_TEXT, "reasoning"),
        model={"reasoning": "native"},
    ),
    "coder": Fake(
        priority=3, quality=_good_at("coding"), capabilities=(_TEXT, "code-generation")
    ),
    "writer": Fake(priority=5, quality=_good_at("creative")),
    "analyst": Fake(priority=4, quality=_good_at("analytical")),
}  # fmt: skip
_ALL: Final = tuple(_FIELD)
# A picture of one pixel.
_IMAGE: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUB"
    "AScY42YAAAAASUVORK5CYII="
)


@check(
    "XAI-HDR-030",
    level=3,
    keyword="MUST",
    title="hint reasoning steers to a reasoning-capable model",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-031",
    level=3,
    keyword="MUST",
    title="hint coding steers to a code-capable model",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-032",
    level=3,
    keyword="MUST",
    title="hint creative steers to a model strong at creative work",
    clause="draft §6, Table 2, Fig 9",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-033",
    level=3,
    keyword="MUST",
    title="hint analytical steers to a model declared for analysis",
    clause="draft §6, Table 2, Fig 8",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-035",
    level=3,
    keyword="MUST",
    title="reasoning-optimized means reasoning",
    clause="draft Fig 1, Fig 2",
    depends_on=CHATS,
)
@behind(**_FIELD)
def each_task_has_its_model(probe: Probe) -> Iterator[Finding]:
    for me, task, right in (
        ("XAI-HDR-030", "reasoning", "thinker"),
        ("XAI-HDR-031", "coding", "coder"),
        ("XAI-HDR-032", "creative", "writer"),
        ("XAI-HDR-033", "analytical", "analyst"),
    ):
        yield picks(me, probe, f"the hint {task}", _ALL, right, {HINT: task})
        yield picks(me, probe, "without a hint", _ALL, "any")
        others = tuple(role for role in _ALL if role != right)
        yield picks(me, probe, f"{task} when nobody is made for it", others, others, {HINT: task})
    yield from _means_the_same(probe, "reasoning-optimized", "reasoning")


def _means_the_same(probe: Probe, alias: str, word: str) -> Iterator[Finding]:
    me, told = "XAI-HDR-035", []
    for hint in (alias, word):
        case, reply = choose(probe, _ALL, {HINT: hint})
        if hint == alias:
            yield served(me, f"the hint {hint}", case, reply, "thinker")
        selection = field(reply, SELECTION)
        told.append(selection.get("criteria") if isinstance(selection, dict) else None)
    yield tell(
        me, "the criteria told for both", told[0] == told[1], reply,
        expected=repr(told[1]), found=repr(told[0]),
    )  # fmt: skip


@check(
    "XAI-HDR-034",
    level=3,
    keyword="MUST",
    title="hint multimodal limits the choice to models that accept more than text",
    clause="draft §6, Table 2, Fig 10",
    depends_on=CHATS,
)
@behind(
    any=Fake(priority=1, price=0.0005),
    sees=Fake(priority=9, price=0.05, capabilities=(_TEXT, "vision")),
    hears=Fake(priority=2, price=0.001, capabilities=(_TEXT, "code-generation")),
)
def multimodal_needs_eyes(probe: Probe) -> Iterator[Finding]:
    me, hint = "XAI-HDR-034", {HINT: "multimodal"}
    yield picks(me, probe, "one of three has vision", ("any", "sees", "hears"), "sees", hint)
    blind = ("any", "hears")
    yield picks(me, probe, "a text, and nobody has vision", blind, blind, hint)
    case = probe.case()
    reply = ask(case, blind, hint, messages=picture(case.prompt("What is this?")))
    yield from no_candidate(me, "a picture, and nobody has vision", case, reply)


def picture(text: str) -> list[dict[str, Any]]:
    """Return a user message with ``text`` and a picture."""
    image = {"type": "image_url", "image_url": {"url": _IMAGE}}
    return [{"role": "user", "content": [{"type": "text", "text": text}, image]}]


@check(
    "XAI-HDR-036",
    level=3,
    keyword="MUST",
    title="the hint support is accepted",
    clause="draft Fig 11",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-037",
    level=3,
    keyword="MUST",
    title="the hint medical is accepted, and relaxes no security rule",
    clause="draft Fig 16",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-038",
    level=3,
    keyword="MUST",
    title="the hint financial is accepted",
    clause="draft Fig 17",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-039",
    level=3,
    keyword="MUST",
    title="the hint marketing is accepted",
    clause="draft Fig 21",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-040",
    level=3,
    keyword="MUST",
    title="the hint product is accepted",
    clause="draft Fig 21",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-041",
    level=3,
    keyword="MUST",
    title="an unknown hint is ignored and reported, a malformed one refused",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@behind(a=Fake(), b=Fake())
def other_hints_are_harmless(probe: Probe) -> Iterator[Finding]:
    unknown = probe.word()
    for me, hint in (
        ("XAI-HDR-036", "support"),
        ("XAI-HDR-037", "medical"),
        ("XAI-HDR-038", "financial"),
        ("XAI-HDR-039", "marketing"),
        ("XAI-HDR-040", "product"),
        ("XAI-HDR-041", unknown),
    ):
        case, reply = choose(probe, ("a", "b"), {HINT: hint})
        yield served(me, f"the hint {hint}", case, reply, "a", "b")
        if reply.status == 200:
            words = (hint, HINT) if hint == unknown else (hint,)
            yield tell(
                me, f"{hint} in what is told of the decision", mentions(case, reply, *words), reply,
                expected=f"{hint!r} among the criteria or in the record", found="not there",
            )  # fmt: skip
    for malformed in ("a b;c", '"coding"', "-x"):
        case, reply = choose(probe, ("a", "b"), {HINT: malformed})
        yield from bad_header("XAI-HDR-041", HINT, malformed, case, reply)
    for hinted in (False, True):
        medical = {HINT: "medical"} if hinted else {}
        case, reply = choose(probe, ("a", "b"), {SECURITY: "hipaa", **medical})
        fact = f"{SECURITY}: hipaa of nobody attested, {'with' if hinted else 'without'} the hint"
        yield refused("XAI-HDR-037", fact, reply, 422)
        yield only_asked("XAI-HDR-037", f"who was asked: {fact}", case, reply)


@check(
    "XAI-HDR-042",
    level=3,
    keyword="MUST",
    title="a hint never overrides an explicit model",
    clause="draft §5 sync, Fig 4",
    depends_on=CHATS,
)
@behind(
    plain=Fake(alone=True, priority=9, price=0.02),
    coder=Fake(
        alone=True, priority=1, price=0.0005, quality=_good_at("coding"),
        capabilities=(_TEXT, "code-generation"),
    ),
)  # fmt: skip
def an_explicit_model_stands(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-042"
    for model, right in ((probe.cast["plain"].model, "plain"), (AUTO, "coder")):
        case = probe.case()
        reply = case.chat({HINT: "coding", POOL: case.pool()}, model=model)
        what = "auto" if model == AUTO else f"the model of {right}"
        yield served(me, f"{what}, hint coding", case, reply, right)
        yield only_asked(me, f"who was asked: {what}, hint coding", case, reply, right)
        sent = {(a.json or {}).get("model") for a in case.attempts()}
        named = probe.cast[right].upstream_model
        yield tell(
            me, f"the model asked for upstream: {what}", sent <= {named}, reply,
            expected=named, found=", ".join(map(str, sent)),
        )  # fmt: skip
