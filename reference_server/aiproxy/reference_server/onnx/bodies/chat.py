"""From OpenAI bodies to tasks for the engine: ``/v1/chat/completions`` and ``/v1/completions``.

Pure functions. Requests come in as parsed JSON objects; what a local model cannot honour is refused
with the field's name, never dropped, unless leaving it out changes nothing. Fields nobody here knows
are ignored, as OpenAI's own servers ignore ``metadata`` or ``user``. ``openai_answers`` is the way
back.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from aiproxy.reference_server.onnx.errors import LocalError, RequestRefused
from aiproxy.reference_server.onnx.text.chat_template import Conversation, Message, ToolCall
from aiproxy.reference_server.onnx.text.generation import GenerationRequest, Sampling
from aiproxy.reference_server.onnx.text.runner import Grammar, Traits
from aiproxy.reference_server.onnx.text.tool_calls import (
    Tool,
    ToolFormat,
    ToolUse,
    calls_or_json,
    checked_calls,
    forced_calls,
)

Body = Mapping[str, Any]
Json = dict[str, Any]
#: What a prompt is made of: messages, raw text, or token ids as they are.
Prompt: TypeAlias = Conversation | str | tuple[int, ...]

MOST_STOPS: Final = 4
MOST_CHOICES: Final = 8
MOST_TOOLS: Final = 128
MOST_BIASES: Final = 1024
MOST_LOGPROBS: Final = 20
MOST_LOGPROBS_LEGACY: Final = 5
#: Characters of a JSON Schema; larger ones take the grammar compiler too long.
LARGEST_SCHEMA: Final = 100_000
FUNCTION_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Field, the code of its refusal, and the values that ask for nothing and so pass.
REFUSED: Final[tuple[tuple[str, str, Callable[[Any], bool]], ...]] = (
    ("functions", "unsupported_capability", lambda value: not value),
    ("audio", "unsupported_capability", lambda value: not value),
    ("modalities", "unsupported_capability", lambda value: value == ["text"]),
    ("web_search_options", "unsupported_capability", lambda value: not value),
    ("best_of", "unsupported_parameter", lambda value: value == 1 and value is not True),
    ("echo", "unsupported_parameter", lambda value: value is False),
    ("suffix", "unsupported_parameter", lambda value: not value),
)
#: Number fields of ``Sampling``: smallest and largest value, and whether it must be whole.
NUMBERS: Final[Mapping[str, tuple[float, float, bool]]] = {
    "temperature": (0, 2, False),
    "top_p": (0, 1, False),
    "top_k": (0, 2**31, True),
    "presence_penalty": (-2, 2, False),
    "frequency_penalty": (-2, 2, False),
}


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the model behind a body can do. ``sampling`` counts for absent fields; ``tools`` None:
    no tools; ``vocabulary`` is the number of token ids; ``raw``: completion prompts go to the model
    as they are, else as a user's message."""

    sampling: Sampling = field(default_factory=Sampling)
    traits: Traits = field(default_factory=Traits)
    tools: ToolFormat | None = None
    vocabulary: int = 0
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A request as the engine takes it, ``prompt`` aside, and how its answer is to be sent."""

    prompt: Prompt
    request: GenerationRequest
    stream: bool = False
    include_usage: bool = False
    choices: int = 1
    tools: ToolUse | None = None

    def requests(self, prompt: tuple[int, ...]) -> Iterator[GenerationRequest]:
        """Yield one request a choice; with a seed each choice has its own."""
        sampling = self.request.sampling
        for at in range(self.choices):
            if at and sampling.seed is not None:
                own = replace(sampling, seed=(sampling.seed + at) % 2**64)
                yield replace(self.request, prompt=prompt, sampling=own)
            else:
                yield replace(self.request, prompt=prompt)


def read_chat(body: Body, can: Abilities) -> Task:
    """Return the task of a chat request.

    Raises:
        RequestRefused: a field is wrong, or asks for what this local model cannot do.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise refused("messages", "a non-empty list of messages", body)
    read = read_messages(messages, can)
    if not any(message.role == "user" for message in read):
        raise RequestRefused("invalid_value", "messages holds no user message; add one", "messages")
    tools, use, grammar = read_tools(body, can)
    grammar = _format(body, can, use, grammar)
    logprobs = _chat_logprobs(body)
    if logprobs is not None and not can.traits.logprobs:
        raise unsupported("logprobs")
    limits = ("max_completion_tokens", "max_tokens")
    described = sum(tool.characters for tool in use.tools) if use is not None else 0
    task = _task(body, Conversation(read, tools, described), can, limits)
    shown = use is not None and bool(use.format.special)
    request = replace(task.request, grammar=grammar, top_logprobs=logprobs, show_special=shown)
    return replace(task, request=request, tools=use)


