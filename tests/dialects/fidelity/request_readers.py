"""What a provider understands of a request body in its own language, as facts."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from fidelity.facts import (
    Fact,
    Facts,
    Json,
    arguments,
    document,
    members,
    picture,
    plain,
    rows,
    scalars,
    schema_facts,
    stops,
)

# --- OpenAI chat, and those that took its shape ---------------------------------------------------

_CHAT_SCALARS: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "seed": "seed",
    "n": "n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "logprobs": "logprobs",
    "top_logprobs": "top_logprobs",
    "verbosity": "verbosity",
    "user": "user_id",
    "service_tier": "tier",
}


def chat(body: Json) -> Facts:
    names: dict[str, str] = {}
    for message in rows(body.get("messages")):
        yield from _message(message, names)
    for tool in rows(body.get("tools")):
        yield from _nested_tool(tool)
    yield from _choice(body.get("tool_choice"))
    if "parallel_tool_calls" in body:
        yield ("parallel", plain(body["parallel_tool_calls"]))
    yield from _format(members(body.get("response_format")))
    yield from scalars(body, _CHAT_SCALARS)
    yield from stops(body.get("stop"))
    yield from _effort(body.get("reasoning_effort"))
    for name, value in members(body.get("metadata")).items():
        yield ("metadata", name, plain(value))


def _effort(effort: object) -> Facts:
    if effort is not None:
        yield ("thinks", "no" if effort == "none" else "yes")


def _format(wanted: Json) -> Facts:
    kind = wanted.get("type")
    if kind == "json_object" and "schema" not in wanted:
        yield ("format", "json_object")
    elif kind == "json_schema":
        inner = members(wanted.get("json_schema", wanted))
        yield from schema_facts("schema", inner.get("name", "answer"), inner.get("schema"))
        if inner.get("strict"):
            yield ("schema_strict", "true")


def _message(message: Json, names: dict[str, str]) -> Facts:
    role = message.get("role", "")
    speaker = {"developer": "system", "function": "tool"}.get(role, role)
    if speaker == "tool":
        called = names.get(message.get("tool_call_id", ""), message.get("name", "?"))
        yield from _result(called, message.get("content"))
        return
    for key in ("reasoning_content", "reasoning"):
        if isinstance(message.get(key), str):
            yield ("thought", message[key])
    for detail in rows(message.get("reasoning_details")):
        yield from _detail(detail)
    yield from _content(speaker, message.get("content"))
    if message.get("refusal"):
        yield (speaker, message["refusal"])
    if message.get("name"):
        yield ("name", message["name"])
    for call in rows(message.get("tool_calls")):
        kind = call.get("type", "function")
        inner = call.get(kind) or call.get("function") or call
        names[call.get("id", "")] = inner.get("name", "")
        if kind == "custom":
            yield ("custom_call", inner["name"], inner["input"])
        else:
            yield ("call", inner["name"], arguments(inner.get("arguments")))
        google = members(members(call.get("extra_content")).get("google"))
        if google.get("thought_signature"):
            yield ("signature", google["thought_signature"])


def _detail(detail: Json) -> Facts:
    if detail.get("text"):
        yield ("thought", detail["text"])
    if detail.get("signature"):
        yield ("signature", detail["signature"])
    if detail.get("data"):
        yield ("encrypted", detail["data"])


def _content(speaker: str, content: Any) -> Facts:
    if isinstance(content, str) and content:
        yield (speaker, content)
    for part in rows(content):
        kind = part.get("type")
        if kind in ("text", "input_text", "output_text"):
            yield (speaker, part["text"])
        elif kind == "refusal":
            yield (speaker, part["refusal"])
        elif kind == "image_url":
            inner = part["image_url"]
            yield picture(inner if isinstance(inner, str) else inner["url"])
            if isinstance(inner, dict) and inner.get("detail"):
                yield ("detail", inner["detail"])
        elif kind == "input_audio":
            inner = part["input_audio"]
            yield ("audio", inner if isinstance(inner, str) else inner["data"])
        elif kind == "file" and members(part.get("file")).get("file_data"):
            yield document(part["file"]["file_data"])
        elif kind == "document_url":
            url = part["document_url"]
            yield document(url) if url.startswith("data:") else ("file_url", url)
        elif kind == "thinking":
            for inner in rows(part["thinking"]):
                yield ("thought", inner["text"])
            if part.get("signature"):
                yield ("signature", part["signature"])


def _result(called: str, content: Any) -> Facts:
    """A tool's answer: its text under the name of the call it answers."""
    yield ("answered", called)
    for fact in _content("said", content):
        yield ("result", called, fact[1]) if fact[0] == "said" else fact


