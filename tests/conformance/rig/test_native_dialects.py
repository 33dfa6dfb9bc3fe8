"""What all dialects that are not OpenAI's have in common."""

import pytest
from rig_client import new_nonce
from rig_talk import ACCOUNT, CALLS, MESSAGE, TEXT, USAGE, proof

from aiproxy.conformance.rig.acts import FAULTS, Act
from aiproxy.spec import validate

DIALECTS = sorted(TEXT)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_right_request_gets_the_proof_and_the_counts(talk_of, dialect, nonce):
    talk = talk_of(dialect)
    heard = talk.ask(nonce)
    assert heard.status == 200, heard.body
    assert TEXT[dialect](heard.json) == proof(talk, nonce)
    (attempt,) = talk.stage.upstreams.attempts(nonce)
    usage = attempt.usage
    assert USAGE[dialect](heard.json) == (usage["prompt_tokens"], usage["completion_tokens"])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_error_in_its_own_words(talk_of, dialect, nonce):
    talk = talk_of(dialect)
    talk.stage.script(nonce, "a", Act(status=503, message="tired"), Act(status=429, message="slow"))
    for status, words in ((503, "tired"), (429, "slow")):
        heard = talk.ask(nonce)
        assert heard.status == status
        assert MESSAGE[dialect](heard.json) == words


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_wrong_key_and_a_wrong_model(talk_of, dialect, nonce):
    talk = talk_of(dialect)
    wrong = {"Authorization": "Bearer no", "x-api-key": "no", "x-goog-api-key": "no"}
    right_status = {"google": 400}.get(dialect, 401)
    assert talk.ask(nonce, headers=wrong).status == right_status
    path = {"google": "/v1beta/models/no:generateContent", "cloudflare": ACCOUNT + "no"}
    body = {"google": {}, "cloudflare": {}}.get(dialect, {"model": "no"})
    if dialect in path:
        _, fields, request = getattr(talk, dialect)(nonce, False)
        heard = talk.stage.post("a", path[dialect], request, fields)
    else:
        heard = talk.ask(nonce, **body)
    assert heard.status == (400 if dialect in ("mistral", "cloudflare") else 404)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_fault_in_every_dialect_leaves_the_fakes_sound(talk_of, dialect):
    talk = talk_of(dialect)
    skipped = {"huge", "bomb", "endless", "silence", "stall"}
    for fault in sorted(set(FAULTS) - skipped):
        for calls in ((), CALLS):
            for stream in (False, True):
                nonce = new_nonce()
                talk.stage.script(nonce, "a", Act(fault=fault, after=1, tool_calls=calls))
                talk.ask(nonce, stream=stream)
                assert talk.stage.upstreams.attempts(nonce)[0].fault == fault


@pytest.mark.parametrize(
    ("dialect", "path"),
    [
        ("anthropic", "/v1/chat/completions"),
        ("google", "/v1beta/openai/chat/completions"),
        ("cohere", "/compatibility/v1/chat/completions"),
        ("mistral", "/v1/chat/completions"),
        ("cloudflare", "/client/v4/accounts/acc/ai/v1/chat/completions"),
    ],
)
def test_the_surface_for_clients_of_openai(talk_of, dialect, path, nonce):
    stage = talk_of(dialect).stage
    whole = stage.post("a", path, stage.chat("a", nonce))
    validate(whole.json, "responses/chat")
    assert whole.json["choices"][0]["message"]["content"] == stage.upstreams.proof(
        nonce, stage["a"].id
    )
    heard = stage.post("a", path, stage.chat("a", nonce, stream=True))
    for event in heard.events[:-1]:
        validate(event, "events/chat-chunk")
    assert heard.text == whole.json["choices"][0]["message"]["content"]
    assert stage.post("a", path, {"model": stage["a"].upstream_model}).status in (400, 422)
    assert stage.post("a", path.replace("chat/completions", "audio/speech"), {}).status == 404
