"""Anthropic, Cloudflare, Cohere, Google and Mistral in formats of their own (aiproxy §4.1, §8)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from aiproxy.conformance.case import Case
from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.checks.native_dialects import (
    ANTHROPIC,
    COHERE,
    GOOGLE,
    MISTRAL,
    choice_of,
    message_of,
)
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.rig.worlds import ORDERED
from aiproxy.conformance.sightings import served

CHATS: Final = ("AIP-API-001",)
# An id that has to be escaped inside a path.
_ACCOUNT: Final = "acc/01 é"
_GAP_S: Final = 0.2
_PIECES: Final = 4


@check(
    "AIP-PROV-008",
    level=2,
    keyword="MUST",
    title="Anthropic is reached through its messages format",
    clause="aiproxy §8 Phase 2 Anthropic client",
    depends_on=CHATS,
    feature="dialect:anthropic",
)
@check(
    "ASC-STREAM-003",
    level=2,
    keyword="MUST",
    title="other streaming formats are translated on the fly",
    clause="asc Streaming",
    depends_on=CHATS,
    feature="dialect:anthropic",
)
@behind(a=ANTHROPIC)
def anthropic_is_spoken(probe: Probe) -> Iterator[Finding]:
    me, live = "AIP-PROV-008", "ASC-STREAM-003"
    case = probe.case()
    model, system = case.cast["a"].model, f"Be brief {probe.word()}."
    messages = [{"role": "system", "content": system}, *case.messages()]
    case.script("a", Act(finish="length"))
    reply = case.chat(model=model, messages=messages)
    yield served(me, "a chat", case, reply, "a")
    told = choice_of(reply).get("finish_reason")
    yield tell(
        me,
        "the stop reason max_tokens",
        told == "length",
        reply,
        expected="length",
        found=repr(told),
    )
    attempts = case.attempts()
    if attempts:
        yield from _natively_asked(me, case, attempts[-1], system, reply)
    case = probe.case()
    case.script("a", Act(gap_s=_GAP_S, pieces=_PIECES))
    reply = case.stream(model=model)
    attempts = case.attempts()
    if not attempts or not attempts[-1].path.partition("?")[0].endswith("/messages"):
        reason = "the provider was not asked in its own format: nothing had to be translated"
        yield say(live, Status.INCONCLUSIVE, reason, reply)
        return
    yield served(live, "a stream", case, reply, "a")
    yield from _on_the_fly(live, reply)


def _natively_asked(
    me: str, case: Case, attempt: Attempt, system: str, reply: Reply
) -> Iterator[Finding]:
    headers, body = attempt.headers, attempt.json if isinstance(attempt.json, dict) else {}
    path = attempt.path.partition("?")[0]
    yield tell(me, "the path", path == "/v1/messages", reply, expected="/v1/messages", found=path)
    if path != "/v1/messages":
        return
    right = headers.get("x-api-key") == case.cast["a"].key and "authorization" not in headers
    yield tell(
        me, "the key", right, reply, expected="in x-api-key only", found="elsewhere as well, or not"
    )
    version = headers.get("anthropic-version")
    yield tell(me, "anthropic-version", bool(version), reply, expected="sent", found="not sent")
    apart = system in json.dumps(body.get("system")) and system not in json.dumps(
        body.get("messages")
    )
    yield tell(
        me,
        "the system text",
        apart,
        reply,
        expected="in system only",
        found=repr(body.get("system")),
    )
    yield tell(
        me, "max_tokens", isinstance(body.get("max_tokens"), int), reply,
        expected="a number", found=repr(body.get("max_tokens")),
    )  # fmt: skip


def _on_the_fly(me: str, reply: Reply) -> Iterator[Finding]:
    """The provider sends a piece every ``_GAP_S``; the client must not wait for the last one."""
    named = [event.event for event in reply.events if event.event != "message"]
    yield tell(
        me, "event: lines", not named, reply, expected="none", found=", ".join(sorted(set(named)))
    )
    chunks = [event for event in reply.events if isinstance(event.json, dict)]
    odd = [event for event in chunks if event.json.get("object") != "chat.completion.chunk"]
    yield tell(
        me, "the events", bool(chunks) and not odd, reply,
        expected="chat.completion.chunk objects", found=odd[0].data[:80] if odd else "none",
    )  # fmt: skip
    texts = [event.at for event in chunks if _has_text(event.json)]
    spread = texts[-1] - texts[0] if texts else 0.0
    least = _GAP_S * (_PIECES - 1) / 2
    yield tell(
        me, f"pieces sent {_GAP_S:g} s apart", spread >= least, reply,
        expected="as far apart at the client", found=f"all within {spread:.2f} s",
    )  # fmt: skip


def _has_text(chunk: Mapping[str, Any]) -> bool:
    choices = chunk.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    delta = first.get("delta") if isinstance(first, dict) else None
    return isinstance(delta, dict) and bool(delta.get("content"))


@check(
    "AIP-PROV-006",
    level=2,
    keyword="MUST",
    title="Cloudflare Workers AI is reached below accounts/{account_id}/ai with a bearer token",
    clause="aiproxy §4.1 cloudflare",
    depends_on=CHATS,
    feature="dialect:cloudflare",
)
@behind(
    world=ORDERED,
    talks=Fake(
        alone=True, dialect="cloudflare", provider={"credentials": {"account_id": _ACCOUNT}}
    ),
    vectors=Fake(
        alone=True, dialect="cloudflare", capabilities=("embeddings",),
        provider={"credentials": {"account_id": _ACCOUNT}},
    ),
)  # fmt: skip
def cloudflare_is_reached(probe: Probe) -> Iterator[Finding]:
    """Its endpoint is the documented one, ``…/client/v4``; see ``worlds``."""
    me = "AIP-PROV-006"
    below = f"/client/v4/accounts/{quote(_ACCOUNT, safe='')}/ai/"
    for role in ("talks", "vectors"):
        case = probe.case()
        model = case.cast[role].model
        reply = case.chat(model=model) if role == "talks" else case.embed(model=model)
        attempts = case.attempts()
        yield from _reached(me, case, role, attempts, below, reply)
        yield served(me, f"the answer of {role}", case, reply, role)
    case = probe.case()
    no = {"result": None, "success": False, "errors": [{"code": 5007, "message": "no"}]}
    case.script("talks", always=Act(body=json.dumps(no)))
    reply = case.chat(model=case.cast["talks"].model)
    right = reply.status >= 400 and isinstance(reply.error.get("message"), str)
    yield tell(me, "success: false", right, reply, expected="an error object")


def _reached(
    me: str, case: Case, role: str, attempts: Sequence[Attempt], below: str, reply: Reply
) -> Iterator[Finding]:
    if not attempts:
        yield tell(me, role, False, reply, expected="a request at the provider", found="none")
        return
    path = attempts[0].path
    yield tell(
        me, f"the path for {role}", path.startswith(below), reply, expected=f"{below}…", found=path
    )
    bearer = attempts[0].headers.get("authorization") == f"Bearer {case.cast[role].key}"
    yield tell(me, f"the token for {role}", bearer, reply, expected="Bearer and the token")


@check(
    "UNI-PROV-005",
    level=2,
    keyword="SHOULD",
    title="Cohere is supported",
    clause="universal Supported: Cohere",
    depends_on=CHATS,
)
@check(
    "ASC-NORM-009",
    level=2,
    keyword="SHOULD",
    title="Mistral and Google are supported",
    clause="asc Conclusion (Mistral, Google)",
    depends_on=CHATS,
)
@behind(google=GOOGLE, cohere=COHERE, mistral=MISTRAL)
def tools_and_streams_elsewhere(probe: Probe) -> Iterator[Finding]:
    for dialect, me in (
        ("cohere", "UNI-PROV-005"), ("google", "ASC-NORM-009"), ("mistral", "ASC-NORM-009"),
    ):  # fmt: skip
        case = probe.case()
        model = case.cast[dialect].model
        yield served(me, f"a stream of {dialect}", case, case.stream(model=model), dialect)
        case = probe.case()
        case.script(dialect, always=Act(tool_calls=(("weather", {"city": "Oslo"}),)))
        reply = case.chat(model=model, tools=[_TOOL], max_tokens=64)
        given = [attempt.body.decode("utf-8", "replace") for attempt in case.attempts()]
        yield tell(
            me, f"the tools {dialect} gets", bool(given) and '"weather"' in given[-1], reply,
            expected="the client's", found="not the client's",
        )  # fmt: skip
        calls = message_of(reply).get("tool_calls")
        function = calls[0].get("function", {}) if isinstance(calls, list) and calls else {}
        yield tell(
            me, f"a tool call of {dialect}", _called(function), reply,
            expected='weather({"city": "Oslo"})', found=repr(function) if function else "",
        )  # fmt: skip


_TOOL: Final = {
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


def _called(function: Mapping[str, Any]) -> bool:
    try:
        given = json.loads(str(function.get("arguments")))
    except ValueError:
        return False
    return function.get("name") == "weather" and given == {"city": "Oslo"}


derive(
    "AIP-CHK-006", level=2, keyword="MUST", title="there is a Cloudflare Workers AI client",
    clause="aiproxy §8 Phase 2", of=("AIP-PROV-006",),
)  # fmt: skip
derive(
    "AIP-CHK-008", level=2, keyword="MUST", title="there is an Anthropic client",
    clause="aiproxy §8 Phase 2", of=("AIP-PROV-008",),
)  # fmt: skip
derive(
    "UNI-PROV-002", level=2, keyword="MUST", title="Anthropic is supported through its own format",
    clause="universal Supported: Anthropic", of=("AIP-PROV-008",),
)  # fmt: skip
