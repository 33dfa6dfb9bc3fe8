"""Whole replies: a provider's document checked, translated where it must be, and told."""

from collections.abc import Mapping
from typing import Any

import orjson

from aiproxy.middleware import outcome, predict
from aiproxy.middleware.decision import Attempt
from aiproxy.middleware.dialects.canonical import Loss, MalformedReply
from aiproxy.middleware.dialects.observe import check_reply, reply_usage
from aiproxy.middleware.disclosure import metadata
from aiproxy.middleware.effects import Answer, Reply
from aiproxy.middleware.members import append, patch
from aiproxy.middleware.outcome import Fault, Rejection
from aiproxy.middleware.prepare import Outgoing, decoders, encoders
from aiproxy.middleware.relay import Renamer
from aiproxy.middleware.serving import JSON, Serving


def read(serving: Serving, attempt: Attempt, out: Outgoing, answer: Answer) -> dict[str, Any]:
    """The document of an answer that holds one.

    Raises:
        Rejection: an error status, a 200 with an error inside, or no answer at all. Tokens that it
            reports all the same are on the attempt by then (AIP-FAIL-010).
    """
    fault = outcome.of_answer(
        answer,
        serving.gateway.runtime.wall(),
        from_app=attempt.model.provider.transport == "app",
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
        return body
    _spent(attempt, out, answer.body)
    error = body.get("error") if isinstance(body, Mapping) else None
    if error:
        raise Rejection(outcome.of_error_object(error))
    raise Rejection(Fault("invalid_response", "other", answer.status))


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
    encoded = _encoded(serving, attempt, out, answer, body)
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
            canonical = decoders(out.dialect).decode_reply(body)
        except MalformedReply:
            raise Rejection(Fault("invalid_response", "other", answer.status)) from None
        losses: list[Loss] = []
        document = encoders(serving.intent.endpoint).encode_reply(
            canonical, serving.envelope(model), losses
        )
        serving.decision.losses += losses
        encoded = orjson.dumps(document)
    elif body.get("model") != public:
        encoded = patch(answer.body, {"model": public})
    else:
        encoded = answer.body
    return Renamer(out.renames)(encoded) if out.renames else encoded
