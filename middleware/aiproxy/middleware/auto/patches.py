"""Resolved auto parameters as changes to single members of a body that stays in its dialect.

The values come from the dialect's own encoder, so that they are those of a translated request; every
other member keeps the client's bytes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiproxy.middleware.auto.canonical_form import write
from aiproxy.middleware.auto.resolving import Resolved
from aiproxy.middleware.dialects.canonical import Json, Loss
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.registry import Model

#: Dialects that name the model in the path of a call and not in its body.
MODEL_IN_PATH: Final = frozenset({"gemini", "workers_ai"})
#: Members that may hold the word auto in a dialect that is not OpenAI's.
_WORDS: Final = ("tools", "max_tokens", "thinking", "reasoning", "reasoning_effort")
_OPENAI: Final = frozenset({"chat", "responses"})
_TURNS: Final = {"chat": "messages", "responses": "input"}
_SHAPE_WORDS: Final = ("auto", "provider-adaptive")
#: What the Messages API ties to thinking: they are taken from its encoder together.
_THINKING: Final = ("thinking", "output_config", "max_tokens", "temperature", "top_p", "top_k")


#: Texts of ours among the turns.
Added = tuple[str, ...]


@dataclass(slots=True)
class Changes:
    """Members to set and to remove, and what is lost by it."""

    put: dict[str, Any] = field(default_factory=dict)
    remove: set[str] = field(default_factory=set)
    losses: list[Loss] = field(default_factory=list)

    def take(self, encoded: Json, names: Iterable[str]) -> None:
        """Make members as the encoder wrote them: absent where it left them out."""
        for name in names:
            if name in encoded:
                self.put[name] = encoded[name]
            else:
                self.remove.add(name)


def changes_for(dialect: str, body: Mapping[str, Any], resolved: Resolved, model: Model) -> Changes:
    """Return what has to change in ``body``, which is of ``dialect``.

    Raises:
        MalformedRequest: the body cannot be read.
        Untranslatable: a tool must be called that the model is not offered.
    """
    found = Changes()
    if dialect not in MODEL_IN_PATH:
        found.put["model"] = model.upstream
    if resolved.nothing:
        return found
    if dialect in _PLAIN:
        _limits(found, resolved)
        return found
    rung = resolved.rung
    if dialect in _OPENAI and resolved.offer is None and (rung is None or not rung.native):
        # No member is the encoder's to say: the body need not be read.
        added = () if rung is None or rung.instruction is None else (rung.instruction,)
        _PATCHERS[dialect](found, body, {}, resolved, added)
        found.remove -= found.put.keys()
        return found
    turns = _TURNS.get(dialect)
    # Where no parameter depends on the turns they are not read.
    light = body if turns is None else {**body, turns: []}
    written = write(codec(dialect).decode_request(light), resolved, model, dialect)
    encoded, losses = written.encode()
    _PATCHERS[dialect](found, body, encoded, resolved, written.added)
    touched = found.put.keys() | found.remove | {"reasoning"}
    found.losses = [loss for loss in losses if loss.feature in touched]
    found.remove -= found.put.keys()
    return found


def _limits(found: Changes, resolved: Resolved) -> None:
    for name in resolved.limits:
        if resolved.limit is None:
            found.remove.add(name)
        else:
            found.put[name] = resolved.limit


def _openai(found: Changes, body: Json, encoded: Json, resolved: Resolved, effort: str) -> None:
    _limits(found, resolved)
    found.remove.update(resolved.reasoning)
    if resolved.rung is not None and resolved.rung.native and effort in encoded:
        found.put[effort] = encoded[effort]
    if resolved.shape is not None:
        found.remove.add("response_format")
    if resolved.offer is not None:
        found.take(encoded, ("tools", "tool_choice"))
        found.put.update(resolved.offer.members)
        if not resolved.offer.functions:
            found.remove.add("parallel_tool_calls")


def _chat(found: Changes, body: Json, encoded: Json, resolved: Resolved, added: Added) -> None:
    _openai(found, body, encoded, resolved, "reasoning_effort")
    turns = _renamed(body.get("messages"), _chat_turn, resolved)
    texts = [{"role": "system", "content": text} for text in added]
    if texts or turns is not body.get("messages"):
        found.put["messages"] = [*turns, *texts]


def _responses(found: Changes, body: Json, encoded: Json, resolved: Resolved, added: Added) -> None:
    _openai(found, body, encoded, resolved, "reasoning")
    items = _renamed(body.get("input"), _named_item, resolved)
    if isinstance(items, str) and added:
        items = [{"role": "user", "content": items}]
    texts = [{"role": "developer", "content": text} for text in added]
    if texts or items is not body.get("input"):
        found.put["input"] = [*(items or ()), *texts]


def _anthropic(found: Changes, body: Json, encoded: Json, resolved: Resolved, added: Added) -> None:
    _clear(found, body)
    if resolved.limits or body.get("max_tokens") is None:
        found.take(encoded, ("max_tokens",))  # one is required: without ours the encoder's own
    if resolved.rung is not None and resolved.rung.native:
        found.take(encoded, _THINKING)
    if resolved.offer is not None:
        found.take(encoded, ("tools", "tool_choice"))
    turns = _renamed(body.get("messages"), _blocks, resolved)
    if turns is not body.get("messages"):
        found.put["messages"] = turns
    if added:
        system = body.get("system")
        before = [{"type": "text", "text": system}] if isinstance(system, str) else system or ()
        texts = ({"type": "text", "text": text} for text in added)
        found.put["system"] = [*before, *texts]


def _gemini(found: Changes, body: Json, encoded: Json, resolved: Resolved, added: Added) -> None:
    """Google reads both spellings of a member; what is written here has the one of its reference."""
    _clear(found, body)
    place, given = _spelled(body, "generationConfig", "generation_config")
    config = dict(given) if isinstance(given, Mapping) else {}
    made = encoded.get("generationConfig") or {}
    for name in [n for n, value in config.items() if value in _SHAPE_WORDS]:
        del config[name]
    wanted = ["maxOutputTokens"] if resolved.limits and resolved.limit is not None else []
    if resolved.rung is not None and resolved.rung.native:
        wanted.append("thinkingConfig")
    config.update({name: made[name] for name in wanted if name in made})
    if config != (given or {}):
        found.put[place] = config
    if resolved.offer is not None:
        found.take(encoded, ("tools", "toolConfig"))
        found.remove.add("tool_config")
    turns = _renamed(body.get("contents"), _parts, resolved)
    if turns is not body.get("contents"):
        found.put["contents"] = turns
    if added:
        place, system = _spelled(body, "systemInstruction", "system_instruction")
        before = system.get("parts") if isinstance(system, Mapping) else None
        if isinstance(system, str):
            before = [{"text": system}]
        elif isinstance(before, Mapping):
            before = [before]
        texts = [{"text": text} for text in added]
        found.put[place] = {"parts": [*(before or ()), *texts]}


def _spelled(body: Json, name: str, other: str) -> tuple[str, Any]:
    """Return the spelling of a member that a body uses, and its value."""
    return (other, body[other]) if other in body else (name, body.get(name))


def _clear(found: Changes, body: Json) -> None:
    """The word auto goes, whatever member it stands in; what replaces it is put afterwards."""
    found.remove.update(name for name in _WORDS if body.get(name) == "auto")
    if body.get("response_format") in _SHAPE_WORDS:
        found.remove.add("response_format")


_PLAIN: Final = frozenset({"completions", "embeddings", "classifications"})
_PATCHERS: Final[Mapping[str, Callable[[Changes, Json, Json, Resolved, Added], None]]] = {
    "anthropic": _anthropic,
    "chat": _chat,
    "gemini": _gemini,
    "responses": _responses,
}


# --- names in earlier turns ----------------------------------------------------------------------

Names = Mapping[str, str]


def _renamed(turns: Any, turn: Callable[[Any, Names], Any], resolved: Resolved) -> Any:
    """Return the turns with the provider's tool names; the same object when nothing had to change."""
    if resolved.offer is None or not resolved.offer.renames or not isinstance(turns, list):
        return turns
    names = resolved.offer.names
    changed = [turn(item, names) for item in turns]
    return (
        changed if any(new is not old for new, old in zip(changed, turns, strict=True)) else turns
    )


