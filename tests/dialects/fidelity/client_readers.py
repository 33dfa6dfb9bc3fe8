"""What a client understands of an answer in its own language, as facts; streams are put together
the way its SDK does and then read like whole answers."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from fidelity.facts import Facts, Json, arguments, members, plain, rows

Frames = Sequence[tuple[str | None, Json]]


def _counts(usage: Json, given: Json) -> Facts:
    for name, path in given.items():
        value: Any = usage
        for member in path.split("."):
            value = members(value).get(member)
        if value:
            yield ("usage", name, plain(value))


# --- chat and completions -------------------------------------------------------------------------

_CHAT_COUNTS: Final = {
    "input": "prompt_tokens",
    "output": "completion_tokens",
    "cached": "prompt_tokens_details.cached_tokens",
    "written": "prompt_tokens_details.cache_write_tokens",
    "reasoning": "completion_tokens_details.reasoning_tokens",
}


def chat(body: Json) -> Facts:
    for choice in body["choices"]:
        message = choice["message"]
        if choice["index"] > 0:
            yield ("second", message["content"])
            continue
        yield from _message(message)
        logprobs = members(choice.get("logprobs"))
        for token in rows(logprobs.get("content")):
            yield ("token", token["token"])
        if choice.get("stop_sequence"):
            yield ("stop_sequence", choice["stop_sequence"])
        yield ("finish", choice["finish_reason"])
    yield from _counts(members(body.get("usage")), _CHAT_COUNTS)


def _message(message: Json) -> Facts:
    details = rows(message.get("reasoning_details"))
    thought = message.get("reasoning_content") or message.get("reasoning")
    thought = thought or "".join(d.get("text") or d.get("summary") or "" for d in details)
    if thought:
        yield ("thought", thought)
    for detail in details:
        if detail.get("signature"):
            yield ("signature", detail["signature"])
        if detail.get("data"):
            yield ("sealed", detail["data"])
    if message.get("content"):
        yield ("text", message["content"])
    if message.get("refusal"):
        yield ("refusal", message["refusal"])
    for annotation in rows(message.get("annotations")):
        yield ("citation", annotation["url_citation"]["url"])
    if members(message.get("audio")).get("data"):
        yield ("sound", message["audio"]["data"])
    for call in rows(message.get("tool_calls")):
        if call["type"] == "custom":
            yield ("custom", call["custom"]["input"])
        else:
            json.loads(call["function"]["arguments"])
            yield ("call", call["function"]["name"], arguments(call["function"]["arguments"]))
        yield from _google(call)
    yield from _google(message)


def _google(holder: Json) -> Facts:
    """A signature in the place Google's chat API has for it; another dialect's is sealed."""
    google = members(members(holder.get("extra_content")).get("google"))
    if google.get("thought_signature"):
        yield ("signature", google["thought_signature"].rpartition(".")[2])


def chat_whole_of(frames: Frames) -> Json:
    choices: dict[int, dict[str, Any]] = {}
    body: dict[str, Any] = {"choices": []}
    for _, chunk in frames:
        body["usage"] = chunk.get("usage") or body.get("usage")
        for part in chunk["choices"]:
            blank: dict[str, Any] = {"index": part["index"], "message": {}, "finish_reason": None}
            choice = choices.setdefault(part["index"], blank)
            assert choice["finish_reason"] is None, "something came after the finish reason"
            choice["finish_reason"] = part.get("finish_reason")
            if part.get("stop_sequence"):
                choice["stop_sequence"] = part["stop_sequence"]
            for token in rows(members(part.get("logprobs")).get("content")):
                choice.setdefault("logprobs", {"content": []})["content"].append(token)
            _join(choice["message"], part["delta"])
    body["choices"] = [choices[index] for index in sorted(choices)]
    for choice in body["choices"]:
        calls = choice["message"].pop("by_index", {})
        assert list(calls) == list(range(len(calls))), "calls are not numbered from 0"
        choice["message"]["tool_calls"] = list(calls.values())
    return body


def _join(message: dict[str, Any], delta: Json) -> None:
    for name in ("content", "refusal", "reasoning_content"):
        if delta.get(name):
            message[name] = message.get(name, "") + delta[name]
    if delta.get("extra_content"):
        message["extra_content"] = delta["extra_content"]
    for name in ("annotations", "reasoning_details"):
        if delta.get(name):
            message.setdefault(name, []).extend(delta[name])
    if delta.get("audio"):
        held = message.setdefault("audio", {})
        for name, value in delta["audio"].items():
            held[name] = held.get(name, "") + value if name == "data" else value
    for call in rows(delta.get("tool_calls")):
        held = message.setdefault("by_index", {}).setdefault(call["index"], {"type": "function"})
        for name, value in call.items():
            if name in ("function", "custom"):
                inner = held.setdefault(name, {"name": "", "arguments": "", "input": ""})
                for key, text in value.items():
                    inner[key] += text or ""
            elif value is not None:
                assert name not in ("id",) or "id" not in held, "an id came twice"
                held[name] = value


def completions(body: Json) -> Facts:
    for choice in body["choices"]:
        if choice["index"] > 0:
            yield ("second", choice["text"])
            continue
        if choice["text"]:
            yield ("text", choice["text"])
        for token in rows(members(choice.get("logprobs")).get("tokens")):
            yield ("token", token)
        if choice.get("stop_sequence"):
            yield ("stop_sequence", choice["stop_sequence"])
        yield ("finish", choice["finish_reason"])
    yield from _counts(members(body.get("usage")), _CHAT_COUNTS)


def completions_whole_of(frames: Frames) -> Json:
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    for _, chunk in frames:
        usage = chunk.get("usage") or usage
        for part in chunk["choices"]:
            blank: dict[str, Any] = {"index": part["index"], "text": "", "finish_reason": None}
            choice = choices.setdefault(part["index"], blank)
            choice["text"] += part["text"]
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
            choice["stop_sequence"] = part.get("stop_sequence") or choice.get("stop_sequence")
            if part.get("logprobs"):
                choice.setdefault("logprobs", {"tokens": []})["tokens"] += part["logprobs"][
                    "tokens"
                ]
    return {"choices": [choices[i] for i in sorted(choices)], "usage": usage}


# --- Responses and the draft's union --------------------------------------------------------------

_ITEM_COUNTS: Final = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached": "input_tokens_details.cached_tokens",
    "written": "input_tokens_details.cache_write_tokens",
    "reasoning": "output_tokens_details.reasoning_tokens",
}


def responses(body: Json) -> Facts:
    called = False
    text = ""
    for item in body["output"]:
        kind = item["type"]
        if kind == "message":
            for part in item["content"]:
                text += part.get("text", "")
                if part["type"] == "refusal":
                    yield ("refusal", part["refusal"])
                for annotation in rows(part.get("annotations")):
                    yield ("citation", annotation["url"])
                for token in rows(part.get("logprobs")):
                    yield ("token", token["token"])
        elif kind == "reasoning":
            thought = "".join(p["text"] for p in rows(item.get("content")))
            thought = thought or "".join(p["text"] for p in item["summary"])
            if thought:
                yield ("thought", thought)
            if item.get("encrypted_content"):
                yield from _opaque(item["encrypted_content"])
        elif kind == "function_call":
            called = True
            json.loads(item["arguments"])
            yield ("call", item["name"], arguments(item["arguments"]))
        elif kind == "custom_tool_call":
            called = True
            yield ("custom", item["input"])
        elif kind.endswith("_call"):
            yield ("hosted", kind.removesuffix("_call"))
    if text:
        yield ("text", text)
    cut = members(body.get("incomplete_details")).get("reason")
    done = "tool_calls" if called else "stop"
    yield ("finish", {"max_output_tokens": "length", None: done}.get(cut, cut))
    yield from _counts(members(body.get("usage")), _ITEM_COUNTS)


def _unpacked(data: str) -> str:
    """Opaque bytes: ours hold a seal."""
    try:
        text = base64.b64decode(data + "=" * (-len(data) % 4), altchars=b"-_").decode()
    except ValueError:
        return data
    return text if text.startswith("aiproxy.") else data


def _opaque(data: str) -> Facts:
    """Sealed reasoning, or the signature of another dialect's wrapped into it."""
    payload = data.rpartition(".")[2]
    yield ("sealed", payload)
    yield ("signature", payload)


