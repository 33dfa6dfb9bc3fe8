"""Parts of a request inside one process, microseconds of CPU each.

Every round times every part; the median of the rounds counts, the least is shown beside it. No
network, no event loop: this is what the product's own code costs.
"""

import json
import time
from collections.abc import Callable
from itertools import cycle
from typing import Any

import orjson
import payloads
from tables import median, table

from aiproxy.middleware.answering.passing import PassThrough
from aiproxy.middleware.answering.prepare import prepare
from aiproxy.middleware.answering.relay import Translation
from aiproxy.middleware.dialects import chat, responses, sse
from aiproxy.middleware.dialects.canonical import Envelope
from aiproxy.middleware.disclosure import metadata, response_headers
from aiproxy.middleware.effects import Answer, Call, Read, Reply
from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.gateway import Gateway, Inbound
from aiproxy.middleware.intake.members import patch
from aiproxy.middleware.intake.validate import check_body
from aiproxy.middleware.intent import understand
from aiproxy.middleware.preferences import parse_headers

Part = Callable[[], object]

CHAT = "/v1/chat/completions"
PLAIN = (
    ("host", "127.0.0.1:8080"),
    ("user-agent", "openai-python/2.0"),
    ("accept", "application/json"),
    ("content-type", "application/json"),
    ("content-length", "300"),
    ("authorization", "Bearer sk-of-the-client"),
)
TEN = (
    ("x-ai-multi-provider", "enabled"),
    ("x-ai-provider-pool", "p0, p1, p2, p3"),
    ("x-ai-routing-strategy", "balanced"),
    ("x-ai-task-hint", "coding"),
    ("x-ai-quality-threshold", "0.2"),
    ("x-ai-max-latency", "20000"),
    ("x-ai-cost-limit", "0.50"),
    ("x-ai-failover-policy", "cascading"),
    ("x-ai-reasoning-preference", "native"),
    ("x-ai-conversation-id", "conv-0123456789"),
)
STRATEGIES = (
    *("cost", "latency", "quality", "capability-first"),
    *("balanced", "availability", "round_robin"),
)


def configuration(providers: int = 20, models: int = 20) -> dict[str, Any]:
    """Providers with models of different prices and qualities; `everywhere` is at each of them."""

    def row(place: int, number: int) -> dict[str, Any]:
        coding = ["code-generation"] if number % 2 else []
        return {
            "name": "everywhere" if number == 0 else f"m{place}-{number}",
            "model": f"upstream-{number}",
            "capabilities": ["text-generation", *coding],
            "cost_per_1k_tokens": 0.0004 * (1 + (7 * place + 3 * number) % 40),
            "quality": 0.3 + (place + number) % 13 / 20,
            "context_window": 128_000,
        }

    return {
        "providers": {
            f"p{place}": {
                "type": "openai_compatible",
                "endpoint": f"http://127.0.0.1:9/{place}/v1",
                "priority": 10 + place,
                "models": [row(place, number) for number in range(models)],
            }
            for place in range(providers)
        },
        "routing": {"default_provider": "p0"},
    }


def gateway(providers: int = 20, models: int = 20) -> Gateway:
    """A gateway that has served: every model has latencies of the last minute."""
    found = Gateway(configuration(providers, models), wrapped_app=False, scope="all")
    now = found.runtime.now()
    for place, model in enumerate(found.registry.models):
        for sample in range(64):
            ms = 200.0 + (place * 37 + sample * 11) % 400
            model.track.succeeded(now - 30 + sample / 10, ms, ms / 3)
    return found


def inbound(body: dict[str, Any], headers: tuple[tuple[str, str], ...] = ()) -> Inbound:
    return Inbound(CHAT, "chat", (*PLAIN, *headers), orjson.dumps(body))