def _nested_tool(tool: Json) -> Facts:
    kind = tool.get("type", "function")
    if kind == "custom":
        yield ("custom_tool", tool["custom"]["name"])
    elif kind == "function" and "function" in tool:
        yield from _function(tool["function"], "parameters")
    elif "name" in tool:  # Workers AI also takes them flat
        yield from _function(tool, "parameters")
    else:
        yield ("hosted_tool", kind)


def _function(tool: Json, schema: str) -> Facts:
    yield ("tool", tool["name"])
    if tool.get("description"):
        yield ("tool_description", tool["name"], tool["description"])
    yield from schema_facts("property", tool["name"], tool.get(schema))
    if tool.get("strict"):
        yield ("tool_strict", tool["name"])


def _choice(choice: Any) -> Facts:
    if isinstance(choice, str):
        yield ("choice", "required" if choice in ("any", "REQUIRED") else choice.lower())
    elif isinstance(choice, dict):
        inner = choice.get(str(choice.get("type")), choice)
        inner = inner if isinstance(inner, dict) else choice
        allowed = [members(t.get("function", t)).get("name", "") for t in rows(inner.get("tools"))]
        if allowed:
            yield ("allowed", ", ".join(sorted(allowed)))
        if "name" in inner:
            yield ("choice", inner["name"])


# --- OpenAI Responses -----------------------------------------------------------------------------


def responses(body: Json) -> Facts:
    if body.get("instructions"):
        yield ("system", body["instructions"])
    given = body.get("input")
    if isinstance(given, str):
        yield ("user", given)
    names: dict[str, str] = {}
    for item in rows(given):
        yield from _item(item, names)
    for tool in rows(body.get("tools")):
        if tool["type"] == "function":
            yield from _function(tool, "parameters")
        elif tool["type"] == "custom":
            yield ("custom_tool", tool["name"])
        else:
            yield ("hosted_tool", tool["type"])
    yield from _choice(body.get("tool_choice"))
    if "parallel_tool_calls" in body:
        yield ("parallel", plain(body["parallel_tool_calls"]))
    text = members(body.get("text"))
    yield from _format(members(text.get("format")))
    yield from scalars(text, {"verbosity": "verbosity"})
    names_of = {name: fact for name, fact in _CHAT_SCALARS.items() if "max" not in name}
    for unknown in ("seed", "n", "top_k", "logprobs", "verbosity"):
        del names_of[unknown]
    yield from scalars(body, {**names_of, "max_output_tokens": "max_tokens"})
    if "message.output_text.logprobs" in rows(body.get("include")):
        yield ("logprobs", "true")
    reasoning = members(body.get("reasoning"))
    yield from _effort(reasoning.get("effort"))
    if reasoning.get("summary"):
        yield ("summary", "yes")
    for name, value in members(body.get("metadata")).items():
        yield ("metadata", name, plain(value))


def _item(item: Json, names: dict[str, str]) -> Facts:
    kind = item.get("type", "message")
    if kind == "message":
        role = {"developer": "system"}.get(item["role"], item["role"])
        content = item["content"]
        if isinstance(content, str) and content:
            yield (role, content)
        for part in rows(content):
            yield from _input_part(role, part)
    elif kind in ("function_call", "custom_tool_call"):
        names[item["call_id"]] = item["name"]
        if kind == "custom_tool_call":
            yield ("custom_call", item["name"], item["input"])
        else:
            yield ("call", item["name"], arguments(item["arguments"]))
    elif kind in ("function_call_output", "custom_tool_call_output"):
        called = names.get(item["call_id"], "?")
        yield ("answered", called)
        output = item["output"]
        if isinstance(output, str) and output:
            yield ("result", called, output)
        for part in rows(output):
            for fact in _input_part("said", part):
                yield ("result", called, fact[1]) if fact[0] == "said" else fact
    elif kind == "reasoning":
        for part in rows(item.get("content")):
            yield ("thought", part["text"])
        if item.get("encrypted_content"):
            yield ("encrypted", item["encrypted_content"].rpartition(".")[2])


