"""What an answer and a stream event must hold, and what a broken one looks like."""

import copy
from typing import Any, Final

import pytest

from aiproxy.spec import checker, schema

GONE: Final = object()  # stands for a member that is taken away


def changed(name: str, place: int, *edits: tuple[str, Any]) -> Any:
    """Return example ``place`` of ``name`` with ``a.0.b`` paths set, or removed for ``GONE``."""
    document = copy.deepcopy(schema(name)["examples"][place])
    for path, value in edits:
        *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        holder = document
        for step in way:
            holder = holder[step]
        if value is GONE:
            del holder[last]
        else:
            holder[last] = value
    return document


def event(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, "sequence_number": 3, **members}


AT = {"item_id": "msg_1", "output_index": 0}
TEXT_AT = {**AT, "content_index": 0}
FINISH = "choices.0.finish_reason"
MESSAGE = "choices.0.message"
FAILED = 2  # places of examples
CUT = 3
# Open Responses wants these to have a value even when nothing was asked for.
NEVER_NULL = (
    "temperature", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs", "background",
    "store", "service_tier", "truncation", "tools", "tool_choice", "text", "status", "output",
)  # fmt: skip

ACCEPTED = [
    ("responses/chat", changed("responses/chat", 0, ("vendor", {"a": 1}))),
    ("responses/chat", changed("responses/chat", 0, ("usage", GONE))),
    ("responses/response", changed("responses/response", 0, ("vendor", 1))),
    ("responses/response", changed("responses/response", 0, ("output", [{"type": "vendor:x"}]))),
    (
        "responses/response",
        changed(
            "responses/response", 0, ("output", [{"type": "vendor:x", "name": {}, "content": 1}])
        ),
    ),
    ("responses/models", {"object": "list", "data": []}),
    ("events/response-event", event("aiproxy:route")),
    ("events/response-event", event("vendor_x:thing.done", anything=[1])),
    ("events/response-event", event("error", message="m")),
    ("events/response-event", event("error", error={"message": "m"})),
    ("upstream/chat", {"choices": [{"message": {"content": 5}}]}),
    ("upstream/response", {"output": [{"type": "x"}]}),
    ("upstream/embeddings", {"data": [{"embedding": [1]}]}),
]

