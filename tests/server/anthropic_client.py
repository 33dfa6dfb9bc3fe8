"""Drives a running server with the official ``anthropic`` SDK of this interpreter.

    python anthropic_client.py http://127.0.0.1:PORT KEY

Prints one JSON object a case: ``{"case", "ok", "detail"}``. It knows nothing of this project and
imports only ``anthropic`` and what that brings along. The models ``chat``, ``tools``, ``eyes`` are served by a provider that
speaks the OpenAI API, ``native`` by one that speaks this API.
"""

import asyncio
import sys
from collections.abc import Callable

import anthropic
import pydantic
from anthropic import Anthropic, AsyncAnthropic
from sdk_cases import CASES, case, equal, main

BASE, KEY = sys.argv[1], sys.argv[2]
HELLO = [{"role": "user", "content": "Hello"}]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
AUTO = {"X-AI-Multi-Provider": "enabled", "X-AI-Quality-Threshold": "0.85"}
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


def client(**options) -> Anthropic:
    return Anthropic(**{"base_url": BASE, "api_key": KEY, "timeout": 30, **options})


def text(message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def ask(model: str = "chat", **more) -> dict:
    return {"model": model, "max_tokens": 64, "messages": HELLO, **more}


# --- answers -------------------------------------------------------------------------------------


def whole(model: str, served: str) -> None:
    message = client().messages.create(**ask(model))
    equal((message.type, message.role, message.model), ("message", "assistant", model))
    equal(text(message), f"served by {served}")
    equal(message.stop_reason, "end_turn")
    equal((message.usage.input_tokens, message.usage.output_tokens), (9, 12))
    equal(message.id.startswith("msg_"), True)
    equal(bool(message._request_id), True)
    equal(message.model_extra["x-aiproxy"]["provider"], served)


def streamed(model: str, served: str) -> None:
    with client().messages.stream(**ask(model)) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    equal("".join(pieces).strip(), f"served by {served}")
    equal(text(final).strip(), f"served by {served}")
    equal((final.stop_reason, final.model), ("end_turn", model))
    equal((final.usage.input_tokens, final.usage.output_tokens), (9, 12))


def events(model: str, served: str) -> None:
    kinds = [event.type for event in client().messages.create(stream=True, **ask(model))]
    equal(kinds[:2], ["message_start", "content_block_start"])
    equal(kinds[-3:], ["content_block_stop", "message_delta", "message_stop"])
    equal(set(kinds[2:-3]), {"content_block_delta"})


for _model, _served in (("chat", "a"), ("native", "native")):
    for _run in (whole, streamed, events):
        CASES[f"{_run.__name__}_{_model}"] = lambda r=_run, m=_model, s=_served: r(m, s)


@case
def auto_with_headers() -> None:
    raw = client().messages.with_raw_response.create(extra_headers=AUTO, **ask("auto"))
    equal(raw.headers["x-ai-provider-used"], "b")
    equal((text(raw.parse()), raw.parse().model), ("served by b", "auto"))


@case
def auto_with_headers_stream() -> None:
    with client().messages.stream(extra_headers=AUTO, **ask("auto")) as stream:
        equal(stream.response.headers["x-ai-provider-used"], "b")
        equal(text(stream.get_final_message()).strip(), "served by b")


@case
def asynchronous() -> None:
    async def run() -> tuple:
        async with AsyncAnthropic(base_url=BASE, api_key=KEY) as link:
            message = await link.messages.create(**ask())
            async with link.messages.stream(**ask()) as stream:
                pieces = [piece async for piece in stream.text_stream]
            return text(message), "".join(pieces).strip()

    equal(asyncio.run(run()), ("served by a", "served by a"))


@case
def key_in_its_own_header() -> None:
    link = client(api_key=None, auth_token=None, default_headers={"X-Api-Key": KEY})
    equal(text(link.messages.create(**ask())), "served by a")


# --- tools, images -------------------------------------------------------------------------------


def tools_round(stream: bool) -> None:
    turns = [{"role": "user", "content": "Weather in Paris and Rome?"}]

    def turn():
        options = ask("tools", messages=turns, tools=[WEATHER], system="Be brief.")
        if not stream:
            return client().messages.create(**options)
        with client().messages.stream(**options) as held:
            return held.get_final_message()

    first = turn()
    equal(first.stop_reason, "tool_use")
    calls = [block for block in first.content if block.type == "tool_use"]
    equal([(c.name, c.input) for c in calls], [("weather", {"city": c}) for c in ("Paris", "Rome")])
    equal(len({call.id for call in calls}), 2)
    turns.append({"role": "assistant", "content": first.content})
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": f"sunny in {call.input['city']}"}
        for call in calls
    ]
    turns.append({"role": "user", "content": results})
    last = turn()
    equal(last.stop_reason, "end_turn")
    equal(text(last).strip(), "sunny in Paris, sunny in Rome")