def read_completion(body: Body, can: Abilities) -> Task:
    """Return the task of a completions request, which has one prompt.

    Raises:
        RequestRefused: as ``read_chat``.
    """
    if body.get("tools"):
        raise unsupported("tools", "unsupported_capability")
    prompt = _prompt(body, can)
    logprobs = _legacy_logprobs(body)
    if logprobs is not None and not can.traits.logprobs:
        raise unsupported("logprobs")
    task = _task(body, prompt, can, ("max_tokens",))
    grammar = _format(body, can, None, None)
    return replace(task, request=replace(task.request, top_logprobs=logprobs, grammar=grammar))


def _prompt(body: Body, can: Abilities) -> Prompt:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str):
        text = whole_text(prompt, "prompt")
        return text if can.raw else Conversation((Message("user", text),))
    if not can.raw:
        raise refused("prompt", "one string", body)
    if (
        not isinstance(prompt, list)
        or not prompt
        or not all(type(token) is int and 0 <= token < can.vocabulary for token in prompt)
    ):
        raise refused("prompt", "one string or one list of this model's token ids", body)
    return tuple(prompt)


def read_messages(messages: Sequence[object], can: Abilities) -> tuple[Message, ...]:
    """Return the messages; a tool's result gets the name of the function its call named."""
    names: dict[str, str] = {}
    read: list[Message] = []
    for at, given in enumerate(messages):
        message = read_message(given, f"messages[{at}]", can)
        names |= {call.id: call.name for call in message.calls}
        if message.call_id is not None and message.name is None:
            message = replace(message, name=names.get(message.call_id))
        read.append(message)
    return tuple(read)


