"""The whole way: OpenAI body in, body or chunks out, over the real model and owner thread."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from aiproxy.reference_server.onnx import (
    ContextOverflow,
    LocalBusy,
    LocalModels,
    ModelNotFound,
    ModelUnavailable,
    RequestRefused,
)
from aiproxy.reference_server.onnx.folders import DEMO
from aiproxy.spec import validate

QUESTION = "what does X-AI-Max-Latency do?"
LONGEST_LAG_S = 0.1


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def body(question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": question}], **fields}


async def collected(answer: Any) -> list[dict[str, Any]]:
    assert isinstance(answer, AsyncIterator)
    return [chunk async for chunk in answer]


def text_of(chunks: list[dict[str, Any]]) -> str:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content", "") for delta in deltas)


def test_a_chat_answer_is_a_valid_completion_object(models: LocalModels) -> None:
    answer = run(models.chat(body()))
    validate(answer, "responses/chat")
    assert (answer["id"], answer["created"], answer["model"]) == ("chatcmpl-1", 1700000000, "demo")
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["message"]["content"]
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 2


def test_the_stream_says_the_same_as_the_whole_answer(models: LocalModels) -> None:
    async def both() -> tuple[Any, list[dict[str, Any]]]:
        whole = await models.chat(body())
        options = {"include_usage": True}
        return whole, await collected(await models.chat(body(stream=True, stream_options=options)))

    whole, chunks = run(both())
    for chunk in chunks:
        validate(chunk, "events/chat-chunk")
    assert text_of(chunks) == whole["choices"][0]["message"]["content"]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], whole["usage"])
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert len(chunks) > 5


def test_a_stream_carries_no_usage_unless_asked(models: LocalModels) -> None:
    async def streamed() -> list[dict[str, Any]]:
        return await collected(await models.chat(body(stream=True)))

    assert not any("usage" in chunk for chunk in run(streamed()))


def test_a_streamed_stop_string_never_shows(models: LocalModels) -> None:
    async def both() -> tuple[str, list[dict[str, Any]]]:
        whole = (await models.chat(body()))["choices"][0]["message"]["content"]
        stop = whole[10:16]
        return whole[: whole.index(stop)], await collected(
            await models.chat(body(stream=True, stop=stop))
        )

    expected, chunks = run(both())
    assert text_of(chunks) == expected


def test_completions_answer_whole_and_streamed(models: LocalModels) -> None:
    async def both() -> tuple[Any, list[dict[str, Any]]]:
        asked = {"model": "demo", "prompt": QUESTION}
        return await models.complete(asked), await collected(
            await models.complete(asked | {"stream": True})
        )

    whole, chunks = run(both())
    validate(whole, "responses/completion")
    for chunk in chunks:
        validate(chunk, "events/completion-chunk")
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"]


def test_two_at_once_say_what_each_says_alone() -> None:
    provider = {"models": [{"name": "demo", "path": DEMO}], "max_concurrency": 2}
    questions = ["what is level 3?", "what does routing.failover.max_retries do", QUESTION, "hello"]

    async def contents(models: LocalModels) -> tuple[list[str], list[str]]:
        alone = [await models.chat(body(question)) for question in questions]
        together = await asyncio.gather(*(models.chat(body(question)) for question in questions))
        await models.close()
        return tuple(
            [answer["choices"][0]["message"]["content"] for answer in answers]
            for answers in (alone, together)
        )

    alone, together = run(contents(LocalModels.from_config(provider)))
    assert together == alone


def test_leaving_a_stream_frees_the_place(models: LocalModels) -> None:
    async def left() -> Any:
        stream = await models.chat(body(stream=True))
        await anext(stream)
        await stream.aclose()
        return await asyncio.wait_for(models.chat(body()), 10)

    assert run(left())["choices"][0]["finish_reason"] == "stop"
    text = models.models[0].text
    assert text is not None
    assert text.engine.load == (0, 0)


def test_cancelling_a_waiting_caller_frees_its_place(models: LocalModels) -> None:
    async def cancelled() -> Any:
        asked = [asyncio.create_task(models.chat(body())) for _ in range(2)]
        await asyncio.sleep(0)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        return await asyncio.wait_for(models.chat(body()), 10)

    assert run(cancelled())["choices"][0]["message"]["content"]


def test_one_caller_too_many_is_told_busy_at_once(models: LocalModels) -> None:
    async def crowd() -> tuple[list[Any], float]:
        kept = [asyncio.create_task(models.chat(body())) for _ in range(2)]
        await asyncio.sleep(0)
        started = time.perf_counter()
        with pytest.raises(LocalBusy):
            await models.chat(body(stream=True))
        waited = time.perf_counter() - started
        return await asyncio.gather(*kept), waited

    answers, waited = run(crowd())
    assert len(answers) == 2
    assert waited < 0.05


def test_the_event_loop_keeps_turning_while_tokens_are_made(models: LocalModels) -> None:
    async def measured() -> tuple[int, float]:
        answer = asyncio.create_task(models.chat(body("list the request headers")))
        turns, worst, last = 0, 0.0, time.perf_counter()
        while not answer.done():
            await asyncio.sleep(0)
            now = time.perf_counter()
            turns, worst, last = turns + 1, max(worst, now - last), now
        return turns, worst

    turns, worst = run(measured())
    assert turns > 20
    assert worst < LONGEST_LAG_S


def test_errors_before_the_first_token_are_raised_before_the_stream(models: LocalModels) -> None:
    async def asked(**fields: Any) -> Any:
        return await models.chat(body(stream=True, **fields))

    with pytest.raises(ContextOverflow):
        run(asked(messages=[{"role": "user", "content": "word " * 5000}]))
    with pytest.raises(RequestRefused, match="n must be a whole number from 1 to 8"):
        run(asked(n=9))
    with pytest.raises(ModelNotFound, match="local models: demo"):
        run(asked(model="gpt-4o"))
    with pytest.raises(RequestRefused, match="model must be a string"):
        run(asked(model=None))


def test_embeddings_are_refused_with_what_the_model_can(models: LocalModels) -> None:
    with pytest.raises(RequestRefused, match="does text-generation, not embeddings") as refusal:
        run(models.embed({"model": "demo", "input": "x"}))
    assert refusal.value.code == "unsupported_capability"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"path": "/secret-place/none"}, "missing"),
        ({"path": DEMO, "runtime": "golearn"}, "golearn is not available"),
        ({"path": None}, "path is not set; give a folder, an .onnx file or builtin:demo"),
        ({"path": DEMO, "capabilities": ["embeddings"]}, "text-generation"),
    ],
)
def test_a_model_that_cannot_run_is_listed_with_its_reason(
    entry: dict[str, Any], reason: str
) -> None:
    models = LocalModels.from_config({"models": [{"name": "demo", **entry}]})
    (model,) = models.models
    assert not model.available
    assert reason in (model.reason or "")
    ask = models.embed if entry.get("capabilities") else models.chat
    with pytest.raises(ModelUnavailable) as unavailable:
        run(ask(body()))
    assert unavailable.value.status == 503
    assert "secret-place" not in str(unavailable.value)


def test_closing_ends_what_is_running(models: LocalModels) -> None:
    async def closed() -> list[Any]:
        asked = [asyncio.create_task(models.chat(body())) for _ in range(2)]
        await asyncio.sleep(0)
        await models.close()
        return await asyncio.gather(*asked, return_exceptions=True)

    for outcome in run(closed()):
        assert isinstance(outcome, dict) or "shutting down" in str(outcome)


def test_a_models_context_can_be_made_smaller(tmp_path: Path) -> None:
    provider = {"models": [{"name": "demo", "path": DEMO, "max_context": 64}]}
    models = LocalModels.from_config(provider)
    assert models.models[0].context_window == 64
    with pytest.raises(ContextOverflow, match="holds 64"):
        run(models.chat(body("word " * 100)))
    run(models.close())
