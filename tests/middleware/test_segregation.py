"""A request split by the data classes of its parts (draft Fig 17, XAI-SEC-016)."""

import json

import pytest
from mounts import HELLO, model
from upstreams import Script

req = pytest.mark.requirement
POLICY = {"X-AI-Failover-Policy": "automatic"}
CLASS = "X-AI-Data-Classification"
CLASSES = {
    "classes": {
        "public": {},
        "pci": {"labels": ["pci-dss"]},
        "conf": {"labels": ["conf"]},
    },
    "segregation": {"enabled": True},
}
PUBLIC, CARD, DEAL = "canary-public-7", "canary-card-8", "canary-deal-9"


def attested(*labels, price=0.001, level=None, **more):
    security = {"labels": list(labels), "level": level}
    return {"security": security, "models": [model("m", cost_per_1k_tokens=price)], **more}


@pytest.fixture
def tiers(mount, fakes):
    """a: nothing attested, b: pci, c: confidential, d: both; c says what it read in its answer."""

    def build(security=CLASSES, **routing):
        providers = {
            "a": attested(price=0.0001, level="low"),
            "b": attested("pci-dss", price=0.001, level="medium"),
            "c": attested("conf", price=0.001),
            "d": attested("pci-dss", "conf", price=0.01, level="high"),
        }
        return mount(
            fakes.config(
                providers, security=security, routing={"strategy": "cost_optimized", **routing}
            )
        )

    return build


def part(text, data_class=None, kind="text"):
    tag = {} if data_class is None else {"data_classification": data_class}
    return {"type": kind, "text": text, **tag}


def parts(kind="text"):
    return [
        part("Write the report.", kind=kind),
        part(PUBLIC, "public", kind),
        part(CARD, "pci", kind),
        part(DEAL, "conf", kind),
    ]


def saying(fakes, **texts):
    for name, text in texts.items():
        fakes[name].script = Script(text=text)


def bodies(fake):
    return [json.dumps(seen.body) for seen in fake.seen]


REQUESTS = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": parts()}]}),
    "turns": (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": PUBLIC, "data_classification": "public"},
                {"role": "user", "content": CARD, "data_classification": "pci"},
                {"role": "user", "content": DEAL, "data_classification": "conf"},
                {"role": "user", "content": "Write the report."},
            ]
        },
    ),
    "responses": (
        "/v1/responses",
        {"input": [{"role": "user", "content": parts("input_text")}]},
    ),
    "draft": ("/v1/responses", {"messages": [{"role": "user", "content": parts()}]}),
    "anthropic": (
        "/v1/messages",
        {"max_tokens": 50, "messages": [{"role": "user", "content": parts()}]},
    ),
    "gemini": (
        "/v1beta/models/m:generateContent",
        {
            "contents": [
                {
                    "role": "user",
                    "parts": [{k: v for k, v in p.items() if k != "type"} for p in parts()],
                }
            ]
        },
    ),
}


@req("XAI-SEC-016", "XAI-FIG-017")
@pytest.mark.parametrize("name", REQUESTS)
def test_parts_go_to_their_own_tier_only(tiers, fakes, name):
    """No part crosses: whoever merges has answers, and is attested for all of it."""
    path, body = REQUESTS[name]
    saying(fakes, a="from-a", b="from-b", c="from-c", d="merged")
    named = {} if name == "gemini" else {"model": "m"}
    got = tiers().post(path, {**named, **body}, POLICY)
    assert got.status == 200, got
    assert b"merged" in got.body
    assert fakes.called() == {"a": 1, "b": 1, "c": 1, "d": 1}
    seen = {name: bodies(fakes[name])[0] for name in "abcd"}
    for text, home in ((PUBLIC, "a"), (CARD, "b"), (DEAL, "c")):
        assert [name for name in "abcd" if text in seen[name]] == [home]
    for one in "abc":
        assert "Write the report." not in seen[one]
        assert f"from-{one}" in seen["d"]
    assert "data_classification" not in str(seen)
    assert "Write the report." in seen["d"]


@req("XAI-SEC-016", "XAI-FIG-017")
def test_the_record_and_headers_say_who_was_asked(tiers, fakes):
    served = tiers()
    body = {"messages": [{"role": "user", "content": parts()}]}
    got = served.chat({"X-AI-Multi-Provider": "enabled"}, **body)
    assert got.provider == "d"
    assert got.header("x-ai-failover-occurred") is None
    assert got.selection["strategy"] == "segregation"
    assert got.selection["allocation"] == {
        "public": {"provider": "a", "sec": "low"},
        "pci": {"provider": "b", "sec": "medium"},
        "conf": {"provider": "c", "sec": "unstated"},
    }
    assert got.selection["flow_controls"]["cross_tier"] == "prohibited"
    record = served.record(got)
    assert [row["provider"] for row in record["attempts"]] == ["a", "b", "c", "d"]
    assert [row.get("role") for row in record["attempts"]] == ["segment"] * 3 + [None]
    assert all(row["cost_usd"] > 0 for row in record["attempts"])
    total = sum(row["cost_usd"] for row in record["attempts"])
    assert record["total_cost_usd"] == pytest.approx(total)
    assert record["segregation"]["allocation"] == got.selection["allocation"]
    assert record["security"]["classes"] == ["public", "pci", "conf"]


