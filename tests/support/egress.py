"""What the tests of provider dialects share: streams in pieces, put together, and SDKs as judges."""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from aiproxy.middleware.dialects import (
    AnnotationDelta,
    CanonicalEvent,
    CanonicalReply,
    Finish,
    Loss,
    OpaqueItem,
    Reasoning,
    ReasoningDelta,
    StreamError,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    UsageEvent,
)
from aiproxy.middleware.dialects.sse import SSEParser

VENVS = Path(__file__).parent.parent.parent / ".venvs"


class Golden:
    """The answers of a provider that lie beside a test: ``NAME.json`` whole, ``NAME.sse`` streamed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names = sorted(path.stem for path in folder.glob("*.json"))

    def reply(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._folder / f"{name}.json").read_text())
        return found

    def stream(self, name: str) -> bytes:
        return (self._folder / f"{name}.sse").read_bytes()


def features(losses: Iterable[Loss]) -> set[str]:
    """What was lost."""
    return {loss.feature for loss in losses}


def payloads(pieces: Iterable[bytes]) -> list[tuple[Mapping[str, Any] | None, str | None]]:
    """The JSON payloads of a stream that came in ``pieces``; ``None`` stands for [DONE]."""
    parser = SSEParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    events += parser.finish()
    told = [event for event in events if event.data is not None]
    return [(None if e.is_done else orjson.loads(e.data or b""), e.event) for e in told]


def events(module: Any, pieces: Iterable[bytes]) -> list[CanonicalEvent]:
    """What a dialect's decoder makes of a stream."""
    decoder = module.StreamDecoder()
    found: list[CanonicalEvent] = []
    for payload, event in payloads(pieces):
        if payload is not None:
            found += decoder.feed(payload, event)
        elif hasattr(decoder, "done"):
            decoder.done()
    return found + decoder.finish()


def cuts(wire: bytes) -> Iterable[list[bytes]]:
    """A stream cut once at every place, and byte by byte."""
    for place in range(1, len(wire)):
        yield [wire[:place], wire[place:]]
    yield [wire[i : i + 1] for i in range(len(wire))]


def whole(reply: CanonicalReply) -> dict[int, dict[str, Any]]:
    """An answer by choice, in a form that streams can be brought to as well."""
    told: dict[int, dict[str, Any]] = {}
    for choice in reply.choices:
        one = told[choice.index] = _empty()
        for part in choice.parts:
            if isinstance(part, Text):
                one["text"] += part.text
                one["annotations"] += part.annotations
                one["logprobs"] += part.logprobs or ()
            elif isinstance(part, Reasoning):
                one["thoughts"].append(part.text)
                one["signatures"] += [part.signature] if part.signature else []
            elif isinstance(part, ToolCall):
                one["calls"].append([part.id, part.name, part.arguments])
            else:
                one["other"].append(getattr(part, "kind", type(part).__name__))
        one["finish"] = (choice.finish_reason, choice.native_finish_reason)
        one["usage"] = reply.usage
    return told


def assembled(found: Iterable[CanonicalEvent]) -> dict[int, dict[str, Any]]:
    """The events of a stream put together to the form of ``whole``."""
    told: dict[int, dict[str, Any]] = {}
    items: dict[int, int] = {}
    usage = None
    for event in found:
        if isinstance(event, UsageEvent):
            usage = event.usage
        choice = getattr(event, "choice", None)
        if choice is None:
            continue
        one = told.setdefault(choice, _empty())
        if isinstance(event, TextDelta):
            one["text"] += event.text
            one["logprobs"] += event.logprobs
        elif isinstance(event, AnnotationDelta):
            one["annotations"].append(event.annotation)
        elif isinstance(event, ReasoningDelta):
            if items.get(choice) != event.item:
                items[choice] = event.item
                one["thoughts"].append("")
            one["thoughts"][-1] += event.text
            one["signatures"] += [event.signature] if event.signature else []
        elif isinstance(event, ToolCallStart):
            assert event.index == len(one["calls"]), "indices count up without gaps"
            one["calls"].append([event.id, event.name, ""])
        elif isinstance(event, ToolCallDelta):
            one["calls"][event.index][2] += event.arguments
        elif isinstance(event, OpaqueItem):
            one["other"].append(event.kind)
        elif isinstance(event, Finish):
            one["finish"] = (event.reason, event.native)
    for one in told.values():
        one["usage"] = usage
    return told


