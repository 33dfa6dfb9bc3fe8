"""What the client is told of a decision (XAI-RESP), against what the upstreams saw.

Every answer of every test is already held to the shapes and bounds in ``mounts.check_answer``; here
are the contents.
"""

import json
from random import Random

import pytest
from mounts import CHAT, DEAR, EACH, HELLO, RESPONSES, TOGETHER, model
from upstreams import Script

from aiproxy.spec import HEADERS, checker, schema

req = pytest.mark.requirement
ON = {"X-AI-Multi-Provider": "enabled"}
BY_COST = {"X-AI-Routing-Strategy": "cost"}
RESPONSE = [field.name.lower() for field in HEADERS.values() if "response" in field.directions]


def ours(got):
    return {name for name, _ in got.headers if name.startswith("x-ai-")}


@req("XAI-RESP-001", "XAI-RESP-020")
@pytest.mark.parametrize("stream", [False, True])
def test_each_header_is_one_physical_line(pair, stream):
    served = pair({"tools": {"web-search": "browser"}}, provider_b={"aliases": ["bee"]})
    body = {"model": "auto", "messages": HELLO, "tools": "auto", "stream": stream}
    lines = [b"X-AI-Task-Hint: coding", b"X-AI-Provider-Pool: a,bee,nosuch"]
    status, answer = served.lines(lines, body)
    assert status == 200
    head, _, _ = answer.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        assert colon, line
        assert name == name.strip(), "a continuation line"
        assert all(32 <= octet < 127 for octet in value), line
    names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
    assert b"x-request-id" in names
    assert b"content-type" in names


@req("XAI-RESP-002")
def test_odd_text_never_gets_into_a_header_unescaped(mount, fakes):
    odd = [model("modèle-🦆", quality=0.5), model("m2")]
    served = mount(fakes.config({"a": odd, "b": [model("ß/ü")]}))
    text = '🦆 "quoted" \\ \u202e'
    got = served.chat(
        {"X-AI-Routing-Strategy": "quality"}, messages=[{"role": "user", "content": text}]
    )
    assert got.status == 200
    assert "🦆" not in str(got.headers)
    models = [row["model"] for row in json.loads(got.header("x-ai-alternatives-considered"))]
    assert "modèle-🦆" in models
    assert "ß/ü" in [*models, got.selection["model_selection"]["selected"]]


@req("XAI-RESP-003")
def test_many_rejected_providers_are_cut_and_marked(mount, fakes):
    many = {
        f"provider-with-a-long-name-{n:02}": {
            "upstream": "b",
            "models": [model(f"m{n}", quality=0.2)],
        }
        for n in range(60)
    }
    served = mount(fakes.config({"a": [model("good")], **many}))
    got = served.chat({"X-AI-Quality-Threshold": "0.5"})
    assert got.provider == "a"
    assert got.selection["truncated"] is True
    assert 0 < len(got.selection["alternatives_rejected"]) < 60
    assert got.header("x-ai-provider-used") == "a"
    assert served.record(got)["truncated"] is True
    assert len(served.record(got)["candidates"]) == 61


@req("XAI-RESP-003")
def test_many_alternatives_are_cut_and_marked_too(mount, fakes):
    many = {f"p{n:02}": {"upstream": "b", "models": [model("m" * 100 + str(n))]} for n in range(60)}
    got = mount(fakes.config({"a": [model("good", cost_per_1k_tokens=0)], **many})).chat(ON)
    assert got.provider == "a"
    assert got.selection["truncated"] is True
    assert 0 < len(json.loads(got.header("x-ai-alternatives-considered"))) < 60


@req("XAI-RESP-003")
@pytest.mark.parametrize(("field", "total"), [(512, 900), (4000, 8000)])
def test_the_bounds_are_configurable(mount, fakes, field, total):
    many = {
        f"provider-{n:02}": {"upstream": "b", "models": [model(f"m{n}", quality=0.2)]}
        for n in range(60)
    }
    limits = {"response_field": f"{field}B", "response_total": f"{total}B"}
    served = mount(fakes.config({"a": [model("good")], **many}, server={"header_limits": limits}))
    status, answer = served.lines([b"X-AI-Quality-Threshold: 0.5"])
    assert status == 200
    lines = [x for x in answer.partition(b"\r\n\r\n")[0].split(b"\r\n") if x.startswith(b"x-ai-")]
    values = [line.partition(b": ")[2] for line in lines]
    assert max(map(len, values)) <= field
    assert sum(map(len, lines)) + 2 * len(lines) <= total
    selection = next(line for line in lines if line.startswith(b"x-ai-auto-selection"))
    cut = json.loads(selection.partition(b": ")[2]).get("truncated", False)
    assert cut is (field < EACH)
    assert total != TOGETHER


