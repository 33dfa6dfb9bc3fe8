"""The section ``conversations``: what a configuration may ask for, and what is told of it."""

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from aiproxy.middleware.config import ConfigInvalid
from aiproxy.middleware.gateway import Gateway
from aiproxy.reference_server.resources.about import capabilities
from aiproxy.reference_server.starting import StartRefused, refuse_split_conversations

ON = {"enabled": True}
PROVIDERS = {
    "a": {
        "type": "openai_compatible",
        "endpoint": "http://127.0.0.1:9/v1",
        "models": [{"name": "m", "cost_per_1k_tokens": 0}],
    }
}


def gateway(conversations: Any, **more: Any) -> Gateway:
    return Gateway({"providers": PROVIDERS, "conversations": conversations, **more})


@pytest.mark.parametrize(
    ("section", "more", "key"),
    [
        ({**ON, "store": "sql"}, {}, "conversations.url"),
        ({**ON, "store": "sql", "url": "mysql://h/d"}, {}, "conversations.url"),
        ({**ON, "store": "valkey"}, {}, "state.url"),
        ({**ON, "store": "file"}, {}, "conversations.store"),
        ({**ON, "ttl": "0s"}, {}, "conversations.ttl"),
        ({**ON, "max_conversations": 0}, {}, "conversations.max_conversations"),
    ],
)
def test_a_store_that_cannot_be_is_refused_at_load(section: Any, more: Any, key: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        gateway(section, **more)
    assert key in str(refused.value)


@pytest.mark.parametrize(
    ("section", "more", "told"),
    [
        ({}, {}, (True, False, None)),
        (ON, {}, (True, True, "memory")),
        ({**ON, "generate_ids": False}, {}, (False, True, "memory")),
        ({**ON, "store": "sql", "url": "sqlite:///x.db"}, {}, (True, True, "sql")),
        (ON, {"state": {"backend": "valkey", "url": "redis://127.0.0.1:1/0"}}, (True, True, "valkey")),
        (
            {**ON, "store": "memory"},
            {"state": {"backend": "valkey", "url": "redis://127.0.0.1:1/0"}},
            (True, True, "memory"),
        ),
    ],
)  # fmt: skip
def test_capabilities_tell_what_is_on(section: Any, more: Any, told: Any, tmp_path: Path) -> None:
    made = gateway(section, **more)
    listed = capabilities(made)
    assert listed["conversations"] == dict(zip(("ids", "history", "store"), told, strict=True))
    assert "conversations" not in listed["not_supported"]


def test_a_store_whose_package_is_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "sqlalchemy":
            raise ModuleNotFoundError("no", name="sqlalchemy")
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "aiproxy.middleware.conversations.sql", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigInvalid, match=r"pip install 'aiproxy\[sql\]'"):
        gateway({**ON, "store": "sql", "url": "sqlite:///x.db"})


def test_conversations_in_memory_are_one_process_es(tmp_path: Path) -> None:
    config = gateway(ON).config
    refuse_split_conversations(config, 1)
    with pytest.raises(StartRefused, match=r"conversations\.store"):
        refuse_split_conversations(config, 2)
    refuse_split_conversations(gateway({}).config, 2)
    shared = gateway({**ON, "store": "sql", "url": f"sqlite:///{tmp_path}/x.db"})
    refuse_split_conversations(shared.config, 2)
