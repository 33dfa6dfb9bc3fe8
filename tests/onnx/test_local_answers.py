"""From OpenAI bodies to sequences and back, over a runner that says what a test wants it to say."""

import asyncio
import http.client
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_runner import FakeRunner
from small_tokenizers import byte_level
from upstreams import free_port, serve_asgi

from aiproxy.middleware import Gateway
from aiproxy.reference_server.app import Server, falcon_app
from aiproxy.reference_server.configuration import read_config
from aiproxy.reference_server.onnx import (
    LocalBusy,
    LocalModel,
    LocalModels,
    ModelUnavailable,
    RequestRefused,
    Sampling,
    TextEngine,
)
from aiproxy.reference_server.onnx.local_model import RunningText
from aiproxy.reference_server.onnx.text import bridge
from aiproxy.reference_server.onnx.text.chat_template import Conversation
from aiproxy.reference_server.onnx.text.runner import Sequence
from aiproxy.reference_server.onnx.text.templates_jinja import JinjaTemplate
from aiproxy.reference_server.onnx.text.text_model import TextModel
from aiproxy.reference_server.onnx.text.tokenizing import TextTokenizer
from aiproxy.reference_server.onnx.text.tool_calls import CallReader, tool_format_of
from aiproxy.spec import validate

TEMPLATE = (Path(__file__).parent / "chat_templates" / "blocks.jinja").read_text()
TOKENIZER = TextTokenizer(
    byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], ["<tool_call>", "</tool_call>"]),
    TEMPLATE,
)
CALL = '<tool_call>\n{"name": "clock", "arguments": {"zone": "MEZ"}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "clock"}}]
HELLO = [{"role": "user", "content": "hello"}]
LONG_WAIT_S = 20.0


class Served:
    """One text model over a fake runner, in a registry of its own."""

    def __init__(
        self,
        answer: str | Callable[[Sequence], str],
        *,
        template: Any = "blocks",
        context: int = 2048,
        max_queue: int = 64,
        **more: Any,
    ) -> None:
        def ids(sequence: Sequence) -> Iterable[int]:
            return TOKENIZER.encode(answer if isinstance(answer, str) else answer(sequence))

        self.runner = FakeRunner(ids, context=context, **more)
        if template == "blocks":
            template = JinjaTemplate(TEMPLATE, TOKENIZER)
        tools = tool_format_of(TEMPLATE, "auto", TOKENIZER) if template is not None else None
        self.model = TextModel("fake", context, "fp_fake", Sampling(), TOKENIZER, template, tools)
        self.engine = TextEngine(self.runner, self.model.decode, max_queue=max_queue)
        entry = LocalModel(
            "fake", ("text-generation",), context, RunningText(self.model, self.engine)
        )
        numbers = iter(range(1000))
        self.models = LocalModels(
            (entry,), now=lambda: 1700000000.0, new_id=lambda: str(next(numbers))
        )

    def run(self, work: Callable[[LocalModels], Coroutine[Any, Any, Any]]) -> Any:
        """Run ``work`` on an event loop of its own and close the models in the end."""

        async def whole() -> Any:
            try:
                return await asyncio.wait_for(work(self.models), LONG_WAIT_S)
            finally:
                await self.models.close()

        return asyncio.run(whole())

    def chat(self, **fields: Any) -> Any:
        return self.run(lambda models: models.chat(asked(**fields)))

    def streamed(self, **fields: Any) -> list[dict[str, Any]]:
        async def work(models: LocalModels) -> list[dict[str, Any]]:
            return await collected(await models.chat(asked(stream=True, **fields)))

        chunks: list[dict[str, Any]] = self.run(work)
        for chunk in chunks:
            validate(chunk, "events/chat-chunk")
        return chunks


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "fake", "messages": HELLO, **fields}


async def collected(answer: Any) -> list[dict[str, Any]]:
    assert isinstance(answer, AsyncIterator)
    return [chunk async for chunk in answer]


