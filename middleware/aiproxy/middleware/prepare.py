"""The body one attempt sends: auto parameters resolved for its model, then its own dialect.

Same dialect in and out: the client's bytes, with only the members that must change. Another
dialect: through the canonical form, re-translated for every attempt, losses declared. The word
``auto`` never leaves the router (XAI-AUTO-002).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from aiproxy.middleware.dialects import canonical, chat, draft, responses
from aiproxy.middleware.dialects.canonical import CanonicalRequest, Loss
from aiproxy.middleware.intent import AUTO, LIMIT_NAMES, Intent
from aiproxy.middleware.members import patch
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.plan import SPOKEN_FOR

#: Tokens an answer of each class usually needs, before the prompt's length is looked at.
CLASS_BASE: Final[Mapping[str, int]] = {
    "reasoning": 2048,
    "coding": 1536,
    "analytical": 1024,
    "creative": 1024,
    "general": 512,
}
_LARGEST_AUTO_LIMIT: Final = 16_384
SIMULATED_REASONING: Final = (
    "[aiproxy: simulated reasoning] Before answering, work through the problem step by step, "
    "check each step, then state the result."
)
#: Hosted tools of the Responses API are named by their type.
_HOSTED: Final = frozenset(
    {"web_search", "web_search_preview", "code_interpreter", "image_generation", "file_search"}
)

_CODECS: Final[Mapping[str, Any]] = {"chat": chat, "responses": responses, "draft": draft}


@dataclass(slots=True)
class Outgoing:
    """What is sent to one candidate.

    ``auto`` has an entry for each auto parameter (requested, resolved, basis); ``renames`` maps a
    provider's tool names to the generic ones the client sees.
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


def decoders(dialect: str) -> Any:
    """The module that reads replies of an upstream dialect."""
    return _CODECS[dialect]


def encoders(endpoint: str) -> Any:
    """The module that writes replies for a client endpoint."""
    return _CODECS[endpoint]


def dialect_for(intent: Intent, model: Model) -> str:
    """The dialect a candidate is spoken to in: the client's own where it understands it."""
    for dialect in SPOKEN_FOR[intent.endpoint]:
        if dialect in model.provider.dialects:
            return dialect
    raise canonical.Untranslatable("dialect", "the provider speaks no dialect for this endpoint")


def prepare(intent: Intent, raw: bytes, body: Mapping[str, Any], model: Model) -> Outgoing:
    """Return the body for one candidate.

    Raises:
        Untranslatable: its dialect cannot express what the request needs.
    """
    dialect = dialect_for(intent, model)
    if not intent.autos and not intent.selects:
        if dialect == intent.endpoint:
            return _same_dialect(intent, raw, body, model, dialect)
        return _translated(intent, body, model, dialect, {}, frozenset())
    changes: dict[str, Any] = {}
    remove: set[str] = set()
    auto: dict[str, dict[str, Any]] = {}
    if intent.model_auto:
        auto["model"] = {"requested": AUTO, "resolved": model.upstream, "basis": None}
    limit = _resolve_limit(intent, body, model, changes, remove, auto)
    tools, renames = _resolve_tools(intent, body, model, dialect, changes, remove, auto)
    reasoning = _resolve_reasoning(intent, body, model, dialect, changes, remove, auto)
    if "response_format" in intent.autos:
        remove.add("response_format")
        auto["response_format"] = {
            "requested": body["response_format"],
            "resolved": "text",
            "basis": "no shape was asked for",
        }
    if intent.mode == "disabled" or intent.mode == "plain":
        auto = {}
    if dialect == intent.endpoint:
        changes["model"] = model.upstream
        sent = patch(raw, changes, remove=frozenset(remove))
        out = Outgoing(dialect, sent, translated=False)
    else:
        out = _translated(intent, body, model, dialect, changes, frozenset(remove))
    return Outgoing(
        dialect=out.dialect,
        body=out.body,
        translated=out.translated,
        losses=out.losses,
        auto=auto,
        reasoning=reasoning,
        tools=tools,
        renames=renames,
        limit=limit,
    )


def _same_dialect(
    intent: Intent, raw: bytes, body: Mapping[str, Any], model: Model, dialect: str
) -> Outgoing:
    if model.upstream == intent.model:
        return Outgoing(dialect, raw, translated=False)
    return Outgoing(dialect, patch(raw, {"model": model.upstream}), translated=False)


def _translated(
    intent: Intent,
    body: Mapping[str, Any],
    model: Model,
    dialect: str,
    changes: Mapping[str, Any],
    remove: frozenset[str],
) -> Outgoing:
    resolved = {k: v for k, v in body.items() if k not in remove}
    resolved.update(changes)
    request: CanonicalRequest = _CODECS[intent.endpoint].decode_request(resolved)
    encoded, losses = _CODECS[dialect].encode_request(request, model.upstream)
    return Outgoing(dialect, orjson.dumps(encoded), translated=True, losses=tuple(losses))


# --- auto parameters -----------------------------------------------------------------------------


def _resolve_limit(
    intent: Intent,
    body: Mapping[str, Any],
    model: Model,
    changes: dict[str, Any],
    remove: set[str],
    auto: dict[str, dict[str, Any]],
) -> int | None:
    name = next((n for n in LIMIT_NAMES if body.get(n) == AUTO), None)
    if name is None:
        return intent.output_limit
    if intent.mode != "assisted":
        remove.add(name)
        return None
    limit, basis = token_limit(intent, model)
    changes[name] = limit
    auto[name] = {"requested": AUTO, "resolved": limit, "basis": basis}
    return limit


