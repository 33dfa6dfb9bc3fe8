"""Errors in the form of this API, both ways."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.anthropic.vocabulary import STATUS
from aiproxy.middleware.dialects.canonical import StreamError

#: HTTP status -> error type; 400 stands for other 4xx, 500 for other 5xx.
_TYPES: Final[dict[int, str]] = {
    **{status: kind for kind, status in STATUS.items()},
    408: "timeout_error",
    503: "overloaded_error",
}
#: Words of our own errors (their ``code`` or ``type``), for frames, which have no status.
_WORDS: Final[dict[str, str]] = {
    "rate_limit_exceeded": "rate_limit_error",
    "insufficient_quota": "billing_error",
    "invalid_api_key": "authentication_error",
    "model_not_found": "not_found_error",
}


def encode_error(status: int, error: Mapping[str, Any]) -> dict[str, Any]:
    """Return the error body of a response: ``error`` is the inner object of the OpenAI form
    (message, type, param, code); its code and param stay as members beside."""
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return _body(kind, error)


def encode_error_frame(error: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of an ``error`` event, whose kind is told from the error's own words."""
    inner = error.get("error")
    if isinstance(inner, Mapping):
        error = inner
    kind = "api_error"
    for name in ("type", "code"):
        found = reading.word(error.get(name))
        kind = found if found in STATUS else _WORDS.get(found, kind)
        if kind != "api_error":
            break
    return _body(kind, error)


def _body(kind: str, error: Mapping[str, Any]) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": kind, "message": reading.word(error.get("message"))}
    for name in ("code", "param"):
        if error.get(name) is not None:
            inner[name] = error[name]
    return {"type": "error", "error": inner}


def stream_error(payload: Mapping[str, Any]) -> StreamError:
    """Return the failure that an ``error`` event reports."""
    inner = payload.get("error")
    if not isinstance(inner, Mapping):
        inner = payload if inner is None else {"message": str(inner)}
    kind = reading.optional(inner.get("type"))
    message = inner.get("message")
    return StreamError(
        kind if kind != "error" else None,
        message if isinstance(message, str) else "",
        kind,
        STATUS.get(kind or ""),
    )
