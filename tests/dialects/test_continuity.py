"""Opaque data reaches the client, comes back, and is only ever sent to those who made it."""

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxy.middleware.dialects import (
    CanonicalReply,
    CanonicalRequest,
    Choice,
    Envelope,
    Finish,
    Part,
    Reasoning,
    ReasoningDelta,
    Text,
    TextDelta,
    ToolCall,
    ToolCallStart,
    Turn,
    chat,
    draft,
    responses,
)
from aiproxy.middleware.dialects.continuity import (
    foreign_losses,
    foreign_opaque,
    may_hold_foreign,
    unsealed,
)
from aiproxy.middleware.dialects.seals import (
    Seal,
    seal_call,
    seal_text,
    seal_thought,
    unseal,
)

Kit = dict[str, Callable[..., Any]]
MODULES: dict[str, Any] = {"chat": chat, "responses": responses, "draft": draft}
SIGNED = Reasoning("Since...", signature="c2ln")
SEALED = Reasoning(summary=("In short.",), encrypted="c2VhbA", id="rs_9")
CALL = ToolCall("call_1", "weather", '{"city":"Bern"}')
SIGNED_CALL = ToolCall("call_1", "weather", '{"city":"Bern"}', signature="Z29vZ2xl")
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}


def reply(source: str, *parts: Part) -> CanonicalReply:
    return CanonicalReply((Choice(parts, "stop"),), source)


def back(dialect: str, body: dict[str, Any]) -> CanonicalRequest:
    """What is read of the next turn of a client that sends the answer back as it got it."""
    if dialect == "responses":
        answered = {"model": "m", "input": [{"role": "user", "content": "?"}, *body["output"]]}
    else:
        message = body["choices"][0]["message"]
        answered = {"model": "m", "messages": [{"role": "user", "content": "?"}, message]}
    request: CanonicalRequest = MODULES[dialect].decode_request(
        orjson.loads(orjson.dumps(answered))
    )
    return request


def parts_of(request: CanonicalRequest, kind: type[Any]) -> list[Any]:
    return [p for turn in request.turns for p in turn.parts if isinstance(p, kind)]


# --- seals ---------------------------------------------------------------------------------------

opaque = st.none() | st.text(min_size=1)


@given(text=st.text(), signature=opaque, encrypted=opaque)
def test_a_seal_holds_what_was_put_in(text: str, signature: str, encrypted: str) -> None:
    seal = unseal(seal_thought("anthropic", text, signature, encrypted))
    assert seal is not None
    assert (seal.origin, seal.signature, seal.encrypted) == ("anthropic", signature, encrypted)
    assert (seal.call, seal.said) == (None, False)
    assert seal.fits(text)
    assert signature is None or not seal.fits(text + ".")


@given(identity=st.text(), signature=st.text(min_size=1))
def test_the_seals_of_calls_and_texts(identity: str, signature: str) -> None:
    call = unseal(seal_call("gemini", identity, signature))
    assert call == Seal("gemini", signature, call=identity)
    assert unseal(seal_text("gemini", signature)) == Seal("gemini", signature, said=True)


@given(st.text() | st.text().map("aiproxy.".__add__) | st.text().map("aiproxy.gemini.".__add__))
def test_a_broken_seal_is_no_error(value: str) -> None:
    seal = unseal(value)
    assert (seal is None) is not value.startswith("aiproxy.")
    if seal is not None:
        assert len(seal.origin) < 12, "words of a client's are not repeated"


@pytest.mark.parametrize("value", [None, 5, [], {}, b"aiproxy.gemini"])
def test_other_values_are_no_seals(value: object) -> None:
    assert unseal(value) is None