@req("XAI-RESP-004")
def test_headers_appear_only_where_something_was_chosen(pair):
    served = pair(routing={"scope": "all"})
    assert ours(served.chat()) == set()
    assert ours(served.chat(model="m-a")) == set()
    assert ours(served.get("/v1/models", ON)) == set()
    needed = {
        "x-ai-provider-used",
        "x-ai-model-mapped",
        "x-ai-auto-selection",
        "x-ai-auto-decisions",
        "x-ai-selection-confidence",
        "x-ai-alternatives-considered",
        "x-ai-conversation-id",
    }
    got = served.chat(ON)
    assert needed == ours(got)
    assert needed <= set(RESPONSE)


@req("XAI-RESP-005", "XAI-RESP-006", "XAI-RESP-014")
@pytest.mark.parametrize("stream", [False, True])
def test_provider_and_model_are_those_that_answered(mount, fakes, stream):
    served = mount(fakes.config({n: [model(f"public-{n}", model=f"@cf/{n}/up.1")] for n in "abc"}))
    chance = Random(5)
    moved = 0
    for _ in range(17):
        for name in "abc":
            fakes[name].seen.clear()
            fakes[name].script = Script(status=chance.choice([200, 200, 404]))
        got = served.chat(
            {"X-AI-Routing-Strategy": "round_robin", "X-AI-Failover-Policy": "automatic"},
            stream=stream,
        )
        for name in "abc":  # the next round starts afresh
            for found in served.gateway.registry.by_provider[name]:
                found.track.__init__()
        served.gateway.registry.trouble_until = 0.0
        if got.status != 200:
            continue
        text = (
            "".join(
                e["choices"][0]["delta"].get("content") or ""
                for e in got.events[:-1]
                if e["choices"]
            ).strip()
            if stream
            else got.json["choices"][0]["message"]["content"]
        )
        assert text == f"served by {got.provider}"
        assert got.header("x-ai-model-mapped") == fakes[got.provider].seen[-1].body["model"]
        first = served.record(got)["attempts"][0]["provider"]
        flag = got.header("x-ai-failover-occurred")
        assert flag == ("true" if first != got.provider else None)
        moved += flag == "true"
    assert moved


@req("XAI-RESP-007")
def test_model_mapped_is_for_auto_and_renamed_models(pair):
    served = pair({"model": "up-a"})
    assert served.chat(ON, model="m-a").header("x-ai-model-mapped") == "up-a"
    assert served.chat(ON, model="m-b").header("x-ai-model-mapped") is None
    assert served.chat(ON).header("x-ai-model-mapped") == "up-a"


@req("XAI-RESP-008", "XAI-RESP-036", "XAI-RESP-037")
def test_auto_selection_describes_the_choice(pair, fakes):
    served = pair({"cost_per_1k_tokens": DEAR})
    fakes.b.script = Script(delay_s=0.06)
    got = served.chat({**BY_COST, "X-AI-Max-Latency": "5000", "X-AI-Task-Hint": "creative"})
    said = got.selection
    assert said["criteria"] == "creative"
    assert said["strategy"] == "cost"
    assert said["model_selection"] == {
        "requested": "auto",
        "criteria": "creative",
        "selected": "m-b",
        "reason": "lowest_cost",
    }
    assert 60 <= said["latency_achieved_ms"] < 1000
    record = served.record(got)
    assert said["latency_achieved_ms"] == pytest.approx(
        record["attempts"][0]["latency_ms"], abs=0.2
    )
    assert not checker("auto-selection-emitted").ok({**said, "surprise": 1})


