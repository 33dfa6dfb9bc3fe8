"""OpenAI's legacy completions."""

from collections.abc import Mapping
from typing import Any

from aiproxy.conformance.rig.shapes.chat import choices, failure
from aiproxy.conformance.rig.shapes.requests import count, flag, need
from aiproxy.conformance.rig.shapes.speech import Ask, Frames, Said, event


def read(body: Mapping[str, Any]) -> Ask:
    """Return what a completion request asks.

    Raises:
        Refusal: it is malformed.
    """
    right = isinstance(body.get("prompt"), str | list) and body["prompt"] != []
    need(right, "you must provide a prompt", "prompt")
    count(body, "n")
    return Ask("completions", body, flag(body, "stream"), count(body, "max_tokens"))


def whole(ask: Ask, said: Said) -> dict[str, Any]:
    """Return a completion."""
    answer = {**_frame(said), "choices": [_choice(i, said.text, said) for i in _indices(ask)]}
    if said.usage is not None:
        answer["usage"] = dict(said.usage)
    return {**answer, **said.extra}


def frames(ask: Ask, said: Said) -> Frames:
    """Return the chunks of a streamed completion."""

    def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
        return event({**_frame(said), "choices": choices, **more, **said.extra})

    def every(text: str, finish: str | None = None) -> list[str]:
        rest = {"text": text, "logprobs": None, "finish_reason": finish}
        return [chunk([{"index": i, **rest}]) for i in _indices(ask)]

    counted = bool((ask.body.get("stream_options") or {}).get("include_usage"))
    return Frames(
        opening=[],
        content=[frame for piece in said.text_pieces() for frame in every(piece)],
        finish=every("", said.finish) if said.finish is not None else [],
        usage=[chunk([], usage=dict(said.usage))] if counted and said.usage is not None else [],
        done=["data: [DONE]\n\n"],
        error=failure,
        counted=counted,
    )


def _indices(ask: Ask) -> range:
    return range(choices(ask))


def _frame(said: Said) -> dict[str, Any]:
    return {
        "id": f"cmpl-{said.id}",
        "object": "text_completion",
        "created": said.created,
        "model": said.model,
    }


def _choice(index: int, text: str, said: Said) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": said.finish}
