"""The ``auto`` parameters of a body on both mounts (XAI-AUTO)."""

import json
from itertools import product

import pytest
from mounts import CHAT, HELLO, RESPONSES
from upstreams import Script

req = pytest.mark.requirement
ON = {"X-AI-Multi-Provider": "enabled"}
TOOLS = {"web-search": "browser", "code-execution": "python"}
FUNCTION = {"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}


def said(text):
    return [{"role": "user", "content": text}]


@req("XAI-AUTO-001", "XAI-AUTO-015", "XAI-AUTO-028")
def test_model_auto_is_resolved_and_echoed(pair, fakes):
    served = pair(None, {"model": "upstream-b"})
    for path, body in (
        (CHAT, {"messages": HELLO}),
        (RESPONSES, {"messages": HELLO}),
        (RESPONSES, {"input": "Hello"}),
    ):
        got = served.post(path, {"model": "auto", **body}, {"X-AI-Provider-Pool": "b"})
        assert got.status == 200
        assert got.provider == "b"
        assert got.header("x-ai-model-mapped") == "upstream-b"
        assert got.json["model"] == "auto"
    assert {seen.body["model"] for seen in fakes.b.seen} == {"upstream-b"}
    explicit = served.chat(ON, model="m-b")
    assert explicit.json["model"] == "m-b"


@req("XAI-AUTO-002", "XAI-SYNC-002", "XAI-SYNC-012")
@pytest.mark.parametrize("switch", ["enabled", "disabled"])
def test_the_word_auto_never_leaves_the_router(pair, fakes, switch):
    served = pair({"tools": TOOLS})
    for path, extra in (
        (CHAT, {"max_completion_tokens": "auto", "reasoning": "auto", "tools": "auto"}),
        (RESPONSES, {"max_completion_tokens": "auto", "reasoning": "auto", "tools": "auto"}),
        (CHAT, {"response_format": "auto", "max_tokens": "auto"}),
    ):
        got = served.chat({"X-AI-Multi-Provider": switch}, path=path, **extra)
        assert got.status == 200, got
    for seen in fakes.a.seen:
        assert '"auto"' not in json.dumps(seen.body)
    assert "b" not in fakes.called()


@req("XAI-AUTO-003")
def test_tools_auto_becomes_tools_of_the_chosen_provider(pair, fakes):
    served = pair({"tools": TOOLS}, {"tools": {"web-search": "other"}})
    got = served.chat({"X-AI-Provider-Pool": "a"}, tools="auto")
    assert got.status == 200
    names = {tool["function"]["name"] for tool in fakes.a.seen[0].body["tools"]}
    assert names == {"browser", "python"}


@req("XAI-AUTO-004")
def test_tool_choice_auto_keeps_its_meaning(pair, fakes):
    served = pair(None, {"cost_per_1k_tokens": 0})
    got = served.chat(ON, model="m-a", tools=[FUNCTION], tool_choice="auto")
    assert got.status == 200
    assert fakes.a.seen[0].body["tool_choice"] == "auto"
    assert fakes.a.seen[0].body["tools"] == [FUNCTION]
    assert got.decisions is None


@req("XAI-AUTO-005")
@pytest.mark.parametrize("rung", ["native", "enhanced", "none"])
def test_reasoning_auto_becomes_something_the_provider_knows(pair, fakes, rung):
    got = pair({"reasoning": rung}).chat(ON, model="m-a", reasoning="auto")
    assert got.status == 200
    body = fakes.a.seen[0].body
    assert "reasoning" not in body
    assert ("reasoning_effort" in body) is (rung == "native")
    assert (len(body["messages"]) == 2) is (rung == "none")


@req("XAI-AUTO-006", "XAI-AUTO-017", "XAI-AUTO-018")
@pytest.mark.parametrize("name", ["max_completion_tokens", "max_tokens"])
def test_a_token_limit_of_auto_becomes_a_number_and_is_reported(pair, fakes, name):
    served = pair({"max_output_tokens": 700})
    got = served.chat({"X-AI-Provider-Pool": "a"}, **{name: "auto"})
    sent = fakes.a.seen[0].body[name]
    assert 1 <= sent <= 700
    assert got.decisions["token_optimization"]["calculated"] == sent
    assert got.decisions["token_optimization"]["requested"] == "auto"
    assert got.decisions["token_optimization"]["basis"]


@req("XAI-AUTO-006")
def test_the_responses_shape_has_its_own_limit(mount, fakes):
    served = mount(fakes.config({"a": {"dialects": ["responses"], "models": ["m"]}}))
    got = served.post(RESPONSES, {"model": "m", "input": "Hi", "max_output_tokens": "auto"}, ON)
    assert got.status == 200
    assert fakes.a.seen[0].path == "/v1/responses"
    assert isinstance(fakes.a.seen[0].body["max_output_tokens"], int)


@req("XAI-AUTO-008", "XAI-TOOL-016", "XAI-REASON-011")
@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("temperature", "auto"),
        ("n", "auto"),
        ("stream", "auto"),
        ("top_p", "auto"),
        ("messages", "auto"),
        ("tools", "all"),
        ("tools", {}),
        ("reasoning", "high"),
        ("max_completion_tokens", "many"),
        ("max_completion_tokens", 1.5),
        ("max_completion_tokens", 0),
        ("max_completion_tokens", -1),
        ("response_format", "xml"),
    ],
)
def test_auto_elsewhere_is_an_error_that_names_the_member(pair, fakes, member, value):
    for path in (CHAT, RESPONSES):
        got = pair().chat(ON, path=path, **{member: value})
        assert got.status == 400, got
        assert got.error["param"] == member
        assert got.error["code"] in ("invalid_type", "invalid_value")
        if value == "auto":
            assert got.error["code"] == "invalid_type"
    assert fakes.called() == {}


