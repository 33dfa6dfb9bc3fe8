"""Requests to Gemini and from clients of its API."""

import copy
from itertools import pairwise
from typing import Any

import pytest
from egress import conversations
from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxy.middleware.dialects import (
    Audio,
    CanonicalRequest,
    File,
    Image,
    Loss,
    MalformedRequest,
    Opaque,
    Reasoning,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
    Untranslatable,
    chat,
    gemini,
)

MODEL = "gemini-3-flash"
DUMMY = "skip_thought_signature_validator"
USER = Turn("user", (Text("hi"),))
FUNCTION = Tool("f", parameters={"type": "object", "properties": {"x": {"type": "integer"}}})


def request(*turns: Turn, source: str = "chat", **more: Any) -> CanonicalRequest:
    return CanonicalRequest("auto", turns or (USER,), source, **more)


def sent(wanted: CanonicalRequest, model: str = MODEL) -> dict[str, Any]:
    return gemini.encode_request(wanted, model)[0]


def lost(wanted: CanonicalRequest, model: str = MODEL) -> list[str]:
    return [loss.feature for loss in gemini.encode_request(wanted, model)[1]]


def config(wanted: CanonicalRequest, model: str = MODEL) -> dict[str, Any]:
    found: dict[str, Any] = sent(wanted, model).get("generationConfig", {})
    return found


# --- out -----------------------------------------------------------------------------------------


def test_the_model_and_the_stream_are_in_the_path() -> None:
    assert gemini.target("gemini-3-pro", False) == "/models/gemini-3-pro:generateContent"
    assert gemini.target("models/a b", True) == "/models/a%20b:streamGenerateContent?alt=sse"
    assert gemini.target("tunedModels/x", False) == "/tunedModels/x:generateContent"
    assert gemini.target("../x?y", False) == "/models/..%2Fx%3Fy:generateContent"


@pytest.mark.parametrize("name", list(conversations()))
def test_every_conversation_can_be_sent(name: str) -> None:
    wanted = chat.decode_request(conversations()[name])
    body, _ = gemini.encode_request(wanted, MODEL)
    roles = [content["role"] for content in body["contents"]]
    assert set(roles) <= {"user", "model"}
    assert all(one != other for one, other in pairwise(roles))
    assert all(content["parts"] for content in body["contents"])
    # And from there, everything but what Gemini's own API has no word for.
    again = gemini.decode_request({**body, "model": "m", "stream": wanted.stream})
    assert gemini.encode_request(again, MODEL) == (body, [])


def test_instructions_come_first_and_neighbours_of_a_role_are_one() -> None:
    wanted = request(
        Turn("system", (Text("A"),)),
        Turn("developer", (Text("B"),)),
        USER,
        Turn("user", (Text("more"),)),
        Turn("assistant", (Text("ok"),)),
        Turn("system", (Text("C"),)),
        USER,
        instructions="0",
    )
    body, losses = gemini.encode_request(wanted, MODEL)
    assert body == {
        "contents": [
            {"role": "user", "parts": [{"text": "hi"}, {"text": "more"}]},
            {"role": "model", "parts": [{"text": "ok"}]},
            {"role": "user", "parts": [{"text": "hi"}]},
        ],
        "systemInstruction": {"parts": [{"text": t} for t in "0ABC"]},
    }
    assert losses == [Loss("system", "later instructions move to the front")]


def test_instructions_alone_are_told_as_the_users() -> None:
    body, losses = gemini.encode_request(request(Turn("system", (Text("A"),))), MODEL)
    assert body == {"contents": [{"role": "user", "parts": [{"text": "A"}]}]}
    assert [loss.feature for loss in losses] == ["system"]


