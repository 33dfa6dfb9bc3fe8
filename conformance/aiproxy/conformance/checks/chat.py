"""POST /v1/chat/completions without any of the draft's extensions (aiproxy §5.1, draft §6, §15)."""

import json
from collections.abc import Iterator
from typing import Any, Final

from aiproxy.conformance.checks import check, derive
from aiproxy.conformance.checks.models import talk_to
from aiproxy.conformance.endpoint import CHAT, Reply
from aiproxy.conformance.probe import Probe, is_count, refused, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.transport import Unanswered

CHATS: Final = ("AIP-API-001",)


@check(
    "XAI-HDR-001",
    level=1,
    keyword="MUST",
    title="a request without any X-AI header is not refused for that",
    clause="draft §6",
)
@check(
    "AIP-API-001",
    level=1,
    keyword="MUST",
    title="POST /v1/chat/completions answers with a chat.completion object",
    clause="aiproxy §5.1",
)
@check(
    "AIP-API-003",
    level=1,
    keyword="MUST",
    title="usage holds prompt, completion and total tokens as integers",
    clause="aiproxy §5.1",
)
@check(
    "XAI-PRIN-006",
    level=1,
    keyword="MUST",
    title="a plain request gets no decision headers",
    clause="draft §4.2",
    depends_on=("AIP-API-019",),
)
def a_plain_chat_is_answered(probe: Probe) -> Iterator[Finding]:
    try:
        reply = _first_answer(probe)
    except Unanswered as fault:
        yield tell(
            "AIP-API-001",
            "an answer",
            False,
            expected="200 with JSON",
            found=fault.reason,
            blocks=True,
        )
        yield from _blocked("no chat was answered")
        return
    if reply is None:
        reason = "no model is known: none listed could be tried, name one with --model"
        yield say("AIP-API-001", Status.NOT_TESTABLE, reason)
        yield from _blocked(reason)
        return
    if reply.status in (401, 403):
        wanted = "refuses the key" if probe.endpoint.api_key else "asks for one: use --api-key"
        yield say("AIP-API-001", Status.NOT_TESTABLE, f"the target {wanted}", reply)
        yield from _blocked(f"the target {wanted}")
        return
    blamed = f"{reply.error.get('param')} {reply.error.get('message')}".lower()
    if 400 <= reply.status < 500 and "x-ai-" in blamed:
        yield tell("XAI-HDR-001", "no X-AI header sent", False, reply, expected="an answer")
        yield say("AIP-API-001", Status.NOT_TESTABLE, "XAI-HDR-001 failed", reply)
        yield from _blocked("XAI-HDR-001 failed", "AIP-API-003", "XAI-PRIN-006")
        return
    if reply.status != 200 or not reply.object:
        yield tell(
            "AIP-API-001", "an answer", False, reply, expected="200 with a JSON object",
            found=reply.outcome if reply.status != 200 else reply.json_fault or reply.outcome,
            blocks=True,
        )  # fmt: skip
        yield from _blocked("AIP-API-001 failed")
        return
    yield tell("XAI-HDR-001", "no X-AI header sent", True, reply)
    yield from _shape(reply)
    yield from _usage(reply)
    shown = [name for name, _ in reply.headers if name.startswith("x-ai-")]
    yield tell(
        "XAI-PRIN-006", "decision headers", not shown, reply,
        expected="none without an X-AI request header", found=", ".join(shown),
    )  # fmt: skip


def _first_answer(probe: Probe) -> Reply | None:
    if probe.asked_model is not None:
        return talk_to(probe, probe.asked_model)
    return probe.facts.answer


def _blocked(reason: str, *ids: str) -> Iterator[Finding]:
    for identifier in ids or ("XAI-HDR-001", "AIP-API-003", "XAI-PRIN-006"):
        yield say(identifier, Status.NOT_TESTABLE, reason)