@req("XAI-AUTO-009")
@pytest.mark.parametrize("name", ["Auto", "AUTO", " auto", "auto "])
def test_auto_is_the_exact_word(mount, fakes, name):
    # an application that lists its models: one that lists none is taken to serve any name
    app = {"type": "app", "models": [{"name": "hosted"}]}
    config = fakes.config({"a": ["m-a"]})
    config["providers"]["app"] = app
    got = mount(config).chat(ON, model=name)
    assert got.status == 404
    assert got.error["code"] == "model_not_found"
    assert fakes.called() == {}


LABELLED = {
    "coding": [
        "Write a python function that reverses a list",
        "Why does this regex not match? re.match('a+', s)",
        "Refactor the class below to use composition",
        "Fix the bug: TypeError in javascript",
        "Explain this SQL query",
        "```\nfor i in range(3): print(i)\n```",
        "Implement quicksort in Rust",
        "My unit test fails with an exception",
        "Convert this code from java to kotlin",
        "How do I debug a git merge conflict?",
    ],
    "reasoning": [
        "Solve: If 3x+7=22, what is x?",
        "Prove that the square root of 2 is irrational",
        "What is the probability of two sixes?",
        "Calculate the integral of x^2",
        "A riddle: what walks on four legs in the morning?",
        "Derive the formula step by step",
        "Solve this logic puzzle",
        "Find the derivative of sin(x)",
        "Is this proof of the theorem correct?",
        "Solve the equation 2x = 10",
    ],
    "creative": [
        "Write a poem about autumn",
        "Compose a short story about a dragon",
        "Invent a slogan for a bakery",
        "Write lyrics for a song about rain",
        "Brainstorm names for a novel",
        "Tell me a joke",
        "Write a haiku",
        "Draft a fictional dialogue between two robots",
        "Imagine a world without gravity and tell the tale",
        "Write a limerick about a cat",
    ],
    "analytical": [
        "Analyze user behavior data",
        "Summarize this quarterly report",
        "Compare the two contracts and assess the risk",
        "Evaluate the trends in our revenue",
        "Analyze legal document for compliance",
        "Give me insights from these metrics",
        "What does this dataset tell us? Do a statistical analysis",
        "Summarise the findings of the report",
        "Assess the correlation between price and revenue",
        "Which segment grew most? Analyse the data",
    ],
}


@req("XAI-AUTO-010")
def test_the_classifier_agrees_with_the_labels(pair):
    """The documented share: nine in ten."""
    from aiproxy.middleware.classify import classify

    wrong = [
        (text, label, found)
        for label, texts in LABELLED.items()
        for text in texts
        if (found := classify({"messages": said(text)})) != label
    ]
    assert len(wrong) <= 4, wrong
    served = pair()
    for label, texts in LABELLED.items():
        if texts[0] not in [text for text, _, _ in wrong]:
            got = served.chat(ON, messages=said(texts[0]))
            assert got.selection["criteria"] == label


