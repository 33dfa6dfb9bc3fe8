"""Conversations over both mounts: ids, history, failover, tenants (draft §10, Figures 13 and 14)."""

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from mounts import HELLO, RESPONSES, Got, model
from upstreams import Script, free_port

from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.gateway import Inbound
from aiproxy.spec.vectors import vector

req = pytest.mark.requirement
ID, PARENT, BRANCH = "X-AI-Conversation-ID", "X-AI-Parent-Conversation", "X-AI-Workflow-Branch"
BEST = {"X-AI-Routing-Strategy": "quality"}
KEPT = {"enabled": True}


def say(*texts: str) -> list[dict[str, str]]:
    """User and assistant in turns."""
    return [
        {"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)
    ]


def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


@pytest.fixture
def talk(mount: Any, fakes: Any) -> Any:
    """``talk(**sections)`` mounts providers a (better) and b with conversations kept."""

    def build(a: Any = None, b: Any = None, /, **sections: Any) -> Any:
        rows = {
            "a": {**(a or {}), "models": [model("m-a", quality=0.9)]},
            "b": {**(b or {}), "models": [model("m-b", quality=0.6)]},
        }
        sections.setdefault("conversations", KEPT)
        return mount(fakes.config(rows, **sections))

    return build


def turn(served: Any, text: str, name: str | None = None, **more: Any) -> Got:
    headers = {**BEST, **({ID: name} if name else {}), **more.pop("headers", {})}
    got: Got = served.chat(headers, messages=say(text), **more)
    return got


def sent(fake: Any) -> list[dict[str, Any]]:
    """The messages of the last request a provider got, roles and contents only."""
    messages = fake.seen[-1].body["messages"]
    return [{"role": m["role"], "content": m["content"]} for m in messages]


# --- nothing is kept -----------------------------------------------------------------------------


@req("XAI-FAIL-002", "XAI-RESP-015", "XAI-FAIL-025")
def test_without_a_store_ids_are_given_and_echoed(talk: Any, fakes: Any) -> None:
    served = talk(conversations={})
    one, two = turn(served, "Hi"), turn(served, "Hi")
    name = one.header(ID)
    assert name is not None
    assert len(name) == len("conv-") + 32
    assert two.header(ID) not in (None, name)
    fakes.a.script = Script(status=503)
    got = served.chat({**BEST, ID: name}, messages=say("Hi", "ok", "And?"))
    assert (got.provider, got.header(ID)) == ("b", name)
    assert sent(fakes.b) == say("Hi", "ok", "And?")
    assert turn(served, "Hi", "my-own-name").header(ID) == "my-own-name"
    assert got.header("x-ai-workflow-step") is None
    off = talk(conversations={"generate_ids": False})
    assert turn(off, "Hi").header(ID) is None


@req("XAI-FAIL-004", "XAI-WF-003")
def test_without_a_store_what_needs_history_is_refused(talk: Any, fakes: Any) -> None:
    """An id of ours says that there were turns before; the request brings none of them."""
    served = talk(conversations={})
    name = turn(served, "Hi").header(ID)
    asked = dict(fakes.called())
    for headers, param in (({ID: name}, ID), ({PARENT: "conv-x", BRANCH: "b"}, PARENT)):
        got = turn(served, "And?", headers=headers)
        assert (got.status, got.error["code"]) == (404, "conversation_not_found")
        assert got.error["param"] == param
    assert fakes.called() == asked


def test_nothing_is_given_to_plain_requests_and_to_other_kinds(talk: Any, fakes: Any) -> None:
    served = talk(routing={"scope": "all"})
    assert served.chat().header(ID) is None
    assert turn(served, "Hi", headers={"X-AI-Multi-Provider": "disabled"}).header(ID) is None
    body = {"model": "m-a", "prompt": "x"}
    got = served.post("/v1/completions", body, BEST)
    assert (got.status, got.header(ID)) == (200, None)
    refused = served.post("/v1/completions", body, {PARENT: "conv-x"})
    assert (refused.status, refused.error["code"]) == (400, "invalid_header_combination")


# --- history -------------------------------------------------------------------------------------


@req("XAI-FAIL-001", "XAI-FAIL-002", "XAI-FAIL-004", "XAI-FIG-013")
@pytest.mark.parametrize("stream", [False, True])
def test_fig_13_the_second_provider_gets_the_whole_conversation(
    talk: Any, fakes: Any, stream: bool
) -> None:
    served = talk({"timeouts": {"first_byte": "200ms"}})
    fakes.a.script = Script(text="one two")
    first = turn(served, "First.", stream=stream)
    name = first.header(ID)
    fakes.a.script = Script(delay_s=1.0)
    fakes.b.script = Script(text="from b")
    second = turn(served, "Second.", name, stream=stream)
    assert (second.status, second.provider, second.header(ID)) == (200, "b", name)
    assert second.header("x-ai-failover-occurred") == "true"
    assert second.selection["failover_reason"] == "timeout"
    assert second.selection["failover_time_ms"] >= 200
    assert second.selection["context_preserved"] is True
    assert second.selection["conversation_continuity"] == "maintained"
    one = "one two " if stream else "one two"
    two = "from b " if stream else "from b"
    assert sent(fakes.b) == say("First.", one, "Second.")
    turn(served, "Third.", name, headers={"X-AI-Provider-Pool": "b"}, stream=stream)
    assert sent(fakes.b) == say("First.", one, "Second.", two, "Third.")
    record = served.record(second)["workflow"]
    assert (record["kept"], record["history_answers"]) == ("kept", 1)


@req("XAI-FAIL-003", "XAI-FIG-014")
@pytest.mark.parametrize("kept", [{}, KEPT])
def test_fig_14_the_clients_own_history_goes_to_the_second_provider(
    mount: Any, fakes: Any, kept: Any
) -> None:
    """Its second turn alters the first one's text: what it says counts, with a store or without."""
    rows = {
        "provider-a": {"upstream": "a", "models": [model("code-assistant-model", quality=0.9)]},
        "provider-b": {"upstream": "b", "models": [model("advanced-coder-model", quality=0.8)]},
    }
    rows["provider-a"]["timeouts"] = {"first_byte": "150ms"}
    strategy = {"strategy": "quality"}
    served = mount(fakes.config(rows, conversations=kept, routing=strategy))
    one, two = vector("figures/fig-14")["exchanges"]
    skipped = ("Host", "Authorization")

    def replay(exchange: Any) -> Got:
        request = exchange["request"]
        headers = {k: v for k, v in request["headers"].items() if k not in skipped}
        got: Got = served.post(request["path"], request["body"], headers)
        return got

    first = replay(one)
    assert (first.status, first.provider) == (200, "provider-a")
    assert first.header(ID)
    fakes.a.script = Script(delay_s=1.0)
    second = replay(two)
    assert (second.status, second.provider) == (200, "provider-b")
    assert second.header("x-ai-failover-occurred") == "true"
    assert second.selection["failover_reason"] == "timeout"
    assert second.selection["failover_time_ms"] >= 150
    assert second.selection["context_preserved"] is True
    assert sent(fakes.b) == two["request"]["body"]["messages"]


BODIES = {
    "/v1/chat/completions": lambda text: {"model": "auto", "messages": say(text)},
    "/v1/responses": lambda text: {"model": "auto", "input": text},
    "/v1/responses#draft": lambda text: {"model": "auto", "messages": say(text)},
    "/v1/messages": lambda text: {"model": "auto", "max_tokens": 99, "messages": say(text)},
    "/v1beta/models/auto:generateContent": lambda text: {
        "contents": [{"role": "user", "parts": [{"text": text}]}]
    },
}


@req("XAI-FAIL-004")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", list(BODIES))
def test_every_api_has_conversations(talk: Any, fakes: Any, path: str, stream: bool) -> None:
    """And one may go on in another: the chat request at the end has all turns."""
    served = talk()
    fakes.a.script = Script(text="word", chunks=["wo", "rd"])
    name = None
    where = path.partition("#")[0]
    for text in ("One.", "Two."):
        body = BODIES[path](text)
        if "generateContent" in path and stream:
            where = path.replace("generateContent", "streamGenerateContent")
        elif stream:
            body["stream"] = True
        got = served.post(where, body, {**BEST, **({ID: name} if name else {})})
        assert got.status == 200, got.body
        name = name or got.header(ID)
        assert got.header(ID) == name
        assert served.record(got)["workflow"]["kept"] == "kept"
    turn(served, "Three.", name)
    found = [(m["role"], _text(m["content"])) for m in sent(fakes.a)]
    spoken = say("One.", "word", "Two.", "word", "Three.")
    assert found == [(m["role"], m["content"]) for m in spoken]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


@req("XAI-FAIL-004")
def test_the_result_of_a_call_is_a_turn_of_its_own(talk: Any, fakes: Any) -> None:
    served = talk()
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    fakes.a.queue = [Script(message={"role": "assistant", "content": None, "tool_calls": [call]})]
    name = turn(served, "Compute.").header(ID)
    result = {"role": "tool", "tool_call_id": "call_1", "content": "42"}
    got = served.chat({**BEST, ID: name}, messages=[result])
    assert got.status == 200
    messages = fakes.a.seen[-1].body["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "tool"]
    assert messages[1]["tool_calls"] == [call]


def test_what_a_provider_keeps_itself_is_left_to_it(mount: Any, fakes: Any) -> None:
    """``previous_response_id`` goes through as it is; nothing of ours is put before it."""
    rows = {"a": {"type": "openai", "credentials": {"api_key": "sk-x"}, "models": [model("m-a")]}}
    served = mount(fakes.config(rows, conversations=KEPT))
    first = served.post(RESPONSES, {"model": "m-a", "input": "One."}, BEST)
    name = first.header(ID)
    body = {"model": "m-a", "input": "Two.", "previous_response_id": "resp_a"}
    got = served.post(RESPONSES, body, {**BEST, ID: name})
    assert got.status == 200
    assert fakes.a.seen[-1].body["input"] == "Two."
    assert fakes.a.seen[-1].body["previous_response_id"] == "resp_a"


@req("XAI-FAIL-004", "XAI-FAIL-025")
def test_an_unknown_id_is_refused_where_history_is_needed(talk: Any, fakes: Any) -> None:
    served = talk()
    for name in ("conv-debug-001", "conv-" + "0" * 32):
        got = turn(served, "And?", name)
        assert (got.status, got.error["code"], got.error["param"]) == (
            404, "conversation_not_found", ID,
        )  # fmt: skip
    assert fakes.called() == {}
    told = served.chat({**BEST, ID: "conv-debug-001"}, messages=say("Hi", "ok", "And?"))
    assert (told.status, told.header(ID)) == (200, "conv-debug-001")
    assert turn(served, "And?", "conv-debug-001").status == 404  # not ours to keep
    ours = "conv-" + "0" * 32
    assert served.chat({**BEST, ID: ours}, messages=say("Hi", "ok", "And?")).status == 200
    assert turn(served, "More.", ours).status == 200
    assert sent(fakes.a) == say("Hi", "ok", "And?", "served by a", "More.")


@req("XAI-WF-003")
def test_conversations_belong_to_their_key(talk: Any, fakes: Any) -> None:
    keys = [{"key": f"sk-key-of-caller-{n}", "name": f"c{n}"} for n in (1, 2)]
    security = {"auth": {"enabled": True, "type": "api_key", "api_keys": keys}}
    served = talk(security=security)
    one, two = ({"Authorization": f"Bearer {row['key']}"} for row in keys)
    name = turn(served, "Secret.", headers=one).header(ID)
    asked = dict(fakes.called())
    foreign = turn(served, "And?", name, headers=two)
    unknown = turn(served, "And?", "conv-" + "0" * 32, headers=two)
    assert foreign.status == unknown.status == 404
    assert foreign.error == unknown.error
    assert fakes.called() == asked
    assert turn(served, "And?", name, headers=one).status == 200


@pytest.fixture
def stored(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    """``stored(kind)`` gives the sections of a configuration that keeps conversations there."""

    def sections(kind: str) -> dict[str, Any]:
        if kind == "memory":
            return {"conversations": KEPT}
        if kind == "valkey":
            port = request.getfixturevalue("redis_port")
            state = {"url": f"redis://127.0.0.1:{port}/0", "prefix": f"{tmp_path}:"[-60:]}
            return {"conversations": {**KEPT, "store": "valkey"}, "state": state}
        url = f"sqlite:///{tmp_path}/kept.db"
        if kind == "postgresql":
            url = request.getfixturevalue("postgres_url")
        return {"conversations": {**KEPT, "store": "sql", "url": url}}

    return sections


@req("XAI-FAIL-026")
@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql", "valkey"])
def test_ten_turns_at_once_are_kept_whole(talk: Any, fakes: Any, stored: Any, kind: str) -> None:
    served = talk(**stored(kind))
    name = turn(served, "Base.").header(ID)
    fakes.a.script = Script(delay_s=0.05)
    got: list[Got] = []
    threads = [
        threading.Thread(target=lambda n=n: got.append(turn(served, f"asked {n}", name)))
        for n in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [one.status for one in got] == [200] * 10
    steps = {one.header("x-ai-workflow-step") for one in got}
    assert steps == {f"step-{n}" for n in range(2, 12)}
    turn(served, "Last.", name)
    messages = sent(fakes.a)
    asked = [m["content"] for m in messages if m["role"] == "user"]
    assert asked[0] == "Base."
    assert sorted(asked[1:-1]) == sorted(f"asked {n}" for n in range(10))
    assert [m["role"] for m in messages] == ["user", "assistant"] * 11 + ["user"]


# --- turns that are not whole --------------------------------------------------------------------


def test_a_turn_that_fails_or_breaks_off_is_not_kept(talk: Any, fakes: Any) -> None:
    served = talk()
    name = turn(served, "First.").header(ID)
    fakes.a.script = fakes.b.script = Script(status=400)
    assert turn(served, "Bad.", name).status == 400
    fakes.a.script = Script(chunks=["a", "b", "c"], cut_after=2)
    broken = turn(served, "Cut.", name, stream=True)
    assert b"[DONE]" not in broken.body
    assert served.record(broken)["workflow"]["kept"] == "dropped"
    fakes.a.script = Script(error_after=1, chunks=["x", "y"])
    turn(served, "Error.", name, stream=True, headers={"X-AI-Failover-Policy": "none"})
    fakes.a.script = fakes.b.script = Script()
    last = turn(served, "Last.", name)
    assert sent(fakes[last.provider]) == say("First.", "served by a", "Last.")


def test_a_first_turn_that_fails_begins_no_conversation(talk: Any, fakes: Any) -> None:
    served = talk()
    fakes.a.script = fakes.b.script = Script(status=503)
    got = turn(served, "First.")
    assert got.status == 502
    assert got.header(ID) is None


@pytest.mark.parametrize("server", ["asgi"], indirect=True)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_turn_whose_client_left_is_not_kept(
    talk: Any, fakes: Any, stored: Any, kind: str
) -> None:
    """And it is not under way for ever: the store hears of it."""
    import socket

    served = talk(**stored(kind))
    name = turn(served, "First.").header(ID)
    fakes.a.script = Script(chunks=["a"] * 50, gap_s=0.05)
    body = {"model": "auto", "stream": True, "messages": say("Left.")}
    payload = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-AI-Routing-Strategy: quality\r\n{ID}: {name}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as plug:
        plug.sendall(head.encode() + payload)
        assert b"200" in plug.recv(65536)
    until(lambda: fakes.a.seen[-1].aborted)
    ledger = served.gateway.conversations.ledger
    until(lambda: b'"running":{}' in ledger.store.get([("", name)])[0].head)
    fakes.a.script = Script()
    turn(served, "Last.", name)
    assert sent(fakes.a) == say("First.", "served by a", "Last.")


# --- bounds and safety ---------------------------------------------------------------------------


@req("XAI-FAIL-013", "XAI-WF-016")
def test_a_history_that_was_trimmed_says_so(talk: Any, fakes: Any) -> None:
    """A constant true would be a lie: older turns were let go of."""
    served = talk(conversations={**KEPT, "max_size": "400B"})
    first = turn(served, "First.")
    name = first.header(ID)
    for number in range(5):
        turn(served, f"Number {number}.", name)
    got = turn(served, "Last.", name)
    messages = sent(fakes.a)
    assert messages[0]["role"] == "user"
    assert "First." not in json.dumps(messages)
    assert messages[-3:-1] == say("Number 4.", "served by a")
    assert got.selection["context_preserved"] is False
    assert got.selection["conversation_continuity"] == "trimmed"
    assert "context_preserved" not in first.selection
    record = served.record(got)["workflow"]
    assert (record["history_trimmed"], record["context_preserved"]) == (True, False)


@req("XAI-FAIL-013")
def test_a_failover_that_loses_something_of_the_history_says_so(talk: Any, fakes: Any) -> None:
    """Chat Completions cannot say that a tool failed."""
    served = talk()
    fakes.a.script = Script(status=503)
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "42", "is_error": True}
    messages = [
        {"role": "user", "content": "Compute."},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    body = {"model": "auto", "max_tokens": 9, "messages": messages, "tools": tools}
    got = served.post("/v1/messages", body, BEST)
    assert got.provider == "b"
    assert got.selection["context_preserved"] is False
    del result["is_error"]
    assert talk().post("/v1/messages", body, BEST).selection["context_preserved"] is True


@req("XAI-WF-016")
def test_a_turn_too_large_to_keep_leaves_nothing_half_known(talk: Any, fakes: Any) -> None:
    served = talk(conversations={**KEPT, "max_size": "400B"})
    got = turn(served, "x" * 500)
    assert got.status == 200
    assert got.selection["conversation_continuity"] == "lost"
    assert turn(served, "And?", got.header(ID)).status == 404


@req("XAI-WF-015")
@pytest.mark.parametrize("told", [False, True])
def test_what_a_conversation_was_held_under_binds_later_turns(
    talk: Any, fakes: Any, told: bool
) -> None:
    attested = {"security": {"labels": [{"label": "hipaa"}]}}
    served = talk(None, attested)
    first = turn(served, "Ill.", headers={"X-AI-Security-Requirements": "hipaa"})
    name = first.header(ID)
    assert first.provider == "b"
    messages = say("Ill.", "served by b", "And?") if told else say("And?")
    got = served.chat({**BEST, ID: name}, messages=messages)
    assert got.provider == "b"
    assert got.rejected == {"a": "security_requirement"} or got.rejected["a"]
    off = {"X-AI-Multi-Provider": "disabled", ID: name}
    assert served.chat(off, messages=messages).status in (200, 422)
    branch = {**BEST, PARENT: name, BRANCH: "x"}
    assert served.chat(branch, messages=messages).provider == "b"
    assert set(fakes.called()) == {"b"}


def test_a_data_class_binds_later_turns(talk: Any, fakes: Any) -> None:
    security = {"classes": {"health": {"labels": ["hipaa"]}}}
    served = talk(None, {"security": {"labels": [{"label": "hipaa"}]}}, security=security)
    first = turn(served, "Ill.", headers={"X-AI-Data-Classification": "health"})
    got = turn(served, "And?", first.header(ID))
    assert (first.provider, got.provider) == ("b", "b")
    assert set(fakes.called()) == {"b"}


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_explaining_reads_the_history_and_changes_nothing(
    talk: Any, fakes: Any, stored: Any, kind: str
) -> None:
    served = talk(**stored(kind))
    name = turn(served, "First.").header(ID)
    turn(served, "Branch.", headers={PARENT: name, BRANCH: "known"})
    store = served.gateway.conversations.ledger.store
    before = store.get([("", name)])
    assert before[0] is not None
    asked = dict(fakes.called())
    for headers, answers in (
        ({ID: name}, 1),
        ({PARENT: name, BRANCH: "b"}, 1),
        ({PARENT: name, BRANCH: "known"}, 2),
        ({PARENT: name, "X-AI-Merge-Branches": "known"}, 0),
        ({}, 0),
    ):
        lowered = tuple((k.lower(), str(v)) for k, v in {**BEST, **headers}.items())
        raw = json.dumps({"model": "auto", "messages": HELLO}).encode()
        inbound = Inbound("/v1/chat/completions", "chat", lowered, raw)
        record = Exchange(served.gateway, inbound).explain().record()
        assert record["error"] is None
        assert record["workflow"]["history_answers"] == answers
        assert record["conversation_id"] == headers.get(ID)
    assert store.get([("", name)]) == before
    assert store.named("", "b") == []
    assert fakes.called() == asked


def test_no_text_of_a_conversation_reaches_records_or_logs(
    talk: Any, fakes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    served = talk()
    fakes.a.script = Script(text="answer-secret")
    name = turn(served, "prompt-secret").header(ID)
    got = turn(served, "more-secret", name)
    told = json.dumps(served.record(got)) + caplog.text + str(got.headers)
    assert "-secret" not in told


# --- the store is down ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["valkey", "sql"])
def test_a_store_that_is_down_stops_only_what_needs_it(talk: Any, fakes: Any, kind: str) -> None:
    port = free_port()
    down: dict[str, Any] = {"conversations": {**KEPT, "store": kind}}
    if kind == "valkey":
        down["state"] = {"url": f"redis://127.0.0.1:{port}/0"}
    else:
        down["conversations"]["url"] = f"postgresql://nobody@127.0.0.1:{port}/none"
    served = talk(**down)
    first = turn(served, "First.")
    assert (first.status, first.provider) == (200, "a")
    assert first.selection["conversation_continuity"] == "lost"
    assert served.record(first)["workflow"]["kept"] == "not_kept"
    told = served.chat({**BEST, ID: "conv-" + "0" * 32}, messages=say("Hi", "ok", "And?"))
    assert told.status == 200
    for headers in ({ID: first.header(ID)}, {PARENT: "conv-x"}, {"X-AI-Merge-Branches": "a"}):
        got = turn(served, "And?", headers=headers)
        assert (got.status, got.error["code"]) == (503, "conversation_store_unavailable")
        assert got.header("retry-after") == "2"
        assert got.header("x-should-retry") == "true"
    assert served.chat().status == 200


def test_a_bound_conversation_is_not_let_loose_when_its_store_is_down(
    talk: Any, fakes: Any
) -> None:
    """Nobody can say what the conversation was held under: it fails closed."""
    state = {"url": f"redis://127.0.0.1:{free_port()}/0"}
    attested = {"security": {"labels": [{"label": "hipaa"}]}}
    served = talk(None, attested, state=state, conversations={**KEPT, "store": "valkey"})
    name = "conv-" + "0" * 32
    got = served.chat({**BEST, ID: name}, messages=say("Hi", "ok", "And?"))
    assert (got.status, got.error["code"]) == (503, "conversation_store_unavailable")
    assert fakes.called() == {}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "valkey"])
def test_a_conversation_goes_on_at_another_node(
    mount: Any, fakes: Any, stored: Any, kind: str
) -> None:
    """XAI-WF-018: two gateways, one store."""
    config = fakes.config({"a": [model("m-a")]}, **stored(kind))
    name = turn(mount(config), "First.").header(ID)
    other = mount(config)
    assert turn(other, "Second.", name).status == 200
    assert sent(fakes.a) == say("First.", "served by a", "Second.")
    branch = {PARENT: name, BRANCH: "b"}
    assert turn(other, "Branch.", headers=branch).status == 200
    third = mount(config)
    merged = turn(third, "Sum up.", headers={"X-AI-Merge-Branches": "b", PARENT: name})
    assert merged.selection["branches_merged"] == ["b"]
