"""What each kind of provider speaks, to and from OpenAI chat: request, answer, stream.

``request`` returns where to send what; ``answer`` and the stream readers return OpenAI shapes.
What a dialect cannot say is listed as a loss, never dropped in silence.
"""

import json
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from right_router.settings import Model
from right_router.wire import Failure

Body = dict[str, Any]
FINISH = {
    "end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "max_tokens": "length",
    "tool_use": "tool_calls", "refusal": "content_filter",
    "STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter",
    "RECITATION": "content_filter", "BLOCKLIST": "content_filter",
    "COMPLETE": "stop", "STOP_SEQUENCE": "stop", "TOOL_CALL": "tool_calls",
    "ERROR": "stop", "TIMEOUT": "stop", "model_length": "length", "error": "stop",
}  # fmt: skip
LEGAL = {"stop", "length", "tool_calls", "content_filter", "function_call"}
PATHS = {"chat": "chat/completions", "responses": "responses", "embeddings": "embeddings",
         "completions": "completions"}  # fmt: skip


def finish(reason: str | None, *, calls: bool = False, has: Any = None) -> str | None:
    """Return the finish reason of ours that a provider's stands for."""
    if has is not None and has("finish-reason-untranslated"):
        return reason
    if calls and reason in (None, "STOP", "COMPLETE", "stop"):
        return "tool_calls"
    if reason is None or reason in LEGAL:
        return reason
    if has is not None and has("new-finish-passed-on"):
        return FINISH.get(reason, reason)
    return FINISH.get(reason, "stop")


def request(model: Model, endpoint: str, body: Body, has: Any) -> tuple[str, list[str], Body]:
    """Return URL, header lines and body of one call.

    Raises:
        Failure: ``cannot_express``, the dialect has no such endpoint.
    """
    provider = model.provider
    key = f"Authorization: Bearer {provider.key}"
    fields = [key] if provider.key else []
    if not provider.key and has("key-for-the-keyless"):
        fields = ["Authorization: Bearer none"]
    if provider.type == "azure_openai" and not has("azure-by-bearer"):
        fields = [f"api-key: {provider.key}"]
    if not has("no-fixed-headers"):
        fixed = provider.raw.get("headers") or {}
        fields += [f"{name}: {value}" for name, value in fixed.items()]
    body = {**body, "model": "auto" if has("auto-goes-upstream") else model.upstream}
    if has("auto-goes-upstream-in-streams") and body.get("stream"):
        body["model"] = "auto"
    if has("public-name-upstream"):
        body["model"] = model.name
    if has(f"no-{provider.type}") and provider.priority == 100:
        raise Failure("cannot_express")
    for name in ("top_p", "tools", "encoding_format"):
        if has(f"{provider.type}-drops-{name}"):
            body = {n: v for n, v in body.items() if n not in (name, f"{name[:-1]}_choice")}
    if provider.dialect in ("openai", "cloudflare", "mistral", "peer"):
        root = f"{provider.base}/v1"
        if provider.dialect == "mistral" and endpoint == "chat":
            body = to_mistral(body)
        if provider.dialect == "cloudflare":
            account = (provider.raw.get("credentials") or {}).get("account_id") or ""
            account = account if has("account-unescaped") else quote(account, safe="")
            base = provider.base.removesuffix("/client/v4")
            tail = "" if "/accounts/" in base else f"/client/v4/accounts/{account}/ai"
            root = f"{base}{tail}/v1"
        organization = (provider.raw.get("credentials") or {}).get("organization")
        fields += [f"OpenAI-Organization: {organization}"] if organization else []
        if has("doubled-version"):
            root += "/v1"
        if has("slash-doubled") and str(provider.raw.get("endpoint")).endswith("/"):
            root = f"{provider.base}//v1"
        return f"{root}/{PATHS[endpoint]}", [] if has("no-bearer") else fields, body
    if endpoint == "chat" and provider.dialect == "anthropic":
        shown = fields if has("anthropic-bearer-too") else fields[1:]
        fields = [f"x-api-key: {provider.key}", "anthropic-version: 2023-06-01", *shown]
        return f"{provider.base}/v1/messages", fields, to_anthropic(body, model, has)
    if endpoint == "chat" and provider.dialect == "cohere":
        return f"{provider.base}/v2/chat", fields, to_cohere(body)
    if endpoint == "chat" and provider.dialect == "google":
        verb = "streamGenerateContent?alt=sse" if body.get("stream") else "generateContent"
        name = quote(model.upstream, safe="")
        fields = [f"x-goog-api-key: {provider.key}"]
        return f"{provider.base}/v1beta/models/{name}:{verb}", fields, to_google(body)
    if endpoint == "embeddings" and provider.dialect == "cohere":
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        asked = {"model": body["model"], "texts": texts, "input_type": "search_document"}
        return f"{provider.base}/v2/embed", fields, {**asked, "embedding_types": ["float"]}
    raise Failure("cannot_express")