@req("XAI-RESP-009")
def test_tool_mapping_is_sent_when_tools_were_auto(pair):
    served = pair({"tools": {"web-search": "browser"}})
    pool = {"X-AI-Provider-Pool": "a"}
    got = served.chat({**pool, "X-AI-Tool-Categories": "web-search,weather"}, tools="auto")
    mapping = json.loads(got.header("x-ai-tool-mapping"))
    assert mapping["requested"] == "auto"
    assert mapping["selected_tools"][0]["category"] == "web-search"
    assert mapping["selected_tools"][0]["provider_tool"] == "browser"
    assert mapping["unmapped"] == ["weather"]
    assert got.decisions["tool_mapping"].items() <= mapping.items()
    assert served.chat(pool).header("x-ai-tool-mapping") is None


@req("XAI-RESP-011")
def test_the_alternatives_are_the_eligible_others(mount, fakes):
    served = mount(fakes.config({n: [model(f"m-{n}")] for n in "abcd"}))
    got = served.chat({"X-AI-Provider-Pool": "a,b,c"})
    rows = json.loads(got.header("x-ai-alternatives-considered"))
    assert {row["provider"] for row in rows} == {"a", "b", "c"} - {got.provider}
    assert {row["reason"] for row in rows} == {"lower_score"}


@req("XAI-RESP-012", "XAI-RESP-013")
def test_confidence_is_the_margin_of_the_choice(pair):
    alone = pair().chat({"X-AI-Provider-Pool": "a"})
    assert float(alone.header("x-ai-selection-confidence")) == 1.0
    twins = pair().chat(BY_COST)
    clear = pair({"cost_per_1k_tokens": DEAR}).chat(BY_COST)
    assert float(twins.header("x-ai-selection-confidence")) < float(
        clear.header("x-ai-selection-confidence")
    )
    assert clear.selection["confidence"] == pytest.approx(0.9, abs=0.01)
    hinted = pair({}, {"capabilities": ["code-generation"], "cost_per_1k_tokens": DEAR})
    got = hinted.chat({"X-AI-Task-Hint": "coding"})
    assert got.provider == "b"
    assert 0.5 < got.selection["confidence"] <= 1.0


@req("XAI-RESP-014")
def test_a_retry_at_the_same_provider_is_no_failover(pair, fakes):
    fakes.a.queue = [Script(status=500)]
    got = pair({"cost_per_1k_tokens": 0}).chat(BY_COST)
    assert got.provider == "a"
    assert fakes.called() == {"a": 2}
    assert got.header("x-ai-failover-occurred") is None


@req("XAI-RESP-015", "XAI-RESP-016")
def test_workflow_labels_are_echoed(pair):
    served = pair()
    got = served.chat({"X-AI-Conversation-ID": "conv-debug-001", "X-AI-Workflow-Step": "step-2"})
    assert got.header("x-ai-conversation-id") == "conv-debug-001"
    assert got.header("x-ai-workflow-step") == "step-2"
    assert served.chat(ON).header("x-ai-workflow-step") is None


@req("XAI-RESP-017")
@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_cannot_speak_in_our_name(pair, fakes, stream):
    evil = dict.fromkeys(RESPONSE, "evil") | {"x-request-id": "evil", "set-cookie": "evil=1"}
    fakes.a.script = fakes.b.script = Script(headers=evil)
    got = pair().chat(ON, stream=stream)
    assert got.status == 200
    assert "evil" not in str(got.headers)
    plain = pair(routing={"scope": "all"}).chat(model="m-a", stream=stream)
    assert "evil" not in str(plain.headers)


@req("XAI-RESP-018", "XAI-SEC-018")
@pytest.mark.parametrize("status", [200, 401, 500])
def test_headers_carry_no_secret_host_or_prompt(pair, fakes, status):
    key = {"credentials": {"api_key": "sk-sesame-key"}, "headers": {"x-extra": "sesame-extra"}}
    served = pair(provider_a=key, provider_b=key)
    fakes.a.script = fakes.b.script = Script(status=status)
    got = served.chat(ON, messages=[{"role": "user", "content": "sesame-prompt"}])
    assert (got.status == 200) is (status == 200)
    everything = str(got.headers) + (got.body.decode() if status != 200 else "")
    for secret in ("sesame", "127.0.0.1", str(fakes.a.port), "SECRET-TEXT", "sk-upstream"):
        assert secret not in everything
    record = json.dumps(served.record(got))
    for secret in ("sesame", "127.0.0.1", str(fakes.a.port), "SECRET-TEXT"):
        assert secret not in record
    assert fakes.a.seen[0].headers["authorization"] == "Bearer sk-sesame-key"
    assert fakes.a.seen[0].headers["x-extra"] == "sesame-extra"


