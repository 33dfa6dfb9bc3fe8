"""What an upstream's answer means: a reply, the request's own fault, or a failure to survive.

The retryable table (XAI-FAIL-005 to 010): connection faults, timeouts, 408, 409, 429, 5xx and
529, and an unreadable 200 may be tried elsewhere; 400, 413 and 422 are the request's fault; 401
and 403 mean the provider is misconfigured; 404 means it lacks the model. What the body says may
tell more than the status (``taxonomy``). Upstream text is never relayed: only codes that are on
our own list, and a parameter path that looks like one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from re import compile as compile_pattern
from typing import Any, Final

from aiproxy.middleware.answering.taxonomy import Kind, effective_status, kind_of, whole_account
from aiproxy.middleware.answering.told import Told, read, tell
from aiproxy.middleware.answering.waits import in_prose, retry_after
from aiproxy.middleware.dialects.canonical import StreamError
from aiproxy.middleware.dialects.reading import words as listed
from aiproxy.middleware.effects import Answer, Failure
from aiproxy.middleware.errors import ProxyError

__all__ = [
    "MODEL_NOT_FOUND",
    "Fault",
    "Rejection",
    "client_error",
    "of_answer",
    "of_body",
    "of_error_object",
    "of_failure",
    "of_stream_failure",
    "retry_after",
]

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
#: Code of the fault of a provider that lacks the model.
MODEL_NOT_FOUND: Final = "model_not_found"
#: Codes of a provider that mean the same here; any other becomes ``invalid_value``.
_TOLD_CODES: Final = frozenset(
    {
        "unsupported_parameter",
        "invalid_type",
        "missing_required_parameter",
        "unsupported_capability",
    }
)
#: How long a used-up quota is left alone at least: nothing comes back within a minute or two.
QUOTA_COOL_S: Final = 600.0
#: Where a parameter path may begin: a provider's path is shown when it leads into the request, so
#: that nothing else it writes there is repeated.
_MEMBERS: Final = listed(
    """
    dimensions encoding_format frequency_penalty functions function_call include input instructions
    logit_bias logprobs max_completion_tokens max_output_tokens max_tokens max_tool_calls messages
    metadata modalities model n parallel_tool_calls presence_penalty previous_response_id prompt
    prompt_cache_key reasoning reasoning_effort response_format safety_identifier seed service_tier
    stop store stream stream_options temperature text tool_choice tools top_k top_logprobs top_p
    truncation user verbosity
    """
)
_FIRST_STEP: Final = compile_pattern(r"[.\[]")
#: Dialects whose parameters have the names that our own clients use.
_OUR_NAMES: Final = frozenset(
    {None, "chat", "responses", "completions", "embeddings", "classifications", "mistral"}
)


#: Failures that another address of the same provider may not share.
_OF_ENDPOINTS: Final = frozenset(
    {
        "connect_error",
        "dns_error",
        "tls_error",
        "http_5xx",
        "invalid_response",
        "overloaded",
        "rate_limited",
        "stream_interrupted",
        "timeout",
    }
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt gave no reply.

    ``reason`` is a registered failure code. ``retry``: *same* (may be tried at the same provider
    again), *other* (only elsewhere), *larger* (only models with a larger context), *unsealed* (at
    the same provider once more without opaque data of earlier turns), *never* (the request's own
    fault). ``whole_provider``: the fault says something about all its models. ``cool_s``: leave it
    alone that long at least, which is not what a client is told to wait. ``counts``: it speaks
    against the provider's health. ``unreached``: the provider cannot have worked on the request.
    """

    reason: str
    retry: str
    status: int | None = None
    retry_after_s: float | None = None
    whole_provider: bool = False
    counts: bool = True
    code: str | None = None
    param: str | None = None
    cool_s: float | None = None
    unreached: bool = False

    @property
    def of_endpoint(self) -> bool:
        """Whether it may be the fault of one address of a provider, and not of all."""
        return self.counts and self.reason in _OF_ENDPOINTS and self.code != MODEL_NOT_FOUND

    @property
    def pause_s(self) -> float | None:
        """How long not to ask again: the longer of what was asked for and what we know."""
        if self.retry_after_s is None or self.cool_s is None:
            return self.cool_s if self.retry_after_s is None else self.retry_after_s
        return max(self.retry_after_s, self.cool_s)


