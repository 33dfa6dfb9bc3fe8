"""A configuration of the Portkey gateway: the JSON that its header ``x-portkey-config`` carries.

The gateway keeps no providers of its own: each request brings them. So a scenario's requests carry
its providers and the default one, and no more, because Node.js reads heads of 16 KiB at most. A
public model name leads to its providers in the order of their priority; any other name, and a
request without one, goes to the default provider as it is.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any, Final

from aiproxy.conformance.rig.fleet import Actor, Cast, Casts, Fake, World
from aiproxy.conformance.rig.rendering import (
    HEADERS,
    LACKS,
    RENDERERS,
    Unrenderable,
    actors,
    own_config,
    patience_s,
    ranks,
)
from aiproxy.conformance.rig.worlds import NO_FAILOVER

FIELD: Final = "x-portkey-config"
# What the dialects and types of the Standard are called, and where their API begins.
_NAMES: Final[Mapping[str, tuple[str, Callable[[str], str]]]] = {
    "openai": ("openai", lambda base: base),
    "anthropic": ("anthropic", lambda base: base),
    "cohere": ("cohere", lambda base: base.removesuffix("/v1")),
    "google": ("google", lambda base: base.removesuffix("/v1")),
    "mistral": ("mistral-ai", lambda base: base),
    "deepseek": ("deepseek", lambda base: base.removesuffix("/v1")),
    "openrouter": ("openrouter", lambda base: base.removesuffix("/v1")),
}
# Members of a provider's entry that find their place below; OpenAI's own types need none.
_SAID: Final = frozenset({"enabled", "type", "timeouts", "weight"})
# Left alone, a fallback also follows a refusal of the request itself.
_MOVES_ON: Final = {
    "mode": "fallback",
    "on_status_codes": [401, 403, 404, 408, 429, 500, 502, 503, 504, 529],
}
_SHARES: Final = {"mode": "loadbalance"}
_STAYS: Final = {"mode": "single"}
_WEIGHTED: Final = {
    "routing": {
        "strategy": "availability",
        "load_balancing": {"enabled": True, "strategy": "weighted"},
    }
}
_WAYS: Final[tuple[tuple[object, Mapping[str, Any]], ...]] = (
    ({}, _MOVES_ON),
    ({"routing": {"strategy": "availability"}}, _MOVES_ON),
    (NO_FAILOVER.config, _STAYS),
    (_WEIGHTED, _SHARES),
)


def portkey_json(world: World, casts: Casts, default: Actor, port: int) -> str:
    """Return what the header would say about all providers of ``world``, to be read by people.

    Raises:
        Unrenderable: the world asks for what the gateway cannot be told.
    """
    config = configuration(actors(casts, default), default, _way(world, casts))
    return json.dumps(config, indent=2) + "\n"


def portkey_headers(world: World, cast: Cast, default: Actor) -> Mapping[str, str]:
    """Return the field that configures the gateway for one scenario's requests.

    Raises:
        Unrenderable: the world asks for what the gateway cannot be told.
    """
    casts = {cast.scenario: cast}
    config = configuration(actors(casts, default), default, _way(world, casts))
    return {FIELD: json.dumps(config, separators=(",", ":"))}


def configuration(every: Iterable[Actor], default: Actor, way: Mapping[str, Any]) -> dict[str, Any]:
    """Return a gateway configuration with one group of targets for each public model name."""
    known = [actor for actor in every if _speaks(actor)]
    places = ranks(known)
    known.sort(key=lambda actor: (actor.model, places[actor.id]))
    groups = [_group(model, own, way) for model, own in groupby(known, key=lambda a: a.model)]
    conditions = [
        {"query": {"params.model": {"$eq": group["name"]}}, "then": group["name"]}
        for group in groups
    ]
    as_it_is = {"name": default.id, **_target(default)}
    del as_it_is["override_params"]
    return {
        "strategy": {"mode": "conditional", "conditions": conditions, "default": default.id},
        "targets": [*groups, as_it_is],
    }


def _way(world: World, casts: Casts) -> Mapping[str, Any]:
    own = own_config(world, casts)
    way = next((way for config, way in _WAYS if config == own), None)
    if way is None or world.api_key is not None:
        raise Unrenderable("a Portkey configuration cannot say what this world needs")
    return way


def _lacks(fake: Fake) -> str:
    if fake.dialect not in _NAMES:
        return fake.dialect
    if fake.reach == "no-such-host":
        return "a host that does not exist"
    if fake.provider.get("type") == "azure_openai":
        return "azure_openai at an address of one's own"
    if "context_window" in fake.model:
        return "context_window"
    return ", ".join(sorted(set(fake.provider) - _SAID))


def _speaks(actor: Actor) -> bool:
    known = actor.fake.dialect in _NAMES and actor.fake.reach != "no-such-host"
    return known and actor.fake.provider.get("enabled", True)


def _group(model: str, own: Iterable[Actor], way: Mapping[str, Any]) -> dict[str, Any]:
    targets = [_target(actor) for actor in own]
    if len(targets) == 1:
        return {"name": model, **targets[0]}
    return {"name": model, "strategy": dict(way), "targets": targets}


def _target(actor: Actor) -> dict[str, Any]:
    fake = actor.fake
    vendor, base = _NAMES[fake.dialect]
    if fake.dialect == "openai":
        vendor, base = _NAMES.get(fake.provider.get("type", ""), (vendor, base))
    target: dict[str, Any] = {
        "provider": vendor,
        "api_key": actor.key,
        "custom_host": base(actor.endpoint),
        "override_params": {"model": actor.upstream_model},
    }
    patience = patience_s(fake)
    if patience is not None:
        target["request_timeout"] = round(patience * 1000)
    if "weight" in fake.provider:
        target["weight"] = fake.provider["weight"]
    return target


RENDERERS["portkey"] = portkey_json
HEADERS["portkey"] = portkey_headers
LACKS["portkey"] = _lacks
