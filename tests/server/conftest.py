"""Servers that many tests share; ``served`` is made importable."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def upstreams() -> Iterator[Any]:
    from served import EmbeddingUpstream
    from upstreams import Upstream

    with EmbeddingUpstream("a") as a, Upstream("b") as b:
        yield a, b


@pytest.fixture(scope="session")
def _pair(upstreams: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from served import Pair, pair_config, serve

    a, b = upstreams
    folder = tmp_path_factory.mktemp("pair")
    with serve(folder, pair_config(a, b)) as server:
        yield Pair(server, a, b)


@pytest.fixture
def pair(_pair: Any) -> Any:
    """A server in front of two upstreams that answer; for tests in which none fails."""
    _pair.reset()
    return _pair


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The server without a configuration."""
    from served import serve

    with serve(tmp_path_factory.mktemp("embedded")) as server:
        yield server


@pytest.fixture(scope="session")
def _keyed(upstreams: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from served import KEYS, Pair, pair_config, serve

    a, b = upstreams
    rows = [{"name": name, "key": key} for name, key in KEYS.items()]
    rows[1]["models"] = ["shared"]
    security = {"auth": {"enabled": True, "type": "api_key", "api_keys": rows}}
    listed = [
        {"path": "/v1/chat/completions", "protocol": "openai"},
        {"path": "/v1/models", "protocol": "openai"},
        {"path": "/v1/completions", "protocol": "openai", "enabled": False},
        {"path": "/v1/capabilities", "protocol": "openai", "enabled": False},
    ]
    server = {"endpoints": listed, "max_request_size": "20KB", "read_timeout": "1s"}
    config = pair_config(a, b, security=security, server=server)
    with serve(tmp_path_factory.mktemp("keyed"), config) as running:
        yield Pair(running, a, b)


@pytest.fixture
def keyed(_keyed: Any) -> Any:
    """A server with two keys, a list of endpoints and tight limits."""
    _keyed.reset()
    return _keyed