@req("XAI-SEC-016")
def test_a_stream_is_split_before_it_begins(tiers, fakes):
    served = tiers()
    body = {"messages": [{"role": "user", "content": parts()}], "stream": True}
    got = served.chat({"X-AI-Multi-Provider": "enabled"}, **body)
    assert got.events[-1] == "[DONE]"
    assert fakes.called() == {"a": 1, "b": 1, "c": 1, "d": 1}
    assert [fakes[name].seen[0].body.get("stream") for name in "abcd"] == [None, None, None, True]


@req("XAI-SEC-016", "XAI-SEC-027")
def test_a_class_nobody_serves_refuses_the_request_unsent(mount, fakes):
    providers = {"a": attested(), "b": attested("pci-dss", "conf", enabled=False)}
    providers["c"] = attested("pci-dss")
    served = mount(fakes.config(providers, security=CLASSES))
    got = served.chat(POLICY, messages=[{"role": "user", "content": parts()}])
    assert (got.status, got.error["code"]) == (422, "unsupported_security_requirement")
    assert fakes.called() == {}


@req("XAI-SEC-016", "XAI-SEC-027")
def test_a_part_fails_over_inside_its_class_only(tiers, fakes):
    fakes.b.script = Script(status=503)
    got = tiers().chat(POLICY, messages=[{"role": "user", "content": parts()}])
    assert got.status == 200
    assert [name for name in "abcd" if any(CARD in body for body in bodies(fakes[name]))] == [
        "b",
        "d",
    ]
    fakes.d.script = Script(status=503)
    before = len(fakes.a.seen)
    got = tiers().chat(POLICY, messages=[{"role": "user", "content": parts()}])
    assert got.status >= 500
    assert len(fakes.a.seen) == before + 1


@req("XAI-SEC-016")
def test_the_cost_limit_holds_for_the_sum(tiers, fakes):
    body = {"messages": [{"role": "user", "content": parts()}], "max_tokens": 100}
    served = tiers()
    refused = served.chat({"X-AI-Cost-Limit": "0.0002"}, **body)
    assert refused.status == 422
    assert fakes.called() == {}
    got = served.chat({"X-AI-Cost-Limit": "0.01"}, **body)
    assert got.status == 200, got
    assert served.record(got)["total_cost_usd"] <= 0.01
    assert fakes.called() == {"a": 1, "b": 1, "c": 1, "d": 1}


@req("XAI-SEC-016", "XAI-SEC-003")
def test_what_the_header_demands_binds_every_call(tiers, fakes):
    headers = {"X-AI-Security-Requirements": "pci-dss,conf"}
    got = tiers().chat(headers, messages=[{"role": "user", "content": parts()}])
    assert got.status == 200
    assert set(fakes.called()) == {"d"}
    assert all(sum(text in body for text in (PUBLIC, CARD, DEAL)) <= 1 for body in bodies(fakes.d))


@req("XAI-SEC-016", "XAI-SYNC-002")
def test_with_the_switch_off_one_provider_gets_all_or_nobody_anything(tiers, fakes):
    rows = [{"role": "user", "content": parts()}]
    served = tiers(default_provider="d")
    got = served.chat({"X-AI-Multi-Provider": "disabled"}, messages=rows, model="m")
    assert got.status == 200, got
    assert fakes.called() == {"d": 1}


RESULT = {"role": "tool", "tool_call_id": "c", "content": CARD, "data_classification": "pci"}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


@req("XAI-SEC-012", "XAI-SEC-016")
@pytest.mark.parametrize(
    ("security", "rows", "home"),
    [
        (
            CLASSES | {"segregation": {"enabled": False}},
            [{"role": "user", "content": parts()}],
            "d",
        ),
        (CLASSES, [{"role": "user", "content": DEAL, "data_classification": "conf"}], "c"),
        (CLASSES, [*HELLO, CALLED, RESULT], "b"),
    ],
    ids=["switched-off", "all-of-it-tagged", "a-tools-result"],
)
def test_what_cannot_be_split_goes_whole_to_the_strictest_tier(tiers, fakes, security, rows, home):
    got = tiers(security).chat(POLICY, messages=rows)
    assert got.status == 200, got
    assert fakes.called() == {home: 1}


@req("XAI-SEC-016")
def test_an_explained_request_shows_the_split_and_asks_nobody(tiers, fakes):
    from aiproxy.middleware.exchange import Exchange
    from aiproxy.middleware.gateway import Inbound

    served = tiers()
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": parts()}]})
    inbound = Inbound("/v1/chat/completions", "chat", (), body.encode())
    record = Exchange(served.gateway, inbound).explain().record()
    assert set(record["segregation"]["allocation"]) == {"public", "pci", "conf"}
    assert record["attempts"] == []
    assert fakes.called() == {}
