"""A request split by the data classes of its own parts (draft Fig 17; ``security.segregation``).

The parts of a class are asked by themselves, of providers of that class only, and nobody else ever
gets them: the request that is answered to the client has the answers in their place. That one runs
where all classes together may run, since an answer may repeat what it was asked. So data only moves
from a tier to one that meets its demands too. What the header and the key demand binds every call;
a tag adds to that for its parts.

Every call is planned before the first one is made, so a class that nobody can serve refuses the
request unsent; the cost limit holds for the sum. A request that cannot be split cleanly (see
``cutting``) is not split: all of it goes to the strictest tier, as without the feature. Splitting is a
routing rule and proves no compliance with any law.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from aiproxy.middleware.answering.asides import aside, asked_for
from aiproxy.middleware.answering.attempts import attempt_all
from aiproxy.middleware.answering.serving import Asked, Serving, Steps
from aiproxy.middleware.decision import Attempt
from aiproxy.middleware.effects import Reply
from aiproxy.middleware.ensembles import answers
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intake.ingress import FOREIGN
from aiproxy.middleware.intake.members import patch
from aiproxy.middleware.intake.view import read as read_foreign
from aiproxy.middleware.intent import Intent, understand
from aiproxy.middleware.preferences import Preferences
from aiproxy.middleware.routing.plan import Plan
from aiproxy.middleware.security.cutting import TURNS, Cut
from aiproxy.middleware.security.tags import classes
from aiproxy.middleware.security.trust import LEVEL_NAMES

ROLE: Final = "segment"
_UNREACHED: Final = "connect_error"


@dataclass(slots=True)
class Segment:
    """The request for the parts of one class."""

    data_class: str
    serving: Serving
    plan: Plan

    @property
    def attempts(self) -> list[Attempt]:
        return self.serving.decision.attempts

    @property
    def provider(self) -> Any:
        served = self.serving.decision.served
        return (self.plan.ranked[0] if served is None else served.ranked).model.provider


@dataclass(slots=True)
class Segregation:
    """A request that was split, for its record."""

    segments: list[Segment]

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for segment in self.segments for attempt in segment.attempts]

    @property
    def spent(self) -> int:
        """What the calls may have cost, in picodollars: where a provider may have worked and did
        not say, its worst case."""
        return sum(map(_exposure, self.attempts))

    def forget(self) -> None:
        """Leave no call on record, of a request that is only explained."""
        for segment in self.segments:
            segment.attempts.clear()

    def record(self) -> dict[str, Any]:
        """The members ``allocation`` and ``flow_controls`` of draft Fig 17."""
        return {
            "allocation": {
                segment.data_class: {
                    "provider": segment.provider.id,
                    "sec": LEVEL_NAMES[segment.provider.level] or "unstated",
                }
                for segment in self.segments
            },
            "flow_controls": {"cross_tier": "prohibited", "aggregation": "answers_only"},
        }


def cut_of(serving: Serving) -> Cut | None:
    """How a request is split; ``None``: it is not."""
    asked = serving.asked
    if not serving.gateway.settings.segregation or serving.intent.mode == "disabled":
        return None
    cut = Cut(asked.endpoint, asked.original or asked.body, asked.tags)
    return cut if cut.possible else None


def serve(serving: Serving, cut: Cut, key_class: str | None) -> Steps:
    """Ask for each class, then answer the client; return the reply, ``None`` when it was streamed.

    Raises:
        ProxyError: a class, or all of them together, can be served by nobody, or was not.
    """
    decision = serving.decision
    preferences = decision.preferences
    assert preferences is not None
    named = classes(serving.asked.tags)
    segments = [
        _segment(serving, cut, tag, place, preferences, key_class)
        for place, tag in enumerate(named)
    ]
    decision.segregation = Segregation(segments)
    assert decision.plan is not None
    floors = [_cheapest(segment.plan) for segment in segments] + [_cheapest(decision.plan)]
    said: dict[str, str] = {}
    for place, segment in enumerate(segments):
        _held_to(segment, _left(serving, sum(floors[place + 1 :])))
        said[segment.data_class] = yield from _asked(serving, segment)
    serving.asked = _final(serving.asked, cut, said)
    plan = _planned(serving, preferences, key_class, named)
    return (yield from attempt_all(serving, plan))


def _segment(
    serving: Serving,
    cut: Cut,
    tag: tuple[str, str],
    place: int,
    preferences: Preferences,
    key_class: str | None,
) -> Segment:
    """Plan the request for one class under its demands and the request's own."""
    asked = _read(serving.asked, cut.of(tag[0]))
    asked = asked_for(asked, asked.body["model"])
    intent = _intent(serving, asked, preferences, key_class, (tag,))
    intent.stream = False
    side = aside(serving, intent, asked, f"part-{place}")
    plan = serving.gateway.planner.plan(intent, serving.now())
    side.decision.plan = plan
    return Segment(tag[0], side, plan)


