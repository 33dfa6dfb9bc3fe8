"""One taxonomy of upstream errors, and how every provider's words map to it.

``kind_of`` looks at the provider's own words first (its entry of the catalogue, then words that
mean the same everywhere), then at prose, then at the status. Prose is looked at where servers have
no word. What is in quotes there may be the client's own text sent back, so it is not looked at; and
what would hold against other requests as well (a credential, a quota, a missing model) must be how
the message begins.
"""

from collections.abc import Mapping
from re import Pattern
from re import compile as compile_pattern
from typing import Any, Final, Literal, TypeAlias

from aiproxy.middleware.answering.told import Told

Kind: TypeAlias = Literal[
    "content_filtered",
    "sealed",
    "context_length_exceeded",
    "model_not_found",
    "quota_exhausted",
    "billing",
    "auth_failed",
    "rate_limited",
    "overloaded",
    "timeout",
    "request_too_large",
    "invalid_request",
    "server_error",
]

#: Where several words of one body disagree, the first of these holds: a filter's verdict before
#: everything, since it is never routed around.
_ORDER: Final[tuple[Kind, ...]] = (
    "content_filtered",
    "sealed",
    "context_length_exceeded",
    "model_not_found",
    "quota_exhausted",
    "billing",
    "auth_failed",
    "rate_limited",
    "overloaded",
    "timeout",
    "request_too_large",
    "invalid_request",
    "server_error",
)
_LISTS: Final[Mapping[Kind, str]] = {
    "content_filtered": """
        blocked_prompt cyber_policy content_filter content_filtered content_policy_violation
        contentfilter flagged_input guardrail_intervened image_content_policy_violation
        invalid_prompt moderation_blocked prohibited_content responsibleaipolicyviolation""",
    "sealed": "invalid_encrypted_content invalid_thinking_signature",
    "context_length_exceeded": """
        context_length_exceeded context_window_exceeded contextwindowexceedederror
        exceed_context_size_error max_context_length_exceeded model_max_prompt_tokens_exceeded
        prompt_too_long string_above_max_length""",
    "model_not_found": """
        deploymentnotfound invalid_model model_decommissioned model_not_available model_not_exist
        model_not_found model_not_supported model_terms_required modelnotfound modelnotsupported
        not_found not_found_error notfounderror resourcenotfoundexception unknown_model
        unsupported_model""",
    "quota_exhausted": """
        billing_hard_limit_reached daily_limit_exceeded exceeded_current_quota_error
        insufficient_quota quota_exceeded servicequotaexceededexception""",
    "billing": """
        billing_error billing_not_active insufficient_balance insufficient_credits
        insufficient_funds payment_required""",
    "auth_failed": """
        access_denied accessdeniedexception account_deactivated api_key_invalid
        api_key_service_blocked authentication_error consumer_suspended expired_api_key
        expiredtokenexception incorrect_api_key invalid_api_key invalid_authentication
        invalid_authentication_error invalidsignatureexception permission_denied permission_error
        service_disabled unauthenticated unauthorized unrecognizedclientexception
        unsupported_country_region_territory""",
    "rate_limited": """
        rate_limit rate_limit_error rate_limit_exceeded rate_limit_reached_error rate_limited
        ratelimiterror resource_exhausted throttlingexception too_many_requests""",
    "overloaded": """
        at_capacity capacity_exceeded engine_overloaded engine_overloaded_error model_overloaded
        modelnotreadyexception overloaded overloaded_error server_overloaded service_unavailable
        service_unavailable_error serviceunavailableexception slow_down unavailable
        unavailable_error""",
    "timeout": """
        deadline_exceeded gateway_timeout modeltimeoutexception request_timeout timeout
        timeout_error""",
    "request_too_large": "payload_too_large request_too_large requestbodytoolarge",
    "server_error": """
        generation internal internal_error internal_server_error internalerror
        internalserverexception internal_failure modelerrorexception modelstreamerrorexception
        server_error""",
}
WORDS: Final[Mapping[str, Kind]] = {
    word: kind for kind, words in _LISTS.items() for word in words.split()
}

