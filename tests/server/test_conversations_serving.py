"""Conversations of the real server: workers, restarts, a node that dies, and what is on the disk."""

import signal
from pathlib import Path
from typing import Any

import pytest
from served import pair_config, run, serve, write_config
from upstreams import Script

req = pytest.mark.requirement
ID, PARENT, BRANCH = "X-AI-Conversation-ID", "X-AI-Parent-Conversation", "X-AI-Workflow-Branch"
KEPT = {"enabled": True, "store": "sql"}
WORD = "prompt-word-on-disk"


def ask(server: Any, text: str, **headers: str) -> Any:
    names = {"id": ID, "parent": PARENT, "branch": BRANCH, "merge": "X-AI-Merge-Branches"}
    said = {names[name]: value for name, value in headers.items()}
    pool = {"X-AI-Provider-Pool": "a"}
    return server.chat({**pool, **said}, messages=[{"role": "user", "content": text}])


def config(upstreams: Any, folder: Path, **conversations: Any) -> dict[str, Any]:
    a, b = upstreams
    for one in upstreams:
        one.script = Script()
        one.queue.clear()
        one.seen.clear()
    section = {**KEPT, "url": f"sqlite:///{folder}/kept.db", **conversations}
    return pair_config(a, b, conversations=section)


@req("XAI-WF-018", "XAI-FAIL-026")
def test_a_workflow_outlives_the_node_that_began_it(upstreams: Any, tmp_path: Path) -> None:
    """Two workers find each other's turns; another node goes on when both were killed."""
    made = config(upstreams, tmp_path)
    with serve(tmp_path / "one", made, "--workers", "2") as server:
        base = ask(server, f"Base {WORD}.")
        assert base.status == 200, base.body
        name = base.header(ID)
        for number in range(6):
            assert ask(server, f"Number {number}.", id=name).status == 200
        for branch in ("left", "right"):
            assert ask(server, f"{branch}.", parent=name, branch=branch).status == 200
        assert server.stop(signal.SIGKILL) != 0
    with serve(tmp_path / "two", made) as server:
        merged = ask(server, "Sum up.", parent=name, merge="left,right")
        assert merged.selection["branches_merged"] == ["left", "right"]
        assert ask(server, "Last.", id=name).status == 200
        assert server.stop() == 0
    a, _ = upstreams
    asked = [m["content"] for m in a.seen[-1].body["messages"] if m["role"] == "user"]
    assert asked == [f"Base {WORD}.", *(f"Number {n}." for n in range(6)), "Last."]
    logs = [file for folder in ("one", "two") for file in (tmp_path / folder).rglob("*")]
    assert not [file for file in logs if file.is_file() and WORD.encode() in file.read_bytes()]


@req("XAI-FAIL-025")
def test_without_a_store_no_prompt_is_on_the_disk(upstreams: Any, tmp_path: Path) -> None:
    made = config(upstreams, tmp_path, enabled=False)
    with serve(tmp_path / "one", made) as server:
        got = ask(server, WORD)
        assert (got.status, got.header(ID) is None) == (200, False)
        assert server.get("/v1/capabilities").json["conversations"]["history"] is False
        assert server.stop() == 0
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if WORD.encode() in file.read_bytes()]


@req("XAI-FAIL-025")
def test_a_conversation_is_over_after_its_time(upstreams: Any, tmp_path: Path) -> None:
    from threading import Event

    made = config(upstreams, tmp_path, ttl="1s", store="memory")
    with serve(tmp_path / "one", made) as server:
        name = ask(server, "Base.").header(ID)
        assert ask(server, "More.", id=name).status == 200
        Event().wait(1.1)
        got = ask(server, "And?", id=name)
        assert (got.status, got.error["code"]) == (404, "conversation_not_found")


def test_conversations_in_memory_with_several_workers_are_refused(
    upstreams: Any, tmp_path: Path
) -> None:
    file = str(write_config(tmp_path, config(upstreams, tmp_path, store="memory")))
    done = run("serve", "--config", file, "--port", "0", "--workers", "2")
    assert done.returncode == 2
    assert "conversations.store" in done.stderr