def merged(chunks: list[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    """Return the message, finish reason and log probabilities that chunks of a choice add up to."""
    message: dict[str, Any] = {"role": None, "content": ""}
    calls: list[dict[str, Any]] = []
    rows: list[Any] = []
    reason = None
    for choice in (c for chunk in chunks for c in chunk["choices"] if c["index"] == index):
        delta = choice["delta"]
        message["role"] = message["role"] or delta.get("role")
        message["content"] += delta.get("content", "")
        for call in delta.get("tool_calls", ()):
            assert call["index"] == len(calls)
            calls.append({key: call[key] for key in ("id", "type", "function")})
        rows += (choice["logprobs"] or {"content": []})["content"]
        assert reason is None
        reason = choice["finish_reason"]
    if calls:
        message |= {"tool_calls": calls, "content": message["content"] or None}
    return {"message": message, "finish_reason": reason, "rows": rows}


def test_a_tool_call_comes_whole_and_streamed_in_openais_shape() -> None:
    whole = Served(f"One moment.\n{CALL}\n{CALL}").chat(tools=TOOLS)
    validate(whole, "responses/chat")
    (choice,) = whole["choices"]
    function = {"name": "clock", "arguments": '{"zone": "MEZ"}'}
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "One moment."
    calls = choice["message"]["tool_calls"]
    assert [call["function"] for call in calls] == [function, function]
    assert {call["type"] for call in calls} == {"function"}
    assert len({call["id"] for call in calls}) == 2
    assert all(call["id"].startswith("call_") for call in calls)
    served = Served(f"One moment.\n{CALL}\n{CALL}")
    parts = merged(served.streamed(tools=TOOLS))
    assert parts["finish_reason"] == "tool_calls"
    assert parts["message"] | {"refusal": None} == choice["message"]
    prompt = TOKENIZER.decode(served.runner.seen[0].prompt, show_special=True)
    assert '"name": "clock"' in prompt
    assert prompt.endswith("<|im_start|>assistant\n")


def test_an_answer_of_calls_alone_has_no_content() -> None:
    message = Served(CALL).chat(tools=TOOLS)["choices"][0]["message"]
    assert message["content"] is None


def test_without_tools_a_call_is_only_text() -> None:
    choice = Served(CALL).chat()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (CALL, "stop")
    assert "tool_calls" not in choice["message"]


def test_a_call_cut_off_by_the_token_limit_stays_text() -> None:
    choice = Served(CALL).chat(tools=TOOLS, max_tokens=20)["choices"][0]
    assert choice["finish_reason"] == "length"
    assert CALL.startswith(choice["message"]["content"])


def test_the_conversation_goes_on_after_a_tools_result() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
    ]
    served = Served("It is noon.")
    assert served.chat(messages=messages, tools=TOOLS)["choices"][0]["message"]["content"] == (
        "It is noon."
    )
    prompt = TOKENIZER.decode(served.runner.seen[0].prompt)
    assert '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>' in prompt
    assert "<tool_response>\nnoon\n</tool_response>" in prompt


def test_what_a_body_asks_reaches_the_runner() -> None:
    served = Served("x")
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "null"}, "strict": True}}
    served.chat(
        temperature=0.5,
        seed=3,
        logit_bias={"5": 2},
        presence_penalty=1,
        response_format=schema,
        max_tokens=7,
        logprobs=True,
    )
    (seen,) = served.runner.seen
    assert seen.sampling == Sampling(
        temperature=0.5, seed=3, presence_penalty=1, logit_bias={5: 2.0}
    )
    assert seen.grammar is not None
    assert (seen.grammar.kind, seen.grammar.text) == ("json_schema", '{"type": "null"}')
    assert (seen.most, seen.top_logprobs) == (7, 0)


def test_log_probabilities_whole_and_streamed() -> None:
    whole = Served("h\u00e9").chat(logprobs=True, top_logprobs=2)
    validate(whole, "responses/chat")
    rows = whole["choices"][0]["logprobs"]["content"]
    ids = TOKENIZER.encode("h\u00e9")
    assert [row["logprob"] for row in rows] == [-token / 1000 for token in ids]
    assert bytes(byte for row in rows for byte in row["bytes"]).decode() == "h\u00e9"
    assert [row["token"] for row in rows] == ["h", "bytes:\\xc3", "bytes:\\xa9"]
    assert [len(row["top_logprobs"]) for row in rows] == [2, 2, 2]
    parts = merged(Served("h\u00e9").streamed(logprobs=True, top_logprobs=2))
    assert parts["rows"] == rows


def test_log_probabilities_of_completions_have_their_older_form() -> None:
    async def work(models: LocalModels) -> Any:
        asked = {"model": "fake", "prompt": "x", "logprobs": 1}
        chunks = await collected(await models.complete({**asked, "stream": True}))
        return await models.complete(asked), chunks

    whole, chunks = Served("hello\u00e9!").run(work)
    validate(whole, "responses/completion")
    rows = whole["choices"][0]["logprobs"]
    assert rows["tokens"] == ["hello", "bytes:\\xc3", "bytes:\\xa9", "!"]
    assert rows["text_offset"] == [0, 5, 5, 6]
    assert [len(top) for top in rows["top_logprobs"]] == [1, 1, 1, 1]
    sent = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    for name, values in rows.items():
        assert [value for row in sent if row for value in row[name]] == values