def read_message(message: object, path: str, can: Abilities) -> Message:
    """Return one message; ``developer`` counts as system, list content must be text parts."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestRefused("invalid_type", f"{path} is no message object with a role", path)
    role, content = message["role"], message.get("content")
    match role:
        case "user" | "assistant" | "system":
            pass
        case "developer":
            role = "system"
        case "tool" if can.tools is not None:
            return _tool_result(message, path)
        case _:
            raise RequestRefused(
                "unsupported_capability",
                f"{path}.role is not one this model knows: system, developer, user, assistant"
                + (", tool" if can.tools else ""),
                f"{path}.role",
            )
    calls = _calls(message.get("tool_calls"), f"{path}.tool_calls", can) if role[0] == "a" else ()
    if content is None and role == "assistant":
        return Message(role, "", calls)
    return Message(role, read_content(content, f"{path}.content"), calls)


def _tool_result(message: Mapping[str, Any], path: str) -> Message:
    call, name = message.get("tool_call_id"), message.get("name")
    if not isinstance(call, str) or not call:
        raise RequestRefused(
            "invalid_type", f"{path}.tool_call_id must be a string", f"{path}.tool_call_id"
        )
    if name is not None and not isinstance(name, str):
        raise RequestRefused("invalid_type", f"{path}.name must be a string", f"{path}.name")
    text = read_content(message.get("content"), f"{path}.content")
    named = None if name is None else whole_text(name, f"{path}.name")
    return Message("tool", text, (), whole_text(call, f"{path}.tool_call_id"), named)


def _calls(given: object, path: str, can: Abilities) -> tuple[ToolCall, ...]:
    if not given:
        return ()
    if can.tools is None:
        raise unsupported(path, "unsupported_capability")
    if not isinstance(given, list):
        raise RequestRefused("invalid_type", f"{path} must be a list", path)
    return tuple(_call(call, f"{path}[{at}]") for at, call in enumerate(given))


def _call(call: object, path: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise RequestRefused("invalid_type", f"{path} is no call of a function", path)
    fields = {
        "id": call.get("id"),
        "function.name": function.get("name"),
        "function.arguments": function.get("arguments"),
    }
    for name, value in fields.items():
        if not isinstance(value, str):
            raise RequestRefused(
                "invalid_type", f"{path}.{name} must be a string", f"{path}.{name}"
            )
        whole_text(value, f"{path}.{name}")
    return ToolCall(*map(str, fields.values()))


def read_content(content: object, path: str) -> str:
    if isinstance(content, str):
        return whole_text(content, path)
    if not isinstance(content, list):
        raise RequestRefused("invalid_type", f"{path} is neither text nor a list", path)
    return "".join(read_part(part, f"{path}[{at}]") for at, part in enumerate(content))


def read_part(part: object, path: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str):
        raise RequestRefused("invalid_type", f"{path} is no content part with a type", path)
    if kind not in ("text", "refusal"):
        raise RequestRefused(
            "unsupported_capability", f"{path} is not text; this model reads text only", path
        )
    text = part.get(kind)
    if not isinstance(text, str):
        raise RequestRefused("invalid_type", f"{path}.{kind} is not a string", f"{path}.{kind}")
    return whole_text(text, f"{path}.{kind}")


def whole_text(text: str, path: str) -> str:
    """Return ``text`` if it can be written as UTF-8; half a character pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        message = f"{path} holds half of a character; send valid Unicode"
        raise RequestRefused("invalid_value", message, path) from None
    return text


def read_tools(
    body: Body, can: Abilities
) -> tuple[tuple[Mapping[str, Any], ...], ToolUse | None, Grammar | None]:
    """Return the descriptions the template gets, what calls to read, and a grammar if one is due."""
    given, choice = body.get("tools"), body.get("tool_choice")
    if not given:
        if choice not in (None, "none", "auto"):
            raise RequestRefused(
                "invalid_value", "tool_choice asks for a tool and tools is empty", "tool_choice"
            )
        return (), None, None
    if can.tools is None:
        raise unsupported("tools", "unsupported_capability")
    if not isinstance(given, list) or len(given) > MOST_TOOLS:
        raise refused("tools", f"a list of at most {MOST_TOOLS} functions", body)
    tools = tuple(_tool(tool, f"tools[{at}]") for at, tool in enumerate(given))
    if len({tool.name for tool in tools}) < len(tools):
        raise RequestRefused("invalid_value", "tools holds two functions of one name", "tools")
    parallel = body.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        raise refused("parallel_tool_calls", "true or false", body)
    use = ToolUse(can.tools, tools, 1 if parallel is False else None)
    lark = "lark" in can.traits.grammars
    match choice:
        case None | "auto":
            return tuple(given), use, checked_calls(use) if lark else None
        case "none":
            return (), None, None
        case "required":
            chosen = tools
        case {"type": "function", "function": {"name": str(name)}}:
            chosen = tuple(tool for tool in tools if tool.name == name)
            use = replace(use, most=1)
        case _:
            raise refused("tool_choice", "none, auto, required or a function of tools", body)
    if not chosen:
        raise RequestRefused(
            "invalid_value", "tool_choice names no function of tools", "tool_choice"
        )
    if not lark:
        raise unsupported("tool_choice")
    return tuple(given), use, forced_calls(use, chosen)


