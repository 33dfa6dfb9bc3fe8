"""Who is asked after a failure, how often, and what the client is told (draft §10, §12)."""

import json
import logging
import time
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest
from mounts import Got
from upstreams import Script, free_port
from wire import Wire, WireUpstream

from aiproxy.middleware import AIProxyMiddleware, AIProxyWSGIMiddleware

BEST = {"X-AI-Routing-Strategy": "quality"}
LONG = "word " * 200
QUALITY = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}


def models(name: str, **more: Any) -> list[dict[str, Any]]:
    row = {"name": "m", "model": f"{name}-m", "quality": QUALITY[name], "cost_per_1k_tokens": 0.001}
    return [{**row, **more}]


def chain(fakes: Any, names: str = "ab", **routing: Any) -> dict[str, Any]:
    """Providers in the order in which strategy quality asks them."""
    config: dict[str, Any] = fakes.config({n: models(n) for n in names}, routing=routing)
    return config


def failover(**settings: Any) -> dict[str, Any]:
    return {"failover": settings}


def endpoint(config: dict[str, Any], provider: str, url: str, **more: Any) -> dict[str, Any]:
    config["providers"][provider] |= {"endpoint": url, **more}
    return config


def outcomes(mount: Any, got: Got) -> list[tuple[str, str, Any]]:
    return [(r["provider"], r["outcome"], r["error"]) for r in mount.record(got)["attempts"]]


def served_by_b(got: Got, reason: str) -> None:
    assert got.status == 200, got.body
    assert got.json["choices"][0]["message"]["content"] == "served by b"
    assert got.provider == "b"
    assert got.header("x-ai-failover-occurred") == "true"
    assert got.selection["failover_reason"] == reason
    assert got.json["x-aiproxy"]["failover_reason"] == reason


STATUSES = [
    (408, "timeout"),
    (409, "overloaded"),
    (429, "rate_limited"),
    (500, "http_5xx"),
    (502, "http_5xx"),
    (503, "overloaded"),
    (504, "timeout"),
    (529, "overloaded"),
    (507, "http_5xx"),
    (401, "auth_failed"),
    (402, "auth_failed"),
    (403, "auth_failed"),
    (404, "http_4xx"),
    (302, "invalid_response"),
    (204, "invalid_response"),
]


@pytest.mark.parametrize(("status", "reason"), STATUSES)
def test_a_retryable_status_moves_on(mount: Any, fakes: Any, status: int, reason: str) -> None:
    """XAI-FAIL-007, 009, 011."""
    fakes.a.script = Script(status=status, raw=b"" if status == 204 else None)
    served = mount(chain(fakes))
    got = served.chat(BEST)
    served_by_b(got, reason)
    tries = 2 if status in (500, 502) else 1
    assert fakes.called() == {"a": tries, "b": 1}
    assert [row[2] for row in outcomes(served, got)] == [reason] * tries + [None]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_requests_own_fault_is_told_in_our_words(mount: Any, fakes: Any, status: int) -> None:
    """XAI-FAIL-008: the status stays, the text is ours, nobody else is asked."""
    body = {"error": {"message": "SECRET sk-leak", "param": "temperature", "code": "odd_code"}}
    fakes.a.script = Script(status=status, body=body)
    got = mount(chain(fakes)).chat(BEST)
    assert got.status == status
    assert got.error["code"] == ("request_too_large" if status == 413 else "invalid_value")
    assert got.error["type"] == "invalid_request_error"
    assert got.error["param"] == (None if status == 413 else "temperature")
    assert b"SECRET" not in got.body
    assert b"odd_code" not in got.body
    assert fakes.called() == {"a": 1}
    assert got.provider is None


@pytest.mark.parametrize("status", [405, 406, 410, 415, 418, 431, 451])
def test_other_refusals_are_not_blamed_on_the_client(mount: Any, fakes: Any, status: int) -> None:
    fakes.a.script = Script(status=status)
    got = mount(chain(fakes)).chat(BEST)
    assert (got.status, got.error["code"]) == (502, "upstream_invalid_response")
    assert got.header("x-should-retry") == "false"
    assert fakes.called() == {"a": 1}


def test_codes_that_mean_the_same_here_are_kept(mount: Any, fakes: Any) -> None:
    error = {"message": "no", "param": "tools[0].x", "code": "unsupported_parameter"}
    fakes.a.script = Script(status=400, body={"error": error})
    got = mount(chain(fakes)).chat(BEST)
    assert (got.error["code"], got.error["param"]) == ("unsupported_parameter", "tools[0].x")


