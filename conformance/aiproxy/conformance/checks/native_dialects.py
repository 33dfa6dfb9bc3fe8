"""Providers that speak otherwise than OpenAI: requests and answers are translated (asc, aiproxy).

Each fake takes its provider's own API and, where the real one has it, the surface for clients of
OpenAI's; it refuses what its provider would refuse. Which of the two a target uses is its choice,
except where a requirement names the provider's own format.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiproxy.conformance.case import Case
from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.sightings import served

CHATS: Final = ("AIP-API-001",)
_DIALECTS: Final = ("openai", "anthropic", "google", "cohere", "mistral")
_OPENAI: Final = Fake(alone=True)
ANTHROPIC: Final = Fake(alone=True, dialect="anthropic")
GOOGLE: Final = Fake(alone=True, dialect="google")
COHERE: Final = Fake(alone=True, dialect="cohere")
MISTRAL: Final = Fake(alone=True, dialect="mistral")
_ANSWER: Final = {
    "id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier",
    "x-aiproxy",
}  # fmt: skip
_CHOICE: Final = {"index", "message", "logprobs", "finish_reason"}
_MESSAGE: Final = {
    "role", "content", "refusal", "tool_calls", "function_call", "annotations", "audio",
    "reasoning_content",
}  # fmt: skip


def _speaking(probe: Probe) -> Iterator[tuple[str, Case]]:
    """Yield each dialect that the target does not say it lacks, with a case of its own."""
    for dialect in _DIALECTS:
        if probe.target.features.get(f"dialect:{dialect}", True):
            yield dialect, probe.case()


@check(
    "ASC-NORM-001",
    level=2,
    keyword="MUST",
    title="requests are translated to each provider's schema, names and authentication",
    clause="asc Routing Fabric, Normalisation",
    depends_on=CHATS,
)
@check(
    "ASC-NORM-002",
    level=2,
    keyword="MUST",
    title="answers are translated back to OpenAI's format",
    clause="asc Normalisation",
    depends_on=CHATS,
)
@behind(openai=_OPENAI, anthropic=ANTHROPIC, google=GOOGLE, cohere=COHERE, mistral=MISTRAL)
def requests_and_answers_are_translated(probe: Probe) -> Iterator[Finding]:
    there, back = "ASC-NORM-001", "ASC-NORM-002"
    for dialect, case in _speaking(probe):
        reply = case.chat(
            model=case.cast[dialect].model, max_tokens=77, temperature=0.37, top_p=0.83
        )
        yield served(there, f"a request to {dialect}", case, reply, dialect)
        attempts = case.attempts()
        if attempts:
            sent = attempts[-1].body.decode("utf-8", "replace")
            lost = [name for name, text in _SAMPLING.items() if text not in sent]
            yield tell(
                there, f"what {dialect} is asked", not lost, reply,
                expected="the client's values under its own names",
                found=f"without {', '.join(lost)}",
            )  # fmt: skip
        if reply.status != 200:
            yield say(back, Status.NOT_TESTABLE, f"{dialect} gave no answer", reply)
            continue
        foreign = _foreign(reply.object)
        yield tell(
            back, f"the answer of {dialect}", not foreign, reply,
            expected="members of OpenAI's only", found=", ".join(foreign),
        )  # fmt: skip
        choice = choice_of(reply)
        finish, role = choice.get("finish_reason"), message_of(reply).get("role")
        right = (reply.object.get("object"), role, finish) == (
            "chat.completion", "assistant", "stop",
        )  # fmt: skip
        yield tell(
            back, f"object, role and finish_reason of {dialect}", right, reply,
            expected="chat.completion, assistant, stop",
            found=f"{reply.object.get('object')}, {role}, {finish}",
        )  # fmt: skip
        usage = reply.object.get("usage")
        counted = attempts[-1].usage if attempts else None
        if counted:
            told = {name: usage.get(name) for name in counted} if isinstance(usage, dict) else usage
            yield tell(
                back, f"the usage of {dialect}", told == dict(counted), reply,
                expected=repr(dict(counted)), found=repr(told),
            )  # fmt: skip


_SAMPLING: Final = {"max_tokens": "77", "temperature": "0.37", "top_p": "0.83"}


def _foreign(body: Mapping[str, Any]) -> list[str]:
    """Return the members that no OpenAI answer has."""
    found = [name for name in body if name not in _ANSWER]
    for choice in body.get("choices") or []:
        found += [name for name in choice if name not in _CHOICE]
        found += [name for name in choice.get("message") or {} if name not in _MESSAGE]
    return found


def choice_of(reply: Reply) -> Mapping[str, Any]:
    """Return the first choice of an answer; empty when there is none."""
    choices = reply.object.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def message_of(reply: Reply) -> Mapping[str, Any]:
    """Return the message of the first choice; empty when there is none."""
    message = choice_of(reply).get("message")
    return message if isinstance(message, dict) else {}


@check(
    "ASC-NORM-003",
    level=2,
    keyword="MUST",
    title="a model can be served by another provider without a change of the client",
    clause="asc Normalisation",
    depends_on=("AIP-API-001", "AIP-FAIL-001"),
)
@behind(first=Fake(priority=1), other=Fake(priority=2, dialect="anthropic"))
def another_vendor_can_stand_in(probe: Probe) -> Iterator[Finding]:
    me = "ASC-NORM-003"
    shapes = {}
    for role in ("first", "other"):
        case = probe.case()
        if role == "other":
            case.script("first", always=Act(status=503))
        reply = case.chat(temperature=0.5)
        yield served(me, f"the model at {role}", case, reply, role)
        model = reply.object.get("model")
        yield tell(
            me, f"the model's name in the answer of {role}", model == case.model, reply,
            expected=repr(case.model), found=repr(model),
        )  # fmt: skip
        shapes[role] = (set(choice_of(reply)), set(message_of(reply)) & {"role", "content"})
    yield tell(
        me, "what a client reads", shapes["first"] == shapes["other"],
        expected="the same members", found=repr(shapes["other"]),
    )  # fmt: skip


@check(
    "ASC-NORM-004",
    level=2,
    keyword="MUST",
    title="message formats are converted, and nothing is lost",
    clause="asc Normalisation message format",
    depends_on=CHATS,
)
@behind(openai=_OPENAI, anthropic=ANTHROPIC, google=GOOGLE, cohere=COHERE, mistral=MISTRAL)
def messages_are_converted(probe: Probe) -> Iterator[Finding]:
    """A system text, parts, and two turns of the user in a row."""
    me = "ASC-NORM-004"
    for dialect, case in _speaking(probe):
        words = [f"word{number}{probe.word()}" for number in range(6)]
        system, one, two, said, three, four = words
        messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": [{"type": "text", "text": t} for t in (one, two)]},
            {"role": "assistant", "content": said},
            {"role": "user", "content": three},
            {"role": "user", "content": case.prompt(four)},
        ]
        reply = case.chat(model=case.cast[dialect].model, messages=messages)
        yield served(me, f"a conversation with {dialect}", case, reply, dialect)
        attempts = case.attempts()
        if not attempts:
            continue
        sent = attempts[-1].body.decode("utf-8", "replace")
        lost = [word for word in words if sent.count(word) != 1]
        places = [sent.find(word) for word in words[1:]]
        yield tell(
            me, f"the texts that {dialect} gets", not lost and places == sorted(places), reply,
            expected="each once, in the order of the conversation",
            found=f"{len(lost)} of {len(words)} lost or doubled" if lost else "another order",
        )  # fmt: skip


@check(
    "ASC-NORM-005",
    level=2,
    keyword="MUST",
    title="stop sequences and stop reasons are converted",
    clause="asc Normalisation stop sequences",
    depends_on=CHATS,
)
@behind(openai=_OPENAI, anthropic=ANTHROPIC, google=GOOGLE, cohere=COHERE, mistral=MISTRAL)
def stops_are_converted(probe: Probe) -> Iterator[Finding]:
    me = "ASC-NORM-005"
    for dialect, case in _speaking(probe):
        model = case.cast[dialect].model
        for stop, finish in (("HALT1", "stop"), (["HALT2", "HALT3"], "length")):
            own = probe.case()
            own.script(dialect, Act(finish=finish))
            reply = own.chat(model=model, stop=stop)
            yield served(me, f"stop {stop!r} at {dialect}", own, reply, dialect)
            attempts = own.attempts()
            if attempts:
                given = _stops(attempts[-1])
                wanted = [stop] if isinstance(stop, str) else stop
                yield tell(
                    me, f"the stops {dialect} gets", given == wanted, reply,
                    expected=repr(wanted), found=repr(given),
                )  # fmt: skip
            told = choice_of(reply).get("finish_reason")
            yield tell(
                me, f"finish_reason of {dialect}", told == finish, reply,
                expected=repr(finish), found=repr(told),
            )  # fmt: skip


def _stops(attempt: Attempt) -> list[str]:
    """Return the stop sequences of a request, under any provider's name for them."""
    body = attempt.json if isinstance(attempt.json, dict) else {}
    config = body.get("generationConfig") or body.get("generation_config") or {}
    found: Any = next(
        (
            holder[name]
            for holder in (body, config)
            for name in ("stop", "stop_sequences", "stopSequences")
            if isinstance(holder, dict) and holder.get(name)
        ),
        [],
    )
    return [found] if isinstance(found, str) else list(found)
