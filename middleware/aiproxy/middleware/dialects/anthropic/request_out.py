"""Request bodies out: the canonical form to Anthropic Messages, with what was lost."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects.anthropic.blocks_out import Writer
from aiproxy.middleware.dialects.anthropic.format_out import encode_format
from aiproxy.middleware.dialects.anthropic.messages_out import encode_turns
from aiproxy.middleware.dialects.anthropic.models import family as family_of
from aiproxy.middleware.dialects.anthropic.thinking import encode_sampling, encode_thinking
from aiproxy.middleware.dialects.anthropic.tools import encode_tools
from aiproxy.middleware.dialects.anthropic.vocabulary import DIALECT
from aiproxy.middleware.dialects.canonical import CanonicalRequest, Loss, Untranslatable
from aiproxy.middleware.dialects.losses import note

_TIERS: Final = {"auto": "auto", "default": "standard_only", "priority": "auto"}
#: Members of other dialects that say nothing here, at these values.
_HARMLESS: Final[dict[str, tuple[Any, ...]]] = {
    "truncation": ("disabled",),
    "background": (False,),
    "include": ([], ()),
    "store": (False,),
    "modalities": (["text"],),
}
#: Written by the functions that know what they mean.
_PLACED: Final = frozenset(
    {"thinking", "output_config", "metadata", "reasoning", "response_format"}
)
_KEPT: Final = ("previous_response_id", "conversation", "prompt")


def encode_request(request: CanonicalRequest, model: str) -> tuple[dict[str, Any], list[Loss]]:
    """Return the Messages body for ``model``, and what it could not say.

    What a model family does not take is not sent (see ``models``): the body is no 400 for a reason
    the client cannot know.

    Raises:
        Untranslatable: without the part that cannot be said the request has no meaning.
    """
    losses: list[Loss] = []
    native = request.source == DIALECT
    if (request.sampling.n or 1) > 1:
        raise Untranslatable("n", "anthropic gives one answer a request")
    if not native:
        for name in _KEPT:
            if request.extra.get(name):
                raise Untranslatable(name, "what it refers to is kept by another API")
    family = family_of(model)
    writer = Writer(request.source, losses)
    messages, system, plain = encode_turns(request, family, writer)
    body: dict[str, Any] = {"model": model, "messages": messages}
    sentence = encode_tools(request, family, body, losses)
    # A budget and a demanded call exclude one another; the answer by a call gives way to neither.
    demanded = body.get("tool_choice", {}).get("type") in ("any", "tool")
    thinks = encode_thinking(request, family, demanded, body, losses)
    asked = encode_format(request, family, thinks, body, losses)
    system += [{"type": "text", "text": words} for words in (sentence, asked) if words]
    if system:
        body["system"] = plain if plain is not None and len(system) == 1 else system
    encode_sampling(request, family, thinks, body, losses)
    _encode_person(request, body, losses)
    if request.service_tier is not None:
        tier = _TIERS.get(request.service_tier, request.service_tier if native else None)
        if tier is None:
            losses.append(Loss("service_tier", "anthropic has no such tier"))
        else:
            body["service_tier"] = tier
    if request.verbosity is not None:
        losses.append(Loss("verbosity", "anthropic has no such parameter"))
    if request.reasoning_summary is not None and "thinking" not in body:
        losses.append(Loss("reasoning.summary", "no thinking is asked for"))
    if request.stream:
        body["stream"] = True
    _encode_extra(request, body, losses)
    return body, _once(losses)


def _encode_person(request: CanonicalRequest, body: dict[str, Any], losses: list[Loss]) -> None:
    held = request.extra.get("metadata") if request.source == DIALECT else None
    metadata: dict[str, Any] = dict(held) if isinstance(held, Mapping) else {}
    user = request.user
    if user is None and request.source != DIALECT:
        given = request.extra.get("safety_identifier")
        user = given if isinstance(given, str) else None
    if user is not None:
        metadata["user_id"] = user
    if metadata:
        body["metadata"] = metadata
    if request.metadata:
        losses.append(Loss("metadata", "anthropic keeps no metadata but the user's id"))


def _encode_extra(request: CanonicalRequest, body: dict[str, Any], losses: list[Loss]) -> None:
    native = request.source == DIALECT
    for name, value in request.extra.items():
        if native:
            if name == "output_config" and isinstance(value, Mapping):
                others = {k: v for k, v in value.items() if k != "effort"}
                if others:
                    body["output_config"] = {**others, **body.get("output_config", {})}
            elif name not in _PLACED:
                body[name] = value
        elif name == "cache_control":
            body[name] = value
        elif name == "safety_identifier":
            if request.user is not None and value != request.user:
                losses.append(Loss(name, "anthropic takes one id of a person"))
        elif (
            name == "stream_options"
            or value in _HARMLESS.get(name, ())
            or (name == "reasoning" and isinstance(value, Mapping) and set(value) <= {"effort"})
        ):
            continue
        else:
            losses.append(Loss(name, "anthropic has no such parameter"))


def _once(losses: list[Loss]) -> list[Loss]:
    if len(losses) < 2:
        return losses
    told: list[Loss] = []
    note(told, losses)
    return told
