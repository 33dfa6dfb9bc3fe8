"""What an upstream's answer means: a reply, the request's own fault, or a failure to survive.

The retryable table (XAI-FAIL-005 to 010): connection faults, timeouts, 408, 409, 429, 5xx and
529, and an unreadable 200 may be tried elsewhere; 400, 413 and 422 are the request's fault; 401
and 403 mean the provider is misconfigured; 404 means it lacks the model. Upstream text is never
relayed: only codes that are on our own list, and a parameter path that looks like one.
"""

from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from math import isfinite
from re import compile as compile_pattern
from typing import Any, Final

import orjson

from aiproxy.middleware.effects import Answer, Failure, Headers
from aiproxy.middleware.errors import ProxyError

_REASON_OF_KIND: Final = {
    "connect_refused": "connect_error",
    "dns_failure": "dns_error",
    "tls_failure": "tls_error",
    "connect_timeout": "timeout",
    "first_byte_timeout": "timeout",
    "idle_timeout": "timeout",
    "total_timeout": "timeout",
    "reset": "connect_error",
    "protocol_error": "invalid_response",
    "too_large": "invalid_response",
    "app_error": "http_5xx",
}
#: Status -> reason and retry, where the body has nothing to add.
_STATUSES: Final = {
    408: ("timeout", "other"),
    409: ("overloaded", "other"),
    429: ("rate_limited", "other"),
    500: ("http_5xx", "same"),
    502: ("http_5xx", "same"),
    503: ("overloaded", "other"),
    504: ("timeout", "other"),
    529: ("overloaded", "other"),
}
#: Code of the fault of a provider that lacks the model.
MODEL_NOT_FOUND: Final = "model_not_found"
_PARAM: Final = compile_pattern(r"[A-Za-z_][A-Za-z0-9_.\[\]-]{0,99}")
_CONTEXT_CODES: Final = frozenset({"context_length_exceeded", "string_above_max_length"})
_FILTER_CODES: Final = frozenset({"content_filter", "content_policy_violation", "invalid_prompt"})
#: Codes of a provider that mean the same here; any other becomes ``invalid_value``.
_TOLD_CODES: Final = frozenset(
    {
        "unsupported_parameter",
        "invalid_type",
        "missing_required_parameter",
        "unsupported_capability",
    }
)
_QUOTA_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt gave no reply.

    ``reason`` is a registered failure code. ``retry``: *same* (may be tried at the same provider
    again), *other* (only elsewhere), *larger* (only models with a larger context), *never* (the
    request's own fault). ``whole_provider``: the fault says something about all its models.
    """

    reason: str
    retry: str
    status: int | None = None
    retry_after_s: float | None = None
    whole_provider: bool = False
    counts: bool = True
    code: str | None = None
    param: str | None = None


class Rejection(Exception):
    """An attempt that gave no reply. Internal to the chain of attempts."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


def of_failure(failure: Failure) -> Fault:
    """The fault of a call that had no usable answer."""
    reason = _REASON_OF_KIND[failure.kind]
    if failure.kind in ("connect_refused", "reset"):
        return Fault(reason, "same", whole_provider=failure.kind == "connect_refused")
    connection = failure.kind in ("dns_failure", "tls_failure", "connect_timeout")
    return Fault(reason, "other", whole_provider=connection)


def of_stream_failure(failure: Failure) -> Fault:
    """The fault of a stream that broke or fell silent: somebody else may answer, not this one."""
    if failure.kind == "reset":
        return Fault("stream_interrupted", "other", 200)
    return replace(of_failure(failure), retry="other", whole_provider=False, status=200)


def of_answer(answer: Answer, wall_now: float, *, from_app: bool = False) -> Fault | None:
    """The fault of an answer by its status, or ``None`` for a 2xx.

    ``from_app``: the wrapped application answered. It saw the client's own credentials, so its 401
    and 403 are the client's, and asking somebody else instead would walk around them.
    """
    status = answer.status
    if 200 <= status < 300:
        return None
    if status in (401, 403) and from_app:
        return Fault("auth_failed", "never", status, counts=False)
    if status in (401, 402, 403):
        return Fault("auth_failed", "other", status, whole_provider=True)
    error = read_error(answer.body)
    code = _text(error, "code")
    if status == 404 or (status == 400 and code == MODEL_NOT_FOUND):
        return Fault("http_4xx", "other", status, code=MODEL_NOT_FOUND)
    if status in (400, 413, 422):
        return _request_fault(status, code, error)
    if code == "local_gpu_busy" and status in (429, 503):
        return Fault("local_gpu_busy", "other", status, counts=False)
    known = _STATUSES.get(status)
    if known is not None:
        reason, retry = known
        wait = retry_after(answer.headers, wall_now)
        return Fault(reason, retry, status, wait, whole_provider=code in _QUOTA_CODES)
    if status >= 500:
        return Fault("http_5xx", "other", status, retry_after(answer.headers, wall_now))
    if status < 400:
        return Fault("invalid_response", "other", status)
    # Any other 4xx is about how the provider was addressed: not the client's doing, and a repeat
    # elsewhere is not known to help.
    return Fault("http_4xx", "never", status, counts=False)


def _request_fault(status: int, code: str | None, error: Any) -> Fault:
    if status == 400 and (code in _CONTEXT_CODES or _mentions_context(error)):
        return Fault("context_length_exceeded", "larger", status, counts=False, code=code)
    reason = "content_filtered" if code in _FILTER_CODES else "http_4xx"
    return Fault(reason, "never", status, counts=False, code=code, param=_param(error))


def of_error_object(error: Any) -> Fault:
    """The fault of an error object inside a 200 (a body or a stream)."""
    code = _text(error, "code") or _text(error, "type")
    if code in _CONTEXT_CODES:
        return Fault("context_length_exceeded", "larger", 200, counts=False)
    if code in _FILTER_CODES:
        return Fault("content_filtered", "never", 200, counts=False, code=code)
    if code is not None and "rate_limit" in code:
        return Fault("rate_limited", "other", 200)
    if code is not None and "overloaded" in code:
        return Fault("overloaded", "other", 200)
    return Fault("invalid_response", "other", 200)


def read_error(body: bytes) -> Any:
    """The ``error`` member of an error body, or ``None``. Wrapped lists are opened."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(document, list) and document:
        document = document[0]
    return document.get("error") if isinstance(document, dict) else None


def retry_after(headers: Headers, wall_now: float) -> float | None:
    """Seconds a provider asks to wait: ``retry-after-ms``, seconds, or an HTTP date; a time in the
    past reads as 0."""
    found = dict(headers)
    milliseconds = _number(found.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    value = found.get("retry-after")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is not None:
        return max(0.0, seconds)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - wall_now)
    except (ValueError, TypeError, OverflowError):
        return None


def client_error(fault: Fault) -> ProxyError:
    """The request's own fault, told in our words with the provider's status."""
    if fault.reason == "context_length_exceeded":
        return ProxyError(
            "context_length_exceeded",
            "The prompt does not fit the context window of any model that could serve it; "
            "shorten it.",
            param="messages",
        )
    if fault.reason == "content_filtered":
        return ProxyError(
            "invalid_value",
            "The provider's content filter refused this request; it was not sent anywhere else.",
            status=400,
            should_retry=False,
        )
    status = fault.status or 400
    if status in (401, 403):
        return _refused_by_app(status)
    if status not in (400, 413, 422):
        return ProxyError(
            "upstream_invalid_response",
            f"The provider answered with status {status}, which says nothing about this request.",
            should_retry=False,
        )
    if status == 413:
        return ProxyError("request_too_large", "The provider refused the request as too large.")
    code = fault.code if fault.code is not None and fault.code in _TOLD_CODES else "invalid_value"
    where = f" in {fault.param!r}" if fault.param else ""
    return ProxyError(
        code,
        f"The provider refused the request with status {status}: a value{where} is not valid "
        "for this model.",
        param=fault.param,
        status=status,
    )


def _refused_by_app(status: int) -> ProxyError:
    if status == 401:
        return ProxyError("invalid_api_key", "The application did not accept these credentials.")
    return ProxyError("insufficient_scope", "The application does not allow this request.")


def _mentions_context(error: Any) -> bool:
    """Several servers say it in prose only."""
    message = _text(error, "message")
    return message is not None and "context length" in message.lower()


def _text(error: Any, name: str) -> str | None:
    value = error.get(name) if isinstance(error, dict) else None
    return value if isinstance(value, str) and len(value) < 2000 else None


def _param(error: Any) -> str | None:
    value = _text(error, "param")
    return value if value is not None and _PARAM.fullmatch(value) else None


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is not None and isfinite(number) else None