def text_of(content: Any) -> str:
    """Return the text of a content that is text or parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content or ""


def limit_of(body: Body) -> int | None:
    return body.get("max_completion_tokens", body.get("max_tokens"))


def stops_of(body: Body) -> list[str]:
    stop = body.get("stop")
    return [stop] if isinstance(stop, str) else list(stop or ())


def arguments_of(call: Mapping[str, Any]) -> Any:
    try:
        return json.loads(call["function"].get("arguments") or "{}")
    except ValueError:
        return {}


# --- Anthropic ------------------------------------------------------------------------------------


def to_anthropic(body: Body, model: Model, has: Any) -> Body:
    """Return a Messages request: system apart, turns merged, tools and stops renamed."""
    system = [
        text_of(t["content"]) for t in body["messages"] if t["role"] in ("system", "developer")
    ]
    turns: list[Body] = []
    for turn in body["messages"]:
        if turn["role"] in ("system", "developer"):
            if has("system-stays") and turn["role"] == "system":
                turns.append({"role": "system", "content": text_of(turn["content"])})
            continue
        role = "assistant" if turn["role"] == "assistant" else "user"
        parts = anthropic_parts(turn)[: 1 if has("first-part-only") else None]
        if turns and turns[-1]["role"] == role and not has("turns-unmerged"):
            turns[-1]["content"] += parts
        else:
            turns.append({"role": role, "content": parts})
    limit = limit_of(body) or model.output or 4096
    found: Body = {"model": body["model"], "messages": turns, "max_tokens": limit}
    if has("no-max-tokens"):
        del found["max_tokens"]
    if system and not has("system-stays"):
        found["system"] = "\n\n".join(system)
    for name in ("temperature", "top_p", "stream"):
        if body.get(name) is not None:
            found[name] = body[name]
    if stops_of(body) and not has("stops-dropped"):
        found["stop_sequences"] = stops_of(body)
    if isinstance(body.get("tools"), list):
        found["tools"] = [
            {
                "name": tool["function"]["name"],
                "description": tool["function"].get("description", ""),
                "input_schema": tool["function"].get("parameters") or {"type": "object"},
            }
            for tool in body["tools"]
        ]
        choice = body.get("tool_choice")
        kinds = {"auto": "auto", "required": "any", "none": "none"}
        if isinstance(choice, str):
            found["tool_choice"] = {"type": kinds.get(choice, "auto")}
        elif isinstance(choice, dict):
            found["tool_choice"] = {"type": "tool", "name": choice["function"]["name"]}
    if body.get("reasoning_effort"):
        found["thinking"] = {"type": "enabled", "budget_tokens": max(1024, limit // 2)}
        found["max_tokens"] = max(limit, 2048)
    return found


def anthropic_parts(turn: Body) -> list[Body]:
    """Return the content blocks of one turn."""
    if turn["role"] == "tool":
        text = text_of(turn["content"])
        return [{"type": "tool_result", "tool_use_id": turn["tool_call_id"], "content": text}]
    found: list[Body] = []
    content = turn.get("content")
    for part in content if isinstance(content, list) else [{"type": "text", "text": content or ""}]:
        if part.get("type") == "image_url":
            found.append({"type": "image", "source": image_source(part["image_url"]["url"])})
        elif part.get("text"):
            found.append({"type": "text", "text": part["text"]})
    for call in turn.get("tool_calls") or ():
        name, given = call["function"]["name"], arguments_of(call)
        found.append({"type": "tool_use", "id": call["id"], "name": name, "input": given})
    return found or [{"type": "text", "text": " "}]


def image_source(url: str) -> Body:
    """Return an image as Anthropic takes it."""
    if url.startswith("data:"):
        media, _, data = url[5:].partition(";base64,")
        return {"type": "base64", "media_type": media, "data": data}
    return {"type": "url", "url": url}


def from_anthropic(body: Body, has: Any) -> Body:
    text = "".join(b.get("text", "") for b in body["content"] if b["type"] == "text")
    calls = [
        call(b["id"], b["name"], json.dumps(b["input"]))
        for b in body["content"]
        if b["type"] == "tool_use"
    ]
    reason = finish(body.get("stop_reason"), has=has)
    return completion(text, calls, reason, anthropic_usage(body.get("usage")))


def anthropic_usage(usage: Any) -> Body | None:
    if not isinstance(usage, dict):
        return None
    cached = usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    return tokens(usage.get("input_tokens", 0) + cached + written, usage.get("output_tokens", 0))


def anthropic_stream(events: Iterator[Body], has: Any) -> Iterator[Body]:
    """Yield chat chunks for the events of a Messages stream; unknown types are skipped."""
    usage: Body = {}
    calls = -1
    for event in events:
        kind = event.get("type")
        if kind == "message_start":
            usage.update(event["message"].get("usage") or {})
            yield chunk({"role": "assistant", "content": ""})
        elif kind == "content_block_start" and event["content_block"]["type"] == "tool_use":
            calls += 1
            block = event["content_block"]
            yield chunk({"tool_calls": [{"index": calls, **call(block["id"], block["name"], "")}]})
        elif kind == "content_block_delta":
            delta = event["delta"]
            if delta["type"] == "text_delta":
                yield chunk({"content": delta["text"]})
            elif delta["type"] == "input_json_delta":
                function = {"arguments": delta["partial_json"]}
                yield chunk({"tool_calls": [{"index": calls, "function": function}]})
        elif kind == "message_delta":
            usage.update(event.get("usage") or {})
            yield chunk({}, finish(event["delta"].get("stop_reason"), has=has))
        elif kind == "message_stop":
            yield {"choices": [], "usage": anthropic_usage(usage)}
        elif kind == "error":
            yield {"error": event.get("error")}


# --- Mistral --------------------------------------------------------------------------------------

MISTRAL = {
    "model", "messages", "temperature", "top_p", "stream", "stop", "response_format", "tools",
    "tool_choice", "presence_penalty", "frequency_penalty", "n", "parallel_tool_calls",
    "reasoning_effort", "metadata",
}  # fmt: skip


def to_mistral(body: Body) -> Body:
    """Return a chat request without what only OpenAI has; a last word of the system goes first."""
    found = {name: value for name, value in body.items() if name in MISTRAL}
    if limit_of(body):
        found["max_tokens"] = limit_of(body)
    if body.get("seed") is not None:
        found["random_seed"] = body["seed"]
    turns = [mistral_turn(turn) for turn in body["messages"]]
    if turns[-1]["role"] == "system":
        turns = [turns[-1], *turns[:-1]]
    found["messages"] = turns
    return found


def mistral_turn(turn: Body) -> Body:
    """Return one turn with the members and the short call ids that are allowed."""
    role = "system" if turn["role"] == "developer" else turn["role"]
    found: Body = {"role": role, "content": turn.get("content") or ""}
    if turn.get("tool_calls"):
        found["tool_calls"] = [{**made, "id": short(made["id"])} for made in turn["tool_calls"]]
    if role == "tool":
        found["tool_call_id"] = short(turn["tool_call_id"])
    return found


def short(name: str) -> str:
    """Return a call id of nine letters and digits; one that is such already stays."""
    if len(name) == 9 and name.isalnum():
        return name
    return sha256(name.encode()).hexdigest()[:9]


# --- Cohere ---------------------------------------------------------------------------------------


def to_cohere(body: Body) -> Body:
    """Return a Cohere v2 request, which is close to OpenAI's."""
    turns = []
    for turn in body["messages"]:
        role = "system" if turn["role"] == "developer" else turn["role"]
        turns.append({**turn, "role": role, "content": turn.get("content") or ""})
    found: Body = {"model": body["model"], "messages": turns, "stream": bool(body.get("stream"))}
    renamed = {"top_p": "p", "temperature": "temperature", "seed": "seed", "tools": "tools",
               "frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty",
               "response_format": "response_format"}  # fmt: skip
    for ours, theirs in renamed.items():
        if body.get(ours) is not None:
            found[theirs] = body[ours]
    if limit_of(body):
        found["max_tokens"] = limit_of(body)
    if stops_of(body):
        found["stop_sequences"] = stops_of(body)
    return found


