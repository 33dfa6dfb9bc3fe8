"""Rows for ``aiproxy models`` and ``aiproxy providers``."""

from typing import Any

from aiproxy.middleware import Gateway
from aiproxy.middleware.config import Config


def model_rows(config: Config) -> list[dict[str, Any]]:
    """One row a model and provider."""
    gateway = Gateway(config, wrapped_app=False, scope="all", allow_unenforced=True, ledger=False)
    return [
        {
            "model": model.name,
            "provider": model.provider.id,
            "upstream": model.upstream,
            "capabilities": ", ".join(sorted(model.capabilities)),
            "usd_per_1k_tokens": model.cost_per_1k,
            "quality": model.quality_for("general"),
            "context": model.context_window,
        }
        for model in gateway.registry.models
    ]


def provider_rows(config: Config) -> list[dict[str, Any]]:
    """One row a provider, disabled ones included; no credentials, no addresses."""
    gateway = Gateway(config, wrapped_app=False, scope="all", allow_unenforced=True, ledger=False)
    default = gateway.registry.default.id
    return [
        {
            "provider": name,
            "type": entry["type"] or name,
            "enabled": entry["enabled"],
            "default": name == default,
            "priority": entry["priority"],
            "models": len(entry["models"]),
            "local": bool(entry["local"]) or (entry["type"] or name) == "local",
            "region": entry["region"],
        }
        for name, entry in config.values["providers"].items()
    ]