def test_a_parameter_that_is_no_path_is_not_repeated(mount: Any, fakes: Any) -> None:
    error = {"message": "no", "param": "key sk-leak\r\nX: y", "code": None}
    fakes.a.script = Script(status=400, body=[{"error": error}])
    got = mount(chain(fakes)).chat(BEST)
    assert (got.status, got.error["param"]) == (400, None)
    assert b"leak" not in got.body


# --- what breaks before an answer ----------------------------------------------------------------


def _reset(wire: Wire) -> None:
    wire.reset()


def _half_head(wire: Wire) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nContent-")


def _cut_body(wire: Wire) -> None:
    wire.send(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"id": ')


def _not_http(wire: Wire) -> None:
    wire.send(b"SSH-2.0-nothing\r\n\r\n")


def _html(wire: Wire) -> None:
    wire.document(b"<html>maintenance</html>", b"200 OK", b"Content-Type: text/html")


def _error_object(wire: Wire) -> None:
    wire.document(b'{"error":{"message":"SECRET","code":"server_overloaded"}}')


def _no_choices(wire: Wire) -> None:
    wire.document(b'{"id":"x","choices":[]}')


def _bad_utf8(wire: Wire) -> None:
    wire.document(b'{"choices":[{"message":{"content":"\xff"}}]}')


FAULTS: list[tuple[Callable[[Wire], None], str, int]] = [
    (_reset, "connect_error", 2),
    (_half_head, "connect_error", 2),
    (_cut_body, "invalid_response", 1),
    (_not_http, "invalid_response", 1),
    (_html, "invalid_response", 1),
    (_error_object, "overloaded", 1),
    (_no_choices, "invalid_response", 1),
    (_bad_utf8, "invalid_response", 1),
]


@pytest.mark.parametrize(("script", "reason", "tries"), FAULTS)
def test_a_broken_answer_moves_on(
    mount: Any, fakes: Any, script: Callable[[Wire], None], reason: str, tries: int
) -> None:
    """XAI-FAIL-006, 010."""
    with WireUpstream(script) as broken:
        served = mount(endpoint(chain(fakes), "a", broken.url))
        got = served.chat(BEST)
        served_by_b(got, reason)
        assert len(broken.seen) == tries
        assert [row[0] for row in outcomes(served, got)] == ["a"] * tries + ["b"]


def test_refused_dns_and_tls_failures_have_their_own_reasons(mount: Any, fakes: Any) -> None:
    """XAI-FAIL-006: B serves, and the reason differs per kind."""
    config = chain(fakes)
    for url, reason, tries in (
        (f"http://127.0.0.1:{free_port()}/v1", "connect_error", 2),
        ("https://nowhere.invalid/v1", "dns_error", 1),
        (fakes.a.url.replace("http:", "https:"), "tls_error", 1),
    ):
        served = mount(endpoint(config, "a", url))
        got = served.chat(BEST)
        served_by_b(got, reason)
        assert len(outcomes(served, got)) == tries + 1


def test_a_slow_head_is_a_timeout(mount: Any, fakes: Any) -> None:
    """XAI-FAIL-005: the wait is the provider's own limit, and no more."""
    fakes.a.script = Script(delay_s=3)
    config = chain(fakes)
    config["providers"]["a"]["timeouts"] = {"first_byte": "200ms"}
    began = time.monotonic()
    got = mount(config).chat(BEST)
    assert time.monotonic() - began < 1.0
    served_by_b(got, "timeout")
    assert 200 <= got.selection["failover_time_ms"] < 400  # XAI-FAIL-012


def test_failover_time_is_what_was_lost_before_the_answer(mount: Any, fakes: Any) -> None:
    """XAI-FAIL-012."""
    fakes.a.script = Script(status=503, delay_s=0.3)
    fakes.b.script = Script(delay_s=0.3)
    got = mount(chain(fakes)).chat(BEST)
    assert 300 <= got.selection["failover_time_ms"] < 450


# --- how many attempts ---------------------------------------------------------------------------


def test_a_lone_500_is_asked_once_more_at_once(mount: Any, fakes: Any) -> None:
    fakes.a.queue = [Script(status=500)]
    began = time.monotonic()
    served = mount(chain(fakes, **failover(retry_delay="5s")))
    got = served.chat(BEST)
    assert (got.status, got.provider) == (200, "a")
    assert time.monotonic() - began < 2
    assert outcomes(served, got) == [("a", "failed", "http_5xx"), ("a", "ok", None)]
    assert fakes.called() == {"a": 2}


@pytest.mark.parametrize(("again", "expected"), [(0, "ab"), (1, "aab"), (2, "aaab"), (5, "aaab")])
def test_same_provider_retries_leave_an_attempt_for_somebody_else(
    mount: Any, fakes: Any, again: int, expected: str
) -> None:
    fakes.a.script = Script(status=500)
    settings = failover(same_provider_retries=again, retry_delay="10ms", max_retries=3)
    served = mount(chain(fakes, **settings))
    got = served.chat(BEST)
    assert "".join(row[0] for row in outcomes(served, got)) == expected
    assert got.provider == "b"


@pytest.mark.parametrize("retries", [0, 1, 2, 3])
def test_attempts_are_bounded_over_the_whole_chain(mount: Any, fakes: Any, retries: int) -> None:
    for name in "abcd":
        fakes[name].script = Script(status=503)
    served = mount(chain(fakes, "abcd", **failover(max_retries=retries)))
    got = served.chat(BEST)
    tried = "abcd"[: retries + 1]
    assert got.status == (503 if retries == 0 else 502)
    assert "".join(row[0] for row in outcomes(served, got)) == tried
    order = sorted((fakes[n].seen[0].at, n) for n in tried)
    assert "".join(n for _, n in order) == tried  # XAI-FAIL-017
    assert fakes.called() == dict.fromkeys(tried, 1)


def test_retry_delay_is_kept_between_tries_of_one_provider_only(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=500)
    settings = failover(same_provider_retries=3, retry_delay="150ms", max_retries=3)
    served = mount(chain(fakes, **settings))
    got = served.chat(BEST)
    times = [seen.at for seen in fakes.a.seen] + [fakes.b.seen[0].at]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert got.provider == "b"
    assert gaps[0] < 0.1
    assert gaps[1] >= 0.15
    assert gaps[2] < 0.1


def test_a_timeout_leaves_the_whole_provider(mount: Any, fakes: Any) -> None:
    """Never the same provider again for this request, not by another of its models either."""
    fakes.a.script = Script(delay_s=3)
    config = chain(fakes)
    config["providers"]["a"]["models"].append({"name": "m2", "quality": 0.85})
    config["providers"]["a"]["timeouts"] = {"first_byte": "150ms"}
    got = mount(config).chat(BEST)
    assert got.provider == "b"
    assert fakes.called() == {"a": 1, "b": 1}


def test_a_model_that_fails_leaves_the_provider_its_other_models(mount: Any, fakes: Any) -> None:
    fakes.a.queue = [Script(status=503)]
    config = chain(fakes)
    config["providers"]["a"]["models"].append({"name": "m2", "quality": 0.85})
    got = mount(config).chat(BEST)
    assert (got.provider, got.header("x-ai-model-mapped")) == ("a", "m2")
    assert got.header("x-ai-failover-occurred") == "true"


# --- waiting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "1"},
        {"retry-after-ms": "300"},
        {"Retry-After": formatdate(time.time() - 60, usegmt=True)},
    ],
)
def test_a_lone_provider_is_waited_for_when_it_says_how_long(
    mount: Any, fakes: Any, headers: dict[str, str]
) -> None:
    fakes.a.queue = [Script(status=429, headers=headers)]
    served = mount(chain(fakes, "a"))
    got = served.chat(BEST)
    assert got.status == 200
    gap = fakes.a.seen[1].at - fakes.a.seen[0].at
    wanted = {"retry-after": 1.0, "retry-after-ms": 0.3}.get(next(iter(headers)), 0.0)
    assert wanted <= gap < wanted + 0.3


