"""What the tests of this dialect share: recorded streams and answers, and the SDK as a judge."""

import json
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest

from aiproxy.middleware.dialects import CanonicalEvent, Envelope, anthropic
from aiproxy.middleware.dialects.canonical import (
    AnnotationDelta,
    Finish,
    Opaque,
    OpaqueItem,
    Part,
    PartEnd,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
)
from aiproxy.middleware.dialects.sse import SSEParser

HERE = Path(__file__).parent
PYTHON = HERE.parents[2] / ".venvs" / "anthropic" / "bin" / "python"
HOW = "the anthropic SDK is not there; run: python scripts/sdk_venvs.py anthropic"


def judge(entries: list[dict[str, Any]], folder: Path) -> list[Any]:
    """Return the SDK's verdict on each entry; see ``judge.py``."""
    if not PYTHON.exists():
        if os.environ.get("AIPROXY_REQUIRE_SERVICES") == "1":
            pytest.fail(HOW)
        pytest.skip(HOW)
    file = folder / "entries.json"
    file.write_text(json.dumps(entries))
    ran = subprocess.run(
        [PYTHON, HERE / "judge.py", file], capture_output=True, text=True, timeout=240, check=False
    )
    assert ran.returncode == 0, ran.stderr
    told: list[Any] = json.loads(ran.stdout)
    return told


def decode(pieces: Iterable[bytes], **options: Any) -> list[CanonicalEvent]:
    """Return the events of a wire that arrives in ``pieces``."""
    parser, decoder = SSEParser(), anthropic.StreamDecoder(**options)
    events: list[CanonicalEvent] = []
    found = [e for piece in pieces for e in parser.feed(piece)]
    for event in (*found, *parser.finish()):
        if event.data is not None:
            events += decoder.feed(orjson.loads(event.data), event.event)
    return events + decoder.finish()


def encode(events: Iterable[CanonicalEvent], envelope: Envelope, extra: Any = None) -> bytes:
    encoder = anthropic.StreamEncoder(envelope)
    return b"".join(encoder.encode(event) for event in events) + encoder.finish(extra)


def assemble(events: Iterable[CanonicalEvent]) -> tuple[list[Part], Finish]:
    """Put events together to the parts of an answer, arguments as parsed JSON text."""
    parts: list[Any] = []
    calls: dict[int, int] = {}
    ended = True
    finish: Finish | None = None
    for event in events:
        last = parts[-1] if parts else None
        match event:
            case TextDelta(text):
                if isinstance(last, Text) and not ended:
                    parts[-1] = Text(last.text + text, last.annotations)
                else:
                    parts.append(Text(text))
                ended = False
            case AnnotationDelta(annotation):
                if not isinstance(last, Text) or ended:
                    parts.append(Text(""))
                    last, ended = parts[-1], False
                parts[-1] = Text(last.text, (*last.annotations, annotation))
            case RefusalDelta(text):
                parts.append(Refusal(text))
            case ReasoningDelta():
                new = Reasoning(event.text, signature=event.signature, encrypted=event.encrypted)
                if isinstance(last, Reasoning) and last.id == str(event.item):
                    new = Reasoning(
                        last.text + event.text,
                        signature=event.signature or last.signature,
                        encrypted=event.encrypted or last.encrypted,
                    )
                    parts.pop()
                parts.append(Reasoning(new.text, (), new.signature, new.encrypted, str(event.item)))
            case ToolCallStart(index, identity, name, kind):
                calls[index] = len(parts)
                parts.append(ToolCall(identity, name, "", kind))
            case ToolCallDelta(index, arguments):
                call = parts[calls[index]]
                parts[calls[index]] = ToolCall(
                    call.id, call.name, call.arguments + arguments, call.kind
                )
            case OpaqueItem(dialect, kind, value):
                parts.append(Opaque(dialect, kind, value))
            case PartEnd():
                ended = True
            case Finish():
                finish = event
            case _:
                pass
    assert finish is not None
    return [plain(part) for part in parts], finish


def plain(part: Part) -> Part:
    """Leave out what may differ between a stream and a whole answer: blanks inside JSON."""
    if isinstance(part, Reasoning):
        return Reasoning(part.text, (), part.signature, part.encrypted)
    try:
        if isinstance(part, ToolCall):
            text = orjson.dumps(orjson.loads(part.arguments)).decode()
            return ToolCall(part.id, part.name, text, part.kind)
        if isinstance(part, Text) and part.text.startswith("{"):
            return Text(orjson.dumps(orjson.loads(part.text)).decode(), part.annotations)
    except orjson.JSONDecodeError:
        pass
    return part


@pytest.fixture
def tools() -> dict[str, Callable[..., Any]]:
    """The functions above, by name (test modules cannot import one another)."""
    return {
        "judge": judge,
        "decode": decode,
        "encode": encode,
        "assemble": assemble,
        "plain": plain,
    }
