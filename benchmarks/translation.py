"""What a crossing from one dialect to another costs: 8 KB requests and answers, and stream events.

    python benchmarks/translation.py [--rounds 9] [--flame FILE]

Each part is timed by itself many times over; the median counts, against a target. A request is
decoded from the client's dialect and encoded in the provider's, an answer the other way round; both
as parsed JSON, as the router holds them. The bytes of a stream are parsed, decoded, encoded and
framed again. ``same dialect`` is what a stream costs that is passed on as it came.
``--flame`` writes the collapsed stacks of the slowest part, for any flame graph tool.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import orjson
from tables import median, table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "dialects"))

from fidelity.answers import Answer, Called, Used
from fidelity.features import BERN, CITY, PNG, ROME
from fidelity.provider_writers import PROVIDERS
from fidelity.reply_grid import wire_of

from aiproxy.middleware.dialects.canonical import (
    CanonicalRequest,
    Envelope,
    Image,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from aiproxy.middleware.dialects.codecs import SPOKEN_FOR, codec
from aiproxy.middleware.dialects.observe import observer
from aiproxy.middleware.dialects.sse import SSEParser

Part = Callable[[], object]

#: Microseconds of the median.
REQUEST_TARGET: Final = 150.0
EVENT_TARGET: Final = 25.0
WORDS: Final = "the quick brown fox jumps over the lazy dog and then some more text follows here "
INGRESS: Final = ("chat", "responses", "anthropic", "gemini")
ENVELOPE: Final = Envelope(id="resp_0123abcd", created=1_790_000_000, model="auto",
                           include_usage=True)  # fmt: skip
EVENTS: Final = 200


def conversation(source: str, *, picture: bool) -> CanonicalRequest:
    """About 8 KB: a system message, an image where there may be one, tools, a round of two calls,
    and talk."""

    def say(role: Any, text: str) -> Turn:
        return Turn(role, (Text(text),), form="string")

    calls = (ToolCall("call_a", "weather", BERN), ToolCall("call_b", "weather", ROME))
    results = tuple(
        Turn("tool", (ToolResult(call.id, (Text(WORDS * 4),)),), form="string") for call in calls
    )
    talk = tuple(say("assistant" if n % 2 else "user", WORDS * 7) for n in range(9))
    return CanonicalRequest(
        "m",
        (
            say("system", WORDS * 6),
            Turn("user", (Text("Look"), Image(data=PNG, media_type="image/png")))
            if picture
            else say("user", "Look"),
            Turn("assistant", calls, form="null"),
            *results,
            say("assistant", "Noted."),
            *talk,
        ),
        source,
        tools=tuple(Tool(name, description=WORDS, parameters=CITY) for name in ("weather", "map")),
        sampling=Sampling(temperature=0.5, max_tokens=900),
        stream=False,
    )


def long_answer() -> Answer:
    """About 8 KB: text and two calls."""
    calls = tuple(
        Called(f"call_{n}", "weather", orjson.dumps({"city": "Bern", "why": WORDS * 10}).decode())
        for n in range(2)
    )
    return Answer("long", WORDS * 75, calls=calls, finish="tool_calls", used=Used(900, 1900))


def spoken() -> Iterator[tuple[str, str]]:
    for ingress in INGRESS:
        for egress in SPOKEN_FOR[ingress]:
            if egress != ingress:
                yield ingress, egress


def requests() -> Iterator[tuple[str, Part]]:
    for ingress, egress in spoken():
        said = conversation(ingress, picture=egress != "workers_ai")
        body, _ = codec(ingress).encode_request(said, "m")
        body = {"model": "m", **orjson.loads(orjson.dumps(body))}
        read, write = codec(ingress).decode_request, codec(egress).encode_request

        def part(body: Any = body, read: Any = read, write: Any = write) -> object:
            return write(read(body), "upstream-name")

        yield f"{ingress} to {egress}", part


def answers() -> Iterator[tuple[str, Part]]:
    for ingress, egress in spoken():
        body = orjson.loads(orjson.dumps(PROVIDERS[egress].whole(long_answer())))
        read, write = codec(egress).decode_reply, codec(ingress).encode_reply

        def part(body: Any = body, read: Any = read, write: Any = write) -> object:
            return write(read(body), ENVELOPE, [])

        yield f"{egress} to {ingress}", part


def stream_of(dialect: str) -> bytes:
    """``EVENTS`` and a few more events of one text."""
    return wire_of(PROVIDERS[dialect].stream(Answer("stream", "word " * EVENTS)))


def streams() -> Iterator[tuple[str, Part]]:
    for ingress, egress in spoken():
        wire = stream_of(egress)

        def part(wire: bytes = wire, egress: str = egress, ingress: str = ingress) -> object:
            parser, decoder = SSEParser(), codec(egress).StreamDecoder()
            encoder = codec(ingress).StreamEncoder(ENVELOPE)
            sent = 0
            for frame in parser.feed(wire):
                for event in decoder.feed(orjson.loads(frame.data or b"{}"), frame.event):
                    sent += len(encoder.encode(event))
            for event in decoder.finish():
                sent += len(encoder.encode(event))
            return sent + len(encoder.finish())

        yield f"{egress} to {ingress}", part


def passed_on() -> Iterator[tuple[str, Part]]:
    """Frames are forwarded as they came: only looked at, never encoded."""
    for dialect in INGRESS:
        wire = stream_of(dialect)

        def part(wire: bytes = wire, dialect: str = dialect) -> object:
            parser, watch = SSEParser(), observer(dialect)
            for frame in parser.feed(wire):
                watch.feed(orjson.loads(frame.data or b"{}"), frame.event)
            return watch.usage

        yield f"{dialect}, same dialect", part


#: Title, parts, events of one turn, target in microseconds.
GROUPS: Final[tuple[tuple[str, Callable[[], Iterator[tuple[str, Part]]], int, float], ...]] = (
    ("A request of 8 KB", requests, 1, REQUEST_TARGET),
    ("An answer of 8 KB", answers, 1, REQUEST_TARGET),
    ("An event of a translated stream", streams, EVENTS, EVENT_TARGET),
    ("An event that is passed on", passed_on, EVENTS, EVENT_TARGET),
)


def timed(part: Part, rounds: int, budget_s: float) -> list[float]:
    """Microseconds of each call; as many as fit the budget, ``rounds`` at least."""
    part()
    found: list[float] = []
    until = time.perf_counter() + budget_s
    while len(found) < rounds or time.perf_counter() < until:
        began = time.perf_counter_ns()
        part()
        found.append((time.perf_counter_ns() - began) / 1000)
    return found


def main(rounds: int = 30, budget_s: float = 0.25) -> dict[str, dict[str, float]]:
    """Print all tables; return the medians by group and part."""
    figures: dict[str, dict[str, float]] = {}
    raw = orjson.dumps({"text": WORDS * 3})
    yardstick = median(timed(lambda: orjson.loads(raw), rounds, min(budget_s, 0.05)))
    print("\n## translation\n")
    print(f"Yardstick: orjson.loads of 300 B, {yardstick:.2f} us\n")
    for title, make, divisor, target in GROUPS:
        rows: list[list[Any]] = []
        for name, part in make():
            found = sorted(us / divisor for us in timed(part, rounds, budget_s))
            middle, slow = median(found), found[int(len(found) * 0.95)]
            rows.append([name, middle, slow, "" if middle < target else f"over {target:.0f}"])
        rows.sort(key=lambda row: -row[1])
        print(f"### {title}\n")
        print(table(["what", "us, p50", "us, p95", "target"], rows))
        figures[title] = {str(name): float(middle) for name, middle, *_ in rows}
    return figures


def flame(path: Path) -> str:
    """Write the collapsed stacks of the slowest part; return its name."""
    parts = [(f"{title}: {name}", part, divisor, target)
             for title, make, divisor, target in GROUPS for name, part in make()]  # fmt: skip
    name, part, _, _ = max(parts, key=lambda row: median(timed(row[1], 5, 0.05)) / row[2] / row[3])
    stacks: Counter[str] = Counter()
    began = time.perf_counter()

    def trace(frame: Any, event: str, _: object) -> None:
        nonlocal began
        now = time.perf_counter()
        held, names = frame, []
        while held is not None:
            module = Path(held.f_code.co_filename).stem
            names.append(f"{module}.{held.f_code.co_name}")
            held = held.f_back
        stacks[";".join(reversed(names))] += int((now - began) * 1e7)
        began = time.perf_counter()

    sys.setprofile(trace)
    try:
        for _ in range(200):
            part()
    finally:
        sys.setprofile(None)
    path.write_text("".join(f"{stack} {count}\n" for stack, count in stacks.items() if count))
    return name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--flame", type=Path)
    options = parser.parse_args()
    main(options.rounds)
    if options.flame:
        print(f"flame graph of {flame(options.flame)}")