def test_with_somebody_else_nobody_is_waited_for(mount: Any, fakes: Any) -> None:
    """XAI-FAIL-016: B serves; A is not asked again before its time."""
    fakes.a.queue = [Script(status=503, headers={"retry-after": "1"})]
    served = mount(chain(fakes))
    assert served.chat(BEST).provider == "b"
    second = served.chat(BEST)
    assert second.provider == "b"
    assert second.rejected == {"a": "unhealthy"}
    assert fakes.called() == {"a": 1, "b": 2}
    time.sleep(1.05)
    providers = {served.chat(BEST).provider for _ in range(2)}
    assert "a" in providers


def test_a_longer_retry_after_is_passed_on(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=429, headers={"retry-after": "7"})
    served = mount(chain(fakes, "a"))
    got = served.chat(BEST)
    assert (got.status, got.error["code"]) == (429, "rate_limit_exceeded")
    assert got.header("retry-after") == "7"
    assert got.header("x-should-retry") is None
    later = served.chat(BEST)
    assert (later.status, later.error["code"]) == (503, "no_healthy_provider")
    assert int(later.header("retry-after") or 0) in (6, 7)
    assert fakes.called() == {"a": 1}


def test_a_retry_after_as_a_date(mount: Any, fakes: Any) -> None:
    date = formatdate(time.time() + 30, usegmt=True)
    fakes.a.script = Script(status=503, headers={"retry-after": date})
    got = mount(chain(fakes, "a")).chat(BEST)
    assert (got.status, got.error["code"]) == (503, "provider_overloaded")
    assert 28 <= int(got.header("retry-after") or 0) <= 31


