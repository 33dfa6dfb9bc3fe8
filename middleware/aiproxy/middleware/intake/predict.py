"""The native endpoint ``POST /aiproxy/predict`` (AIProxy Standard 5.2).

A predict request is a chat or embeddings request in other words: it is turned into one, served
like any other, and the reply is put into the native shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from aiproxy.middleware.decision import Decision
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intake.validate import check_body
from aiproxy.middleware.intent import Native
from aiproxy.middleware.money.amounts import picodollars
from aiproxy.middleware.registry import Registry
from aiproxy.middleware.settings import canonical_strategy

#: Members of a predict body that mean something else in a chat or embeddings body; the rest are
#: sampling parameters and travel on.
_OWN: Final = frozenset({"model", "input", "routing"})


@dataclass(frozen=True, slots=True)
class NativeRequest:
    """``endpoint`` is chat or embeddings; ``asked`` is the strategy as the client spelt it."""

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
    embeds = bool(models) and all("text-generation" not in m.capabilities for m in models)
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
    if embeds and any("embeddings" in m.capabilities for m in models):
        vectors = {**extra, "model": model, "input": given}
        _check_vectors(vectors)
        return NativeRequest("embeddings", vectors, native, asked)
    if embeds or not isinstance(given, str):
        raise ProxyError(
            "unsupported_capability",
            "This input does not fit the model: text models take a string.",
            param="input",
        )
    messages = [{"role": "user", "content": given}]
    chat = {**extra, "model": model, "messages": messages}
    check_body("chat", chat)
    return NativeRequest("chat", chat, native, asked)


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