def _named(holder: Any, names: Names) -> Any:
    """Return an object whose ``name`` is the provider's."""
    name = holder.get("name") if isinstance(holder, Mapping) else None
    native = names.get(name) if isinstance(name, str) else None
    return holder if native is None or native == name else {**holder, "name": native}


def _within(holder: Any, member: str, names: Names) -> Any:
    if not isinstance(holder, Mapping) or member not in holder:
        return holder
    inner = holder[member]
    if isinstance(inner, list):
        each = [_call(item, names) for item in inner]
        same = all(new is old for new, old in zip(each, inner, strict=True))
        return holder if same else {**holder, member: each}
    new = _named(inner, names)
    return holder if new is inner else {**holder, member: new}


_CALL_MEMBERS: Final = (
    "function",
    "custom",
    "functionCall",
    "functionResponse",
    "function_call",
    "function_response",
)


def _call(item: Any, names: Names) -> Any:
    """A tool call of a chat message, a content block, or a part, in whichever member it is named."""
    for member in _CALL_MEMBERS:
        item = _within(item, member, names)
    if isinstance(item, Mapping) and item.get("type") == "tool_use":
        item = _named(item, names)
    return item


def _chat_turn(turn: Any, names: Names) -> Any:
    turn = _within(_within(turn, "tool_calls", names), "function_call", names)
    role = turn.get("role") if isinstance(turn, Mapping) else None
    return _named(turn, names) if role in ("tool", "function") else turn


def _named_item(item: Any, names: Names) -> Any:
    kind = item.get("type") if isinstance(item, Mapping) else None
    return _named(item, names) if kind in ("function_call", "custom_tool_call") else item


def _blocks(turn: Any, names: Names) -> Any:
    return _within(turn, "content", names)


def _parts(turn: Any, names: Names) -> Any:
    return _within(turn, "parts", names)