@pytest.mark.parametrize("value", ["soon", "-5", "nan", "inf", "1e999", ""])
def test_a_senseless_retry_after_is_none(mount: Any, fakes: Any, value: str) -> None:
    fakes.a.script = Script(status=503, headers={"retry-after": value})
    got = mount(chain(fakes, "a", **failover(max_retries=1))).chat(BEST)
    assert got.status == 503
    assert got.header("x-should-retry") in ("false", None)
    assert got.header("retry-after") in (None, "1")


def test_our_own_back_off_only_ranks_a_provider_last(mount: Any, fakes: Any) -> None:
    fakes.a.queue = [Script(status=503)]
    served = mount(chain(fakes))
    assert [served.chat(BEST).provider for _ in range(2)] == ["b", "b"]
    assert fakes.called() == {"a": 1, "b": 2}


def test_a_lone_provider_in_our_back_off_is_still_asked(mount: Any, fakes: Any) -> None:
    fakes.a.queue = [Script(status=503)]
    served = mount(chain(fakes, "a"))
    assert served.chat(BEST).status == 503
    assert served.chat(BEST).status == 200


# --- the deadline --------------------------------------------------------------------------------


def test_the_deadline_is_of_the_whole_request(mount: Any, fakes: Any) -> None:
    for name in "abc":
        fakes[name].script = Script(delay_s=5)
    config = chain(fakes, "abc", timeout="500ms")
    for name in "abc":
        config["providers"][name]["timeouts"] = {"first_byte": "300ms"}
    began = time.monotonic()
    served = mount(config)
    got = served.chat(BEST)
    assert 0.45 < time.monotonic() - began < 1.0
    assert (got.status, got.error["code"]) == (504, "upstream_timeout")
    assert got.header("x-should-retry") == "false"
    assert [row[0] for row in outcomes(served, got)] == ["a", "b"]


