"""Calls that no right router makes: beside the request, before it, or after it is over."""

import json
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from right_router import dialects
from right_router.wire import Failure

if TYPE_CHECKING:
    from right_router.serving import RightRouter
    from right_router.settings import Model

PROBE_EVERY_S = 0.9


def send(router: "RightRouter", model: "Model", body: dict[str, Any]) -> None:
    """Send a chat to a provider; nobody looks at the answer."""
    try:
        url, fields, said = dialects.request(model, "chat", body, router.has)
        headers = dict(field.split(": ", 1) for field in fields)
        headers["Content-Type"] = "application/json"
        with urlopen(Request(url, json.dumps(said).encode(), headers), timeout=5) as answer:
            answer.read()
    except (Failure, URLError, OSError, KeyError, TypeError):
        return


def fetch(url: str, body: dict[str, Any]) -> None:
    """Call an address that the client named."""
    headers = {"Content-Type": "application/json"}
    try:
        with urlopen(
            Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
        ) as answer:
            answer.read()
    except (URLError, OSError, ValueError):
        return


def probe(router: "RightRouter", stopped: threading.Event) -> None:
    """While no client asks, ask providers that are out of rotation to write something."""
    turns = [{"role": "user", "content": "ping"}]
    while not stopped.wait(PROBE_EVERY_S):
        if time.monotonic() - router.heard_at < PROBE_EVERY_S:
            continue
        for model in router.settings.models:
            if router.health.track(model).open_until > time.monotonic():
                send(router, model, {"messages": turns, "max_tokens": 1})
