"""Defects of choosing and of auto parameters, each as narrow as what one check can see.

Every function is called where the right thing has just been done, and undoes it for the defects
that are switched on. ``Said`` is what the client said: header names without "X-AI-".
"""

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from right_server import Refusal

if TYPE_CHECKING:
    from right_router.asking import Ask
    from right_router.candidates import Plan, Stage
    from right_router.settings import Model

COIN = itertools.count()


def said(ask: "Ask") -> dict[str, str]:
    """Return the headers by name without the prefix, values in lower case."""
    return {name[5:]: text.lower() for name, text in ask.preferences.said.items()}


def only(ask: "Ask", **headers: str) -> bool:
    """Return whether these, a pool and nothing else were said; an empty value stands for any."""
    heard = said(ask)
    wanted = {name.replace("_", "-"): value for name, value in headers.items()}
    heard.pop("Provider-Pool", None)
    return heard.keys() == wanted.keys() and all(not v or heard[n] == v for n, v in wanted.items())


def strategy(value: str, least: int = 3) -> Callable[["Ask", list["Model"]], bool]:
    def holds(ask: "Ask", order: list["Model"]) -> bool:
        crowd = len(ask.pool or ()) >= least and order[0].quality is not None
        return crowd and only(ask, Routing_Strategy=value)

    return holds


def hint(value: str) -> Callable[["Ask", list["Model"]], bool]:
    return lambda ask, order: only(ask, Task_Hint=value) and len(ask.pool or ()) == 5


def better(one: "Model", other: "Model") -> bool:
    """Return whether ``one`` has the better priority."""
    return one.provider.priority < other.provider.priority


# The first two candidates change places under these circumstances.
SWAPS: dict[str, Callable[["Ask", list["Model"]], bool]] = {
    "cost-second": strategy("cost", 5),
    "latency-second": strategy("latency", 5),
    "quality-second": strategy("quality", 5),
    "balanced-second": strategy("balanced", 5),
    "alias-second": strategy("cost_optimized"),
    "capability-second": lambda a, o: only(a, Routing_Strategy="capability-first", Task_Hint="reasoning"),
    "hint-reasoning-second": hint("reasoning"),
    "hint-coding-second": hint("coding"),
    "hint-creative-second": hint("creative"),
    "hint-analytical-second": hint("analytical"),
    "hint-alias-second": hint("reasoning-optimized"),
    "unmeasured-first": lambda a, o: only(a, Max_Latency="") and better(o[1], o[0]),
    "native-last": lambda a, o: "reasoning" in a.autos and only(a) and len(o) == 3,
    "multimodal-ignored": lambda a, o: only(a, Task_Hint="multimodal") and len(o) == 3,
    "enhanced-last": lambda a, o: "reasoning" in a.autos and only(a) and o[0].reasoning == "enhanced",
    "enhanced-unwanted": lambda a, o: a.reasoning == "enhanced" and o[0].reasoning == "enhanced",
    "restless": lambda a, o: only(a, Task_Hint="coding") and len(o) == 4 and next(COIN) % 2 == 1,
}  # fmt: skip


def order(ask: "Ask", found: list["Model"]) -> list["Model"]:
    """Return the candidates in the order of the defects."""
    for name, holds in SWAPS.items():
        if ask.has(name) and len(found) > 1 and ask.selects and holds(ask, found):
            return [found[1], found[0], *found[2:]]
    return found


def stages(ask: "Ask", found: list["Stage"]) -> list["Stage"]:
    """Return the constraints that are left, some of them softened."""
    heard = said(ask)
    limits = {"Max-Latency", "Cost-Limit", "Quality-Threshold"}
    kept = []
    for stage in found:
        if ask.has("multimodal-ignored") and stage.param == "X-AI-Task-Hint":
            continue
        if ask.has("unrated-is-good") and stage.reason == "quality_unknown":
            continue
        if ask.has("three-limits-drop-latency") and limits <= heard.keys() and only(
            ask, Max_Latency="", Cost_Limit="", Quality_Threshold=""
        ) and stage.reason == "too_slow":  # fmt: skip
            continue
        free = heard.get("Cost-Limit") == "0" and "Quality-Threshold" not in heard
        if ask.has("zero-limit-means-none") and free and stage.param == "X-AI-Cost-Limit":
            continue
        if ask.has("high-threshold-relaxed") and only(ask, Quality_Threshold="0.99"):
            stage.soft = True
        if ask.has("all-slow-relaxed") and stage.reason == "too_slow":
            stage.soft = True
        if ask.has("contradiction-unnamed") and {"Cost-Limit", "Quality-Threshold"} <= heard.keys():
            stage.param = ""
        if stage.reason == "below_quality":
            if ask.has("native-beats-threshold") and ask.reasoning == "native":
                stage.meets = either(stage.meets, lambda m: m.reasoning == "native")
            if ask.has("unrated-is-good"):
                stage.meets = either(stage.meets, lambda m: m.quality is None)
        kept.append(stage)
    return kept


def either(
    one: Callable[["Model"], bool], other: Callable[["Model"], bool]
) -> Callable[["Model"], bool]:
    return lambda model: one(model) or other(model)


