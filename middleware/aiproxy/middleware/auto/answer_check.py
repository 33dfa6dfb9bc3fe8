"""Holding an adapted answer to the shape that was asked for (XAI-AUTO-024, T-20).

Where a provider could only be asked in words its answer is looked at before it counts: one that is
no JSON, or breaks the schema, goes back to the same provider with what is wrong (``mended``), then
to the next candidate, and ends as 502 ``format_adaptation_failed``. A stream is not held back: its
text is checked when it is complete, and one that does not fit ends with that error inside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from aiproxy.middleware.answering.outcome import Fault, Rejection
from aiproxy.middleware.auto import shapes
from aiproxy.middleware.auto.answer_schema import AnswerSchema, compiled
from aiproxy.middleware.auto.canonical_form import Written
from aiproxy.middleware.dialects.canonical import (
    CanonicalReply,
    Choice,
    Loss,
    MalformedReply,
    Refusal,
    ResponseFormat,
    Text,
    ToolCall,
    Turn,
    Untranslatable,
)
from aiproxy.middleware.dialects.codecs import codec

#: Code of an answer that does not fit, for the client.
FAILED: Final = "format_adaptation_failed"
#: Characters of a stream's answer that are kept to be checked; a longer one does not fit.
MOST_TEXT: Final = 1024 * 1024
#: Characters of an answer that are shown to the provider again.
_MOST_SHOWN: Final = 32 * 1024
_FENCE: Final = "```"
#: Verdicts on what was asked, whoever wrote the last turns.
_FINAL: Final = frozenset({"content_filtered", "auth_failed"})
_UNCHECKED: Final = Loss(
    "response_format", "the schema cannot be checked here: only that the answer is JSON"
)
_AGAIN: Final = (
    "[aiproxy: answer format] That answer cannot be used: {why}. Answer again, with one JSON value "
    "of the shape that was asked for and nothing else."
)


@dataclass(frozen=True, slots=True)
class Check:
    """What an answer is held to. ``written`` is the request, to ask again with."""

    kind: str
    schema: AnswerSchema | None
    written: Written

    def text_fault(self, text: str) -> str | None:
        """Return why a text is not of the shape, ``None`` when it is."""
        try:
            value = orjson.loads(unfenced(text))
        except orjson.JSONDecodeError:
            return "it is not one JSON value"
        if self.kind == "json_object" and not isinstance(value, dict):
            return "it is not a JSON object"
        return None if self.schema is None else self.schema.fault(value)

    def fault(self, reply: CanonicalReply) -> tuple[str, str] | None:
        """Return the text of the first answer that does not fit, and why."""
        for choice in reply.choices:
            text = answered(choice)
            why = None if text is None else self.text_fault(text)
            if text is not None and why is not None:
                return text, why
        return None


class Misfit(Rejection):
    """An answer that does not fit. ``text`` is the provider's, for itself alone."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(Fault("invalid_response", "repair", 200, counts=False, code=FAILED))
        self.text = text
        self.why = why


def unmended(fault: Fault) -> Fault:
    """Return the fault of a provider that refused to be asked again: it is not the client's, who
    knows nothing of that request. What must not be walked around stays as it is."""
    if fault.retry not in ("never", "larger") or fault.reason in _FINAL:
        return fault
    return Fault("invalid_response", "other", fault.status, counts=False, code=FAILED)


def check_for(wanted: ResponseFormat, written: Written) -> tuple[Check, list[Loss]]:
    """Return the check of a shape, and what it cannot see."""
    schema = None
    losses: list[Loss] = []
    if wanted.kind == "json_schema" and wanted.schema is not None:
        schema = compiled(wanted.schema)
        if schema is None:
            losses.append(_UNCHECKED)
    return Check(wanted.kind, schema, written), losses


def hold(check: Check, dialect: str, body: Mapping[str, Any]) -> None:
    """Return when the answers of a provider's document fit, or are none that could.

    Raises:
        Misfit: one does not.
        Rejection: the document cannot be read.
    """
    try:
        reply: CanonicalReply = codec(dialect).decode_reply(body)
    except (MalformedReply, RecursionError):
        raise Rejection(Fault("invalid_response", "other", 200)) from None
    found = check.fault(reply)
    if found is not None:
        raise Misfit(*found)


