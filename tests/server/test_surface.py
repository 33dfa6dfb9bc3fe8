"""Every endpoint of the server, over a real socket."""

import json
import socket
import time
from typing import Any

import pytest
from mounts import CHAT, HELLO, RESPONSES
from served import ANNA, BEN, until
from upstreams import Script

from aiproxy.spec import validate

FACTS = {
    "/healthz",
    "/readyz",
    "/v1/models",
    "/v1/extensions",
    "/v1/capabilities",
    "/v1/providers",
    "/v1/routing",
    "/aiproxy/mesh/status",
}
LATER = {"/v1/analytics", "/v1/performance", "/dashboard"}
INFERENCE = {CHAT, RESPONSES, "/v1/completions", "/v1/embeddings", "/aiproxy/predict"}
BODY = {"model": "shared", "messages": HELLO}


@pytest.mark.requirement("AIP-API-037")
@pytest.mark.parametrize("path", sorted(FACTS))
def test_a_read_only_endpoint_answers_get_and_head_alike(pair: Any, path: str) -> None:
    got = pair.server.get(path)
    assert got.status == 200
    assert isinstance(got.json, dict)
    for method, where in (("HEAD", path), ("GET", path + "/"), ("GET", path + "?a=b")):
        other = pair.server.request(method, where)
        assert (other.status, other.header("content-type")) == (200, "application/json")
        assert other.header("x-request-id") not in (None, got.header("x-request-id"))
    assert pair.server.request("HEAD", path).body == b""


@pytest.mark.parametrize("path", sorted(LATER))
def test_an_endpoint_of_a_later_release_says_501(pair: Any, path: str) -> None:
    got = pair.server.get(path)
    assert (got.status, got.error["code"]) == (501, "unsupported_capability")
    assert got.header("x-request-id")
    assert path not in json.dumps(pair.server.get("/v1/capabilities").json)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *(("POST", path, "GET") for path in sorted(FACTS)),
        *(("GET", path, "POST") for path in sorted(INFERENCE)),
        *(("DELETE", path, "POST") for path in sorted(INFERENCE)),
        ("PUT", "/v1/models/shared", "GET"),
        ("DELETE", "/v1/routing/decisions/x", "GET"),
    ],
)
def test_a_wrong_method_is_405_and_says_which_are_right(
    pair: Any, method: str, path: str, allowed: str
) -> None:
    got = pair.server.request(method, path, BODY if method == "POST" else None)
    assert (got.status, got.error["code"]) == (405, "method_not_allowed")
    assert allowed in [word.strip() for word in got.header("allow").split(",")]
    validate(got.json, "error")
    assert got.header("x-request-id")


@pytest.mark.parametrize("path", sorted(FACTS | INFERENCE))
def test_options_names_the_methods(pair: Any, path: str) -> None:
    got = pair.server.request("OPTIONS", path)
    assert got.status in (200, 204)
    assert "OPTIONS" in got.header("allow") or got.header("allow")


@pytest.mark.requirement("AIP-API-035")
@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/nothing", "/nothing/", "/v1/models/no-such", "/%00", "/v1/../etc"]
)
def test_an_unknown_path_is_a_404_error_object(pair: Any, path: str) -> None:
    got = pair.server.get(path)
    assert got.status == 404
    assert got.error["code"] in ("not_found", "model_not_found")
    validate(got.json, "error")
    assert got.header("x-request-id")


@pytest.mark.requirement("AIP-API-035")
@pytest.mark.parametrize("slashes", ["/", "//"])
def test_a_trailing_slash_changes_nothing(pair: Any, slashes: str) -> None:
    plain = pair.server.post(CHAT, BODY)
    got = pair.server.post(CHAT + slashes, BODY)
    assert (got.status, got.json["x-aiproxy"]["provider"]) == (200, "a")
    assert got.json["choices"] == plain.json["choices"]


@pytest.mark.requirement("AIP-API-001", "AIP-API-003", "AIP-API-004", "AIP-API-037", "AIP-NODE-001")
def test_a_chat_request_is_answered_logged_and_kept_under_one_id(pair: Any) -> None:
    got = pair.server.post(CHAT, BODY, {"x-request-id": "a-chosen-id"})
    assert (got.status, got.header("x-request-id")) == (200, "a-chosen-id")
    told = got.json["x-aiproxy"]
    validate(told, "x-aiproxy")
    assert (told["provider"], told["node"]) == ("a", "node-under-test")
    assert told["cost"] == pytest.approx(21 * 0.001 / 1000)
    assert told["latency_ms"] > 0
    assert not [name for name, _ in got.headers if name.startswith("x-ai-")]
    line = pair.server.line_of("a-chosen-id")
    assert (line["status"], line["provider"], line["outcome"]) == (200, "a", "ok")
    record = pair.server.get("/v1/routing/decisions/a-chosen-id").json
    validate(record, "decision")
    assert record["selected"]["provider"] == "a"
    assert record["attempts"][0]["outcome"] == "ok"


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "-leading", "quote'"])
def test_an_odd_request_id_is_replaced(pair: Any, given: str) -> None:
    got = pair.server.get("/healthz", {"x-request-id": given})
    assert got.header("x-request-id").startswith("req_")