def test_predict_names_its_own_deadline(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(delay_s=5)
    fakes.b.script = Script(delay_s=5)
    body = {"model": "m", "input": "hi", "routing": {"timeout": 300}}
    began = time.monotonic()
    got = mount(chain(fakes)).post("/aiproxy/predict", body, BEST)
    assert 0.28 < time.monotonic() - began < 0.9
    assert (got.status, got.error["code"]) == (504, "upstream_timeout")


def test_predict_does_not_stream(mount: Any, fakes: Any) -> None:
    body = {"model": "m", "input": "hi", "stream": True}
    got = mount(chain(fakes)).post("/aiproxy/predict", body, BEST)
    assert (got.status, got.error["param"]) == (400, "stream")
    assert fakes.called() == {}


def test_no_wait_goes_past_the_deadline(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=429, headers={"retry-after": "1"})
    began = time.monotonic()
    got = mount(chain(fakes, "a", timeout="500ms")).chat(BEST)
    assert time.monotonic() - began < 0.4
    assert (got.status, got.header("retry-after")) == (429, "1")


# --- policies ------------------------------------------------------------------------------------


def test_policy_none_is_one_attempt(mount: Any, fakes: Any) -> None:
    """XAI-HDR-069; also for what would be tried again at the same provider."""
    fakes.a.script = Script(status=500)
    got = mount(chain(fakes)).chat({**BEST, "X-AI-Failover-Policy": "none"})
    assert (got.status, got.error["code"]) == (502, "all_providers_failed")
    assert fakes.called() == {"a": 1}


def test_policy_manual_lists_whom_to_ask(mount: Any, fakes: Any) -> None:
    """XAI-HDR-071."""
    fakes.a.script = Script(status=503)
    served = mount(chain(fakes))
    got = served.chat({**BEST, "X-AI-Failover-Policy": "manual"})
    assert (got.status, got.error["code"]) == (503, "failover_required")
    assert got.header("x-should-retry") == "false"
    listed = json.loads(got.header("x-ai-alternatives-considered") or "")
    assert "b" in [row["provider"] for row in listed]
    assert fakes.called() == {"a": 1}
    assert served.chat({**BEST, "X-AI-Provider-Pool": "b"}).provider == "b"


@pytest.mark.parametrize("policy", ["automatic", "cascading", "Automatic"])
def test_policies_that_move_on(mount: Any, fakes: Any, policy: str) -> None:
    """XAI-HDR-070, 072."""
    fakes.a.script = Script(status=503)
    got = mount(chain(fakes)).chat({**BEST, "X-AI-Failover-Policy": policy})
    served_by_b(got, "overloaded")


@pytest.mark.parametrize(("quality", "status"), [(0.82, 200), (0.79, 502)])
def test_cascading_keeps_the_quality_threshold(
    mount: Any, fakes: Any, quality: float, status: int
) -> None:
    """XAI-HDR-072: down the candidates, never below what was asked for."""
    fakes.a.script = fakes.b.script = Script(status=503)
    config = fakes.config(
        {"a": models("a"), "b": models("b", quality=0.85), "c": models("c", quality=quality)}
    )
    served = mount(config)
    headers = {**BEST, "X-AI-Failover-Policy": "cascading", "X-AI-Quality-Threshold": "0.8"}
    got = served.chat(headers)
    assert got.status == status
    assert fakes.called() == {"a": 1, "b": 1} | ({"c": 1} if status == 200 else {})
    listed = [row["provider"] for row in got.selection["attempts"]]
    assert listed == ["a", "b"] + (["c"] if status == 200 else [])


def test_an_unknown_policy_is_refused(mount: Any, fakes: Any) -> None:
    """XAI-HDR-073."""
    got = mount(chain(fakes)).chat({**BEST, "X-AI-Failover-Policy": "retry"})
    assert (got.status, got.error["code"]) == (400, "invalid_header_value")
    assert got.error["param"] == "X-AI-Failover-Policy"
    assert fakes.called() == {}


@pytest.mark.parametrize("enabled", [True, False])
def test_without_a_policy_the_configuration_decides(mount: Any, fakes: Any, enabled: bool) -> None:
    """XAI-HDR-074."""
    fakes.a.script = Script(status=503)
    served = mount(chain(fakes, **failover(enabled=enabled)))
    assert served.chat(BEST).status == (200 if enabled else 503)
    assert fakes.called() == ({"a": 1, "b": 1} if enabled else {"a": 1})
    asked = served.chat({**BEST, "X-AI-Failover-Policy": "automatic"})
    assert (asked.status, asked.provider) == (200, "b")


# --- who comes next ------------------------------------------------------------------------------


def test_the_fallback_chain_orders_what_comes_after_the_first(mount: Any, fakes: Any) -> None:
    for name in "abc":
        fakes[name].script = Script(status=503)
    served = mount(chain(fakes, "abcd", **failover(fallback_chain=["d", "c"])))
    got = served.chat(BEST)
    assert got.provider == "d"
    fakes.reset()
    fakes.a.script = fakes.d.script = Script(status=503)
    served = mount(chain(fakes, "abcd", **failover(fallback_chain=["d", "c"])))
    got = served.chat(BEST)
    assert [row[0] for row in outcomes(served, got)] == ["a", "d", "c"]


def test_an_explicit_model_stays_that_model(mount: Any, fakes: Any) -> None:
    config = fakes.config({"a": ["m"], "b": ["other"], "c": ["m"]})
    fakes.a.script = Script(status=503)
    served = mount(config)
    assert served.chat(BEST, model="m").provider == "c"
    fakes.c.script = Script(status=503)
    got = served.chat(BEST, model="m")
    assert got.status == 502
    assert "b" not in fakes.called()


def test_model_fallbacks_stand_in_for_a_named_model(mount: Any, fakes: Any) -> None:
    routing = failover(model_fallbacks={"m": ["m2", "m3"]})
    config = fakes.config({"a": ["m"], "b": ["m2"], "c": ["m3"]}, routing=routing)
    fakes.a.script = Script(status=503)
    served = mount(config)
    got = served.chat(BEST, model="m")
    assert (got.status, got.provider, got.json["model"]) == (200, "b", "m2")
    assert got.header("x-ai-model-mapped") == "m2"
    assert got.header("x-ai-failover-occurred") == "true"
    assert served.chat(BEST, model="m2").provider == "b"
    fakes.b.script = Script(status=503)
    assert served.chat(BEST, model="m").provider == "c"


def test_model_fallbacks_serve_while_the_named_model_is_out(mount: Any, fakes: Any) -> None:
    routing = failover(model_fallbacks={"m": ["m2"]})
    config = fakes.config({"a": ["m"], "b": ["m2"]}, routing=routing)
    fakes.a.script = Script(status=503, headers={"retry-after": "60"})
    served = mount(config)
    assert [served.chat(BEST, model="m").provider for _ in range(2)] == ["b", "b"]
    assert fakes.called() == {"a": 1, "b": 2}


def test_a_key_limited_to_some_models_stays_so(mount: Any, fakes: Any) -> None:
    key = {"name": "k", "key": "key-of-a-caller-0001", "models": ["m"]}
    config = fakes.config(
        {"a": ["m"], "b": ["m2"]},
        routing=failover(model_fallbacks={"m": ["m2"]}),
        security={"auth": {"enabled": True, "api_keys": [key]}},
    )
    fakes.a.script = Script(status=503)
    headers = {**BEST, "Authorization": "Bearer key-of-a-caller-0001"}
    got = mount(config).chat(headers, model="m")
    assert (got.status, got.error["code"]) == (503, "provider_overloaded")
    assert fakes.called() == {"a": 1}


@pytest.mark.parametrize(
    "headers",
    [
        {"X-AI-Provider-Pool": "a,c"},
        {"X-AI-Cost-Limit": "0.01"},
        {"X-AI-Quality-Threshold": "0.65"},
        {"X-AI-Security-Requirements": "hipaa"},
    ],
)
def test_constraints_hold_on_every_fallback(
    mount: Any, fakes: Any, headers: dict[str, str]
) -> None:
    """XAI-FAIL-023: the dear, weak, unlisted and unattested one is never asked."""
    attested = {"labels": [{"label": "hipaa", "evidence": "contract", "date": "2026-01-01"}]}
    providers = {
        "a": {"models": models("a"), "security": attested},
        "b": models("b", quality=0.6, cost_per_1k_tokens=5),
        "c": {"models": models("c"), "security": attested},
    }
    routing = failover(model_fallbacks={"m": ["never"]}, max_retries=9)
    config = fakes.config(providers, routing=routing)
    config["providers"]["b"]["models"].append(
        {"name": "never", "quality": 0.5, "cost_per_1k_tokens": 9}
    )
    fakes.a.script = fakes.c.script = Script(status=503)
    served = mount(config)
    for model in ("auto", "m"):
        got = served.chat({**BEST, **headers}, model=model)
        # with an explicit model quality picks among its providers and does not block them
        if model == "m" and "X-AI-Quality-Threshold" in headers:
            assert all(seen.body["model"] != "never" for seen in fakes.b.seen)
            continue
        assert got.status in (502, 503)
        assert set(fakes.called()) <= {"a", "c"}


# --- faults with a rule of their own -------------------------------------------------------------


@pytest.mark.parametrize("told_by", ["window", "provider"])
@pytest.mark.parametrize(
    ("path", "members", "param"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}, "messages"),
        ("/v1/responses", {"input": LONG}, "input"),
        ("/v1/completions", {"prompt": LONG}, "prompt"),
        ("/aiproxy/predict", {"input": LONG}, "input"),
    ],
)
def test_a_prompt_too_long_is_told_of_the_member_it_stands_in(
    mount: Any, fakes: Any, path: str, members: dict[str, Any], param: str, told_by: str
) -> None:
    fakes.a.script = Script(status=400, body={"error": {"code": "context_length_exceeded"}})
    window = {"context_window": 10} if told_by == "window" else {}
    served = mount(fakes.config({"a": models("a", **window)}))
    got = served.post(path, {"model": "m", **members}, BEST)
    assert (got.status, got.error["code"]) == (400, "context_length_exceeded"), got
    assert got.error["param"] == param
    assert len(fakes.a.seen) == (told_by == "provider")


