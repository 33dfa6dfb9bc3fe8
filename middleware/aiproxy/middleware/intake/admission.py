"""What a request must pass before it is understood: an id, a caller, a JSON body."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from hmac import compare_digest
from re import compile as compile_pattern
from typing import Any, Final

import orjson

from aiproxy.middleware.effects import Headers
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.gateway import Gateway
from aiproxy.middleware.intake.ingress import how_to_sign_in, offered_keys
from aiproxy.middleware.settings import ApiKey

_REQUEST_ID: Final = compile_pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def request_id(headers: Headers, new_id: Callable[[], str]) -> str:
    """The client's ``X-Request-ID`` when it is well formed, else a new one (AIP-API-037)."""
    for name, value in headers:
        if name == "x-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return f"req_{new_id()}"


def read_json(raw: bytes) -> dict[str, Any]:
    """The body as an object.

    Raises:
        ProxyError: 400 ``invalid_json`` or ``invalid_type``.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as fault:
        raise ProxyError(
            "invalid_json",
            f"The body is not valid JSON (line {fault.lineno}, column {fault.colno}).",
        ) from None
    if not isinstance(body, dict):
        raise ProxyError("invalid_type", "The body must be a JSON object.", param="body")
    return body


def responses_mode(body: Mapping[str, Any]) -> str:
    """``messages`` is the draft's shape, ``input`` the genuine one (XAI-COMPAT-015)."""
    drafted, genuine = body.get("messages") is not None, body.get("input") is not None
    if drafted and genuine:
        raise ProxyError(
            "invalid_value", "Send either input or messages, not both.", param="messages"
        )
    if not drafted and not genuine and "prompt" not in body:
        raise ProxyError(
            "missing_required_parameter",
            "Missing input (or messages, for the shape of the draft).",
            param="input",
        )
    return "draft" if drafted else "responses"


def authenticate(
    gateway: Gateway, headers: Headers, scope: str, endpoint: str = "", query: str = ""
) -> ApiKey | None:
    """The caller's key, or ``None`` where keys are off (AIP-CFG-100, 101).

    ``scope`` is what the request needs: *inference* or *read*; *admin* includes both. ``endpoint``
    says whose clients ask: those of other APIs than OpenAI's may send the key where theirs has it.

    Raises:
        ProxyError: 401 ``invalid_api_key``, 403 ``insufficient_scope``.
    """
    keys = gateway.settings.keys
    if keys is None:
        return None
    found = None
    for token in offered_keys(endpoint, headers, query):
        digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
        for key in keys:
            if compare_digest(key.digest, digest):
                found = found or key
    if found is None:
        raise ProxyError(
            "invalid_api_key",
            f"Missing or unknown API key; send it as {how_to_sign_in(endpoint)}.",
            headers=(("www-authenticate", 'Bearer realm="aiproxy"'),),
        )
    if scope not in found.scopes and "admin" not in found.scopes:
        raise ProxyError(
            "insufficient_scope", f"This key lacks the scope {scope!r} that the request needs."
        )
    return found


def permit_model(gateway: Gateway, owner: str | None, model: str) -> None:
    """403 ``model_not_permitted`` where a key is limited to some models."""
    if not may_use(gateway, owner, model):
        raise ProxyError("model_not_permitted", "This key may not use this model.", param="model")


def may_use(gateway: Gateway, owner: str | None, model: str) -> bool:
    """Whether the key of that name may use a model."""
    return not any(
        key.name == owner and key.models is not None and model not in key.models
        for key in gateway.settings.keys or ()
    )
