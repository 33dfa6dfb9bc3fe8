"""Budgets on both mounts: exact limits, free providers, alerts, what is held and released."""

import json
import logging
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from mounts import HELLO, model
from upstreams import Script

from aiproxy.middleware.config import ConfigInvalid
from aiproxy.middleware.decision import Attempt, Decision
from aiproxy.middleware.gateway import Gateway, Runtime
from aiproxy.middleware.money.amounts import PER_USD
from aiproxy.middleware.money.budgets import OverBudget
from aiproxy.middleware.routing.plan import Ranked

req = pytest.mark.requirement

#: 14 tokens at a dollar a thousand.
USAGE = {"prompt_tokens": 4, "completion_tokens": 10, "total_tokens": 14}
CALL_USD, LIMIT_USD = 0.014, 0.2
CENT = PER_USD // 100
#: 2026-05-31, a second before the month ends in UTC; a morning is 12 hours before.
LATE, MORNING = 1_780_271_999.0, 1_780_271_999.0 - 12 * 3600


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "costs.db"


@pytest.fixture
def spender(mount, fakes, ledger):
    """``spender(wall=..., security=..., **budget)``: a dollar a thousand at paid, nothing at free."""

    def build(*, wall=MORNING, prices=(1.0, 0.0), security=None, **budget):
        paid, free = (
            model(n, cost_per_1k_tokens=p) for n, p in zip(("paid", "free"), prices, strict=True)
        )
        config = fakes.config(
            {"paid": [paid, model("both", cost_per_1k_tokens=prices[0])],
             "free": [free, model("both", cost_per_1k_tokens=prices[1])]},
            routing={"strategy": "availability", "failover": {"same_provider_retries": 0}},
            budget={"daily_limit": LIMIT_USD, "cost_db": f"sqlite:///{ledger}", **budget},
            **({"security": security} if security else {}),
        )  # fmt: skip
        clock = [wall]
        gateway = Gateway(config, runtime=Runtime(wall=lambda: clock[0]))
        served = mount(gateway)
        served.clock = clock
        for name in ("paid", "free"):
            fakes[name].script = Script(usage=USAGE)
        return served

    return build


def ask(served, name="paid", headers=(), **members):
    """A request that may answer with ten tokens."""
    body = {"max_tokens": 10, "temperature": 0, **members}
    return served.chat([("x-ai-multi-provider", "enabled"), *headers], model=name, **body)


def rows(ledger):
    database = sqlite3.connect(ledger)
    try:
        return database.execute(
            "SELECT key, provider, model, outcome, input_tokens, output_tokens, cost FROM attempts"
        ).fetchall()
    finally:
        database.close()


def books(served):
    """used and held of each limit, in picodollars."""
    return books_of(served.gateway)


def books_of(gateway):
    return [(limit.spell.used, limit.spell.held) for limit in gateway.budget._all]


def until_refused(served, **options):
    for count in range(40):
        got = ask(served, **options)
        if got.status != 200:
            return count, got
    raise AssertionError("it was never refused")


