"""Two providers of one model each, in any shape a test needs."""

from typing import Any

import pytest
from mounts import model


@pytest.fixture
def pair(mount: Any, fakes: Any) -> Any:
    """``pair(a, b, **sections)``: facts of the only model of each of two providers; a is default."""

    def build(
        a: Any = None,
        b: Any = None,
        /,
        *,
        provider_a: Any = None,
        provider_b: Any = None,
        **rest: Any,
    ) -> Any:
        providers = {
            "a": {**(provider_a or {}), "models": [model("m-a", **(a or {}))]},
            "b": {**(provider_b or {}), "models": [model("m-b", **(b or {}))]},
        }
        return mount(fakes.config(providers, **rest))

    return build
