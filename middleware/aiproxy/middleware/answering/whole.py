"""Whole replies: a provider's document checked, translated where it must be, and told."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from aiproxy.middleware.answering import outcome
from aiproxy.middleware.answering.outcome import Fault, Rejection
from aiproxy.middleware.answering.prepare import Outgoing
from aiproxy.middleware.answering.serving import JSON, Serving
from aiproxy.middleware.auto import answer_check
from aiproxy.middleware.auto.telling import Renamer, Teller
from aiproxy.middleware.decision import Attempt
from aiproxy.middleware.dialects.canonical import Loss, MalformedReply
from aiproxy.middleware.dialects.codecs import codec, decode_reply
from aiproxy.middleware.dialects.observe import check_reply, reply_usage
from aiproxy.middleware.disclosure import metadata
from aiproxy.middleware.effects import Answer, Reply
from aiproxy.middleware.intake import predict
from aiproxy.middleware.intake.members import append, patch, too_deep

#: Where a reply names its model, where that is not ``model``.
_MODEL_MEMBER: Final[Mapping[str, str]] = {"gemini": "modelVersion"}


def read(serving: Serving, attempt: Attempt, out: Outgoing, answer: Answer) -> dict[str, Any]:
    """The document of an answer that holds one.

    Raises:
        Rejection: an error status, a 200 with an error inside, no answer at all, or one that does
            not have the shape the provider was asked for in words. Tokens that it
            reports all the same are on the attempt by then (AIP-FAIL-010).
    """
    provider = attempt.model.provider
    fault = outcome.of_answer(
        answer,
        serving.gateway.runtime.wall(),
        from_app=provider.transport == "app",
        dialect=out.dialect,
        words=provider.error_words,
        limits=provider.limit_headers,
    )
    if fault is not None:
        if b'"usage"' in answer.body:
            _spent(attempt, out, answer.body)
        raise Rejection(fault)
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        raise Rejection(Fault("invalid_response", "other", answer.status)) from None
    if check_reply(out.dialect, body) is None:
        assert isinstance(body, dict)
        if out.check is not None:
            _fitting(attempt, out, answer, body)
        return body
    _spent(attempt, out, answer.body)
    raise Rejection(outcome.of_body(body, dialect=out.dialect, words=provider.error_words))


def _fitting(attempt: Attempt, out: Outgoing, answer: Answer, body: dict[str, Any]) -> None:
    """Return when the answer has the shape that the provider was asked for in words.

    Raises:
        Misfit: it has not.
    """
    assert out.check is not None
    try:
        answer_check.hold(out.check, out.dialect, body)
    except Rejection:
        _spent(attempt, out, answer.body)
        raise


def _spent(attempt: Attempt, out: Outgoing, raw: bytes) -> None:
    """Put the usage that an unusable answer reports, and its price, on the attempt."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return
    usage = reply_usage(out.dialect, body) if isinstance(body, Mapping) else None
    if usage is not None:
        price = attempt.model.price
        attempt.usage, attempt.cost = usage, None if price is None else price.cost(usage)


def reply(
    serving: Serving, attempt: Attempt, out: Outgoing, answer: Answer, body: Mapping[str, Any]
) -> Reply:
    """The reply to the client; the record is settled.

    Raises:
        Rejection: the document cannot be told in the client's dialect.
    """
    try:
        encoded = _encoded(serving, attempt, out, answer, body)
    except Rejection:
        _spent(attempt, out, answer.body)
        raise
    serving.settle(attempt, reply_usage(out.dialect, body), len(answer.body))
    serving.succeeded(attempt)
    serving.decision.status = 200
    extra = metadata(serving.decision, serving.gateway.settings)
    native = serving.asked.native
    if native is not None:
        encoded = predict.shape(native, orjson.loads(encoded), serving.decision)
    elif extra is not None:
        # The provider may be a router of this kind: then its own account gives way to ours.
        told = not out.translated and "x-aiproxy" in body
        encoded = (
            patch(encoded, {"x-aiproxy": extra}) if told else append(encoded, "x-aiproxy", extra)
        )
    return Reply(200, serving.reply_headers(attempt.model, answer, JSON), encoded)


def _encoded(
    serving: Serving, attempt: Attempt, out: Outgoing, answer: Answer, body: Mapping[str, Any]
) -> bytes:
    model = attempt.model
    public = serving.public_model(model)
    if out.translated:
        try:
            canonical = decode_reply(out.dialect, body, out.kinds)
        except (MalformedReply, RecursionError):
            raise Rejection(Fault("invalid_response", "other", answer.status)) from None
        if out.renames or out.check is not None or out.kinds:
            canonical = Teller(out.renames, out.check, out.kinds).reply(canonical)
        losses: list[Loss] = []
        try:
            document = codec(serving.intent.endpoint).encode_reply(
                canonical, serving.envelope(model), losses
            )
            told = orjson.dumps(document)
        except (
            MalformedReply,
            TypeError,
            RecursionError,
        ):  # such as arguments that are no object; nested too deep
            raise Rejection(Fault("invalid_response", "other", answer.status)) from None
        serving.decision.losses += losses
        return told
    encoded = answer.body
    named = _MODEL_MEMBER.get(out.dialect, "model")
    try:
        if body.get(named) != public:
            encoded = patch(encoded, {named: public})
        return Renamer(out.renames, out.dialect)(encoded) if out.renames else encoded
    except (TypeError, RecursionError) as fault:
        if not too_deep(fault):
            raise
        raise Rejection(Fault("invalid_response", "other", answer.status)) from None
