"""Google's Gemini API, and its surface for clients of OpenAI's."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiproxy.conformance.rig.fleet import Actor
from aiproxy.conformance.rig.http1 import Request
from aiproxy.conformance.rig.shapes import openai
from aiproxy.conformance.rig.shapes.requests import count, insisted, json_object, need, objects
from aiproxy.conformance.rig.shapes.speech import Ask, Call, Frames, Refusal, Said, event, packed

_METHOD: Final = re.compile(r"models/([^/:]+):(\w+)$")
_MEMBERS: Final = frozenset(
    {"contents", "tools", "toolConfig", "safetySettings", "systemInstruction", "generationConfig",
     "cachedContent", "model", "labels", "store", "serviceTier"}
)  # fmt: skip
_GENERATION: Final = frozenset(
    {"stopSequences", "responseMimeType", "responseSchema", "responseJsonSchema",
     "responseModalities", "candidateCount", "maxOutputTokens", "temperature", "topP", "topK",
     "seed", "presencePenalty", "frequencyPenalty", "responseLogprobs", "logprobs",
     "enableEnhancedCivicAnswers", "speechConfig", "thinkingConfig", "imageConfig",
     "mediaResolution", "audioTranscriptionConfig", "continuationToken", "modelConfig",
     "routingConfig"}
)  # fmt: skip
_SCHEMA: Final = frozenset(
    {"type", "format", "title", "description", "nullable", "enum", "maxItems", "minItems",
     "properties", "required", "minProperties", "maxProperties", "minLength", "maxLength",
     "pattern", "example", "anyOf", "propertyOrdering", "default", "items", "minimum", "maximum",
     "additionalProperties", "defs", "ref"}
)  # fmt: skip
_STOP: Final = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}
_STATUS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def read(request: Request, actor: Actor) -> Ask:
    """Return what was asked; see ``speech.Dialect``."""
    if _foreign(request):
        return openai.read(request, actor)
    method = _METHOD.search(request.path)
    path = request.path.rstrip("/")
    one = path.endswith(f"models/{actor.upstream_model}")
    listed = request.method == "GET" and (one or path.endswith("models"))
    need(method or listed, f"The requested URL {path} was not found on this server.", status=404)
    given = request.header("x-goog-api-key") or request.query.get("key", "")
    need(given, "Method doesn't allow unregistered callers. Please use API Key.", status=403)
    need(given == actor.key, "API key not valid. Please pass a valid API key.")
    if method is None:
        return Ask("gemini-model" if one else "gemini-models")
    model, verb = method.groups()
    if model != actor.upstream_model or verb not in ("generateContent", "streamGenerateContent"):
        raise Refusal(404, f"models/{model} is not found for API version v1beta, or is not "
                      f"supported for {verb}.")  # fmt: skip
    body = _camel(json_object(request))
    stream = verb == "streamGenerateContent"
    return _generate(body, stream, events=request.query.get("alt") == "sse")


def _foreign(request: Request) -> bool:
    """Return whether the request is for the surface of OpenAI's shapes."""
    return openai.meant(request, ("chat/completions", "embeddings"))


def _generate(body: dict[str, Any], stream: bool, *, events: bool) -> Ask:
    _known(body, _MEMBERS, "")
    config = body.get("generationConfig") or {}
    _known(config, _GENERATION, "generation_config")
    need(body.get("contents"), "* GenerateContentRequest.contents: contents is not specified")
    _turns(objects(body["contents"], "contents"))
    system = body.get("systemInstruction")
    need(system is None or isinstance(system, dict), "system_instruction must be a Content")
    tools = _tools(body)
    calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    tool = None
    if str(calling.get("mode", "")).upper() == "ANY":
        names = calling.get("allowedFunctionNames") or list(tools)
        tool = insisted(tools, {"name": names[0] if names else None}, ())
    limit = count(config, "maxOutputTokens")
    form = _form(config)
    return Ask("gemini", {"events": events, **body}, stream, limit, tool, form)


def _form(config: Mapping[str, Any]) -> Any:
    if config.get("responseSchema") is not None:
        _plain(config["responseSchema"], "generation_config.response_schema")
    schema = config.get("responseSchema") or config.get("responseJsonSchema")
    as_json = config.get("responseMimeType") == "application/json"
    need(schema is None or as_json, "response_schema needs responseMimeType application/json")
    return (schema or {}) if as_json else None


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tool in body.get("tools") or []:
        need(isinstance(tool, dict), "tools must hold objects")
        for row in tool.get("functionDeclarations") or []:
            at = "tools[0].function_declarations"
            need(isinstance(row.get("name"), str), f"{at}.name must be specified")
            parameters = row.get("parameters")
            if parameters is not None:
                _plain(parameters, f"{at}.parameters")
            found[row["name"]] = parameters or row.get("parametersJsonSchema") or {}
    return found


def _plain(schema: Any, at: str) -> None:
    """Refuse what the OpenAPI subset of ``Schema`` does not know."""
    need(isinstance(schema, dict), f"{at}: a Schema must be an object")
    _known(schema, _SCHEMA, at)
    for name, inner in (schema.get("properties") or {}).items():
        _plain(inner, f"{at}.properties[{name}]")
    if schema.get("items") is not None:
        _plain(schema["items"], f"{at}.items")
    for place, inner in enumerate(schema.get("anyOf") or []):
        _plain(inner, f"{at}.any_of[{place}]")