def from_cohere(body: Body, has: Any) -> Body:
    message = body["message"]
    text = text_of(message.get("content"))
    calls = [
        call(c["id"], c["function"]["name"], c["function"]["arguments"])
        for c in message.get("tool_calls") or ()
    ]
    return completion(
        text, calls, finish(body.get("finish_reason"), has=has), cohere_usage(body.get("usage"))
    )


def cohere_usage(usage: Any) -> Body | None:
    counts = (usage or {}).get("tokens") or (usage or {}).get("billed_units")
    if not counts:
        return None
    return tokens(int(counts.get("input_tokens", 0)), int(counts.get("output_tokens", 0)))


def cohere_stream(events: Iterator[Body], has: Any) -> Iterator[Body]:
    calls = -1
    for event in events:
        kind = event.get("type")
        message = (event.get("delta") or {}).get("message") or {}
        if kind == "message-start":
            yield chunk({"role": "assistant", "content": ""})
        elif kind == "content-delta":
            yield chunk({"content": message["content"]["text"]})
        elif kind == "tool-call-start":
            calls += 1
            made = message["tool_calls"]
            function = made["function"]
            first = call(made["id"], function["name"], function.get("arguments", ""))
            yield chunk({"tool_calls": [{"index": calls, **first}]})
        elif kind == "tool-call-delta":
            function = {"arguments": message["tool_calls"]["function"]["arguments"]}
            yield chunk({"tool_calls": [{"index": calls, "function": function}]})
        elif kind == "message-end":
            delta = event["delta"]
            if delta.get("error"):
                yield {"error": {"message": delta["error"]}}
            yield chunk({}, finish(delta.get("finish_reason"), has=has))
            yield {"choices": [], "usage": cohere_usage(delta.get("usage"))}


