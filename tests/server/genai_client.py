"""Drives a running server with the official ``google-genai`` SDK of this interpreter.

    python genai_client.py http://127.0.0.1:PORT KEY

Prints one JSON object a case: ``{"case", "ok", "detail"}``. It knows nothing of this project and
imports only ``google.genai``, what that brings along, and the standard library. The models ``chat``, ``tools``, ``eyes`` are
served by a provider that speaks the OpenAI API, ``native`` by one that speaks this API.
"""

import asyncio
import base64
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable

import pydantic
from google import genai
from google.genai import errors, types
from sdk_cases import CASES, case, equal, main

BASE, KEY = sys.argv[1], sys.argv[2]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
AUTO = {"X-AI-Multi-Provider": "enabled", "X-AI-Quality-Threshold": "0.85"}
WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            description="The weather of a city.",
            parameters=types.Schema(
                type="OBJECT", properties={"city": types.Schema(type="STRING")}, required=["city"]
            ),
        )
    ]
)
#: A client that nobody holds closes its connections, also under a call that is going on.
HELD: list[genai.Client] = []


def client(key: str = KEY, **headers) -> genai.Client:
    options = types.HttpOptions(base_url=BASE, timeout=30_000, headers=headers or None)
    HELD.append(genai.Client(api_key=key, http_options=options))
    return HELD[-1]


def config(**options) -> types.GenerateContentConfig:
    off = types.AutomaticFunctionCallingConfig(disable=True)
    return types.GenerateContentConfig(automatic_function_calling=off, **options)


# --- answers -------------------------------------------------------------------------------------


def whole(model: str, served: str) -> None:
    reply = client().models.generate_content(
        model=model, contents="Hello", config=config(max_output_tokens=64, temperature=0.5)
    )
    equal(reply.text, f"served by {served}")
    equal(reply.model_version, model)
    equal(reply.candidates[0].finish_reason, types.FinishReason.STOP)
    usage = reply.usage_metadata
    equal((usage.prompt_token_count, usage.candidates_token_count), (9, 12))
    equal(usage.total_token_count, 21)
    equal(bool(reply.response_id), True)
    equal(bool(reply.sdk_http_response.headers["x-request-id"]), True)


def streamed(model: str, served: str) -> None:
    chunks = list(client().models.generate_content_stream(model=model, contents="Hello"))
    equal("".join(chunk.text or "" for chunk in chunks).strip(), f"served by {served}")
    equal(chunks[-1].candidates[0].finish_reason, types.FinishReason.STOP)
    equal(chunks[-1].usage_metadata.total_token_count, 21)
    equal({chunk.model_version for chunk in chunks}, {model})


for _model, _served in (("chat", "a"), ("native", "native")):
    for _run in (whole, streamed):
        CASES[f"{_run.__name__}_{_model}"] = lambda r=_run, m=_model, s=_served: r(m, s)


@case
def auto_with_headers() -> None:
    reply = client(**AUTO).models.generate_content(model="auto", contents="Hello")
    equal((reply.text, reply.model_version), ("served by b", "auto"))
    equal(reply.sdk_http_response.headers["x-ai-provider-used"], "b")


@case
def auto_with_headers_stream() -> None:
    chunks = list(client(**AUTO).models.generate_content_stream(model="auto", contents="Hello"))
    equal("".join(chunk.text or "" for chunk in chunks).strip(), "served by b")
    equal(chunks[0].sdk_http_response.headers["x-ai-provider-used"], "b")


@case
def asynchronous() -> None:
    async def run() -> tuple:
        link = client().aio
        reply = await link.models.generate_content(model="chat", contents="Hello")
        stream = await link.models.generate_content_stream(model="chat", contents="Hello")
        pieces = [chunk.text or "" async for chunk in stream]
        return reply.text, "".join(pieces).strip()

    equal(asyncio.run(run()), ("served by a", "served by a"))


@case
def slow_stream() -> None:
    """Its silences are filled with signs of life."""
    chunks = list(client().models.generate_content_stream(model="slow", contents="Hello"))
    equal("".join(chunk.text or "" for chunk in chunks).strip(), "served by slow")


@case
def chat_session() -> None:
    chat = client().chats.create(model="chat", config=config(system_instruction="Be brief."))
    equal(chat.send_message("Hello").text, "served by a")
    pieces = [chunk.text or "" for chunk in chat.send_message_stream("Again")]
    equal("".join(pieces).strip(), "served by a")
    equal([turn.role for turn in chat.get_history()][:4], ["user", "model", "user", "model"])


# --- tools, images, schemas ----------------------------------------------------------------------


def tools_round(stream: bool) -> None:
    turns = [types.UserContent(parts=[types.Part(text="Weather in Paris and Rome?")])]

    def turn() -> types.Content:
        options = {"model": "tools", "contents": turns, "config": config(tools=[WEATHER])}
        if not stream:
            return client().models.generate_content(**options).candidates[0].content
        parts = []
        for chunk in client().models.generate_content_stream(**options):
            content = chunk.candidates[0].content
            parts += (content.parts or []) if content else []
        return types.ModelContent(parts=parts)

    first = turn()
    calls = [part.function_call for part in first.parts if part.function_call]
    equal([(c.name, c.args) for c in calls], [("weather", {"city": c}) for c in ("Paris", "Rome")])
    turns.append(first)
    results = [
        types.Part(
            function_response=types.FunctionResponse(
                id=call.id, name=call.name, response={"output": f"sunny in {call.args['city']}"}
            )
        )
        for call in calls
    ]
    turns.append(types.UserContent(parts=results))
    last = "".join(part.text or "" for part in turn().parts)
    equal("sunny in Paris" in last and "sunny in Rome" in last, True)


