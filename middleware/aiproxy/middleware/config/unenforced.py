"""What a sound configuration may ask for and this release does not do.

The schema is complete before the product is. A *protection* of money or access that would silently
not hold is refused when the configuration is put to work; everything else is a warning. Each row
goes when the part that honours it lands.
"""

from collections.abc import Mapping
from typing import Any


def unenforced_protections(values: Mapping[str, Any]) -> list[str]:
    """Keys that promise a limit on money or a check of identity which nothing would keep."""
    budget, auth = values["budget"], values["security"]["auth"]
    limited = budget["daily_limit"] is not None or budget["monthly_limit"] is not None
    keys = auth["api_keys"]
    asked = {
        "budget.daily_limit and budget.monthly_limit": budget["enabled"] and limited,
        "security.auth.api_keys[].daily_limit and monthly_limit": any(
            key.get("daily_limit") is not None or key.get("monthly_limit") is not None
            for key in keys
        ),
        f"security.auth.type {auth['type']}": auth["enabled"] and auth["type"] != "api_key",
    }
    return [name for name, wanted in asked.items() if wanted]


def unserved_features(values: Mapping[str, Any]) -> list[str]:
    """Keys that ask for something which is left out; no money and no access depends on it."""
    security, routing = values["security"], values["routing"]
    seen = values["observability"]
    providers = [entry for entry in values["providers"].values() if entry["enabled"]]
    asked = {
        "security.rate_limiting": security["rate_limiting"]["enabled"],
        "security.auth.api_keys[].rate_limit": any(
            key.get("rate_limit") for key in security["auth"]["api_keys"]
        ),
        "security.cors": security["cors"]["enabled"],
        "node.mesh": values["node"]["mesh"]["enabled"],
        "state.backend valkey": values["state"]["backend"] != "memory",
        "conversations": values["conversations"]["enabled"],
        "cache": values["cache"]["enabled"],
        "observability.metrics": seen["metrics"]["enabled"],
        "observability.tracing": seen["tracing"]["enabled"],
        "routing.failover.mid_stream resume": routing["failover"]["mid_stream"] == "resume",
        "budget.alerts": bool(values["budget"]["alerts"]),
        "security.trusted_proxies": bool(security["trusted_proxies"]),
        "credentials.directory": bool(values["credentials"]["directory"]),
        "providers.*.load_balancing other than round_robin": any(
            p["load_balancing"] != "round_robin" for p in providers
        ),
        "providers.*.degraded_latency": any(p["degraded_latency"] for p in providers),
        "providers.*.security.level": any(p["security"]["level"] for p in providers),
        "providers.*.max_concurrency of a remote provider": any(
            p["max_concurrency"] and p["type"] != "local" for p in providers
        ),
    }
    return [name for name, wanted in asked.items() if wanted]
