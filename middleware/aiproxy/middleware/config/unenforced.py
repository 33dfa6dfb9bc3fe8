"""What a sound configuration may ask for and this release does not do.

The schema is complete before the product is. A *protection* of money or access that would silently
not hold is refused when the configuration is put to work; everything else is a warning. Each row
goes when the part that honours it lands.
"""

from collections.abc import Mapping
from typing import Any


def unenforced_protections(values: Mapping[str, Any]) -> list[str]:
    """Keys that promise a limit on money or a check of identity which nothing would keep."""
    auth = values["security"]["auth"]
    asked = {
        "budget.cost_db of another kind than sqlite:///": has_limits(values)
        and _foreign_ledger(values),
        f"security.auth.type {auth['type']}": auth["enabled"] and auth["type"] != "api_key",
    }
    return [name for name, wanted in asked.items() if wanted]


def has_limits(values: Mapping[str, Any]) -> bool:
    """Whether spending is limited, for everybody or for a key."""
    budget = values["budget"]
    rows = (budget, *values["security"]["auth"]["api_keys"])
    names = ("daily_limit", "monthly_limit")
    return budget["enabled"] and any(row.get(name) is not None for row in rows for name in names)


def _foreign_ledger(values: Mapping[str, Any]) -> bool:
    url = values["budget"]["cost_db"]
    return url is not None and not url.startswith("sqlite:")


def unserved_features(values: Mapping[str, Any]) -> list[str]:
    """Keys that ask for something which is left out; no money and no access depends on it."""
    security, seen = values["security"], values["observability"]
    asked = {
        "security.rate_limiting": security["rate_limiting"]["enabled"],
        "security.auth.api_keys[].rate_limit": any(
            key.get("rate_limit") for key in security["auth"]["api_keys"]
        ),
        "security.cors": security["cors"]["enabled"],
        "node.mesh": values["node"]["mesh"]["enabled"],
        "cache": values["cache"]["enabled"],
        "observability.metrics": seen["metrics"]["enabled"],
        "observability.tracing": seen["tracing"]["enabled"],
        "budget.cost_db of another kind than sqlite:///": not has_limits(values)
        and values["budget"]["track_costs"]
        and _foreign_ledger(values),
        "security.trusted_proxies": bool(security["trusted_proxies"]),
        "credentials.directory": bool(values["credentials"]["directory"]),
    }
    return [name for name, wanted in asked.items() if wanted]
