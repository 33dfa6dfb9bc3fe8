"""Configuration files of the gateways, made from the upstreams of a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import payloads

#: Prices, so that cost limits and strategies have something to weigh.
_MODEL = {"cost_per_1k_tokens": 0.002, "quality": 0.6, "context_window": 128_000}
_POOL = ("alpha", "beta", "gamma")


def aiproxy(folder: Path, base: Mapping[str, str], port: int, *, scope: str, level: str) -> Path:
    """Ours: one provider a base URL, and three with two models each for `model: "auto"`.

    Without circuit breaker and second try at the same provider, as the other gateways are
    configured. What stays is that a provider which just failed is asked last for a while.
    """
    providers: dict[str, Any] = {}
    for place, (name, url) in enumerate(base.items()):
        kinds = [kind for kind in payloads.KINDS if name in payloads.targets(kind)]
        providers[name] = {
            "type": "openai_compatible",
            "endpoint": url,
            "priority": 20 if name == "small" else 10 + place % 2,
            "models": [{"name": payloads.model(k), "model": "mock-model", **_MODEL} for k in kinds],
        }
    for place, name in enumerate(_POOL):
        providers[name] = {
            "type": "openai_compatible",
            "endpoint": base["small"],
            "priority": 50 + place,
            "models": [
                {
                    "name": f"{name}-{size}",
                    "model": "mock-model",
                    "capabilities": ["text-generation", "code-generation"],
                    "cost_per_1k_tokens": cost * (1 + place / 10),
                    "quality": quality,
                    "context_window": 128_000,
                }
                for size, cost, quality in (("mini", 0.0004, 0.5), ("max", 0.006, 0.9))
            ],
        }
    config = {
        "server": {"listen_addr": f"127.0.0.1:{port}"},
        "providers": providers,
        "routing": {
            "scope": scope,
            "default_provider": "small",
            "strategy": "availability",
            "failover": {"same_provider_retries": 0},
            "load_balancing": {"health_aware": False},
        },
        "observability": {"logging": {"level": level}},
    }
    path = folder / f"aiproxy-{port}.json"
    path.write_text(json.dumps(config, indent=1))
    return path


def litellm(folder: Path, routes: Mapping[str, list[str]]) -> Path:
    """LiteLLM proxy. With prices, or it looks for the reason of a zero cost on every request."""
    fallbacks = [{payloads.model(kind): [payloads.model("small")]} for kind in payloads.FAILING]
    config = {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {
                    "model": "openai/mock-model",
                    "api_base": bases[0],
                    "api_key": "sk-bench",
                    "input_cost_per_token": 1e-6,
                    "output_cost_per_token": 2e-6,
                },
            }
            for name, bases in routes.items()
        ],
        "litellm_settings": {"num_retries": 0, "telemetry": False, "fallbacks": fallbacks},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def portkey_headers(bases: list[str]) -> list[tuple[str, str]]:
    """Portkey takes its configuration from the request."""
    found = [{"provider": "openai", "custom_host": base, "api_key": "sk-bench"} for base in bases]
    if len(found) == 1:
        return [
            ("x-portkey-provider", "openai"),
            ("x-portkey-custom-host", bases[0]),
            ("Authorization", "Bearer sk-bench"),
        ]
    chain = {"strategy": {"mode": "fallback"}, "targets": found}
    return [("x-portkey-config", json.dumps(chain, separators=(",", ":")))]