def draft(body: Json) -> Facts:
    """The union: what items cannot show is in the chat half."""
    yield from responses(body)
    for choice in body["choices"][:1]:
        if members(choice["message"].get("audio")).get("data"):
            yield ("sound", choice["message"]["audio"]["data"])
        if choice.get("stop_sequence"):
            yield ("stop_sequence", choice["stop_sequence"])
    for choice in body["choices"][1:]:
        yield ("second", choice["message"]["content"])


def responses_whole_of(frames: Frames) -> Json:
    """The final response, once the deltas were found to agree with it."""
    numbers = [payload["sequence_number"] for _, payload in frames]
    assert numbers == list(range(len(numbers))), "the events are not numbered one by one"
    texts: dict[tuple[int, str, int], str] = {}
    final: Json | None = None
    for event, payload in frames:
        kind = payload["type"]
        assert event in (None, kind), "an event has another name than its type"
        if kind.endswith(".delta"):
            place = payload.get("content_index", payload.get("summary_index", 0))
            key = (payload["output_index"], kind.split(".")[1], place)
            texts[key] = texts.get(key, "") + payload["delta"]
        if kind in ("response.completed", "response.incomplete"):
            final = payload["response"]
    assert final is not None, "no terminal event"
    for (index, kind, place), text in texts.items():
        item = final["output"][index]
        told = {
            "function_call_arguments": lambda item=item: item["arguments"],
            "custom_tool_call_input": lambda item=item: item["input"],
            "reasoning_summary_text": lambda item=item, at=place: item["summary"][at]["text"],
            "refusal": lambda item=item, at=place: item["content"][at]["refusal"],
        }.get(kind, lambda item=item, at=place: item["content"][at]["text"])()
        assert told == text, f"the deltas of {kind} are not what the final response says"
    return final