def test_results_of_a_step_come_together_in_the_order_of_its_calls() -> None:
    calls = (ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", ""), ToolCall("c", "f", "{}"))
    wanted = request(
        USER,
        Turn("assistant", (Text("wait"), *calls)),
        Turn("tool", (ToolResult("c", (Text("three"),)),)),
        Turn("tool", (ToolResult("a", (Text('{"n": 1}'),)),)),
        Turn("tool", (ToolResult("b", (Text("bad"),), is_error=True),)),
        Turn("user", (Text("so?"),)),
    )
    body = sent(wanted)
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    assert body["contents"][2]["parts"] == [
        {"functionResponse": {"name": "f", "id": "a", "response": {"n": 1}}},
        {"functionResponse": {"name": "g", "id": "b", "response": {"error": "bad"}}},
        {"functionResponse": {"name": "f", "id": "c", "response": {"result": "three"}}},
        {"text": "so?"},
    ]


@pytest.mark.parametrize(
    ("text", "response"),
    [
        ("dry", {"result": "dry"}),
        ("", {"result": ""}),
        ("[1]", {"result": "[1]"}),
        ("3", {"result": "3"}),
        ('{"a":', {"result": '{"a":'}),
        (' {"a": [1]}', {"a": [1]}),
    ],
)
def test_a_result_that_is_no_object_is_wrapped(text: str, response: dict[str, Any]) -> None:
    wanted = request(
        USER,
        Turn("assistant", (ToolCall("a", "f", "{}"),)),
        Turn("tool", (ToolResult("a", (Text(text),)),)),
    )
    part = sent(wanted)["contents"][-1]["parts"][0]
    assert part["functionResponse"]["response"] == response


def test_a_result_that_answers_nothing_is_refused() -> None:
    with pytest.raises(Untranslatable, match="none of the earlier calls"):
        sent(request(USER, Turn("tool", (ToolResult("x", (Text("a"),)),))))


def test_images_in_a_result_stay_there_where_the_model_takes_them() -> None:
    picture = Image(data="QUJD", media_type="image/png")
    wanted = request(
        USER,
        Turn("assistant", (ToolCall("a", "f", "{}"),)),
        Turn("tool", (ToolResult("a", (Text("see"), picture), plain=False),)),
    )
    inline = {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}
    response = {"name": "f", "id": "a", "response": {"result": "see"}}
    assert sent(wanted)["contents"][-1]["parts"] == [
        {"functionResponse": {**response, "parts": [inline]}}
    ]
    body, losses = gemini.encode_request(wanted, "gemini-2.5-flash")
    assert body["contents"][-1]["parts"] == [{"functionResponse": response}, inline]
    assert [loss.feature for loss in losses] == ["tool_result"]


def test_calls_of_another_model_are_marked_in_the_current_turn_only() -> None:
    def step(*names: str) -> list[Turn]:
        calls = tuple(ToolCall(name, "f", "{}") for name in names)
        results = [Turn("tool", (ToolResult(name, (Text("r"),)),)) for name in names]
        return [Turn("assistant", calls), *results]

    def signatures(wanted: CanonicalRequest, model: str) -> list[str | None]:
        return [
            part.get("thoughtSignature")
            for content in sent(wanted, model)["contents"]
            for part in content["parts"]
            if "functionCall" in part
        ]

    wanted = request(USER, *step("a", "b"), USER, *step("c", "d"), *step("e"))
    assert signatures(wanted, MODEL) == [None, None, DUMMY, None, DUMMY]
    assert signatures(wanted, "gemini-2.5-pro") == [None] * 5
    assert signatures(wanted, "gemini-flash-latest") == [None, None, DUMMY, None, DUMMY]
    own = Turn("assistant", (ToolCall("a", "f", "{}", signature="sig", origin="gemini"),))
    assert signatures(request(USER, own), MODEL) == ["sig"]


def test_opaque_data_of_others_stays_behind_and_is_declared_once() -> None:
    wanted = request(
        USER,
        Turn(
            "assistant",
            (
                Reasoning("deep", signature="s", origin="anthropic"),
                Reasoning("", encrypted="e", origin="anthropic"),
                Text("so", signature="t", origin="anthropic"),
                ToolCall("a", "f", "{}", signature="u", origin="anthropic"),
            ),
        ),
    )
    body, losses = gemini.encode_request(wanted, MODEL)
    assert body["contents"][1]["parts"] == [
        {"text": "so"},
        {"functionCall": {"id": "a", "name": "f", "args": {}}, "thoughtSignature": DUMMY},
    ]
    assert losses == [Loss("reasoning", "opaque reasoning of anthropic does not travel to gemini")]


def test_gemini_gets_its_own_opaque_data_back() -> None:
    wanted = request(
        USER,
        Turn("assistant", (Reasoning("deep", signature="s", origin="gemini"), Text("so"))),
        source="responses",
    )
    assert sent(wanted)["contents"][1]["parts"] == [
        {"text": "deep", "thought": True, "thoughtSignature": "s"},
        {"text": "so"},
    ]


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (Image(data="QQ", media_type="image/webp"), ("inlineData", "image/webp", "QQ")),
        (Image(url="data:image/png;x=y;base64,QQ"), ("inlineData", "image/png", "QQ")),
        (Image(url="gs://b/a.jpg"), ("fileData", "image/jpeg", "gs://b/a.jpg")),
        (Audio(data="QQ", format="mp3"), ("inlineData", "audio/mp3", "QQ")),
        (File(data="data:text/csv;base64,QQ", name="a"), ("inlineData", "text/csv", "QQ")),
        (File(data="QQ", media_type="video/mp4"), ("inlineData", "video/mp4", "QQ")),
        (File(data="QQ", name="a.pdf"), ("inlineData", "application/pdf", "QQ")),
        (File(url="https://youtu.be/x"), ("fileData", None, "https://youtu.be/x")),
    ],
)
def test_media(part: Any, written: tuple[str, str | None, str]) -> None:
    member, kind, value = written
    made = sent(request(Turn("user", (part,))))["contents"][0]["parts"][0]
    assert list(made) == [member]
    assert made[member].get("mimeType") == kind
    assert made[member]["data" if member == "inlineData" else "fileUri"] == value


