"""Drives a running server with whatever version of the official SDK this interpreter has.

    python sdk_client.py http://127.0.0.1:PORT KEY

Prints one JSON object a case: ``{"case", "ok", "detail"}``. It knows nothing of this project and
imports only ``openai``, so that it runs in an environment of any of its major versions.
"""

import asyncio
import base64
import struct
import sys
from collections.abc import Callable

import openai
from openai import AsyncOpenAI, OpenAI
from sdk_cases import CASES, case, equal, main

BASE, KEY = sys.argv[1] + "/v1", sys.argv[2]
HELLO = [{"role": "user", "content": "Hello"}]
DRAFT = {"messages": HELLO}
AUTO = {"X-AI-Multi-Provider": "enabled", "X-AI-Quality-Threshold": "0.85"}


def client(**options) -> OpenAI:
    return OpenAI(base_url=BASE, api_key=KEY, timeout=30, **options)


# --- chat ----------------------------------------------------------------------------------------


@case
def chat() -> None:
    reply = client().chat.completions.create(model="shared", messages=HELLO)
    equal(reply.choices[0].message.content, "served by a")
    equal(reply.choices[0].finish_reason, "stop")
    equal(reply.usage.total_tokens, 21)
    equal(reply.model_extra["x-aiproxy"]["provider"], "a")


@case
def chat_with_headers() -> None:
    raw = client().chat.completions.with_raw_response.create(
        model="auto", messages=HELLO, extra_headers=AUTO
    )
    equal(raw.headers["x-ai-provider-used"], "b")
    equal(raw.parse().choices[0].message.content, "served by b")
    equal(raw.parse().model, "auto")


