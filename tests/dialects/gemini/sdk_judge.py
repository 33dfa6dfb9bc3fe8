"""Run by the interpreter of ``.venvs/google-genai``: the SDK's own types read what we send and get.

From standard input ``{requests, replies, streams, errors}``; to standard output each request and
reply as the types read it, and what the SDK's own client makes of whole streams and errors. The
types refuse members they do not know.
"""

import json
import sys
import warnings

import httpx2 as httpx
from google.genai import Client, errors, types

NESTED = {"systemInstruction": "system_instruction", "tools": "tools", "toolConfig": "tool_config",
          "safetySettings": "safety_settings", "cachedContent": "cached_content",
          "labels": "labels", "serviceTier": "service_tier"}  # fmt: skip


def request(body):
    """Read a body as its contents and the one config object that the SDK has for the rest."""
    strangers = body.keys() - NESTED.keys() - {"contents", "generationConfig"}
    if strangers:
        raise ValueError(f"no such member: {sorted(strangers)}")
    config = dict(body.get("generationConfig", {}))
    for name, python in NESTED.items():
        if name in body:
            config[python] = body[name]
    read = types.GenerateContentConfig.model_validate(config)
    contents = [types.Content.model_validate(content) for content in body["contents"]]
    for content in contents:
        assert content.role in ("user", "model"), content.role
        for part in content.parts:
            # The role of a part is decided by its one member of data.
            data = part.model_dump(exclude_none=True).keys()
            assert len(data - {"thought", "thought_signature", "video_metadata"}) == 1, data
    for tool in read.tools or ():
        for function in tool.function_declarations or ():
            assert not (function.parameters and function.parameters_json_schema)
    assert not (read.response_schema and read.response_json_schema)
    return {
        "contents": [c.model_dump(exclude_none=True, by_alias=True, mode="json") for c in contents],
        "config": read.model_dump(exclude_none=True, by_alias=True, mode="json"),
    }


def client(answer):
    """A client whose every request is answered with ``answer(request)``."""
    transport = httpx.MockTransport(answer)
    options = types.HttpOptions(
        base_url="http://test", httpx_client=httpx.Client(transport=transport)
    )
    return Client(api_key="k", http_options=options)


def reply(body):
    def answer(request):
        return httpx.Response(200, json=body)

    read = client(answer).models.generate_content(model="m", contents="hi")
    return {
        "text": "".join(p.text or "" for c in read.candidates or () for p in c.content.parts or ()
                        if not p.thought),
        "calls": [[c.id, c.name, c.args] for c in read.function_calls or ()],
        "finish": [c.finish_reason.value for c in read.candidates or ()],
        "model": read.model_version,
        "total": read.usage_metadata.total_token_count if read.usage_metadata else None,
        "back": [c.content.model_dump(exclude_none=True, by_alias=True, mode="json")
                 for c in read.candidates or () if c.content],
    }  # fmt: skip


def stream(wire):
    def answer(request):
        headers = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=headers, content=wire.encode())

    told = {"text": "", "thoughts": "", "calls": [], "finish": {}, "total": None, "raised": None}
    told["back"] = []
    try:
        for chunk in client(answer).models.generate_content_stream(model="m", contents="hi"):
            for candidate in chunk.candidates or ():
                for part in (candidate.content and candidate.content.parts) or ():
                    told["back"].append(
                        part.model_dump(exclude_none=True, by_alias=True, mode="json")
                    )
                    if part.text:
                        told["thoughts" if part.thought else "text"] += part.text
                    if part.function_call:
                        call = part.function_call
                        told["calls"].append([call.id, call.name, call.args])
                if candidate.finish_reason:
                    told["finish"][str(candidate.index or 0)] = candidate.finish_reason.value
            if chunk.usage_metadata:
                told["total"] = chunk.usage_metadata.total_token_count
    except errors.APIError as error:
        told["raised"] = [type(error).__name__, error.code, error.status, error.message]
    return told


def error(given):
    def answer(request):
        return httpx.Response(given["status"], json=given["body"])

    try:
        client(answer).models.generate_content(model="m", contents="hi")
    except errors.APIError as raised:
        return [type(raised).__name__, raised.code, raised.status, raised.message]
    return None


def count(body):
    def answer(request):
        return httpx.Response(200, json=body)

    return client(answer).models.count_tokens(model="m", contents="hi").total_tokens


def main():
    warnings.simplefilter("ignore")
    given = json.load(sys.stdin)
    readers = {"requests": request, "replies": reply, "streams": stream, "errors": error,
               "counts": count}  # fmt: skip
    told = {}
    for name, values in given.items():
        told[name] = []
        for value in values:
            try:
                told[name].append(readers[name](value))
            except (
                ValueError,
                TypeError,
                AssertionError,
                AttributeError,
                errors.APIError,
            ) as fault:
                told[name].append({"fault": f"{type(fault).__name__}: {fault}"[:1500]})
    json.dump(told, sys.stdout)


main()