@pytest.mark.parametrize(
    ("wanted", "feature"),
    [
        (request(Turn("user", (Image(url="https://e.org/a.png"),))), "image"),
        (request(Turn("user", (Image(url="http://metadata/a.png"),))), "image"),
        (request(Turn("user", (Image(file_id="file-1"),))), "image"),
        (request(Turn("user", (File(url="https://e.org/a.pdf"),))), "file"),
        (request(Turn("user", (File(file_id="file-1"),))), "file"),
        (request(USER, Turn("assistant", (ToolCall("a", "f", "{"),))), "tool_call"),
        (request(USER, Turn("assistant", (ToolCall("a", "f", "[1]"),))), "tool_call"),
        (request(Turn("user", (Opaque("responses", "item_reference", {}),))), "item_reference"),
        (request(extra={"previous_response_id": "r"}), "previous_response_id"),
        (request(extra={"conversation": "c"}), "conversation"),
        (request(tool_choice=ToolChoice("required")), "tool_choice"),
        (request(tool_choice=ToolChoice("tool", "g"), tools=(FUNCTION,)), "tool_choice"),
        (request(tool_choice=ToolChoice("hosted", "web_search")), "tool_choice"),
        (
            request(
                tool_choice=ToolChoice("required"),
                tools=(Tool("web_search", "hosted", definition={"type": "web_search"}),),
            ),
            "tool_choice",
        ),
        (request(tools=(Tool("1st", parameters={}),)), "tools"),
        (request(tools=(Tool("f", parameters={"$ref": "https://e.org"}),)), "schema"),
        (
            request(response_format=ResponseFormat("json_schema", schema={"$ref": "#/$defs/x"})),
            "schema",
        ),
    ],
)
def test_what_has_no_meaning_without_a_part_is_refused(
    wanted: CanonicalRequest, feature: str
) -> None:
    with pytest.raises(Untranslatable) as refused:
        sent(wanted)
    assert refused.value.feature == feature


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        (ToolChoice("auto"), {"mode": "AUTO"}),
        (ToolChoice("none"), {"mode": "NONE"}),
        (ToolChoice("required"), {"mode": "ANY"}),
        (ToolChoice("tool", "f"), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (
            ToolChoice(
                "allowed",
                allowed=({"type": "function", "name": "f"}, {"type": "function", "name": "g"}),
                mode_within="required",
            ),
            {"mode": "ANY", "allowedFunctionNames": ["f", "g"]},
        ),
        (
            ToolChoice("allowed", allowed=({"type": "function", "name": "g"},)),
            {"mode": "VALIDATED", "allowedFunctionNames": ["g"]},
        ),
    ],
)
def test_the_choice_among_tools(choice: ToolChoice, written: dict[str, Any]) -> None:
    wanted = request(tools=(FUNCTION, Tool("g")), tool_choice=choice)
    body, losses = gemini.encode_request(wanted, MODEL)
    assert body["toolConfig"] == {"functionCallingConfig": written}
    assert losses == []
    assert gemini.decode_request({**body, "model": "m"}).tool_choice == choice


