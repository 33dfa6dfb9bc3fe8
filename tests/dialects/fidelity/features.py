"""The canonical requests of the grid: what is asked, what has to arrive, what a loss may be called.

``wants`` are facts (see ``facts``) that a provider has to understand for the feature to count as
kept. ``names`` are the features of a ``Loss`` or ``Untranslatable`` that may stand in for them; a
name covers those that begin with it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from fidelity.facts import Fact

from aiproxy.middleware.dialects.canonical import (
    Audio,
    CanonicalRequest,
    File,
    Image,
    Part,
    Reasoning,
    Refusal,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)

PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PDF: Final = "JVBERi0xLjQKJUZBS0UK"
WAV: Final = "UklGRiQAAABXQVZFZm10IA=="
IMAGE_URL: Final = "https://example.org/cat.png"
FILE_URL: Final = "https://example.org/report.pdf"


@dataclass(frozen=True)
class Feature:
    """One row of the grid. ``make`` gives the request as said in a dialect."""

    name: str
    make: Callable[[str], CanonicalRequest]
    wants: tuple[Fact, ...]
    names: tuple[str, ...] = ()
    #: The wanted facts have to come in this order.
    ordered: bool = False
    #: Bound to who made it: it counts as kept in its own dialect only, and may be lost elsewhere.
    opaque: bool = False


def user(*parts: Part | str, **more: Any) -> Turn:
    held = tuple(Text(p) if isinstance(p, str) else p for p in parts)
    form = "string" if len(parts) == 1 and isinstance(parts[0], str) else "parts"
    return Turn("user", held, form=form, **more)


def said(*parts: Part | str) -> Turn:
    held = tuple(Text(p) if isinstance(p, str) else p for p in parts)
    only_calls = all(isinstance(p, ToolCall | Reasoning) for p in held)
    form = "null" if only_calls else "string" if all(isinstance(p, Text) for p in held) else "parts"
    return Turn("assistant", held, form=form)


def told(call: str, *parts: Part | str, **more: Any) -> Turn:
    held = tuple(Text(p) if isinstance(p, str) else p for p in parts)
    is_plain = len(parts) == 1 and isinstance(parts[0], str)
    result = ToolResult(call, held, plain=is_plain, **more)
    return Turn("tool", (result,), form="string" if is_plain else "parts")


def asked(*turns: Turn, **more: Any) -> Callable[[str], CanonicalRequest]:
    return lambda source: CanonicalRequest("m", turns or (user("Hello"),), source, **more)


def drawn(**sampling: Any) -> Callable[[str], CanonicalRequest]:
    return asked(sampling=Sampling(**sampling))


CITY: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
STRICT: Final = {**CITY, "additionalProperties": False}
WEATHER: Final = Tool("weather", description="Tells the weather", parameters=CITY)
CLOCK: Final = Tool("clock", parameters={"type": "object", "properties": {}})
DEEP: Final = {
    "type": "object",
    "properties": {
        "place": {"$ref": "#/$defs/place"},
        "unit": {"type": "string", "enum": ["C", "F"]},
    },
    "$defs": {"place": {"type": "object", "properties": {"city": {"type": "string"}}}},
    "required": ["place"],
}
BERN: Final = '{"city": "Bern"}'
ROME: Final = '{"city": "Rome"}'
HELLO: Final = ("user", "Hello")
WITH_TOOL: Final[dict[str, Any]] = {"tools": (WEATHER,)}
BOTH: Final[dict[str, Any]] = {"tools": (WEATHER, CLOCK)}
ROUND: Final = (user("Weather?"), said(ToolCall("call_1", "weather", BERN)))


def _choice(mode: Any, **more: Any) -> Callable[[str], CanonicalRequest]:
    return asked(**BOTH, tool_choice=ToolChoice(mode, **more))


def _format(*given: Any, **more: Any) -> Callable[[str], CanonicalRequest]:
    return asked(response_format=ResponseFormat(*given, **more))


def _thought(**opaque: Any) -> Callable[[str], CanonicalRequest]:
    """A turn with reasoning made by the dialect the request is said in."""
    turns = (user("Why?"), said(Reasoning("Since...", origin=None, **opaque), "So."), user("Sure?"))
    return asked(*turns)


def _signed_call(source: str) -> CanonicalRequest:
    call = ToolCall("call_1", "weather", BERN, signature="c2lnbmVk", origin=source)
    turns = (user("Weather?"), said(call), told("call_1", "sunny"))
    return CanonicalRequest("m", turns, source, tools=(WEATHER,))


_TALK = (user("First"), said("Second"), user("Third"))
_TALK_FACTS = (("user", "First"), ("assistant", "Second"), ("user", "Third"))
_SHAPE = ("answer", None, None)
_TOOLS = ("tool", "hosted_tool", "tools")
_PARTS = ("image", "file", "audio", "content_part", "part_members")
_RESULT = ("tool_result",)

REQUESTS: Final = (
    # --- what is said
    Feature("text", asked(), (HELLO,)),
    Feature(
        "text in parts", asked(user("Hello", " you")), (("user", "Hello"), ("user", " you")), ()
    ),
    Feature(
        "unicode",
        asked(user("Grüße 😀 \u202eok\u2028")),
        (("user", "Grüße 😀 \u202eok\u2028"),),
    ),
    Feature(
        "system",
        asked(Turn("system", (Text("Be brief"),), form="string"), user("Hello")),
        (("system", "Be brief"), HELLO),
        ordered=True,
    ),
    Feature(
        "developer",
        asked(Turn("developer", (Text("Be brief"),), form="string"), user("Hello")),
        (("system", "Be brief"), HELLO),
        ordered=True,
    ),
    Feature(
        "several system turns",
        asked(
            Turn("system", (Text("One"),), form="string"),
            Turn("system", (Text("Two"),), form="string"),
            user("Hello"),
        ),
        (("system", "One"), ("system", "Two"), HELLO),
        ordered=True,
    ),
    Feature(
        "instructions",
        asked(instructions="Be brief"),
        (("system", "Be brief"), HELLO),
        ordered=True,
    ),
    Feature("several turns", asked(*_TALK), _TALK_FACTS, ordered=True),
    Feature(
        "two user turns in a row",
        asked(user("First"), user("Second")),
        (("user", "First"), ("user", "Second")),
        ordered=True,
    ),
    Feature(
        "system in mid talk",
        asked(
            user("First"),
            said("Second"),
            Turn("system", (Text("New"),), form="string"),
            user("Third"),
        ),
        (*_TALK_FACTS, ("system", "New")),
        ("system", "message"),
    ),
    Feature(
        "answer begun by the client",
        asked(user("Count"), said("1, 2,")),
        (("user", "Count"), ("assistant", "1, 2,")),
        ("prefill", "message"),
        ordered=True,
    ),
    Feature(
        "empty content",
        asked(user("First"), said(""), user("Third")),
        (("user", "First"), ("user", "Third")),
        ("message", "content_part", "empty"),
        ordered=True,
    ),
    Feature(
        "participant name",
        asked(user("Hello", name="ann")),
        (("name", "ann"), HELLO),
        ("message.name", "name"),
    ),
    Feature(
        "refusal in an earlier turn",
        asked(user("Do"), said(Refusal("I cannot")), user("Well")),
        (("assistant", "I cannot"), ("user", "Well")),
        ("refusal",),
    ),
    # --- what is shown
    Feature(
        "image by URL", asked(user("See", Image(url=IMAGE_URL))), (("image", IMAGE_URL),), _PARTS
    ),
    Feature(
        "image data",
        asked(user("See", Image(data=PNG, media_type="image/png"))),
        (("image", "image/png", PNG),),
        _PARTS,
    ),
    Feature(
        "image detail",
        asked(user("See", Image(url=IMAGE_URL, detail="low"))),
        (("image", IMAGE_URL), ("detail", "low")),
        (*_PARTS, "detail"),
    ),
    Feature(
        "file data",
        asked(user("Read", File(data=f"data:application/pdf;base64,{PDF}", name="a.pdf"))),
        (("file", PDF),),
        _PARTS,
    ),
    Feature(
        "file by URL", asked(user("Read", File(url=FILE_URL))), (("file_url", FILE_URL),), _PARTS
    ),
    Feature("audio", asked(user("Hear", Audio(data=WAV, format="wav"))), (("audio", WAV),), _PARTS),
    # --- tools
    Feature(
        "tool",
        asked(**WITH_TOOL),
        (
            ("tool", "weather"),
            ("tool_description", "weather", "Tells the weather"),
            ("property", "weather", "city", "string"),
            ("property_required", "weather", '["city"]'),
        ),
        _TOOLS,
    ),
    Feature(
        "tool without parameters",
        asked(tools=(Tool("clock", description="Tells the time"),)),
        (("tool", "clock"),),
        _TOOLS,
    ),
    Feature(
        "tool schema with $ref and enum",
        asked(tools=(Tool("weather", parameters=DEEP),)),
        (
            ("property", "weather", "place", "object"),
            ("property_enum", "weather", "unit", '["C", "F"]'),
        ),
        (*_TOOLS, "schema"),
    ),
    Feature(
        "strict tool",
        asked(tools=(replace(WEATHER, parameters=STRICT, strict=True),)),
        (("tool", "weather"), ("tool_strict", "weather")),
        (*_TOOLS, "strict"),
    ),
    Feature(
        "custom tool",
        asked(tools=(Tool("shell", "custom", "Runs a line"),)),
        (("custom_tool", "shell"),),
        (*_TOOLS, "custom_tool"),
    ),
    Feature(
        "hosted tool",
        asked(tools=(Tool("web_search", "hosted", definition={"type": "web_search"}),)),
        (("hosted_tool", "web_search"),),
        _TOOLS,
    ),
    Feature("tool_choice auto", _choice("auto"), (("tool", "weather"), ("choice", "auto"))),
    Feature("tool_choice none", _choice("none"), (("choice", "none"),), ("tool_choice",)),
    Feature(
        "tool_choice required", _choice("required"), (("choice", "required"),), ("tool_choice",)
    ),
    Feature(
        "tool_choice by name",
        _choice("tool", name="weather"),
        (("choice", "weather"),),
        ("tool_choice",),
    ),
    Feature(
        "tool_choice of several",
        _choice(
            "allowed", allowed=({"type": "function", "name": "weather"},), mode_within="required"
        ),
        (("allowed", "weather"),),
        ("tool_choice", "allowed"),
    ),
    Feature(
        "parallel calls forbidden",
        asked(**WITH_TOOL, parallel_tool_calls=False),
        (("parallel", "false"),),
        ("parallel_tool_calls",),
    ),
    Feature(
        "tool round",
        asked(*ROUND, told("call_1", "sunny"), **WITH_TOOL),
        (("call", "weather", BERN), ("result", "weather", "sunny")),
        _RESULT,
        ordered=True,
    ),
    Feature(
        "text and a call in one turn",
        asked(
            user("Weather?"),
            said("Let me see.", ToolCall("call_1", "weather", BERN)),
            told("call_1", "sunny"),
            **WITH_TOOL,
        ),
        (("assistant", "Let me see."), ("call", "weather", BERN), ("result", "weather", "sunny")),
        _RESULT,
    ),
    Feature(
        "parallel calls and results",
        asked(
            user("Weather?"),
            said(ToolCall("call_1", "weather", BERN), ToolCall("call_2", "weather", ROME)),
            told("call_1", "sunny"),
            told("call_2", "rainy"),
            user("So?"),
            **WITH_TOOL,
        ),
        (
            ("call", "weather", BERN),
            ("call", "weather", ROME),
            ("result", "weather", "sunny"),
            ("result", "weather", "rainy"),
            ("user", "So?"),
        ),
        _RESULT,
        ordered=True,
    ),
    Feature(
        "failed tool result",
        asked(*ROUND, told("call_1", "no such city", is_error=True), **WITH_TOOL),
        (("result", "weather", "no such city"), ("failed", "weather")),
        (*_RESULT, "is_error"),
    ),
    Feature(
        "tool result in parts",
        asked(*ROUND, told("call_1", "sunny", ", warm"), **WITH_TOOL),
        (("result", "weather", "sunny"), ("result", "weather", ", warm")),
        _RESULT,
    ),
    Feature(
        "image in a tool result",
        asked(
            *ROUND,
            told("call_1", "map", Image(data=PNG, media_type="image/png")),
            **WITH_TOOL,
        ),
        (("result", "weather", "map"), ("image", "image/png", PNG)),
        (*_RESULT, *_PARTS),
    ),
    Feature(
        "empty tool result",
        asked(*ROUND, told("call_1", ""), **WITH_TOOL),
        (("answered", "weather"),),
        _RESULT,
    ),
    Feature(
        "custom call and result",
        asked(
            user("List"),
            said(ToolCall("call_1", "shell", "ls -l", "custom")),
            told("call_1", "a.txt", kind="custom"),
            tools=(Tool("shell", "custom", "Runs a line"),),
        ),
        (("custom_call", "shell", "ls -l"), ("result", "shell", "a.txt")),
        (*_RESULT, *_TOOLS, "custom_tool", "tool_call"),
    ),
    # --- the shape of the answer
    Feature(
        "JSON object",
        _format("json_object"),
        (("format", "json_object"),),
        ("response_format",),
    ),
    Feature(
        "JSON schema",
        _format("json_schema", "answer", CITY),
        (("schema", "answer", "city", "string"),),
        ("response_format", "schema"),
    ),
    Feature(
        "strict JSON schema",
        _format("json_schema", "answer", STRICT, strict=True),
        (("schema", "answer", "city", "string"), ("schema_strict", "true")),
        ("response_format", "schema", "strict"),
    ),
    Feature(
        "JSON schema with $ref",
        _format("json_schema", "answer", DEEP),
        (
            ("schema", "answer", "place", "object"),
            ("schema_enum", "answer", "unit", '["C", "F"]'),
        ),
        ("response_format", "schema"),
    ),
    Feature(
        "verbosity",
        asked(verbosity="low"),
        (("verbosity", "low"),),
        ("verbosity", "text.verbosity"),
    ),
    # --- how tokens are drawn
    Feature("temperature", drawn(temperature=0.25), (("temperature", "0.25"),), ("temperature",)),
    Feature("top_p", drawn(top_p=0.5), (("top_p", "0.5"),), ("top_p",)),
    Feature("top_k", drawn(top_k=40), (("top_k", "40"),), ("top_k",)),
    Feature("max tokens", drawn(max_tokens=77), (("max_tokens", "77"),), ("max_tokens",)),
    Feature(
        "stop sequences", drawn(stop=("END", "##")), (("stop", "END"), ("stop", "##")), ("stop",)
    ),
    Feature("seed", drawn(seed=7), (("seed", "7"),), ("seed",)),
    Feature("n", drawn(n=2), (("n", "2"),), ("n",)),
    Feature(
        "penalties",
        drawn(presence_penalty=0.5, frequency_penalty=0.25),
        (("presence_penalty", "0.5"), ("frequency_penalty", "0.25")),
        ("presence_penalty", "frequency_penalty", "penalties"),
    ),
    Feature(
        "logprobs",
        drawn(logprobs=True, top_logprobs=2),
        (("logprobs", "true"), ("top_logprobs", "2")),
        ("logprobs", "top_logprobs"),
    ),
    # --- reasoning
    Feature(
        "reasoning effort",
        asked(reasoning_effort="high", sampling=Sampling(max_tokens=9000)),
        (("thinks", "yes"),),
        ("reasoning",),
    ),
    Feature("reasoning off", asked(reasoning_effort="none"), (("thinks", "no"),), ("reasoning",)),
    Feature(
        "reasoning summary",
        asked(reasoning_effort="low", reasoning_summary="auto", sampling=Sampling(max_tokens=9000)),
        (("thinks", "yes"), ("summary", "yes")),
        ("reasoning",),
    ),
    Feature(
        "earlier reasoning", _thought(), (("thought", "Since..."),), ("reasoning",), opaque=True
    ),
    Feature(
        "earlier reasoning with its signature",
        _thought(signature="c2lnbmVk"),
        (("thought", "Since..."), ("signature", "c2lnbmVk")),
        ("reasoning", "signature"),
        opaque=True,
    ),
    Feature(
        "sealed earlier reasoning",
        asked(user("Why?"), said(Reasoning(encrypted="c2VhbGVk"), "So."), user("Sure?")),
        (("encrypted", "c2VhbGVk"),),
        ("reasoning", "encrypted"),
        opaque=True,
    ),
    Feature(
        "signature of a call",
        _signed_call,
        (("call", "weather", BERN), ("signature", "c2lnbmVk")),
        ("reasoning", "signature", "tool_call"),
        opaque=True,
    ),
    # --- who asks
    Feature("user", asked(user="u-1"), (("user_id", "u-1"),), ("user", "metadata")),
    Feature(
        "metadata", asked(metadata={"team": "red"}), (("metadata", "team", "red"),), ("metadata",)
    ),
    Feature("service tier", asked(service_tier="flex"), (("tier", "flex"),), ("service_tier",)),
)