@pytest.mark.parametrize(
    "error",
    [
        {"message": "x", "code": "context_length_exceeded"},
        {"message": "This model's maximum context length is 8 tokens", "code": None},
    ],
)
def test_a_prompt_too_long_goes_to_larger_windows_only(
    mount: Any, fakes: Any, error: dict[str, Any]
) -> None:
    fakes.a.script = Script(status=400, body={"error": error})
    config = fakes.config(
        {
            "a": models("a", context_window=8000),
            "b": models("b", context_window=8000),
            "c": models("c", context_window=32000),
            "d": models("d"),
        }
    )
    served = mount(config)
    got = served.chat(BEST)
    assert got.provider == "c"
    assert got.selection["failover_reason"] == "context_length_exceeded"
    assert fakes.called() == {"a": 1, "c": 1}
    fakes.c.script = fakes.a.script
    got = served.chat(BEST)
    assert (got.status, got.error["code"]) == (400, "context_length_exceeded")
    assert served.chat({**BEST, "X-AI-Provider-Pool": "b"}).status == 200


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
def test_a_content_filter_is_final(mount: Any, fakes: Any, code: str) -> None:
    fakes.a.script = Script(status=400, body={"error": {"message": "SECRET", "code": code}})
    got = mount(chain(fakes)).chat(BEST)
    assert (got.status, got.error["code"]) == (400, "invalid_value")
    assert "content filter" in got.error["message"]
    assert got.header("x-should-retry") == "false"
    assert fakes.called() == {"a": 1}