def chat_body(model: str = "auto", *, stream: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(payloads.request(model, "sse" if stream else "small"))
    return body


def headers() -> dict[str, Part]:
    mixed = (*PLAIN, *TEN)
    return {
        "no X-AI header": lambda: parse_headers(PLAIN),
        "ten X-AI headers": lambda: parse_headers(mixed),
    }


#: Prompts of the requests a decision is timed with, in characters: no two in a row are alike.
PROMPTS = (40, 4_000, 300, 900, 60, 12_000, 150, 2_000)
#: Limits that turn some of the candidates away, and all of them are read by nobody here.
TIGHT = (
    ("x-ai-cost-limit", "0.010"),
    ("x-ai-quality-threshold", "0.5"),
    ("x-ai-max-latency", "590"),
)


def decisions(providers: int = 20, models: int = 20) -> dict[str, Part]:
    """400 candidates and prompts of changing length; ``with limits`` adds a cost limit, a quality
    threshold and a max latency that turn nobody away but for quality, ``tight limits`` ones that
    turn away about half of them."""
    large = gateway(providers, models)
    now = large.runtime.now()
    limits = tuple(row for row in TEN if row[0].endswith(("-limit", "-threshold", "-latency")))
    found: dict[str, Part] = {}

    def add(name: str, model: str, extra: tuple[tuple[str, str], ...]) -> None:
        intents = []
        for length in PROMPTS:
            body = {
                **chat_body(model),
                "messages": [{"role": "user", "content": "x " * (length // 2)}],
            }
            intent = Exchange(large, inbound(body, extra)).explain().intent
            assert intent is not None
            intents.append(intent)
        plans = [large.planner.plan(intent, now) for intent in intents]
        served = plans[0].ranked[0].model.track
        turns = cycle(intents)

        def fresh() -> None:
            # the model that served the last request has a new latency
            served.succeeded(now, 300.0, 100.0)
            large.planner.plan(next(turns), now)

        found[name] = fresh

    for strategy in STRATEGIES:
        said = (("x-ai-routing-strategy", strategy),)
        add(strategy, "auto", said)
        add(f"{strategy}, with limits", "auto", (*said, *limits))
        add(f"{strategy}, tight limits", "auto", (*said, *TIGHT))
    add(f"an explicit model at {providers} providers", "everywhere", TEN[:1])
    for part in found.values():
        for _ in PROMPTS:
            part()  # what is kept for a kind of request is there once it has come
    return found


def many() -> dict[str, Part]:
    """The same for 10,000 candidates."""
    return decisions(200, 50)


def bodies() -> dict[str, Part]:
    small = gateway(3, 2)
    raw = payloads.request("everywhere", "small")
    large = payloads.request("everywhere", "large")
    body, large_body = orjson.loads(raw), orjson.loads(large)
    plain = parse_headers(PLAIN)
    intent = understand("chat", body, plain, small.settings, small.registry)
    auto = Exchange(small, inbound(chat_body(), TEN[:1])).explain().intent
    assert auto is not None
    model = small.registry.models[0]
    auto_body = chat_body()
    auto_raw = orjson.dumps(auto_body)
    answer = payloads.answer("small")
    return {
        "parse, 300 B": lambda: orjson.loads(raw),
        "validate, 300 B": lambda: check_body("chat", body),
        "validate, 8 KB": lambda: check_body("chat", large_body),
        "understand": lambda: understand("chat", body, plain, small.settings, small.registry),
        "prepare, explicit model": lambda: prepare(intent, raw, body, model),
        "prepare, auto": lambda: prepare(auto, auto_raw, auto_body, model),
        "patch the model, 300 B": lambda: patch(raw, {"model": "mock-model"}),
        "patch the model, answer": lambda: patch(answer, {"model": "everywhere"}),
    }


def disclosures() -> dict[str, Part]:
    small = gateway(3, 2)
    asked = Exchange(small, inbound(chat_body(), (*TEN[:1], *TEN[2:5])))
    answer(asked, payloads.answer("small"))
    decision, settings = asked.decision, small.settings
    return {
        "response headers, auto and four headers": lambda: response_headers(decision, settings),
        "x-aiproxy": lambda: metadata(decision, settings),
        "the whole record": decision.record,
    }


def streams() -> dict[str, Part]:
    """Cost of a stream of 100 events, divided by 100."""
    frames = payloads.events()
    envelope = Envelope(
        id="x",
        created=1,
        model="everywhere",
        request={},
        include_usage=False,
        completed_at=lambda: 1,
    )
    decoder = chat.StreamDecoder()
    payload = [orjson.loads(frame[6:-2]) for frame in frames[:-1]]
    canonical = [event for part in payload for event in decoder.feed(part, None)]
    encoder = responses.StreamEncoder(envelope)
    for event in canonical:
        encoder.encode(event)

    def parse() -> None:
        parser = sse.SSEParser()
        for frame in frames:
            parser.feed(frame)

    def passed() -> None:
        relay = PassThrough("chat", "everywhere")
        for frame in frames:
            relay.feed(frame)

    def same_name() -> None:
        relay = PassThrough("chat", "mock-model")
        for frame in frames:
            relay.feed(frame)

    def translated() -> None:
        relay = Translation("chat", "responses", envelope)
        for frame in frames:
            relay.feed(frame)

    small = gateway(3, 2)
    request = inbound(chat_body("everywhere", stream=True))
    return {
        "SSE framing": parse,
        "pass-through, same model name": same_name,
        "pass-through, model name changed": passed,
        "translation chat to responses": translated,
        "a whole exchange": lambda: stream(Exchange(small, request), frames),
    }


def exchanges() -> dict[str, Part]:
    small, large = gateway(3, 2), gateway()
    reply, big = payloads.answer("small"), payloads.answer("large")
    requests = {
        "explicit model, no header": (small, inbound(chat_body("everywhere")), reply),
        "explicit model, 8 KB": (
            small,
            Inbound(CHAT, "chat", PLAIN, payloads.request("everywhere", "large")),
            big,
        ),
        "auto, ten headers, 6 candidates": (small, inbound(chat_body(), TEN), reply),
        "auto, ten headers, 400 candidates": (large, inbound(chat_body(), TEN), reply),
    }

    def part(which: Gateway, request: Inbound, body: bytes) -> Part:
        return lambda: answer(Exchange(which, request), body)

    found = {name: part(*given) for name, given in requests.items()}
    routing = {"default_provider": "p0", "load_balancing": {"health_aware": False}}
    patient = Gateway({**configuration(3, 2), "routing": routing}, wrapped_app=False, scope="all")
    found["explicit model, the first provider answers 500 twice"] = lambda: _failing(patient)
    return found


def _failing(which: Gateway) -> None:
    """The first candidate fails; its failures are forgotten, so that it is asked first each time."""
    which.registry.trouble_until = 0.0
    answer(Exchange(which, inbound(chat_body("everywhere"))), payloads.answer("small"), fails=2)


_HEAD = (("content-type", "application/json"),)


def answer(exchange: Exchange, body: bytes, *, fails: int = 0) -> None:
    """Drive an exchange with one good answer, after ``fails`` bad ones."""
    flow = exchange.run()
    effect = next(flow)
    reply: Reply | None = None
    try:
        for _ in range(fails):
            assert isinstance(effect, Call), effect
            effect = flow.send(Answer(500, _HEAD, b'{"error":{"message":"broken"}}'))
        assert isinstance(effect, Call), effect
        flow.send(Answer(200, _HEAD, body))
    except StopIteration as done:
        reply = done.value
    assert reply is not None, exchange.decision.error
    assert reply.status == 200, reply


def stream(exchange: Exchange, frames: list[bytes]) -> None:
    """Drive an exchange with a stream that arrives event by event."""
    flow = exchange.run()
    left = iter([*frames, b""])
    outcome: Any = None
    try:
        while True:
            effect = flow.send(outcome)
            outcome = None
            if isinstance(effect, Call):
                outcome = Answer(200, (("content-type", "text/event-stream"),), stream=object())
            elif isinstance(effect, Read):
                outcome = next(left, b"")
    except StopIteration:
        assert exchange.decision.status == 200, exchange.decision.error


def untouched() -> dict[str, Part]:
    """A request of a browser through a tiny ASGI application, without and with the middleware."""
    from apps.page import bare

    from aiproxy.middleware import AIProxyMiddleware

    mounted = AIProxyMiddleware(bare, {**configuration(2, 2), "routing": {"scope": "opt_in"}})
    names = (b"host", b"user-agent", b"accept", b"accept-language", b"accept-encoding", b"cookie")
    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "headers": [(name, b"whatever") for name in (*names, b"content-type", b"content-length")],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        return None

    def part(app: Any) -> Part:
        def run() -> None:
            try:
                app(scope, receive, send).send(None)
            except StopIteration:
                return
            raise AssertionError("it waited")

        return run

    return {"the application alone": part(bare), "behind the middleware": part(mounted)}


def health() -> dict[str, Part]:
    """What a finished call adds to what is known of its model and provider, a millisecond apart."""
    model = gateway(1, 1).registry.models[0]
    now = [1e6]

    def answered() -> None:
        now[0] += 0.001
        model.track.succeeded(now[0], 250.0, 80.0)
        model.provider.track.recovered(now[0])

    def failed() -> None:
        now[0] += 0.001
        model.track.failed(now[0], lambda: 0.5)

    def figures() -> None:
        model.track.latencies.estimate(now[0])

    return {"an answer": answered, "a failure": failed, "an estimate of its latency": figures}


def yardstick() -> dict[str, Part]:
    """What does not change from release to release: tells a slow machine from slow code."""
    raw = payloads.request("everywhere", "small")
    return {
        "orjson.loads of 300 B": lambda: orjson.loads(raw),
        "json.loads of 300 B": lambda: json.loads(raw),
        "a loop of 1000 additions": lambda: sum(i + 1 for i in range(1000)),
    }


GROUPS: dict[str, tuple[Callable[[], dict[str, Part]], int]] = {
    "Yardstick": (yardstick, 1),
    "Headers": (headers, 1),
    "Health": (health, 1),
    "Decision (planner.plan)": (decisions, 1),
    "Decision among 10,000": (many, 1),
    "Bodies": (bodies, 1),
    "Disclosure": (disclosures, 1),
    "Streams, an event": (streams, payloads.EVENTS),
    "A whole exchange without network": (exchanges, 1),
    "An untouched request": (untouched, 1),
}


def measure(parts: dict[str, Part], rounds: int, budget_s: float) -> dict[str, list[float]]:
    """Microseconds of CPU of each part, one number a round."""
    loops: dict[str, int] = {}
    for name, part in parts.items():
        part()
        began = time.perf_counter()
        part()
        loops[name] = max(1, int(budget_s / max(time.perf_counter() - began, 1e-7)))
    found: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, part in parts.items():
            turns = range(loops[name])
            began = time.process_time()
            for _turn in turns:
                part()
            found[name].append((time.process_time() - began) / loops[name] * 1e6)
    return found


def main(
    rounds: int = 9, budget_s: float = 0.05, only: str | None = None
) -> dict[str, dict[str, float]]:
    """Print all tables; return the medians by group and part."""
    figures: dict[str, dict[str, float]] = {}
    print("\n## micro\n")
    for title, (make, divisor) in GROUPS.items():
        if only is not None and only.lower() not in title.lower():
            continue
        found = measure(make(), rounds, budget_s)
        rows = [[n, median(v) / divisor, min(v) / divisor] for n, v in found.items()]
        print(f"### {title}\n")
        print(table(["what", "us, median", "us, least"], rows))
        figures[title] = {str(name): float(middle) for name, middle, _ in rows}
    return figures


if __name__ == "__main__":
    import sys

    main(only=sys.argv[1] if len(sys.argv) > 1 else None)