@req("XAI-AUTO-010")
@pytest.mark.parametrize(
    "text", ["", " ", "Hi", "\u0000", "🦆" * 50, "a" * 20_000, "???", "Guten Tag, wie geht es?"]
)
def test_odd_prompts_are_general(pair, text):
    got = pair().chat(ON, messages=said(text))
    assert got.status == 200, got
    assert got.selection["criteria"] == "general"


@req("XAI-AUTO-011")
def test_a_hint_outranks_the_classifier(pair):
    served = pair()
    code = said("Fix the bug in this python function")
    assert served.chat(ON, messages=code).selection["criteria"] == "coding"
    got = served.chat({"X-AI-Task-Hint": "creative"}, messages=code)
    assert got.selection["criteria"] == "creative"
    assert served.record(got)["task_basis"] == "hint"


@req("XAI-AUTO-012")
def test_only_models_that_can_see_get_pictures(pair, fakes):
    served = pair(None, {"capabilities": ["vision"], "cost_per_1k_tokens": 0.01})
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    turns = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture]}]
    assert served.chat(ON, messages=turns).provider == "b"
    fakes.b.script = Script(status=503)
    got = served.chat({**ON, "X-AI-Failover-Policy": "automatic"}, messages=turns)
    assert got.status >= 500
    assert "a" not in fakes.called()


@req("XAI-AUTO-013")
@pytest.mark.parametrize(
    ("relaxed", "chosen"), [(None, "d"), ("cost", "a"), ("latency", "b"), ("quality", "c")]
)
def test_all_constraints_bind_at_once(mount, fakes, relaxed, chosen):
    def facts(name, cost, latency, quality):
        row = {"name": name, "cost_per_1k_tokens": cost, "quality": quality}
        return [{**row, "latency_prior": latency}]

    served = mount(
        fakes.config(
            {
                "a": facts("dear", 0.1, "100ms", 0.99),
                "b": facts("slow", 0.001, "5000ms", 0.98),
                "c": facts("poor", 0.0001, "100ms", 0.2),
                "d": facts("right", 0.001, "100ms", 0.9),
            }
        )
    )
    limits = {
        "cost": ("X-AI-Cost-Limit", "0.01"),
        "latency": ("X-AI-Max-Latency", "500"),
        "quality": ("X-AI-Quality-Threshold", "0.8"),
    }
    headers = dict(value for name, value in limits.items() if name != relaxed)
    # what is not constrained any more is what the one that comes back is best at
    headers["X-AI-Routing-Strategy"] = "cost" if relaxed == "quality" else "quality"
    got = served.chat(headers, max_tokens=500)
    assert got.provider == chosen
    assert fakes.called() == {chosen: 1}


@req("XAI-AUTO-016", "XAI-RESP-010")
def test_any_subset_of_parameters_may_be_auto(pair):
    served = pair({"tools": TOOLS})
    explicit = {
        "model": "m-a",
        "tools": [FUNCTION],
        "reasoning": None,
        "max_completion_tokens": 100,
    }
    keys = {
        "model": "model_selection",
        "tools": "tool_mapping",
        "reasoning": "reasoning",
        "max_completion_tokens": "token_optimization",
    }
    for chosen in product((True, False), repeat=4):
        autos = {n for n, on in zip(explicit, chosen, strict=True) if on}
        members = {n: "auto" if n in autos else value for n, value in explicit.items()}
        got = served.chat({"X-AI-Provider-Pool": "a"}, **members)
        assert got.status == 200, (autos, got)
        assert set(got.decisions or {}) == {keys[name] for name in autos}
        assert set(served.record(got)["auto"]) == autos


@req("XAI-AUTO-019", "XAI-AUTO-027", "XAI-SYNC-013")
def test_explicit_members_reach_the_provider_unchanged(pair, fakes):
    explicit = {
        "temperature": 0.25,
        "top_p": 0.5,
        "stop": ["\n", "END"],
        "seed": 7,
        "n": 1,
        "max_completion_tokens": 500,
        "user": "é",
        "x_custom": {"a": 1},
    }
    got = pair().chat(ON, model="m-a", **explicit)
    assert got.status == 200
    assert fakes.a.seen[0].body == {"model": "m-a", "messages": HELLO, **explicit}


