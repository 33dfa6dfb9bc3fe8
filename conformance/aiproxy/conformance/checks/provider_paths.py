"""How a provider is reached: address, credential, connections, presets (aiproxy §4.1).

What counts is what the fake saw. It refuses whatever its real counterpart would refuse, so a wrong
path, key or model name never gets an answer.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from aiproxy.conformance.case import Case
from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.rig.worlds import ORDERED
from aiproxy.conformance.sightings import served

CHATS: Final = ("AIP-API-001",)
OPENAI: Final = {"type": "openai"}
_ROW_OF_CALLS: Final = 12
_AT_ONCE: Final = 9
_BOUND: Final = 3
_SLOW_S: Final = 0.3
_FIRST_BYTE_S: Final = 0.5
_GIVES_UP_WITHIN_S: Final = 2.5
_CUSTOM: Final = "X-Conformance-Key"
_CUSTOM_VALUE: Final = "own-header-5f2c9b"


@check(
    "AIP-PROV-007",
    level=2,
    keyword="MUST",
    title="OpenAI is reached at the endpoint and the path, with the key as bearer token",
    clause="aiproxy §4.1 openai",
    depends_on=CHATS,
)
@check(
    "AIP-CFG-060",
    level=2,
    keyword="MUST",
    title="the openai endpoint includes the version path, with or without a slash at its end",
    clause="aiproxy §4.1 openai endpoint",
    depends_on=CHATS,
)
@behind(
    world=ORDERED,
    plain=Fake(alone=True, provider=OPENAI),
    slash=Fake(alone=True, provider=OPENAI),
    vectors=Fake(alone=True, provider=OPENAI, capabilities=("embeddings",)),
)
def openai_is_reached(probe: Probe) -> Iterator[Finding]:
    """The endpoint of ``slash`` ends with one; see ``worlds``."""
    path, slash = "AIP-PROV-007", "AIP-CFG-060"
    for me, role in ((path, "plain"), (slash, "slash"), (path, "vectors")):
        case = probe.case()
        model = case.cast[role].model
        reply = case.embed(model=model) if role == "vectors" else case.chat(model=model)
        kind = "embeddings" if role == "vectors" else "chat"
        attempts = case.attempts()
        if not attempts:
            yield tell(me, kind, False, reply, expected="a request at the provider", found="none")
            continue
        wanted = "/v1/embeddings" if role == "vectors" else "/v1/chat/completions"
        found = attempts[0].path
        yield tell(me, f"the path for {kind}", found == wanted, reply, expected=wanted, found=found)
        if me == path:
            yield from _well_asked(me, case, role, attempts[0], reply)
        yield served(me, f"the answer for {kind}", case, reply, role)


def _well_asked(
    me: str, case: Case, role: str, attempt: Attempt, reply: Reply
) -> Iterator[Finding]:
    actor, headers = case.cast[role], attempt.headers
    bearer = headers.get("authorization") == f"Bearer {actor.key}"
    yield tell(me, "the key", bearer, reply, expected="Bearer and the key", found="another field")
    media = headers.get("content-type", "").partition(";")[0].strip()
    yield tell(
        me, "Content-Type", media == "application/json", reply,
        expected="application/json", found=media,
    )  # fmt: skip
    model = attempt.json.get("model") if isinstance(attempt.json, dict) else None
    yield tell(
        me, "the model", model == actor.upstream_model, reply,
        expected=f"{actor.upstream_model}, as it is mapped", found=repr(model),
    )  # fmt: skip


@check(
    "UNI-STAT-001",
    level=2,
    keyword="MUST",
    title="providers with different authentication schemes are supported",
    clause="universal Working Features: Universal Authentication",
    depends_on=CHATS,
)
@check(
    "UNI-PROV-006",
    level=2,
    keyword="SHOULD",
    title="Ollama is a preset without a key",
    clause="universal Supported: Ollama",
    depends_on=CHATS,
)
@behind(
    bearer=Fake(alone=True),
    named=Fake(alone=True, provider={"type": "azure_openai"}),
    custom=Fake(alone=True, provider={"headers": {_CUSTOM: _CUSTOM_VALUE}}),
    none=Fake(alone=True, provider={"type": "ollama", "credentials": {"api_key": None}}),
)
def credentials_come_in_many_ways(probe: Probe) -> Iterator[Finding]:
    """The fakes ask for a bearer token; what others send in its place is read from their log."""
    me, keyless = "UNI-STAT-001", "UNI-PROV-006"
    for role in ("bearer", "named", "custom", "none"):
        case = probe.case()
        actor = case.cast[role]
        reply = case.chat(model=actor.model)
        attempts = case.attempts()
        about = keyless if role == "none" else me
        if not attempts:
            yield tell(about, case.who(role), False, reply, expected="asked", found="not asked")
            continue
        sent = {name: value for name, value in attempts[0].headers.items() if _secret(name, value)}
        bearer = {"authorization": f"Bearer {actor.key}"}
        wanted = {
            "bearer": bearer,
            "named": {"api-key": actor.key},
            "custom": {**bearer, _CUSTOM.lower(): _CUSTOM_VALUE},
            "none": {},
        }[role]
        yield tell(
            about, f"the credentials of {case.who(role)}", sent == wanted, reply,
            expected=" and ".join(wanted) or "none", found=" and ".join(sent) or "none",
        )  # fmt: skip


def _secret(name: str, value: str) -> bool:
    return name in ("authorization", "api-key", "x-api-key") or value == _CUSTOM_VALUE


@check(
    "UNI-STAT-005",
    level=2,
    keyword="MUST",
    title="connections to a provider are pooled, bounded and limited in time",
    clause="universal Working Features: API Connectivity",
    depends_on=CHATS,
)
@behind(
    pooled=Fake(alone=True),
    bounded=Fake(alone=True, provider={"max_connections": _BOUND}),
    limited=Fake(alone=True, provider={"timeouts": {"first_byte": f"{_FIRST_BYTE_S:g}s"}}),
)
def connections_are_looked_after(probe: Probe) -> Iterator[Finding]:
    me, cast = "UNI-STAT-005", probe.cast
    used = set()
    for _ in range(_ROW_OF_CALLS):
        case = probe.case()
        case.chat(model=cast["pooled"].model)
        used |= {attempt.connection for attempt in case.attempts()}
    yield tell(
        me, f"{_ROW_OF_CALLS} requests in a row", 0 < len(used) <= _ROW_OF_CALLS // 3,
        expected="connections used again", found=f"{len(used)} connections",
    )  # fmt: skip
    cases = [probe.case() for _ in range(_AT_ONCE)]
    for case in cases:
        case.script("bounded", always=Act(wait_s=_SLOW_S))
    replies = probe.together(cases, lambda case: case.chat(model=cast["bounded"].model))
    answered = [case.served(reply) for case, reply in zip(cases, replies, strict=True)]
    most = _most_at_once([attempt for case in cases for attempt in case.attempts()])
    yield tell(
        me, f"{_AT_ONCE} requests at once, max_connections {_BOUND}", 0 < most <= _BOUND,
        expected=f"at most {_BOUND} at the provider", found=f"{most}",
    )  # fmt: skip
    yield tell(
        me, "their answers", answered.count("bounded") == _AT_ONCE,
        expected="all of them", found=f"{answered.count('bounded')}",
    )  # fmt: skip
    case = probe.case()
    case.script("limited", always=Act(wait_s=2 * _GIVES_UP_WITHIN_S))
    reply = case.chat(model=cast["limited"].model)
    if not case.attempts():
        yield say(me, Status.INCONCLUSIVE, "the slow provider was not asked", reply)
        return
    took = reply.answer.seconds
    in_time = reply.status in (502, 503, 504) and took <= _GIVES_UP_WITHIN_S
    yield tell(
        me, f"a provider that is silent beyond its limit of {_FIRST_BYTE_S:g} s", in_time, reply,
        expected=f"an error within {_GIVES_UP_WITHIN_S:g} s",
        found=f"{reply.status} after {took:.1f} s",
    )  # fmt: skip


def _most_at_once(attempts: Sequence[Attempt]) -> int:
    """Return how many of ``attempts`` were being answered at the same time, at most."""
    ends = [(attempt.finished_at or attempt.closed_at or attempt.at) for attempt in attempts]
    return max(
        (
            sum(one.at <= attempt.at < end for one, end in zip(attempts, ends, strict=True))
            for attempt in attempts
        ),
        default=0,
    )


_Look = Callable[[Probe], Iterator[Finding]]


def _preset(identifier: str, name: str) -> Callable[[_Look], _Look]:
    return check(
        identifier,
        level=2,
        keyword="SHOULD",
        title=f"{name} is a preset",
        clause=f"universal Supported: {name}",
        depends_on=CHATS,
    )


def _of_type(kind: str) -> Fake:
    return Fake(alone=True, provider={"type": kind})


_PRESETS: Final = {
    "together": "UNI-PROV-003",
    "groq": "UNI-PROV-004",
    "lmstudio": "UNI-PROV-007",
    "localai": "UNI-PROV-008",
    "vllm": "UNI-PROV-009",
    "huggingface": "UNI-PROV-012",
    "fireworks": "UNI-PROV-013",
}


@_preset("UNI-PROV-003", "Together AI")
@_preset("UNI-PROV-004", "Groq")
@_preset("UNI-PROV-007", "LM Studio")
@_preset("UNI-PROV-008", "LocalAI")
@_preset("UNI-PROV-009", "vLLM")
@_preset("UNI-PROV-012", "Hugging Face")
@_preset("UNI-PROV-013", "Fireworks AI")
@behind(
    together=_of_type("together"), groq=_of_type("groq"), lmstudio=_of_type("lmstudio"),
    localai=_of_type("localai"), vllm=_of_type("vllm"), huggingface=_of_type("huggingface"),
    fireworks=_of_type("fireworks"),
)  # fmt: skip
def presets_are_reached(probe: Probe) -> Iterator[Finding]:
    for kind, me in _PRESETS.items():
        case = probe.case()
        reply = case.chat(model=case.cast[kind].model)
        yield served(me, f"a provider of type {kind}", case, reply, kind)


derive(
    "AIP-CHK-007", level=2, keyword="MUST", title="there is an OpenAI client",
    clause="aiproxy §8 Phase 2", of=("AIP-PROV-007",),
)  # fmt: skip