# --- Anthropic ------------------------------------------------------------------------------------

_ANTHROPIC_FINISH: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def anthropic(body: Json) -> Facts:
    text = ""
    for block in body["content"]:
        kind = block["type"]
        if kind == "text":
            text += block["text"]
            for citation in rows(block.get("citations")):
                yield ("citation", citation.get("url") or citation.get("source", ""))
        elif kind == "thinking":
            yield ("thought", block["thinking"])
            if block.get("signature"):
                yield ("signature", block["signature"].rpartition(".")[2])
        elif kind == "redacted_thinking":
            yield from _opaque(block["data"])
        elif kind == "tool_use":
            yield ("call", block["name"], arguments(block["input"]))
        elif kind == "server_tool_use":
            yield ("hosted", block["name"])
    if text:
        yield ("text", text)
        if body["stop_reason"] == "refusal":
            yield ("refusal", text)
    if body.get("stop_sequence"):
        yield ("stop_sequence", body["stop_sequence"])
    yield ("finish", _ANTHROPIC_FINISH[body["stop_reason"]])
    usage = body["usage"]
    cached = usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    told = {**usage, "input_tokens": (usage["input_tokens"] or 0) + cached + written}
    yield from _counts(
        told,
        {"input": "input_tokens", "output": "output_tokens", "cached": "cache_read_input_tokens",
         "written": "cache_creation_input_tokens",
         "reasoning": "output_tokens_details.thinking_tokens"},
    )  # fmt: skip


def anthropic_whole_of(frames: Frames) -> Json:
    body: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    written: dict[int, str] = {}
    open_block: int | None = None
    stopped = False
    for event, payload in frames:
        kind = payload["type"]
        assert event == kind, "an event has another name than its type"
        assert not stopped, "something came after message_stop"
        if kind == "message_start":
            body = {**payload["message"], "usage": dict(payload["message"]["usage"])}
        elif kind == "content_block_start":
            assert open_block is None, "two blocks are open"
            open_block = payload["index"]
            assert open_block == len(blocks), "blocks are not numbered one by one"
            blocks[open_block] = dict(payload["content_block"])
        elif kind == "content_block_delta":
            assert payload["index"] == open_block, "a delta of a block that is not open"
            _anthropic_delta(blocks[payload["index"]], payload["delta"], written, payload["index"])
        elif kind == "content_block_stop":
            assert payload["index"] == open_block, "a block was closed that is not open"
            if blocks[payload["index"]]["type"] in ("tool_use", "server_tool_use"):
                text = written.get(payload["index"], "")
                blocks[payload["index"]]["input"] = json.loads(text) if text else {}
            open_block = None
        elif kind == "message_delta":
            body.update({k: v for k, v in payload["delta"].items() if v is not None})
            body["usage"] |= {k: v for k, v in payload.get("usage", {}).items() if v is not None}
        elif kind == "message_stop":
            stopped = True
    assert stopped, "no message_stop"
    assert open_block is None, "a block was left open"
    return {**body, "content": [blocks[i] for i in sorted(blocks)]}