# --- to the client and back ----------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["chat", "responses", "draft"])
@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("anthropic", SIGNED),
        ("anthropic", Reasoning(encrypted="cmVkYWN0ZWQ")),
        ("responses", SEALED),
        ("gemini", Reasoning("Since...", signature="c2ln")),
    ],
)
def test_reasoning_comes_back(
    dialect: str, source: str, part: Reasoning, envelope: Envelope
) -> None:
    body = MODULES[dialect].encode_reply(reply(source, part, Text("So.")), envelope)
    request = back(dialect, body)
    (told,) = parts_of(request, Reasoning)
    assert (told.signature, told.encrypted) == (part.signature, part.encrypted)
    assert (told.origin or request.source) == source
    assert (told.text, told.summary) == (part.text, part.summary)
    # It is told apart from the same words of somebody else, and sent to nobody else.
    for target in ("chat", "responses"):
        encoded, losses = MODULES[target].encode_request(request, "m")
        wire = json.dumps(encoded)
        assert "aiproxy." not in wire
        if target == source:
            assert str(part.encrypted) in wire
            assert losses == []
        else:
            detail = f"opaque reasoning of {source} does not travel to {target}"
            assert [(loss.feature, loss.detail) for loss in losses] == [("reasoning", detail)]
            for word in ("c2ln", "c2VhbA", "cmVkYWN0ZWQ", "Since", "In short", "reasoning"):
                assert word not in wire


@pytest.mark.parametrize("dialect", ["chat", "responses", "draft"])
def test_the_signatures_of_calls_and_texts_come_back(dialect: str, envelope: Envelope) -> None:
    other = ToolCall("call_2", "weather", "{}")
    said = Text("See.", signature="dGV4dA")
    answer = reply("gemini", Reasoning("Hm."), said, SIGNED_CALL, other)
    body = MODULES[dialect].encode_reply(answer, envelope)
    request = back(dialect, body)
    first, second = parts_of(request, ToolCall)
    assert (first.signature, first.origin, first.extra.get("extra_content")) == (
        "Z29vZ2xl",
        "gemini",
        None,
    )
    assert (first.id, first.name, first.arguments) == ("call_1", "weather", '{"city":"Bern"}')
    assert (second.signature, second.origin) == (None, None)
    (text,) = [p for p in parts_of(request, Text) if p.text == "See."]
    assert (text.signature, text.origin) == ("dGV4dA", "gemini")
    (thought,) = parts_of(request, Reasoning)
    assert (thought.text, thought.origin) == ("Hm.", "gemini")
    for target in ("chat", "responses"):
        encoded, losses = MODULES[target].encode_request(request, "m")
        wire = json.dumps(encoded)
        assert not any(word in wire for word in ("aiproxy.", "Z29vZ2xl", "dGV4dA", "Hm."))
        assert losses
        assert {loss.feature for loss in losses} == {"reasoning"}
        assert "See." in wire


def test_a_signature_without_its_text_is_dropped(envelope: Envelope) -> None:
    body = responses.encode_reply(reply("anthropic", SIGNED), envelope)
    body["output"][0]["content"][0]["text"] = "Since then..."
    (told,) = parts_of(back("responses", body), Reasoning)
    assert (told.signature, told.origin) == (None, "anthropic")


def test_foreign_thoughts_are_known_even_without_opaque_data(envelope: Envelope) -> None:
    body = responses.encode_reply(reply("cohere", Reasoning("Hm."), Text("So.")), envelope)
    assert body["output"][0]["encrypted_content"] == "aiproxy.cohere"
    (told,) = parts_of(back("responses", body), Reasoning)
    assert told.origin == "cohere"


ROUTER_DETAILS = [
    {"type": "reasoning.summary", "summary": "In short", "format": "openai-responses-v1",
     "index": 0},
    {"type": "reasoning.encrypted", "data": "gAAA", "format": "openai-responses-v1", "id": "rs_1",
     "index": 0},
]  # fmt: skip
ROUTER_SAID = {"role": "assistant", "content": "So.", "reasoning": "In short",
               "reasoning_details": ROUTER_DETAILS}  # fmt: skip
GOOGLE_SAID = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "weather", "arguments": "{}"},
            "extra_content": {"google": {"thought_signature": "Z29vZ2xl"}},
        }
    ],
}


@pytest.mark.parametrize("message", [ROUTER_SAID, GOOGLE_SAID])
def test_what_a_chat_upstream_made_itself_goes_back_to_chat(message: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "?"}, message]}
    assert foreign_opaque("chat", body) is None
    for module in (chat, draft):
        encoded, losses = chat.encode_request(module.decode_request(body), "m")
        assert encoded["messages"][1] == message
        assert losses == []


