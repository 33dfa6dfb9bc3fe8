"""Request bodies out: the canonical form to Cohere v2 chat, with what was lost."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import unsaid
from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Loss,
    ResponseFormat,
    Untranslatable,
)
from aiproxy.middleware.dialects.cohere.messages_out import encode_messages
from aiproxy.middleware.dialects.cohere.vocabulary import API, BUDGETS, DIALECT, OWN
from aiproxy.middleware.dialects.functions import Offer, lose_members, nested, offer
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.reading import words

_SAID: Final = words("top_k seed presence_penalty frequency_penalty logprobs stop reasoning_effort")
_MOST_STOPS: Final = 5


def target(model: str, stream: bool) -> str:
    """Return the path below the base URL; the body says whether to stream."""
    return "/chat"


def encode_request(request: CanonicalRequest, model: str) -> tuple[dict[str, Any], list[Loss]]:
    """Return the v2 chat body for ``model``, and what it could not say.

    Raises:
        Untranslatable: without the part that cannot be said the request has no meaning.
    """
    unsaid.refuse_state(request)
    losses: list[Loss] = []
    offered = offer(request, API, losses).only()
    body: dict[str, Any] = {"model": model, "messages": encode_messages(request, losses)}
    _encode_tools(offered, body, losses)
    _encode_format(request.response_format, offered, body, losses)
    _encode_sampling(request, body, losses)
    _encode_thinking(request, body)
    if request.stream:
        body["stream"] = True
    note(losses, unsaid.knobs(request, _SAID, API))
    for name, value in request.extra.items():
        if name == "thinking" and request.source == "anthropic":
            if "budget_tokens" in (value if isinstance(value, Mapping) else ()):
                note(
                    losses, [Loss("thinking", "of a budget only the effort it stands for is sent")]
                )
        elif name in OWN or request.source == DIALECT:
            body[name] = value
        else:
            note(losses, unsaid.member(name, value, API))
    return body, losses


def _encode_tools(offered: Offer, body: dict[str, Any], losses: list[Loss]) -> None:
    if not offered.tools:
        return
    body["tools"] = [nested(tool) for tool in offered.tools]
    if all(tool.strict for tool in offered.tools):
        body["strict_tools"] = True
    elif any(tool.strict for tool in offered.tools):
        losses.append(Loss("strict", "Cohere holds all tools to their schemas or none"))
    if offered.mode == "required":
        body["tool_choice"] = "REQUIRED"
    elif offered.mode == "none":
        body["tool_choice"] = "NONE"
    note(losses, lose_members(offered.tools, API))


def _encode_format(
    wanted: ResponseFormat | None, offered: Offer, body: dict[str, Any], losses: list[Loss]
) -> None:
    if wanted is None or wanted.kind in ("auto", "text"):
        return
    if wanted.kind == "other":
        losses.append(Loss("response_format", "the object names no known type"))
        return
    if offered.tools or body.get("documents"):
        if wanted.kind == "json_schema":
            raise Untranslatable("response_format", "Cohere takes no schema beside tools")
        losses.append(Loss("response_format", "Cohere takes no format beside tools"))
        return
    shape: dict[str, Any] = {"type": "json_object"}
    if wanted.kind == "json_schema" and wanted.schema is not None:
        shape["json_schema"] = wanted.schema
    body["response_format"] = shape


def _encode_sampling(request: CanonicalRequest, body: dict[str, Any], losses: list[Loss]) -> None:
    sampling = request.sampling
    for name, value in (
        ("temperature", sampling.temperature),
        ("p", _held(sampling.top_p, "top_p", 0.01, 0.99, losses)),
        ("k", sampling.top_k),
        ("max_tokens", sampling.max_tokens),
        (
            "presence_penalty",
            _held(sampling.presence_penalty, "presence_penalty", 0.0, 1.0, losses),
        ),
        (
            "frequency_penalty",
            _held(sampling.frequency_penalty, "frequency_penalty", 0.0, 1.0, losses),
        ),
        ("logprobs", sampling.logprobs),
    ):
        if value is not None:
            body[name] = value
    if sampling.seed is not None:
        if sampling.seed < 0:
            losses.append(Loss("seed", "Cohere takes no negative seed"))
        else:
            body["seed"] = sampling.seed
    if sampling.stop:
        if len(sampling.stop) > _MOST_STOPS:
            losses.append(Loss("stop", f"Cohere takes {_MOST_STOPS} stop sequences"))
        body["stop_sequences"] = list(sampling.stop[:_MOST_STOPS])


def _held(
    value: float | None, name: str, least: float, most: float, losses: list[Loss]
) -> float | None:
    """Return ``value`` brought into the range Cohere takes; the change is declared."""
    if value is None or least <= value <= most:
        return value
    losses.append(Loss(name, f"Cohere takes {least:g} to {most:g}"))
    return min(max(value, least), most)


def _encode_thinking(request: CanonicalRequest, body: dict[str, Any]) -> None:
    effort = request.reasoning_effort
    if effort is None:
        return
    if effort == "none":
        body["thinking"] = {"type": "disabled"}
        return
    thinking: dict[str, Any] = {"type": "enabled"}
    budget = BUDGETS.get(effort)
    limit = request.sampling.max_tokens
    if budget is not None:
        if limit is not None and budget >= limit:
            budget = max(1, limit * 3 // 4)  # leave the answer room
        thinking["token_budget"] = budget
    body["thinking"] = thinking
