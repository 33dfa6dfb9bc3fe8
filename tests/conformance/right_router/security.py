"""Who may ask, and what their data demands: keys, labels, data classes, rate limits, CORS.

Hook points: ``authenticate`` before anything else, ``admit`` after it, ``demands`` while a request
is understood, ``cors_fields`` on every answer.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from right_server import Refusal

from right_router import aside
from right_router.answers import Declined
from right_router.preferences import FIELDS

if TYPE_CHECKING:
    from right_router.asking import Ask
    from right_router.serving import Exchange


HOUR_S = 3600.0
EXPOSED = (
    "X-AI-Provider-Used", "X-AI-Model-Mapped", "X-AI-Auto-Selection", "X-AI-Tool-Mapping",
    "X-AI-Auto-Decisions", "X-AI-Alternatives-Considered", "X-AI-Selection-Confidence",
    "X-AI-Failover-Occurred", "X-AI-Conversation-ID", "X-AI-Workflow-Step",
)  # fmt: skip


def auth_of(settings: Any) -> Mapping[str, Any]:
    """Return the ``auth`` section."""
    found: Mapping[str, Any] = settings.security.get("auth") or {}
    return found


def keys_of(settings: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return the entries of ``api_keys`` by key; empty where nobody is asked for one."""
    auth = auth_of(settings)
    rows = auth.get("api_keys") or ()
    if auth.get("enabled") is False:
        return {}
    return {row["key"]: row for row in rows}


def authenticate(exchange: "Exchange") -> str | None:
    """Return the name of the caller's key, None where none is asked for.

    Raises:
        Refusal: 401, the key is missing or wrong.
    """
    keys = keys_of(exchange.router.settings)
    if not keys:
        return None
    scheme, _, key = exchange.headers.get("authorization", "").partition(" ")
    if exchange.has("keys-in-urls") and exchange.query:
        scheme, key = "bearer", exchange.query.partition("=")[2]
    open_paths = exchange.has("status-open") and exchange.command == "GET"
    if open_paths or (exchange.has("predict-open") and "predict" in exchange.path):
        return None
    if scheme.lower() != "bearer" or key.strip() not in keys:
        raise Refusal(401, "invalid_api_key", "the key is missing or wrong", "Authorization")
    return str(keys[key.strip()].get("name"))


class Limits:
    """Requests of the last hour, by key or by address."""

    def __init__(self) -> None:
        self.counts: dict[str, deque[float]] = {}
        self.lock = threading.Lock()

    def take(self, who: str, most: int, *, careless: bool = False) -> float | None:
        """Count a request, or return the seconds until there is room for it."""
        now = time.monotonic()
        with nullcontext() if careless else self.lock:
            times = self.counts.setdefault(who, deque())
            while times and times[0] < now - HOUR_S:
                times.popleft()
            full = len(times) >= most
            if careless:
                time.sleep(0.05)
            if full:
                return times[0] + HOUR_S - now
            times.append(now)
        return None


def admit(exchange: "Exchange", owner: str | None) -> None:
    """Let a caller in, or refuse: each key and each address has so many requests an hour.

    Raises:
        Refusal: 429 with the time to wait.
    """
    settings, has = exchange.router.settings, exchange.has
    told = settings.security.get("rate_limiting") or {}
    if not told.get("enabled"):
        return
    usual = told.get("default_limit", 100)
    waits: list[float | None] = []
    if told.get("by_ip", True):
        address = exchange.client_address[0]
        if has("addresses-believed"):
            address = exchange.headers.get("x-forwarded-for", "") or address
        waits.append(exchange.router.limits.take(address, usual))
    if owner is not None and told.get("by_api_key", True):
        rows = {row.get("name"): row for row in keys_of(settings).values()}
        most = rows[owner].get("rate_limit") or usual
        who = "everybody" if has("keys-share-a-limit") and most < 10 else owner
        taken = exchange.router.limits.take(f"key {who}", most, careless=has("limits-race"))
        waits.append(None if has("limits-off") else taken)
        if has("keys-share-a-limit") and owner == "other":
            waits.append(exchange.router.limits.take("key everybody", 3))
    wait = max((w for w in waits if w is not None), default=None)
    if wait is None:
        return
    if has("limited-but-forwarded"):
        aside.send(exchange.router, exchange.router.settings.models[-1], exchange.parse())
    raise Declined(
        429, "rate_limit_exceeded", "too many requests", None,
        wait_s=None if has("no-retry-after") else wait,
    )  # fmt: skip


def cors_fields(exchange: "Exchange") -> list[tuple[str, str]]:
    """Return the Access-Control fields of an answer."""
    told = exchange.router.settings.security.get("cors") or {}
    origin = exchange.headers.get("origin", "")
    if not told.get("enabled") or not origin:
        return []
    allowed = told.get("allowed_origins") or ()
    loose = exchange.has("origins-by-prefix") and any(origin.startswith(one) for one in allowed)
    if origin not in allowed and not loose:
        return []
    if exchange.command == "OPTIONS":
        names = ("Authorization", "Content-Type", *(field.name for field in FIELDS.values()))
        names = names[:2] if exchange.has("preflight-without-x-ai") else names
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Methods", "GET, POST, OPTIONS"),
            ("Access-Control-Allow-Headers", ", ".join(names)),
            ("Vary", "Origin"),
        ]
    if exchange.has("errors-without-cors") and exchange.failing:
        return []
    fields = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
    if not exchange.has("nothing-exposed"):
        fields.append(("Access-Control-Expose-Headers", ", ".join(("x-request-id", *EXPOSED))))
    return fields


def hardened(exchange: "Exchange") -> list[tuple[str, str]]:
    """Return the fields that every answer carries for safety."""
    return [] if exchange.has("unhardened") else [("X-Content-Type-Options", "nosniff")]


def demands(ask: "Ask") -> tuple[frozenset[str], frozenset[str], bool]:
    """Return the labels, the regions and whether only local providers may serve.

    Security holds in every mode, the disabled one included.

    Raises:
        Refusal: 422 for a label nobody has, or a class nobody configured.
    """
    if ask.has("security-ignored") or (
        ask.mode == "disabled" and ask.has("disabled-drops-security")
    ):
        return frozenset(), frozenset(), False
    if ask.has("medical-relaxes-security") and ask.preferences.hint == "medical":
        return frozenset(), frozenset(), False
    labels = frozenset(ask.preferences.labels)
    if ask.has("first-label-only"):
        labels = frozenset(ask.preferences.labels[:1])
    for label in labels:
        if ask.has(f"{label}-ignored") and len(labels) == 1:
            labels = frozenset()
    known = {label for p in ask.settings.providers.values() for label in p.labels}
    if labels - known and not ask.has("unknown-label-ok"):
        raise Refusal(
            422, "unsupported_security_requirement", "no provider is attested for that label",
            "X-AI-Security-Requirements",
        )  # fmt: skip
    name = ask.preferences.data_class
    if name is None:
        return labels, frozenset(), False
    row = (ask.settings.security.get("classes") or {}).get(name)
    if row is None:
        if ask.has("unknown-class-ok"):
            return labels, frozenset(), False
        raise Refusal(
            422, "unknown_data_classification", "no such data class", "X-AI-Data-Classification"
        )
    labels |= set(row.get("labels") or ())
    if ask.has("mixed-is-half-strict") and name == "financial-mixed":
        labels -= {"sovereignty"}
    regions = (
        frozenset() if ask.has("class-regions-ignored") else frozenset(row.get("regions") or ())
    )
    local = bool(row.get("local_only")) and not ask.has("local-only-ignored")
    return labels, regions, local
