"""Names and texts beyond Latin-1 in a request's headers, in a configuration and in a provider's
answer: never a 500, and every header of ours is one bounded line of ASCII (``check_answer``)."""

import json
from typing import Any

import pytest
from upstreams import Script
from wire import Wire, WireUpstream

NAMES = ["通义千问-max", "модель", "naïve-😀", "日本語" * 40]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_name_of_any_script(
    mount: Any, duo: Any, best: Any, fakes: Any, name: str, stream: bool
) -> None:
    config = duo(a={"models": [{"name": "m", "model": name, "quality": 0.9}]})
    served = mount(config)
    got = served.chat(best, stream=stream)
    assert (got.status, got.provider) == (200, "a")
    assert fakes.a.seen[0].body["model"] == name
    for key, value in got.headers:
        assert value.isascii(), key


@pytest.mark.parametrize("stream", [False, True])
def test_the_providers_own_model_name_and_text(
    mount: Any, duo: Any, best: Any, fakes: Any, stream: bool
) -> None:
    fakes.a.script = Script(text="你好 😀", headers={"x-note": "caf\xe9"})
    served = mount(duo(a={"relay_headers": ["x-note"]}))
    got = served.chat(best, stream=stream)
    assert (got.status, got.provider) == (200, "a")
    assert "你好" in (
        got.body.decode() if not stream else json.dumps(got.events, ensure_ascii=False)
    )


@pytest.mark.parametrize(
    "octets", ["日本".encode(), "é".encode("latin-1"), b"\xff\xfe", "😀".encode(), b"\xc3"]
)
@pytest.mark.parametrize(
    "field", [b"X-AI-Task-Hint", b"X-AI-Provider-Pool", b"X-Title", b"User-Agent"]
)
def test_request_headers(mount: Any, duo: Any, fakes: Any, field: bytes, octets: bytes) -> None:
    status, answer = mount(duo()).lines([field + b": " + octets, b"X-AI-Routing-Strategy: quality"])
    assert status in ((400,) if field.startswith(b"X-AI-") else (200, 400)), answer
    if status == 400:
        assert octets not in answer


def test_a_header_of_the_provider_beyond_ascii(mount: Any, duo: Any, best: Any) -> None:
    document = json.dumps(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "模型",
         "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"},
                      "finish_reason": "stop"}]},
        ensure_ascii=False,
    ).encode()  # fmt: skip

    def script(wire: Wire) -> None:
        wire.document(
            document, b"200 OK", b"Content-Type: application/json", "X-Model: 模型".encode()
        )

    with WireUpstream(script) as upstream:
        got = mount(duo(url_a=upstream.url, a={"relay_headers": ["x-model"]})).chat(best)
    assert (got.status, got.provider) == (200, "a")