def _anthropic_delta(block: dict[str, Any], delta: Json, written: dict[int, str], at: int) -> None:
    kind = delta["type"]
    if kind == "text_delta":
        block["text"] += delta["text"]
    elif kind == "thinking_delta":
        block["thinking"] += delta["thinking"]
    elif kind == "signature_delta":
        block["signature"] = delta["signature"]
    elif kind == "citations_delta":
        block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
    elif kind == "input_json_delta":
        written[at] = written.get(at, "") + delta["partial_json"]


# --- Gemini ---------------------------------------------------------------------------------------


def gemini(body: Json) -> Facts:
    for candidate in body["candidates"]:
        parts = rows(members(candidate.get("content")).get("parts"))
        said = "".join(p["text"] for p in parts if "text" in p and not p.get("thought"))
        if candidate.get("index", 0) > 0:
            yield ("second", said)
            continue
        thought = "".join(p["text"] for p in parts if p.get("thought"))
        if thought:
            yield ("thought", thought)
        if said:
            yield ("text", said)
        called = False
        for part in parts:
            if "functionCall" in part:
                called = True
                call = part["functionCall"]
                yield ("call", call["name"], arguments(call.get("args", {})))
            inline = members(part.get("inlineData"))
            if str(inline.get("mimeType")).startswith("audio/"):
                yield ("sound", inline["data"])
            if part.get("thoughtSignature") not in (None, "skip_thought_signature_validator"):
                yield from _opaque(_unpacked(part["thoughtSignature"]))
        for chunk in rows(members(candidate.get("groundingMetadata")).get("groundingChunks")):
            yield ("citation", chunk["web"]["uri"])
        for source in rows(members(candidate.get("citationMetadata")).get("citationSources")):
            yield ("citation", source["uri"])
        for token in rows(members(candidate.get("logprobsResult")).get("chosenCandidates")):
            yield ("token", token["token"])
        reason = candidate["finishReason"]
        done = "tool_calls" if called else "stop"
        yield ("finish", {"STOP": done, "MAX_TOKENS": "length"}.get(reason, "content_filter"))
    counts = members(body.get("usageMetadata"))
    thoughts = counts.get("thoughtsTokenCount") or 0
    told = {**counts, "output": (counts.get("candidatesTokenCount") or 0) + thoughts}
    yield from _counts(
        told,
        {"input": "promptTokenCount", "output": "output", "cached": "cachedContentTokenCount",
         "reasoning": "thoughtsTokenCount"},
    )  # fmt: skip


def gemini_whole_of(frames: Frames) -> Json:
    candidates: dict[int, dict[str, Any]] = {}
    usage = None
    for _, chunk in frames:
        usage = chunk.get("usageMetadata") or usage
        for part in rows(chunk.get("candidates")):
            index = part.get("index", 0)
            blank: dict[str, Any] = {"index": index, "content": {"parts": []}}
            candidate = candidates.setdefault(index, blank)
            candidate["content"]["parts"] += rows(members(part.get("content")).get("parts"))
            for name in ("finishReason", "groundingMetadata", "citationMetadata"):
                if part.get(name):
                    candidate[name] = part[name]
            held = candidate.setdefault("logprobsResult", {"chosenCandidates": []})
            more = members(part.get("logprobsResult"))
            held["chosenCandidates"] += rows(more.get("chosenCandidates"))
    return {"candidates": [candidates[i] for i in sorted(candidates)], "usageMetadata": usage}


WHOLE: Final[dict[str, Callable[[Json], Facts]]] = {
    "chat": chat,
    "responses": responses,
    "draft": draft,
    "anthropic": anthropic,
    "gemini": gemini,
    "completions": completions,
}
WHOLE_OF: Final[dict[str, Callable[[Frames], Json]]] = {
    "chat": chat_whole_of,
    "responses": responses_whole_of,
    "draft": responses_whole_of,
    "anthropic": anthropic_whole_of,
    "gemini": gemini_whole_of,
    "completions": completions_whole_of,
}
