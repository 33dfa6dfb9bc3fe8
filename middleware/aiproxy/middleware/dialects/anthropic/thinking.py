"""Reasoning effort, and the sampling parameters it rules out."""

from collections.abc import Mapping
from typing import Any

from aiproxy.middleware.dialects.anthropic.models import Family
from aiproxy.middleware.dialects.anthropic.vocabulary import (
    BUDGETS,
    DEFAULT_MAX_TOKENS,
    DIALECT,
    LEAST_BUDGET,
)
from aiproxy.middleware.dialects.canonical import CanonicalRequest, Json, Loss

#: From the least to the most.
_SCALE = ("minimal", "low", "medium", "high", "xhigh", "max")


def encode_thinking(
    request: CanonicalRequest,
    family: Family,
    forced: bool,
    body: dict[str, Any],
    losses: list[Loss],
) -> bool:
    """Write ``max_tokens``, ``thinking`` and ``output_config.effort``; return whether it thinks.

    ``forced``: ``tool_choice`` demands a call. ``max_tokens`` counts thinking too, here as in the
    canonical form, so a limit the client gave stays and the budget is fitted below it.
    """
    limit = request.sampling.max_tokens
    body["max_tokens"] = DEFAULT_MAX_TOKENS if limit is None else limit
    effort = _effort(request)
    given = request.extra.get("thinking") if request.source == DIALECT else None
    config = request.extra.get("output_config") if request.source == DIALECT else None
    if isinstance(config, Mapping) and "effort" in config and given is None:
        # An effort without thinking: it steers the answer alone.
        _write_effort(str(config["effort"]), family, body, losses)
        return family.off != "silent"
    if effort is None:
        if family.off != "silent" and limit is None:
            body["max_tokens"] = DEFAULT_MAX_TOKENS + BUDGETS["medium"]  # it thinks unasked
        return family.off != "silent"
    if effort == "none":
        return _decline(request, family, body, losses)
    if effort not in _SCALE:
        losses.append(Loss("reasoning", "anthropic knows no such effort"))
        return family.off != "silent"
    if family.thinking == "none":
        losses.append(Loss("reasoning", "this model does not think"))
        return False
    if forced and family.forced == "unthinking":
        losses.append(Loss("reasoning", "a demanded tool call rules out thinking"))
        return False
    if family.thinking == "adaptive":
        return _adapt(request, given, effort, family, body, losses)
    return _budget(request, given, effort, family, body, losses)


def _effort(request: CanonicalRequest) -> str | None:
    if request.reasoning_effort is not None:
        return request.reasoning_effort
    # The form of several routers: an object beside, or in place of, the effort.
    given = request.extra.get("reasoning")
    effort = given.get("effort") if isinstance(given, Mapping) else None
    return effort if isinstance(effort, str) else None


def _decline(
    request: CanonicalRequest, family: Family, body: dict[str, Any], losses: list[Loss]
) -> bool:
    if family.off == "never":
        body["output_config"] = {"effort": "low"}
        if request.sampling.max_tokens is None:
            body["max_tokens"] += BUDGETS["low"]
        losses.append(Loss("reasoning", "this model always thinks: it is asked for little"))
        return True
    if family.off != "silent":
        body["thinking"] = {"type": family.off}
    return False


def _write_effort(effort: str, family: Family, body: dict[str, Any], losses: list[Loss]) -> None:
    if not family.efforts:
        losses.append(Loss("reasoning", "this model takes no effort"))
        return
    found = _nearest(effort, family)
    if found != effort:
        losses.append(Loss("reasoning", f"the effort is sent as {found}"))
    body["output_config"] = {"effort": found}


def _nearest(effort: str, family: Family) -> str:
    if effort in family.efforts:
        return effort
    place = _SCALE.index(effort) if effort in _SCALE else 2
    return min(family.efforts, key=lambda word: abs(_SCALE.index(word) - place))