def test_hosted_tools_of_google_are_offered_and_those_of_others_declared() -> None:
    tools = (
        Tool("google_search", "hosted", definition={"googleSearch": {}}),
        Tool("web_search", "hosted", definition={"type": "web_search"}),
        Tool("shell", "custom"),
        FUNCTION,
    )
    body, losses = gemini.encode_request(request(tools=tools), MODEL)
    assert body["tools"][0] == {"googleSearch": {}}
    assert body["tools"][1]["functionDeclarations"][0]["name"] == "f"
    assert [loss.feature for loss in losses] == ["hosted_tool", "custom_tool"]


def test_sampling_and_what_it_cannot_say() -> None:
    sampling = Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        max_tokens=7,
        stop=("a", "b"),
        seed=3,
        n=2,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=True,
        top_logprobs=4,
    )
    written = {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 4,
        "maxOutputTokens": 7,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "responseLogprobs": True,
        "stopSequences": ["a", "b"],
        "candidateCount": 2,
        "logprobs": 4,
        "seed": 3,
    }
    assert config(request(sampling=sampling)) == written
    assert lost(request(sampling=sampling)) == []
    back = gemini.decode_request({"model": "m", "contents": [], "generationConfig": written})
    assert back.sampling == sampling
    odd = Sampling(stop=tuple("abcdefg"), n=30, seed=2**40)
    assert lost(request(sampling=odd)) == ["stop", "n", "seed"]
    others = request(
        user="u",
        metadata={"a": "b"},
        service_tier="scale",
        verbosity="low",
        parallel_tool_calls=False,
        tools=(FUNCTION,),
        extra={"store": False, "store2": 1, "truncation": "disabled"},
    )
    assert sorted(lost(others)) == [
        "metadata",
        "parallel_tool_calls",
        "service_tier",
        "store2",
        "user",
        "verbosity",
    ]


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "losses"),
    [
        ("gemini-3-flash", "low", {"thinkingLevel": "LOW"}, 0),
        ("gemini-3-flash", "minimal", {"thinkingLevel": "MINIMAL"}, 0),
        ("gemini-3-pro-preview", "minimal", {"thinkingLevel": "LOW"}, 1),
        ("gemini-3.1-pro", "high", {"thinkingLevel": "HIGH"}, 0),
        ("gemini-3-flash", "xhigh", {"thinkingLevel": "HIGH"}, 1),
        ("gemini-3-flash", "none", {"thinkingLevel": "MINIMAL"}, 1),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}, 0),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}, 1),
        ("gemini-2.5-flash", "medium", {"thinkingBudget": 8192}, 0),
        ("gemini-2.5-flash-lite", "high", {"thinkingBudget": 24_576}, 0),
        ("gemini-2.0-flash", "high", None, 1),
        ("gemma-3-27b-it", "high", None, 1),
        ("gemini-3-flash", "wild", {}, 1),
    ],
)
def test_reasoning_effort(
    model: str, effort: str, thinking: dict[str, Any] | None, losses: int
) -> None:
    wanted = request(reasoning_effort=effort)
    written = config(wanted, model).get("thinkingConfig")
    if thinking is not None and effort != "none":
        thinking = {**thinking, "includeThoughts": True}
    assert written == thinking
    assert lost(wanted, model) == ["reasoning"] * losses


def test_a_schema_goes_to_the_field_that_says_most() -> None:
    shape = ResponseFormat(
        "json_schema", "n", {"type": "object", "additionalProperties": False}, True, "why"
    )
    assert config(request(response_format=shape)) == {
        "responseMimeType": "application/json",
        "responseJsonSchema": {
            "type": "object",
            "additionalProperties": False,
            "description": "why",
        },
    }
    patterned = ResponseFormat("json_schema", "n", {"type": "string", "pattern": "a"})
    assert config(request(response_format=patterned))["responseSchema"] == {
        "type": "STRING",
        "pattern": "a",
    }
    assert config(request(response_format=ResponseFormat("json_object"))) == {
        "responseMimeType": "application/json"
    }


def test_older_models_have_tools_or_a_schema() -> None:
    shape = ResponseFormat("json_schema", "n", {"type": "object"})
    wanted = request(tools=(FUNCTION,), response_format=shape)
    with pytest.raises(Untranslatable) as refused:
        sent(wanted, "gemini-2.5-flash")
    assert refused.value.feature == "response_format"
    assert "tools" in sent(wanted)
    # A tool that must not be called is no reason to lose the schema.
    idle = request(tools=(FUNCTION,), tool_choice=ToolChoice("none"), response_format=shape)
    body, losses = gemini.encode_request(idle, "gemini-2.5-flash")
    assert "tools" not in body
    assert "toolConfig" not in body
    assert "responseJsonSchema" in body["generationConfig"]
    assert losses == []


