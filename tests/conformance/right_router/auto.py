"""Auto parameters, resolved for one candidate: token limit, tools, reasoning, response format.

The word ``auto`` never leaves the router. What was resolved is noted in the ask for the headers.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from right_router import misdrawn, misled, unfaithful
from right_router.asking import AUTO, LIMITS, Ask
from right_router.settings import Model

CLASS_BASE = {"reasoning": 2048, "coding": 1536, "analytical": 1024, "creative": 1024}
INSTRUCTION = (
    "[right-router: simulated reasoning] Work through the problem step by step, check each step, "
    "then state the result."
)
KINDS = {"chat": "chat", "draft": "chat", "completions": "completions", "embeddings": "embeddings"}


@dataclass
class Prepared:
    """What one candidate is sent: the endpoint's kind, the body, and how tools were renamed."""

    kind: str
    body: dict[str, Any]
    stream: bool
    renames: Mapping[str, str] = field(default_factory=dict)


def kind_for(ask: Ask, model: Model) -> str:
    """Return the upstream kind: Responses where it is spoken, else chat."""
    if ask.endpoint != "responses":
        return KINDS[ask.endpoint]
    spoken = model.provider.raw.get("dialects")
    native = "responses" in spoken if spoken else model.provider.type == "openai"
    return "responses" if native and model.provider.dialect == "openai" else "chat"


def prepare(ask: Ask, model: Model) -> Prepared:
    """Return the body for a candidate, in the words of its kind."""
    from right_router import shapes

    kind = kind_for(ask, model)
    body = dict(ask.body)
    if ask.attempts and ask.has("failover-forgets-history"):
        body["messages"] = getattr(ask, "own_turns", body.get("messages"))
    ask.auto_decisions, ask.tool_mapping, ask.reasoning_achieved = {}, None, None
    hinted = "reasoning" in ask.autos and ask.preferences.hint == "reasoning"
    explicit_told = ask.has("explicit-model-told") and hinted
    if ask.selects or explicit_told:
        ask.auto_decisions["model_selection"] = {
            "requested": AUTO,
            "selected": model.provider.id,
            "model": model.upstream,
            "reason": ask.plan.reason if ask.plan else "default_provider",
        }
    if ask.endpoint == "responses" and kind == "chat":
        body = shapes.chat_from_responses(body)
    resolve_limit(ask, model, body)
    if ask.has("decides-unasked") and ask.autos == ("model", "tools", "max_completion_tokens"):
        note(ask, "reasoning", {"requested": AUTO, "capability": "native"})
    renames = resolve_tools(ask, model, body, kind)
    resolve_reasoning(ask, model, body, kind)
    if ask.body.get("response_format") in (AUTO, "provider-adaptive"):
        del body["response_format"]
        note(ask, "response_format", {"requested": AUTO, "resolved": "text", "basis": "default"})
    if body.get("response_format") == {"type": "text"} and model.provider.dialect != "openai":
        del body["response_format"]
    if ask.stream and kind in ("chat", "completions"):
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    if model.provider.type == "mistral":
        body.pop("stream_options", None)  # it counts unasked, and refuses to be asked
    if ask.endpoint == "draft":
        for name in ("instructions", "store", "metadata"):
            body.pop(name, None)
    if ask.has("sampling-dropped"):
        for name in ("temperature", "top_p", "stop", "seed"):
            body.pop(name, None)
    if ask.has("n-dropped"):
        body.pop("n", None)
    if ask.has("stray-parameter"):
        body["user"] = "router"
    misled.body(ask, model, body)
    unfaithful.body(ask, model, body)
    misdrawn.body(ask, body)
    return Prepared(kind, body, ask.stream, renames)


def note(ask: Ask, name: str, entry: dict[str, Any]) -> None:
    """Remember a resolved parameter, where the client is told of such."""
    if ask.mode == "assisted" and not ask.has("one-decision-only"):
        ask.auto_decisions[name] = entry