@pytest.mark.parametrize("message", [ROUTER_SAID, GOOGLE_SAID])
@pytest.mark.parametrize("dialect", ["responses", "draft"])
def test_what_a_chat_upstream_made_itself_survives_other_clients(
    dialect: str, message: dict[str, Any], envelope: Envelope
) -> None:
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    body = MODULES[dialect].encode_reply(chat.decode_reply(whole), envelope)
    request = back(dialect, body)
    encoded, losses = chat.encode_request(request, "m")
    sent = encoded["messages"][1]
    assert sent.get("reasoning_details") == message.get("reasoning_details")
    calls = [call["extra_content"] for call in sent.get("tool_calls", ())]
    assert calls == [call["extra_content"] for call in message.get("tool_calls", ())]
    assert losses == []
    elsewhere, losses = responses.encode_request(request, "m")
    assert "gAAA" not in json.dumps(elsewhere)
    assert [loss.feature for loss in losses] == ["reasoning"]


# --- streams -------------------------------------------------------------------------------------

EVENTS = [
    ReasoningDelta("Sin"),
    ReasoningDelta("ce..."),
    ReasoningDelta("", signature="c2ln", origin="anthropic"),
    ReasoningDelta("", item=1, encrypted="cmVk", origin="anthropic"),
    TextDelta("So."),
    TextDelta("", signature="dGV4dA", origin="gemini"),
    ToolCallStart(0, "call_1", "weather", signature="Z29vZ2xl", origin="gemini"),
    Finish("tool_calls"),
]


@pytest.mark.parametrize("dialect", ["responses", "draft"])
def test_streams_carry_it_in_items(dialect: str, kit: Kit, envelope: Envelope) -> None:
    wire = kit["frames"](kit["encode"](dialect, EVENTS, envelope))
    request = back("responses", wire[-1]["response"])
    assert [(r.text, r.signature, r.encrypted, r.origin) for r in parts_of(request, Reasoning)] == [
        ("Since...", "c2ln", None, "anthropic"),
        ("", None, "cmVk", "anthropic"),
    ]
    (call,) = parts_of(request, ToolCall)
    assert (call.signature, call.origin) == ("Z29vZ2xl", "gemini")
    assert ("So.", "dGV4dA") in [(t.text, t.signature) for t in parts_of(request, Text)]
    # What a stream tells is what its own decoder reads.
    events = kit["decode"](dialect, wire)
    seals = [(e.signature, e.encrypted, e.origin) for e in events
             if isinstance(e, ReasoningDelta) and (e.signature or e.encrypted)]  # fmt: skip
    assert seals == [("c2ln", None, "anthropic"), (None, "cmVk", "anthropic")]
    (start,) = [e for e in events if isinstance(e, ToolCallStart)]
    assert (start.signature, start.origin) == ("Z29vZ2xl", "gemini")
    (text,) = [e for e in events if isinstance(e, TextDelta) and e.signature]
    assert (text.signature, text.origin) == ("dGV4dA", "gemini")


def test_streams_carry_it_in_chunks_that_the_sdk_can_add_up(kit: Kit, envelope: Envelope) -> None:
    from openai.lib.streaming.chat import ChatCompletionStreamState
    from openai.types.chat import ChatCompletionChunk

    wire = kit["frames"](kit["encode"]("chat", EVENTS, envelope))
    state: Any = ChatCompletionStreamState()
    for chunk in wire:
        list(state.handle_chunk(ChatCompletionChunk.model_validate(chunk)))
    message = state.get_final_completion().choices[0].message.model_dump(exclude_none=True)
    assert message["reasoning_content"] == "Since..."
    body = {"model": "m", "messages": [{"role": "user", "content": "?"}, message]}
    request = chat.decode_request(body)
    assert [(r.text, r.signature, r.encrypted, r.origin) for r in parts_of(request, Reasoning)] == [
        ("Since...", "c2ln", None, "anthropic"),
        ("", None, "cmVk", "anthropic"),
    ]
    (call,) = parts_of(request, ToolCall)
    assert (call.signature, call.origin) == ("Z29vZ2xl", "gemini")