def test_marks_of_what_to_cache_are_declared_once() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    wanted = request(
        Turn("user", (Text("a", extra=mark), Text("b", extra=mark)), extra=mark),
        source="anthropic",
        tools=(Tool("f", extra=mark),),
    )
    assert lost(wanted) == ["cache_control"]


# --- in ------------------------------------------------------------------------------------------

FULL: dict[str, Any] = {
    "model": "auto",
    "stream": True,
    "systemInstruction": {"parts": [{"text": "S"}]},
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "see"},
                {"inlineData": {"mimeType": "image/png", "data": "QQ"}},
                {"inlineData": {"mimeType": "audio/mpeg", "data": "QQ"}},
                {
                    "fileData": {
                        "mimeType": "video/mp4",
                        "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x",
                    },
                    "videoMetadata": {"startOffset": "1s"},
                },
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "hm", "thought": True, "thoughtSignature": "c2ln"},
                {"text": "ok", "thoughtSignature": "dGV4dA=="},
                {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "Y2FsbA=="},
                {"functionCall": {"name": "f", "args": {"x": 2}}},
                {"functionCall": {"id": "g-1", "name": "g", "args": {}}},
                {"executableCode": {"language": "PYTHON", "code": "1"}},
                {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"result": "one"}}},
                {"functionResponse": {"name": "f", "response": {"output": {"a": 1}}}},
                {
                    "functionResponse": {
                        "id": "g-1",
                        "name": "g",
                        "response": {"error": "no"},
                        "scheduling": "SILENT",
                    }
                },
                {"text": "go on"},
            ],
        },
    ],
    "tools": [
        {
            "functionDeclarations": [
                {
                    "name": "f",
                    "description": "d",
                    "parameters": {
                        "type": "OBJECT",
                        "properties": {"x": {"type": "INTEGER", "nullable": True}},
                    },
                    "behavior": "BLOCKING",
                },
                {"name": "g", "parametersJsonSchema": {"type": "object"}},
            ]
        },
        {"googleSearch": {}},
    ],
    "toolConfig": {
        "functionCallingConfig": {"mode": "VALIDATED"},
        "retrievalConfig": {"languageCode": "de"},
    },
    "generationConfig": {
        "temperature": 0.5,
        "topK": 40,
        "maxOutputTokens": 9,
        "stopSequences": ["x"],
        "responseMimeType": "application/json",
        "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}},
        "thinkingConfig": {"thinkingBudget": 2000, "includeThoughts": True},
        "mediaResolution": "MEDIA_RESOLUTION_LOW",
    },
    "safetySettings": [{"category": "C", "threshold": "BLOCK_NONE"}],
    "labels": {"team": "a"},
    "cachedContent": "cachedContents/x",
    "serviceTier": "flex",
}


def test_a_request_that_stays_in_its_dialect_loses_nothing() -> None:
    wanted = gemini.decode_request(FULL)
    body, losses = gemini.encode_request(wanted, MODEL)
    expected = copy.deepcopy({k: v for k, v in FULL.items() if k not in ("model", "stream")})
    expected["tools"].reverse()  # hosted tools come first
    responses = [part["functionResponse"] for part in body["contents"][2]["parts"][:3]]
    assert [r["response"] for r in responses] == [
        {"result": "one"},
        {"output": {"a": 1}},
        {"error": "no"},
    ]
    assert body == expected
    assert losses == []


