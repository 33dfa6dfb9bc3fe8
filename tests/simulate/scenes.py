"""Small scenarios for tests."""

from collections.abc import Mapping
from typing import Any

MODEL = {"name": "m", "price": {"input": 0.001, "output": 0.002}}


def scene(
    providers: Mapping[str, Any] | int = 2,
    scripts: Mapping[str, Any] | None = None,
    *,
    routing: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A scenario of ``providers`` (how many, or by id what differs) that all serve model ``m``.

    ``scripts`` say how they behave; by default everybody answers after 100 ms. ``more`` are other
    members of the scenario; without ``traffic`` ten requests a second are made for ten seconds.
    """
    if isinstance(providers, int):
        providers = {name: {} for name in "abcdefgh"[:providers]}
    entries = {
        name: {
            "type": "openai_compatible",
            "endpoint": f"https://{name}.example/v1",
            "priority": place,
            "models": [MODEL],
            **entry,
        }
        for place, (name, entry) in enumerate(providers.items(), 1)
    }
    found: dict[str, Any] = {
        "config": {"routing": dict(routing or {}), "providers": entries, **(config or {})},
        "providers": {"*": {"latency": "100ms"}, **(scripts or {})},
        "traffic": traffic(for_="10s", rate=10, arrivals="constant"),
    }
    found.update(more)
    return found


def traffic(*requests: Mapping[str, Any], for_: str = "10s", **phase: Any) -> dict[str, Any]:
    """One phase of some kinds of requests; each asks for model ``m`` unless it says otherwise."""
    rows = []
    for number, one in enumerate(requests or ({},)):
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
        rows.append({"name": f"kind{number}", "body": body, **one})
    return {"phases": [{"for": for_, **phase}], "requests": rows}
