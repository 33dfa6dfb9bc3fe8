"""What one conversation is made of: a head that every turn reads, and its turns.

Turns are lines of JSON, ``{"d": dialect, "m": [messages]}``, oldest first: one line a turn, or one
for the whole account of a client that told it itself.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import orjson

from aiproxy.middleware.conversations import shapes
from aiproxy.middleware.conversations.shapes import Message

#: Messages of one dialect.
Run = tuple[str, list[Message]]


class Head(msgspec.Struct):
    """Everything about a conversation but its turns.

    ``root`` is the conversation its workflow began with; ``branches`` are ids by name. ``labels``
    and ``classes`` bind every later turn (XAI-WF-015). ``running`` are turns under way, each with
    the Unix time by which it is over. ``steps`` counts the steps of the workflow, at its root.
    ``base`` is how many answers a branch began with. ``edits`` counts changes of the turns;
    ``trimmed``: the oldest of them were let go of.
    """

    root: str
    parent: str | None = None
    branch: str | None = None
    branches: dict[str, str] = {}
    labels: list[str] = []
    classes: list[str] = []
    running: dict[str, float] = {}
    steps: int = 0
    base: int = 0
    edits: int = 0
    trimmed: bool = False

    def bind(self, labels: Iterable[str], classes: Iterable[str]) -> None:
        """Add to what later turns are held to."""
        self.labels = sorted({*self.labels, *labels})
        self.classes = sorted({*self.classes, *classes})

    def end(self, token: str, now: float) -> None:
        """A turn is over; so are those that should have been."""
        self.running = {k: v for k, v in self.running.items() if k != token and v > now}

    def busy(self, now: float) -> bool:
        """Whether a turn is under way."""
        return any(until > now for until in self.running.values())


_DECODER: Final = msgspec.json.Decoder(Head)


def read_head(raw: bytes) -> Head:
    """Return a head as it was written."""
    return _DECODER.decode(raw)


def write_head(head: Head) -> bytes:
    """Return a head as bytes."""
    return msgspec.json.encode(head)


def line(dialect: str, messages: Sequence[Message]) -> bytes:
    """Return one turn as it is kept."""
    return orjson.dumps({"d": dialect, "m": messages}) + b"\n"


def read_turns(raw: bytes) -> list[Run]:
    """Return the turns, what is in one dialect together."""
    found: list[Run] = []
    for row in raw.splitlines():
        entry: dict[str, Any] = orjson.loads(row)
        if found and found[-1][0] == entry["d"]:
            found[-1][1].extend(entry["m"])
        else:
            found.append((entry["d"], entry["m"]))
    return found


def answers(history: Sequence[Run]) -> int:
    """Return how many answers a history holds."""
    return sum(shapes.runs(dialect, messages) for dialect, messages in history)


def own_part(history: Sequence[Run], base: int) -> list[Run]:
    """Return what a branch added to the ``base`` answers it began with."""
    found: list[Run] = []
    for dialect, messages in history:
        count = shapes.runs(dialect, messages)
        if base > count:
            base -= count
            continue
        rest, base = shapes.after_runs(dialect, messages, base), 0
        if rest:
            found.append((dialect, rest))
    return found


def trimmed(raw: bytes, most: int) -> tuple[bytes, int] | None:
    """Return turns of at most ``most`` bytes, and how many answers were let go of.

    The oldest go first, up to a message that may begin a history: a call and its result stay
    together. Instructions at the beginning stay. ``None``: not even the newest turn fits.
    """
    if len(raw) <= most:
        return raw, 0
    history = read_turns(raw)
    first_dialect, first = history[0]
    kept: list[Message] = []
    for message in first:
        if not shapes.is_instruction(message):
            break
        kept.append(message)
    lead = line(first_dialect, kept) if kept else b""
    flat = [(dialect, message) for dialect, messages in history for message in messages]
    sizes = [len(orjson.dumps(message)) + 1 for _, message in flat]
    room = most - len(lead)
    size = sum(sizes[len(kept) :])
    for place in range(len(kept) + 1, len(flat)):
        size -= sizes[place - 1]
        if size > room or not shapes.opens(*flat[place]):
            continue
        rest = _lines(flat[place:])
        if len(rest) <= room:
            gone = answers(history) - answers(read_turns(rest))
            return lead + rest, gone
    return None


def _lines(flat: Sequence[tuple[str, Message]]) -> bytes:
    found: list[bytes] = []
    messages: list[Message] = []
    dialect = flat[0][0]
    for name, message in flat:
        if name != dialect:
            found.append(line(dialect, messages))
            dialect, messages = name, []
        messages.append(message)
    found.append(line(dialect, messages))
    return b"".join(found)