@case
def tools() -> None:
    tools_round(False)


@case
def tools_stream() -> None:
    tools_round(True)


@case
def tools_called_by_the_sdk() -> None:
    def weather(city: str) -> str:
        """The weather of a city."""
        return f"sunny in {city}"

    options = types.GenerateContentConfig(tools=[weather])
    reply = client().models.generate_content(model="tools", contents="Weather?", config=options)
    equal("sunny in Paris" in reply.text and "sunny in Rome" in reply.text, True)


@case
def image() -> None:
    picture = types.Part.from_bytes(data=base64.b64decode(PIXEL), mime_type="image/png")
    reply = client().models.generate_content(model="eyes", contents=["What is it?", picture])
    kind, _, data = reply.text.partition(",")
    equal((kind, base64.b64decode(data)), ("data:image/png;base64", base64.b64decode(PIXEL)))


@case
def schema() -> None:
    class City(pydantic.BaseModel):
        city: str

    options = config(response_mime_type="application/json", response_schema=City)
    reply = client().models.generate_content(model="shaped", contents="Where?", config=options)
    equal(reply.parsed, City(city="Paris"))


# --- counting, models ----------------------------------------------------------------------------


@case
def count_tokens() -> None:
    few = client().models.count_tokens(model="chat", contents="Hello")
    equal(few.sdk_http_response.headers["x-aiproxy-estimated"], "true")
    more = client().models.count_tokens(model="auto", contents="Hello " * 50)
    equal(0 < few.total_tokens < more.total_tokens, True)


@case
def models() -> None:
    rows = list(client().models.list())
    names = {row.name for row in rows}
    equal(names >= {"models/chat", "models/native", "models/only-b"}, True)
    equal(client().models.get(model="chat").name, "models/chat")
    equal("generateContent" in client().models.get(model="models/chat").supported_actions, True)


# --- without the SDK: what other clients of this API do ------------------------------------------


def post(path: str, body: dict | None = None, headers: dict | None = None):
    body = body or {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
    request = urllib.request.Request(
        f"{BASE}/v1beta/models/{path}",  # where older versions of the SDK ask
        json.dumps(body).encode(),
        {"content-type": "application/json", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.headers, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read())


@case
def key_in_the_query() -> None:
    status, _, body = post(f"chat:generateContent?key={KEY}")
    equal((status, body["candidates"][0]["content"]["parts"][0]["text"]), (200, "served by a"))
    status, _, body = post("chat:generateContent?key=wrong")
    equal((status, body["error"]["status"]), (401, "UNAUTHENTICATED"))


@case
def stream_as_an_array() -> None:
    status, headers, rows = post(f"chat:streamGenerateContent?key={KEY}")
    equal((status, headers["content-type"].partition(";")[0]), (200, "application/json"))
    said = [part.get("text", "") for r in rows for part in r["candidates"][0]["content"]["parts"]]
    equal("".join(said).strip(), "served by a")
    equal(rows[-1]["candidates"][0]["finishReason"], "STOP")
    status, _, rows = post(f"no-such:streamGenerateContent?key={KEY}")
    equal((status, [row["error"]["code"] for row in rows]), (404, [404]))


# --- errors --------------------------------------------------------------------------------------


def raises(kind: type, code: int, status: str, call: Callable) -> errors.APIError:
    try:
        call()
    except errors.APIError as error:
        if type(error) is not kind:
            raise AssertionError(f"found {type(error).__name__}: {error}") from error
        equal((error.code, error.status), (code, status))
        return error
    raise AssertionError("nothing was raised")


def asking(model: str = "chat", link: genai.Client | None = None, **more) -> Callable:
    options = {"model": model, "contents": "Hello", **more}
    return lambda: (link or client()).models.generate_content(**options)


@case
def error_bad_request() -> None:
    call = asking(config=config(max_output_tokens=-1))
    error = raises(errors.ClientError, 400, "INVALID_ARGUMENT", call)
    equal("generationConfig.maxOutputTokens" in error.message, True)


@case
def error_bad_header() -> None:
    link = client(**{"X-AI-Cost-Limit": "much"})
    error = raises(errors.ClientError, 400, "INVALID_ARGUMENT", asking(link=link))
    equal("X-AI-Cost-Limit" in error.message, True)


@case
def error_authentication() -> None:
    stranger = client("wrong")
    raises(errors.ClientError, 401, "UNAUTHENTICATED", asking(link=stranger))
    raises(errors.ClientError, 401, "UNAUTHENTICATED", lambda: list(stranger.models.list()))


@case
def error_not_found() -> None:
    raises(errors.ClientError, 404, "NOT_FOUND", asking("no-such"))
    raises(errors.ClientError, 404, "NOT_FOUND", lambda: client().models.get(model="no-such"))
    raises(
        errors.ClientError,
        404,
        "NOT_FOUND",
        lambda: client().models.count_tokens(model="no-such", contents="x"),
    )


@case
def error_rate_limit() -> None:
    raises(errors.ClientError, 429, "RESOURCE_EXHAUSTED", asking("limited"))


@case
def error_overloaded() -> None:
    raises(errors.ServerError, 503, "UNAVAILABLE", asking("overloaded"))


@case
def error_server() -> None:
    raises(errors.ServerError, 502, "INTERNAL", asking("broken"))


@case
def error_in_a_stream() -> None:
    seen = []
    try:
        for chunk in client().models.generate_content_stream(model="cut", contents="Hello"):
            seen.append(chunk.text)
    except errors.ServerError as error:
        equal(bool(seen), True)
        equal(error.code >= 500, True)
        return
    raise AssertionError("a cut stream passed for whole")


if __name__ == "__main__":
    main(genai.__version__)