class Rejection(Exception):
    """An attempt that gave no reply. Internal to the chain of attempts."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


def of_failure(failure: Failure) -> Fault:
    """The fault of a call that had no usable answer."""
    reason = _REASON_OF_KIND[failure.kind]
    if failure.kind in ("connect_refused", "reset"):
        refused = failure.kind == "connect_refused"
        return Fault(reason, "same", whole_provider=refused, unreached=refused)
    connection = failure.kind in ("dns_failure", "tls_failure", "connect_timeout")
    return Fault(reason, "other", whole_provider=connection, unreached=connection)


def of_stream_failure(failure: Failure) -> Fault:
    """The fault of a stream that broke or fell silent: somebody else may answer, not this one."""
    if failure.kind == "reset":
        return Fault("stream_interrupted", "other", 200)
    return replace(
        of_failure(failure), retry="other", whole_provider=False, status=200, unreached=False
    )


def of_answer(
    answer: Answer,
    wall_now: float,
    *,
    from_app: bool = False,
    dialect: str | None = None,
    words: Mapping[str, str] | None = None,
    limits: Mapping[str, Iterable[str]] | None = None,
) -> Fault | None:
    """The fault of an answer by its status and body, or ``None`` for a 2xx; see ``of_body``.

    ``from_app``: the wrapped application answered. It saw the client's own credentials, so its 401
    and 403 are the client's, and asking somebody else instead would walk around them.
    ``words`` and ``limits`` are the catalogue's for this kind of provider: its own words for our
    kinds, and its rate-limit headers.
    """
    status = answer.status
    if 200 <= status < 300:
        return None
    if status in (401, 403) and from_app:
        return Fault("auth_failed", "never", status, counts=False)
    if status < 400:
        return Fault("invalid_response", "other", status)
    told = read(answer.body)
    if status in (429, 503) and "local_gpu_busy" in told.words:
        return Fault("local_gpu_busy", "other", status, counts=False)
    kind = kind_of(status, told, words)
    wait = retry_after(answer.headers, wall_now, limits) if _may_pass(kind, status) else None
    return _fault(kind, status, told, wait, from_app=from_app, dialect=dialect)


def of_body(
    document: Any, *, dialect: str | None = None, words: Mapping[str, str] | None = None
) -> Fault:
    """The fault of a 2xx document that is no answer: an error of any dialect, or nothing at all."""
    if isinstance(document, Mapping) and not _is_error(document):
        return Fault("invalid_response", "other", 200)
    return of_error_object(document, dialect=dialect, words=words)


def of_error_object(
    error: Any, *, dialect: str | None = None, words: Mapping[str, str] | None = None
) -> Fault:
    """The fault of an error inside a 200 (a body or a stream): an error document of any dialect,
    its inner object, or a decoder's ``StreamError``."""
    if isinstance(error, StreamError):
        told = tell({"code": error.code, "type": error.type, "message": error.message})
        told = replace(told, status=error.status or told.status)
    else:
        told = tell(error)
    kind = kind_of(200, told, words)
    if kind is None or (kind == "invalid_request" and told.status is None):
        return Fault("invalid_response", "other", 200)
    fault = _fault(kind, 200, told, None, from_app=False, dialect=dialect)
    return replace(fault, retry="other") if fault.retry == "same" else fault


def _fault(
    kind: Kind | None,
    status: int,
    told: Told,
    wait: float | None,
    *,
    from_app: bool,
    dialect: str | None,
) -> Fault:
    if kind is None:
        # Any other 4xx is about how the provider was addressed: not the client's doing, and a
        # repeat elsewhere is not known to help.
        return Fault("http_4xx", "never", status, counts=False)
    if kind == "content_filtered":
        return Fault("content_filtered", "never", status, counts=False, code="content_filter")
    if kind == "context_length_exceeded":
        return Fault(kind, "larger", status, counts=False, code=kind)
    if kind == "sealed":
        return Fault("http_4xx", "unsealed", status, counts=False)
    if kind == "model_not_found":
        return Fault("http_4xx", "other", status, code=MODEL_NOT_FOUND)
    if kind in ("auth_failed", "billing"):
        if from_app and status != 402:
            return Fault("http_4xx", "never", status, counts=False)
        return Fault("auth_failed", "other", status, whole_provider=True)
    if kind in ("invalid_request", "request_too_large"):
        code = next((word for word in told.words if word in _TOLD_CODES), None)
        param = _known_path(told.param) if dialect in _OUR_NAMES else None
        shown = 413 if kind == "request_too_large" else status
        return Fault("http_4xx", "never", shown, counts=False, code=code, param=param)
    wait = _first(wait, told.wait_s, in_prose(told.plain))
    if kind == "quota_exhausted":
        whole = whole_account(told)
        return Fault("rate_limited", "other", status, wait, whole, cool_s=QUOTA_COOL_S)
    if kind == "server_error":
        behind = effective_status(status, told)
        retry = "same" if behind in (500, 502) or behind < 500 else "other"
        return Fault("http_5xx", retry, status, wait)
    return Fault(kind, "other", status, wait)


def _known_path(param: str | None) -> str | None:
    if param is None or _FIRST_STEP.split(param, maxsplit=1)[0] not in _MEMBERS:
        return None
    return param


def _may_pass(kind: Kind | None, status: int) -> bool:
    return status >= 500 or kind in ("rate_limited", "quota_exhausted", "overloaded", "timeout")


def _first(*waits: float | None) -> float | None:
    return next((wait for wait in waits if wait is not None), None)


def _is_error(document: Mapping[str, Any]) -> bool:
    """Whether a 2xx document says that it is an error, in one of the known ways."""
    base = document.get("base_resp")
    feedback = document.get("promptFeedback")
    return bool(
        document.get("error")
        or document.get("errors")
        or document.get("success") is False
        or document.get("type") == "error"
        or document.get("object") == "error"
        or document.get("detail")
        or isinstance(document.get("Output"), Mapping)
        or (isinstance(base, Mapping) and base.get("status_code"))
        or (isinstance(feedback, Mapping) and feedback.get("blockReason"))
    )


def client_error(fault: Fault, prompt_member: str) -> ProxyError:
    """The request's own fault, told in our words with the provider's status; ``prompt_member`` is
    where the client wrote the prompt."""
    if fault.reason == "context_length_exceeded":
        return ProxyError(
            "context_length_exceeded",
            "The prompt does not fit the context window of any model that could serve it; "
            "shorten it.",
            param=prompt_member,
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
