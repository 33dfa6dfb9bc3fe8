"""Looks after providers that were left out, apart from the requests of clients.

Whoever is left out is asked for its models, which costs nothing. Only a request of a client closes
a circuit: that a provider lists its models does not say that it can answer.
"""

import threading
import time
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import Request, urlopen

if TYPE_CHECKING:
    from right_router.serving import RightRouter
    from right_router.settings import Provider

LOOKS_EVERY_S = 0.05


def watch(router: "RightRouter", stopped: threading.Event) -> None:
    """Probe providers whose circuits are open, until ``stopped``."""
    due: dict[str, float] = {}
    while not stopped.wait(LOOKS_EVERY_S):
        for provider in router.settings.providers.values():
            if not any(router.health.track(model).open_until for model in provider.models):
                continue
            now = time.monotonic()
            if now >= due.setdefault(provider.id, now + router.health.probe_after_s):
                due[provider.id] = now + router.health.probe_after_s
                if router.has("monitor-looks-once"):
                    due[provider.id] = now + 3600.0
                probe(provider)


def probe(provider: "Provider") -> bool:
    """Return whether a provider lists its models."""
    asked = Request(
        f"{provider.base}/v1/models", headers={"Authorization": f"Bearer {provider.key}"}
    )
    try:
        with urlopen(asked, timeout=1) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError, ValueError):
        return False
