"""The draft's figures sent to a mount whose providers are those of the figure (XAI-FIG).

The requests are the vectors', octet for octet. What the draft only illustrates (prices, wording)
is not held against us; what a figure states about who serves and what is sent upstream is.
"""

import json

import pytest
from mounts import hold, model
from upstreams import Script

from aiproxy.spec.vectors import vector, vectors

req = pytest.mark.requirement
WITH_REQUESTS = [name for name in vectors("figures/") if "exchanges" in vector(name)]


@pytest.fixture
def replay(fakes):
    """``replay(mount, figure, number)`` sends one request of a figure and checks what all share."""

    def send(served, figure, number=0):
        exchange = vector(f"figures/fig-{figure:02}")["exchanges"][number]
        request = exchange["request"]
        skipped = ("Host", "Authorization")
        headers = {k: v for k, v in request["headers"].items() if k not in skipped}
        got = served.request(
            request["method"], request["path"], json.dumps(request["body"]).encode(), headers
        )
        if got.status == 200 and not request["body"].get("stream"):
            hold(got.json, "responses/union")
            assert got.json["object"] == "response"
            assert len(got.json["choices"]) == 1
            usage = got.json["usage"]
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
            assert got.json["model"] == request["body"]["model"]
        return got

    return send


def calling(*names):
    calls = [
        {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": '{"x": 1}'}}
        for n, name in enumerate(names)
    ]
    return Script(message={"role": "assistant", "content": "Working on it.", "tool_calls": calls})


def tool_calls(got):
    return [call["function"]["name"] for call in got.json["choices"][0]["message"]["tool_calls"]]


REASONERS = {
    "local": {"upstream": "c", "models": [model("llama-3-8b", cost_per_1k_tokens=0)]},
    "anthropic": {"upstream": "b", "models": [model("claude-3-5-sonnet", reasoning="enhanced")]},
    "openai-reasoning": {
        "upstream": "a",
        "models": [model("o1-preview", reasoning="native", cost_per_1k_tokens=0.05)],
    },
}


@req("XAI-FIG-001")
def test_fig_1_native_reasoning(mount, fakes, replay):
    got = replay(mount(fakes.config(REASONERS)), 1)
    assert (got.provider, got.header("x-ai-model-mapped")) == ("openai-reasoning", "o1-preview")
    assert got.selection["reasoning_capability"] == "native"
    assert fakes.called() == {"a": 1}


@req("XAI-FIG-002")
def test_fig_2_reasoning_inside_a_pool_without_a_native_model(mount, fakes, replay):
    pool = {
        "anthropic": REASONERS["anthropic"],
        "cohere": {"upstream": "d", "models": [model("command-r")]},
        "local-models": REASONERS["local"],
    }
    served = mount(fakes.config({"openai-reasoning": REASONERS["openai-reasoning"], **pool}))
    got = replay(served, 2)
    assert got.provider == "anthropic"
    assert got.selection["reasoning_capability"] == "enhanced"
    assert "a" not in fakes.called()
    fakes.b.script = Script(status=503)
    got = replay(served, 2)
    assert got.provider in ("cohere", "local-models")
    assert got.selection["reasoning_capability"] == "simulated"
    assert "a" not in fakes.called()


@req("XAI-FIG-003")
def test_fig_3_quality_and_native(mount, fakes, replay):
    providers = {
        "cheap": {"upstream": "a", "models": [model("weak", reasoning="native", quality=0.85)]},
        "right": {"upstream": "b", "models": [model("strong", reasoning="native", quality=0.93)]},
    }
    got = replay(mount(fakes.config(providers)), 3)
    assert got.provider == "right"
    assert set(got.decisions) == {"model_selection", "reasoning"}
    assert "ignored_headers" not in got.selection


@req("XAI-FIG-004")
def test_fig_4_an_explicit_model(mount, fakes, replay):
    providers = {
        "openai": {"upstream": "a", "models": [model("gpt-4", model="gpt-4-0613")]},
        "other": REASONERS["openai-reasoning"] | {"upstream": "b"},
    }
    got = replay(mount(fakes.config(providers)), 4)
    assert got.provider == "openai"
    assert fakes.a.seen[0].body["model"] == "gpt-4-0613"
    assert set(got.decisions) == {"reasoning"}
    assert got.selection["ignored_headers"] == ["X-AI-Task-Hint"]
    assert fakes.called() == {"a": 1}


@req("XAI-FIG-005")
def test_fig_5_the_switch_off(mount, fakes, replay):
    got = replay(mount(fakes.config(REASONERS)), 5)
    assert got.status == 200
    assert fakes.called() == {"c": 1}  # the default provider is the first
    assert "tools" not in fakes.c.seen[0].body
    assert not [name for name, _ in got.headers if name.startswith("x-ai-")]


@req("XAI-FIG-006")
def test_fig_6_tool_calls_and_usage(mount, fakes, replay):
    tools = {"code-execution": "python_tool"}
    providers = {
        "provider-anthropic": {
            "upstream": "a",
            "models": [model("claude-3-5-sonnet", reasoning="enhanced", tools=tools)],
        }
    }
    fakes.a.script = calling("python_tool")
    got = replay(mount(fakes.config(providers)), 6)
    assert got.provider == "provider-anthropic"
    assert fakes.a.seen[0].body["max_completion_tokens"] == 500
    assert got.json["choices"][0]["finish_reason"] == "tool_calls"
    assert "finish_reason" not in got.json["choices"][0]["message"]
    [call] = got.json["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"x": 1}


@req("XAI-FIG-007", "XAI-TOOL-011")
def test_fig_7_structured_mapping_and_generic_names(mount, fakes, replay):
    def coder(letter, name, **tools):
        facts = {"capabilities": ["code-generation"], "tools": tools}
        return {"upstream": letter, "models": [model(name, **facts)]}

    both = {"web-scraping": "browser", "data-viz": "python", "code-execution": "dalle"}
    providers = {
        "openai": coder("a", "gpt-4-turbo", **both),
        "anthropic": {"upstream": "b", "models": [model("sonnet", cost_per_1k_tokens=0.01)]},
        "outside": coder("c", "cheap", **both),
    }
    fakes.a.script = calling("browser")
    got = replay(mount(fakes.config(providers)), 7)
    assert got.provider == "openai"
    mapping = json.loads(got.header("x-ai-tool-mapping"))
    pairs = {row["category"]: row["provider_tool"] for row in mapping["selected_tools"]}
    assert pairs == {"web-scraping": "browser", "data-viz": "python"}
    [name] = tool_calls(got)
    assert name in {row["generic_name"] for row in mapping["selected_tools"]}
    assert name != "browser"
    assert "c" not in fakes.called()


@req("XAI-FIG-008")
@pytest.mark.parametrize(("quality", "chosen"), [(0.86, "cohere"), (0.8, "openai")])
def test_fig_8_the_cheapest_at_or_above_the_threshold(mount, fakes, replay, quality, chosen):
    providers = {
        "openai": {
            "upstream": "a",
            "models": [model("gpt-4o-mini", cost_per_1k_tokens=0.15, quality=0.9)],
        },
        "anthropic": {
            "upstream": "b",
            "models": [model("haiku", cost_per_1k_tokens=0.25, quality=0.9)],
        },
        "cohere": {
            "upstream": "c",
            "models": [
                model(
                    "command-r-plus",
                    cost_per_1k_tokens=0.08,
                    quality=quality,
                    tools={"data-analysis": "cohere_connector", "reporting": "structured_output"},
                )
            ],
        },
    }
    got = replay(mount(fakes.config(providers)), 8)
    assert got.provider == chosen
    assert got.decisions["model_selection"]["reason"] == "lowest_cost"
    sent = fakes[{"cohere": "c", "openai": "a"}[chosen]].seen[0].body
    wanted = vector("figures/fig-08")["exchanges"][0]["request"]["body"]["response_format"]
    assert sent["response_format"] == wanted
    assert isinstance(sent["max_completion_tokens"], int)
    if chosen == "cohere":
        mapping = json.loads(got.header("x-ai-tool-mapping"))
        assert len(mapping["selected_tools"]) == 2


@req("XAI-FIG-009")
def test_fig_9_a_stream(mount, fakes, replay):
    providers = {
        "anthropic": {
            "upstream": "a",
            "models": [model("claude-3-5-sonnet", latency_prior="90ms")],
        },
        "slow": {"upstream": "b", "models": [model("slow", latency_prior="900ms")]},
    }
    served = mount(fakes.config(providers))
    got = replay(served, 9)
    assert got.header("content-type").startswith("text/event-stream")
    assert (got.provider, got.header("x-ai-model-mapped")) == ("anthropic", "claude-3-5-sonnet")
    assert got.selection["criteria"] == "creative"
    assert got.events[-1] == "[DONE]"
    for frame in got.events[:-1]:
        hold(frame, "events/union-frame")
    assert isinstance(fakes.a.seen[0].body["max_completion_tokens"], int)


@req("XAI-FIG-010")
def test_fig_10_two_tool_calls(mount, fakes, replay):
    tools = {"weather": "openai_weather_tool", "web-search": "openai_browser_tool"}
    providers = {
        "openai": {
            "upstream": "a",
            "models": [model("gpt-4o", capabilities=["vision"], tools=tools)],
        },
        "blind": {"upstream": "b", "models": [model("blind", cost_per_1k_tokens=0)]},
    }
    fakes.a.script = calling("openai_weather_tool", "openai_browser_tool")
    got = replay(mount(fakes.config(providers)), 10)
    assert got.provider == "openai"
    assert tool_calls(got) == ["weather", "web_search"]
    ids = [call["id"] for call in got.json["choices"][0]["message"]["tool_calls"]]
    assert ids == ["call_0", "call_1"]
    mapping = json.loads(got.header("x-ai-tool-mapping"))
    assert {r["category"]: r["provider_tool"] for r in mapping["selected_tools"]} == tools


@req("XAI-FIG-011")
def test_fig_11_under_200_ms(mount, fakes, replay):
    providers = {
        "edge-provider-fast": {
            "upstream": "a",
            "models": [model("fast-response-model", latency_prior="180ms")],
        },
        "cloud": {"upstream": "b", "models": [model("cloud", latency_prior="350ms")]},
        "premium": {"upstream": "c", "models": [model("premium", latency_prior="800ms")]},
    }
    got = replay(mount(fakes.config(providers)), 11)
    assert got.provider == "edge-provider-fast"
    assert got.rejected["cloud"] == got.rejected["premium"] == "over_max_latency"
    assert got.selection["latency_achieved_ms"] < 200
    assert fakes.called() == {"a": 1}


@req("XAI-FIG-012")
def test_fig_12_the_best_within_the_limit(mount, fakes, replay):
    providers = {
        "fastest": {"upstream": "a", "models": [model("f", quality=0.72, latency_prior="100ms")]},
        "premium-balanced": {
            "upstream": "b",
            "models": [model("legal-analysis-model", quality=0.92, latency_prior="1800ms")],
        },
        "highest-quality": {
            "upstream": "c",
            "models": [model("h", quality=0.99, latency_prior="5000ms")],
        },
    }
    got = replay(mount(fakes.config(providers)), 12)
    assert got.provider == "premium-balanced"
    assert got.rejected["fastest"] == "below_quality_threshold"
    assert got.rejected["highest-quality"] == "over_max_latency"


@req("XAI-FIG-014")
def test_fig_14_the_second_turn_fails_over_with_all_that_was_said(mount, fakes, replay):
    both = {"capabilities": ["code-generation"]}
    providers = {
        "provider-a": {
            "upstream": "a",
            "timeouts": {"first_byte": "60ms"},
            "models": [model("code-a", cost_per_1k_tokens=0, **both)],
        },
        "provider-b": {"upstream": "b", "models": [model("code-b", **both)]},
    }
    served = mount(fakes.config(providers))
    assert replay(served, 14, 0).provider == "provider-a"
    fakes.a.script = Script(delay_s=0.4)
    got = replay(served, 14, 1)
    assert got.provider == "provider-b"
    assert got.header("x-ai-failover-occurred") == "true"
    assert got.selection["failover_reason"] == "timeout"
    assert got.selection["failover_time_ms"] >= 60
    turns = vector("figures/fig-14")["exchanges"][1]["request"]["body"]["messages"]
    assert fakes.b.seen[0].body["messages"] == turns


LABELS = {"labels": [{"label": "hipaa"}, {"label": "pii"}], "regions": ["us"]}


@req("XAI-FIG-016")
def test_fig_16_only_an_attested_provider(mount, fakes, replay):
    providers = {
        "plain": {"upstream": "a", "models": [model("m-a", cost_per_1k_tokens=0)]},
        "attested": {"upstream": "b", "security": LABELS, "models": [model("m-b")]},
    }
    classes = {"classes": {"sensitive-medical": {"labels": ["hipaa"], "regions": ["us"]}}}
    got = replay(mount(fakes.config(providers, security=classes)), 16)
    assert got.provider == "attested"
    assert got.rejected["plain"] == "lacks_security_label"
    assert fakes.called() == {"b": 1}
    del providers["attested"]
    got = replay(mount(fakes.config(providers, security=classes)), 16)
    assert (got.status, got.error["code"]) == (422, "unsupported_security_requirement")
    assert fakes.called() == {"b": 1}


@req("XAI-FIG-017")
def test_fig_17_the_strictest_tier_serves_the_whole(mount, fakes, replay):
    def tier(upstream, *labels, **facts):
        rows = [{"label": label} for label in labels]
        return {
            "upstream": upstream,
            "security": {"labels": rows},
            "models": [model(upstream, **facts)],
        }

    providers = {
        "public": tier("a", cost_per_1k_tokens=0),
        "secure": tier("b", "pci-dss"),
        "multi-tier-financial": tier("c", "pci-dss", "sovereignty", cost_per_1k_tokens=0.01),
    }
    classes = {"classes": {"financial-mixed": {"labels": ["pci-dss", "sovereignty"]}}}
    got = replay(mount(fakes.config(providers, security=classes)), 17)
    assert got.provider == "multi-tier-financial"
    assert fakes.called() == {"c": 1}


@req("XAI-FIG-019")
def test_fig_19_a_cascade(mount, fakes, replay):
    def writer(upstream, quality):
        facts = {"quality": {"creative": quality}, "cost_per_1k_tokens": 0.01 * (1 - quality)}
        return {"upstream": upstream, "models": [model(upstream, **facts)]}

    providers = {
        "premium": writer("a", 0.95),
        "balanced": writer("b", 0.9),
        "fast": writer("c", 0.82),
        "poor": writer("d", 0.79),
    }
    fakes.a.script = Script(status=503)
    fakes.b.script = Script(status=529)
    got = replay(mount(fakes.config(providers)), 19)
    assert got.provider == "fast"
    assert [row["provider"] for row in got.selection["attempts"]][-1] == "fast"
    assert {row["provider"] for row in got.selection["attempts"]} == {"premium", "balanced", "fast"}
    assert got.rejected["poor"] == "below_quality_threshold"
    assert "d" not in fakes.called()


@req("XAI-FIG-021")
def test_fig_21_branches_are_answered_and_the_merge_needs_a_store(mount, fakes, replay):
    providers = {"analytics-provider": {"upstream": "a", "models": [model("analyst")]}}
    served = mount(fakes.config(providers))
    for number in range(3):
        got = replay(served, 21, number)
        assert (got.status, got.provider) == (200, "analytics-provider")
    merge = replay(served, 21, 3)
    assert (merge.status, merge.error["code"]) == (404, "workflow_branch_not_found")
    assert merge.error["param"] == "X-AI-Merge-Branches"
    assert fakes.called() == {"a": 3}


def test_every_figure_with_requests_is_replayed():
    numbers = {int(name.rpartition("-")[2]) for name in WITH_REQUESTS}
    replayed = {int(name.split("_")[2]) for name in globals() if name.startswith("test_fig_")}
    assert numbers == replayed