def test_every_kind_of_answer_has_a_log_line_with_its_id(pair: Any) -> None:
    server = pair.server
    asked = [
        server.get("/v1/models"),
        server.get("/v1/nothing"),
        server.post(CHAT, b"{"),
        server.post(CHAT, BODY, {"content-type": "text/plain"}),
        server.post(CHAT, {**BODY, "model": "no-such"}),
        server.post(CHAT, BODY, {"X-AI-Cost-Limit": "much"}),
        server.request("DELETE", CHAT),
        server.post("/v1/embeddings", {"model": "vectors", "input": "x"}),
    ]
    lines = [server.line_of(got.header("x-request-id")) for got in asked]
    assert [row["status"] for row in lines] == [got.status for got in asked]
    assert [got.status for got in asked] == [200, 404, 400, 415, 404, 400, 405, 200]


@pytest.mark.requirement("AIP-API-019", "AIP-API-020", "AIP-API-021", "AIP-API-024")
def test_models_are_merged_over_providers(pair: Any) -> None:
    listed = pair.server.get("/v1/models").json
    validate(listed, "responses/models")
    rows = {row["id"]: row for row in listed["data"]}
    assert set(rows) == {"shared", "only-a", "vectors", "only-b"}
    assert [(p["name"], p["available"]) for p in rows["shared"]["providers"]] == [
        ("a", True),
        ("b", True),
    ]
    assert rows["shared"]["providers"][0]["cost_per_1k_tokens"] == 0.001
    one = pair.server.get("/v1/models/shared").json
    validate(one, "responses/model")
    assert one["id"] == "shared"


@pytest.mark.requirement("AIP-API-025", "AIP-API-027", "AIP-API-028")
def test_mesh_status_without_a_mesh_has_no_peers(pair: Any) -> None:
    got = pair.server.get("/aiproxy/mesh/status").json
    validate(got, "responses/mesh-status")
    assert got["peers"] == []
    assert got["node"]["id"] == "node-under-test"
    assert got["providers"] == {
        "a": {"status": "healthy", "models": 3},
        "b": {"status": "healthy", "models": 2},
    }


def test_providers_tell_no_address_and_no_credential(pair: Any) -> None:
    text = pair.server.get("/v1/providers").body.decode()
    assert [row["id"] for row in json.loads(text)["data"]] == ["a", "b"]
    assert "127.0.0.1" not in text
    assert str(pair.a.port) not in text


@pytest.mark.requirement("AIP-API-010", "AIP-API-011", "AIP-API-012")
def test_predict_answers_in_the_native_shape(pair: Any) -> None:
    got = pair.server.post("/aiproxy/predict", {"model": "shared", "input": "Hello"})
    assert got.status == 200
    validate(got.json, "responses/predict")
    assert got.json["metadata"]["node_id"] == "node-under-test"


# --- hostile bodies ------------------------------------------------------------------------------


@pytest.mark.requirement("AIP-API-040")
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"[]", 400, "invalid_type"),
        (b"null", 400, "invalid_type"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b"[" * 100_000 + b"]" * 100_000, 400, "invalid_json"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, 400, "invalid_json"),
        (b'{"model":"shared","messages":[]}', 400, None),
        (b'{"model":"shared","messages":[{"role":"wizard","content":"x"}]}', 400, None),
        (b'{"model":"shared","messages":1e999}', 400, None),
        (b'{"model":"\\ud800","messages":[{"role":"user","content":"x"}]}', 400, "invalid_json"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_hostile_json_is_refused_and_named(
    pair: Any, body: bytes, status: int, code: str | None
) -> None:
    got = pair.server.post(CHAT, body, {"content-type": "application/json"})
    assert got.status == status
    assert code in (None, got.error["code"])
    validate(got.json, "error")
    assert pair.server.get("/healthz").status == 200


@pytest.mark.requirement("AIP-API-040")
def test_duplicate_keys_and_huge_numbers_do_no_harm(pair: Any) -> None:
    head = b'{"model":"no-such","model":"shared","messages":[{"role":"user","content":"x"}],'
    got = pair.server.post(
        CHAT, head + b'"metadata":{"n":"1"}}', {"content-type": "application/json"}
    )
    assert (got.status, got.json["model"]) == (200, "shared")
    huge = pair.server.post(
        CHAT, head + b'"max_tokens":' + b"9" * 400 + b"}", {"content-type": "application/json"}
    )
    assert huge.status == 400


@pytest.mark.parametrize("chunked", [False, True])
def test_an_oversized_body_is_413(keyed: Any, chunked: bool) -> None:
    body = {"model": "shared", "messages": [{"role": "user", "content": "x" * 30_000}]}
    got = keyed.server.post(CHAT, body, ANNA, chunked=chunked)
    assert (got.status, got.error["code"]) == (413, "request_too_large")
    assert got.header("x-request-id")
    assert keyed.a.seen == []


def test_a_declared_length_is_refused_before_the_body_comes(keyed: Any) -> None:
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: {ANNA['authorization']}\r\n"
        "content-type: application/json\r\ncontent-length: 999999999\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", keyed.server.port), timeout=5) as plug:
        plug.sendall(head.encode())
        assert plug.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_dribbles_is_cut_off_with_408(keyed: Any) -> None:
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: {ANNA['authorization']}\r\n"
        "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    )
    began = time.monotonic()
    answer = keyed.server.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in answer
    assert time.monotonic() - began < 5


