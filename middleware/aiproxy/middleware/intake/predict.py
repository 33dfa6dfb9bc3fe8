"""The native endpoint ``POST /aiproxy/predict`` (AIProxy Standard 5.2).

A predict request is a chat or embeddings request in other words: it is turned into one, served
like any other, and the reply is put into the native shape. An image to be classified is the one
thing no other endpoint takes: see ``dialects.classifications``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from aiproxy.middleware.decision import Decision
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intake.validate import check_body
from aiproxy.middleware.intent import AUTO, Native
from aiproxy.middleware.money.amounts import picodollars
from aiproxy.middleware.registry import Registry
from aiproxy.middleware.settings import canonical_strategy

#: Members of a predict body that mean something else in a chat or embeddings body; the rest are
#: sampling parameters and travel on.
_OWN: Final = frozenset({"model", "input", "routing"})
_TEXT: Final = "text-generation"
_VECTORS: Final = "embeddings"
_IMAGES: Final = "image-classification"
#: Members of an input that is an image; ``labels`` and ``top_k`` may stand beside the input, too.
_IMAGE_MEMBERS: Final = frozenset({"image", "labels", "top_k"})
#: Members beside an image that mean nothing else there than elsewhere, or nothing for its labels.
_BESIDE_IMAGE: Final = frozenset(
    {*_OWN, "labels", "top_k", "stream", "n", "user", "metadata", "safety_identifier"}
)
#: How a reference to an image elsewhere begins; nothing is ever fetched for a client.
_ELSEWHERE: Final = ("http:", "https:", "ftp:", "file:", "s3:", "gs:")
_LONGEST_SCHEME: Final = 8


@dataclass(frozen=True, slots=True)
class NativeRequest:
    """``endpoint`` is chat, embeddings or classifications; ``asked`` is the strategy as the client spelt it."""

    endpoint: str
    body: dict[str, Any]
    native: Native
    asked: str | None


def read(body: Mapping[str, Any], registry: Registry) -> NativeRequest:
    """Translate a validated predict body.

    Raises:
        ProxyError: 400 ``unsupported_capability`` when the input's kind does not fit the model.
    """
    model = body["model"]
    given = body["input"]
    models = registry.by_name.get(model, ())
    textless = bool(models) and not any(_TEXT in m.capabilities for m in models)
    can = frozenset[str]().union(*(m.capabilities for m in models))
    routing = body.get("routing") or {}
    asked = routing.get("strategy")
    if asked is not None:
        try:
            canonical_strategy(asked)
        except KeyError:
            raise ProxyError(
                "invalid_value", "Unknown routing strategy.", param="routing.strategy"
            ) from None
    cap, timeout = routing.get("max_cost"), routing.get("timeout")
    native = Native(
        strategy=asked,
        max_cost=None if cap is None else picodollars(cap),
        timeout_s=None if timeout is None else timeout / 1000,
    )
    extra = {name: value for name, value in body.items() if name not in _OWN}
    _refuse_foreign(body)
    image = _image(given, model, registry, only=textless and _VECTORS not in can)
    if image is not None:
        picture = _classification(body, image)
        return NativeRequest("classifications", {"model": model, **picture}, native, asked)
    if textless and _VECTORS in can:
        vectors = {**extra, "model": model, "input": given}
        _check_vectors(vectors)
        return NativeRequest("embeddings", vectors, native, asked)
    if textless or not isinstance(given, str):
        raise ProxyError(
            "unsupported_capability",
            "This input does not fit the model: text models take a string.",
            param="input",
        )
    messages = [{"role": "user", "content": given}]
    chat = {**extra, "model": model, "messages": messages}
    check_body("chat", chat)
    return NativeRequest("chat", chat, native, asked)


def _image(given: Any, model: str, registry: Registry, *, only: bool) -> Mapping[str, Any] | None:
    """The input as an object with an image, or ``None`` where it is none, or nobody of that name
    classifies any. ``only``: the model takes neither text to answer nor text to embed, so that a
    string is an image."""
    if isinstance(given, str) and only:
        given = {"image": given}
    if not isinstance(given, Mapping) or "image" not in given:
        return None
    known = registry.models if model == AUTO else registry.named(model)
    if known and not any(_IMAGES in m.capabilities for m in known):
        return None
    return given


def _classification(body: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a classification body beside the model.

    Raises:
        ProxyError: 400 for a member nobody knows, or an image that lies elsewhere.
    """
    unknown = [f"input.{name}" for name in given if name not in _IMAGE_MEMBERS]
    unknown += [n for n, value in body.items() if value is not None and n not in _BESIDE_IMAGE]
    if unknown:
        raise ProxyError(
            "unsupported_parameter",
            f"{unknown[0]} has no meaning beside an image; expected image, labels or top_k.",
            param=unknown[0],
        )
    image = given["image"]
    data = image["data"] if isinstance(image, Mapping) else image
    if data[:_LONGEST_SCHEME].lstrip().lower().startswith(_ELSEWHERE):
        raise ProxyError(
            "unsupported_parameter",
            "Images are not fetched from elsewhere: send the image itself, as base64.",
            param="input.image",
        )
    found = {"image": image}
    for name in ("labels", "top_k"):
        value = given.get(name, body.get(name))
        if value is not None:
            found[name] = value
    return found