def test_a_missing_model_is_remembered(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=404)
    served = mount(chain(fakes))
    assert [served.chat(BEST).provider for _ in range(3)] == ["b"] * 3
    assert fakes.called() == {"a": 1, "b": 3}


def test_a_name_the_application_does_not_know_does_not_block_it(
    server: Any, mount: Any, fakes: Any
) -> None:
    """It lists no models, so one unknown name says nothing about the others."""
    served = mount({}, app=wrapped(server, 404, fakes.config({"a": ["m"]})))
    for _ in range(12):
        got = served.chat(BEST, model="nobody-knows")
        assert (got.status, got.error["code"]) == (404, "model_not_found")
    track = served.gateway.registry.providers["app"].track
    assert track.blocked_for(time.monotonic()) == 0
    assert not track.cooling(time.monotonic())


# --- a lone provider -----------------------------------------------------------------------------

LONE = [
    (Script(status=401), 502, "upstream_auth_failed"),
    (Script(status=403), 502, "upstream_auth_failed"),
    (Script(status=404), 404, "model_not_found"),
    (Script(status=408), 504, "upstream_timeout"),
    (Script(status=409), 503, "provider_overloaded"),
    (Script(status=429), 429, "rate_limit_exceeded"),
    (Script(status=500), 502, "all_providers_failed"),
    (Script(status=503), 503, "provider_overloaded"),
    (Script(status=504), 504, "upstream_timeout"),
    (Script(status=529), 503, "provider_overloaded"),
    (Script(raw=b"<html>", content_type="text/html"), 502, "upstream_invalid_response"),
    (Script(body={"error": {"message": "SECRET-TEXT"}}), 502, "upstream_invalid_response"),
]


@pytest.mark.parametrize(("script", "status", "code"), LONE)
def test_the_error_of_a_lone_provider(
    mount: Any, fakes: Any, script: Script, status: int, code: str
) -> None:
    fakes.a.script = script
    served = mount(chain(fakes, "a"))
    got = served.chat(BEST)
    assert (got.status, got.error["code"]) == (status, code)
    assert b"SECRET" not in got.body
    assert b"sk-" not in got.body
    honest = got.header("x-should-retry") == "false" or got.header("retry-after") is not None
    assert honest or status == 404
    assert got.header("x-request-id")
    assert got.selection["attempts"][0]["provider"] == "a"
    assert served.record(got)["error"]["code"] == code
    assert {row[1] for row in outcomes(served, got)} == {"failed"}


def test_an_exhausted_chain_sums_up(mount: Any, fakes: Any) -> None:
    """XAI-FAIL-022."""
    fakes.a.script = fakes.b.script = Script(status=503)
    got = mount(chain(fakes)).chat(BEST)
    assert (got.status, got.error["code"]) == (502, "all_providers_failed")
    assert got.header("x-should-retry") == "false"
    assert got.header("retry-after") is None
    assert b"SECRET" not in got.body


