"""Who may ask, and what their data demands: keys, labels, data classes, rate limits, CORS.

Hook points: ``authenticate`` before anything else, ``admit`` after it, ``demands`` while a request
is understood, ``cors_fields`` on every answer.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from right_server import Refusal

if TYPE_CHECKING:
    from right_router.asking import Ask
    from right_router.serving import Exchange


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
    if scheme.lower() != "bearer" or key.strip() not in keys:
        raise Refusal(401, "invalid_api_key", "the key is missing or wrong", "Authorization")
    return str(keys[key.strip()].get("name"))


def admit(exchange: "Exchange", owner: str | None) -> None:
    """Let a caller in, or refuse for rate; later levels fill this."""


def cors_fields(exchange: "Exchange") -> list[tuple[str, str]]:
    """Return the Access-Control fields of an answer; later levels fill this."""
    return []


def demands(ask: "Ask") -> tuple[frozenset[str], frozenset[str], bool]:
    """Return the labels, the regions and whether only local providers may serve.

    Security holds in every mode, the disabled one included.

    Raises:
        Refusal: 422 for a label nobody has, or a class nobody configured.
    """
    if ask.has("security-ignored") or (ask.mode == "disabled" and ask.has("disabled-drops-security")):
        return frozenset(), frozenset(), False
    if ask.has("medical-relaxes-security") and ask.preferences.hint == "medical":
        return frozenset(), frozenset(), False
    labels = frozenset(ask.preferences.labels)
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
    return labels, frozenset(row.get("regions") or ()), bool(row.get("local_only"))