def failure(found: Iterable[CanonicalEvent]) -> StreamError:
    """The failure a stream ended in."""
    last = list(found)[-1]
    assert isinstance(last, StreamError)
    return last


def _empty() -> dict[str, Any]:
    told: dict[str, Any] = {"text": "", "annotations": [], "logprobs": [], "thoughts": []}
    told.update(signatures=[], calls=[], other=[], finish=None, usage=None)
    return told


def judge(sdk: str, script: Path, given: Any) -> Any:
    """What ``script`` says of ``given`` under the interpreter of an official SDK."""
    python = VENVS / sdk / "bin" / "python"
    if not (VENVS / sdk / "complete").exists():
        hint = f"run: python scripts/sdk_venvs.py {sdk}"
        if os.environ.get("AIPROXY_REQUIRE_SERVICES") == "1":
            pytest.fail(f"the {sdk} SDK is required and missing; {hint}")
        pytest.skip(f"the {sdk} SDK is not there; {hint}")
    ran = subprocess.run(
        [str(python), str(script)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout)


def conversations() -> dict[str, dict[str, Any]]:
    """Chat requests, one for each thing a request can say; every provider takes all of them."""
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    bare = {"type": "function", "function": {"name": "now"}}
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    user = {"role": "user", "content": "Is it raining in Bern?"}
    call = {
        "id": "call_Zz91",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city":"Bern"}'},
    }
    second = {**call, "id": "call_Zz92"}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "call_Zz91", "content": "dry"}
    parts = [{"type": "text", "text": "dry"}, {"type": "text", "text": "and warm"}]
    said = {"role": "assistant", "content": "No."}

    def asked(*messages: Any, **more: Any) -> dict[str, Any]:
        return {"model": "m", "messages": list(messages) or [user], **more}

    return {
        "text": asked(),
        "system": asked({"role": "system", "content": "Be brief."}, user),
        "developer": asked({"role": "developer", "content": "Be brief."}, user),
        "system in parts": asked(
            {"role": "system", "content": [{"type": "text", "text": "Be"}] * 2}, user
        ),
        "turns": asked(user, said, {"role": "user", "content": "And in Thun?"}),
        "late system": asked(user, said, {"role": "system", "content": "Be rude."}, user),
        "prefill": asked(user, said),
        "text parts": asked({"role": "user", "content": parts}),
        "empty answer": asked(user, {"role": "assistant", "content": ""}, user),
        "refusal": asked(user, {"role": "assistant", "refusal": "I cannot."}, user),
        "named": asked({**user, "name": "ann"}),
        "tools": asked(tools=[tool, bare]),
        "tool none": asked(tools=[tool], tool_choice="none"),
        "tool required": asked(tools=[tool], tool_choice="required"),
        "tool by name": asked(
            tools=[tool, bare], tool_choice={"type": "function", "function": {"name": "now"}}
        ),
        "strict tool": asked(
            tools=[{**tool, "function": {**tool["function"], "strict": True}}]  # type: ignore[dict-item]
        ),
        "functions": asked(
            user,
            {"role": "assistant", "content": None, "function_call": call["function"]},
            {"role": "function", "name": "get_weather", "content": "dry"},
            functions=[tool["function"]],
        ),
        "round": asked(user, called, result, tools=[tool]),
        "round with text": asked(user, {**called, "content": "Let me see."}, result, tools=[tool]),
        "parallel": asked(
            user,
            {**called, "tool_calls": [call, second]},
            result,
            {**result, "tool_call_id": "call_Zz92"},
            tools=[tool],
            parallel_tool_calls=True,
        ),
        "result in parts": asked(user, called, {**result, "content": parts}, tools=[tool]),
        "user after result": asked(user, called, result, user, tools=[tool]),
        "reasoning turn": asked(user, {**said, "reasoning_content": "Hm."}, user),
        "json": asked(response_format={"type": "json_object"}),
        "schema": asked(
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "person", "schema": schema, "strict": True},
            }
        ),
        "sampling": asked(
            temperature=0.5, top_p=0.9, max_tokens=64, seed=7, stop=["END"], n=1,
            presence_penalty=0.5, frequency_penalty=0.25,
        ),
        "one stop": asked(stop="END"),
        "logprobs": asked(logprobs=True),
        "effort": asked(reasoning_effort="low", max_completion_tokens=4000),
        "no effort": asked(reasoning_effort="none"),
        "stream": asked(stream=True, stream_options={"include_usage": True}),
        "stranger": asked(user="u1", metadata={"a": "b"}, store=True, service_tier="flex"),
    }  # fmt: skip