@case
def tools() -> None:
    tools_round(False)


@case
def tools_stream() -> None:
    tools_round(True)


@case
def image() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content = [{"type": "text", "text": "What is it?"}, {"type": "image", "source": source}]
    message = client().messages.create(
        **ask("eyes", messages=[{"role": "user", "content": content}])
    )
    equal(text(message), "data:image/png;base64," + PIXEL)


@case
def schema() -> None:
    class City(pydantic.BaseModel):
        city: str

    message = client().messages.parse(output_format=City, **ask("shaped"))
    equal(message.parsed_output, City(city="Paris"))


# --- counting, models ----------------------------------------------------------------------------


@case
def count_tokens() -> None:
    raw = client().messages.with_raw_response.count_tokens(model="chat", messages=HELLO)
    equal(raw.headers["x-aiproxy-estimated"], "true")
    few = raw.parse().input_tokens
    more = client().messages.count_tokens(
        model="auto", system="Be brief.", messages=HELLO * 3, tools=[WEATHER]
    )
    equal(0 < few < more.input_tokens, True)


@case
def models() -> None:
    rows = list(client().models.list())
    equal({row.id for row in rows} >= {"chat", "native", "only-b"}, True)
    equal({row.type for row in rows}, {"model"})
    equal(client().models.retrieve("chat").id, "chat")


# --- errors --------------------------------------------------------------------------------------


def raises(kind: str, told: str, call: Callable) -> anthropic.APIStatusError:
    """The error's class is ``kind`` (any class of its parents will do in older versions)."""
    try:
        call()
    except anthropic.APIStatusError as error:
        if kind not in [parent.__name__ for parent in type(error).__mro__]:
            raise AssertionError(f"found {type(error).__name__}: {error}") from error
        equal(error.body["type"], "error")
        equal(error.body["error"]["type"], told)
        equal(bool(error.request_id), True)
        return error
    raise AssertionError("nothing was raised")


def asking(model: str = "chat", link: Anthropic | None = None, **more) -> Callable:
    link = link or client(max_retries=0)
    return lambda: link.messages.create(**ask(model, **more))


@case
def error_bad_request() -> None:
    raises("BadRequestError", "invalid_request_error", asking(max_tokens="many"))
    raises("BadRequestError", "invalid_request_error", asking(messages=[]))
    odd = [{"role": "user", "content": [{"type": "image", "source": {"type": "base64"}}]}]
    error = raises("BadRequestError", "invalid_request_error", asking(messages=odd))
    equal("messages[0].content[0].source" in str(error), True)


@case
def error_bad_header() -> None:
    bad = {"X-AI-Cost-Limit": "much"}
    error = raises("BadRequestError", "invalid_request_error", asking(extra_headers=bad))
    equal("X-AI-Cost-Limit" in str(error), True)


@case
def error_authentication() -> None:
    stranger = client(api_key="wrong", max_retries=0)
    raises("AuthenticationError", "authentication_error", asking(link=stranger))
    raises("AuthenticationError", "authentication_error", lambda: stranger.models.list())


@case
def error_not_found() -> None:
    raises("NotFoundError", "not_found_error", asking("no-such"))
    raises("NotFoundError", "not_found_error", lambda: client().models.retrieve("no-such"))
    raises(
        "NotFoundError",
        "not_found_error",
        lambda: client().messages.count_tokens(model="no-such", messages=HELLO),
    )


@case
def error_rate_limit() -> None:
    error = raises("RateLimitError", "rate_limit_error", asking("limited"))
    equal(bool(error.response.headers["retry-after"]), True)


@case
def error_overloaded() -> None:
    error = raises("InternalServerError", "overloaded_error", asking("overloaded"))
    equal(error.status_code, 529)


@case
def error_server() -> None:
    raises("InternalServerError", "api_error", asking("broken"))


@case
def error_in_a_stream() -> None:
    seen = []
    try:
        for event in client().messages.create(stream=True, **ask("cut")):
            seen.append(event.type)
    except anthropic.APIStatusError as error:
        equal(error.body["error"]["type"], "api_error")
        equal("content_block_delta" in seen, True)
        return
    raise AssertionError("a cut stream passed for whole")


if __name__ == "__main__":
    main(anthropic.__version__)