def test_a_head_that_dribbles_is_cut_off_with_408(keyed: Any) -> None:
    answer = keyed.server.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"x-request-id: req_" in answer


def test_a_connection_that_says_nothing_is_closed(keyed: Any) -> None:
    assert keyed.server.raw(b"") == b""


def test_a_head_without_end_is_431(pair: Any) -> None:
    answer = pair.server.raw(b"GET /healthz HTTP/1.1\r\nx-long: " + b"a" * 400_000)
    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""


@pytest.mark.parametrize(
    "octets",
    [
        b"nonsense\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX-AI-Task-Hint: coding\r\n folded\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nbad header: x\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n"
            b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["nonsense", "folded", "space-in-name", "two-lengths", "length-and-chunked", "tls"],
)
def test_what_is_no_http_gets_the_error_object_and_an_id(pair: Any, octets: bytes) -> None:
    answer = pair.server.raw(octets)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-id: req_" in head
    validate(json.loads(body), "error")


def test_garbage_behind_a_request_is_not_written_into_its_answer(pair: Any) -> None:
    pair.a.script = Script(delay_s=0.3)
    body = json.dumps(BODY).encode()
    request = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode()
    answer = pair.server.raw(request + body + b"nonsense\r\n\r\n")
    assert answer == b"" or answer.count(b"HTTP/1.1 ") == 1
    until(lambda: all(seen.aborted for seen in pair.a.seen) and pair.a.seen)


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.requirement("AIP-API-029", "AIP-API-036")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in sorted(FACTS - {"/healthz", "/readyz"})),
        *(("GET", path) for path in sorted(LATER)),
        *(("POST", path) for path in sorted(INFERENCE)),
        ("GET", "/v1/models/shared"),
        ("GET", "/v1/routing/decisions/x"),
        ("GET", "/nothing"),
        ("DELETE", CHAT),
        ("POST", CHAT + "/"),
    ],
)
def test_everything_but_health_needs_a_key(keyed: Any, method: str, path: str) -> None:
    body = BODY if method == "POST" else None
    for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic anna"}):
        got = keyed.server.request(method, path, body, wrong)
        assert (got.status, got.error["code"]) == (401, "invalid_api_key")
        assert got.header("www-authenticate").startswith("Bearer")
        assert got.header("x-request-id")
    assert keyed.a.seen == []


def test_health_needs_no_key(keyed: Any) -> None:
    assert [keyed.server.get(path).status for path in ("/healthz", "/readyz")] == [200, 200]


def test_a_decision_is_shown_to_the_key_that_asked_and_to_nobody_else(keyed: Any) -> None:
    identity = keyed.server.post(CHAT, BODY, ANNA).header("x-request-id")
    where = f"/v1/routing/decisions/{identity}"
    mine, theirs = keyed.server.get(where, ANNA), keyed.server.get(where, BEN)
    unknown = keyed.server.get("/v1/routing/decisions/req_unknown", BEN)
    assert (mine.status, mine.json["id"]) == (200, identity)
    assert (theirs.status, theirs.json) == (404, unknown.json)


def test_a_key_for_some_models_gets_no_others(keyed: Any) -> None:
    assert keyed.server.post(CHAT, BODY, BEN).status == 200
    for path in (CHAT, CHAT + "/"):
        got = keyed.server.post(path, {**BODY, "model": "only-b"}, BEN)
        assert (got.status, got.error["code"]) == (403, "model_not_permitted")
    assert keyed.b.seen == []


def test_the_key_never_reaches_a_provider(keyed: Any) -> None:
    keyed.server.post(CHAT, BODY, ANNA)
    assert "authorization" not in keyed.a.seen[0].headers


# --- the list of endpoints -----------------------------------------------------------------------


@pytest.mark.requirement("AIP-API-039")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", CHAT, 200),
        ("POST", RESPONSES, 200),
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/shared", 200),
        ("GET", "/v1/providers", 200),
        ("POST", "/v1/completions", 404),
        ("POST", "/v1/completions/", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/embeddings", 404),
        ("POST", "/aiproxy/predict", 404),
        ("GET", "/aiproxy/mesh/status", 404),
        ("GET", "/v1/capabilities", 404),
        ("GET", "/v1/capabilities/", 404),
    ],
)
def test_a_given_list_of_endpoints_is_honoured(
    keyed: Any, method: str, path: str, status: int
) -> None:
    body = {"model": "shared", "messages": HELLO} if method == "POST" else None
    got = keyed.server.request(method, path, body, ANNA)
    assert got.status == status
    if status == 404:
        assert got.error["code"] == "not_found"
    assert keyed.server.get("/readyz").status == 200
