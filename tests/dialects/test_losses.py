"""What an answer held and the client's dialect cannot show is told, once for each kind."""

from collections.abc import Callable
from typing import Any

import pytest

from aiproxy.middleware.dialects import (
    Audio,
    AudioDelta,
    CanonicalEvent,
    CanonicalReply,
    Choice,
    Envelope,
    File,
    Finish,
    Image,
    Loss,
    Opaque,
    OpaqueItem,
    Part,
    Reasoning,
    ReasoningDelta,
    Refusal,
    Text,
    TextDelta,
    ToolCall,
    chat,
    draft,
    responses,
)

MODULES: dict[str, Any] = {"chat": chat, "responses": responses, "draft": draft}
Kit = dict[str, Callable[..., Any]]

SEARCH = Opaque("responses", "web_search_call", {"type": "web_search_call", "id": "ws_1"})
VIDEO = Opaque("chat", "video", {"type": "video", "url": "https://e.org"})
SIGNED = ToolCall("c", "f", "{}", extra={"id": "fc_1", "status": "completed", "mark": "m", "x": {}})


def reply(*parts: Part, source: str = "responses", **more: Any) -> CanonicalReply:
    return CanonicalReply((Choice(parts, "stop"),), source, **more)


def losses_of(dialect: str, answer: CanonicalReply, envelope: Envelope) -> list[str]:
    losses: list[Loss] = []
    told = MODULES[dialect].encode_reply(answer, envelope, losses)
    assert told == MODULES[dialect].encode_reply(answer, envelope)
    return [loss.feature for loss in losses]


@pytest.mark.parametrize(
    ("part", "source", "in_chat", "in_responses", "in_draft"),
    [
        (Text("a"), "responses", [], [], []),
        (Text("a"), "chat", [], [], []),
        (SEARCH, "responses", ["item"], [], []),
        (VIDEO, "chat", ["content_part"], ["content_part"], ["content_part"]),
        (Image(url="u"), "chat", ["content_part"], ["content_part"], ["content_part"]),
        (File(file_id="f"), "chat", ["content_part"], ["content_part"], ["content_part"]),
        (Audio(id="a", data="d", transcript="t"), "chat", [], ["audio"], []),
        (Audio(transcript="t"), "chat", [], [], []),
        (Refusal("no", ({"token": "no"},)), "chat", [], ["refusal.logprobs"], []),
        (Reasoning("t", ("s",), id="rs_1"), "responses", [], [], []),
        (Reasoning(encrypted="z"), "responses", [], [], []),
        (Reasoning("t", signature="z"), "anthropic", [], [], []),
        (Text("a", signature="z"), "gemini", [], [], []),
        (ToolCall("c", "f", "{}", signature="z"), "gemini", [], [], []),
        (SIGNED, "responses", ["tool_call.mark"], ["tool_call.mark"], ["tool_call.mark"]),
        (SIGNED, "chat", [], ["tool_call.mark"], []),
    ],
)
def test_each_kind_of_part(
    part: Part,
    source: str,
    in_chat: list[str],
    in_responses: list[str],
    in_draft: list[str],
    envelope: Envelope,
) -> None:
    answer = reply(part, Text("said"), source=source)
    assert losses_of("chat", answer, envelope) == in_chat
    assert losses_of("responses", answer, envelope) == in_responses
    assert losses_of("draft", answer, envelope) == in_draft


def test_what_happens_twice_is_told_once_and_by_name(envelope: Envelope) -> None:
    losses: list[Loss] = []
    chat.encode_reply(reply(SEARCH, SEARCH, Text("a")), envelope, losses)
    assert losses == [Loss("item", "chat has no web_search_call items")]
    chat.encode_reply(reply(SEARCH, Text("b")), envelope, losses)
    assert len(losses) == 1


def test_hosted_items_of_a_response_told_in_chat(envelope: Envelope) -> None:
    body = {
        "status": "completed",
        "output": [
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            {"type": "message", "role": "assistant", "content": [
                {"type": "output_text", "text": "found", "annotations": []}]},
        ],
    }  # fmt: skip
    losses: list[Loss] = []
    told = chat.encode_reply(responses.decode_reply(body), envelope, losses)
    assert told["choices"][0]["message"]["content"] == "found"
    assert [loss.feature for loss in losses] == ["item"]
    assert losses_of("draft", draft.decode_reply(body), envelope) == []