def _tool(tool: object, path: str) -> Tool:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise RequestRefused("invalid_value", f"{path}.type must be function", f"{path}.type")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str):
        raise RequestRefused("invalid_type", f"{path} is no function with a name", path)
    if not FUNCTION_NAME.fullmatch(name):
        message = f"{path}.function.name must be 1 to 64 letters, digits, dots, dashes, underscores"
        raise RequestRefused("invalid_value", message, f"{path}.function.name")
    schema = function.get("parameters")
    if schema is not None and not isinstance(schema, dict):
        where = f"{path}.function.parameters"
        raise RequestRefused("invalid_type", f"{where} must be a JSON Schema object", where)
    return Tool(name, schema, function.get("strict") is True, len(_written(tool, path)))


def _written(schema: object, path: str) -> str:
    """Return the JSON of something a client sent, if it is not too large."""
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        text.encode()  # half of a character pair is no Unicode
    except (TypeError, ValueError, RecursionError):
        raise RequestRefused("invalid_value", f"{path} is not plain JSON", path) from None
    if len(text) > LARGEST_SCHEMA:
        message = f"{path} has more than {LARGEST_SCHEMA} characters; simplify it"
        raise RequestRefused("invalid_value", message, path)
    return text


def _format(
    body: Body, can: Abilities, use: ToolUse | None, grammar: Grammar | None
) -> Grammar | None:
    """Return the grammar of the answer: ``response_format`` with the ``grammar`` of tool calls."""
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    if kind in (None, "text", "auto", "provider-adaptive"):
        return grammar
    if kind not in ("json_object", "json_schema") or not isinstance(wanted, dict):
        raise RequestRefused(
            "unsupported_capability",
            "response_format must be text, json_object or json_schema here",
            "response_format",
        )
    asked = Grammar("json_object") if kind == "json_object" else Grammar("json_schema", "{}")
    schema: Mapping[str, Any] = {"type": "object"}
    if asked.kind == "json_schema":
        schema = _answer_schema(wanted)
        asked = replace(asked, text=json.dumps(schema))
    needed = asked.kind if use is None else "lark"
    if needed not in can.traits.grammars:
        raise unsupported("response_format", "unsupported_capability")
    if use is None:
        return asked
    forced = grammar is not None and body.get("tool_choice") not in (None, "auto")
    return grammar if forced else calls_or_json(use, schema)