def test_what_a_client_of_google_said() -> None:
    wanted = gemini.decode_request(FULL)
    assert (wanted.model, wanted.stream, wanted.source) == ("auto", True, "gemini")
    assert [turn.role for turn in wanted.turns] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "tool",
        "user",
    ]
    asked, said = wanted.turns[1].parts, wanted.turns[2].parts
    assert asked[1] == Image(data="QQ", media_type="image/png")
    assert isinstance(asked[2], Audio)
    assert asked[2].format == "mp3"
    assert isinstance(asked[3], File)
    assert asked[3].file_id is not None
    assert asked[3].url is None
    assert said[0] == Reasoning("hm", signature="c2ln")
    calls = [part for part in said if isinstance(part, ToolCall)]
    results = [part for turn in wanted.turns for part in turn.parts if isinstance(part, ToolResult)]
    assert [call.id for call in calls] == [result.call_id for result in results]
    assert len({call.id for call in calls}) == 3
    assert [result.is_error for result in results] == [False, False, True]
    assert results[0].parts == (Text("one"),)
    assert wanted.tools[0].parameters == {
        "type": "object",
        "properties": {"x": {"type": ["integer", "null"]}},
    }
    assert wanted.tools[2] == Tool("googleSearch", "hosted", definition={"googleSearch": {}})
    assert wanted.tool_choice == ToolChoice("auto")
    assert (wanted.reasoning_effort, wanted.reasoning_summary) == ("medium", "auto")
    assert wanted.metadata == {"team": "a"}
    assert sorted(wanted.extra) == [
        "cachedContent",
        "generationConfig.mediaResolution",
        "generationConfig.thinkingConfig",
        "safetySettings",
        "toolConfig.functionCallingConfig",
        "toolConfig.retrievalConfig",
    ]


def test_ids_that_were_made_here_are_of_use_elsewhere_and_go_no_further() -> None:
    body = sent(gemini.decode_request(FULL))
    calls = [p["functionCall"] for p in body["contents"][1]["parts"] if "functionCall" in p]
    assert [call.get("id") for call in calls] == [None, None, "g-1"]
    told, _ = chat.encode_request(
        gemini.decode_request({**FULL, "contents": FULL["contents"][1:]}), "m"
    )
    ids = [call["id"] for call in told["messages"][1]["tool_calls"]]
    answered = [m["tool_call_id"] for m in told["messages"] if m["role"] == "tool"]
    assert ids == answered


def test_both_spellings_of_a_member_are_read() -> None:
    snake = {
        "model": "m",
        "system_instruction": {"parts": [{"text": "S"}]},
        "contents": [
            {"parts": [{"inline_data": {"mime_type": "image/png", "data": "QQ"}}]},
            {"role": "model", "parts": [{"function_call": {"name": "f"}}]},
        ],
        "generation_config": {"max_output_tokens": 3, "top_k": 2.0},
        "tools": [{"function_declarations": [{"name": "f"}]}, {"google_search": {}}],
        "tool_config": {
            "function_calling_config": {"mode": "any", "allowed_function_names": ["f"]}
        },
    }
    wanted = gemini.decode_request(snake)
    assert wanted.turns[0].role == "system"
    assert wanted.turns[1].parts == (Image(data="QQ", media_type="image/png"),)
    assert wanted.sampling == Sampling(max_tokens=3, top_k=2)
    assert wanted.tool_choice == ToolChoice("tool", "f")
    assert wanted.tools[1].definition == {"googleSearch": {}}
    assert wanted.extra == {}