def _shape(reply: Reply) -> Iterator[Finding]:
    me, body = "AIP-API-001", reply.object

    def has(name: str, holds: bool, expected: str) -> Finding:
        return tell(me, name, holds, reply, expected=expected, found=repr(body.get(name)))

    media = reply.media_type == "application/json"
    yield tell(me, "media type", media, reply, expected="application/json", found=reply.media_type)
    yield has("object", body.get("object") == "chat.completion", '"chat.completion"')
    yield has("id", isinstance(body.get("id"), str) and bool(body["id"]), "text")
    yield has("created", is_count(body.get("created")), "an integer")
    yield has("model", isinstance(body.get("model"), str), "text")
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(message, dict):
        yield has("choices", False, "at least one choice with a message")
        return
    role = message.get("role")
    yield tell(me, "role", role == "assistant", reply, expected='"assistant"', found=repr(role))
    content = message.get("content")
    right = content is None or isinstance(content, str)
    yield tell(me, "content", right, reply, expected="text or null", found=repr(content)[:80])
    prefix = str(body.get("id")).startswith("chatcmpl-")
    yield tell(
        me, "id prefix", prefix, reply, expected="chatcmpl-…", found=repr(body.get("id")),
        otherwise=Status.WARN,
    )  # fmt: skip


def _usage(reply: Reply) -> Iterator[Finding]:
    me, usage = "AIP-API-003", reply.object.get("usage")
    if usage is None:
        yield tell(
            me, "usage", False, reply, expected="token counts", found="none",
            otherwise=Status.WARN,
        )  # fmt: skip
        return
    if not isinstance(usage, dict):
        yield tell(me, "usage", False, reply, expected="an object", found=repr(usage)[:80])
        return
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        yield tell(
            me, f"usage.{name}", is_count(usage.get(name)), reply,
            expected="an integer", found=repr(usage.get(name)),
        )  # fmt: skip


@check(
    "XAI-HDR-006",
    level=1,
    keyword="MUST",
    title="an X-AI header with an unknown name is ignored",
    clause="draft §6",
    depends_on=CHATS,
)
def an_unknown_x_ai_header_is_ignored(probe: Probe) -> Iterator[Finding]:
    name = f"X-AI-Unknown-{probe.word().capitalize()}"
    reply = probe.chat(headers={name: "1"})
    yield tell(
        "XAI-HDR-006", "the outcome with such a header", _answers(reply), reply,
        expected="the same as without",
    )  # fmt: skip


@check(
    "XAI-COMPAT-020",
    level=1,
    keyword="MUST",
    title="unknown body fields do no harm",
    clause="draft §15.1",
    depends_on=CHATS,
)
def an_unknown_body_field_does_no_harm(probe: Probe) -> Iterator[Finding]:
    """The OpenAI API itself may refuse such a field, so a clear refusal is only a warning."""
    reply = probe.chat(None, **{f"x_{probe.word()}": {"a": 1}})
    yield tell(
        "XAI-COMPAT-020", "a field nobody knows", _answers(reply), reply, expected="an answer",
        otherwise=Status.WARN if reply.status in (400, 422) else Status.FAIL,
    )  # fmt: skip


@check(
    "XAI-AUTO-022",
    level=1,
    keyword="MUST",
    title='response_format {"type":"text"} is accepted',
    clause="draft Fig 6",
    depends_on=CHATS,
)
def the_text_format_is_accepted(probe: Probe) -> Iterator[Finding]:
    reply = probe.chat(response_format={"type": "text"})
    yield tell("XAI-AUTO-022", "the default format", _answers(reply), reply, expected="an answer")


