"""One of two providers is killed and brought back under load; no client may notice."""

import asyncio
import http.client
import json
import threading
import time
from collections import Counter
from typing import Any

from mounts import HELLO
from upstreams import free_port

HEADERS = {"X-AI-Routing-Strategy": "round_robin", "content-type": "application/json"}
CLIENTS = 32
SECONDS = 4.0


class Killable:
    """An upstream whose listener and connections can be taken away and given back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.calls = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.revive()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def revive(self) -> None:
        self._do(self._open())

    def kill(self) -> None:
        self._do(self._close())

    def stop(self) -> None:
        self.kill()
        self._do(self._settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(5)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _settle(self) -> None:
        """Meet the connections that were being accepted while the listener closed, and end all."""
        await asyncio.sleep(0.1)
        for writer in list(self._writers):
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._server is None:
            writer.transport.abort()  # accepted while the listener closed
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                asked = json.loads(await reader.readexactly(length))
                self.calls += 1
                await asyncio.sleep(0.005)
                writer.write(self._answer(asked))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, asked: dict[str, Any]) -> bytes:
        text = f"stamp-{self.name}"
        base = {"id": "x", "created": 1, "model": asked["model"]}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps({**base, "object": "chat.completion", "choices": [choice]}).encode()
            kind = b"application/json"
        else:
            said = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            ends = {"index": 0, "delta": {}, "finish_reason": "stop"}
            parts = [
                {**base, "object": "chat.completion.chunk", "choices": [c]} for c in (said, ends)
            ]
            body = b"".join(b"data: %b\n\n" % json.dumps(part).encode() for part in parts)
            body += b"data: [DONE]\n\n"
            kind = b"text/event-stream"
        return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
            kind,
            len(body),
            body,
        )


def test_no_client_notices_a_killed_provider(mount: Any, fakes: Any) -> None:
    one, two = Killable("one"), Killable("two")
    served = mount(
        {
            "providers": {
                up.name: {
                    "type": "openai_compatible",
                    "endpoint": up.url,
                    "models": [{"name": "m", "quality": 0.5, "cost_per_1k_tokens": 0.001}],
                }
                for up in (one, two)
            },
            "routing": {"default_provider": "one"},
        }
    )
    wrong: list[str] = []
    tally: Counter[str] = Counter()
    over = time.monotonic() + SECONDS

    def client(number: int) -> None:
        stream = number % 2 == 0
        body = json.dumps({"model": "auto", "messages": HELLO, "stream": stream})
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
        while time.monotonic() < over:
            connection.request("POST", "/v1/chat/completions", body, HEADERS)
            reply = connection.getresponse()
            told = reply.read().decode()
            used = reply.getheader("x-ai-provider-used")
            tally[str(used)] += 1
            if reply.getheader("x-ai-failover-occurred"):
                tally["failed over"] += 1
            if reply.status != 200 or f"stamp-{used}" not in told or '"error"' in told:
                wrong.append(f"{reply.status} {used} {told[:300]}")
            elif stream and "data: [DONE]" not in told:
                wrong.append(f"no end: {told[-300:]}")
        connection.close()

    clients = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
    try:
        for thread in clients:
            thread.start()
        for _ in range(2):
            time.sleep(SECONDS / 5)
            one.kill()
            time.sleep(SECONDS / 5)
            one.revive()
        for thread in clients:
            thread.join(30)
        records = [row.record() for row in list(served.gateway.decisions._rows.values())]
    finally:
        one.stop()
        two.stop()
    assert wrong == [], (len(wrong), wrong[:3])
    assert tally["one"] > 10, tally
    assert tally["two"] > 10, tally
    assert tally["failed over"] > 0, tally
    for record in records:
        tries = record["attempts"]
        assert [row["outcome"] for row in tries] == ["failed"] * (len(tries) - 1) + ["ok"]
        assert tries[-1]["provider"] == record["selected"]["provider"]
        assert all(row["provider"] == "one" for row in tries[:-1])
        assert len(tries) <= 4
