"""One request, understood: what it asks for, what binds the choice, and what was set aside.

Order of precedence: security and data class > pool and cost limit > explicit parameters > quality
and latency > strategy > hints > configuration.
"""

import json
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from right_server import Refusal

from right_router import misdrawn, misled
from right_router.preferences import Preferences
from right_router.security import demands

if TYPE_CHECKING:
    from right_router.attempts import Attempt
    from right_router.candidates import Plan
    from right_router.serving import RightRouter

AUTO = "auto"
LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
USUAL_OUTPUT = 1024


class Ask:
    """One request on its way through the router.

    ``endpoint`` is chat, draft, responses, completions or embeddings; ``body`` what the client
    sent. ``mode`` is plain (no X-AI header), assisted or disabled (the master switch is off).
    """

    def __init__(
        self,
        router: "RightRouter",
        endpoint: str,
        body: dict[str, Any],
        preferences: Preferences,
        *,
        native: Mapping[str, Any] | None = None,
        owner: str | None = None,
    ) -> None:
        self.router, self.settings, self.has = router, router.settings, router.has
        self.id = f"req_{uuid4().hex}"
        self.started = time.monotonic()
        self.created = int(time.time())
        self.endpoint, self.body, self.preferences = endpoint, body, preferences
        self.native = native or {}
        self.owner = owner
        self.model: str = body["model"]
        self.stream: bool = body.get("stream") is True
        self.ignored = list(preferences.ignored)
        self.mode = mode_of(self)
        self.model_auto = self.model == AUTO
        self.autos = autos_of(body)
        self.model_auto = self.model_auto or misled.selects(self) or misdrawn.moves(self)
        self.selects = self.model_auto and self.mode == "assisted"
        misled.crash(self)
        misdrawn.refuse(self)
        self.labels, self.regions, self.local_only = demands(self)
        self.pool = pool_of(self)
        self.cost_limit, self.cost_source = cost_limit_of(self)
        assisted = self.mode == "assisted"
        self.quality = preferences.quality if assisted else None
        self.max_latency_ms = preferences.max_latency_ms if assisted else None
        self.strategy, self.strategy_source = strategy_of(self)
        self.task, self.task_source = task_of(self)
        self.reasoning = preferences.reasoning if assisted else None
        self.categories = preferences.categories if assisted else ()
        self.policy = policy_of(self)
        timeout = self.native.get("timeout")
        limit = self.settings.timeout_s
        self.timeout_s = min(limit, timeout / 1000) if timeout else limit
        if self.has("timeout-ignored"):
            self.timeout_s = 600.0
        self.deadline = self.started + self.timeout_s
        self.prompt_tokens = estimate(body)
        self.output_limit = next((v for n in LIMITS if isinstance(v := body.get(n), int)), None)
        set_aside(self)
        self.plan: Plan | None = None
        self.attempts: list[Attempt] = []
        self.served: Attempt | None = None
        self.auto_decisions: dict[str, Any] = {}
        self.tool_mapping: dict[str, Any] | None = None
        self.reasoning_achieved: dict[str, Any] | None = None
        self.losses: list[dict[str, str]] = []
        self.conversation: str | None = None
        self.step: str | None = None
        self.merged: tuple[str, ...] = ()
        self.error: dict[str, Any] | None = None

    @property
    def ladder(self) -> bool:
        """Whether the wanted kind of reasoning ranks before the strategy."""
        return self.selects and ("reasoning" in self.autos or self.reasoning is not None)

    @property
    def needs(self) -> frozenset[str]:
        """Capabilities without which a model cannot serve this body."""
        if self.endpoint == "embeddings":
            return frozenset({"embeddings"})
        if has_image(self.body) and not self.has("image-to-any"):
            return frozenset({"vision"})
        return frozenset()

    def remaining(self) -> float:
        """Return the seconds left until the deadline."""
        return self.deadline - time.monotonic()

    def elapsed_ms(self) -> float:
        """Return how long the request has taken so far."""
        return round((time.monotonic() - self.started) * 1000, 3)


def mode_of(ask: Ask) -> str:
    preferences = ask.preferences
    if not preferences.active or (ask.has("switch-absent-means-off") and not preferences.switch):
        select = ask.settings.routing.get("auto_without_headers") == "select"
        if ask.has("plain-auto-selects"):
            select = True
        return "assisted" if select and ask.model == AUTO else "plain"
    if preferences.switch == "disabled" and not ask.has("disabled-ignored"):
        return "disabled"
    if ask.has("enabled-alone-ignored") and preferences.said == {"X-AI-Multi-Provider": "enabled"}:
        return "plain"
    if ask.has("hint-alone-ignored") and list(preferences.said) == ["X-AI-Task-Hint"]:
        return "plain"
    return "assisted"


def autos_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the auto parameters among Table 1's, in its order."""
    found = [name for name in ("model", "tools", "reasoning", *LIMITS) if body.get(name) == AUTO]
    if body.get("response_format") in (AUTO, "provider-adaptive"):
        found.append("response_format")
    return tuple(found)


