"""However the bytes of a stream are cut, the same events come out; cut short, it is never whole."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from fidelity.provider_writers import PROVIDERS
from fidelity.reply_grid import BY_NAME, events_of, wire_of
from fidelity.request_grid import there

from aiproxy.middleware.dialects.canonical import Finish, StreamCut, StreamError
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.dialects.sse import SSEParser

TESTS = Path(__file__).resolve().parents[2]
DIALECTS = [name for name in PROVIDERS if there(name) and hasattr(codec(name), "StreamDecoder")]
#: Streams in which most kinds of events come.
RICH = ("unicode", "reasoning, text and calls", "call with unicode arguments", "citation",
        "signed reasoning", "two choices", "text with stream marks")  # fmt: skip


def golden() -> Iterator[Any]:
    """Recorded streams: name, dialect, bytes."""
    for path in sorted((TESTS / "dialects" / "vectors").glob("stream.*.json")):
        vector = json.loads(path.read_text("utf-8"))
        yield pytest.param(vector["dialect"], vector["wire"].encode(), id=path.stem)
    for path in sorted((TESTS / "dialects").glob("*/**/*.sse")):
        dialect = path.relative_to(TESTS / "dialects").parts[0]
        yield pytest.param(dialect, path.read_bytes(), id=f"{dialect}/{path.stem}")
    corpus = json.loads((TESTS / "corpus" / "streams.json").read_text("utf-8"))
    for dialect in DIALECTS:
        wire = "".join(corpus).encode("utf-8", "surrogatepass")
        yield pytest.param(dialect, wire, id=f"{dialect}/corpus")
        for name in RICH:
            if PROVIDERS[dialect].says(BY_NAME[name], True):
                wire = wire_of(PROVIDERS[dialect].stream(BY_NAME[name]))
                yield pytest.param(dialect, wire, id=f"{dialect}/{name}")


def heard(dialect: str, parts: list[bytes]) -> list[Any]:
    """The events of a stream; how it ended comes last."""
    parser, decoder = SSEParser(), codec(dialect).StreamDecoder()
    found: list[Any] = []
    frames = [frame for part in parts for frame in parser.feed(part)] + parser.finish()
    for frame in frames:
        if frame.data is None or frame.is_done:
            continue
        try:
            payload = orjson.loads(frame.data)
        except ValueError:
            found.append("unreadable")
            continue
        if not isinstance(payload, dict):
            found.append("no object")
            continue
        found += decoder.feed(payload, frame.event)
    try:
        found += decoder.finish()
    except StreamCut:
        found.append("cut")
    return found


@pytest.mark.parametrize(("dialect", "wire"), list(golden()))
def test_any_cut_gives_the_same_events(dialect: str, wire: bytes) -> None:
    expected = heard(dialect, [wire])
    assert heard(dialect, [wire[i : i + 1] for i in range(len(wire))]) == expected
    step = max(1, len(wire) // 400)
    for place in range(0, len(wire), step):
        assert heard(dialect, [wire[:place], wire[place:]]) == expected
    for old, new in ((b"\n", b"\r\n"), (b"\n", b"\r"), (b"data: ", b"data:")):
        if b"\r" not in wire:
            assert heard(dialect, [wire.replace(old, new)]) == expected
    assert heard(dialect, [b"\xef\xbb\xbf: hello\n\n" + wire]) == expected


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", RICH)
def test_a_stream_that_stops_early_is_never_passed_off_as_whole(dialect: str, name: str) -> None:
    if not PROVIDERS[dialect].says(BY_NAME[name], True):
        pytest.skip("this API has no words for it")
    stream = PROVIDERS[dialect].stream(BY_NAME[name])
    whole = events_of(dialect, stream)
    for length in range(len(stream)):
        found = heard(dialect, [wire_of(stream[:length])])
        if found[-1] == "cut":
            continue
        # What was heard until here is a complete answer by the dialect's own rules: all of its
        # content came, only words about it are missing.
        assert not any(isinstance(event, StreamError) for event in found)
        ended = {event.choice: event for event in whole if isinstance(event, Finish)}
        heard_of = {getattr(event, "choice", 0) for event in found}
        assert {e.choice: e for e in found if isinstance(e, Finish)} == {
            choice: ended[choice] for choice in heard_of
        }