@case
def chat_stream() -> None:
    stream = client().chat.completions.create(
        model="shared", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    equal(text, "served by a ")
    equal([c.choices[0].finish_reason for c in chunks if c.choices][-1], "stop")
    equal([c.usage.total_tokens for c in chunks if c.usage], [21])


@case
def chat_async() -> None:
    async def run() -> str:
        async with AsyncOpenAI(base_url=BASE, api_key=KEY) as link:
            reply = await link.chat.completions.create(model="only-b", messages=HELLO)
            return reply.choices[0].message.content

    equal(asyncio.run(run()), "served by b")


@case
def chat_stream_async() -> None:
    async def run() -> str:
        async with AsyncOpenAI(base_url=BASE, api_key=KEY) as link:
            stream = await link.chat.completions.create(model="shared", messages=HELLO, stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    equal(asyncio.run(run()), "served by a ")


@case
def chat_stream_left_early() -> None:
    with client().chat.completions.create(model="shared", messages=HELLO, stream=True) as stream:
        next(iter(stream))


# --- responses: "shared" is translated to chat, "only-b" is native ------------------------------


def responses_create(model: str, text: str) -> None:
    reply = client().responses.create(model=model, input="Hello")
    equal((reply.object, reply.status, reply.output_text), ("response", "completed", text))
    equal(reply.usage.output_tokens, 12)


def responses_create_stream(model: str, text: str) -> None:
    events = list(client().responses.create(model=model, input="Hello", stream=True))
    equal((events[0].type, events[-1].type), ("response.created", "response.completed"))
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    equal("".join(deltas), text)
    equal([e.sequence_number for e in events], list(range(len(events))))


def responses_stream(model: str, text: str) -> None:
    with client().responses.stream(model=model, input="Hello") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    equal((kinds[-1], final.output_text), ("response.completed", text))


for _model, _name, _whole, _streamed in (
    ("shared", "translated", "served by a", "served by a "),
    ("only-b", "native", "served by b", "served by b "),
):
    CASES[f"responses_create_{_name}"] = lambda m=_model, t=_whole: responses_create(m, t)
    CASES[f"responses_create_stream_{_name}"] = lambda m=_model, t=_streamed: (
        responses_create_stream(m, t)
    )
    CASES[f"responses_stream_{_name}"] = lambda m=_model, t=_streamed: responses_stream(m, t)


@case
def responses_stream_async() -> None:
    async def run() -> str:
        link = AsyncOpenAI(base_url=BASE, api_key=KEY)
        async with link, link.responses.stream(model="shared", input="Hello") as stream:
            async for _ in stream:
                pass
            return (await stream.get_final_response()).output_text

    equal(asyncio.run(run()), "served by a ")


# --- the draft's shape ---------------------------------------------------------------------------


def draft_options() -> dict:
    return {"model": "auto", "extra_body": DRAFT, "extra_headers": AUTO}


@case
def draft_create() -> None:
    reply = client().responses.create(**draft_options())
    equal(reply.output_text, "served by b")
    equal(reply.model_extra["choices"][0]["message"]["content"], "served by b")
    equal(reply.usage.input_tokens, 9)


@case
def draft_stream() -> None:
    events = list(client().responses.create(stream=True, **draft_options()))
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    equal("".join(deltas), "served by b ")
    equal(events[-1].type, "response.completed")


# --- embeddings, models --------------------------------------------------------------------------


@case
def embeddings_default() -> None:
    reply = client().embeddings.create(model="vectors", input=["one", "two"])
    equal([row.embedding for row in reply.data], [[0.25, -0.5, 0.0], [0.25, -0.5, 1.0]])
    equal(reply.usage.total_tokens, 4)


@case
def embeddings_float() -> None:
    reply = client().embeddings.create(model="vectors", input="one", encoding_format="float")
    equal(reply.data[0].embedding, [0.25, -0.5, 0.0])


@case
def embeddings_base64() -> None:
    reply = client().embeddings.create(model="vectors", input="one", encoding_format="base64")
    packed = base64.b64decode(reply.data[0].embedding)
    equal(struct.unpack("<3f", packed), (0.25, -0.5, 0.0))


@case
def models_list() -> None:
    names = {model.id for model in client().models.list()}
    equal(names >= {"shared", "only-b", "vectors"}, True)


@case
def models_retrieve() -> None:
    equal(client().models.retrieve("shared").id, "shared")


# --- errors --------------------------------------------------------------------------------------


def raises(kind: type, code: str, call: Callable) -> openai.APIStatusError:
    try:
        call()
    except openai.APIStatusError as error:
        if type(error) is not kind:
            raise AssertionError(f"found {type(error).__name__}: {error}") from error
        equal(error.code, code)
        equal(bool(error.request_id), True)
        return error
    raise AssertionError("nothing was raised")


def ask(model: str = "shared", link: OpenAI | None = None, **more) -> Callable:
    link = link or client()
    return lambda: link.chat.completions.create(model=model, messages=HELLO, **more)


@case
def error_bad_request() -> None:
    error = raises(openai.BadRequestError, "invalid_type", ask(temperature="hot"))
    equal(error.param, "temperature")


@case
def error_bad_header() -> None:
    bad = {"X-AI-Cost-Limit": "much"}
    error = raises(openai.BadRequestError, "invalid_header_value", ask(extra_headers=bad))
    equal(error.param, "X-AI-Cost-Limit")


@case
def error_authentication() -> None:
    stranger = OpenAI(base_url=BASE, api_key="wrong")
    raises(openai.AuthenticationError, "invalid_api_key", ask(link=stranger))
    raises(openai.AuthenticationError, "invalid_api_key", lambda: stranger.models.list())


@case
def error_not_found() -> None:
    raises(openai.NotFoundError, "model_not_found", ask("no-such"))
    raises(openai.NotFoundError, "model_not_found", lambda: client().models.retrieve("no-such"))


@case
def error_unprocessable() -> None:
    strict = {"X-AI-Quality-Threshold": "0.999"}
    raises(
        openai.UnprocessableEntityError, "no_eligible_provider", ask("auto", extra_headers=strict)
    )


@case
def error_rate_limit() -> None:
    raises(openai.RateLimitError, "rate_limit_exceeded", ask("limited"))


@case
def error_server() -> None:
    raises(openai.InternalServerError, "all_providers_failed", ask("broken"))


@case
def error_in_a_stream() -> None:
    stream = client().chat.completions.create(model="cut", messages=HELLO, stream=True)
    try:
        for _ in stream:
            pass
    except openai.APIError as error:
        equal(error.code, "stream_interrupted")
        return
    raise AssertionError("a cut stream passed for whole")


if __name__ == "__main__":
    main(openai.__version__)