@req("AIP-BUDGET-003", "AIP-BUDGET-008", "AIP-BUDGET-011", "AIP-CFG-084")
def test_a_day_is_spent_to_the_last_call_that_fits_and_free_models_go_on(spender, fakes, ledger):
    served = spender()
    count, got = until_refused(served)
    assert 10 <= count <= int(LIMIT_USD / CALL_USD)
    assert (got.status, got.error["code"]) == (429, "budget_exceeded")
    assert got.error["type"] == "insufficient_quota"
    assert got.header("x-should-retry") == "false"
    assert got.header("retry-after") == str(12 * 3600 + 1 - 0)
    assert served.record(got)["candidates"][0]["reason"] == "over_budget"
    assert fakes.called() == {"paid": count}
    assert ask(served, "free").status == 200
    both = ask(served, "both")
    assert (both.status, both.provider) == (200, "free")
    assert both.rejected == {} or both.rejected["paid"] == "over_budget"
    served.gateway.budget.close()
    kept = rows(ledger)
    assert len(kept) == count + 2
    assert sum(row[-1] for row in kept) == count * 14 * PER_USD // 1000
    assert books(served)[0] == (count * 14 * PER_USD // 1000, 0)


@req("AIP-BUDGET-004", "AIP-BUDGET-005", "AIP-CFG-085")
@pytest.mark.parametrize("name", ["daily_limit", "monthly_limit"])
def test_a_period_ends_in_utc_and_everything_is_back(spender, name):
    limits = {"daily_limit": None, "monthly_limit": None, name: LIMIT_USD}
    served = spender(wall=LATE, **limits)
    until_refused(served)
    assert ask(served).header("retry-after") == "1"
    served.clock[0] = LATE + 0.9
    assert ask(served).status == 429
    served.clock[0] = LATE + 1
    assert ask(served).status == 200
    served.clock[0] = LATE - 100  # set back: the period that ended does not begin again
    assert until_refused(served)[0] <= int(LIMIT_USD / CALL_USD) - 1


@req("AIP-BUDGET-004", "AIP-BUDGET-012")
def test_a_month_binds_although_the_day_has_room_and_says_when_it_ends(spender):
    served = spender(wall=MORNING - 10 * 86400, daily_limit=50, monthly_limit=LIMIT_USD)
    _, got = until_refused(served)
    assert "monthly" in got.error["message"]
    assert got.header("retry-after") == str(10 * 86400 + 12 * 3600 + 1)
    served.clock[0] += 86400
    assert ask(served).status == 429


@req("AIP-BUDGET-009")
def test_a_crowd_cannot_pass_the_limit_together(spender, fakes):
    served = spender()
    fakes.paid.script = Script(usage=USAGE, delay_s=0.15)
    with ThreadPoolExecutor(40) as crowd:
        answers = list(crowd.map(lambda _: ask(served), range(40)))
    paid = [got for got in answers if got.status == 200]
    assert 1 <= len(paid) <= int(LIMIT_USD / CALL_USD)
    assert fakes.called() == {"paid": len(paid)}
    refused = [got for got in answers if got.status != 200]
    assert {got.error["code"] for got in refused} == {"budget_exceeded"}
    # what others hold is free again soon: nobody is told to wait for midnight
    assert {got.header("retry-after") for got in refused} == {"1"}
    assert {got.header("x-should-retry") for got in refused} == {None}
    assert books(served) == [(len(paid) * 14 * PER_USD // 1000, 0)]


@req("AIP-BUDGET-010")
def test_failures_release_and_streams_settle(spender, fakes, ledger):
    served = spender(daily_limit=100)
    fakes.paid.script = Script(status=503)
    assert ask(served).status >= 500
    assert books(served) == [(0, 0)]
    fakes.paid.script = Script(
        body={"choices": [], "usage": USAGE, "object": "chat.completion"}
    )  # no answer, but it says what it cost
    assert ask(served).status == 502
    assert books(served) == [(14 * PER_USD // 1000, 0)]
    fakes.paid.script = Script(usage=USAGE, gap_s=0.02, text="one two three four five")
    got = ask(served, stream=True, stream_options={"include_usage": True})
    assert got.events[-1] == "[DONE]"
    assert books(served) == [(28 * PER_USD // 1000, 0)]
    fakes.paid.script = Script(cut_after=3, gap_s=0.01, text="one two three four five six")
    ask(served, stream=True)
    [(used, held)] = books(served)
    assert held == 0
    served.gateway.budget.close()
    outcomes = [(row[3], row[-1]) for row in rows(ledger)]
    assert [outcome for outcome, _ in outcomes] == ["failed", "failed", "ok", "failed"]
    assert outcomes[0][1] is None
    assert sum(cost or 0 for _, cost in outcomes) == used


@req("AIP-BUDGET-010")
def test_a_failover_reserves_for_each_attempt_and_charges_who_served(spender, fakes, ledger):
    served = spender(prices=(1.0, 0.5), daily_limit=100)
    fakes.paid.script = Script(status=503)
    got = ask(served, "both")
    assert (got.status, got.provider) == (200, "free")
    assert books(served) == [(7 * PER_USD // 1000, 0)]
    served.gateway.budget.close()
    assert [(row[1], row[3]) for row in rows(ledger)] == [("paid", "failed"), ("free", "ok")]


@req("AIP-BUDGET-006", "AIP-BUDGET-012", "AIP-CFG-088", "AIP-CFG-089")
def test_an_alert_is_one_line_a_limit_and_period(spender, caplog):
    caplog.set_level(logging.WARNING, "aiproxy")
    served = spender(
        daily_limit=0.1, monthly_limit=0.2, alerts=[{"threshold": 25, "action": "log"}]
    )
    for _ in range(5):
        assert ask(served).status == 200
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("budget: ")]
    assert [line.partition(":")[2].strip().partition(" limit")[0] for line in lines] == [
        "daily",
        "monthly",
    ]
    assert "25 %" in lines[0]
    served.clock[0] += 86400  # another day, another month too: both begin anew
    for _ in range(2):
        ask(served)
    assert sum("daily limit: 25 %" in r.getMessage() for r in caplog.records) == 2


@req("AIP-BUDGET-007", "AIP-CFG-090", "AIP-USE-003")
def test_a_threshold_takes_paid_providers_out_until_the_period_ends(spender, fakes):
    served = spender(
        daily_limit=1.0, alerts=[{"threshold": 10, "action": "disable_paid_providers"}]
    )
    providers = [ask(served, "both").provider for _ in range(10)]
    assert providers == ["paid"] * 8 + ["free"] * 2  # eight calls are 0.112 of a dollar
    assert fakes.called() == {"paid": 8, "free": 2}
    assert ask(served, "paid").error["code"] == "budget_exceeded"
    served.clock[0] += 86400
    assert ask(served, "both").provider == "paid"


@req("AIP-BUDGET-012", "AIP-BUDGET-007")
def test_the_month_alone_may_take_them_out(spender, caplog):
    served = spender(
        daily_limit=1.0, monthly_limit=0.05,
        alerts=[{"threshold": 50, "action": "disable_paid_providers"}],
    )  # fmt: skip
    assert [ask(served, "both").provider for _ in range(3)] == ["paid", "paid", "free"]
    [line] = [r.getMessage() for r in caplog.records if "50 %" in r.getMessage()]
    assert "monthly" in line


@req("UNI-GOV-006")
def test_a_key_has_limits_of_its_own(spender, ledger):
    keys = [
        {"name": "anna", "key": "anna-key-canary-0001", "daily_limit": 0.05},
        {"name": "ben", "key": "ben-key-canary-00002"},
    ]
    auth = {"enabled": True, "type": "api_key", "api_keys": keys}
    served = spender(daily_limit=1.0, security={"auth": auth})
    anna, ben = (("authorization", f"Bearer {row['key']}") for row in keys)
    count, got = until_refused(served, headers=[anna])
    assert 1 <= count <= 3
    assert got.error["code"] == "budget_exceeded"
    assert ask(served, headers=[ben]).status == 200
    served.gateway.budget.close()
    assert {row[0] for row in rows(ledger)} == {"anna", "ben"}
    assert books(served)[0][0] == (count + 1) * 14 * PER_USD // 1000


@req("AIP-BUDGET-002")
def test_a_new_process_goes_on_where_the_last_one_was(spender, ledger):
    served = spender()
    count, _ = until_refused(served)
    served.gateway.budget.close()
    assert ask(spender()).status == 429
    other_day = spender(wall=MORNING + 86400)
    assert ask(other_day).status == 200
    other_day.gateway.budget.close()
    assert len(rows(ledger)) == count + 1


@req("AIP-BUDGET-002")
def test_a_damaged_ledger_is_told_at_the_start(fakes, ledger):
    config = fakes.config(
        {"paid": [model("paid")]}, budget={"daily_limit": 1, "cost_db": f"sqlite:///{ledger}"}
    )
    ledger.write_bytes(b"this is no database, and long enough to be looked at" * 40)
    with pytest.raises(ConfigInvalid, match=r"budget.cost_db: .*costs.db"):
        Gateway(config)
    ledger.unlink()
    database = sqlite3.connect(ledger)
    database.execute("CREATE TABLE somebody (else_ TEXT)")
    database.close()
    with pytest.raises(ConfigInvalid, match="something else"):
        Gateway(config)


@req("AIP-BUDGET-009")
def test_two_that_keep_the_same_limits_are_not_both_let(spender, caplog):
    """Each would spend the whole limit: the second serves nothing paid and says why in the log."""
    first = spender()
    assert ask(first).status == 200
    second = spender()
    got = ask(second)
    assert (got.status, got.error["code"]) == (429, "budget_exceeded")
    assert ask(second, "free").status == 200
    assert sum("another process" in r.getMessage() for r in caplog.records) == 1
    first.gateway.budget.close()
    second.clock[0] += 2
    assert ask(second).status == 200  # the other one ended


def test_the_smallest_of_header_configuration_and_budget_binds(spender):
    """T-25: a request that fits the header's limit alone is still held to what is left."""
    served = spender(daily_limit=0.02)
    for limit, reason in (("0.001", "over_cost_limit"), ("5", "over_budget")):
        got = ask(served, headers=[("x-ai-cost-limit", limit)], max_tokens=100)
        assert served.record(got)["candidates"][0]["reason"] == reason


def test_what_only_looks_on_neither_reserves_nor_records(spender, ledger):
    from aiproxy.middleware.exchange import Exchange
    from aiproxy.middleware.gateway import Inbound

    served = spender()
    body = json.dumps({"model": "paid", "messages": HELLO, "max_tokens": 10}).encode()
    inbound = Inbound("/v1/chat/completions", "chat", (), body)
    explained = Exchange(served.gateway, inbound).explain()
    assert explained.record()["selected"]["provider"] == "paid"
    assert books(served) == [(0, 0)]
    served.gateway.budget.close()
    assert not ledger.exists()


@req("AIP-BUDGET-010")
def test_a_thousand_requests_that_were_left_hold_nothing(fakes):
    """The client goes while the provider is asked: what was reserved is free again."""
    from aiproxy.middleware.effects import Call
    from aiproxy.middleware.exchange import Exchange
    from aiproxy.middleware.gateway import Inbound

    config = fakes.config({"a": [model("paid", cost_per_1k_tokens=1.0)]}, budget={"daily_limit": 1})
    gateway = Gateway(config, ledger=False)
    body = json.dumps({"model": "paid", "messages": HELLO, "max_tokens": 10}).encode()
    for _ in range(1000):
        flow = Exchange(gateway, Inbound("/v1/chat/completions", "chat", (), body)).run()
        assert type(next(flow)) is Call
        [limit] = gateway.budget._all
        assert limit.spell.held > 10 * PER_USD // 1000
        flow.close()
        assert (limit.spell.used, limit.spell.held) == (0, 0)


def test_a_price_nobody_knows_is_left_out_under_a_limit(spender, caplog):
    served = spender(prices=(None, 0.0))
    assert "paid/paid" in caplog.text
    assert ask(served).status == 422
    assert ask(served, "both").provider == "free"


@req("AIP-BUDGET-013", "AIP-CFG-086")
@pytest.mark.parametrize("tracked", [True, False])
def test_an_answer_names_its_cost_where_costs_are_tracked(mount, fakes, tracked):
    config = fakes.config(
        {"a": [model("m", cost_per_1k_tokens=1.0)]},
        routing={"scope": "all"}, budget={"track_costs": tracked},
    )  # fmt: skip
    fakes.a.script = Script(usage=USAGE)
    served = mount(config)
    expected = CALL_USD if tracked else None
    assert ask(served, "m").json["x-aiproxy"]["cost"] == expected
    native = served.post("/aiproxy/predict", {"model": "m", "input": "Hello"}).json
    assert native["metadata"]["cost"]["amount"] == expected


def test_limits_need_costs(fakes):
    keys = [{"name": "anna", "key": "anna-key-canary-0001", "daily_limit": 1}]
    for limited in (
        {"budget": {"track_costs": False, "daily_limit": 1}},
        {"budget": {"track_costs": False}, "security": {"auth": {"api_keys": keys}}},
    ):
        with pytest.raises(ConfigInvalid, match=r"budget.track_costs: found false with limits"):
            Gateway(fakes.config({"a": ["m"]}, **limited))


def test_without_limits_nothing_is_kept_but_what_a_ledger_is_named_for(mount, fakes, ledger):
    config = fakes.config({"a": [model("m", cost_per_1k_tokens=1.0)]})
    assert Gateway(config).budget is None
    config["budget"] = {"cost_db": f"sqlite:///{ledger}"}
    fakes.a.script = Script(usage=USAGE)
    served = mount(config)
    assert ask(served, "m").status == 200
    served.gateway.budget.close()
    assert [row[-1] for row in rows(ledger)] == [14 * PER_USD // 1000]


def test_threads_that_write_and_a_file_that_fails(tmp_path, caplog):
    """Rows wait while the file cannot be written, and are there once it can."""
    from aiproxy.middleware.money.ledger import Ledger, Row

    folder = tmp_path / "there"
    folder.write_text("a file where a folder should be")
    ledger = Ledger(folder / "costs.db")

    def put():
        for _ in range(100):
            ledger.put(Row(0.0, "2026-05-31", "r", "", "p", "m", "ok", 1, 2, False, 3))

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not ledger.flush(0.2)
    assert "cannot be written" in caplog.text
    folder.unlink()
    assert ledger.flush(5)
    ledger.close()
    assert len(rows(ledger.path)) == 400
    assert Ledger(ledger.path).totals("2026-05") == [("2026-05-31", "", 1200)]


def test_a_forked_child_holds_nothing_of_its_parent_and_claims_the_ledger_itself(fakes, ledger):
    """Servers that load the application and fork afterwards (AIP-BUDGET-009, AIP-BUDGET-002)."""
    config = fakes.config(
        {"a": [model("paid", cost_per_1k_tokens=1.0)]},
        budget={"daily_limit": 1, "cost_db": f"sqlite:///{ledger}"},
    )
    gateway = Gateway(config)
    [paid] = gateway.registry.models
    decision = Decision("r", 0.0, 0, "chat", "n")
    cost = PER_USD // 2

    def spend():
        hold = gateway.budget.reserve(decision, paid, cost)
        hold.settle(Attempt(Ranked(paid, 0.0, cost, None, None), "chat", 0.0, cost=cost))

    def in_a_child(work):
        pid = os.fork()
        if pid == 0:
            try:
                work()
                gateway.budget.close()
                os._exit(0)
            except OverBudget:
                os._exit(3)
            finally:
                os._exit(9)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert in_a_child(spend) == 0
    assert [row[-1] for row in rows(ledger)] == [cost]
    gateway.budget.reserve(decision, paid, cost)  # the child ended: the rest is the parent's
    assert books_of(gateway) == [(cost, cost)]
    assert in_a_child(spend) == 3
    gateway.budget.close()
