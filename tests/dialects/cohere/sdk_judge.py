"""Run by the interpreter of ``.venvs/cohere``: the SDK's own types read what we send and get.

From standard input ``{requests, embeds, replies, embedded, events}``; to standard output each of
them as the types read it and wrote it again, or what is wrong with a request under ``fault``. A
member of a request that the types do not know is an error. There is no model of a whole request: the parameters of the client's methods are it.
"""

import inspect
import json
import sys
import typing

import pydantic
from cohere.types import EmbedByTypeResponse
from cohere.v2.client import V2Client
from cohere.v2.types import V2ChatResponse, V2ChatStreamResponse


def request_model(method):
    hints = typing.get_type_hints(method)
    members = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if name not in ("self", "request_options"):
            required = parameter.default is inspect.Parameter.empty
            members[name] = (hints[name], ... if required else None)
    members["stream"] = (bool, None)
    return pydantic.create_model("Request", __config__={"extra": "forbid"}, **members)


def strangers(value, path=""):
    if isinstance(value, pydantic.BaseModel):
        for name in value.model_extra or ():
            yield f"{path}.{name}"
        for name in value.model_fields_set:
            yield from strangers(getattr(value, name, None), f"{path}.{name}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from strangers(item, f"{path}[{i}]")


def read(kind, body, strict=False):
    adapter = pydantic.TypeAdapter(kind)
    value = adapter.validate_python(body)
    unknown = list(strangers(value))
    if unknown and strict:
        raise ValueError(f"unknown members: {unknown}")
    return adapter.dump_python(value, mode="json", by_alias=True, exclude_unset=True)


def known(kind, body):
    """Read what we send; what is wrong with it goes under ``fault``."""
    try:
        return read(kind, body, strict=True)
    except ValueError as error:
        return {"fault": str(error)[:2000]}


def main():
    given = json.load(sys.stdin)
    chat, embed = request_model(V2Client.chat), request_model(V2Client.embed)
    told = {
        "requests": [known(chat, body) for body in given["requests"]],
        "embeds": [known(embed, body) for body in given["embeds"]],
        "replies": [read(V2ChatResponse, body) for body in given["replies"]],
        "embedded": [read(EmbedByTypeResponse, body) for body in given["embedded"]],
        "events": [read(V2ChatStreamResponse, body) for body in given["events"]],
    }
    json.dump(told, sys.stdout)


main()