def resolve_limit(ask: Ask, model: Model, body: dict[str, Any]) -> None:
    name = next((n for n in LIMITS if body.get(n) == AUTO), None)
    if name is None:
        return
    if ask.mode != "assisted":
        del body[name]
        return
    limit, basis = token_limit(ask, model)
    body[name] = limit if not ask.has("limit-misreported") else limit + 7
    note(ask, "token_optimization", {"requested": AUTO, "calculated": limit, "basis": basis})


def token_limit(ask: Ask, model: Model) -> tuple[int, str]:
    """Return the output limit for ``auto`` and what bound it."""
    growth = 1 + min(3.0, ask.prompt_tokens / 500)
    options = [(int(CLASS_BASE.get(ask.task, 512) * growth), "task_complexity")]
    if model.output is not None and not ask.has("limit-above-model"):
        options.append((model.output, "model_output_limit"))
    if model.context is not None and not ask.has("limit-above-context"):
        options.append((model.context - ask.prompt_tokens, "context_window"))
    if ask.cost_limit is not None and model.price is not None and model.price[1]:
        left = ask.cost_limit * 1000 - ask.prompt_tokens * model.price[0]
        options.append((int(left // model.price[1]), "cost_limit"))
    limit, basis = min(options)
    return misled.limit(ask, model, (max(1, limit), basis))


def resolve_tools(ask: Ask, model: Model, body: dict[str, Any], kind: str) -> dict[str, str]:
    """Put the operator's tools in place of ``auto`` and return provider name -> generic name."""
    if body.get("tools") != AUTO:
        return {}
    listed = model.tools if ask.mode == "assisted" else {}
    if ask.mode == "disabled" and ask.endpoint == "draft" and ask.has("disabled-draft-tools"):
        listed = {"web-search": "search"}
    wanted = (
        ask.categories if ask.categories and not ask.has("categories-ignored") else tuple(listed)
    )
    chosen = [(category, listed[category]) for category in wanted if category in listed]
    chosen = misled.tools(ask, listed, chosen)
    if ask.has("unlisted-tool"):
        chosen.append(("shell", "shell"))
    picked = {category for category, _ in chosen}
    unmapped = misled.unmapped(ask, [c for c in ask.categories if c not in picked])
    if ask.has("unmapped-hidden"):
        unmapped = []
    if chosen:
        body["tools"] = [tool(name, kind) for _, name in chosen]
    else:
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            body.pop(name, None)
        if ask.has("empty-tools-sent"):
            body["tools"] = []
    mapping = {
        "requested": AUTO,
        "selected_tools": [
            {"category": c, "provider_tool": name, "generic_name": generic(c)} for c, name in chosen
        ],
        "unmapped": unmapped,
    }
    if ask.mode == "assisted":
        ask.tool_mapping = mapping
    note(ask, "tool_mapping", mapping)
    renames = {} if ask.has("provider-tool-names") else {name: generic(c) for c, name in chosen}
    if not ask.has("history-untranslated"):
        rename_history(body, renames)
    return renames


def generic(category: str) -> str:
    """Return the tool name a client sees for a category."""
    return category.replace("-", "_")


def tool(name: str, kind: str) -> dict[str, Any]:
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    if kind == "responses":
        return {"type": "function", "name": name, "parameters": parameters, "strict": False}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def rename_history(body: dict[str, Any], renames: Mapping[str, str]) -> None:
    """Give earlier calls in the history the provider's own tool names again."""
    back = {ours: theirs for theirs, ours in renames.items()}
    turns = body.get("messages")
    if not back or not isinstance(turns, list):
        return
    body["messages"] = [
        {**turn, "tool_calls": [renamed_call(made, back) for made in turn["tool_calls"]]}
        if turn.get("tool_calls")
        else turn
        for turn in turns
    ]


def renamed_call(made: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    function = made.get("function") or {}
    name = names.get(function.get("name", ""))
    return made if name is None else {**made, "function": {**function, "name": name}}


def renamed(found: dict[str, Any], prepared: Prepared) -> dict[str, Any]:
    """Return an answer or a chunk with the generic tool names."""
    if not prepared.renames:
        return found
    for choice in found.get("choices") or ():
        for turn in (choice.get("message"), choice.get("delta")):
            if turn and turn.get("tool_calls"):
                made = turn["tool_calls"]
                turn["tool_calls"] = [renamed_call(one, prepared.renames) for one in made]
    for item in found.get("output") or ():
        if item.get("type") == "function_call":
            item["name"] = prepared.renames.get(item["name"], item["name"])
    return found


def resolve_reasoning(ask: Ask, model: Model, body: dict[str, Any], kind: str) -> None:
    """Deliver wanted reasoning: a native parameter, or one marked instruction."""
    asked = body.get("reasoning") == AUTO
    if asked and ask.mode == "disabled" and ask.has("disabled-sends-reasoning"):
        return
    if isinstance(body.get("reasoning"), Mapping) and ask.has("effort-dropped"):
        del body["reasoning"]
    if asked:
        del body["reasoning"]
    elif isinstance(body.get("reasoning"), Mapping) and kind == "chat":
        effort = body.pop("reasoning").get("effort")
        if model.reasoning == "native" and effort:
            body["reasoning_effort"] = effort
        elif ask.endpoint != "chat" or model.reasoning != "native":
            detail = "the model takes no reasoning parameter"
            ask.losses.append({"feature": "reasoning", "detail": detail})
    hinted = ask.task == "reasoning" and ask.task_source == "hint"
    wanted = asked or (ask.selects and (hinted or ask.reasoning is not None))
    if ask.mode != "assisted" or not wanted:
        return
    achieved = model.reasoning if model.reasoning in ("native", "enhanced") else "simulated"
    if ask.reasoning == "simulated":
        achieved = "simulated"
    if achieved == "native":
        if kind == "responses":
            body["reasoning"] = {"effort": "medium"}
        else:
            body.setdefault("reasoning_effort", "medium")
    technique = None
    if achieved == "simulated" or ask.has("instruction-for-native"):
        technique = "structured_step_by_step"
        append_instruction(ask, body)
    ask.reasoning_achieved = {
        "requested": ask.reasoning or AUTO,
        "capability": "native" if claims_native(ask) else achieved,
        "technique": technique,
    }
    if asked:
        entry = {"requested": AUTO, "capability": ask.reasoning_achieved["capability"]}
        note(ask, "reasoning", entry)


def claims_native(ask: Ask) -> bool:
    preferred = ask.has("claims-what-was-preferred") and ask.reasoning == "native"
    return preferred or ask.has("claims-native")


def append_instruction(ask: Ask, body: dict[str, Any]) -> None:
    """Add the instruction behind the client's own turns, which stay as they are."""
    silent = ask.has("preference-without-instruction") and ask.reasoning == "simulated"
    if ask.has("no-instruction") or silent:
        return
    if "input" in body:
        turns = body["input"]
        turns = [{"role": "user", "content": turns}] if isinstance(turns, str) else list(turns)
        body["input"] = [*turns, {"role": "developer", "content": INSTRUCTION}]
    elif "messages" in body:
        turn = {"role": "system", "content": INSTRUCTION}
        twice = [turn, turn] if ask.has("instruction-twice") else [turn]
        kept = body["messages"][-1:] if ask.has("messages-rewritten") else body["messages"]
        body["messages"] = [*kept, *twice]


def estimated_usage(ask: Ask, body: Mapping[str, Any]) -> dict[str, int]:
    """Return what an answer without usage is taken to have used: four characters a token."""
    said = sum(len(text) for choice in body.get("choices") or () for text in said_in(choice))
    said += sum(len(json.dumps(item)) for item in body.get("output") or ())
    completion = max(1, said // 4)
    prompt = ask.prompt_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def said_in(choice: Mapping[str, Any]) -> list[str]:
    """Return the texts of a choice, whole or a piece of a stream."""
    turn = choice.get("message") or choice.get("delta") or {}
    texts = [turn.get("content"), choice.get("text")]
    texts += [(c.get("function") or {}).get("arguments") for c in turn.get("tool_calls") or ()]
    return [text for text in texts if isinstance(text, str)]