def test_details_in_fragments_are_put_together(kit: Kit, envelope: Envelope) -> None:
    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    def detail(**more: Any) -> list[dict[str, Any]]:
        return [{"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1", **more}]

    chunks = [
        chunk({"reasoning": "Sin", "reasoning_details": detail(text="Sin")}),
        chunk({"reasoning": "ce", "reasoning_details": detail(text="ce", signature=None)}),
        chunk({"content": "", "reasoning_details": detail(signature="c2ln")}),
        chunk({"content": "So."}),
        chunk({}, "stop"),
    ]
    for dialect in ("responses", "draft"):
        wire = kit["frames"](kit["encode"](dialect, kit["decode"]("chat", chunks), envelope))
        encoded, _ = chat.encode_request(back("responses", wire[-1]["response"]), "m")
        assert encoded["messages"][1]["reasoning_details"] == detail(text="Since", signature="c2ln")


def test_an_unknown_origin_is_a_loss_and_the_relay_can_tell_it(envelope: Envelope) -> None:
    for module in MODULES.values():
        for source in (None, "anthropic"):
            encoder = module.StreamEncoder(envelope)
            encoder.source = source
            out = encoder.encode(ReasoningDelta("t"))
            out += encoder.encode(ReasoningDelta("", signature="c2ln"))
            encoder.encode(Finish("stop"))
            out += encoder.finish()
            assert (b"c2ln" in out) is (source is not None)
            assert bool(encoder.losses) is (source is None)


# --- bodies that stay in their dialect -----------------------------------------------------------


def chat_turns(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "?"}, *messages, RESULT]}