@req("XAI-AUTO-020")
def test_the_computed_limit_fits_the_context(pair, fakes):
    served = pair({"context_window": 512}, {"context_window": 512})
    got = served.chat(ON, messages=said("word " * 400), max_completion_tokens="auto")
    assert got.status == 200
    [seen] = fakes.a.seen
    prompt = served.record(got)["usage"]
    assert prompt is not None
    assert seen.body["max_completion_tokens"] <= 512 - 390
    got = served.chat(ON, messages=said("word " * 5000), max_completion_tokens="auto")
    assert (got.status, got.error["code"]) == (400, "context_length_exceeded")
    assert got.error["param"] == "messages"


@req("XAI-AUTO-021")
def test_the_computed_limit_grows_with_the_task(pair, fakes):
    served = pair()
    ladder = ["hi", "word " * 300, "word " * 700, "word " * 1500]
    limits = []
    for text in ladder:
        got = served.chat({"X-AI-Provider-Pool": "a"}, messages=said(text), max_tokens="auto")
        assert got.status == 200
        limits.append(fakes.a.seen[-1].body["max_tokens"])
    assert limits == sorted(limits)
    assert limits[0] < limits[-1]
    task = {"X-AI-Provider-Pool": "a", "X-AI-Task-Hint": "analytical"}
    served.chat(task, messages=said("hi"), max_tokens="auto")
    assert fakes.a.seen[-1].body["max_tokens"] >= limits[0]


@req("XAI-AUTO-022")
def test_a_text_format_is_accepted(pair):
    got = pair().chat(ON, model="m-a", response_format={"type": "text"})
    assert got.status == 200


@req("XAI-AUTO-023")
def test_an_output_schema_passes_unchanged(pair, fakes):
    schema = {"type": "object", "properties": {"b": {"type": "array"}, "a": {"const": 1e2}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "report", "schema": schema}}
    assert pair().chat(ON, response_format=wanted).status == 200
    assert fakes.a.seen[0].body["response_format"] == wanted


def nested(depth, leaf):
    for _ in range(depth):
        leaf = {"type": "object", "properties": {"x": leaf}}
    return leaf


@req("XAI-AUTO-025")
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strang"},
        {"type": "object", "properties": {"a": {"type": "strang"}}},
        {"type": "object", "required": "a"},
        {"properties": []},
        nested(40, {"type": "strang"}),
    ],
)
def test_a_malformed_output_schema_is_refused(pair, fakes, schema):
    served = pair()
    wanted = {"type": "json_schema", "json_schema": {"name": "report", "schema": schema}}
    for path in (CHAT, RESPONSES):
        got = served.chat(ON, path=path, response_format=wanted)
        assert got.status == 400, got
        assert got.error["code"] == "invalid_value"
        assert got.error["param"] == "response_format"
    text = {"format": {"type": "json_schema", "name": "report", "schema": schema}}
    got = served.post(RESPONSES, {"model": "auto", "input": "Hi", "text": text}, ON)
    assert (got.status, got.error["param"]) == (400, "text.format")
    assert fakes.called() == {}


@req("XAI-AUTO-025", "AIP-API-040")
@pytest.mark.parametrize("depth", [100, 300, 10_000])
def test_an_absurdly_deep_output_schema_is_a_client_error(pair, fakes, depth):
    opened = '{"type":"object","properties":{"x":' * depth
    schema = opened + '{"type":"strang"}' + "}}" * depth
    body = (
        '{"model":"auto","messages":[{"role":"user","content":"x"}],"response_format":'
        '{"type":"json_schema","json_schema":{"name":"n","schema":' + schema + "}}}"
    )
    json_type = {"content-type": "application/json"}
    got = pair().post(CHAT, body.encode(), {**ON, **json_type})
    assert got.status == 400, got
    assert fakes.called() == {}


@req("XAI-AUTO-026")
def test_no_eligible_model_says_why_and_leaks_nothing(pair):
    facts = {"capabilities": ["embeddings"]}
    got = pair(facts, facts).chat(ON)
    assert (got.status, got.error["code"]) == (422, "no_eligible_provider")
    assert got.error["param"] == "model"
    assert "lacks_capability" in got.error["message"]
    assert "127.0.0.1" not in got.body.decode()


@req("XAI-AUTO-029")
def test_auto_on_embeddings(pair, fakes):
    served = pair(None, {"capabilities": ["embeddings"]})
    got = served.post("/v1/embeddings", {"model": "auto", "input": "x"}, ON)
    assert (got.status, got.provider) == (200, "b")
    got = pair().post("/v1/embeddings", {"model": "auto", "input": "x"}, ON)
    assert (got.status, got.error["code"]) == (422, "no_eligible_provider")
    assert "a" not in fakes.called()