def _turns(contents: Iterable[Mapping[str, Any]]) -> None:
    """Check roles and parts, and that each turn of calls is followed by as many responses."""
    calls = 0
    for place, content in enumerate(contents):
        role = content.get("role", "user")
        need(role in ("user", "model", "function"), "Please use a valid role: user, model.")
        parts = content.get("parts")
        right = isinstance(parts, list) and parts
        need(right, f"* GenerateContentRequest.contents[{place}].parts: must include at least one")
        assert isinstance(parts, list)
        for part in parts:
            kinds = [k for k in _KINDS if isinstance(part, dict) and k in part]
            need(len(kinds) == 1, "a part must have exactly one initialised data field")
            need(kinds != ["text"] or isinstance(part["text"], str), "text must be a string")
        answers = sum("functionResponse" in part for part in parts)
        need(not answers or calls, "Please ensure that function response turn comes immediately "
             "after a function call turn.")  # fmt: skip
        need(answers == calls, "Please ensure that the number of function response parts is equal "
             "to the number of function call parts of the function call turn.")  # fmt: skip
        calls = sum("functionCall" in part for part in parts)


_KINDS: Final = (
    "text", "inlineData", "functionCall", "functionResponse", "fileData", "executableCode",
    "codeExecutionResult", "toolCall", "toolResponse",
)  # fmt: skip


def _known(given: Mapping[str, Any], names: Iterable[str], at: str) -> None:
    for name in given:
        where = f" at '{at}'" if at else ""
        text = f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
        need(name in names, text)


def _camel(value: Any) -> Any:
    """Return ``value`` with its member names in camel case: both spellings are understood.

    The names inside a schema's ``properties`` and a call's ``args`` are the caller's own.
    """
    if isinstance(value, list):
        return [_camel(one) for one in value]
    if not isinstance(value, dict):
        return value
    own = ("properties", "args", "response", "parametersJsonSchema", "responseJsonSchema")
    found: dict[str, Any] = {}
    for name, inner in value.items():
        new = re.sub(r"(?<=[a-z])_([a-z])", lambda m: m[1].upper(), name)
        if new == "properties" and isinstance(inner, dict):
            found[new] = {key: _camel(one) for key, one in inner.items()}
        else:
            found[new] = inner if new in own else _camel(inner)
    return found


def refused(request: Request, refusal: Refusal) -> Any:
    """Return an error object."""
    status = _STATUS.get(refusal.status, "UNKNOWN")
    error = {"code": refusal.status, "message": refusal.message, "status": status}
    if _foreign(request):
        return [{"error": error}]  # in a list, as the real one does
    if "API key not valid" in refusal.message:
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
        error["details"] = [{**info, "domain": "googleapis.com"}]
    return {"error": error}


def whole(ask: Ask, said: Said) -> Any:
    """Return a GenerateContentResponse, or models."""
    if ask.shape == "gemini-models":
        return {"models": [_model(said)]}
    if ask.shape == "gemini-model":
        return _model(said)
    if ask.shape != "gemini":
        return openai.whole(ask, said)
    parts = [{"text": said.text}] if said.text or not said.calls else []
    parts += [_call(call) for call in said.calls]
    return _response(said, parts, _stop(said))


def _stop(said: Said) -> str | None:
    """Return why it ended: calls of tools end with STOP here."""
    return _STOP.get(said.finish, "STOP") if said.finish is not None else None


def _call(call: Call) -> dict[str, Any]:
    return {"functionCall": {"name": call.name, "args": call.values}}


def _model(said: Said) -> dict[str, Any]:
    methods = ["generateContent", "streamGenerateContent", "countTokens"]
    return {"name": f"models/{said.model}", "supportedGenerationMethods": methods}


def _response(said: Said, parts: list[dict[str, Any]], stop: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if stop:
        candidate["finishReason"] = stop
    answer: dict[str, Any] = {"candidates": [candidate]}
    if said.usage is not None:
        prompt = said.count("prompt_tokens")
        answer["usageMetadata"] = {
            "promptTokenCount": prompt,
            "candidatesTokenCount": said.count("completion_tokens"),
            "totalTokenCount": said.count("total_tokens"),
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        }
    return {**answer, "modelVersion": said.model, "responseId": said.id, **said.extra}


def frames(ask: Ask, said: Said) -> Frames:
    """Return the stream: events with ``alt=sse``, else one JSON array.

    The call and the reason for the end come in different chunks, as they do from the real one.
    """
    if ask.shape != "gemini":
        return openai.frames(ask, said)
    parts: list[dict[str, Any]] = [{"text": piece} for piece in said.text_pieces()]
    parts += [_call(call) for call in said.calls]
    chunks = [_response(said, [part], None) for part in parts]
    last = _response(said, [{"text": ""}], _stop(said))
    if ask.body["events"]:
        return Frames(
            opening=[],
            content=[event(chunk) for chunk in chunks],
            finish=[event(last)] if said.finish is not None else [],
            error=lambda message, code, after: [event(_error(message, code))],
            garbage='data: {"candidates": [{"content": {"par\n\n',
        )
    return Frames(
        opening=["["],
        content=[packed(chunk) + ",\n" for chunk in chunks],
        finish=[packed(last)] if said.finish is not None else [],
        done=["]"],
        error=lambda message, code, after: [packed(_error(message, code)), "]"],
        garbage='{"candidates": [{"content": {"par,\n',
        media_type="application/json; charset=UTF-8",
    )


def _error(message: str, code: str | None) -> dict[str, Any]:
    return {"error": {"code": 503, "message": message, "status": code or "UNAVAILABLE"}}


def headers(request: Request, said_id: str) -> tuple[tuple[str, str], ...]:
    """Return the fields Google puts on every answer."""
    return (("server", "scaffolding on HTTPServer2"), ("vary", "Origin, X-Origin, Referer"))