def _input_part(role: str, part: Json) -> Facts:
    kind = part["type"]
    if kind in ("input_text", "output_text"):
        yield (role, part["text"])
    elif kind == "refusal":
        yield (role, part["refusal"])
    elif kind == "input_image":
        if part.get("image_url"):
            yield picture(part["image_url"])
        if part.get("detail", "auto") != "auto":
            yield ("detail", part["detail"])
    elif kind == "input_file":
        if part.get("file_data"):
            yield document(part["file_data"])
        if part.get("file_url"):
            yield ("file_url", part["file_url"])
    elif kind == "input_audio":
        yield ("audio", part["input_audio"]["data"])


# --- Anthropic Messages ---------------------------------------------------------------------------

ANSWER_TOOL: Final = "aiproxy_json_answer"


def anthropic(body: Json) -> Facts:
    system = body.get("system")
    for block in [{"text": system}] if isinstance(system, str) else rows(system):
        yield ("system", block["text"])
    names: dict[str, str] = {}
    for message in body["messages"]:
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            yield from _block(message["role"], block, names)
    for tool in rows(body.get("tools")):
        if (
            tool.get("name") == ANSWER_TOOL
        ):  # the shape of the answer, told as a tool to answer with
            properties = members(tool["input_schema"]).get("properties")
            yield from schema_facts("schema", "answer", tool["input_schema"])
            if not properties:
                yield ("format", "json_object")
            if tool.get("strict"):
                yield ("schema_strict", "true")
        elif tool.get("type", "custom") == "custom":
            yield from _function(tool, "input_schema")
        else:  # web_search_20250305 and the like: the date is a version
            yield ("hosted_tool", tool["type"].rstrip("0123456789").rstrip("_"))
    choice = members(body.get("tool_choice"))
    if choice:
        kind = choice["type"]
        yield ("choice", choice["name"] if kind == "tool" else {"any": "required"}.get(kind, kind))
        if "disable_parallel_tool_use" in choice:
            yield ("parallel", plain(not choice["disable_parallel_tool_use"]))
    config = members(body.get("output_config"))
    wanted = members(config.get("format") or body.get("output_format"))
    yield from schema_facts("schema", "answer", wanted.get("schema"))
    if wanted.get("schema"):
        yield ("enforced", "schema")
    yield from scalars(
        body,
        {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k",
         "max_tokens": "max_tokens", "service_tier": "tier"},
    )  # fmt: skip
    yield from stops(body.get("stop_sequences"))
    thinking = members(body.get("thinking"))
    if thinking:
        yield ("thinks", "no" if thinking["type"] == "disabled" else "yes")
    elif config.get("effort"):
        yield ("thinks", "yes")
    if members(body.get("metadata")).get("user_id"):
        yield ("user_id", body["metadata"]["user_id"])


def _block(role: str, block: Json, names: dict[str, str]) -> Facts:
    kind = block["type"]
    if kind == "text":
        yield (role, block["text"])
    elif kind == "image":
        yield _source(block["source"])
    elif kind == "document":
        source = block["source"]
        yield ("file_url", source["url"]) if source["type"] == "url" else ("file", source["data"])
    elif kind == "tool_use":
        names[block["id"]] = block["name"]
        yield ("call", block["name"], arguments(block["input"]))
    elif kind == "tool_result":
        called = names.get(block["tool_use_id"], "?")
        yield ("answered", called)
        if block.get("is_error"):
            yield ("failed", called)
        content = block.get("content", "")
        for inner in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if inner["type"] == "text":
                yield ("result", called, inner["text"])
            else:
                yield from _block(role, inner, names)
    elif kind == "thinking":
        yield ("thought", block["thinking"])
        yield ("signature", block["signature"])
    elif kind == "redacted_thinking":
        yield ("encrypted", block["data"])


def _source(source: Json) -> Fact:
    if source["type"] == "url":
        return ("image", source["url"])
    return ("image", source["media_type"], source["data"])


# --- Google Gemini --------------------------------------------------------------------------------