def test_several_choices_are_several_sequences_and_count_the_prompt_once() -> None:
    def counted(sequence: Sequence) -> str:
        return f"answer {sequence.key % 2}"

    whole = Served(counted).chat(n=2)
    validate(whole, "responses/chat")
    texts = [choice["message"]["content"] for choice in whole["choices"]]
    assert sorted(texts) == ["answer 0", "answer 1"]
    tokens = len(TOKENIZER.encode("answer 0"))
    assert whole["usage"]["completion_tokens"] == 2 * tokens
    chunks = Served(counted).streamed(n=2, stream_options={"include_usage": True})
    assert [merged(chunks, index)["message"]["content"] for index in (0, 1)] == texts
    assert chunks[-1]["usage"] == whole["usage"]


def test_when_one_of_several_choices_finds_no_place_none_is_computed() -> None:
    served = Served("x" * 100, slots=1, max_queue=1)
    with pytest.raises(LocalBusy):
        served.chat(n=3)
    assert served.engine.load == (0, 0)


def test_a_raw_prompt_is_read_with_its_markers_and_a_begin_token() -> None:
    async def work(models: LocalModels) -> Any:
        await models.complete({"model": "fake", "prompt": "<|im_start|>hello"})
        await models.complete({"model": "fake", "prompt": [7, 8, 9]})

    served = Served("x", template=None)
    served.run(work)
    begin, start, hello = map(TOKENIZER.token_id, ("<|endoftext|>", "<|im_start|>", "hello"))
    assert [seen.prompt for seen in served.runner.seen] == [(begin, start, hello), (7, 8, 9)]


def test_a_base_model_does_not_chat() -> None:
    with pytest.raises(RequestRefused, match="no chat template; ask /v1/completions") as refusal:
        Served("x", template=None).chat()
    assert (refusal.value.status, refusal.value.code) == (400, "unsupported_capability")