def test_the_word_auto() -> None:
    wanted = gemini.decode_request(
        {
            "model": "auto",
            "contents": "hi",
            "tools": "auto",
            "generationConfig": {
                "maxOutputTokens": "auto",
                "thinkingConfig": "auto",
                "responseSchema": "auto",
            },
        }
    )
    assert wanted.auto == {"model", "tools", "max_tokens", "reasoning", "response_format"}
    assert wanted.turns == (USER,)
    assert sent(wanted) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"contents": None}, "contents"),
        ({"contents": [3]}, "contents[0]"),
        ({"contents": [{"role": "system", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": "x"}]}, "contents[0].parts"),
        ({"contents": [{"parts": [{"text": 3}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{}]}]}, "contents[0].parts[0]"),
        (
            {"contents": [{"parts": [{"inlineData": {"data": "x"}}]}]},
            "contents[0].parts[0].inlineData.mimeType",
        ),
        (
            {"contents": [{"parts": [{"functionCall": {"name": "f", "args": []}}]}]},
            "contents[0].parts[0].functionCall.args",
        ),
        (
            {"contents": [{"parts": [{"functionResponse": {"response": {}}}]}]},
            "contents[0].parts[0].functionResponse.name",
        ),
        ({"tools": 3}, "tools"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
        (
            {"toolConfig": {"functionCallingConfig": {"mode": "SOME"}}},
            "toolConfig.functionCallingConfig.mode",
        ),
        ({"generationConfig": []}, "generationConfig"),
        ({"generationConfig": {"temperature": "x"}}, "generationConfig.temperature"),
        ({"generationConfig": {"topK": 1.5}}, "generationConfig.topK"),
        ({"generationConfig": {"stopSequences": [1]}}, "generationConfig.stopSequences[0]"),
        (
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": "x"}}},
            "generationConfig.thinkingConfig.thinkingBudget",
        ),
        ({"labels": []}, "labels"),
    ],
)
def test_what_cannot_be_read_is_named(change: dict[str, Any], param: str) -> None:
    with pytest.raises(MalformedRequest) as refused:
        gemini.decode_request({"model": "m", "contents": [], **change})
    assert refused.value.param == param


def test_the_body_of_a_count() -> None:
    inner = {"contents": [{"parts": [{"text": "a"}]}]}
    assert gemini.count_body({"generateContentRequest": inner}) == inner
    assert gemini.count_body(inner) == inner
    assert gemini.encode_count(3) == {"totalTokens": 3}


# --- properties ----------------------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
ARGUMENTS = st.dictionaries(WORDS, st.integers(-9, 9) | WORDS | st.none(), max_size=2)
SIGNED = st.fixed_dictionaries({}, optional={"thoughtSignature": st.just("c2ln")})
SAID = st.one_of(
    st.builds(lambda t, s: {"text": t, **s}, WORDS, SIGNED),
    st.builds(lambda t, s: {"text": t, "thought": True, **s}, WORDS, SIGNED),
    st.just({"executableCode": {"code": "1", "language": "PYTHON"}}),
)
ASKED = st.one_of(
    st.builds(lambda t: {"text": t}, WORDS),
    st.just({"inlineData": {"mimeType": "image/png", "data": "QQ"}}),
    st.just({"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/v"}}),
)


@st.composite
def native_contents(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Conversations of Google's API as its SDK would write them."""
    made: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 3))):
        made.append({"role": "user", "parts": draw(st.lists(ASKED, min_size=1, max_size=3))})
        for _ in range(draw(st.integers(0, 2))):
            arguments = draw(st.lists(ARGUMENTS, min_size=1, max_size=3))
            calls = [
                {"functionCall": {"name": f"f{i % 2}", "args": a}} for i, a in enumerate(arguments)
            ]
            calls[0]["thoughtSignature"] = "Y2Fs"  # type: ignore[assignment]
            said = draw(st.lists(SAID, max_size=2))
            made.append({"role": "model", "parts": [*said, *calls]})
            results = [
                {
                    "functionResponse": {
                        "name": call["functionCall"]["name"],
                        "response": draw(ARGUMENTS),
                    }
                }
                for call in calls
            ]
            made.append({"role": "user", "parts": results})
        made.append({"role": "model", "parts": draw(st.lists(SAID, min_size=1, max_size=3))})
    return made


@settings(deadline=None, max_examples=150)
@given(contents=native_contents())
def test_conversations_of_google_survive(contents: list[dict[str, Any]]) -> None:
    wanted = gemini.decode_request({"model": "m", "contents": contents})
    assert gemini.encode_request(wanted, MODEL) == ({"contents": contents}, [])


@settings(deadline=None, max_examples=100)
@given(contents=native_contents())
def test_conversations_of_google_travel_to_chat_and_back(contents: list[dict[str, Any]]) -> None:
    """What is said and called is the same; opaque data and code stay behind."""
    for content in contents:
        content["parts"] = [p for p in content["parts"] if "fileData" not in p] or [{"text": "x"}]
    wanted = gemini.decode_request({"model": "m", "contents": contents})
    told, _ = chat.encode_request(wanted, "m")
    back, _ = gemini.encode_request(chat.decode_request(told), MODEL)

    def calls(of: list[dict[str, Any]]) -> list[Any]:
        parts = [p for content in of for p in content["parts"]]
        return [
            [p["functionCall"]["name"], p["functionCall"]["args"]]
            for p in parts
            if "functionCall" in p
        ]

    def results(of: list[dict[str, Any]]) -> list[str]:
        parts = [p for content in of for p in content["parts"]]
        return [p["functionResponse"]["name"] for p in parts if "functionResponse" in p]

    assert calls(back["contents"]) == calls(contents)
    assert results(back["contents"]) == results(contents)
