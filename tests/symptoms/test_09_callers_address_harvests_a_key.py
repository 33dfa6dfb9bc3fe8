"""No member and no header of a request can send our credential to an address of the caller's, nor
make us call addresses inside our own network."""

from typing import Any

import pytest
from mounts import CHAT, HELLO, RESPONSES
from wire import WireUpstream

KEY = "canary-key-of-a"
SEEING = {"name": "m", "quality": 0.9, "capabilities": ["vision"]}
NAMES = ("base_url", "api_base", "endpoint", "url", "host", "azure_endpoint", "custom_host")
INSIDE = ("http://169.254.169.254/latest/meta-data", "http://127.0.0.1:9", "http://[::1]:9",
          "file:///etc/passwd", "http://10.0.0.1")  # fmt: skip


def members(address: str) -> list[dict[str, Any]]:
    """The places in which peers were talked into another address, nested ones included."""
    return [
        *({name: address} for name in NAMES),
        {"routing": {"base_url": address}},
        {"provider": {"a": {"endpoint": address}}},
        {"metadata": {"api_base": address, "base_url": address}},
        {"extra_body": {"api_base": address}},
        {"litellm_params": {"api_base": address}},
        {"model": f"a/{address}"},
        {"model": address},
    ]


def headers(address: str) -> list[dict[str, str]]:
    host = address.partition("//")[2]
    return [
        {"X-AI-Provider-Pool": address},
        {"X-Base-Url": address},
        {"X-Forwarded-Host": host},
        {"X-Original-Url": address},
        {"X-Portkey-Custom-Host": address},
        {"Forwarded": f"host={host}"},
    ]


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_the_key_goes_to_the_configured_address_only(
    mount: Any, duo: Any, best: Any, fakes: Any, path: str
) -> None:
    served = mount(duo(a={"credentials": {"api_key": KEY}}))
    asked = {"messages": HELLO} if path == CHAT else {"input": "Hello"}
    with WireUpstream() as harvester:
        for more in members(harvester.url):
            got = served.post(path, {"model": "m", **asked, **more}, best)
            assert got.status in (200, 400, 404, 422, 502), more
        for extra in headers(harvester.url):
            got = served.post(path, {"model": "m", **asked}, {**best, **extra})
            assert got.status in (200, 400, 421, 422), extra
        assert harvester.seen == []
    for name in ("a", "b"):
        for seen in fakes[name].seen:
            assert (KEY in str(seen.headers)) == (name == "a")


@pytest.mark.parametrize("address", INSIDE)
def test_no_address_inside_is_called_for_a_caller(
    mount: Any, duo: Any, best: Any, fakes: Any, address: str
) -> None:
    served = mount(duo())
    for more in members(address):
        got = served.post(CHAT, {"model": "m", "messages": HELLO, **more}, best)
        assert got.status in (200, 400, 404, 422), more
        assert KEY.encode() not in got.body


def test_an_image_address_is_the_providers_to_fetch(
    mount: Any, duo: Any, best: Any, fakes: Any
) -> None:
    """We fetch nothing that a request names: it is handed on, or refused."""
    with WireUpstream() as harvester:
        parts = [
            {"type": "text", "text": "See"},
            {"type": "image_url", "image_url": {"url": f"{harvester.url}/cat.png"}},
        ]
        got = mount(duo(a={"models": [SEEING]})).chat(
            best, messages=[{"role": "user", "content": parts}]
        )
        assert harvester.seen == []
    assert got.status == 200
    assert fakes.called() == {"a": 1}