@pytest.mark.parametrize("stream", [False, True])
def test_a_template_that_refuses_is_a_refusal_before_anything_is_sent(stream: bool) -> None:
    template = JinjaTemplate("{{ raise_exception('Speak first.') }}", TOKENIZER)
    with pytest.raises(RequestRefused, match=r"^Speak first\.$"):
        Served("x", template=template).chat(stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_a_runner_that_is_lost_fails_the_answer(stream: bool) -> None:
    async def work(models: LocalModels) -> Any:
        answer = asyncio.ensure_future(models.chat(asked(stream=stream)))
        while not served.runner.live:
            await asyncio.sleep(0.001)
        served.runner.lost = "the device is gone"
        await answer

    served = Served("x" * 50, hold=threading.Event())
    with pytest.raises(ModelUnavailable):
        served.run(work)


def test_tokens_that_wait_for_a_slow_client_make_one_chunk() -> None:
    async def work(models: LocalModels) -> list[dict[str, Any]]:
        stream = await models.chat(asked(stream=True))
        while served.engine.load != (0, 0):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        return await collected(stream)

    answer = "word " * 200
    served = Served(answer)
    chunks = served.run(work)
    assert merged(chunks)["message"]["content"] == answer
    # The role, what the first step gave, the rest, the end.
    assert len(chunks) <= 4


def test_a_loop_is_woken_once_a_step_however_many_answers_it_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches: list[int] = []
    arrived = bridge.Bridge._arrived

    def counting(self: bridge.Bridge, batch: list[Any]) -> None:
        batches.append(len(batch))
        arrived(self, batch)

    monkeypatch.setattr(bridge.Bridge, "_arrived", counting)

    async def work(models: LocalModels) -> None:
        asking = [asyncio.ensure_future(models.chat(asked())) for _ in range(8)]
        while served.runner.live < 8:
            await asyncio.sleep(0.001)
        hold.set()
        await asyncio.gather(*asking)

    hold = threading.Event()
    served = Served("x" * 40, hold=hold)
    served.run(work)
    assert sum(batches) == 8 * 41
    assert len(batches) < 60


def test_a_stream_that_cannot_begin_gives_up_what_it_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(reader: CallReader, text: str) -> Any:
        raise ZeroDivisionError

    async def work(models: LocalModels) -> None:
        with pytest.raises(ZeroDivisionError):
            await models.chat(asked(stream=True, tools=TOOLS))
        while served.engine.load != (0, 0):
            await asyncio.sleep(0.001)

    monkeypatch.setattr(CallReader, "push", broken)
    served = Served("x" * 1500)
    served.run(work)
    assert len(served.runner.dropped) == 1


def test_leaving_a_stream_gives_up_every_choice() -> None:
    async def work(models: LocalModels) -> None:
        stream = await models.chat(asked(stream=True, n=3))
        await anext(stream)
        await stream.aclose()
        while served.engine.load != (0, 0):
            await asyncio.sleep(0.001)
        assert await collected(stream) == []

    served = Served("x" * 1500)
    served.run(work)
    assert len(served.runner.dropped) == 3


def test_an_event_loop_that_is_gone_gives_up_what_it_asked() -> None:
    hold = threading.Event()
    served = Served("x" * 1500, hold=hold)

    async def left() -> None:
        asking = asyncio.ensure_future(served.models.chat(asked()))
        while not served.runner.live:
            await asyncio.sleep(0.001)
        kept.append(asking)
        loop.stop()

    kept: list[Any] = []
    loop = asyncio.new_event_loop()
    kept.append(loop.create_task(left()))
    loop.run_forever()
    loop.close()
    hold.set()
    deadline = time.monotonic() + LONG_WAIT_S
    while served.engine.load != (0, 0) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert (served.engine.load, served.runner.live) == ((0, 0), 0)
    assert len(served.runner.dropped) == 1
    served.engine.close()


def test_a_long_prompt_is_read_in_a_thread() -> None:
    threads: list[threading.Thread] = []

    class Recording:
        def encode(self, conversation: Conversation, limit: int) -> list[int]:
            threads.append(threading.current_thread())
            return [1]

    described = {"name": "clock", "description": "word " * 5_000}
    call = {"id": "1", "type": "function", "function": {"name": "f" * 30_000, "arguments": ""}}
    bodies: list[dict[str, Any]] = [
        {"tools": TOOLS},
        {"messages": [{"role": "user", "content": "x" * 30_000}]},
        {"messages": [{"role": "user", "content": ""}] * 2_000},
        {"messages": [*HELLO, {"role": "assistant", "tool_calls": [call]}]},
        {"tools": [{"type": "function", "function": described}]},
        {"tools": [{"type": "function", "function": described}], "tool_choice": "none"},
    ]

    async def work(models: LocalModels) -> None:
        for fields in bodies:
            await models.chat(asked(**fields))

    Served("x", template=Recording()).run(work)
    main = threading.main_thread()
    assert [thread is main for thread in threads] == [True, False, False, False, False, True]


def test_a_full_model_says_so_before_it_reads_the_prompt() -> None:
    read: list[Conversation] = []

    class Recording:
        def encode(self, conversation: Conversation, limit: int) -> list[int]:
            read.append(conversation)
            return [1]

    async def work(models: LocalModels) -> None:
        taken = [asyncio.ensure_future(models.chat(asked())) for _ in range(2)]
        while served.engine.load != (1, 1):
            await asyncio.sleep(0.001)
        with pytest.raises(LocalBusy) as busy:
            await models.chat(asked(messages=[{"role": "user", "content": "x" * 30_000}]))
        assert (busy.value.running, busy.value.waiting) == (1, 1)
        hold.set()
        await asyncio.gather(*taken)

    hold = threading.Event()
    served = Served("x", template=Recording(), slots=1, hold=hold, max_queue=1)
    served.run(work)
    assert len(read) == 2


def test_a_model_loaded_on_demand_is_asked_for_what_is_needed() -> None:
    served = Served("hello")

    class OnDemand:
        def __init__(self) -> None:
            self.asked: list[str] = []
            self.calls = 0
            self.closed = False

        @property
        def model(self) -> LocalModel:
            return replace(served.models.models[0], text=None)

        async def ready(self, capability: str) -> LocalModel:
            self.asked.append(capability)
            assert self.calls == 1
            return served.models.models[0]

        @contextmanager
        def kept(self) -> Iterator[None]:
            self.calls += 1
            yield
            self.calls -= 1

        async def close(self) -> None:
            assert self.calls == 0
            self.closed = True

    loader = OnDemand()
    models = LocalModels((loader,))
    assert models.models[0].available

    async def work(_: LocalModels) -> Any:
        answer = await models.chat(asked())
        with pytest.raises(RequestRefused, match="not image-classification"):
            await models.classify({"model": "fake"})
        await models.close()
        return answer

    assert served.run(work)["choices"][0]["message"]["content"] == "hello"
    assert (loader.asked, loader.closed) == (["text-generation"], True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_place(stream: bool) -> None:
    """Over a socket and through the middleware, whether it waited for a stream or for all of it."""
    hold = threading.Event()
    served = Served("word " * 300, hold=hold)
    row = {"name": "fake", "path": "builtin:demo", "capabilities": ["text-generation"]}
    config = read_config({"providers": {"local": {"type": "local", "models": [row]}}})
    gateway = Gateway(config, wrapped_app=False, scope="all")
    port = free_port()
    app = Server(falcon_app(gateway, served.models), gateway, served.models)
    server, thread = serve_asgi(app, port)
    try:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_WAIT_S)
        body = json.dumps(asked(stream=stream))
        client.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        deadline = time.monotonic() + LONG_WAIT_S
        while not served.runner.live and time.monotonic() < deadline:
            time.sleep(0.005)
        assert served.runner.live == 1
        client.close()
        while served.runner.live and time.monotonic() < deadline:
            time.sleep(0.005)
        assert (served.engine.load, served.runner.dropped) == ((0, 0), [1])
    finally:
        hold.set()
        server.should_exit = True
        thread.join(10)
