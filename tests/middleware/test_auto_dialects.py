"""Token limits and reasoning of auto in every dialect, translated and untranslated."""

import json

import pytest
from mounts import CHAT, HELLO, RESPONSES
from upstreams import Script

req = pytest.mark.requirement
ON = {"X-AI-Multi-Provider": "enabled"}
MESSAGES = "/v1/messages"
GEMINI = "/v1beta/models/{}:generateContent"
CONTENTS = [{"role": "user", "parts": [{"text": "Hello"}]}]
EGRESS = ("chat", "responses", "anthropic", "gemini", "mistral", "cohere")
CLAUDE, GOOGLE = "claude-sonnet-4-5", "gemini-2.5-flash"
UPSTREAM = {"anthropic": CLAUDE, "gemini": GOOGLE}


def one(fakes, dialect, **facts):
    row = {"name": "m", "model": UPSTREAM.get(dialect, "up"), **facts}
    return fakes.config({"a": {"dialects": [dialect], "models": [row]}})


def limit_of(body):
    config = body.get("generationConfig", {})
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    return next((body[n] for n in names if n in body), config.get("maxOutputTokens"))


def words_of(body):
    return json.dumps(body, ensure_ascii=False)


@req("XAI-AUTO-006", "XAI-AUTO-017")
@pytest.mark.parametrize("dialect", EGRESS)
@pytest.mark.parametrize(
    ("path", "name"),
    [(CHAT, "max_completion_tokens"), (CHAT, "max_tokens"), (RESPONSES, "max_output_tokens")],
)
def test_a_limit_of_auto_is_a_number_in_every_dialect(mount, fakes, dialect, path, name):
    served = mount(one(fakes, dialect, max_output_tokens=321))
    body = {"input": "Hello"} if path == RESPONSES else {"messages": HELLO}
    got = served.post(path, {"model": "m", name: "auto", **body}, ON)
    assert limit_of(fakes.a.seen[0].body) == 321
    assert served.record(got)["auto"][name]["resolved"] == 321
    assert '"auto"' not in words_of(fakes.a.seen[0].body)


@req("XAI-AUTO-006")
@pytest.mark.parametrize("dialect", ["anthropic", *EGRESS[:2], "gemini"])
@pytest.mark.parametrize("switch", ["enabled", "disabled"])
def test_the_messages_ingress_takes_auto_too(mount, fakes, dialect, switch):
    served = mount(one(fakes, dialect, max_output_tokens=321, reasoning="native"))
    body = {"model": "m", "max_tokens": "auto", "thinking": "auto", "messages": HELLO}
    got = served.post(MESSAGES, body, {"X-AI-Multi-Provider": switch})
    sent = fakes.a.seen[0].body
    assert '"auto"' not in words_of(sent), got
    if switch == "enabled":
        assert limit_of(sent) == 321
    elif dialect == "anthropic":
        assert limit_of(sent) > 0  # the Messages API wants one
    else:
        assert limit_of(sent) is None


@req("XAI-AUTO-006")
@pytest.mark.parametrize("dialect", ["gemini", *EGRESS[:3]])
@pytest.mark.parametrize("spelling", ["generationConfig", "generation_config"])
def test_the_google_ingress_takes_auto_too(mount, fakes, dialect, spelling):
    served = mount(one(fakes, dialect, max_output_tokens=321, reasoning="native"))
    name = "maxOutputTokens" if spelling == "generationConfig" else "max_output_tokens"
    body = {"contents": CONTENTS, spelling: {name: "auto", "temperature": 0.5}}
    served.post(GEMINI.format("m"), body, ON)
    sent = fakes.a.seen[0].body
    assert '"auto"' not in words_of(sent)
    if dialect == "gemini":
        assert sent == {
            "contents": CONTENTS,
            spelling: {"temperature": 0.5, "maxOutputTokens": 321},
        }
    else:
        assert limit_of(sent) == 321


@req("XAI-AUTO-005", "XAI-REASON-006")
@pytest.mark.parametrize(
    ("dialect", "native"),
    [
        ("chat", lambda body: body.get("reasoning_effort")),
        ("responses", lambda body: body.get("reasoning")),
        ("anthropic", lambda body: body.get("thinking")),
        ("gemini", lambda body: body.get("generationConfig", {}).get("thinkingConfig")),
        ("mistral", lambda body: body.get("reasoning_effort")),
        ("cohere", lambda body: body.get("thinking")),
    ],
)
@pytest.mark.parametrize("rung", ["native", "enhanced", "none"])
def test_the_ladder_in_every_dialect(mount, fakes, dialect, native, rung):
    served = mount(one(fakes, dialect, reasoning=rung))
    for path, body in ((CHAT, {"messages": HELLO}), (RESPONSES, {"input": "Hello"})):
        got = served.post(path, {"model": "m", "reasoning": "auto", **body}, ON)
        sent = fakes.a.seen[-1].body
        assert bool(native(sent)) is (rung == "native")
        added = "[aiproxy: simulated reasoning]" in words_of(sent)
        assert added is (rung == "none")
        assert words_of(sent).count("simulated reasoning") == added
        told = served.record(got)["reasoning"]
        assert told["capability"] == {"none": "simulated"}.get(rung, rung)