REFUSED = [
    # What a provider may not get away with (XAI-FAIL-010).
    ("upstream/chat", {}, "choices", "required"),
    ("upstream/chat", {"error": {"message": "m"}}, "choices", "required"),
    ("upstream/chat", {"choices": []}, "choices", "minItems"),
    ("upstream/chat", {"choices": None}, "choices", "type"),
    ("upstream/chat", {"choices": [{}]}, "choices[0].message", "required"),
    ("upstream/chat", {"choices": [{"message": "x"}]}, "choices[0].message", "type"),
    ("upstream/chat", "<html>", "", "type"),
    ("upstream/response", {"choices": []}, "output", "required"),
    ("upstream/response", {"output": [{}]}, "output[0].type", "required"),
    ("upstream/completion", {"choices": [{"message": {}}]}, "choices[0].text", "required"),
    ("upstream/embeddings", {"data": []}, "data", "minItems"),
    ("upstream/embeddings", {"data": [{"embedding": []}]}, "data[0].embedding", "minItems"),
    # Chat: XAI-COMPAT-013, -016, -017, -019, AIP-API-001, -003, -004.
    ("responses/chat", changed("responses/chat", 0, ("object", "response")), "object", "const"),
    ("responses/chat", changed("responses/chat", 0, ("id", GONE)), "id", "required"),
    (
        "responses/chat",
        changed("responses/chat", 0, ("created", 1699123456000)),
        "created",
        "maximum",
    ),
    ("responses/chat", changed("responses/chat", 0, ("created", 1.5)), "created", "type"),
    ("responses/chat", changed("responses/chat", 0, ("choices", [])), "choices", "minItems"),
    (
        "responses/chat",
        changed("responses/chat", 0, (FINISH, "end_turn")),
        "choices[0].finish_reason",
        "enum",
    ),
    (
        "responses/chat",
        changed("responses/chat", 0, (FINISH, None)),
        "choices[0].finish_reason",
        "type",
    ),
    (
        "responses/chat",
        changed("responses/chat", 0, (f"{MESSAGE}.role", "user")),
        "choices[0].message.role",
        "const",
    ),
    (
        "responses/chat",
        changed("responses/chat", 0, ("usage.total_tokens", -1)),
        "usage.total_tokens",
        "minimum",
    ),
    (
        "responses/chat",
        changed("responses/chat", 0, ("usage.prompt_tokens", "9")),
        "usage.prompt_tokens",
        "type",
    ),
    (
        "responses/chat",
        changed("responses/chat", 1, ("x-aiproxy.cost", "0")),
        "x-aiproxy.cost",
        "type",
    ),
    (
        "responses/chat-emitted",
        changed("responses/chat", 0, (f"{MESSAGE}.refusal", GONE)),
        "choices[0].message.refusal",
        "required",
    ),
    (
        "responses/chat-emitted",
        changed("responses/chat", 0, ("choices.0.logprobs", GONE)),
        "choices[0].logprobs",
        "required",
    ),
    # Responses: XAI-COMPAT-013, -014.
    *(
        ("responses/response", changed("responses/response", 0, (key, GONE)), key, "required")
        for key in schema("responses/response")["$defs"]["body"]["required"]
    ),
    *(
        ("responses/response", changed("responses/response", 0, (key, None)), key, "type")
        for key in NEVER_NULL
    ),
    ("responses/response", changed("responses/response", 0, ("choices", [])), "choices", "not"),
    ("responses/response", changed("responses/response", FAILED, ("error", None)), "error", "type"),
    (
        "responses/response",
        changed("responses/response", CUT, ("incomplete_details", None)),
        "incomplete_details",
        "type",
    ),
    (
        "responses/response",
        changed("responses/response", 0, ("output.0.status", GONE)),
        "output[0].status",
        "required",
    ),
    (
        "responses/response",
        changed("responses/response", 0, ("output.0.content.0.annotations", GONE)),
        "output[0].content[0].annotations",
        "required",
    ),
    ("responses/union", schema("responses/response")["examples"][0], "created", "required"),
    ("responses/union", changed("responses/union", 0, ("choices", GONE)), "choices", "required"),
    ("responses/union", changed("responses/union", 0, ("output", GONE)), "output", "required"),
    (
        "responses/union",
        changed("responses/union", 0, (f"{MESSAGE}.finish_reason", "stop")),
        "choices[0].message.finish_reason",
        "not",
    ),
    (
        "responses/union",
        changed("responses/union", 0, ("usage.prompt_tokens", GONE)),
        "usage.prompt_tokens",
        "required",
    ),
    # Models, predict, mesh: AIP-API-010 to -012, -019, -020, -025 to -027.
    ("responses/model", changed("responses/model", 0, ("owned_by", GONE)), "owned_by", "required"),
    (
        "responses/model",
        changed("responses/model", 0, ("providers.0.available", "yes")),
        "providers[0].available",
        "type",
    ),
    (
        "responses/models",
        {"object": "list", "data": [{"id": "m"}]},
        "data[0].object",
        "required",
    ),
    (
        "responses/predict",
        changed("responses/predict", 0, ("request_id", "abc")),
        "request_id",
        "pattern",
    ),
    (
        "responses/predict",
        changed("responses/predict", 0, ("metadata.routing", GONE)),
        "metadata.routing",
        "required",
    ),
    (
        "responses/predict",
        changed("responses/predict", 0, ("metadata.cost.currency", "EUR")),
        "metadata.cost.currency",
        "const",
    ),
    (
        "responses/mesh-status",
        changed("responses/mesh-status", 0, ("peers.0.load", 1.5)),
        "peers[0].load",
        "maximum",
    ),
    (
        "responses/mesh-status",
        changed("responses/mesh-status", 0, ("providers.local.status", "ok")),
        "providers.local.status",
        "enum",
    ),
    (
        "responses/mesh-status",
        changed("responses/mesh-status", 0, ("peers", GONE)),
        "peers",
        "required",
    ),
    (
        "responses/not-available",
        changed("responses/not-available", 0, ("error.code", "not_found")),
        "error.code",
        "const",
    ),
    # Events.
    (
        "events/chat-chunk",
        changed("events/chat-chunk", 0, ("object", "chat.completion")),
        "object",
        "const",
    ),
    (
        "events/chat-chunk",
        changed("events/chat-chunk", 0, (FINISH, "end_turn")),
        "choices[0].finish_reason",
        "enum",
    ),
    ("events/response-event", {"type": "response.created"}, "sequence_number", "required"),
    ("events/response-event", event("ping"), "type", "enum"),
    ("events/response-event", event("response.chunk"), "type", "enum"),
    ("events/response-event", event("response.created"), "response", "required"),
    ("events/response-event", event("error"), "message", "required"),
    (
        "events/response-event",
        event("response.output_text.delta", **TEXT_AT, delta="x"),
        "logprobs",
        "required",
    ),
    (
        "events/response-event",
        event("response.output_text.delta", **TEXT_AT, delta={}, logprobs=[]),
        "delta",
        "type",
    ),
    ("events/response-event", event("response.refusal.done", **TEXT_AT), "refusal", "required"),
    (
        "events/response-event",
        event("response.output_item.added", output_index=0),
        "item",
        "required",
    ),
    ("events/response-event", event("response.content_part.done", **TEXT_AT), "part", "required"),
    (
        "events/response-event",
        event("response.function_call_arguments.done", **AT),
        "arguments",
        "required",
    ),
    (
        "events/response-event",
        event("response.completed", response=schema("responses/response")["examples"][FAILED]),
        "response.status",
        "const",
    ),
    ("events/union-frame", schema("events/response-event")["examples"][4], "id", "required"),
    (
        "events/union-frame",
        changed("events/union-frame", 2, (FINISH, None)),
        "choices[0].finish_reason",
        "type",
    ),
    (
        "events/union-frame",
        changed("events/union-frame", 4, (FINISH, "stop")),
        "choices[0].finish_reason",
        "type",
    ),
    (
        "events/union-frame",
        changed("events/union-frame", 4, (FINISH, "vendor")),
        "choices[0].finish_reason",
        "enum",
    ),
    (
        "events/union-frame",
        changed("events/union-frame", 1, ("choices", [])),
        "choices",
        "minItems",
    ),
    (
        "events/union-frame",
        changed("events/union-frame", 1, ("object", "response")),
        "object",
        "const",
    ),
    ("events/union-frame", changed("events/union-frame", 1, ("type", GONE)), "type", "required"),
]


@pytest.mark.parametrize(("name", "body"), ACCEPTED)
def test_a_sound_document_is_accepted(name: str, body: object) -> None:
    assert checker(name).first_fault(body) is None


@pytest.mark.parametrize(("name", "body", "where", "keyword"), REFUSED)
def test_a_broken_document_is_refused_at_the_right_place(
    name: str, body: object, where: str, keyword: str
) -> None:
    fault = checker(name).first_fault(body)
    assert fault is not None
    assert (fault.path, fault.keyword) == (where, keyword)


KNOWN_EVENT = schema("events/response-event")["$defs"]["known"]["properties"]


@pytest.mark.parametrize("key", [key for key in KNOWN_EVENT if key not in ("type", "code")])
def test_a_member_of_the_wrong_kind_is_refused_in_a_known_event_only(key: str) -> None:
    refusal = event("response.refusal.delta", **TEXT_AT, delta="No")
    check = checker("events/response-event")
    assert check.ok(refusal)
    assert not check.ok({**refusal, key: 1.5})
    assert check.ok({**refusal, key: 1.5, "type": "vendor:refusal"})