@check(
    "XAI-COMPAT-021",
    level=1,
    keyword="MUST",
    title="Unicode text is taken and given undamaged",
    clause="draft §15.1",
    depends_on=CHATS,
)
def unicode_text_is_undamaged(probe: Probe) -> Iterator[Finding]:
    """Without an echo only this shows: both spellings of JSON are the same text to the target.

    Providers of our own tell what text reached them.
    """
    me = "XAI-COMPAT-021"
    case = probe.case() if probe.behind else None
    text = f"{case.nonce if case else probe.word()} \u00e9\u0301\u0928\u0940 \u05e9\u05dc\u05d5\u05dd \u4f60\u597d \U0001f600\U0001f468\u200d\U0001f469"
    body = probe.body(messages=[{"role": "user", "content": text}])
    counts = []
    for spelling in (True, False):
        content = json.dumps(body, ensure_ascii=spelling).encode("utf-8")
        reply = probe.endpoint.post(CHAT, content)
        how = "escaped" if spelling else "as UTF-8"
        yield tell(
            me, f"a prompt {how}", _answers(reply), reply, expected="an answer in valid JSON",
            found=reply.json_fault or reply.outcome,
        )  # fmt: skip
        usage = reply.object.get("usage")
        counts.append(usage.get("prompt_tokens") if isinstance(usage, dict) else None)
    if case is not None:
        arrived = [_prompt(attempt.json) for attempt in case.attempts()]
        damaged = [other for other in arrived if other != text]
        yield tell(
            me, "the prompt at the provider", len(arrived) > 1 and not damaged, reply,
            expected=repr(text), found=repr(damaged[:1])[:200],
        )  # fmt: skip
        return
    yield tell(
        me, "both spellings", counts[0] == counts[1], reply,
        expected="the same prompt_tokens", found=f"{counts[0]} escaped, {counts[1]} as UTF-8",
    )  # fmt: skip


@check(
    "AIP-API-009",
    level=1,
    keyword="MUST",
    title="messages is a non-empty list of objects with a legal role and content",
    clause="aiproxy §5.1",
    depends_on=CHATS,
)
def messages_are_checked(probe: Probe) -> Iterator[Finding]:
    me = "AIP-API-009"
    wrong = {
        "an empty list": [],
        "a message without role": [{"content": "hi"}],
        "an unknown role": [{"role": f"robot-{probe.word()}", "content": "hi"}],
        "content that is a number": [{"role": "user", "content": 5}],
    }
    for what, messages in wrong.items():
        reply = probe.chat(messages=messages)
        yield refused(me, what, reply, 400)
    turns = ("system", "user", "assistant", "user")
    reply = probe.chat(messages=[{"role": role, "content": probe.word()} for role in turns])
    yield tell(
        me, "system, user and assistant turns", _answers(reply), reply, expected="an answer",
        otherwise=Status.WARN if reply.status in (400, 422) else Status.FAIL,
    )  # fmt: skip


@check(
    "AIP-API-040",
    level=1,
    keyword="MUST",
    title="deep nesting, huge numbers and duplicate keys do not crash the server",
    clause="aiproxy §5",
    depends_on=CHATS,
)
def hostile_json_is_survived(probe: Probe) -> Iterator[Finding]:
    me = "AIP-API-040"
    plain = json.dumps(probe.body())[1:]
    deep = "[" * 10_000 + "]" * 10_000
    bodies = {
        "10,000 levels of nesting": f'{{"metadata":{deep},{plain}',
        "the number 1e400": f'{{"temperature":1e400,{plain}',
        "the model given twice": f'{{"model":"no-such-{probe.word()}",{plain}',
    }
    for what, body in bodies.items():
        try:
            reply = probe.endpoint.post(CHAT, body.encode())
        except Unanswered as fault:
            yield tell(me, what, False, expected="an answer", found=fault.reason)
            continue
        yield tell(me, what, 200 <= reply.status < 500, reply, expected="an answer or a refusal")


def _prompt(body: Any) -> Any:
    """Return the content of the last message of a request body."""
    messages = body.get("messages") if isinstance(body, dict) else None
    last = messages[-1] if isinstance(messages, list) and messages else None
    return last.get("content") if isinstance(last, dict) else None


def _answers(reply: Reply) -> bool:
    return reply.status == 200 and reply.object.get("object") == "chat.completion"


derive(
    "UNI-STAT-004", level=1, keyword="MUST", title="one chat interface works for all providers",
    clause="universal Working Features: Chat Interface", of=("XAI-PRIN-001",),
)  # fmt: skip
derive(
    "UNI-STAT-006", level=1, keyword="MUST", title="the OpenAI protocol is implemented consistently",
    clause="universal Working Features: Protocol Standardization", of=("XAI-PRIN-007",),
)  # fmt: skip
derive(
    "AIP-OBS-017", level=1, keyword="MUST", title="providers are health-checked",
    clause="aiproxy §8 Phase 1 Health checks", of=("AIP-API-022",),
)  # fmt: skip