def planned(ask: "Ask", found: "Plan") -> "Plan":
    """Return the plan with other rejected ones than there should be."""
    away = {"slow-unreported": "too_slow", "dear-unreported": "over_cost_limit"}
    heard, pair = said(ask), len(ask.pool or ()) == 2
    for name, reason in away.items():
        if ask.has(name) and pair and "Routing-Strategy" in heard:
            found.rejected = [(m, why) for m, why in found.rejected if why != reason]
    back = set()
    if ask.has("cascade-below-threshold") and ask.policy == "cascading":
        back.add("below_quality")
    if ask.has("fallbacks-see-nothing") and "vision" in ask.needs and "Failover-Policy" in heard:
        back.add("lacks_capability")
    if ask.has("fallbacks-unattested") and not ask.model_auto and ask.labels:
        back.add("lacks_security_label")
    found.order += [m for m, why in found.rejected if why in back and m not in found.order]
    no_native = not any(m.reasoning == "native" for m in found.order)
    if ask.has("no-native-422") and ask.selects and ask.reasoning == "native" and no_native:
        raise Refusal(422, "no_eligible_provider", "nobody", "X-AI-Reasoning-Preference")
    return found


def selects(ask: "Ask") -> bool:
    """Return whether an explicit model is taken for auto."""
    if ask.has("hint-overrides-model") and only(ask, Task_Hint="coding"):
        return len(said(ask).get("Provider-Pool", "").split(",")) == 2
    return ask.has("reasoning-moves-model") and "reasoning" in ask.autos and only(ask)


def crash(ask: "Ask") -> None:
    """Break on a combination of headers that nobody tried.

    Raises:
        Refusal: 500.
    """
    heard = said(ask)
    untried = {"Quality-Threshold", "Workflow-Step"} <= heard.keys() - {"Failover-Policy"}
    if ask.has("untried-headers-500") and untried and "Failover-Policy" not in heard:
        raise Refusal(500, "internal_error", "surprise")


# --- auto parameters ------------------------------------------------------------------------------


def tools(
    ask: "Ask", listed: Mapping[str, str], chosen: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return other tools than the right ones."""
    asked = ask.categories
    missing = [category for category in asked if category not in listed]
    if ask.has("first-category-only") and asked == ("code-execution", "web-search") and not missing:
        return chosen[:1]
    if ask.has("unlisted-category-drops-all") and missing:
        return []
    if ask.has("image-tool-left-out"):
        chosen = [row for row in chosen if row[0] != "image-generation" or not asked]
    if ask.has("foreign-tool") and chosen and not asked:
        return [*chosen, ("foreign", "foreign_tool")]
    if ask.has("shell-slips-in") and len(listed) == 1 and asked == ("web-search",):
        return [*chosen, ("shell", "shell")]
    return chosen


HIDDEN = {
    "web-scraping": ("web-scraping", "data-viz"),
    "reporting": ("data-analysis", "reporting"),
    "weather": ("weather", "web-search"),
}


def unmapped(ask: "Ask", names: list[str]) -> list[str]:
    """Return what is reported as unmapped."""
    for hidden, all_of_them in HIDDEN.items():
        if ask.has(f"{hidden}-hidden") and ask.categories == all_of_them:
            return [name for name in names if name != hidden]
    return names


def limit(ask: "Ask", model: "Model", found: tuple[int, str]) -> tuple[int, str]:
    """Return another token limit, or another basis."""
    if ask.has("zero-limit-for-short") and model.output is not None and model.output < 100:
        return 0, found[1]
    return (found[0], "") if ask.has("limit-without-basis") else found


def body(ask: "Ask", model: "Model", sent: dict[str, Any]) -> None:
    """Change what a candidate is sent."""
    heard = said(ask)
    if (
        ask.has("reasoning-auto-left")
        and "reasoning" in ask.autos
        and model.reasoning == "enhanced"
    ):
        sent["reasoning"] = "auto"
    if ask.has("cost-limit-cools") and "Cost-Limit" in heard and not ask.model_auto:
        sent["temperature"] = 0.7
    bare = "tools" in ask.autos and not model.tools and ask.categories == ("web-search",)
    if ask.has("bare-tools-sent") and bare:
        sent["tools"] = []
    alone = ask.pool is not None and len(ask.pool) == 1 and model.reasoning == "native"
    if ask.has("instruction-for-native-alone") and alone and "reasoning" in ask.autos:
        sent["messages"] = [*sent["messages"], {"role": "system", "content": "step by step"}]
    explicit = "tools" not in ask.autos and ask.model_auto and isinstance(sent.get("tools"), list)
    if ask.has("categories-touch-explicit-tools") and ask.categories and explicit:
        sent["tools"] = [*sent["tools"], {"type": "function", "function": {"name": "more"}}]
    wanted = sent.get("response_format")
    if ask.has("schema-flattened") and "analysis_report" in str(wanted):
        sent["response_format"] = {"type": "json_object"}
    if ask.has("preference-acts-on-explicit") and only(
        ask, Reasoning_Preference="simulated", Task_Hint="reasoning"
    ) and not ask.model_auto:  # fmt: skip
        sent["messages"] = [*sent["messages"], {"role": "system", "content": "step by step"}]


def answer(ask: "Ask", told: dict[str, Any]) -> dict[str, Any]:
    """Change what the client is answered."""
    usage = told.get("usage")
    if ask.has("usage-clamped") and usage and "token_optimization" in ask.auto_decisions:
        most = ask.auto_decisions["token_optimization"]["calculated"]
        usage["completion_tokens"] = min(most, usage["completion_tokens"])
    choice = (told.get("choices") or [{}])[0]
    calls = (choice.get("message") or {}).get("tool_calls") or []
    if [call["function"]["name"] for call in calls] != ["weather", "news"]:
        return told
    if ask.has("calls-untyped"):
        for call in calls:
            del call["type"]
    if ask.has("arguments-as-object"):
        import json

        for call in calls:
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    if ask.has("calls-reversed"):
        calls.reverse()
    if ask.has("calls-share-an-id"):
        calls[1]["id"] = calls[0]["id"]
    if ask.has("finish-inside-message"):
        choice["message"]["finish_reason"] = "tool_calls"
    return told
