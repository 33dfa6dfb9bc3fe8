"""Worlds that several modules of checks share.

A world costs a start of the target, so a check takes one of these before it makes its own.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.conformance.rig.fleet import Casts, World
from aiproxy.conformance.rig.peers import is_peer

_ROUTING: Final = {"strategy": "availability"}

# Failover is configured off; a request may still ask for it.
NO_FAILOVER: Final = World("no-failover", {"routing": {**_ROUTING, "failover": {"enabled": False}}})
# Sixty providers and more, which no header has room for.
CROWD: Final = World("crowd", {"routing": _ROUTING})

# Scenario whose chain differs from its priorities, and the one whose model a rule pins down.
CHAIN_SCENARIO: Final = "fallback_chain.the_chain_orders_the_rest"
CHAIN: Final = ("first", "d", "b", "c")
RULE_SCENARIO: Final = "selection_order.a_rule_pins_a_model"
# Whose provider "slash" has an endpoint that ends with one.
SLASH_SCENARIO: Final = "provider_paths.openai_is_reached"
# Whose endpoints are as Cloudflare documents its own.
CLOUDFLARE_SCENARIO: Final = "native_formats.cloudflare_is_reached"
RETRY_DELAY_S: Final = 0.6


def _ordered(casts: Casts) -> Mapping[str, Any]:
    """Everybody is in the chain by priority but for the one scenario that looks at the chain."""
    chain: list[str] = []
    for scenario, cast in casts.items():
        roles = sorted(cast.actors, key=lambda role: cast[role].fake.priority)
        if scenario == CHAIN_SCENARIO:
            roles = list(CHAIN)
        chain += [cast[role].id for role in roles if cast[role].fake.provider.get("enabled", True)]
    policies = []
    if RULE_SCENARIO in casts:
        cast = casts[RULE_SCENARIO]
        rule = {
            "if": f"request.model == '{cast.model}'",
            "then": f"require provider.{cast['named'].id}",
        }
        policies = [{"name": "pinned", "type": "model_specific", "rules": [rule]}]
    providers = {}
    if SLASH_SCENARIO in casts:
        slash = casts[SLASH_SCENARIO]["slash"]
        providers[slash.id] = {"endpoint": f"{slash.endpoint}/"}
    if CLOUDFLARE_SCENARIO in casts:
        for actor in casts[CLOUDFLARE_SCENARIO].actors.values():
            base = actor.endpoint.removesuffix("/v1")
            providers[actor.id] = {"endpoint": f"{base}/client/v4"}
    return {
        "providers": providers,
        "routing": {
            "strategy": "availability",
            "policies": policies,
            "failover": {
                "enabled": True,
                "max_retries": 3,
                "retry_delay": f"{RETRY_DELAY_S:g}s",
                "same_provider_retries": 3,
                "fallback_chain": chain,
            },
            "load_balancing": {"health_aware": True, "unhealthy_threshold": 0.5},
            "health": {
                "window": "20s", "min_samples": 4, "probe_after": "2s", "probe_max": "2s",
            },
        }
    }  # fmt: skip


# A fallback chain, one static rule, a retry delay, and health that notices soon.
ORDERED: Final = World("ordered", _ordered)
# Providers take turns.
TURNS: Final = World("turns", {"routing": {"strategy": "round_robin"}})
# The cheapest first, whatever its priority and its past.
CHEAPEST: Final = World("cheapest", {"routing": {"strategy": "cost_optimized"}})

# Conversations are kept, and three callers have keys of their own.
CALLERS: Final = tuple(f"sk-conformance-caller-{name}" for name in ("one", "two", "three"))
STATEFUL: Final = World(
    "stateful",
    {
        "routing": _ROUTING,
        "conversations": {"enabled": True},
        "security": {
            "auth": {
                "enabled": True,
                "type": "api_key",
                "api_keys": [
                    {"key": key, "name": f"caller-{n}"} for n, key in enumerate(CALLERS, 1)
                ],
            }
        },
    },
    api_key=CALLERS[0],
)

# What a node of a mesh is told of itself, and how often it speaks to its peers. Times are seconds.
NODE_TYPE: Final = "hybrid"
NODE_REGION: Final = "region-of-the-suite"
HEARTBEAT_S: Final = 0.5
PEER_TIMEOUT_S: Final = 1.0


def _federated(casts: Casts) -> Mapping[str, Any]:
    """Every provider by priority, then the mesh; no load figure may leave the node."""
    providers = [
        actor for cast in casts.values() for actor in cast.actors.values()
        if not is_peer(actor) and actor.fake.provider.get("enabled", True)
    ]  # fmt: skip
    chain = [actor.id for actor in sorted(providers, key=lambda one: one.fake.priority)]
    return {
        "node": {
            "type": NODE_TYPE,
            "region": NODE_REGION,
            "mesh": {
                "enabled": True,
                "share_load": False,
                "peer_timeout": f"{PEER_TIMEOUT_S:g}s",
                "heartbeat_interval": f"{HEARTBEAT_S * 1000:g}ms",
                "secret": "a secret that the nodes of this mesh share",
                "max_hops": 3,
            },
        },
        "routing": {
            "strategy": "availability",
            "failover": {
                "enabled": True,
                "max_retries": 3,
                "retry_delay": "10ms",
                "same_provider_retries": 0,
                "fallback_chain": [*chain, "mesh_peer"],
            },
            "health": {"min_samples": 1000},
        },
    }


# A node with peers, who come after every provider.
FEDERATED: Final = World("federated", _federated)