def _refuse_foreign(body: Mapping[str, Any]) -> None:
    """A predict reply is one document with one output; its input is ``input``."""
    foreign = [name for name in ("messages", "stream_options") if body.get(name) is not None]
    if body.get("stream"):
        foreign.append("stream")
    if body.get("n") not in (None, 1):
        foreign.append("n")
    if foreign:
        raise ProxyError(
            "unsupported_parameter",
            f"{foreign[0]} has no meaning here: a predict reply is one document with one output, "
            "and its input is the member input.",
            param=foreign[0],
        )


def _check_vectors(body: Mapping[str, Any]) -> None:
    try:
        check_body("embeddings", body)
    except ProxyError as fault:
        if not (fault.param or "").startswith("input"):
            raise
        raise ProxyError(
            "unsupported_capability",
            "This input does not fit the model: an embedding model takes a string or a list of them.",
            param="input",
        ) from None


def shape(request: NativeRequest, reply: Mapping[str, Any], decision: Decision) -> bytes:
    """The native reply; ``decision`` is settled."""
    served, usage, intent = decision.served, decision.usage, decision.intent
    assert served is not None
    assert usage is not None
    assert intent is not None
    if request.endpoint == "embeddings":
        output: Any = [row["embedding"] for row in reply["data"]]
        if len(output) == 1 and isinstance(request.body["input"], str):
            output = output[0]
    elif request.endpoint == "classifications":
        output = [{"label": row["label"], "score": row["score"]} for row in reply["data"]]
    else:
        output = reply["choices"][0]["message"].get("content")
    tried = [attempt.model.provider.id for attempt in decision.attempts]
    distinct = list(dict.fromkeys(tried))
    plan = decision.plan
    reason = decision.failover_reason() or (plan.reason if plan else None)
    if plan is not None and plan.rules and reason == plan.reason:
        reason = f"{reason}: {', '.join(plan.rules)}"
    return orjson.dumps(
        {
            "request_id": decision.id,
            "model": reply.get("model"),
            "output": output,
            "metadata": {
                "provider": served.model.provider.id,
                "node_id": decision.node,
                "latency_ms": round(decision.latency_ms, 2),
                "tokens": {"input": usage.input, "output": usage.output, "total": usage.total},
                "cost": {
                    "amount": decision.told_cost,
                    "currency": "USD",
                },
                "routing": {
                    "strategy_used": request.asked or intent.strategy,
                    "providers_tried": distinct,
                    "failovers": len(distinct) - 1,
                    "reason": reason,
                },
            },
        }
    )