#: Prose that concerns this request alone: it may stand anywhere.
_ANYWHERE: Final[tuple[tuple[Kind, Pattern[str]], ...]] = (
    (
        "content_filtered",
        compile_pattern(
            r"content management policy|content filter(ing|ed)|flagged as potentially violating"
            r"|violat\w* .{0,40}(guideline|polic)|content exists risk|our safety system"
            r"|inappropriate content|flagged by .{0,30}moderation|prompt was blocked"
        ),
    ),
    (
        "context_length_exceeded",
        compile_pattern(
            r"context.length|context window|context limit|context size|maximum context"
            r"|prompt (is )?too long|input is too long|input token count"
            r"|maximum number of (input )?tokens|maximum prompt length|must have less than \d+ tokens"
            r"|number of tokens in the prompt cannot exceed|reduce the length of the"
            r"|too many tokens: size limit|range of input length"
        ),
    ),
)
#: Prose about opaque data of earlier turns, which names members in quotes.
_SEALED: Final = compile_pattern(
    r"encrypted content .{0,200}(could|can) ?not be (verified|decrypted|parsed)"
    r"|invalid .?(signature|data).? in .{0,3}(redacted_)?thinking"
    r"|thinking.{0,60} blocks? .{0,60}cannot be modified"
    r"|(corrupted|invalid) thought.?signature|thought.?signature.{0,40}(not valid|invalid|corrupt)"
    r"|item with id .?rs_\w+.? not found"
)
#: Prose that holds against more than this request: only as the beginning of a message.
_OPENING: Final[tuple[tuple[Kind, Pattern[str]], ...]] = (
    (
        "model_not_found",
        compile_pattern(
            r"(the )?(requested )?model\b.{0,140}?\b(does not exist|not found|not exist"
            r"|is not available|is not supported for|has been (deprecated|decommissioned|removed))"
            r"|(unknown|invalid|no such|unsupported) model\b|models/.{0,140}is not found"
            r"|no endpoints found|failed to load model|no models? loaded"
        ),
    ),
    (
        "billing",
        compile_pattern(
            r"your credit balance is too low|insufficient (balance|credits?|funds)"
            r"|your account .{0,40}(not active|suspended|in arrears)|payment required"
        ),
    ),
    (
        "auth_failed",
        compile_pattern(
            r"(incorrect|invalid|missing|expired|no) (api[ _-]?key|api[ _-]?token|x-api-key)"
            r"|api[ _-]?key (not valid|expired|not found|is invalid)|user location is not supported"
            r"|authentication (failed|error)|access denied due to invalid subscription key"
        ),
    ),
)
_DAILY: Final = compile_pattern(
    r"daily (free |request |token )?(limit|quota|allocation|usage)|per[ -](day|month)\b|\((r|t)pd\)"
    r"|/ ?(day|month)\b|monthly (limit|quota|usage)"
)
_WHOLE_QUOTA: Final = compile_pattern(
    r"you exceeded your current quota|you have used up your|quota (has been )?exhausted"
)
#: Statuses at which prose decides; others say enough by themselves.
_BY_PROSE: Final = frozenset({200, 400, 403, 404, 410, 413, 422, 500})
#: 4xx in whose body a failure of the server behind it is believed.
_WRAPS: Final = frozenset({200, 400, 422, 424})

_BY_STATUS: Final[Mapping[int, Kind]] = {
    400: "invalid_request",
    401: "auth_failed",
    402: "billing",
    403: "auth_failed",
    404: "model_not_found",
    408: "timeout",
    409: "overloaded",
    413: "request_too_large",
    422: "invalid_request",
    424: "server_error",
    429: "rate_limited",
    498: "overloaded",  # Groq: no capacity for the flex tier
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}


def kind_of(status: int, told: Told, words: Mapping[str, str] | None = None) -> Kind | None:
    """Return what an error means; ``None`` when neither words nor status tell.

    ``status`` is 200 for errors inside a 2xx. ``words`` are the provider's own (lower case) with
    the kinds they stand for.
    """
    kind = _by_words(status, told, words)
    if kind is None and status in _BY_PROSE:
        kind = _by_prose(status, told)
    if kind is None:
        kind = _BY_STATUS.get(_effective(status, told))
    if kind is None and _effective(status, told) >= 500:
        kind = "server_error"
    if kind == "rate_limited":
        return "quota_exhausted" if _is_quota(told) else kind
    return kind


def effective_status(status: int, told: Told) -> int:
    """Return the status that counts: one of a server behind, wrapped in a 200 or a 4xx."""
    return _effective(status, told)


def _effective(status: int, told: Told) -> int:
    inner = told.status
    if inner is None or status not in _WRAPS:
        return status
    return inner if status == 200 or inner >= 500 or inner in (408, 429) else status


def _by_words(status: int, told: Told, words: Mapping[str, str] | None) -> Kind | None:
    found: set[Any] = set()
    for word in told.words:
        kind: Any = words.get(word) if words else None
        if kind is None:
            kind = WORDS.get(word)
        if kind is not None and _credible(kind, word, status):
            found.add(kind)
    return next((kind for kind in _ORDER if kind in found), None)


def _credible(kind: Kind, word: str, status: int) -> bool:
    """Whether a word may say more than the status: a 5xx stays one, whatever stands in it."""
    if kind == "content_filtered":
        return True
    if kind == "server_error":
        return status in _WRAPS or (status >= 500 and status not in _BY_STATUS)
    if status >= 500:
        return kind in ("overloaded", "timeout", "rate_limited", "quota_exhausted")
    if kind in ("overloaded", "timeout"):
        return status in _WRAPS or status in (404, 408, 409, 429)
    if status in (401, 402):
        return kind in ("auth_failed", "billing", "quota_exhausted")
    if kind == "model_not_found" and word.startswith(("not_found", "notfound")):
        return status in (200, 404)
    return True


def _by_prose(status: int, told: Told) -> Kind | None:
    if _SEALED.search(told.message) and status != 500:
        return "sealed"
    plain = told.plain
    for kind, pattern in _ANYWHERE:
        if pattern.search(plain) and (status != 500 or kind == "context_length_exceeded"):
            return kind
    if status == 500:
        return None
    for kind, pattern in _OPENING:
        if pattern.match(plain.lstrip()):
            return kind
    return None


def _is_quota(told: Told) -> bool:
    if told.daily or _DAILY.search(told.plain):
        return True
    # Google says this of every limit and tells which one in its details.
    return "resource_exhausted" not in told.words and bool(_WHOLE_QUOTA.search(told.plain))


def whole_account(told: Told) -> bool:
    """Whether a used-up quota is that of the account rather than of one model."""
    named = any(WORDS.get(word) == "quota_exhausted" for word in told.words)
    return named or not (told.one_model or " for model" in told.message or "(rpd)" in told.plain)
