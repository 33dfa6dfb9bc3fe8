"""Run by the interpreter that has the official SDK: judge what stands in a file of JSON, or in
standard input where no file is named.

Every entry is ``{"as": request | message | event | error, "value": ...}``; printed is, for each, null
or what is wrong. ``"as": "stream"`` entries are wires, fed to the SDK's own client; printed is the
message it puts together, or the error it raises.
"""

import json
import sys
import typing
import warnings

# The parameter types say Iterable, which pydantic takes on trust; as lists they are looked into.
typing.Iterable = list

import httpx2
import typing_extensions
from anthropic import Anthropic, APIStatusError
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_count_tokens_params import MessageCountTokensParams
from anthropic.types.message_create_params import (
    MessageCreateParamsNonStreaming,
    MessageCreateParamsStreaming,
)
from anthropic.types.message_tokens_count import MessageTokensCount
from anthropic.types.shared import ErrorResponse
from pydantic import ConfigDict, TypeAdapter, ValidationError

# What is not a member of a parameter type is a fault, at any depth.
for name, module in list(sys.modules.items()):
    if name.startswith("anthropic.types"):
        for found in vars(module).values():
            if typing_extensions.is_typeddict(found):
                found.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

ADAPTERS = {
    "message": TypeAdapter(Message),
    "event": TypeAdapter(RawMessageStreamEvent),
    "error": TypeAdapter(ErrorResponse),
    "count": TypeAdapter(MessageTokensCount),
    "count_request": TypeAdapter(MessageCountTokensParams),
    True: TypeAdapter(MessageCreateParamsStreaming),
    False: TypeAdapter(MessageCreateParamsNonStreaming),
}
#: Taken by the older models, though the newest SDK no longer names them.
CLASSIC = {"temperature", "top_p", "top_k"}
MEMBERS = set(MessageCreateParamsStreaming.__annotations__)
for base in MessageCreateParamsStreaming.__orig_bases__:
    MEMBERS |= set(getattr(base, "__annotations__", {}))


def judge(kind, value):
    if kind == "request":
        stranger = set(value) - MEMBERS - CLASSIC
        if stranger:
            return f"no such member: {sorted(stranger)}"
        kind = bool(value.get("stream"))
        value = {k: v for k, v in value.items() if k in MEMBERS}
    try:
        ADAPTERS[kind].validate_python(value)
    except ValidationError as error:
        return str(error)[:2000]
    return None


def run(wire):
    def answer(request):
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, content=wire.encode())

    client = Anthropic(
        api_key="k",
        base_url="http://test",
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
        max_retries=0,
    )
    asked = {"role": "user", "content": "hi"}
    try:
        with client.messages.stream(model="m", max_tokens=9, messages=[asked]) as stream:
            return stream.get_final_message().model_dump(mode="json")
    except APIStatusError as error:
        return {"raised": type(error).__name__, "body": error.body}


def main():
    warnings.simplefilter("ignore")
    with open(sys.argv[1]) if len(sys.argv) > 1 else sys.stdin as file:
        entries = json.load(file)
    told = [run(e["value"]) if e["as"] == "stream" else judge(e["as"], e["value"]) for e in entries]
    print(json.dumps(told))


main()