def gemini(body: Json) -> Facts:
    for part in rows(members(body.get("systemInstruction")).get("parts")):
        yield ("system", part["text"])
    for content in body["contents"]:
        role = {"model": "assistant"}.get(content.get("role", "user"), "user")
        for part in content["parts"]:
            yield from _gemini_part(role, part)
    for tool in rows(body.get("tools")):
        for function in rows(tool.get("functionDeclarations")):
            schema = "parametersJsonSchema" if "parametersJsonSchema" in function else "parameters"
            yield from _function(function, schema)
        for name, hosted in (("googleSearch", "web_search"), ("codeExecution", "code_interpreter")):
            if name in tool:
                yield ("hosted_tool", hosted)
    calling = members(members(body.get("toolConfig")).get("functionCallingConfig"))
    allowed = rows(calling.get("allowedFunctionNames"))
    if calling.get("mode"):
        mode = {"ANY": "required"}.get(calling["mode"], calling["mode"].lower())
        if mode == "required" and len(allowed) == 1:
            mode = allowed[0]
        yield ("choice", mode)
        if allowed:
            yield ("allowed", ", ".join(sorted(allowed)))
    config = members(body.get("generationConfig"))
    schema = config.get("responseJsonSchema", config.get("responseSchema"))
    if schema is not None:
        yield from schema_facts("schema", "answer", schema)
    elif config.get("responseMimeType") == "application/json":
        yield ("format", "json_object")
    yield from scalars(
        config,
        {"temperature": "temperature", "topP": "top_p", "topK": "top_k", "seed": "seed",
         "maxOutputTokens": "max_tokens", "candidateCount": "n", "logprobs": "top_logprobs",
         "presencePenalty": "presence_penalty", "frequencyPenalty": "frequency_penalty",
         "responseLogprobs": "logprobs"},
    )  # fmt: skip
    yield from stops(config.get("stopSequences"))
    thinking = members(config.get("thinkingConfig"))
    if thinking.get("thinkingBudget") == 0:
        yield ("thinks", "no")
    elif thinking.get("thinkingBudget") or thinking.get("thinkingLevel"):
        yield ("thinks", "yes")
    if thinking.get("includeThoughts"):
        yield ("summary", "yes")
    yield from scalars(body, {"serviceTier": "tier"})
    for name, value in members(body.get("labels")).items():
        yield ("metadata", name, plain(value))


def _gemini_part(role: str, part: Json) -> Facts:
    if "text" in part:
        yield ("thought", part["text"]) if part.get("thought") else (role, part["text"])
    elif "inlineData" in part:
        inline = part["inlineData"]
        media, data = inline["mimeType"], inline["data"]
        kind = media.partition("/")[0]
        yield (
            ("image", media, data)
            if kind == "image"
            else (("audio", data) if kind == "audio" else ("file", data))
        )
    elif "fileData" in part:
        uri, media = part["fileData"]["fileUri"], part["fileData"].get("mimeType", "")
        yield ("image", uri) if media.startswith("image/") else ("file_url", uri)
    elif "functionCall" in part:
        call = part["functionCall"]
        yield ("call", call["name"], arguments(call.get("args", {})))
    elif "functionResponse" in part:
        answer = part["functionResponse"]
        called, response = answer["name"], answer["response"]
        yield ("answered", called)
        if "error" in response:
            yield ("failed", called)
        for value in _strings(response):
            yield ("result", called, value)
        for inner in rows(answer.get("parts")):
            yield from _gemini_part(role, inner)
    if "thoughtSignature" in part:
        yield ("signature", part["thoughtSignature"])


