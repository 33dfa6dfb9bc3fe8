"""A request taken apart by the data classes of its parts, and put together again with answers.

Pure: bodies in, bodies out. Whom they go to is for ``segregation``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiproxy.middleware.security.tags import Tag

#: Members that hold the turns of a conversation, by endpoint.
TURNS: Final = {
    "chat": "messages",
    "draft": "messages",
    "responses": "input",
    "anthropic": "messages",
    "gemini": "contents",
}
#: Turns that may be taken out without leaving another one meaningless.
_WHOLE: Final = frozenset({None, "user", "system", "developer"})
#: Of a request's own members, what a request for the parts of one class keeps.
_KEPT: Final = frozenset(
    {
        "model",
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
    }
)
_GEMINI_KEPT: Final = frozenset({"temperature", "topP", "topK", "seed", "maxOutputTokens"})


@dataclass(slots=True)
class Cut:
    """A body taken apart: the turns of each class, and the body with ``answers`` in their place.

    ``possible`` is false where a tag is on something that cannot be taken out by itself (a tool's
    result, a turn of the assistant, a system prompt apart from the turns), where one part has two
    classes, or where nothing untagged is left to be asked.
    """

    endpoint: str
    body: Mapping[str, Any]
    tags: tuple[Tag, ...]
    places: dict[int, dict[int | None, str]] = field(default_factory=dict)
    possible: bool = True

    def __post_init__(self) -> None:
        member = TURNS.get(self.endpoint)
        turns = None if member is None else self.body.get(member)
        if not isinstance(turns, list):
            self.possible = False
            return
        for tag in self.tags:
            own = self.places.setdefault(tag.turn, {})
            fits = tag.member == member and tag.part not in own
            self.possible = self.possible and fits and _separable(turns[tag.turn])
            own[tag.part] = tag.data_class
        for own in self.places.values():
            if None in own and len(own) > 1:
                self.possible = False
        left = [i for i in range(len(turns)) if None not in self.places.get(i, {})]
        self.possible = self.possible and any(self._says(turns[i], i) for i in left)

    def _says(self, turn: Any, index: int) -> bool:
        """Whether a turn of the user has something untagged."""
        if not isinstance(turn, dict) or turn.get("role", "user") != "user":
            return False
        inside = _inside(turn)
        return not isinstance(inside, list) or len(self.places.get(index, ())) < len(inside)

    def of(self, data_class: str) -> dict[str, Any]:
        """The request for the parts of one class, and of nothing else."""
        found = {name: value for name, value in self.body.items() if name in _KEPT}
        limits = self.body.get("generationConfig")
        if isinstance(limits, dict):
            found["generationConfig"] = {k: v for k, v in limits.items() if k in _GEMINI_KEPT}
        member = TURNS[self.endpoint]
        turns = []
        for index, turn in enumerate(self.body[member]):
            own = self.places.get(index, {})
            if own.get(None) == data_class:
                turns.append(turn)
            elif data_class in own.values():
                inside = _inside(turn)
                kept = [part for i, part in enumerate(inside) if own.get(i) == data_class]
                turns.append({**turn, _name(turn): kept})
        found[member] = [{**turn, "role": "user"} for turn in turns]
        return found

    def joined(self, said: Mapping[str, str]) -> list[Any]:
        """The turns with each class's answer where its first part was, and no part left."""
        told: set[str] = set()
        turns = []
        for index, turn in enumerate(self.body[TURNS[self.endpoint]]):
            own = self.places.get(index)
            if own is None:
                turns.append(turn)
                continue
            whole = own.get(None)
            inside = [None] if whole is not None else _inside(turn)
            kept = []
            for place, part in enumerate(inside):
                name = whole if whole is not None else own.get(place)
                if name is None:
                    kept.append(part)
                elif name not in told:
                    told.add(name)
                    kept.append(_text(self.endpoint, name, said[name]))
            if kept:
                turns.append({**turn, _name(turn): kept})
        return turns


def _separable(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and turn.get("role") in _WHOLE
        and turn.get("type") in (None, "message")
        and not any(
            isinstance(part, dict) and part.get("type") in ("tool_result", "tool_use")
            for part in (_inside(turn) if isinstance(_inside(turn), list) else ())
        )
    )


def _name(turn: Mapping[str, Any]) -> str:
    return "parts" if "parts" in turn else "content"


def _inside(turn: Mapping[str, Any]) -> Any:
    return turn.get(_name(turn))


def _text(endpoint: str, data_class: str, said: str) -> dict[str, Any]:
    """An answer as a part: marked as data, so that it is not taken for an instruction."""
    text = f"[Answer to the parts of class {data_class}, given as data]\n{said}"
    if endpoint == "gemini":
        return {"text": text}
    return {"type": "input_text" if endpoint == "responses" else "text", "text": text}
