"""Relaying a stream. Nothing reaches the client before the first content of an attempt: until
then another provider may be asked. Afterwards a broken stream ends in an error.

A stream is complete when its finish reason (or the dialect's terminal event) was seen.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from right_router import auto, dialects, misdrawn, unfaithful
from right_router.answers import x_aiproxy
from right_router.asking import Ask
from right_router.wire import ClientLeft, Connection, Failure

if TYPE_CHECKING:
    from right_router.attempts import Attempt

Body = dict[str, Any]
TERMINAL = ("response.completed", "response.incomplete")
MOST_LINE = 4 * 1024 * 1024
MALFORMED = (KeyError, TypeError, IndexError, AttributeError, ValueError)


class Opened:
    """A stream that has begun: the chunks held so far, and where the rest comes from."""

    def __init__(
        self, ask: Ask, made: "Attempt", kind: str, connection: Connection, rest: Iterator[Body]
    ) -> None:
        self.ask, self.attempt, self.kind = ask, made, kind
        self.connection, self.rest = connection, rest
        self.held: list[Body] = []
        self.usage: Body | None = None
        self.finished = False
        self.said: list[str] = []

    def chunks(self) -> Iterator[Body]:
        """Yield every chunk, the held ones first.

        Raises:
            Failure: the stream ended wrong.
        """
        yield from self.held
        while (chunk := self.next()) is not None:
            self.look(chunk)
            yield chunk
        if not self.finished and not self.ask.has("unfinished-is-complete"):
            raise Failure("stream_interrupted", status=200)

    def next(self) -> Body | None:
        """Return the next chunk, None at the end."""
        try:
            return next(self.rest, None)
        except MALFORMED:
            raise Failure("stream_interrupted", status=200) from None

    def look(self, chunk: Body) -> None:
        """Note usage, end and errors of a chunk that passes."""
        if chunk.get("error") or chunk.get("type") in ("error", "response.failed"):
            raise Failure("stream_interrupted", status=200)
        if chunk.get("usage"):
            self.usage = chunk["usage"]
        if chunk.get("type") == "response.output_text.delta":
            self.said.append(chunk["delta"])
        for choice in (chunk.get("choices") or ())[:1]:
            self.said.append((choice.get("delta") or {}).get("content") or "")
        if any(choice.get("finish_reason") for choice in chunk.get("choices") or ()):
            self.finished = True
        if chunk.get("type") in TERMINAL:
            self.finished = True
            usage = (chunk.get("response") or {}).get("usage")
            if usage:
                made = usage.get("output_tokens", 0)
                self.usage = dialects.tokens(usage.get("input_tokens", 0), made)


def opened(
    ask: Ask,
    made: "Attempt",
    prepared: "auto.Prepared",
    connection: Connection,
    headers: Mapping[str, str],
    begun: float,
) -> Opened:
    """Return the stream of an answer, read up to its first content.

    Raises:
        Failure: there is no content, in time or at all.
    """
    times = made.model.provider.timeouts
    stop, patience = connection.stop, begun + times["first_token"]
    if not ask.has("timeouts-ignored"):
        connection.stop = min(stop, patience)
    events = sse(connection, headers, times["idle"], ask)
    if prepared.kind == "chat":
        events = dialects.stream_reader(made.model, events, ask.has)
    rest = (auto.renamed(event, prepared) for event in events)
    found = Opened(ask, made, prepared.kind, connection, rest)
    try:
        for chunk in rest:
            if chunk.get("error"):
                raise dialects.error_in_200(chunk["error"])
            found.look(chunk)
            found.held.append(chunk)
            if bears_content(chunk) or ask.has("commits-at-once"):
                break
        else:
            raise Failure("stream_interrupted", status=200)
    except Failure as failure:
        if failure.reason == "connect_error":
            raise Failure("stream_interrupted", status=200) from None
        raise
    except MALFORMED:
        raise Failure("invalid_response", status=200) from None
    connection.stop = stop
    return found


def bears_content(chunk: Body) -> bool:
    """Return whether a chunk says something, or ends the stream."""
    kind = chunk.get("type", "")
    if kind.endswith(".delta") or kind in TERMINAL:
        return True
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        said = any(delta.get(name) for name in ("content", "tool_calls", "refusal"))
        if said or choice.get("text") or choice.get("finish_reason"):
            return True
    return False


def sse(
    connection: Connection, headers: Mapping[str, str], idle_s: float, ask: Ask
) -> Iterator[Body]:
    """Yield the JSON events of a stream; an event that does not parse is skipped.

    Raises:
        Failure: the transfer broke or fell silent.
    """
    buffer, data = b"", []
    decoder_errors = "replace" if ask.has("stream-cut-characters") else "strict"
    for piece in pieces(connection, headers, idle_s):
        if ask.has("splits-at-line-separators"):
            piece = piece.replace("\u2028".encode(), b"\n")
        if ask.has("stream-cut-characters"):
            piece = piece.decode(errors=decoder_errors).encode()
        buffer += piece
        if len(buffer) > MOST_LINE:
            raise Failure("invalid_response", status=200)
        *lines, buffer = buffer.replace(b"\r\n", b"\n").split(b"\n")
        if buffer.endswith(b"\r"):
            pass  # its line feed may still come
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                event = b"\n".join(data)
                data = []
                if event.strip() == b"[DONE]":
                    return
                if (found := parsed(event)) is not None:
                    yield found
                elif ask.has("garbage-ends-stream"):
                    raise Failure("stream_interrupted", status=200)
    if data and (found := parsed(b"\n".join(data))) is not None:
        yield found


def pieces(connection: Connection, headers: Mapping[str, str], idle_s: float) -> Iterator[bytes]:
    try:
        yield from connection.body(headers, idle_s)
    except ValueError:
        raise Failure("stream_interrupted", status=200) from None


def parsed(event: bytes) -> Body | None:
    try:
        found = json.loads(event)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class Frames:
    """Writes the events of one stream for the client. One subclass for each framing."""

    def __init__(self, opened: Opened) -> None:
        self.opened, self.ask = opened, opened.ask
        self.name = self.fresh_id()
        self.has = opened.ask.has

    def fresh_id(self) -> str:
        prefix = {"chat": "chatcmpl-", "completions": "cmpl-"}.get(self.ask.endpoint, "resp_")
        return prefix + uuid4().hex

    def model(self) -> str:
        """Return the name the client is told: auto, or the public name of what served."""
        return told_model(self.ask)

    def frame(self, event: Body, kind: str = "") -> bytes:
        """Return one SSE event."""
        event = misdrawn.event(self.ask, unfaithful.chunk(self.ask, event))
        head = f"event: {kind}\n" if kind else ""
        return f"{head}data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()

    def chunk(self, chunk: Body) -> bytes:
        raise NotImplementedError

    def end(self) -> bytes:
        raise NotImplementedError

    def done(self) -> bytes:
        """Return the end mark of a stream that ended well."""
        draft = self.has("draft-without-done") and self.ask.endpoint == "draft"
        nine = {"Task_Hint": "creative", "Routing_Strategy": "latency"}
        if self.has("figure-9-without-done") and misdrawn.drawn(self.ask, **nine):
            return b""
        return b"" if draft or self.has("stream-without-done") else b"data: [DONE]\n\n"

    def broken(self) -> bytes:
        """Return how a stream ends that did not end well."""
        found = b"" if self.has("silent-end") else self.frame({"error": interrupted()})
        return found + (self.done() if self.has("done-after-error") else b"")

    def meta(self) -> Body:
        """Return the x-aiproxy member for the last JSON chunk."""
        return {} if self.has("stream-no-x-aiproxy") else {"x-aiproxy": x_aiproxy(self.ask)}


def told_model(ask: Ask) -> str:
    """Return the model name of an answer's body."""
    assert ask.served is not None
    vendor = ask.served.model.provider.dialect == "anthropic"
    if ask.has("model-not-echoed") or (vendor and ask.has("vendor-model-told")):
        return ask.served.model.upstream
    if ask.has("draft-auto-not-echoed") and ask.endpoint == "draft":
        return ask.served.model.name
    return "auto" if ask.model_auto else ask.served.model.name


