"""Budgets of the real server: one ledger a process, restarts, crashes, and what was spent."""

import json
import signal
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from served import ANNA, KEYS, provider, run, serve, until, write_config
from upstreams import Script

req = pytest.mark.requirement
USAGE = {"prompt_tokens": 4, "completion_tokens": 10, "total_tokens": 14}
#: What one answer costs at a dollar a thousand tokens.
CALL_USD = 0.014


def configured(upstreams: Any, folder: Path, **budget: Any) -> dict[str, Any]:
    a, _ = upstreams
    a.script = Script(usage=USAGE)
    a.seen.clear()
    rows = [{"name": name, "key": key} for name, key in KEYS.items()]
    return {
        "providers": {"a": provider(a, {"name": "paid", "cost_per_1k_tokens": 1.0})},
        "security": {"auth": {"enabled": True, "type": "api_key", "api_keys": rows}},
        "budget": {
            "daily_limit": 0.1,
            "cost_db": f"sqlite:///{folder}/ledger/costs.db",
            **budget,
        },
    }


def ask(server: Any, **members: Any) -> Any:
    return server.chat(ANNA, model="paid", max_tokens=10, **members)


@req("AIP-BUDGET-001", "AIP-BUDGET-002", "AIP-BUDGET-006", "AIP-CFG-087")
def test_what_was_spent_survives_restarts_and_is_told(upstreams: Any, tmp_path: Path) -> None:
    alerts = [{"threshold": 25, "action": "log"}]
    config = configured(upstreams, tmp_path, alerts=alerts)
    with serve(tmp_path / "first", config) as server:
        for _ in range(3):
            assert ask(server).status == 200
        told = [x for x in server.lines if x.get("event", "").startswith("budget: ")]
        assert len(told) == 1
        assert "daily limit: 25 %" in told[0]["event"]
        assert server.stop() == 0
    with serve(tmp_path / "second", config) as server:
        answers = [ask(server) for _ in range(6)]
        assert 1 <= sum(got.status == 200 for got in answers) <= 4
        assert answers[-1].status == 429
        assert server.lines == [x for x in server.lines if not x["event"].startswith("budget: ")]
        assert server.stop() == 0
    served = 3 + sum(got.status == 200 for got in answers)
    file = str(write_config(tmp_path, config))
    done = run("costs", "--config", file, "--json")
    assert done.returncode == 0, done.stderr
    costs = json.loads(done.stdout)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    [row] = costs["costs"]
    assert {k: row[k] for k in ("day", "key", "provider", "model")} == {
        "day": today, "key": "anna", "provider": "a", "model": "paid",
    }  # fmt: skip
    assert (row["attempts"], row["input_tokens"], row["output_tokens"]) == (
        served, 4 * served, 10 * served,
    )  # fmt: skip
    assert costs["total_usd"] == row["cost_usd"] == pytest.approx(served * CALL_USD)
    table = run("costs", "--config", file, "--by", "provider")
    assert "provider" in table.stdout
    assert "anna" not in table.stdout
    assert f"total: {served * CALL_USD:.6f} USD" in table.stdout
    later = run("costs", "--config", file, "--since", "2999-01-01", "--json")
    assert json.loads(later.stdout) == {"costs": [], "total_usd": 0.0}


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--by", "colour"], 2, "--by: found colour"),
        (["--since", "yesterday"], 2, "--since: found yesterday"),
        ([], 1, "nothing was recorded"),
    ],
)
def test_costs_that_cannot_be_told_say_why(
    upstreams: Any, tmp_path: Path, options: list[str], code: int, told: str
) -> None:
    file = str(write_config(tmp_path, configured(upstreams, tmp_path)))
    done = run("costs", "--config", file, *options)
    assert (done.returncode, told in done.stderr) == (code, True)


@req("AIP-BUDGET-002")
def test_a_crash_loses_no_more_than_the_last_moment(upstreams: Any, tmp_path: Path) -> None:
    config = configured(upstreams, tmp_path)
    ledger = tmp_path / "ledger" / "costs.db"
    with serve(tmp_path, config) as server:
        for _ in range(3):
            assert ask(server).status == 200
        until(lambda: ledger.exists() and _spent(ledger) == 3 * 14 * 10**9, 2.0)
        server.stop(signal.SIGKILL)
    assert _spent(ledger) == 3 * 14 * 10**9


def _spent(ledger: Path) -> int:
    database = sqlite3.connect(ledger)
    try:
        [(amount,)] = database.execute("SELECT coalesce(sum(amount), 0) FROM spent")
        return int(amount)
    except sqlite3.OperationalError:
        return 0
    finally:
        database.close()


@req("AIP-BUDGET-009")
def test_limits_with_several_workers_are_refused_with_what_to_set(
    upstreams: Any, tmp_path: Path
) -> None:
    file = str(write_config(tmp_path, configured(upstreams, tmp_path)))
    done = run("serve", "--config", file, "--port", "0", "--workers", "2")
    assert done.returncode == 2
    assert "server.workers: 1" in done.stderr
    assert "listening" not in done.stderr


@req("AIP-BUDGET-009")
def test_a_second_server_does_not_spend_by_the_same_ledger(upstreams: Any, tmp_path: Path) -> None:
    config = configured(upstreams, tmp_path)
    with serve(tmp_path, config) as server:
        assert ask(server).status == 200
        done = run("serve", "--config", str(tmp_path / "aiproxy.json"), "--port", "0")
        assert done.returncode == 2
        assert "another process" in done.stderr
        assert "listening" not in done.stderr
        shown = run("models", "--config", str(tmp_path / "aiproxy.json"))
        assert shown.returncode == 0, shown.stderr


@req("AIP-BUDGET-002")
def test_a_damaged_ledger_is_a_clear_error_at_the_start(upstreams: Any, tmp_path: Path) -> None:
    file = str(write_config(tmp_path, configured(upstreams, tmp_path)))
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "costs.db").write_bytes(b"not a database, " * 200)
    done = run("serve", "--config", file, "--port", "0")
    assert done.returncode == 2
    assert "budget.cost_db" in done.stderr
    assert "Traceback" not in done.stderr


def test_explain_says_who_is_over_budget_and_changes_nothing(
    upstreams: Any, tmp_path: Path
) -> None:
    config = configured(upstreams, tmp_path, daily_limit=0.001)
    config["security"] = {}
    file, body = str(write_config(tmp_path, config)), tmp_path / "body.json"
    body.write_text(json.dumps({"model": "paid", "messages": [{"role": "user", "content": "x"}]}))
    done = run("explain", "--json", "--config", file, str(body))
    record = json.loads(done.stdout)
    assert record["error"]["code"] == "budget_exceeded"
    assert record["candidates"][0]["reason"] == "over_budget"
    assert not (tmp_path / "ledger").exists()