def _intent(
    serving: Serving,
    asked: Asked,
    preferences: Preferences,
    key_class: str | None,
    named: tuple[tuple[str, str], ...],
) -> Intent:
    gateway = serving.gateway
    intent = understand(
        asked.endpoint,
        asked.body,
        preferences,
        gateway.settings,
        gateway.registry,
        key_class=key_class,
        tagged=named,
    )
    intent.constraints.budget = serving.intent.constraints.budget
    return intent


def _read(asked: Asked, body: dict[str, Any]) -> Asked:
    """A body as the request it is; of a foreign client, in its own dialect."""
    if asked.endpoint not in FOREIGN:
        return Asked(asked.endpoint, body, orjson.dumps(body))
    body = {**body, "model": asked.body["model"], "stream": False}
    view, decoded = read_foreign(asked.endpoint, body)
    in_path = ("model", "stream") if asked.endpoint == "gemini" else ()
    raw = orjson.dumps({name: value for name, value in body.items() if name not in in_path})
    return Asked(asked.endpoint, view, raw, original=body, decoded=decoded)


def _asked(serving: Serving, segment: Segment) -> Steps:
    """Ask for the parts of one class; return what was answered.

    Raises:
        ProxyError: nobody of the class answered, or it says nothing.
    """
    try:
        reply = yield from attempt_all(segment.serving, segment.plan)
    finally:
        for attempt in segment.attempts:
            attempt.role = ROLE
    assert isinstance(reply, Reply)  # a stream is never asked for here
    given = answers.read(serving.asked.endpoint, orjson.loads(reply.body), None)
    if given.fault is not None:
        raise ProxyError(
            "upstream_invalid_response",
            f"The answer to the parts of class {segment.data_class} holds no text.",
            should_retry=False,
        )
    return given.text


def _final(asked: Asked, cut: Cut, said: Mapping[str, str]) -> Asked:
    """The client's request with answers in the place of the parts."""
    member = TURNS[asked.endpoint]
    turns = cut.joined(said)
    raw = patch(asked.raw, {member: turns})
    if asked.original is None:
        return replace(asked, body={**asked.body, member: turns}, raw=raw, decoded=None)
    original = {**asked.original, member: turns}
    view, decoded = read_foreign(asked.endpoint, original)
    return replace(asked, body=view, raw=raw, original=original, decoded=decoded)


def _planned(
    serving: Serving,
    preferences: Preferences,
    key_class: str | None,
    named: tuple[tuple[str, str], ...],
) -> Plan:
    """Plan the request that is answered to the client: all classes' demands, what is left to spend."""
    intent = _intent(serving, serving.asked, preferences, key_class, named)
    intent.constraints.cost_limit = _left(serving, 0)
    decision = serving.decision
    serving.intent = decision.intent = intent
    plan = decision.plan = serving.gateway.planner.plan(intent, serving.now())
    return plan


def _left(serving: Serving, reserved: int) -> int | None:
    """What is left of the cost limit beside what is spent and ``reserved``, in picodollars."""
    limit, split = serving.intent.constraints.cost_limit, serving.decision.segregation
    if limit is None or split is None:
        return limit
    return limit - split.spent - reserved


def _exposure(attempt: Attempt) -> int:
    if attempt.cost is not None:
        return attempt.cost
    if attempt.error == _UNREACHED or (attempt.status is not None and attempt.status >= 300):
        return 0
    return attempt.ranked.cost or 0


def _cheapest(plan: Plan) -> int:
    return min((row.cost or 0 for row in plan.ranked), default=0)


def _held_to(segment: Segment, most: int | None) -> None:
    """Leave nobody among the candidates who may cost more than ``most``.

    Raises:
        ProxyError: nobody is left.
    """
    if most is None:
        return
    ranked = tuple(row for row in segment.plan.ranked if (row.cost or 0) <= most)
    if not ranked:
        raise ProxyError(
            "no_eligible_provider",
            "The calls this request is split into cost more together than its cost limit.",
            param=segment.serving.intent.constraints.blame.get("cost_limit"),
            should_retry=False,
        )
    segment.plan = replace(segment.plan, ranked=ranked, eligible=len(ranked))
    segment.serving.decision.plan = segment.plan
    segment.serving.intent.constraints.cost_limit = most