def token_limit(intent: Intent, model: Model) -> tuple[int, str]:
    """The output limit for ``auto``, and what bound it (XAI-AUTO-017 to 021).

    The smallest of: the model's output limit, what its context leaves beside the prompt, the class
    base grown by the prompt's length (doubling at 500 tokens, at most fourfold), and what the cost
    limit pays for.
    """
    task = intent.task if intent.task in CLASS_BASE else "general"
    growth = 1.0 + min(3.0, intent.prompt_tokens / 500)
    options = [(min(_LARGEST_AUTO_LIMIT, int(CLASS_BASE[task] * growth)), "task_complexity")]
    if model.max_output_tokens is not None:
        options.append((model.max_output_tokens, "model_output_limit"))
    if model.context_window is not None:
        options.append((model.context_window - intent.prompt_tokens, "context_window"))
    allowance = intent.constraints.cost_limit
    if allowance is not None and model.price is not None and model.price.output > 0:
        left = allowance - model.price.input * intent.prompt_tokens - model.price.per_item
        options.append((left // model.price.output, "cost_limit"))
    limit, basis = min(options)
    return max(1, limit), basis


def _resolve_tools(
    intent: Intent,
    body: Mapping[str, Any],
    model: Model,
    dialect: str,
    changes: dict[str, Any],
    remove: set[str],
    auto: dict[str, dict[str, Any]],
) -> tuple[dict[str, Any] | None, tuple[tuple[str, str], ...]]:
    """Only tools the operator lists for the model; an empty list means none (XAI-TOOL)."""
    if "tools" not in intent.autos:
        return None, ()
    asked = intent.tool_categories
    listed = dict(model.tools) if intent.mode == "assisted" else {}
    chosen = [(c, listed[c]) for c in (asked or listed) if c in listed]
    unmapped = [c for c in asked if c not in listed]
    if chosen:
        changes["tools"] = [_tool(name, intent.endpoint) for _, name in chosen]
    else:
        remove.update(("tools", "tool_choice", "parallel_tool_calls"))
    selected = [
        {"category": c, "provider_tool": name, "generic_name": c.replace("-", "_")}
        for c, name in chosen
    ]
    auto["tools"] = {
        "requested": AUTO,
        "resolved": [name for _, name in chosen],
        "basis": "operator_allow_list" if chosen else "no_tool_available",
    }
    record = {
        "requested": AUTO,
        "categories": list(asked),
        "selected": selected,
        "unmapped": unmapped,
    }
    renames = tuple(
        (row["provider_tool"], row["generic_name"])
        for row in selected
        if row["provider_tool"] != row["generic_name"]
    )
    return record, renames


def _tool(name: str, endpoint: str) -> dict[str, Any]:
    if endpoint == "responses":
        if name in _HOSTED:
            return {"type": name}
        return {"type": "function", "name": name, "parameters": _ANY_ARGUMENTS, "strict": False}
    return {"type": "function", "function": {"name": name, "parameters": _ANY_ARGUMENTS}}


_ANY_ARGUMENTS: Final = {"type": "object", "properties": {}}


def wants_reasoning(intent: Intent) -> bool:
    """``reasoning: "auto"``, or a reasoning hint or preference while the model is auto."""
    if intent.mode != "assisted":
        return False
    if "reasoning" in intent.autos or "reasoning_effort" in intent.autos:
        return True
    hinted = intent.task == "reasoning" and intent.task_source == "hint"
    return intent.selects and (hinted or intent.reasoning is not None)


def _resolve_reasoning(
    intent: Intent,
    body: Mapping[str, Any],
    model: Model,
    dialect: str,
    changes: dict[str, Any],
    remove: set[str],
    auto: dict[str, dict[str, Any]],
) -> dict[str, Any] | None:
    """The ladder native, enhanced, simulated; the rung that was delivered is reported."""
    names = [n for n in ("reasoning", "reasoning_effort") if n in intent.autos]
    remove.update(names)
    if not wants_reasoning(intent):
        return None
    capability = _rung(intent.reasoning, model)
    technique = None
    if capability == "native":
        if intent.endpoint == "responses":
            if not isinstance(body.get("reasoning"), Mapping):
                changes["reasoning"] = {"effort": "medium"}
                remove.discard("reasoning")
        elif body.get("reasoning_effort") in (None, AUTO):
            changes["reasoning_effort"] = "medium"
            remove.discard("reasoning_effort")
    elif capability == "simulated":
        technique = "step_by_step_instruction"
        _append_instruction(intent, body, changes)
    for name in names:
        auto[name] = {"requested": AUTO, "resolved": capability, "basis": technique or "model"}
    return {"requested": intent.reasoning or AUTO, "capability": capability, "technique": technique}


def _rung(preference: str | None, model: Model) -> str:
    if preference == "simulated":
        return "simulated"
    return model.reasoning if model.reasoning in ("native", "enhanced") else "simulated"


def _append_instruction(intent: Intent, body: Mapping[str, Any], changes: dict[str, Any]) -> None:
    """One marked turn at the end; the client's own text is never edited."""
    if intent.endpoint == "responses":
        turns = body["input"]
        if isinstance(turns, str):
            turns = [{"role": "user", "content": turns}]
        changes["input"] = [*turns, {"role": "developer", "content": SIMULATED_REASONING}]
    elif "messages" in body:
        turn = {"role": "system", "content": SIMULATED_REASONING}
        changes["messages"] = [*body["messages"], turn]