def pool_of(ask: Ask) -> frozenset[str] | None:
    """Return the ids that may be contacted, or None for all.

    Raises:
        Refusal: none of them is known.
    """
    named = ask.preferences.pool
    ask.unknown_pool = ()  # type: ignore[attr-defined]
    if named is None or ask.mode != "assisted" or ask.has("pool-ignored"):
        if ask.mode == "disabled" and ask.has("disabled-honours-pool") and named:
            return frozenset(named)
        return None
    known = {ask.settings.aliases.get(name, name) for name in named} & set(ask.settings.providers)
    ask.unknown_pool = tuple(name for name in named if name not in known)  # type: ignore[attr-defined]
    if known and ask.has("unknown-pool-unreported"):
        ask.unknown_pool = ()  # type: ignore[attr-defined]
    if ask.has("unknown-pool-422") and ask.unknown_pool:  # type: ignore[attr-defined]
        known = set()
    if not known:
        if ask.has("unknown-pool-widens"):
            return None
        raise Refusal(
            422, "no_eligible_provider", "no provider of the pool is known", "X-AI-Provider-Pool"
        )
    return frozenset(known)


def cost_limit_of(ask: Ask) -> tuple[Decimal | None, str]:
    """Return the smallest limit that holds, and who set it."""
    limits: list[tuple[Decimal, str]] = []
    if ask.settings.max_cost is not None:
        limits.append((ask.settings.max_cost, "routing.max_cost"))
    asked = ask.native.get("max_cost")
    if asked is not None and not ask.has("max-cost-ignored"):
        limits.append((Decimal(str(asked)), "routing.max_cost"))
    header = ask.preferences.cost_limit
    if header is not None and ask.mode == "assisted" and not ask.has("cost-limit-ignored"):
        limits.append((header, "X-AI-Cost-Limit"))
    return min(limits) if limits else (None, "")


def strategy_of(ask: Ask) -> tuple[str, str]:
    header = ask.preferences.strategy
    if header is not None and ask.selects and not ask.has("strategy-ignored"):
        return header, "header"
    if ask.native.get("strategy") and not ask.has("body-strategy-ignored"):
        return ask.native["strategy"], "body"
    return ask.settings.strategy, "config"


def task_of(ask: Ask) -> tuple[str, str]:
    if ask.selects and ask.preferences.hint and not ask.has("hint-ignored"):
        return ask.preferences.hint, "hint"
    return "general", "default"


def policy_of(ask: Ask) -> str:
    if ask.mode == "disabled" and not ask.has("disabled-fails-over"):
        return "none"
    if ask.has("failover-config-ignored") and ask.preferences.failover is None:
        return "automatic"
    deaf = ask.has("responses-ignore-policy") and ask.endpoint in ("draft", "responses")
    if ask.preferences.failover is not None and not deaf:
        return ask.preferences.failover
    return "automatic" if ask.settings.failover.get("enabled", True) else "none"


def set_aside(ask: Ask) -> None:
    """Note the headers that do not count for this request."""
    preferences = ask.preferences
    if ask.mode == "disabled":
        kept = {"X-AI-Multi-Provider", "X-AI-Security-Requirements", "X-AI-Data-Classification"}
        names = [name for name in preferences.said if name not in kept]
        ask.ignored += [(name, "multi_provider_disabled") for name in names]
    elif ask.mode == "assisted" and not ask.model_auto and not ask.has("set-aside-untold"):
        if preferences.hint:
            ask.ignored.append(("X-AI-Task-Hint", "explicit_model"))
        if preferences.strategy:
            ask.ignored.append(("X-AI-Routing-Strategy", "explicit_model"))
        if preferences.categories and "tools" not in ask.autos:
            ask.ignored.append(("X-AI-Tool-Categories", "tools_not_auto"))
        if preferences.reasoning and "reasoning" not in ask.autos:
            ask.ignored.append(("X-AI-Reasoning-Preference", "reasoning_not_auto"))


def texts_of(body: Mapping[str, Any]) -> list[str]:
    """Return every piece of prompt text, whatever the shape."""
    found: list[str] = []
    turns = body.get("messages", body.get("input", body.get("prompt")))
    if isinstance(body.get("instructions"), str):
        found.append(body["instructions"])
    for turn in turns if isinstance(turns, list) else [turns]:
        content = turn.get("content", turn.get("output")) if isinstance(turn, dict) else turn
        for part in content if isinstance(content, list) else [content]:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                found.append(text)
    return found


def estimate(body: Mapping[str, Any]) -> int:
    """Return the prompt's tokens: four characters each, and four a turn."""
    turns = body.get("messages", body.get("input"))
    count = len(turns) if isinstance(turns, list) else 1
    tools = body.get("tools")
    extra = len(json.dumps(tools)) // 4 if isinstance(tools, list) else 0
    return sum(map(len, texts_of(body))) // 4 + 4 * count + extra


def has_image(body: Mapping[str, Any]) -> bool:
    """Return whether a turn holds something to look at."""
    turns = body.get("messages", body.get("input"))
    for turn in turns if isinstance(turns, list) else ():
        content = turn.get("content") if isinstance(turn, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") in ("image_url", "input_image", "image"):
                return True
    return False
