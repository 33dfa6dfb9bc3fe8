import pytest

_ENV = {
    "CLOUDFLARE_ACCOUNT_ID": "canary-account",
    "CLOUDFLARE_API_TOKEN": "canary-cloudflare-token",
    "OPENAI_API_KEY": "canary-openai-key",
    "GROQ_API_KEY": "canary-groq-key",
    "TOGETHER_API_KEY": "canary-together-key",
    "AIPROXY_API_KEY_1": "canary-client-key-0001",
    "AIPROXY_API_KEY_2": "canary-client-key-0002",
}


@pytest.fixture
def env() -> dict[str, str]:
    """Return the variables the example configurations name, with values never to be shown."""
    return dict(_ENV)
