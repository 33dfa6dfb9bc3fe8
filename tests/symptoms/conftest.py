"""Two providers behind a mount: ``a`` is preferred, ``b`` stands in for it."""

from collections.abc import Callable
from typing import Any

import pytest

#: What makes a request choose by quality: ``a``, then ``b``.
BEST = {"X-AI-Routing-Strategy": "quality"}


@pytest.fixture
def best() -> dict[str, str]:
    return dict(BEST)


@pytest.fixture
def duo(fakes: Any) -> Callable[..., dict[str, Any]]:
    """``duo(a=..., b=..., routing=...)``: a configuration; ``a`` and ``b`` are more keys of each
    provider, ``url_a`` stands in for the address of ``a``."""

    def build(
        a: dict[str, Any] | None = None,
        b: dict[str, Any] | None = None,
        *,
        url_a: str | None = None,
        **sections: Any,
    ) -> dict[str, Any]:
        providers = {
            name: {
                "models": [{"name": "m", "model": f"{name}-m", "quality": quality}],
                **(more or {}),
            }
            for name, quality, more in (("a", 0.9, a), ("b", 0.8, b))
        }
        config: dict[str, Any] = fakes.config(providers, **sections)
        if url_a is not None:
            config["providers"]["a"]["endpoint"] = url_a
        return config

    return build
