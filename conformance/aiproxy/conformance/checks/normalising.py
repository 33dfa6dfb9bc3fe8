"""One API whatever the vendor: the same answers, errors and streams (universal, asc, aiproxy §9)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiproxy.conformance.case import Case
from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.probe import Probe, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import served

CHATS: Final = ("AIP-API-001",)
_LEGAL_TYPES: Final = {
    "invalid_request_error", "permission_error", "conflict_error", "rate_limit_error",
    "insufficient_quota", "server_error", "upstream_error",
}  # fmt: skip
# What a client may be told for a status of the only provider there is (resolutions, error codes).
_TOLD: Final[Mapping[int, tuple[int, ...]]] = {
    400: (400,),
    401: (500, 502, 503),
    403: (500, 502, 503),
    404: (404, 502, 503),
    409: (409, 502, 503),
    413: (400, 413),
    422: (400, 422),
    429: (429, 502, 503),
    500: (500, 502, 503),
    503: (502, 503),
    504: (502, 503, 504),
    529: (502, 503),
}
_ALONE: Final = Fake(alone=True)
_WEATHER: Final = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@check(
    "AIP-PROB-001",
    level=2,
    keyword="MUST",
    title="an application is not tied to one provider",
    clause="aiproxy §1.1",
    depends_on=CHATS,
)
@behind(
    openai=Fake(alone=True, provider={"type": "openai"}),
    mistral=Fake(alone=True, provider={"type": "mistral"}),
    deepseek=Fake(alone=True, provider={"type": "deepseek"}),
    openrouter=Fake(alone=True, provider={"type": "openrouter"}),
)
def vendors_can_be_swapped(probe: Probe) -> Iterator[Finding]:
    """The same request but for the model; the answers differ in what they say, not in their shape."""
    me = "AIP-PROB-001"
    shapes: dict[str, Any] = {}
    for role in sorted(probe.cast.actors):
        case = probe.case()
        reply = case.chat(model=case.cast[role].model)
        yield served(me, f"a provider of type {role}", case, reply, role)
        shapes[role] = _shape(reply.object)
    usual = shapes["openai"]
    for role, shape in shapes.items():
        odd = sorted(shape ^ usual)
        yield tell(
            me, f"the answer of {role} against that of openai", not odd,
            expected="the same members", found=f"only in one of them: {', '.join(odd)}",
        )  # fmt: skip


_OPEN: Final = {"prompt_tokens_details", "completion_tokens_details"}


def _shape(value: Any, path: str = "") -> frozenset[str]:
    """Return the paths of all members of a JSON value, with the kinds of their values.

    A member that is null says what its absence says. OpenAI itself leaves the details of usage
    open: they are nobody's shape.
    """
    if isinstance(value, dict):
        there = {
            name: member for name, member in value.items()
            if member is not None and name not in _OPEN
        }  # fmt: skip
        inner = [_shape(member, f"{path}.{name}") for name, member in there.items()]
        return frozenset().union(*inner)
    if isinstance(value, list):
        return frozenset().union(*(_shape(one, f"{path}[]") for one in value))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return frozenset({f"{path}: {'number' if number else type(value).__name__}"})


@check(
    "UNI-PROV-001",
    level=2,
    keyword="MUST",
    title="OpenAI is supported",
    clause="universal Supported: OpenAI",
    depends_on=CHATS,
)
@behind(
    talks=Fake(alone=True, provider={"type": "openai"}),
    vectors=Fake(alone=True, provider={"type": "openai"}, capabilities=("embeddings",)),
)
def openai_is_supported(probe: Probe) -> Iterator[Finding]:
    me, talks = "UNI-PROV-001", probe.cast["talks"].model
    case = probe.case()
    yield served(me, "a chat", case, case.chat(model=talks), "talks")
    case = probe.case()
    yield served(me, "a stream", case, case.stream(model=talks), "talks")
    case = probe.case()
    yield served(me, "Responses", case, case.responses(model=talks), "talks")
    case = probe.case()
    embedded = case.embed(model=case.cast["vectors"].model)
    yield served(me, "embeddings", case, embedded, "vectors")
    case = probe.case()
    named = {"type": "function", "function": {"name": "weather"}}
    reply = case.chat(model=talks, tools=[_WEATHER], tool_choice=named, max_tokens=64)
    yield served(me, "a tool call", case, reply, "talks")
    calls = _tool_calls(reply)
    function = calls[0].get("function") if calls else None
    right = isinstance(function, dict) and function.get("name") == "weather"
    yield tell(
        me, "the tool that was called", right, reply, expected="weather", found=repr(function)
    )


def _tool_calls(reply: Reply) -> list[dict[str, Any]]:
    choices = reply.object.get("choices")
    message = choices[0].get("message") if isinstance(choices, list) and choices else None
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


@check(
    "UNI-PROTO-003",
    level=2,
    keyword="MUST",
    title="errors of providers are normalised",
    clause="universal errorNormalizer",
    depends_on=CHATS,
)
@behind(
    s400=_ALONE, s401=_ALONE, s403=_ALONE, s404=_ALONE, s409=_ALONE, s413=_ALONE, s422=_ALONE,
    s429=_ALONE, s500=_ALONE, s503=_ALONE, s504=_ALONE, s529=_ALONE,
)  # fmt: skip
def errors_are_normalised(probe: Probe) -> Iterator[Finding]:
    """Each provider is the only one of its model, so its failure is what the client hears of."""
    me = "UNI-PROTO-003"
    for status, told in _TOLD.items():
        case, role = probe.case(), f"s{status}"
        actor = case.cast[role]
        secret = f"internal-{probe.word()} {actor.key}"
        error = {
            "message": f"upstream says {secret}",
            "type": "vendor_specific_trouble",
            "param": "messages",
            "code": "vendor-code-77",
        }
        case.script(role, always=Act(status=status, body=json.dumps({"error": error})))
        reply = case.chat(model=actor.model)
        what = f"status {status} of the only provider"
        yield tell(
            me, what, reply.status in told, reply,
            expected=f"status {' or '.join(map(str, told))}",
        )  # fmt: skip
        yield from _normalised(me, what, reply, (secret, actor.key, "vendor-code-77"))


def _normalised(me: str, what: str, reply: Reply, secrets: tuple[str, ...]) -> Iterator[Finding]:
    error = reply.error
    whole = isinstance(error.get("message"), str) and {"type", "param", "code"} <= set(error)
    yield tell(me, f"the body for {what}", whole, reply, expected="message, type, param and code")
    if whole:
        yield tell(
            me, f"error.type for {what}", error["type"] in _LEGAL_TYPES, reply,
            expected=f"one of {', '.join(sorted(_LEGAL_TYPES))}", found=repr(error["type"]),
        )  # fmt: skip
    shown = [secret for secret in secrets if secret.encode() in reply.body]
    yield tell(
        me, f"the provider's own words for {what}", not shown, reply,
        expected="not passed on", found="passed on",
    )  # fmt: skip


# Text that a line splitter other than SSE's cuts in two, and what JSON has to escape.
_AWKWARD: Final = '{proof} \u2028 \u2029 \x85 \x0b \x0c "quoted" \\ \U0001f600 data: [DONE]'
_STREAMS: Final = {
    "CRLF line ends": Act(fault="crlf"),
    "comment lines": Act(fault="comments"),
    "writes of a few bytes": Act(fault="split"),
    "an event that does not parse": Act(fault="garbage-event", after=1),
    "awkward characters": Act(text=_AWKWARD, pieces=6),
}


@check(
    "UNI-PROTO-004",
    level=2,
    keyword="MUST",
    title="streams of providers are normalised",
    clause="universal streamNormalizer",
    depends_on=(*CHATS, "XAI-STREAM-006"),
)
@behind(a=Fake(), broken=Fake(alone=True))
def streams_are_normalised(probe: Probe) -> Iterator[Finding]:
    me = "UNI-PROTO-004"
    for what, act in _STREAMS.items():
        case = probe.case()
        case.script("a", always=act)
        reply = case.stream()
        if act.fault == "garbage-event" and _told(reply):  # leaving it out is the other way
            yield tell(me, f"{what} ends the stream", True, reply)
            continue
        yield from _clean(me, what, case, reply, act)
    case = probe.case()
    case.script("broken", always=Act(fault="cut", after=2))
    reply = case.stream(model=case.cast["broken"].model)
    refused = reply.status >= 500 and bool(reply.error)
    yield tell(
        me, "a stream that breaks off", _told(reply) or refused, reply,
        expected="an error event at its end",
        found=reply.events[-1].data[:80] if reply.events else "-",
    )  # fmt: skip


def _told(reply: Reply) -> bool:
    """Return whether a stream ends with an error event, before a [DONE] or without one."""
    said = [event.json for event in reply.events if not event.done]
    return bool(said) and isinstance(said[-1], dict) and "error" in said[-1]


def _clean(me: str, what: str, case: Case, reply: Reply, act: Act) -> Iterator[Finding]:
    """Whatever the provider's framing was, the client reads plain chunks and the whole text."""
    yield served(me, what, case, reply, "a")
    yield tell(
        me, f"the framing for {what}", not reply.stream_fault, reply,
        expected="well-formed events", found=reply.stream_fault,
    )  # fmt: skip
    chunks = [event.json for event in reply.events if not event.done]
    odd = [chunk for chunk in chunks if not _is_chunk(chunk)]
    yield tell(
        me, f"the events for {what}", bool(chunks) and not odd, reply,
        expected="chat.completion.chunk objects", found=repr(odd[0])[:80] if odd else "none",
    )  # fmt: skip
    done = [event for event in reply.events if event.done]
    yield tell(
        me, f"the end for {what}", len(done) == 1 and reply.events[-1].done, reply,
        expected="one [DONE]", found=str(len(done)),
    )  # fmt: skip
    if act.text is not None:
        mark = act.text.partition("{proof}")[2]
        yield tell(
            me, f"the text for {what}", reply.text.endswith(mark), reply,
            expected=repr(mark), found=repr(reply.text[-len(mark) :]),
        )  # fmt: skip