def test_an_exhausted_chain_says_when_waiting_would_help(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=503, headers={"retry-after": "9"})
    fakes.b.script = Script(status=500)
    got = mount(chain(fakes)).chat(BEST)
    assert (got.status, got.header("retry-after")) == (502, "9")
    assert got.header("x-should-retry") is None


def test_a_missing_model_promises_nothing(mount: Any, fakes: Any) -> None:
    fakes.a.script = fakes.b.script = Script(status=404)
    got = mount(chain(fakes)).chat(BEST)
    assert got.status == 502
    assert got.header("retry-after") is None


# --- selection itself fails ----------------------------------------------------------------------


def test_broken_selection_falls_back_to_the_default_provider(
    mount: Any, fakes: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """XAI-FAIL-021: still 200, the incident logged, security still enforced."""
    attested = {"labels": [{"label": "hipaa", "evidence": "contract", "date": "2026-01-01"}]}
    served = mount(fakes.config({"a": ["m"], "b": {"models": ["m"], "security": attested}}))

    def explode(*_: Any) -> None:
        raise RuntimeError("scorer")

    monkeypatch.setattr(served.gateway.planner, "plan", explode)
    with caplog.at_level(logging.ERROR, "aiproxy"):
        got = served.chat(BEST)
    assert (got.status, got.provider) == (200, "a")
    assert "selection failed" in caplog.text
    labelled = served.chat({**BEST, "X-AI-Security-Requirements": "hipaa"})
    assert (labelled.status, labelled.provider) == (200, "b")


def test_an_idempotency_key_reaches_every_attempt(mount: Any, fakes: Any) -> None:
    """XAI-FAIL-024."""
    fakes.a.script = Script(status=503)
    mount(chain(fakes)).chat({**BEST, "Idempotency-Key": "once-1"})
    keys = [fakes[n].seen[0].headers["idempotency-key"] for n in "ab"]
    assert keys == ["once-1", "once-1"]


def test_every_attempt_resolves_anew_for_its_model(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=503)
    config = fakes.config(
        {"a": models("a", max_output_tokens=100), "b": models("b", max_output_tokens=50)}
    )
    mount(config).chat(BEST, max_completion_tokens="auto")
    sent = [
        (u.seen[0].body["model"], u.seen[0].body["max_completion_tokens"])
        for u in (fakes.a, fakes.b)
    ]
    assert sent == [("a-m", 100), ("b-m", 50)]


def test_the_failed_providers_headers_do_not_stick_to_the_answer(mount: Any, fakes: Any) -> None:
    config = chain(fakes)
    for name in "ab":
        config["providers"][name]["relay_headers"] = ["x-ratelimit-remaining", "retry-after"]
    fakes.a.script = Script(status=429, headers={"retry-after": "3", "x-ratelimit-remaining": "0"})
    fakes.b.script = Script(headers={"x-ratelimit-remaining": "41"})
    got = mount(config).chat(BEST)
    assert got.header("x-ratelimit-remaining") == "41"
    assert got.header("retry-after") is None


# --- the wrapped application ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"), [(401, "invalid_api_key"), (403, "insufficient_scope")]
)
def test_the_applications_own_refusal_is_the_clients(
    server: Any, mount: Any, fakes: Any, status: int, code: str
) -> None:
    """It saw the client's credentials; asking somebody else would walk around it."""
    served = mount({}, app=wrapped(server, status, fakes.config({"a": ["m"]})))
    for _ in range(12):
        got = served.chat(BEST, model="app-model")
        assert (got.status, got.error["code"]) == (status, code)
    assert fakes.called() == {}
    track = served.gateway.registry.providers["app"].track
    assert track.blocked_for(time.monotonic()) == 0


def wrapped(server: Any, status: int, config: Any) -> Any:
    """The middleware around an application that answers everything with ``status``."""
    if server.kind == "asgi":
        return AIProxyMiddleware(_asgi_refusing(status), config)
    return AIProxyWSGIMiddleware(_wsgi_refusing(status), config)


def _wsgi_refusing(status: int) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(f"{status} No", [("content-type", "text/plain")])
        return [b"SECRET no"]

    return app


def _asgi_refusing(status: int) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"SECRET no"})

    return app