# --- Google ---------------------------------------------------------------------------------------


def to_google(body: Body) -> Body:
    """Return a generateContent request."""
    system = [
        text_of(t["content"]) for t in body["messages"] if t["role"] in ("system", "developer")
    ]
    names = {
        c["id"]: c["function"]["name"] for t in body["messages"] for c in t.get("tool_calls") or ()
    }
    turns: list[Body] = []
    for turn in body["messages"]:
        if turn["role"] in ("system", "developer"):
            continue
        role = "model" if turn["role"] == "assistant" else "user"
        parts = google_parts(turn, names)
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    config: Body = {}
    renamed = {"temperature": "temperature", "top_p": "topP", "seed": "seed", "n": "candidateCount",
               "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty"}  # fmt: skip
    for ours, theirs in renamed.items():
        if body.get(ours) is not None:
            config[theirs] = body[ours]
    if limit_of(body):
        config["maxOutputTokens"] = limit_of(body)
    if stops_of(body):
        config["stopSequences"] = stops_of(body)
    wanted = body.get("response_format") or {}
    if wanted.get("type") in ("json_object", "json_schema"):
        config["responseMimeType"] = "application/json"
        if wanted["type"] == "json_schema":
            config["responseJsonSchema"] = wanted["json_schema"].get("schema") or {}
    found: Body = {"contents": turns}
    if config:
        found["generationConfig"] = config
    if system:
        found["systemInstruction"] = {"parts": [{"text": "\n\n".join(system)}]}
    if isinstance(body.get("tools"), list):
        found["tools"] = [
            {"functionDeclarations": [google_function(t["function"]) for t in body["tools"]]}
        ]
        modes = {"none": "NONE", "required": "ANY", "auto": "AUTO"}
        choice = body.get("tool_choice")
        calling: Body = {"mode": modes.get(choice, "AUTO") if isinstance(choice, str) else "AUTO"}
        if isinstance(choice, dict):
            calling = {"mode": "ANY", "allowedFunctionNames": [choice["function"]["name"]]}
        found["toolConfig"] = {"functionCallingConfig": calling}
    return found


