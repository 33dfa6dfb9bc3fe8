"""What the log says, and what it never says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from mounts import CHAT, HELLO
from served import pair_config, serve
from upstreams import Script

from aiproxy.middleware import load_config
from aiproxy.reference_server.log_output import Redactor
from aiproxy.reference_server.logs import secrets_of

PROMPT = "prompt-canary-text"
BODY = {"model": "shared", "messages": [{"role": "user", "content": PROMPT}]}
CANARIES = ("provider-canary-1", "client-canary-0002", "header-canary-003", PROMPT, "SECRET-TEXT")
KEY = {"authorization": "Bearer client-canary-0002"}


def config_with_canaries(upstreams: Any, **logging: Any) -> dict[str, Any]:
    config = pair_config(*upstreams)
    config["providers"]["a"]["credentials"] = {"api_key": "provider-canary-1"}
    config["providers"]["a"]["headers"] = {"x-team": "header-canary-003"}
    keys = [{"name": "anna", "key": "client-canary-0002"}]
    config["security"] = {"auth": {"enabled": True, "api_keys": keys}}
    config["observability"] = {"logging": logging}
    return config


def provoke(server: Any, a: Any, b: Any) -> None:
    """Requests that go wrong in every way an upstream or a client has, canaries in them."""
    echo = json.dumps({"error": {"message": " ".join(CANARIES)}}).encode()
    for script in (
        Script(status=500, raw=echo),
        Script(status=401, raw=echo),
        Script(status=400, raw=echo),
        Script(status=429, raw=echo),
        Script(raw=b"not json " + echo),
        Script(raw=b"{}"),
    ):
        a.queue[:], b.queue[:] = [script], [script]
        server.post(CHAT, BODY, KEY)
    a.queue[:], b.queue[:] = [], []
    for script in (
        Script(error_after=1),
        Script(cut_after=1),
        Script(finish=False, done=False),
    ):
        a.queue[:], b.queue[:] = [script], [script]
        server.post(CHAT, {**BODY, "stream": True}, KEY)
    a.queue[:], b.queue[:] = [], []
    server.post(CHAT, {**BODY, "model": "sk-looks-like-a-key-123"}, KEY)
    server.post(CHAT, {**BODY, "model": "provider-canary-1"}, KEY)
    server.post(CHAT, {**BODY, "temperature": PROMPT}, KEY)
    server.post(CHAT, {**BODY, "tools": [{"type": PROMPT}]}, KEY)
    server.post(CHAT, PROMPT.encode(), KEY)
    server.post(CHAT, BODY, {"authorization": "Bearer header-canary-003"})
    server.post(CHAT, BODY, {**KEY, "X-AI-Cost-Limit": PROMPT})
    server.post(CHAT, BODY, {**KEY, "X-AI-Task-Hint": "provider-canary-1"})
    server.get(f"/v1/models?{PROMPT}", KEY)
    server.get("/v1/models/client-canary-0002", KEY)
    server.raw(PROMPT.encode() + b"\r\n\r\n")


@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("form", ["json", "text"])
def test_no_secret_and_no_prompt_reaches_the_log(
    upstreams: Any, tmp_path: Path, form: str, level: str
) -> None:
    config = config_with_canaries(upstreams, format=form, level=level)
    with serve(tmp_path, config) as server:
        provoke(server, *upstreams)
        server.stop()
        told = server.out.read_text() + server.err.read_text()
    assert len(told.splitlines()) > 15
    for canary in (*CANARIES, "sk-looks-like"):
        assert canary not in told
    if form == "json":
        assert all(isinstance(row, dict) for row in server.lines)
        assert {"timestamp", "level", "event"} <= set.intersection(*map(set, server.lines))
        events = [row["event"] for row in server.lines]
        assert not any("failed inside" in event for event in events)


def test_text_lines_are_one_a_request_however_odd_the_model_name(
    upstreams: Any, tmp_path: Path
) -> None:
    config = pair_config(*upstreams, observability={"logging": {"format": "text"}})
    with serve(tmp_path, config) as server:
        name = "x\nlevel=error event=forged \u202e\x1b[31m"
        identity = server.post(CHAT, {**BODY, "model": name}).header("x-request-id")
        server.stop()
        lines = server.out.read_text().splitlines()
    mine = [line for line in lines if f"request_id={identity}" in line]
    assert len(mine) == 1
    assert not any(line.startswith("level=error") for line in lines)
    assert "\x1b" not in mine[0]
    assert re.search(r'requested="x\\nlevel=error event=forged', mine[0])


def test_a_file_gets_the_lines_and_standard_output_stays_empty(
    upstreams: Any, tmp_path: Path
) -> None:
    file = tmp_path / "proxy.log"
    config = pair_config(*upstreams, observability={"logging": {"output": str(file)}})
    with serve(tmp_path, config) as server:
        identity = server.post(CHAT, BODY).header("x-request-id")
        assert server.stop() == 0
        assert server.out.read_bytes() == b""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["status"] for row in rows if row.get("request_id") == identity] == [200]


@pytest.mark.parametrize(
    ("level", "expected"), [("warn", [502]), ("error", [502]), ("debug", None)]
)
def test_the_level_filters(
    upstreams: Any, tmp_path: Path, level: str, expected: list[int] | None
) -> None:
    a, b = upstreams
    config = pair_config(a, b, observability={"logging": {"level": level}})
    with serve(tmp_path, config) as server:
        fine = server.post(CHAT, BODY).status
        server.get("/healthz")
        a.queue.append(Script(status=500))
        b.queue.append(Script(status=500))
        bad = server.post(CHAT, BODY).status
        server.stop()
        statuses = [row["status"] for row in server.lines if row["event"] == "request"]
        probes = [row for row in server.lines if row.get("endpoint") == "/healthz"]
    assert (fine, bad) == (200, 502)
    if expected is None:
        assert {200, 502} <= set(statuses)
        assert probes
    else:
        assert statuses == expected


def test_a_log_nobody_reads_any_more_fails_no_request(upstreams: Any, tmp_path: Path) -> None:
    full = Path("/dev/full")
    config = pair_config(*upstreams, observability={"logging": {"output": str(full)}})
    with serve(tmp_path, config) as server:
        assert [server.post(CHAT, BODY).status for _ in range(3)] == [200] * 3
        assert server.stop() == 0


def test_every_value_the_schema_calls_secret_is_known() -> None:
    config = load_config(
        {
            "providers": {
                "openai": {"credentials": {"api_key": "one-secret-1"}, "models": [{"name": "m"}]},
                "groq": {"credentials": {"api_key": "${G}"}, "models": [{"name": "m"}]},
            },
            "security": {
                "auth": {"enabled": True, "api_keys": [{"name": "a", "key": "two-secret-2222222"}]}
            },
            "state": {"backend": "valkey", "url": "redis://:three-secret@127.0.0.1:6379"},
        },
        env={"G": "four-secret-4444"},
    )
    assert secrets_of(config) == {
        "one-secret-1",
        "two-secret-2222222",
        "three-secret",
        "four-secret-4444",
    }


def test_masking_takes_the_longer_of_two_secrets() -> None:
    redact = Redactor(frozenset({"abcdef", "abcdefghi"}))
    assert redact("x abcdefghi y abcdef z Bearer zyxwvut.sr") == "x *** y *** z ***"


def test_hello_is_no_secret() -> None:
    assert Redactor(frozenset())(json.dumps(HELLO)) == json.dumps(HELLO)


@pytest.mark.requirement("XAI-SEC-022", "XAI-SEC-023")
def test_a_line_says_who_asked_who_could_serve_and_why_one_did(
    upstreams: Any, tmp_path: Path
) -> None:
    with serve(tmp_path, config_with_canaries(upstreams, format="json")) as server:
        served = server.post(CHAT, BODY, KEY)
        refused = server.post(CHAT, BODY, {**KEY, "X-AI-Security-Requirements": "hipaa"})
    rows = {row["request_id"]: row for row in server.lines if row["event"] == "request"}
    row = rows[served.header("x-request-id")]
    assert row["timestamp"]
    assert (row["key"], row["outcome"], row["status"]) == ("anna", "ok", 200)
    assert row["candidates"][0] == f"{row['provider']}/{row['model']}"
    assert len(row["candidates"]) == 2
    assert row["reason"]
    row = rows[refused.header("x-request-id")]
    assert (row["key"], row["outcome"], row["candidates"]) == ("anna", "refused", [])
    assert row["error"] == "unsupported_security_requirement"