def test_other_choices_and_their_parts(envelope: Envelope) -> None:
    first, second = Choice((Text("a"),), "stop"), Choice((SEARCH,), "stop", 1)
    both = CanonicalReply((second, first), "responses")
    assert losses_of("responses", both, envelope) == ["choices"]
    assert losses_of("chat", both, envelope) == ["item"]
    # The union tells later choices in its chat half only.
    assert losses_of("draft", both, envelope) == ["item"]


def test_members_only_the_upstream_has(envelope: Envelope) -> None:
    extra = {"citations": ["https://e.org"], "x_groq": None, "hints": []}
    choice = Choice((Text("a"),), "stop", extra={"content_filter_results": {"hate": 1}})
    answer = CanonicalReply((choice,), "chat", extra=extra, system_fingerprint="fp")
    assert losses_of("chat", answer, envelope) == []
    assert losses_of("draft", answer, envelope) == ["citations"]
    found = losses_of("responses", answer, envelope)
    assert found == ["choice.content_filter_results", "citations"]


def test_usage_is_emitted_only_when_known(envelope: Envelope) -> None:
    answer = reply(Text("a"))
    assert "usage" not in chat.encode_reply(answer, envelope)
    assert responses.encode_reply(answer, envelope)["usage"] is None
    assert draft.encode_reply(answer, envelope)["usage"] is None


# --- streams -------------------------------------------------------------------------------------

SOUND = AudioDelta(data="AAAA", transcript="t")
#: Nobody says whose it is: it could not be told apart from what a provider must not see.
SEALED = ReasoningDelta("", encrypted="z", signature="y")
OPAQUE = ["reasoning.encrypted_content", "reasoning.signature"]


@pytest.mark.parametrize(
    ("event", "in_chat", "in_responses"),
    [
        (TextDelta("b"), [], []),
        (TextDelta("b", 1), [], ["choices"]),
        (OpaqueItem("responses", "web_search_call", {}), ["item"], ["item"]),
        (OpaqueItem("chat", "video", {}), ["content_part"], ["item"]),
        (SOUND, [], ["audio"]),
        (AudioDelta(transcript="t"), [], []),
        (SEALED, OPAQUE, OPAQUE),
        (ReasoningDelta("", encrypted="z", signature="y", origin="anthropic"), [], []),
        (TextDelta("b", signature="y"), OPAQUE[1:], OPAQUE[1:]),
        (TextDelta("b", signature="y", origin="gemini"), [], []),
        (ReasoningDelta("b"), [], []),
    ],
)
def test_each_kind_of_event(
    event: CanonicalEvent, in_chat: list[str], in_responses: list[str], envelope: Envelope
) -> None:
    for dialect, expected in (("chat", in_chat), ("responses", in_responses), ("draft", in_responses)):  # fmt: skip
        encoder = MODULES[dialect].StreamEncoder(envelope)
        assert encoder.losses == []
        for given in (TextDelta("a"), event, event, Finish("stop")):
            encoder.encode(given)
        assert encoder.finish()
        assert [loss.feature for loss in encoder.losses] == expected


def test_an_opaque_item_writes_nothing(envelope: Envelope) -> None:
    for module in MODULES.values():
        encoder = module.StreamEncoder(envelope)
        assert encoder.encode(OpaqueItem("responses", "web_search_call", {})) == b""


SEARCHED = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
DRAWN = {"type": "output_image", "image_url": "u"}
SAID = {"type": "message", "id": "m_1", "role": "assistant", "status": "completed",
        "content": [DRAWN, {"type": "output_text", "text": "a", "annotations": []}]}  # fmt: skip
ENDED = {"type": "response.completed",
         "response": {"status": "completed", "output": [SEARCHED, SAID]}}  # fmt: skip
STEPS: list[dict[str, Any]] = [
    {"type": "response.output_item.added", "output_index": 0, "item": SEARCHED},
    {"type": "response.output_item.done", "output_index": 0, "item": SEARCHED},
    {"type": "response.output_item.added", "output_index": 1, "item": {**SAID, "content": []}},
    {"type": "response.content_part.done", "output_index": 1, "content_index": 0, "part": DRAWN},
    {"type": "response.output_item.done", "output_index": 1, "item": SAID},
]


@pytest.mark.parametrize("steps", [[], STEPS[:1], STEPS[1:2], STEPS[:4], STEPS])
def test_a_stream_tells_of_what_no_event_can_hold(steps: list[dict[str, Any]], kit: Kit) -> None:
    events = kit["decode"]("responses", [*steps, ENDED])
    opaque = [event for event in events if isinstance(event, OpaqueItem)]
    assert sorted((event.kind, event.value["type"]) for event in opaque) == [
        ("output_image", "output_image"),
        ("web_search_call", "web_search_call"),
    ]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "a"
