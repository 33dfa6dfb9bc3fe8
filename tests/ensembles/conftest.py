"""Ensembles of providers that each serve one model of their own."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def panel(mount: Any, fakes: Any) -> Callable[..., Any]:
    """``panel("abc", method="voting", prices={...}, facts={...}, **sections)``: provider a serves
    model m-a and so on; all of them are members of ``ensemble/e``, whatever else ``options`` say."""

    def build(
        names: str = "abc",
        *,
        weights: dict[str, float] | None = None,
        prices: dict[str, float] | None = None,
        facts: dict[str, Any] | None = None,
        sections: dict[str, Any] | None = None,
        more: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        providers: dict[str, Any] = {
            name: {
                **(facts or {}).get(name, {}),
                "models": [
                    {
                        "name": f"m-{name}",
                        "model": f"up-{name}",
                        "quality": 0.8,
                        "cost_per_1k_tokens": (prices or {}).get(name, 0.001),
                    }
                ],
            }
            for name in names
        }
        providers |= more or {}
        members = [{"model": f"m-{name}", "weight": (weights or {}).get(name, 1)} for name in names]
        rest = dict(sections or {})
        routing = {
            "scope": "all",
            "ensembles": {"e": {"members": members, **options}},
            **rest.pop("routing", {}),
        }
        return mount(fakes.config(providers, routing=routing, **rest))

    return build