def answered(choice: Choice) -> str | None:
    """Return the text of an answer that ought to fit: not one that calls tools, was declined, or
    was cut short, which its finish reason tells."""
    if choice.finish_reason != "stop":
        return None
    if any(isinstance(part, ToolCall | Refusal) for part in choice.parts):
        return None
    return "".join(part.text for part in choice.parts if isinstance(part, Text))


def unfenced(text: str) -> str:
    """Return the inside of a text that is one fenced code block; any other one as it is."""
    bare = text.strip()
    line, newline, rest = bare.partition("\n")
    word = line.removeprefix(_FENCE).strip()
    if not (newline and line.startswith(_FENCE) and rest.endswith(_FENCE)):
        return text
    return rest.removesuffix(_FENCE).strip() if not word or word.isalnum() else text


def mended(check: Check, text: str, why: str) -> bytes:
    """Return the body that asks the same provider again, with its answer and what is wrong.

    Raises:
        Untranslatable: it cannot be asked in its dialect.
    """
    written = check.written
    request = written.request
    turns = (
        *request.turns,
        Turn("assistant", (Text(text[:_MOST_SHOWN] or "(nothing)"),), form="string"),
        Turn("user", (Text(_AGAIN.format(why=why)),), form="string"),
    )
    body, _ = replace(written, request=replace(request, turns=turns)).encode()
    return orjson.dumps(body)


# --- asking --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shaped:
    """A provider's body for a request whose answer has a shape. No ``check``: the provider holds
    its answer to the shape itself."""

    body: dict[str, Any]
    losses: list[Loss]
    check: Check | None = None


def shaped(written: Written, wanted: ResponseFormat, known: str | None) -> Shaped:
    """Return the body that asks for an answer of a shape, in words where it has to be.

    ``known`` is the most binding shape the model takes. A dialect that can say only part of a
    schema says that, and the answer is held to the whole of it.

    Raises:
        Untranslatable: something else of the request cannot be said.
    """
    if known == wanted.kind:
        try:
            body, losses = written.encode()
        except Untranslatable as fault:
            if fault.feature not in _SHAPE_FEATURES:
                raise
            known = "json_object" if wanted.kind == "json_schema" else None
        else:
            if not any(loss.feature in _PARTLY for loss in losses):
                return Shaped(body, losses)
            sent = shapes.sent_shape(body)
            if sent == wanted.kind or written.dialect in _ASK_THEMSELVES:
                check, unseen = check_for(wanted, written)
                return Shaped(body, [*losses, *unseen], check)
            known = sent
    asked = written.with_turn(shapes.instruction(wanted))
    body, losses, asked = _nearest(asked, known)
    check, unseen = check_for(wanted, asked)
    kept = [loss for loss in losses if loss.feature != "response_format"]
    declared = shapes.loss(wanted, shapes.sent_shape(body))
    return Shaped(body, [*kept, declared, *unseen], check)


#: Losses of an encoder that leave an answer less than held to its shape.
_PARTLY: Final = frozenset({"response_format", "schema", "strict"})
#: Dialects whose encoder asks in words itself where the model has no mode for a shape.
_ASK_THEMSELVES: Final = frozenset({"anthropic"})
_SHAPE_FEATURES: Final = frozenset({"response_format", "schema", "json_schema"})


def _nearest(written: Written, known: str | None) -> tuple[dict[str, Any], list[Loss], Written]:
    """Encode with the plain JSON mode where there is one, else with no shape at all."""
    if known == "json_object":
        asked = _with_format(written, ResponseFormat("json_object"))
        try:
            return *asked.encode(), asked
        except Untranslatable as fault:
            if fault.feature not in _SHAPE_FEATURES:
                raise
    asked = _with_format(written, None)
    return *asked.encode(), asked


def _with_format(written: Written, shape: ResponseFormat | None) -> Written:
    return replace(written, request=replace(written.request, response_format=shape))