@req("XAI-REASON-003", "XAI-REASON-005")
def test_simulation_in_a_foreign_body_only_adds(mount, fakes):
    headers = {**ON, "X-AI-Reasoning-Preference": "simulated"}
    system = "Be brief.  Ünïcode stays."
    body = {"model": "m", "max_tokens": 9, "thinking": "auto", "messages": HELLO, "system": system}
    served = mount(one(fakes, "anthropic"))
    got = served.post(MESSAGES, body, headers)
    sent = fakes.a.seen[0].body
    assert sent["messages"] == HELLO
    assert sent["system"][0] == {"type": "text", "text": system}
    assert len(sent["system"]) == 2
    assert "thinking" not in sent
    assert served.record(got)["reasoning"]["technique"] == "step_by_step_instruction"

    served = mount(one(fakes, "gemini"))
    google = {
        "contents": CONTENTS,
        "system_instruction": {"parts": [{"text": system}]},
        "generationConfig": {"thinkingConfig": "auto"},
    }
    served.post(GEMINI.format("m"), google, headers)
    sent = fakes.a.seen[-1].body
    assert sent["contents"] == CONTENTS
    assert sent["system_instruction"]["parts"][0] == {"text": system}
    assert len(sent["system_instruction"]["parts"]) == 2


@req("XAI-REASON-005")
def test_what_was_simulated_is_told(mount, fakes):
    got = mount(one(fakes, "chat")).chat(ON, model="m", reasoning="auto")
    assert got.selection["fallback_strategy"] == {
        "native_reasoning_available": False,
        "prompt_enhancement": "step_by_step_instruction",
    }
    assert got.decisions["reasoning"]["technique"] == "step_by_step_instruction"


def test_native_thinking_takes_along_what_it_rules_out(mount, fakes):
    served = mount(one(fakes, "anthropic", reasoning="native"))
    body = {"model": "m", "max_tokens": 9000, "thinking": "auto", "temperature": 0.2}
    got = served.post(MESSAGES, {**body, "messages": HELLO}, ON)
    sent = fakes.a.seen[0].body
    assert sent["thinking"]["type"] == "enabled"
    assert sent["max_tokens"] == 9000
    assert "temperature" not in sent
    assert "temperature" in [row["feature"] for row in served.record(got)["losses"]]


@req("XAI-REASON-007")
@pytest.mark.parametrize("dialect", ["mistral", "cohere"])
def test_an_explicit_effort_is_declared_where_nobody_can_follow_it(mount, fakes, dialect):
    served = mount(one(fakes, dialect))
    got = served.chat(ON, model="m", reasoning_effort="high")
    assert "reasoning_effort" not in fakes.a.seen[0].body
    assert "thinking" not in fakes.a.seen[0].body
    assert "reasoning" in [row["feature"] for row in served.record(got)["losses"]]
    served = mount(one(fakes, dialect, reasoning="native"))
    got = served.chat(ON, model="m", reasoning_effort="high")
    assert "reasoning" not in [row["feature"] for row in served.record(got)["losses"]]


@req("XAI-REASON-007", "XAI-SYNC-013")
def test_an_explicit_effort_passes_in_its_own_dialect(mount, fakes):
    served = mount(one(fakes, "chat"))
    got = served.chat(ON, model="m", reasoning_effort="low")
    assert fakes.a.seen[0].body["reasoning_effort"] == "low"
    assert served.record(got)["losses"] == []


@pytest.mark.parametrize(("path", "dialect"), [(MESSAGES, "anthropic"), ("google", "gemini")])
def test_a_foreign_body_without_auto_passes_as_it_came(mount, fakes, path, dialect):
    served = mount(one(fakes, dialect, model="m"))
    if path == MESSAGES:
        raw = b'{"model":"m", "max_tokens" : 7,"messages":[{"role":"user","content":"x"}]}'
        served.post(MESSAGES, raw, {**ON, "content-type": "application/json"})
        assert fakes.a.seen[0].body == json.loads(raw)
    else:
        served.post(GEMINI.format("m"), {"contents": CONTENTS}, ON)
        assert fakes.a.seen[0].body == {"contents": CONTENTS}
        assert fakes.a.seen[0].path.endswith("/models/m:generateContent")


def test_model_auto_on_a_foreign_ingress(mount, fakes):
    fakes.a.script = Script(status=503)
    served = mount(
        fakes.config(
            {
                "a": {"dialects": ["anthropic"], "models": ["m-a"]},
                "b": {"dialects": ["chat"], "models": ["m-b"]},
            }
        )
    )
    body = {"model": "auto", "max_tokens": "auto", "messages": HELLO}
    got = served.post(MESSAGES, body, {**ON, "X-AI-Failover-Policy": "automatic"})
    assert got.status == 200, got
    assert got.json["content"][0]["text"] == "served by b"
    assert fakes.a.seen[0].body["model"] == "m-a"
    assert fakes.b.seen[0].body["model"] == "m-b"