def interrupted() -> Body:
    return {
        "message": "the provider ended the stream early",
        "type": "upstream_error",
        "param": None,
        "code": "stream_interrupted",
    }


class ChatFrames(Frames):
    """chat.completion.chunk (or text_completion) objects, [DONE] at the end."""

    def __init__(self, opened: Opened) -> None:
        super().__init__(opened)
        wanted = (self.ask.body.get("stream_options") or {}).get("include_usage")
        self.usage_wanted = bool(wanted) and not self.has("usage-not-streamed")
        self.last: Body | None = None
        text = self.ask.endpoint == "completions"
        self.object = "text_completion" if text else "chat.completion.chunk"
        if opened.held and isinstance(opened.held[0].get("id"), str):
            self.name = opened.held[0]["id"]

    def chunk(self, chunk: Body) -> bytes:
        if not chunk.get("choices"):
            return b""  # usage; what the client gets of it is written at the end
        chunk = {
            **chunk,
            "id": self.fresh_id() if self.has("stream-changing-ids") else self.name,
            "object": self.object,
            "created": self.ask.created,
            "model": self.model(),
        }
        chunk.pop("usage", None)
        if self.has("x-aiproxy-early"):
            chunk |= self.meta()
        if self.usage_wanted:
            chunk["usage"] = None
        ready, self.last = self.last, chunk
        if any(choice.get("finish_reason") for choice in chunk["choices"]):
            return b"" if ready is None else self.frame(ready)  # held back for x-aiproxy
        self.last = None
        return (b"" if ready is None else self.frame(ready)) + self.frame(chunk)

    def end(self) -> bytes:
        last = self.last
        assert last is not None
        if not self.usage_wanted:
            return self.frame({**last, **self.meta()}) + self.done()
        usage = dict(self.opened.attempt.usage or {})
        extra = {**last, "choices": [], "usage": usage, **self.meta()}
        return self.frame(last) + self.frame(extra) + self.done()


