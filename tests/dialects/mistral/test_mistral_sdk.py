"""Mistral's own SDK as a judge: its models know everything we send, and we all they tell."""

import json
from pathlib import Path
from typing import Any

import pytest
from egress import assembled, conversations, judge, payloads, whole

from aiproxy.middleware.dialects import chat, mistral

HERE = Path(__file__).parent
GOLDEN = sorted((HERE / "golden").glob("*.json"))


@pytest.mark.sdk
def test_the_sdk_knows_what_we_send_and_we_what_it_tells() -> None:
    cases = conversations()
    requests = {
        name: mistral.encode_request(chat.decode_request(body), "mistral-large-latest")[0]
        for name, body in cases.items()
    }
    replies = [json.loads(path.read_text()) for path in GOLDEN]
    streams = [
        [p for p, _ in payloads([path.with_suffix(".sse").read_bytes()]) if p is not None]
        for path in GOLDEN
    ]
    told = judge(
        "mistralai",
        HERE / "sdk_judge.py",
        {
            "requests": list(requests.values()),
            "replies": replies,
            "chunks": [chunk for stream in streams for chunk in stream],
        },
    )
    for (name, sent), read in zip(requests.items(), told["requests"], strict=True):
        assert read == sent, name
    for body, read in zip(replies, told["replies"], strict=True):
        assert whole(mistral.decode_reply(read)) == whole(mistral.decode_reply(body))
    chunks = iter(told["chunks"])
    for stream, body in zip(streams, replies, strict=True):
        decoder: Any = mistral.StreamDecoder()
        events = [event for _ in stream for event in decoder.feed(next(chunks))]
        assert assembled([*events, *decoder.finish()]) == whole(mistral.decode_reply(body))