def google_function(function: Body) -> Body:
    kept = {"name": function["name"], "description": function.get("description", "")}
    if function.get("parameters"):
        kept["parameters"] = function["parameters"]
    return kept


def google_parts(turn: Body, names: Mapping[str, str]) -> list[Body]:
    if turn["role"] == "tool":
        given = turn["content"]
        try:
            answer = json.loads(text_of(given))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            answer = {"result": text_of(given)}
        name = names.get(turn["tool_call_id"], turn["tool_call_id"])
        return [{"functionResponse": {"name": name, "response": answer}}]
    found: list[Body] = []
    content = turn.get("content")
    for part in content if isinstance(content, list) else [{"type": "text", "text": content or ""}]:
        if part.get("type") == "image_url":
            media, _, data = part["image_url"]["url"].removeprefix("data:").partition(";base64,")
            found.append({"inlineData": {"mimeType": media, "data": data}})
        elif part.get("text"):
            found.append({"text": part["text"]})
    for made in turn.get("tool_calls") or ():
        name = made["function"]["name"]
        found.append({"functionCall": {"name": name, "args": arguments_of(made)}})
    return found or [{"text": " "}]


def from_google(body: Body, has: Any) -> Body:
    candidate = body["candidates"][0]
    parts = (candidate.get("content") or {}).get("parts") or ()
    text = "".join(part.get("text", "") for part in parts if not part.get("thought"))
    calls = [
        call(
            f"call_{uuid4().hex[:16]}",
            p["functionCall"]["name"],
            json.dumps(p["functionCall"]["args"]),
        )
        for p in parts
        if "functionCall" in p
    ]
    reason = finish(candidate.get("finishReason"), calls=bool(calls), has=has)
    return completion(text, calls, reason, google_usage(body.get("usageMetadata")))


def google_usage(usage: Any) -> Body | None:
    if not isinstance(usage, dict):
        return None
    made = usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0)
    return tokens(usage.get("promptTokenCount", 0), made)


def google_stream(events: Iterator[Body], has: Any) -> Iterator[Body]:
    first, calls, usage = True, 0, None
    for event in events:
        if "error" in event:
            yield {"error": event["error"]}
            return
        if first:
            yield chunk({"role": "assistant", "content": ""})
            first = False
        usage = event.get("usageMetadata") or usage
        for candidate in (event.get("candidates") or ())[:1]:
            for part in (candidate.get("content") or {}).get("parts") or ():
                if "functionCall" in part:
                    made = part["functionCall"]
                    new = call(f"call_{uuid4().hex[:16]}", made["name"], json.dumps(made["args"]))
                    yield chunk({"tool_calls": [{"index": calls, **new}]})
                    calls += 1
                elif part.get("text") and not part.get("thought"):
                    yield chunk({"content": part["text"]})
            if candidate.get("finishReason"):
                reason = finish(candidate["finishReason"], calls=calls > 0, has=has)
                yield chunk({}, reason)
    if usage:
        yield {"choices": [], "usage": google_usage(usage)}


