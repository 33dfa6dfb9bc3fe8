"""The catalogue of providers: complete, documented addresses, credentials placed safely."""

from urllib.parse import urlsplit

import pytest

from aiproxy.middleware.config import load_config
from aiproxy.spec.catalog import Preset, presets

ROWS = list(presets().values())
NAMED = [
    "openai",
    "openai_compatible",
    "anthropic",
    "google",
    "cohere",
    "mistral",
    "cloudflare",
    "together",
    "groq",
    "fireworks",
    "deepinfra",
    "openrouter",
    "perplexity",
    "ollama",
    "lmstudio",
    "localai",
    "vllm",
    "tgi",
    "llamacpp",
    "huggingface",
    "azure_openai",
    "local",
    "app",
    "mesh_peer",
    "text_generation_webui",
]


def test_the_named_providers_are_all_there() -> None:
    assert set(NAMED) <= set(presets())


def test_more_than_twenty_cloud_or_server_presets_exist() -> None:
    assert len([preset for preset in ROWS if preset.transport == "http"]) > 20


@pytest.mark.parametrize("preset", ROWS, ids=lambda preset: preset.name)
def test_a_preset_is_consistent(preset: Preset) -> None:
    assert set(preset.dialects) <= {"chat", "responses", "completions", "embeddings"}
    assert "chat" in preset.dialects
    assert preset.auth_header == preset.auth_header.lower()
    assert set(preset.environment) == set(preset.required)
    if preset.base_url is not None:
        parts = urlsplit(preset.base_url)
        assert not preset.base_url.endswith("/")
        assert parts.scheme == ("http" if parts.hostname == "127.0.0.1" else "https")
        assert preset.local == (parts.hostname == "127.0.0.1")
    if preset.probe is not None:
        assert urlsplit(preset.probe).hostname == "127.0.0.1"
        assert preset.free


@pytest.mark.parametrize("preset", ROWS, ids=lambda preset: preset.name)
def test_every_preset_is_a_type_a_configuration_may_name(preset: Preset) -> None:
    entry: dict[str, object] = {"type": preset.name}
    entry["credentials"] = dict.fromkeys(preset.required, "${SECRET}")
    if preset.transport == "http" and preset.base_url is None:
        entry["endpoint"] = "https://host.example"
    config = load_config({"providers": {"mine": entry}}, env={"SECRET": "s"})
    assert config.values["providers"]["mine"]["type"] == preset.name


@pytest.mark.parametrize(
    ("name", "endpoint", "url"),
    [
        ("openai", None, "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com", "https://api.openai.com/v1"),
        ("openai", "https://host/v1/", "https://host/v1"),
        ("openai", "https://host/team/openai", "https://host/team/openai/v1"),
        ("openai_compatible", "http://127.0.0.1:9", "http://127.0.0.1:9/v1"),
        ("openai_compatible", "https://host/api/paas/v4", "https://host/api/paas/v4"),
        ("groq", "https://api.groq.com", "https://api.groq.com/openai/v1"),
        ("google", "https://g.example/v1beta", "https://g.example/v1beta/openai"),
        ("deepinfra", "https://d.example/v1", "https://d.example/v1/openai"),
        ("perplexity", None, "https://api.perplexity.ai"),
        ("azure_openai", "https://r.openai.azure.com", "https://r.openai.azure.com/openai/v1"),
        ("ollama", "http://127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("cloudflare", "https://c/client/v4", "https://c/client/v4/accounts/a%2Fb%3F/ai/v1"),
        ("cloudflare", "https://c/client/v4/", "https://c/client/v4/accounts/a%2Fb%3F/ai/v1"),
        (
            "cloudflare",
            "https://c/client/v4/accounts/x/ai/v1",
            "https://c/client/v4/accounts/x/ai/v1",
        ),
        ("cloudflare", None, "https://api.cloudflare.com/client/v4/accounts/a%2Fb%3F/ai/v1"),
    ],
)
def test_the_base_url_is_completed(name: str, endpoint: str | None, url: str) -> None:
    assert presets()[name].url(endpoint, {"account_id": "a/b?"}) == url


def test_an_address_that_needs_something_says_so() -> None:
    with pytest.raises(ValueError, match="needs account_id"):
        presets()["cloudflare"].url(None, {})
    with pytest.raises(ValueError, match="need an endpoint"):
        presets()["openai_compatible"].url(None, {})


def test_credentials_go_into_the_documented_header() -> None:
    known = presets()
    assert known["openai"].authorization({"api_key": "k"}) == ("authorization", "Bearer k")
    assert known["azure_openai"].authorization({"api_key": "k"}) == ("api-key", "k")
    assert known["cloudflare"].authorization({"api_token": "t"}) == ("authorization", "Bearer t")
    assert known["ollama"].authorization({}) is None
