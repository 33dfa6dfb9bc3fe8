"""The body one attempt sends: auto parameters resolved for its model, then its own dialect.

Same dialect in and out: the client's bytes, with only the members that must change. Another
dialect: through the canonical form, re-translated for every attempt, losses declared. The word
``auto`` never leaves the router (XAI-AUTO-002).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from aiproxy.middleware.auto import shapes
from aiproxy.middleware.auto.answer_check import Check, shaped
from aiproxy.middleware.auto.canonical_form import write
from aiproxy.middleware.auto.offer import carried
from aiproxy.middleware.auto.patches import MODEL_IN_PATH, changes_for
from aiproxy.middleware.auto.resolving import NOTHING, Resolved, resolve
from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Loss,
    MalformedRequest,
    Opaque,
    ToolCall,
    ToolKind,
    ToolResult,
    Untranslatable,
)
from aiproxy.middleware.dialects.codecs import SPOKEN_FOR, codec
from aiproxy.middleware.dialects.functions import tool_kinds
from aiproxy.middleware.intake.members import patch
from aiproxy.middleware.intent import Intent
from aiproxy.middleware.registry import Model

#: The member that holds the turns, where that is not ``messages``.
_TURNS: Final = {"responses": "input", "gemini": "contents"}
#: Members that say that earlier turns are kept by whoever answered them.
_KEPT: Final = ("previous_response_id", "conversation", "prompt")
_SHAPED: Final = frozenset({"json_schema", "json_mode"})


@dataclass(slots=True)
class Outgoing:
    """What is sent to one candidate.

    ``auto`` has an entry for each auto parameter (requested, resolved, basis); ``renames`` maps a
    provider's tool names to the generic ones the client sees. ``check`` is set where the provider
    was asked for the shape of its answer in words: the answer has to be held to it. ``kinds`` are
    those of the tools of a translated request that are no plain functions, by name.
    """

    dialect: str
    body: bytes
    translated: bool
    losses: tuple[Loss, ...] = ()
    auto: dict[str, dict[str, Any]] = field(default_factory=dict)
    reasoning: dict[str, Any] | None = None
    tools: dict[str, Any] | None = None
    renames: tuple[tuple[str, str], ...] = ()
    limit: int | None = None
    check: Check | None = None
    kinds: Mapping[str, ToolKind] = field(default_factory=dict)


def dialect_for(intent: Intent, model: Model, body: Mapping[str, Any] | None = None) -> str:
    """The dialect a candidate is spoken to in: the client's own where it understands it.

    With ``tools: "auto"`` the one that can offer most of what the operator lists comes first, as
    hosted tools belong to one dialect.

    Raises:
        Untranslatable: it speaks none that can carry the endpoint's requests.
    """
    spoken = model.provider.dialects
    if body is not None and model.tools and "tools" in intent.autos and intent.mode == "assisted":
        able = [d for d in SPOKEN_FOR[intent.endpoint] if d in spoken]
        if len(able) > 1:
            return max(able, key=lambda dialect: carried(intent, body, model, dialect))
        if able:
            return able[0]
    for dialect in SPOKEN_FOR[intent.endpoint]:
        if dialect in spoken:
            return dialect
    raise Untranslatable("dialect", "the provider speaks no dialect for this endpoint")


def prepare(
    intent: Intent,
    raw: bytes,
    body: Mapping[str, Any],
    model: Model,
    *,
    original: Mapping[str, Any] | None = None,
    canonical: Callable[[], CanonicalRequest] | None = None,
    rewritten: bool = False,
) -> Outgoing:
    """Return the body for one candidate.

    ``raw`` is the client's body as received and ``original`` the same parsed; ``body`` is the
    request in OpenAI's shape, and ``original`` is ``None`` where that is the client's own.
    ``canonical`` gives the canonical form of the client's own, which is asked for when needed.
    ``rewritten``: it is no longer what the client's own bytes say, so those are not sent.

    Raises:
        Untranslatable: its dialect cannot express what the request needs.
        MalformedRequest: a member of the client's body cannot be read.
    """
    given = body if original is None else original
    dialect = dialect_for(intent, model, body)
    same = dialect == intent.endpoint and not rewritten
    # A shape passes to whoever is not known to lack it; only an operator's word says otherwise.
    if same and model.response_formats is not None and not _SHAPED.isdisjoint(intent.features):
        same = _takes_shape(_read(intent, given, canonical), model)
    if not intent.autos and not intent.selects:
        if same:
            return _same_dialect(intent, raw, model, dialect)
        request = _read(intent, given, canonical)
        return _translated(intent, request, model, dialect, NOTHING)
    resolved = resolve(intent, body, model, dialect)
    if same:
        out = _patched(raw, given, model, dialect, resolved)
    else:
        request = _read(intent, given, canonical)
        out = _translated(intent, request, model, dialect, resolved)
    out.auto = resolved.record(intent, model)
    out.limit = resolved.limit
    if resolved.rung is not None:
        out.reasoning = resolved.rung.record()
    if resolved.offer is not None:
        out.tools, out.renames = resolved.offer.record(), resolved.offer.renames
    return out


def _read(
    intent: Intent, given: Mapping[str, Any], canonical: Callable[[], CanonicalRequest] | None
) -> CanonicalRequest:
    if canonical is not None:
        return canonical()
    found: CanonicalRequest = codec(intent.endpoint).decode_request(given)
    return found


def _same_dialect(intent: Intent, raw: bytes, model: Model, dialect: str) -> Outgoing:
    if model.upstream == intent.model or dialect in MODEL_IN_PATH:
        return Outgoing(dialect, raw, translated=False)
    return Outgoing(dialect, patch(raw, {"model": model.upstream}), translated=False)


def _patched(
    raw: bytes, given: Mapping[str, Any], model: Model, dialect: str, resolved: Resolved
) -> Outgoing:
    changes = changes_for(dialect, given, resolved, model)
    if changes.put or changes.remove:
        raw = patch(raw, changes.put, remove=frozenset(changes.remove))
    return Outgoing(dialect, raw, translated=False, losses=tuple(changes.losses))


def _takes_shape(request: CanonicalRequest, model: Model) -> bool:
    wanted = shapes.shape_of(request)
    return wanted is None or shapes.known_shape(model, wanted.kind) == wanted.kind


def _check_results(request: CanonicalRequest) -> None:
    """Refuse a tool's result that answers no call: no other dialect could say whose it is.

    Raises:
        MalformedRequest: there is one (XAI-TOOL-012).
    """
    if any(request.extra.get(name) for name in _KEPT):
        return
    calls: set[str] = set()
    for turn in request.turns:
        for part in turn.parts:
            if isinstance(part, ToolCall):
                calls.add(part.id)
            elif isinstance(part, Opaque):
                return  # it may stand for a call
            elif isinstance(part, ToolResult) and part.call_id and part.call_id not in calls:
                if part.kind == "legacy_function":
                    continue
                param = _TURNS.get(request.source, "messages")
                raise MalformedRequest(
                    param, "a result of an unknown call", "one of an earlier call"
                )


def _check_meaning(request: CanonicalRequest) -> None:
    """Refuse what only the client's own API can mean.

    Raises:
        Untranslatable: the prompt is only to be cached, or part of it is kept by the provider.
    """
    if request.sampling.max_tokens == 0:
        raise Untranslatable("max_tokens", "no other API fills its cache without an answer")
    if request.source == "gemini" and request.extra.get("cachedContent"):
        raise Untranslatable("cachedContent", "the beginning of the prompt is kept by Google")


def _dumped(body: Any) -> bytes:
    """Write a body. The reader in front takes deeper nesting than the writer can write."""
    try:
        return orjson.dumps(body)
    except TypeError:
        raise Untranslatable(
            "nesting", "the request is nested too deeply to be said anew"
        ) from None


def _translated(
    intent: Intent, request: CanonicalRequest, model: Model, dialect: str, resolved: Resolved
) -> Outgoing:
    if intent.endpoint == "embeddings":  # a canonical form of its own, of texts and no turns
        encoded, losses = codec(dialect).encode_request(request, model.upstream)
        return Outgoing(dialect, _dumped(encoded), translated=True, losses=tuple(losses))
    _check_results(request)
    _check_meaning(request)
    written = write(request, resolved, model, dialect)
    wanted = shapes.shape_of(written.request)
    if wanted is None:
        encoded, losses = written.encode()
        return Outgoing(
            dialect,
            _dumped(encoded),
            translated=True,
            losses=tuple(losses),
            kinds=tool_kinds(request),
        )
    asked = shaped(written, wanted, shapes.known_shape(model, wanted.kind))
    return Outgoing(
        dialect,
        _dumped(asked.body),
        translated=True,
        losses=tuple(asked.losses),
        check=asked.check,
        kinds=tool_kinds(request),
    )
