"""Run by the interpreter of the newest ``.venvs/openai-N``: the SDK's own types read what we send
upstream and what our clients get.

From standard input lists of values by kind; to standard output, for each value, null or what is
wrong with it. ``chat_request`` and ``responses_request`` are bodies that we send; ``completion``,
``chunk``, ``response`` and ``event`` what a client is told, read strictly (nothing is converted);
``chat_wire`` and ``responses_wire`` are whole streams, put together by the SDK's own client.
"""

import json
import sys
import typing

# The parameter types say Iterable, which pydantic takes on trust; as lists they are looked into.
typing.Iterable = list

import httpx2
import typing_extensions
from openai import ContentFilterFinishReasonError, LengthFinishReasonError, OpenAI, OpenAIError
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParams
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParams
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

# What is not a member of a parameter type is a fault, at any depth.
for name, module in list(sys.modules.items()):
    if name.startswith("openai.types"):
        for found in vars(module).values():
            if typing_extensions.is_typeddict(found):
                found.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

REQUESTS = {
    "chat_request": TypeAdapter(CompletionCreateParams),
    "responses_request": TypeAdapter(ResponseCreateParams),
}
ANSWERS = {
    "completion": TypeAdapter(ChatCompletion),
    "chunk": TypeAdapter(ChatCompletionChunk),
    "response": TypeAdapter(Response),
    "event": TypeAdapter(ResponseStreamEvent),
}


def strangers(value, path=""):
    """Members that the models keep without knowing them."""
    if isinstance(value, BaseModel):
        for name in value.model_extra or ():
            yield f"{path}.{name}".removeprefix(".")
        for name in value.model_fields_set:
            yield from strangers(getattr(value, name, None), f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from strangers(item, f"{path}[]")


def request(kind, body):
    try:
        REQUESTS[kind].validate_json(json.dumps(body))
    except ValidationError as error:
        return str(error)[:3000]
    return None


def answer(kind, body):
    try:
        read = ANSWERS[kind].validate_json(json.dumps(body), strict=True)
    except ValidationError as error:
        return str(error)[:3000]
    unknown = sorted(set(strangers(read)))
    return f"unknown: {' '.join(unknown)}" if unknown else None


def wire(kind, text):
    def reply(request):
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, content=text.encode())

    http = httpx2.Client(transport=httpx2.MockTransport(reply))
    client = OpenAI(api_key="k", base_url="http://test/v1", http_client=http, max_retries=0)
    try:
        if kind == "chat_wire":
            with client.chat.completions.stream(model="m", messages=[]) as stream:
                stream.get_final_completion()
        else:
            with client.responses.stream(model="m", input="hi") as stream:
                last = [event.type for event in stream][-1]
            if last not in ("response.completed", "response.incomplete"):
                return f"ended with {last}"
    except (LengthFinishReasonError, ContentFilterFinishReasonError):
        return None  # the SDK's way to tell of a complete stream that the model did not finish
    except (OpenAIError, RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        return f"{type(error).__name__}: {error}"[:2000]
    return None


def main():
    told = {}
    for kind, values in json.load(sys.stdin).items():
        judge = request if kind in REQUESTS else answer if kind in ANSWERS else wire
        told[kind] = [judge(kind, value) for value in values]
    json.dump(told, sys.stdout)


main()
