"""Talking to a fake in its own dialect."""

import json

CALLS = (("look_up", {"city": "Paris"}), ("other", {"n": 1}))
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
ACCOUNT = "/v1/accounts/acc/ai/run/"


USER = {"role": "user", "content": "hi"}


class Talk:
    """One dialect: where it is asked, with what headers, and how its text reads."""

    def __init__(self, stage, dialect):
        self.stage, self.dialect, self.actor = stage, dialect, stage["a"]

    def ask(self, nonce, *, stream=False, headers=None, **members):
        path, fields, body = getattr(self, self.dialect)(f"Reference {nonce}.", stream)
        body = {key: value for key, value in {**body, **members}.items() if value is not None}
        path = members.pop("path", path)
        return self.stage.post("a", path, body, {**fields, **(headers or {})})

    def anthropic(self, text, stream):
        fields = {
            "Authorization": "",
            "x-api-key": self.actor.key,
            "anthropic-version": "2023-06-01",
        }
        body = {"model": self.actor.upstream_model, "max_tokens": 50, "stream": stream or None}
        return "/v1/messages", fields, {**body, "messages": [{"role": "user", "content": text}]}

    def google(self, text, stream):
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        fields = {"Authorization": "", "x-goog-api-key": self.actor.key}
        body = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
        return f"/v1beta/models/{self.actor.upstream_model}:{verb}", fields, body

    def cohere(self, text, stream):
        body = {"model": self.actor.upstream_model, "stream": stream or None}
        return "/v2/chat", {}, {**body, "messages": [{"role": "user", "content": text}]}

    def mistral(self, text, stream):
        body = {"model": self.actor.upstream_model, "stream": stream or None}
        messages = [{"role": "user", "content": text}]
        return "/v1/chat/completions", {}, {**body, "messages": messages}

    def cloudflare(self, text, stream):
        body = {"messages": [{"role": "user", "content": text}], "stream": stream or None}
        return ACCOUNT + self.actor.upstream_model, {}, body


TEXT = {
    "anthropic": lambda one: one["content"][0]["text"],
    "google": lambda one: one["candidates"][0]["content"]["parts"][0]["text"],
    "cohere": lambda one: one["message"]["content"][0]["text"],
    "mistral": lambda one: one["choices"][0]["message"]["content"],
    "cloudflare": lambda one: one["result"]["response"],
}
USAGE = {
    "anthropic": lambda one: (one["usage"]["input_tokens"], one["usage"]["output_tokens"]),
    "google": lambda one: (
        one["usageMetadata"]["promptTokenCount"],
        one["usageMetadata"]["candidatesTokenCount"],
    ),
    "cohere": lambda one: tuple(one["usage"]["billed_units"].values()),
    "mistral": lambda one: (one["usage"]["prompt_tokens"], one["usage"]["completion_tokens"]),
    "cloudflare": lambda one: (
        one["result"]["usage"]["prompt_tokens"],
        one["result"]["usage"]["completion_tokens"],
    ),
}
MESSAGE = {
    "anthropic": lambda one: one["error"]["message"],
    "google": lambda one: one["error"]["message"],
    "cohere": lambda one: one["message"],
    "mistral": lambda one: one["message"],
    "cloudflare": lambda one: one["errors"][0]["message"],
}


def proof(talk, nonce):
    return talk.stage.upstreams.proof(nonce, talk.actor.id)


def named(heard):
    """Return the pairs of a stream with event names."""
    blocks = [block for block in heard.body.decode().split("\n\n") if "event: " in block]
    return [
        (block.split("\n")[0][7:], json.loads(block.split("\n")[1].removeprefix("data: ")))
        for block in blocks
    ]