def _adapt(
    request: CanonicalRequest,
    given: object,
    effort: str,
    family: Family,
    body: dict[str, Any],
    losses: list[Loss],
) -> bool:
    if isinstance(given, Mapping) and given.get("type") == "adaptive":
        body["thinking"] = dict(given)
        config = request.extra.get("output_config")
        if not (isinstance(config, Mapping) and "effort" in config):
            return True  # it chooses by itself
    else:
        if isinstance(given, Mapping):
            losses.append(Loss("thinking", "this model takes no budget: an effort is sent"))
        body["thinking"] = {"type": "adaptive"}
        if request.source != DIALECT or request.reasoning_summary is not None:
            # The newest models keep their thoughts to themselves unless asked.
            body["thinking"]["display"] = "summarized"
    _write_effort(effort, family, body, losses)
    if request.sampling.max_tokens is None:
        body["max_tokens"] = DEFAULT_MAX_TOKENS + BUDGETS[effort]
    return True


def _budget(
    request: CanonicalRequest,
    given: object,
    effort: str,
    family: Family,
    body: dict[str, Any],
    losses: list[Loss],
) -> bool:
    limit = request.sampling.max_tokens
    budget = BUDGETS[effort]
    config: dict[str, Any] = {"type": "enabled"}
    if isinstance(given, Mapping) and given.get("type") == "enabled":
        config = dict(given)
        asked = config.get("budget_tokens")
        budget = asked if type(asked) is int and asked >= LEAST_BUDGET else budget
    if _called_unthinking(body):
        losses.append(Loss("reasoning", "a turn begun without thinking must be finished without"))
        return False
    if limit is None:
        body["max_tokens"] = DEFAULT_MAX_TOKENS + budget
    elif limit <= LEAST_BUDGET:
        losses.append(Loss("reasoning", "max_tokens leaves no room for thinking"))
        return False
    elif budget >= limit:
        budget = max(LEAST_BUDGET, limit // 2)
    config["budget_tokens"] = budget
    body["thinking"] = config
    if family.efforts and request.source != DIALECT:
        body["output_config"] = {"effort": _nearest(effort, family)}
    return True


def _called_unthinking(body: Json) -> bool:
    """Tell whether the conversation is inside a round of calls, or an answer to be continued, that
    no thinking opened: with a budget the API wants such a turn to begin with its thinking."""
    for i, message in enumerate(reversed(body["messages"])):
        content = message["content"]
        if not isinstance(content, list):
            return i == 0 and message["role"] == "assistant"
        if message["role"] == "assistant":
            called = i == 0 or any(block["type"] == "tool_use" for block in content)
            return called and content[0]["type"] not in ("thinking", "redacted_thinking")
        if content[0]["type"] != "tool_result":
            return False
    return False


def encode_sampling(
    request: CanonicalRequest,
    family: Family,
    thinks: bool,
    body: dict[str, Any],
    losses: list[Loss],
) -> None:
    """Write temperature, top_p, top_k and stop_sequences as far as the model takes them."""
    sampling = request.sampling
    knobs: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
    }
    wanted = {name: value for name, value in knobs.items() if value is not None}
    if wanted and not family.sampling:
        # A 1 is the default of either, so leaving it out changes nothing.
        losses += [
            Loss(name, "this model takes no sampling parameters")
            for name, value in wanted.items()
            if not (value == 1 and name != "top_k")
        ]
        wanted = {}
    if thinks:
        for name, value in list(wanted.items()):
            if not ((name == "temperature" and value == 1) or (name == "top_p" and value >= 0.95)):
                losses.append(Loss(name, "thinking rules it out"))
                del wanted[name]
    if wanted.get("temperature", 0) > 1:
        losses.append(Loss("temperature", "anthropic's goes up to 1"))
        wanted["temperature"] = 1.0
    if "temperature" in wanted and "top_p" in wanted and not family.both:
        losses.append(Loss("top_p", "this model takes temperature or top_p, not both"))
        del wanted["top_p"]
    body.update(wanted)
    stops = [word for word in sampling.stop if word.strip()]
    if len(stops) < len(sampling.stop):
        losses.append(Loss("stop", "anthropic takes no stop sequence of blanks"))
    if stops:
        body["stop_sequences"] = stops
    for feature, asked in (
        ("seed", sampling.seed is not None),
        ("penalties", bool(sampling.presence_penalty or sampling.frequency_penalty)),
        ("logprobs", bool(sampling.logprobs or sampling.top_logprobs)),
    ):
        if asked:
            losses.append(Loss(feature, "anthropic has no such parameter"))
