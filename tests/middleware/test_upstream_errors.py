"""What providers say when they refuse, and what it means here: one row for each way of saying it."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxy.middleware.answering.outcome import (
    MODEL_NOT_FOUND,
    QUOTA_COOL_S,
    Fault,
    client_error,
    of_answer,
    of_body,
    of_error_object,
)
from aiproxy.middleware.answering.waits import retry_after
from aiproxy.middleware.dialects.canonical import StreamError
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.effects import Answer
from aiproxy.spec.catalog import presets

NOW = 1_800_000_000.0


def openai(message: str = "no", code: Any = None, type: Any = None, param: Any = None) -> Any:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def anthropic(type: str, message: str = "no") -> Any:
    return {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_1"}


def google(code: int, status: str, message: str = "no", *details: Any) -> Any:
    error = {"code": code, "message": message, "status": status}
    return {"error": error | ({"details": list(details)} if details else {})}


def cloudflare(code: int, message: str) -> Any:
    errors = [{"code": code, "message": f"AiError: {message}"}]
    return {"success": False, "errors": errors, "messages": [], "result": None}


def mistral(message: Any, type: str, code: str | None = None) -> Any:
    return {"object": "error", "message": message, "type": type, "param": None, "code": code}


def quota(*names: str) -> Any:
    rows = [{"quotaMetric": "m", "quotaId": name, "quotaValue": "20"} for name in names]
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": rows}


def retry_info(delay: str) -> Any:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


API_KEY_INVALID = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "API_KEY_INVALID",
    "domain": "googleapis.com",
}
USED_UP = "You exceeded your current quota, please check your plan and billing details."
TOO_LONG = "This model's maximum context length is 4096 tokens. However, you've asked for 5000."
FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content "
        "management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": True, "severity": "high"}},
        },
    }
}

#: What a fault is told by: (reason, retry, whole provider).
CONTEXT = ("context_length_exceeded", "larger", False)
FILTER = ("content_filtered", "never", False)
LACKING = ("http_4xx", "other", False)
SEALED = ("http_4xx", "unsealed", False)
OWN = ("http_4xx", "never", False)
AUTH = ("auth_failed", "other", True)
RATE = ("rate_limited", "other", False)
QUOTA = ("rate_limited", "other", True)
BUSY = ("overloaded", "other", False)
SLOW = ("timeout", "other", False)
BROKEN = ("http_5xx", "same", False)

ROWS: list[tuple[str, int, Any, tuple[str, str, bool]]] = [
    # OpenAI
    ("openai", 400, openai(code="invalid_value", param="n"), OWN),
    ("openai", 400, openai(TOO_LONG, "context_length_exceeded"), CONTEXT),
    ("openai", 400, openai("flagged", "invalid_prompt"), FILTER),
    ("openai", 400, openai("Your request was rejected by our safety system."), FILTER),
    ("openai", 401, openai("Incorrect API key provided: sk-x", "invalid_api_key"), AUTH),
    ("openai", 403, openai(code="unsupported_country_region_territory"), AUTH),
    ("openai", 403, openai("Project has no access to it", "model_not_found"), LACKING),
    ("openai", 404, openai("The model `x` does not exist", "model_not_found"), LACKING),
    ("openai", 429, openai("Rate limit reached", "rate_limit_exceeded", "requests"), RATE),
    ("openai", 429, openai(USED_UP, "insufficient_quota", "insufficient_quota"), QUOTA),
    ("openai", 429, openai(USED_UP), QUOTA),
    ("openai", 500, openai("The server had an error", type="server_error"), BROKEN),
    ("openai", 503, openai("Slow down", "slow_down"), BUSY),
    ("openai", 400, openai("no", "invalid_encrypted_content"), SEALED),
    (
        "openai",
        400,
        openai("The encrypted content gAAA= could not be verified. Reason: it is another org's."),
        SEALED,
    ),
    ("openai", 404, openai("Item with id 'rs_0a1b' not found. Items are not persisted"), SEALED),
    # Azure
    ("azure_openai", 400, FILTERED, FILTER),
    ("azure_openai", 401, openai("Access denied due to invalid subscription key", "401"), AUTH),
    ("azure_openai", 404, openai("not there", "DeploymentNotFound"), LACKING),
    ("azure_openai", 429, openai("Please retry after 20 seconds.", "429"), RATE),
    # Anthropic
    ("anthropic", 400, anthropic("invalid_request_error"), OWN),
    (
        "anthropic",
        400,
        anthropic("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
        CONTEXT,
    ),
    (
        "anthropic",
        400,
        anthropic(
            "invalid_request_error", "input length and `max_tokens` exceed context limit: 9 + 1 > 9"
        ),
        CONTEXT,
    ),
    (
        "anthropic",
        400,
        anthropic("invalid_request_error", "Output blocked by content filtering policy"),
        FILTER,
    ),
    (
        "anthropic",
        400,
        anthropic("invalid_request_error", "Your credit balance is too low to access the API."),
        AUTH,
    ),
    (
        "anthropic",
        400,
        anthropic(
            "invalid_request_error",
            "messages.1.content.0: Invalid `signature` in `thinking` block",
        ),
        SEALED,
    ),
    (
        "anthropic",
        400,
        anthropic(
            "invalid_request_error",
            "messages.3.content.0: `thinking` or `redacted_thinking` blocks in the latest "
            "assistant message cannot be modified.",
        ),
        SEALED,
    ),
    ("anthropic", 401, anthropic("authentication_error", "invalid x-api-key"), AUTH),
    ("anthropic", 402, anthropic("billing_error"), AUTH),
    ("anthropic", 403, anthropic("permission_error"), AUTH),
    ("anthropic", 404, anthropic("not_found_error", "model: claude-9"), LACKING),
    ("anthropic", 413, anthropic("request_too_large"), OWN),
    ("anthropic", 429, anthropic("rate_limit_error"), RATE),
    ("anthropic", 500, anthropic("api_error"), BROKEN),
    ("anthropic", 504, anthropic("timeout_error"), SLOW),
    ("anthropic", 529, anthropic("overloaded_error"), BUSY),
    # Google
    ("google", 400, google(400, "INVALID_ARGUMENT"), OWN),
    ("google", 400, [google(400, "INVALID_ARGUMENT", "no", API_KEY_INVALID)], AUTH),
    ("google", 400, google(400, "INVALID_ARGUMENT", "API key not valid. Please pass one."), AUTH),
    (
        "google",
        400,
        google(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
        AUTH,
    ),
    (
        "google",
        400,
        google(
            400,
            "INVALID_ARGUMENT",
            "The input token count (9) exceeds the maximum number of tokens allowed (8).",
        ),
        CONTEXT,
    ),
    ("google", 400, google(400, "INVALID_ARGUMENT", "Thought signature is not valid"), SEALED),
    ("google", 400, google(400, "INVALID_ARGUMENT", "Corrupted thought signature."), SEALED),
    ("google", 403, google(403, "PERMISSION_DENIED"), AUTH),
    ("google", 404, google(404, "NOT_FOUND", "models/x is not found for v1beta"), LACKING),
    ("google", 429, google(429, "RESOURCE_EXHAUSTED", USED_UP), RATE),
    ("google", 429, [google(429, "RESOURCE_EXHAUSTED", "no", quota("RequestsPerMinute"))], RATE),
    (
        "google",
        429,
        google(429, "RESOURCE_EXHAUSTED", "", quota("RequestsPerDayPerProject")),
        QUOTA,
    ),
    # One model's day is over: the others go on.
    ("google", 429, google(429, "RESOURCE_EXHAUSTED", "", quota("PerDayPerProjectPerModel")), RATE),
    ("google", 500, google(500, "INTERNAL"), BROKEN),
    ("google", 503, google(503, "UNAVAILABLE", "The model is overloaded."), BUSY),
    ("google", 504, google(504, "DEADLINE_EXCEEDED"), SLOW),
    # Cohere
    ("cohere", 400, {"id": "1", "message": "invalid request: message must be a string"}, OWN),
    (
        "cohere",
        400,
        {
            "message": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - "
            "received 4292."
        },
        CONTEXT,
    ),
    (
        "cohere",
        400,
        {"message": "too many tokens: max tokens must be less than or equal to 4096"},
        OWN,
    ),
    ("cohere", 401, {"message": "invalid api token"}, AUTH),
    ("cohere", 404, {"message": "model 'x' not found, make sure the correct one"}, LACKING),
    ("cohere", 429, {"message": "a Trial key is limited to 10 API calls / minute"}, RATE),
    ("cohere", 429, {"message": "a Trial key is limited to 1000 API calls / month"}, QUOTA),
    # Mistral
    ("mistral", 400, mistral("Invalid model: x", "invalid_model", "1500"), LACKING),
    (
        "mistral",
        400,
        mistral(
            "Prompt contains 65673 tokens, too large for model with 32768 maximum context length",
            "invalid_request_error",
            "3051",
        ),
        CONTEXT,
    ),
    ("mistral", 401, {"detail": "Unauthorized"}, AUTH),
    ("mistral", 422, mistral({"detail": [{"loc": ["body", "n"]}]}, "invalid_request_error"), OWN),
    ("mistral", 429, mistral("Rate limit exceeded", "rate_limited", "1300"), RATE),
    ("mistral", 429, mistral("no", "service_tier_capacity_exceeded", "3505"), BUSY),
    # Cloudflare
    ("cloudflare", 400, cloudflare(5007, "No such model @cf/x or task"), LACKING),
    ("cloudflare", 400, cloudflare(5004, "Invalid data type for base64 input"), OWN),
    ("cloudflare", 403, cloudflare(5018, "The account is not allowed"), LACKING),
    ("cloudflare", 404, cloudflare(7003, "Could not route to /accounts/x"), AUTH),
    ("cloudflare", 403, cloudflare(10000, "Authentication error"), AUTH),
    ("cloudflare", 408, cloudflare(3007, "Request timeout"), SLOW),
    ("cloudflare", 413, cloudflare(3006, "Request is too large"), OWN),
    ("cloudflare", 429, cloudflare(3036, "You have used up your daily free allocation"), QUOTA),
    ("cloudflare", 429, cloudflare(3040, "No more data centers to forward to"), BUSY),
    # Bedrock: failures of the model server inside a 4xx
    ("bedrock", 400, {"__type": "com.amazonaws#ThrottlingException", "message": "no"}, RATE),
    ("bedrock", 400, {"__type": "InternalServerException", "message": "no"}, BROKEN),
    ("bedrock", 400, {"message": "no", "originalStatusCode": 503}, BUSY),
    ("bedrock", 424, {"__type": "ModelStreamErrorException", "originalStatusCode": 500}, BROKEN),
    ("bedrock", 400, {"__type": "ValidationException", "message": "no"}, OWN),
    ("bedrock", 400, {"message": "Input is too long for requested model."}, CONTEXT),
    ("bedrock", 403, {"__type": "AccessDeniedException"}, AUTH),
    # Others and the servers people run themselves
    ("together", 403, openai("Input + max_tokens must be below the context length of it"), CONTEXT),
    ("groq", 413, openai("Request too large, TPM: limit 6000", "rate_limit_exceeded"), RATE),
    ("groq", 400, openai("gone", "model_decommissioned"), LACKING),
    ("groq", 498, openai("flex capacity"), BUSY),
    (
        "openrouter",
        403,
        {"error": {"code": 403, "message": "no", "metadata": {"flagged_input": "x"}}},
        FILTER,
    ),
    ("openrouter", 404, openai("No endpoints found for x"), LACKING),
    ("openrouter", 400, openai("Provider returned error", 502), BROKEN),
    ("xai", 400, {"code": "Client error", "error": "Incorrect API key provided: xa***"}, AUTH),
    ("xai", 403, {"code": "x", "error": "Content violates usage guidelines."}, FILTER),
    ("deepseek", 400, openai("Model Not Exist", "invalid_request_error"), LACKING),
    ("deepseek", 400, openai("Content Exists Risk", "invalid_request_error"), FILTER),
    ("deepseek", 402, openai("Insufficient Balance"), AUTH),
    ("moonshot", 429, openai("no", type="exceeded_current_quota_error"), QUOTA),
    ("zai", 400, openai("moderated", "1301"), FILTER),
    ("zai", 429, openai("arrears", "1113"), AUTH),
    ("dashscope", 400, openai("no", "data_inspection_failed"), FILTER),
    ("dashscope", 429, openai("no", "Throttling.AllocationQuota"), QUOTA),
    ("github_models", 413, openai("Max size: 8000 tokens.", "tokens_limit_reached"), CONTEXT),
    ("tgi", 422, {"error": "inputs must have less than 4096 tokens", "error_type": "x"}, CONTEXT),
    ("tgi", 424, {"error": "Request failed during generation", "error_type": "generation"}, BROKEN),
    ("tgi", 429, {"error": "Model is overloaded", "error_type": "overloaded"}, BUSY),
    ("llamacpp", 400, openai("no", 400, "exceed_context_size_error"), CONTEXT),
    ("llamacpp", 503, openai("Loading model", 503, "unavailable_error"), BUSY),
    ("ollama", 404, openai('model "x" not found, try pulling it first'), LACKING),
    ("vllm", 400, mistral(TOO_LONG, "BadRequestError"), CONTEXT),
    ("vllm", 404, mistral("The model `x` does not exist.", "NotFoundError"), LACKING),
    ("openai_compatible", 422, {"detail": [{"loc": ["body", "messages", 0], "msg": "no"}]}, OWN),
    ("openai_compatible", 500, {"detail": "Internal Server Error"}, BROKEN),
    ("openai_compatible", 500, b"<html>no</html>", BROKEN),
    ("openai_compatible", 400, b"\xff\xfe", OWN),
]


@pytest.mark.parametrize(("type", "status", "body", "told"), ROWS)
def test_every_provider_says_it_in_its_own_words(
    type: str, status: int, body: Any, told: tuple[str, str, bool]
) -> None:
    """ASC-NORM, XAI-FAIL-005 to 011: reason, what to do next, and whom it concerns."""
    fault = fault_of(status, body, type=type)
    assert (fault.reason, fault.retry, fault.whole_provider) == told
    assert (fault.code == MODEL_NOT_FOUND) == (told == LACKING)
    assert fault.counts == (fault.retry not in ("never", "larger", "unsealed"))


def fault_of(status: int, body: Any, *, type: str = "openai", **headers: str) -> Fault:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    preset = presets()[type]
    fault = of_answer(
        Answer(status, pairs, raw),
        NOW,
        words=preset.error_map,
        limits=preset.rate_limit_headers,
    )
    assert fault is not None
    return fault


# --- inside a 200 --------------------------------------------------------------------------------

BODIES: list[tuple[str, Any, tuple[str, str]]] = [
    ("openai", openai("no", "server_overloaded"), ("overloaded", "other")),
    ("openai", openai("no", "content_filter"), ("content_filtered", "never")),
    ("openrouter", openai("Provider returned error", 429), ("rate_limited", "other")),
    ("openrouter", openai("Provider returned error", 502), ("http_5xx", "other")),
    ("openrouter", openai("no", 400), ("http_4xx", "never")),
    ("openai", openai("no", "invalid_request_error"), ("invalid_response", "other")),
    ("anthropic", anthropic("overloaded_error"), ("overloaded", "other")),
    ("anthropic", anthropic("api_error"), ("invalid_response", "other")),
    ("google", [google(503, "UNAVAILABLE")], ("overloaded", "other")),
    ("google", {"promptFeedback": {"blockReason": "SAFETY"}}, ("content_filtered", "never")),
    ("google", {"usageMetadata": {}}, ("invalid_response", "other")),
    ("cloudflare", cloudflare(3040, "no"), ("overloaded", "other")),
    (
        "minimax",
        {"base_resp": {"status_code": 1002, "status_msg": "no"}},
        ("rate_limited", "other"),
    ),
    ("minimax", {"base_resp": {"status_code": 1026}}, ("content_filtered", "never")),
    ("minimax", {"base_resp": {"status_code": 0}}, ("invalid_response", "other")),
    ("bedrock", {"Output": {"__type": "x#ThrottlingException"}}, ("rate_limited", "other")),
    ("openai", {"id": "x", "choices": []}, ("invalid_response", "other")),
    ("openai", None, ("invalid_response", "other")),
    ("openai", "overloaded", ("invalid_response", "other")),
]


@pytest.mark.parametrize(("type", "body", "told"), BODIES)
def test_an_error_inside_a_200_is_one(type: str, body: Any, told: tuple[str, str]) -> None:
    """XAI-FAIL-010: symptom 2, in the words of every dialect."""
    fault = of_body(body, words=presets()[type].error_map)
    assert (fault.reason, fault.retry) == told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StreamError("overloaded_error", "no", "overloaded_error"), ("overloaded", "other")),
        (StreamError(None, "no", "rate_limit_error", 429), ("rate_limited", "other")),
        (StreamError("500", "no"), ("http_5xx", "other")),
        (StreamError(None, "prompt is too long: 9 > 8"), ("context_length_exceeded", "larger")),
        (StreamError(None, "no"), ("invalid_response", "other")),
        ({"type": "overloaded_error", "message": "no"}, ("overloaded", "other")),
        ({"code": "rate_limit_exceeded"}, ("rate_limited", "other")),
    ],
)
def test_an_error_inside_a_stream_is_one(error: Any, told: tuple[str, str]) -> None:
    """Symptom 2."""
    fault = of_error_object(error)
    assert (fault.reason, fault.retry) == told


# --- waits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 15 Jan 2021 08:00:30 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-4"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        # The limit that has nothing left decides, however soon another one is whole again.
        (
            {
                "x-ratelimit-remaining-requests": "5",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "9s",
            },
            9.0,
        ),
        ({"x-ratelimit-reset": str(int(NOW) + 12)}, 12.0),
        ({"x-ratelimit-reset": str(int(NOW + 12) * 1000)}, 12.0),
        (
            {
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2027-01-15T08:00:20Z",
            },
            20.0,
        ),
        ({"anthropic-ratelimit-tokens-reset": "never"}, None),
        ({}, None),
    ],
)
def test_a_wait_in_headers(headers: dict[str, str], seconds: float | None) -> None:
    """XAI-FAIL-007: seconds, milliseconds, dates, durations and points in time."""
    assert retry_after(tuple(headers.items()), NOW) == seconds


def test_only_the_headers_a_provider_is_known_for_count_when_they_are_known() -> None:
    headers = (("x-ratelimit-reset-requests", "5s"), ("x-ratelimit-reset", "9"))
    assert retry_after(headers, NOW, presets()["openai"].rate_limit_headers) == 5.0
    assert retry_after(headers, NOW, presets()["together"].rate_limit_headers) == 9.0


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (google(429, "RESOURCE_EXHAUSTED", "no", retry_info("36s")), 36.0),
        ([google(429, "RESOURCE_EXHAUSTED", "no", retry_info("1.5s"))], 1.5),
        (google(429, "RESOURCE_EXHAUSTED", "no", retry_info("soon")), None),
        (openai("Rate limit reached. Please try again in 7m12s."), 432.0),
        (openai("Please try again in 380ms."), 0.38),
        (openai("Please retry after 20 seconds."), 20.0),
        (openai("Please retry after 2 minutes."), 120.0),
        (openai("Please try again later"), None),
    ],
)
def test_a_wait_in_the_body(body: Any, seconds: float | None) -> None:
    assert fault_of(429, body).retry_after_s == seconds
    assert fault_of(429, body, retry_after="3").retry_after_s == 3.0


def test_a_used_up_quota_is_left_alone_for_long() -> None:
    """A rate passes within seconds, a quota does not: the client is told what was said."""
    told = quota("RequestsPerDayPerProject"), retry_info("36s")
    fault = fault_of(429, google(429, "RESOURCE_EXHAUSTED", "no", *told))
    assert (fault.retry_after_s, fault.pause_s) == (36.0, QUOTA_COOL_S)
    rate = fault_of(429, openai("no", "rate_limit_exceeded"), retry_after="3")
    assert (rate.retry_after_s, rate.pause_s) == (3.0, 3.0)


# --- whose fault it is ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 402, 403])
@pytest.mark.parametrize("body", [openai("Invalid API key", "invalid_api_key"), b""])
def test_a_refused_credential_of_ours_never_reads_as_the_clients(status: int, body: Any) -> None:
    fault = fault_of(status, body)
    assert fault.retry == ("never" if (status, body) == (400, b"") else "other")
    if fault.retry == "never":
        assert client_error(fault, "messages").status == 400


@pytest.mark.parametrize("status", [401, 403])
def test_the_applications_own_refusal_is_the_clients(status: int) -> None:
    fault = of_answer(Answer(status, (), b""), NOW, from_app=True)
    assert fault is not None
    assert (fault.retry, client_error(fault, "messages").status) == ("never", status)


ECHOES = [
    "Invalid value: 'Incorrect API key provided'. Supported values are: 'a'.",
    'Invalid value: "Your credit balance is too low". Expected another.',
    "messages[0].name: `invalid api key` does not match the pattern",
    "tools[0].name is wrong, found incorrect api key provided",
    "Invalid type for 'user': the model x does not exist",
    "Unknown parameter: 'you exceeded your current quota'",
]


@pytest.mark.parametrize("message", ECHOES)
def test_text_of_the_clients_that_is_sent_back_blames_nobody_else(message: str) -> None:
    """A client that can write an error message must not be able to take a provider away from all
    others."""
    assert fault_of(400, openai(message)) == Fault("http_4xx", "never", 400, counts=False)


def test_a_path_of_another_dialect_is_not_told_as_a_parameter() -> None:
    body = {"detail": [{"loc": ["body", "messages", 0, "content"], "msg": "no", "type": "x"}]}
    assert fault_of(422, body).param == "messages[0].content"
    answer = Answer(422, (), orjson.dumps(body))
    fault = of_answer(answer, NOW, dialect="cohere")
    assert fault is not None
    assert fault.param is None


def test_a_code_that_is_not_ours_is_not_kept() -> None:
    assert fault_of(400, openai("no", "sk-secret")).code is None
    assert fault_of(400, openai("no", "unsupported_parameter")).code == "unsupported_parameter"


OURS = [
    (400, "context_length_exceeded"),
    (400, "content_filter"),
    (400, "invalid_value"),
    (401, "invalid_api_key"),
    (404, "model_not_found"),
    (413, "request_too_large"),
    (429, "rate_limit_exceeded"),
    (429, "insufficient_quota"),
    (500, "internal_error"),
    (503, "no_healthy_provider"),
    (504, "upstream_timeout"),
]


@pytest.mark.parametrize("dialect", ["anthropic", "gemini"])
@pytest.mark.parametrize(("status", "code"), OURS)
def test_an_error_means_the_same_in_every_dialect_it_is_written_in(
    dialect: str, status: int, code: str
) -> None:
    """Both ways: what a client of another dialect is told reads back as what was meant."""
    inner = {"message": "no", "type": "x", "param": None, "code": code}
    there = fault_of(status, codec(dialect).encode_error(status, inner))
    assert there == fault_of(status, {"error": inner})


# --- anything at all -----------------------------------------------------------------------------

leaves = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=20)
)
names = st.sampled_from(
    [
        "error",
        "errors",
        "message",
        "code",
        "type",
        "status",
        "detail",
        "details",
        "loc",
        "reason",
        "violations",
        "retryDelay",
        "metadata",
        "innererror",
        "base_resp",
        "status_code",
        "param",
        "promptFeedback",
        "blockReason",
        "Output",
        "success",
    ]
)
documents = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5)
)


@given(status=st.integers(100, 599), document=documents)
def test_any_document_has_a_fault_and_nothing_raises(status: int, document: Any) -> None:
    raw = orjson.dumps(document)
    fault = of_answer(Answer(status, (), raw), NOW)
    assert (fault is None) == (200 <= status < 300)
    if fault is not None and fault.retry == "never":
        client_error(fault, "messages")
    of_body(document)
    of_error_object(document)


@given(value=st.text(max_size=80), name=st.sampled_from(["retry-after", "x-ratelimit-reset"]))
def test_any_wait_is_a_number_of_seconds_or_none(value: str, name: str) -> None:
    told = retry_after(((name, value),), NOW)
    assert told is None or told >= 0


def test_a_wait_in_the_clients_own_words_blocks_nobody() -> None:
    """A text sent back in quotes must not keep a provider from everybody for an hour."""
    for status in (429, 500, 503):
        body = openai('cannot answer "please try again in 59 minutes"')
        fault = of_answer(Answer(status, (), orjson.dumps(body)), NOW)
        assert fault is not None
        assert fault.retry_after_s is None