# --- OpenAI shapes --------------------------------------------------------------------------------


def call(name_of_call: str, name: str, arguments: str) -> Body:
    """Return one tool call."""
    return {
        "id": name_of_call,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def tokens(prompt: int, completion_tokens: int) -> Body:
    """Return a usage object."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt + completion_tokens,
    }


def completion(text: str, calls: list[Body], reason: str | None, usage: Body | None) -> Body:
    """Return a chat completion made of a provider's parts."""
    message: Body = {"role": "assistant", "content": text or (None if calls else "")}
    message["refusal"] = None
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason or "stop"}
    found: Body = {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "choices": [choice],
    }
    if usage is not None:
        found["usage"] = usage
    return found


def chunk(delta: Body, reason: str | None = None) -> Body:
    """Return what a chat chunk has of its own; the relay adds the rest."""
    return {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}


def answer(model: Model, endpoint: str, content: bytes, has: Any) -> Body:
    """Return a provider's answer in OpenAI's shape.

    Raises:
        Failure: it is not what was asked for.
    """
    try:
        body = json.loads(content)
    except ValueError:
        raise Failure("invalid_response", status=200) from None
    if not isinstance(body, dict):
        raise Failure("invalid_response", status=200)
    if body.get("error"):
        raise error_in_200(body["error"])
    reader = {"anthropic": from_anthropic, "cohere": from_cohere, "google": from_google}
    try:
        if endpoint == "chat" and model.provider.dialect in reader:
            return reader[model.provider.dialect](body, has)
        if endpoint == "embeddings" and model.provider.dialect == "cohere":
            return cohere_vectors(body)
        return checked(endpoint, body, has)
    except (KeyError, TypeError, IndexError, AttributeError):
        raise Failure("invalid_response", status=200) from None


def cohere_vectors(body: Body) -> Body:
    rows = body["embeddings"]["float"]
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    counts = (body.get("meta") or {}).get("billed_units") or {}
    prompt = int(counts.get("input_tokens", 0))
    return {
        "object": "list",
        "data": data,
        "usage": {"prompt_tokens": prompt, "total_tokens": prompt},
    }


def checked(endpoint: str, body: Body, has: Any) -> Body:
    """Return an OpenAI answer that has what its endpoint needs."""
    if endpoint == "embeddings":
        _ = [row["embedding"] for row in body["data"]]
    elif endpoint == "responses":
        _ = body["output"]
    elif endpoint == "completions":
        _ = [choice["text"] for choice in body["choices"]]
    elif "items" in body and has("wrong-shape-passed-on"):
        return body
    else:
        for choice in body["choices"]:
            message = choice["message"]
            _ = message["role"]
            calls = bool(message.get("tool_calls"))
            choice["finish_reason"] = finish(choice.get("finish_reason"), calls=calls, has=has)
        _ = body["choices"][0]
    return body


def error_in_200(error: Any) -> Failure:
    """Return the failure an error object inside an answer stands for."""
    code = str(error.get("code") or error.get("type") or "") if isinstance(error, dict) else ""
    for word, reason in (("rate_limit", "rate_limited"), ("overloaded", "overloaded")):
        if word in code:
            return Failure(reason, status=200)
    return Failure("invalid_response", status=200)


def stream_reader(model: Model, events: Iterator[Body], has: Any) -> Iterator[Body]:
    """Yield chat chunks for the events of a provider's stream."""
    readers = {
        "anthropic": anthropic_stream,
        "cohere": cohere_stream,
        "google": google_stream,
    }
    reader = readers.get(model.provider.dialect)
    return reader(events, has) if reader else openai_stream(events, has)


def openai_stream(events: Iterator[Body], has: Any) -> Iterator[Body]:
    for event in events:
        for choice in event.get("choices") or ():
            choice["finish_reason"] = finish(choice.get("finish_reason"), has=has)
        yield event
