"""The official OpenAI client finds nothing odd in the fakes' answers."""

import json

import pytest

from aiproxy.conformance.rig.acts import Act

openai = pytest.importorskip("openai", reason="the official client is not installed")

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture
def client(stage):
    with openai.OpenAI(
        base_url=stage["a"].endpoint, api_key=stage["a"].key, max_retries=0
    ) as client:
        yield client


@pytest.fixture
def asked(stage, nonce):
    return {
        "model": stage["a"].upstream_model,
        "messages": [{"role": "user", "content": f"Reference {nonce}."}],
    }


@pytest.fixture
def proof(stage, nonce):
    return stage.upstreams.proof(nonce, stage["a"].id)


def test_chat(client, asked, proof):
    reply = client.chat.completions.create(**asked)
    assert reply.choices[0].message.content == proof
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


@pytest.mark.parametrize("fault", ["", "crlf", "comments", "split", "no-length", "no-done"])
def test_a_streamed_chat(stage, client, asked, proof, nonce, fault):
    stage.script(nonce, "a", Act(fault=fault, text="{proof} 漢字"))
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options=options))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == f"{proof} 漢字"
    assert chunks[-1].usage.total_tokens > 0


def test_tools_in_a_stream(client, asked, proof):
    with client.chat.completions.stream(**asked, tools=[TOOL], tool_choice="required") as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": proof}


@pytest.mark.parametrize("fault", ["", "error-event"])
def test_responses(stage, client, proof, nonce, fault):
    model = stage["a"].upstream_model
    assert client.responses.create(model=model, input=nonce).output_text == proof
    stage.script(nonce, "a", Act(fault=fault, after=2))
    if fault:
        events = list(client.responses.create(model=model, input=nonce, stream=True))
        assert [event.type for event in events[-2:]] == ["error", "response.failed"]
        return
    with client.responses.stream(model=model, input=nonce) as stream:
        assert stream.get_final_response().output_text == proof


def test_embeddings_models_and_completions(stage, client, proof, nonce):
    model = stage["a"].upstream_model
    (row,) = client.embeddings.create(model=model, input=nonce).data
    origin = stage.upstreams.origin_of_vector(row.embedding, nonce, [stage["a"].id])
    assert origin == stage["a"].id
    assert [one.id for one in client.models.list()] == [model]
    assert client.completions.create(model=model, prompt=nonce).choices[0].text == proof


@pytest.mark.parametrize(
    ("act", "wanted"),
    [
        (Act(status=429), "RateLimitError"),
        (Act(status=503), "InternalServerError"),
        (Act(status=401), "AuthenticationError"),
        (Act(fault="reset"), "APIConnectionError"),
        (Act(fault="close"), "APIConnectionError"),
    ],
)
def test_errors(stage, client, asked, nonce, act, wanted):
    stage.script(nonce, "a", act)
    with pytest.raises(getattr(openai, wanted)):
        client.chat.completions.create(**asked)


def test_an_error_inside_a_stream(stage, client, asked, nonce):
    stage.script(nonce, "a", Act(fault="error-event", after=1, message="fell over"))
    with pytest.raises(openai.APIError, match="fell over"):
        list(client.chat.completions.create(**asked, stream=True))


def test_the_wrong_model_and_key(stage, client, asked):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**asked, "model": "auto"})
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").chat.completions.create(**asked)