@req("XAI-RESP-019")
def test_errors_after_a_decision_carry_it(pair, fakes):
    fakes.a.script = fakes.b.script = Script(status=503)
    served = pair(security={"auth": {"api_keys": [{"name": "me", "key": "k" * 20}]}})
    key = {"Authorization": "Bearer " + "k" * 20}
    got = served.chat({**ON, **key, "X-AI-Provider-Pool": "a,b"})
    assert got.status in (502, 503)
    assert {row["provider"] for row in got.selection["attempts"]} == {"a", "b"}
    before = served.chat(ON)
    assert (before.status, ours(before)) == (401, set())


@req("XAI-RESP-020")
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_standard_headers_stay(pair, path):
    served = pair(routing={"scope": "all"})
    for headers in ({}, ON):
        got = served.chat(headers, path=path, model="m-a")
        assert got.header("content-type") == "application/json"
        assert int(got.header("content-length")) == len(got.body)
        assert got.header("x-request-id")
        got = served.chat(headers, path=path, model="m-a", stream=True)
        assert got.header("content-type").startswith("text/event-stream")
        assert got.header("x-request-id")
        assert got.events[-1] == "[DONE]"


@req("XAI-RESP-038", "XAI-RESP-039")
def test_ids_of_every_spelling_survive(mount, fakes):
    names = {"edge-provider-fast": "@cf/meta/llama-3.1-8b-instruct", "local-models": "a/b:c.d"}
    served = mount(
        fakes.config(
            {n: {"upstream": "a", "models": [{"name": m, "model": m}]} for n, m in names.items()}
        )
    )
    for name, mapped in names.items():
        got = served.chat({"X-AI-Provider-Pool": name})
        assert (got.provider, got.header("x-ai-model-mapped")) == (name, mapped)


@req("XAI-RESP-040")
def test_only_registered_reasons_are_used():
    import ast
    from pathlib import Path

    from aiproxy.middleware.routing import plan, strategies

    known = set(schema("reason-codes")["enum"])
    for module, functions in (
        (
            plan,
            ("_static_fault", "_context_fault", "_cost_fault", "_latency_fault", "_health_fault"),
        ),
        (strategies, ("reason",)),
    ):
        tree = ast.parse(Path(module.__file__).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name in functions:
                for found in ast.walk(node):
                    if isinstance(found, ast.Return) and found.value is not None:
                        said = [
                            c.value
                            for c in ast.walk(found.value)
                            if isinstance(c, ast.Constant) and isinstance(c.value, str)
                        ]
                        strategy_names = set(HEADERS["X-AI-Routing-Strategy"].values)
                        assert set(said) <= known | strategy_names, (node.name, said)


@req("XAI-RESP-004")
@pytest.mark.parametrize("transparency", ["full", "minimal", "none"])
def test_how_much_is_told_is_configurable(pair, fakes, transparency):
    served = pair(transparency=transparency)
    got = served.chat({**ON, "X-AI-Conversation-ID": "c-1"})
    assert got.status == 200
    names = ours(got)
    minimal = {"x-ai-provider-used", "x-ai-model-mapped", "x-ai-conversation-id"}
    if transparency == "none":
        assert names == set()
        assert "x-aiproxy" not in got.json
    elif transparency == "minimal":
        assert names == minimal
        assert set(got.json["x-aiproxy"]) == {"provider", "node", "cost", "latency_ms"}
    else:
        assert minimal < names
        assert "request_id" in got.json["x-aiproxy"]
    assert served.record(got)["selected"]["provider"]


@req("XAI-RESP-036")
def test_a_request_nobody_can_express_still_has_a_record(mount, fakes):
    """Every candidate drops out while it is prepared: the refusal must not stumble over that."""
    providers = {"a": {"dialects": ["responses"], "models": ["m"]}}
    served = mount(fakes.config(providers, routing={"strict_translation": True}))
    got = served.chat(ON, logprobs=True, top_logprobs=2, n=2, logit_bias={"5": 1})
    assert (got.status, got.error["code"]) == (422, "no_eligible_provider"), got
    record = served.record(got)
    assert record["selected"] is None
    assert record["candidates"][0]["reason"] == "cannot_express"
    assert fakes.called() == {}
