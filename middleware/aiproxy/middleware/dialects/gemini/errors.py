"""Errors in Google's form, both ways."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import StreamError

#: HTTP status -> canonical code of google.rpc.
_CODES: Final[dict[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_STATUSES: Final[dict[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def encode_error(status: int, error: Mapping[str, Any]) -> dict[str, Any]:
    """Return the error body of Google's APIs. ``error`` is the inner object of an OpenAI error;
    its code and parameter travel as an ``ErrorInfo``."""
    inner = error.get("error")
    if isinstance(inner, Mapping):
        error = inner
    fallback = "INTERNAL" if status >= 500 else "FAILED_PRECONDITION"
    body: dict[str, Any] = {
        "code": status,
        "message": str(error.get("message") or ""),
        "status": _CODES.get(status, fallback),
    }
    code, param = error.get("code"), error.get("param")
    if isinstance(code, str) and code:
        metadata = {"param": param} if isinstance(param, str) and param else {}
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": code.upper(),
            "domain": "aiproxy",
            "metadata": metadata,
        }
        body["details"] = [info]
    return {"error": body}


def stream_error(error: object) -> StreamError:
    """Return the failure a stream reported in its ``error`` member."""
    if not isinstance(error, Mapping):
        return StreamError(None, str(error))
    code, status = error.get("code"), reading.optional(error.get("status"))
    if not isinstance(code, int) or isinstance(code, bool):
        code = _STATUSES.get(status or "")
    return StreamError(status, str(error.get("message") or ""), status, code)
