"""Fake providers: an ``Answer`` as the body or the stream of a provider, from its reference.

A writer gives ``None`` where its API has no words for what is said. A stream is a list of pairs:
the name of the event, if it has one, and its data.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from fidelity.answers import Answer, Used

Payload: TypeAlias = dict[str, Any]
Stream: TypeAlias = list[tuple[str | None, Payload]]

SIZE: Final = 5  # characters of a piece
_PLAIN: Final = {"finish stop", "finish tool_calls", "calls", "no usage"}


def pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), SIZE):
        yield text[start : start + SIZE]


@dataclass(frozen=True)
class Provider:
    """``can``: the words of ``Answer.needs`` its API has; some it has in whole answers only."""

    can: frozenset[str]
    whole: Callable[[Answer], Payload]
    stream: Callable[[Answer], Stream]
    whole_only: frozenset[str] = frozenset()

    def says(self, answer: Answer, stream: bool) -> bool:
        return answer.needs() <= (self.can - self.whole_only if stream else self.can)


# --- OpenAI chat ----------------------------------------------------------------------------------


def _chat_usage(used: Used) -> Payload:
    counts: Payload = {
        "prompt_tokens": used.input,
        "completion_tokens": used.output,
        "total_tokens": used.input + used.output,
        "prompt_tokens_details": {"cached_tokens": used.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": used.reasoning, "audio_tokens": 0},
    }
    return counts


def _chat_finish(answer: Answer) -> str:
    return "stop" if answer.lazy else answer.finish


def _token(answer: Answer) -> Payload:
    return {"token": answer.token, "logprob": -0.25, "bytes": None, "top_logprobs": []}


def _chat_annotation(answer: Answer) -> Payload:
    cited = {"url": answer.citation, "title": "Page", "start_index": 0, "end_index": 2}
    return {"type": "url_citation", "url_citation": cited}


def _chat_calls(answer: Answer) -> list[Payload]:
    found: list[Payload] = [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for c in answer.calls
    ]
    if answer.custom:
        custom = {"name": "shell", "input": answer.custom}
        found.append({"id": "call_9", "type": "custom", "custom": custom})
    return found


def chat_whole(answer: Answer) -> Payload:
    message: Payload = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if not answer.needs() & {"calls", "custom", "refusal", "sound"}:
        message["content"] = answer.text
    if answer.refusal:
        message["refusal"] = answer.refusal
    if answer.thought:
        message["reasoning_content"] = answer.thought
    if answer.citation:
        message["annotations"] = [_chat_annotation(answer)]
    if answer.sound:
        message["audio"] = {"id": "audio_1", "data": answer.sound, "expires_at": 2_000_000_000,
                            "transcript": ""}  # fmt: skip
    if calls := _chat_calls(answer):
        message["tool_calls"] = calls
    logprobs = {"content": [_token(answer)], "refusal": None} if answer.token else None
    choices = [
        {
            "index": 0,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": _chat_finish(answer),
        }
    ]
    if answer.second:
        other = {"role": "assistant", "content": answer.second, "refusal": None}
        choices.append(
            {"index": 1, "message": other, "logprobs": None, "finish_reason": answer.finish}
        )
    body: Payload = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m-1"}
    body["choices"] = choices
    if answer.used:
        body["usage"] = _chat_usage(answer.used)
    return body


def chat_stream(answer: Answer) -> Stream:
    deltas: list[Payload] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in pieces(answer.thought)]
    deltas += [{"content": piece} for piece in pieces(answer.text)]
    deltas += [{"refusal": piece} for piece in pieces(answer.refusal)]
    if answer.citation:
        deltas.append({"annotations": [_chat_annotation(answer)]})
    if answer.sound:
        deltas.append({"audio": {"id": "audio_1", "data": answer.sound, "transcript": ""}})
    for index, call in enumerate(answer.calls):
        head = {"name": call.name, "arguments": ""}
        first = {"index": index, "id": call.id, "type": "function", "function": head}
        deltas.append({"tool_calls": [first]})
        for piece in pieces(call.arguments):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    if answer.custom:
        custom = {"name": "shell", "input": ""}
        first = {"index": 0, "id": "call_9", "type": "custom", "custom": custom}
        deltas.append({"tool_calls": [first]})
        for piece in pieces(answer.custom):
            deltas.append({"tool_calls": [{"index": 0, "custom": {"input": piece}}]})
    base: Payload = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m-1",
    }
    found: Stream = []
    for delta in deltas:
        choice: Payload = {"index": 0, "delta": delta, "finish_reason": None}
        if answer.token and delta.get("content"):
            choice["logprobs"] = {"content": [_token(answer)], "refusal": None}
        found.append((None, {**base, "choices": [choice]}))
    if answer.second:
        for piece in pieces(answer.second):
            choice = {"index": 1, "delta": {"content": piece}, "finish_reason": None}
            found.append((None, {**base, "choices": [choice]}))
    for index in range(2 if answer.second else 1):
        last = {"index": index, "delta": {}, "finish_reason": _chat_finish(answer)}
        found.append((None, {**base, "choices": [last]}))
    if answer.used:
        found.append((None, {**base, "choices": [], "usage": _chat_usage(answer.used)}))
    return found


# --- OpenAI Responses -----------------------------------------------------------------------------


def _items(answer: Answer) -> list[Payload]:
    found: list[Payload] = []
    if answer.thought or answer.summary or answer.sealed:
        item: Payload = {"id": "rs_1", "type": "reasoning", "summary": []}
        if answer.summary:
            item["summary"] = [{"type": "summary_text", "text": answer.summary}]
        if answer.thought:
            item["content"] = [{"type": "reasoning_text", "text": answer.thought}]
        if answer.sealed:
            item["encrypted_content"] = answer.sealed
        found.append(item)
    if answer.hosted:
        search = {"type": "search", "query": "it"}
        found.append({"id": "ws_1", "type": "web_search_call", "status": "completed",
                      "action": search})  # fmt: skip
    parts: list[Payload] = []
    if answer.refusal:
        parts.append({"type": "refusal", "refusal": answer.refusal})
    elif answer.text or not (answer.calls or answer.custom):
        part: Payload = {"type": "output_text", "text": answer.text, "annotations": []}
        part["logprobs"] = [_token(answer)] if answer.token else []
        if answer.citation:
            part["annotations"] = [
                {"type": "url_citation", "url": answer.citation, "title": "Page",
                 "start_index": 0, "end_index": 2}
            ]  # fmt: skip
        parts.append(part)
    if parts:
        found.append({"id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
                      "content": parts})  # fmt: skip
    for index, call in enumerate(answer.calls):
        found.append({"id": f"fc_{index}", "type": "function_call", "status": "completed",
                      "call_id": call.id, "name": call.name, "arguments": call.arguments})  # fmt: skip
    if answer.custom:
        found.append({"id": "ctc_1", "type": "custom_tool_call", "status": "completed",
                      "call_id": "call_9", "name": "shell", "input": answer.custom})  # fmt: skip
    return found


def responses_whole(answer: Answer) -> Payload:
    cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(answer.finish)
    body: Payload = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "model": "m-1",
        "output": _items(answer),
        "usage": None,
    }
    if answer.used:
        used = answer.used
        body["usage"] = {
            "input_tokens": used.input,
            "input_tokens_details": {"cached_tokens": used.cached, "cache_write_tokens": 0},
            "output_tokens": used.output,
            "output_tokens_details": {"reasoning_tokens": used.reasoning},
            "total_tokens": used.input + used.output,
        }
    return body


def responses_stream(answer: Answer) -> Stream:
    found: Stream = []
    final = responses_whole(answer)
    running = {**final, "status": "in_progress", "output": [], "usage": None}
    running["incomplete_details"] = None

    def say(kind: str, **more: Any) -> None:
        found.append((kind, {"type": kind, "sequence_number": len(found), **more}))

    say("response.created", response=running)
    say("response.in_progress", response=running)
    for index, item in enumerate(final["output"]):
        at: Payload = {"item_id": item["id"], "output_index": index}
        opened = {**item, "status": "in_progress"}
        for name in ("arguments", "input"):
            if name in item:
                opened[name] = ""
        for name in ("content", "summary"):
            if name in item:
                opened[name] = []
        opened.pop("encrypted_content", None)
        say("response.output_item.added", output_index=index, item=opened)
        for place, part in enumerate(item.get("summary", ())):
            told = {**at, "summary_index": place}
            empty = {"type": "summary_text", "text": ""}
            say("response.reasoning_summary_part.added", **told, part=empty)
            for piece in pieces(part["text"]):
                say("response.reasoning_summary_text.delta", **told, delta=piece)
            say("response.reasoning_summary_text.done", **told, text=part["text"])
            say("response.reasoning_summary_part.done", **told, part=part)
        for place, part in enumerate(item.get("content", ())):
            _responses_part(say, {**at, "content_index": place}, part)
        for name, kind in (
            ("arguments", "function_call_arguments"),
            ("input", "custom_tool_call_input"),
        ):
            if name in item:
                for piece in pieces(item[name]):
                    say(f"response.{kind}.delta", **at, delta=piece)
                say(f"response.{kind}.done", **at, **{name: item[name]})
        say("response.output_item.done", output_index=index, item=item)
    say(f"response.{final['status']}", response=final)
    return found


def _responses_part(say: Callable[..., None], at: Payload, part: Payload) -> None:
    kind = part["type"]
    name = {"reasoning_text": "reasoning_text", "refusal": "refusal"}.get(kind, "output_text")
    member = "refusal" if kind == "refusal" else "text"
    text = part[member]
    empty = {
        **part,
        member: "",
        **({"annotations": [], "logprobs": []} if "logprobs" in part else {}),
    }
    say("response.content_part.added", **at, part=empty)
    for place, piece in enumerate(pieces(text)):
        more = {"logprobs": part["logprobs"] if not place else []} if "logprobs" in part else {}
        say(f"response.{name}.delta", **at, delta=piece, **more)
    for place, annotation in enumerate(part.get("annotations", ())):
        say("response.output_text.annotation.added", **at, annotation_index=place,
            annotation=annotation)  # fmt: skip
    more = {"logprobs": part["logprobs"]} if "logprobs" in part else {}
    say(f"response.{name}.done", **at, **{member: text}, **more)
    say("response.content_part.done", **at, part=part)


# --- Anthropic Messages ---------------------------------------------------------------------------

_ANTHROPIC_STOP: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def _anthropic_blocks(answer: Answer) -> list[Payload]:
    found: list[Payload] = []
    if answer.thought:
        found.append({"type": "thinking", "thinking": answer.thought,
                      "signature": answer.signature or "c2ln"})  # fmt: skip
    if answer.sealed:
        found.append({"type": "redacted_thinking", "data": answer.sealed})
    if answer.hosted:
        found.append({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search",
                      "input": {"query": "it"}})  # fmt: skip
        found.append({"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1",
                      "content": []})  # fmt: skip
    if answer.text:
        block: Payload = {"type": "text", "text": answer.text, "citations": None}
        if answer.citation:
            block["citations"] = [
                {"type": "web_search_result_location", "url": answer.citation, "title": "Page",
                 "encrypted_index": "aWR4", "cited_text": "It"}
            ]  # fmt: skip
        found.append(block)
    for call in answer.calls:
        found.append({"type": "tool_use", "id": call.id, "name": call.name,
                      "input": json.loads(call.arguments)})  # fmt: skip
    return found


def _anthropic_usage(answer: Answer) -> Payload:
    used = answer.used or Used()
    return {
        "input_tokens": used.input - used.cached - used.written,
        "cache_read_input_tokens": used.cached,
        "cache_creation_input_tokens": used.written,
        "output_tokens": used.output,
    }


def _anthropic_end(answer: Answer) -> Payload:
    stop = "stop_sequence" if answer.stop_sequence else _ANTHROPIC_STOP[answer.finish]
    return {"stop_reason": stop, "stop_sequence": answer.stop_sequence or None}


def anthropic_whole(answer: Answer) -> Payload:
    return {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "m-1",
        "content": _anthropic_blocks(answer),
        **_anthropic_end(answer),
        "usage": _anthropic_usage(answer),
    }


def anthropic_stream(answer: Answer) -> Stream:
    found: Stream = []

    def say(kind: str, **more: Any) -> None:
        found.append((kind, {"type": kind, **more}))

    empty = {"content": [], "stop_reason": None, "stop_sequence": None}
    usage = {**_anthropic_usage(answer), "output_tokens": 1}
    say("message_start", message={**anthropic_whole(answer), **empty, "usage": usage})
    for index, block in enumerate(_anthropic_blocks(answer)):
        kind = block["type"]
        deltas: list[Payload] = []
        opened = dict(block)
        if kind == "thinking":
            opened |= {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": p} for p in pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif kind == "text":
            opened = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": p} for p in pieces(block["text"])]
            for citation in block["citations"] or ():
                deltas.append({"type": "citations_delta", "citation": citation})
        elif kind in ("tool_use", "server_tool_use"):
            opened["input"] = {}
            written = json.dumps(block["input"]) if block["input"] else ""
            deltas = [{"type": "input_json_delta", "partial_json": ""}]
            deltas += [{"type": "input_json_delta", "partial_json": p} for p in pieces(written)]
        say("content_block_start", index=index, content_block=opened)
        if not index:
            say("ping")
        for delta in deltas:
            say("content_block_delta", index=index, delta=delta)
        say("content_block_stop", index=index)
    counts = {"output_tokens": _anthropic_usage(answer)["output_tokens"]}
    say("message_delta", delta=_anthropic_end(answer), usage=counts)
    say("message_stop")
    return found


# --- Google Gemini --------------------------------------------------------------------------------


def _gemini_parts(answer: Answer) -> list[Payload]:
    found: list[Payload] = []
    if answer.thought:
        found.append({"text": answer.thought, "thought": True})
    if answer.text:
        part: Payload = {"text": answer.text}
        if answer.signature:
            part["thoughtSignature"] = answer.signature
        found.append(part)
    for call in answer.calls:
        inner = {"name": call.name, "args": json.loads(call.arguments)}
        part = {"functionCall": inner}
        if call.signature:
            part["thoughtSignature"] = call.signature
        found.append(part)
    return found


def _gemini_usage(used: Used) -> Payload:
    counts = {
        "promptTokenCount": used.input,
        "candidatesTokenCount": used.output - used.reasoning,
        "totalTokenCount": used.input + used.output,
    }
    if used.cached:
        counts["cachedContentTokenCount"] = used.cached
    if used.reasoning:
        counts["thoughtsTokenCount"] = used.reasoning
    return counts


def _gemini_last(answer: Answer) -> Payload:
    finish = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}.get(answer.finish, "STOP")
    candidate: Payload = {"index": 0, "finishReason": finish}
    if answer.citation:
        web = {"uri": answer.citation, "title": "Page"}
        candidate["groundingMetadata"] = {
            "groundingChunks": [{"web": web}],
            "groundingSupports": [
                {"segment": {"startIndex": 0, "endIndex": 2, "text": "It"},
                 "groundingChunkIndices": [0]}
            ],
        }  # fmt: skip
    if answer.token:
        chosen = [{"token": answer.token, "tokenId": 5, "logProbability": -0.25}]
        candidate["avgLogprobs"] = -0.25
        candidate["logprobsResult"] = {"chosenCandidates": chosen,
                                       "topCandidates": [{"candidates": chosen}]}  # fmt: skip
    return candidate


def gemini_whole(answer: Answer) -> Payload:
    content = {"role": "model", "parts": _gemini_parts(answer)}
    candidates = [{"content": content, **_gemini_last(answer)}]
    if answer.second:
        other = {"role": "model", "parts": [{"text": answer.second}]}
        candidates.append({"content": other, "index": 1, "finishReason": "STOP"})
    body: Payload = {"candidates": candidates, "modelVersion": "m-1", "responseId": "r1"}
    if answer.used:
        body["usageMetadata"] = _gemini_usage(answer.used)
    return body


def gemini_stream(answer: Answer) -> Stream:
    """Texts in pieces, calls whole; the reason comes in a chunk of its own, after the calls."""
    base = {"modelVersion": "m-1", "responseId": "r1"}
    found: Stream = []

    def say(index: int, *parts: Payload, more: Payload | None = None) -> None:
        content = {"role": "model", "parts": list(parts)}
        candidate = {"content": content, **(more or {}), "index": index}
        found.append((None, {"candidates": [candidate], **base}))

    for part in _gemini_parts(answer):
        if "text" in part:
            cut = list(pieces(part["text"]))
            for place, piece in enumerate(cut):
                more = (
                    part
                    if place == len(cut) - 1
                    else {k: part[k] for k in ("thought",) if k in part}
                )
                say(0, {**more, "text": piece})
        else:
            say(0, part)
    if answer.second:
        for piece in pieces(answer.second):
            say(1, {"text": piece})
        say(1, {"text": ""}, more={"finishReason": "STOP"})
    say(0, {"text": ""}, more=_gemini_last(answer))
    if answer.used:
        found[-1][1]["usageMetadata"] = _gemini_usage(answer.used)
    return found


# --- Cohere v2 ------------------------------------------------------------------------------------

_COHERE_FINISH: Final = {
    "stop": "COMPLETE",
    "length": "MAX_TOKENS",
    "tool_calls": "TOOL_CALL",
    "content_filter": "ERROR_TOXIC",
}


def _cohere_citation(answer: Answer) -> Payload:
    told = {"url": answer.citation, "title": "Page"}
    source = {"type": "document", "id": "doc:0", "document": told}
    return {"start": 0, "end": 2, "text": "It", "sources": [source], "type": "TEXT_CONTENT"}


def _cohere_usage(used: Used) -> Payload:
    counts = {"input_tokens": used.input, "output_tokens": used.output}
    found: Payload = {"billed_units": counts, "tokens": counts}
    if used.cached:
        found["cached_tokens"] = used.cached
    return found


def cohere_whole(answer: Answer) -> Payload:
    message: Payload = {"role": "assistant"}
    content: list[Payload] = []
    if answer.thought:
        content.append({"type": "thinking", "thinking": answer.thought})
    if answer.text or not answer.calls:
        content.append({"type": "text", "text": answer.text})
    if content:
        message["content"] = content
    if answer.calls:
        message["tool_calls"] = _chat_calls(answer)
    if answer.citation:
        message["citations"] = [_cohere_citation(answer)]
    body: Payload = {
        "id": "c-1",
        "finish_reason": "STOP_SEQUENCE" if answer.stop_sequence else _COHERE_FINISH[answer.finish],
        "message": message,
    }
    if answer.used:
        body["usage"] = _cohere_usage(answer.used)
    return body


def cohere_stream(answer: Answer) -> Stream:
    found: Stream = []

    def say(kind: str, message: Payload | None = None, **more: Any) -> None:
        payload: Payload = {"type": kind, **more}
        if message is not None:
            payload["delta"] = {"message": message}
        found.append((kind, payload))

    start = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    say("message-start", start, id="c-1")
    place = 0
    for kind, text in (("thinking", answer.thought), ("text", answer.text)):
        if text or (kind == "text" and not answer.calls):
            say("content-start", {"content": {"type": kind, kind: ""}}, index=place)
            for piece in pieces(text):
                say("content-delta", {"content": {kind: piece}}, index=place)
            if answer.citation and kind == "text":
                say("citation-start", {"citations": _cohere_citation(answer)}, index=0)
                say("citation-end", index=0)
            say("content-end", index=place)
            place += 1
    for index, call in enumerate(answer.calls):
        head: Payload = {"id": call.id, "type": "function"}
        head["function"] = {"name": call.name, "arguments": ""}
        say("tool-call-start", {"tool_calls": head}, index=index)
        for piece in pieces(call.arguments):
            say("tool-call-delta", {"tool_calls": {"function": {"arguments": piece}}}, index=index)
        say("tool-call-end", index=index)
    last: Payload = {"finish_reason": cohere_whole(answer)["finish_reason"]}
    if answer.used:
        last["usage"] = _cohere_usage(answer.used)
    found.append(("message-end", {"type": "message-end", "id": "c-1", "delta": last}))
    return found


# --- Mistral --------------------------------------------------------------------------------------


def _thinking(text: str) -> Payload:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def mistral_whole(answer: Answer) -> Payload:
    body = chat_whole(answer)
    for choice in body["choices"]:
        choice.pop("logprobs")
        message = choice["message"]
        message.pop("refusal")
        message.pop("reasoning_content", None)
        message["content"] = message["content"] or ""
        for call in message.get("tool_calls", ()):
            del call["type"]
    if answer.thought:
        content = [_thinking(answer.thought)]
        if answer.text:
            content.append({"type": "text", "text": answer.text})
        body["choices"][0]["message"]["content"] = content
    if answer.used:
        body["usage"] = {k: v for k, v in body["usage"].items() if not k.endswith("details")}
    body["id"] = "0123456789abcdef"
    return body


def mistral_stream(answer: Answer) -> Stream:
    """Calls come whole in one chunk with the reason; counts are in it too."""
    base = {
        "id": "0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m-1",
    }
    deltas: list[Payload] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": [_thinking(piece)]} for piece in pieces(answer.thought)]
    deltas += [{"content": piece} for piece in pieces(answer.text)]
    found: Stream = [
        (None, {**base, "choices": [{"index": 0, "delta": d, "finish_reason": None}]})
        for d in deltas
    ]
    if answer.second:
        for piece in pieces(answer.second):
            choice = {"index": 1, "delta": {"content": piece}, "finish_reason": None}
            found.append((None, {**base, "choices": [choice]}))
        ended = {"index": 1, "delta": {"content": ""}, "finish_reason": answer.finish}
        found.append((None, {**base, "choices": [ended]}))
    delta: Payload = {"content": ""}
    if answer.calls:
        delta["tool_calls"] = [
            {"id": c.id, "index": i, "function": {"name": c.name, "arguments": c.arguments}}
            for i, c in enumerate(answer.calls)
        ]
    last = {"index": 0, "delta": delta, "finish_reason": _chat_finish(answer)}
    found.append((None, {**base, "choices": [last]}))
    if answer.used:
        found[-1][1]["usage"] = mistral_whole(answer)["usage"]
    return found


# --- Cloudflare Workers AI ------------------------------------------------------------------------


def _workers_result(answer: Answer) -> Payload:
    result: Payload = {"response": answer.text}
    if answer.calls:
        result["tool_calls"] = [
            {"name": call.name, "arguments": json.loads(call.arguments)} for call in answer.calls
        ]
        if not answer.text:
            result["response"] = None
    if answer.name == "text that is JSON":  # JSON mode answers with the object itself
        result["response"] = json.loads(answer.text)
    if answer.used:
        result["usage"] = {k: v for k, v in _chat_usage(answer.used).items() if "details" not in k}
    return result


def workers_whole(answer: Answer) -> Payload:
    return {"result": _workers_result(answer), "success": True, "errors": [], "messages": []}


def workers_stream(answer: Answer) -> Stream:
    found: Stream = [(None, {"response": piece, "p": "abc"}) for piece in pieces(answer.text)]
    last = {**_workers_result(answer), "response": ""}
    found.append((None, last))
    return found


# --- OpenAI's old completions ---------------------------------------------------------------------


def completions_whole(answer: Answer) -> Payload:
    logprobs = None
    if answer.token:
        logprobs = {"tokens": [answer.token], "token_logprobs": [-0.25], "top_logprobs": None,
                    "text_offset": [0]}  # fmt: skip
    choices: list[Payload] = [
        {"index": 0, "text": answer.text, "logprobs": logprobs, "finish_reason": answer.finish}
    ]
    if answer.second:
        choices.append(
            {"index": 1, "text": answer.second, "logprobs": None, "finish_reason": "stop"}
        )
    body: Payload = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m-1"}
    body["choices"] = choices
    if answer.used:
        body["usage"] = _chat_usage(answer.used)
    return body


def completions_stream(answer: Answer) -> Stream:
    whole = completions_whole(answer)
    base = {k: v for k, v in whole.items() if k not in ("choices", "usage")}
    found: Stream = []
    for choice in whole["choices"]:
        for place, piece in enumerate(pieces(choice["text"])):
            told = {**choice, "text": piece, "finish_reason": None}
            told["logprobs"] = choice["logprobs"] if not place else None
            found.append((None, {**base, "choices": [told]}))
        last = {**choice, "text": "", "logprobs": None}
        found.append((None, {**base, "choices": [last]}))
    if answer.used:
        found.append((None, {**base, "choices": [], "usage": whole["usage"]}))
    return found


def _can(*more: str) -> frozenset[str]:
    return frozenset({*_PLAIN, *more})


_ENDS: Final = ("finish length", "finish content_filter")
PROVIDERS: Final = {
    "chat": Provider(
        _can(*_ENDS, "thought", "refusal", "custom", "lazy", "citation", "token", "second", "sound",
             "usage cached", "usage reasoning"),
        chat_whole,
        chat_stream,
    ),
    "responses": Provider(
        _can(*_ENDS, "thought", "summary", "sealed", "refusal", "custom", "citation", "token",
             "hosted", "usage cached", "usage reasoning"),
        responses_whole,
        responses_stream,
    ),
    "anthropic": Provider(
        _can(*_ENDS, "thought", "signature", "sealed", "stop_sequence", "citation", "hosted",
             "usage cached", "usage written") - {"no usage"},
        anthropic_whole,
        anthropic_stream,
    ),
    "gemini": Provider(
        _can(*_ENDS, "thought", "signature", "signed call", "lazy", "citation", "token", "second",
             "usage cached", "usage reasoning"),
        gemini_whole,
        gemini_stream,
    ),
    "cohere": Provider(
        _can("finish length", "thought", "citation", "usage cached"), cohere_whole, cohere_stream
    ),
    "mistral": Provider(
        _can("finish length", "thought", "lazy", "second"), mistral_whole, mistral_stream
    ),
    "workers_ai": Provider(_can("lazy"), workers_whole, workers_stream),
    "completions": Provider(
        (_can(*_ENDS, "token", "second") - {"calls", "finish tool_calls"}),
        completions_whole,
        completions_stream,
    ),
}  # fmt: skip