def _strings(value: Any) -> Iterator[str]:
    """Every text inside a function response; its members are the caller's to choose."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


# --- Cohere v2 ------------------------------------------------------------------------------------


def cohere(body: Json) -> Facts:
    names: dict[str, str] = {}
    for message in body["messages"]:
        role = message["role"]
        if message.get("tool_plan"):
            yield (role, message["tool_plan"])
        if role == "tool":
            called = names.get(message["tool_call_id"], "?")
            yield ("answered", called)
            content = message["content"]
            if isinstance(content, str) and content:
                yield ("result", called, content)
            for part in rows(content):
                text = part.get("text") or members(part.get("document")).get("data")
                for value in _strings(text):
                    yield ("result", called, value)
            continue
        for part in rows(message.get("content")):
            if part.get("type") == "thinking":
                yield ("thought", part["thinking"])
        yield from _content(role, message.get("content"))
        for call in rows(message.get("tool_calls")):
            names[call["id"]] = call["function"]["name"]
            yield ("call", call["function"]["name"], arguments(call["function"]["arguments"]))
    for tool in rows(body.get("tools")):
        yield from _function(tool["function"], "parameters")
        if body.get("strict_tools"):
            yield ("tool_strict", tool["function"]["name"])
    yield from _choice(body.get("tool_choice"))
    wanted = members(body.get("response_format"))
    schema = wanted.get("json_schema", wanted.get("schema"))
    if schema is not None:
        yield from schema_facts("schema", "answer", schema)
    elif wanted.get("type") == "json_object":
        yield ("format", "json_object")
    yield from scalars(
        body,
        {"temperature": "temperature", "p": "top_p", "k": "top_k", "seed": "seed",
         "max_tokens": "max_tokens", "presence_penalty": "presence_penalty",
         "frequency_penalty": "frequency_penalty", "logprobs": "logprobs"},
    )  # fmt: skip
    yield from stops(body.get("stop_sequences"))
    thinking = members(body.get("thinking"))
    if thinking:
        yield ("thinks", "no" if thinking["type"] == "disabled" else "yes")


# --- Mistral --------------------------------------------------------------------------------------


def mistral(body: Json) -> Facts:
    mapped = {**body, "seed": body.get("random_seed")}
    if body.get("prompt_mode") == "reasoning":
        mapped.setdefault("reasoning_effort", "high")
    yield from chat({k: v for k, v in mapped.items() if k != "user"})


# --- Cloudflare Workers AI ------------------------------------------------------------------------


def workers_ai(body: Json) -> Facts:
    if isinstance(body.get("prompt"), str):
        yield ("user", body["prompt"])
    if isinstance(body.get("image"), str):
        yield picture(body["image"])
    known = {
        "messages", "tools", "response_format", "temperature", "top_p", "top_k", "seed",
        "max_tokens", "presence_penalty", "frequency_penalty", "stop", "reasoning_effort",
        "tool_choice", "n", "logprobs", "top_logprobs", "user", "metadata", "parallel_tool_calls",
        "max_completion_tokens", "service_tier", "verbosity",
    }  # fmt: skip
    yield from chat({name: value for name, value in body.items() if name in known})
    wanted = members(body.get("response_format"))
    bare = wanted.get("json_schema")
    if isinstance(bare, dict) and "schema" not in bare:
        yield from schema_facts("schema", "answer", bare)
        yield ("schema_strict", "true")


# --- OpenAI's old completions ---------------------------------------------------------------------


def completions(body: Json) -> Facts:
    prompt = body["prompt"]
    for one in [prompt] if isinstance(prompt, str) else prompt:
        yield ("user", one)
    names = {name: fact for name, fact in _CHAT_SCALARS.items() if fact != "top_logprobs"}
    del names["verbosity"], names["service_tier"], names["max_completion_tokens"]
    yield from scalars(body, {**names, "logprobs": "top_logprobs"})
    if body.get("logprobs") is not None:
        yield ("logprobs", "true")
    yield from stops(body.get("stop"))


_READERS: Final[dict[str, Callable[[Json], Facts]]] = {
    "chat": chat,
    "responses": responses,
    "anthropic": anthropic,
    "gemini": gemini,
    "mistral": mistral,
    "cohere": cohere,
    "workers_ai": workers_ai,
    "completions": completions,
}


def spoken(dialect: str, body: Json) -> list[Fact]:
    """The facts a body says in so many words."""
    return list(_READERS[dialect](body))


def understood(dialect: str, body: Json) -> list[Fact]:
    """The facts of a body, with what follows of them: tools are chosen freely where nothing is
    said, and among those on offer where one must be; some APIs do always what others are asked."""
    found = spoken(dialect, body)
    kinds = {fact[0] for fact in found}
    tools = sorted(fact[1] for fact in found if fact[0] == "tool")
    choice = next((fact[1] for fact in found if fact[0] == "choice"), None)
    if tools and choice is None:
        found.append(("choice", "auto"))
    if "allowed" not in kinds and choice in tools:
        found.append(("allowed", str(choice)))
    elif "allowed" not in kinds and choice == "required":
        found.append(("allowed", ", ".join(tools)))
        if len(tools) == 1:
            found.append(("choice", tools[0]))
    if "enforced" in kinds or (dialect in ("gemini", "cohere") and "schema" in kinds):
        found.append(("schema_strict", "true"))  # decoding is constrained by it
    if dialect == "anthropic":
        found += _free_form(found, tools)
        thinks = ("thinks", "yes") in found
        found.append(("summary", "yes") if thinks else ("thinks", "no"))
    return found


def _free_form(found: list[Fact], tools: list[str]) -> Facts:
    """Tools of one text: what our decoder gives back as calls of custom tools."""
    for name in tools:
        properties = [fact[2:] for fact in found if fact[:2] == ("property", name)]
        if properties == [("input", "string")]:
            yield ("custom_tool", name)
            for fact in found:
                if fact[:2] == ("call", name):
                    yield ("custom_call", name, json.loads(fact[2])["input"])


DIALECTS: Final = frozenset(_READERS)