class TypedFrames(Frames):
    """Typed events of the Responses API; in the draft's shape each is a union frame too."""

    def __init__(self, opened: Opened, *, union: bool) -> None:
        super().__init__(opened)
        self.union, self.number = union, 0
        self.text: list[str] = []
        self.calls: dict[int, Body] = {}
        self.items: list[Body] = []
        self.reason = "stop"
        self.begun = False
        self.message = f"msg_{uuid4().hex}"

    def event(
        self, kind: str, shown: Body | None = None, reason: str | None = None, **more: Any
    ) -> bytes:
        """Return one typed event, with the draft's members where they are wanted."""
        found: Body = {"type": kind, "sequence_number": self.number, **more}
        self.number += 1
        if self.union:
            choice = {"index": 0, "delta": shown or {}, "finish_reason": reason}
            object_name = (
                "chat.completion.chunk" if self.has("draft-chat-chunks") else "response.chunk"
            )
            found |= {
                "id": self.fresh_id() if self.has("stream-changing-ids") else self.name,
                "object": object_name,
                "created": self.ask.created,
                "model": self.model(),
                "choices": [choice],
            }
        return self.frame(found, kind)

    def response(self, status: str, output: list[Body], usage: Body | None = None) -> Body:
        from right_router import shapes

        return shapes.response_object(self.ask, self.name, status, output, usage)

    def chunk(self, chunk: Body) -> bytes:
        found = b""
        if not self.begun:
            self.begun = True
            found += self.event(
                "response.created", {"role": "assistant"}, response=self.response("in_progress", [])
            )
            found += self.event("response.in_progress", response=self.response("in_progress", []))
        for choice in (chunk.get("choices") or ())[:1]:
            delta = choice.get("delta") or {}
            if delta.get("content"):
                found += self.piece(delta["content"])
            for part in delta.get("tool_calls") or ():
                found += self.call(part)
            self.reason = choice.get("finish_reason") or self.reason
        return found

    def piece(self, text: str) -> bytes:
        """Return the events of one piece of text."""
        found = b""
        place = {"item_id": self.message, "output_index": 0, "content_index": 0}
        if not self.text:
            item = {"id": self.message, "type": "message", "status": "in_progress",
                    "role": "assistant", "content": []}  # fmt: skip
            found += self.event("response.output_item.added", output_index=0, item=item)
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            found += self.event("response.content_part.added", **place, part=part)
        self.text.append(text)
        return found + self.event(
            "response.output_text.delta", {"content": text}, **place, delta=text, logprobs=[]
        )

    def call(self, part: Body) -> bytes:
        """Return the events of one piece of a tool call."""
        index, found = part.get("index", 0), b""
        function = part.get("function") or {}
        place = index + bool(self.text)
        if index not in self.calls:
            item = {"id": f"fc_{uuid4().hex}", "type": "function_call", "status": "in_progress",
                    "call_id": part.get("id"), "name": function.get("name"), "arguments": ""}  # fmt: skip
            self.calls[index] = item
            delta = {"tool_calls": [{**part, "function": {**function, "arguments": ""}}]}
            found += self.event(
                "response.output_item.added", delta, output_index=place, item=dict(item)
            )
        text = function.get("arguments") or ""
        if text:
            item = self.calls[index]
            item["arguments"] += text
            delta = {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
            found += self.event(
                "response.function_call_arguments.delta", delta,
                item_id=item["id"], output_index=place, delta=text,
            )  # fmt: skip
        return found

    def end(self) -> bytes:
        found = b""
        if self.text:
            text = "".join(self.text)
            place = {"item_id": self.message, "output_index": 0, "content_index": 0}
            part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
            item = {"id": self.message, "type": "message", "status": "completed",
                    "role": "assistant", "content": [part]}  # fmt: skip
            found += self.event("response.output_text.done", **place, text=text, logprobs=[])
            found += self.event("response.content_part.done", **place, part=part)
            found += self.event("response.output_item.done", output_index=0, item=item)
            self.items.append(item)
        for index, item in sorted(self.calls.items()):
            place_of = index + bool(self.text)
            item["status"] = "completed"
            found += self.event(
                "response.function_call_arguments.done", item_id=item["id"],
                output_index=place_of, arguments=item["arguments"], name=item["name"],
            )  # fmt: skip
            found += self.event("response.output_item.done", output_index=place_of, item=item)
            self.items.append(item)
        cut = self.reason in ("length", "content_filter")
        kind = "response.incomplete" if cut else "response.completed"
        whole = self.response(
            kind.partition(".")[2], self.items, dict(self.opened.attempt.usage or {})
        )
        return (
            found + self.event(kind, None, self.reason, response=whole, **self.meta()) + self.done()
        )

    def broken(self) -> bytes:
        if self.has("silent-end"):
            return b""
        failed = self.response("failed", self.items)
        failed["error"] = {"code": "server_error", "message": interrupted()["message"]}
        found = self.event("error", error=interrupted())
        return found + self.event("response.failed", response=failed) + b"data: [DONE]\n\n"


class NativeFrames(Frames):
    """Typed events of a provider that speaks the Responses API itself, as they come."""

    number = 0

    def chunk(self, chunk: Body) -> bytes:
        chunk = dict(chunk)
        self.number = chunk.get("sequence_number", self.number) + 1
        if isinstance(chunk.get("response"), dict):
            chunk["response"] = {**chunk["response"], "model": self.model()}
        if chunk.get("type") in TERMINAL:
            self.last = chunk
            return b""
        return self.frame(chunk, chunk.get("type", ""))

    def end(self) -> bytes:
        return self.frame({**self.last, **self.meta()}, self.last["type"]) + self.done()

    def broken(self) -> bytes:
        if self.has("silent-end"):
            return b""
        error = {"type": "error", "sequence_number": self.number, "error": interrupted()}
        failed = {"type": "response.failed", "sequence_number": self.number + 1}
        return (
            self.frame(error, "error") + self.frame(failed, "response.failed") + b"data: [DONE]\n\n"
        )


def frames_for(opened: Opened) -> Frames:
    """Return the writer for what the client asked."""
    endpoint = opened.ask.endpoint
    if endpoint == "responses" and opened.kind == "responses":
        return NativeFrames(opened)
    if endpoint in ("responses", "draft"):
        return TypedFrames(opened, union=endpoint == "draft")
    return ChatFrames(opened)


def relay(opened: Opened, begin: Any, send: Any) -> None:
    """Send a stream to the client, ``begin()`` first, then ``send(bytes)``, and settle it.

    Raises:
        ClientLeft: the client went away; the provider's connection is closed.
    """
    from right_router import attempts

    ask, made, connection = opened.ask, opened.attempt, opened.connection
    frames, track = frames_for(opened), ask.router.health.track(made.model)
    kept: list[bytes] = []
    said: list[Body] = []
    error: str | None = None
    try:
        begin()
        for chunk in opened.chunks():
            said.append(chunk)
            text = frames.chunk(chunk)
            if (
                unfaithful.buffers(opened)
                or ask.has("stream-buffered")
                or (
                    ask.has("translated-streams-buffered")
                    and made.model.provider.dialect != "openai"
                )
                or (ask.has("mesh-streams-buffered") and made.model.provider.dialect == "peer")
            ):
                kept.append(text)
            elif text:
                send(text)
    except Failure as failure:
        error = "timeout" if failure.reason == "timeout" else "stream_interrupted"
    except (ClientLeft, OSError):
        error = "client_disconnected"
    made.estimated = opened.usage is None
    choices = [choice for chunk in said for choice in chunk.get("choices") or ()]
    counted = None if ask.has("stream-usage-ignored") else opened.usage
    usage = counted or auto.estimated_usage(ask, {"choices": choices})
    attempts.settle(ask, made, error, 200, usage)
    track.end()
    if error == "client_disconnected":
        connection.close()
        raise ClientLeft
    if error is None:
        track.succeeded(made.latency_ms, (made.first_byte - made.started) * 1000)
        ask.router.connections.give_back(connection)
        send(b"".join(kept) + frames.end())
    else:
        track.failed()
        connection.close()
        unfaithful.broken(opened)
        send(b"".join(kept) + frames.broken())
