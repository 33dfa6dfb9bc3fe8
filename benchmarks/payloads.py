"""Request bodies, answers and stream events of the benchmarks.

Kinds: *small* (300 B) and *large* (8 KB) JSON, *sse* (100 events as fast as they go), *paced* (one
event every 10 ms a stream), *fo500* and *refused* (the first provider fails, the second answers).
"""

import json

WORDS = "the quick brown fox jumps over the lazy dog and then some more text follows here "
STREAMED = frozenset({"sse", "paced"})
FAILING = {"fo500": ("bad", "small"), "refused": ("dead", "small")}
KINDS = ("small", "large", "sse", "paced", *FAILING)
#: Events of a stream, [DONE] included.
EVENTS = 100
PACE_S = 0.01
#: What a routed request with X-AI headers carries beside `model: "auto"`.
X_AI = (
    ("X-AI-Multi-Provider", "enabled"),
    ("X-AI-Provider-Pool", "alpha, beta, gamma"),
    ("X-AI-Routing-Strategy", "balanced"),
    ("X-AI-Task-Hint", "coding"),
    ("X-AI-Quality-Threshold", "0.2"),
    ("X-AI-Cost-Limit", "0.50"),
    ("X-AI-Failover-Policy", "cascading"),
)


def targets(kind: str) -> tuple[str, ...]:
    """The upstreams a kind asks, in order."""
    return FAILING.get(kind, (kind,))


def model(kind: str) -> str:
    return f"bench-{kind}"


def request(name: str, kind: str) -> bytes:
    """A chat request for the model ``name``."""
    size = 8000 if kind == "large" else 300
    messages = [{"role": "system", "content": "You are a helpful assistant."}]
    body = {"model": name, "messages": messages, "temperature": 0.7, "max_tokens": 256}
    if kind in STREAMED:
        body["stream"] = True
    while (room := size - len(json.dumps(body)) - 40) > 0:
        role = "user" if len(messages) % 2 else "assistant"
        messages.append({"role": role, "content": (WORDS * 12)[: min(room, 800)]})
    return json.dumps(body).encode()


def answer(kind: str) -> bytes:
    """A chat completion of 480 B or, for *large*, 8 KB."""
    size = 8000 if kind == "large" else 480
    message = {"role": "assistant", "content": ""}
    body = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "mock-model",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 42, "completion_tokens": 17, "total_tokens": 59},
    }
    message["content"] = (WORDS * 200)[: max(0, size - len(json.dumps(body)))]
    return json.dumps(body, separators=(",", ":")).encode()


def events(count: int = EVENTS) -> list[bytes]:
    """The frames of a stream, about 145 bytes each."""

    def frame(delta: dict[str, str], reason: str | None = None, **more: object) -> bytes:
        chunk = {
            "id": "c-bench",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "mock-model",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
            **more,
        }
        return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"

    usage = {"prompt_tokens": 42, "completion_tokens": count, "total_tokens": 42 + count}
    return [
        frame({"role": "assistant", "content": ""}),
        *(frame({"content": f" tok{i}"}) for i in range(count - 3)),
        frame({}, "stop", usage=usage),
        b"data: [DONE]\n\n",
    ]