def _answer_schema(wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    path = "response_format.json_schema"
    described = wanted.get("json_schema")
    if not isinstance(described, dict):
        raise RequestRefused("missing_required_parameter", f"{path} must be an object", path)
    schema = described.get("schema")
    if not isinstance(schema, dict):
        where = f"{path}.schema"
        raise RequestRefused("invalid_type", f"{where} must be a JSON Schema object", where)
    _written(schema, f"{path}.schema")
    # Without strict a keyword the grammar compiler has not is left out rather than refused.
    return schema if described.get("strict") is True else schema | {"x-guidance": {"lenient": True}}


def _task(body: Body, prompt: Prompt, can: Abilities, limits: tuple[str, ...]) -> Task:
    for name, code, harmless in REFUSED:
        value = body.get(name)
        if value is not None and not harmless(value):
            raise unsupported(name, code)
    request = GenerationRequest(
        prompt=(),
        max_tokens=_max_tokens(body, limits),
        stop=_stops(body),
        sampling=_sampling(body, can),
    )
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        raise refused("stream", "true or false", body)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise refused("stream_options", "an object", body)
    include_usage = stream and options.get("include_usage") is True
    return Task(prompt, request, stream, include_usage, _choices(body))


def _choices(body: Body) -> int:
    n = body.get("n")
    if n is None:
        return 1
    if type(n) is not int or not 1 <= n <= MOST_CHOICES:
        raise refused("n", f"a whole number from 1 to {MOST_CHOICES}", body)
    return n


def _max_tokens(body: Body, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise refused(name, "a whole number above 0", body)
        return value
    return None


def _stops(body: Body) -> tuple[str, ...]:
    value = body.get("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if (
        not isinstance(stops, list)
        or len(stops) > MOST_STOPS
        or not all(isinstance(stop, str) and stop for stop in stops)
    ):
        raise refused("stop", f"a string or a list of at most {MOST_STOPS} non-empty strings", body)
    return tuple(stops)


def _sampling(body: Body, can: Abilities) -> Sampling:
    given: dict[str, Any] = {}
    for name, (least, most, whole) in NUMBERS.items():
        value = body.get(name)
        if value is None:
            continue
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
            raise refused(name, f"a {'whole ' if whole else ''}number from {least} to {most}", body)
        given[name] = value
    for name in ("presence_penalty", "frequency_penalty"):
        if given.get(name) and not can.traits.penalties:
            raise unsupported(name)
    bias = _logit_bias(body, can)
    if bias:
        given["logit_bias"] = bias
    seed = body.get("seed")
    if seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, int) or abs(seed) >= 2**63:
            raise refused("seed", "a 64-bit whole number", body)
        given["seed"] = seed % 2**64  # the random source takes no negative numbers
    sampling = replace(can.sampling, **given)
    # Where nothing is drawn a seed changes nothing, so it passes there.
    if sampling.seed is not None and sampling.temperature > 0 and not can.traits.seeds:
        raise unsupported("seed")
    return sampling


def _logit_bias(body: Body, can: Abilities) -> dict[int, float]:
    bias = body.get("logit_bias")
    if not bias:
        return {}
    if not can.traits.logit_bias:
        raise unsupported("logit_bias")
    if not isinstance(bias, dict) or len(bias) > MOST_BIASES:
        raise refused("logit_bias", f"an object of at most {MOST_BIASES} token ids", body)
    read: dict[int, float] = {}
    for token, value in bias.items():
        known = token.isascii() and token.isdigit() and len(token) < 10
        if not known or int(token) >= can.vocabulary:
            raise RequestRefused(
                "invalid_value", "logit_bias holds a key that is no token id here", "logit_bias"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 100:
            raise RequestRefused(
                "invalid_value", "logit_bias values must be numbers from -100 to 100", "logit_bias"
            )
        read[int(token)] = float(value)
    return read


def _chat_logprobs(body: Body) -> int | None:
    wanted, top = body.get("logprobs"), body.get("top_logprobs")
    if wanted is not None and not isinstance(wanted, bool):
        raise refused("logprobs", "true or false", body)
    if top is not None and (type(top) is not int or not 0 <= top <= MOST_LOGPROBS):
        raise refused("top_logprobs", f"a whole number from 0 to {MOST_LOGPROBS}", body)
    if top and not wanted:
        raise RequestRefused(
            "invalid_value", "top_logprobs needs logprobs to be true", "top_logprobs"
        )
    return (top or 0) if wanted else None


def _legacy_logprobs(body: Body) -> int | None:
    wanted = body.get("logprobs")
    if wanted is None or wanted is False:
        return None
    if type(wanted) is not int or not 0 <= wanted <= MOST_LOGPROBS_LEGACY:
        raise refused("logprobs", f"a whole number from 0 to {MOST_LOGPROBS_LEGACY}", body)
    return wanted


def unsupported(name: str, code: str = "unsupported_parameter") -> RequestRefused:
    return RequestRefused(code, f"{name} is not supported by this local model", name)


def refused(name: str, expected: str, body: Body) -> RequestRefused:
    """Return the refusal of field ``name``: absent, of the wrong type, or of a wrong value."""
    if body.get(name) is None:
        return RequestRefused("missing_required_parameter", f"{name} must be {expected}", name)
    found = type(body[name]).__name__
    return RequestRefused("invalid_value", f"{name} must be {expected}; found {found}", name)


def error_object(error: LocalError) -> Json:
    """Return the OpenAI error body of ``error``."""
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }
