"""Upstreams for the clients of other APIs: providers that speak those APIs, and some of OpenAI's
that use tools, see images or fail. Each answers alike every time."""

import json
from collections.abc import Mapping
from typing import Any

from upstreams import Script, Seen, Upstream

CALLS = [
    {
        "id": f"call_{city.lower()}",
        "type": "function",
        "function": {"name": "weather", "arguments": json.dumps({"city": city})},
    }
    for city in ("Paris", "Rome")
]
#: The credentials of ours that upstreams are to get.
UPSTREAM_KEY = "sk-of-the-router"


class ToolUser(Upstream):
    """Calls the weather tool twice, then repeats what the tools gave."""

    def _reply(self, seen: Seen, script: Script) -> dict[str, Any]:
        results = _results(seen.body)
        message: dict[str, Any] = {"role": "assistant", "content": ", ".join(results)}
        if not results:
            message = {"role": "assistant", "content": None, "tool_calls": CALLS}
        return super()._reply(seen, Script(message=message))

    def _frames(self, seen: Seen, script: Script) -> list[bytes]:
        results = _results(seen.body)
        if results:
            return super()._frames(seen, Script(text=", ".join(results)))
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
        for index, call in enumerate(CALLS):
            function: Any = call["function"]
            empty = {**call, "index": index, "function": {**function, "arguments": ""}}
            half = len(function["arguments"]) // 2
            deltas.append({"tool_calls": [empty]})
            for part in (function["arguments"][:half], function["arguments"][half:]):
                deltas.append({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
        base = {
            "id": "chatcmpl-tools",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
        }
        rows = [(delta, None) for delta in deltas] + [({}, "tool_calls")]
        frames = [
            {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
            for delta, reason in rows
        ]
        return [
            *(b"data: " + json.dumps(f).encode() + b"\n\n" for f in frames),
            b"data: [DONE]\n\n",
        ]


def _results(body: Mapping[str, Any]) -> list[str]:
    """What the tools gave: a text, or a JSON object with it as ``output``."""
    return [
        _plain(turn["content"]) for turn in body.get("messages", ()) if turn.get("role") == "tool"
    ]


def _plain(content: Any) -> str:
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    try:
        found = json.loads(text)
    except ValueError:
        return str(text)
    return str(found.get("output", found.get("result", text)))


class Seer(Upstream):
    """Says the address of the image it was shown."""

    def _reply(self, seen: Seen, script: Script) -> dict[str, Any]:
        parts = seen.body["messages"][-1]["content"]
        [url] = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        return super()._reply(seen, Script(text=url))


class Messages(Upstream):
    """Speaks Anthropic's Messages API."""

    def _reply(self, seen: Seen, script: Script) -> dict[str, Any]:
        assert seen.path == "/v1/messages", seen.path
        assert seen.headers["anthropic-version"]
        return {
            "id": "msg_upstream",
            "type": "message",
            "role": "assistant",
            "model": seen.body["model"],
            "content": [{"type": "text", "text": self.text(script)}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 9, "output_tokens": 12},
        }

    def _frames(self, seen: Seen, script: Script) -> list[bytes]:
        whole = self._reply(seen, script)
        begun = {**whole, "content": [], "stop_reason": None}
        begun["usage"] = {"input_tokens": 9, "output_tokens": 1}
        deltas = [
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": word + " "},
            }
            for word in self.text(script).split()
        ]
        rows: list[dict[str, Any]] = [
            {"type": "message_start", "message": begun},
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "text", "text": ""},
            },
            {"type": "ping"},
            *deltas,
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 12},
            },
            {"type": "message_stop"},
        ]
        return [
            b"event: %b\ndata: %b\n\n" % (row["type"].encode(), json.dumps(row).encode())
            for row in rows
        ]


class Gemini(Upstream):
    """Speaks Google's Gemini API; whether it streams is said by the path."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1beta"

    async def _answer(self, scope: Any, seen: Seen, script: Script, send: Any) -> None:
        if seen.path.endswith(":streamGenerateContent"):
            assert scope["query_string"] == b"alt=sse", scope["query_string"]
            await self._stream(seen, script, send)
            return
        await super()._answer(scope, seen, script, send)

    def _reply(self, seen: Seen, script: Script) -> dict[str, Any]:
        assert seen.path == "/v1beta/models/native-at-google:generateContent", seen.path
        return self._chunk(self.text(script), "STOP")

    def _frames(self, seen: Seen, script: Script) -> list[bytes]:
        words = self.text(script).split()
        rows = [self._chunk(word + " ", None) for word in words[:-1]]
        rows.append(self._chunk(words[-1], "STOP"))
        return [b"data: " + json.dumps(row).encode() + b"\r\n\r\n" for row in rows]

    def _chunk(self, text: str, reason: str | None) -> dict[str, Any]:
        candidate: dict[str, Any] = {
            "content": {"role": "model", "parts": [{"text": text}]},
            "index": 0,
        }
        if reason is not None:
            candidate["finishReason"] = reason
        return {
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": 9,
                "candidatesTokenCount": 12,
                "totalTokenCount": 21,
            },
            "modelVersion": "native-at-google",
            "responseId": "upstream-response",
        }


def native(kind: str) -> tuple[Upstream, dict[str, Any]]:
    """An upstream that speaks the API of a provider type, and its configuration entry."""
    upstream = Messages("native") if kind == "anthropic" else Gemini("native")
    name = "native" if kind == "anthropic" else "native-at-google"
    entry = {
        "type": kind,
        "endpoint": upstream.url,
        "credentials": {"api_key": UPSTREAM_KEY},
        "models": [{"name": "native", "model": name}],
    }
    return upstream, entry


def peculiar() -> dict[str, Upstream]:
    """Upstreams of one model each: it has the upstream's name."""
    scripts = {
        "limited": Script(status=429),
        "overloaded": Script(status=529),
        "broken": Script(status=500),
        "cut": Script(cut_after=2, done=False, finish=False),
        "slow": Script(gap_s=0.25),
        "shaped": Script(text='{"city": "Paris"}'),
    }
    found: dict[str, Upstream] = {"tools": ToolUser("tools"), "eyes": Seer("eyes")}
    for name, script in scripts.items():
        found[name] = Upstream(name)
        found[name].script = script
    return found
