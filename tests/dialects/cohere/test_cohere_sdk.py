"""Cohere's own SDK as a judge: its types know everything we send, and we all they tell."""

import json
from pathlib import Path
from typing import Any

import pytest
from egress import assembled, conversations, judge, payloads, whole

from aiproxy.middleware.dialects import chat, cohere, embeddings
from aiproxy.middleware.dialects.embeddings import cohere as cohere_embed

HERE = Path(__file__).parent
GOLDEN = sorted((HERE / "golden").glob("*.json"))
EMBEDDED = {
    "id": "e1",
    "embeddings": {"float": [[0.25, -0.5], [1.0, 0.0]]},
    "texts": ["a", "b"],
    "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 4.0}},
    "response_type": "embeddings_by_type",
}


@pytest.mark.sdk
def test_the_sdk_knows_what_we_send_and_we_what_it_tells() -> None:
    requests = {
        name: cohere.encode_request(chat.decode_request(body), "command-a-plus")[0]
        for name, body in conversations().items()
    }
    wanted = {"model": "embed-v4.0", "input": ["a", "b"], "dimensions": 256}
    embeds = [cohere_embed.encode_request(embeddings.decode_request(wanted), "embed-v4.0")[0]]
    replies = [json.loads(path.read_text()) for path in GOLDEN]
    streams = [
        [p for p, _ in payloads([path.with_suffix(".sse").read_bytes()]) if p is not None]
        for path in GOLDEN
    ]
    told = judge(
        "cohere",
        HERE / "sdk_judge.py",
        {
            "requests": list(requests.values()),
            "embeds": embeds,
            "replies": replies,
            "embedded": [EMBEDDED],
            "events": [event for stream in streams for event in stream],
        },
    )
    for (name, sent), read in zip(requests.items(), told["requests"], strict=True):
        assert read == sent, name
    assert told["embeds"] == embeds
    for body, read in zip(replies, told["replies"], strict=True):
        assert whole(cohere.decode_reply(read)) == whole(cohere.decode_reply(body))
    for read in told["embedded"]:
        assert cohere_embed.decode_reply(read) == cohere_embed.decode_reply(EMBEDDED)
    events = iter(told["events"])
    for stream, body in zip(streams, replies, strict=True):
        decoder: Any = cohere.StreamDecoder()
        found = [event for _ in stream for event in decoder.feed(next(events))]
        assert assembled([*found, *decoder.finish()]) == whole(cohere.decode_reply(body))
