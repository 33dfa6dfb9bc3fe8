"""``thinkingConfig`` and our reasoning effort, both ways."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Loss,
    MalformedRequest,
)
from aiproxy.middleware.dialects.gemini.vocabulary import DIALECT, camel, generation

_PATH: Final = "generationConfig.thinkingConfig"
#: Tokens that an effort may cost where a model takes a budget, as Google maps them itself.
_BUDGETS: Final[dict[str, int]] = {
    "none": 0,
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24_576,
    "xhigh": 24_576,
    "max": 24_576,
}
_LEVELS: Final[dict[str, str]] = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
}
_LEAST_BUDGET: Final = 128


def decode_thinking(value: object, extra: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the effort and the summary asked for. What they cannot say exactly goes to
    ``extra`` under its dotted name."""
    if value is None or value == "auto":
        return None, None
    config = camel(reading.mapping(value, _PATH))
    include = config.get("includeThoughts")
    if include is not None and not isinstance(include, bool):
        raise MalformedRequest(f"{_PATH}.includeThoughts", reading.kind_of(include), "a boolean")
    summary = "auto" if include else None
    level, budget = config.get("thinkingLevel"), config.get("thinkingBudget")
    effort: str | None = None
    exact = not reading.rest(config, ("includeThoughts", "thinkingLevel", "thinkingBudget"))
    if level is not None:
        word = reading.text(level, f"{_PATH}.thinkingLevel").lower()
        effort = None if word == "thinking_level_unspecified" else word
        exact = exact and (effort is None or effort in _LEVELS)
    if budget is not None:
        if not isinstance(budget, int) or isinstance(budget, bool):
            raise MalformedRequest(f"{_PATH}.thinkingBudget", reading.kind_of(budget), "an integer")
        if effort is None:
            effort = _effort(budget)
        exact = exact and budget == _BUDGETS.get(effort or "", -1)
    if not exact:
        extra[_PATH] = config
    return effort, summary


def _effort(budget: int) -> str | None:
    if budget < 0:
        return None  # as much as the model sees fit
    if budget == 0:
        return "none"
    return "low" if budget <= 1024 else "medium" if budget <= 8192 else "high"


def encode_thinking(
    request: CanonicalRequest, model: str, config: dict[str, Any], losses: list[Loss]
) -> None:
    """Write ``thinkingConfig``: levels from generation 3 on, budgets before."""
    given = request.extra.get(_PATH) if request.source == DIALECT else None
    if isinstance(given, Mapping):
        config["thinkingConfig"] = dict(given)
        return
    effort, summary = request.reasoning_effort, request.reasoning_summary
    if effort is None and summary is None:
        return
    age = generation(model)
    if age < 2.5:
        losses.append(Loss("reasoning", "this model does not think"))
        return
    thinking: dict[str, Any] = {}
    if effort is not None:
        pro = "-pro" in model
        if age < 3:
            _budget(effort, pro, thinking, losses)
        else:
            _level(effort, pro, thinking, losses)
    # Other dialects show reasoning without being asked to.
    if summary is not None or (effort != "none" and request.source != DIALECT):
        thinking["includeThoughts"] = True
    if thinking:
        config["thinkingConfig"] = thinking


def _budget(effort: str, pro: bool, thinking: dict[str, Any], losses: list[Loss]) -> None:
    budget = _BUDGETS.get(effort)
    if budget is None:
        losses.append(Loss("reasoning", "gemini knows no such effort"))
        return
    if pro and budget < _LEAST_BUDGET:
        losses.append(Loss("reasoning", "this model cannot be kept from thinking"))
        budget = _LEAST_BUDGET
    thinking["thinkingBudget"] = budget


def _level(effort: str, pro: bool, thinking: dict[str, Any], losses: list[Loss]) -> None:
    level = _LEVELS.get(effort)
    if effort == "none":
        losses.append(Loss("reasoning", "this model cannot be kept from thinking"))
        level = "LOW" if pro else "MINIMAL"
    elif effort in ("xhigh", "max"):
        losses.append(Loss("reasoning", "the highest effort of gemini is high"))
        level = "HIGH"
    elif effort == "minimal" and pro:
        losses.append(Loss("reasoning", "the lowest effort of this model is low"))
        level = "LOW"
    elif level is None:
        losses.append(Loss("reasoning", "gemini knows no such effort"))
        return
    thinking["thinkingLevel"] = level