FOREIGN: dict[str, dict[str, Any]] = {
    "chat": chat_turns(
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Since...",
            "reasoning_details": [
                {"type": "reasoning.text", "text": "Since...", "signature": "c2ln",
                 "format": "anthropic", "index": 0}
            ],
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"},
                 "extra_content": {"google": {"thought_signature": "aiproxy.gemini.c.Z29v"}}}
            ],
        },
    ),
    "responses": {
        "model": "m",
        "input": [
            {"role": "user", "content": "?"},
            {"type": "reasoning", "id": "rs_1", "summary": [],
             "encrypted_content": "aiproxy.anthropic.s00.c2ln"},
            {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gAAA"},
            {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
        ],
    },
    "anthropic": {
        "model": "m",
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "messages": [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "aiproxy.gemini.Z29v"},
                {"type": "thinking", "thinking": "t", "signature": ""},
                {"type": "redacted_thinking", "data": "aiproxy.responses.gAAA"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "b3du"},
                {"type": "text", "text": "So."}]},
        ],
    },
    "gemini": {
        "contents": [
            {"role": "user", "parts": [{"text": "?"}]},
            {"role": "model", "parts": [
                {"thought": True, "text": "t", "thoughtSignature": "YWlwcm94eS5hbnRocm9waWM="},
                {"text": "So.", "thoughtSignature": "YWlwcm94eS5hbnRocm9waWM="},
                {"functionCall": {"name": "f"}, "thoughtSignature": "YWlwcm94eS5hbnRocm9waWM="},
                {"functionCall": {"name": "f"}, "thoughtSignature": "b3du"}]},
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("dialect", FOREIGN)
def test_foreign_data_is_taken_out_of_a_body_that_stays(dialect: str) -> None:
    body = FOREIGN[dialect]
    raw = orjson.dumps(body)
    assert may_hold_foreign(dialect, raw)
    changes = foreign_opaque(dialect, body)
    assert changes is not None
    assert orjson.dumps(body) == raw, "the body itself is left alone"
    sent = json.dumps({**body, **changes})
    for word in ("aiproxy.", "YWlwcm94eS", "c2ln", "Since"):
        assert word not in sent
    assert foreign_opaque(dialect, {**body, **changes}) is None
    losses = foreign_losses(dialect, body)
    assert losses
    assert all(loss.feature == "reasoning" and dialect in loss.detail for loss in losses)


def test_what_is_left_is_what_its_maker_needs() -> None:
    items = (foreign_opaque("responses", FOREIGN["responses"]) or {})["input"]
    assert [item.get("id") for item in items] == [None, "rs_2", "fc_1"]
    changed = foreign_opaque("anthropic", FOREIGN["anthropic"]) or {}
    kinds = [[b["type"] for b in m["content"]] for m in changed["messages"][1:]]
    assert kinds == [["tool_use"], ["tool_result"], ["thinking", "text"]]
    assert "thinking" not in changed, "the last answer has its thoughts"
    parts = (foreign_opaque("gemini", FOREIGN["gemini"]) or {})["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [
        None,
        "skip_thought_signature_validator",
        "b3du",
    ]
    (_, said, _) = (foreign_opaque("chat", FOREIGN["chat"]) or {})["messages"]
    assert said.keys() == {"role", "content", "tool_calls"}
    assert said["tool_calls"][0].keys() == {"id", "type", "function"}


def test_thinking_is_off_when_a_running_tool_turn_lost_its_thoughts() -> None:
    body = {**FOREIGN["anthropic"], "messages": FOREIGN["anthropic"]["messages"][:3]}
    changes = foreign_opaque("anthropic", body) or {}
    assert changes["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize("dialect", FOREIGN)
def test_nothing_opaque_is_left_for_another_try(dialect: str) -> None:
    body = FOREIGN[dialect]
    sent = {**body, **unsealed(dialect, body)}
    wire = json.dumps(sent)
    for word in ("aiproxy.", "YWlwcm94eS", "c2ln", "gAAA", "b3du", "fc_1", "reasoning"):
        assert word not in wire
    assert unsealed(dialect, sent) == {}


@pytest.mark.parametrize("message", [ROUTER_SAID, GOOGLE_SAID])
def test_an_upstreams_own_data_goes_at_another_try(message: dict[str, Any]) -> None:
    (_, said, _) = unsealed("chat", chat_turns(message))["messages"]
    assert not said.keys() & {"reasoning", "reasoning_details"}
    assert all("extra_content" not in call for call in said.get("tool_calls", ()))


def test_bodies_without_any_are_not_touched() -> None:
    plain = chat_turns({"role": "assistant", "content": "So.", "reasoning_content": "own"})
    assert foreign_opaque("chat", plain) is None
    for dialect in ("completions", "embeddings", "cohere"):
        assert foreign_opaque(dialect, plain) is None
        assert unsealed(dialect, plain) == {}


_leaf = st.none() | st.booleans() | st.integers() | st.text() | st.just("aiproxy.gemini.s.x")
_WORDS = (
    *("type", "role", "content", "parts", "thinking", "signature", "data", "thought", "format"),
    *("reasoning_details", "tool_calls", "extra_content", "google", "thought_signature"),
    *("thoughtSignature", "encrypted_content", "functionCall"),
)
_names = st.sampled_from(_WORDS)
_odd = st.recursive(
    _leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4)
)


@settings(max_examples=200, deadline=None)
@given(entries=st.lists(_odd, max_size=3) | _odd, thinking=_odd)
def test_odd_bodies_are_no_error(entries: Any, thinking: Any) -> None:
    for dialect, name in (("chat", "messages"), ("draft", "messages"), ("responses", "input"),
                          ("anthropic", "messages"), ("gemini", "contents")):  # fmt: skip
        body = {name: entries, "thinking": thinking}
        before = json.dumps(body)
        foreign_opaque(dialect, body)
        foreign_losses(dialect, body)
        unsealed(dialect, body)
        assert json.dumps(body) == before


@settings(max_examples=150, deadline=None)
@given(message=st.dictionaries(_names, _odd, max_size=6))
def test_odd_opaque_members_are_no_error(message: dict[str, Any]) -> None:
    said = {**message, "role": "assistant", "content": "x", "tool_calls": [{"id": "c", **message}]}
    body = {"model": "m", "messages": [said]}
    request = chat.decode_request(body)
    chat.encode_request(request, "m")
    responses.encode_request(request, "m")
    whole = {"choices": [{"message": said}]}
    given = Envelope(id="resp_1", created=1, model="m")
    for module in MODULES.values():
        module.encode_reply(chat.decode_reply(whole), given)
    item = {**message, "type": "reasoning"}
    responses.decode_request({"model": "m", "input": [item]})


def test_turns_of_reasoning_alone_leave_no_empty_message() -> None:
    request = responses.decode_request(
        {"model": "m", "input": [{"type": "reasoning", "summary": [], "encrypted_content": "g"}]}
    )
    encoded, losses = chat.encode_request(request, "m")
    assert encoded["messages"] == []
    assert [loss.feature for loss in losses] == ["reasoning"]
    mixed = CanonicalRequest("m", (Turn("assistant", (SIGNED, CALL), form="absent"),), "anthropic")
    encoded, _ = chat.encode_request(mixed, "m")
    assert [m.keys() for m in encoded["messages"]] == [{"role", "tool_calls"}]
