"""The catalogue of providers: complete, documented addresses, credentials placed safely."""

from typing import get_args
from urllib.parse import urlsplit

import pytest

from aiproxy.middleware.answering.taxonomy import Kind
from aiproxy.middleware.config import load_config
from aiproxy.middleware.dialects.codecs import SPOKEN_FOR
from aiproxy.spec.catalog import Preset, join, presets

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
    "replicate",
    "anyscale",
    "modal",
    "bedrock",
    "vertex",
    "azure_openai_deployments",
]
DIALECTS = frozenset(name for row in SPOKEN_FOR.values() for name in row)


def test_the_named_providers_are_all_there() -> None:
    assert set(NAMED) <= set(presets())


def test_more_than_forty_cloud_or_server_presets_exist() -> None:
    assert len([preset for preset in ROWS if preset.transport == "http"]) > 40


@pytest.mark.parametrize("preset", ROWS, ids=lambda preset: preset.name)
def test_a_preset_is_consistent(preset: Preset) -> None:
    assert {*preset.dialects, *preset.also} <= DIALECTS
    assert preset.dialects
    headers = [preset.auth_header, *(name for name, _ in preset.constant_headers)]
    headers += [name for names in preset.rate_limit_headers.values() for name in names]
    headers += [s.auth_header for s in preset.surfaces.values() if s.auth_header is not None]
    assert headers == [name.lower() for name in headers]
    assert set(preset.rate_limit_headers) <= {"limit", "remaining", "reset"}
    assert set(preset.error_map.values()) <= set(get_args(Kind))
    assert list(preset.error_map) == [word.lower() for word in preset.error_map]
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
        ("google", "https://g.example/v1beta", "https://g.example/v1beta"),
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


SURFACES = [
    ("google", None, "gemini", "https://generativelanguage.googleapis.com/v1beta"),
    ("google", None, "chat", "https://generativelanguage.googleapis.com/v1beta/openai"),
    ("google", "https://g", "chat", "https://g/v1beta/openai"),
    ("google", "https://g/v1beta", "chat", "https://g/v1beta/openai"),
    ("google", "https://g/v1beta/openai", "chat", "https://g/v1beta/openai"),
    ("google", "https://g/v1beta/openai/", "gemini", "https://g/v1beta"),
    ("google", "http://127.0.0.1:9/p", "gemini", "http://127.0.0.1:9/p/v1beta"),
    ("google", "https://g/v1", "gemini", "https://g/v1"),
    ("anthropic", None, "anthropic", "https://api.anthropic.com/v1"),
    ("anthropic", "http://127.0.0.1:9", "anthropic", "http://127.0.0.1:9/v1"),
    ("anthropic", "https://a/v1", "chat", "https://a/v1"),
    ("cohere", None, "cohere", "https://api.cohere.com/v2"),
    ("cohere", None, "chat", "https://api.cohere.com/compatibility/v1"),
    ("cohere", "https://c/compatibility/v1", "chat", "https://c/compatibility/v1"),
    ("cohere", "https://c/compatibility", "chat", "https://c/compatibility/v1"),
    ("cohere", "https://c/compatibility/v1", "cohere", "https://c/v2"),
    ("cohere", "https://c/v2", "embeddings", "https://c/compatibility/v1"),
    ("mistral", "https://m", "mistral", "https://m/v1"),
    ("cloudflare", "https://c", "workers_ai", "https://c/client/v4/accounts/a%2Fb%3F/ai"),
    ("cloudflare", "https://c", "chat", "https://c/client/v4/accounts/a%2Fb%3F/ai/v1"),
    (
        "cloudflare",
        "https://c/client/v4/accounts/x/ai/v1",
        "workers_ai",
        "https://c/client/v4/accounts/x/ai",
    ),
    ("deepseek", None, "anthropic", "https://api.deepseek.com/anthropic/v1"),
    ("zai", "https://z/api/paas/v4", "anthropic", "https://z/api/anthropic/v1"),
    (
        "azure_openai_deployments",
        "https://r.openai.azure.com",
        "chat",
        "https://r.openai.azure.com/openai/deployments/{model}?api-version=2024-10-21",
    ),
    (
        "vertex",
        "https://v/v1/projects/p/locations/l",
        "chat",
        "https://v/v1/projects/p/locations/l/endpoints/openapi",
    ),
    (
        "bedrock",
        "https://bedrock-runtime.us-east-1.amazonaws.com",
        "responses",
        "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1",
    ),
]


@pytest.mark.parametrize(("name", "endpoint", "dialect", "url"), SURFACES)
def test_every_dialect_of_a_provider_has_its_own_base(
    name: str, endpoint: str | None, dialect: str, url: str
) -> None:
    """XAI-ARCH-010: native and OpenAI-compatible surfaces of one host, from either one's URL."""
    assert presets()[name].url(endpoint, {"account_id": "a/b?"}, dialect) == url


@pytest.mark.parametrize("preset", ROWS, ids=lambda preset: preset.name)
def test_an_operator_may_write_the_url_of_any_surface(preset: Preset) -> None:
    """Whichever documented URL is written, every dialect is found from it."""
    if preset.transport != "http":
        return
    there = {"account_id": "x"}
    root = None if preset.base_url else "https://host.example"
    dialects = (*preset.dialects, *preset.also)
    urls = {name: preset.url(root, there, name) for name in dialects}
    for written in urls.values():
        assert {name: preset.url(written, there, name) for name in dialects} == urls


@pytest.mark.parametrize(
    ("url", "target", "model", "whole"),
    [
        ("https://h/v1", "/chat/completions", "m", "https://h/v1/chat/completions"),
        ("https://h", "/m:s?alt=sse", "m", "https://h/m:s?alt=sse"),
        ("https://h/b?v=1", "/m:s?alt=sse", "", "https://h/b/m:s?alt=sse&v=1"),
        ("https://h/d/{model}?v=1", "/chat", "a b/c", "https://h/d/a%20b%2Fc/chat?v=1"),
    ],
)
def test_a_target_goes_below_the_base(url: str, target: str, model: str, whole: str) -> None:
    assert join(url, target, model) == whole


def test_an_api_version_of_the_operators_replaces_the_usual_one() -> None:
    """UNI-REG-003."""
    preset = presets()["azure_openai_deployments"]
    base = "https://r.openai.azure.com"
    assert preset.url(base, {}, api_version="2025-04-01-preview").endswith(
        "{model}?api-version=2025-04-01-preview"
    )
    assert preset.url(f"{base}?api-version=mine", {}).endswith("?api-version=mine")
    assert presets()["azure_openai"].url(base, {}, api_version="preview") == (
        "https://r.openai.azure.com/openai/v1?api-version=preview"
    )


def test_native_dialects_come_first() -> None:
    known = presets()
    assert known["openai"].dialects == ("chat", "responses", "completions", "embeddings")
    assert known["anthropic"].dialects == ("anthropic",)
    assert known["google"].dialects == ("gemini", "gemini_embed")
    assert known["cohere"].dialects == ("cohere", "cohere_embed")
    assert known["mistral"].dialects == ("mistral", "embeddings")
    assert known["cloudflare"].dialects == ("chat", "workers_ai", "embeddings")


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
    assert known["anthropic"].authorization({"api_key": "k"}) == ("x-api-key", "k")
    assert known["anthropic"].constant_headers == (("anthropic-version", "2023-06-01"),)
    assert known["google"].authorization({"api_key": "k"}, "gemini") == ("x-goog-api-key", "k")
    assert known["google"].authorization({"api_key": "k"}, "chat") == ("authorization", "Bearer k")
    assert known["ollama"].authorization({}) is None