def _is_chunk(value: object) -> bool:
    return isinstance(value, dict) and value.get("object") == "chat.completion.chunk"


derive(
    "AIP-BEN-001", level=2, keyword="MUST", title="one API reaches all providers",
    clause="aiproxy §9 Developers Simplicity", of=("AIP-PROB-001",),
)  # fmt: skip
derive(
    "AIP-BEN-011", level=2, keyword="SHOULD", title="vendor lock-in is reduced",
    clause="aiproxy §9 Ecosystem Competition", of=("AIP-PROB-001",),
)  # fmt: skip
derive(
    "UNI-PROTO-001", level=2, keyword="MUST", title="requests are normalised to each provider's form",
    clause="universal requestNormalizer", of=("XAI-ARCH-006",),
)  # fmt: skip
derive(
    "UNI-PROTO-002", level=2, keyword="MUST", title="responses are normalised",
    clause="universal responseNormalizer", of=("XAI-ARCH-007",),
)  # fmt: skip
derive(
    "ASC-NORM-006", level=2, keyword="MUST", title="streaming structures are converted",
    clause="asc Normalisation streaming structure", of=("UNI-PROTO-004",),
)  # fmt: skip
derive(
    "ASC-STREAM-001", level=2, keyword="MUST", title="streams are passed through, not buffered",
    clause="asc Streaming", of=("XAI-STREAM-011",),
)  # fmt: skip
derive(
    "AIP-API-039", level=2, keyword="MUST", title="/v1/responses is served",
    clause="aiproxy §4.1 + draft §5", of=("XAI-COMPAT-013",),
)  # fmt: skip
