"""A configuration of the LiteLLM proxy: one entry of ``model_list`` for each provider.

Entries of one name are fallbacks of one another in the order of their priority, without second
tries at the same provider. Where a world asks for a strategy that LiteLLM has too, that one is
set; what LiteLLM has no words for (policies, limits, quality) makes a world unrenderable.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiproxy.conformance.rig.fleet import Actor, Casts, Fake, World
from aiproxy.conformance.rig.rendering import (
    LACKS,
    RENDERERS,
    Unrenderable,
    actors,
    own_config,
    patience_s,
    ranks,
)
from aiproxy.conformance.rig.worlds import NO_FAILOVER

# What the dialects and types of the Standard are called, and where their API begins.
_NAMES: Final[Mapping[str, tuple[str, Callable[[str], str]]]] = {
    "openai": ("openai", lambda base: base),
    "anthropic": ("anthropic", lambda base: base.removesuffix("/v1")),
    "cohere": ("cohere_chat", lambda base: f"{base.removesuffix('/v1')}/v2/chat"),
    "google": ("gemini", lambda base: f"{base.removesuffix('/v1')}/v1beta"),
    "mistral": ("mistral", lambda base: base),
    "deepseek": ("deepseek", lambda base: base),
    "openrouter": ("openrouter", lambda base: base),
}
# Members of a provider's entry that find their place below; OpenAI's own types need none.
_SAID: Final = frozenset({"enabled", "type", "timeouts", "weight", "headers"})


@dataclass(frozen=True, slots=True)
class _Way:
    """How LiteLLM routes in a world: its strategy, and whether priorities order the entries."""

    strategy: str = "simple-shuffle"
    ordered: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)


def _balanced(strategy: str) -> Mapping[str, Any]:
    balancing = {"enabled": True, "strategy": strategy}
    return {"routing": {"strategy": "availability", "load_balancing": balancing}}


# Without an order the next try goes elsewhere only once the first provider is resting.
_ELSEWHERE: Final = {"num_retries": 3, "allowed_fails": 0, "cooldown_time": 1}
_WAYS: Final[tuple[tuple[object, _Way], ...]] = (
    ({}, _Way()),
    ({"routing": {"strategy": "availability"}}, _Way()),
    (NO_FAILOVER.config, _Way(settings={"max_fallbacks": 0})),
    ({"routing": {"strategy": "cost_optimized"}}, _Way("cost-based-routing", False, _ELSEWHERE)),
    (
        {"routing": {"strategy": "latency_optimized"}},
        _Way("latency-based-routing", False, _ELSEWHERE),
    ),
    (_balanced("least_loaded"), _Way("least-busy", False, _ELSEWHERE)),
    (_balanced("weighted"), _Way(ordered=False, settings={"enable_weighted_failover": True})),
)


def litellm_yaml(world: World, casts: Casts, default: Actor, port: int) -> str:
    """Return a ``config.yaml``; the port is a word of the command, not of the file.

    The proxy may run without a key of its own, as the suite's other targets do; one in
    ``LITELLM_MASTER_KEY`` still counts.

    Raises:
        Unrenderable: the world asks for what the file cannot say.
    """
    import yaml

    own = own_config(world, casts)
    way = next((way for config, way in _WAYS if config == own), None)
    if way is None or world.api_key is not None:
        raise Unrenderable("a LiteLLM configuration cannot say what this world needs")
    config = {
        "model_list": list(_entries(actors(casts, default), way)),
        "litellm_settings": {"drop_params": False, "telemetry": False},
        "router_settings": {
            "routing_strategy": way.strategy,
            "num_retries": 0,
            "retry_after": 0,
            "enable_pre_call_checks": True,
            **way.settings,
        },
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
    }
    text: str = yaml.safe_dump(config, sort_keys=False)
    return text


def _entries(every: Iterable[Actor], way: _Way) -> Iterable[dict[str, Any]]:
    known = [actor for actor in every if _speaks(actor)]
    places = ranks(known)
    for actor in known:
        entry = _entry(actor)
        if way.ordered:
            entry["litellm_params"]["order"] = places[actor.id]
        yield entry


def _lacks(fake: Fake) -> str:
    if fake.dialect not in _NAMES:
        return fake.dialect
    if fake.provider.get("type") == "azure_openai":
        return "azure_openai at an address of one's own"
    return ", ".join(sorted(set(fake.provider) - _SAID))


def _speaks(actor: Actor) -> bool:
    return actor.fake.dialect in _NAMES and actor.fake.provider.get("enabled", True)


def _entry(actor: Actor) -> dict[str, Any]:
    fake = actor.fake
    vendor, base = _NAMES[fake.dialect]
    if fake.dialect == "openai":
        vendor, base = _NAMES.get(fake.provider.get("type", ""), (vendor, base))
    params: dict[str, Any] = {
        "model": f"{vendor}/{actor.upstream_model}",
        "api_base": base(actor.endpoint),
        "api_key": actor.key,
        # Otherwise it goes to models only that LiteLLM knows by name.
        "allowed_openai_params": ["user"],
    }
    if fake.price is not None:
        params["input_cost_per_token"] = params["output_cost_per_token"] = fake.price / 1000
    patience = patience_s(fake)
    if patience is not None:
        params["timeout"] = params["stream_timeout"] = patience
    if "weight" in fake.provider:
        params["weight"] = fake.provider["weight"]
    if "headers" in fake.provider:
        params["extra_headers"] = dict(fake.provider["headers"])
    info: dict[str, Any] = {"id": actor.id}
    if "embeddings" in fake.capabilities:
        info["mode"] = "embedding"
    if "context_window" in fake.model:
        info["max_input_tokens"] = fake.model["context_window"]
    return {"model_name": actor.model, "litellm_params": params, "model_info": info}


RENDERERS["litellm"] = litellm_yaml
LACKS["litellm"] = _lacks
