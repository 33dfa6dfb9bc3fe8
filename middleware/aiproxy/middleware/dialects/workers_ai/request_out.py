"""Request bodies out: the canonical form to ``/run/{model}``, with what was lost."""

from typing import Any, Final
from urllib.parse import quote

from aiproxy.middleware.dialects import unsaid
from aiproxy.middleware.dialects.canonical import CanonicalRequest, Loss, ResponseFormat
from aiproxy.middleware.dialects.functions import Offer, lose_members, nested, offer
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.workers_ai.messages_out import encode_messages
from aiproxy.middleware.dialects.workers_ai.vocabulary import API, DEFAULT_MAX_TOKENS, DIALECT, OWN

_SAID: Final = words("top_k seed presence_penalty frequency_penalty reasoning_effort")


def target(model: str, stream: bool) -> str:
    """Return the path below the account's ``/ai``; ``@`` and ``/`` of a model's name stay."""
    return "/run/" + quote(model, safe="@/")


def encode_request(request: CanonicalRequest, model: str) -> tuple[dict[str, Any], list[Loss]]:
    """Return the body for ``model``, which the path names, and what it could not say.

    Raises:
        Untranslatable: without the part that cannot be said the request has no meaning.
    """
    unsaid.refuse_state(request)
    losses: list[Loss] = []
    body: dict[str, Any] = {"messages": encode_messages(request, model, losses)}
    _encode_tools(offer(request, API, losses).only(), body, losses)
    _encode_format(request.response_format, body, losses)
    _encode_sampling(request, body)
    if request.stream and "response_format" not in body:  # refused together
        body["stream"] = True
    note(losses, unsaid.knobs(request, _SAID, API))
    for name, value in request.extra.items():
        if name in OWN or request.source == DIALECT:
            body[name] = value
        else:
            note(losses, unsaid.member(name, value, API))
    return body, losses


def _encode_tools(offered: Offer, body: dict[str, Any], losses: list[Loss]) -> None:
    if not offered.tools:
        return
    tools = []
    for tool in offered.tools:
        written = nested(tool)
        written["function"].setdefault("description", tool.name)  # required there
        tools.append(written)
        if tool.strict:
            note(losses, [Loss("strict", "Workers AI does not hold calls to their schemas")])
    body["tools"] = tools
    if offered.mode is not None:
        body["tool_choice"] = offered.mode
    note(losses, lose_members(offered.tools, API))


def _encode_format(wanted: ResponseFormat | None, body: dict[str, Any], losses: list[Loss]) -> None:
    if wanted is None or wanted.kind in ("auto", "text"):
        return
    if wanted.kind == "other":
        losses.append(Loss("response_format", "the object names no known type"))
        return
    if wanted.kind == "json_schema" and wanted.schema is not None:
        # The schema itself stands where OpenAI has it inside an object with its name.
        body["response_format"] = {"type": "json_schema", "json_schema": wanted.schema}
        if wanted.strict:
            losses.append(Loss("strict", "Workers AI does not promise to keep to the schema"))
    else:
        body["response_format"] = {"type": "json_object"}


def _encode_sampling(request: CanonicalRequest, body: dict[str, Any]) -> None:
    sampling = request.sampling
    limit = sampling.max_tokens
    for name, value in (
        ("max_tokens", DEFAULT_MAX_TOKENS if limit is None else limit),
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("top_k", sampling.top_k),
        ("seed", sampling.seed),
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
        ("reasoning_effort", request.reasoning_effort),
    ):
        if value is not None:
            body[name] = value
